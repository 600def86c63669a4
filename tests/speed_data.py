"""Set-up, loaders and the exposure mixture, beside the decoding that nobody can save. `make speed`."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from datamodules import PseudoAnomaly, UcfCrime
from datamodules.clips import WindowDataset
from datamodules.video_data import VideoDataModule
from lightning_modules import MilRanker
from tests.conftest import SpeedRow
from tests.speed_exposure import HEIGHT, WIDTH, label_maps, palette_clips, run_length_clips, sentences
from tests.tiny_systems import TinyClips
from tests.tiny_videos import write_tiny_video
from vigil import annotations, video
from vigil.types import Video, View


def fastest(work: Callable[[], object], rounds: int = 3) -> float:
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def test_reading_all_annotation(shared_data: Path, speed_row: SpeedRow) -> None:
    xd, uca = shared_data / "xd_violence", shared_data / "uca"
    lists = [xd / "annotations" / f"annotations{kind}.txt" for kind in ("", "_multiclasses")]
    lists += [xd / "lists" / f"xd_{split}_names_labels.csv" for split in ("train", "test")]
    parts = [uca / "json" / f"UCFCrime_{part}.json" for part in ("Train", "Val", "Test")]
    times = {
        "XD-Violence": fastest(lambda: [annotations.xd_violence(file) for file in lists]),
        "UCA": fastest(lambda: [annotations.uca_events(file) for file in parts]),
    }
    for name, seconds in times.items():
        speed_row(f"all annotation of {name}", seconds, {}, "at most 0.5 s")
        assert seconds < 0.5


def test_setting_up_the_full_ucf_crime_opens_no_video(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed_row: SpeedRow
) -> None:
    root, source = tmp_path / "ucf", shared_data / "ucf_crime"
    write_tiny_video(tmp_path / "one.mp4", 16, 0)
    names = ("lists/Anomaly_Train.txt", "lists/Anomaly_Test.txt", "annotations/Temporal_Anomaly_Annotation.txt")
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes((source / name).read_bytes())
    for line in (root / names[0]).read_text().split() + (root / names[1]).read_text().split():
        (root / "Videos" / line).parent.mkdir(parents=True, exist_ok=True)
        os.link(tmp_path / "one.mp4", root / "Videos" / line)

    def known() -> list[int]:
        data = UcfCrime(str(root))
        data.judged = lambda videos: videos  # 16 frames are too few for the real events
        return [len(data.known(split)) for split in ("train", "val", "test")]

    assert sum(known()) == 1900
    monkeypatch.setattr("datamodules.video_data.probe", lambda path: pytest.fail(f"{path} was opened"))
    seconds = fastest(known)
    speed_row("set-up of UCF-Crime's 1,900 videos, known before", seconds, {}, "at most 1 s, no video opened")
    assert seconds < 1


def test_a_loader_costs_little_beside_its_decoding(tmp_path: Path, speed_row: SpeedRow) -> None:
    for number in range(4):
        write_tiny_video(tmp_path / f"{number}.mp4", 600, number, 240, 320)
    view = View(frames=4, stride=4, hop=16)

    class Films(VideoDataModule):
        def annotated(self, split: str) -> list[Video]:
            return [Video(f"{number}", label=0) for number in range(4)]

    data = Films(str(tmp_path), num_workers=0)
    data.watch(MilRanker(encoder="demo_deit", weights=None, test_view=view))
    dataset = data.scoring_dataset(data.known("test"))
    assert isinstance(dataset, WindowDataset)
    asked = [
        (v.path, view.indices(v.n_frames)[a:b].ravel()) for i, a, b in dataset.items for v in [data.known("test")[i]]
    ]
    alone = fastest(lambda: deque((video.read_frames(*frames) for frames in asked), maxlen=0))
    loaded = fastest(lambda: deque(data.test_dataloader(), maxlen=0))
    speed_row("windows of four 20 s videos, one process", loaded, {"decoding alone": alone}, "at most 1.1 of decoding")
    assert loaded < 1.1 * alone


def test_the_exposure_mixture_beyond_decoding(tmp_path: Path, speed_row: SpeedRow) -> None:
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    image = generator.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    for folder, build in (
        ("coco_stuff", label_maps), ("refer", sentences), ("youtube_vos", palette_clips), ("mevis", run_length_clips),
    ):  # fmt: skip
        build(tmp_path / folder, generator, image) if folder != "refer" else _refer(tmp_path, generator, image)
    mixture = dict.fromkeys(("coco_stuff", "refcoco", "youtube_vos", "mevis"), 0.25)
    data = PseudoAnomaly(str(tmp_path), mixture=mixture, num_workers=0)
    data.watch(TinyClips(View(frames=8, stride=1, hop=8)))
    exposures = data.exposures("train")
    keys = [(0, index, index % 2 == 0) for index in range(100)]
    for key in keys:
        _ = exposures[key]  # label images are looked at once and remembered
    whole = fastest(lambda: deque((exposures[key] for key in keys), maxlen=0))  # kept, they would be 1.3 GB
    drawn = [exposures._draw(*key) for key in keys]

    def decode() -> None:
        for name, i, frames, phrases, anomalous, _ in drawn:
            masks = data.sets[name].masks(i, frames)
            if anomalous:
                _ = [masks[phrase] for phrase in phrases if phrase in masks]
            data.sets[name].pixels(i, frames)

    decoding = fastest(decode)
    others = {"its decoding alone": decoding / len(keys)}
    speed_row("an exposed sample of 480x854", whole / len(keys), others, "at most 5 ms beyond its decoding")
    assert whole - decoding < len(keys) / 200


def _refer(root: Path, generator: np.random.Generator, image: np.ndarray) -> None:
    (root / "refer").mkdir()
    sentences(root / "refer", generator, image)
