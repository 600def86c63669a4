"""Pixel scores over the video: every frame there, red where the scores are high, held from one sample to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from callbacks.overlay import LONGER_SIDE, Overlay, painted, smaller
from datamodules import OwnVideos
from tests.tiny_systems import PixelDifference
from tests.tiny_videos import make_trainer
from vigil.types import Clip, Prediction, Video
from vigil.video import probe, read_frames, write_video

N_FRAMES = 40


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Grey, with a white square that goes to and fro in the left half from frame 10 on."""
    frames = np.full((N_FRAMES, 3, 48, 64), 100, np.uint8)
    for index in range(10, N_FRAMES):
        frames[index, :, 16:32, 4 + 8 * (index % 2) : 16 + 8 * (index % 2)] = 255
    write_video(tmp_path / "square.mp4", frames, 25, crf=0)
    return tmp_path / "square.mp4"


def redness(pixels: torch.Tensor) -> torch.Tensor:
    return (pixels[:, 0].float() - pixels[:, 2].float()).clamp(min=0)


def test_a_prediction_leaves_a_video_that_glows_where_something_moves(video: Path, tmp_path: Path) -> None:
    system, data = PixelDifference(), OwnVideos(str(video), num_workers=0)
    data.watch(system)
    out = tmp_path / "out"
    make_trainer(tmp_path, [Overlay(out)]).predict(system, datamodule=data, return_predictions=False)
    assert [file.name for file in out.iterdir()] == ["overlays"]  # the maps that waited are gone
    overlay = out / "overlays" / "square.mp4"
    info = probe(overlay)
    assert (info.n_frames, info.height, info.width, info.fps) == (N_FRAMES, 48, 64, 25)
    red = redness(read_frames(overlay, list(range(N_FRAMES))))
    assert red[20:, 16:32, 4:24].mean() > 5 * max(1, red[20:, :, 40:].mean())
    assert red[:6].mean() < 2


def test_a_map_holds_from_its_frame_to_the_next_and_the_first_from_the_start(video: Path, tmp_path: Path) -> None:
    maps = np.zeros((3, 4, 4), np.uint8)
    maps[1] = 255
    np.savez(tmp_path / "0.npz", maps=maps, frame=np.array([3, 12, 30]))
    frames = list(painted(Video("square", video, N_FRAMES, 25), [tmp_path / "0.npz"]))
    plain = read_frames(video, list(range(N_FRAMES))).numpy()
    changed = [index for index in range(N_FRAMES) if not np.array_equal(frames[index], plain[index])]
    assert len(frames) == N_FRAMES
    assert changed == list(range(12, 30))


def test_maps_are_kept_no_larger_than_a_small_picture() -> None:
    large = torch.rand(2, 480, 856)
    assert max(smaller(large).shape[1:]) == LONGER_SIDE
    assert smaller(torch.rand(2, 20, 30)).shape == (2, 20, 30)
    assert torch.allclose(smaller(torch.full((1, 700, 900), 0.3)), torch.tensor(0.3))


def test_a_system_without_pixel_scores_leaves_nothing(tmp_path: Path) -> None:
    overlay = Overlay(tmp_path / "out")
    overlay._numbers = {"square": 0}
    overlay._keep(
        Prediction(torch.rand(1, 2)), Clip(["square"], torch.tensor([[0, 2]]), {"video": torch.arange(2)[None]})
    )
    assert not (tmp_path / "out").exists()
