"""Judging found events: average precision at temporal overlaps, and false alarms per hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

TIOU = (0.1, 0.2, 0.3, 0.4, 0.5)

Found = Mapping[str, Sequence[tuple[int, int, float]]]  # video -> (first frame, end frame, score)
Truth = Mapping[str, Sequence[tuple[int, int]]]  # video -> (first frame, end frame)


def event_map(found: Found, truth: Truth, tiou: Sequence[float] = TIOU) -> float:
    """Mean of `event_average_precision` over the overlaps `tiou`, 0.1 to 0.5 by default; whatever the class."""
    return float(np.mean([event_average_precision(found, truth, threshold) for threshold in tiou]))


def event_average_precision(found: Found, truth: Truth, tiou: float) -> float:
    """Average precision in [0, 1] of found events, right where they overlap a true one by at least `tiou`.

    Overlap is intersection over union in frames. From the highest score down, each found event takes the true event of
    its video that it overlaps most among those not yet taken; the rest are false, as is any event of a normal video.
    Equal scores rank by video name, then first frame. Precision at a recall is the best at any recall from there up
    (ActivityNet). Raises ValueError where there is no true event, an event is empty or a video is unknown to `truth`: a
    normal video belongs there with an empty list.
    """
    _refuse_unfit(found, truth)
    ranked = sorted((-score, name, first, end) for name, events in found.items() for first, end, score in events)
    taken: set[tuple[str, int]] = set()
    hit = np.zeros(len(ranked))
    for rank, (_, name, first, end) in enumerate(ranked):
        overlap = {i: _tiou((first, end), event) for i, event in enumerate(truth[name]) if (name, i) not in taken}
        best = max(overlap, key=overlap.__getitem__, default=None)
        if best is not None and overlap[best] >= tiou:
            taken.add((name, best))
            hit[rank] = 1
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((envelope * hit).sum() / sum(len(events) for events in truth.values()))


def false_alarms_per_hour(found: Found, hours: float) -> float:
    """Events found on normal videos, per hour of them. Raises ValueError where there is no normal video to watch."""
    if not hours > 0:
        raise ValueError(f"{hours} hours of normal video; false alarms per hour need more than none")
    return sum(len(events) for events in found.values()) / hours


def _tiou(one: tuple[int, int], other: tuple[int, int]) -> float:
    common = max(0, min(one[1], other[1]) - max(one[0], other[0]))
    return common / (one[1] - one[0] + other[1] - other[0] - common)


def _refuse_unfit(found: Found, truth: Truth) -> None:
    unknown = sorted(set(found) - set(truth))
    if unknown:
        raise ValueError(f"events found in {unknown[:10]}, of which the truth says nothing; list every judged video")
    if not any(truth.values()):
        raise ValueError(f"no true event in {len(truth)} videos; event mAP needs at least one")
    for name in truth:
        for event in [*truth[name], *found.get(name, [])]:
            if event[1] <= event[0]:
                raise ValueError(f"{name}: the event {event} holds no frame; half-open (first, end) is expected")
            if not np.isfinite(event).all():
                raise ValueError(f"{name}: the event {event} holds no number to rank by; a finite score is expected")
