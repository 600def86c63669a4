"""How fast a run of UCF-Crime's size is judged again from its files. Run by `make speed`; collected only by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.conftest import SpeedRow
from tests.speed_curves import best, curves, frames, videos  # noqa: F401 - fixtures
from tests.worlds import ROOT
from vigil.curves import Curve
from vigil.judging import frame_numbers
from vigil.stored import numbers, read_scores, read_truth, write_scores, write_truth
from vigil.types import Video


@pytest.fixture(scope="module")
def folder(
    videos: list[Video],  # noqa: F811
    curves: list[Curve],  # noqa: F811
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """truth.csv and scores.csv of 290 videos, a score every 16 frames."""
    out = tmp_path_factory.mktemp("run")
    write_truth(out / "truth.csv", videos)
    write_scores(out / "scores.csv", {video.name: curve for video, curve in zip(videos, curves, strict=True)}, {})
    return out


def test_numbers_of_a_test_from_its_files(
    folder: Path,
    frames: tuple[np.ndarray, np.ndarray],  # noqa: F811
    speed_row: SpeedRow,
) -> None:
    reading, found = best(lambda: read_scores(folder / "scores.csv", read_truth(folder / "truth.csv")), 3)
    judging, _ = best(lambda: frame_numbers(read_truth(folder / "truth.csv"), *found), 3)
    ours, values = best(lambda: numbers(folder), 3)
    n_runs = sum(len(curve.score) for curve in found[0].values())
    scikit_learn, expected = best(lambda: roc_auc_score(*frames), 2)
    name = f"every frame number of {len(frames[0]):,} frames in {n_runs:,} runs, from files, 1,000 resamples"
    speed_row(name, ours, {"AUROC alone by scikit-learn": scikit_learn}, "1 s")
    print(f"reading {reading:.2f} s, judging {judging:.2f} s")
    assert values["frame_auroc"] == pytest.approx(expected, abs=1e-12)
    assert n_runs > 60_000
    assert ours < 1


def test_events_cost_little_more(folder: Path, speed_row: SpeedRow) -> None:
    ours, values = best(lambda: numbers(folder, threshold=0.98), 3)  # noise is above it every eight hundred frames
    speed_row("the same with events", ours, {}, "1 s")
    assert values["event_map"] < 0.1
    assert ours < 1


def test_judging_starts_at_once(speed_row: SpeedRow) -> None:
    code = "import vigil.results, vigil.stored, vigil.submission, vigil.tables"

    def start() -> None:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)

    ours, _ = best(start, 3)
    speed_row("import of all that report, score and verify need", ours, {}, "0.5 s")
    assert ours < 0.5
