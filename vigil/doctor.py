"""What is wrong with a data folder: files against their annotation, against each other, and fitting against testing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from vigil.features import read_features
from vigil.store import FileMemory, content_hash
from vigil.types import Video
from vigil.video import DamagedVideo, VideoInfo, probe, read_frames

MISSING, UNREADABLE, TRUNCATED, LONGER = "missing", "unreadable", "truncated", "longer"
BEYOND, NO_POSITIVE, DUPLICATE, IN_BOTH = "beyond the end", "class without a positive", "duplicate", "in both"
MASK, ANNOTATION = "mask", "annotation"
KINDS = {  # in the order that findings come in
    ANNOTATION: "an annotation file that cannot be read",
    MISSING: "a video that the annotation names, and no file or folder of it",
    UNREADABLE: "no video, no permission, no bytes, a broken image in a frame folder, features that cannot be read",
    TRUNCATED: "fewer frames than announced, or damaged from a frame on",
    LONGER: "more frames than announced: another cut or rate, at which annotated events lie elsewhere",
    BEYOND: "an annotated event that ends after the last frame",
    MASK: "pixel masks of another length or size than their video",
    NO_POSITIVE: "a class that no video shows",
    DUPLICATE: "two names in one split with the same bytes, or one name twice",
    IN_BOTH: "videos that stand in two splits, by name, or by content under another name",
}
FIT = ("train", "val")  # every other split is tested on
CAPTION_SLACK_S = 0.1  # captions are timed in tenths of a second (UCA)

_SHOWN = 10  # names in one sentence
_ROWS = 20  # findings of one kind in the table
_IMAGES = 8  # of a frame folder, held in memory at once
_WORTH_BYTES = 256 * 2**20  # some 8 s of decoding; a process takes 3 s and more to start
_CONTENT, _FEATURES = "content", "features"
_PACKETS, _DECODED = "doctor packets 1", "doctor decoded 1"  # the number: of what is remembered of a file


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong. kind: of KINDS; video, path: None where it concerns several; found, todo: in words.

    videos: the names of all that it concerns. other_split: the second split of what is in both; `videos` are its.
    """

    kind: str
    split: str
    video: str | None
    path: Path | None
    found: str
    todo: str
    videos: tuple[str, ...] = ()
    other_split: str | None = None


@dataclass(frozen=True)
class Facts:
    """What was looked at: videos that the annotation names and those with a file, by split; frames and hours of all.

    hours: of the videos whose frame rate is known. decoded: every frame, or the packets only (False).
    """

    videos: dict[str, int]
    files: dict[str, int]
    frames: int
    hours: float
    took_s: float
    decoded: bool


@dataclass(frozen=True)
class _Seen:
    """What a look at one file tells, as it is remembered; kind: None, UNREADABLE or TRUNCATED."""

    n_frames: int = 0
    fps: float | None = None
    height: int = 0
    width: int = 0
    kind: str | None = None
    found: str = ""
    todo: str = ""


@dataclass(frozen=True)
class _Job:
    path: Path
    fact: str
    crops: str | int = "mean"


def examine(
    splits: Mapping[str, Sequence[Video]],
    tested_elsewhere: Mapping[str, Sequence[Video]] = {},
    *,
    categories: Sequence[str] = (),
    crops: str | int = "mean",
    decode: bool = True,
    n_workers: int | None = None,
    memory: FileMemory | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[list[Finding], Facts]:
    """Everything wrong with the videos of `splits`, sorted by kind, and what was looked at.

    splits: train, val and those tested on -> the Videos that the annotation names. tested_elsewhere: other datasets'
    videos that are going to be tested on, compared by name and content alone. categories: the classes that fitting
    (train and val together: val may be cut from train) and every tested split should show; fitting on normal videos
    alone is no fault. crops: which of the features is read, as read_features has it.
    decode: decode every frame, else read packets only. One frame more or less than announced is no fault (OpenCV
    counts n or n + 1). Contents are compared between files of equal size. What is wrong because a file is truncated is
    said there. Answers on videos stay in `memory`, so that a second check opens none; features are read again.
    n_workers: processes, 0 for this one alone, None for as many as cores where that pays. Threads are as fast on two
    cores, but a file that kills its decoder would end them all. progress(done, of, name): after each file.
    Raises ValueError for a negative n_workers or a split named in both mappings.
    """
    start = time.monotonic()
    both = splits.keys() & tested_elsewhere.keys()
    if both or (n_workers is not None and n_workers < 0):
        raise ValueError(f"splits given twice: {sorted(both)}, {n_workers=}; expected other names and at least 0")
    everything = {**splits, **tested_elsewhere}
    memory = memory or FileMemory()
    memory.file.parent.mkdir(parents=True, exist_ok=True)
    memory.file.open("a").close()  # raises here, and not as a fault of some video
    jobs = _jobs(splits, everything, crops, _DECODED if decode else _PACKETS)
    looks: dict[Path, _Seen] = {}
    features: dict[Path, _Seen] = {}
    content: dict[Path, str] = {path: str(path) for videos in everything.values() for path in _paths(videos)}
    with closing(_answers(jobs, memory, n_workers)) as arriving:
        for done, (job, answer) in enumerate(arriving, 1):
            if isinstance(answer, str):
                content[job.path] = answer
            elif job.fact == _FEATURES:
                features[job.path] = _Seen(**answer)
            elif job.path not in looks or looks[job.path].kind != UNREADABLE:  # by one fact or by the other
                looks[job.path] = _Seen(**answer)
            if progress is not None:
                progress(done, len(jobs), printable(job.path.name))
    findings: list[Finding] = []
    for split, videos in splits.items():
        findings += _missing(split, videos)
        for video in videos:
            findings += _faults(split, video, looks, features)
        findings += _duplicates(split, videos, content)
    for split, videos in tested_elsewhere.items():
        refused = [(v, looks[v.path]) for v in videos if v.path in looks and looks[v.path].kind == UNREADABLE]
        findings += [Finding(UNREADABLE, split, v.name, v.path, s.found, s.todo, (v.name,)) for v, s in refused]
    findings += _unseen_classes(splits, categories)
    findings += _in_both(splits, everything, content)
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))  # stable: by split and annotation within a kind
    return findings, _facts(splits, looks, time.monotonic() - start, decode)


def annotation_fault(error: Exception, split: str = "") -> Finding:
    """What a reader of annotation raised, as a Finding; split: the one it was reading for, where that is known."""
    todo = "correct what is named, or take the file from the dataset's authors again"
    return Finding(ANNOTATION, split, None, None, str(error) or type(error).__name__, todo)


def table(findings: Iterable[Finding]) -> Table:
    """The findings by kind, up to 20 of each; nothing in them can move the cursor or colour the screen."""
    shown = Table("fault", "split", "video", "found", "what to do", show_lines=False)
    grouped: dict[str, list[Finding]] = {}
    for finding in findings:
        grouped.setdefault(finding.kind, []).append(finding)
    for kind in sorted(grouped, key=list(KINDS).index):
        rows = grouped[kind]
        for i, row in enumerate(rows[:_ROWS]):
            split = row.split if row.other_split is None else f"{row.split}, {row.other_split}"
            repeats = i > 0 and rows[i - 1].todo == row.todo
            cells = (kind if i == 0 else "", split, row.video or "", row.found, '"' if repeats else row.todo)
            shown.add_row(*(Text(printable(cell), overflow="fold") for cell in cells))
        if len(rows) > _ROWS:
            shown.add_row("", "", "", f"and {len(rows) - _ROWS} more, all of them in the JSON", "")
        shown.add_section()
    return shown


def as_json(findings: Iterable[Finding], facts: Facts) -> str:
    """All findings as one JSON object, for programs.

    {"checked": {"videos": {split: named}, "files": {split: there}, "frames": int, "hours": float, "took_s": float,
    "decoded": bool}, "findings": [{"kind": str, "split": str, "video": str or null, "path": str or null, "found": str,
    "todo": str, "videos": [str], "other_split": str or null}]}; every name is there, however many.
    """
    rows = [asdict(finding) | {"path": finding.path and str(finding.path)} for finding in findings]
    return json.dumps({"checked": asdict(facts), "findings": rows}, indent=1) + "\n"


def printable(text: str) -> str:
    """The text with everything that is no printed character spelled out: names on disk may hold escape sequences."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


# one file ------------------------------------------------------------------------------------------------------------


def _look(path: Path, decode: bool) -> dict[str, Any]:
    """A _Seen of a file or frame folder, as JSON. Raises OSError, for what may pass and is not to be remembered."""
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
    return asdict(_Seen(info.n_frames, info.fps, info.height, info.width, TRUNCATED if damage else None, damage, todo))


def _look_at_images(path: Path, decode: bool) -> dict[str, Any]:
    seen = _Seen()
    try:
        info = probe(path)
        seen = _Seen(info.n_frames, info.fps, info.height, info.width)
        for first in range(0, info.n_frames if decode else 0, _IMAGES):
            end = min(first + _IMAGES, info.n_frames)
            read_frames(path, [0, *range(first, end)])  # the first beside them: all are to be of one size
    except ValueError as error:
        refused = _refused(path, error)
        seen = replace(seen, kind=refused.kind, found=refused.found, todo=refused.todo)
    return asdict(seen)


def _refused(path: Path, error: Exception) -> _Seen:
    """An error about `path` as `found; todo`, which is how errors are written here."""
    if isinstance(error, DamagedVideo):
        return _Seen(kind=UNREADABLE, found=f"frame {error.frame}: {error.reason}", todo="get the file again")
    found, _, todo = str(error).removeprefix(f"{path}: ").partition("; ")
    return _Seen(kind=UNREADABLE, found=found or type(error).__name__, todo=todo or "get the file again")


def _read_feature_file(path: Path, crops: str | int) -> dict[str, Any]:
    try:
        read_features(path, crops)
    except ValueError as error:
        text = str(error)
        return asdict(_Seen(kind=UNREADABLE, found=text, todo="get the feature file again, or choose other crops"))
    return asdict(_Seen())


_FIND: dict[str, Callable[[Path], Any]] = {
    _CONTENT: content_hash,
    _PACKETS: partial(_look, decode=False),
    _DECODED: partial(_look, decode=True),
}


def _answer(job: _Job, memory: FileMemory) -> Any:
    try:
        if job.fact == _FEATURES:  # several files may stand behind one name, and the memory knows the one
            return _read_feature_file(job.path, job.crops)
        return memory.recall(job.path, job.fact, _FIND[job.fact])
    except Exception as error:  # whatever one file raises, the others are still to be looked at
        return asdict(_refused(job.path, error))


# all files -----------------------------------------------------------------------------------------------------------


def _lies(path: Path | None) -> bool:
    """Whether something is there; also where it may not be looked at, which opening it will say."""
    try:
        return path is not None and bool(path.stat())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError:
        return True


def _paths(videos: Iterable[Video]) -> list[Path]:
    """The video files and frame folders that are there, each once."""
    return list(dict.fromkeys(video.path for video in videos if video.path is not None and _lies(video.path)))


def _sizes(path: Path) -> tuple[tuple[str, int], ...]:
    """Name and size of every file of a folder, or ("", size) of a file; () where they cannot be known."""
    try:
        if path.is_dir():
            return tuple((file.name, file.stat().st_size) for file in sorted(path.iterdir()))
        return (("", path.stat().st_size),)
    except OSError:
        return ()


def _jobs(
    splits: Mapping[str, Sequence[Video]], everything: Mapping[str, Sequence[Video]], crops: str | int, look: str
) -> list[_Job]:
    """A look at every file, and the content of those that have another of their size."""
    videos = [video for split in splits.values() for video in split]
    jobs = [_Job(path, look) for path in _paths(videos)]
    features = dict.fromkeys(video.features for video in videos if video.features is not None)
    jobs += [_Job(path, _FEATURES, crops) for path in features if _lies(path)]
    sizes = {path: _sizes(path) for path in _paths(video for split in everything.values() for video in split)}
    alike = Counter(sizes.values())
    filled = [path for path, files in sizes.items() if any(size for _, size in files)]  # no copies of a video else
    return jobs + [_Job(path, _CONTENT) for path in filled if alike[sizes[path]] > 1]


def _answers(jobs: Sequence[_Job], memory: FileMemory, n_workers: int | None) -> Generator[tuple[_Job, Any]]:
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


def _in_processes(jobs: Sequence[_Job], memory: Path, n_workers: int) -> Iterator[tuple[_Job, Any]]:
    """Every job with its answer, from processes that end with this iterator; one that dies is its file's fault.

    A pool would do, but for a process that dies: it waits for ever, or cannot say over which file.
    """
    ahead = list(reversed(jobs))
    hired: list[BaseProcess] = []
    crew: dict[Connection, tuple[BaseProcess, _Job | None]] = {}  # and what each is at, None while it starts

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
    return asdict(_Seen(kind=UNREADABLE, found=f"the process that read it ended with {how}", todo=todo))


# what follows from the answers ---------------------------------------------------------------------------------------


def _facts(splits: Mapping[str, Sequence[Video]], looks: Mapping[Path, _Seen], took_s: float, decode: bool) -> Facts:
    rate = {v.path: v.fps for videos in splits.values() for v in videos}
    seen = {path: look for path, look in looks.items() if path in rate}
    hours = sum(look.n_frames / fps / 3600 for path, look in seen.items() if (fps := look.fps or rate[path]))
    videos = {split: len(members) for split, members in splits.items()}
    files = {split: sum(map(_is_there, members)) for split, members in splits.items()}
    frames = sum(look.n_frames for look in seen.values())
    return Facts(videos, files, frames, round(float(hours), 3), round(took_s, 3), decode)


def _is_there(video: Video) -> bool:
    return _lies(video.path if video.features is None else video.features)


def _bytes(video: Video, content: Mapping[Path, str]) -> str | None:
    """What tells its file's content from others', or None where there is no file."""
    return None if video.path is None else content.get(video.path)


def _missing(split: str, videos: Sequence[Video]) -> list[Finding]:
    """A finding per missing video; of more than ten, or where nothing is there at all, one finding for all."""
    absent = [video for video in videos if not _is_there(video)]
    names = tuple(video.name for video in absent)
    if len(absent) > _SHOWN or (len(absent) == len(videos) > 1):
        found = f"{len(absent)} of {len(videos)} videos have no file: {_first(names)}"
        return [Finding(MISSING, split, None, None, found, "complete the download, or name its folder", names)]
    found, todo = "named by the annotation, no file of it", "complete the download, or leave the video out"
    return [Finding(MISSING, split, v.name, v.features or v.path, found, todo, (v.name,)) for v in absent]


def _faults(split: str, video: Video, looks: Mapping[Path, _Seen], features: Mapping[Path, _Seen]) -> list[Finding]:
    """What is wrong with one video's files, and with its annotation against them."""
    findings = []

    def fault(kind: str, found: str, todo: str, path: Path | None = video.path) -> None:
        findings.append(Finding(kind, split, video.name, path, found, todo, (video.name,)))

    read = None if video.features is None else features.get(video.features)
    if read is not None and read.kind:
        fault(read.kind, read.found, read.todo, video.features)
    look = None if video.path is None else looks.get(video.path)
    announced, n_frames, fps = video.n_frames, video.n_frames, video.fps
    if look is not None:
        fps = look.fps or fps
        few = announced is not None and look.n_frames < announced - 1
        if look.kind == UNREADABLE:
            fault(look.kind, look.found, look.todo)
            n_frames = look.n_frames or announced
        elif look.kind or few:
            fault(TRUNCATED, _shortness(video, look, fps), look.todo or "get the file again, at its native frame rate")
        else:
            n_frames = look.n_frames
            if announced is not None and n_frames > announced + 1:
                todo = "take the release that was annotated, at its native frame rate"
                fault(LONGER, f"{n_frames} frames, {announced} announced", todo)
        wrong = _mask_fault(video, look) if look.kind != UNREADABLE else ""
        if wrong:
            fault(MASK, wrong, "take masks and videos from one release, at one size")
    late = _late(video, n_frames, fps) if n_frames is not None else []
    if late:
        todo = "take video and annotation from one release; what lies beyond the end is not judged"
        fault(BEYOND, f"{_first(late)}; the video has {n_frames} frames", todo)
    return findings


def _shortness(video: Video, look: _Seen, fps: float | None) -> str:
    told = f"damaged from frame {look.n_frames} on: {look.found}" if look.kind else f"{look.n_frames} frames"
    if video.n_frames is not None:
        told += f"; {video.n_frames} announced" if look.kind else f", {video.n_frames} announced"
    late = _late(video, look.n_frames, fps)
    return f"{told}; annotated events beyond it: {len(late)}" if late else told


def _late(video: Video, n_frames: int, fps: float | None) -> list[str]:
    """The events and captions that end after the last frame, in words."""
    slack = round(CAPTION_SLACK_S * (fps or 0))
    late = [f"event {first}-{end}" for first, end in video.anomalies or [] if end > n_frames]
    return late + [f"caption {first}-{end}" for first, end, _ in video.captions if end > n_frames + slack]


def _mask_fault(video: Video, look: _Seen) -> str:
    """What is wrong with the masks of the first and last frame, or of one that the video does not have; else ""."""
    if video.masks is None:
        return ""
    last = look.n_frames - 1
    try:
        mask = np.asarray(video.masks(np.array([0, last])))
    except Exception as error:  # whatever one file raises, as above
        return f"no mask of frames 0 and {last}: {type(error).__name__}: {error}"
    if mask.shape != (2, look.height, look.width):
        size = "x".join(map(str, mask.shape[:0:-1]))
        return f"{len(mask) if mask.ndim else 0} masks of {size} for 2 frames of {look.width}x{look.height}"
    if look.kind is None:
        with suppress(Exception):  # as it should
            beyond = np.asarray(video.masks(np.array([last + 2])))  # one frame more may be OpenCV's count
            if beyond.any() and not np.array_equal(beyond[0], mask[1]):  # readers may hold the last one
                return f"an object in the mask of frame {last + 2}, the video has {last + 1} frames"
    return ""


def _unseen_classes(splits: Mapping[str, Sequence[Video]], categories: Sequence[str]) -> list[Finding]:
    fitted = [split for split in FIT if split in splits]
    groups = [fitted] if fitted else []
    groups += [[split] for split in splits if split not in FIT]
    findings = []
    for group in groups:
        labelled = [video for split in group for video in splits[split] if video.label is not None]
        shown = {part for video in labelled for part in (video.category or "").split("+")}
        if not labelled or (group == fitted and not any(video.label for video in labelled)):
            continue  # nothing says what they show; or one-class fitting, on normal videos alone
        for category in categories:
            if category not in shown:
                found = f"no video of class {category} among the {len(labelled)} of {' and '.join(group)}"
                todo = "complete the lists, or leave the class out of what is asked"
                findings.append(Finding(NO_POSITIVE, group[0], None, None, found, todo))
    return findings


def _duplicates(split: str, videos: Sequence[Video], content: Mapping[Path, str]) -> list[Finding]:
    findings = []
    for name, count in Counter(video.name for video in videos).items():
        if count > 1:
            found = f"named {count} times"
            findings.append(Finding(DUPLICATE, split, name, None, found, "name it once", (name,)))
    alike: dict[str, dict[str, Video]] = {}
    for video in videos:
        if same_bytes := _bytes(video, content):
            alike.setdefault(same_bytes, {})[video.name] = video
    for same in alike.values():
        if len(same) > 1:
            first, *others = same.values()
            found = f"the same bytes as {_first([video.name for video in others])}"
            todo = "find out which name is right, and leave the others out"
            findings.append(Finding(DUPLICATE, split, first.name, first.path, found, todo, tuple(same)))
    return findings


def _in_both(
    splits: Mapping[str, Sequence[Video]], everything: Mapping[str, Sequence[Video]], content: Mapping[Path, str]
) -> list[Finding]:
    """One finding per pair of splits; its names are those of the second, which a number would be printed on."""
    fitted = [split for split in FIT if split in splits]
    pairs = [(fit, other) for fit in fitted for other in everything if other not in fitted]
    findings = []
    for fit, other in [*pairs, *([FIT] if len(fitted) == 2 else [])]:
        names = {video.name for video in splits[fit]}
        copies = {_bytes(video, content): video.name for video in splits[fit] if _bytes(video, content)}
        shared = {}
        for video in everything[other]:
            copy = copies.get(_bytes(video, content))
            if video.name in names:
                shared[video.name] = video.name
            elif copy is not None:
                shared[video.name] = f"{video.name} (there as {copy})"
        if shared:
            found = f"{len(shared)} of {len(everything[other])} videos of {other} are in {fit}: "
            todo = f"fit without them, or judge on others: they are known from {fit}"
            found += _first(list(shared.values()))
            findings.append(Finding(IN_BOTH, fit, None, None, found, todo, tuple(shared), other))
    return findings


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
