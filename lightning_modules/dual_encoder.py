"""DualEncoder: tokens of a MIL-trained encoder beside an MLLM's own, and LoRA in its language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.nn.functional import logsigmoid
from transformers import get_cosine_schedule_with_warmup

from lightning_modules.adapter import Lora, add_lora, export, read_export
from lightning_modules.mil_ranker import load_ranker
from lightning_modules.system import System, load_checkpoint, plain
from vigil.fusion import Placed, Projection, QueryFormer, alignment_loss, beside, instead
from vigil.mllm import ChosenBy, Mllm
from vigil.mllm_prompts import Looked, frame_rate
from vigil.types import Clip, Prediction, View

MIX_RATE = 1e-2  # of the late fusion's one number: at an adapter's rate a short fit would not move it
BLIND = (2, 56, 56)  # a shape of pixels that lays out a prompt of which every visual token is replaced


class DualEncoder(System):
    """What an MLLM says of an event, and which class it calls it, with or without the tokens of a MIL-trained ranker.

    backbone, dtype, attention, weights: as in vigil.mllm.Mllm. fusion: none (A, B); concat (C), projected MIL tokens
    after the visual ones; mil_only (M), in their place; qformer, queries that looked at the MIL features after them;
    late, a pass of each encoder's tokens alone, the answers' distributions mixed by a learned weight. ranker: a
    checkpoint of the MilRanker whose features are taken: of its "encoder", or of its scorer's "hidden" layer, where the
    encoder was frozen and learned nothing of anomalies. lora: null for none. stage: "align" trains the Q-Former alone,
    on the frozen MLLM's own visual tokens and captions; "tune" everything that trains, from `start_from`, a checkpoint
    of that stage or a folder that a fit exported. queries, query_layers, query_width, query_heads: of the Q-Former.
    caption_prompt, class_prompt: what is asked; "{classes}" becomes the dataset's. class_score: how answers to the
    latter are scored, see Mllm.choose. view: 16 frames of an event; mil_view: its 32 windows, by default the ranker's.
    keep_visual_tokens: in the store, so that later epochs skip the vision encoder; 22 MB an event at 7B, in bf16.
    save_memory: gradient checkpointing. event_s: of the stretches of a video that nobody annotated.
    Source: "dual encoder" paper, Sec. 2 and 3.2; qformer and late are its proposals, Sec. 4.3 and 5, in a form of ours.
    Differs: a MIL feature is the mean class token of a window's frames, in 32 windows that adjoin; the paper says
    "patch-level" and "sliding" and no more. No optimiser, length of training or LoRA rank stands in the paper. The loss
    is the mean over the answers' tokens of a process's share of a batch, as Hugging Face takes it.
    """

    scores_frames = False
    decided_by_fit = ("fusion", "lora", "mil_features", "queries", "query_layers", "query_width", "query_heads")

    def __init__(
        self,
        backbone: str,
        fusion: Literal["none", "concat", "mil_only", "qformer", "late"] = "concat",
        ranker: str | None = None,
        mil_features: Literal["encoder", "hidden"] = "encoder",
        lora: Lora | None = Lora(),
        stage: Literal["tune", "align"] = "tune",
        start_from: str | None = None,
        queries: int = 32,
        query_layers: int = 2,
        query_width: int = 768,
        query_heads: int = 12,
        caption_prompt: str = "Describe what is happening in this surveillance video.",
        class_prompt: str = "What is the anomaly in this video? Choose one from [{classes}].",
        class_score: ChosenBy = "likelihood",
        max_new_tokens: int = 64,
        view: View = View(frames=16, segments=1),
        mil_view: View | None = None,
        event_s: float = 10.0,
        keep_visual_tokens: bool = True,
        save_memory: bool = True,
        batch_size: int = 1,
        window_batch: int = 8,
        learning_rate: float = 1e-4,
        bridge_learning_rate: float = 1e-4,
        warmup: float = 0.03,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        attention: str = "sdpa",
        weights: Literal["pretrained", "random"] = "pretrained",
    ) -> None:
        view, mil_view = (View(**v) if isinstance(v, dict) else v for v in (view, mil_view))
        if (fusion == "none") != (ranker is None):
            raise ValueError(
                f"fusion {fusion} and ranker {ranker}: a checkpoint of a MilRanker is expected with every fusion but "
                "none, and with none no ranker; fit one with configs/systems/mil_ranker.yaml"
            )
        if stage == "align" and fusion != "qformer":
            raise ValueError(f"stage align and fusion {fusion}: only a qformer has an alignment stage")
        if view.segments != 1 or (mil_view is not None and mil_view.segments is None):
            raise ValueError(f"view {view} must have one segment, and mil_view {mil_view} segments")
        mil_ranker = None if ranker is None else load_ranker(ranker)
        if mil_ranker is not None and mil_features == "encoder" and not mil_ranker.train_blocks:
            raise ValueError(
                f"{ranker}: this ranker's encoder was frozen (train_blocks 0), so its features hold nothing of "
                "anomalies; fit it with --model.train_blocks 12, or take mil_features: hidden"
            )
        views = {} if fusion == "mil_only" else {"video": view}
        if mil_ranker is not None:
            views["mil"] = mil_view or mil_ranker.fit_views["video"]
        super().__init__(views, views, batch_size, window_batch)
        self.save_hyperparameters()
        self.event_s = event_s
        self.mllm = Mllm(backbone, dtype, attention, None, weights)
        self.ranker = mil_ranker
        self.lora = Lora(**lora) if isinstance(lora, dict) else lora
        if stage == "align":
            self.lora = None
        self.bridge = self._bridge()
        self.mix = nn.Parameter(torch.zeros(())) if fusion == "late" else None  # logit of the visual tokens' weight
        self.trained = self.lora is not None or fusion != "none"
        self.needs_checkpoint = self.trained and not (start_from and Path(start_from).is_dir())
        self.supervision = "fine-tuned" if self.trained else "zero-shot"
        self.classes: list[str] = []  # that an event is called by, where the dataset asks which
        self.built = False

    def _bridge(self) -> Projection | QueryFormer | None:
        if self.ranker is None:
            return None
        given, width = self.hparams, self.mllm.text_config.hidden_size
        if given.fusion != "qformer":
            return Projection(self._mil_width(), width)
        segments = self.fit_views["mil"].segments
        shape = (given.queries, given.query_width, given.query_layers, given.query_heads)
        return QueryFormer(self._mil_width(), width, segments, *shape)

    def _mil_width(self) -> int:
        scorer: Any = self.ranker.scorer
        return int(scorer[0].in_features if self.hparams.mil_features == "encoder" else scorer[0].out_features)

    def configure_model(self) -> None:
        """Put the adapters into the language model, whose weights are loaded for it, and what this starts from."""
        if self.built:
            return
        self.built = True
        if self.trained:
            self.mllm.load()
        self.__dict__["adapter"] = None if self.lora is None else add_lora(self.mllm, self.lora)
        if self.trained and self.hparams.save_memory:
            self.mllm.save_memory()
        if self.ranker is not None:
            self._inherit(self.ranker.seen)
        if self.hparams.start_from is not None:
            self.start_from(self.hparams.start_from)
        self.mllm.train(self.trained)  # Lightning leaves modes as they are: dropout of the adapters, saving of memory

    def start_from(self, file: str | Path) -> None:
        """Take what an exported folder holds, or the bridge of an alignment stage's checkpoint; and all it has seen."""
        if Path(file).is_dir():
            about = read_export(Path(file), self.mllm, self.adapter, self.bridge, self._made_with())
            if self.mix is not None:
                self.mix.data.fill_(about["mix"])
            self._inherit(about["seen"])
            return
        if self.bridge is None:
            raise ValueError(
                f"{file}: fusion none has no bridge to begin with; give an exported folder, or leave it out"
            )
        checkpoint = load_checkpoint(file)
        self._refuse_other_width(checkpoint, str(file))
        named = {name.removeprefix("bridge."): value for name, value in checkpoint["state_dict"].items()}
        own = self.bridge.state_dict()
        wrong = [name for name, value in own.items() if name not in named or named[name].shape != value.shape]
        if wrong:
            raise ValueError(
                f"{file}: {len(wrong)} of the {len(own)} tensors of this fusion's bridge are missing there or of "
                f"another shape, the first {wrong[0]}; give the checkpoint of an alignment stage with the same settings"
            )
        heads = checkpoint["hyper_parameters"].get("query_heads")
        if checkpoint["reading_key"] != plain(self.reading_key()) or heads != self.hparams.query_heads:
            raise ValueError(
                f"{file}: it was fitted with another backbone, ranker or number of query_heads; give those of its fit"
            )
        self.bridge.load_state_dict({name: named[name] for name in own})
        self._inherit(checkpoint["seen"])

    def _inherit(self, seen: dict[str, Any]) -> None:
        """Note what something that this starts from has seen, beside what is noted already."""
        for name, what in seen.items():
            told = next(
                said for said in (name, *(f"{name}, {k}" for k in range(2, 99))) if self.seen.get(said, what) == what
            )
            self.seen[told] = what

    def _made_with(self) -> dict[str, Any]:
        """What an export's weights mean nothing without; as JSON has it."""
        names = ("fusion", "mil_features", "queries", "query_width", "query_layers", "query_heads")
        return {**{name: self.hparams[name] for name in names}, "lora": plain(self.lora), **self._ranked()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.configure_model()
        self._refuse_other_width(checkpoint, "the checkpoint")
        super().on_load_checkpoint(checkpoint)

    def _refuse_other_width(self, checkpoint: dict[str, Any], name: str) -> None:
        stored = {**checkpoint.get("hyper_parameters", {})}.get("mil_width")
        if self.ranker is not None and stored not in (None, self._mil_width()):
            raise ValueError(
                f"{name} was trained on MIL features of width {stored}; those of {self.hparams.ranker} are "
                f"{self._mil_width()} wide; give the ranker and mil_features that it was trained with"
            )

    def setup(self, stage: str) -> None:
        if str(getattr(stage, "value", stage)) == "fit" and not self.trained:
            raise ValueError("fusion none and lora null train nothing; this is for lightning test and predict")
        self.configure_model()
        data = self.trainer.datamodule
        probed = str(getattr(stage, "value", stage)) == "test" and getattr(data, "task", None) == "probe"
        self.classes = list(data.categories) if probed else []
        super().setup(stage)

    # what goes in --------------------------------------------------------------------------------------------------

    def reading_key(self) -> dict[str, Any]:
        return {"reads": "visual tokens and MIL features", **self.mllm.key, **self._ranked()}

    def reading_key_of(self, stream: str) -> dict[str, Any]:
        if stream == "mil":
            return {"reads": "MIL features", **self._ranked()}
        return {"reads": "visual tokens", **self.mllm.key}  # which other fusions and no fusion share

    def _ranked(self) -> dict[str, Any]:
        if self.ranker is None:
            return {}
        return {"ranker": self.ranker.feature_fingerprint, "mil_features": self.hparams.mil_features}

    def reading_names(self, stream: str) -> list[str]:
        if stream == "mil":
            return ["mil"]
        return ["tokens", "pixels_shape"] if self.hparams.keep_visual_tokens else []

    def read(self, clip: Clip, stream: str) -> dict[str, Tensor]:
        if stream == "mil":
            return {"mil": self._mil_features(clip)}
        looked = self.mllm.look(clip.pixels[stream])
        shape = [[len(one.tokens), *one.shape] for one in looked]
        return {"tokens": torch.stack([one.tokens for one in looked]), "pixels_shape": torch.tensor(shape)}

    @torch.no_grad()
    def _mil_features(self, clip: Clip) -> Tensor:
        """(B, N, D): N windows of each event."""
        if "mil" in clip.features:
            return clip.features["mil"].float()
        ranker = self.ranker.eval()
        feature = ranker.encoder(clip.pixels["mil"]).mean(-2)
        if self.hparams.mil_features == "encoder":
            return feature
        first, activation, *_ = ranker.scorer
        return activation(first(feature))

    def _looked(self, clip: Clip) -> list[Looked]:
        """What the vision encoder made of each event; where nobody looks, no tokens in a prompt of some pixels."""
        if "video" not in self.test_views:
            return self._unseen(len(clip.video))
        if "tokens" not in clip.features:
            return self.mllm.look(clip.pixels["video"])
        shapes = [[int(number) for number in row.flatten()] for row in clip.features["pixels_shape"]]
        rows = zip(clip.features["tokens"], shapes, strict=True)
        return [Looked(tokens[:count], (n_frames, y, x)) for tokens, (count, n_frames, y, x) in rows]

    def _unseen(self, count: int) -> list[Looked]:
        nothing = torch.empty((0, self.mllm.text_config.hidden_size), device=self.device)
        return [Looked(nothing, BLIND)] * count

    def _asked(self, clip: Clip) -> dict[str, Any]:
        """What Mllm's methods take of a batch: clips, the edit that brings the MIL tokens in, rates, the mixture."""
        fusion, looked = self.hparams.fusion, self._looked(clip)
        rate = torch.ones(len(looked))
        if "video" in clip.frame and clip.fps is not None:
            rate = frame_rate(clip.frame["video"], clip.fps)
        if self.bridge is None:
            return {"pixels": looked, "frame_rate": rate}
        more = self.bridge(self._mil_features(clip))
        if fusion == "late":

            def edit(tokens: list[Tensor]) -> Placed:
                own = beside(tokens[: len(looked)], more[:, :0])
                new = instead(tokens[len(looked) :], more)
                return own[0] + new[0], own[1] + new[1]

            weight = torch.stack([logsigmoid(self.mix), logsigmoid(-self.mix)])
            both = [*looked, *self._unseen(len(looked))]
            return {"pixels": both, "edit": edit, "frame_rate": torch.cat([rate, rate]), "mixture": weight}
        alone = fusion == "mil_only" or self.hparams.stage == "align"
        pixels = self._unseen(len(looked)) if alone else looked
        return {
            "pixels": pixels,
            "edit": lambda tokens: (instead if alone else beside)(tokens, more),
            "frame_rate": rate,
        }

    # what comes out ------------------------------------------------------------------------------------------------

    def _losses(self, clip: Clip) -> dict[str, Tensor]:
        if clip.text is None:
            raise ValueError(f"{clip.video[0]}: a clip without a sentence; DualEncoder is fitted on Uca")
        asked = self._asked(clip)
        losses = {"caption": -self.mllm.say(prompt=self.hparams.caption_prompt, answers=clip.text, **asked).mean()}
        if self.hparams.stage == "align":
            query = self.bridge(self._mil_features(clip))
            apart, contrast = alignment_loss(query, [one.tokens for one in self._looked(clip)])
            losses |= {"alignment": apart, "contrast": contrast}
        return losses

    def training_step(self, clip: Clip, i: int) -> Tensor:
        parts = self._losses(clip)
        loss = torch.stack(list(parts.values())).sum()
        logged = {
            f"train/{name}": part
            for name, part in ({"loss": loss, **parts} if len(parts) > 1 else {"loss": loss}).items()
        }
        if self.mix is not None:
            logged["train/visual_weight"] = self.mix.sigmoid()
        self.log_dict(logged, batch_size=len(clip.video), on_step=True, on_epoch=False)
        return loss

    def validation_step(self, clip: Clip, i: int) -> Prediction:
        loss = torch.stack(list(self._losses(clip).values())).sum()
        self.log("val/loss", loss, batch_size=len(clip.video), sync_dist=True)
        return Prediction(frame_score=None)

    def predict(self, clip: Clip) -> Prediction:
        asked, given = self._asked(clip), self.hparams
        if not self.classes:
            said = self.mllm.generate(prompt=given.caption_prompt, max_new_tokens=given.max_new_tokens, **asked)
            return Prediction(frame_score=None, caption=said)
        question = given.class_prompt.replace("{classes}", ", ".join(self.classes))
        score = self.mllm.choose(prompt=question, options=self.classes, by=given.class_score, **asked)
        return Prediction(frame_score=None, class_score=score)

    @property
    def protocol(self) -> dict[str, Any]:
        """What a number of this system depends on besides the data."""
        given = self.hparams
        names = ("fusion", "mil_features", "lora", "caption_prompt", "class_prompt", "class_score", "max_new_tokens")
        named = "dataset" if "{classes}" in given.class_prompt and self.classes else "none"
        return {
            "backbone": self.mllm.name,
            **self.mllm.key,
            **self._ranked(),
            **{name: plain(given[name]) for name in names},
            "prompt_class_names": named,
        }

    # training ------------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        named = {name: value for name, value in self.named_parameters() if value.requires_grad}
        rates = {"lora_": self.hparams.learning_rate, "bridge.": self.hparams.bridge_learning_rate, "mix": MIX_RATE}
        groups = []
        for part, rate in rates.items():
            chosen = [value for name, value in named.items() if part in name]
            groups += [{"params": chosen, "lr": rate}] if chosen else []
        optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        steps = self.fit_steps()
        schedule = get_cosine_schedule_with_warmup(optimizer, round(self.hparams.warmup * steps), steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.ranker is not None:
            checkpoint["hyper_parameters"]["mil_width"] = self._mil_width()

    def on_fit_end(self) -> None:
        """Leave what was fitted in peft's own format beside the checkpoints, for others to load and merge."""
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:
            return
        folder = Path(self.trainer.default_root_dir) / "adapter"
        about = {
            **self.protocol,
            **self._made_with(),
            "mix": None if self.mix is None else float(self.mix),
            "seen": plain(self.seen),
        }
        export(folder, self.mllm, self.adapter, self.bridge, about)
        rank_zero_info(f"Adapters as peft reads them: {folder}")
