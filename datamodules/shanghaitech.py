"""ShanghaiTech Campus: 437 videos of 13 campus cameras; Luo et al., ICCV 2017."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torchmetrics import Metric

from datamodules.demo_campus import write_shanghaitech
from datamodules.video_data import VideoDataModule
from vigil import annotations
from vigil.types import Video

MASKS = ("test_frame_mask", "test_pixel_mask")


class ShanghaiTech(VideoDataModule):
    """ShanghaiTech as its authors ship it: training/videos/*.avi, testing/frames/<name>/*.jpg, masks as arrays.

    split: one_class, where the 330 training videos are all normal and the 107 others are tested (all of them
    hold an anomaly); or weak, the split of Zhong et al. (CVPR 2019) with anomalous videos on both sides, whose lists
    SH_Train.txt and SH_Test.txt lie anywhere below root. Times come from test_frame_mask/<name>.npy (T,), or, where
    that is not there, from test_pixel_mask/<name>.npy (T, Y, X). features, crops, validation_fraction, missing,
    whole_windows: as in UcfCrime.
    """

    family = "ShanghaiTech"
    phrases = (
        "bicycle", "fight", "throw", "pick", "hand truck", "run", "skate", "falling", "jumping", "motorcycle",
        "tricycle", "cart", "waving stick", "hurdle", "vehicle", "play", "baby carriage", "truck",
    )  # fmt: skip
    fps = 24.0

    def __init__(
        self,
        root: str,
        demo: bool = False,
        limit_videos: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        split: Literal["one_class", "weak"] = "one_class",
        features: str | None = None,
        crops: int | Literal["mean", "center"] = "mean",
        validation_fraction: float = 0.1,
        missing: Literal["refuse", "leave_out"] = "refuse",
        whole_windows: int | None = None,
    ) -> None:
        base = (root, demo, limit_videos, seed, num_workers, missing, features, crops, validation_fraction)
        super().__init__(*base, whole_windows)
        self.split = split
        if split == "one_class":
            self.monitor = None  # no anomalous video to validate with

    @property
    def categories(self) -> list[str]:
        return list(annotations.SHANGHAITECH_CATEGORIES)

    @property
    def protocol(self) -> dict[str, Any]:
        return super().protocol | {"split": self.split}

    def render(self) -> None:
        write_shanghaitech(self.root)

    def annotated(self, split: str) -> list[Video]:
        side = "train" if split in ("train", "val") else "test"
        if self.split == "weak":
            videos = annotations.shanghaitech(self.find_file(f"SH_{side.title()}.txt"))
        elif side == "train":
            folder = self.root / "training" / "videos"
            videos = [named(file.stem) for file in sorted(folder.glob("*.avi"))]
        else:
            folder = self.root / "testing"
            frames = {file.name for file in (folder / "frames").glob("*_*") if file.is_dir()}
            masks = {file.stem for kind in MASKS for file in (folder / kind).glob("*_*.npy")}
            videos = [named(name) for name in sorted(frames | masks)]
        if not videos:
            raise FileNotFoundError(
                f"{folder}: no videos of ShanghaiTech; data.init_args.root must be the folder that holds training and "
                "testing, or set demo: true to render a small one"
            )
        return [self._placed(video, timed=side == "test") for video in videos]

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        return self.frame_metrics(split) | (self.pixel_metrics() if split == "test" else {})

    def _placed(self, video: Video, timed: bool) -> Video:
        if video.label == 0:
            return replace(video, path=Path("training/videos") / f"{video.name}.avi")
        video = replace(video, path=Path("testing/frames") / video.name)
        if not timed:
            return video
        frame, pixel = (self.root / "testing" / kind / f"{video.name}.npy" for kind in MASKS)
        masks = partial(read_masks, pixel) if pixel.is_file() else None
        if not frame.is_file() and masks is None:
            return video  # without times, which is refused or left out as the video itself would be
        label = frame_label(frame if frame.is_file() else pixel)
        return replace(video, n_frames=len(label), anomalies=annotations.anomalous_runs(label), masks=masks)

    def _measure(self, video: Video) -> Video:
        measured = super()._measure(video)
        if video.anomalies and video.n_frames != measured.n_frames:
            raise ValueError(
                f"{video.path}: {measured.n_frames} frames, its mask has {video.n_frames}; unpack both again"
            )
        return measured


def named(name: str) -> Video:
    """A video by its name: 01_001 of the normal training set, 01_0014 of the anomalous test set."""
    is_tested = len(name.partition("_")[2]) == 4
    return Video(name, label=int(is_tested), category="Abnormal" if is_tested else "Normal")


def frame_label(file: Path) -> np.ndarray:
    """Whether each frame is anomalous, bool (T,), of a frame mask (T,) or a pixel mask (T, Y, X).

    Raises FileNotFoundError, or ValueError for an array of another shape or type.
    """
    array = _open(file)
    if array.ndim not in (1, 3) or array.dtype.kind not in "buif" or not len(array):
        raise ValueError(f"{file}: {array.dtype} {array.shape}; a mask (T,) or (T, Y, X) of numbers is expected")
    return np.array([np.any(row) for row in array])  # one by one: a memory map of 400 MB stays on the disk


def read_masks(file: Path, frames: np.ndarray) -> np.ndarray:
    """Masks bool (T, Y, X) at `frames` (T,) of one pixel mask array. Raises ValueError for a frame beyond its end."""
    array = _open(file)
    if array.ndim != 3 or frames.max() >= len(array):
        raise ValueError(f"{file}: {array.shape}; (T, Y, X) with more than {frames.max()} frames is expected")
    return np.asarray(array[frames]) != 0


def _open(file: Path) -> np.ndarray:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such mask; unpack the test masks, or render the demo with demo: true")
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{file}: not an array that can be read ({error}); unpack the test masks again") from error
