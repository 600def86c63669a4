"""Explainer: what a system says of the anomalous and the normal stretches that it found in a video."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import distributed

from callbacks.evaluator import Evaluator
from vigil.curves import Curve
from vigil.temporal import segments
from vigil.types import Video

SHOWN = 3  # explanations on the screen; events.csv holds all


class Stretch(NamedTuple):
    """Frames `first` to `end` of a video, the latter excluded; kind: anomalous, above the threshold, or normal."""

    video: Video
    first: int
    end: int
    kind: str


class Explainer(Callback):
    """Puts the stretches of every video's final curve to a system that has questions, after a test or a prediction.

    The answers are in the Evaluator's `explanations`, for the writers that come after. All processes share the
    stretches out. An error on the way, or Ctrl-C, does not cost the scores, which may be hours of work: what was said
    until then is kept, and the ScoreWriter raises it once all is on disk.
    """

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._explain(trainer, module, "test")

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._explain(trainer, module, "predict")

    def _explain(self, trainer: Trainer, module: Any, stage: str) -> None:
        evaluator = next(callback for callback in trainer.callbacks if isinstance(callback, Evaluator))
        questions = {} if module.explanation is None else module.explanation.questions(stage)
        if not questions or not evaluator.curves or evaluator.failure is not None or trainer.fast_dev_run:
            return
        videos = [video for video in trainer.datamodule.known(stage) if video.path is not None]
        threshold = float(module.threshold)
        if trainer.datamodule.causal:
            rank_zero_info("A stream's segments are not explained: its frames are gone when they are known.")
            return
        if np.isnan(threshold):
            rank_zero_info("No segments are explained: the system has no threshold to tell them by.")
            return
        if len(videos) < len(evaluator.curves):
            unseen = len(evaluator.curves) - len(videos)
            rank_zero_info(f"Segments of {unseen} videos are not explained: their features are here, their pixels not.")
        curves = evaluator.refined or evaluator.curves
        found = [Stretch(video, *part) for video in videos for part in stretches(curves[video.name], threshold)]
        wanted = [stretch for stretch in found if stretch.kind in questions]
        if not wanted:
            return
        n_anomalous = sum(stretch.kind == "anomalous" for stretch in wanted)
        rank_zero_info(f"Explaining {n_anomalous} anomalous and {len(wanted) - n_anomalous} normal segments.")
        said, failure = gathered(trainer, module, wanted, questions)
        for number, stretch in enumerate(wanted):
            if number in said:
                row = (stretch.first, stretch.end, stretch.kind, said[number])
                evaluator.explanations.setdefault(stretch.video.name, []).append(row)
        evaluator.failure = failure
        self._say(wanted, said)

    def _say(self, wanted: list[Stretch], said: dict[int, str]) -> None:
        for number in sorted(said)[:SHOWN]:
            video, first, end, kind = wanted[number]
            rank_zero_info(f"{video.name}, frames {first} to {end}, {kind}: {' '.join(said[number].split())}")
        if len(said) > SHOWN:
            rank_zero_info(f"and {len(said) - SHOWN} more, all in events.csv")


def stretches(curve: Curve, threshold: float) -> list[tuple[int, int, str]]:
    """A whole curve in turns of (first frame, end frame, anomalous or normal), anomalous above the threshold."""
    found, reached = [], 0
    for first, end in [(int(curve.edge[a]), int(curve.edge[b])) for a, b in segments(curve.score, threshold)]:
        found += [(reached, first, "normal"), (first, end, "anomalous")]
        reached = end
    found.append((reached, curve.n_frames, "normal"))
    return [(first, end, kind) for first, end, kind in found if end > first]


def gathered(
    trainer: Trainer, module: Any, wanted: list[Stretch], questions: dict[str, str]
) -> tuple[dict[int, str], BaseException | None]:
    """{number of a stretch: what is said of it}, of all processes, and what made one of them stop early."""
    mine: dict[int, str] = {}
    failure: BaseException | None = None
    try:
        ask(trainer, module, wanted, questions, mine)
    except (Exception, KeyboardInterrupt) as error:  # every process has to come to the gathering, else all wait for it
        failure = error
    if trainer.world_size == 1:
        return mine, failure
    parts: list[tuple[dict[int, str], str]] = [({}, "")] * trainer.world_size
    distributed.all_gather_object(parts, (mine, "" if failure is None else f"{type(failure).__name__}: {failure}"))
    reason = next((reason for _, reason in parts if reason), None)
    if failure is None and reason is not None:
        failure = ValueError(f"another process could not explain its segments: {reason}")
    return {number: text for said, _ in parts for number, text in said.items()}, failure


def ask(trainer: Trainer, module: Any, wanted: list[Stretch], questions: dict[str, str], said: dict[int, str]) -> None:
    """Fill `said` with what the system says of this process's share of the stretches, by their number."""
    numbers = range(trainer.global_rank, len(wanted), trainer.world_size)
    share = [(wanted[number].video, wanted[number].first, wanted[number].end) for number in numbers]
    if not share:
        return
    clips = trainer.datamodule.stretch_clips(share, "video", module.explanation.view)
    for number, clip in zip(numbers, clips, strict=True):
        with trainer.precision_plugin.forward_context():
            answer = module.explain(clip.to(module.device), questions[wanted[number].kind])
        if len(answer) != 1:
            raise ValueError(f"{type(module).__name__} gives {len(answer)} explanations of 1 segment; one is expected")
        said[number] = answer[0].strip()
