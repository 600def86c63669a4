"""How long the command takes to answer, and what `import vigil` adds to torch. `make speed`."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.conftest import SpeedRow
from tests.worlds import ROOT


def best(*command: str, repeats: int = 5) -> float:
    """Seconds of the fastest of several runs of a command."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def test_help(speed_row: SpeedRow) -> None:
    ours = best(sys.executable, "-m", "cli", "--help")
    speed_row("lightning --help", ours, {}, "at most 1 s")
    assert ours < 1


def test_import_of_vigil(speed_row: SpeedRow) -> None:
    torch = best(sys.executable, "-c", "import torch")
    modules = "vigil, vigil.types, vigil.annotations, vigil.curves, vigil.mil, vigil.store, vigil.temporal, vigil.runs"
    ours = best(sys.executable, "-c", f"import torch, {modules}")
    speed_row("import of torch and vigil", ours, {"torch alone": torch}, "at most 0.3 s more than torch alone")
    assert ours - torch < 0.3
