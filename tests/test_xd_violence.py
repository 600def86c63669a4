"""XD-Violence: real lists and times through the datamodule, its three conventions, and its own main metric."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from datamodules import XdViolence
from datamodules.demo import MARKER
from datamodules.demo_xd_violence import write_xd_violence
from vigil.annotations import XD_VIOLENCE_CATEGORIES

TOTALS = {"full": (2_335_801, 538_324), "xdviodet": (2_330_384, 537_805), "vadclip": (2_331_296, 537_882)}
LISTS = {"train_list": "xd_train_names_labels.csv", "test_list": "xd_test_names_labels.csv"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("xd") / "xd_violence"
    write_xd_violence(root, size="tiny")
    return root


@pytest.mark.parametrize("convention", TOTALS)
@pytest.mark.parametrize("annotation", ["annotations.txt", "XD_Annotation_urdmu.txt"])
def test_a_convention_counts_the_frames_of_the_published_arrays(
    shared_data: Path, convention: str, annotation: str
) -> None:
    data = XdViolence(
        str(shared_data / "xd_violence"), convention=convention, lengths="xd_test_lengths.csv",
        annotation=annotation, **LISTS,
    )  # fmt: skip
    judged = data.judged(data.annotated("test"))
    assert len(judged) == 800
    positive = sum(end - first for video in judged for first, end in video.anomalies)
    assert (sum(video.n_frames for video in judged), positive) == TOTALS[convention]


def test_the_real_lists_hold_3954_and_800_videos_of_six_classes(shared_data: Path) -> None:
    data = XdViolence(str(shared_data / "xd_violence"), **LISTS)
    train, test = data.annotated("train"), data.annotated("test")
    assert (len(train), sum(video.label for video in train)) == (3954, 1905)
    assert (len(test), sum(video.label for video in test)) == (800, 500)
    assert not {video.name for video in train} & {video.name for video in test}
    named = {name for video in (*train, *test) for name in video.category.split("+")}
    assert named == {*XD_VIOLENCE_CATEGORIES, "Normal"}


def test_without_lists_the_folders_say_which_videos_there_are(copy: Path) -> None:
    data = XdViolence(str(copy), validation_fraction=0.2)
    for split, folder in (("train", "XD-Violence-train"), ("test", "XD-Violence-test")):
        videos = [*data.known(split), *(data.known("val") if split == "train" else [])]
        assert {video.path for video in videos} == set((copy / folder / "videos").iterdir())
    assert all(video.anomalies == [] for video in data.known("test") if video.label == 0)


def test_the_multi_class_file_gives_the_same_frames(copy: Path) -> None:
    single, multi = (XdViolence(str(copy), annotation=f"annotations{kind}.txt") for kind in ("", "_multiclasses"))
    for one, other in zip(single.judged(single.known("test")), multi.judged(multi.known("test")), strict=True):
        assert (one.name, one.anomalies) == (other.name, other.anomalies)


def test_a_violent_video_without_times_is_refused(copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "xd"
    shutil.copytree(copy, root)
    file = root / "XD-Violence-test" / "annotations.txt"
    first, *rest = file.read_text().split("\n")
    file.write_text("\n".join(rest))
    with pytest.raises(ValueError, match=rf"no times of 1 violent test videos: {first.split()[0].split('#')[0]}"):
        XdViolence(str(root)).known("test")


def test_a_copy_that_lacks_normal_videos_is_told_by_their_number(copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "xd"
    shutil.copytree(copy, root)
    (root / MARKER).unlink()  # no demo: a real folder of so few videos
    with pytest.raises(FileNotFoundError, match=r"violent and \d+ normal test videos lie under .* has 500 and 300"):
        XdViolence(str(root)).known("test")
    assert XdViolence(str(root), missing="leave_out").known("test")
    names = [video.name for video in XdViolence(str(copy)).known("test")]
    (root / "test.txt").write_text("\n".join(names))
    assert [video.name for video in XdViolence(str(root), test_list="test.txt").known("test")] == names


@pytest.mark.parametrize("convention", ["xdviodet", "vadclip"])
def test_an_axis_counted_by_opencv_needs_its_counts(copy: Path, convention: str) -> None:
    data = XdViolence(str(copy), convention=convention)
    with pytest.raises(ValueError, match=f"the convention {convention} needs OpenCV's frame counts"):
        data.metrics("test")


def test_a_copy_of_a_video_and_what_macos_leaves_are_no_videos(copy: Path, tmp_path: Path) -> None:
    root = tmp_path / "xd"
    shutil.copytree(copy, root)
    file = sorted((root / "XD-Violence-train" / "videos").iterdir())[0]
    (root / "XD-Violence-train" / "more").mkdir()
    shutil.copy(file, root / "XD-Violence-train" / "more" / file.name)
    (file.parent / f"._{file.name}").write_bytes(b"resource fork")
    (root / "round").symlink_to(root)
    assert len(XdViolence(str(root)).annotated("train")) == len(XdViolence(str(copy)).annotated("train"))


def test_an_annotated_video_that_the_list_lacks_is_refused(shared_data: Path, tmp_path: Path) -> None:
    lines = (shared_data / "xd_violence" / "lists" / LISTS["test_list"]).read_text().splitlines()
    (tmp_path / "short.csv").write_text("\n".join(lines[:300]) + "\n")
    shutil.copy(shared_data / "xd_violence" / "annotations" / "annotations.txt", tmp_path)
    with pytest.raises(ValueError, match=r"disagree on \d+ videos"):
        XdViolence(str(tmp_path), test_list="short.csv").annotated("test")


def test_features_stand_in_for_videos(copy: Path, tmp_path: Path) -> None:
    data = XdViolence(str(copy))
    for video in (*data.known("train"), *data.known("val"), *data.known("test")):
        for crop in range(5):
            np.save(tmp_path / f"{video.name}__{crop}.npy", np.zeros((-(-video.n_frames // 16), 8), np.float32))
    read = XdViolence(str(copy), features=str(tmp_path)).known("test")
    assert [video.n_frames for video in read] == [video.n_frames for video in data.known("test")]
    assert all(video.features is not None for video in read)
