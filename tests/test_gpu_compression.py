"""Compression of visual tokens on one NVIDIA GPU: `make gpu-check`. Measured numbers go to results/gpu.json."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.speed_compression import CLIPS, RATIO, SIZES, WIDTH, all_dense, ours, video_tokens
from tests.test_compression import lattice, randn
from tests.test_gpu import record, seconds
from vigil.compression import compress, heat, kept_length

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def peak_gib(step: Callable[[], object]) -> float:
    """The most memory that a step takes beyond what was there, its result with it."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**30


@pytest.mark.parametrize("n_tokens", SIZES)
def test_bf16_tokens_of_the_released_sizes(n_tokens: int) -> None:
    tokens, length = video_tokens(n_tokens, device="cuda", dtype=torch.bfloat16), kept_length(n_tokens, RATIO)
    ways = {"ours": lambda: ours(tokens, length), "dense": lambda: all_dense(tokens, length)}
    row = {"result_gib": CLIPS * length * WIDTH * 2 / 2**30}
    for name, step in ways.items():
        row[f"{name}_seconds"] = seconds(step, repeats=5)
        row[f"{name}_peak_memory_gib"] = peak_gib(step)
    record(f"compression of ({CLIPS}, {n_tokens}, {WIDTH}) to {length} tokens, bf16", row)
    assert row["ours_peak_memory_gib"] < row["dense_peak_memory_gib"]


@pytest.mark.parametrize("density", ["paper", "lof"])
@pytest.mark.parametrize("tokens", [randn(3, 300, 64).float(), randn(3, 300, 64).bfloat16()])
def test_the_gpu_and_the_cpu_compress_alike(tokens: Tensor, density: str) -> None:
    length = torch.tensor([30, 150, 299])
    on_cpu = [*compress(tokens, length, density=density), *heat(tokens, length, density=density)]
    on_gpu = [*compress(tokens.cuda(), length, density=density), *heat(tokens.cuda(), length, density=density)]
    for mine, theirs in zip(on_gpu, on_cpu, strict=True):
        torch.testing.assert_close(mine.cpu(), theirs, atol=1e-2 if mine.dtype == torch.bfloat16 else 1e-4, rtol=1e-4)


def test_ties_go_to_the_lower_index_on_the_gpu_too() -> None:
    tokens = lattice(2, 500, 3).float()
    on_cpu, on_gpu = (compress(own, 120, neighbors=2)[1].cpu() for own in (tokens, tokens.cuda()))
    assert torch.equal(on_gpu, on_cpu)


def test_gradients_on_the_gpu_are_those_of_the_cpu() -> None:
    grads = []
    for device in ("cpu", "cuda"):
        tokens = randn(2, 100, 16).to(device).requires_grad_()
        compress(tokens, 40)[0].square().sum().backward()
        assert tokens.grad is not None
        grads.append(tokens.grad.cpu())
    torch.testing.assert_close(*grads)
