"""Checks on one NVIDIA GPU: `make gpu-check`. Measured numbers go to results/gpu.json."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_modules.mil_ranker import MilRanker
from vigil.types import Clip, View

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
RESULTS = Path(__file__).parents[1] / "results" / "gpu.json"
BAGS, SEGMENTS, FRAMES = 8, 32, 4  # 8 anomalous and 8 normal bags: 2,048 frames a step
DEIT_SMALL_FLOP = 2 * 4.61e9  # a 224-pixel frame forward; 4.6 G multiply-adds, DeiT paper, table 5


def record(name: str, row: dict[str, float | str]) -> None:
    """One row of results/gpu.json, beside the card's name and the torch version."""
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    rows[name] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, **row}
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"\n{name}: {rows[name]}")


def seconds(step: Callable[[], object], repeats: int = 10) -> float:
    """Seconds of one call, after three to warm up."""
    for _ in range(3):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def measured_bf16_rate() -> float:
    """FLOP/s of an 8192-cubed matrix product in bf16 on random numbers."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / seconds(lambda: a @ b)


def bags(pixels: Tensor | None = None) -> Clip:
    """As many anomalous as normal bags of random 240x320 frames."""
    shape = (2 * BAGS, SEGMENTS, FRAMES, 3, 240, 320)
    if pixels is None:
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8)
    frame = torch.arange(SEGMENTS * FRAMES).view(1, SEGMENTS, FRAMES).expand(2 * BAGS, -1, -1)
    return Clip(
        video=[f"v{i}" for i in range(2 * BAGS)],
        span=torch.tensor([[0, SEGMENTS * FRAMES]] * (2 * BAGS)),
        frame={"video": frame},
        pixels={"video": pixels},
        label=torch.tensor([1] * BAGS + [0] * BAGS),
    )


def ranker(train_blocks: int) -> MilRanker:
    seed_everything(0, verbose=False)
    return MilRanker(
        weights=None, train_blocks=train_blocks, batch_size=BAGS, fit_view=View(frames=FRAMES, segments=SEGMENTS)
    )


@pytest.mark.parametrize("train_blocks", [0, 12])
def test_a_bf16_step_of_the_ranker(train_blocks: int) -> None:
    system = ranker(train_blocks).cuda()
    optimizer = system.configure_optimizers()
    system.log_dict = lambda *_, **__: None  # no trainer here
    clip = bags().to("cuda")
    torch.cuda.reset_peak_memory_stats()

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            loss = system.training_step(clip, 0)
        loss.backward()
        optimizer.step()

    duration, rate = seconds(step), measured_bf16_rate()
    n_frames = 2 * BAGS * SEGMENTS * FRAMES
    flop = n_frames * DEIT_SMALL_FLOP * (3 if train_blocks else 1)
    record(
        f"MilRanker, DeiT-S, {train_blocks} blocks trained, {2 * BAGS} bags of {SEGMENTS}x{FRAMES} frames, bf16-mixed",
        {
            "seconds_per_step": duration,
            "clips_per_second": 2 * BAGS * SEGMENTS / duration,
            "frames_per_second": n_frames / duration,
            "share_of_measured_bf16_rate": flop / duration / rate,
            "measured_bf16_tflops": rate / 1e12,
            "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30,
        },
    )
    assert all(parameter.isfinite().all() for parameter in system.parameters())


def test_lightning_adds_little_to_a_bf16_step() -> None:
    """The same steps through Trainer, on one GPU in bf16-mixed, and the loss goes down on a batch seen again."""
    system = ranker(train_blocks=12)
    clip = bags()
    loader = DataLoader([clip] * 12, batch_size=None)
    losses: list[float] = []
    system.on_train_batch_end = lambda outputs, *_: losses.append(float(outputs["loss"]))
    trainer = Trainer(
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    system.setup = lambda stage: None  # its loader is this one, no datamodule
    trainer.fit(system, loader)
    assert len(losses) == 12
    assert sum(losses[-3:]) < sum(losses[:3])


def test_the_gpu_and_the_cpu_agree_on_a_score() -> None:
    system = ranker(train_blocks=0).eval()
    clip = bags(
        torch.randint(0, 256, (2, 2, 1, 3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    )
    with torch.no_grad():
        on_cpu = system(clip)
        on_gpu = system.cuda()(clip.to("cuda")).cpu()
    torch.testing.assert_close(on_gpu, on_cpu, atol=2e-3, rtol=0)
