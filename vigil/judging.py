"""What is said of the curves of a test set: every frame number, from curves and truth alone. NumPy, no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vigil.curves import Curve, against, auroc, average_precision_trapezoid
from vigil.event_map import event_map, false_alarms_per_hour
from vigil.statistics import Interval, Runs, bootstrap
from vigil.temporal import gate, segments
from vigil.types import Video

BINS = 15  # of a reliability diagram, as in Guo et al. 2017 (arXiv:1706.04599)


def frame_numbers(
    videos: Sequence[Video],
    curves: Mapping[str, Curve],
    refined: Mapping[str, Curve] | None = None,
    gated_at: float | None = None,
    threshold: float | None = None,
    unseen: Sequence[str] = (),
) -> dict[str, float]:
    """Every number of frame scores, keyed as in metrics.json: of raw curves, and with _refined and _gated where given.

    curves, refined: of each video by name. gated_at: the threshold below which the final curves are 0 for _gated.
    threshold: of the events, None: there are none. Raises ValueError where the truth of a video is not known.
    """
    names = [video.name for video in videos]
    raw = [curves[name] for name in names]
    final = [refined[name] for name in names] if refined else raw
    values = {**curve_numbers(videos, raw, unseen), **calibration(videos, raw)}
    if refined:
        values |= _suffixed({**curve_numbers(videos, final, unseen), **calibration(videos, final)}, "refined")
    if gated_at is not None:
        gated = [Curve(curve.edge, gate(curve.score, gated_at)) for curve in final]
        values |= _suffixed(curve_numbers(videos, gated, unseen), "gated")
    return values | (event_numbers(videos, final, threshold) if threshold is not None else {})


def curve_numbers(videos: Sequence[Video], curves: Sequence[Curve], unseen: Sequence[str] = ()) -> dict[str, float]:
    """AUROC and AP of frames, and AUROC of whole videos where both labels are there; one bootstrap for both."""
    intervals = bootstrap(runs_of(videos, curves))
    values = frame_auroc(videos, curves, unseen, intervals["auroc"])
    values |= frame_ap(videos, curves, intervals["average_precision"])
    return values | (video_auroc(videos, curves) if {video.label for video in videos} == {0, 1} else {})


def frame_auroc(
    videos: Sequence[Video], curves: Sequence[Curve], unseen: Sequence[str] = (), interval: Interval | None = None
) -> dict[str, float]:
    """frame_auroc with _low and _high, over anomalous videos, per category, over seen and unseen ones.

    interval: its bootstrap, where it is there already. A key without anomalous or without normal frames is left out;
    frame_auroc itself then raises ValueError. A video of several categories, "Fighting+Shooting", counts in each.
    """
    runs = against_all(videos, curves)
    whole = interval or bootstrap(runs_of(videos, curves))["auroc"]
    values = {"frame_auroc": whole.value, "frame_auroc_low": whole.low, "frame_auroc_high": whole.high}
    anomalous = [bool(video.anomalies) for video in videos]
    groups = {"frame_auroc_anomalous": anomalous}
    named = [
        frozenset((v.category or "").split("+")) - {""} if is_one else None
        for v, is_one in zip(videos, anomalous, strict=True)
    ]
    for category in sorted(frozenset().union(*(names for names in named if names))):
        groups[f"frame_auroc/{category}"] = [names is None or category in names for names in named]
    if unseen:
        held = frozenset(unseen)
        groups["frame_auroc_unseen"] = [names is None or bool(names & held) for names in named]
        groups["frame_auroc_seen"] = [names is None or not names & held for names in named]
    for key, members in groups.items():
        chosen = [part for part, is_member in zip(runs, members, strict=True) if is_member]
        if not chosen:
            continue
        score, positive, negative = (np.concatenate(part) for part in zip(*chosen, strict=True))
        if positive.any() and negative.any():
            values[key] = auroc(score, positive, negative)
    return values


def frame_ap(videos: Sequence[Video], curves: Sequence[Curve], interval: Interval | None = None) -> dict[str, float]:
    """frame_ap with _low and _high, and frame_ap_trapezoid."""
    runs = runs_of(videos, curves)
    whole = interval or bootstrap(runs)["average_precision"]
    return {
        "frame_ap": whole.value,
        "frame_ap_low": whole.low,
        "frame_ap_high": whole.high,
        "frame_ap_trapezoid": average_precision_trapezoid(runs.score, runs.positive, runs.negative),
    }


def video_auroc(videos: Sequence[Video], curves: Sequence[Curve]) -> dict[str, float]:
    """AUROC of the highest score of each video against its label: video_auroc."""
    maximum = np.array([curve.score.max() for curve in curves])
    label = np.array(known(videos, "label"), dtype=np.int64)
    return {"video_auroc": auroc(maximum, label, 1 - label)}


def event_numbers(
    videos: Sequence[Video], curves: Sequence[Curve], threshold: float, fps: float | None = None
) -> dict[str, float]:
    """event_map, and false_alarms_per_hour on the normal videos where there are any.

    An event is a stretch above the threshold, scored by its highest frame. fps: of videos that do not say theirs;
    ValueError where neither says.
    """
    found, truth = {}, {}
    for video, curve, events in zip(videos, curves, known(videos, "anomalies"), strict=True):
        found[video.name] = [
            (int(curve.edge[a]), int(curve.edge[b]), float(curve.score[a:b].max()))
            for a, b in segments(curve.score, threshold)
        ]
        truth[video.name] = [(first, min(end, curve.n_frames)) for first, end in events if first < curve.n_frames]
    values = {"event_map": event_map(found, truth)}
    normal = [video for video in videos if not truth[video.name]]
    if normal:
        hours = sum((video.n_frames or 0) / _rate(video, fps) for video in normal) / 3600
        values["false_alarms_per_hour"] = false_alarms_per_hour({v.name: found[v.name] for v in normal}, hours)
    return values


def calibration(videos: Sequence[Video], curves: Sequence[Curve]) -> dict[str, float]:
    """ece: expected calibration error of the frames' scores, in `BINS` equal bins (Guo et al. 2017, equation 3)."""
    bins = reliability(videos, curves)
    frames = np.array(bins["frames"])
    gap = np.abs(np.array(bins["anomalous"]) - np.array(bins["score"]))
    return {"ece": float((frames * gap).sum() / frames.sum())}


def reliability(videos: Sequence[Video], curves: Sequence[Curve]) -> dict[str, list[float]]:
    """A reliability diagram: mean score, share of anomalous frames, and frames, of each bin that holds any.

    Bins are (0, 1/15], (1/15, 2/15], … of the scores in [0, 1]; a score of 0 lies in the first.
    """
    score, positive, negative = (np.concatenate(part) for part in zip(*against_all(videos, curves), strict=True))
    frames = positive + negative
    bin_of = np.clip(np.ceil(score.astype(np.float64) * BINS).astype(int) - 1, 0, BINS - 1)
    count, hits = (np.bincount(bin_of, weights, BINS) for weights in (frames, positive))
    total = np.bincount(bin_of, frames * score.astype(np.float64), BINS)
    filled = count > 0
    return {
        "score": (total[filled] / count[filled]).tolist(),
        "anomalous": (hits[filled] / count[filled]).tolist(),
        "frames": count[filled].astype(int).tolist(),
    }


def top_k(true: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """top1, top2, top3: share of samples whose category is among the k best scored, for k below K.

    true int (N,): the sample's category; score (N, K). Categories that tie with the true one count by chance: the
    expected value if ties were broken at random.
    """
    own = np.take_along_axis(score, true[:, None], axis=1)
    above, tied = (score > own).sum(axis=1), (score == own).sum(axis=1) - 1
    return {f"top{k}": float(np.clip((k - above) / (tied + 1), 0, 1).mean()) for k in range(1, min(4, score.shape[1]))}


def runs_of(videos: Sequence[Video], curves: Sequence[Curve]) -> Runs:
    """The runs of all videos in the order of their names: two tests then draw the same videos, however listed."""
    order = sorted(range(len(videos)), key=lambda number: videos[number].name)
    return Runs.of(against_all([videos[number] for number in order], [curves[number] for number in order]))


def against_all(videos: Sequence[Video], curves: Sequence[Curve]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """`curves.against` of every video. Raises ValueError naming those whose anomalies are not known."""
    return [against(curve, events) for curve, events in zip(curves, known(videos, "anomalies"), strict=True)]


def known(videos: Sequence[Video], field: str) -> list[Any]:
    """A field of every video. Raises ValueError naming those that lack it."""
    unknown = [video.name for video in videos if getattr(video, field) is None]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(videos)} videos have no {field}: {', '.join(unknown[:10])}"
            f"{', …' if len(unknown) > 10 else ''}; this metric needs it of every video"
        )
    return [getattr(video, field) for video in videos]


def _suffixed(values: Mapping[str, float], end: str) -> dict[str, float]:
    return {f"{key}_{end}": value for key, value in values.items()}


def _rate(video: Video, fps: float | None) -> float:
    rate = video.fps or fps
    if not rate:
        raise ValueError(f"{video.name}: its frame rate is unknown; false alarms per hour need Video.fps, or fps here")
    return rate
