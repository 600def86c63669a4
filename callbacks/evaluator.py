"""Evaluator: judges every Prediction by the dataset's own metrics. No config can remove it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import distributed
from torchmetrics import Metric

from vigil.calibration import NoTemperature, fit_temperature
from vigil.class_metrics import TopK, class_scores
from vigil.curves import Curve
from vigil.metrics import FrameMetric
from vigil.temporal import fit_threshold
from vigil.types import Clip, Prediction

SPLIT = {"validate": "val", "test": "test", "predict": "predict"}


class Evaluator(Callback):
    """Feeds the datamodule's metrics, logs what they say as `{stage}/{metric}` and keeps the curves for the writer.

    On validation it fits the system's threshold, which its checkpoint then holds: the one that parts anomalous from
    normal videos best by their highest score; a system that does not validate brings its own. results:
    {stage: {metric: number}}; curves and refined: of the last stage, by video; refined is empty where the system
    refines nothing, both where it or the dataset scores no frames. explanations: what an Explainer had said of their
    stretches, {video: [(first frame, end frame, "anomalous" or "normal", text), …]}. metrics: the dataset's, of the
    last stage. Before a test of class scores it fits their temperature on the samples that the dataset sets apart for
    that, never on those of the test; calibration_s: how long that took.
    """

    def __init__(self) -> None:
        self.results: dict[str, dict[str, float]] = {}
        self.curves: dict[str, Curve] = {}
        self.refined: dict[str, Curve] = {}
        self.explanations: dict[str, list[tuple[int, int, str, str]]] = {}
        self.failure: BaseException | None = None
        self.gated_at: float | None = None  # the threshold of the numbers that end in _gated
        self.metrics: dict[str, Metric] = {}
        self.calibration_s = 0.0
        self._scores: FrameMetric | None = None

    def _start(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        data = trainer.datamodule
        self._scores, self.calibration_s = None, 0.0
        if data.scores_frames and module.scores_frames:
            self._scores = FrameMetric(data.known(split), data.overhang).to(module.device)
        self.metrics = {} if split == "predict" else data.metrics(split)
        probe = torch.zeros(1)
        refines = module.refine(probe) is not probe and not data.causal
        threshold = float(module.threshold)
        gates = getattr(module, "gates", False) and not np.isnan(threshold)
        self.gated_at = threshold if gates else None
        for metric in self.metrics.values():
            metric.to(module.device)
            if isinstance(metric, FrameMetric):
                metric.refine = module.refine if refines else None
                metric.gate_at = self.gated_at
            if hasattr(metric, "threshold") and not np.isnan(threshold):
                metric.threshold = threshold
        if self._scores is not None:
            self._scores.refine = module.refine if refines else None

    def _update(self, module: LightningModule, prediction: Prediction, clip: Clip) -> None:
        every = [self._scores, *self.metrics.values()]
        if prediction.frame_score is None and any(isinstance(metric, FrameMetric) for metric in every):
            raise ValueError(
                f"{clip.video[0]}: {type(module).__name__} gives no frame scores; it must say scores_frames = False"
            )
        if self._scores is not None:
            self._scores.update(clip, prediction)
        for metric in self.metrics.values():
            metric.update(clip, prediction)

    def _finish(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if trainer.fast_dev_run or trainer.sanity_checking:
            return  # a few batches cannot be judged: most videos have no score
        self.curves, self.refined, self.explanations = {}, {}, {}
        if self._scores is not None:
            self.curves = self._scores.curves()
            self.refined = {} if self._scores.refine is None else self._scores.curves(refined=True)
        try:
            result = {key: value for metric in self.metrics.values() for key, value in metric.compute().items()}
        except ValueError as error:
            if stage == "val":
                raise
            self.failure, result = error, {}  # the writer raises it once the scores, hours of work, are on disk
        self.results[stage] = result
        if stage == "val" and self.curves and getattr(module, "validates", True):
            self._fit_threshold(trainer, module)
        if stage != "predict":
            logged = {f"{stage}/{key}": torch.tensor(value, dtype=torch.float64) for key, value in result.items()}
            module.log_dict(logged, rank_zero_only=False, sync_dist=False)

    def _fit_threshold(self, trainer: Trainer, module: LightningModule) -> None:
        label = {video.name: video.label for video in trainer.datamodule.known("val")}
        if set(label.values()) != {0, 1}:
            rank_zero_info(
                f"No threshold is fitted: validation has no video of both labels, only {set(label.values())}."
            )
            return
        curves = self.refined or self.curves
        highest = np.array([curves[name].score.max() for name in label])
        module.threshold.fill_(fit_threshold(highest, np.array(list(label.values()))))

    def _fit_temperature(self, trainer: Trainer, module: LightningModule) -> None:
        """Tell the metric of class scores the temperature that suits the dataset's calibration samples, where it can.

        All processes call it together: each predicts its share, and each fits all. A stretch of two sentences counts
        once, as one that two processes were dealt does.
        """
        top = next((metric for metric in self.metrics.values() if isinstance(metric, TopK)), None)
        loader = None if top is None or trainer.fast_dev_run else trainer.datamodule.calibration_dataloader()
        if top is None or loader is None:
            return
        start = time.perf_counter()
        rows: dict[tuple[str, int, int], tuple[int, list[float]]] = {}
        for loaded in loader:
            clip = trainer.precision_plugin.convert_input(loaded).to(module.device)  # as Lightning does before a step
            with trainer.precision_plugin.forward_context():
                prediction = module.predict(clip)
            true, score = class_scores(clip, prediction, top.categories)
            for name, (first, end), *said in zip(clip.video, clip.span.tolist(), true, score.tolist(), strict=True):
                rows[name, first, end] = tuple(said)
        parts = [rows] * trainer.world_size
        if trainer.world_size > 1:
            distributed.all_gather_object(parts, rows)
        samples = [said for _, said in sorted({key: said for part in parts for key, said in part.items()}.items())]
        score = np.array([score for _, score in samples], dtype=np.float32).reshape(len(samples), len(top.categories))
        try:
            top.temperature = fit_temperature(score, np.array([true for true, _ in samples], dtype=np.int64))
            rank_zero_info(f"Temperature of class scores: {top.temperature:.4g}, fitted on {len(samples)} samples.")
        except NoTemperature as reason:
            rank_zero_info(f"No temperature of class scores is fitted: {reason}.")
        self.calibration_s = time.perf_counter() - start

    def on_validation_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._start(trainer, module, "val")

    def on_validation_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self._update(module, outputs, batch)

    def on_validation_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer, module, "val")

    def on_test_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._start(trainer, module, "test")
        self._fit_temperature(trainer, module)

    def on_test_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self._update(module, outputs, batch)

    def on_test_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer, module, "test")

    def on_predict_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._start(trainer, module, "predict")

    def on_predict_batch_end(self, trainer: Trainer, module: Any, outputs: Any, batch: Any, *_: Any) -> None:
        self._update(module, outputs, batch)

    def on_predict_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._finish(trainer, module, "predict")
