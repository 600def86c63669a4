"""How fast a test set of UCF-Crime's size is judged. Run by `make speed`; collected only where it is named."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score
from torchmetrics.functional.classification import binary_auroc, binary_average_precision

from vigil.curves import Curve, against, auroc, average_precision, expand, from_frames
from vigil.metrics import FrameAuroc, FrameMetric
from vigil.statistics import Runs, bootstrap
from vigil.types import Clip, Prediction, Video, View

LENGTHS = Path(__file__).parents[2] / "shared" / "data" / "ucf_crime" / "ucf_test_lengths.csv"
VIEW = View(frames=32, stride=16, hop=512)  # a score every 16 frames

SpeedRow = Callable[[str, float, dict[str, float], str], None]


@pytest.fixture(scope="module")
def videos() -> list[Video]:
    """The 290 test videos with their real lengths and events, or as many drawn to the same totals."""
    if not LENGTHS.is_file():
        generator = np.random.default_rng(0)
        length = np.maximum(200, generator.dirichlet(np.full(290, 0.6)) * 1_111_808).astype(int)
        return [
            Video(f"v{i}", None, int(n), 30.0, i % 2, None, [(int(n) // 3, int(n) // 3 + 600)] if i % 2 else [])
            for i, n in enumerate(length)
        ]
    found = []
    with LENGTHS.open() as file:
        for row in csv.DictReader(file):
            events = [(int(row[f"start{i}"]), int(row[f"end{i}"])) for i in (1, 2) if int(row[f"start{i}"]) >= 0]
            category = row["category"]
            found.append(Video(row["name"], None, int(row["frames"]), 30.0, int(bool(events)), category, events))
    return found


@pytest.fixture(scope="module")
def curves(videos: list[Video]) -> list[Curve]:
    generator = np.random.default_rng(0)
    found = []
    for video in videos:
        edge = np.unique(np.append(np.arange(0, video.n_frames, 16), video.n_frames)).astype(np.int64)
        found.append(Curve(edge, generator.random(len(edge) - 1, dtype=np.float32)))
    return found


@pytest.fixture(scope="module")
def runs(videos: list[Video], curves: list[Curve]) -> Runs:
    return Runs.of([against(curve, video.anomalies) for curve, video in zip(curves, videos, strict=True)])


@pytest.fixture(scope="module")
def frames(videos: list[Video], curves: list[Curve]) -> tuple[np.ndarray, np.ndarray]:
    """Label and score of every frame."""
    label = [np.zeros(video.n_frames, dtype=np.int64) for video in videos]
    for video, own in zip(videos, label, strict=True):
        for first, end in video.anomalies:
            own[first:end] = 1
    return np.concatenate(label), np.concatenate([expand(curve) for curve in curves])


def best(task: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """Seconds of the fastest of some repeats, and what came out."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        value = task()
        seconds.append(time.perf_counter() - start)
    return min(seconds), value


def areas_of_scikit_learn(frames: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    return roc_auc_score(*frames), average_precision_score(*frames)


def test_auroc_and_average_precision(runs: Runs, frames: tuple[np.ndarray, np.ndarray], speed_row: SpeedRow) -> None:
    part = runs.score, runs.positive, runs.negative
    label, score = (torch.from_numpy(array) for array in frames)
    ours, value = best(lambda: (auroc(*part), average_precision(*part)), 30)
    scikit_learn, expected = best(lambda: areas_of_scikit_learn(frames), 5)
    torchmetrics, _ = best(lambda: (binary_auroc(score, label), binary_average_precision(score, label)), 5)
    name = f"AUROC and AP of {len(label):,} frames in {len(part[0]):,} runs"
    others = {"scikit-learn": scikit_learn, "torchmetrics": torchmetrics}
    speed_row(name, ours, others, "20 ms, 25x scikit-learn, 10x torchmetrics, equal within 1e-12")
    assert value == pytest.approx(expected, abs=1e-12)
    assert ours < 0.02
    assert scikit_learn / ours > 25
    assert torchmetrics / ours > 10


def test_areas_from_a_score_per_frame(
    videos: list[Video], curves: list[Curve], frames: tuple[np.ndarray, np.ndarray], speed_row: SpeedRow
) -> None:
    scores = [expand(curve) for curve in curves]

    def judge() -> tuple[float, float]:
        own = Runs.of([against(from_frames(s), v.anomalies) for s, v in zip(scores, videos, strict=True)])
        part = own.score, own.positive, own.negative
        return auroc(*part), average_precision(*part)

    ours, value = best(judge, 10)
    scikit_learn, expected = best(lambda: areas_of_scikit_learn(frames), 3)
    speed_row("the same from a score per frame", ours, {"scikit-learn": scikit_learn}, "none")
    assert value == pytest.approx(expected, abs=1e-12)
    assert scikit_learn / ours > 3


def test_bootstrap_over_videos(runs: Runs, speed_row: SpeedRow) -> None:
    ours, intervals = best(lambda: bootstrap(runs, resamples=1000), 3)
    speed_row("1,000 resamples of the videos, AUROC and AP", ours, {}, "4 s")
    assert intervals["auroc"].low < 0.5 < intervals["auroc"].high
    assert ours < 4


def test_metric_from_clips_to_number(videos: list[Video], runs: Runs, speed_row: SpeedRow) -> None:
    clips = []
    for video in videos:
        frame, span = torch.from_numpy(VIEW.indices(video.n_frames)), torch.from_numpy(VIEW.spans(video.n_frames))
        clips.append((Clip([video.name] * len(frame), span, {"video": frame}), Prediction(torch.rand(frame.shape))))

    def gather() -> FrameMetric:
        metric = FrameMetric(videos)
        for clip, prediction in clips:
            metric.update(clip, prediction)
        metric.curves()
        return metric

    ours, _ = best(gather, 3)
    speed_row("clips of 290 videos to merged curves, one metric", ours, {}, "1 s")
    metric = FrameAuroc(videos)
    for clip, prediction in clips:
        metric.update(clip, prediction)
    whole, values = best(metric.compute, 3)
    speed_row("FrameAuroc.compute with its 1,000 resamples and 13 categories", whole, {}, "none")
    assert values["frame_auroc"] == pytest.approx(0.5, abs=0.05)
    assert ours < 2
