"""What systems say of the same events, side by side as Markdown: the form of the DualEncoder paper's Table 1. No torch.

A column is an event, a row what the dataset or a system says of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vigil.captions import Caption, read_captions, spread_evenly

GROUND_TRUTH = "Ground truth"
Key = tuple[str, int, int, str]


def caption_table(files: Mapping[str, Path], samples: int = 4) -> str:
    """A Markdown table of what each cell says of the same `samples` events, with the similarity to the ground truth.

    files: the captions.csv of each cell by its name. The events are chosen evenly over those that all cells describe,
    in the first one's order. Raises ValueError without a file and where the cells have no event in common, and as
    `read_captions`.
    """
    if not files:
        raise ValueError("no captions to show; the captions.csv of one cell or more is expected")
    told = {cell: {_key(row): row for row in read_captions(file)} for cell, file in files.items()}
    shared = [key for key in next(iter(told.values())) if all(key in rows for rows in told.values())]
    if not shared:
        counts = ", ".join(f"{len(rows)} in {files[cell]}" for cell, rows in told.items())
        raise ValueError(f"no event is described by all of them: {counts}; give tests on the same events")
    chosen = spread_evenly(shared, samples)
    rows = {cell: [_said(rows[key]) for key in chosen] for cell, rows in told.items()}
    return markdown([headed(*key[:3]) for key in chosen], {GROUND_TRUTH: [key[3] for key in chosen], **rows})


def markdown(head: Sequence[str], rows: Mapping[str, Sequence[str]], pictures: Sequence[str] = ()) -> str:
    """A Markdown table: `head` above the columns, {first cell of a row: its texts}, which are shown as they are.

    pictures: Markdown of a first row, Frames, of its own.
    """
    lines = [["", *map(escaped, head)], ["---"] * (1 + len(head)), *([["Frames", *pictures]] if pictures else [])]
    lines += [[escaped(text) for text in (name, *texts)] for name, texts in rows.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def headed(video: str, first: int, end: int) -> str:
    """What stands above an event's column."""
    return f"{video}, frames {first} to {end}"


def escaped(text: str) -> str:
    """A text that a Markdown table shows as it is, in one line."""
    text = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([|*`\\_\[\]])", r"\\\1", text)


def _key(row: Caption) -> Key:
    return row.video, row.first, row.end, row.reference


def _said(row: Caption) -> str:
    return row.text if row.similarity is None else f"{row.text} ({row.similarity:.3f})"
