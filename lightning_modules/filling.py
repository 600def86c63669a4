"""Filling a store: every reading of a frozen backbone that is missing, read once, by all processes together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch import Tensor

from vigil.store import Store
from vigil.types import Clip, Video, View

if TYPE_CHECKING:
    from datamodules.clips import Part
    from lightning_modules.system import System

TURN_S = 60  # how long a process reads before it asks whether the others are done


def fill(system: System, store: Store, videos: Sequence[Video], stream: str, view: View, names: list[str]) -> None:
    """Have the tensors `names` of all `videos` in the store; all processes of the system's trainer call it together.

    The datamodule says of which parts: whole videos, or the events in them, each under names of its own. The processes
    share out what is missing, by length, and keep each video as soon as it is finished: what is killed goes on with the
    rest, and another run that fills the same store is not in the way. A damaged file is reported and read anew. Raises
    ValueError for a name that `System.read` does not give, and OSError where readings cannot be written.
    """
    data, strategy, world = system.trainer.datamodule, system.trainer.strategy, system.trainer.world_size
    there = {v.name: v for v in videos if v.features is None and v.path is not None}  # a stream is not there to be read
    for video in list(there.values())[system.global_rank :: world]:
        store.path(video.path)  # hashes what no run has seen before
    strategy.barrier("hashed")
    data.memory.reload()  # with what the other processes found
    parts: dict[str, list[Part]] = {name: [] for name in there}
    for part in data.parts(list(there.values())):
        parts[part.video.name].append(part)
    # one process says for all: another run may be writing while they look
    missing = strategy.broadcast(lacking(store, parts, names) if system.trainer.is_global_zero else None)
    parts = {name: [part for part in parts[name] if part.suffix in gone] for name, gone in missing.items()}
    system.videos_stored += len(there) - len(missing)
    if not missing:
        rank_zero_info(f"Nothing to read: {len(there)} videos are in {store.folder}")
        return
    start = time.perf_counter()
    rank_zero_info(f"Reading {len(missing)} videos with the frozen backbone, once; kept in {store.folder}")
    n_rows = {name: sum(len(part.frames(view)) for part in some) for name, some in parts.items()}
    share = [part for name in share_out(n_rows, world)[system.global_rank] for part in parts[name]]
    n_read, done = 0, False
    reading = read_share(system, store, share, stream, view, names)
    while not strategy.reduce_boolean_decision(done, all=True):  # who waits longer than half an hour is given up
        n_more, done = work(reading, TURN_S)
        n_read += n_more
    n_read = int(strategy.reduce(torch.tensor(n_read, device=strategy.root_device), reduce_op="sum"))
    seconds = time.perf_counter() - start
    rank_zero_info(f"{n_read} windows in {seconds:.1f} s, {n_read / seconds:.1f} windows/s.")
    gone = [name for name, some in parts.items() if not kept_as(some, names) <= set(store.names(there[name].path))]
    if gone:
        raise FileNotFoundError(
            f"{store.folder}: the readings of {', '.join(gone[:10])} were written by another process and are not here; "
            "VIGIL_CACHE must be a folder that all machines share, and nobody may prune it meanwhile"
        )


def kept_as(parts: Sequence[Part], names: Sequence[str]) -> set[str]:
    """What the tensors `names` of the parts are called in a video's file."""
    return {name + part.suffix for part in parts for name in names}


def lacking(store: Store, parts: Mapping[str, Sequence[Part]], names: Sequence[str]) -> dict[str, list[str]]:
    """{video: the suffixes of its parts of which a tensor is missing in the store}, of the videos that lack any.

    What is damaged there is reported and removed.
    """
    found = {}
    for name, some in parts.items():
        try:
            gone = [part.suffix for part in some if store.read(part.video.path, kept_as([part], names)) is None]
        except ValueError as damage:
            rank_zero_info(f"{str(damage).removesuffix('; delete the file')}: read anew")
            store.discard(some[0].video.path)
            gone = [part.suffix for part in some]
        if gone:
            found[name] = gone
    return found


def share_out(size: Mapping[str, int], world: int) -> list[list[str]]:
    """The names in `world` shares of about the same size: the largest first, each to the share that has least."""
    shares: list[list[str]] = [[] for _ in range(world)]
    load = [0] * world
    for name in sorted(size, key=lambda name: (-size[name], name)):
        least = load.index(min(load))
        shares[least].append(name)
        load[least] += size[name]
    return shares


def work(steps: Iterator[int], seconds: float) -> tuple[int, bool]:
    """Take steps for so long: the sum of what they gave, and whether there are no more."""
    total, until = 0, time.monotonic() + seconds
    for step in steps:
        total += step
        if time.monotonic() > until:
            return total, False
    return total, True


@torch.no_grad()
def read_share(
    system: System, store: Store, parts: list[Part], stream: str, view: View, names: list[str]
) -> Iterator[int]:
    """Read and keep the parts that fell to this process, video by video; yields how many windows each step read."""
    if not parts:
        return
    store.prepare()  # a closed folder is to be known before the work, not after
    system.load_backbone()
    was_training = {module: module.training for module in system.modules()}
    system.to(system.trainer.strategy.root_device)
    system.eval()
    due: dict[str, list[Part]] = {}  # of each video, in order
    for part in parts:
        due.setdefault(part.video.name, []).append(part)
    n_rows = {name: sum(len(part.frames(view)) for part in some) for name, some in due.items()}
    rows: list[dict[str, Tensor]] = []  # of the part that is being read
    read: dict[str, Tensor] = {}  # of the video that it is of, what is finished
    with isolate_rng(include_cuda=False), Bar(system, sum(n_rows.values())) as bar:

        def wanted(video: Video) -> bool:
            if not kept_as(due[video.name], names) <= set(store.names(video.path)):
                return True
            bar.advance(bar.task, n_rows[video.name])  # another run was faster
            return False

        for clip in system.trainer.datamodule.pixel_clips(parts, stream, view, wanted):
            rows.append(say(system, clip.to(system.device), stream, names))
            bar.advance(bar.task, len(clip.video))
            some = due[clip.video[0]]
            if sum(len(row[names[0]]) for row in rows) == len(some[0].frames(view)):
                read |= {name + some[0].suffix: torch.cat([row[name] for row in rows]) for name in names}
                rows = []
                part = some.pop(0)
                if not some:
                    store.write(part.video.path, read)
                    read = {}
            yield len(clip.video)
    for module, training in was_training.items():
        module.training = training


def say(system: System, clip: Clip, stream: str, names: Sequence[str]) -> dict[str, Tensor]:
    """The asked tensors of what the system reads of a clip, on the CPU, a row per window."""
    with system.trainer.precision_plugin.forward_context():
        said = system.read(clip, stream)
    kind, n_windows = type(system).__name__, len(clip.video)
    absent = [name for name in names if name not in said]
    if absent:
        raise ValueError(f"{kind}.read gives {', '.join(said)}, and not {', '.join(absent)} that was asked for")
    for name in names:
        if len(said[name]) != n_windows:
            raise ValueError(f"{kind}.read gives {len(said[name])} rows of {name}, there are {n_windows} windows")
    return {name: said[name].cpu() for name in names}


def say_what_is_kept(system: System, stage: str) -> None:
    """Print how many videos of each split of a stage are in the store, how large their files are, and where."""
    data = system.trainer.datamodule
    for split, stream, view in system.watched(stage):
        store, names = data.stores.get((stream, view), (None, []))
        if store is None:
            continue
        files = {store.path(video.path) for video in data.known(split) if video.path and not video.features}
        n_bytes = sum(file.stat().st_size for file in files)
        rank_zero_info(f"{split}: {', '.join(names)} of {len(files)} videos, {n_bytes:,} bytes in {store.folder}")


class Bar(Progress):
    """How many of `total` windows are read, how many a second, how long still; on a terminal, by the first process."""

    def __init__(self, system: System, total: int) -> None:
        console = Console(stderr=True)
        bars = system.trainer.is_global_zero and system.trainer.progress_bar_callback is not None
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("windows"), Rate(), TimeRemainingColumn())
        super().__init__(*columns, console=console, disable=not (bars and console.is_terminal))
        self.task = self.add_task("", total=total)


class Rate(ProgressColumn):
    """Windows per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f}/s")
