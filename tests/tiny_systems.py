"""Small systems for tests of what no system of the papers needs: pixel scores, clips of a few frames, class scores."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, binary_cross_entropy_with_logits

from lightning_modules.system import System
from vigil.types import Clip, Prediction, View


class PixelDifference(System):
    """Scores what moves, untrained: a pixel by its change since the frame before, a frame by its 99th percentile."""

    def __init__(self, view: View = View(frames=8, stride=2, hop=16), window_batch: int = 4) -> None:
        super().__init__({"video": view}, {"video": view}, 1, window_batch)
        self.save_hyperparameters()

    def predict(self, clip: Clip) -> Prediction:
        grey = clip.pixels["video"].float().mean(2)
        change = torch.diff(grey, dim=1, prepend=grey[:, :1]).abs()
        change[:, 0] = change[:, 1]
        pixel = avg_pool2d(change, 5, stride=1, padding=2).div(64).clamp(0, 1)
        return Prediction(frame_score=pixel.flatten(2).quantile(0.99, dim=2), pixel_score=pixel)


class TinyClips(System):
    """A frame is anomalous by a few of its colours; trained on clips with a label per frame."""

    def __init__(self, view: View = View(frames=4, stride=1, hop=4), batch_size: int = 4) -> None:
        super().__init__({"video": view}, {"video": view}, batch_size, 4)
        self.save_hyperparameters()
        self.scorer = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))

    def forward(self, clip: Clip) -> Tensor:
        pixels = clip.pixels["video"].float() / 255
        return self.scorer(torch.cat([pixels.mean((-2, -1)), pixels.std((-2, -1))], -1))[..., 0]

    def training_step(self, clip: Clip, i: int) -> Tensor:
        loss = binary_cross_entropy_with_logits(self(clip), clip.frame_label.float())
        self.log("train/loss", loss, batch_size=len(clip.video))
        return loss

    def predict(self, clip: Clip) -> Prediction:
        return Prediction(frame_score=self(clip).sigmoid())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


class TinyEvents(System):
    """Scores and classes of described events, by their colours; trained on whether the video is anomalous."""

    def __init__(
        self,
        fit_view: View = View(frames=4, segments=1),
        test_view: View = View(frames=4, segments=1),
        batch_size: int = 2,
        n_categories: int = 13,
    ) -> None:
        super().__init__({"video": fit_view}, {"video": test_view}, batch_size, 4)
        self.save_hyperparameters()
        self.scorer = nn.Linear(6, 1 + n_categories)

    def forward(self, clip: Clip) -> Tensor:
        pixels = clip.pixels["video"].float() / 255
        return self.scorer(torch.cat([pixels.mean((-2, -1)), pixels.std((-2, -1))], -1))

    def training_step(self, clip: Clip, i: int) -> Tensor:
        loss = binary_cross_entropy_with_logits(self(clip)[..., 0].mean(-1), clip.label.float())
        self.log("train/loss", loss, batch_size=len(clip.video))
        return loss

    def predict(self, clip: Clip) -> Prediction:
        logit = self(clip)
        return Prediction(frame_score=logit[..., 0].sigmoid(), class_score=logit[..., 1:].mean(1).log_softmax(-1))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)
