from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from vigil.curves import (
    Curve,
    against,
    auroc,
    average_precision,
    average_precision_trapezoid,
    expand,
    from_frames,
    merge,
    merge_videos,
)


def random_runs(seed: int, n_runs: int = 400, levels: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs with tied scores, runs of both truths and runs of no frame at all."""
    generator = np.random.default_rng(seed)
    score = (generator.integers(0, levels, n_runs) / levels).astype(np.float32)
    return score, generator.integers(0, 5, n_runs), generator.integers(0, 30, n_runs)


def frames_of(score: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    label = np.concatenate([np.ones(positive.sum(), dtype=int), np.zeros(negative.sum(), dtype=int)])
    return label, np.concatenate([np.repeat(score, positive), np.repeat(score, negative)])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [1, 3, 50, 10**6])
def test_areas_equal_scikit_learn_on_the_expanded_frames(seed: int, levels: int) -> None:
    runs = random_runs(seed, levels=levels)
    label, score = frames_of(*runs)
    precision, recall, _ = precision_recall_curve(label, score)
    assert auroc(*runs) == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert average_precision(*runs) == pytest.approx(average_precision_score(label, score), abs=1e-12)
    assert average_precision_trapezoid(*runs) == pytest.approx(auc(recall, precision), abs=1e-12)


def test_equal_scores_count_half() -> None:
    tied = np.full(3, 0.3, dtype=np.float32)
    assert auroc(tied, np.array([7, 0, 2]), np.array([0, 13, 5])) == 0.5


def test_a_run_without_frames_is_no_threshold() -> None:
    runs = np.array([0.9, 0.5, 0.4, 0.1]), np.array([0, 2, 0, 1]), np.array([0, 1, 0, 3])
    without = tuple(part[[1, 3]] for part in runs)
    for area in (auroc, average_precision, average_precision_trapezoid):
        assert area(*runs) == area(*without)


def test_areas_do_not_depend_on_how_runs_are_cut_or_ordered() -> None:
    score, positive, negative = random_runs(0)
    half = positive // 2, negative // 3
    cut = (
        np.tile(score, 2),
        np.concatenate([half[0], positive - half[0]]),
        np.concatenate([half[1], negative - half[1]]),
    )
    order = np.random.default_rng(1).permutation(len(cut[0]))
    shuffled = cut[0][order], cut[1][order], cut[2][order]
    for area in (auroc, average_precision, average_precision_trapezoid):
        assert area(*shuffled) == area(score, positive, negative)


def test_auroc_of_more_pairs_than_an_int64_counts_is_exact() -> None:
    count = 10**10
    runs = np.array([0.9, 0.5, 0.1]), np.array([count, count, 0]), np.array([0, count, 3 * count])
    # pairs in order: all 4 for the first run; for the second, half of one and all of three
    assert auroc(*runs) == (4 + 3.5) / 8


@pytest.mark.parametrize(("positive", "negative"), [(0, 9), (9, 0)])
def test_one_class_alone_is_refused_with_its_counts(positive: int, negative: int) -> None:
    with pytest.raises(ValueError, match=f"{positive} anomalous and {negative} normal"):
        auroc(np.array([0.5]), np.array([positive]), np.array([negative]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="run 1"):
        average_precision(np.array([0.1, value]), np.array([1, 0]), np.array([0, 1]))


def test_counts_that_are_no_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="integers"):
        auroc(np.array([0.1, 0.2]), np.array([1.0, 0.0]), np.array([0, 1]))
    with pytest.raises(ValueError, match="integers"):
        auroc(np.array([0.1, 0.2]), np.array([2, -1]), np.array([0, 1]))


def test_overlapping_runs_are_averaged_frame_by_frame() -> None:
    generator = np.random.default_rng(0)
    first = np.append(generator.integers(0, 90, 60), 0)
    end = np.append(first[:-1] + generator.integers(1, 10, 60), 100)
    score = generator.random(61)
    total, count = np.zeros(100), np.zeros(100)
    for a, b, value in zip(first, end, score, strict=True):
        for frame in range(a, b):
            total[frame] += value
            count[frame] += 1
    np.testing.assert_allclose(expand(merge(first, end, score, 100)), total / count, rtol=1e-14)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_merged_scores_are_the_same_bits_in_any_order(kind: type) -> None:
    generator = np.random.default_rng(0)
    first = np.repeat(np.arange(0, 80, 4), 3)
    score = generator.random(60).astype(kind)
    merged = merge(first, first + 20, score, 96)
    assert merged.score.dtype == kind
    for _ in range(5):
        order = generator.permutation(60)
        again = merge(first[order], first[order] + 20, score[order], 96)
        assert np.array_equal(again.edge, merged.edge)
        assert np.array_equal(again.score, merged.score)


def test_a_run_alone_keeps_its_score() -> None:
    score = np.array([0.1, 0.7], dtype=np.float32)
    merged = merge(np.array([0, 3]), np.array([3, 8]), score, 8)
    assert expand(merged).tolist() == [score[0]] * 3 + [score[1]] * 5


@pytest.mark.parametrize(("first", "end", "frame"), [(0, 5, 5), (2, 8, 0)])
def test_the_first_frame_without_a_score_is_named(first: int, end: int, frame: int) -> None:
    with pytest.raises(ValueError, match=rf"frame {frame}\)"):
        merge(np.array([first]), np.array([end]), np.array([0.5]), 8)


def test_videos_without_scores_are_named_up_to_ten() -> None:
    names = [f"v{index}" for index in range(14)]
    video, first, end = np.array([0, 1, 1]), np.array([0, 0, 4]), np.array([6, 2, 6])
    with pytest.raises(ValueError, match="13 of 14") as caught:
        merge_videos(video, first, end, np.full(3, 0.5), n_frames=[6] * 14, names=names)
    assert "v1 (frame 2), v2 (frame 0)" in str(caught.value)
    assert "v10 (frame 0), …" in str(caught.value)
    assert "v11" not in str(caught.value)


@pytest.mark.parametrize(("first", "end"), [(-1, 4), (3, 3), (0, 9)])
def test_a_run_outside_the_video_is_refused(first: int, end: int) -> None:
    with pytest.raises(ValueError, match=f"frames {first} to {end}"):
        merge(np.array([0, first]), np.array([8, end]), np.array([0.5, 0.5]), 8)


def test_many_videos_merge_as_each_alone() -> None:
    generator = np.random.default_rng(0)
    video = np.repeat([0, 1, 2], 10)
    first = np.tile(np.arange(10) * 4, 3)
    score = generator.random(30)
    merged = merge_videos(video, first, first + 8, score, n_frames=[44] * 3, names=["a", "b", "c"])
    for index, curve in enumerate(merged):
        own = slice(10 * index, 10 * index + 10)
        alone = merge(first[own], first[own] + 8, score[own], 44)
        assert np.array_equal(curve.edge, alone.edge)
        assert np.array_equal(curve.score, alone.score)


def test_frames_become_runs_and_back() -> None:
    score = np.array([0.1, 0.1, 0.2, 0.1], dtype=np.float32)
    curve = from_frames(score)
    assert curve.edge.tolist() == [0, 2, 3, 4]
    assert np.array_equal(expand(curve), score)


@pytest.mark.parametrize("anomalies", [[], [(3, 7)], [(12, 40), (0, 2)], [(2, 9), (4, 6), (8, 12)], [(20, 30), (3, 3)]])
def test_truth_is_counted_per_run(anomalies: list[tuple[int, int]]) -> None:
    curve = from_frames(np.repeat([0.1, 0.5, 0.2, 0.9], [4, 1, 8, 5]))
    label = [any(first <= frame < end for first, end in anomalies) for frame in range(18)]
    score, positive, negative = against(curve, anomalies)
    assert score.tolist() == [0.1, 0.5, 0.2, 0.9]
    assert positive.tolist() == [sum(label[:4]), sum(label[4:5]), sum(label[5:13]), sum(label[13:])]
    assert (positive + negative).tolist() == [4, 1, 8, 5]


@pytest.mark.parametrize("anomaly", [(-1, 4), (5, 2)])
def test_an_interval_that_is_none_is_refused(anomaly: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="half-open"):
        against(from_frames(np.array([0.5, 0.5])), [anomaly])


def test_edges_that_do_not_increase_are_refused() -> None:
    with pytest.raises(ValueError, match="increase"):
        Curve(np.array([0, 4, 4]), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="one more"):
        Curve(np.array([0, 4]), np.array([0.1, 0.2]))
