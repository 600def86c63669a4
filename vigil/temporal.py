"""Steps over a whole video's score: Gaussian smoothing, adaptive threshold, anomalous segments, gating."""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@overload
def smooth(score: np.ndarray, sigma: float) -> np.ndarray: ...
@overload
def smooth(score: Tensor, sigma: float) -> Tensor: ...
def smooth(score: np.ndarray | Tensor, sigma: float) -> np.ndarray | Tensor:
    """Gaussian smoothing of a score (T,): an array or tensor of the same kind, never beyond the score's own extremes.

    sigma in frames, 0 changes nothing. Summed in float64, cut off at 4 sigma, the video mirrored at its ends with the
    outermost frame repeated: scipy.ndimage.gaussian_filter1d(score, sigma, mode="reflect"). No gradient passes.
    Raises ValueError for a negative sigma or a score that is not (T,).
    """
    if not sigma >= 0 or score.ndim != 1 or not len(score):
        raise ValueError(
            f"cannot smooth a score of shape {tuple(score.shape)} by sigma {sigma}; (T,), 0 or more expected"
        )
    values = _float64(score)
    radius = int(4 * sigma + 0.5)
    if radius:
        weight = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        padded = np.pad(values, radius, mode="symmetric")
        mean = np.convolve(padded, weight / weight.sum(), mode="valid")
        values = np.clip(mean, values.min(), values.max())  # rounding must not leave [0, 1]
    return _as(score, values)


@overload
def smooth_segments(score: np.ndarray, sigma: float, length: int) -> np.ndarray: ...
@overload
def smooth_segments(score: Tensor, sigma: float, length: int) -> Tensor: ...
def smooth_segments(score: np.ndarray | Tensor, sigma: float, length: int) -> np.ndarray | Tensor:
    """`smooth` over the parts of a score (T,) instead of its frames: an array or tensor of the same kind.

    A part is `length` frames, the last one may be shorter, and counts as their mean, which is held over them again.
    sigma in parts; 0 changes nothing where the score is constant within each. Raises ValueError for a length below 1,
    and as `smooth` does.
    """
    if length < 1:
        raise ValueError(f"cannot smooth over parts of {length} frames; at least 1 is expected")
    if score.ndim != 1 or not len(score):
        raise ValueError(f"cannot smooth a score of shape {tuple(score.shape)}; (T,) is expected")
    values = _float64(score)
    first = np.arange(0, len(values), length)
    count = np.diff(first, append=len(values))
    mean = np.add.reduceat(values, first) / count
    low, high = np.minimum.reduceat(values, first), np.maximum.reduceat(values, first)
    part = smooth(np.clip(mean, low, high), sigma)  # the mean of equal scores is that score, to the last bit
    return _as(score, np.repeat(part, count))


def adaptive_threshold(score: np.ndarray | Tensor, kappa: float) -> float:
    """Mean of a score (T,) plus kappa of its standard deviations (population, dividing by T)."""
    values = _float64(score)
    return float(values.mean() + kappa * values.std())


def segments(score: np.ndarray | Tensor, threshold: float) -> list[tuple[int, int]]:
    """The half-open frame intervals where a score (T,) lies above the threshold; equal to it is not above."""
    # float64: a float32 score would round the threshold up to itself
    above = np.concatenate([[False], _float64(score) > threshold, [False]])
    change = np.flatnonzero(above[1:] != above[:-1])
    return [(int(first), int(end)) for first, end in change.reshape(-1, 2)]


@overload
def gate(score: np.ndarray, threshold: float) -> np.ndarray: ...
@overload
def gate(score: Tensor, threshold: float) -> Tensor: ...
def gate(score: np.ndarray | Tensor, threshold: float) -> np.ndarray | Tensor:
    """A score (T,) within its `segments` above the threshold, 0 outside: an array or tensor of the same kind.

    What tells apart the thresholds of a table of AUROC, since one that only cuts events leaves every AUROC as it is.
    Raises ValueError for a threshold that is NaN: nothing lies above it.
    """
    if np.isnan(threshold):
        raise ValueError("cannot gate a score by the threshold nan; a number is expected")
    values = _float64(score)
    return _as(score, np.where(values > threshold, values, 0.0))


def fit_threshold(maximum: np.ndarray | Tensor, label: np.ndarray | Tensor) -> float:
    """The threshold of every system's events, fitted where only the label of a whole video is known.

    maximum (V,): the highest score of each validation video; label (V,): 0 or 1, both present, else ValueError.
    Returns the value that maximises Youden's J, the share of anomalous videos above it less the share of normal ones.
    Candidates lie midway between neighbouring maxima, and at the highest, above which there is no event; among equals
    the highest wins: of two thresholds that separate alike, the one with fewer alarms.
    """
    peak, truth = _float64(maximum), _float64(label)
    if peak.shape != truth.shape or peak.ndim != 1 or not np.isfinite(peak).all():
        raise ValueError(
            f"maxima {peak.shape} and labels {truth.shape}: one finite maximum per labelled video is expected"
        )
    if set(truth.tolist()) != {0.0, 1.0}:
        raise ValueError(f"labels {sorted(set(truth.tolist()))}: a threshold needs normal (0) and anomalous (1) videos")
    level = np.unique(peak)
    candidate = np.append((level[1:] + level[:-1]) / 2, level[-1])
    above = peak[None, :] > candidate[:, None]
    hit, alarm = above[:, truth == 1].sum(axis=1), above[:, truth == 0].sum(axis=1)
    # Youden's J times both class sizes: whole numbers, so that ties are ties
    gain = hit * int((truth == 0).sum()) - alarm * int((truth == 1).sum())
    return float(candidate[np.flatnonzero(gain == gain.max())[-1]])


def _float64(values: np.ndarray | Tensor) -> np.ndarray:
    if isinstance(values, np.ndarray):
        return values.astype(np.float64)
    array: np.ndarray = values.detach().double().cpu().numpy()
    return array


def _as(score: np.ndarray | Tensor, values: np.ndarray) -> np.ndarray | Tensor:
    """The values in the kind, type and place of a score."""
    return values.astype(score.dtype) if isinstance(score, np.ndarray) else score.new_tensor(values)
