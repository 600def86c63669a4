"""How sure a number is: bootstrap over videos, of curves and of means; paired differences; mean and spread of seeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vigil.curves import auroc, average_precision, check_counts

BLOCK = 256  # thresholds at a time: (BLOCK, resamples) float64 stays in the processor's cache
# OpenBLAS takes products up to this many multiplications on one thread. Its threads wait by spinning: on two busy cores
# one product of a whole block took 25 ms with them and 2 ms in pieces of HEIGHT rows without.
ONE_THREAD, HEIGHT = 2**18, 8


@dataclass(frozen=True, eq=False)
class Runs:
    """A test set to be ranked, as runs: their score, positive and negative frames, and video, (R,) each.

    Frames are integer counts, videos integers from 0 to n_videos - 1. Raises ValueError where the runs do not fit
    together or hold no positive or no negative frame.
    """

    score: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    video: np.ndarray
    n_videos: int

    def __post_init__(self) -> None:
        check_counts(self.score, self.positive, self.negative)
        if self.video.shape != self.score.shape or self.video.min() < 0 or self.video.max() >= self.n_videos:
            raise ValueError(f"every run belongs to one of {self.n_videos} videos, numbered from 0")

    @classmethod
    def of(cls, videos: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Runs:
        """From `curves.against` of each video, in the videos' order."""
        score, positive, negative = (np.concatenate(part) for part in zip(*videos, strict=True))
        video = np.repeat(np.arange(len(videos)), [len(runs[0]) for runs in videos])
        return cls(score, positive, negative, video, len(videos))

    def frames(self) -> tuple[np.ndarray, np.ndarray]:
        """Positive and negative frames of every video, int64 (V,) each."""
        counts = (np.bincount(self.video, count, self.n_videos) for count in (self.positive, self.negative))
        positive, negative = (count.astype(np.int64) for count in counts)
        return positive, negative


@dataclass(frozen=True)
class Interval:
    """A value and the percentile interval around it."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """The second system's value less the first's, its interval, and the two-sided p-value of no difference."""

    p: float


def bootstrap(runs: Runs, resamples: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, Interval]:
    """AUROC and average precision with percentile intervals over videos; keys auroc and average_precision.

    Frames of one video resemble each other, so whole videos are drawn, with replacement, as many as there are. A draw
    that holds no positive or no negative frame has no AUROC and is drawn again (see `draw_videos`).
    """
    drawn = resample(runs, draw_videos(*runs.frames(), resamples, seed))
    tail = (1 - level) / 2
    value = {
        "auroc": auroc(runs.score, runs.positive, runs.negative),
        "average_precision": average_precision(runs.score, runs.positive, runs.negative),
    }
    return {key: Interval(value[key], *np.quantile(drawn[key], [tail, 1 - tail]).tolist()) for key in value}


def bootstrap_mean(
    value: np.ndarray, group: Sequence[str | int], resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> Interval:
    """The mean of all samples, and its percentile interval over groups of them, such as the samples of one video.

    value (N,) finite; group (N,): what each sample belongs to. As many groups as there are are drawn with replacement,
    and a drawn group brings all its samples. The samples' order does not matter, to the last bit. Raises ValueError
    for no sample, for values that are not finite and for another number of groups.
    """
    value = np.asarray(value, dtype=np.float64)
    if value.shape != (len(group),) or not len(value) or not np.isfinite(value).all():
        raise ValueError(
            f"values {value.shape} of {len(group)} groups, {int(np.isfinite(value).sum())} of them finite; one sample "
            "or more are expected, and of each a finite value and its group"
        )
    samples: dict[str | int, list[float]] = {}
    for name, one in zip(group, value.tolist(), strict=True):
        samples.setdefault(name, []).append(one)
    members = [samples[name] for name in sorted(samples)]
    total, size = (np.array([of(part) for part in members], dtype=np.float64) for of in (math.fsum, len))
    once = np.ones(len(members), dtype=np.int64)
    count = draw_videos(once, once, resamples, seed)
    low, high = np.quantile(count @ total / (count @ size), [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(math.fsum(value) / len(value), low, high)


def paired(
    first: Runs, second: Runs, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, Difference]:
    """How much better `second` is than `first`, both judged on the same draws of videos; keys as in `bootstrap`.

    p: twice the smaller share of draws on one side of zero, counting the observed sample as one draw, at most 1.
    Raises ValueError where the two do not hold the same videos with the same truth.
    """
    truth = list(zip(*first.frames(), strict=True)), list(zip(*second.frames(), strict=True))
    if truth[0] != truth[1]:
        differ = [index for index, (a, b) in enumerate(zip(*truth, strict=False)) if a != b]
        raise ValueError(
            f"the systems were judged on different truth: {len(truth[0])} and {len(truth[1])} videos, "
            f"differing in their frames at {differ[:10]}; judge both on the same videos in the same order"
        )
    count = draw_videos(*first.frames(), resamples, seed)
    drawn, other = resample(first, count), resample(second, count)
    difference = {}
    for key, statistic in (("auroc", auroc), ("average_precision", average_precision)):
        value = statistic(second.score, second.positive, second.negative) - statistic(
            first.score, first.positive, first.negative
        )
        gain = other[key] - drawn[key]
        low, high = (float(q) for q in np.quantile(gain, [(1 - level) / 2, (1 + level) / 2]))
        p = 2 * (1 + min((gain <= 0).sum(), (gain >= 0).sum())) / (1 + resamples)
        difference[key] = Difference(value, low, high, min(1.0, float(p)))
    return difference


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) over seeds; None where one value has no spread.

    Raises ValueError where there is no value.
    """
    if not len(values):
        raise ValueError("no value to average; at least one run is expected")
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def draw_videos(positive: np.ndarray, negative: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each resample holds each video: int64 (resamples, V), every row summing to V.

    positive and negative (V,) are the videos' frames; a row without any of either is drawn again from the same stream.
    """
    generator = np.random.default_rng(seed)
    n_videos = len(positive)
    count = np.empty((resamples, n_videos), dtype=np.int64)
    missing = np.arange(resamples)
    while len(missing):
        for row in missing:
            count[row] = np.bincount(generator.integers(0, n_videos, n_videos), minlength=n_videos)
        missing = np.flatnonzero((count @ positive == 0) | (count @ negative == 0))
    return count


def resample(runs: Runs, count: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC and average precision (float64) of every resample: count (resamples, V) as `draw_videos` gives it.

    The runs are sorted once. At each threshold where positives are gained, the frames of each video form a row, so that
    the true and false positives of all resamples are one matrix product; whole numbers below 2 ** 53 make it exact.
    """
    weight = _strips(count.T.astype(np.float64))
    weights = weight, weight.astype(np.float32)
    true_positive, false_positive, behind, precision = (np.zeros(weight.shape[0] * weight.shape[2]) for _ in range(4))
    for gained_by, passed_by, tied_by in _thresholds(runs):
        gained, passed = _product(gained_by, weights), _product(passed_by, weights)
        reached = gained.copy()
        true_positive, false_positive = _accumulate(reached, true_positive), _accumulate(passed, false_positive)
        behind += 2 * np.einsum("gr,gr->r", passed, gained)  # negatives in front of or level with each positive
        if tied_by.any():
            behind -= np.einsum("gr,gr->r", _product(tied_by, weights), gained)
        passed += reached
        np.maximum(passed, 1, out=passed)  # a threshold that no drawn video reaches gains nothing: 0 / 1
        np.divide(reached, passed, out=passed)
        precision += np.einsum("gr,gr->r", passed, gained)
    positive, negative = (count @ frames for frames in runs.frames())
    pairs = 2 * positive * negative
    own = slice(len(count))
    return {"auroc": (pairs - behind[own]) / pairs, "average_precision": precision[own] / positive}


def _accumulate(rows: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Turn rows (G, resamples) into running sums from `start`, in place; returns a copy of the last."""
    rows[0] += start
    for above, row in pairwise(rows):  # three times as fast as np.cumsum, which walks down one column after the other
        np.add(row, above, out=row)
    last: np.ndarray = rows[-1].copy()
    return last


def _strips(weight: np.ndarray) -> np.ndarray:
    """weight (V, resamples) cut into (strips, V, columns), the last filled up with zeros."""
    n_videos, resamples = weight.shape
    columns = max(1, ONE_THREAD // (HEIGHT * n_videos))
    strips = -(-resamples // columns)
    whole = np.zeros((n_videos, strips * columns))
    whole[:, :resamples] = weight
    return np.ascontiguousarray(whole.reshape(n_videos, strips, columns).transpose(1, 0, 2))


def _product(frames: np.ndarray, weights: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """frames (G, V) times the weights of `_strips`, float64 (G, strips * columns) and exact.

    In float32, twice as fast, where that holds the counts.
    """
    double, single = weights
    if frames.sum(axis=1).max() * double.max() < 2**24:
        frames, double = frames.astype(np.float32), single
    product = frames.reshape(-1, 1, HEIGHT, frames.shape[1]) @ double
    joined: np.ndarray = product.swapaxes(1, 2).reshape(len(frames), -1).astype(np.float64)
    return joined


def _thresholds(runs: Runs) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Frames per threshold and video, float64 (BLOCK, V) each, from the highest score down; zeros fill the last block.

    Thresholds are the scores of positive runs. Gained: positives at the threshold; passed: negatives from it up to the
    one above; tied: negatives exactly at it. Negatives below the last threshold count for nothing.
    """
    threshold = np.unique(runs.score[runs.positive > 0])[::-1]
    below = np.searchsorted(-threshold, -runs.score)  # the first threshold that is not above the score
    order = np.argsort(below, kind="stable")
    cut = np.searchsorted(below[order], np.arange(0, len(threshold) + BLOCK, BLOCK))
    for number, (a, b) in enumerate(pairwise(cut)):
        run = order[a:b]
        run = run[below[run] < len(threshold)]
        cell = (below[run] - number * BLOCK) * runs.n_videos + runs.video[run]
        level = runs.negative[run] * (runs.score[run] == threshold[below[run]])
        gained, passed, tied = (
            np.bincount(cell, frames, BLOCK * runs.n_videos).reshape(BLOCK, runs.n_videos)
            for frames in (runs.positive[run], runs.negative[run], level)
        )
        yield gained, passed, tied
