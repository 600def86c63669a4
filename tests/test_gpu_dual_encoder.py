"""DualEncoder at LLaVA-OneVision-7B's sizes, random weights, on one NVIDIA GPU: `make gpu-check`; results/gpu.json."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_modules.adapter import Lora, add_lora
from tests.real_shapes import write_shape
from tests.test_gpu import measured_bf16_rate, record, seconds
from vigil.mllm import Mllm
from vigil.mllm_prompts import Looked

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
FRAMES, CLIPS = 16, 4
PROMPT = "Describe what is happening in this surveillance video."
ANSWER = "The man put down the gasoline can and tore up the cash register machine on the table."


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Mllm:
    folder = write_shape(tmp_path_factory.mktemp("shape"), "LLaVA-OneVision-7B")
    mllm = Mllm(str(folder), dtype="bfloat16", weights="random").to("cuda")
    mllm.load()
    add_lora(mllm, Lora()).to("cuda")
    return mllm.train()


def step(mllm: Mllm, clips: list[torch.Tensor] | list[Looked], optimizer: torch.optim.Optimizer) -> None:
    with torch.autocast("cuda", torch.bfloat16):
        loss = -mllm.say(clips, PROMPT, [ANSWER] * len(clips)).mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def optimizer_of(mllm: Mllm) -> torch.optim.Optimizer:
    return torch.optim.AdamW([value for value in mllm.parameters() if value.requires_grad], lr=1e-4)


def test_training_at_the_papers_size(tuned: Mllm) -> None:
    looked = tuned.look(torch.randint(0, 256, (CLIPS, FRAMES, 3, 240, 320), dtype=torch.uint8, device="cuda"))
    optimizer, rate = optimizer_of(tuned), measured_bf16_rate()
    torch.cuda.reset_peak_memory_stats()
    took = seconds(lambda: step(tuned, looked, optimizer), repeats=5)
    n_tokens = CLIPS * tuned.embed(looked[:1], PROMPT + ANSWER).embedding.shape[1]
    n_parameters = sum(value.numel() for value in tuned.decoder.parameters())
    share = 4 * n_parameters * n_tokens / took / rate  # frozen base: forward 2N, gradients of activations 2N
    record(
        f"DualEncoder, LLaVA-OneVision-7B shapes, {FRAMES} frames, bf16, LoRA rank 8, {CLIPS} clips, no recompute",
        {
            "samples_per_second": CLIPS / took,
            "tokens_per_second": n_tokens / took,
            "share_of_measured_bf16_rate": share,
            "measured_bf16_tflops": rate / 1e12,
            "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
        },
    )
    assert share >= 0.4


def test_an_epoch_of_kept_tokens_beside_the_first(tuned: Mllm) -> None:
    pixels = torch.randint(0, 256, (CLIPS, FRAMES, 3, 240, 320), dtype=torch.uint8, device="cuda")
    optimizer, looked = optimizer_of(tuned), tuned.look(pixels)
    first = seconds(lambda: step(tuned, tuned.look(pixels), optimizer), repeats=5)
    second = seconds(lambda: step(tuned, looked, optimizer), repeats=5)
    record("DualEncoder, an epoch with kept visual tokens beside one without", {"times_faster": first / second})
    assert first >= 1.5 * second


def test_one_clip_fits_a_card_of_24_gb(tuned: Mllm, tmp_path: Path) -> None:
    tuned.save_memory()
    tuned.train()
    looked = tuned.look(torch.randint(0, 256, (1, FRAMES, 3, 240, 320), dtype=torch.uint8, device="cuda"))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    took = seconds(lambda: step(tuned, looked, optimizer_of(tuned)), repeats=5)
    peak = torch.cuda.max_memory_allocated() / 2**30
    record("DualEncoder, one clip with recompute", {"samples_per_second": 1 / took, "peak_memory_gib": peak})
    assert peak <= 22  # a card of 24 GB has some 23.6 GiB, and its driver takes a part
