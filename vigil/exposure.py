"""Anomaly exposure: which phrases a sample is asked about, and whether that makes it anomalous."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from functools import lru_cache

import numpy as np

_APOSTROPHE = re.compile(r"['’`´]")
_BETWEEN_WORDS = re.compile(r"[\W_]+")
_ARTICLES = ("a", "an", "the")
_IRREGULAR = {
    "people": "person", "children": "child", "feet": "foot", "teeth": "tooth", "mice": "mouse", "geese": "goose",
}  # fmt: skip
# endings that singular and plural shall share once the s is gone: (box)es, cit(ies), kni(ves), potat(oes)
_ENDINGS = ((r"(s|x|z|ch|sh)e$", r"\1"), (r"ie$", "y"), (r"[fv]e?$", "f"), (r"oe$", "o"), (r"men$", "man"))


class NoCandidate(ValueError):
    """Nothing irrelevant is left to ask about."""


@lru_cache(maxsize=1 << 16)
def spelling(phrase: str) -> str:
    """What all spellings of a phrase have in common; for comparing, not for reading.

    Left out: case, apostrophes, whatever else is no letter or digit (hyphens, underscores, blanks, punctuation), a
    leading a, an or the, and the plural of the last word: its s, but not of -ss and -us, then the endings -(s, x, z,
    ch, sh)e, -ie for -y, -ve and -fe for -f, -oe for -o, -men for -man, and six irregular ones. "traffic-lights",
    "Traffic light", "the traffic light" and "trafficlight" are one. Raises ValueError for a phrase without any letter
    or digit.
    """
    words = [word for word in _BETWEEN_WORDS.split(_APOSTROPHE.sub("", phrase.casefold())) if word]
    if not words:
        raise ValueError(f"{phrase!r} holds no letter and no digit; a phrase names something that can be seen")
    if len(words) > 1 and words[0] in _ARTICLES:
        del words[0]
    last = _IRREGULAR.get(words[-1], words[-1])
    if len(last) > 2 and last.endswith("s") and not last.endswith(("ss", "us")):
        last = last[:-1]
    if len(last) > 2:
        for ending, shared in _ENDINGS:
            last = re.sub(ending, shared, last)
    return "".join([*words[:-1], last])


def distinct(phrases: Iterable[str]) -> list[str]:
    """The phrases without those that are another spelling of an earlier one."""
    found: dict[str, str] = {}
    for phrase in phrases:
        found.setdefault(spelling(phrase), phrase)
    return list(found.values())


def expose(
    own: Sequence[str],
    others: Sequence[str],
    p: float,
    max_categories: int,
    generator: np.random.Generator,
    also_true: Collection[str] = (),
    even_count: bool = False,
) -> tuple[list[str], bool]:
    """The phrases that a sample is asked about, in random order, and whether it is anomalous.

    own: the true phrases chosen of the sample; without any it is normal. others: phrases of other samples, drawn
    without replacement; one that is there n times is n times as likely to be next. also_true: whatever else is true of
    the sample and must not be asked. The sample is anomalous with probability p. The number of irrelevant phrases is
    uniform on 1 .. min(max_categories - max(1, len(own)), distinct candidates), whatever the label; an anomalous
    sample is asked about `own` as well. With one own phrase that is 2 .. max_categories phrases of an anomalous sample
    and 1 .. max_categories - 1 of a normal one: their number alone tells something of the label, much where
    max_categories is small. even_count: a normal sample is asked about as many irrelevant phrases more, so that it
    tells nothing. No list holds two spellings of one phrase, and no irrelevant phrase is
    a spelling of one in `own` or `also_true`.
    Raises ValueError for p outside [0, 1], max_categories under 2, as many own phrases as that, and NoCandidate where
    none is left: then the sample could not be normal, and always calling it anomalous would not be p.
    Source: LAVIDA, arXiv:2602.19248, equations 1 and 2. Differs: K_E is random, as its text says and its code does.
    """
    if not 0 <= p <= 1 or max_categories < 2:
        raise ValueError(f"p {p}, max_categories {max_categories}: expected p in [0, 1] and at least 2 categories")
    own = distinct(own)
    if len(own) >= max_categories:
        raise ValueError(f"{len(own)} true phrases leave no room for others in {max_categories}: choose fewer of them")
    true = {spelling(phrase) for phrase in (*own, *also_true)}
    order = generator.permutation(len(others))
    candidates = [phrase for phrase in distinct(others[i] for i in order) if spelling(phrase) not in true]
    if len(candidates) < 1 + even_count * max(1, len(own)):
        raise NoCandidate(
            f"{len(candidates) or 'none'} of {len(others)} phrases of other samples is irrelevant to "
            f"{', '.join(own) or 'the sample'}; "
            "draw the phrases of more samples"
        )
    anomalous = bool(generator.random() < p) and bool(own)
    n_own = max(1, len(own))
    spare = len(candidates) - n_own if even_count else len(candidates)
    n_irrelevant = int(generator.integers(1, max(1, min(max_categories - n_own, spare)) + 1))
    n_more = n_own if even_count and not anomalous else 0
    phrases = candidates[: n_irrelevant + n_more] + (own if anomalous else [])
    return [phrases[i] for i in generator.permutation(len(phrases))], anomalous
