"""Score curves as runs of equal frames, and AUROC and average precision on those runs, exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Curve:
    """The score of every frame of one video: score[r] holds on the frames edge[r] to edge[r + 1], the latter excluded.

    edge int64 (R + 1,) from 0 to the number of frames, increasing; score (R,) floating point and finite.
    Raises ValueError for anything else.
    """

    edge: np.ndarray
    score: np.ndarray

    def __post_init__(self) -> None:
        if self.edge.shape != (len(self.score) + 1,) or not len(self.score):
            raise ValueError(f"a curve of {self.score.shape} scores has edges {self.edge.shape}; one more is expected")
        if self.edge[0] != 0 or not (self.edge[1:] > self.edge[:-1]).all():
            raise ValueError("the edges of a curve begin at frame 0 and increase")
        _refuse_unfit(self.score)

    @property
    def n_frames(self) -> int:
        return int(self.edge[-1])


def expand(curve: Curve) -> np.ndarray:
    """The score of every frame, (T,)."""
    return np.repeat(curve.score, np.diff(curve.edge))


def from_frames(score: np.ndarray) -> Curve:
    """The curve of a score per frame (T,); frames of equal score in a row become one run."""
    if score.ndim != 1 or not len(score):
        raise ValueError(f"a score of shape {score.shape} is no curve; (T,) with at least one frame is expected")
    _refuse_unfit(score)
    change = np.flatnonzero(score[1:] != score[:-1]) + 1
    edge = np.concatenate([[0], change, [len(score)]]).astype(np.int64)
    return Curve(edge, score[edge[:-1]])


def merge(first: np.ndarray, end: np.ndarray, score: np.ndarray, n_frames: int) -> Curve:
    """One curve of `n_frames` frames from runs (R,) that may overlap: where they do, their scores are averaged.

    A run holds score on the frames first to end, the latter excluded. Averages are taken in float64 and in an order of
    their own, so the order of the runs never matters, and come back in the type of `score`.
    Raises ValueError for a run outside the video and for a frame without a score.
    """
    video = np.zeros(len(first), dtype=np.int64)
    return merge_videos(video, first, end, score, n_frames=[n_frames], names=["the video"])[0]


def merge_videos(
    video: np.ndarray,
    first: np.ndarray,
    end: np.ndarray,
    score: np.ndarray,
    *,
    n_frames: Sequence[int],
    names: Sequence[str],
) -> list[Curve]:
    """`merge` of many videos at once: `video` (R,) says which of them a run belongs to.

    Raises ValueError naming up to ten videos that have a frame without a score, or a run outside the video.
    """
    _refuse_unfit(score)
    length = np.asarray(n_frames, dtype=np.int64)
    _refuse_outside(video, first, end, length, names)
    # the videos laid end to end on one axis of frames, each starting on an edge
    offset = np.concatenate([[0], np.cumsum(length)])
    start, stop = first + offset[video], end + offset[video]
    order = np.lexsort((score, stop, start))
    start, stop, score = start[order], stop[order], score[order]
    edge = np.unique(np.concatenate([start, stop, offset]))
    low, high = np.searchsorted(edge, start), np.searchsorted(edge, stop)
    width = high - low
    run = np.repeat(np.arange(len(width)), width)
    piece = np.arange(len(run)) + np.repeat(low - (np.cumsum(width) - width), width)
    # bincount adds one after the other in float64: the same sums on every machine
    total = np.bincount(piece, weights=score[run], minlength=len(edge) - 1)
    count = np.bincount(piece, minlength=len(edge) - 1)
    cut = np.searchsorted(edge, offset)
    _refuse_gaps(edge, count, cut, offset, names)
    mean = (total / count).astype(score.dtype)
    return [Curve(edge[a : b + 1] - zero, mean[a:b]) for a, b, zero in zip(cut[:-1], cut[1:], offset[:-1], strict=True)]


def against(curve: Curve, anomalies: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A curve beside its truth: score (R,), and the anomalous and the normal frames of every run, both int64 (R,).

    anomalies: half-open frame intervals; they may overlap, and are clipped at the end of the curve.
    Raises ValueError for an interval that begins before frame 0 or ends before it begins.
    """
    before = np.zeros(len(curve.edge), dtype=np.int64)  # anomalous frames before each edge
    reached = 0
    for first, end in sorted(anomalies):
        if first < 0 or end < first:
            raise ValueError(f"the anomaly ({first}, {end}) is no half-open frame interval of a video")
        begin = max(first, reached)  # frames that an earlier interval covered count once
        before += np.clip(curve.edge - begin, 0, max(end - begin, 0))
        reached = max(reached, end)
    positive = np.diff(before)
    return curve.score, positive, np.diff(curve.edge) - positive


def auroc(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the ROC curve of all frames: the share of (positive, negative) pairs in order, a tie counting half.

    score (R,) any finite floats; positive and negative (R,) integer frame counts of each run. Counted in integers, so
    only the last division rounds. Raises ValueError where positives or negatives are missing.
    """
    true_positive, false_positive = operating_points(score, positive, negative)
    n_positive, n_negative = int(true_positive[-1]), int(false_positive[-1])
    if 2 * n_positive * n_negative >= 2**63:  # pixels of a large dataset: Python's integers have no end
        true_positive, false_positive = true_positive.astype(object), false_positive.astype(object)
    gained = np.diff(true_positive, prepend=0)
    passed = np.concatenate([[0], false_positive[:-1]])
    in_order = (gained * (2 * n_negative - passed - false_positive)).sum()  # twice the pairs, so that a tie is 1
    return int(in_order) / (2 * n_positive * n_negative)


def average_precision(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Average precision of all frames: precision at every threshold, weighted by the recall gained there.

    Shapes and errors as in `auroc`. Equals sklearn.metrics.average_precision_score; no interpolation.
    """
    true_positive, false_positive = operating_points(score, positive, negative)
    precision = true_positive / (true_positive + false_positive)
    return float((np.diff(true_positive, prepend=0) * precision).sum() / true_positive[-1])


def average_precision_trapezoid(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the precision-recall curve by the trapezoid rule, from (recall 0, precision 1).

    Shapes and errors as in `auroc`. Equals sklearn's auc(recall, precision), which several papers print as AP although
    it is optimistic where scores tie.
    """
    true_positive, false_positive = operating_points(score, positive, negative)
    precision = np.concatenate([[1.0], true_positive / (true_positive + false_positive)])
    height = (precision[1:] + precision[:-1]) / 2
    return float((np.diff(true_positive, prepend=0) * height).sum() / true_positive[-1])


def operating_points(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and false positives at every distinct score, from the highest down: int64 (G,) each."""
    check_counts(score, positive, negative)
    order = np.argsort(-score)
    ranked = score[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    true_positive = np.cumsum(positive[order], dtype=np.int64)[last]
    false_positive = np.cumsum(negative[order], dtype=np.int64)[last]
    # a run of no frames is no threshold
    seen = np.diff(true_positive + false_positive, prepend=0) > 0
    return true_positive[seen], false_positive[seen]


def check_counts(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> None:
    """Raises ValueError unless the runs fit together and hold both positive and negative frames."""
    if not score.shape == positive.shape == negative.shape or score.ndim != 1:
        raise ValueError(
            f"score {score.shape}, positive {positive.shape} and negative {negative.shape}: "
            "one of each per run is expected"
        )
    if any(not np.issubdtype(count.dtype, np.integer) or (count < 0).any() for count in (positive, negative)):
        raise ValueError("positive and negative are numbers of frames: integers from 0 up are expected")
    _refuse_unfit(score)
    n_positive, n_negative = int(positive.sum()), int(negative.sum())
    if not n_positive or not n_negative:
        raise ValueError(
            f"{n_positive} anomalous and {n_negative} normal frames: a ranking needs at least one of each; "
            "judge more videos together"
        )


def _refuse_unfit(score: np.ndarray) -> None:
    if not np.issubdtype(score.dtype, np.floating):
        raise ValueError(f"scores of type {score.dtype}; floating point is expected")
    if not np.isfinite(score).all():
        index = int(np.argmin(np.isfinite(score)))
        raise ValueError(f"the score of run {index} is {score[index]}; a finite number is expected")


def _refuse_outside(
    video: np.ndarray, first: np.ndarray, end: np.ndarray, length: np.ndarray, names: Sequence[str]
) -> None:
    if (length < 1).any():
        index = int(np.argmax(length < 1))
        raise ValueError(f"{names[index]} has {length[index]} frames; a video to be scored has at least one")
    wrong = (first < 0) | (end <= first) | (end > length[video])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"{names[video[row]]}: a score for the frames {first[row]} to {end[row]} (end exclusive), "
            f"but the video has {length[video[row]]} frames"
        )


def _refuse_gaps(
    edge: np.ndarray, count: np.ndarray, cut: np.ndarray, offset: np.ndarray, names: Sequence[str]
) -> None:
    gap = np.flatnonzero(count == 0)
    if not len(gap):
        return
    video, where = np.unique(np.searchsorted(cut, gap, side="right") - 1, return_index=True)
    some = [f"{names[v]} (frame {edge[gap[w]] - offset[v]})" for v, w in zip(video[:10], where[:10], strict=True)]
    raise ValueError(
        f"{len(video)} of {len(names)} videos have frames without a score: {', '.join(some)}"
        f"{', …' if len(video) > 10 else ''}; score every frame of every video, from frame 0 to the end"
    )
