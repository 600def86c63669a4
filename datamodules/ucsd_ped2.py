"""UCSD Ped2: a walkway where cars, bicycles and skaters are anomalous; Mahadevan et al., CVPR 2010."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torchmetrics import Metric

from datamodules.demo_campus import write_ucsd_ped2
from datamodules.video_data import VideoDataModule
from vigil import annotations
from vigil.images import read_image
from vigil.types import Video

PED1_SIZE = (158, 238)  # Ped1's height and width, at which one published protocol judges Ped2


class UcsdPed2(VideoDataModule):
    """Ped2 as its authors ship it: folders of TIFF frames Train/Train001 and Test/Test001, masks in Test/Test001_gt.

    Times are those of UCSDped2.m; without it, of ped2.mat. resolution: native, where masks are judged at their own
    240 x 360, or ped1, at 158 x 238. Training videos are all normal. missing, whole_windows: as in
    UcfCrime.
    """

    family = "UCSD Ped2"
    phrases = ("car", "cart", "wheelchair", "skate", "bicycle")
    fps = 10.0
    monitor = None  # no anomalous video to validate with
    by_name = False  # the download holds Ped1 beside Ped2, with folders of the same names

    def __init__(
        self,
        root: str,
        demo: bool = False,
        limit_videos: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        resolution: Literal["native", "ped1"] = "native",
        validation_fraction: float = 0.1,
        missing: Literal["refuse", "leave_out"] = "refuse",
        whole_windows: int | None = None,
    ) -> None:
        super().__init__(
            root, demo, limit_videos, seed, num_workers, missing, None, "mean", validation_fraction, whole_windows
        )
        self.resolution = resolution

    @property
    def categories(self) -> list[str]:
        return ["Abnormal"]

    @property
    def protocol(self) -> dict[str, Any]:
        return super().protocol | {"resolution": self.resolution}

    def render(self) -> None:
        write_ucsd_ped2(self.root)

    def annotated(self, split: str) -> list[Video]:
        if split in ("train", "val"):
            folders = sorted((self._top() / "Train").glob("Train[0-9][0-9][0-9]"))
            if not folders:
                raise FileNotFoundError(f"{self._top()}/Train: no folders Train001, Train002, …; unpack Ped2 there")
            return [
                Video(folder.name, folder.relative_to(self.root), label=0, category="Normal", anomalies=[])
                for folder in folders
            ]
        test = self._top() / "Test"
        return [
            replace(
                video,
                path=(test / video.name).relative_to(self.root),
                masks=partial(read_masks, test / f"{video.name}_gt") if (test / f"{video.name}_gt").is_dir() else None,
            )
            for video in annotations.ucsd_ped2(self.find_file("UCSDped2.m", "ped2.mat"))
        ]

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        size = PED1_SIZE if self.resolution == "ped1" else None
        return self.frame_metrics(split) | (self.pixel_metrics(size) if split == "test" else {})

    def _top(self) -> Path:
        """The folder that holds Train and Test: root or UCSDped2 in it, for the download holds Ped1 beside it."""
        for folder in (self.root, self.root / "UCSDped2", self.root / "UCSD_Anomaly_Dataset.v1p2" / "UCSDped2"):
            if (folder / "Test").is_dir():
                return folder
        raise FileNotFoundError(
            f"{self.root}: no Test folder here or in UCSDped2; data.init_args.root must be the folder that "
            "UCSD_Anomaly_Dataset was unpacked to, or set demo: true to render a small one"
        )


def read_masks(folder: Path, frames: np.ndarray) -> np.ndarray:
    """Masks bool (T, Y, X) at `frames` (T,) of a folder of 001.bmp, 002.bmp, …. Raises as read_image does."""
    masks = []
    for frame in frames.tolist():
        file = folder / f"{frame + 1:03d}.bmp"
        if not file.is_file():
            raise FileNotFoundError(f"{file}: no mask of frame {frame}; unpack the whole of {folder.name}")
        masks.append(read_image(file, "L") > 0)
    return np.stack(masks)
