"""HiProbe: a logistic probe on the hidden states of a frozen MLLM, at the layer that tells anomalies best."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_modules.system import System
from vigil.explanation import Explanation
from vigil.layer_report import FEWEST, draw_layers, draw_tsne, write_layers
from vigil.mllm import Mllm, Moment
from vigil.mllm_prompts import frame_rate
from vigil.probe import MeanDistance, class_means, fit_logistic, fit_svm
from vigil.saliency import LayerCurves, layer_curves, silhouette
from vigil.temporal import smooth_segments
from vigil.types import Clip, Prediction, View

# HeadHunt-VAD's, arXiv:2512.17601, by the same authors, who print none in this paper
PROMPT = (
    "Analyze the video for anomalies. Describe any violent activities, accidents, or deviations from normal patterns "
    "in detail."
)


class HiProbe(System):
    """How anomalous a segment is, by a linear probe on one layer of a frozen MLLM; it can say what it sees there.

    backbone, dtype, attention, device_map, weights: as in vigil.mllm.Mllm. prompt: asked of every segment; its last
    position is read, or at "first_generated" the first token of the answer. layer: "saliency" chooses it on the fitting
    set, from 1 on, by KL divergence, discriminant ratio and entropy over `bins`; or "middle", "last", a number from 0.
    scorer: logistic, svm or distance (to the class means); c, class_weight, standardize: see vigil.probe. fraction: of
    the training videos, drawn by class. unit: whether a sample is a video, the mean of its rows, or a segment with its
    video's label. test_view: windows, the segments. fit_view: the same where None, or a bag of parts to resample a
    video to. sigma_segments: of the smoothing. threshold: "adaptive", mean + kappa deviations of the fitting set's
    scores, or a score. explain: what the MLLM is asked of detected segments.
    Source: HiProbe-VAD, ACM MM 2025, arXiv:2507.17394. Differs: its prompts, bins, penalty and what "resampled" hidden
    states are stand nowhere; those here are this project's choices.
    """

    needs_checkpoint, validates, gates = True, False, True
    decided_by_fit = ("layer", "bins", "scorer", "c", "class_weight", "standardize", "fraction", "unit")

    def __init__(
        self,
        backbone: str,
        prompt: str = PROMPT,
        at: Moment = "last_prompt",
        layer: int | Literal["saliency", "middle", "last"] = "saliency",
        bins: int = 32,
        scorer: Literal["logistic", "svm", "distance"] = "logistic",
        c: float = 1.0,
        class_weight: Literal["balanced"] | None = None,
        standardize: bool = False,
        fraction: float = 0.01,
        unit: Literal["video", "segment"] = "video",
        fit_view: View | None = None,
        test_view: View = View(frames=8, stride=3, hop=24),
        window_batch: int = 8,
        sigma_segments: float = 0.4,
        threshold: float | Literal["adaptive"] = "adaptive",
        kappa: float = 0.2,
        explain: Explanation = Explanation(),
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        attention: str = "sdpa",
        device_map: str | None = None,
        weights: Literal["pretrained", "random"] = "pretrained",
    ) -> None:
        fit_view, test_view = (View(**v) if isinstance(v, dict) else v for v in (fit_view or test_view, test_view))
        if test_view.segments is not None:
            raise ValueError(f"test_view {test_view} must be windows: stride and hop, and no segments")
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction {fraction}: a share of the training videos above 0 and up to 1 is expected")
        if not sigma_segments >= 0:
            raise ValueError(f"sigma_segments {sigma_segments}: 0 or more segments are expected")
        super().__init__({"video": fit_view}, {"video": test_view}, 1, window_batch)
        self.save_hyperparameters()
        self.mllm = Mllm(backbone, dtype, attention, device_map, weights)
        self.fit_fraction, self.fit_unit = fraction, unit
        self.supervision = f"tuning-free ({100 * fraction:g}% labels)"
        self.explanation = Explanation(**explain) if isinstance(explain, dict) else explain
        self.automatic_optimization = False  # one step: the minimum of a convex loss
        self.candidates = self._candidates(layer)
        self.layers = self.candidates  # that are read: all candidates, or the chosen one
        width = self.mllm.text_config.hidden_size
        self.probe = (
            MeanDistance(torch.zeros(width), torch.zeros(width)) if scorer == "distance" else nn.Linear(width, 1)
        )
        self.register_buffer("layer", torch.tensor(-1))
        self.register_buffer("fitting_score", torch.full((2,), float("nan"), dtype=torch.float64))  # mean, deviation

    def _candidates(self, layer: int | str) -> list[int]:
        n_layers = self.mllm.n_layers
        if layer == "saliency" and n_layers > 1:
            return list(range(n_layers))
        chosen = {"last": n_layers - 1, "middle": n_layers // 2}.get(layer, layer)
        if not isinstance(chosen, int) or not 0 <= chosen < n_layers:
            raise ValueError(f"layer {layer!r}: saliency, middle, last, or 0 to {n_layers - 1} is expected")
        return [chosen]

    @property
    def protocol(self) -> dict[str, Any]:
        """What a number of this system depends on besides the data."""
        names = ("scorer", "c", "class_weight", "standardize", "fraction", "unit", "sigma_segments", "kappa")
        chosen = {
            "fit_view": str(self.fit_views["video"]),
            "smoothing": f"Gaussian, sigma {self.hparams.sigma_segments} segments, both ways",
            "layer": int(self.layer),
            "layer_by": str(self.hparams.layer),
            "threshold": self.hparams.threshold,
        }
        return {"backbone": self.mllm.name, **self._asked(), **chosen, **{name: self.hparams[name] for name in names}}

    # reading -------------------------------------------------------------------------------------------------------

    def _asked(self) -> dict[str, Any]:
        return {**self.mllm.key, "prompt": self.hparams.prompt, "at": self.hparams.at}

    def reading_key(self) -> dict[str, Any]:
        return {"reads": "hidden states", **self._asked()}

    def reading_names(self, stream: str) -> list[str]:
        return [f"hidden.{layer}" for layer in self.layers]

    def read(self, clip: Clip, stream: str) -> dict[str, Tensor]:
        rate = frame_rate(clip.frame[stream], clip.fps)
        asked = {"hidden": self.layers, "at": self.hparams.at, "frame_rate": rate}
        hidden = self.mllm.read(clip.pixels[stream], self.hparams.prompt, **asked).hidden
        return dict(zip(self.reading_names(stream), hidden.unbind(1), strict=True))

    def setup(self, stage: str) -> None:
        fitting = str(getattr(stage, "value", stage)) == "fit"
        stored = self.from_checkpoint("layer")
        chosen = int(self.layer if stored is None else stored)
        self.layers = self.candidates if fitting or chosen < 0 else [chosen]
        super().setup(stage)
        if fitting:
            self.mllm.unload()

    # fitting -------------------------------------------------------------------------------------------------------

    def training_step(self, clip: Clip, i: int) -> None:
        assert clip.label is not None
        layers = {layer: clip.features[f"hidden.{layer}"][:, 0] for layer in self.candidates}
        self.layer.fill_(self._choose(layers, clip.label))
        feature, given = layers[int(self.layer)], self.hparams
        penalty = {"c": given.c, "class_weight": given.class_weight, "standardize": given.standardize}
        if given.scorer == "distance":
            fitted: nn.Module = class_means(feature, clip.label)
        else:
            fitted = (fit_svm if given.scorer == "svm" else fit_logistic)(feature, clip.label, **penalty)
        self.probe.load_state_dict(fitted.state_dict())
        with torch.no_grad():
            logit = self._logit(feature)
            score = logit.sigmoid()
        self.fitting_score.copy_(torch.stack([score.double().mean(), score.double().std(correction=0)]))
        self.threshold.fill_(self._threshold(self.fitting_score))
        self.log("train/loss", binary_cross_entropy_with_logits(logit, clip.label.float()), batch_size=len(score))

    def configure_optimizers(self) -> None:
        """None: `fit_logistic` has its own."""

    def _choose(self, layers: dict[int, Tensor], label: Tensor) -> int:
        if len(layers) == 1:
            return next(iter(layers))
        # equation 7 is over 1 to L: layer 0 is the input layer of figure 4, read for that picture alone
        curves = layer_curves(list(layers.values())[1:], label, bins=self.hparams.bins)
        chosen = 1 + int(curves.saliency.argmax())
        rank_zero_info(f"Layer {chosen} of {self.mllm.n_layers}, chosen on {len(label)} samples.")
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            self._report(Path(self.trainer.default_root_dir), curves, layers, label, chosen)
        return chosen

    def _threshold(self, fitting_score: Tensor) -> float:
        if self.hparams.threshold != "adaptive":
            return float(self.hparams.threshold)
        mean, deviation = fitting_score.tolist()
        return mean + self.hparams.kappa * deviation

    def _report(self, folder: Path, curves: LayerCurves, layers: dict[int, Tensor], label: Tensor, chosen: int) -> None:
        measures = {
            "kl_divergence": curves.kl.tolist(),
            "discriminant_ratio": curves.ldr.tolist(),
            "entropy": curves.entropy.tolist(),
            "saliency": curves.saliency.tolist(),
        }
        if len(label) > 2:
            measures["silhouette"] = [silhouette(layers[layer], label) for layer in self.candidates[1:]]
        folder.mkdir(parents=True, exist_ok=True)
        write_layers(folder / "layers.csv", measures, chosen, first=1)
        title = f"{self.mllm.name}: {len(label)} samples"
        (folder / "layers.png").write_bytes(draw_layers(measures, chosen, title, first=1))
        shown = {
            f"layer {layer}" + " (chosen)" * (layer == chosen): layers[layer]
            for layer in sorted({0, chosen, max(layers)})
        }
        if len(label) >= FEWEST:  # about 1 % of a small dataset is less, and no reason to refuse a fit
            (folder / "tsne.png").write_bytes(draw_tsne(shown, label, max_points=200))

    # scoring -------------------------------------------------------------------------------------------------------

    def _logit(self, feature: Tensor) -> Tensor:
        with torch.autocast(feature.device.type, enabled=False):  # bf16 would leave 8 bits of a score, and ties
            return self.probe(feature.to(next(self.probe.parameters()).dtype))[:, 0].float()

    def predict(self, clip: Clip) -> Prediction:
        if int(self.layer) < 0:
            raise ValueError("no layer is chosen: fit this HiProbe, or give the checkpoint of a fit")
        name = f"hidden.{int(self.layer)}"
        feature = clip.features[name][:, 0] if name in clip.features else self.read(clip, "video")[name]
        n_frames = clip.frame["video"].shape[-1]
        return Prediction(frame_score=self._logit(feature).sigmoid()[:, None].expand(-1, n_frames))

    def refine(self, curve: Tensor) -> Tensor:
        return smooth_segments(curve, self.hparams.sigma_segments, self.test_views["video"].hop)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"]  # kappa and threshold are as given here
        state["threshold"] = torch.full_like(state["threshold"], self._threshold(state["fitting_score"]))
