"""ZeroShotClip: text similarity, a baseline that learns nothing."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_modules.system import System
from vigil.clip import ClipTowers, anomalous_share
from vigil.types import Clip, Prediction, View

# ours, for data that names no anomalies: what can be seen, since a picture does not show what the law calls it
ANOMALOUS = (
    "people fighting", "a person beating another person", "a masked robber with a gun", "a person firing a gun",
    "an explosion", "a fire with flames and smoke", "a car crash", "a burglar climbing through a broken window",
    "a thief running away with a stolen bag", "police officers arresting a person", "a vandal spraying graffiti",
    "an injured person lying on the ground",
)  # fmt: skip
NORMAL = (
    "people walking", "people standing and talking", "children playing", "cars driving on a road",
    "customers in a shop", "a person at work", "an empty place where nothing happens",
)  # fmt: skip


class ZeroShotClip(System):
    """How much closer a window is, for a frozen CLIP, to phrases of anomalies than to phrases of normal scenes.

    clip: a CLIP on the hub, or its folder. anomalous: phrases; or "dataset", what the dataset calls its anomalies; or
    "general", those of this file, which also stand in where a dataset names none. normal: phrases, or "general".
    template: what a phrase is put into at its "{}". aggregate: sum of the softmax over all phrases, or max, of the best
    of each side. test_view: windows, whose frames' features are averaged; they are kept, and other phrases use them.
    Source: the baseline "ZS CLIP" of LAVAD, CVPR 2024, arXiv:2404.01014, 53.16 frame AUROC on UCF-Crime: a frame's
    similarity to a normal and to an anomalous prompt, without training. Differs: several phrases a side, a template and
    ViT-B/16, which are this project's choices; a prompt of one's own each, with template "{}", is the source's form.
    """

    trained = False
    supervision = "zero-shot"

    def __init__(
        self,
        clip: str = "openai/clip-vit-base-patch16",
        dtype: Literal["float32", "bfloat16", "float16"] = "float32",
        anomalous: list[str] | Literal["dataset", "general"] = "dataset",
        normal: list[str] | Literal["general"] = "general",
        template: str = "a surveillance picture of {}",
        aggregate: Literal["sum", "max"] = "sum",
        test_view: View = View(frames=1, stride=1, hop=16),
        window_batch: int = 64,
    ) -> None:
        test_view = View(**test_view) if isinstance(test_view, dict) else test_view
        if test_view.segments is not None:
            raise ValueError(f"test_view {test_view} must be windows: stride and hop, and no segments")
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r}: '{{}}' is expected once, where a phrase is put")
        if aggregate not in ("sum", "max"):
            raise ValueError(f"aggregate {aggregate!r}: expected sum or max")
        super().__init__({"video": test_view}, {"video": test_view}, 1, window_batch)
        self.save_hyperparameters()
        self.towers = ClipTowers(clip, dtype)
        self.given, self.template, self.aggregate = anomalous, template, aggregate
        self.normal = list(NORMAL) if normal == "general" else list(normal)
        self.anomalous: list[str] = []
        self._choose_phrases(())

    def _choose_phrases(self, of_data: tuple[str, ...]) -> None:
        general = self.given == "general" or (self.given == "dataset" and not of_data)
        self.named_by_dataset = self.given == "dataset" and not general
        self.anomalous = list(ANOMALOUS if general else of_data if self.given == "dataset" else self.given)
        for side, phrases in (("anomalous", self.anomalous), ("normal", self.normal)):
            if not phrases or not all(phrase.strip() for phrase in phrases):
                raise ValueError(f"{side} phrases {phrases}: at least one, and none empty, is expected")
        both = sorted(set(self.anomalous) & set(self.normal))
        if both:
            raise ValueError(f"{', '.join(both)}: among the anomalous and the normal phrases; leave one out")

    @property
    def protocol(self) -> dict[str, Any]:
        """What a number of this system depends on besides the data."""
        prompts = {"anomalous": self.anomalous, "normal": self.normal, "template": self.template}
        return {
            "backbone": self.towers.name,
            "prompt_class_names": "dataset" if self.named_by_dataset else "generic",
            "files": self.towers.fingerprint,
            "dtype": self.towers.dtype,
            **prompts,
            "aggregate": self.aggregate,
        }

    def setup(self, stage: str) -> None:
        self._choose_phrases(self.trainer.datamodule.phrases)
        self.to(self.trainer.strategy.root_device)  # the text tower runs there
        self._encode_phrases()
        super().setup(stage)

    def _encode_phrases(self) -> None:
        # no buffers: bf16-true would cast them
        self.texts = [
            self.towers.texts([self.template.replace("{}", phrase) for phrase in phrases])
            for phrases in (self.anomalous, self.normal)
        ]

    def forward(self, feature: Tensor) -> Tensor:
        """Scores (B,) in [0, 1] of image features (B, D), of any length. Raises ValueError for another width."""
        if feature.shape[-1] != self.towers.width:
            raise ValueError(
                f"features of width {feature.shape[-1]}, {self.towers.name} gives {self.towers.width}; "
                "set model.init_args.clip to the model that they were read with"
            )
        with torch.autocast(feature.device.type, enabled=False):
            feature = normalize(feature.float(), dim=-1)
        return anomalous_share(feature, *self.texts, self.towers.logit_scale, self.aggregate)

    def features(self, clip: Clip) -> Tensor:
        """Image features (B, D) of windows, as kept or as read now."""
        return clip.features["video"][:, 0] if "video" in clip.features else self.read(clip, "video")["video"]

    def predict(self, clip: Clip) -> Prediction:
        return self._predict(clip, self.features(clip))

    def predict_step(self, clip: Clip, _: int) -> Prediction:
        """On videos of one's own each window is captioned by the phrase that is nearest."""
        features, phrases = self.features(clip), [*self.anomalous, *self.normal]
        prediction = self._predict(clip, features)
        nearest = (features.float() @ torch.cat(self.texts).T).argmax(-1)
        prediction.caption = [phrases[k] for k in nearest.tolist()]
        return prediction

    def _predict(self, clip: Clip, features: Tensor) -> Prediction:
        n_frames = clip.frame["video"].shape[-1]
        return Prediction(frame_score=self(features)[:, None].expand(-1, n_frames))

    def reading_key(self) -> dict[str, Any] | None:
        return {"reads": "mean of frame features, of length one", "clip": self.towers.fingerprint}

    def load_backbone(self) -> None:
        self.towers.load()

    def read(self, clip: Clip, stream: str) -> dict[str, Tensor]:
        return {stream: normalize(self.towers.images(clip.pixels[stream]).mean(1), dim=-1)}
