"""UCSD Ped2's frame annotation, as its authors' Matlab script or as the .mat in circulation -> Videos."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vigil.annotation_files import LARGEST_FILE, NORMAL, check_intervals, gather, read_text, split_lines
from vigil.types import Video

_CLIP = re.compile(r"TestVideoFile\{\s*end\s*\+\s*1\s*\}\.gt_frame\s*=\s*\[(.*)\]\s*;?", re.ASCII)
_RANGE = re.compile(r"(\d{1,9}):(\d{1,9})", re.ASCII)
_MATRIX, _COMPRESSED, _CELL = 14, 15, 1  # types and a class of MAT 5
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_NOTHING = re.compile(r"(TestVideoFile\s*=\s*\{\s*\}\s*;?)?\s*(%.*)?")  # the script's first line, comments


def ucsd_ped2(path: str | Path) -> list[Video]:
    """The test clips Test001, Test002, … of UCSDped2.m or ped2.mat, in order; half-open intervals counted from 0.

    Both count frames from 1 and include the last. UCSDped2.m: a line `TestVideoFile{end+1}.gt_frame = [61:180];` a
    clip, several ranges apart by commas or blanks. ped2.mat: a cell `gt` (1, clips) of 2 x K numbers, starts over ends.
    label is 1 and category None; a clip without a range is normal. n_frames stays None: the frames are a folder.
    Raises FileNotFoundError, or one ValueError that names the file and its bad lines or cells.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected UCSDped2.m or ped2.mat")
    with path.open("rb") as file:
        is_mat = file.read(6) == b"MATLAB"
    if is_mat or path.suffix.lower() == ".mat":
        expected = "a cell `gt` (1, clips) of 2 x K whole numbers, starts above ends, counted from 1"
        clips = [
            (f"cell {number}", (f"Test{number:03d}", cell))
            for number, cell in enumerate(_read_cells(path, expected), 1)
        ]
        return list(gather(path, clips, lambda clip: _make_video(clip[0], _cell_ranges(clip[1])), expected).values())
    lines = [(place, line.strip()) for place, line in split_lines(read_text(path))]
    lines = [(place, line) for place, line in lines if not _NOTHING.fullmatch(line)]
    named = [(place, (f"Test{number:03d}", line)) for number, (place, line) in enumerate(lines, 1)]
    expected = "`TestVideoFile{end+1}.gt_frame = [first:last, …];`, a line a clip, frames counted from 1"
    return list(gather(path, named, lambda clip: _make_video(clip[0], _line_ranges(clip[1])), expected).values())


def _line_ranges(line: str) -> list[tuple[int, int]]:
    said = _CLIP.fullmatch(line.partition("%")[0].strip())
    if said is None:
        raise ValueError(f"{line[:80]!r} is not the ranges of a clip")
    ranges = [(text, _RANGE.fullmatch(text)) for text in re.split(r"[,\s]+", said[1].strip()) if text]
    wrong = [text for text, found in ranges if found is None]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no range such as 61:180")
    return [(int(found[1]), int(found[2])) for _, found in ranges if found]


def _read_cells(path: Path, expected: str) -> list[np.ndarray]:
    """The arrays in the cell `gt` of a MAT 5 file, plain or compressed. scipy's loadmat crashes on a damaged file."""
    with path.open("rb") as file:
        data = file.read(LARGEST_FILE + 1)
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    try:
        if len(data) > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE // 2**20} MiB; that is not an annotation")
        if order is None or data[:10] != b"MATLAB 5.0":
            raise ValueError(f"it starts with {data[:10]!r}, not as a MAT 5 file; save it with -v7 or -v6")
        found = {}
        for kind, content in _elements(data[128:], order):
            element = kind, content
            if kind == _COMPRESSED:
                element = next(_elements(zlib.decompressobj().decompress(content, LARGEST_FILE), order))
            if element[0] == _MATRIX:
                name, value = _read_matrix(element[1], order)
                found[name] = value
    except (ValueError, zlib.error, StopIteration) as error:
        raise ValueError(f"{path.name}: not readable: {error}. Expected {expected}") from error
    cells = found.get("gt")
    if not isinstance(cells, list):
        raise ValueError(
            f"{path.name}: no cell `gt` but {', '.join(map(repr, found)) or 'nothing'}. Expected {expected}"
        )
    return cells


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """(type, content) of the elements that stand in a row in a MAT 5 file, or in a matrix of it."""
    at = 0
    while at < len(data):
        if len(data) < at + 8:
            raise ValueError("it is cut short")
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:  # up to four bytes stand in the tag itself
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(data) or (start == at + 4 and size > 4):
            raise ValueError("it is cut short")
        yield kind, data[start : start + size]
        at = start + size if kind == _COMPRESSED else at + 8 * (1 + (start == at + 8) * -(-size // 8))


def _read_matrix(content: bytes, order: str) -> tuple[str, np.ndarray | list[np.ndarray]]:
    """A matrix's name, and its numbers or, of a cell, the matrices in it. Raises ValueError for anything else."""
    if not content:
        return "", np.zeros((0, 0))
    parts = list(_elements(content, order))
    if len(parts) < 3 or len(parts[0][1]) != 8 or len(parts[1][1]) != 8:
        raise ValueError("a matrix without flags, two dimensions and a name")
    kind = struct.unpack_from(f"{order}I", parts[0][1])[0] & 0xFF
    shape = struct.unpack(f"{order}ii", parts[1][1])
    name = parts[2][1].decode("latin-1")
    values: list[np.ndarray] = []
    if kind == _CELL:
        if shape != (1, len(parts) - 3) or any(part != _MATRIX for part, _ in parts[3:]):
            raise ValueError(f"a cell {shape} of {len(parts) - 3} parts, not (1, clips)")
        for _, part in parts[3:]:
            value = _read_matrix(part, order)[1]
            if isinstance(value, list):
                raise ValueError("a cell in a cell")
            values.append(value)
        return name, values
    if len(parts) != 4 or parts[3][0] not in _NUMBERS:
        raise ValueError(f"a matrix of class {kind}, not of numbers")
    numbers = np.frombuffer(parts[3][1], dtype=np.dtype(order + _NUMBERS[parts[3][0]]))
    if min(shape) < 0 or shape[0] * shape[1] != len(numbers):
        raise ValueError(f"{len(numbers)} numbers in a matrix {shape}")
    return name, numbers.reshape(shape, order="F")


def _cell_ranges(cell: np.ndarray) -> list[tuple[int, int]]:
    cell = np.asarray(cell)
    if cell.size == 0:
        return []
    if cell.ndim != 2 or len(cell) != 2 or cell.dtype.kind not in "uif" or not np.all(cell == np.round(cell)):
        raise ValueError(f"{cell.dtype} {cell.shape} is not 2 x K whole numbers")
    return [(int(first), int(last)) for first, last in cell.T]


def _make_video(name: str, ranges: list[tuple[int, int]]) -> tuple[str, Video]:
    wrong = [f"{first}:{last}" for first, last in ranges if not 1 <= first <= last]
    if wrong:
        raise ValueError(f"{name}: the range {wrong[0]} is not 1 <= first <= last")
    intervals = [(first - 1, last) for first, last in ranges]
    check_intervals(name, intervals)
    category = None if intervals else NORMAL
    return name, Video(name, label=int(bool(intervals)), category=category, anomalies=intervals)
