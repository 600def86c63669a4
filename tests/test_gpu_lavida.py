"""Lavida at Qwen2-VL-7B's and SAM2.1-Small's sizes, random weights, on one NVIDIA GPU: `make gpu-check`."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lightning_modules import Lavida
from tests.real_shapes import write_sam2_small, write_shape
from tests.test_gpu import record, seconds
from tests.tiny_clip import write_clip
from vigil.types import Clip

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
FRAMES, HEIGHT, WIDTH = 8, 480, 856  # ShanghaiTech's
PHRASES = [f"an object of the kind {k}" for k in range(18)]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Lavida:
    root = tmp_path_factory.mktemp("shapes")
    backbone, sam2 = write_shape(root / "mllm", "Qwen2-VL-7B"), write_sam2_small(root / "sam2")
    made = Lavida(
        str(backbone), str(sam2), str(write_clip(root / "clip")), dtype="bfloat16", weights="random",
        fit_frame_pixels=(200704, 401408), test_frame_pixels=(1003520, 1204224), save_memory=True,
    )  # fmt: skip
    made = made.to("cuda")
    made.configure_model()
    made.log_dict = lambda *_, **__: None
    return made.to("cuda")


def clip_of(n_clips: int) -> Clip:
    mask = torch.zeros((n_clips, FRAMES, HEIGHT, WIDTH), dtype=torch.bool, device="cuda")
    mask[:, :, 100:300, 200:500] = True
    shape = (n_clips, FRAMES, 3, HEIGHT, WIDTH)
    return Clip(
        video=["v"] * n_clips, span=torch.tensor([[0, FRAMES]] * n_clips),
        frame={"video": torch.arange(FRAMES).expand(n_clips, -1)},
        pixels={"video": torch.randint(0, 256, shape, dtype=torch.uint8, device="cuda")},
        mask=mask, frame_label=torch.ones((n_clips, FRAMES), dtype=torch.long, device="cuda"),
        phrases=[PHRASES] * n_clips,
    )  # fmt: skip


def test_a_training_step_of_two_clips(system: Lavida) -> None:
    clip = clip_of(2)
    optimizer = torch.optim.AdamW([value for value in system.parameters() if value.requires_grad], lr=1e-5)

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            loss = system.training_step(clip, 0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    system.mllm.train()
    torch.cuda.reset_peak_memory_stats()
    took = seconds(step, repeats=3)
    peak = torch.cuda.max_memory_allocated() / 2**30
    record(
        "Lavida, a step of 2 clips of 8 frames, Qwen2-VL-7B and SAM2.1-S at 1024, bf16, recompute",
        {"seconds": took, "clips_per_second": 2 / took, "peak_memory_gib": peak},
    )


def inference(system: Lavida, ratio: float, clip: Clip) -> dict[str, Any]:
    system.hparams.compression = ratio
    system.eval()

    def run() -> None:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            system.predict(clip)

    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    took = seconds(run, repeats=3)
    peak = torch.cuda.max_memory_allocated()
    return {
        "frames_per_second": FRAMES / took,
        "whole_gib": peak / 2**30,
        "beyond_weights_gib": (peak - before) / 2**30,
    }


def test_inference_at_a_fifth_of_the_tokens_beside_all(system: Lavida) -> None:
    clip = clip_of(1)
    found = {ratio: inference(system, ratio, clip) for ratio in (1.0, 0.5, 0.2)}
    for ratio, row in found.items():
        record(f"Lavida, test at compression {ratio}, 8 frames of 5,184 tokens in all, bf16", row)
    share = {key: found[0.2][key] / found[1.0][key] for key in ("whole_gib", "beyond_weights_gib")}
    assert share["beyond_weights_gib"] <= 0.541
    record("Lavida, inference memory at compression 0.2 beside 1.0 (the paper: 54.1 % of the GPU)", share)
