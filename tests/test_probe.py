"""Probes against scikit-learn and against plain loops written from their equations."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn

from vigil.probe import MeanDistance, class_means, fit_logistic, fit_svm


def samples(
    n_samples: int, width: int, *, apart: float = 1.0, kind: str = "plain", seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Two classes that overlap where there are more samples than dimensions; about a third are anomalous."""
    generator = torch.Generator().manual_seed(seed)
    label = (torch.arange(n_samples) % 3 == 0).long()
    features = torch.randn(n_samples, width, generator=generator, dtype=torch.float64)
    direction = torch.randn(width, generator=generator, dtype=torch.float64)
    features += apart * label[:, None] * direction / direction.norm()
    if kind == "correlated":
        features = features @ torch.randn(width, width, generator=generator, dtype=torch.float64) / width**0.5 + 2
    if kind == "massive":  # a few dimensions of a hidden state are a thousand times as large as the rest
        features[:, :: width // 4] = 1e3 * features[:, :: width // 4] + 5e3
    return features, label


def parts(linear: nn.Linear) -> tuple[np.ndarray, float]:
    return linear.weight[0].detach().double().numpy(), float(linear.bias.detach())


def probability(linear: nn.Linear, features: Tensor) -> np.ndarray:
    return linear.double()(features)[:, 0].sigmoid().detach().numpy()


def of_scikit_learn(features: Tensor, label: Tensor, solver: str = "lbfgs", **options: object) -> LogisticRegression:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for the last digit, cannot have it, and says so
        return LogisticRegression(solver=solver, tol=1e-12, max_iter=20_000, **options).fit(
            features.numpy(), label.numpy()
        )


def check_against(theirs: LogisticRegression, ours: nn.Linear, features: Tensor) -> None:
    weight, bias = parts(ours)
    assert np.abs(weight - theirs.coef_[0]).max() <= 1e-4 * np.abs(theirs.coef_).max()
    assert bias == pytest.approx(theirs.intercept_[0], rel=1e-4, abs=1e-4)
    np.testing.assert_allclose(probability(ours, features), theirs.predict_proba(features.numpy())[:, 1], atol=2e-5)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
@pytest.mark.parametrize(("n_samples", "width"), [(400, 12), (60, 50), (40, 200)])
@pytest.mark.parametrize("kind", ["plain", "correlated"])
def test_the_regression_is_scikit_learns(kind: str, n_samples: int, width: int, c: float, class_weight: str) -> None:
    features, label = samples(n_samples, width, kind=kind)
    theirs = of_scikit_learn(features, label, C=c, class_weight=class_weight)
    check_against(theirs, fit_logistic(features, label, c, class_weight=class_weight), features)


@pytest.mark.parametrize("c", [0.01, 1.0, 100.0])
def test_sixteen_samples_of_4096_dimensions(c: float) -> None:
    features, label = samples(16, 4096)
    check_against(of_scikit_learn(features, label, C=c), fit_logistic(features, label, c), features)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize(("n_samples", "width"), [(300, 40), (30, 150)])
def test_massive_activations_do_not_stop_it(n_samples: int, width: int, class_weight: str) -> None:
    features, label = samples(n_samples, width, kind="massive")
    theirs = of_scikit_learn(features, label, "newton-cholesky", class_weight=class_weight)  # lbfgs gives up here
    check_against(theirs, fit_logistic(features, label, class_weight=class_weight), features)


@pytest.mark.parametrize(("n_samples", "width"), [(300, 40), (30, 150)])
def test_standardizing_is_folded_into_the_linear(n_samples: int, width: int) -> None:
    features, label = samples(n_samples, width, kind="massive")
    features[:, 3] = 12345.678
    features[::2, 3] += 2e-12  # the last digit: rounding must not be scaled up to a feature
    ours = fit_logistic(features, label, standardize=True)
    regression = LogisticRegression(solver="newton-cholesky", tol=1e-12)
    theirs = make_pipeline(StandardScaler(), regression).fit(features.numpy(), label.numpy())
    scaler = theirs[0]
    np.testing.assert_allclose(parts(ours)[0], regression.coef_[0] / scaler.scale_, atol=1e-6)
    np.testing.assert_allclose(probability(ours, features), theirs.predict_proba(features.numpy())[:, 1], atol=2e-5)


def test_no_step_lowers_the_penalised_loss_of_the_docstring() -> None:
    features, label = samples(12, 3)
    c = 0.7

    def objective(weight: list[float], bias: float) -> float:
        total = sum(w * w for w in weight) / (2 * c)
        for row, y in zip(features.tolist(), label.tolist(), strict=True):
            p = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weight, row, strict=True)) - bias))
            total -= math.log(p) if y else math.log(1 - p)
        return total

    weight, bias = parts(fit_logistic(features, label, c))
    least = objective(weight.tolist(), bias)
    for i in range(4):
        for step in (-1e-3, 1e-3):
            moved = [*weight.tolist(), bias]
            moved[i] += step
            assert objective(moved[:3], moved[3]) > least


def test_without_a_penalty_it_is_equation_8() -> None:
    features, label = samples(60, 4)
    weight, bias = parts(fit_logistic(features, label, c=math.inf))
    slope = [0.0] * 5
    for row, y in zip(features.tolist(), label.tolist(), strict=True):
        p = 1 / (1 + math.exp(-sum(w * x for w, x in zip(weight, row, strict=True)) - bias))
        for d, x in enumerate([*row, 1.0]):
            slope[d] += (p - y) * x / 60
    assert max(map(abs, slope)) < 1e-7


def test_without_a_penalty_dimensions_may_repeat_each_other() -> None:
    features, label = samples(60, 4)
    repeated = torch.cat([features, features[:, :1], torch.full((60, 1), 7.0, dtype=torch.float64)], 1)
    weight, bias = parts(fit_logistic(repeated, label, c=math.inf))
    expected, expected_bias = parts(fit_logistic(features, label, c=math.inf))
    assert weight[0] == pytest.approx(weight[4], abs=1e-5)
    assert weight[0] + weight[4] == pytest.approx(expected[0], abs=1e-5)
    np.testing.assert_allclose(weight[1:4], expected[1:], atol=1e-5)
    assert weight[5] == 0
    assert bias == pytest.approx(expected_bias, abs=1e-5)


def test_a_weak_penalty_on_classes_almost_apart_is_solved_in_few_iterations() -> None:
    features, label = samples(150, 100, kind="correlated", apart=3.0)
    theirs = of_scikit_learn(features, label, "newton-cholesky", C=1e4)
    check_against(theirs, fit_logistic(features, label, 1e4, max_iterations=200), features)


def test_equation_8_on_classes_apart_tells_every_sample() -> None:
    features, label = samples(16, 200)
    linear = fit_logistic(features, label, c=math.inf)
    assert linear.weight.isfinite().all()
    np.testing.assert_allclose(probability(linear, features), label.numpy(), atol=1e-6)


def test_dimensions_that_tell_nothing_change_nothing() -> None:
    features, label = samples(30, 40)  # solved in the dimensions; with 100 more, in the span of the samples
    padded = torch.cat([features, torch.full((30, 100), 7.0, dtype=torch.float64)], 1)
    narrow, wide = parts(fit_logistic(features, label)), parts(fit_logistic(padded, label))
    np.testing.assert_allclose(wide[0][:40], narrow[0], atol=1e-6)
    assert not wide[0][40:].any()
    assert wide[1] == pytest.approx(narrow[1], abs=1e-6)


@pytest.mark.parametrize("width", [3, 100])
def test_features_that_never_vary_leave_the_odds(width: int) -> None:
    weight, bias = parts(fit_logistic(torch.ones(10, width), torch.tensor([1] * 3 + [0] * 7)))
    assert not weight.any()
    assert bias == pytest.approx(math.log(3 / 7), abs=1e-6)


def test_a_sample_seen_twice_counts_twice() -> None:
    features, label = samples(20, 90)
    twice = fit_logistic(features.repeat(2, 1), label.repeat(2), c=0.5)
    np.testing.assert_allclose(parts(twice)[0], parts(fit_logistic(features, label, c=1.0))[0], atol=1e-6)


@pytest.mark.parametrize("fit", [fit_logistic, fit_svm, class_means])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_any_kind_of_number_goes_in_and_float32_comes_out(fit, dtype: torch.dtype) -> None:
    features, label = samples(20, 6)
    features = features.to(dtype)
    state = torch.random.get_rng_state()
    with torch.inference_mode():
        first = fit(features, label.bool()).state_dict()
    second = fit(features.double().requires_grad_(), label.float()).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in first.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, second[name])


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize(("n_samples", "width", "c"), [(400, 12, 1.0), (60, 50, 0.1), (40, 200, 0.01)])
def test_the_machine_is_scikit_learns(
    n_samples: int, width: int, c: float, standardize: bool, class_weight: str
) -> None:
    features, label = samples(n_samples, width, kind="correlated")
    ours = fit_svm(features, label, c, class_weight=class_weight, standardize=standardize)
    machine = LinearSVC(C=c, dual=False, tol=1e-10, max_iter=10_000, class_weight=class_weight, intercept_scaling=1e3)
    theirs = make_pipeline(StandardScaler(with_std=standardize), machine).fit(features.numpy(), label.numpy())
    decision = ours.double()(features)[:, 0].detach().numpy()
    np.testing.assert_allclose(decision, theirs.decision_function(features.numpy()), atol=1e-4)


@pytest.mark.parametrize(("n_samples", "width"), [(300, 40), (16, 1000)])
def test_massive_activations_do_not_stop_the_machine(n_samples: int, width: int) -> None:
    features, label = samples(n_samples, width, kind="massive", apart=3.0)
    decision = fit_svm(features, label).double()(features)[:, 0]
    assert ((decision > 0) == label.bool()).double().mean() > 0.8


def test_no_step_lowers_the_squared_hinges() -> None:
    features, label = samples(12, 3)
    c = 0.7

    def objective(weight: list[float], bias: float) -> float:
        total = sum(w * w for w in weight) / (2 * c)
        for row, y in zip(features.tolist(), label.tolist(), strict=True):
            logit = sum(w * x for w, x in zip(weight, row, strict=True)) + bias
            total += max(0.0, 1 - (2 * y - 1) * logit) ** 2
        return total

    weight, bias = parts(fit_svm(features, label, c))
    least = objective(weight.tolist(), bias)
    for i in range(4):
        for step in (-1e-3, 1e-3):
            moved = [*weight.tolist(), bias]
            moved[i] += step
            assert objective(moved[:3], moved[3]) > least


def test_the_distance_is_a_share_of_both_distances() -> None:
    features, label = samples(9, 4, apart=3.0)
    probe = class_means(features.float(), label)
    mean = [[0.0] * 4, [0.0] * 4]
    for row, y in zip(features.tolist(), label.tolist(), strict=True):
        for d in range(4):
            mean[y][d] += row[d] / label.tolist().count(y)
    score = probe(features.float()).sigmoid()
    assert score.shape == (9, 1)
    for row, value in zip(features.tolist(), score[:, 0].tolist(), strict=True):
        normal, anomalous = (math.sqrt(sum((x - m) ** 2 for x, m in zip(row, centre, strict=True))) for centre in mean)
        assert value == pytest.approx(normal / (normal + anomalous), abs=1e-5)


def test_the_distance_is_finite_at_a_mean() -> None:
    probe = MeanDistance(torch.zeros(3), torch.ones(3))
    features = torch.stack([torch.zeros(3), torch.ones(3), torch.full((3,), 0.5)]).requires_grad_()
    logit = probe(features)
    assert logit.isfinite().all()
    assert logit.sigmoid()[:, 0].tolist() == pytest.approx([0, 1, 0.5], abs=1e-6)
    logit.sum().backward()
    assert features.grad.isfinite().all()
    assert MeanDistance(torch.ones(3), torch.ones(3))(torch.ones(2, 3)).tolist() == [[0], [0]]


def test_the_means_travel_in_a_checkpoint() -> None:
    features, label = samples(9, 4)
    probe = class_means(features, label)
    empty = MeanDistance(torch.zeros(4), torch.zeros(4))
    empty.load_state_dict(probe.state_dict())
    assert torch.equal(empty(features), probe(features))
    assert probe(features[None]).shape == (1, 9, 1)


@pytest.mark.parametrize("fit", [fit_logistic, fit_svm, class_means])
@pytest.mark.parametrize(
    ("features", "label", "message"),
    [
        (torch.rand(4), torch.tensor([0, 1, 0, 1]), r"\(B, D\) and \(B,\)"),
        (torch.rand(4, 0), torch.tensor([0, 1, 0, 1]), r"\(B, D\) and \(B,\)"),
        (torch.rand(4, 2), torch.tensor([0, 1, 0]), r"\(B, D\) and \(B,\)"),
        (torch.rand(4, 2), torch.tensor([[0], [1], [0], [1]]), r"\(B, D\) and \(B,\)"),
        (torch.rand(4, 2), torch.tensor([0, 0, 0, 0]), "4 normal and 0 anomalous"),
        (torch.rand(4, 2), torch.tensor([1, 1, 1, 1]), "0 normal and 4 anomalous"),
        (torch.rand(4, 2), torch.tensor([0, 1, 2, 1]), r"labels \[0, 1, 2\]"),
        (torch.rand(4, 2), torch.tensor([0, 1, math.nan, 1]), "labels"),
        (torch.tensor([[1.0], [math.nan], [0.0], [2.0]]), torch.tensor([0, 1, 0, 1]), "NaN"),
        (torch.tensor([[1.0], [math.inf], [0.0], [2.0]]), torch.tensor([0, 1, 0, 1]), "infinite"),
        (torch.tensor([[1.0], [1e200], [0.0], [2.0]]).double() * 1e200, torch.tensor([0, 1, 0, 1]), "infinite"),
        (torch.rand(4, 2) + 1j, torch.tensor([0, 1, 0, 1]), "complex"),
    ],
)
def test_what_cannot_be_fitted_is_refused(fit, features: Tensor, label: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(features, label)


@pytest.mark.parametrize("fit", [fit_logistic, fit_svm])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"c": 0.0}, "c is 0.0"),
        ({"c": math.nan}, "c is nan"),
        ({"max_iterations": 0}, "max_iterations 0"),
        ({"class_weight": "even"}, "'even'"),
    ],
)
def test_options_that_mean_nothing_are_refused(fit, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(*samples(8, 2), **options)


@pytest.mark.parametrize("fit", [fit_logistic, fit_svm])
def test_too_few_iterations_are_no_answer(fit) -> None:
    with pytest.raises(ValueError, match="no minimum in 1 iterations"):
        fit(*samples(60, 50), max_iterations=1)


def test_a_probe_can_be_trained_on() -> None:
    assert all(parameter.requires_grad for parameter in fit_logistic(*samples(8, 2)).parameters())


def test_a_distance_between_other_widths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(D,\) each"):
        MeanDistance(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\)"):
        MeanDistance(torch.zeros(3), torch.zeros(3))(torch.zeros(2, 4))
