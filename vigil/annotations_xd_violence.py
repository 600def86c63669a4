"""XD-Violence's annotation, in every public spelling -> Videos; what a video shows is said by its name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vigil.annotation_files import (
    NORMAL,
    check_intervals,
    drop_crops,
    entry_parser,
    gather,
    integer,
    is_json,
    lagovad_entry,
    name_columns,
    pairs,
    read_json,
    read_text,
    split_columns,
    split_header,
    split_lines,
    split_path,
)
from vigil.types import Video

XD_VIOLENCE_CODES = {
    **{"B1": "Fighting", "B2": "Shooting", "B4": "Riot", "B5": "Abuse"},
    **{"B6": "CarAccident", "G": "Explosion"},
}
XD_VIOLENCE_CATEGORIES = tuple(XD_VIOLENCE_CODES.values())

_CODE = "|".join(XD_VIOLENCE_CODES)
_CODES = re.compile(rf"A|(?:{_CODE})(?:-(?:{_CODE}))*(?:-0)*")  # two training names lack the padding -0-0
_LABELS = ("label", "label_code", "is_anomaly", "frames")  # columns that are read beside name or path
_EXPECTED = {
    "list": "`name`, which ends in label_A or label_ and codes such as B1-0-0",
    "single": "`name s1 e1 s2 e2 …`, a name that ends in label_A or label_ and codes such as B1-0-0",
    "classes": f"`name C1 s1 e1 C2 s2 e2 …`, a class of {_CODE}, a name that ends in label_ and such classes",
}


def xd_violence(path: str | Path, lengths: Mapping[str, int] | None = None) -> list[Video]:
    """The Videos of one annotation or list file of XD-Violence, in any public spelling, in the file's order.

    Text, csv and JSON, plain or gzipped: annotations.txt, annotations_multiclasses.txt, UR-DMU's, lists of names or of
    feature files (a video's crops are one Video), csv with a header that has `name` or `path`, VERA's and LaGoVAD's
    JSON. label and category come from the name, whatever else the file says: "Normal", or its classes joined by "+" in
    the name's order (`xd_violence_name_categories`). A csv's label, label_code and is_anomaly must agree with it;
    VERA's labels, wrong for 14 violent videos, are not read; the name 01-40-37 of Ip.Man says riot, its intervals
    fighting, so the classes of intervals are held to be classes, not to be in the name.
    anomalies: sorted, otherwise as the file says them, so those of the multi-class file may touch or overlap
    (`frame_labels` takes their union); [] if normal, None if violent without times, as in a list. n_frames is the
    file's count, where it has one. VERA's second file gives 14 videos twice, with .mp4, times and the length 0, and
    without .mp4, length and no times: one Video of both halves. Only lists of features may hold absolute paths.
    LaGoVAD gives parts of the video: `lengths` (name -> frames) turns them into frames, else anomalies stay None.
    Raises FileNotFoundError, or one ValueError that names the file and its bad lines.
    """
    path = Path(path)
    text = read_text(path)
    if is_json(text):
        return _read_entries(path, read_json(path, text), lengths)
    lines = split_lines(text)
    header = split_header(path, lines)
    if header:
        expected = f"`{','.join(header)}`, a label that is the name's"
        rows = drop_crops(lines[1:])
        return list(gather(path, rows, lambda line: _read_row(split_columns(line), header), expected).values())
    layout = _layout(lines)

    def parse(line: str) -> tuple[str, Video]:
        spelled, *times = line.split()
        if layout == "list":
            name_columns([spelled, *times], ("name",))
            return _make_video(spelled, None)
        if layout == "classes":
            return _make_video(spelled, [(first, end) for first, end, _ in _class_intervals(times)])
        return _make_video(spelled, pairs([integer(time, "a frame") for time in times]))

    rows = drop_crops(lines) if layout == "list" else lines
    return list(gather(path, rows, parse, _EXPECTED[layout]).values())


def xd_violence_classes(path: str | Path) -> dict[str, list[tuple[int, int, str]]]:
    """{name: [(first, end, class)]} of annotations_multiclasses.txt: half-open, sorted, of several classes at once.

    Raises as `xd_violence`.
    """
    path = Path(path)

    def parse(line: str) -> tuple[str, list[tuple[int, int, str]]]:
        spelled, *times = line.split()
        intervals = sorted(_class_intervals(times))
        return _make_video(spelled, [(first, end) for first, end, _ in intervals])[0], intervals

    return gather(path, split_lines(read_text(path)), parse, _EXPECTED["classes"])


def xd_violence_name_categories(name: str) -> tuple[str, ...]:
    """The classes that a video's name says, in its order; () for a normal one.

    Raises ValueError for a name that does not end in label_A or label_ and codes such as B1-0-0.
    """
    title, _, codes = name.rpartition("_label_")
    if not title or not _CODES.fullmatch(codes):
        raise ValueError(f"unknown class of {name!r}: it does not end in label_A or label_ and codes such as B1-0-0")
    return tuple(XD_VIOLENCE_CODES[code] for code in codes.split("-") if code not in ("A", "0"))


def _layout(lines: list[tuple[str, str]]) -> str:
    """Which of the three text layouts most lines have."""
    votes = dict.fromkeys(_EXPECTED, 0)
    for _, line in lines:
        second = line.split(maxsplit=2)[1:2]
        votes["list" if not second else "classes" if second[0][:1].isalpha() else "single"] += 1
    return max(votes, key=lambda layout: votes[layout])


def _class_intervals(columns: list[str]) -> list[tuple[int, int, str]]:
    if len(columns) % 3:
        raise ValueError(f"{' '.join(columns)[:80]!r} is not a class, a first and an end, over and over")
    found = []
    for code, first, end in zip(columns[::3], columns[1::3], columns[2::3], strict=True):
        if code not in XD_VIOLENCE_CODES:
            raise ValueError(f"unknown class {code!r}")
        found.append((integer(first, "a frame"), integer(end, "a frame"), XD_VIOLENCE_CODES[code]))
    return found


def _read_row(columns: list[str], header: list[str]) -> tuple[str, Video]:
    row = {key: value for key, value in name_columns(columns, header).items() if key in ("path", "name", *_LABELS)}
    n_frames = integer(row["frames"], "frames") if "frames" in row else None
    name, video = _make_video(row.get("path") or row.get("name", ""), None, n_frames)
    for key in ("label", "label_code"):
        if key in row and row[key] != name.rpartition("_label_")[2]:
            raise ValueError(f"{name} has the {key} {row[key]!r}")
    if row.get("is_anomaly", str(video.label)) != str(video.label):
        raise ValueError(f"{name} has is_anomaly {row['is_anomaly']!r}")
    return name, video


def _read_entries(path: Path, entries: list[tuple[str, Any]], lengths: Mapping[str, int] | None) -> list[Video]:
    keys = {key for _, entry in entries if isinstance(entry, dict) for key in entry}
    spelling: Callable[[Any], tuple[str, Video]]
    spelling, expected = _vera, "`video`, `temporal_label` [s1, e1, …], `length`"
    if "anomaly_span" in keys:
        expected = "`video_path`, `class_name`, `anomaly_span` [[first, end], …] in parts of the video"

        def spelling(entry: Any) -> tuple[str, Video]:
            spelled, category, intervals, n_frames = lagovad_entry(entry, lengths)
            name, video = _make_video(spelled, intervals, n_frames)
            if category.replace(" ", "").lower() not in str(video.category).lower().split("+"):
                raise ValueError(f"{name} has the class_name {category!r}")
            return name, video

    elif "video_name" in keys:
        spelling, expected = _vera_list, "`video_name`, `length`"
    else:
        entries = _join_halves(entries)
    return list(gather(path, entries, entry_parser(spelling), expected).values())


def _vera(entry: dict[str, Any]) -> tuple[str, Video]:
    times = pairs([integer(value, "temporal_label") for value in entry["temporal_label"]])
    return _make_video(entry["video"], times or None, integer(entry["length"], "length"))


def _vera_list(entry: dict[str, Any]) -> tuple[str, Video]:
    return _make_video(entry["video_name"], None, integer(entry["length"], "length"))


def _join_halves(entries: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """VERA's entries, where times without a length and a length without times of one video are one entry."""
    timed: dict[str, Any] = {}
    for _, entry in entries:
        if isinstance(entry, dict) and str(entry.get("video")).endswith(".mp4") and entry.get("length") == 0:
            timed.setdefault(entry["video"].removesuffix(".mp4"), entry)
    joined, used = [], []
    for place, entry in entries:
        half = timed.get(entry["video"]) if isinstance(entry, dict) and isinstance(entry.get("video"), str) else None
        if half is not None and entry.get("temporal_label") == [-1, -1]:
            joined.append((place, {**entry, "temporal_label": half.get("temporal_label")}))
            used.append(half)
        else:
            joined.append((place, entry))
    return [(place, entry) for place, entry in joined if not any(entry is half for half in used)]


def _make_video(
    spelled: str, intervals: list[tuple[int, int]] | None, n_frames: int | None = None
) -> tuple[str, Video]:
    name, path = split_path(spelled)
    name = name.removesuffix("__vggish")  # audio features stand one a video
    classes = xd_violence_name_categories(name)
    check_intervals(name, intervals or [], n_frames)
    if intervals is not None and bool(intervals) != bool(classes):
        raise ValueError(f"{name} is {'+'.join(classes) or NORMAL} with intervals {intervals}")
    anomalies = None if intervals is None and classes else sorted(intervals or [])
    category = "+".join(classes) or NORMAL
    return name, Video(name, path, n_frames, label=int(bool(classes)), category=category, anomalies=anomalies)
