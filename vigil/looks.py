"""What a look at each file of a data folder tells: in several processes where that pays, remembered between runs."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from vigil.features import read_features
from vigil.store import FileMemory, content_hash
from vigil.types import Video
from vigil.video import DamagedVideo, VideoInfo, probe, read_frames

UNREADABLE, TRUNCATED = "unreadable", "truncated"
CONTENT, FEATURES = "content", "features"
PACKETS, DECODED = "doctor packets 1", "doctor decoded 1"  # the number: of what is remembered of a file

_IMAGES = 8  # of a frame folder, held in memory at once
_WORTH_BYTES = 256 * 2**20  # some 8 s of decoding; a process takes 3 s and more to start


@dataclass(frozen=True)
class Seen:
    """What a look at one file tells, as it is remembered; kind: None, UNREADABLE or TRUNCATED."""

    n_frames: int = 0
    fps: float | None = None
    height: int = 0
    width: int = 0
    kind: str | None = None
    found: str = ""
    todo: str = ""


@dataclass(frozen=True)
class Job:
    """A file to look at, and which fact of it to find; crops: of features, as read_features has it."""

    path: Path
    fact: str
    crops: str | int = "mean"


# one file ------------------------------------------------------------------------------------------------------------


def _look(path: Path, decode: bool) -> dict[str, Any]:
    """A Seen of a file or frame folder, as JSON. Raises OSError, for what may pass and is not to be remembered."""
    if path.is_dir():
        return _look_at_images(path, decode)
    damage = ""
    try:
        try:
            info = probe(path)
        except DamagedVideo as error:  # the packets tell
            if not error.frame:
                raise
            info, damage = VideoInfo(error.frame, None, *error.frames.shape[2:]), error.reason
        if decode:
            whole = probe(path, until_damage=True)
            if whole.n_frames < info.n_frames and not damage:
                damage = f"it does not decode; the container holds {info.n_frames}"
            info = whole
    except ValueError as error:
        return asdict(_refused(path, error))
    todo = "get the file again" if damage else ""
    return asdict(Seen(info.n_frames, info.fps, info.height, info.width, TRUNCATED if damage else None, damage, todo))


def _look_at_images(path: Path, decode: bool) -> dict[str, Any]:
    seen = Seen()
    try:
        info = probe(path)
        seen = Seen(info.n_frames, info.fps, info.height, info.width)
        for first in range(0, info.n_frames if decode else 0, _IMAGES):
            end = min(first + _IMAGES, info.n_frames)
            read_frames(path, [0, *range(first, end)])  # the first beside them: all are to be of one size
    except ValueError as error:
        refused = _refused(path, error)
        seen = replace(seen, kind=refused.kind, found=refused.found, todo=refused.todo)
    return asdict(seen)


def _refused(path: Path, error: Exception) -> Seen:
    """An error about `path` as `found; todo`, which is how errors are written here."""
    if isinstance(error, DamagedVideo):
        return Seen(kind=UNREADABLE, found=f"frame {error.frame}: {error.reason}", todo="get the file again")
    found, _, todo = str(error).removeprefix(f"{path}: ").partition("; ")
    return Seen(kind=UNREADABLE, found=found or type(error).__name__, todo=todo or "get the file again")


def _read_feature_file(path: Path, crops: str | int) -> dict[str, Any]:
    try:
        read_features(path, crops)
    except ValueError as error:
        text = str(error)
        return asdict(Seen(kind=UNREADABLE, found=text, todo="get the feature file again, or choose other crops"))
    return asdict(Seen())


_FIND: dict[str, Callable[[Path], Any]] = {
    CONTENT: content_hash,
    PACKETS: partial(_look, decode=False),
    DECODED: partial(_look, decode=True),
}


def _answer(job: Job, memory: FileMemory) -> Any:
    try:
        if job.fact == FEATURES:  # several files may stand behind one name, and the memory knows the one
            return _read_feature_file(job.path, job.crops)
        return memory.recall(job.path, job.fact, _FIND[job.fact])
    except Exception as error:  # whatever one file raises, the others are still to be looked at
        return asdict(_refused(job.path, error))


# all files -----------------------------------------------------------------------------------------------------------


def exists(path: Path | None) -> bool:
    """Whether something is there; also where it may not be looked at, which opening it will say."""
    try:
        return path is not None and bool(path.stat())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True


def list_paths(videos: Iterable[Video]) -> list[Path]:
    """The video files and frame folders that are there, each once."""
    return list(dict.fromkeys(video.path for video in videos if video.path is not None and exists(video.path)))


def _sizes(path: Path) -> tuple[tuple[str, int], ...]:
    """Name and size of every file of a folder, or ("", size) of a file; () where they cannot be known."""
    try:
        if path.is_dir():
            return tuple((file.name, file.stat().st_size) for file in sorted(path.iterdir()))
        return (("", path.stat().st_size),)
    except OSError:
        return ()


def list_jobs(
    splits: Mapping[str, Sequence[Video]], everything: Mapping[str, Sequence[Video]], crops: str | int, look: str
) -> list[Job]:
    """A look at every file, and the content of those that have another of their size."""
    videos = [video for split in splits.values() for video in split]
    jobs = [Job(path, look) for path in list_paths(videos)]
    features = dict.fromkeys(video.features for video in videos if video.features is not None)
    jobs += [Job(path, FEATURES, crops) for path in features if exists(path)]
    sizes = {path: _sizes(path) for path in list_paths(video for split in everything.values() for video in split)}
    alike = Counter(sizes.values())
    filled = [path for path, files in sizes.items() if any(size for _, size in files)]  # no copies of a video else
    return jobs + [Job(path, CONTENT) for path in filled if alike[sizes[path]] > 1]


def answer_all(jobs: Sequence[Job], memory: FileMemory, n_workers: int | None) -> Generator[tuple[Job, Any]]:
    """Every job with its answer, the remembered ones first, the others as they come."""
    unknown = []
    for job in jobs:
        known = False
        with suppress(OSError):
            known = job.fact in _FIND and memory.knows(job.path, job.fact)
        if known:
            yield job, _answer(job, memory)
        else:
            unknown.append(job)
    if n_workers is None:
        n_bytes = sum(size for job in unknown for _, size in _sizes(job.path))
        n_workers = len(os.sched_getaffinity(0)) if n_bytes > _WORTH_BYTES else 0
    if n_workers == 0:
        for job in unknown:
            yield job, _answer(job, memory)
        return
    yield from _in_processes(unknown, memory.file, min(n_workers, len(unknown)))
    memory.reload()


def _in_processes(jobs: Sequence[Job], memory: Path, n_workers: int) -> Iterator[tuple[Job, Any]]:
    """Every job with its answer, from processes that end with this iterator; one that dies is its file's fault.

    A pool would do, but for a process that dies: it waits for ever, or cannot say over which file.
    """
    ahead = list(reversed(jobs))
    hired: list[BaseProcess] = []
    crew: dict[Connection, tuple[BaseProcess, Job | None]] = {}  # and what each is at, None while it starts

    def hire() -> None:
        connection, process = _start(memory)
        hired.append(process)
        crew[connection] = process, None

    try:
        for _ in range(n_workers):
            hire()
        while crew:
            for ready in wait(list(crew)):
                assert isinstance(ready, Connection)
                process, job = crew.pop(ready)
                try:
                    answer = ready.recv()
                except (EOFError, OSError):
                    process.join()
                    if job is None:
                        raise RuntimeError(
                            f"a checking process ended with status {process.exitcode} before its first file; "
                            "check with n_workers=0"
                        ) from None
                    if ahead:
                        hire()
                    yield job, _killed(process.exitcode)
                    continue
                if ahead:
                    crew[ready] = process, ahead.pop()
                    with suppress(OSError):  # it has died meanwhile, as the next recv says
                        ready.send(crew[ready][1])
                if job is not None:
                    yield job, answer
    finally:
        for process in hired:
            process.kill()  # what it found is remembered: a line at a time, at once
            process.join()


def _start(memory: Path) -> tuple[Connection, BaseProcess]:
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs torch's threads can deadlock
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, memory), daemon=True)
    # deaf to Ctrl-C, which a terminal sends to all of them: this process hears it and ends the others
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
    theirs.close()
    return ours, process


def _work(connection: Connection, file: Path) -> None:
    memory = FileMemory(file)
    connection.send(None)
    with suppress(EOFError, OSError):  # the end of the work, or of the process that gave it
        while True:
            connection.send(_answer(connection.recv(), memory))


def _killed(status: int | None) -> dict[str, Any]:
    how = f"status {status}"
    if status is not None and status < 0:
        with suppress(ValueError):
            how = f"signal {-status} ({signal.Signals(-status).name})"
    todo = "get the file again; if it is sound, check with fewer processes: memory may have run out"
    return asdict(Seen(kind=UNREADABLE, found=f"the process that read it ended with {how}", todo=todo))
