"""Videos without annotation: found, named, scored by the command; and a stream, scored as it comes and never ahead."""

from __future__ import annotations

import csv
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli import main
from datamodules import OwnVideos
from tests.loopback import Loopback, reset, send, stall, ts_pictures
from tests.tiny_videos import write_tiny_video
from vigil.video import read_frames, write_video

SYSTEM = """\
model:
  class_path: tests.tiny_systems.PixelDifference
  init_args: {view: {frames: 4, stride: 1, hop: 8}}
trainer: {accelerator: cpu, devices: 1, enable_progress_bar: false, logger: false}
"""
HOP = 8


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "system.yaml").write_text(SYSTEM)
    return tmp_path


def predict(*more: str) -> Path:
    """The folder that `lightning predict` leaves."""
    main(["predict", "-c", "system.yaml", "--data=OwnVideos", *more])
    (folder,) = Path("runs").glob("*/predict-*")
    return folder


def rows(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture
def some(here: Path) -> Path:
    """Files of several containers, in folders, two of one name, a folder of images among them."""
    for index, name in enumerate(("a.mp4", "deep/b.mkv", "deep/c.avi", "other/a.mp4", "deep/b.webm.txt")):
        if not name.endswith("txt"):
            write_tiny_video(here / "videos" / name, 20 + index, index)
        else:
            (here / "videos" / name).write_text("no video")
    (here / "videos" / "images").mkdir()
    for number in range(12):
        Image.fromarray(np.full((24, 32, 3), 20 * number, np.uint8)).save(here / "videos" / "images" / f"{number}.png")
    return here


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("videos/a.mp4", ["a"]),
        (["videos/a.mp4", "videos/deep"], ["a", "b", "c"]),
        ("videos", ["images", "b", "c", "other-a.mp4", "videos-a.mp4"]),
        ("videos/**/*.mp4", ["other-a.mp4", "videos-a.mp4"]),
        ("videos/images", ["images"]),
    ],
)
def test_files_folders_and_patterns_become_videos_with_names_of_their_own(
    some: Path, given: str | list[str], names: list[str]
) -> None:
    videos = OwnVideos(given, num_workers=0).known("predict")
    assert sorted(video.name for video in videos) == sorted(names)
    assert all(video.n_frames >= 12 for video in videos)


def test_a_folder_of_images_has_the_rate_that_is_given_and_a_file_its_own(some: Path) -> None:
    def rates(**given: float) -> dict[str, float | None]:
        videos = OwnVideos(["videos/images", "videos/a.mp4"], num_workers=0, **given).known("predict")
        return {video.name: video.fps for video in videos}

    assert rates() == {"images": None, "a": 25}
    assert rates(fps=12.5) == {"images": 12.5, "a": 25}


@pytest.mark.parametrize("fps", [0, -25.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(fps: float) -> None:
    with pytest.raises(ValueError, match=r"fps .*: frames per second, more than 0, are expected"):
        OwnVideos("videos", fps=fps)


def test_a_thumbnail_beside_videos_is_no_video(some: Path) -> None:
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(some / "videos" / "deep" / "thumb.jpg")
    (some / "videos" / "deep" / "._b.mkv").write_bytes(b"resource fork")
    assert [video.name for video in OwnVideos("videos/deep").known("predict")] == ["b", "c"]


def test_what_is_not_there_or_no_video_is_named(some: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"videos/x\.mp4: no such video, nor a folder or pattern"):
        OwnVideos("videos/x.mp4").known("predict")
    (some / "videos" / "bad.mp4").write_bytes(b"\0" * 999)
    with pytest.raises(ValueError, match=r"1 of 6 videos cannot be read: .*bad\.mp4: not a video"):
        OwnVideos("videos").known("predict")
    assert len(OwnVideos("videos", missing="leave_out").known("predict")) == 5
    with pytest.raises(ValueError, match=r"bad\.mp4"):
        OwnVideos("videos/bad.mp4", missing="leave_out").known("predict")


def test_either_videos_or_a_stream_and_only_for_predict(some: Path) -> None:
    for options in ({}, {"videos": "videos", "follow": "tcp://127.0.0.1:9"}):
        with pytest.raises(ValueError, match=r"--data\.videos FILE, or --data\.follow ADDRESS"):
            OwnVideos(**options)
    with pytest.raises(ValueError, match="use `lightning predict`"):
        OwnVideos("videos").known("test")


def test_the_command_scores_every_frame_of_every_video(some: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = predict("--data.videos=videos")
    found = rows(folder / "scores.csv")
    length = {row["video"]: int(row["end_frame"]) for row in found}
    assert length == {"images": 12, "b": 21, "c": 22, "other-a.mp4": 23, "videos-a.mp4": 20}
    assert {file.stem for file in (folder / "curves").iterdir()} == set(length)
    assert len(list((folder / "overlays").iterdir())) == 5
    assert "no events.csv: the system has no threshold" in capsys.readouterr().out


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[list[bytes], Path]:
    """The bytes of an MPEG-TS of 60 frames, picture by picture, and its file."""
    write_tiny_video(tmp_path / "film.mp4", 60, 3)
    frames = read_frames(tmp_path / "film.mp4", list(range(60)))
    write_video(tmp_path / "film.ts", frames, 25, keyframe_every=10, preset="ultrafast")
    return ts_pictures(tmp_path / "film.ts"), tmp_path / "film.ts"


EVENTS = """\
model: {class_path: tests.reading_systems.EventLayers}
trainer: {accelerator: cpu, devices: 1, enable_progress_bar: false, logger: false}
"""


def test_a_system_that_describes_events_is_shown_every_video_in_stretches(some: Path) -> None:
    (some / "system.yaml").write_text(EVENTS)
    folder = predict("--data.videos=videos", "--data.fps=20")
    found: dict[str, list[tuple[int, int]]] = {}
    for row in rows(folder / "captions.csv"):
        assert row["caption"].startswith("class ")
        assert row["reference"] == ""
        found.setdefault(row["video"], []).append((int(row["first_frame"]), int(row["end_frame"])))
    # half a second each: 10 frames of the images, and of 25 frames per second 12, 25, 37.5, …
    assert found == {
        "images": [(0, 10), (10, 12)], "b": [(0, 12), (12, 21)], "c": [(0, 12), (12, 22)],
        "other-a.mp4": [(0, 12), (12, 23)], "videos-a.mp4": [(0, 12), (12, 20)],
    }  # fmt: skip
    assert not (folder / "scores.csv").exists()


def test_a_video_without_a_rate_cannot_be_shown_in_seconds(some: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (some / "system.yaml").write_text(EVENTS)
    with pytest.raises(SystemExit):
        predict("--data.videos=videos")
    said = capsys.readouterr().err
    assert "images is to be described in stretches of 0.5 s, but has no frames per second; set data.init_args" in said


def test_a_stream_refuses_a_system_that_describes_events(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "system.yaml").write_text(EVENTS)
    with pytest.raises(SystemExit) as stop:
        predict("--data.follow=tcp://127.0.0.1:9")
    assert stop.value.code == 1
    assert "EventLayers describes stretches of 0.5 s that are there as a whole, a stream" in capsys.readouterr().err


WAIT = ("--data.patience_s=0.7", "--data.stall_s=5")


def test_a_stream_is_scored_as_it_comes(here: Path, pictures: tuple[list[bytes], Path]) -> None:
    with Loopback([send(pictures[0], fps=100)]) as source:
        folder = predict(f"--data.follow={source.tcp}", *WAIT)
    live, facts = rows(folder / "live.csv"), json.loads((folder / "stream.json").read_text())
    assert [int(row["frame"]) for row in live] == list(range(0, 60, HOP))
    assert (facts["frames"], facts["frames_lost"], facts["causal"]) == (60, 0, True)
    assert facts["delay"]["count"] == len(live)
    assert 0 < facts["delay"]["mean_s"] <= facts["delay"]["largest_s"]
    assert facts["largest_fill_of_buffer"] <= 64
    scores = rows(folder / "scores.csv")
    assert int(scores[-1]["end_frame"]) == 60
    protocol = json.loads((folder / "metrics.json").read_text())["protocol"]
    assert protocol["judged"]["dataset"] == "OwnVideos"
    assert (protocol["stated"]["online"], protocol["stated"]["future_frames"]) == (True, 0)
    at = {int(row["first_frame"]): float(row["score"]) for row in scores}
    for row in live:  # the score that went out at a frame is the one that stands for it
        first = max(frame for frame in at if frame <= int(row["frame"]))
        assert at[first] == pytest.approx(float(row["score"]), abs=1e-7)


def test_no_later_frame_changes_a_score(here: Path, pictures: tuple[list[bytes], Path]) -> None:
    film = read_frames(pictures[1], list(range(60))) // 8
    write_video(here / "other.ts", film, 25, keyframe_every=10, preset="ultrafast")
    other = ts_pictures(here / "other.ts")
    live = []
    for number, later in enumerate((pictures[0][30:], other[30:])):  # the same bytes up to a keyframe
        file = here / f"{number}.ts"
        file.write_bytes(b"".join(pictures[0][:30] + later))
        folder = predict(f"--data.follow={file}", *WAIT)
        live.append([row["score"] for row in rows(folder / "live.csv")])
        folder.rename(here / f"done{number}")
    assert live[0][:4] == live[1][:4]  # at frames 0, 8, 16, 24
    assert live[0][4:] != live[1][4:]


def test_a_stream_that_stalls_drops_and_comes_back_is_followed_on(
    here: Path, pictures: tuple[list[bytes], Path]
) -> None:
    first, second = pictures[0][:30], pictures[0][30:]
    scripts = ([send(first[:15]), stall(0.3), send(first[15:]), reset], 0.2, [send(second)])
    with Loopback(*scripts) as source:
        folder = predict(f"--data.follow={source.tcp}", "--data.patience_s=1.5")
    facts = json.loads((folder / "stream.json").read_text())
    assert facts["frames"] >= 55
    assert any("reset" in gap["reason"] for gap in facts["gaps"])
    assert int(rows(folder / "scores.csv")[-1]["end_frame"]) == facts["frames"]


def test_ctrl_c_ends_a_stream_and_everything_is_written(here: Path, pictures: tuple[list[bytes], Path]) -> None:
    def interrupt() -> None:
        live = None
        while live is None or len(live.read_text().splitlines()) < 4:
            time.sleep(0.05)
            live = next(here.glob("runs/*/predict-*/live.csv"), None)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with Loopback([send(pictures[0] * 50, fps=50)]) as source:
        folder = predict(f"--data.follow={source.tcp}", *WAIT)
    thread.join()
    facts = json.loads((folder / "stream.json").read_text())
    assert 2 * HOP < facts["frames"] < 3000
    assert int(rows(folder / "scores.csv")[-1]["end_frame"]) == facts["frames"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_stream_that_never_comes_is_an_error_that_names_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        predict("--data.follow=tcp://127.0.0.1:9", "--data.patience_s=0.3")
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "tcp://127.0.0.1:9: refused; waited for up to 0.3 s" in said
    assert "error: tcp://127.0.0.1:9: no frame came (refused)" in said
