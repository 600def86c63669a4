"""UBnormal: 543 rendered surveillance videos, open-set; Acsintoae et al., CVPR 2022."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torchmetrics import Metric

from datamodules.demo_campus import write_ubnormal
from datamodules.video_data import VideoDataModule
from vigil import annotations
from vigil.images import read_image
from vigil.types import Video

SPLITS = {"train": "training", "val": "validation", "test": "test", "predict": "test"}


class UbNormal(VideoDataModule):
    """UBnormal as its authors ship it: Scene<N>/<video>.mp4 with tracks and masks beside, name lists of the splits.

    The lists (abnormal_test_video_names.txt and five more) lie in the authors' repository under scripts/; put them
    anywhere below root. population: all 211 test videos, or abnormal_only, the 158 that one published protocol judges.
    track_convention: official, where a track's end is its last frame, or stgnf, where it is the frame after. Maps show
    every object of a scene; those of a track are anomalous while it lasts. Training videos carry a label each, the
    rest of their annotation is not given to a system. missing, whole_windows: as in
    UcfCrime.
    """

    family = "UBnormal"
    phrases = (
        "running", "jumping", "falling", "fighting", "sleeping", "crawling", "having a seizure", "laying down",
        "dancing", "stealing", "rotating 360 degrees", "shuffling", "injured", "drunk", "stumbling walk",
        "car accident", "fire", "smoke", "jaywalking", "driving outside lane",
    )  # fmt: skip
    splits = ("train", "val", "test")
    fps = 30.0

    def __init__(
        self,
        root: str,
        demo: bool = False,
        limit_videos: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        population: Literal["all", "abnormal_only"] = "all",
        track_convention: Literal["official", "stgnf"] = "official",
        missing: Literal["refuse", "leave_out"] = "refuse",
        whole_windows: int | None = None,
    ) -> None:
        super().__init__(root, demo, limit_videos, seed, num_workers, missing, whole_windows=whole_windows)
        self.population, self.track_convention = population, track_convention

    @property
    def categories(self) -> list[str]:
        return ["Abnormal"]

    @property
    def protocol(self) -> dict[str, Any]:
        return super().protocol | {"population": self.population, "track_convention": self.track_convention}

    def render(self) -> None:
        write_ubnormal(self.root)

    def annotated(self, split: str) -> list[Video]:
        kinds = ["abnormal"] if split == "test" and self.population == "abnormal_only" else ["abnormal", "normal"]
        listed = [
            video
            for kind in kinds
            for video in annotations.ubnormal(self.find_file(f"{kind}_{SPLITS[split]}_video_names.txt"))
        ]
        videos = [replace(video, path=Path(f"Scene{_scene(video.name)}") / f"{video.name}.mp4") for video in listed]
        return [self._timed(video) for video in videos] if SPLITS[split] == "test" else videos

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        return self.frame_metrics(split) | (self.pixel_metrics() if split == "test" else {})

    def _timed(self, video: Video) -> Video:
        """An abnormal video with the times of its tracks, and its masks where they are there."""
        if video.label == 0:
            return video
        assert video.path is not None
        try:
            file = self.find_file(f"{video.path.with_suffix('')}_annotations/{video.name}_tracks.txt")
        except FileNotFoundError:
            return video  # without times, which is refused or left out as the video itself would be
        tracks = annotations.ubnormal_tracks(file)
        intervals = annotations.track_intervals(tracks, self.track_convention)
        if self.track_convention == "stgnf":
            tracks = [(number, first, end - 1) for number, first, end in tracks]
        has_masks = next(file.parent.glob(f"{video.name}_*_gt.png"), None) is not None
        masks = partial(read_object_masks, file.parent, video.name, tracks) if has_masks else None
        return replace(video, anomalies=intervals, masks=masks)


def read_object_masks(
    folder: Path, name: str, tracks: Sequence[tuple[int, int, int]], frames: np.ndarray
) -> np.ndarray:
    """The anomalous track, from 1 on, that each pixel shows at `frames` (T,), 0 where none: uint8 (T, Y, X).

    tracks: (object number in the maps, first frame, last frame); outside its track an object is normal. Raises
    FileNotFoundError for a frame whose map is not there, ValueError for a damaged one.
    """
    masks = []
    for frame in frames.tolist():
        file = folder / f"{name}_{frame:04d}_gt.png"
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no mask of frame {frame}; unpack the whole annotation of {name}")
        objects = read_image(file, "L")
        mask = np.zeros_like(objects)
        for track, (number, first, last) in enumerate(tracks, 1):
            if first <= frame <= last:
                mask[objects == number] = track
        masks.append(mask)
    return np.stack(masks)


def _scene(name: str) -> str:
    return name.partition("scene_")[2].partition("_")[0]
