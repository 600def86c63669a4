"""Progress: how far, how long still, and how many frames a second."""

from __future__ import annotations

import math
import resource
import time
from typing import Any

import torch
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


class Cost(Callback):
    """What a stage costs on the process that asks: seconds, frames of video per second, and peak memory.

    From the set-up, when a frozen backbone reads the videos, to the last batch. No frames per second where an earlier
    run had read videos of the stage, or features are given for them: that time is not known here.
    """

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        self._since = self._until = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_test_batch_end(self, *_: Any) -> None:
        self._until = time.perf_counter()

    on_validation_batch_end = on_predict_batch_end = on_test_batch_end

    def of(
        self, trainer: Trainer, module: LightningModule, split: str, apart_s: float = 0.0
    ) -> dict[str, float | int | None]:
        """trained_parameters; of this stage seconds, frames_per_second and peak_memory_mb (2**20 bytes).

        apart_s: what was spent in between on other videos than the stage's, which does not count.
        """
        data, seconds = trainer.datamodule, self._until - self._since - apart_s
        frames = sum(video.n_frames or 0 for video in data.known(split))
        unknown = module.videos_stored or data.features or not frames
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10  # kilobytes on Linux
        if module.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated() / 2**20
        trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        return {
            "trained_parameters": trained if module.trained else 0,
            "seconds": seconds,
            "frames_per_second": None if unknown else frames / seconds,
            "peak_memory_mb": peak,
        }


class Progress(RichProgressBar):
    """Rich's bar, with time left and frames per second; without an end where a stream is followed."""

    @property
    def total_predict_batches_current_dataloader(self) -> int | float:
        total = super().total_predict_batches_current_dataloader
        return math.inf if self.trainer.datamodule.causal else total

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        return {key: value for key, value in super().get_metrics(trainer, module).items() if key != "v_num"}
