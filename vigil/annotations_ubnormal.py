"""UBnormal's lists, LaGoVAD's spans of its test split, and the official tracks of its anomalous objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vigil.annotation_files import (
    NORMAL,
    check_intervals,
    entry_parser,
    gather,
    gather_list,
    is_json,
    lagovad_entry,
    name_columns,
    read_json,
    read_text,
    split_columns,
    split_lines,
    split_path,
)
from vigil.types import Video

TRACK_CONVENTIONS = ("official", "stgnf")
_NAME = re.compile(r"(abnormal|normal)_scene_\d+_scenario_?\w+", re.ASCII)
_WHOLE = re.compile(r"\d{1,9}(\.0*)?(e\+0+)?", re.ASCII)  # 450, 450.0, and 1.0e+00; not 4.5e+02
_EXPONENT = re.compile(r"\d(\.\d{1,30})?e\+\d\d", re.ASCII)  # 4.500000e+02, as numpy.savetxt writes


def ubnormal(path: str | Path, lengths: Mapping[str, int] | None = None) -> list[Video]:
    """The Videos of one list of UBnormal, a name a line, or of LaGoVAD's JSON of its test split, in the file's order.

    label comes from the name, abnormal_… or normal_…; category is "Normal" or None, as UBnormal names no classes.
    anomalies: [] if normal, None in a list. LaGoVAD gives parts of the video: `lengths` (name -> frames) turns them
    into frames and fills n_frames, without it anomalies stay None. Against STG-NF's arrays ([start, end) of each
    track) LaGoVAD's intervals end one frame later but for each video's last; 172 of the 211 are equal.
    Raises FileNotFoundError, or one ValueError that names the file and its bad lines.
    """
    path = Path(path)
    text = read_text(path)
    if is_json(text):

        def parse_entry(entry: Any) -> tuple[str, Video]:
            spelled, category, intervals, n_frames = lagovad_entry(entry, lengths)
            name, video = _make_video(spelled, intervals, n_frames)
            if category not in (NORMAL, "Abnormal") or (category == NORMAL) == bool(video.label):
                raise ValueError(f"{name} has the class_name {category!r}")
            return name, video

        expected = "`video_path`, `class_name`, `anomaly_span` [[first, end], …] in parts of the video"
        return list(gather(path, read_json(path, text), entry_parser(parse_entry), expected).values())

    def parse(line: str) -> tuple[str, Video]:
        return _make_video(name_columns(line.split(), ("name",))["name"], None)

    expected = "`name`, such as abnormal_scene_1_scenario_2 or normal_scene_1_scenario_1_fog"
    return list(gather(path, split_lines(text), parse, expected).values())


def ubnormal_tracks(path: str | Path) -> list[tuple[int, int, int]]:
    """The tracks of one official <video>_tracks.txt: (object_id, first, last), the last frame included.

    A track a line, `object_id,start,end`, counted from 0; an object may have several. Whole numbers may be written as
    floats (1.0, 4.500000e+02), as numpy.savetxt does. An end may lie at or beyond the video's last frame.
    Raises FileNotFoundError, or one ValueError that names the file and its bad lines, one that stands twice among them.
    """
    path = Path(path)
    seen: set[tuple[int, int, int]] = set()

    def parse(line: str) -> tuple[int, int, int]:
        columns = name_columns(split_columns(line), ("object_id", "start", "end"))
        object_id, first, last = (_whole(value, key) for key, value in columns.items())
        if first > last:
            raise ValueError(f"object {object_id}: the end {last} is before the start {first}")
        if (object_id, first, last) in seen:
            raise ValueError(f"object {object_id} from {first} to {last} again")
        seen.add((object_id, first, last))
        return object_id, first, last

    return gather_list(path, split_lines(read_text(path)), parse, "`object_id,start,end` in frames from 0")


def track_intervals(tracks: Iterable[tuple[int, int, int]], convention: str = "official") -> list[tuple[int, int]]:
    """The half-open intervals in which any track (object_id, first, last) runs, in order, apart from each other.

    official: last included, as in UBnormal's script. stgnf: last left out, as in STG-NF's arrays; a track of one frame
    is none there. Raises ValueError for another convention, or a track that ends before it starts.
    """
    if convention not in TRACK_CONVENTIONS:
        raise ValueError(f"track convention {convention!r} is unknown; expected {' or '.join(TRACK_CONVENTIONS)}")
    merged: list[tuple[int, int]] = []
    for first, last in sorted((first, last) for _, first, last in tracks):
        if not 0 <= first <= last:
            raise ValueError(f"the track {first}-{last} is not 0 <= first <= last")
        end = last + (convention == "official")
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif first < end:
            merged.append((first, end))
    return merged


def _whole(text: str, what: str) -> int:
    if _WHOLE.fullmatch(text):
        return int(text.partition(".")[0].partition("e")[0])
    if _EXPONENT.fullmatch(text) and float(text).is_integer() and float(text) < 1e9:
        return int(float(text))
    raise ValueError(f"{what} is {text!r}, not a whole number from 0")


def _make_video(
    spelled: str, intervals: list[tuple[int, int]] | None, n_frames: int | None = None
) -> tuple[str, Video]:
    name, path = split_path(spelled)
    said = _NAME.fullmatch(name)
    if said is None:
        raise ValueError(f"unknown name {name!r}")
    label = int(said[1] == "abnormal")
    check_intervals(name, intervals or [], n_frames)
    if intervals is not None and bool(intervals) != bool(label):
        raise ValueError(f"{name} has the intervals {intervals}")
    anomalies = intervals if label else []
    return name, Video(name, path, n_frames, label=label, category=None if label else NORMAL, anomalies=anomalies)
