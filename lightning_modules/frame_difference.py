"""FrameDifference: the control that looks at the pixels, and understands nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_modules.system import System
from vigil.pixel_metrics import PixelMetric
from vigil.types import Clip, Prediction, View


class FrameDifference(System):
    """How much a picture differs from the one `stride` frames before; pixels by how near they are to its centre.

    The score of a window is the mean absolute difference of its two frames, of 255. Where a dataset judges pixels they
    get the same Gaussian in every frame, half the height and half the width as standard deviations.
    Source: none, a control; a system has to beat it.
    """

    trained = False
    supervision = "control"

    def __init__(self, test_view: View = View(frames=2, stride=4, hop=8), window_batch: int = 64) -> None:
        test_view = View(**test_view) if isinstance(test_view, dict) else test_view
        if test_view.segments is not None or test_view.frames != 2:
            raise ValueError(f"test_view {test_view} must be windows of 2 frames")
        super().__init__({"video": test_view}, {"video": test_view}, 1, window_batch)
        self.save_hyperparameters()
        self.judges_pixels = False

    @property
    def protocol(self) -> dict[str, Any]:
        return {"backbone": "frame difference"}

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self.trainer.datamodule
        testing = str(getattr(stage, "value", stage)) == "test"
        self.judges_pixels = testing and any(isinstance(m, PixelMetric) for m in data.metrics("test").values())

    def predict(self, clip: Clip) -> Prediction:
        pixels = clip.pixels["video"].float()
        score = (pixels[:, 1] - pixels[:, 0]).abs().mean((1, 2, 3)) / 255
        pixel_score = self._centre(pixels) if self.judges_pixels else None
        return Prediction(frame_score=score[:, None].expand(-1, 2), pixel_score=pixel_score)

    @staticmethod
    def _centre(pixels: Tensor) -> Tensor:
        height, width = pixels.shape[-2:]
        row, column = (torch.linspace(-1, 1, size, device=pixels.device) for size in (height, width))
        score = torch.exp(-0.5 * (row[:, None] ** 2 + column[None] ** 2))
        return score.expand(len(pixels), 2, height, width)
