"""UCA's annotation: what happens in a UCF-Crime video, event by event in words, of both releases."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vigil.annotation_files import (
    NORMAL,
    entry_parser,
    first_of,
    gather_list,
    is_json,
    read_json,
    read_text,
    split_lines,
    split_path,
)
from vigil.annotations_ucf_crime import ucf_crime_category
from vigil.types import Video

IRREGULAR = ("refuse", "keep", "leave_out")

_LINE = re.compile(r"(\S+)\s+([\d:.]+)\s+([\d:.]+)\s*##(.*)", re.ASCII | re.DOTALL)
_TIME = re.compile(r"(?:(\d\d?):)?(\d\d?):(\d\d)\.(\d)", re.ASCII)  # hours, minutes, seconds, tenths
# the kinds of damage of the 2023 release, and the time each means
_BLANK_POINT = re.compile(r"([\d:]{1,9}) \.(\d)(?!\S)", re.ASCII)  # 00:36 .7
_LOST_TENTHS = re.compile(r"(\S+\s+[\d:.]+\s+[\d:]+)\.(\s*##)(\d)\s", re.ASCII)  # 00:12. ##1 Five women
_ODD_TIMES = (
    (re.compile(r"\d\d?:\d{3}\.\d", re.ASCII), "has seconds of three digits"),  # 00:165.1
    (re.compile(r"\d\d?:\d\d:\d", re.ASCII), "has a colon before its tenths"),  # 00:00:0
    (re.compile(r"(?:\d\d?:)?\d\d?:\d\d", re.ASCII), "has no tenths"),  # 0:00, 00:00:00
)
_EXPECTED_LINE = "`name MM:SS.d MM:SS.d ##sentence`, or HH:MM:SS.d, an end after its start, a name of UCF-Crime"
_EXPECTED_ENTRY = "name: {`duration`, `timestamps` [[start, end], …] in seconds, `sentences` [one for each]}"


@dataclass(frozen=True)
class UcaEvent:
    """One event: its video's name, start and end in seconds, what happens in it, and where that is written.

    sentence: without blanks at its edges. duration_s: of the video, None in a text file, which does not say it.
    place: such as "line 12" or "Abuse001_x264 event 3", counted from 1. irregular: what is wrong with it, or None.
    """

    video: str
    start_s: float
    end_s: float
    sentence: str
    duration_s: float | None
    place: str
    irregular: str | None = None


def uca_events(path: str | Path, irregular: str = "refuse") -> list[UcaEvent]:
    """The events of one UCA file, JSON or text, plain or gzipped, of either release or gender-neutral, in its order.

    The current release is regular: MM:SS.d and HH:MM:SS.d, also mixed in a line, one-digit minutes and hours, seconds
    from 60 to 99, events that overlap, repeat, are not sorted, or stand among another video's.
    irregular says what becomes of the 2023 release's damage. "refuse": one ValueError that names up to ten places.
    "leave_out": those events are left out. "keep": they are read as follows and carry what is wrong in `irregular`.
      an end, or a start, beyond the video (195 in its JSON)   as spelled; `caption_frames` clips
      00:36 .7     a blank before the point                    36.7 s
      00:165.1     seconds of three digits                     165.1 s, as in the JSON
      00:00:0      a colon before the tenths                   0.0 s
      0:00, 00:00:00   no tenths                               0.0 s
      00:12. ##1 Five women   the tenths behind the mark       12.1 s, "Five women"
    Whatever else is wrong is a ValueError under each of the three: another line, an end not after its start, an empty
    sentence, a video without class in its name, as many times as sentences not given, an empty file.
    Raises FileNotFoundError, or one ValueError that names the file and its bad lines or entries.
    """
    if irregular not in IRREGULAR:
        raise ValueError(f"irregular is {irregular!r}; expected one of {', '.join(IRREGULAR)}")
    path = Path(path)
    text = read_text(path)
    if is_json(text):
        nested = gather_list(path, read_json(path, text), entry_parser(_read_entry), _EXPECTED_ENTRY)
        events = [event for some in nested for event in some]
    else:
        lines = [(place, (place, line)) for place, line in split_lines(text)]
        events = gather_list(path, lines, _read_line, _EXPECTED_LINE)
    odd = [event for event in events if event.irregular]
    if odd and irregular == "refuse":
        shown = first_of([f"{event.place}: {event.irregular}" for event in odd])
        raise ValueError(
            f"{path.name}: {len(odd)} irregular of {len(events)} events: {shown}. "
            'Take the current release of UCA, or set irregular to "keep" or "leave_out"'
        )
    return [event for event in events if not event.irregular] if irregular == "leave_out" else events


def uca(path: str | Path, fps: float = 30.0, irregular: str = "refuse") -> list[Video]:
    """The Videos of one UCA file with their events as captions, in the order in which the file first names them.

    label and category are said by the name, as of UCF-Crime; anomalies are [] if normal, else None: an event is no
    anomaly. captions: (first, end, sentence) in the file's order, half-open frames at the nominal fps, not clipped, as
    the file knows no frames; n_frames and fps stay None. A video's own rate and length: `uca_events`, `caption_frames`.
    Raises as `uca_events` does.
    """
    videos: dict[str, Video] = {}
    for event in uca_events(path, irregular):
        if event.video not in videos:
            category = ucf_crime_category(event.video)
            is_normal = category == NORMAL
            videos[event.video] = Video(
                event.video, label=int(not is_normal), category=category, anomalies=[] if is_normal else None
            )
        frames = caption_frames(event, fps)
        assert frames is not None  # nothing was clipped
        videos[event.video].captions.append((*frames, event.sentence))
    return list(videos.values())


def caption_frames(event: UcaEvent, fps: float, n_frames: int | None = None) -> tuple[int, int] | None:
    """The frames (first, end) of an event at `fps`, half-open, rounded, at least one; None where none is left.

    Clipped to n_frames where it is given. 65 events of the current release end after their video's last frame at
    30 frames per second. Raises ValueError for an fps or n_frames that is not positive.
    """
    if not 0 < fps < math.inf or (n_frames is not None and n_frames < 1):
        raise ValueError(f"{event.video}: {fps} frames per second and {n_frames} frames; both are to be positive")
    first = round(event.start_s * fps)
    end = max(first + 1, round(event.end_s * fps))
    if n_frames is None:
        return first, end
    return (first, min(end, n_frames)) if first < n_frames else None


def _read_line(row: tuple[str, str]) -> UcaEvent:
    place, line = row
    wrong = []
    if _BLANK_POINT.search(line.partition("##")[0]):
        head, mark, tail = line.partition("##")
        line = _BLANK_POINT.sub(r"\1.\2", head) + mark + tail
        wrong.append("a time has a blank before its point")
    elif _LOST_TENTHS.match(line):
        line = _LOST_TENTHS.sub(r"\1.\3\2", line, count=1)
        wrong.append("the tenths of the end stand behind the ##")
    columns = _LINE.fullmatch(line)
    if columns is None:
        raise ValueError(f"{line[:60]!r} is not an event")
    video, start, end, sentence = columns.groups()
    start_s, end_s = (_read_time(time, wrong) for time in (start, end))
    irregular = f"{'; '.join(wrong)}: {row[1][:60]!r}" if wrong else None
    return _make_event(video, start_s, end_s, sentence, None, place, irregular)


def _read_time(text: str, wrong: list[str]) -> float:
    """Seconds of a time; what is odd about it is added to `wrong`."""
    regular = _TIME.fullmatch(text)
    if regular is None:
        odd = next((what for spelling, what in _ODD_TIMES if spelling.fullmatch(text)), None)
        if odd is None:
            raise ValueError(f"{text!r} is not a time")
        wrong.append(f"a time {odd}")
        if odd == "has a colon before its tenths":
            text = ".".join(text.rsplit(":", 1))
        hours, minutes, seconds = ("0:" * (2 - text.count(":")) + text).split(":")
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    hours, minutes, seconds, tenths = regular.groups(default="0")
    return (36_000 * int(hours) + 600 * int(minutes) + 10 * int(seconds) + int(tenths)) / 10


def _read_entry(entry: dict[str, Any]) -> list[UcaEvent]:
    name, duration_s = entry["name"], _seconds(entry["duration"])
    times, sentences = entry["timestamps"], entry["sentences"]
    if duration_s <= 0 or len(times) != len(sentences) or not times:
        raise ValueError(f"{name}: {len(times)} timestamps and {len(sentences)} sentences in {duration_s} s")
    events = []
    for number, ((start, end), sentence) in enumerate(zip(times, sentences, strict=True), 1):
        start_s, end_s = _seconds(start), _seconds(end)
        place = f"{name} event {number}"
        wrong = None
        if end_s > duration_s:
            which = "starts and ends" if start_s >= duration_s else "ends"
            wrong = f"{start_s}-{end_s} s {which} beyond the video's {duration_s} s"
        events.append(_make_event(name, start_s, end_s, sentence, duration_s, place, wrong))
    return events


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e9:
        raise ValueError(f"{value!r} is not a number of seconds")
    return float(value)


def _make_event(
    video: str, start_s: float, end_s: float, sentence: str, duration_s: float | None, place: str, irregular: str | None
) -> UcaEvent:
    if _checked_name(video) is None:
        raise ValueError(f"unknown class of {video!r}: it is no name of UCF-Crime, such as Abuse001_x264")
    if not 0 <= start_s < end_s:
        raise ValueError(f"{video}: {start_s}-{end_s} s is not 0 <= start < end")
    sentence = sentence.strip()
    if not sentence:
        raise ValueError(f"{video}: {start_s}-{end_s} s has no sentence")
    return UcaEvent(video, start_s, end_s, sentence, duration_s, place, irregular)


def _checked_name(name: str) -> str | None:
    """The category that a name says, if it is the name of one video and no path."""
    return ucf_crime_category(name) if split_path(name) == (name, None) else None
