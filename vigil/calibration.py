"""How far scores can be taken for probabilities, and what mends them; Guo et al., ICML 2017, arXiv:1706.04599."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 15  # of a reliability diagram, as in Guo et al.


class Bins(NamedTuple):
    """A reliability diagram: of each bin that holds any its number, mean score, share of hits and how many it holds.

    Bins are (0, 1/15], (1/15, 2/15], …, counted from 0; a score of 0 lies in the first.
    """

    number: list[int]
    score: list[float]
    share: list[float]
    size: list[int]

    @classmethod
    def of(cls, score: np.ndarray, hit: np.ndarray, count: np.ndarray) -> Bins:
        """score (R,) in [0, 1] stands for `count` (R,) things, `hit` (R,) of which are what it says."""
        score = score.astype(np.float64)
        bin_of = np.clip(np.ceil(score * BINS).astype(int) - 1, 0, BINS - 1)
        counts, hits, total = (np.bincount(bin_of, weights, BINS) for weights in (count, hit, count * score))
        filled = np.flatnonzero(counts)
        held = counts[filled]
        return cls(
            filled.tolist(), (total[filled] / held).tolist(), (hits[filled] / held).tolist(), held.astype(int).tolist()
        )

    @property
    def error(self) -> float:
        """The expected calibration error: how far score and share of hits lie apart, over all things (equation 3)."""
        size = np.array(self.size)
        return float((size * np.abs(np.array(self.share) - np.array(self.score))).sum() / size.sum())


class NoTemperature(ValueError):
    """The samples have no best temperature, or are too few to fit one."""


def fit_temperature(score: np.ndarray, true: np.ndarray) -> float:
    """The temperature at which softmax(score / temperature) says the true categories best, above 0.

    score (N, K): log-likelihoods; true int (N,). The temperature of least mean negative log-likelihood (Guo et al.,
    section 4.2), found where its slope in 1 / temperature, which only rises, is 0, to 12 digits. Raises ValueError for
    a score that is not finite, and NoTemperature, a ValueError too, below two samples and where no temperature is best:
    with every sample right the lower is the better, and with true categories scored no higher on average than all
    categories are, the higher.
    """
    if score.ndim != 2 or true.shape != score.shape[:1] or not np.isfinite(score).all():
        raise ValueError(
            f"scores {score.shape}, {int(np.isfinite(score).sum())} of {score.size} finite, and categories "
            f"{true.shape}: a finite score of each category and the true one of each sample are expected"
        )
    if len(score) < 2:
        raise NoTemperature(f"{len(score)} samples: at least two are needed")
    score = score.astype(np.float64)
    ahead = score - np.take_along_axis(score, true[:, None], axis=1)  # of the true one's
    if ahead.max() <= 0:
        raise NoTemperature(f"all {len(score)} samples are right, so no confidence would be too high")
    if ahead.mean() >= -1e-9 * np.abs(ahead).mean():
        raise NoTemperature(f"the scores of {len(score)} samples say nothing of their categories")

    def slope(inverse: float) -> float:
        return float((np.exp(log_softmax(ahead * inverse)) * ahead).sum(axis=1).mean())

    low, high = 0.0, 1 / np.abs(ahead).mean()
    while slope(high) < 0:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return float(1 / high)


def log_softmax(score: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """The logarithm of softmax(score / temperature): float64 (N, K)."""
    logit = score.astype(np.float64) / temperature
    logit -= logit.max(axis=1, keepdims=True)
    found: np.ndarray = logit - np.log(np.exp(logit).sum(axis=1, keepdims=True))
    return found
