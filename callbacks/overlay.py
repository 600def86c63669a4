"""Overlay: pixel scores painted over the video they belong to, as an mp4 per video."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn.functional import interpolate

from vigil.types import Clip, Prediction, Video
from vigil.video import read_frames, write_video

LONGER_SIDE = 320  # of the maps as they are kept until the video is written
FRAMES_AT_ONCE = 64
OPACITY = 0.7


class Overlay(Callback):
    """Writes overlays/<video>.mp4 into `folder` where a system gives pixel scores: after predict of every video.

    After a test of at most `max_tested` videos, evenly over the list. Maps wait on the disk, eight bits a pixel, so
    that no video's length matters; any process may score any window.
    """

    def __init__(self, folder: Path, max_tested: int = 10) -> None:
        self.folder, self.max_tested = Path(folder), max_tested
        self._numbers: dict[str, int] = {}

    def on_predict_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._choose([video for video in trainer.datamodule.known("predict") if video.path is not None])

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        videos = [video for video in trainer.datamodule.known("test") if video.path is not None]
        chosen = np.unique(np.linspace(0, len(videos) - 1, min(len(videos), self.max_tested), dtype=int))
        self._choose([videos[i] for i in chosen])

    def _choose(self, videos: list[Video]) -> None:
        self._numbers = {video.name: number for number, video in enumerate(videos)}

    def on_predict_batch_end(
        self, trainer: Trainer, module: Any, outputs: Any, batch: Any, i: int, loader: int = 0
    ) -> None:
        self._keep(outputs, batch)

    on_test_batch_end = on_predict_batch_end

    def _keep(self, prediction: Prediction, clip: Clip) -> None:
        if prediction.pixel_score is None:
            return
        shape = prediction.pixel_score.shape[:2]
        frame = next(frame for frame in clip.frame.values() if frame.shape == shape)
        for row, name in enumerate(clip.video):
            if name in self._numbers:
                self._maps.mkdir(parents=True, exist_ok=True)
                file = self._maps / f"{self._numbers[name]}-{int(clip.span[row, 0]):012d}.npz"
                maps = smaller(prediction.pixel_score[row].float()).mul(255).round().byte().cpu().numpy()
                np.savez_compressed(file, maps=maps, frame=frame[row].cpu().numpy())

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer, "predict")

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer, "test")

    def _write(self, trainer: Trainer, split: str) -> None:
        trainer.strategy.barrier("overlay")
        if not trainer.is_global_zero or not self._maps.is_dir():
            return
        (self.folder / "overlays").mkdir(parents=True, exist_ok=True)
        for video in trainer.datamodule.known(split):
            files = sorted(self._maps.glob(f"{self._numbers.get(video.name)}-*.npz"))
            if files:
                write_video(self.folder / "overlays" / f"{video.name}.mp4", painted(video, files), video.fps or 25.0)
        shutil.rmtree(self._maps)
        rank_zero_info(f"Videos with their pixel scores: {self.folder / 'overlays'}")

    @property
    def _maps(self) -> Path:
        return self.folder / "overlays.part"


def smaller(maps: Tensor) -> Tensor:
    """Maps (T, Y, X) whose longer side is at most LONGER_SIDE."""
    scale = LONGER_SIDE / max(maps.shape[1:])
    if scale >= 1:
        return maps
    size = [max(1, round(side * scale)) for side in maps.shape[1:]]
    return interpolate(maps[None], size=size, mode="bilinear", antialias=True)[0].clamp(0, 1)


def painted(video: Video, files: list[Path]) -> Iterator[np.ndarray]:
    """The video's frames, uint8 (C, Y, X), each with the map that holds for it: the more anomalous, the redder."""
    assert video.path is not None
    assert video.n_frames is not None
    red = torch.tensor([255.0, 0.0, 0.0])[:, None, None]
    held = _held(files, video.n_frames)
    for first in range(0, video.n_frames, FRAMES_AT_ONCE):
        index = range(first, min(first + FRAMES_AT_ONCE, video.n_frames))
        for pixels in read_frames(video.path, list(index)):
            score = interpolate(next(held)[None, None].float(), size=pixels.shape[1:], mode="bilinear")[0, 0]
            share = OPACITY * score / 255
            yield ((1 - share) * pixels + share * red).round().to(torch.uint8).numpy()


def _held(files: list[Path], n_frames: int) -> Iterator[Tensor]:
    """A map for every frame: of the sampled frame at or before it, the first one also before that."""
    current, last = None, -1
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            maps, frames = stored["maps"], stored["frame"]
        for one, frame in zip(maps, frames.tolist(), strict=True):
            if frame <= last:
                continue
            if current is not None:
                for _ in range(max(last, 0), frame):
                    yield current
            last = frame if current is not None else 0
            current = torch.from_numpy(one)
    assert current is not None
    for _ in range(last, n_frames):
        yield current
