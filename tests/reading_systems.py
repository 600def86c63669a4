"""A system with something like a frozen backbone of several layers, for tests of what is kept on disk."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_modules.system import System
from vigil.types import Clip, Prediction, View


class Layers(System):
    """Layer l of its backbone says (l + 1) times the mean colour, in bfloat16; the chosen layers are scored.

    sleep_s: how long it takes over a window. read_videos: each video whose pixels it was shown; n_loads: how often its
    backbone was asked for.
    """

    needs_checkpoint = True

    def __init__(
        self,
        chosen: tuple[int, ...] = (1,),
        n_layers: int = 3,
        sleep_s: float = 0.0,
        fit_view: View = View(frames=2, segments=3),
        test_view: View = View(frames=2, stride=8, hop=16),
        window_batch: int = 2,
    ) -> None:
        super().__init__({"video": fit_view}, {"video": test_view}, 2, window_batch)
        self.save_hyperparameters()
        self.chosen, self.n_layers, self.sleep_s = chosen, n_layers, sleep_s
        self.scorer = nn.Linear(3, 1)
        self.frozen = nn.Dropout().eval()
        self.read_videos: list[str] = []
        self.n_loads = 0

    def reading_key(self) -> dict[str, Any]:
        return {"reads": "colours"}

    def reading_names(self, stream: str) -> list[str]:
        return [f"hidden.{layer}" for layer in self.chosen]

    def load_backbone(self) -> None:
        self.n_loads += 1

    def read(self, clip: Clip, stream: str) -> dict[str, Tensor]:
        assert not self.training
        pixels = clip.pixels[stream]
        time.sleep(self.sleep_s * len(pixels))
        self.read_videos += [clip.video[0]] if clip.video[0] not in self.read_videos[-1:] else []
        colour = pixels.float().mean((1, 3, 4)) / 255
        return {f"hidden.{layer}": ((layer + 1) * colour).bfloat16() for layer in range(self.n_layers)}

    def forward(self, clip: Clip) -> Tensor:
        features = torch.stack([clip.features[name] for name in self.reading_names("video")]).sum(0)
        return self.scorer(features)[..., 0]

    def training_step(self, clip: Clip, i: int) -> Tensor:
        assert clip.label is not None
        return binary_cross_entropy_with_logits(self(clip).mean(1), clip.label.float())

    def predict(self, clip: Clip) -> Prediction:
        return Prediction(frame_score=self(clip).sigmoid())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-2)


class EventLayers(System):
    """Describes events by what two streams of something like a frozen backbone say of them, in bfloat16.

    Of "video" tokens (B, S, 3), S by the event's length, and their count; of "mil" a row per segment. kept: the streams
    whose readings are kept. read_events: each (video, first frame, end frame) whose pixels it was shown to read.
    """

    needs_checkpoint = False
    scores_frames = False
    validates = False
    event_s = 0.5

    def __init__(
        self, kept: tuple[str, ...] = ("video", "mil"), sleep_s: float = 0.0, window_batch: int = 2, batch_size: int = 2
    ) -> None:
        views = {"video": View(frames=4, segments=1), "mil": View(frames=2, segments=3)}
        super().__init__(views, views, batch_size, window_batch)
        self.save_hyperparameters()
        self.kept, self.sleep_s = kept, sleep_s
        self.scorer = nn.Linear(6, 13)
        self.read_events: list[tuple[str, int, int]] = []
        self.n_loads = 0

    def reading_key(self) -> dict[str, Any]:
        return {"reads": "colours of events"}

    def reading_names(self, stream: str) -> list[str]:
        return [] if stream not in self.kept else ["tokens", "count"] if stream == "video" else ["mil"]

    def load_backbone(self) -> None:
        self.n_loads += 1

    def read(self, clip: Clip, stream: str) -> dict[str, Tensor]:
        time.sleep(self.sleep_s)
        self.read_events.append((clip.video[0], int(clip.span[0, 0]), int(clip.span[-1, 1])))
        return self._look(clip.pixels[stream], clip.span, stream)

    @staticmethod
    def _look(pixels: Tensor, span: Tensor, stream: str) -> dict[str, Tensor]:
        colour = (pixels.float().mean((-4, -2, -1)) / 255).bfloat16()  # (…, 3)
        if stream == "mil":
            return {"mil": colour}
        count = 2 + (span[:, 1] - span[:, 0]) % 3
        return {"tokens": colour[:, None].repeat(1, int(count.max()), 1), "count": count}

    def forward(self, clip: Clip) -> Tensor:
        found = dict(clip.features)
        for stream, pixels in clip.pixels.items():
            found |= self._look(pixels, clip.span, stream)
        tokens, count = found["tokens"].float(), found["count"]
        inside = torch.arange(tokens.shape[1]) < count[:, None]
        mean = (tokens * inside[..., None]).sum(1) / count[:, None]
        return self.scorer(torch.cat([mean, found["mil"].float().mean(1)], dim=-1))

    def training_step(self, clip: Clip, i: int) -> Tensor:
        assert clip.label is not None
        return binary_cross_entropy_with_logits(self(clip).mean(1), clip.label.float())

    def predict(self, clip: Clip) -> Prediction:
        score = self(clip)
        return Prediction(caption=[f"class {int(best)}" for best in score.argmax(1)], class_score=score)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-2)
