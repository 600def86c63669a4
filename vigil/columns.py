"""The columns of a CSV, each row with its line, and what is no number in them named by it. NumPy, no torch."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def read_columns(file: Path, needed: Sequence[str]) -> tuple[list[int], dict[str, list[str]]]:
    """The columns of a CSV and the line that each row stands on. Raises ValueError for a missing column or cell."""
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; a CSV with the columns {','.join(needed)} is expected")
    try:
        text = file.read_text(encoding="utf-8-sig")
        header = [name.strip() for name in next(csv.reader(text.splitlines()[:1]), [])]
        _refuse_header(file, header, needed)
        lines, columns = _quoted(text, len(header)) if '"' in text else _plain(text, len(header))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: no CSV in UTF-8 ({error}); save it as one") from None
    except _WrongWidth as wrong:
        line, found = wrong.args
        raise ValueError(
            f"{file}, line {line}: {found} columns, {len(header)} are expected as line 1 names them"
        ) from None
    return lines, dict(zip(header, columns, strict=True))


def _refuse_header(file: Path, header: Sequence[str], needed: Sequence[str]) -> None:
    absent = [name for name in needed if name not in header]
    if absent or len(set(header)) < len(header):
        lacking = f"no column {', '.join(absent)}" if absent else "two columns of one name"
        raise ValueError(
            f"{file}, line 1: {lacking}; its columns are {', '.join(header) or 'none'}, {','.join(needed)} are expected"
        )


class _WrongWidth(Exception):
    """The number of a line, and how many columns it has."""


def _plain(text: str, width: int) -> tuple[list[int], list[list[str]]]:
    """`_quoted` of a text without a quotation mark, twice as fast."""
    rest = text.split("\n")[1:]
    lines = [number for number, line in enumerate(rest, 2) if line]
    rows = [line for line in rest if line]
    for number, line in zip(lines, rows, strict=True):
        if line.count(",") != width - 1:
            raise _WrongWidth(number, line.count(",") + 1)
    cells = ",".join(rows).split(",") if rows else []
    return lines, [cells[column::width] for column in range(width)]


def _quoted(text: str, width: int) -> tuple[list[int], list[list[str]]]:
    """Of the rows of a CSV after its first the line that each ends on, and `width` columns. Raises _WrongWidth."""
    reader = csv.reader(io.StringIO(text))
    next(reader)
    lines, rows = [], []
    for row in reader:
        if row and len(row) != width:
            raise _WrongWidth(reader.line_num, len(row))
        if row:
            lines.append(reader.line_num)
            rows.append(row)
    return lines, [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


def integers(file: Path, lines: Sequence[int], texts: Sequence[str]) -> np.ndarray:
    """Frames as int64. Raises ValueError naming the line of one that is no whole number."""
    try:
        return np.fromiter(map(int, texts), np.int64, len(texts))
    except (ValueError, OverflowError):
        row = next(row for row, text in enumerate(texts) if not re.fullmatch(r"\s*[+-]?[0-9]{1,15}\s*", text))
        raise ValueError(
            f"{file}, line {lines[row]}: the frame {texts[row]!r} is no whole number; frames count from 0, and ends "
            "are exclusive"
        ) from None


def finite(file: Path, lines: Sequence[int], texts: Sequence[str]) -> np.ndarray:
    """float32, each text's nearest. Raises ValueError naming the line of one that is no finite number."""
    try:
        value = np.fromiter(map(float, texts), np.float64, len(texts))
    except ValueError:  # some text, which is then the first to be named
        value = np.array([_parsed(text) for text in texts], dtype=np.float64)
    for row in np.flatnonzero(~np.isfinite(value))[:1]:
        raise ValueError(f"{file}, line {lines[row]}: the score {texts[row]!r} is no finite number; give every row one")
    return value.astype(np.float32)


def _parsed(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
