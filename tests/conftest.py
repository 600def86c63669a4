"""What all tests share: where things are, and the speed table."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings and file facts of a test stay its own."""
    monkeypatch.setenv("VIGIL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real annotation files and videos, where this checkout has them beside it."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data, the real annotation files, which are not part of the project")
    return folder


SpeedRow = Callable[[str, float, dict[str, float], str], None]


@pytest.fixture(scope="session")
def speed_row() -> SpeedRow:
    """Records ours beside the others, in seconds; each row is printed and written to results/speed.json."""
    file = RESULTS / "speed.json"
    rows = {row["name"]: row for row in json.loads(file.read_text())["rows"]} if file.is_file() else {}

    def record(name: str, ours_s: float, others: dict[str, float], target: str) -> None:
        ratio = {other: seconds / ours_s for other, seconds in others.items()}
        rows[name] = {"name": name, "ours_s": ours_s, "others_s": others, "times_faster": ratio, "target": target}
        beside = ", ".join(f"{other} {1e3 * s:.2f} ms ({ratio[other]:.2f}x)" for other, s in others.items())
        machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
        file.write_text(json.dumps({"machine": machine, "rows": list(rows.values())}, indent=1) + "\n")
        print(f"\n{name}: {1e3 * ours_s:.2f} ms; {beside or 'nothing beside it'}; target: {target}")

    return record
