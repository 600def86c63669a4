"""The demo world on disk, in UCF-Crime's own layout and annotation format: the ordinary UcfCrime code reads it."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vigil.crimes import REPEATABLE
from vigil.recording import record
from vigil.scenes import CATEGORIES, PRETRAINING_SEEDS, VERSION, Scene, make_scene

FPS = 30.0
MARKER = "demo_world.json"  # which world a folder holds, and whether it is complete
# training and test videos per class, training and test normals, fewest and most frames
SIZES = {"tiny": (1, 1, 3, 3, 48, 64), "small": (1, 1, 8, 8, 64, 96), "full": (4, 2, 52, 20, 150, 260)}
TINY_CLASSES = ("Arson", "Fighting", "Vandalism")


@dataclass(frozen=True)
class DemoVideo:
    """One video of a demo split: name and folder as in UCF-Crime, and what make_scene needs."""

    name: str
    folder: str
    split: str
    scene_seed: int
    category: str
    n_frames: int
    n_events: int

    @property
    def file(self) -> str:
        """As the lists spell it."""
        return f"{self.folder}/{self.name}.mp4"

    def scene(self) -> Scene:
        """The scene this video shows."""
        return make_scene(self.scene_seed, self.category, self.n_frames, n_events=self.n_events)


def plan(seed: int = 0, size: str = "full") -> list[DemoVideo]:
    """Which videos the demo world of this seed holds, training first.

    Training normals are named without an underscore before the number and test normals with one, as in UCF-Crime; no
    two share a number. Raises ValueError for an unknown size or a negative seed.
    """
    if size not in SIZES or seed < 0:
        raise ValueError(f"size {size!r}, seed {seed}: expected a size of {', '.join(SIZES)} and a seed of at least 0")
    train, test, train_normals, test_normals, fewest, most = SIZES[size]
    rng = np.random.default_rng([seed, sorted(SIZES).index(size)])
    found: list[DemoVideo] = []

    def add(name: str, folder: str, split: str, category: str, n_events: int = 1) -> None:
        scene_seed = PRETRAINING_SEEDS.stop + 1000 * seed + len(found)
        n_frames = int(rng.integers(fewest, most + 1))
        found.append(DemoVideo(f"{name}_x264", folder, split, scene_seed, category, n_frames, n_events))

    for split, first, count in (("train", 1, train), ("test", train + 1, test)):
        for category in TINY_CLASSES if size == "tiny" else CATEGORIES:
            for number in range(first, first + count):
                twice = number == first + count - 1 and category in REPEATABLE  # one of each that can
                add(f"{category}{number:03d}", category, split, category, 2 if twice else 1)
        if split == "train":
            for number in range(1, train_normals + 1):
                add(f"Normal_Videos{number:03d}", "Training_Normal_Videos_Anomaly", split, "Normal")
        else:
            for number in range(train_normals + 1, train_normals + test_normals + 1):
                add(f"Normal_Videos_{number:03d}", "Testing_Normal_Videos_Anomaly", split, "Normal")
    return found


def write_ucf_crime(root: str | Path, seed: int = 0, size: str = "full") -> None:
    """Render the demo world into root, unless it is there already.

    Writes Videos/<class>/<name>.mp4, Anomaly_Train.txt, Anomaly_Test.txt, Temporal_Anomaly_Annotation.txt (of the test
    videos), demo_masks/<name>.npz (vigil.recording.read_masks) and uca/UCFCrime_{Train,Val,Test}.json, as `write_demo`
    does it.
    """
    wanted: dict[str, object] = {"seed": seed, "size": size, "version": VERSION, "captions": 2}  # 1: beyond the end
    videos = plan(seed, size)
    write_demo(root, wanted, lambda folder: _render(folder, videos))


def write_demo(root: str | Path, wanted: dict[str, object], render: Callable[[Path], None]) -> None:
    """Have `render(folder)` write a demo copy into root, unless the one that `wanted` (JSON-able) describes is there.

    Everything is written beside root and moved there at the end, under a lock, so that several processes may call this
    at once. A copy that is unfinished or of another description is written again. Raises ValueError where root holds
    anything else.
    """
    root = Path(root).absolute()
    wanted = wanted | {"finished": True}
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.parent / f".{root.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if root.is_dir() and any(root.iterdir()):
            if not (root / MARKER).is_file():
                raise ValueError(
                    f"{root} holds files and no {MARKER}: it is no demo world; name an empty or a new folder"
                )
            if _marker(root) == wanted:
                return
        fresh = Path(tempfile.mkdtemp(prefix=f".{root.name}.", dir=root.parent))
        try:
            fresh.chmod(0o755)
            (fresh / MARKER).write_text(json.dumps(wanted | {"finished": False}))
            render(fresh)
            (fresh / MARKER).write_text(json.dumps(wanted))
            if root.exists():
                shutil.rmtree(root)
            os.replace(fresh, root)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


def is_demo(root: str | Path) -> bool:
    """Whether a folder holds a demo copy of a dataset, which is smaller than the real one."""
    return (Path(root) / MARKER).is_file()


def _marker(root: Path) -> dict[str, object] | None:
    try:
        return dict(json.loads((root / MARKER).read_text()))
    except (ValueError, TypeError):
        return None  # cut off while it was written: not finished


def _render(root: Path, videos: list[DemoVideo]) -> None:
    for folder in {"demo_masks", "uca", *(f"Videos/{video.folder}" for video in videos)}:
        (root / folder).mkdir(parents=True)
    jobs = [
        (
            root / "Videos" / v.file,
            root / "demo_masks" / f"{v.name}.npz",
            FPS,
            v.scene_seed,
            v.category,
            v.n_frames,
            v.n_events,
        )
        for v in videos
    ]
    scenes = in_parallel(record, jobs, sum(video.n_frames for video in videos))
    for split in ("Train", "Test"):
        files = sorted(video.file for video in videos if video.split == split.lower())
        (root / f"Anomaly_{split}.txt").write_text("".join(f"{file}\n" for file in files))
    _write_annotation(root, videos, [anomalies for anomalies, _ in scenes])
    _write_captions(root, videos, [captions for _, captions in scenes])


def in_parallel(record: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], n_frames: int) -> list[Any]:
    """[record(*job) for each job], in processes of their own where `n_frames` altogether are worth starting them."""
    workers = min(8, len(os.sched_getaffinity(0)))
    if workers > 1 and n_frames > 4000:
        # spawn: a fork of a process that already runs torch's threads can deadlock
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            return pool.starmap(record, jobs, chunksize=1)
    return [record(*job) for job in jobs]


def _write_annotation(root: Path, videos: list[DemoVideo], anomalies: list[list[tuple[int, int]]]) -> None:
    lines = []
    for video, intervals in zip(videos, anomalies, strict=True):
        if video.split == "test":
            times = [str(time) for interval in intervals for time in interval] + ["-1"] * (4 - 2 * len(intervals))
            # two blanks between columns and two at the end, as in the file of the dataset's authors
            lines.append("".join(f"{column}  " for column in (f"{video.name}.mp4", video.category, *times)) + "\n")
    (root / "Temporal_Anomaly_Annotation.txt").write_text("".join(sorted(lines)))


def _write_captions(root: Path, videos: list[DemoVideo], captions: list[list[tuple[int, int, str]]]) -> None:
    splits: dict[str, dict[str, object]] = {"Train": {}, "Val": {}, "Test": {}}
    for number, (video, sentences) in enumerate(zip(videos, captions, strict=True)):
        split = "Test" if video.split == "test" else "Val" if number % 5 == 4 else "Train"
        duration = round(video.n_frames / FPS, 2)
        splits[split][video.name] = {
            "duration": duration,
            "timestamps": [[round(a / FPS, 1), min(round(b / FPS, 1), duration)] for a, b, _ in sentences],
            "sentences": [sentence for *_, sentence in sentences],
        }
    for split, entries in splits.items():
        (root / "uca" / f"UCFCrime_{split}.json").write_text(json.dumps(entries, indent=4) + "\n")
