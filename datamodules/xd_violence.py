"""XD-Violence: 4,754 untrimmed videos of films and the web, six kinds of violence; Wu et al., ECCV 2020."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torchmetrics import Metric

from datamodules.demo import is_demo
from datamodules.demo_xd_violence import write_xd_violence
from datamodules.video_data import VideoDataModule
from vigil import annotations
from vigil.types import Video

RELEASED = {"train": (1905, 2049), "test": (500, 300)}  # violent and normal videos


class XdViolence(VideoDataModule):
    """XD-Violence as its authors ship it: labels in the file names, times of the violent test videos in a text file.

    convention: which frames are judged, and how long the axis is (vigil.annotations.frame_labels). train_list,
    test_list: any public list of the split's names; None takes the videos below a folder whose name holds "train" or
    "test". annotation: the single-class file, or the multi-class one. lengths: a csv (name, frames), for features.
    The sound is not read: systems that hear it belong in a table of their own.
    features, crops, validation_fraction, missing, whole_windows: as in UcfCrime.
    """

    family = "XD-Violence"
    fps = 24.0  # where features stand in for the file, which would tell
    main_metric = "frame_ap"
    phrases = ("fighting", "shooting", "riot", "abuse", "car accident", "explosion")
    counted_by_opencv = ("xdviodet", "vadclip")

    def __init__(
        self,
        root: str,
        demo: bool = False,
        limit_videos: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        convention: Literal["full", "xdviodet", "vadclip"] = "full",
        train_list: str | None = None,
        test_list: str | None = None,
        annotation: str = "annotations.txt",
        lengths: str | None = None,
        features: str | None = None,
        crops: int | Literal["mean", "center"] = "mean",
        validation_fraction: float = 0.1,
        missing: Literal["refuse", "leave_out"] = "refuse",
        whole_windows: int | None = None,
    ) -> None:
        base = (root, demo, limit_videos, seed, num_workers, missing, features, crops, validation_fraction)
        super().__init__(*base, whole_windows)
        self.convention, self.annotation, self.lengths = convention, annotation, lengths
        self.lists = {"train": train_list, "test": test_list}

    @property
    def categories(self) -> list[str]:
        return list(annotations.XD_VIOLENCE_CATEGORIES)

    @property
    def protocol(self) -> dict[str, Any]:
        return super().protocol | {
            "convention": self.convention,
            "annotation": Path(self.annotation).name,
            "audio": "not used",
        }

    def render(self) -> None:
        write_xd_violence(self.root)

    def annotated(self, split: str) -> list[Video]:
        if split in ("train", "val"):
            return self._listed("train")
        file = self.find_file(self.annotation)
        violent = {video.name: video for video in annotations.xd_violence(file)}
        listed = {video.name: video for video in self._listed("test")}
        unlisted = sorted(violent.keys() - listed.keys())
        if unlisted and self.lists["test"]:
            raise ValueError(
                f"{file.name} and {self.lists['test']} disagree on {len(unlisted)} videos: {', '.join(unlisted[:10])}; "
                "take both from the same release"
            )
        untimed = sorted(name for name, video in listed.items() if video.label == 1 and name not in violent)
        if untimed:
            raise ValueError(
                f"{file.name}: no times of {len(untimed)} violent test videos: {', '.join(untimed[:10])}; "
                "take the annotation of the same release"
            )
        rows = annotations.lengths(self.find_file(self.lengths)) if self.lengths else {}
        videos = [
            replace(video, anomalies=violent[name].anomalies if name in violent else [])
            for name, video in {**violent, **listed}.items()
        ]
        return [replace(v, n_frames=rows[v.name]["frames"]) if v.name in rows else v for v in videos]

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        return self.frame_metrics(split)

    def lacks(self, split: str, videos: Sequence[Video]) -> str:
        side = "test" if split == "test" else "train"
        count = sum(video.label == 1 for video in videos), sum(video.label == 0 for video in videos)
        if self.lists[side] is not None or count == RELEASED[side] or is_demo(self.root):
            return super().lacks(split, videos)
        violent, normal = RELEASED[side]
        return (
            f"{count[0]} violent and {count[1]} normal {side} videos lie under {self.root}, XD-Violence has {violent} "
            f"and {normal}; without data.init_args.{side}_list nobody knows which are missing"
        )

    def _listed(self, split: str) -> list[Video]:
        """The split's videos: as its list names them, else those that lie in a folder of the split."""
        listing = self.lists[split]
        if listing is not None:
            return annotations.xd_violence(self.find_file(listing))
        found = sorted({file for files in self._files.values() for file in files if _below(file, self.root, split)})
        names = {annotations.video_name(file.name): file.relative_to(self.root) for file in reversed(found)}
        if not names:
            raise FileNotFoundError(
                f"{self.root}: no video in a folder with {split!r} in its name, as XD-Violence-{split}/videos; "
                f"put them there, or set data.init_args.{split}_list to a list of names"
            )
        return [_video(name, path) for name, path in sorted(names.items())]


def _video(name: str, path: Path) -> Video:
    """What a file name says of a video."""
    classes = annotations.xd_violence_name_categories(name)
    anomalies: list[tuple[int, int]] | None = None if classes else []
    return Video(name, path, label=int(bool(classes)), category="+".join(classes) or "Normal", anomalies=anomalies)


def _below(file: Path, root: Path, split: str) -> bool:
    folders = file.relative_to(root).parent.parts
    return any(split in folder.lower() for folder in folders) and file.suffix.lower() in (".mp4", ".avi", ".mkv")
