"""Linear probes of frozen features: logistic regression, a linear SVM, distances to the class means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

ClassWeight = Literal["balanced"] | None
Losses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]  # logit, label -> loss, slope, curvature: (B,) each

# Of the mean loss, in its own curvature: half its square is how far the loss still is above its minimum
_CONVERGED = 1e-7
_ITERATIONS_PER_ROUND = 30  # then the curvature is measured anew; far from the first point the old one slows LBFGS


def fit_logistic(
    features: Tensor,
    label: Tensor,
    c: float = 1.0,
    max_iterations: int = 1000,
    class_weight: ClassWeight = None,
    standardize: bool = False,
) -> nn.Linear:
    """Logistic regression: a Linear (D, 1) whose logit, through a sigmoid, is the probability of label 1.

    features (B, D), any real; label (B,) of 0 and 1. Solved in float64 by LBFGS, handed back in float32 on the device
    of the features. `c` is scikit-learn's C: the sum of log losses + |weight|^2 / (2 c) is minimised, the bias is free.
    class_weight "balanced" weights a sample by B / (2 samples of its class). `standardize` learns on features of mean 0
    and variance 1 and folds that into the Linear. Raises ValueError for other shapes or labels, for one class alone,
    for NaN and infinity, and where `max_iterations` iterations do not reach the minimum.
    Source: HiProbe-VAD, arXiv:2507.17394, eq. 8, LBFGS for 1000 epochs. Differs: eq. 8 has no penalty, and so no
    minimum as soon as the classes can be separated, as fewer samples than dimensions always can; c=1 is scikit-learn's
    default. c=float("inf") is eq. 8; where the classes can be separated, it hands back where the gradient vanished.
    """
    return _fit(features, label, _log_loss, c, max_iterations, class_weight, standardize)


def fit_svm(
    features: Tensor,
    label: Tensor,
    c: float = 1.0,
    max_iterations: int = 1000,
    class_weight: ClassWeight = None,
    standardize: bool = False,
) -> nn.Linear:
    """Linear support vector machine: a Linear (D, 1) whose logit is the decision value, above 0 for label 1.

    The sum of squared hinges + |weight|^2 / (2 c) is minimised, as by scikit-learn's LinearSVC but for the bias, which
    is free; the rest as in `fit_logistic`. A sigmoid of the decision value orders samples as the machine does; it is no
    probability. Source: HiProbe-VAD, Tab. 4, "SVM", of which the paper says no more.
    """
    return _fit(features, label, _squared_hinge, c, max_iterations, class_weight, standardize)


class MeanDistance(nn.Module):
    """Distances to the two class means as a logit: features (..., D) -> (..., 1), the shape of a Linear (D, 1).

    sigmoid(logit) = d_normal / (d_normal + d_anomalous), Euclidean distances: 0 at the normal mean, 1 at the anomalous
    one. normal, anomalous (D,): the means; zeros of that shape where a checkpoint is to fill them.
    Source: HiProbe-VAD, Tab. 4, "Distance-based Scoring", of which the paper gives no formula; this one is ours.
    """

    def __init__(self, normal: Tensor, anomalous: Tensor) -> None:
        super().__init__()
        if normal.ndim != 1 or normal.shape != anomalous.shape:
            raise ValueError(
                f"means of shape {tuple(normal.shape)} and {tuple(anomalous.shape)}; (D,) each is expected"
            )
        self.normal, self.anomalous = nn.Parameter(normal), nn.Parameter(anomalous)

    def forward(self, features: Tensor) -> Tensor:
        """features (..., D), ValueError for another width; the logit (..., 1) is finite at the means too."""
        if features.shape[-1:] != self.normal.shape:
            raise ValueError(f"features {tuple(features.shape)}; (..., {len(self.normal)}) is expected")
        return self._log_distance(features, self.normal) - self._log_distance(features, self.anomalous)

    @staticmethod
    def _log_distance(features: Tensor, mean: Tensor) -> Tensor:
        distance: Tensor = torch.linalg.vector_norm(features - mean, dim=-1, keepdim=True)
        return distance.clamp(min=torch.finfo(distance.dtype).tiny).log()


def class_means(features: Tensor, label: Tensor) -> MeanDistance:
    """The means of the normal and of the anomalous samples, as a probe. Arguments and errors as in `fit_logistic`."""
    samples, target = _checked(features, label)
    return MeanDistance(samples[target == 0].mean(0).float(), samples[target == 1].mean(0).float())


def _checked(features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 on the features' device."""
    if features.ndim != 2 or 0 in features.shape or label.shape != features.shape[:1]:
        raise ValueError(
            f"features {tuple(features.shape)} and labels {tuple(label.shape)}; (B, D) and (B,) are expected"
        )
    if features.is_complex() or not features.abs().max() < 1e100:  # NaN fails it too; squares must not overflow
        raise ValueError("features hold NaN, infinite or complex values; drop those samples or read them again")
    target = label.to(features.device, torch.float64)
    n_anomalous, n_normal = int((target == 1).sum()), int((target == 0).sum())
    if n_anomalous + n_normal < len(label):
        raise ValueError(f"labels {sorted(set(label.tolist()))[:5]}; 0 (normal) and 1 (anomalous) are expected")
    if not n_anomalous or not n_normal:
        raise ValueError(
            f"{n_normal} normal and {n_anomalous} anomalous samples; a probe needs both: draw a larger fitting set"
        )
    return features.detach().double(), target


def _importance(target: Tensor, class_weight: ClassWeight) -> Tensor:
    if class_weight not in (None, "balanced"):
        raise ValueError(f'class_weight is {class_weight!r}; None or "balanced" is expected')
    if class_weight is None:
        return torch.ones_like(target)
    share = target.mean()
    return torch.where(target == 1, 0.5 / share, 0.5 / (1 - share))


def _scaling(samples: Tensor, standardize: bool) -> tuple[Tensor, Tensor]:
    """What to subtract, which a free bias takes up, and what to divide by."""
    mean = samples.mean(0)
    if not standardize:
        return mean, torch.ones_like(mean)
    variance = samples.var(0, correction=0)
    n, eps = len(samples), torch.finfo(samples.dtype).eps
    constant = variance <= n * eps * variance + (n * eps * mean).square()  # scikit-learn's bound: rounding alone
    return mean, torch.where(constant, 1, variance.sqrt())


def _log_loss(logit: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    probability = logit.sigmoid()
    loss = functional.binary_cross_entropy_with_logits(logit, label, reduction="none")
    return loss, probability - label, probability * (-logit).sigmoid()  # 1 - probability would round to 0


def _squared_hinge(logit: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    side = 2 * label - 1
    short = (1 - side * logit).clamp(min=0)
    return short.square(), -2 * side * short, 2.0 * (short > 0)


@torch.no_grad()
def _fit(
    features: Tensor,
    label: Tensor,
    losses: Losses,
    c: float,
    max_iterations: int,
    class_weight: ClassWeight,
    standardize: bool,
) -> nn.Linear:
    samples, target = _checked(features, label)
    if not c > 0 or max_iterations < 1:
        raise ValueError(f"c is {c} and max_iterations {max_iterations}; a c above 0 and at least 1 are expected")
    mean, scale = _scaling(samples, standardize)
    coordinate, expand = _coordinates((samples - mean) / scale)
    found = _minimize(coordinate, target, losses, _importance(target, class_weight), c, max_iterations)
    weight, bias = expand(found[:-1]) / scale, found[-1]
    # drawn on "meta", so that a fit leaves the random numbers of others alone
    linear = nn.Linear(len(weight), 1, device="meta", dtype=torch.float32).to_empty(device=features.device)
    linear.weight.copy_(weight[None])
    linear.bias.copy_(bias - weight @ mean)
    return linear


def _coordinates(samples: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Samples (B, R) in few coordinates, and what turns a weight (R,) on them into one on samples (D,), as long as it.

    Where D is large they are those of an orthonormal basis of the samples' span: a penalised weight has no part outside
    of it, so at most B numbers are left to solve for.
    """
    if 2 * len(samples) > samples.shape[1]:
        return samples, lambda weight: weight
    square, vector = torch.linalg.eigh(samples @ samples.T)
    kept = square > square[-1] * len(samples) * torch.finfo(square.dtype).eps
    length, vector = square[kept].sqrt(), vector[:, kept]
    return vector * length, lambda weight: samples.T @ (vector @ (weight / length))


def _minimize(
    samples: Tensor, target: Tensor, losses: Losses, importance: Tensor, c: float, max_iterations: int
) -> Tensor:
    """Weight and, last, bias at the minimum: (D + 1,)."""
    design = functional.pad(samples, (0, 1), value=1.0)
    share = importance / importance.sum()
    penalty = torch.full_like(design[0], 1 / c / float(importance.sum()))
    penalty[-1] = 0  # the bias
    point, used = torch.zeros_like(penalty), 0

    def loss_and_slope(point: Tensor) -> tuple[Tensor, Tensor]:
        loss, slope, _ = losses(design @ point, target)
        return share @ loss + penalty @ point.square() / 2, design.T @ (share * slope) + penalty * point

    while True:
        curvature = design.T @ ((share * losses(design @ point, target)[2])[:, None] * design)
        diagonal = curvature.diagonal()
        diagonal += penalty + 1e-10 * diagonal  # it only sets coordinates, and dimensions may depend on each other
        diagonal[diagonal == 0] = 1
        factor, info = torch.linalg.cholesky_ex(curvature)
        failed = bool(info) or not bool(factor.isfinite().all())  # divided by infinity, a slope would seem to vanish
        rest = float(torch.linalg.solve_triangular(factor, loss_and_slope(point)[1][:, None], upper=False).norm())
        if not failed and rest <= _CONVERGED:
            return point
        if failed or used >= max_iterations or not math.isfinite(rest):
            raise ValueError(
                f"the probe found no minimum in {used} iterations (gradient {rest:.1e}, expected {_CONVERGED:.0e}); "
                "standardize the features, allow more iterations or take a smaller c"
            )
        point, iterations = _descend(loss_and_slope, point, factor, min(_ITERATIONS_PER_ROUND, max_iterations - used))
        used += iterations


def _descend(
    loss_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, factor: Tensor, max_iterations: int
) -> tuple[Tensor, int]:
    """The point that LBFGS reaches, in coordinates in which the curvature factor @ factor.T is 1, and its iterations.

    The slope is given by hand: LBFGS then also works where gradients are off.
    """
    step = nn.Parameter(torch.zeros_like(start))
    optimizer = torch.optim.LBFGS(
        [step],
        max_iter=max_iterations,
        max_eval=25 * max_iterations,  # as many as one line search may take
        tolerance_grad=_CONVERGED / 1e3,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def reached() -> Tensor:
        moved: Tensor = torch.linalg.solve_triangular(factor.T, step.detach()[:, None], upper=True)[:, 0]
        return start + moved

    def closure() -> float:
        loss, slope = loss_and_slope(reached())
        step.grad = torch.linalg.solve_triangular(factor, slope[:, None], upper=False)[:, 0]
        return float(loss)

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return reached(), max(1, optimizer.state[step]["n_iter"])
