"""UBnormal: 543 rendered surveillance videos, open-set; Acsintoae et al., CVPR 2022."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image
from torchmetrics import Metric

from datamodules.demo_campus import write_ubnormal
from datamodules.video_data import VideoDataModule
from vigil import annotations
from vigil.types import Video

SPLITS = {"train": "training", "val": "validation", "test": "test", "predict": "test"}


class UbNormal(VideoDataModule):
    """UBnormal as its authors ship it: Scene<N>/<video>.mp4 with tracks and masks beside, name lists of the splits.

    The lists (abnormal_test_video_names.txt and five more) lie in the authors' repository under scripts/; put them
    anywhere below root. population: all 211 test videos, or abnormal_only, the 158 that one published protocol judges.
    convention: official, where a track's end is its last frame, or stgnf, where it is the frame after.
    Training videos carry a label each, the rest of their annotation is not given to a system. missing: as in UcfCrime.
    """

    family = "UBnormal"
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
    ) -> None:
        super().__init__(root, demo, limit_videos, seed, num_workers, missing)
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
        tracks = self.find_file(f"{video.path.with_suffix('')}_annotations/{video.name}_tracks.txt")
        intervals = annotations.track_intervals(annotations.ubnormal_tracks(tracks), self.track_convention)
        has_masks = next(tracks.parent.glob(f"{video.name}_*_gt.png"), None) is not None
        masks = partial(read_object_masks, tracks.parent, video.name) if has_masks else None
        return replace(video, anomalies=intervals, masks=masks)


def read_object_masks(folder: Path, name: str, frames: np.ndarray) -> np.ndarray:
    """The number of the anomalous object that each pixel shows at `frames` (T,), 0 where none: uint8 (T, Y, X).

    Raises FileNotFoundError for a frame whose mask is not there.
    """
    masks = []
    for frame in frames.tolist():
        file = folder / f"{name}_{frame:04d}_gt.png"
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no mask of frame {frame}; unpack the whole annotation of {name}")
        masks.append(np.asarray(Image.open(file).convert("L")))
    return np.stack(masks)


def _scene(name: str) -> str:
    return name.partition("scene_")[2].partition("_")[0]
