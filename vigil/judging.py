"""What is said of a test set: every number of frames and classes, from scores and truth alone. NumPy, no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vigil.calibration import Bins, log_softmax
from vigil.curves import Curve, against, auroc, average_precision_trapezoid
from vigil.event_map import event_map, false_alarms_per_hour
from vigil.statistics import Interval, Runs, bootstrap, bootstrap_mean
from vigil.temporal import gate, segments
from vigil.types import Video

# raw scores 0 and 1, as a likelihood: what LAVIDA's released code adds to every test, a normal and an anomalous frame
SENTINELS = (0.5, 1 / (1 + math.exp(-1)))


def frame_numbers(
    videos: Sequence[Video],
    curves: Mapping[str, Curve],
    refined: Mapping[str, Curve] | None = None,
    gated_at: float | None = None,
    threshold: float | None = None,
    unseen: Sequence[str] = (),
    sentinels: bool = False,
) -> dict[str, float]:
    """Every number of frame scores, keyed as in metrics.json: of raw curves, and with _refined and _gated where given.

    curves, refined: of each video by name. gated_at: the threshold below which the final curves are 0 for _gated.
    threshold: of the events, None: there are none. sentinels: see `with_sentinels`. Raises ValueError where the truth
    of a video is not known.
    """
    names = [video.name for video in videos]
    raw = [curves[name] for name in names]
    final = [refined[name] for name in names] if refined else raw
    values = {**curve_numbers(videos, raw, unseen, sentinels), **calibration(videos, raw)}
    if refined:
        values |= _suffixed(
            {**curve_numbers(videos, final, unseen, sentinels), **calibration(videos, final)}, "refined"
        )
    if gated_at is not None:
        gated = [Curve(curve.edge, gate(curve.score, gated_at)) for curve in final]
        values |= _suffixed(curve_numbers(videos, gated, unseen, sentinels), "gated")
    return values | (event_numbers(videos, final, threshold) if threshold is not None else {})


def curve_numbers(
    videos: Sequence[Video], curves: Sequence[Curve], unseen: Sequence[str] = (), sentinels: bool = False
) -> dict[str, float]:
    """AUROC and AP of frames, and AUROC of whole videos where both labels are there; one bootstrap for both."""
    intervals = bootstrap(runs_of(videos, curves))
    values = frame_auroc(videos, curves, unseen, intervals["auroc"])
    values |= frame_ap(videos, curves, intervals["average_precision"])
    values |= with_sentinels(videos, curves) if sentinels else {}
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


def with_sentinels(videos: Sequence[Video], curves: Sequence[Curve]) -> dict[str, float]:
    """frame_auroc_sentinels: AUROC of all frames and of two more, a normal one of 0.5 and an anomalous one of 0.731.

    Why: LAVIDA's released code adds the raw scores 0, normal, and 1, anomalous, so that a test of one label has an
    AUROC. It ranks raw logits, in the midst of which both lie; as a likelihood a logit of 0 is 0.5, one of 1 is
    sigmoid(1). Two frames of many thousands: it differs from frame_auroc in the last digits of a whole test set.
    """
    score, positive, negative = (np.concatenate(part) for part in zip(*against_all(videos, curves), strict=True))
    score = np.concatenate([score, np.array(SENTINELS, dtype=score.dtype)])
    return {"frame_auroc_sentinels": auroc(score, np.append(positive, [0, 1]), np.append(negative, [1, 0]))}


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
    """ece: expected calibration error of the frames' scores, in 15 equal bins (Guo et al. 2017, equation 3)."""
    return {"ece": reliability(videos, curves).error}


def reliability(videos: Sequence[Video], curves: Sequence[Curve]) -> Bins:
    """A reliability diagram of frames: how many of those of a score are anomalous. Scores lie in [0, 1]."""
    score, positive, negative = (np.concatenate(part) for part in zip(*against_all(videos, curves), strict=True))
    return Bins.of(score, positive, positive + negative)


def class_numbers(
    true: np.ndarray, score: np.ndarray, video: Sequence[str], temperature: float | None = None
) -> dict[str, float]:
    """Every number of class scores, keyed as in metrics.json; with _scaled where a temperature was fitted.

    true int (N,): the category of each sample; score (N, K): log-likelihoods, whose softmax is the probability of each
    category; video (N,): whose sample it is. top1 to top3 as `top_k` has them, with _low and _high over videos;
    top_expansion: top3 less top1. Of the probabilities, and of softmax(score / temperature): class_ece, the expected
    calibration error of the most probable category (Guo et al. 2017, equation 3), and class_nll, the mean negative
    log-likelihood of the true one; class_entropy of the former, both in nats. Raises ValueError without any sample.
    """
    values: dict[str, float] = {}
    for k, hit in enumerate(_hits(true, score), 1):
        interval = bootstrap_mean(hit, video)
        values |= {f"top{k}": interval.value, f"top{k}_low": interval.low, f"top{k}_high": interval.high}
    if "top3" in values:
        values["top_expansion"] = values["top3"] - values["top1"]
    values |= _class_calibration(true, score)
    logit = log_softmax(score)
    values["class_entropy"] = float(-(np.exp(logit) * logit).sum(axis=1).mean())
    if temperature is not None:
        values |= _suffixed(_class_calibration(true, score, temperature), "scaled")
    return values


def class_reliability(true: np.ndarray, score: np.ndarray, temperature: float = 1.0) -> Bins:
    """A reliability diagram of classes: how often the most probable category is the true one, by its probability."""
    confidence = np.exp(log_softmax(score, temperature).max(axis=1))
    return Bins.of(confidence, next(_hits(true, score)), np.ones(len(true)))


def top_k(true: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """top1, top2, top3: share of samples whose category is among the k best scored, for k below K.

    true int (N,): the sample's category; score (N, K). Categories that tie with the true one count by chance: the
    expected value if ties were broken at random.
    """
    return {f"top{k}": float(hit.mean()) for k, hit in enumerate(_hits(true, score), 1)}


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


def _hits(true: np.ndarray, score: np.ndarray) -> Iterator[np.ndarray]:
    """For k of 1, 2, 3 below K: how far each sample's category is among the k best, float64 (N,) in [0, 1]."""
    own = np.take_along_axis(score, true[:, None], axis=1)
    above, tied = (score > own).sum(axis=1), (score == own).sum(axis=1) - 1
    for k in range(1, min(4, score.shape[1])):
        yield np.clip((k - above) / (tied + 1), 0, 1)


def _class_calibration(true: np.ndarray, score: np.ndarray, temperature: float = 1.0) -> dict[str, float]:
    own = np.take_along_axis(log_softmax(score, temperature), true[:, None], axis=1)
    return {"class_ece": class_reliability(true, score, temperature).error, "class_nll": float(-own.mean())}


def _suffixed(values: Mapping[str, float], end: str) -> dict[str, float]:
    return {f"{key}_{end}": value for key, value in values.items()}


def _rate(video: Video, fps: float | None) -> float:
    rate = video.fps or fps
    if not rate:
        raise ValueError(f"{video.name}: its frame rate is unknown; false alarms per hour need Video.fps, or fps here")
    return rate
