"""Where a number comes from: the code, the packages and the machine that made it. No torch."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "lightning", "torch", "torchvision", "transformers", "peft", "timm", "torchmetrics", "sentence-transformers",
    "av", "numpy", "scipy", "scikit-learn",
)  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent


@cache
def versions() -> dict[str, str]:
    """{package: version} of what decides a number, those that are installed; Python among them."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def commit() -> tuple[str, bool | None]:
    """The commit of Vigil's own folder, and whether code, configs or weights differ from it or are not in it.

    ("", None) where git cannot tell.
    """
    try:
        head = _git("rev-parse", "HEAD")
        return head, bool(_git("status", "--porcelain", "--", "*.py", "*.yaml", "*.txt", "weights"))
    except (OSError, subprocess.CalledProcessError):
        return "", None


@cache
def machine() -> str:
    """The processor with its cores, the memory, and the graphics cards where a driver names any."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [f"{_processor()} x {os.cpu_count()}", f"{memory_gib:.0f} GiB"]
    cards = gpus()
    return ", ".join(parts + ([f"{len(cards)} x {cards[0]}"] if cards else []))


@cache
def gpus() -> tuple[str, ...]:
    """The names of the machine's NVIDIA cards, as nvidia-smi lists them."""
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        done = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in done.stdout.splitlines() if line.strip())


def provenance() -> dict[str, object]:
    """Commit and whether dirty, package versions, machine."""
    head, dirty = commit()
    return {"commit": head, "dirty": dirty, "versions": versions(), "machine": machine()}


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
