"""SteerVad: a few attention heads of a frozen MLLM, steered by what the whole of it makes of the scene, and scored."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.utils.data import Dataset

from lightning_modules.system import System
from vigil.explanation import Explanation
from vigil.layer_report import draw_heads, write_heads
from vigil.mllm import Mllm, Moment
from vigil.mllm_prompts import frame_rate
from vigil.saliency import NEIGHBORS, Separability, head_purity, head_silhouette
from vigil.steering import Steering, steering_loss
from vigil.temporal import smooth_segments
from vigil.types import Clip, Prediction, View

# HeadHunt-VAD's, arXiv:2512.17601, by the same authors, since the paper's is not known
PROMPT = (
    "Analyze the video for anomalies. Describe any violent activities, accidents, or deviations from normal patterns "
    "in detail."
)
# measures that need all samples at once, and how many at least
NEEDS_ALL = {"silhouette": (head_silhouette, 3), "purity": (head_purity, NEIGHBORS + 1)}


class SteerVad(System):
    """How anomalous a segment is, by the attention heads that tell it best, once a small controller has steered them.

    backbone, dtype, attention, device_map, weights: as in vigil.mllm.Mllm. prompt: asked of every segment; heads and
    context, the last layer's hidden state, are read at its last position, or at "first_generated". n_heads: chosen on
    the fitting set by separability, silhouette, purity (of nearest neighbours), or random. steering: multiplicative,
    additive, static (local gates the same for every context), or none, a linear probe; global_gate, gate_width, rank:
    see vigil.steering; gate_weight: of the penalty on normal samples' gates. fraction, unit, fit_view, test_view,
    sigma_segments, threshold, kappa, explain: as in HiProbe. An epoch is a step on the whole fitting set, which stays
    in memory.
    Source: SteerVAD, ICLR 2026, arXiv:2602.24021, by its summary. Differs: prompt, optimiser, learning rate, smoothing,
    threshold and segments are not given there; see configs/systems/steervad.yaml.
    """

    needs_checkpoint, validates = True, False
    decided_by_fit = (
        *("choose_by", "n_heads", "steering", "global_gate", "gate_width", "rank", "gate_weight"),
        *("fraction", "unit", "learning_rate", "weight_decay"),
    )

    def __init__(
        self,
        backbone: str,
        prompt: str = PROMPT,
        at: Moment = "last_prompt",
        n_heads: int = 4,
        choose_by: Literal["separability", "silhouette", "purity", "random"] = "separability",
        steering: Literal["multiplicative", "additive", "static", "none"] = "multiplicative",
        global_gate: bool = True,
        gate_width: int = 128,
        rank: int = 4,
        gate_weight: float = 0.1,
        fraction: float = 0.01,
        unit: Literal["video", "segment"] = "segment",
        fit_view: View | None = None,
        test_view: View = View(frames=16, stride=3, hop=48),
        window_batch: int = 8,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-2,
        sigma_segments: float = 1.5,
        threshold: float | Literal["adaptive"] = 0.65,
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
        self.layers = list(range(self.mllm.n_layers))  # whose heads are read: all, or those of the chosen
        config = self.mllm.text_config
        head_width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        if not 1 <= n_heads <= len(self.layers) * config.num_attention_heads:
            raise ValueError(f"n_heads {n_heads}: {backbone} has {len(self.layers) * config.num_attention_heads}")
        self.steering = None
        if steering != "none":
            self.steering = Steering(config.hidden_size, n_heads, head_width, gate_width, rank, steering, global_gate)
        self.scorer = nn.Linear(n_heads * head_width, 1)
        self.register_buffer("heads", torch.full((n_heads, 2), -1))  # (layer, head) of each, both from 0
        self.register_buffer("fitting_score", torch.full((2,), float("nan"), dtype=torch.float64))  # mean, deviation
        self._resident: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def protocol(self) -> dict[str, Any]:
        """What a number of this system depends on besides the data."""
        names = ("choose_by", "steering", "global_gate", "fraction", "unit", "sigma_segments", "threshold", "kappa")
        chosen = {
            "fit_view": str(self.fit_views["video"]),
            "smoothing": f"Gaussian, sigma {self.hparams.sigma_segments} segments, both ways",
            "heads": self.heads.tolist(),
            **{name: self.hparams[name] for name in names},
        }
        return {"backbone": self.mllm.name, **self._asked(), **chosen}

    # reading -------------------------------------------------------------------------------------------------------

    def _asked(self) -> dict[str, Any]:
        return {**self.mllm.key, "prompt": self.hparams.prompt, "at": self.hparams.at}

    def reading_key(self) -> dict[str, Any]:
        return {"reads": "heads and last hidden state", **self._asked()}

    def reading_names(self, stream: str) -> list[str]:
        return ["context", *(f"heads.{layer}" for layer in self.layers)]

    def read(self, clip: Clip, stream: str) -> dict[str, Tensor]:
        rate = frame_rate(clip.frame[stream], clip.fps)
        asked = {"heads": self.layers, "hidden": [self.mllm.n_layers - 1], "at": self.hparams.at, "frame_rate": rate}
        reading = self.mllm.read(clip.pixels[stream], self.hparams.prompt, **asked)
        return dict(zip(self.reading_names(stream), [reading.hidden[:, 0], *reading.heads.unbind(1)], strict=True))

    def setup(self, stage: str) -> None:
        stored = self.from_checkpoint("heads")
        chosen = self.heads if stored is None else stored
        fitting = str(getattr(stage, "value", stage)) == "fit"
        self.layers = list(range(self.mllm.n_layers)) if fitting or int(chosen[0, 0]) < 0 else _layers(chosen)
        super().setup(stage)
        if not fitting:
            return
        self.mllm.unload()
        if self.trainer.limit_train_batches == 0:
            return  # --store_only: nothing is fitted
        data = self.trainer.datamodule
        if int(chosen[0, 0]) < 0:
            self._choose(data.fit_dataset(data.known("train")))
            chosen = self.heads
        self._leave_out_all_but(chosen)

    def _leave_out_all_but(self, heads: Tensor) -> None:
        """Have the fitting set hold no more of the readings than these heads (H, 2) need."""
        self.layers, stores = _layers(heads), self.trainer.datamodule.stores
        for (stream, view), (store, _) in list(stores.items()):
            stores[stream, view] = store, self.reading_names(stream)

    # fitting -------------------------------------------------------------------------------------------------------

    def transfer_batch_to_device(self, clip: Clip, device: torch.device, i: int) -> Clip:
        if self.trainer.training and self._resident is not None:
            return clip  # it is there, all that is needed of it
        return super().transfer_batch_to_device(clip, device, i)

    def training_step(self, clip: Clip, i: int) -> Tensor:
        if self._resident is None:
            self._resident = (*self._chosen(clip.features), clip.label)
            if not self._resident[0].isfinite().all():
                raise ValueError(
                    f"the last hidden state is not finite in {self.mllm.dtype}; set dtype to bfloat16 or float32"
                )
        context, heads, label = self._resident
        logit, gate = self(context, heads)
        loss = steering_loss(logit, label, gate, self.hparams.gate_weight)
        score = logit.detach().double().sigmoid()
        self.fitting_score.copy_(torch.stack([score.mean(), score.std(correction=0)]))
        self.threshold.fill_(self._threshold(self.fitting_score))
        parts = {"loss": loss.total, "cross_entropy": loss.cross_entropy, "gate_penalty": loss.gate_penalty}
        logged = {f"train/{name}": part for name, part in parts.items()}
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # a tenth of the time of an epoch
            self.log_dict(logged, on_step=True, on_epoch=False, batch_size=len(label))
        return loss.total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        given = self.hparams
        return torch.optim.AdamW(trained, lr=given.learning_rate, weight_decay=given.weight_decay, fused=True)

    def on_fit_end(self) -> None:
        self._resident = None

    def _choose(self, videos: Dataset[Clip]) -> None:
        """Have `heads` say which heads tell the labels of the fitting set apart best, the best first."""
        start = time.perf_counter()
        score, separable, n_samples = self._measure(videos)
        best = score.flatten().argsort(descending=True, stable=True)[: len(self.heads)]  # of equals the lower layer's
        self.heads.copy_(torch.stack([best // score.shape[1], best % score.shape[1]], 1))
        chosen = [(layer, head) for layer, head in self.heads.tolist()]
        rivals = set(separable.flatten().argsort(descending=True, stable=True)[: len(chosen)].tolist())
        shared = len(rivals & set(best.tolist()))
        beside = "" if self.hparams.choose_by == "separability" else f"; {shared} of them by separability too"
        named, seconds = ", ".join(f"L{layer}H{head}" for layer, head in chosen), time.perf_counter() - start
        rank_zero_info(f"Heads {named} of {score.numel()}, chosen on {n_samples} samples in {seconds:.3f} s{beside}.")
        if self.trainer.is_global_zero and not self.trainer.fast_dev_run:
            folder = Path(self.trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            write_heads(folder / "heads.csv", score.numpy(), chosen, self.hparams.choose_by)
            title = f"{self.mllm.name}: {self.hparams.choose_by} on {n_samples} samples"
            (folder / "heads.png").write_bytes(draw_heads(score.numpy(), chosen, title, self.hparams.choose_by))

    def _measure(self, videos: Dataset[Clip]) -> tuple[Tensor, Tensor, int]:
        """How well each head (L, H) tells the labels apart, by `choose_by` and by separability; the samples' number."""
        choose_by, streamed, n_samples, kept = self.hparams.choose_by, Separability(), 0, []
        for i in range(len(videos)):  # of all heads, one video in memory at a time
            clip = videos[i]
            heads = torch.cat([clip.features[f"heads.{layer}"] for layer in self.layers], 1)  # (B, L, H, D)
            n_samples += len(heads)
            streamed.update(heads, clip.label)
            if choose_by in NEEDS_ALL:
                kept.append((heads, clip.label))
        if choose_by == "random":
            generator = torch.Generator().manual_seed(int(os.environ.get("PL_GLOBAL_SEED", "0")))
            return torch.rand(heads.shape[1:3], generator=generator), streamed.compute().cpu(), n_samples
        measure, fewest = NEEDS_ALL.get(choose_by, (None, 3))
        if n_samples >= fewest:
            separable = streamed.compute()
            score = separable if measure is None else measure(*map(torch.cat, zip(*kept, strict=True)))
            if score.isfinite().all():
                return score.cpu(), separable.cpu(), n_samples
        raise ValueError(
            f"{n_samples} samples are too few to choose heads by {choose_by}: at least {fewest} are expected, and some "
            "that vary within their class; raise fraction"
        )

    def _threshold(self, fitting_score: Tensor) -> float:
        if self.hparams.threshold != "adaptive":
            return float(self.hparams.threshold)
        mean, deviation = fitting_score.tolist()
        return mean + self.hparams.kappa * deviation

    # scoring -------------------------------------------------------------------------------------------------------

    def _chosen(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Context (B, D) and the chosen heads (B, H, D) of windows."""
        heads = [features[f"heads.{layer}"][:, 0, head] for layer, head in self.heads.tolist()]
        return features["context"][:, 0].float(), torch.stack(heads, 1).float()

    def forward(self, context: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,) of segments, and how far the global gate was open for each (B,)."""
        with torch.autocast(heads.device.type, enabled=False):  # bf16 would leave 8 bits of a score, and ties
            gate = heads.new_zeros(len(heads))
            if self.steering is not None:
                heads, gate = self.steering(context, heads)
            return self.scorer(heads.flatten(1).to(self.scorer.weight.dtype))[:, 0], gate

    def predict(self, clip: Clip) -> Prediction:
        if int(self.heads[0, 0]) < 0:
            raise ValueError("no heads are chosen: fit this SteerVad, or give the checkpoint of a fit")
        features = clip.features
        if "context" not in features:
            features = {name: rows[:, None] for name, rows in self.read(clip, "video").items()}
        score = self(*self._chosen(features))[0].float().sigmoid()
        n_frames = clip.frame["video"].shape[-1]
        return Prediction(frame_score=score[:, None].expand(-1, n_frames))

    def refine(self, curve: Tensor) -> Tensor:
        return smooth_segments(curve, self.hparams.sigma_segments, self.test_views["video"].hop)

    # checkpoints ---------------------------------------------------------------------------------------------------

    def _at_the_end(self, checkpoint: dict[str, Any]) -> bool:
        return checkpoint["global_step"] in (self.trainer.max_epochs, self.trainer.max_steps)  # an epoch is a step

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self._at_the_end(checkpoint):
            checkpoint["optimizer_states"] = []  # two thirds of the file, which nobody needs any more

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        trainer = self._trainer  # None in load_from_checkpoint
        if trainer is not None and trainer.state.fn == "fit" and not checkpoint.get("optimizer_states"):
            # a run that was stopped between its last step and the word that it is finished has nothing left to do
            here = Path(trainer.default_root_dir) in Path(trainer.ckpt_path).parents
            if not (here and self._at_the_end(checkpoint)):
                raise ValueError("this fit is finished, and its optimiser's state was not kept; fit anew")
        state = checkpoint["state_dict"]
        if trainer is not None and trainer.state.fn == "fit":
            self._leave_out_all_but(state["heads"])  # of which setup may not have known
        # kappa and threshold are as given here
        state["threshold"] = torch.full_like(state["threshold"], self._threshold(state["fitting_score"]))


def _layers(heads: Tensor) -> list[int]:
    """The layers of heads (H, 2), each once."""
    return sorted(set(heads[:, 0].tolist()))
