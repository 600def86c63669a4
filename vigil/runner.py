"""The runner: every step of a benchmark as a process, each with its GPUs, killed and gone on with at will. No torch."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from vigil.cells import Step, gpus_of
from vigil.launchers import Job, Launcher
from vigil.provenance import provenance
from vigil.records import (
    DONE,
    FAILED,
    MISSING,
    NOT_RUN,
    NOT_THERE,
    STALE,
    UNFINISHED,
    Planned,
    changed_since,
    read_record,
    waits,
    write_record,
)
from vigil.staleness import fingerprint, look_again

POLL_S = 0.1
TAIL = 5  # lines of a log that tell why a step failed
STOPPED = (130, 143)  # a command's own exit statuses at SIGINT and SIGTERM


@dataclass
class Running:
    """A step under way."""

    planned: Planned
    job: Job
    gpus: list[str]
    since: float
    log_from: int
    record: dict[str, Any] = field(default_factory=dict)


class Runner:
    """Runs the steps of `chains`, a list of planned steps for each cell and seed, which are done one after another.

    A step that takes the checkpoint of another cell's fit waits for it, and is not run where that fit fails.
    gpus: names of this machine's, of which each step is handed as many as its machine's config names. jobs: how many
    steps without a GPU run at a time. finished: called with each test that is done, to keep its numbers; what it raises
    as ValueError or OSError fails the step. changed: called whenever a state changes, and now and then.
    """

    def __init__(
        self,
        chains: list[list[Planned]],
        launcher: Launcher,
        gpus: Sequence[str],
        jobs: int,
        finished: Callable[[Step], None],
        changed: Callable[[Runner], None] = lambda runner: None,
    ) -> None:
        self.chains, self.launcher, self.free = chains, launcher, list(gpus)
        self.pool, self.jobs, self.finished, self.changed = len(gpus), jobs, finished, changed
        self.running: list[Running] = []
        self._by_record = {planned.step.record: planned for chain in chains for planned in chain}
        self.stopping: int | None = None

    def run(self) -> int:
        """Every step that is not done. Returns the status: 0, 1 where one has no result in the end, 130 or 143."""
        with self._listening():
            while True:
                self._collect()
                if self.stopping is None:
                    self._start()
                self.changed(self)
                if not self.running:
                    break
                time.sleep(POLL_S)
        self._tell_what_waits()
        if self.stopping is not None:
            return 128 + self.stopping
        over = (DONE, NOT_THERE)  # one that somebody stopped alone is unfinished, and no success
        return int(any(planned.state not in over for chain in self.chains for planned in chain))

    # starting ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        for chain in self.chains:
            planned = self._next(chain)
            if planned is None or self.stopping is not None:
                continue
            needed = 0 if self.launcher.elsewhere else gpus_of(planned.step.cell, self.pool)
            without = sum(not one.gpus for one in self.running)
            if needed > len(self.free) or (not needed and not self.launcher.elsewhere and without >= self.jobs):
                continue
            claimed = [self.free.pop(0) for _ in range(needed)]
            try:
                self._launch(planned, claimed)
            except (ValueError, OSError) as error:
                self.free += claimed
                self._fail(planned, {"state": FAILED, "error": str(error)})

    def _next(self, chain: list[Planned]) -> Planned | None:
        """The first step of a chain that can be run, if none is running; tests wait for a fit, and for others' fits."""
        busy = {id(one.planned) for one in self.running}
        for planned in chain:
            if planned.state == DONE:
                continue
            if id(planned) in busy:
                return None
            if planned.state not in (MISSING, NOT_THERE) and not planned.tried and not self._waits(planned):
                return planned
            if planned.step.verb == "fit":
                return None
        return None

    def _waits(self, planned: Planned) -> str:
        return waits([self._by_record[fit.record] for fit in planned.step.waits_for()])

    def _tell_what_waits(self) -> None:
        for planned in self._by_record.values():
            if planned.state in (NOT_RUN, STALE, UNFINISHED):
                planned.why = self._waits(planned) or planned.why

    def _launch(self, planned: Planned, claimed: list[str]) -> None:
        step = planned.step
        step.folder.mkdir(parents=True, exist_ok=True)
        before = read_record(step.record)
        if before.get("state") == UNFINISHED:
            self.launcher.end(str(before.get("job", "")), lambda: self.stopping is not None)
        if self.stopping is not None:
            self.free += claimed
            return
        look_again()
        now = fingerprint(step)
        if changed_since(before, now):
            _set_aside(step)
        arguments = step.arguments()
        if step.verb == "test" and step.cell.fit is not None:
            arguments += ["--ckpt_path", str(checkpoint_of(step.folder))]
        for option, fit in step.needs().items():
            arguments += [f"--{option}", str(checkpoint_of(fit.folder))]
        command = [sys.executable, "-m", "cli", *arguments]
        record: dict[str, Any] = {"state": UNFINISHED, "fingerprint": now, "command": arguments}
        record |= {"started": _now(), "gpus": claimed, **provenance()}
        log = step.folder / "log.txt"
        if step.verb == "fit" and planned.state == UNFINISHED:
            record["before_s"] = before.get("wall_s", _seconds_until(before, log))
        with log.open("a") as stream:
            stream.write(f"\n$ lightning {' '.join(arguments)}\n")
        start = log.stat().st_size
        environment = _environment(claimed, self.jobs, self.launcher.elsewhere)
        write_record(step.record, record)
        job = self.launcher.start(command, log, environment, gpus_of(step.cell, self.pool))
        record["job"] = job.name
        write_record(step.record, record)
        planned.state, planned.why = "running", ""
        self.running.append(Running(planned, job, claimed, time.monotonic(), start, record))
        if self.stopping is not None:  # told while the command was being started
            job.stop(hard=False)

    # ending --------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        for one in list(self.running):
            status = one.job.poll()
            if status is None:
                continue
            self.running.remove(one)
            self.free += one.gpus
            step, record = one.planned.step, one.record
            record["wall_s"] = time.monotonic() - one.since + record.get("before_s", 0.0)
            record["status"] = status
            if status == 0:
                self._keep(one)
            elif self.stopping is not None or status in STOPPED:
                record["state"] = one.planned.state = UNFINISHED
                one.planned.tried = True  # somebody stopped this one command: the next run goes on with it
                write_record(step.record, record)
            else:
                said = last_lines(step.folder / "log.txt", one.log_from)
                self._fail(one.planned, {**record, "state": FAILED, "error": explained(status, said)})
            self.changed(self)

    def _keep(self, one: Running) -> None:
        step, record = one.planned.step, one.record
        try:
            if step.place.world is not None:  # rendered by the first step that needs them
                look_again()
                record["fingerprint"]["data"] = fingerprint(step)["data"]
            record |= {"finished": _now()}
            found = checkpoint_of(step.folder) if step.verb == "fit" else _result_of(step.folder, record["started"])
            record["result"] = os.path.relpath(found, step.folder)
            if step.verb == "test" and step.cell.fit is not None:
                record["fit"] = read_record(step.folder / "fit.json").get("finished")
            write_record(step.record, record)
            if step.verb == "test":
                self.finished(step)
            record["state"] = DONE  # only now: who is killed before that tests again
            write_record(step.record, record)
        except (ValueError, OSError, KeyError) as error:
            self._fail(one.planned, {**record, "state": FAILED, "error": f"its result cannot be read: {error}"})
            return
        one.planned.state, one.planned.why, one.planned.seconds = DONE, "", record["wall_s"]
        for later in self._after(one.planned):
            if later.state == DONE:  # a new fit makes its old tests stale
                later.state, later.why = STALE, "its fit was run again"

    def _fail(self, planned: Planned, record: dict[str, Any]) -> None:
        planned.state, planned.why = FAILED, record["error"]
        planned.tried = True
        write_record(planned.step.record, record)

    def _after(self, planned: Planned) -> list[Planned]:
        chain = next(chain for chain in self.chains if any(one is planned for one in chain))
        return chain[1:] if planned.step.verb == "fit" else []

    # being told to stop --------------------------------------------------------------------------------------------

    @contextmanager
    def _listening(self) -> Iterator[None]:
        def told(number: int, _: FrameType | None) -> None:
            again = self.stopping is not None
            self.stopping = self.stopping or number
            for one in self.running:
                one.job.stop(hard=again)

        before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold a benchmark's folder. Raises ValueError where another runner holds it; the kernel lets go at any death."""
    out.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(f"{out}: another runner is at work in this folder; wait for it, or give --out") from None
        yield
    finally:
        os.close(descriptor)


def checkpoint_of(folder: Path) -> Path:
    """The last checkpoint of the fit that finished last below a folder. Raises ValueError where there is none."""
    states = sorted(folder.glob("*/*/state.json"), key=lambda file: file.stat().st_mtime)
    for state in reversed(states):
        checkpoint = state.parent / "checkpoints" / "last.ckpt"
        if read_record(state)["state"] == "finished" and checkpoint.is_file():
            return checkpoint
    raise ValueError(f"{folder}: no finished fit with a checkpoint; delete fit.json there to fit again")


def last_lines(log: Path, start: int) -> str:
    """The last lines of a log from byte `start` on, from the one on that begins with "error:" if any does."""
    with log.open("rb") as stream:
        stream.seek(start)
        lines = [line.rstrip() for line in stream.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [number for number, line in enumerate(lines) if line.startswith("error:")]
    chosen = lines[errors[-1] :][:TAIL] if errors else lines[-TAIL:]
    return "\n".join(line[:500] for line in chosen)


def explained(status: int, said: str) -> str:
    """What a step said at its end, and what its status means where that says more."""
    if status == -signal.SIGKILL:
        return f"killed (signal 9), as the kernel does when memory runs out. It said last:\n{said}"
    if status < 0:
        return f"ended by signal {-status}. It said last:\n{said}"
    return said or f"exit status {status}, and it said nothing"


def _result_of(folder: Path, started: str) -> Path:
    """The folder that a test begun at a time left: of the metrics.json written since, the newest."""
    since = datetime.fromisoformat(started).timestamp() - 1
    files = [file for file in folder.glob("**/test-*/metrics.json") if file.stat().st_mtime >= since]
    if not files:
        raise ValueError(f"{folder}: the test left no metrics.json")
    return max(files, key=lambda file: file.stat().st_mtime).parent


def _set_aside(step: Step) -> None:
    """Rename the unfinished run folders of a stale step: another code or data must not go on from them."""
    if step.verb != "fit":
        return
    for state in step.folder.glob("*/*/state.json"):
        if read_record(state)["state"] != "finished":
            state.parent.rename(state.parent.with_name(f"{state.parent.name}-stale-{int(time.time())}"))


def _seconds_until(record: dict[str, Any], log: Path) -> float:
    """How long a step ran that was killed with its runner: until it last said something."""
    if not record.get("started") or not log.is_file():
        return 0.0
    began = datetime.fromisoformat(record["started"]).timestamp()
    return float(record.get("before_s", 0.0)) + max(0.0, log.stat().st_mtime - began)


def _environment(claimed: Sequence[str], jobs: int, elsewhere: bool) -> dict[str, str]:
    if elsewhere:
        return {}
    threads = max(1, (os.cpu_count() or 1) // max(1, jobs))
    cards = {"CUDA_VISIBLE_DEVICES": ",".join(claimed)} if claimed else {}
    return cards | ({"OMP_NUM_THREADS": str(threads)} if jobs > 1 and "OMP_NUM_THREADS" not in os.environ else {})


def _now() -> str:
    return datetime.now(UTC).isoformat()
