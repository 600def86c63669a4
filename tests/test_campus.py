"""ShanghaiTech, UBnormal and Ped2: their named variants, and what the real lists say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules import ShanghaiTech, UbNormal, UcsdPed2
from datamodules.demo_campus import write_shanghaitech, write_ubnormal, write_ucsd_ped2
from datamodules.shanghaitech import frame_label
from datamodules.ubnormal import read_object_masks
from vigil.annotations import anomalous_runs, ubnormal_tracks


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny demo copies of all three, each in a folder of its name."""
    folder = tmp_path_factory.mktemp("campus")
    for write in (write_shanghaitech, write_ubnormal, write_ucsd_ped2):
        write(folder / write.__name__.removeprefix("write_"), size="tiny")
    return folder


def test_shanghaitechs_frame_and_pixel_masks_give_the_same_times(top: Path, tmp_path: Path) -> None:
    root = tmp_path / "sht"
    shutil.copytree(top / "shanghaitech", root)
    both = ShanghaiTech(str(root)).annotated("test")
    shutil.rmtree(root / "testing" / "test_frame_mask")
    by_pixel = ShanghaiTech(str(root)).annotated("test")
    assert [video.anomalies for video in by_pixel] == [video.anomalies for video in both]
    shutil.rmtree(root / "testing" / "test_pixel_mask")
    with pytest.raises(FileNotFoundError, match=r"of 4 anomalous test videos nothing says when: 01_"):
        ShanghaiTech(str(root)).known("test")


def test_a_shanghaitech_video_without_frames_or_times_is_named_or_left_out(top: Path, tmp_path: Path) -> None:
    root = tmp_path / "sht"
    shutil.copytree(top / "shanghaitech", root)
    first, second, *rest = sorted(video.name for video in ShanghaiTech(str(root)).known("test"))
    shutil.rmtree(root / "testing" / "frames" / first)
    for kind in ("test_frame_mask", "test_pixel_mask"):
        (root / "testing" / kind / f"{second}.npy").unlink()
    with pytest.raises(FileNotFoundError, match=rf"not under .*: {first}; of 1 anomalous .* when: {second}"):
        ShanghaiTech(str(root)).known("test")
    assert [v.name for v in ShanghaiTech(str(root), missing="leave_out").known("test")] == rest


def test_a_mask_of_another_length_than_its_video_is_refused(top: Path, tmp_path: Path) -> None:
    root = tmp_path / "sht"
    shutil.copytree(top / "shanghaitech", root)
    file = sorted((root / "testing" / "test_frame_mask").iterdir())[0]
    np.save(file, np.load(file)[:-5])
    with pytest.raises(ValueError, match=rf"{file.stem}: \d+ frames, its mask has \d+"):
        ShanghaiTech(str(root)).known("test")


def test_a_ped2_clip_that_is_gone_is_not_taken_from_ped1(top: Path, tmp_path: Path) -> None:
    shutil.copytree(top / "ucsd_ped2", tmp_path / "ucsd")
    test = tmp_path / "ucsd" / "UCSDped2" / "Test"
    (tmp_path / "ucsd" / "UCSDped1" / "Test").mkdir(parents=True)
    shutil.move(test / "Test002", tmp_path / "ucsd" / "UCSDped1" / "Test" / "Test002")
    with pytest.raises(FileNotFoundError, match=r"1 of 3 videos are not under .*: Test002"):
        UcsdPed2(str(tmp_path / "ucsd")).known("test")


@pytest.mark.parametrize(("kind", "pattern"), [(UbNormal, "*_0001_gt.png"), (UcsdPed2, "Test001_gt/002.bmp")])
def test_a_damaged_mask_image_is_named(top: Path, tmp_path: Path, kind: type, pattern: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(top / {UbNormal: "ubnormal", UcsdPed2: "ucsd_ped2"}[kind], root)
    videos = [video for video in kind(str(root)).known("test") if video.masks is not None]
    for file in root.rglob(pattern):
        file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"(0001_gt\.png|002\.bmp): not a sound image"):
        videos[0].masks(np.arange(3))


def test_an_object_of_ubnormal_is_anomalous_while_its_track_lasts_and_nobody_else_is(tmp_path: Path) -> None:
    maps = np.zeros((4, 6, 6), np.uint8)
    maps[:, 0], maps[:, 3] = 5, 2  # object 5 throughout, and a passer-by
    for frame, array in enumerate(maps):
        Image.fromarray(array).save(tmp_path / f"abnormal_{frame:04d}_gt.png")
    masks = read_object_masks(tmp_path, "abnormal", [(5, 1, 2)], np.arange(4))
    expected = np.zeros_like(maps)
    expected[1:3, 0] = 1
    assert np.array_equal(masks, expected)


def test_shanghaitech_without_pixel_masks_is_judged_by_frames(top: Path, tmp_path: Path) -> None:
    root = tmp_path / "sht"
    shutil.copytree(top / "shanghaitech", root)
    shutil.rmtree(root / "testing" / "test_pixel_mask")
    assert all(video.masks is None for video in ShanghaiTech(str(root)).known("test"))


def test_shanghaitechs_real_masks_and_weak_lists(shared_data: Path, tmp_path: Path) -> None:
    lists = shared_data / "shanghaitech" / "lists"
    folder = tmp_path / "testing" / "test_frame_mask"
    folder.mkdir(parents=True)
    with np.load(shared_data / "shanghaitech" / "test_frame_mask.npz") as masks:
        for name in masks.files:
            np.save(folder / f"{name}.npy", masks[name])
            (tmp_path / "testing" / "frames" / name).mkdir(parents=True)
    videos = ShanghaiTech(str(tmp_path)).annotated("test")
    positive = sum(end - first for video in videos for first, end in video.anomalies)
    assert (len(videos), sum(video.n_frames for video in videos), positive) == (107, 40_791, 17_326)
    for name in ("SH_Train.txt", "SH_Test.txt"):
        shutil.copy(lists / name, tmp_path)
    weak = ShanghaiTech(str(tmp_path), split="weak")
    sides = weak.annotated("train"), weak.annotated("test")
    assert [(len(side), sum(video.label for video in side)) for side in sides] == [(238, 63), (199, 44)]
    assert all(video.anomalies for video in sides[1] if video.label)
    assert all(video.anomalies is None for video in sides[0] if video.label)


def test_a_frame_is_anomalous_where_any_pixel_is(tmp_path: Path) -> None:
    mask = np.zeros((5, 3, 4), dtype=bool)
    mask[1, 2, 3] = mask[2, 0, 0] = mask[4, 1, 1] = True
    np.save(tmp_path / "mask.npy", mask)
    assert anomalous_runs(frame_label(tmp_path / "mask.npy")) == [(1, 3), (4, 5)]
    np.save(tmp_path / "mask.npy", mask[..., 0])
    with pytest.raises(ValueError, match=r"\(5, 3\)"):
        frame_label(tmp_path / "mask.npy")


@pytest.mark.parametrize("damage", ["shape", "pickle", "cut"])
def test_a_damaged_mask_is_named(top: Path, tmp_path: Path, damage: str) -> None:
    root = tmp_path / "sht"
    shutil.copytree(top / "shanghaitech", root)
    file = sorted((root / "testing" / "test_frame_mask").iterdir())[0]
    if damage == "shape":
        np.save(file, np.zeros((2, 2)))
    elif damage == "pickle":
        np.save(file, np.array([{}], dtype=object))
    else:
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=file.name):
        ShanghaiTech(str(root)).annotated("test")


def test_ubnormals_variants(top: Path) -> None:
    root = str(top / "ubnormal")
    everything = UbNormal(root).known("test")
    abnormal = UbNormal(root, population="abnormal_only").known("test")
    assert [video.name for video in abnormal] == [video.name for video in everything if video.label]
    exclusive = {v.name: v for v in UbNormal(root, track_convention="stgnf").known("test")}
    for video in abnormal:
        tracks = ubnormal_tracks(
            video.path.with_suffix("").with_name(f"{video.name}_annotations") / f"{video.name}_tracks.txt"
        )
        ends = {end for _, _, end in tracks}
        assert {end for _, end in video.anomalies} <= {end + 1 for end in ends}
        assert {end for _, end in exclusive[video.name].anomalies} <= ends


def test_ubnormals_real_lists(shared_data: Path) -> None:
    data = UbNormal(str(shared_data / "ubnormal"))
    data._timed = lambda video: video  # the tracks are not here, the lists are
    count = {split: [video.label for video in data.annotated(split)] for split in ("train", "val", "test")}
    assert {split: (len(labels), sum(labels)) for split, labels in count.items()} == {
        "train": (268, 82), "val": (64, 38), "test": (211, 158),
    }  # fmt: skip


def test_masks_of_ubnormal_are_object_numbers_and_a_lost_one_is_named(top: Path, tmp_path: Path) -> None:
    root = tmp_path / "ubnormal"
    shutil.copytree(top / "ubnormal", root)
    video = next(video for video in UbNormal(str(root)).known("test") if video.label)
    masks = video.masks(np.arange(video.n_frames))
    assert masks.dtype == np.uint8
    assert masks.max() >= 1
    next(root.rglob(f"{video.name}_0003_gt.png")).unlink()
    with pytest.raises(FileNotFoundError, match="no mask of frame 3"):
        video.masks(np.arange(5))


def test_ped2_is_judged_at_its_own_size_or_at_ped1s(top: Path) -> None:
    root = str(top / "ucsd_ped2")
    assert UcsdPed2(root).metrics("test")["pixel"].size is None
    assert UcsdPed2(root, resolution="ped1").metrics("test")["pixel"].size == (158, 238)
    assert UcsdPed2(root, resolution="ped1").protocol["resolution"] == "ped1"


def test_ped2s_two_annotations_say_the_same(top: Path, shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(top / "ucsd_ped2" / "UCSDped2", tmp_path / "UCSDped2")
    script = next(tmp_path.rglob("UCSDped2.m"))
    script.unlink()
    shutil.copy(shared_data / "ucsd_ped2" / "ped2.mat", tmp_path)
    names = [video.name for video in UcsdPed2(str(tmp_path)).annotated("test")]
    assert names == [f"Test{number:03d}" for number in range(1, 13)]


def test_the_folder_above_both_peds_will_do(top: Path, tmp_path: Path) -> None:
    shutil.copytree(top / "ucsd_ped2" / "UCSDped2", tmp_path / "UCSD_Anomaly_Dataset.v1p2" / "UCSDped2")
    ped1 = tmp_path / "UCSD_Anomaly_Dataset.v1p2" / "UCSDped1" / "Test" / "Test001"
    shutil.copytree(next((tmp_path / "UCSD_Anomaly_Dataset.v1p2").rglob("Test001")), ped1)
    assert all("UCSDped2" in video.path.parts for video in UcsdPed2(str(tmp_path)).known("test"))
