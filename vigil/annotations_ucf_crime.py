"""UCF-Crime's annotation, in every public spelling -> Videos."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vigil.annotation_files import (
    NORMAL,
    check_intervals,
    entry_parser,
    gather,
    integer,
    is_integer,
    is_json,
    lagovad_entry,
    name_columns,
    pairs,
    read_json,
    read_text,
    split_columns,
    split_lines,
    split_path,
)
from vigil.types import Video

# alphabetical, as the class ids 1 to 13 of UMIL's file count them; 0 is Normal
UCF_CRIME_CATEGORIES = (
    *("Abuse", "Arrest", "Arson", "Assault", "Burglary", "Explosion", "Fighting", "RoadAccidents"),
    *("Robbery", "Shooting", "Shoplifting", "Stealing", "Vandalism"),
)
_NAME = re.compile(rf"({'|'.join(UCF_CRIME_CATEGORIES)})\d|Normal_Videos")
_TIMES = ("s1", "e1", "s2", "e2")
_LAYOUTS = (
    ("path",),  # Anomaly_Train.txt, Anomaly_Test.txt, lists of features
    ("path", "frames"),  # Train_Annotation of ekosman
    ("path", "class"),  # the csv lists of VadCLIP
    ("path", "frames_cv2", "none"),  # test_normalv2 of seominseok0429
    ("path", "frames_cv2", "intervals"),  # test_anomalyv2 of the same
    ("path", "class", *_TIMES),  # the official file, and VadCLIP's without extensions
    ("path", "class", *_TIMES, "frames"),  # MIST
    ("path", "frames", "class", *_TIMES),  # UR-DMU, ekosman
    ("path", "frames", "class_id", *_TIMES),  # UMIL, the second annotation
)


def ucf_crime(path: str | Path, lengths: Mapping[str, int] | None = None) -> list[Video]:
    """The Videos of one annotation or list file of UCF-Crime, in any public spelling, in the file's order.

    Text, csv and JSON, plain, gzipped, or the official zip; the spelling is recognised by its columns or keys, and a
    line that does not keep to it is an error, never skipped. Columns are apart by blanks, tabs, commas or bars.
    Every Video has name, label and category ("Normal" or a class). anomalies are half-open and as the file says them,
    also where an end lies beyond the video (5 do): [] if normal, None if anomalous without times, as in a list.
    n_frames is the file's count, but None for the seominseok0429 files: theirs are OpenCV's, one more in 224 of 290.
    path is the video's relative path as spelled where the file gives a folder; feature files (.npy) leave it None, and
    only there may a path be absolute. Lines that repeat one video word for word in a list (crops; ten lines of
    train_normal) are one Video. LaGoVAD gives fractions of the video: `lengths` (name -> frames) turns them into
    frames, without it anomalies stay None. HIVAU-70k gives seconds, rounded to frames.
    Raises FileNotFoundError, or one ValueError that names the file and its bad lines.
    """
    path = Path(path)
    text = read_text(path)
    if is_json(text):
        return _read_entries(path, read_json(path, text), lengths)
    lines = split_lines(text)
    if lines and [column.lower() for column in split_columns(lines[0][1])] == ["path", "label"]:
        del lines[0]
    votes = [sum(_fits(split_columns(line), layout) for _, line in lines) for layout in _LAYOUTS]
    layout = _LAYOUTS[int(np.argmax(votes))]
    if not any(votes):  # say what an annotation looks like, not what a list does
        layout = _LAYOUTS[5]
    expected = f"`{'  '.join(layout)}`, class {NORMAL}, {', '.join(UCF_CRIME_CATEGORIES)}"
    repeats = layout in (("path",), ("path", "class"))  # crops of one video; ten lines of seominseok0429's train_normal
    return list(
        gather(path, lines, lambda line: _read_columns(split_columns(line), layout), expected, repeats).values()
    )


def ucf_crime_category(name: str) -> str | None:
    """ "Normal" or the class that a UCF-Crime video's name says; None where it says none."""
    said = _NAME.match(name)
    return None if said is None else said[1] or NORMAL


def _read_columns(columns: list[str], layout: tuple[str, ...]) -> tuple[str, Video]:
    row = name_columns(columns, layout)
    number = {key: integer(row[key], key) for key in ("frames", "frames_cv2", "class_id", *_TIMES) if key in row}
    category = row.get("class")
    if "class_id" in row:
        if not 0 <= number["class_id"] <= len(UCF_CRIME_CATEGORIES):
            raise ValueError(f"unknown class_id {number['class_id']}")
        category = (NORMAL, *UCF_CRIME_CATEGORIES)[number["class_id"]]
    times = [number[key] for key in _TIMES] if "s1" in row else None
    if "none" in row:
        if row["none"] != "-1":
            raise ValueError(f"the last column is {row['none']!r}, not -1")
        times = []
    if "intervals" in row:
        try:
            times = [integer(value, "a frame") for value in json.loads(row["intervals"])]
        except (json.JSONDecodeError, TypeError, RecursionError):
            raise ValueError(f"{row['intervals']!r} is no list of frames such as [165, 240]") from None
    if number.get("frames_cv2", 1) < 1:
        raise ValueError(f"it has {number['frames_cv2']} frames")
    return _make_video(row["path"], category, None if times is None else pairs(times), number.get("frames"))


def _read_entries(path: Path, entries: list[tuple[str, Any]], lengths: Mapping[str, int] | None) -> list[Video]:
    keys = {key for _, entry in entries if isinstance(entry, dict) for key in entry}
    spelling: Callable[[Any], tuple[str, Video]]
    spelling, expected = _vera, "`video`, `temporal_label` [s1, e1, s2, e2], `length`"
    if "anomaly_span" in keys:
        expected = "`video_path`, `class_name`, `anomaly_span` [[first, end], …] in parts of the video"

        def spelling(entry: Any) -> tuple[str, Video]:
            return _make_video(*lagovad_entry(entry, lengths))

    elif "events" in keys:
        spelling, expected = _hivau, "name: {`n_frames`, `fps`, `label` [class], `events` [[first, end], …] in seconds}"
    return list(gather(path, entries, entry_parser(spelling), expected).values())


def _vera(entry: dict[str, Any]) -> tuple[str, Video]:
    times = [integer(value, "temporal_label") for value in entry["temporal_label"]]
    return _make_video(entry["video"], None, pairs(times), integer(entry["length"], "length"))


def _hivau(entry: dict[str, Any]) -> tuple[str, Video]:
    fps = float(entry["fps"])
    if not 0 < fps < math.inf:
        raise ValueError(f"{entry['name']} has {fps} frames per second")
    category = entry["label"][0] if entry["label"] else NORMAL
    events = entry["events"] if entry["label"] else []  # a normal video's events are captions
    intervals = [(round(float(first) * fps), round(float(end) * fps)) for first, end in events]
    name, video = _make_video(entry["name"], category, intervals, integer(entry["n_frames"], "n_frames"))
    video.fps = fps
    return name, video


def _make_video(
    spelled: str, category: str | None, intervals: list[tuple[int, int]] | None, n_frames: int | None
) -> tuple[str, Video]:
    name, path = split_path(spelled)
    folder = "".join(re.split(r"[/\\]", spelled)[-2:-1])
    said = {category, ucf_crime_category(name)} - {None}
    if folder in UCF_CRIME_CATEGORIES or "Normal_Videos" in folder:
        said.add(folder if folder in UCF_CRIME_CATEGORIES else NORMAL)
    if not said <= {NORMAL, *UCF_CRIME_CATEGORIES} or not said:
        raise ValueError(f"unknown class of {spelled!r}: {', '.join(sorted(map(str, said))) or 'none given'}")
    if len(said) > 1:
        raise ValueError(f"{name} is said to be {' and '.join(sorted(map(str, said)))}")
    kind = said.pop()
    check_intervals(name, intervals or [], n_frames)
    if intervals is not None and bool(intervals) == (kind == NORMAL):
        raise ValueError(f"{name} is {kind} with intervals {intervals}")
    anomalies = [] if kind == NORMAL else intervals
    return name, Video(name, path, n_frames, label=int(kind != NORMAL), category=kind, anomalies=anomalies)


def _fits(columns: list[str], layout: tuple[str, ...]) -> bool:
    def fit(column: str, key: str) -> bool:
        if key == "intervals":
            return column.startswith("[")
        return key == "path" or (key == "class") != is_integer(column)

    return len(columns) == len(layout) and all(map(fit, columns, layout))
