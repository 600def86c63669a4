"""`lightning check` as a user types it: clean copies, planted faults, and what it says of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cli import main
from datamodules import UcfCrime, XdViolence
from datamodules.demo import TINY_CLASSES, write_ucf_crime
from datamodules.demo_campus import write_shanghaitech, write_ubnormal, write_ucsd_ped2
from datamodules.demo_segmentation import write_segmentation
from datamodules.demo_xd_violence import write_xd_violence
from tests.conftest import ROOT
from tests.tiny_videos import write_tiny_video
from vigil.video import probe

WRITERS = {
    "UcfCrime": write_ucf_crime,
    "XdViolence": write_xd_violence,
    "ShanghaiTech": write_shanghaitech,
    "UbNormal": write_ubnormal,
    "UcsdPed2": write_ucsd_ped2,
    "PseudoAnomaly": write_segmentation,
}
POSITIVE = "class without a positive"
UCF_ABSENT = {POSITIVE: 2 * (len(UcfCrime("").categories) - len(TINY_CLASSES))}  # of training and of test
XD_ABSENT = {POSITIVE: 4 + 2}  # a tiny copy trains on B1 and G, tests B1, B6 and G-B2-B6

Told = dict[str, Any]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny demo copy of every dataset."""
    top = tmp_path_factory.mktemp("demo")
    for name, write in WRITERS.items():
        write(top / name, size="tiny")
    return top


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def config_of(kind: str, **options: Any) -> str:
    file = Path(f"{kind}.yaml")
    options = {key: str(value) if isinstance(value, Path) else value for key, value in options.items()}
    file.write_text(yaml.safe_dump({"data": {"class_path": kind, "init_args": options}}))
    return str(file)


def check(config: str, *more: str) -> tuple[int, Told]:
    """Status of the command and its JSON."""
    status: Any = 0
    try:
        main(["check", "-c", config, "--json", "out/found.json", *more])
    except SystemExit as stop:
        status = stop.code
    return status, json.loads(Path("out/found.json").read_text())


def kinds(told: Told) -> dict[str, int]:
    found = [finding["kind"] for finding in told["findings"]]
    return {kind: found.count(kind) for kind in found}


def named(told: Told) -> set[tuple[str, str, str | None]]:
    """(kind, split, video) of every finding but the classes that a tiny copy does not have."""
    return {(f["kind"], f["split"], f["video"]) for f in told["findings"] if f["kind"] != POSITIVE}


# clean copies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("--quick",)])
@pytest.mark.parametrize(
    ("kind", "n_files", "absent"),
    [("UcfCrime", 12, UCF_ABSENT), ("Uca", 12, UCF_ABSENT), ("XdViolence", 9, XD_ABSENT), ("ShanghaiTech", 8, {}),
     ("UbNormal", 7, {}), ("UcsdPed2", 5, {}), ("PseudoAnomaly", 0, {})],
)  # fmt: skip
def test_nothing_is_wrong_with_a_demo_copy_but_the_classes_that_it_lacks(
    kind: str,
    n_files: int,
    absent: dict[str, int],
    more: tuple[str, ...],
    copies: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, told = check(config_of(kind, root=copies / ("UcfCrime" if kind == "Uca" else kind)), *more)
    assert kinds(told) == absent
    assert status == int(bool(absent))
    checked = told["checked"]
    assert sum(checked["files"].values()) == sum(checked["videos"].values()) == n_files
    assert checked["decoded"] == (not more)
    said = capsys.readouterr().out
    assert ("nothing wrong." in said) == (not absent)
    assert ("54 samples looked at" in said) == (kind == "PseudoAnomaly")


def test_a_second_check_reads_no_video(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of("XdViolence", root=copies / "XdViolence")
    first = check(config)

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was read again")

    monkeypatch.setattr("vigil.video.av.open", fail)
    second = check(config)
    for _, told in (first, second):
        del told["checked"]["took_s"]
    assert second == first
    with pytest.raises(AssertionError, match="read again"):
        probe(next((copies / "XdViolence").rglob("*.mp4")))


def test_a_whole_config_and_a_key_on_the_command_line_are_taken(
    copies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    demo = str(ROOT / "configs" / "demo.yaml")
    with pytest.raises(SystemExit) as stop:
        main(["check", "-c", demo, "--data.init_args.root", str(copies / "UcfCrime"), "--data.init_args.demo", "false"])
    assert stop.value.code == 1  # the classes
    assert "UcfCrime: 12 of 12 videos there" in capsys.readouterr().out


# planted faults ------------------------------------------------------------------------------------------------------


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_xd_violence(root: Path) -> set[tuple[str, str, str | None]]:
    train, test = (root / f"XD-Violence-{split}" / "videos" for split in ("train", "test"))
    empty, intact = sorted(train.glob("*label_A.mp4"))
    empty.write_bytes(b"")
    (cut,) = train.glob("*label_G*")
    halve(cut)
    (gone,) = test.glob("*label_B6*")
    gone.unlink()
    shutil.copy(intact, test / "v=aaaaaaaaaaa__#1_label_A.mp4")
    twice = sorted(test.glob("*label_A.mp4"))[0]
    shutil.copy(twice, test / "v=bbbbbbbbbbb__#1_label_A.mp4")
    file = root / "XD-Violence-test" / "annotations.txt"
    text, (late,) = file.read_text(), test.glob("*label_B1-0-0.mp4")
    file.write_text(re.sub(rf"({re.escape(late.stem)}.*) \d+$", r"\1 9999", text, flags=re.MULTILINE))
    return {
        ("unreadable", "train", empty.stem),
        ("unreadable", "train", cut.stem),  # an mp4 without its index
        ("missing", "test", gone.stem),
        ("in both", "train", None),
        ("duplicate", "test", twice.stem),
        ("beyond the end", "test", late.stem),
    }


def damage_shanghaitech(root: Path) -> set[tuple[str, str, str | None]]:
    videos, testing = root / "training" / "videos", root / "testing"
    halve(videos / "01_001.avi")
    shutil.copy(videos / "04_001.avi", videos / "04_002.avi")
    halve(testing / "frames" / "01_0014" / "010.jpg")
    mask = testing / "test_pixel_mask" / "01_0015.npy"
    np.save(mask, np.load(mask)[:-5])
    for frame in (3, 4, 5):
        (testing / "frames" / "04_0014" / f"{frame:03d}.jpg").unlink()
    shutil.rmtree(testing / "frames" / "04_0015")
    (testing / "frames" / "04_0015").mkdir()
    return {
        ("truncated", "train", "01_001"),
        ("duplicate", "train", "04_001"),
        ("unreadable", "test", "01_0014"),
        ("mask", "test", "01_0015"),
        ("truncated", "test", "04_0014"),
        ("unreadable", "test", "04_0015"),
    }


@pytest.mark.parametrize(
    ("kind", "damage", "absent"),
    [("XdViolence", damage_xd_violence, XD_ABSENT), ("ShanghaiTech", damage_shanghaitech, {})],
)
def test_each_planted_fault_is_found_and_nothing_else(
    kind: str,
    damage: Callable[[Path], set[tuple[str, str, str | None]]],
    absent: dict[str, int],
    copies: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = Path(shutil.copytree(copies / kind, here / "copy"))
    planted = damage(root)
    status, told = check(config_of(kind, root=root))
    assert status == 1
    assert named(told) == planted
    assert len(told["findings"]) == len(planted) + sum(absent.values())
    said = capsys.readouterr().out
    for finding in told["findings"]:
        assert finding["todo"]
        assert finding["found"] in said  # whole, however narrow the screen: a pipe is not wrapped
    assert f"{len(told['findings'])} findings." in said
    if kind == "XdViolence":
        (both,) = (f for f in told["findings"] if f["kind"] == "in both")
        assert (both["other_split"], both["videos"]) == ("test", ["v=aaaaaaaaaaa__#1_label_A"])


def test_only_decoding_finds_a_broken_image(copies: Path, here: Path) -> None:
    root = Path(shutil.copytree(copies / "ShanghaiTech", here / "copy"))
    halve(root / "testing" / "frames" / "01_0014" / "010.jpg")
    config = config_of("ShanghaiTech", root=root)
    assert check(config, "--quick")[0] == 0
    assert named(check(config)[1]) == {("unreadable", "test", "01_0014")}


def test_a_video_of_ones_own_that_is_broken_is_named(copies: Path, here: Path) -> None:
    folder = Path(shutil.copytree(copies / "UcfCrime" / "Videos" / "Arson", here / "[red]own"))
    (folder / "[b]broken.mp4").write_text("404: not found\n")
    status, told = check(config_of("OwnVideos", videos=str(folder)))
    assert (status, named(told)) == (1, {("unreadable", "predict", "[b]broken")})
    assert sum(told["checked"]["files"].values()) == 3


def test_a_broken_sample_of_a_segmentation_set_is_named_and_so_is_a_set_that_is_not_there(
    copies: Path, here: Path
) -> None:
    root = Path(shutil.copytree(copies / "PseudoAnomaly", here / "copy"))
    image = sorted((root / "ade20k").rglob("*.jpg"))[0]
    halve(image)
    status, told = check(config_of("PseudoAnomaly", root=root))
    (finding,) = told["findings"]
    assert (status, finding["kind"]) == (1, "annotation")
    assert image.stem in finding["found"]
    shutil.rmtree(root / "mevis")
    status, told = check(config_of("PseudoAnomaly", root=root))
    assert (status, kinds(told)) == (1, {"annotation": 1})
    assert "mevis" in told["findings"][0]["found"]


def test_annotation_that_cannot_be_read_is_one_finding_of_its_split_and_the_others_are_checked(
    copies: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(copies / "XdViolence", here / "copy"))
    file = root / "XD-Violence-test" / "annotations.txt"
    file.write_text(file.read_text() + "\nThe.Ninth.Lantern.2015 9 3\n")
    status, told = check(config_of("XdViolence", root=root))
    assert (status, named(told)) == (1, {("annotation", "test", None)})
    (finding,) = (f for f in told["findings"] if f["kind"] == "annotation")
    assert re.search(r"annotations\.txt: 1 bad of \d: line \d", finding["found"])
    assert told["checked"]["files"] == {"train": 4}
    assert finding["found"] in capsys.readouterr().out


def test_a_uca_file_that_cannot_be_read_is_one_finding(copies: Path, here: Path) -> None:
    root = Path(shutil.copytree(copies / "UcfCrime", here / "copy"))
    (root / "uca" / "UCFCrime_Val.json").write_text("{")
    status, told = check(config_of("Uca", root=root))
    assert (status, named(told)) == (1, {("annotation", "val", None)})


def test_an_event_of_uca_after_the_last_frame_is_named(copies: Path, here: Path) -> None:
    root = Path(shutil.copytree(copies / "UcfCrime", here / "copy"))
    file = root / "uca" / "UCFCrime_Test.json"
    entries = json.loads(file.read_text())
    entries["Arson002_x264"]["duration"] = 60.0  # as if of a longer cut
    entries["Arson002_x264"]["timestamps"][-1] = [0.5, 50.0]
    file.write_text(json.dumps(entries))
    _, told = check(config_of("Uca", root=root))
    (finding,) = (f for f in told["findings"] if f["kind"] == "annotation")
    event = f"Arson002_x264 event {len(entries['Arson002_x264']['timestamps'])}"
    assert re.fullmatch(
        rf"UCFCrime_Test\.json, {event}: 0\.5-50\.0 s, the video's last frame ends at [12]\.\d s", finding["found"]
    )


# what the user gets wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "status", "words"),
    [
        (["-c", "nothing.yaml"], 2, "nothing.yaml"),
        ([], 2, "A system and data come from configs"),
        (["-c", "XdViolence.yaml", "--data.init_args.rot", "x"], 2, "'rot' is not a key here; did you mean 'root'?"),
        (["-c", "XdViolence.yaml", "--quik"], 2, "did you mean 'quick'?"),
        (["-c", "XdViolence.yaml", "--workers", "-1"], 1, "n_workers=-1"),
        (["-c", "XdViolence.yaml", "--json", "."], 1, "Is a directory"),
        (["-c", "XdViolence.yaml", "--test_on", "no.yaml"], 1, "--test_on no.yaml: no such config"),
        (["-c", "XdViolence.yaml", "--test_on", "cpu.yaml"], 1, "--test_on cpu.yaml: no data: in it"),
        (["-c", "XdViolence.yaml", "--test_on", "own.yaml"], 1, "OwnVideos has no test split"),
        (["-c", "typo.yaml"], 2, "did you mean 'convention'?"),
    ],
)
def test_a_wrong_key_or_file_is_named_in_a_line(
    args: list[str], status: int, words: str, copies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_of("XdViolence", root=copies / "XdViolence")
    Path("cpu.yaml").write_text("trainer: {accelerator: cpu}\n")
    Path("own.yaml").write_text("data: {class_path: OwnVideos, init_args: {videos: a.mp4}}\n")
    Path("typo.yaml").write_text("data: {class_path: XdViolence, init_args: {root: ., convetion: full}}\n")
    with pytest.raises(SystemExit) as stop:
        main(["check", *args])
    said = capsys.readouterr().err
    assert stop.value.code == status
    assert words in said
    assert len(said.splitlines()) < 12
    assert "Traceback" not in said


def test_ctrl_c_is_a_line_and_status_130(here: Path) -> None:
    write_tiny_video(here / "videos" / "0.mp4", 2000, 0)
    for number in range(1, 500):  # far more than are read meanwhile
        shutil.copy(here / "videos" / "0.mp4", here / "videos" / f"{number}.mp4")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    memory = Path(environment["VIGIL_CACHE"]) / "files.jsonl"
    checking = subprocess.Popen(
        [sys.executable, "-m", "cli", "check", "--data", "OwnVideos", "--data.videos", "videos", "--workers", "0"],
        cwd=here, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (memory.is_file() and memory.stat().st_size) and time.monotonic() < until and checking.poll() is None:
        time.sleep(0.01)
    checking.send_signal(signal.SIGINT)
    _, said = checking.communicate(timeout=30)
    assert checking.returncode == 130, said
    assert said.splitlines()[-1].startswith("Stopped. What was read is remembered")
    assert "Traceback" not in said


# the real lists ------------------------------------------------------------------------------------------------------


def test_214_and_22_ucf_crime_test_videos_are_in_ucas_training_and_validation(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tested = config_of("UcfCrime", root=shared_data / "ucf_crime")
    status, told = check(config_of("Uca", root=shared_data / "uca"), "--test_on", tested)
    shared = [f for f in told["findings"] if f["kind"] == "in both"]
    assert [(f["split"], len(f["videos"])) for f in shared] == [("train", 214), ("val", 22)]
    assert all(f["other_split"] == "UcfCrime test (UcfCrime.yaml)" for f in shared)
    assert status == 1
    assert kinds(told) == {"missing": 3, "in both": 2}  # the videos of UCA are not here
    said = capsys.readouterr().out
    assert "214 of 290 videos of UcfCrime test (UcfCrime.yaml) are in train" in said
    assert len(said.splitlines()) < 25


@pytest.mark.parametrize(("kind", "counts"), [("json", (142, 35, 18)), ("txt", (12, 2, 0))])
def test_every_irregular_entry_of_the_2023_uca_is_named(
    kind: str, counts: tuple[int, int, int], shared_data: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split in ("train", "val", "test"):
        file = f"UCFCrime_{split}.{kind}.gz"
        (here / file).symlink_to(shared_data / "uca" / "v1_2023" / file)
    status, told = check(config_of("Uca", root=here, release="2023"))
    assert status == 1
    found = [f["found"] for f in told["findings"] if f["kind"] == "annotation"]
    of_split = [
        [text for text in found if text.startswith(f"UCFCrime_{s}.{kind}.gz, ")] for s in ("train", "val", "test")
    ]
    assert tuple(map(len, of_split)) == counts
    place = r"line \d+: .*Normal|line \d+: .*" if kind == "txt" else r"\w+_x264 event \d+: [\d.]+-[\d.]+ s .*"
    assert all(re.fullmatch(rf"UCFCrime_\w+\.{kind}\.gz, ({place})", text) for text in found)
    assert len(set(found)) == sum(counts)
    said = capsys.readouterr().out
    assert ("and 175 more; --json FILE writes all of them" in said) == (kind == "json")
    if kind == "txt":
        assert "UCFCrime_train.txt.gz, line 1472: a time has seconds of three digits" in said


def test_a_copy_of_xd_violence_is_compared_with_another_dataset_by_content(copies: Path, here: Path) -> None:
    root = Path(shutil.copytree(copies / "UcfCrime", here / "copy"))
    video = XdViolence(str(copies / "XdViolence")).known("test")[0]
    (there,) = root.rglob("Arson001_x264.mp4")
    shutil.copy(video.path, there)
    _, told = check(config_of("UcfCrime", root=root), "--test_on", config_of("XdViolence", root=copies / "XdViolence"))
    (both,) = (f for f in told["findings"] if f["kind"] == "in both")
    assert both["videos"] == [video.name]
    assert "(there as Arson001_x264)" in both["found"]
