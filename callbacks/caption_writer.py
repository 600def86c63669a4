"""CaptionWriter: what a system says of its clips, as a table and beside their frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from PIL import Image
from torch import Tensor, distributed
from torch.nn.functional import interpolate

from callbacks.evaluator import Evaluator
from vigil.caption_metrics import CaptionSimilarity
from vigil.caption_table import GROUND_TRUTH, escaped, headed, markdown
from vigil.captions import Caption, spread_evenly, write_captions
from vigil.types import Clip, Prediction, Video, View
from vigil.video import read_frames

SHOWN = 5  # captions on the screen; the file holds all
STRIP = View(frames=4, segments=1)  # frames of a stretch beside what is said of it
HEIGHT = 120  # pixels of a strip


class CaptionWriter(Callback):
    """Writes captions.csv into `folder` where a system gives captions: after a test or a prediction, of every clip.

    Columns video,first_frame,end_frame,caption,reference,similarity; ends exclusive, reference empty where there is no
    sentence, similarity where the dataset judges no captions. Beside it captions.md, a table of `samples` of them,
    evenly over all, each with a strip of its frames, captions/*.jpg; the same in TensorBoard. It comes before the
    ScoreWriter, which raises what went wrong in judging.
    """

    def __init__(self, folder: Path, samples: int = 4) -> None:
        self.folder, self.samples = Path(folder), samples
        self._said: dict[tuple[str, int, int, str], str] = {}

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._said = {}

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
            self._said.setdefault((name, *span, reference), text)

    on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer, "test")

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer, "predict")

    def _write(self, trainer: Trainer, split: str) -> None:
        said = self._gathered(trainer)
        if not said or not trainer.is_global_zero or trainer.fast_dev_run:
            return
        videos = {video.name: video for video in trainer.datamodule.known(split)}
        order = {name: number for number, name in enumerate(videos)}
        rows = judged(trainer, split) or [
            Caption(*key[:3], said[key], key[3]) for key in sorted(said, key=lambda key: (order[key[0]], *key[1:]))
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        write_captions(self.folder / "captions.csv", rows)
        for row in rows[:SHOWN]:
            rank_zero_info(f"{headed(*row[:3])}: {row.text}")
        if len(rows) > SHOWN:
            rank_zero_info(f"and {len(rows) - SHOWN} more captions: {self.folder / 'captions.csv'}")
        self._show(trainer, spread_evenly(rows, self.samples), videos)

    def _gathered(self, trainer: Trainer) -> dict[tuple[str, int, int, str], str]:
        """What is said of each stretch and sentence, of all processes; a clip that came twice once."""
        parts = [self._said]
        if trainer.world_size > 1:
            parts = [{} for _ in range(trainer.world_size)]
            distributed.all_gather_object(parts, self._said)
        return {key: text for part in reversed(parts) for key, text in part.items()}

    def _show(self, trainer: Trainer, rows: list[Caption], videos: dict[str, Video]) -> None:
        strips = [] if trainer.datamodule.causal else [strip(videos[row.video], row.first, row.end) for row in rows]
        head = [headed(*row[:3]) for row in rows]
        told = {"Said": [row.text for row in rows]}
        if any(row.reference for row in rows):
            told = {GROUND_TRUTH: [row.reference for row in rows], **told}
        if any(row.similarity is not None for row in rows):
            told["Similarity"] = ["" if row.similarity is None else f"{row.similarity:.3f}" for row in rows]
        boards = [logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        pictures = []
        for row, frames in zip(rows, strips, strict=bool(strips)):
            if isinstance(frames, str):
                pictures.append(escaped(frames))
                continue
            name = f"{row.video}.{row.first}-{row.end}"
            (self.folder / "captions").mkdir(exist_ok=True)
            image = Image.fromarray(frames.permute(1, 2, 0).numpy())
            image.save(self.folder / "captions" / f"{name}.jpg", quality=90)
            pictures.append(f"![](captions/{quote(name)}.jpg)")
            for board in boards:
                board.add_image(f"captions/{name}", frames, trainer.global_step)
        (self.folder / "captions.md").write_text(markdown(head, told, pictures), encoding="utf-8")
        for board in boards:
            board.add_text("captions", markdown(head, told), trainer.global_step)


def judged(trainer: Trainer, split: str) -> list[Caption]:
    """The captions with their similarity, where the dataset judged them; [] where it does not or could not."""
    evaluator = next((callback for callback in trainer.callbacks if isinstance(callback, Evaluator)), None)
    if evaluator is None or "caption_sbert" not in evaluator.results.get(split, {}):
        return []
    return [
        row for metric in evaluator.metrics.values() if isinstance(metric, CaptionSimilarity) for row in metric.rows()
    ]


def strip(video: Video, first: int, end: int) -> Tensor | str:
    """Frames of a stretch side by side, uint8 (3, HEIGHT, X), or why there are none: a table goes on without them."""
    if video.path is None:
        return "features alone"
    try:
        frames = read_frames(video.path, first + np.unique(STRIP.indices(end - first)))
    except (ValueError, OSError) as error:
        return f"cannot be read: {error}"
    size = (HEIGHT, max(1, round(frames.shape[3] * HEIGHT / frames.shape[2])))
    small = interpolate(frames.float(), size=size, mode="bilinear", antialias=True).round().clamp(0, 255)
    return torch.cat(list(small.to(torch.uint8)), dim=2)


def described(clip: Clip) -> list[tuple[int, int]]:
    """The frames that each caption is of: the clip's span, or what a causal window, which looks back, has seen."""
    found = []
    watched = next(iter(clip.frame.values()))
    for (first, end), frame in zip(clip.span.tolist(), watched.tolist(), strict=True):
        looks_back = isinstance(frame[0], int) and frame[0] < first
        found.append((frame[0], frame[-1] + 1) if looks_back else (first, end))
    return found
