"""The demo world on disk: UCF-Crime's layout and formats, written once, safely."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from datamodules.demo import MARKER, SIZES, plan, write_ucf_crime
from datamodules.ucf_crime import UcfCrime
from vigil.annotations import ucf_crime
from vigil.recording import read_masks
from vigil.scenes import CATEGORIES
from vigil.video import probe, read_frames


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny demo world, rendered once for this file."""
    root = tmp_path_factory.mktemp("world") / "ucf"
    write_ucf_crime(root, seed=0, size="tiny")
    return root


def content(root: Path) -> dict[str, bytes | int]:
    """Every file under root by its path there: the bytes, and of a video the number of frames."""
    files = {str(file.relative_to(root)): file for file in root.rglob("*") if file.is_file()}
    return {name: probe(file).n_frames if file.suffix == ".mp4" else file.read_bytes() for name, file in files.items()}


def test_every_planned_video_is_there_with_its_frames(world: Path) -> None:
    videos = plan(0, "tiny")
    assert {str(file.relative_to(world / "Videos")) for file in world.rglob("*.mp4")} == {v.file for v in videos}
    for video in videos:
        info = probe(world / "Videos" / video.file)
        assert (info.n_frames, info.height, info.width, info.fps) == (video.n_frames, 120, 160, 30)


def test_the_video_shows_the_scene(world: Path) -> None:
    video = next(video for video in plan(0, "tiny") if video.category == "Arson")
    stored = read_frames(world / "Videos" / video.file, [0, 30]).numpy()
    for row, index in enumerate((0, 30)):
        rendered = video.scene().frame(index)[0].transpose(2, 0, 1).astype(int)
        assert np.abs(stored[row] - rendered).mean() < 8


def test_names_follow_the_scheme_of_ucf_crime() -> None:
    for video in plan(0, "full"):
        if video.category != "Normal":
            assert video.file == f"{video.category}/{video.category}{video.name[-8:-5]}_x264.mp4"
        elif video.split == "train":
            assert video.file == f"Training_Normal_Videos_Anomaly/Normal_Videos{video.name[-8:-5]}_x264.mp4"
        else:
            assert video.file == f"Testing_Normal_Videos_Anomaly/Normal_Videos_{video.name[-8:-5]}_x264.mp4"
    names = [video.name.replace("Videos_", "Videos") for video in plan(0, "full")]
    assert len(set(names)) == len(names), "a training and a test normal share a number"


def test_the_lists_and_the_annotation_are_read_as_the_scenes_say(world: Path) -> None:
    for split in ("train", "test"):
        listed = (world / f"Anomaly_{split.title()}.txt").read_text().splitlines()
        assert listed == sorted(video.file for video in plan(0, "tiny") if video.split == split)
    test = {video.name: video for video in plan(0, "tiny") if video.split == "test"}
    annotated = {video.name: video for video in ucf_crime(world / "Temporal_Anomaly_Annotation.txt")}
    assert annotated.keys() == test.keys()
    for name, video in test.items():
        assert annotated[name].anomalies == video.scene().anomalies
        assert annotated[name].label == (video.category != "Normal")
    assert any(len(video.anomalies or []) == 2 for video in annotated.values())


def test_a_line_of_the_annotation_is_spelled_as_the_authors_do(world: Path, shared_data: Path) -> None:
    def spelling(text: str) -> set[str]:
        return {"".join("9" if c.isdigit() else "a" if c.isalpha() else c for c in line) for line in text.splitlines()}

    def shape(line: str) -> str:  # runs of digits and letters shortened, so that only separators count
        return "".join(c for i, c in enumerate(line) if c not in "9a" or line[i - 1 : i] != c)

    real = (shared_data / "ucf_crime" / "annotations" / "Temporal_Anomaly_Annotation.txt").read_text()
    ours = (world / "Temporal_Anomaly_Annotation.txt").read_text()
    assert {shape(line) for line in spelling(ours)} <= {shape(line) for line in spelling(real)}


def test_the_datamodule_reads_it_as_any_ucf_crime(world: Path) -> None:
    data = UcfCrime(str(world), validation_fraction=0.2)
    train, validation, test = (data.videos(split) for split in ("train", "val", "test"))
    assert len(train) + len(validation) == SIZES["tiny"][0] * 3 + SIZES["tiny"][2]
    assert len(test) == SIZES["tiny"][1] * 3 + SIZES["tiny"][3]
    assert all(video.path is not None and video.path.is_file() for video in (*train, *validation, *test))


def test_masks_come_back_as_rendered(world: Path) -> None:
    video = next(video for video in plan(0, "tiny") if video.category == "Fighting" and video.split == "test")
    assert np.array_equal(read_masks(world / "demo_masks" / f"{video.name}.npz"), video.scene().masks())
    assert len(list((world / "demo_masks").iterdir())) == sum(v.category != "Normal" for v in plan(0, "tiny"))


def test_captions_have_the_layout_of_uca(world: Path) -> None:
    found: dict[str, dict[str, object]] = {}
    for split in ("Train", "Val", "Test"):
        entries = json.loads((world / "uca" / f"UCFCrime_{split}.json").read_text())
        assert not found.keys() & entries.keys()
        found |= entries
    for video in plan(0, "tiny"):
        entry = found.pop(video.name)
        assert sorted(entry) == ["duration", "sentences", "timestamps"]
        assert len(entry["sentences"]) == len(entry["timestamps"]) > 0
        assert all(0 <= start < end <= entry["duration"] for start, end in entry["timestamps"])
    assert not found


def test_a_finished_world_is_left_alone_and_an_unfinished_one_rendered_again(world: Path) -> None:
    before, inode = content(world), world.stat().st_ino
    write_ucf_crime(world, seed=0, size="tiny")
    assert world.stat().st_ino == inode
    (world / "Anomaly_Test.txt").unlink()
    marker = json.loads((world / MARKER).read_text())
    (world / MARKER).write_text(json.dumps(marker | {"finished": False}))
    write_ucf_crime(world, seed=0, size="tiny")
    assert content(world) == before
    assert [path.name for path in world.parent.iterdir() if path != world] == [f".{world.name}.lock"]


def test_somebodys_own_files_are_not_touched(tmp_path: Path) -> None:
    (tmp_path / "Videos").mkdir()
    (tmp_path / "Videos" / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"holds files and no {MARKER}"):
        write_ucf_crime(tmp_path, size="tiny")
    assert (tmp_path / "Videos" / "mine.mp4").read_bytes() == b"mine"


def test_two_writers_at_once_leave_one_whole_world(world: Path, tmp_path: Path) -> None:
    root = tmp_path / "ucf"
    with ThreadPoolExecutor(2) as pool:  # the lock belongs to the open file, so threads meet it as processes do
        for writer in [pool.submit(write_ucf_crime, root, 0, "tiny") for _ in range(2)]:
            writer.result()
    assert content(root) == content(world)


def test_an_unknown_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'huge'.*tiny, small, full"):
        write_ucf_crime(tmp_path / "ucf", size="huge")


def test_the_full_plan_holds_every_class_in_both_splits() -> None:
    videos = plan(0, "full")
    for split in ("train", "test"):
        found = [video.category for video in videos if video.split == split]
        assert {*CATEGORIES, "Normal"} == set(found)
        assert found.count("Normal") >= 20
    fewest, most = SIZES["full"][4:]
    assert all(fewest <= video.n_frames <= most for video in videos)
