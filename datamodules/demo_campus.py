"""Demo copies of ShanghaiTech, UBnormal and UCSD Ped2 on disk, in their authors' layouts, with scenes of the campus.

As in the originals a camera hangs for good: videos of one scene share their view. Pictures are 160 x 120; the originals
are wider (856 x 480, 1280 x 720, 360 x 240), which no reader may rely on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.demo import in_parallel, write_demo
from datamodules.demo_xd_violence import check_plan
from vigil.campus import EVENTS, Shot
from vigil.campus import VERSION as CAMPUS_VERSION
from vigil.recording import record_shanghaitech, record_shot, record_ubnormal, record_ucsd
from vigil.scenes import VERSION

# each copy has ten million seeds of its own; those from _CAMERA on in each thousand are of views
SHANGHAITECH_SEEDS, UBNORMAL_SEEDS, PED2_SEEDS = 20_000_000, 30_000_000, 40_000_000
_CAMERA = 500
AVI_FPS, UBNORMAL_FPS = 24.0, 30.0


@dataclass(frozen=True)
class CampusVideo:
    """One video of a copy: its name, its splits and what it shows.

    split: of the one-class protocol, "train" or "test"; of UBnormal also "val". weak_split: of the weakly supervised
    one, ShanghaiTech alone.
    """

    name: str
    split: str
    shot: Shot
    weak_split: str | None = None


class _Shots:
    """Draws shots of one copy, each with a seed of its own."""

    def __init__(self, first_seed: int, seed: int, length: tuple[int, int]) -> None:
        self.base, self.count, self.length = first_seed + 1000 * seed, 0, length
        self.rng = np.random.default_rng([first_seed, seed, length[1]])

    def draw(self, scene: int, place: str, event: str | None, walkers: int, **look: bool) -> Shot:
        """Of the camera numbered `scene`, at this place."""
        self.count += 1
        n_frames = int(self.rng.integers(self.length[0], self.length[1] + 1))
        return Shot(self.base + self.count, self.base + _CAMERA + scene, place, n_frames, event, walkers, **look)


# cameras by scene, normal and anomalous videos of each, fewest and most frames
SHANGHAITECH_SIZES: dict[str, tuple[dict[int, str], int, int, tuple[int, int]]] = {
    "tiny": ({1: "yard", 4: "parking"}, 2, 2, (48, 64)),
    "full": ({1: "yard", 2: "street", 4: "parking", 12: "hall"}, 3, 4, (90, 130)),
}
SHANGHAITECH_EVENTS = ("cycling", "chasing", "fighting", "driving", "falling", "skating")


def plan_shanghaitech(seed: int = 0, size: str = "full") -> list[CampusVideo]:
    """Which videos the copy of this seed holds: normal ones first, named with three digits, anomalous ones with four.

    Of each scene the weakly supervised split trains on the first half of either kind, rounded up.
    Raises ValueError for an unknown size or a seed out of range.
    """
    check_plan(seed, size, SHANGHAITECH_SIZES)
    cameras, n_normal, n_anomalous, length = SHANGHAITECH_SIZES[size]
    shots = _Shots(SHANGHAITECH_SEEDS, seed, length)
    normal, anomalous = [], []
    for scene, place in cameras.items():
        for number in range(1, n_normal + 1):
            weak = "train" if 2 * number <= n_normal + 1 else "test"
            shot = shots.draw(scene, place, None, walkers=4)
            normal.append(CampusVideo(f"{scene:02d}_{number:03d}", "train", shot, weak))
        fitting = [event for event in SHANGHAITECH_EVENTS if place in EVENTS[event][1]]
        for number in range(1, n_anomalous + 1):
            weak = "train" if 2 * number <= n_anomalous + 1 else "test"
            event = fitting[(len(anomalous) + number // 2) % len(fitting)]
            shot = shots.draw(scene, place, event, walkers=3)
            anomalous.append(CampusVideo(f"{scene:02d}_{number + 13:04d}", "test", shot, weak))
    return normal + anomalous


def write_shanghaitech(root: str | Path, seed: int = 0, size: str = "full") -> None:
    """Render the demo copy of ShanghaiTech Campus into root, unless it is there already, as `write_demo` does it.

    Writes training/videos/<name>.avi (H.264; the originals are MPEG-4), testing/frames/<name>/000.jpg …,
    testing/test_pixel_mask/<name>.npy (T, Y, X) and test_frame_mask/<name>.npy (T,), uint8, a frame being anomalous
    where any pixel is, and the weakly supervised split SH_Train.txt and SH_Test.txt, without a final newline.
    """
    videos = plan_shanghaitech(seed, size)

    def render(folder: Path) -> None:
        normal = [video for video in videos if video.split == "train"]
        _record(record_shot, normal, lambda v: (folder / "training" / "videos" / f"{v.name}.avi", AVI_FPS, v.shot))
        anomalous = [video for video in videos if video.split == "test"]
        _record(record_shanghaitech, anomalous, lambda v: (folder / "testing", v.name, v.shot))
        for split in ("train", "test"):
            names = sorted(video.name for video in videos if video.weak_split == split)
            (folder / f"SH_{split.title()}.txt").write_text("\n".join(names))

    write_demo(root, _wanted("shanghaitech", seed, size), render)


# places by scene; of each split its anomalous videos as (scene, event, ending of the name), and scenes of normal ones
UBNORMAL_PLACES = {1: "street", 3: "yard", 5: "parking", 12: "hall", 20: "corridor"}
_UbNormalSplits = dict[str, tuple[tuple[tuple[int, str, str], ...], tuple[int, ...]]]
UBNORMAL_SIZES: dict[str, tuple[_UbNormalSplits, tuple[int, int]]] = {
    "tiny": (
        {
            "train": (((3, "falling", ""),), (3,)),
            "val": (((5, "skating", ""),), (5,)),
            "test": (((3, "fighting", ""), (5, "fire", "_fire")), (3,)),
        },
        (48, 64),
    ),
    "full": (
        {
            "train": (((3, "falling", ""), (1, "chasing", ""), (12, "falling", "_fog")), (1, 3, 5, 20)),
            "val": (((5, "skating", ""), (20, "skating", "")), (3, 12)),
            "test": (
                ((3, "fighting", ""), (1, "car accident", ""), (5, "fire", "_fire"), (12, "stealing", ""),
                 (20, "fighting", ""), (3, "stealing", "_fog"), (5, "car accident", ""), (1, "fire", "_fire")),
                (1, 3, 5, 12, 20),
            ),
        },
        (90, 130),
    ),
}  # fmt: skip


def plan_ubnormal(seed: int = 0, size: str = "full") -> list[CampusVideo]:
    """Which videos the copy of this seed holds; as in the original, no event of one split occurs in another.

    Names end in _fog or _fire where that is to be seen; the first normal one lacks an underscore, as 18 real ones do.
    Raises ValueError for an unknown size or a seed out of range.
    """
    check_plan(seed, size, UBNORMAL_SIZES)
    splits, length = UBNORMAL_SIZES[size]
    shots = _Shots(UBNORMAL_SEEDS, seed, length)
    found = []
    for split, (abnormal, normal) in splits.items():
        for scene, event, ending in abnormal:
            shot = shots.draw(scene, UBNORMAL_PLACES[scene], event, 3, fog=ending == "_fog")
            found.append(CampusVideo(f"abnormal_scene_{scene}_scenario_{shots.count}{ending}", split, shot))
        for scene in normal:
            shot = shots.draw(scene, UBNORMAL_PLACES[scene], None, 3)
            first = not any(video.shot.event is None for video in found)
            scenario = f"scenario{shots.count}_1" if first else f"scenario_{shots.count}"
            found.append(CampusVideo(f"normal_scene_{scene}_{scenario}", split, shot))
    return found


def write_ubnormal(root: str | Path, seed: int = 0, size: str = "full") -> None:
    """Render the demo copy of UBnormal into root, unless it is there already, as `write_demo` does it.

    Writes Scene<N>/<name>.mp4 and, of abnormal videos, Scene<N>/<name>_annotations/<name>_0000_gt.png … (object ids)
    and <name>_tracks.txt (object_id,start,end, inclusive; an object that is hidden for a while has several lines, one
    that is normal none), and
    the six lists scripts/{normal,abnormal}_{training,validation,test}_video_names.txt, without a final newline.
    """
    videos = plan_ubnormal(seed, size)

    def render(folder: Path) -> None:
        _record(
            record_ubnormal,
            videos,
            lambda v: (folder / f"Scene{v.name.split('_')[2]}" / f"{v.name}.mp4", UBNORMAL_FPS, v.shot),
        )
        (folder / "scripts").mkdir()
        for split, spelled in (("train", "training"), ("val", "validation"), ("test", "test")):
            for kind in ("normal", "abnormal"):
                names = [v.name for v in videos if v.split == split and v.name.startswith(f"{kind}_")]
                (folder / "scripts" / f"{kind}_{spelled}_video_names.txt").write_text("\n".join(names))

    write_demo(root, _wanted("ubnormal", seed, size) | {"maps": "of every object"}, render)


# training and test videos, fewest and most frames
PED2_SIZES = {"tiny": (2, 3, (48, 64)), "full": (6, 12, (100, 130))}
PED2_EVENTS = ("cycling", "driving", "skating")


def plan_ucsd_ped2(seed: int = 0, size: str = "full") -> list[CampusVideo]:
    """Which videos the copy of this seed holds, all of one camera.

    Raises ValueError for an unknown size or a seed out of range.
    """
    check_plan(seed, size, PED2_SIZES)
    n_train, n_test, length = PED2_SIZES[size]
    shots = _Shots(PED2_SEEDS, seed, length)
    train = [(f"Train{number:03d}", "train", None) for number in range(1, n_train + 1)]
    test = [(f"Test{number:03d}", "test", PED2_EVENTS[number % 3]) for number in range(1, n_test + 1)]
    return [
        CampusVideo(name, split, shots.draw(1, "parking", event, walkers=6, colour=False))
        for name, split, event in train + test
    ]


def write_ucsd_ped2(root: str | Path, seed: int = 0, size: str = "full") -> None:
    """Render the demo copy of UCSD Ped2 into root, unless it is there already, as `write_demo` does it.

    Writes UCSDped2/{Train,Test}/<name>/001.tif … (grey), Test/<name>_gt/001.bmp … (0 or 255) and Test/UCSDped2.m: a
    line for each test video in order, with the frames of which any pixel is anomalous, from 1, inclusive; where they
    are several stretches, as [5:90, 140:200], which UCSDped1.m does.
    """
    videos = plan_ucsd_ped2(seed, size)

    def render(folder: Path) -> None:
        split_folder = {split: folder / "UCSDped2" / split.title() for split in ("train", "test")}
        runs = _record(record_ucsd, videos, lambda v: (split_folder[v.split] / v.name, v.shot))
        lines = ["TestVideoFile = {};\n"]
        for video, stretches in zip(videos, runs, strict=True):
            if video.split == "test":
                frames = ", ".join(f"{first + 1}:{end}" for first, end in stretches)
                lines.append(f"TestVideoFile{{end+1}}.gt_frame = [{frames}];\n")
        (split_folder["test"] / "UCSDped2.m").write_text("".join(lines))

    write_demo(root, _wanted("ucsd_ped2", seed, size), render)


def _wanted(dataset: str, seed: int, size: str) -> dict[str, object]:
    return {"dataset": dataset, "seed": seed, "size": size, "version": [VERSION, CAMPUS_VERSION]}


def _record(
    record: Callable[..., Any], videos: list[CampusVideo], job: Callable[[CampusVideo], tuple[Any, ...]]
) -> list[Any]:
    return in_parallel(record, [job(video) for video in videos], sum(video.shot.n_frames for video in videos))
