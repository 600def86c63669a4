"""Progress: how far, how long still, and how many frames a second."""

from __future__ import annotations

import math
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from vigil.types import Clip


def count_frames(clip: Clip) -> int:
    """Frames, or rows of features, that a clip holds of all its streams."""
    return sum(frame.numel() for frame in clip.frame.values())


class Throughput(Callback):
    """Logs `train/frames_per_second` over all processes; of stored or given features, rows per second."""

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._since, self._frames = time.perf_counter(), 0

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, i: int) -> None:
        self._frames += count_frames(batch) * trainer.world_size
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            rate = self._frames / (time.perf_counter() - self._since)
            module.log("train/frames_per_second", rate, prog_bar=True, batch_size=1)
            self._since, self._frames = time.perf_counter(), 0


class Progress(RichProgressBar):
    """Rich's bar, with time left and frames per second; without an end where a stream is followed."""

    @property
    def total_predict_batches_current_dataloader(self) -> int | float:
        total = super().total_predict_batches_current_dataloader
        return math.inf if self.trainer.datamodule.causal else total

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        return {key: value for key, value in super().get_metrics(trainer, module).items() if key != "v_num"}
