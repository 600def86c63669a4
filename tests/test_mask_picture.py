"""Pictures of masks: which frames they show, what is green and pink in them, and what a system's tokens add."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch.nn.functional import avg_pool2d

from callbacks.mask_picture import MaskPicture, draw_peak, draw_strip, draw_tokens, maps_at, moments, powers, tinted
from callbacks.overlay import Overlay
from datamodules import OwnVideos, UcsdPed2
from datamodules.demo_campus import write_ucsd_ped2
from tests.tiny_systems import PixelDifference
from tests.tiny_videos import make_trainer
from vigil.curves import Curve, from_frames
from vigil.types import Clip, Prediction, Video, View
from vigil.video import write_video

N_FRAMES, MOVES = 60, range(22, 30)


class Tokens(PixelDifference):
    """One that was asked about something and tells how its tokens look: a token for 16 x 16 pixels of two frames."""

    categories = ("a white square", "$x^2$, which is no formula")

    def token_maps(self, clip: Clip) -> tuple[torch.Tensor, torch.Tensor]:
        assert not self.training
        self.asked = clip
        pixels = avg_pool2d(clip.pixels["video"].float().mean(2)[:, ::2], 16)
        return 10 ** pixels.div(100), 1 / pixels


class FramesAlone(PixelDifference):
    def predict(self, clip: Clip) -> Prediction:
        return Prediction(super().predict(clip).frame_score)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Grey, with a white square in the left half that goes to and fro for eight frames."""
    frames = np.full((N_FRAMES, 3, 48, 64), 100, np.uint8)
    for index in MOVES:
        frames[index, :, 16:32, 4 + 8 * (index % 2) : 16 + 8 * (index % 2)] = 255
    write_video(tmp_path / "square.mp4", frames, 25, crf=0)
    return tmp_path / "square.mp4"


def predicted(video: Path, folder: Path, system: PixelDifference, callback: Overlay, **more: Any) -> None:
    data = OwnVideos(str(video), num_workers=0)
    data.watch(system)
    trainer = make_trainer(folder, [callback])
    trainer.loggers = more.get("loggers", [])
    trainer.predict(system, datamodule=data, return_predictions=False)


def image(file: Path | bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file) if isinstance(file, bytes) else file).convert("RGB")).astype(int)


def greenness(picture: np.ndarray) -> np.ndarray:
    return picture[..., 1] - np.maximum(picture[..., 0], picture[..., 2])


def test_a_prediction_leaves_a_strip_the_peak_and_its_tokens_beside_the_overlay(video: Path, tmp_path: Path) -> None:
    out, system = tmp_path / "out", Tokens(View(frames=8, stride=1, hop=8))
    board = TensorBoardLogger(tmp_path, name="", version="board")
    predicted(video, tmp_path, system, MaskPicture(out), loggers=[board])
    kinds = {file.relative_to(out).as_posix() for file in out.rglob("*.*")}
    assert kinds == {"overlays/square.mp4", "masks/square.png", "peaks/square.png", "tokens/square.png"}
    assert len(list(out.iterdir())) == 4  # the maps that waited are gone
    board.experiment.flush()
    shown = b"".join(file.read_bytes() for file in (tmp_path / "board").iterdir())
    assert all(name in shown for name in (b"masks/square", b"peaks/square", b"tokens/square"))
    assert (system.asked.span.tolist(), system.asked.fps.tolist()) == ([[16, 24]], [25.0])  # the window of the peak, 22
    picture = image(out / "tokens" / "square.png").sum(-1)[30:-30]
    density, attention = picture[:, 280:520], picture[:, 550:790]
    assert density[:, :90].max() > density[:, 130:].max() + 300  # of frame 22, which shows the square on the left
    assert attention[:, :90].min() < attention[:, 130:].min() - 300


def test_the_peak_is_left_as_it_is_and_green_on_the_right_under_what_was_asked(video: Path, tmp_path: Path) -> None:
    for kind in (Tokens, PixelDifference):
        predicted(video, tmp_path, kind(View(frames=8, stride=1, hop=8)), MaskPicture(tmp_path / kind.__name__))
    asked, plain = (image(tmp_path / kind / "peaks" / "square.png") for kind in ("Tokens", "PixelDifference"))
    assert asked.shape[0] > plain.shape[0]  # the words take a place of their own
    for picture in (asked, plain):
        half = picture.shape[1] // 2
        assert (greenness(picture[:, half:]) > 50).sum() > 1000
        assert not (greenness(picture[:, :half]) > 50).any()
    assert not (tmp_path / "PixelDifference" / "tokens").exists()


def test_a_test_has_annotated_times_in_pink_and_draws_some_videos_evenly(tmp_path: Path) -> None:
    write_ucsd_ped2(tmp_path / "ped2", size="tiny")
    data, system, out = UcsdPed2(str(tmp_path / "ped2"), num_workers=0), PixelDifference(), tmp_path / "out"
    data.watch(system)
    trainer = make_trainer(tmp_path, [MaskPicture(out, max_tested=2)])
    trainer.test(system, datamodule=data, verbose=False)
    assert sorted(file.stem for file in (out / "masks").iterdir()) == ["Test001", "Test003"]
    assert not (out / "peaks").exists()
    picture = image(out / "masks" / "Test001.png")
    pink = (abs(picture - [255, 192, 203]).sum(-1) < 12).any(axis=0).mean()
    ((first, end),) = data.known("test")[0].anomalies
    assert pink == pytest.approx((end - first) / data.known("test")[0].n_frames, abs=0.1)


def test_a_system_without_pixel_scores_leaves_no_picture(video: Path, tmp_path: Path) -> None:
    predicted(video, tmp_path, FramesAlone(), MaskPicture(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_moments_are_the_highest_frame_of_each_equal_part_and_the_peak_is_among_them() -> None:
    score = np.random.default_rng(0).random(100).astype(np.float32)
    index = moments(from_frames(score), 6)
    edge = [0, 17, 33, 50, 67, 83, 100]
    assert index == [max(range(a, b), key=lambda frame: score[frame]) for a, b in pairwise(edge)]
    assert int(score.argmax()) in index
    assert moments(from_frames(score[:3]), 6) == [0, 1, 2]
    assert moments(Curve(np.array([0, 60]), np.array([0.2], np.float32)), 3) == [0, 20, 40]


def test_a_map_is_the_one_that_holds_for_the_frame(tmp_path: Path) -> None:
    maps = np.arange(3, dtype=np.uint8)[:, None, None].repeat(4, 1).repeat(4, 2)
    np.savez(tmp_path / "0.npz", maps=maps, frame=np.array([3, 12, 30]))
    found = maps_at([tmp_path / "0.npz"], 40, [0, 11, 12, 29, 30, 39])
    assert [int(one[0, 0]) for one in found] == [0, 0, 1, 1, 2, 2]


def test_pixels_above_one_half_are_half_green_and_the_others_as_they_were() -> None:
    pixels = torch.full((3, 4, 6), 100, dtype=torch.uint8)
    scores = torch.zeros(2, 3, dtype=torch.uint8)
    scores[0, 0], scores[1, 2] = 255, 127
    painted = tinted(pixels, scores)
    assert painted.shape == (4, 6, 3)
    assert painted[0, 0].tolist() == [50, 178, 50]
    assert painted[3, 5].tolist() == [100, 100, 100]
    assert {tuple(colour) for colour in painted.reshape(-1, 3).tolist()} == {(50, 178, 50), (100, 100, 100)}


def test_densities_without_a_number_are_drawn_as_the_nearest_with_one() -> None:
    assert powers(np.array([[0.0, 1.0], [100.0, np.inf]])).tolist() == [[0.0, 0.0], [2.0, 2.0]]
    assert powers(np.full((2, 2), np.inf)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_pictures_can_be_drawn_of_one_frame_of_any_shape_with_any_name_and_many_words() -> None:
    curve = Curve(np.array([0, 1]), np.array([0.4], np.float32))
    tall = np.zeros((90, 20, 3), np.uint8)
    video = Video("$_{$" * 40, n_frames=1, category="$", anomalies=[(0, 1)])
    assert image(draw_strip(video, curve, [0], [tall])).shape[1] == 800
    few, many = (image(draw_peak(video.name, ["a category"] * count, tall, tall)) for count in (1, 200))
    assert few.shape[1] == many.shape[1] == 800
    assert 30 < many.shape[0] - few.shape[0] < 80  # four lines at most
    assert image(draw_tokens(video.name, tall, np.ones((5, 2)), np.ones((5, 2)))).shape[1] == 800
