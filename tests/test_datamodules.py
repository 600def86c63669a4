"""What holds for every dataset, on its demo copy: splits, truth, masks, judging, and what a missing file does."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from callbacks.leak_guard import LeakGuard
from datamodules import ShanghaiTech, UbNormal, UcfCrime, UcsdPed2, XdViolence
from datamodules.demo import write_ucf_crime
from datamodules.demo_campus import write_shanghaitech, write_ubnormal, write_ucsd_ped2
from datamodules.demo_xd_violence import write_xd_violence
from datamodules.video_data import VideoDataModule
from lightning_modules import MilRanker
from tests.tiny_systems import PixelDifference
from tests.tiny_videos import make_trainer, write_video_world
from vigil.pixel_metrics import PixelMetric
from vigil.types import Clip, Prediction, Video, View

WRITERS = {
    UcfCrime: write_ucf_crime,
    XdViolence: write_xd_violence,
    ShanghaiTech: write_shanghaitech,
    UbNormal: write_ubnormal,
    UcsdPed2: write_ucsd_ped2,
}


@dataclass(frozen=True)
class Case:
    """A dataset and what it is asked for; normal: whether normal videos are tested; pixels: whether there are masks."""

    kind: type[VideoDataModule]
    options: dict[str, Any] = field(default_factory=dict)
    normal: bool = True
    pixels: bool = False
    anomalous_training: bool = True

    def __str__(self) -> str:
        return "-".join([self.kind.__name__, *map(str, self.options.values())])


CASES = [
    Case(UcfCrime, {"validation_fraction": 0.2}),
    Case(XdViolence, {"validation_fraction": 0.2}),
    Case(ShanghaiTech, {"split": "one_class"}, normal=False, pixels=True, anomalous_training=False),
    Case(ShanghaiTech, {"split": "weak", "validation_fraction": 0.3}, pixels=True),
    Case(UbNormal, {}, pixels=True),
    Case(UbNormal, {"population": "abnormal_only"}, normal=False, pixels=True),
    Case(UcsdPed2, {"validation_fraction": 0.3}, normal=False, pixels=True, anomalous_training=False),
]
each = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[type[VideoDataModule], Path]:
    """The tiny demo copy of every dataset."""
    top = tmp_path_factory.mktemp("demo")
    for kind, write in WRITERS.items():
        write(top / kind.__name__, size="tiny")
    return {kind: top / kind.__name__ for kind in WRITERS}


Copies = dict[type[VideoDataModule], Path]


def data_of(case: Case, copies: Copies, **more: Any) -> Any:
    return case.kind(root=str(copies[case.kind]), num_workers=0, **{**case.options, **more})


@each
def test_splits_are_apart_and_hold_what_they_should(case: Case, copies: Copies) -> None:
    data = data_of(case, copies)
    splits = {split: data.known(split) for split in ("train", "val", "test")}
    names = [video.name for videos in splits.values() for video in videos]
    assert len(set(names)) == len(names)
    assert all(splits.values())
    for video in (video for videos in splits.values() for video in videos):
        assert video.path.exists()
        assert video.n_frames > 0
        assert video.fps > 0
        assert video.label in (0, 1)
    assert {video.label for video in splits["train"]} == ({0, 1} if case.anomalous_training else {0})
    assert {video.label for video in splits["test"]} == ({0, 1} if case.normal else {1})
    assert data.categories
    assert data.protocol["dataset"] == case.kind.__name__


@each
def test_the_times_and_masks_of_a_test_video_say_the_same(case: Case, copies: Copies) -> None:
    for video in data_of(case, copies).known("test"):
        label = np.zeros(video.n_frames, bool)
        for first, end in video.anomalies:
            assert 0 <= first < end <= video.n_frames
            label[first:end] = True
        assert label.any() == video.label
        if case.pixels and video.label:
            masks = video.masks(np.arange(video.n_frames))
            assert masks.shape[0] == video.n_frames
            assert not (masks.any(axis=(1, 2)) & ~label).any()
            assert masks.any()


def predictions(videos: list[Video], score: Any, pixels: bool) -> Any:
    """A clip of every video, scored frame by frame: score(label (T,), masks or None) -> frame scores, pixel scores."""
    for video in videos:
        frame = torch.arange(video.n_frames)[None]
        label = torch.zeros(1, video.n_frames)
        for first, end in video.anomalies:
            label[:, first:end] = 1
        mask = None
        if pixels:
            shown = video.masks(frame[0].numpy()) if video.masks else np.zeros((video.n_frames, 120, 160))
            mask = torch.from_numpy(shown != 0)[None].float()
        frame_score, pixel_score = score(label, mask)
        clip = Clip([video.name], torch.tensor([[0, video.n_frames]]), {"video": frame})
        yield clip, Prediction(frame_score, pixel_score)


@each
@pytest.mark.parametrize(("kind", "expected"), [("perfect", 1.0), ("constant", 0.5)])
def test_the_truth_gets_full_marks_and_a_constant_half(case: Case, copies: Copies, kind: str, expected: float) -> None:
    data = data_of(case, copies)
    metrics = data.metrics("test")
    constant = kind == "constant"
    for clip, prediction in predictions(
        data.known("test"),
        lambda label, mask: (
            torch.full_like(label, 0.3) if constant else label,
            None if mask is None else torch.full_like(mask, 0.3) if constant else mask,
        ),
        case.pixels,
    ):
        for metric in metrics.values():
            metric.update(clip, prediction)
    result = {key: value for metric in metrics.values() for key, value in metric.compute().items()}
    assert result["frame_auroc"] == expected
    assert case.kind.main_metric in result
    assert ("video_auroc" in result) == case.normal
    if case.pixels:
        assert result["pixel_auroc"] == expected
        if (
            not constant
        ):  # of UBnormal's objects those that touch are one region of the score, and the small one is lost
            assert min(result["rbdc"], result["tbdc"]) >= (0.8 if case.kind is UbNormal else 1)
    if not constant:
        assert result["frame_ap"] == 1


@pytest.mark.parametrize("case", [case for case in CASES if case.pixels], ids=str)
def test_a_system_that_scores_pixels_is_judged_on_real_frames(case: Case, copies: Copies, tmp_path: Path) -> None:
    data, system = data_of(case, copies), PixelDifference()
    data.watch(system)
    trainer = make_trainer(tmp_path)
    trainer.test(system, datamodule=data, verbose=False)
    result = trainer.callbacks[0].results["test"]
    assert {"pixel_auroc", "pixel_ap", "rbdc", "tbdc", "frame_auroc"} <= result.keys()
    assert all(0 <= value <= 1 for key, value in result.items() if "per_hour" not in key)


WINDOW = 54  # some demo videos are shorter, one holds two of them


@each
def test_whole_windows_judge_no_tail_and_no_video_shorter_than_one(case: Case, copies: Copies) -> None:
    everything, data = data_of(case, copies).known("test"), data_of(case, copies, whole_windows=WINDOW)
    long = [video for video in everything if video.n_frames >= WINDOW]
    judged = {video.name: video.n_frames // WINDOW * WINDOW for video in long}
    assert [(video.name, video.n_frames) for video in data.known("test")] == [(v.name, v.n_frames) for v in long]
    dropped = sum(video.n_frames for video in everything) - sum(judged.values())
    told = {"whole_windows": WINDOW, "dropped_videos": len(everything) - len(long), "dropped_frames": dropped}
    assert told.items() <= data.protocol.items()
    assert not told.keys() & data_of(case, copies).protocol.keys()

    metrics = data.metrics("test")
    generator = torch.Generator().manual_seed(0)
    labels, scores = [], []

    def guess(label: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        score = torch.rand(label.shape, generator=generator)
        kept = label.shape[1] // WINDOW * WINDOW
        labels.extend(label[0, :kept].int().tolist())
        scores.extend(score[0, :kept].tolist())
        return score, None if mask is None else torch.rand(mask.shape, generator=generator)

    for clip, prediction in predictions(long, guess, case.pixels):
        for metric in metrics.values():
            metric.update(clip, prediction)
    result = {key: value for metric in metrics.values() for key, value in metric.compute().items()}
    assert result["frame_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    with_two = roc_auc_score([*labels, 0, 1], [*scores, 0.5, 1 / (1 + np.exp(-1))])
    assert result["frame_auroc_sentinels"] == pytest.approx(with_two, abs=1e-12)
    if case.pixels:
        size = next(video for video in long if video.masks).masks(np.arange(1)).shape[1:]
        assert metrics["pixel"].counts().sum() == sum(judged.values()) * size[0] * size[1]


def test_whole_windows_that_no_video_holds_or_of_another_axis_are_refused(copies: Copies) -> None:
    root = str(copies[UcfCrime])
    with pytest.raises(ValueError, match="whole_windows 1024: the longest of 6 test videos has 63 frames"):
        UcfCrime(root, whole_windows=1024).known("test")
    with pytest.raises(ValueError, match="whole_windows 32 with the convention vadclip"):
        UcfCrime(root, whole_windows=32, convention="vadclip").known("test")
    with pytest.raises(ValueError, match="whole_windows 0: frames of a window, at least 1"):
        UcfCrime(root, whole_windows=0)


def test_an_anomaly_is_cut_where_the_last_whole_window_ends_and_one_behind_it_is_none(tmp_path: Path) -> None:
    root = write_video_world(tmp_path, n_train=1)  # each anomaly lies from frame 8 to 24
    data = UcfCrime(str(root), whole_windows=8)
    (arson, *_) = [video for video in data.judged(data.known("test")) if video.name.startswith("Arson")]
    assert arson.anomalies == [(8, 24)]
    data = UcfCrime(str(root), whole_windows=20)
    lengths = {video.name: video.n_frames for video in data.known("test")}
    for video in data.judged(data.known("test")):
        end = lengths[video.name] // 20 * 20
        assert video.n_frames == end
        assert video.anomalies == ([] if video.label == 0 else [(8, min(24, end))])
    (late,) = data.judged([Video("Arson009_x264", n_frames=50, label=1, anomalies=[(45, 50)])])
    assert (late.n_frames, late.anomalies) == (40, [])


@each
def test_a_frame_only_system_gets_no_pixel_keys(case: Case, copies: Copies) -> None:
    data = data_of(case, copies)
    metrics = data.metrics("test")
    for clip, prediction in predictions(data.known("test"), lambda label, _: (label, None), False):
        for metric in metrics.values():
            metric.update(clip, prediction)
    assert all(not metric.compute() for metric in metrics.values() if isinstance(metric, PixelMetric))


@each
def test_a_video_that_is_gone_is_named_or_left_out_on_request(case: Case, copies: Copies, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(copies[case.kind], root)
    video = data_of(case, {case.kind: root}).videos("test")[0]
    shutil.rmtree(video.path) if video.path.is_dir() else video.path.unlink()
    listed = case.kind is not ShanghaiTech or case.options["split"] == "weak"  # else the folder itself is the list
    if listed and not (case.kind is XdViolence and video.label == 0):
        with pytest.raises(FileNotFoundError, match=rf"1 of \d+ videos are not under .*{video.name}; complete"):
            data_of(case, {case.kind: root}).known("test")
    left = data_of(case, {case.kind: root}, missing="leave_out").known("test")
    assert video.name not in {other.name for other in left}
    assert left


@each
def test_a_root_that_is_no_dataset_says_what_is_expected(case: Case, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"init_args\.root|put them there|demo: true"):
        data_of(case, {case.kind: tmp_path}).known("test")


@each
def test_demo_true_renders_the_copy_that_is_there_already(case: Case, copies: Copies) -> None:
    data = case.kind(root=str(copies[case.kind]), demo=True)
    before = {file: file.stat().st_mtime_ns for file in copies[case.kind].rglob("*") if file.is_file()}
    data.render = lambda: WRITERS[case.kind](data.root, size="tiny")
    data.prepare_data()
    assert {file: file.stat().st_mtime_ns for file in copies[case.kind].rglob("*") if file.is_file()} == before


def test_a_ranker_fitted_on_one_dataset_is_tested_on_the_others(copies: Copies, tmp_path: Path) -> None:
    system = MilRanker(
        encoder="demo_deit", weights=None, hidden=(8, 4), batch_size=2,
        fit_view=View(frames=1, segments=4), test_view=View(2, 4, 8),
    )  # fmt: skip
    fitted_on = data_of(CASES[0], copies)
    fitted_on.watch(system)
    make_trainer(tmp_path, [LeakGuard()], max_epochs=1).fit(system, datamodule=fitted_on)
    assert len(system.seen["MilRanker on UcfCrime"]["videos"]) == len(fitted_on.known("train") + fitted_on.known("val"))
    for case in CASES[1:]:
        data = data_of(case, copies)
        data.watch(system)
        trainer = make_trainer(tmp_path, [guard := LeakGuard()])
        trainer.test(system, datamodule=data, verbose=False)
        assert guard.leaked == {}
        assert 0 <= trainer.callbacks[0].results["test"][data.main_metric] <= 1
