"""The fitting set of a probe: which videos, one batch of them all, the same in every process."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from datamodules import UcfCrime
from datamodules.fitting_set import WholeSet
from lightning_modules.system import System
from tests.reading_systems import Layers
from tests.tiny_videos import make_trainer, write_video_world
from vigil.types import Clip, View

BAG, WINDOWS = View(frames=2, segments=3), View(frames=2, stride=8, hop=16)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video_world(tmp_path_factory.mktemp("videos"), n_train=2)


class Probed(Layers):
    """Layers that is fitted on a few videos at once, without validation."""

    validates = False

    def __init__(self, unit: str, view: View = BAG, fraction: float = 1.0) -> None:
        super().__init__(fit_view=view)
        self.fit_unit, self.fit_fraction = unit, fraction


def fitting_set(system: System, root: Path, folder: Path, **settings: object) -> tuple[Clip, UcfCrime]:
    data = UcfCrime(str(root), num_workers=0, **settings)
    data.watch(system)
    system.trainer = make_trainer(folder)
    system.trainer.datamodule = data
    system.setup("fit")
    (clip,) = data.train_dataloader()
    return clip, data


@pytest.mark.parametrize("view", [BAG, WINDOWS], ids=["bag", "windows"])
def test_a_sample_is_a_segment_or_the_mean_of_a_video(world: Path, tmp_path: Path, view: View) -> None:
    segments, data = fitting_set(Probed("segment", view), world, tmp_path)
    videos, _ = fitting_set(Probed("video", view), world, tmp_path)
    known = data.known("train")
    assert videos.video == [video.name for video in known]
    assert videos.label.tolist() == [video.label for video in known]
    assert Counter(segments.video) == {video.name: len(view.spans(video.n_frames)) for video in known}
    name = data.stores["video", view][1][0]
    assert segments.features[name].shape[:2] == (len(segments.video), 1)
    for row, video in enumerate(known):
        mine = [i for i, owner in enumerate(segments.video) if owner == video.name]
        assert {int(segments.label[i]) for i in mine} == {video.label}
        torch.testing.assert_close(videos.features[name][row], segments.features[name][mine].mean(0))
        assert videos.span[row].tolist() == [0, video.n_frames]


def test_the_whole_set_is_put_together_once(world: Path, tmp_path: Path) -> None:
    fitting_set(Probed("video"), world, tmp_path)
    _, data = fitting_set(Probed("video"), world, tmp_path)
    loader = data.train_dataloader()
    assert isinstance(loader, WholeSet)
    assert len(loader) == 1
    first, again = [next(iter(loader)) for _ in range(2)]
    assert first is again


def test_a_share_of_the_videos_is_drawn_by_class_and_nothing_else_is_read(world: Path, tmp_path: Path) -> None:
    system = Probed("segment", fraction=0.5)
    clip, data = fitting_set(system, world, tmp_path)
    drawn = data.known("train")
    assert Counter(video.category for video in drawn) == {"Arson": 1, "Fighting": 1, "Normal": 2}
    assert Counter(video.category for video in data.videos("train")) == {"Arson": 2, "Fighting": 2, "Normal": 4}
    assert set(clip.video) == {video.name for video in drawn} == set(system.read_videos)
    assert data.seen()["videos"].keys() == {f"UCF-Crime/{video.name}" for video in drawn}
    others = {frozenset(fitting_set(Probed("video", fraction=0.5), world, tmp_path, seed=s)[0].video) for s in range(8)}
    assert len(others) > 1


def test_the_smallest_share_holds_one_of_each_label(world: Path, tmp_path: Path) -> None:
    clip, _ = fitting_set(Probed("video", fraction=0.001), world, tmp_path)
    assert sorted(clip.label.tolist()) == [0, 1]


def test_features_instead_of_videos_are_refused(world: Path, tmp_path: Path) -> None:
    data = UcfCrime(str(world), num_workers=0)
    data.watch(Probed("video"))
    with pytest.raises(ValueError, match="pixels read by the system's own backbone are expected"):
        data.train_dataloader()
