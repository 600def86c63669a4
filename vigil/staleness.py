"""What a step's result depends on, and whether that changed since: configuration, code, data, weights. No torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vigil.cells import ROOT, Step

SHOWN = 3  # differences that a reason names
WEIGHTS = (  # keys that may name a file or a model
    *("model.backbone", "model.clip", "model.encoder", "model.weights", "model.ranker", "model.start_from"),
)
OWN_CODE = ("vigil", "lightning_modules", "datamodules", "callbacks", "cli", "lightning_cli")
NO_PART = ("runs", "trainer.enable_", "trainer.logger", "data.num_workers", "data.root")  # change no number


def fingerprint(step: Step) -> dict[str, dict[str, str]]:
    """{"config", "code", "data", "weights": {what: its digest or value}} of a step, as things are now.

    Among the weights are the checkpoints of other cells' fits, each by all that its own fit was run with.
    """
    settings = step.settings()
    named = {key: weights_digest(str(settings[key])) for key in WEIGHTS if settings.get(key)}
    config = {key: json.dumps(value, sort_keys=True, default=str) for key, value in settings.items()}
    return {
        "config": {key: value for key, value in config.items() if not key.startswith(NO_PART)},
        "code": code_of(str(settings.get("model.class_path")), str(settings.get("data.class_path"))),
        "data": {step.dataset: folder_digest(Path(step.place.root(step.dataset, settings)))},
        "weights": named | {option: _fitted(fit) for option, fit in step.needs().items()},
    }


def _fitted(fit: Step) -> str:
    """What the last checkpoint of a fit is known by: what the fit was run with, and the file."""
    record = json.loads(fit.record.read_text()) if fit.record.is_file() else {}
    if "result" not in record:
        return "not fitted"
    parts = {part: digest(of_part) for part, of_part in record["fingerprint"].items()}
    return f"{digest(parts)}, {weights_digest(str(fit.folder / record['result']))}"


def look_again() -> None:
    """Forget what files said: they may have changed since."""
    for remembered in (code_of, folder_digest, _read, _imports, _file_of):
        remembered.cache_clear()


def digest(part: Mapping[str, str]) -> str:
    """16 hexadecimal digits of one part of a fingerprint."""
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:16]


def why_stale(then: Mapping[str, Mapping[str, str]], now: Mapping[str, Mapping[str, str]]) -> str:
    """What differs between two fingerprints, in words; empty where nothing does."""
    reasons = []
    for part in ("config", "code", "data", "weights"):
        old, new = then.get(part, {}), now.get(part, {})
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        if changed:
            named = [_difference(part, key, old.get(key), new.get(key)) for key in changed[:SHOWN]]
            more = [f"{len(changed) - SHOWN} more"] if len(changed) > SHOWN else []
            reasons.append(f"{part}: {', '.join(named + more)}")
    return "; ".join(reasons)


def _difference(part: str, key: str, old: str | None, new: str | None) -> str:
    if part == "config":
        return f"{key} {'unset' if old is None else old} -> {'unset' if new is None else new}"
    state = "new" if old is None else "gone" if new in (None, "nothing there") else "changed"
    return f"{key} {state}"


@cache
def code_of(system: str, dataset: str) -> dict[str, str]:
    """{file: digest} of this project's code that a system on a dataset runs: what their files import, and so on.

    A class from elsewhere, one's own, is found as its module beside the project or below the current folder.
    """
    start = [ROOT / "cli.py", ROOT / "lightning_cli.py", *sorted((ROOT / "callbacks").glob("*.py"))]
    start += [file for file in (_file_of(name) for name in (system, dataset)) if file is not None]
    found: dict[str, str] = {}
    waiting = list(dict.fromkeys(start))
    while waiting:
        file = waiting.pop()
        name = os.path.relpath(file, ROOT)
        if name in found:
            continue
        text = _read(file)
        found[name] = hashlib.sha256(text.encode()).hexdigest()[:16]
        waiting += _imports(file)
    return found


@cache
def _read(file: Path) -> str:
    return file.read_text()


@cache
def _imports(file: Path) -> tuple[Path, ...]:
    """The files of this project that a file imports by their own names; a package's __init__ is no part of it."""
    modules = re.findall(r"^\s*(?:from|import) ([\w.]+)", _read(file), flags=re.MULTILINE)
    names = re.findall(r"^\s*from (\w+) import ([\w, ]+)", _read(file), flags=re.MULTILINE)
    modules += [f"{package}.{name.strip()}" for package, some in names for name in some.split(",")]
    files = (ROOT.joinpath(*module.split(".")).with_suffix(".py") for module in modules if module.startswith(OWN_CODE))
    return tuple(file for file in files if file.is_file())


@cache
def _file_of(class_path: str) -> Path | None:
    """The file that a class of a config stands in."""
    module, _, name = class_path.rpartition(".")
    if module and module.split(".")[0] not in ("lightning_modules", "datamodules"):
        file = Path(*module.split(".")).with_suffix(".py")
        return file.resolve() if file.is_file() else None
    for folder in ("lightning_modules", "datamodules"):
        for file in sorted((ROOT / folder).glob("*.py")):
            if re.search(rf"^class {name}\b", _read(file), flags=re.MULTILINE):
                return file
    return None


@cache
def folder_digest(folder: Path) -> str:
    """A digest of the names, sizes and times of all files below a folder; "nothing there" where it has none."""
    lines = []
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                stat = os.stat(os.path.join(parent, name))
                lines.append(f"{os.path.relpath(parent, folder)}/{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] if lines else "nothing there"


def weights_digest(name: str) -> str:
    """A digest of the file or folder that a name stands for, here or beside the project; another model's name."""
    for path in (Path(name), ROOT / name):
        if path.is_dir():
            return folder_digest(path)
        if path.is_file():
            stat = path.stat()
            return f"{stat.st_size} bytes, {stat.st_mtime_ns}"
    return name


def missing_weights(settings: Mapping[str, Any]) -> dict[str, str]:
    """{model: in words how to get it} of the weights that a system's settings name and this machine lacks."""
    if settings.get("model.weights") == "random":
        return {}
    lacking = {}
    for key in ("model.backbone", "model.clip"):
        name = settings.get(key)
        if name and weights_digest(str(name)) == name and not _cached(str(name)):
            size = download_gb(str(name))
            sized = f", about {size:.0f} GB" if size else ""
            told = f"weights {name}{sized}: fetched from the hub at the first run, or give {key} a folder"
            made = (
                f"weights {name}: no such folder; python -m vigil.internvl_conversion makes it, as the file's head says"
            )
            lacking[str(name)] = made if str(name).startswith("weights/") else told
    encoder = settings.get("model.encoder")
    if encoder and settings.get("model.weights") == "pretrained" and not _cached(f"timm/{encoder}", whole=False):
        lacking[str(encoder)] = f"weights of timm's {encoder}: fetched from the hub at the first run"
    return lacking


def download_gb(name: str) -> float | None:
    """Gigabytes of a model's weights in 16 bits, by the parameters that its name tells, as 8B; None without."""
    found = re.search(r"(\d+(?:\.\d+)?)b(?![a-z0-9])", name.lower())
    return 2 * float(found.group(1)) if found else None


def _cached(name: str, whole: bool = True) -> bool:
    """Whether the hub's cache holds a model; not whole: any whose name begins so."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    pattern = f"models--{name.partition('@')[0].replace('/', '--')}{'' if whole else '*'}/snapshots/*"
    return any(hub.glob(pattern))
