from __future__ import annotations

import numpy as np
import pytest

from vigil.event_map import event_average_precision, event_map, false_alarms_per_hour

Events = dict[str, list[tuple[int, int, float]]]
Truth = dict[str, list[tuple[int, int]]]


def plain_average_precision(found: Events, truth: Truth, tiou: float) -> float:
    """From the definition: frames as sets, every recall level looked up in the list of (recall, precision)."""
    ranked = [(score, name, set(range(a, b))) for name, events in found.items() for a, b, score in events]
    ranked.sort(key=lambda event: -event[0])
    open_events = {name: [set(range(a, b)) for a, b in events] for name, events in truth.items()}
    n_true = sum(len(events) for events in truth.values())
    points, hits = [], 0
    for rank, (_, name, frames) in enumerate(ranked, start=1):
        overlaps = [(len(frames & other) / len(frames | other), i) for i, other in enumerate(open_events[name])]
        if overlaps and max(overlaps)[0] >= tiou:
            open_events[name].pop(max(overlaps)[1])
            hits += 1
        points.append((hits, hits / rank))
    best = [max([p for hit, p in points if hit >= level], default=0.0) for level in range(1, n_true + 1)]
    return sum(best) / n_true


def random_events(seed: int) -> tuple[Events, Truth]:
    generator = np.random.default_rng(seed)
    found: Events = {}
    truth: Truth = {}
    for name in "abcdef":
        start = generator.integers(0, 80, 3)
        truth[name] = [(int(a), int(a + generator.integers(1, 30))) for a in start[: generator.integers(0, 3)]]
        found[name] = [
            (int(a), int(a + generator.integers(1, 30)), float(generator.random()))
            for a in generator.integers(0, 80, generator.integers(0, 9))
        ]
    truth["a"].append((5, 25))
    return found, truth


@pytest.mark.parametrize("seed", range(20))
def test_event_average_precision_equals_a_plain_loop(seed: int) -> None:
    found, truth = random_events(seed)
    values = []
    for tiou in (0.1, 0.2, 0.3, 0.4, 0.5):
        values.append(plain_average_precision(found, truth, tiou))
        assert event_average_precision(found, truth, tiou) == pytest.approx(values[-1], abs=1e-12)
    assert event_map(found, truth) == pytest.approx(sum(values) / 5, abs=1e-12)


def test_the_truth_itself_scores_one() -> None:
    truth = {"a": [(0, 10), (20, 30)], "b": []}
    assert event_map({"a": [(20, 30, 0.2), (0, 10, 0.9)]}, truth) == 1.0
    assert event_map({}, truth) == 0.0


def test_a_true_event_is_found_once() -> None:
    truth = {"a": [(0, 10)], "b": [(0, 10)]}
    found = {"a": [(0, 10, 0.9), (0, 10, 0.8)], "b": [(0, 10, 0.7)]}
    assert event_average_precision(found, truth, 0.5) == pytest.approx((1 + 2 / 3) / 2)


def test_an_overlap_equal_to_the_threshold_is_enough() -> None:
    truth = {"a": [(0, 10)]}
    assert event_average_precision({"a": [(0, 5, 0.5)]}, truth, 0.5) == 1.0
    assert event_average_precision({"a": [(0, 4, 0.5)]}, truth, 0.5) == 0.0


def test_equal_scores_do_not_depend_on_the_order_of_videos() -> None:
    truth = {"a": [(0, 10)], "b": []}
    one = {"a": [(0, 10, 0.5)], "b": [(0, 10, 0.5)]}
    other = {"b": [(0, 10, 0.5)], "a": [(0, 10, 0.5)]}
    assert event_map(one, truth) == event_map(other, truth)


def test_what_cannot_be_judged_is_refused() -> None:
    with pytest.raises(ValueError, match="no true event"):
        event_map({"a": [(0, 3, 0.5)]}, {"a": []})
    with pytest.raises(ValueError, match="'b'"):
        event_map({"b": [(0, 3, 0.5)]}, {"a": [(0, 3)]})
    with pytest.raises(ValueError, match="a: the event"):
        event_map({"a": [(3, 3, 0.5)]}, {"a": [(0, 3)]})
    with pytest.raises(ValueError, match="finite score"):
        event_map({"a": [(0, 3, float("nan"))]}, {"a": [(0, 3)]})


def test_false_alarms_are_counted_per_hour() -> None:
    assert false_alarms_per_hour({"a": [(0, 3, 0.5), (9, 12, 0.7)], "b": [], "c": [(1, 2, 0.3)]}, hours=0.5) == 6.0
    with pytest.raises(ValueError, match="0 hours"):
        false_alarms_per_hour({}, hours=0)
