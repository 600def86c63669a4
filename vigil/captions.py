"""What is said of captions: how near they are to the references, and how much they repeat themselves. No torch."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vigil.columns import finite, integers, read_columns
from vigil.statistics import bootstrap_mean

COLUMNS = ["video", "first_frame", "end_frame", "caption", "reference"]
TEMPLATE_WORDS = 4


class Caption(NamedTuple):
    """What a system says of frames `first` to `end` of a video, the latter excluded.

    reference: the dataset's sentence, empty where there is none. similarity: cosine of both, None where nobody judged.
    """

    video: str
    first: int
    end: int
    text: str
    reference: str
    similarity: float | None = None


def caption_numbers(
    captions: Sequence[str], references: Sequence[str], videos: Sequence[str], similarity: Sequence[float] | np.ndarray
) -> dict[str, float]:
    """caption_sbert with its interval, and how stereotyped captions and references are; a sample each, N in all.

    caption_sbert: mean similarity in [-1, 1], with _low and _high by bootstrap over videos. distinct1, distinct2 and
    template, in [0, 1] each: see the functions below. Raises ValueError for no sample or a similarity that is none.
    """
    interval = bootstrap_mean(np.asarray(similarity), videos)
    values = {"caption_sbert": interval.value, "caption_sbert_low": interval.low, "caption_sbert_high": interval.high}
    for name, texts in (("caption", captions), ("reference", references)):
        values |= {f"{name}_distinct{n}": distinct(texts, n) for n in (1, 2)}
        values[f"{name}_template"] = most_frequent_template(texts)
    return values


def judged_numbers(rows: Sequence[Caption]) -> dict[str, float]:
    """`caption_numbers` of captions that were judged, {} where nobody judged any."""
    similarity = [row.similarity for row in rows if row.similarity is not None]
    if not similarity:
        return {}
    return caption_numbers(
        [row.text for row in rows], [row.reference for row in rows], [row.video for row in rows], similarity
    )


def distinct(texts: Sequence[str], n: int) -> float:
    """How many of all n-grams are different ones, within texts; 0 where no text has n words.

    It falls with the number of texts: compare it on the same samples. Source: Li et al. 2016 (arXiv:1510.03055,
    distinct-1 and distinct-2). Differs: they divide by the words, which for n = 2 depends on the texts' length.
    """
    found = [tuple(said[at : at + n]) for said in map(words, texts) for at in range(len(said) - n + 1)]
    return len(set(found)) / len(found) if found else 0.0


def most_frequent_template(texts: Sequence[str]) -> float:
    """Share of the texts that begin with the same `TEMPLATE_WORDS` words as most; 1 where all do."""
    begins = Counter(tuple(words(text)[:TEMPLATE_WORDS]) for text in texts)
    return max(begins.values()) / len(texts)


def words(text: str) -> list[str]:
    """Lower case, without punctuation; an apostrophe within a word stays."""
    return re.findall(r"\w+(?:['’]\w+)*", text.lower())


def spread_evenly(rows: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the rows, evenly over them, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), count), dtype=int))
    return [rows[number] for number in chosen]


def write_captions(file: Path, captions: Sequence[Caption]) -> None:
    """captions.csv: video,first_frame,end_frame,caption,reference,similarity; the last empty where nobody judged."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow([*COLUMNS, "similarity"])
        for *said, similarity in captions:
            writer.writerow([*said, "" if similarity is None else str(np.float32(similarity))])


def read_captions(file: Path) -> list[Caption]:
    """The captions of a captions.csv. Raises FileNotFoundError, or ValueError naming the line that cannot be read.

    A file that was judged has a similarity in [-1, 1] in every row, another in none.
    """
    lines, column = read_columns(file, COLUMNS)
    first, end = (integers(file, lines, column[name]) for name in ("first_frame", "end_frame"))
    given = column.get("similarity", [""] * len(lines))
    if any(given) and not all(given):
        raise ValueError(
            f"{file}, line {lines[given.index('')]}: no similarity, {sum(map(bool, given))} of {len(given)} rows have "
            "one; give every row one, or leave the column out"
        )
    similarity = finite(file, lines, given) if any(given) else np.zeros(0, dtype=np.float32)
    for row in np.flatnonzero(np.abs(similarity) > 1)[:1]:
        raise ValueError(f"{file}, line {lines[row]}: the similarity {given[row]} is no cosine, it lies in [-1, 1]")
    columns = (column["video"], first.tolist(), end.tolist(), column["caption"], column["reference"])
    judged: list[float | None] = similarity.tolist() or [None] * len(lines)
    return [Caption(*row) for row in zip(*columns, judged, strict=True)]
