"""System: what the five papers share. A subclass says how it watches, what is optimised, what it thinks of a Clip."""

from __future__ import annotations

import math
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lightning_modules.filling import fill
from vigil.explanation import Explanation
from vigil.mllm_prompts import frame_rate
from vigil.store import Store, refuse_shared_names
from vigil.types import Clip, Prediction, Video, View

DECODER = "rgb24-1"  # raise when vigil.video would give other pixels: readings of the old ones are then left behind


class System(LightningModule):
    """Base of every detector; see vigil.types.Watcher for the views and batch sizes.

    Checkpoints hold what was trained and nothing else, and are refused where anything trained is missing from them.
    `threshold`: the score above which a frame is called anomalous in the events table; fitted on validation by the
    Evaluator, NaN until then; a system that does not validate brings its own.
    """

    balanced = False
    fit_unit: Literal["video", "segment"] | None = None
    fit_fraction = 1.0
    trained = True  # whether there is anything to fit
    validates = True  # whether a fit scores the validation split, for its best checkpoint and its threshold
    gates = False  # whether numbers on curves that are 0 outside the detected segments are reported too
    supervision = (
        "weakly supervised"  # what it was told of the videos it was fitted on, in the words of results/claims.csv
    )
    needs_checkpoint = False  # whether testing it untrained is a mistake
    scores_frames = True  # whether its predictions hold frame scores
    event_s: float | None = None  # seconds of a stretch that it describes of a video in which nobody marked events
    decided_by_fit: tuple[
        str, ...
    ] = ()  # hyper-parameters that no later run can change, for what was fitted holds them
    explanation: Explanation | None = None  # what its `mllm` is asked of detected segments
    strict_loading = False  # frozen weights are not in the checkpoint; on_load_checkpoint looks after the rest
    threshold: Tensor

    def __init__(
        self, fit_views: dict[str, View], test_views: dict[str, View], batch_size: int, window_batch: int
    ) -> None:
        super().__init__()
        if batch_size < 1 or window_batch < 1:
            raise ValueError(f"batch_size {batch_size} and window_batch {window_batch}: at least 1 is expected of both")
        self.fit_views, self.test_views = fit_views, test_views
        self.batch_size, self.window_batch = batch_size, window_batch
        self.videos_stored = 0  # how many videos of this stage an earlier run had read: its speed says nothing of them
        self.seen: dict[str, Any] = {}  # what it was fitted on, filled by the LeakGuard; goes into the checkpoint
        self.register_buffer("threshold", torch.tensor(float("nan"), dtype=torch.float64))

    # what a system says --------------------------------------------------------------------------------------------

    def predict(self, clip: Clip) -> Prediction:
        """What the system thinks of a clip."""
        raise NotImplementedError

    def refine(self, curve: Tensor) -> Tensor:
        """A video's whole curve (T,), T frames, after the system's own post-processing; as it came by default."""
        return curve

    @property
    def protocol(self) -> dict[str, Any]:
        """What of this system decides whether two of its numbers may be compared, such as the prompts it used."""
        return {}

    def explain(self, clip: Clip, question: str) -> list[str]:
        """An answer for each of B detected segments; clip: pixels["video"] uint8 (B, T, C, Y, X)."""
        assert self.explanation is not None
        rate = frame_rate(clip.frame["video"], clip.fps)
        said: list[str] = self.mllm.generate(
            clip.pixels["video"], question, self.explanation.max_new_tokens, frame_rate=rate
        )
        return said

    def reading_key(self) -> dict[str, Any] | None:
        """Everything that determines `read` besides views, precision, rates, decoder; None: nothing can be kept."""
        return None

    def reading_key_of(self, stream: str) -> dict[str, Any]:
        """As `reading_key`, of one stream alone: systems that read it alike then share what is kept."""
        return self.reading_key() or {}

    def reading_names(self, stream: str) -> list[str]:
        """Which tensors of a stream are kept, each a feature of this name in a dataset's clips; [] to see pixels."""
        return [stream]

    def load_backbone(self) -> None:
        """Have the frozen backbone in memory. Called before `read`, and only where a reading is missing."""
        if hasattr(self, "mllm"):
            self.mllm.load()

    def read(self, clip: Clip, stream: str) -> dict[str, Tensor]:
        """What the frozen backbone says of W windows, or segments of a bag: {name: (W, …)}, kept in its own dtype.

        clip: of one video, or of one event in it, pixels[stream] uint8 (W, T, C, Y, X) on this system's device, W at
        most `window_batch`. Names beyond those that are needed are dropped.
        """
        raise NotImplementedError

    # what every system shares --------------------------------------------------------------------------------------

    def validation_step(self, clip: Clip, _: int) -> Prediction:
        return self.predict(clip)

    def test_step(self, clip: Clip, _: int) -> Prediction:
        return self.predict(clip)

    def predict_step(self, clip: Clip, _: int) -> Prediction:
        return self.predict(clip)

    def on_train_batch_start(self, clip: Clip, i: int) -> None:
        # randomness is a function of (seed, epoch, batch, rank), so a resumed run draws what it would have drawn
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
        torch.manual_seed(hash((seed, self.current_epoch, i, self.global_rank)) % 2**63)

    def on_before_backward(self, loss: Tensor) -> None:
        if not torch.isfinite(loss).all():  # before a step could carry it into the weights, and a checkpoint after them
            raise ValueError(
                f"the loss is {float(loss.detach())} at step {self.global_step}, in epoch {self.current_epoch}; the "
                "checkpoint before it is kept. Lower the learning rate, or look at the videos' features"
            )

    def fit_steps(self) -> int:
        """Optimiser steps of the whole fit.

        The trainer's own estimate sets the loader up before a checkpoint is restored, and then its place in the epoch
        is lost: a stopped fit would begin the epoch anew.
        """
        trainer = self.trainer
        if trainer.max_epochs < 0:
            if trainer.max_steps < 0:
                raise ValueError("max_epochs and max_steps are both -1: a schedule needs an end; give one of them")
            return int(trainer.max_steps)
        n_batches, limit = len(trainer.datamodule.train_dataloader()), trainer.limit_train_batches
        n_batches = min(n_batches, limit) if isinstance(limit, int) else int(n_batches * limit)
        steps = math.ceil(n_batches / trainer.accumulate_grad_batches) * trainer.max_epochs
        return steps if trainer.max_steps < 0 else min(steps, trainer.max_steps)

    def setup(self, stage: str) -> None:
        """Have every reading of a frozen backbone on disk before the first batch asks for it."""
        fitting = str(getattr(stage, "value", stage)) == "fit"
        if fitting and not self.validates:
            self.trainer.limit_val_batches = 0  # fast_dev_run asks for some
        if self.reading_key() is None:
            return
        if self.trainer.ckpt_path and not fitting:
            # restored after this: a checkpoint that does not fit is refused before hours of reading, not after
            self.on_load_checkpoint(torch.load(self.trainer.ckpt_path, map_location="cpu", weights_only=True))
        data = self.trainer.datamodule
        for views in (self.fit_views, self.test_views):
            refuse_shared_names({stream: self.reading_names(stream) for stream in views})  # a filling may take hours
        for split, stream, view in self.watched(stage):
            if names := self.reading_names(stream):
                data.stores[stream, view] = self.fill(data.known(split), stream, view, names), names

    def watched(self, stage: str) -> Iterator[tuple[str, str, View]]:
        """The (split, stream, view) that a stage of the trainer asks for: fit, validate, test or predict.

        None of stretches that a dataset without events is cut into: they are described once, and nothing is kept.
        """
        stage = str(getattr(stage, "value", stage))  # an enumeration that prints as TrainerFn.TESTING
        data = self.trainer.datamodule
        if self.event_s is not None and data.scores_frames:
            return
        fitted = ["train", "val"] if self.validates else ["train"]
        tested = ["test", data.calibration_split] if data.calibration_split else ["test"]
        for split in {"fit": fitted, "validate": ["val"], "test": tested}.get(stage, [stage]):
            for stream, view in (self.fit_views if split == "train" else self.test_views).items():
                yield split, stream, view

    def fill(self, videos: Sequence[Video], stream: str, view: View, names: Sequence[str] | None = None) -> Store:
        """The store of a stream, with the tensors `names` of all `videos` in it, by default those that are needed.

        All processes call it together; see lightning_modules.filling. A few videos may be filled with many names, and
        the rest with those that were chosen by them.
        """
        names = list(self.reading_names(stream) if names is None else names)
        key = {**self.reading_key_of(stream), "stream": stream, "view": asdict(view)}
        key |= {"precision": str(self.trainer.precision), "pixels": DECODER}
        if hasattr(self, "mllm") and self.mllm.family.counts_seconds:
            # Qwen2.5-VL sees seconds: where a video does not tell its rate, the dataset's counts
            key["fps"] = self.trainer.datamodule.fps
        backbone = [str(self.hparams[name]) for name in ("backbone", "encoder") if self.hparams.get(name)]
        made_by = ", ".join([type(self).__name__, *backbone])  # for people; the key says what it really is
        store = Store(key, memory=self.trainer.datamodule.memory, made_by=made_by)
        fill(self, store, videos, stream, view, names)
        return store

    # checkpoints ---------------------------------------------------------------------------------------------------

    def from_checkpoint(self, name: str) -> Tensor | None:
        """A tensor of the checkpoint that this stage is going to restore: `setup` runs before that. None without one.

        What decides which readings are needed lies there.
        """
        file = self.trainer.ckpt_path
        if not file:
            return None
        stored: Tensor | None = torch.load(file, map_location="cpu", weights_only=True)["state_dict"].get(name)
        return stored

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Trained parameters, and the buffers of modules that hold any or hold no parameter at all."""
        state = super().state_dict(*args, **kwargs)
        every = self.named_parameters(remove_duplicate=False)  # a head may share its weights with the embedding
        frozen = {name for name, parameter in every if not parameter.requires_grad}
        for name, module in self.named_modules():
            parameters = list(module.parameters())
            if name and parameters and not any(parameter.requires_grad for parameter in parameters):
                frozen |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers()}
        return {name: value for name, value in state.items() if name not in frozen}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["hyper_parameters"] = plain(checkpoint.get("hyper_parameters", {}))
        checkpoint["reading_key"] = plain(self.reading_key())
        checkpoint["seen"] = plain(self.seen)

    def start_from(self, file: str | Path) -> None:
        """Take the trained weights of an earlier checkpoint of this system, and all that it has seen.

        Raises FileNotFoundError, or ValueError for a checkpoint that does not fit.
        """
        checkpoint = load_checkpoint(file)
        self.on_load_checkpoint(checkpoint)
        self.load_state_dict(checkpoint["state_dict"], strict=False)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seen |= checkpoint.get("seen", {})
        stored, key = checkpoint.get("reading_key"), plain(self.reading_key())
        if stored is not None and stored != key:
            raise ValueError(
                f"the checkpoint was trained on other frozen weights: {stored} there, {key} here; "
                "give the encoder and weights that it was trained with"
            )
        given, fitted = plain(dict(self.hparams)), plain(checkpoint.get("hyper_parameters", {}))
        other = [name for name in self.decided_by_fit if name in fitted and fitted[name] != given[name]]
        if other:
            raise ValueError(
                "; ".join(
                    f"{name} is {given[name]} here, the checkpoint was fitted with {fitted[name]}" for name in other
                )
                + "; give the same, or fit anew"
            )
        ours, theirs = self.state_dict(), checkpoint["state_dict"]
        wrong = [f"{name} is missing" for name in ours.keys() - theirs.keys()]
        wrong += [f"{name} is not part of this {type(self).__name__}" for name in theirs.keys() - ours.keys()]
        wrong += [
            f"{name} is {tuple(theirs[name].shape)}, {tuple(ours[name].shape)} is expected"
            for name in ours.keys() & theirs.keys()
            if ours[name].shape != theirs[name].shape
        ]
        if wrong:
            raise ValueError(
                f"the checkpoint does not fit this {type(self).__name__}: {'; '.join(sorted(wrong)[:10])}; "
                "give the configuration that it was trained with"
            )


def load_checkpoint(file: str | Path) -> dict[str, Any]:
    """A checkpoint that a fit left, on the CPU. Raises FileNotFoundError, or ValueError for anything else."""
    if not Path(file).is_file():
        raise FileNotFoundError(f"{file}: no checkpoint here to start from; a fit leaves last.ckpt in its folder")
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise ValueError(f"{file}: no checkpoint of a fit, or a damaged one; fit it again") from None
    if "seen" not in checkpoint:
        raise ValueError(f"{file}: it does not say which videos it saw, so no test could be trusted; fit it again")
    return checkpoint


def plain(value: Any) -> Any:
    """The value in dicts, lists, strings and numbers, which a checkpoint read with weights_only may hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
