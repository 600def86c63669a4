"""Checkpoints that survive anything: written whole or not at all, and at a batch's end when somebody says stop."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that no kill leaves a truncated file; reads with weights_only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str, storage_options: Any | None = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        with part.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)

    def load_checkpoint(self, path: str, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        try:
            return torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path}: no checkpoint here; a fit leaves last.ckpt in its run folder") from error
        except Exception as error:
            raise ValueError(f"{path}: not a checkpoint that can be read safely ({error})") from error


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`: every so many steps, after each validation, at the end, and when somebody says stop.

    Ctrl-C and SIGTERM end a fit after the batch under way; exit status 130 and 143. A second Ctrl-C stops at once.
    All ranks agree before any of them stops.
    """

    def __init__(self, folder: Path, every_n_steps: int) -> None:
        self.file = folder / "last.ckpt"
        self.every_n_steps = every_n_steps
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._saved_step = 0

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._saved_step = trainer.global_step
        if trainer.received_sigterm:
            self.signal = signal.SIGTERM
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        if number == signal.SIGINT:
            sys.stderr.write("\nStopping after this step, with a checkpoint; Ctrl-C again stops at once.\n")

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, _: Any, __: Any, i: int) -> None:
        stepped = (i + 1) % trainer.accumulate_grad_batches == 0  # what is accumulated is in no checkpoint
        if stepped and not trainer.is_last_batch:  # the epoch's last batch has a validation still to come
            self._stop_if_told(trainer)
        if trainer.global_step >= self._saved_step + self.every_n_steps:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._stop_if_told(trainer)

    def _stop_if_told(self, trainer: Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False):
            self._save(trainer)
            raise SystemExit(128 + (self.signal or signal.SIGTERM))

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:  # with the threshold just fitted
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if not trainer.fast_dev_run:
            trainer.save_checkpoint(self.file)
            self._saved_step = trainer.global_step

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
