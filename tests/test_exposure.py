"""The exposure sampler: its distribution against the closed form, and what may never be asked."""

from __future__ import annotations

from collections import Counter
from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from vigil.exposure import NoCandidate, distinct, expose, spelling

WORDS = ("ant", "bee", "cow", "dog", "eel", "fox", "gnu", "hen", "ibex", "jay", "kite", "lynx")


def draws(
    n: int, seed: int, own: tuple[str, ...], others: tuple[str, ...], p: float, most: int
) -> list[tuple[list[str], bool]]:
    generator = np.random.default_rng(seed)
    return [expose(own, others, p, most, generator) for _ in range(n)]


@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_the_share_of_anomalous_samples_is_p(p: float) -> None:
    anomalous = sum(anomalous for _, anomalous in draws(3000, 1, ("a red car",), WORDS, p, 8))
    assert anomalous == 3000 * p if p in (0, 1) else binomtest(anomalous, 3000, p).pvalue > 0.01


@pytest.mark.parametrize(("own", "most", "high"), [(("x",), 8, 7), (("x", "y"), 8, 6), ((), 8, 7), (("x",), 30, 12)])
def test_the_number_of_irrelevant_phrases_is_uniform_whatever_the_label(
    own: tuple[str, ...], most: int, high: int
) -> None:
    for label in {True, False} if own else {False}:
        counts = Counter(
            len(phrases) - len(own) * anomalous
            for phrases, anomalous in draws(4000, 2, own, WORDS, 0.5, most)
            if anomalous == label
        )
        assert sorted(counts) == list(range(1, high + 1))
        assert chisquare([counts[k] for k in sorted(counts)]).pvalue > 0.01


def test_every_candidate_and_every_place_in_the_list_is_equally_likely() -> None:
    found = draws(4000, 3, ("x",), WORDS, 0.5, 8)
    shown = Counter(phrase for phrases, _ in found for phrase in phrases)
    assert chisquare([shown[word] for word in WORDS]).pvalue > 0.01
    five = [phrases for phrases, anomalous in found if anomalous and len(phrases) == 5]
    places = Counter(phrases.index("x") for phrases in five)
    assert chisquare([places[k] for k in range(5)]).pvalue > 0.01


def test_sets_of_two_irrelevant_phrases_are_equally_likely() -> None:
    pairs = Counter(
        tuple(sorted(phrases)) for phrases, anomalous in draws(6000, 4, ("x",), WORDS[:5], 0.0, 3) if len(phrases) == 2
    )
    assert len(pairs) == comb(5, 2)
    assert chisquare(list(pairs.values())).pvalue > 0.01


def test_a_phrase_that_is_there_n_times_is_n_times_as_likely_to_come_first() -> None:
    ones = Counter(phrases[0] for phrases, _ in draws(4000, 5, ("x",), ("ant", "bee", "bee", "bee"), 0.0, 2))
    assert chisquare([ones["ant"], ones["bee"]], [1000, 3000]).pvalue > 0.01


def test_no_true_phrase_is_among_the_irrelevant_and_none_is_there_twice() -> None:
    own, also = ("a Traffic light",), ("people",)
    others = ("traffic-lights", "the traffic light", "Person", "dogs", "a dog", "trafficlight", "bus", "buses", "fire")
    generator = np.random.default_rng(6)
    for _ in range(500):
        phrases, anomalous = expose(own, others, 0.5, 6, generator, also_true=also)
        assert len({spelling(phrase) for phrase in phrases}) == len(phrases)
        assert anomalous == ("a Traffic light" in phrases)
        irrelevant = {spelling(phrase) for phrase in phrases if phrase != "a Traffic light"}
        assert irrelevant <= {spelling(word) for word in ("dog", "bus", "fire")}


def test_a_seed_decides_the_draw() -> None:
    assert draws(20, 7, ("x",), WORDS, 0.5, 8) == draws(20, 7, ("x",), WORDS, 0.5, 8)
    assert draws(20, 7, ("x",), WORDS, 0.5, 8) != draws(20, 8, ("x",), WORDS, 0.5, 8)


def test_the_count_depends_on_distinct_candidates_not_on_repeats() -> None:
    found = draws(300, 9, ("x",), ("dog", "dogs", "a dog", "Dog") * 5, 0.5, 30)
    assert {len(phrases) - anomalous for phrases, anomalous in found} == {1}


@pytest.mark.parametrize(("own", "most"), [(("x",), 5), (("x", "y"), 6)])
def test_with_an_even_count_the_number_of_phrases_says_nothing_of_the_label(own: tuple[str, ...], most: int) -> None:
    generator = np.random.default_rng(4)
    found = [expose(own, WORDS, 0.5, most, generator, even_count=True) for _ in range(6000)]
    for label in (True, False):
        counts = Counter(len(phrases) for phrases, anomalous in found if anomalous == label)
        assert sorted(counts) == list(range(len(own) + 1, most + 1))
        assert chisquare([counts[k] for k in sorted(counts)]).pvalue > 0.01
    assert all(anomalous == bool(set(own) & set(phrases)) for phrases, anomalous in found)
    with pytest.raises(NoCandidate, match="1 of 1 phrases of other samples is irrelevant to x"):
        expose(("x",), WORDS[:1], 0.5, most, generator, even_count=True)


@pytest.mark.parametrize(
    ("own", "others", "p", "most", "message"),
    [
        (("x",), WORDS, 1.1, 5, r"p 1\.1"),
        (("x",), WORDS, float("nan"), 5, "p nan"),
        (("x",), WORDS, 0.5, 1, "max_categories 1"),
        (("x", "y", "z"), WORDS, 0.5, 3, "3 true phrases leave no room"),
        ((), (), 0.5, 3, "none of 0 phrases"),
        (("a dog",), ("dogs", "Dog"), 0.5, 3, "none of 2 phrases.*irrelevant to a dog"),
        (("x",), ("--",), 0.5, 3, "no letter"),
    ],
)
def test_what_cannot_be_drawn_is_refused(
    own: tuple[str, ...], others: tuple[str, ...], p: float, most: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        expose(own, others, p, most, np.random.default_rng(0))


@pytest.mark.parametrize(
    "same",
    [
        "traffic-lights|Traffic light|the traffic light|TRAFFIC_LIGHT|trafficlight|a  traffic light.",
        *("a box|boxes", "glass|glasses|the glass", "bus|buses", "house|houses", "city|cities", "knife|knives"),
        *("a leaf|leaves", "shelf|shelves", "shoe|shoes", "potato|potatoes", "people|a person|persons", "women|Woman"),
        *("children|child", "mice|mouse", "TV|TVs", "movie|movies", "tie|ties", "bench|benches", "man's hat|mans hats"),
        *("horse|horses", "firemen|a fireman", "glove|gloves", "ski|skis", "Straße|STRASSE"),
    ],
)
def test_spellings_of_one_phrase_are_one(same: str) -> None:
    assert len({spelling(phrase) for phrase in same.split("|")}) == 1


def test_other_phrases_stay_apart() -> None:
    apart = ["car", "care", "cap", "cape", "pan", "pane", "can", "cane", "kit", "kite", "bus", "bush", "man", "mane",
             "woman", "a person running", "a person", "people in red", "person in red car", "window blind", "fire",
             "a", "glass", "grass", "bat", "bath", "tub", "tube", "火", "消防車", "1", "2"]  # fmt: skip
    assert len({spelling(phrase) for phrase in apart}) == len(apart)
    assert distinct(["Dogs", "cat", "a dog", "Cats"]) == ["Dogs", "cat"]
