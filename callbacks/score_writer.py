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

from callbacks.curve_picture import Explained, draw_curve
from callbacks.evaluator import Evaluator
from callbacks.leak_guard import LeakGuard
from vigil.curves import Curve
from vigil.pixel_metrics import PixelAuroc
from vigil.temporal import segments
from vigil.types import Video


class ScoreWriter(Callback):
    """Writes scores.csv, events.csv, metrics.json, pixel_histogram.npz and a picture of every curve into `folder`.

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
        histograms = {  # all processes together
            name: metric.histogram() for name, metric in evaluator.metrics.items() if isinstance(metric, PixelAuroc)
        }
        if trainer.is_global_zero and (evaluator.curves or split in evaluator.results):
            self._write_all(trainer, module, evaluator, split)
            for histogram in (found for found in histograms.values() if found is not None):
                positive, negative = histogram
                np.savez_compressed(self.folder / "pixel_histogram.npz", positive=positive, negative=negative)
        if evaluator.failure is not None:
            raise evaluator.failure

    def _write_all(self, trainer: Trainer, module: LightningModule, evaluator: Evaluator, split: str) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        videos = {video.name: video for video in trainer.datamodule.known(split)}
        threshold = None if np.isnan(float(module.threshold)) else float(module.threshold)
        if evaluator.curves:
            write_scores(self.folder / "scores.csv", evaluator.curves, evaluator.refined)
        if evaluator.curves and threshold is not None:
            final = evaluator.refined or evaluator.curves
            write_events(self.folder / "events.csv", final, videos, threshold, evaluator.explanations)
        result = evaluator.results.get(split, {})
        data = trainer.datamodule
        facts = {"threshold": threshold, "videos": len(videos), "checkpoint": trainer.ckpt_path}
        views = {stream: asdict(view) for stream, view in module.test_views.items()}
        watched = {"views": views, "precision": str(trainer.precision)}
        facts |= {"protocol": data.protocol | watched | module.protocol, "main_metric": data.main_metric}
        facts |= self._leaks(trainer, split)
        facts["metrics"] = result
        (self.folder / "metrics.json").write_text(json.dumps(facts, indent=1, default=str) + "\n")
        self._draw(trainer, evaluator, videos, threshold)
        self._say(
            result, data.main_metric, "" if threshold is not None else " (no events.csv: the system has no threshold)"
        )

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
        board = next((logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
        names = list(evaluator.curves)
        chosen = np.unique(np.linspace(0, len(names) - 1, min(len(names), self.max_pictures), dtype=int))
        (self.folder / "curves").mkdir(exist_ok=True)
        for name in (names[i] for i in chosen):
            said = evaluator.explanations.get(name, [])
            picture = draw_curve(videos[name], evaluator.curves[name], evaluator.refined.get(name), threshold, said)
            (self.folder / "curves" / f"{name}.png").write_bytes(picture)
            if board is not None:
                pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
                board.add_image(f"curves/{name}", pixels, trainer.global_step, dataformats="HWC")

    def _say(self, result: dict[str, float], main_metric: str, but: str) -> None:
        console = Console()
        if result:
            table = Table("metric", "value", title="what came out")
            for key in sorted(result, key=lambda key: (not key.startswith(main_metric), key)):  # what it is judged by
                table.add_row(key, f"{result[key]:.4f}")
            console.print(table)
        console.print(f"Scores, events and curves: {self.folder}{but}", soft_wrap=True)


def write_scores(file: Path, curves: dict[str, Curve], refined: dict[str, Curve]) -> None:
    """scores.csv: video,first_frame,end_frame,score,refined; ends exclusive; a row wherever either score changes."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["video", "first_frame", "end_frame", "score", "refined"])
        for name, curve in curves.items():
            other = refined.get(name)
            edge = curve.edge if other is None else np.union1d(curve.edge, other.edge)
            score = _at(curve, edge)
            second = [""] * len(score) if other is None else [str(value) for value in _at(other, edge)]
            rows = zip(edge[:-1], edge[1:], score, second, strict=True)
            writer.writerows([name, int(first), int(end), str(raw), fine] for first, end, raw, fine in rows)


def _at(curve: Curve, edge: np.ndarray) -> np.ndarray:
    return curve.score[np.searchsorted(curve.edge, edge[:-1], side="right") - 1]


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
