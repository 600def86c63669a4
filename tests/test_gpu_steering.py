"""SteerVad's training and HiProbe's regression on one NVIDIA GPU: `make gpu-check`. Rows go to results/gpu.json."""

from __future__ import annotations

import pytest
import torch

from tests.speed_steering import EPOCHS, HEAD_WIDTH, HEADS, SAMPLES, WIDTH, samples, train
from tests.test_gpu import record, seconds
from vigil.probe import class_means, fit_logistic, fit_svm
from vigil.steering import Steering

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def fresh() -> Steering:
    torch.manual_seed(0)
    return Steering(WIDTH, HEADS, HEAD_WIDTH)


def test_a_thousand_epochs_take_two_seconds() -> None:
    train(fresh(), "cuda", n_epochs=20, fused=True)
    torch.cuda.reset_peak_memory_stats()
    took, curve = train(fresh(), "cuda", fused=True)
    record(
        f"{EPOCHS} epochs of SteerVad on {SAMPLES} samples of {WIDTH} and {HEADS} heads of {HEAD_WIDTH}, fp32",
        {
            "seconds": took,
            "first_loss": float(curve[0]),
            "last_loss": float(curve[-1]),
            "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
        },
    )
    assert curve[-1] < 0.1 * curve[0]
    assert took <= 2


def test_the_gpu_and_the_cpu_train_alike() -> None:
    _, on_cpu = train(fresh(), n_epochs=10)
    _, on_gpu = train(fresh(), "cuda", n_epochs=10)
    torch.testing.assert_close(on_gpu, on_cpu, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("fit", [fit_logistic, fit_svm, class_means])
def test_the_gpu_and_the_cpu_fit_the_same_probe(fit) -> None:
    context, _, label = samples()
    for features in (context, context[:, :40]):  # in the span of the samples, and in the dimensions
        on_gpu = fit(features.cuda(), label).state_dict()
        for name, value in fit(features, label).state_dict().items():
            assert on_gpu[name].is_cuda
            torch.testing.assert_close(on_gpu[name].cpu(), value, atol=1e-5, rtol=1e-3)


def test_the_regression_of_a_fitting_set() -> None:
    features, _, label = samples("cuda")
    took = seconds(lambda: fit_logistic(features, label), repeats=5)
    record(f"logistic regression of {SAMPLES} samples of {WIDTH}, float64", {"seconds": took})
