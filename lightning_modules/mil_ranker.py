"""MilRanker: a frame encoder and a segment scorer, taught by which of two videos is anomalous."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_modules.system import System, load_checkpoint
from vigil.deit import DeitEncoder
from vigil.mil import SegmentScorer, rank_bags, smoothness, sparsity
from vigil.temporal import smooth
from vigil.types import Clip, Prediction, View


class MilRanker(System):
    """DeiT features of 32 segments, ranked between anomalous and normal videos.

    encoder: timm's name, or None to train on pre-extracted features of `feature_width`. weights: "pretrained", a file,
    or None for random ones. train_blocks: how many of the encoder's last blocks train; with 0 its readings are kept.
    fit_view: a bag; test_view: windows. sigma_frames: Gaussian smoothing of a finished curve, None for none.
    start_from: an earlier checkpoint whose trained weights this one begins with.
    Source: "dual encoder" paper, Sec. 3.1, which names encoder, data and a pairwise ranking loss; loss and scorer from
    Sultani et al., CVPR 2018. Differs: AdamW for Adagrad.
    """

    balanced = True
    needs_checkpoint = True

    def __init__(
        self,
        encoder: str | None = "deit_small_patch16_224",
        weights: str | None = "pretrained",
        train_blocks: int = 0,
        feature_width: int | None = None,
        fit_view: View = View(frames=4, segments=32),
        test_view: View = View(frames=4, stride=4, hop=16),
        batch_size: int = 30,
        window_batch: int = 64,
        hidden: tuple[int, int] = (512, 32),
        dropout: float = 0.6,
        margin: float = 1.0,
        smoothness_weight: float = 8e-5,
        sparsity_weight: float = 8e-5,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-3,
        sigma_frames: float | None = None,
        start_from: str | None = None,
    ) -> None:
        fit_view, test_view = (View(**v) if isinstance(v, dict) else v for v in (fit_view, test_view))
        if fit_view.segments is None or test_view.segments is not None:
            raise ValueError(f"fit_view {fit_view} must be a bag and test_view {test_view} windows")
        if (encoder is None) == (feature_width is None):
            raise ValueError("give either an encoder or, for pre-extracted features, encoder null and feature_width")
        super().__init__({"video": fit_view}, {"video": test_view}, batch_size, window_batch)
        self.save_hyperparameters()
        self.encoder = DeitEncoder(encoder, weights, train_blocks=train_blocks) if encoder else None
        self.train_blocks = train_blocks
        width = feature_width if self.encoder is None else self.encoder.width
        self.scorer = SegmentScorer(width, tuple(hidden), dropout)
        self.margin, self.sigma_frames = margin, sigma_frames
        self.smoothness_weight, self.sparsity_weight = smoothness_weight, sparsity_weight
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        if start_from is not None:
            self.start_from(start_from)

    @property
    def protocol(self) -> dict[str, Any]:
        """What a number of this system depends on besides the data."""
        smoothing = "none" if self.sigma_frames is None else f"Gaussian, sigma {self.sigma_frames} frames, both ways"
        names = ("weights", "train_blocks", "feature_width")
        return {
            "backbone": self.hparams.encoder or "pre-extracted features",
            "fit_view": str(self.fit_views["video"]),
            "smoothing": smoothing,
            **{name: self.hparams[name] for name in names},
        }

    def segment_features(self, clip: Clip) -> Tensor:
        """Features of a bag's segments (B, N, D), or of windows (B, 1, D); D is 384 for DeiT-Small."""
        if "video" in clip.features:
            feature = clip.features["video"]
            width = self.scorer[0].in_features
            if feature.shape[-1] != width:
                raise ValueError(
                    f"{clip.video[0]}: features of width {feature.shape[-1]}, this ranker takes {width}; "
                    f"set encoder: null and feature_width: {feature.shape[-1]}"
                )
            return feature
        if self.encoder is None:
            raise ValueError(f"{clip.video[0]}: this ranker has no encoder and needs data.features")
        pixels = clip.pixels["video"]
        feature = self.encoder(pixels).mean(-2)
        return feature if pixels.ndim == 6 else feature[:, None]

    def forward(self, clip: Clip) -> Tensor:
        """Scores in [0, 1] of a bag's segments (B, N), or of windows (B, 1)."""
        feature = self.segment_features(clip).float()
        with torch.autocast(feature.device.type, enabled=False):  # bf16 would leave 8 bits of a score, and ties
            return self.scorer(feature).sigmoid()

    def training_step(self, clip: Clip, i: int) -> Tensor:
        score = self(clip)
        anomalous, normal = score[clip.label == 1], score[clip.label == 0]
        parts = {
            "rank": rank_bags(anomalous, normal, self.margin),
            "smoothness": self.smoothness_weight * smoothness(anomalous),
            "sparsity": self.sparsity_weight * sparsity(anomalous),
        }
        loss = torch.stack(list(parts.values())).sum()
        logged = {f"train/{name}": part for name, part in {"loss": loss, **parts}.items()}
        self.log_dict(logged, batch_size=len(score), on_step=True, on_epoch=False)
        return loss

    def predict(self, clip: Clip) -> Prediction:
        n_frames = clip.frame["video"].shape[-1]
        return Prediction(frame_score=self(clip).expand(-1, n_frames))

    def refine(self, curve: Tensor) -> Tensor:
        return curve if self.sigma_frames is None else smooth(curve, self.sigma_frames)

    def reading_key(self) -> dict[str, Any] | None:
        if self.encoder is None or self.train_blocks:
            return None
        return {"reads": "mean of frame features", "encoder": self._fingerprint}

    @cached_property
    def _fingerprint(self) -> str:
        return self.encoder.fingerprint  # of frozen weights; a tenth of a second, asked for at every checkpoint

    @property
    def feature_fingerprint(self) -> str:
        """16 hex digits that change with any weight of encoder or scorer; for the features that others take of it."""
        digest = hashlib.sha256(self.encoder.fingerprint.encode())
        for name, value in sorted(self.scorer.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def read(self, clip: Clip, stream: str) -> dict[str, Tensor]:
        return {stream: self.encoder(clip.pixels[stream]).mean(-2)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.AdamW(trained, lr=self.learning_rate, weight_decay=self.weight_decay)


def load_ranker(file: str | Path) -> MilRanker:
    """The MilRanker of a checkpoint, frozen, for another system to take its features.

    Raises FileNotFoundError, and ValueError for a checkpoint of something else, or of a ranker of pre-extracted
    features, which has no encoder to look at a video with.
    """
    checkpoint = load_checkpoint(file)
    given = dict(checkpoint["hyper_parameters"])
    if "train_blocks" not in given:
        raise ValueError(f"{file}: no checkpoint of a MilRanker; its hyper-parameters are {', '.join(given)}")
    if given["encoder"] is None:
        raise ValueError(
            f"{file}: this ranker was fitted on pre-extracted features of width {given['feature_width']} and cannot "
            "look at a video; fit one with an encoder, as configs/systems/mil_ranker.yaml does"
        )
    given = {name: value for name, value in given.items() if not name.startswith("_") and name != "start_from"}
    ranker = MilRanker(**given)
    ranker.on_load_checkpoint(checkpoint)
    ranker.load_state_dict(checkpoint["state_dict"], strict=False)
    return ranker.requires_grad_(False).eval()
