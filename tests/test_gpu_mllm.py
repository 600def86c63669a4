"""MLLMs of the papers' sizes with random weights on one NVIDIA GPU: `make gpu-check`. Rows go to results/gpu.json."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.real_shapes import write_shape
from tests.test_gpu import measured_bf16_rate, record, seconds
from tests.tiny_mllms import FAMILIES, write_mllm
from vigil.mllm import Mllm

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
SEGMENTS, FRAMES = 8, 8  # of a batch; HiProbe-VAD: 8 keyframes of a segment
PROMPT = "Describe the scene and identify if any of the abnormal events occur?"


def segments(device: str = "cuda") -> Tensor:
    return torch.randint(0, 256, (SEGMENTS, FRAMES, 3, 240, 320), dtype=torch.uint8, device=device)


@torch.no_grad()
@pytest.mark.parametrize("name", ["InternVL3-8B", "LLaVA-OneVision-7B"])
def test_prefill_at_the_papers_sizes(name: str, tmp_path: Path) -> None:
    mllm = Mllm(str(write_shape(tmp_path, name)), dtype="bfloat16", weights="random", device_map="cuda")
    mllm.load()
    pixels = segments()
    with FlopCounterMode(display=False) as counter:  # matrix products, convolutions and attention that really ran
        mllm.read(pixels, PROMPT, logits=(-1,))
    torch.cuda.reset_peak_memory_stats()
    rate = measured_bf16_rate()
    whole = seconds(lambda: mllm.read(pixels, PROMPT, logits=(-1,)), repeats=5)
    peak = torch.cuda.max_memory_allocated()
    early = seconds(lambda: mllm.read(pixels, PROMPT, hidden=(20,)), repeats=5)
    prompted = mllm.embed(pixels, PROMPT)
    with FlopCounterMode(display=False) as decoder_counter:
        mllm._run(prompted)
    prefill = seconds(lambda: mllm._run(prompted), repeats=5)
    share = decoder_counter.get_total_flops() / prefill / rate
    parameters = sum(parameter.numel() for parameter in mllm.model.parameters())
    record(
        f"{name} ({parameters / 1e9:.2f} G parameters), {SEGMENTS} segments of {FRAMES} frames, bf16, sdpa",
        {
            "tokens_per_segment": prompted.embedding.shape[1],
            "segments_per_second": SEGMENTS / whole,
            "segments_per_second_to_layer_20": SEGMENTS / early,
            "share_of_measured_bf16_rate_whole": counter.get_total_flops() / whole / rate,
            "share_of_measured_bf16_rate_prefill": share,
            "measured_bf16_tflops": rate / 1e12,
            "peak_memory_gib": peak / 2**30,
        },
    )
    assert share >= 0.4


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_the_gpu_and_the_cpu_read_alike(family: str, tmp_path: Path) -> None:
    folder = str(write_mllm(tmp_path, family))
    pixels = segments("cpu")[:2, :4]
    wanted = {"hidden": (1, 3), "heads": (2,), "logits": (-1,), "frame_rate": [3.0, 5.0]}
    on_cpu = Mllm(folder).read(pixels, PROMPT, **wanted)
    on_gpu = Mllm(folder, device_map="cuda").read(pixels, PROMPT, **wanted)
    for name in ("hidden", "heads", "logits"):
        torch.testing.assert_close(getattr(on_gpu, name).cpu(), getattr(on_cpu, name), atol=5e-2, rtol=1e-2)
