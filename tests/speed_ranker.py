"""A training step of the ranker through Lightning against the same step in a bare loop. `make speed`."""

from __future__ import annotations

import time

import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from torch.utils.data import DataLoader

from lightning_modules.mil_ranker import MilRanker
from tests.conftest import SpeedRow
from vigil.types import Clip, View


class Stopwatch(Callback):
    """When each batch ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: object) -> None:
        self.ends.append(time.perf_counter())


def ranker(**options: object) -> MilRanker:
    seed_everything(0, verbose=False)
    system = MilRanker(**options)
    system.setup = lambda stage: None  # its loader is given, there is no datamodule to read
    return system


def through_lightning(system: MilRanker, clip: Clip, n_steps: int) -> float:
    """Seconds of the fastest step, which other load on the machine disturbs least."""
    watch = Stopwatch()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[watch],
    )
    trainer.fit(system, DataLoader([clip] * n_steps, batch_size=None))
    return float(torch.tensor(watch.ends).double().diff().min())


def bare(system: MilRanker, clip: Clip, n_steps: int) -> float:
    """Seconds of the fastest step, which other load on the machine disturbs least."""
    system.log_dict = lambda *_, **__: None  # logging is Lightning's
    system.train()
    optimizer = system.configure_optimizers()
    ends = []
    for i in range(n_steps):
        optimizer.zero_grad()
        system.training_step(clip, i).backward()
        optimizer.step()
        ends.append(time.perf_counter())
    return float(torch.tensor(ends).double().diff().min())


@pytest.mark.parametrize("kind", ["DeiT-S on pixels", "stored features"])
def test_lightning_costs_little(kind: str, speed_row: SpeedRow) -> None:
    label = torch.tensor([1, 0])
    if kind == "stored features":
        options = {"encoder": None, "feature_width": 384, "batch_size": 30}
        features = {"video": torch.randn(60, 32, 384)}
        clip = Clip([""] * 60, torch.zeros(60, 2), {"video": torch.zeros(60, 32)}, features=features)
        clip.label, n_steps = label.repeat_interleave(30), 400
    else:
        options = {"weights": None, "train_blocks": 12, "batch_size": 1, "fit_view": View(frames=1, segments=8)}
        pixels = {"video": torch.randint(0, 256, (2, 8, 1, 3, 240, 320), dtype=torch.uint8)}
        clip = Clip(["", ""], torch.zeros(2, 2), {"video": torch.zeros(2, 8, 1)}, pixels, label=label)
        n_steps = 8
    ours, theirs = [], []
    for _ in range(3):  # one after the other, so that a passing load meets both
        theirs.append(bare(ranker(**options), clip, n_steps))
        ours.append(through_lightning(ranker(**options), clip, n_steps))
    ratio = min(ours) / min(theirs)
    speed_row(f"ranker step, {kind}, through Lightning", min(ours), {"bare loop": min(theirs)}, "at most 1.05 times it")
    print(f"through Lightning / bare loop: {ratio:.3f}")
    if kind != "stored features":
        assert ratio < 1.05
