from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from vigil.statistics import BLOCK, Runs, bootstrap, bootstrap_mean, draw_videos, paired, resample, spread


def random_runs(seed: int, n_videos: int = 12, n_runs: int = 60, levels: int = 10**6, skill: float = 0.0) -> Runs:
    """Every third video normal; the score rises by `skill` where most frames of a run are positive."""
    generator = np.random.default_rng(seed)
    truth = np.random.default_rng(100)
    videos = []
    for index in range(n_videos):
        positive = truth.integers(0, 4, n_runs) * (truth.random(n_runs) < 0.4) * (index % 3 > 0)
        negative = np.where(positive > 0, truth.integers(0, 2, n_runs), truth.integers(1, 9, n_runs))
        score = generator.integers(0, levels, n_runs) / levels + skill * (positive > 0)
        videos.append((score.astype(np.float32), positive, negative))
    return Runs.of(videos)


def frames_of_draw(runs: Runs, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label and score of every frame of the drawn videos, a video as often as it was drawn."""
    label, score = [], []
    for video, times in enumerate(count):
        for run in np.flatnonzero(runs.video == video):
            for _ in range(times):
                label += [1] * runs.positive[run] + [0] * runs.negative[run]
                score += [runs.score[run]] * (runs.positive[run] + runs.negative[run])
    return np.array(label), np.array(score)


@pytest.mark.parametrize("levels", [7, 10**6])
def test_resamples_equal_scikit_learn_on_the_frames_of_the_drawn_videos(levels: int) -> None:
    runs = random_runs(0, levels=levels)
    count = draw_videos(*runs.frames(), resamples=8, seed=3)
    drawn = resample(runs, count)
    for index, row in enumerate(count):
        label, score = frames_of_draw(runs, row)
        assert drawn["auroc"][index] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
        assert drawn["average_precision"][index] == pytest.approx(average_precision_score(label, score), abs=1e-12)


@pytest.mark.parametrize("n_thresholds", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK])
def test_resamples_are_right_at_every_number_of_thresholds(n_thresholds: int) -> None:
    generator = np.random.default_rng(n_thresholds)
    score = np.append(generator.permutation(n_thresholds) / n_thresholds, [-1.0, 2.0])
    positive, negative = (
        np.append(np.ones(n_thresholds, dtype=int), [0, 0]),
        np.append(np.zeros(n_thresholds, int), [3, 2]),
    )
    negative[::3] = 1
    runs = Runs(score, positive, negative, np.arange(n_thresholds + 2) % 4, 4)
    count = draw_videos(*runs.frames(), resamples=2, seed=0)
    drawn = resample(runs, count)
    for index, row in enumerate(count):
        label, frames = frames_of_draw(runs, row)
        assert drawn["auroc"][index] == pytest.approx(roc_auc_score(label, frames), abs=1e-12)
        assert drawn["average_precision"][index] == pytest.approx(average_precision_score(label, frames), abs=1e-12)


def test_resamples_of_more_frames_than_float32_counts_are_exact() -> None:
    count = 2**24 + 1
    runs = Runs(
        np.array([0.9, 0.5, 0.5, 0.1]),
        np.array([count, 3, 0, 1]),
        np.array([1, count, count, 5]),
        np.array([0, 1, 2, 1]),
        n_videos=3,
    )
    drawn = resample(runs, np.array([[1, 1, 1], [0, 1, 2], [2, 1, 0]]))
    for index, times in enumerate(([1, 1, 1, 1], [0, 1, 2, 1], [2, 1, 0, 1])):
        pairs = [
            (a * p * b * n, (s > t) + (s == t) / 2)
            for s, p, a in zip(runs.score.tolist(), runs.positive.tolist(), times, strict=True)
            for t, n, b in zip(runs.score.tolist(), runs.negative.tolist(), times, strict=True)
        ]
        expected = sum(weight * order for weight, order in pairs) / sum(weight for weight, _ in pairs)
        assert drawn["auroc"][index] == pytest.approx(expected, rel=1e-15)


def test_the_interval_holds_the_middle_of_the_resamples() -> None:
    runs = random_runs(0, skill=0.3)
    values = np.sort(resample(runs, draw_videos(*runs.frames(), resamples=201, seed=5))["auroc"])
    interval = bootstrap(runs, resamples=201, seed=5)["auroc"]
    label, score = frames_of_draw(runs, np.ones(12, dtype=int))
    assert interval.value == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert (interval.low, interval.high) == pytest.approx((values[5], values[195]))  # 2.5 % of 200 steps at each end


def test_every_draw_has_as_many_videos_and_both_truths() -> None:
    positive, negative = np.array([5, 0, 0]), np.array([0, 3, 3])
    count = draw_videos(positive, negative, resamples=200, seed=0)
    assert (count.sum(axis=1) == 3).all()
    assert (count[:, 0] > 0).all()
    assert (count[:, 1:].sum(axis=1) > 0).all()
    assert np.array_equal(count, draw_videos(positive, negative, resamples=200, seed=0))
    assert not np.array_equal(count, draw_videos(positive, negative, resamples=200, seed=1))


def test_videos_are_drawn_equally_often() -> None:
    count = draw_videos(np.ones(10, dtype=int), np.ones(10, dtype=int), resamples=4000, seed=0)
    assert count.mean(axis=0) == pytest.approx(np.ones(10), abs=0.06)


def test_a_better_system_shows_in_the_paired_difference() -> None:
    weak, strong = random_runs(0), random_runs(0, skill=0.5)
    better = paired(weak, strong, resamples=200)
    assert set(better) == {"auroc", "average_precision"}
    for key, gain in better.items():
        assert gain.value == pytest.approx(bootstrap(strong)[key].value - bootstrap(weak)[key].value)
        assert 0 < gain.low < gain.value < gain.high
        assert gain.p == pytest.approx(2 / 201)
    worse = paired(strong, weak, resamples=200)["auroc"]
    assert (worse.value, worse.high, worse.low) == pytest.approx(
        (-better["auroc"].value, -better["auroc"].low, -better["auroc"].high)
    )


def test_a_system_does_not_differ_from_itself() -> None:
    same = paired(random_runs(0), random_runs(0), resamples=50)["auroc"]
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_two_random_systems_seldom_differ() -> None:
    values = [paired(random_runs(2 * seed), random_runs(2 * seed + 1), resamples=100)["auroc"].p for seed in range(20)]
    assert sum(p < 0.05 for p in values) <= 4


def test_systems_judged_on_different_videos_are_not_compared() -> None:
    with pytest.raises(ValueError, match="12 and 11 videos"):
        paired(random_runs(0), random_runs(0, n_videos=11))
    one = Runs(np.array([0.1, 0.2]), np.array([1, 1]), np.array([1, 1]), np.array([0, 1]), 2)
    other = Runs(np.array([0.1, 0.2]), np.array([1, 2]), np.array([1, 1]), np.array([0, 1]), 2)
    with pytest.raises(ValueError, match=r"\[1\]"):
        paired(one, other)


def test_runs_of_one_truth_or_of_no_video_are_refused() -> None:
    with pytest.raises(ValueError, match="0 anomalous"):
        Runs(np.array([0.1]), np.array([0]), np.array([4]), np.array([0]), 1)
    with pytest.raises(ValueError, match="one of 1 videos"):
        Runs(np.array([0.1]), np.array([2]), np.array([4]), np.array([1]), 1)


def test_spread_is_the_sample_standard_deviation() -> None:
    assert spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, 7**0.5))
    assert spread([4.0]) == (4.0, None)
    with pytest.raises(ValueError, match="no value"):
        spread([])


# means of samples


def test_the_mean_of_samples_has_the_interval_of_their_groups_drawn_anew() -> None:
    generator = np.random.default_rng(1)
    group = [f"video {number}" for number in generator.integers(0, 9, 60)]
    value = generator.normal(size=60)
    found = bootstrap_mean(value, group, resamples=201, seed=7)
    names = sorted(set(group))
    once = np.ones(len(names), dtype=int)
    means = []
    for row in draw_videos(once, once, resamples=201, seed=7):
        drawn = [one for name, times in zip(names, row, strict=True) for _ in range(times)
                 for one, of in zip(value, group, strict=True) if of == name]  # fmt: skip
        means.append(sum(drawn) / len(drawn))
    means.sort()
    assert found.value == pytest.approx(value.mean(), abs=1e-15)
    assert (found.low, found.high) == pytest.approx((means[5], means[195]), abs=1e-12)


def test_the_order_of_samples_does_not_move_a_bit() -> None:
    generator = np.random.default_rng(0)
    value, group = generator.normal(size=500), generator.integers(0, 40, 500)
    order = generator.permutation(500)
    assert bootstrap_mean(value, group.tolist()) == bootstrap_mean(value[order], group[order].tolist())


def test_samples_that_agree_within_a_group_are_worth_less_than_their_number() -> None:
    level = np.repeat(np.random.default_rng(0).normal(size=20), 10)
    alone = bootstrap_mean(level, list(range(200)))
    grouped = bootstrap_mean(level, np.repeat(np.arange(20), 10).tolist())
    assert grouped.value == alone.value
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)


def test_one_group_alone_says_nothing_of_the_spread() -> None:
    found = bootstrap_mean(np.array([0.0, 1.0]), ["a", "a"])
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("value", "group"), [([], []), ([1.0], ["a", "b"]), ([1.0, float("nan")], ["a", "b"])])
def test_samples_that_have_no_mean_are_refused(value: list[float], group: list[str]) -> None:
    with pytest.raises(ValueError, match="a finite value and its group"):
        bootstrap_mean(np.array(value), group)
