"""What is known of the steps of a benchmark: done, failed, stale, and why. No torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vigil.cells import Cell, Place, Step, gpus_of, steps_of, there_yet
from vigil.staleness import fingerprint, folder_digest, missing_weights, why_stale

DONE, FAILED, STALE, NOT_RUN, UNFINISHED, MISSING, NOT_THERE = (
    "done", "failed", "stale", "not run", "unfinished", "missing", "not there yet",
)  # fmt: skip


@dataclass
class Planned:
    """A step, its state and why; seconds: how long it took, or such a step took, None where none is known."""

    step: Step
    state: str
    why: str = ""
    seconds: float | None = None
    tried: bool = False  # by this runner, in vain


def read_record(file: Path) -> dict[str, Any]:
    """What a step's last run left, {} where there was none. Raises ValueError for a file that is none of ours."""
    if not file.is_file():
        return {}
    try:
        record: dict[str, Any] = json.loads(file.read_text())
        return {**record, "state": record["state"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file}: not a record of a step ({error}); delete it to run the step again") from None


def write_record(file: Path, record: dict[str, Any]) -> None:
    """Whole or not at all, whatever kills the runner."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(record, indent=1, default=str) + "\n")
    part.replace(file)


def state_of(step: Step, before: Planned | None, pool: int | None, needed: Sequence[Planned] = ()) -> Planned:
    """A step's state; before: the step of its cell and seed that comes first; pool: GPUs, None: found elsewhere.

    needed: the fits of other cells that come before it.
    """
    record = read_record(step.record)
    seconds = record.get("wall_s")
    if not there_yet(step.cell):
        return Planned(step, NOT_THERE, f"configs/systems/{step.cell.system}.yaml: this system has not landed")
    changed = changed_since(record, fingerprint(step))
    if record.get("state") == DONE:
        stale = _why_done_is_stale(step, record, before, changed) or waits(needed)
        return Planned(step, STALE if stale else DONE, stale, seconds)
    lacking = what_is_missing(step, pool)
    if lacking:
        return Planned(step, MISSING, "; also ".join(lacking))
    if record.get("state") == FAILED:
        return Planned(step, FAILED, record.get("error", "") + (f" (since then {changed})" if changed else ""))
    if changed:
        return Planned(step, STALE, f"unfinished, and {changed}")
    goes_on = "goes on from its last checkpoint" if step.verb == "fit" else ""
    return Planned(step, UNFINISHED, goes_on) if record else Planned(step, NOT_RUN, waits(needed))


def waits(needed: Sequence[Planned]) -> str:
    """What a step waits for, in words; empty where every fit that comes before it is done."""
    lacking = [f"{one.step.cell.name} ({one.state})" for one in needed if one.state != DONE]
    return f"waits for the fit of {' and '.join(lacking)}" if lacking else ""


def changed_since(record: dict[str, Any], now: dict[str, dict[str, str]]) -> str:
    """What differs now from when a step was run, in words; data that it rendered itself were not there before."""
    then = record.get("fingerprint")
    if not then:
        return ""
    data = {
        name: now["data"].get(name, "") if found == "nothing there" else found for name, found in then["data"].items()
    }
    return why_stale({**then, "data": data}, now)


def _why_done_is_stale(step: Step, record: dict[str, Any], fit: Planned | None, changed: str) -> str:
    """Why the result of a step no longer stands, empty where it does."""
    result = step.folder / record["result"]
    if not result.exists():
        return f"{result} is gone"
    if step.verb == "test" and not (result / "row.json").is_file():
        return f"{result / 'row.json'} is gone"
    if changed or fit is None:
        return changed
    if fit.state != DONE:
        return f"its fit is {fit.state}"
    if record.get("fit") != read_record(fit.step.record).get("finished"):
        return "its fit is not the one that was tested"
    return ""


def what_is_missing(step: Step, pool: int | None) -> list[str]:
    """What stands in the way of a step on this machine, and how to get it: data, GPUs."""
    lacking = []
    if step.place.world is None:
        root = step.place.root(step.dataset, step.settings())
        if folder_digest(Path(root)) == "nothing there":
            lacking.append(
                f"data: no files in {root}; get {step.dataset} from its authors, see the README, and give "
                f"--data FOLDER with a folder {Path(root).name} in it"
            )
    settings = step.settings()
    lacking += [text for name, text in missing_weights(settings).items() if name.startswith("weights/")]
    wanted = gpus_of(step.cell, pool or 0)
    if pool is not None and wanted > pool:
        lacking.append(f"{wanted} GPU for machine {step.cell.machine}, {pool} here; give --gpus, or --machine cpu")
    return lacking


def plan(cells: list[Cell], place: Place, pool: int | None) -> list[list[Planned]]:
    """The state of every step, a list for each cell and seed in the order that they are done."""
    known: dict[Path, Planned] = {}

    def planned(step: Step, fit: Planned | None) -> Planned:
        if step.record not in known:
            needed = [planned(one, None) for one in step.waits_for()]
            known[step.record] = state_of(step, fit, pool, needed)
        return known[step.record]

    found = []
    for cell in cells:
        for steps in steps_of(cell, place):
            chain: list[Planned] = []
            for step in steps:
                chain.append(planned(step, chain[0] if chain and chain[0].step.verb == "fit" else None))
            found.append(chain)
    _estimate(found)
    return found


def commands_of(step: Step) -> list[list[str]]:
    """The arguments of every `lightning` command that a step's result came of, in order: other cells' fits first."""
    before = [*step.needs().values()]
    if step.verb == "test" and step.cell.fit is not None:
        before.append(Step(step.cell, step.seed, "fit", step.cell.fit, step.place))
    found = [command for one in before for command in commands_of(one)]
    found.append(read_record(step.record)["command"])
    return [command for number, command in enumerate(found) if command not in found[:number]]


def _estimate(chains: list[list[Planned]]) -> None:
    """Give steps that never ran the mean time of those of the same system, verb and dataset."""
    known: dict[tuple[str, str, str], list[float]] = {}
    for planned in (one for chain in chains for one in chain if one.seconds is not None):
        assert planned.seconds is not None
        known.setdefault(_kind(planned.step), []).append(planned.seconds)
    for planned in (one for chain in chains for one in chain if one.seconds is None):
        alike = known.get(_kind(planned.step))
        planned.seconds = sum(alike) / len(alike) if alike else None


def _kind(step: Step) -> tuple[str, str, str]:
    return step.cell.system, step.verb, step.dataset


def weights_lacking(chains: list[list[Planned]]) -> dict[str, str]:
    """{model: how to get it} of the weights that the steps still to be run lack on this machine."""
    waiting = [one.step for chain in chains for one in chain if one.state not in (DONE, NOT_THERE)]
    return {name: text for step in waiting for name, text in missing_weights(step.settings()).items()}
