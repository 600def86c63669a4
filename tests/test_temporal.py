from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from vigil.temporal import adaptive_threshold, fit_threshold, gate, segments, smooth, smooth_segments


@pytest.mark.parametrize("sigma", [0.0, 0.1, 0.7, 3.0, 40.0])
@pytest.mark.parametrize("length", [1, 2, 9, 300])
def test_smoothing_equals_scipy(sigma: float, length: int) -> None:
    score = np.random.default_rng(length).random(length)
    expected = gaussian_filter1d(score, sigma, mode="reflect") if sigma else score
    np.testing.assert_allclose(smooth(score, sigma), expected, rtol=0, atol=1e-13)


def test_smoothing_gives_back_the_kind_it_got() -> None:
    score = np.random.default_rng(0).random(50).astype(np.float32)
    array, tensor = smooth(score, 2.0), smooth(torch.from_numpy(score), 2.0)
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    assert array.dtype == np.float32
    assert tensor.dtype == torch.float32
    assert np.array_equal(array, tensor.numpy())


def test_smoothing_never_leaves_zero_to_one() -> None:
    for sigma in np.linspace(0.2, 12, 60):
        assert smooth(np.ones(40, dtype=np.float32), sigma).max() <= 1
        assert smooth(np.ones(40), sigma).max() <= 1
        assert smooth(np.zeros(40), sigma).min() >= 0


def test_smoothing_refuses_what_is_no_curve() -> None:
    for score, sigma in ((np.ones((2, 3)), 1.0), (np.ones(0), 1.0), (np.ones(3), -1.0), (np.ones(3), float("nan"))):
        with pytest.raises(ValueError, match="cannot smooth"):
            smooth(score, sigma)


@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.5, 20.0])
@pytest.mark.parametrize(("n_frames", "length"), [(1, 24), (24, 24), (25, 24), (100, 24), (7, 1), (300, 16)])
def test_smoothing_segments_is_scipys_over_the_mean_of_each(sigma: float, n_frames: int, length: int) -> None:
    score = np.random.default_rng(n_frames).random(n_frames)
    parts = [score[first : first + length] for first in range(0, n_frames, length)]
    means = np.array([sum(part) / len(part) for part in parts])
    expected = gaussian_filter1d(means, sigma, mode="reflect") if sigma else means
    held = [value for value, part in zip(expected, parts, strict=True) for _ in part]
    np.testing.assert_allclose(smooth_segments(score, sigma, length), held, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_smoothing_segments_by_nothing_leaves_scores_that_segments_hold(kind: type) -> None:
    score = np.random.default_rng(0).random(40).astype(kind).repeat(24)[:-5]
    assert np.array_equal(smooth_segments(score, 0.0, 24), score)
    assert not np.array_equal(smooth_segments(score, 0.4, 24), score)


@pytest.mark.parametrize("step", [lambda score: smooth_segments(score, 0.8, 7), lambda score: gate(score, 0.4)])
def test_steps_over_segments_give_back_the_kind_they_got(step: Callable) -> None:
    score = np.random.default_rng(0).random(50).astype(np.float32)
    array, tensor = step(score), step(torch.from_numpy(score))
    assert isinstance(array, np.ndarray)
    assert isinstance(tensor, torch.Tensor)
    assert array.dtype == np.float32
    assert tensor.dtype == torch.float32
    assert np.array_equal(array, tensor.numpy())
    assert step(score.astype(np.float64)).dtype == np.float64


def test_smoothing_segments_refuses_what_is_no_curve_and_no_length() -> None:
    with pytest.raises(ValueError, match="parts of 0 frames; at least 1"):
        smooth_segments(np.ones(3), 1.0, 0)
    for score, sigma in ((np.ones((2, 3)), 1.0), (np.ones(0), 1.0), (np.ones(3), -1.0)):
        with pytest.raises(ValueError, match="cannot smooth"):
            smooth_segments(score, sigma, 2)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.5, 0.7, 1.0])
def test_a_gated_score_is_zero_outside_the_segments_and_itself_within(threshold: float) -> None:
    score = np.array([0.9, 0.2, 0.5, 0.6, 0.7, 0.5, 0.1, 0.8, 0.0])
    inside = {t for first, end in segments(score, threshold) for t in range(first, end)}
    assert gate(score, threshold).tolist() == [value if t in inside else 0.0 for t, value in enumerate(score)]


def test_gating_by_a_threshold_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold nan"):
        gate(np.ones(3), float("nan"))


def test_adaptive_threshold_is_mean_plus_kappa_deviations() -> None:
    # mean 2, squared deviations 4, 0, 4 over 3 frames
    assert adaptive_threshold(np.array([0.0, 2.0, 4.0]), 1.5) == pytest.approx(2 + 1.5 * (8 / 3) ** 0.5)
    assert adaptive_threshold(torch.tensor([0.5, 0.5]), 3.0) == 0.5


def test_segments_are_the_stretches_above_the_threshold() -> None:
    score = [0.9, 0.2, 0.5, 0.6, 0.7, 0.5, 0.1, 0.8]
    assert segments(np.array(score), 0.5) == [(0, 1), (3, 5), (7, 8)]
    assert segments(torch.tensor(score), 0.0) == [(0, 8)]
    assert segments(np.array(score), 0.9) == []


def test_a_threshold_between_two_neighbouring_floats_keeps_them_apart() -> None:
    low = np.float32(0.3)
    for _ in range(2):  # of two neighbouring pairs, the middle of one rounds up
        high = np.nextafter(low, np.float32(1))
        assert segments(np.array([low, high]), (float(low) + float(high)) / 2) == [(1, 2)]
        low = high


def youden(threshold: float, maximum: list[float], label: list[int]) -> float:
    hits = [value > threshold for value, truth in zip(maximum, label, strict=True) if truth]
    alarms = [value > threshold for value, truth in zip(maximum, label, strict=True) if not truth]
    return sum(hits) / len(hits) - sum(alarms) / len(alarms)


@pytest.mark.parametrize("seed", range(10))
def test_no_threshold_separates_better_than_the_fitted_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    label = [0, 1, *generator.integers(0, 2, 20).tolist()]
    maximum = (generator.integers(0, 12, 22) / 12 + 0.2 * np.array(label)).tolist()
    fitted = fit_threshold(np.array(maximum), np.array(label))
    tried = np.linspace(-0.1, 1.4, 3001)
    best = max(youden(threshold, maximum, label) for threshold in tried)
    assert youden(fitted, maximum, label) == pytest.approx(best)
    above = [threshold for threshold in tried if threshold > fitted + 0.1]  # beyond the next midpoint
    assert all(youden(threshold, maximum, label) < best - 1e-9 for threshold in above) or best == pytest.approx(0)


def test_separable_videos_are_cut_midway() -> None:
    assert fit_threshold(np.array([0.1, 0.3, 0.5, 0.9]), np.array([0, 0, 1, 1])) == pytest.approx(0.4)


def test_between_two_equal_thresholds_the_higher_wins() -> None:
    # above 0.2: 2 of 2 and 1 of 2; above 0.6: 1 of 2 and 0 of 2
    assert fit_threshold(np.array([0.1, 0.5, 0.3, 0.7]), np.array([0, 0, 1, 1])) == pytest.approx(0.6)


def test_scores_that_say_nothing_give_no_event() -> None:
    threshold = fit_threshold(np.array([0.5, 0.5]), np.array([0, 1]))
    assert segments(np.array([0.5]), threshold) == []


def test_one_label_alone_fits_no_threshold() -> None:
    with pytest.raises(ValueError, match="anomalous"):
        fit_threshold(np.array([0.5, 0.6]), np.array([1, 1]))
    with pytest.raises(ValueError, match="one finite maximum"):
        fit_threshold(np.array([0.5, np.nan]), np.array([0, 1]))
