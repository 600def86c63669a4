"""Lavida: what an MLLM says of a clip at <SEG> prompts SAM2's mask decoder; fitted on pseudo-anomalies alone."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad
from torch.nn.utils.rnn import pad_sequence
from transformers import get_linear_schedule_with_warmup

from lightning_modules.adapter import Lora, add_lora
from lightning_modules.system import System, plain
from vigil.clip import ClipTowers
from vigil.compression import compress, heat, kept_length
from vigil.frame_features import KeptFrames
from vigil.lavida_prompts import ANSWERS, GENERIC, QUESTIONS, SEG, check_templates, checked_categories, conversation
from vigil.mask_loss import SAM2_WEIGHTS, MaskWeights, mask_decoder_loss
from vigil.mllm import Mllm
from vigil.mllm_prompts import frame_rate
from vigil.projector import make_projector
from vigil.sam2 import Decoded, Sam2
from vigil.types import Clip, Prediction, View


class Lavida(System):
    """Frame and pixel scores of whatever is named: categories in words, <SEG> of an MLLM, SAM2's mask decoder.

    backbone, dtype, attention: as in vigil.mllm.Mllm; sam2, clip: hub names or folders of a SAM2, and of the CLIP whose
    text tower encodes categories. compression: share of the visual tokens that reach the language model; density,
    neighbors: how they are chosen (vigil.compression). adapter: from MLLM to mask decoder (vigil.projector), with its
    n_queries, adapter_width, adapter_blocks, adapter_heads. categories: what is anomalous: "dataset", as the released
    code names it; "generic", a list of ours; or words of one's own; a fit brings its own. category_limit: the most of
    them. questions, answers: templates, the first of which is asked in a test (vigil.lavida_prompts). fit_view,
    test_view: windows, which must not overlap for pixels to be judged. pixel_gate: a pixel's score is the
    mask's probability ("none"), times the frame's score ("soft"), or 0 where that is below one half ("hard", as the
    released code). mask_weights, text_weight: of the losses. fit_frame_pixels, test_frame_pixels: [least, most] pixels
    of a frame as the MLLM sees it, for Qwen. keep_image_features: SAM2's, in the store; 44 MB a frame at 1024 in bf16.
    save_memory: gradient checkpointing.
    Source: LAVIDA, arXiv:2602.19248. Differs: <SEG> learns, whose embedding the code's compression cuts off, and of
    embedding and head its rows alone; with Qwen kept tokens keep their places in time and space; every frame is scored;
    an image is a clip of one frame.
    """

    supervision = "zero-shot"
    needs_checkpoint = True
    decided_by_fit = ("adapter", "n_queries", "adapter_width", "adapter_blocks", "adapter_heads", "lora")

    def __init__(
        self,
        backbone: str,
        sam2: str = "facebook/sam2.1-hiera-small",
        clip: str = "openai/clip-vit-base-patch32",
        compression: float = 0.5,
        density: Literal["paper", "lof"] = "paper",
        neighbors: int = 8,
        adapter: Literal["semantic", "mlp", "qformer"] = "semantic",
        n_queries: int = 48,
        adapter_width: int = 768,
        adapter_blocks: int = 5,
        adapter_heads: int = 12,
        categories: list[str] | Literal["dataset", "generic"] = "dataset",
        category_limit: int = 40,
        questions: list[str] | None = None,
        answers: list[str] | None = None,
        pixel_gate: Literal["none", "soft", "hard"] = "none",
        fit_view: View = View(frames=8, stride=1, hop=8),
        test_view: View = View(frames=8, stride=4, hop=32),
        lora: Lora = Lora(),
        mask_weights: MaskWeights = SAM2_WEIGHTS,
        text_weight: float = 1.0,
        batch_size: int = 2,
        window_batch: int = 1,
        learning_rate: float = 1e-5,
        projector_learning_rate: float = 1e-5,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        fit_frame_pixels: tuple[int, int] | None = None,
        test_frame_pixels: tuple[int, int] | None = None,
        keep_image_features: bool = False,
        save_memory: bool = True,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        attention: str = "sdpa",
        weights: Literal["pretrained", "random"] = "pretrained",
    ) -> None:
        fit_view, test_view = (View(**view) if isinstance(view, dict) else view for view in (fit_view, test_view))
        if fit_view.segments is not None or test_view.segments is not None:
            raise ValueError(f"fit_view {fit_view} and test_view {test_view} must be windows: stride, hop, no segments")
        if not 0 < compression <= 1:
            raise ValueError(f"compression {compression}: the share of visual tokens kept, in (0, 1], is expected")
        super().__init__({"video": fit_view}, {"video": test_view}, batch_size, window_batch)
        self.save_hyperparameters()
        self.questions = list(QUESTIONS if questions is None else questions)
        self.answers = list(ANSWERS if answers is None else answers)
        check_templates(self.questions, self.answers)
        self.lora = Lora(**lora) if isinstance(lora, dict) else lora
        self.mask_weights = MaskWeights(**mask_weights) if isinstance(mask_weights, dict) else mask_weights
        self.mllm = Mllm(backbone, dtype, attention, None, weights)
        self.sam2 = Sam2(sam2, dtype, weights)
        self.towers = ClipTowers(clip)
        widths = (self.mllm.text_config.hidden_size, self.towers.text_width, self.sam2.width)
        shape = {"width": adapter_width, "queries": n_queries, "blocks": adapter_blocks, "heads": adapter_heads}
        self.projector = make_projector(adapter, *widths, **shape)
        self.categories: list[str] = []  # that a test asks about; the clips of a fit bring their own
        self.kept: KeptFrames | None = None
        self.encoded: dict[str, Tensor] = {}  # category -> its text feature, on the CPU
        self.built = False

    def configure_model(self) -> None:
        """Load what is frozen, and put <SEG> and the adapters into it."""
        if self.built:
            return
        self.built = True
        self.mllm.add_token(SEG)
        self.__dict__["lora_model"] = add_lora(self.mllm, self.lora)
        if self.hparams.save_memory:
            self.mllm.save_memory()
        self.sam2.load()
        self.mllm.train()  # Lightning leaves modes as they are: dropout of the adapters, saving of memory

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.configure_model()
        super().on_load_checkpoint(checkpoint)

    def setup(self, stage: str) -> None:
        self.configure_model()
        data, kind = self.trainer.datamodule, str(getattr(stage, "value", stage))
        made = hasattr(data, "exposures")  # whose clips bring their own phrases
        if kind == "fit" and not made:
            raise ValueError(
                f"Lavida is fitted on PseudoAnomaly, which has masks and phrases, not {type(data).__name__}"
            )
        if not made:
            self.categories = self._chosen(list(data.phrases), type(data).__name__)
        self._refuse_unreadable(data.seen()["phrases"] if kind == "fit" else self.categories, type(data).__name__)
        super().setup(stage)

    def _refuse_unreadable(self, phrases: list[str], name: str) -> None:
        """Before hours of fitting: phrases that the text tower cannot read, or that a tokenizer takes for its own."""
        words = [word for word in self.mllm.processor.tokenizer.get_added_vocab() if word.strip()]
        wrong = next((phrase for phrase in phrases if any(word in phrase for word in words)), None)
        if wrong is not None:
            raise ValueError(
                f"category {wrong!r} of {name} holds a special token of {self.mllm.name}; say it otherwise"
            )
        try:
            self.towers.refuse_long(phrases)
        except ValueError as error:
            raise ValueError(f"a category of {name}: {error}, or leave its set out of data.mixture") from None

    def _chosen(self, of_data: list[str], name: str) -> list[str]:
        given = self.hparams.categories
        words = {"dataset": of_data, "generic": list(GENERIC)}.get(given) if isinstance(given, str) else given
        if words is None:
            raise ValueError(f"categories {given!r}: dataset, generic, or a list of words is expected")
        where = f"of {name}" if given == "dataset" else str(given) if isinstance(given, str) else "given"
        return checked_categories(words, self.hparams.category_limit, where)

    # what goes in --------------------------------------------------------------------------------------------------

    def reading_key(self) -> dict[str, Any]:
        mllm = {name: value for name, value in self.mllm.key.items() if name != "attention"}  # how, not what
        return {"mllm": mllm, "sam2": self.sam2.key, "clip": self.towers.fingerprint}

    def reading_names(self, stream: str) -> list[str]:
        return []  # nothing is read before: image features are kept frame by frame, as they are made

    def _compress(self, tokens: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """An edit of vigil.mllm: fewer visual tokens, and where they were."""
        rows, known, length = self._padded(tokens)
        kept, place = compress(rows, length, known, self.hparams.neighbors, self.hparams.density)
        shorter = [(row[:count], index[:count]) for row, index, count in zip(kept, place, length.tolist(), strict=True)]
        return [row for row, _ in shorter], [index for _, index in shorter]

    def _padded(self, tokens: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, S, D), which of them are none, and how many of each row are kept (B,)."""
        rows = pad_sequence(tokens, batch_first=True)
        count = torch.tensor([len(row) for row in tokens], device=rows.device)
        length = [kept_length(len(row), self.hparams.compression) for row in tokens]
        known = torch.arange(rows.shape[1], device=rows.device) < count[:, None]
        return rows, known, torch.tensor(length, device=rows.device)

    def _category_features(self, phrases: list[list[str]]) -> tuple[Tensor, Tensor]:
        """Text features (B, K, C) of each clip's phrases, and which of the K there are."""
        new = sorted({phrase for own in phrases for phrase in own} - self.encoded.keys())
        if new:
            self.encoded |= dict(zip(new, self.towers.texts(new, pooled=True).cpu(), strict=True))
        most = max(map(len, phrases))
        rows = [torch.stack([self.encoded[phrase] for phrase in own]) for own in phrases]
        known = torch.tensor([[k < len(own) for k in range(most)] for own in phrases], device=self.device)
        return torch.stack([pad(row, (0, 0, 0, most - len(row))) for row in rows]).to(self.device), known

    # what comes out ------------------------------------------------------------------------------------------------

    def _detect(self, clip: Clip, phrases: list[list[str]], fitting: bool) -> tuple[Tensor, Decoded]:
        """Log-likelihood of the answers' tokens, and what the mask decoder makes of the B * T frames."""
        pixels = clip.pixels["video"]
        n_clips, n_frames = pixels.shape[:2]
        self.mllm.limit_frame_pixels(self.hparams.fit_frame_pixels if fitting else self.hparams.test_frame_pixels)
        kind = "video" if n_frames > 1 else "image"
        question, answer = conversation(self.questions, self.answers, phrases, kind, draw=fitting)
        rate = torch.ones(n_clips) if clip.fps is None else frame_rate(clip.frame["video"], clip.fps)
        edit = self._compress if self.hparams.compression < 1 else None
        likelihood, state = self.mllm.say_token(pixels, question, answer, edit, rate)
        frames = pixels.flatten(0, 1)
        features = self._image_features(frames)
        image = features[-1].unflatten(0, (n_clips, n_frames)).float()
        # a test in bf16 would leave steps of 0.03 of a logit, and ties
        with nullcontext() if fitting else torch.autocast(pixels.device.type, enabled=False):
            prompt = self.projector(state.float(), *self._category_features(phrases), image)
            return likelihood, self.sam2.decode(features, prompt.flatten(0, 1))

    def _image_features(self, frames: Tensor) -> list[Tensor]:
        """SAM2's feature maps of frames (N, C, Y, X), kept where that was asked for."""
        if not self.hparams.keep_image_features:
            return self.sam2.encode(frames)
        if self.kept is None:
            dtype = next(self.sam2.encoder.parameters()).dtype  # bf16-true casts what it finds
            self.kept = KeptFrames({**self.sam2.key, "computed_in": str(dtype)}, self.sam2.encode)
        return self.kept(frames)

    def training_step(self, clip: Clip, i: int) -> Tensor:
        if clip.mask is None or clip.phrases is None or clip.frame_label is None:
            raise ValueError(f"{clip.video[0]}: a clip without masks and phrases; Lavida is fitted on PseudoAnomaly")
        likelihood, decoded = self._detect(clip, clip.phrases, fitting=True)
        side = self.sam2.image_size
        mask = interpolate(clip.mask.float(), size=(side, side), mode="nearest-exact").flatten(0, 1).bool()
        present = clip.frame_label.flatten().bool()
        parts = mask_decoder_loss(*decoded, mask, self.mask_weights, present)
        text = -likelihood.mean()
        loss = parts.pop("loss") + self.hparams.text_weight * text
        logged = {"loss": loss, **parts, "text": text}
        self.log_dict({f"train/{name}": value for name, value in logged.items()}, batch_size=len(clip.video))
        return loss

    def predict(self, clip: Clip) -> Prediction:
        shape = clip.pixels["video"].shape
        phrases = [self.categories] * len(clip.video) if clip.phrases is None else clip.phrases
        _, decoded = self._detect(clip, phrases, fitting=False)
        best = decoded.mask_logit[torch.arange(len(decoded.iou)), decoded.iou.argmax(1)]
        logit = interpolate(best[:, None], size=shape[-2:], mode="bilinear")[:, 0]
        frame_score = decoded.object_logit.float().sigmoid()
        pixel_score = self._gated(logit.float().sigmoid(), frame_score)
        return Prediction(frame_score.view(shape[:2]), pixel_score.view(*shape[:2], *shape[-2:]))

    def _gated(self, pixel_score: Tensor, frame_score: Tensor) -> Tensor:
        gate = {"none": torch.ones_like, "soft": lambda score: score, "hard": lambda score: (score > 0.5).float()}
        return pixel_score * gate[self.hparams.pixel_gate](frame_score)[:, None, None]

    @torch.no_grad()
    def token_maps(self, clip: Clip) -> tuple[Tensor, Tensor] | None:
        """Density and reverse attention of each clip's visual tokens, (B, T', Y', X') each, as a picture has them.

        None where the tokens are not a grid of each frame, or none is dropped.
        """
        if self.hparams.compression == 1:
            return None
        looked = self.mllm.look(clip.pixels["video"])
        rows, known, length = self._padded([one.tokens for one in looked])
        grid = self.mllm.token_grid(looked[0].shape, len(looked[0].tokens))
        if grid is None:
            return None
        maps = heat(rows, length, known, self.hparams.neighbors, self.hparams.density)
        n_tokens = grid[0] * grid[1] * grid[2]
        density, attention = (one[:, :n_tokens].float().unflatten(1, grid) for one in maps)
        return density, attention

    @property
    def protocol(self) -> dict[str, Any]:
        """What a number of this system depends on besides the data."""
        given = self.hparams
        named = given.categories if isinstance(given.categories, str) else "own words"
        names = ("compression", "density", "neighbors", "pixel_gate", "adapter", "n_queries", "test_frame_pixels")
        return {
            "backbone": self.mllm.name,
            **plain(self.reading_key()),
            **{name: plain(given[name]) for name in names},
            "question": self.questions[0],
            "answer": self.answers[0],
            "prompt_class_names": named,
            "categories": self.categories,
        }

    # training ------------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> dict[str, Any]:
        named = [(name, value) for name, value in self.named_parameters() if value.requires_grad]
        groups = [
            {"params": [value for name, value in named if name.startswith("projector.") == new], "lr": rate}
            for new, rate in ((False, self.hparams.learning_rate), (True, self.hparams.projector_learning_rate))
        ]
        optimizer = torch.optim.AdamW(groups, weight_decay=self.hparams.weight_decay)
        steps = self.fit_steps()
        schedule = get_linear_schedule_with_warmup(optimizer, self.hparams.warmup_steps, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
