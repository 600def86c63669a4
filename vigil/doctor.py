"""What is wrong with a data folder: files against their annotation, against each other, and fitting against testing."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vigil.looks import (
    DECODED,
    FEATURES,
    PACKETS,
    TRUNCATED,
    UNREADABLE,
    Seen,
    answer_all,
    exists,
    list_jobs,
    list_paths,
)
from vigil.store import FileMemory
from vigil.types import Video

MISSING, LONGER = "missing", "longer"
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
    jobs = list_jobs(splits, everything, crops, DECODED if decode else PACKETS)
    looks: dict[Path, Seen] = {}
    features: dict[Path, Seen] = {}
    content: dict[Path, str] = {path: str(path) for videos in everything.values() for path in list_paths(videos)}
    with closing(answer_all(jobs, memory, n_workers)) as arriving:
        for done, (job, answer) in enumerate(arriving, 1):
            if isinstance(answer, str):
                content[job.path] = answer
            elif job.fact == FEATURES:
                features[job.path] = Seen(**answer)
            elif job.path not in looks or looks[job.path].kind != UNREADABLE:  # by one fact or by the other
                looks[job.path] = Seen(**answer)
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


# what follows from the answers ---------------------------------------------------------------------------------------


def _facts(splits: Mapping[str, Sequence[Video]], looks: Mapping[Path, Seen], took_s: float, decode: bool) -> Facts:
    rate = {v.path: v.fps for videos in splits.values() for v in videos}
    seen = {path: look for path, look in looks.items() if path in rate}
    hours = sum(look.n_frames / fps / 3600 for path, look in seen.items() if (fps := look.fps or rate[path]))
    videos = {split: len(members) for split, members in splits.items()}
    files = {split: sum(map(_is_there, members)) for split, members in splits.items()}
    frames = sum(look.n_frames for look in seen.values())
    return Facts(videos, files, frames, round(float(hours), 3), round(took_s, 3), decode)


def _is_there(video: Video) -> bool:
    return exists(video.path if video.features is None else video.features)


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


def _faults(split: str, video: Video, looks: Mapping[Path, Seen], features: Mapping[Path, Seen]) -> list[Finding]:
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


def _shortness(video: Video, look: Seen, fps: float | None) -> str:
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


def _mask_fault(video: Video, look: Seen) -> str:
    """What is wrong with the masks of the first and last frame, or of one that the video does not have; else ""."""
    if video.masks is None:
        return ""
    last = look.n_frames - 1
    try:
        mask = np.asarray(video.masks(np.array([0, last])))
    except Exception as error:  # whatever one file raises, as in looks.py
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
            todo = f"leave them out of {fit}, or test on other videos"
            found += _first(list(shared.values()))
            findings.append(Finding(IN_BOTH, fit, None, None, found, todo, tuple(shared), other))
    return findings


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
