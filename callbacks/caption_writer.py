"""CaptionWriter: what a system says of its clips, as a table."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import distributed

from vigil.types import Clip, Prediction

SHOWN = 5  # captions on the screen; the file holds all


class CaptionWriter(Callback):
    """Writes captions.csv into `folder` where a system gives captions: after a test or a prediction, of every clip.

    Columns video,first_frame,end_frame,caption,reference; ends exclusive, reference empty where there is no sentence.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._rows: dict[tuple[str, int, int], tuple[str, str]] = {}

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._rows = {}

    on_predict_start = on_test_start

    def on_test_batch_end(self, trainer: Trainer, module: Any, outputs: Prediction, batch: Clip, *_: Any) -> None:
        if outputs.caption is None:
            return
        if len(outputs.caption) != len(batch.video):
            raise ValueError(
                f"{type(module).__name__} gives {len(outputs.caption)} captions of {len(batch.video)} clips; one each "
                "is expected"
            )
        references = batch.text or [""] * len(batch.video)
        for name, span, text, reference in zip(batch.video, described(batch), outputs.caption, references, strict=True):
            self._rows[name, span[0], span[1]] = (text, reference)

    on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer, "test")

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer, "predict")

    def _write(self, trainer: Trainer, split: str) -> None:
        parts = [self._rows]
        if trainer.world_size > 1:
            parts = [{} for _ in range(trainer.world_size)]
            distributed.all_gather_object(parts, self._rows)
        rows = {key: said for part in parts for key, said in part.items()}  # a clip scored twice is one row
        if not rows or not trainer.is_global_zero or trainer.fast_dev_run:
            return
        order = {video.name: number for number, video in enumerate(trainer.datamodule.known(split))}
        keys = sorted(rows, key=lambda key: (order[key[0]], *key[1:]))
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / "captions.csv"
        with file.open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["video", "first_frame", "end_frame", "caption", "reference"])
            for name, first, end in keys:
                writer.writerow([name, first, end, *rows[name, first, end]])
        for name, first, end in keys[:SHOWN]:
            rank_zero_info(f"{name}, frames {first} to {end}: {rows[name, first, end][0]}")
        if len(rows) > SHOWN:
            rank_zero_info(f"and {len(rows) - SHOWN} more captions: {file}")


def described(clip: Clip) -> list[tuple[int, int]]:
    """The frames that each caption is of: the clip's span, or what a causal window, which looks back, has seen."""
    found = []
    watched = next(iter(clip.frame.values()))
    for (first, end), frame in zip(clip.span.tolist(), watched.tolist(), strict=True):
        looks_back = isinstance(frame[0], int) and frame[0] < first
        found.append((frame[0], frame[-1] + 1) if looks_back else (first, end))
    return found
