"""What all readers of annotation share: text out of any file, every bad line in one error, names that stay names."""

from __future__ import annotations

import gzip
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

Row = TypeVar("Row")
Value = TypeVar("Value")

NORMAL = "Normal"  # the category of a video without an anomaly, in every dataset
LARGEST_FILE = 16 * 2**20  # the largest public file unpacks to 4 MB; more is not an annotation
_MOST_LINES = 500_000  # the longest public one, UCA's training JSON, has 87,000
_SHOWN = 10  # bad lines in one error
_LONGEST = 300  # characters of each
_INTEGER = re.compile(r"-?\d{1,12}", re.ASCII)
_EXTENSIONS = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".mat")
_FEATURES = (".npy", ".npz", ".txt")
_SUFFIXES = ("_i3d", "_c3d")


def read_text(path: Path) -> str:
    """The text of a file, of a gzip, or of the one .txt in a zip: UTF-8, with or without a byte order mark.

    Raises FileNotFoundError, or ValueError for a damaged archive, another encoding, or more than an annotation holds.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected an annotation or list, as text, JSON, gzip or zip")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic[:2] == b"\x1f\x8b":
                data = gzip.GzipFile(fileobj=file).read(LARGEST_FILE + 1)
            elif magic == b"PK\x03\x04":
                archive = zipfile.ZipFile(file)
                names = [name for name in archive.namelist() if name.lower().endswith(".txt")]
                if len(names) != 1:
                    raise ValueError(f"{path.name}: {len(names)} .txt files in the zip; expected one, the annotation")
                data = archive.open(names[0]).read(LARGEST_FILE + 1)
            else:
                data = file.read(LARGEST_FILE + 1)
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path.name}: the archive is damaged ({error}); fetch it again") from error
    if len(data) > LARGEST_FILE:
        raise ValueError(f"{path.name}: more than {LARGEST_FILE // 2**20} MiB; that is not an annotation")
    if max(data.count(b"\n"), data.count(b"\r")) > _MOST_LINES:
        raise ValueError(f"{path.name}: more than {_MOST_LINES} lines; that is not an annotation")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error


def split_lines(text: str) -> list[tuple[str, str]]:
    """("line 3", its text) of every line that is not blank, counted from 1."""
    lines = re.split(r"\r\n|\r|\n", text)  # str.splitlines would also cut at form feeds
    return [(f"line {number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def drop_crops(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The lines without the further crops of a feature file: of `name__0.npy` to `name__9.npy` the first is left.

    A line that stands there twice word for word is left twice, for the reader to judge.
    """
    seen: set[str] = set()
    videos: set[str] = set()
    left = []
    for row in lines:
        head, _, tail = row[1].rpartition("__")  # string methods: the lists have 40,000 lines
        crop, extension, rest = tail.partition(".npy")
        video = head + rest if extension and crop.isdecimal() else row[1]
        if video not in videos or row[1] in seen:
            left.append(row)
        videos.add(video)
        seen.add(row[1])
    return left


def split_columns(line: str) -> list[str]:
    """The columns of a line: apart by bars, else by commas, else by blanks and tabs."""
    separator = next((mark for mark in "|," if mark in line), None)  # bars first: intervals hold commas
    return [column.strip() for column in line.split(separator)]


def split_header(path: Path, lines: Sequence[tuple[str, str]]) -> list[str] | None:
    """The columns' names, in lower case, where the first line of a csv gives them, `name` or `path` among them.

    None where it does not. Raises ValueError for one that stands there twice.
    """
    header = split_columns(lines[0][1].lower()) if lines else []
    if len(header) < 2 or not {"name", "path"} & set(header):
        return None
    twice = [key for key in header if header.count(key) > 1]
    if twice:
        raise ValueError(f"{path.name}: the header gives {twice[0]!r} twice: {','.join(header)[:80]}")
    return header


def is_json(text: str) -> bool:
    """Whether the text is JSON rather than lines: a list or an object."""
    return text.lstrip()[:1] in ("[", "{")


def read_json(path: Path, text: str) -> list[tuple[str, Any]]:
    """("entry 3", its value) of a JSON list; an object {name: {…}} is read as the list of {"name": name, …}.

    Raises ValueError for what is not JSON, or an object that gives one key twice.
    """
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: not valid JSON: {error}") from error
    if len(entries) > _MOST_LINES:
        raise ValueError(f"{path.name}: more than {_MOST_LINES} entries; that is not an annotation")
    if isinstance(entries, dict):
        entries = [{"name": name, **value} if isinstance(value, dict) else value for name, value in entries.items()]
    return [(f"entry {number}", entry) for number, entry in enumerate(entries, 1)]


def entry_parser(parse: Callable[[Any], Value]) -> Callable[[Any], Value]:
    """`parse` for the entries of a JSON file, where a key or a type that is not there is a ValueError too."""

    def parse_entry(entry: Any) -> Value:
        try:
            return parse(entry)
        except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise ValueError(f"{json.dumps(entry)[:80]}: {type(error).__name__} {error}") from None

    return parse_entry


def gather(
    path: Path,
    rows: Sequence[tuple[str, Row]],
    parse: Callable[[Row], tuple[str, Value]],
    expected: str,
    repeats: bool = False,
) -> dict[str, Value]:
    """Every row parsed, by name and in order; all that fail in one ValueError. repeats: two rows may say the same."""
    found: dict[str, Value] = {}
    where: dict[str, str] = {}

    def place_of(row: tuple[str, Row]) -> None:
        name, value = parse(row[1])
        if name in found and not (repeats and value == found[name]):
            raise ValueError(f"{name} again, first in {where[name]}")
        found.setdefault(name, value)
        where.setdefault(name, row[0])

    gather_list(path, [(row[0], row) for row in rows], place_of, expected)
    return found


def gather_list(
    path: Path, rows: Sequence[tuple[str, Row]], parse: Callable[[Row], Value], expected: str
) -> list[Value]:
    """Every row parsed, in order; all that fail in one ValueError that shows up to ten. No rows are an error too."""
    found: list[Value] = []
    wrong = []
    for place, row in rows:
        try:
            found.append(parse(row))
        except ValueError as error:
            wrong.append(f"{place}: {error}")
    if wrong:
        raise ValueError(f"{path.name}: {len(wrong)} bad of {len(rows)}: {first_of(wrong)}. Expected {expected}")
    if not found:
        raise ValueError(f"{path.name}: no videos in it. Expected {expected}")
    return found


def first_of(wrong: Sequence[str]) -> str:
    """Up to ten of what is wrong, none at endless length, and how many more there are."""
    shown = [what if len(what) <= _LONGEST else f"{what[:_LONGEST]}…" for what in wrong[:_SHOWN]]
    return "; ".join(shown) + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")


def video_name(file: str) -> str:
    r"""The video's name in a file name of the field: no folder, extension, crop or feature suffix.

    G:\UCF_Test_ten_crop_i3d\Abuse028_x264_i3d.npy and dataset/Abuse/Abuse028_x264__0.npy are both Abuse028_x264.
    """
    name = file.replace("\\", "/").rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    kind = dot + extension.lower()
    if kind not in _FEATURES:
        return stem if kind in _EXTENSIONS else name
    stem = _strip_suffix(stem)
    head, mark, crop = stem.rpartition("__")
    return _strip_suffix(head if mark and crop.isdecimal() else stem)


def split_path(spelled: str) -> tuple[str, Path | None]:
    """The video's name, and its relative path where the file gives a folder and not a feature file.

    Raises ValueError for what could leave the data folder or is no name: `..`, absolute, NUL, not printable, empty.
    """
    parts = spelled.replace("\\", "/").split("/")
    if not spelled.isprintable() or ".." in parts:
        raise ValueError(f"{spelled!r} is not a file name below the data folder")
    feature = spelled.lower().endswith((".npy", ".npz"))
    if not feature and (parts[0] == "" or re.match(r"[A-Za-z]:", spelled)):
        raise ValueError(f"{spelled!r} is absolute or empty; only a list of features (.npy) may be")
    name = video_name(parts[-1])
    if name in ("", "."):
        raise ValueError(f"{spelled!r} names no video")
    return name, None if feature or len(parts) == 1 else Path(*parts)


def name_columns(columns: list[str], layout: Sequence[str]) -> dict[str, str]:
    """{column's name: text}. Raises ValueError for another number of columns."""
    if len(columns) != len(layout):
        raise ValueError(f"{len(columns)} columns, not {len(layout)}: {' '.join(columns)[:80]!r}")
    return dict(zip(layout, columns, strict=True))


def is_integer(text: str) -> bool:
    """Whether the text is a whole number of up to twelve digits, and nothing else."""
    return _INTEGER.fullmatch(text) is not None


def integer(value: Any, what: str) -> int:
    """A whole number given as one or as text. Raises ValueError that says `what` it should have been."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**12:
        return value
    if isinstance(value, str) and is_integer(value):
        return int(value)
    raise ValueError(f"{what} is {value!r}, not a whole number")


def pairs(times: Sequence[int]) -> list[tuple[int, int]]:
    """[s1, e1, -1, -1] -> [(s1, e1)]; whether each pair is an interval is the caller's to check."""
    if len(times) % 2:
        raise ValueError(f"{list(times)} are not pairs of first and end")
    return [pair for pair in zip(times[::2], times[1::2], strict=True) if pair != (-1, -1)]


def check_intervals(name: str, intervals: Sequence[tuple[int, int]], n_frames: int | None = None) -> None:
    """Raises ValueError for a video without frames, or an interval that is none or starts beyond the video."""
    if n_frames is not None and n_frames < 1:
        raise ValueError(f"{name} has {n_frames} frames")
    for first, end in intervals:
        if not 0 <= first < end:
            raise ValueError(f"{name}: the interval {first}-{end} is not 0 <= first < end")
        if n_frames is not None and first >= n_frames:
            raise ValueError(f"{name}: the interval {first}-{end} starts beyond its {n_frames} frames")


def lagovad_entry(
    entry: dict[str, Any], lengths: Mapping[str, int] | None
) -> tuple[str, str, list[tuple[int, int]] | None, int | None]:
    """(path, class, intervals, n_frames) of one video of LaGoVAD's JSON, which gives spans in parts of the video.

    Spans become frames by `lengths` (name -> frames); without it intervals are None where there are spans.
    Raises ValueError for a span that is none, a class that says another thing than the spans, a name without length.
    """
    name = split_path(entry["video_path"])[0]
    spans = [(float(first), float(end)) for first, end in entry["anomaly_span"]]
    if not all(0 <= first < end < math.inf for first, end in spans) or bool(spans) == (entry["class_name"] == NORMAL):
        raise ValueError(f"{name} is {entry['class_name']} with anomaly_span {spans}")
    if lengths is None:
        return entry["video_path"], entry["class_name"], None if spans else [], None
    if name not in lengths:
        raise ValueError(f"{name} has no length")
    n_frames = lengths[name]
    intervals = [(round(first * n_frames), round(end * n_frames)) for first, end in spans]
    return entry["video_path"], entry["class_name"], intervals, n_frames


def _strip_suffix(stem: str) -> str:
    return stem[:-4] if stem[-4:].lower() in _SUFFIXES else stem


def _unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) != len(items):
        keys = [key for key, _ in items]
        raise ValueError(f"one object gives {max(keys, key=keys.count)!r} twice")
    return found
