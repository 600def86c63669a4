"""ScoreWriter: what a test or a prediction leaves behind, for eyes and for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from rich.console import Console
from rich.table import Table
from torchmetrics import Metric

from callbacks.calibration_picture import draw_reliability
from callbacks.curve_picture import Explained, draw_curve
from callbacks.evaluator import Evaluator
from callbacks.leak_guard import LeakGuard
from callbacks.progress import Cost
from vigil import protocol
from vigil.class_metrics import TopK
from vigil.curves import Curve
from vigil.metrics import FrameMetric
from vigil.pixel_metrics import PixelAuroc, PixelMetric
from vigil.provenance import provenance
from vigil.region_metric import RegionMetric
from vigil.stored import write_class_scores, write_scores, write_truth
from vigil.temporal import segments
from vigil.types import Video


class ScoreWriter(Callback):
    """Writes scores.csv, events.csv, metrics.json and a picture of every curve into `folder`; of a test its truth.csv.

    class_scores.csv, pixel_histogram.npz and regions.npz where the system gives such scores: with these files every
    number can be recomputed, without the videos. reliability.png: how far class scores can be taken for probabilities.

    Pictures go to TensorBoard too. max_pictures: of more videos only so many are drawn, evenly over the list; scores
    are written of all.
    """

    def __init__(self, folder: Path, max_pictures: int = 100) -> None:
        self.folder, self.max_pictures = Path(folder), max_pictures

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer, module, "test")

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        self._write(trainer, module, "predict")

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.state.fn == "validate":
            self._write(trainer, module, "val")

    def _write(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        evaluator = next(callback for callback in trainer.callbacks if isinstance(callback, Evaluator))
        if trainer.fast_dev_run:
            return  # a few batches were not judged
        counts, classes = {}, {}
        for name, metric in evaluator.metrics.items():  # all processes together
            try:
                counts |= {name: metric.counts()} if isinstance(metric, PixelMetric) else {}
                classes |= {name: metric.scores()} if isinstance(metric, TopK) else {}
            except ValueError:
                if evaluator.failure is None:
                    raise  # else that is raised below, once the rest is on disk
        if trainer.is_global_zero and (evaluator.curves or split in evaluator.results):
            self._write_all(trainer, module, evaluator, split)
            for name, samples in classes.items():
                self._write_classes(trainer, evaluator.metrics[name], samples)
            for name, found in counts.items():
                if found is not None:
                    self._write_counts(evaluator.metrics[name], found)
        if evaluator.failure is not None:
            raise evaluator.failure

    def _write_classes(
        self, trainer: Trainer, top: TopK, samples: list[tuple[str, int, int, str, list[float]]]
    ) -> None:
        write_class_scores(self.folder / "class_scores.csv", top.categories, samples)
        true = np.array([top.categories.index(category) for *_, category, _ in samples])
        score = np.array([score for *_, score in samples], dtype=np.float32)
        self._show(trainer, "reliability", draw_reliability(true, score, top.temperature))

    def _write_counts(self, metric: Metric, counts: np.ndarray) -> None:
        if isinstance(metric, PixelAuroc):
            positive, negative = counts.T
            np.savez_compressed(self.folder / "pixel_histogram.npz", positive=positive, negative=negative)
        elif isinstance(metric, RegionMetric):
            np.savez_compressed(self.folder / "regions.npz", counts=counts, alpha=metric.alpha)

    def _write_all(self, trainer: Trainer, module: LightningModule, evaluator: Evaluator, split: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        videos = {video.name: video for video in trainer.datamodule.known(split)}
        threshold = None if np.isnan(float(module.threshold)) else float(module.threshold)
        curves, refined = _judged(evaluator)
        if curves:
            write_scores(self.folder / "scores.csv", curves, refined)
        if evaluator.curves and threshold is not None:
            final = evaluator.refined or evaluator.curves
            write_events(self.folder / "events.csv", final, videos, threshold, evaluator.explanations)
        result = evaluator.results.get(split, {})
        data = trainer.datamodule
        facts = {"threshold": threshold, "videos": len(videos), "checkpoint": trainer.ckpt_path, "seed": data.seed}
        facts["temperature"] = next((m.temperature for m in evaluator.metrics.values() if isinstance(m, TopK)), None)
        facts |= self._leaks(trainer, split)
        judged = next((list(m.videos) for m in evaluator.metrics.values() if hasattr(m, "videos")), [])
        if judged and curves and split == "test":
            write_truth(self.folder / "truth.csv", judged)
        facts["protocol"] = self._protocol(trainer, module, curves, judged, facts)
        clock = next((callback for callback in trainer.callbacks if isinstance(callback, Cost)), None)
        cost = {} if clock is None else clock.of(trainer, module, split, evaluator.calibration_s)
        facts |= {"main_metric": data.main_metric, "gated_at": evaluator.gated_at, "cost": cost}
        facts |= {"provenance": provenance(), "metrics": result}
        (self.folder / "metrics.json").write_text(json.dumps(facts, indent=1, default=str) + "\n")
        self._draw(trainer, evaluator, videos, threshold)
        where = f"Scores, events and curves: {self.folder}" if evaluator.curves else f"Results: {self.folder}"
        if evaluator.curves and threshold is None:
            where += " (no events.csv: the system has no threshold)"
        self._say(result, data.main_metric, where)

    @staticmethod
    def _protocol(
        trainer: Trainer,
        module: LightningModule,
        curves: Mapping[str, Curve],
        judged: list[Video],
        facts: dict[str, object],
    ) -> dict[str, dict[str, object]]:
        """Every field that decides whether a number may be compared; see vigil.protocol."""
        data = trainer.datamodule
        views = {stream: asdict(view) for stream, view in module.test_views.items()}
        checkpoint = Path(trainer.ckpt_path).stem if trainer.ckpt_path else None
        found: dict[str, object] = {"views": views, "precision": str(trainer.precision), "demo": data.demo}
        found |= {"leaked": facts["leaked"]} if "leaked" in facts else {}
        if not data.scores_frames:
            found["level"] = "event"
        if judged and curves:
            found |= protocol.of_truth(judged) | protocol.of_curves(curves)
        if checkpoint:
            found["selection"] = {"best": "the best of a validation split cut from the training videos"}.get(
                checkpoint, "the last checkpoint of the fit"
            )
        elif module.seen:
            found["selection"] = "the end of the fit"
        labelled = {name for saw in module.seen.values() for name in saw.get("videos", [])}
        found |= {"supervision": module.supervision, "n_labelled_videos": len(labelled)}
        found |= {"target_labels": "of whole videos" if labelled else "none", "online": data.causal}
        return protocol.of_test(data.protocol, module.protocol, found)

    @staticmethod
    def _leaks(trainer: Trainer, split: str) -> dict[str, object]:
        """How many test videos a fit saw (None: unknown), which, and which test categories it was asked about."""
        guard = next((callback for callback in trainer.callbacks if isinstance(callback, LeakGuard)), None)
        if guard is None or split != "test":
            return {}
        names = None if guard.leaked is None else sorted(guard.leaked)
        count = None if names is None else len(names)
        return {"leaked": count, "leaked_videos": names, "categories_seen": guard.categories_seen}

    def _draw(self, trainer: Trainer, evaluator: Evaluator, videos: dict[str, Video], threshold: float | None) -> None:
        names = list(evaluator.curves)
        chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), self.max_pictures), dtype=int))
        for name in (names[i] for i in chosen):
            said = evaluator.explanations.get(name, [])
            picture = draw_curve(videos[name], evaluator.curves[name], evaluator.refined.get(name), threshold, said)
            self._show(trainer, f"curves/{name}", picture)

    def _show(self, trainer: Trainer, name: str, picture: bytes) -> None:
        """Write a picture to `name`.png in the folder, and to TensorBoard."""
        file = self.folder / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(picture)
        board = next((logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
        if board is not None:
            pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
            board.add_image(name, pixels, trainer.global_step, dataformats="HWC")

    def _say(self, result: dict[str, float], main_metric: str, where: str) -> None:
        console = Console()
        if result:
            table = Table("metric", "value", title="what came out")
            for key in sorted(result, key=lambda key: (not key.startswith(main_metric), key)):  # what it is judged by
                table.add_row(key, f"{result[key]:.4f}")
            console.print(table)
        console.print(where, soft_wrap=True)


def _judged(evaluator: Evaluator) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Raw and refined curves on the axis of frames that they were judged on, which need not end where the video does.

    Conventions that count snippets of 16 frames cut it or hold its last score. As they came where nothing judged them.
    """
    metric = next((metric for metric in evaluator.metrics.values() if isinstance(metric, FrameMetric)), None)
    if metric is None or evaluator.failure is not None or not evaluator.curves:
        return evaluator.curves, evaluator.refined
    return metric.curves(), metric.curves(refined=True) if metric.refine is not None else {}


def write_events(
    file: Path,
    curves: Mapping[str, Curve],
    videos: Mapping[str, Video],
    threshold: float,
    explanations: Mapping[str, Explained] = MappingProxyType({}),
) -> None:
    """events.csv: every stretch above the threshold, in frames and, where the rate is known, in seconds.

    kind: anomalous; the rest of a video, normal, only where it was explained. explanation: what the system says of it.
    """
    columns = ["video", "first_frame", "end_frame", "start_s", "end_s", "peak_frame", "peak_s", "peak_score"]
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*columns, "kind", "explanation"])
        for name, curve in curves.items():
            fps = videos[name].fps
            above = [(int(curve.edge[a]), int(curve.edge[b])) for a, b in segments(curve.score, threshold)]
            stretches = dict.fromkeys(above, ("anomalous", ""))
            stretches |= {(first, end): (kind, text) for first, end, kind, text in explanations.get(name, [])}
            for (first, end), said in sorted(stretches.items()):
                first_run, end_run = np.searchsorted(curve.edge, [first, end])
                peak = first_run + int(np.argmax(curve.score[first_run:end_run]))
                frames = [first, end, int(curve.edge[peak])]
                start_s, end_s, peak_s = (f"{frame / fps:.3f}" if fps else "" for frame in frames)
                times = [first, end, start_s, end_s, frames[2], peak_s]
                writer.writerow([name, *times, repr(float(curve.score[peak])), *said])
