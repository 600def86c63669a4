"""Choosing a layer and heads at the sizes of real backbones, beside the plain way and scikit-learn. `make speed`."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from torch import Tensor

from tests.conftest import SpeedRow
from vigil.saliency import Separability, layer_curves, separability

N_SAMPLES = 400
LABEL = torch.arange(N_SAMPLES) % 5 % 2  # 160 of 400 are anomalous


def seconds(step: Callable[[], object], repeats: int = 20) -> float:
    """Of the fastest of several calls, the first not counted: other load on the machine must not decide."""
    times = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times[1:] or times)


@pytest.fixture(scope="module")
def heads() -> Tensor:
    """The 28 x 28 heads of InternVL3-8B, width 128."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(N_SAMPLES, 28, 28, 128, generator=generator) + 0.2 * LABEL[:, None, None, None]


def test_separability_of_784_heads(heads: Tensor, speed_row: SpeedRow) -> None:
    def plain() -> Tensor:
        normal, anomalous = heads[LABEL == 0].double(), heads[LABEL == 1].double()
        spread = [own.var(0, correction=0).sum(-1) for own in (normal, anomalous)]
        return (anomalous.mean(0) - normal.mean(0)).square().sum(-1) / (spread[0] + spread[1])

    def silhouettes() -> list[float]:
        features = heads.flatten(1, 2).transpose(0, 1).contiguous().numpy()
        return [float(silhouette_score(head, LABEL.numpy())) for head in features]

    torch.testing.assert_close(separability(heads, LABEL), plain(), rtol=1e-5, atol=0)
    ours = seconds(lambda: separability(heads, LABEL))
    others = {
        "scikit-learn's silhouette": seconds(silhouettes, repeats=0),
        "plain, float64": seconds(plain, repeats=2),
    }
    name = f"separability of 784 heads x {N_SAMPLES} samples x 128"
    speed_row(name, ours, others, "at most 50 ms, 100 times faster than the silhouette")
    assert ours <= 0.05
    assert others["scikit-learn's silhouette"] >= 100 * ours


def test_separability_of_784_heads_that_come_in_batches(heads: Tensor, speed_row: SpeedRow) -> None:
    def stream() -> Tensor:
        streamed = Separability()
        for own, label in zip(heads.split(8), LABEL.split(8), strict=True):
            streamed.update(own, label)
        return streamed.compute()

    torch.testing.assert_close(stream(), separability(heads, LABEL), rtol=1e-5, atol=0)
    whole = {"in one": seconds(lambda: separability(heads, LABEL))}
    speed_row(f"separability, {N_SAMPLES} samples in batches of 8", seconds(stream), whole, "none")


def test_saliency_of_33_layers(speed_row: SpeedRow) -> None:
    generator = torch.Generator().manual_seed(1)
    layers = [
        (1 + 0.1 * number) * torch.randn(N_SAMPLES, 3584, generator=generator) + 0.01 * number * LABEL[:, None]
        for number in range(33)
    ]

    def plain() -> np.ndarray:
        normal, measured = LABEL.numpy() == 0, []
        for layer in layers:
            values = layer.numpy().astype(np.float64)
            mean_n, mean_a, var_n, var_a = (
                statistic(values[own], axis=0) for statistic in (np.mean, np.var) for own in (normal, ~normal)
            )
            distance = (mean_n - mean_a) ** 2
            kl = (np.log(var_a / var_n) + (var_n + distance) / var_a - 1).mean() / 2
            low, high = values.min(0), values.max(0)
            number = np.minimum((values - low) * 32 / (high - low), 31).astype(np.int64) + 32 * np.arange(3584)
            share = np.bincount(number.ravel(), minlength=32 * 3584) / N_SAMPLES
            entropy = -(share * np.log2(share, where=share > 0, out=np.zeros_like(share))).sum() / 3584
            measured.append([kl, (distance / (var_n + var_a)).mean(), entropy])
        return np.array(measured).T

    curves = layer_curves(layers, LABEL)
    for curve, expected in zip((curves.kl, curves.ldr, curves.entropy), plain(), strict=True):
        np.testing.assert_allclose(curve.numpy(), expected, rtol=1e-5)
    others = {"plain NumPy, float64": seconds(plain, repeats=2)}
    ours = seconds(lambda: layer_curves(layers, LABEL), repeats=10)
    speed_row(f"saliency of 33 layers x {N_SAMPLES} samples x 3584", ours, others, "at most 0.5 s")
    assert ours <= 0.5
