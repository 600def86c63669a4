"""What the runner shows while it runs: a table that is kept up to date, or a line for each change."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table

from vigil.records import DONE, FAILED, MISSING, NOT_THERE

if TYPE_CHECKING:
    from vigil.runner import Runner

STYLE = {DONE: "green", FAILED: "red", "running": "bold", MISSING: "yellow", NOT_THERE: "dim"}
EVERY_S = 0.5
TAIL_BYTES = 2000


class View:
    """On a terminal a live table of all steps; elsewhere a line when a step begins or ends."""

    def __init__(self, out: Path) -> None:
        self.console = Console(soft_wrap=True)
        self.out = out
        self._live: Live | None = None
        self._said: dict[int, str] = {}
        self._last = 0.0

    def __enter__(self) -> View:
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def changed(self, runner: Runner) -> None:
        """Say what is new."""
        self._say_lines(runner)
        if self._live is not None and time.monotonic() - self._last > EVERY_S:
            self._last = time.monotonic()
            self._live.update(self._table(runner), refresh=True)

    def _say_lines(self, runner: Runner) -> None:
        steps = [planned for chain in runner.chains for planned in chain]
        over = sum(planned.state in (DONE, FAILED, MISSING, NOT_THERE) for planned in steps)
        first = not self._said
        for planned in steps:
            before, self._said[id(planned)] = self._said.get(id(planned)), planned.state
            if planned.state == before or (first and planned.state not in (FAILED, MISSING, NOT_THERE)):
                continue
            step = planned.step
            took = f" in {planned.seconds:.0f} s" if planned.state == DONE and planned.seconds is not None else ""
            why = f": {planned.why}" if planned.why and planned.state != "running" else ""
            seed = f", seed {step.seed}" if len(step.cell.seeds) > 1 else ""
            line = f"{over}/{len(steps)} {step.cell.name}{seed}, {step.name}: {planned.state}{took}{why}"
            if self._live is None or planned.state in (FAILED, MISSING):
                self.console.print(line, markup=False, highlight=False)
        if runner.stopping is not None and not self._said.get(0):
            self._said[0] = "told"
            sys.stderr.write(
                "Stopping: steps under way leave a checkpoint; Ctrl-C again ends them at once. "
                "The same command goes on where it stopped.\n"
            )

    def _table(self, runner: Runner) -> Table:
        table = Table("cell", "seed", "step", "state", "time", "GPU", "says", title=str(self.out))
        running = {id(one.planned): one for one in runner.running}
        steps = [planned for chain in runner.chains for planned in chain]
        shown = [one for one in steps if id(one) in running] + [one for one in steps if id(one) not in running]
        for planned in shown[: max(5, self.console.height - 6)]:
            one = running.get(id(planned))
            seconds = time.monotonic() - one.since if one else planned.seconds if planned.state == DONE else None
            says = _last_line(planned.step.folder / "log.txt") if one else (planned.why.splitlines() or [""])[0]
            took = "" if seconds is None else f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
            step = planned.step
            row = [step.cell.name, str(step.seed), step.name, planned.state, took, ",".join(one.gpus) if one else ""]
            table.add_row(*row, says[:60], style=STYLE.get(planned.state))
        return table


def _last_line(log: Path) -> str:
    with log.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - TAIL_BYTES))
        lines = stream.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
