"""The temperature of class scores, against the authors' way of finding it, and where there is none to be found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from vigil.calibration import NoTemperature, fit_temperature, log_softmax


def make_scores(sharpness: float, seed: int = 0, n_samples: int = 60, n_classes: int = 5) -> tuple[np.ndarray, ...]:
    """Scores float32 (N, K) that are right more often than not, `sharpness` times as sure as they should be."""
    generator = np.random.default_rng(seed)
    score = generator.normal(size=(n_samples, n_classes))
    probability = np.exp(2 * score) / np.exp(2 * score).sum(axis=1, keepdims=True)
    true = np.array([generator.choice(n_classes, p=row) for row in probability])
    return (2 * sharpness * score).astype(np.float32), true


def fitted_by_lbfgs(score: np.ndarray, true: np.ndarray) -> float:
    """As Guo et al. fit it: by L-BFGS on the negative log-likelihood, here of the temperature's logarithm."""
    logit, target = torch.from_numpy(score).double(), torch.from_numpy(true)
    log = torch.zeros((), dtype=torch.float64, requires_grad=True)
    settings = {"max_iter": 200, "tolerance_grad": 1e-12, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    optimizer = torch.optim.LBFGS([log], **settings)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(logit / log.exp(), target)
        loss.backward()
        return loss

    optimizer.step(closure)
    return float(log.detach().exp())


@pytest.mark.parametrize("sharpness", [0.2, 1.0, 4.0, 30.0])
def test_the_temperature_is_the_one_that_lbfgs_finds(sharpness: float) -> None:
    score, true = make_scores(sharpness)
    found = fit_temperature(score, true)
    assert found == pytest.approx(fitted_by_lbfgs(score, true), rel=1e-6)
    assert found == pytest.approx(sharpness, rel=0.4)


def test_no_temperature_near_by_says_the_true_categories_better() -> None:
    score, true = make_scores(3.0, seed=1)

    def loss(temperature: float) -> float:
        return float(-log_softmax(score, temperature)[np.arange(len(true)), true].mean())

    best = fit_temperature(score, true)
    assert loss(best) < min(loss(best * factor) for factor in (0.5, 0.999, 1.001, 2.0))


def test_scores_that_are_a_thousand_times_as_large_have_a_thousand_times_the_temperature() -> None:
    score, true = make_scores(1.0)
    moved = score.astype(np.float64) * 1000 + np.arange(len(score))[:, None]  # nor does it matter where they lie
    assert fit_temperature(moved, true) == pytest.approx(1000 * fit_temperature(score, true), rel=1e-9)


def test_one_wrong_sample_among_many_right_ones_still_has_a_temperature() -> None:
    score = np.tile(np.array([[9.0, 0.0]], dtype=np.float32), (20, 1))
    true = np.array([0] * 19 + [1])
    assert fit_temperature(score, true) == pytest.approx(9 / np.log(19), rel=1e-9)  # then p = 19 / 20, as it is


@pytest.mark.parametrize(
    ("score", "true", "reason"),
    [
        ([[1.0, 2.0]], [1], "1 samples: at least two are needed"),
        ([], [], "0 samples"),
        ([[3.0, 1.0], [0.0, 0.5]], [0, 1], "all 2 samples are right"),
        ([[0.5, 0.5], [2.0, 2.0]], [0, 1], "all 2 samples are right"),  # tied with every other one
        ([[3.0, 1.0], [0.0, 0.5]], [1, 0], "the scores of 2 samples say nothing of their categories"),
        ([[3.0, 1.0], [1.0, 3.0]], [0, 0], "say nothing"),  # right and wrong alike
    ],
)
def test_where_no_temperature_is_best_that_is_said(score: list[list[float]], true: list[int], reason: str) -> None:
    with pytest.raises(NoTemperature, match=reason):
        fit_temperature(np.array(score, dtype=np.float32).reshape(-1, 2), np.array(true, dtype=np.int64))


def test_what_is_no_score_is_refused() -> None:
    score, true = make_scores(1.0)
    with pytest.raises(ValueError, match=r"scores \(60, 5\), 300 of 300 finite, and categories \(59,\)"):
        fit_temperature(score, true[1:])
    score[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"299 of 300 finite") as refused:
        fit_temperature(score, true)
    assert not isinstance(refused.value, NoTemperature)
