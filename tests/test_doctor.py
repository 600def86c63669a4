"""Every fault a data folder can have, planted in real files: each is found, and nothing else."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_videos import HEIGHT, WIDTH, write_tiny_video
from vigil.annotations import ucf_crime
from vigil.doctor import KINDS, Facts, Finding, as_json, examine, printable
from vigil.store import FileMemory
from vigil.types import Video
from vigil.video import write_video

Splits = dict[str, list[Video]]
NAMES = {
    "train": ["Arson001", "Fighting001", "Normal001", "Frames001"],
    "val": ["Fighting002", "Normal002"],
    "test": ["Arson003", "Fighting003", "Normal003", "Frames003", "Features003"],
}
CLASSES = ("Arson", "Fighting")


@pytest.fixture(scope="module")
def clean_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    for seed, name in enumerate(name for names in NAMES.values() for name in names):
        if name.startswith("Frames"):
            (root / name).mkdir()
            for number in range(12):
                image = np.random.default_rng([seed, number]).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
                Image.fromarray(image).save(root / name / f"{number}.png")
        elif name.startswith("Features"):
            np.save(root / f"{name}.npy", np.ones((5, 8), np.float32))
        else:
            write_tiny_video(root / f"{name}.mp4", 40, seed)
    return root


@pytest.fixture
def root(clean_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clean_root, tmp_path / "data"))


def world(root: Path) -> Splits:
    """A clean data folder: videos of two classes, frame folders with masks, a feature file."""

    def video(split: str, name: str) -> Video:
        category = name[:-3] if name[:-3] in CLASSES else "Normal"
        anomalies = [] if category == "Normal" else [(8, 40)]
        found = Video(name, label=int(category != "Normal"), category=category, anomalies=anomalies)
        if name.startswith("Features"):
            return replace(found, features=root / f"{name}.npy", n_frames=80)
        if name.startswith("Frames"):
            mask = np.zeros((12, HEIGHT, WIDTH), bool)
            return replace(found, path=root / name, n_frames=12, masks=lambda frames: mask[frames])
        # announced as OpenCV counts, one more or less
        return replace(found, path=root / f"{name}.mp4", n_frames={"train": 41, "val": 39, "test": None}[split])

    return {split: [video(split, name) for name in names] for split, names in NAMES.items()}


def change(splits: Splits, name: str, **values: object) -> None:
    for videos in splits.values():
        videos[:] = [replace(video, **values) if video.name == name else video for video in videos]


def told(findings: list[Finding]) -> list[tuple[str, str, str | None]]:
    return [(finding.kind, finding.split, finding.video) for finding in findings]


def check(splits: Splits, decode: bool = True, **settings: object) -> list[Finding]:
    return examine(splits, categories=CLASSES, decode=decode, n_workers=0, **settings)[0]


@pytest.mark.parametrize("decode", [True, False])
def test_nothing_is_wrong_with_a_clean_folder(root: Path, decode: bool) -> None:
    splits = world(root)
    findings, facts = examine(splits, {"itself": []}, categories=CLASSES, decode=decode, n_workers=0)
    assert findings == []
    counts = {split: len(names) for split, names in NAMES.items()}
    assert (facts.videos, facts.files, facts.decoded) == (counts, counts, decode)
    assert facts.frames == 8 * 40 + 2 * 12
    assert facts.hours == pytest.approx(8 * 40 / 25 / 3600, abs=5e-4)
    assert facts.took_s > 0


def gone(root: Path, splits: Splits) -> None:
    (root / "Fighting001.mp4").unlink()


def never_found(root: Path, splits: Splits) -> None:
    change(splits, "Fighting001", path=None)


def no_features(root: Path, splits: Splits) -> None:
    (root / "Features003.npy").unlink()


def cut_features(root: Path, splits: Splits) -> None:
    (root / "Features003.npy").write_bytes((root / "Features003.npy").read_bytes()[:-20])


def text(root: Path, splits: Splits) -> None:
    (root / "Normal001.mp4").write_text("404: not found\n" * 9)


def empty(root: Path, splits: Splits) -> None:
    (root / "Normal001.mp4").write_bytes(b"")
    (root / "Normal003.mp4").write_bytes(b"")  # and no copy of the first


def broken_image(root: Path, splits: Splits) -> None:
    (root / "Frames001" / "10.png").write_bytes((root / "Frames001" / "10.png").read_bytes()[:200])


def odd_image(root: Path, splits: Splits) -> None:
    Image.new("RGB", (WIDTH, 2)).save(root / "Frames001" / "11.png")


def no_images(root: Path, splits: Splits) -> None:
    shutil.rmtree(root / "Frames001")
    (root / "Frames001").mkdir()


def few(root: Path, splits: Splits) -> None:
    change(splits, "Fighting003", n_frames=100, anomalies=[(8, 90)])  # one cause, one finding


def too_few_images(root: Path, splits: Splits) -> None:
    for number in (4, 7):
        (root / "Frames001" / f"{number}.png").unlink()


def cut(root: Path, splits: Splits) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (100, 3, HEIGHT, WIDTH), np.uint8)
    file = root / "Fighting003.mkv"
    write_video(file, frames, 25, preset="ultrafast")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    change(splits, "Fighting003", path=file)


def more(root: Path, splits: Splits) -> None:
    change(splits, "Fighting003", n_frames=30, anomalies=[(8, 30)])


def late(root: Path, splits: Splits) -> None:
    change(splits, "Fighting003", anomalies=[(8, 41)])


def late_caption(root: Path, splits: Splits) -> None:
    change(splits, "Fighting003", captions=[(0, 42, "in time, for tenths of a second"), (8, 43, "late")])


def late_without_video(root: Path, splits: Splits) -> None:
    change(splits, "Features003", anomalies=[(8, 20), (70, 81)])


def copied(root: Path, splits: Splits) -> None:
    shutil.copy(root / "Arson003.mp4", root / "Normal003.mp4")


def named_twice(root: Path, splits: Splits) -> None:
    splits["test"].append(splits["test"][0])


def in_both_by_name(root: Path, splits: Splits) -> None:
    splits["test"].append(splits["train"][0])


def in_both_by_content(root: Path, splits: Splits) -> None:
    shutil.copy(root / "Arson003.mp4", root / "Normal002.mp4")


def in_both_folders(root: Path, splits: Splits) -> None:
    shutil.copytree(root / "Frames003", root / "Frames001", dirs_exist_ok=True)


def masks(*shape: int) -> Callable[[Path, Splits], None]:
    array = np.zeros(shape, np.uint8)
    array[-1] = 1

    def plant(root: Path, splits: Splits) -> None:
        change(splits, "Frames003", masks=lambda frames: array[frames])

    return plant


PLANTS = [
    (gone, "missing", "train", "Fighting001", "no file"),
    (never_found, "missing", "train", "Fighting001", "no file"),
    (no_features, "missing", "test", "Features003", "no file"),
    (cut_features, "unreadable", "test", "Features003", r"Features003\.npy"),
    (text, "unreadable", "train", "Normal001", "no video stream|not a video"),
    (broken_image, "unreadable", "train", "Frames001", r"frame 10: 10\.png"),
    (odd_image, "unreadable", "train", "Frames001", "frame 11 is 32x2, those before are 32x24"),
    (no_images, "unreadable", "train", "Frames001", "a folder without images"),
    (few, "truncated", "test", "Fighting003", "40 frames, 100 announced; annotated events beyond it: 1"),
    (too_few_images, "truncated", "train", "Frames001", "10 frames, 12 announced"),
    (cut, "truncated", "test", "Fighting003", "damaged from frame [1-9].* on: the file ends early"),
    (more, "longer", "test", "Fighting003", "40 frames, 30 announced"),
    (late, "beyond the end", "test", "Fighting003", "event 8-41; the video has 40 frames"),
    (late_caption, "beyond the end", "test", "Fighting003", "caption 8-43; the video has 40 frames"),
    (late_without_video, "beyond the end", "test", "Features003", "event 70-81; the video has 80 frames"),
    (copied, "duplicate", "test", "Arson003", "the same bytes as Normal003"),
    (named_twice, "duplicate", "test", "Arson003", "named 2 times"),
    (in_both_by_name, "in both", "train", None, "1 of 6 videos of test are in train: Arson001"),
    (in_both_by_content, "in both", "val", None, r"test are in val: Arson003 \(there as Normal002\)"),
    (in_both_folders, "in both", "train", None, r"Frames003 \(there as Frames001\)"),
    (masks(12, HEIGHT, WIDTH - 1), "mask", "test", "Frames003", "2 masks of 31x24 for 2 frames of 32x24"),
    (masks(11, HEIGHT, WIDTH), "mask", "test", "Frames003", "no mask of frames 0 and 11: IndexError"),
    (masks(14, HEIGHT, WIDTH), "mask", "test", "Frames003", "mask of frame 13, the video has 12 frames"),
    (masks(12, HEIGHT), "mask", "test", "Frames003", "2 masks of 24 for 2 frames"),
]


@pytest.mark.parametrize(("plant", "kind", "split", "video", "found"), PLANTS)
def test_a_planted_fault_is_found_and_nothing_else(
    root: Path, plant: Callable[[Path, Splits], None], kind: str, split: str, video: str | None, found: str
) -> None:
    splits = world(root)
    plant(root, splits)
    (finding,) = check(splits)
    assert told([finding]) == [(kind, split, video)]
    assert finding.todo
    assert re.search(found, finding.found)
    if plant not in (broken_image, odd_image):  # which only decoding shows
        assert told(check(splits, decode=False)) == [(kind, split, video)]


def test_faults_planted_together_are_found_together_by_kind(root: Path) -> None:
    splits = world(root)
    for plant in (gone, no_features, text, few, copied, in_both_by_name, masks(12, 3, 4)):
        plant(root, splits)
    change(splits, "Fighting002", category="Normal+Fighting")
    found = examine(splits, categories=(*CLASSES, "Abuse"), n_workers=0)[0]
    assert told(found) == [
        ("missing", "train", "Fighting001"),
        ("missing", "test", "Features003"),
        ("unreadable", "train", "Normal001"),
        ("truncated", "test", "Fighting003"),
        ("mask", "test", "Frames003"),
        ("class without a positive", "train", None),
        ("class without a positive", "test", None),
        ("duplicate", "test", "Arson003"),
        ("in both", "train", None),
    ]
    assert {finding.kind for finding in found} < KINDS.keys()


def test_empty_files_are_unreadable_and_no_copies_of_each_other(root: Path) -> None:
    splits = world(root)
    empty(root, splits)
    assert told(check(splits)) == [("unreadable", "train", "Normal001"), ("unreadable", "test", "Normal003")]


def test_a_damaged_frame_is_found_by_decoding(root: Path) -> None:
    file = root / "Arson003.mp4"
    data = bytearray(file.read_bytes())
    start = data.index(b"mdat") + 4
    middle = start + (len(data) - start) // 2
    data[middle : middle + 200] = bytes(200)
    file.write_bytes(data)
    (finding,) = check(world(root))
    assert told([finding]) == [("truncated", "test", "Arson003")]
    assert "does not decode; the container holds 40" in finding.found
    assert check(world(root), decode=False) == []


def test_a_file_without_permission_is_unreadable_until_it_may_be_read(root: Path) -> None:
    file = root / "Arson003.mp4"
    file.chmod(0)
    for folder in file.parents[:4]:
        folder.chmod(0o755)
    memory = FileMemory()
    memory.file.parent.mkdir(parents=True, exist_ok=True)
    memory.file.touch()
    memory.file.chmod(0o666)
    for folder in memory.file.parents[:3]:
        folder.chmod(0o755)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        (finding,) = check(world(root), memory=memory)
    finally:
        os.seteuid(user)
    assert told([finding]) == [("unreadable", "test", "Arson003")]
    assert "may not read it" in finding.found
    file.chmod(0o644)
    assert check(world(root), memory=memory) == []


def test_a_class_counts_once_for_train_and_val_and_several_may_stand_in_one_video(root: Path) -> None:
    splits = world(root)
    change(splits, "Fighting001", category="Normal", label=0, anomalies=[])  # Fighting002 in val shows it
    assert check(splits) == []
    change(splits, "Fighting002", category="Normal", label=0, anomalies=[])
    assert told(check(splits)) == [("class without a positive", "train", None)]
    change(splits, "Arson001", category="Arson+Fighting")
    assert check(splits) == []
    change(splits, "Arson001", category="Normal", label=0, anomalies=[])
    assert check(splits) == []  # one-class fitting


@pytest.mark.parametrize(("n_absent", "n_findings"), [(10, 10), (11, 1), (12, 1)])
def test_many_missing_videos_are_one_finding_that_names_them_all(root: Path, n_absent: int, n_findings: int) -> None:
    there = world(root)["train"][0]
    absent = [Video(f"Normal{i:03d}", label=0) for i in range(100, 100 + n_absent)]
    splits = {"train": [there, *absent], "test": absent[:0]}
    if n_absent == 12:
        splits["train"] = absent
    findings, facts = examine(splits)
    assert told(findings) == [("missing", "train", absent[0].name if n_findings == 10 else None)] * 1 + [
        ("missing", "train", video.name) for video in absent[1:n_findings]
    ]
    if n_findings == 1:
        assert findings[0].found.endswith(f"Normal109 and {n_absent - 10} more")
        assert findings[0].videos == tuple(video.name for video in absent)
        assert json.loads(as_json(findings, facts))["findings"][0]["videos"][-1] == absent[-1].name


def test_other_datasets_are_compared_and_not_examined(root: Path) -> None:
    splits = world(root)
    shutil.copy(root / "Normal001.mp4", root / "renamed.mp4")
    (root / "text.mp4").write_text("no video")
    others = [Video("Frames001"), Video("renamed", root / "renamed.mp4"), Video("text", root / "text.mp4", n_frames=5)]
    findings = check(splits, tested_elsewhere={"other test": others})
    assert told(findings) == [("in both", "train", None)]
    assert findings[0].found.endswith(
        "2 of 3 videos of other test are in train: Frames001, renamed (there as Normal001)"
    )
    assert (findings[0].videos, findings[0].other_split) == (("Frames001", "renamed"), "other test")
    with pytest.raises(ValueError, match=r"given twice: \['test'\]"):
        examine(splits, {"test": []})


def test_a_second_check_opens_no_video_until_a_file_changes(root: Path) -> None:
    splits = world(root)
    copied(root, splits)
    first = check(splits)
    assert told(first) == [("duplicate", "test", "Arson003")]
    stamps = {file: file.stat() for file in root.rglob("*.*") if file.suffix in (".mp4", ".png")}
    for file, stamp in stamps.items():  # nothing sound is left to read
        file.write_bytes(b"x" * stamp.st_size)
        os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert check(splits) == first
    os.utime(root / "Normal001.mp4")
    assert told(check(splits)) == [("unreadable", "train", "Normal001"), *told(first)]


def test_processes_find_the_same_and_one_that_dies_is_a_finding_of_the_file_it_read(root: Path) -> None:
    splits = world(root)
    for plant in (text, copied, few):
        plant(root, splits)
    alone, seen = check(splits, memory=FileMemory(root / "alone.jsonl")), []

    def kill(done: int, of: int, name: str) -> None:
        seen.append((done, of, name))
        if done == 3:
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGKILL)

    memory = FileMemory(root / "shared.jsonl")
    findings = examine(splits, categories=CLASSES, n_workers=1, memory=memory, progress=kill)[0]
    killed = [finding for finding in findings if "signal 9 (SIGKILL)" in finding.found]
    assert killed
    assert {finding.kind for finding in killed} == {"unreadable"}
    assert all(finding.path is not None for finding in killed)
    assert [done for done, *_ in seen] == [*range(1, seen[0][1] + 1)]
    assert multiprocessing.active_children() == []
    assert check(splits, memory=memory) == alone  # a death is not remembered


def test_an_interrupt_ends_the_processes_and_keeps_what_was_found(root: Path) -> None:
    splits, memory = world(root), FileMemory()
    with pytest.raises(KeyboardInterrupt):
        examine(splits, n_workers=1, memory=memory, progress=lambda *_: signal.raise_signal(signal.SIGINT))
    assert multiprocessing.active_children() == []
    assert memory.file.read_text().count("\n") >= 1


def test_control_characters_are_spelled_out() -> None:
    assert printable("Arson\x1b[31m\u202e001[red]\udcff") == "Arson\\x1b[31m\\u202e001[red]\\udcff"
    assert printable("Überfall 001") == "Überfall 001"


def test_the_json_says_what_was_looked_at_and_all_that_was_found(tmp_path: Path) -> None:
    facts = Facts({"train": 2}, {"train": 1}, 40, 0.01, 1.5, True)
    finding = Finding("in both", "train", None, tmp_path, "\udcff", "fit without", ("a",) * 1000, "test")
    assert json.loads(as_json([finding], facts)) == {
        "checked": {
            "videos": {"train": 2}, "files": {"train": 1}, "frames": 40, "hours": 0.01, "took_s": 1.5, "decoded": True
        },
        "findings": [
            {
                "kind": "in both", "split": "train", "video": None, "path": str(tmp_path), "found": "\udcff",
                "todo": "fit without", "videos": ["a"] * 1000, "other_split": "test",
            }
        ],
    }  # fmt: skip


def test_214_ucf_crime_test_videos_are_in_ucas_training_split_and_22_in_its_validation_split(shared_data: Path) -> None:
    uca = {
        split.lower(): [
            Video(name) for name in json.loads((shared_data / f"uca/json/UCFCrime_{split}.json").read_text())
        ]
        for split in ("Train", "Val", "Test")
    }
    tested = ucf_crime(shared_data / "ucf_crime/annotations/Temporal_Anomaly_Annotation.txt")
    findings, facts = examine(uca, {"UCF-Crime test": tested})
    shared = [f for f in findings if f.kind == "in both"]
    assert [(f.split, f.other_split, len(set(f.videos))) for f in shared] == [
        ("train", "UCF-Crime test", 214),
        ("val", "UCF-Crime test", 22),
    ]
    assert shared[0].found.startswith("214 of 290 videos of UCF-Crime test are in train: ")
    absent = [(f.kind, f.split, len(f.videos)) for f in findings if f.kind != "in both"]
    assert absent == [("missing", "train", 1165), ("missing", "val", 379), ("missing", "test", 310)]
    assert facts.files == {"train": 0, "val": 0, "test": 0}


def test_five_annotated_events_of_ucf_crime_end_after_their_video(shared_data: Path) -> None:
    folder = shared_data / "ucf_crime"
    videos = ucf_crime(folder / "annotations/Temporal_Anomaly_Annotation_New_mist.txt")
    files = {file.stem: file for file in (folder / "videos").glob("*.mp4")}
    splits = {"test": [replace(video, path=files.get(video.name)) for video in videos]}
    findings, facts = examine(splits)
    assert [(f.kind, f.video or len(f.videos)) for f in findings] == [
        ("missing", 288),
        *(
            ("beyond the end", f"{name}_x264")
            for name in ("Arson011", "Arson016", "Explosion033", "Fighting003", "Shooting015")
        ),
    ]
    assert (facts.files, facts.frames) == ({"test": 2}, 347 + 450)
