"""Captions as numbers and as a file: held against counts by hand, and read back as they were written."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.worlds import ROOT
from vigil.captions import (
    Caption,
    caption_numbers,
    distinct,
    judged_numbers,
    most_frequent_template,
    read_captions,
    spread_evenly,
    words,
    write_captions,
)

CAPTIONS = ["A man walked to the door.", "A man walked to the road!", "a man, walked TO me", "Smoke.", ""]
REFERENCES = ["He left.", "Two men fought.", "Two men fought.", "Fire broke out at once.", "He's gone."]
VIDEOS = ["b", "b", "a", "a", "c"]
SIMILARITY = [0.5, 0.25, -0.125, 1.0, 0.0]
HEADER = "video,first_frame,end_frame,caption,reference,similarity\n"


def test_words_are_lower_case_and_without_punctuation() -> None:
    assert words("A man's dog -- he thinks -- walked to the door/road.") == [
        "a", "man's", "dog", "he", "thinks", "walked", "to", "the", "door", "road",
    ]  # fmt: skip
    assert words("“Éva’s” 2 bags") == ["éva’s", "2", "bags"]
    assert words(" ...\n") == []


def test_distinct_n_is_the_share_of_n_grams_that_differ_and_none_reaches_from_one_text_to_the_next() -> None:
    said = [words(text) for text in CAPTIONS]
    assert sum(map(len, said)) == 6 + 6 + 5 + 1
    assert distinct(CAPTIONS, 1) == len({word for text in said for word in text}) / 18
    bigrams = [pair for text in said for pair in pairwise(text)]
    assert len(bigrams) == 5 + 5 + 4
    assert distinct(CAPTIONS, 2) == len(set(bigrams)) / 14
    assert distinct(["a b", "c d"], 2) == 1
    assert distinct(["a b"] * 4, 2) == 1 / 4
    assert distinct(["", "word"], 2) == 0


def test_the_template_is_the_first_four_words() -> None:
    assert most_frequent_template(CAPTIONS) == 3 / 5
    assert most_frequent_template(["A man walked to", "A man walked by", "A man walked"]) == 1 / 3
    assert most_frequent_template(["", "...", "x"]) == 2 / 3
    assert most_frequent_template(["Same again."]) == 1


def test_the_numbers_are_those_of_captions_and_of_references_beside_them() -> None:
    values = caption_numbers(CAPTIONS, REFERENCES, VIDEOS, SIMILARITY)
    assert values.keys() == {
        *("caption_sbert", "caption_sbert_low", "caption_sbert_high", "caption_distinct1", "caption_distinct2"),
        *("caption_template", "reference_distinct1", "reference_distinct2", "reference_template"),
    }
    assert values["caption_sbert"] == sum(SIMILARITY) / 5
    assert -0.125 <= values["caption_sbert_low"] < values["caption_sbert"] < values["caption_sbert_high"] <= 1
    assert values["caption_template"] == 3 / 5
    assert values["reference_template"] == 2 / 5
    assert values["reference_distinct1"] == distinct(REFERENCES, 1) > values["caption_distinct1"]


def test_numbers_without_a_sample_are_refused() -> None:
    with pytest.raises(ValueError, match="one sample or more"):
        caption_numbers([], [], [], [])
    assert judged_numbers([Caption("a", 0, 9, "It burns.", "Fire.")]) == {}


def test_rows_are_taken_evenly_with_the_first_and_the_last() -> None:
    assert spread_evenly(range(10), 4) == [0, 3, 6, 9]
    assert spread_evenly(range(2), 4) == [0, 1]
    assert spread_evenly([], 4) == []


# the file ------------------------------------------------------------------------------------------------------------


def test_captions_come_back_as_they_were_to_the_last_bit(tmp_path: Path) -> None:
    odd = ['He said "no", and left', "two\nlines", "", " spaces ", "a|b, 火"]
    similarity = np.random.default_rng(0).uniform(-1, 1, 5).astype(np.float32).tolist()
    rows = [Caption("a, b", 3 * i, 3 * i + 3, text, text[::-1], similarity[i]) for i, text in enumerate(odd)]
    write_captions(tmp_path / "captions.csv", rows)
    assert read_captions(tmp_path / "captions.csv") == rows
    plain = [Caption("a", 0, 3, "one", "two", 0.1), Caption("a", 0, 3, "one", "three", -1.0)]
    write_captions(tmp_path / "captions.csv", plain)
    assert (tmp_path / "captions.csv").read_text() == HEADER + "a,0,3,one,two,0.1\na,0,3,one,three,-1.0\n"
    assert [row.similarity for row in read_captions(tmp_path / "captions.csv")] == [float(np.float32(0.1)), -1.0]


def test_captions_that_nobody_judged_have_no_similarity(tmp_path: Path) -> None:
    rows = [Caption("a", 0, 3, "one", ""), Caption("a", 3, 6, "two", "")]
    write_captions(tmp_path / "captions.csv", rows)
    assert (tmp_path / "captions.csv").read_text().splitlines()[1] == "a,0,3,one,,"
    assert read_captions(tmp_path / "captions.csv") == rows
    (tmp_path / "captions.csv").write_text("video,first_frame,end_frame,caption,reference\na,0,3,one,\na,3,6,two,\n")
    assert read_captions(tmp_path / "captions.csv") == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "a,0,3,one,two,0.5\na,3,6,one,two,\n", r"line 3: no similarity, 1 of 2 rows have one"),
        (HEADER + "a,0,3,one,two,1.01\n", r"line 2: the similarity 1\.01 is no cosine"),
        (HEADER + "a,0,3,one,two,high\n", r"line 2: the score 'high' is no finite number"),
        (HEADER + "a,0,3.5,one,two,0.5\n", r"line 2: the frame '3\.5' is no whole number"),
        (HEADER + "a,0,3,one, two,three,0.5\n", r"line 2: 7 columns, 6 are expected"),
        (HEADER.replace("caption", "said"), r"line 1: no column caption"),
    ],
)
def test_captions_that_cannot_be_read_are_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "captions.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"captions\.csv, {message}"):
        read_captions(tmp_path / "captions.csv")
    with pytest.raises(FileNotFoundError, match=r"other\.csv: no such file"):
        read_captions(tmp_path / "other.csv")


def test_reading_captions_loads_neither_torch_nor_lightning() -> None:
    code = (
        "import sys, vigil.captions, vigil.caption_table, vigil.columns; print({'torch', 'scipy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
