"""FrameDifference: through the command its scores are a loop's over decoded frames, its pixels a Gaussian's."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from cli import main
from datamodules import UbNormal
from lightning_modules import FrameDifference
from tests.finished_tests import command, facts_of, made
from vigil.measured import COST
from vigil.types import Clip, View

STRIDE, HOP = 4, 8


def decoded(file: Path) -> list[np.ndarray]:
    with av.open(str(file)) as container:
        return [frame.to_ndarray(format="rgb24").astype(np.float64) for frame in container.decode(video=0)]


def scores_by_loop(frames: list[np.ndarray], stride: int = STRIDE, hop: int = HOP) -> list[float]:
    """A score per frame: of windows `hop` apart, how much the picture changes within the next `stride` frames."""
    score: list[float] = []
    while len(score) < len(frames):
        first = len(score)
        second = min(first + stride, len(frames) - 1)  # the last frame is held
        value = np.abs(frames[second] - frames[first]).mean() / 255
        score += [value] * (min(first + hop, len(frames)) - first)
    return score


def written(folder: Path) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    with (folder / "scores.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            length = int(row["end_frame"]) - int(row["first_frame"])
            found.setdefault(row["video"], []).extend([float(row["score"])] * length)
    return found


def test_the_scores_of_a_test_are_mean_differences_of_decoded_frames(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = written(made(tmp_path_factory, "difference"))
    world = made(tmp_path_factory, "videos") / "world" / "Videos"
    assert len(found) == 4
    for name, score in found.items():
        (file,) = world.rglob(f"{name}.mp4")
        assert score == pytest.approx(scores_by_loop(decoded(file)), abs=1e-6)
        assert len(set(score)) > 2


def test_another_stride_and_hop_are_the_commands_to_give(tmp_path_factory: pytest.TempPathFactory) -> None:
    top = made(tmp_path_factory, "videos")
    view = '--model.test_view={"frames": 2, "stride": 1, "hop": 4}'
    data = ("--data=UcfCrime", f"--data.root={top / 'world'}", "--data.num_workers=0")
    machine = ("--trainer.accelerator=cpu", "--trainer.devices=1")
    found = written(command(top, "test", "--model=lightning_modules.FrameDifference", view, *data, *machine))
    for name, score in found.items():
        (file,) = (top / "world" / "Videos").rglob(f"{name}.mp4")
        assert score == pytest.approx(scores_by_loop(decoded(file), 1, 4), abs=1e-6)


def clip_of(pixels: torch.Tensor) -> Clip:
    n = len(pixels)
    return Clip(["a"] * n, torch.tensor([[0, 8]] * n), {"video": torch.tensor([[0, 4]] * n)}, {"video": pixels})


def test_the_extremes_are_a_still_picture_and_black_against_white() -> None:
    pixels = torch.zeros(3, 2, 3, 6, 8, dtype=torch.uint8)
    pixels[1, 1] = 255
    pixels[2, 0, :, :3] = 255  # down or up alike
    prediction = FrameDifference().predict(clip_of(pixels))
    assert prediction.frame_score.dtype == torch.float32
    assert prediction.frame_score.tolist() == [[0, 0], [1, 1], [0.5, 0.5]]
    assert prediction.pixel_score is None


@pytest.mark.parametrize(("height", "width"), [(5, 9), (6, 4)])
def test_where_pixels_are_judged_each_gets_a_gaussian_of_its_distance_to_the_centre(height: int, width: int) -> None:
    model = FrameDifference()
    model.judges_pixels = True
    found = model.predict(clip_of(torch.zeros(2, 2, 3, height, width, dtype=torch.uint8))).pixel_score
    assert found.shape == (2, 2, height, width)
    for y in range(height):
        for x in range(width):
            rise, run = 2 * y / (height - 1) - 1, 2 * x / (width - 1) - 1  # -1 and 1 at the outermost pixels
            expected = math.exp(-(rise**2) / 2) * math.exp(-(run**2) / 2)
            assert found[:, :, y, x].flatten().tolist() == pytest.approx([expected] * 4, rel=1e-6)
    assert torch.equal(found, found.flip(-1))
    assert torch.equal(found, found.flip(-2))


def test_the_centre_prior_of_a_test_is_judged_as_scikit_learn_judges_the_map(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = made(tmp_path_factory, "pixels")
    data = UbNormal(str(folder.parents[2] / "world"), num_workers=0)
    videos = data.known("test")
    size = next(video.masks(np.arange(1)) for video in videos if video.masks is not None).shape[1:]
    rise, run = (2 * np.arange(length) / (length - 1) - 1 for length in size)
    centre = np.exp(-(rise[:, None] ** 2 + run[None] ** 2) / 2)
    label, score = [], []
    for video in videos:
        masks = np.zeros((video.n_frames, *size)) if video.masks is None else video.masks(np.arange(video.n_frames))
        label.append((masks > 0).reshape(-1))
        score.append(np.broadcast_to(centre, masks.shape).reshape(-1))
    expected = roc_auc_score(np.concatenate(label), np.concatenate(score))
    assert facts_of(folder)["metrics"]["pixel_auroc"] == pytest.approx(expected, abs=1e-4)  # in 65,536 bins


def test_a_test_says_what_it_cost(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = made(tmp_path_factory, "difference")
    facts = facts_of(folder)
    cost = facts["cost"]
    assert cost.keys() == {"trained_parameters", "seconds", "frames_per_second", "peak_memory_mb"}
    assert {"trained_parameters", "frames_per_second", "peak_memory_mb"} <= set(COST)
    n_frames = sum(len(score) for score in written(folder).values())
    assert cost["frames_per_second"] == pytest.approx(n_frames / cost["seconds"])
    assert cost["trained_parameters"] == 0
    assert cost["peak_memory_mb"] > 100


@pytest.mark.parametrize("view", [{"frames": 3, "stride": 4, "hop": 8}, View(frames=2, segments=4)])
def test_a_view_that_is_no_pair_of_frames_is_refused(view: Any) -> None:
    with pytest.raises(ValueError, match="must be windows of 2 frames"):
        FrameDifference(view)


def test_there_is_nothing_to_fit(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> None:
    world = made(tmp_path_factory, "videos") / "world"
    with pytest.raises(SystemExit):
        main(["fit", "--model=lightning_modules.FrameDifference", "--data=UcfCrime", f"--data.root={world}"])
    assert "FrameDifference is not trained, there is nothing to fit; say `lightning test`" in capsys.readouterr().err
