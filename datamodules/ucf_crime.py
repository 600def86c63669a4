"""UCF-Crime: 1,900 surveillance videos, 13 classes; Sultani et al., CVPR 2018."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from torchmetrics import Metric

from datamodules.demo import write_ucf_crime
from datamodules.video_data import VideoDataModule
from vigil import annotations
from vigil.features import find_features
from vigil.metrics import EventMap, FrameAp, FrameAuroc, VideoAuroc
from vigil.types import Video

SECOND_ANNOTATION = ("vera_UCF_Eval.json", "UCF_Eval.json", "umil_UCF_test.txt", "UCF_test.txt")
FPS = 30.0  # nominal; a dozen videos run at 25
SNIPPET_FRAMES = 16  # the axis of a convention that counts snippets is at most one longer or shorter than the video
SUFFIXES = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".ts", ".m4v"}


class UcfCrime(VideoDataModule):
    """UCF-Crime as its authors ship it: lists, temporal annotation of the test split, videos anywhere under root.

    convention: which frames are judged anomalous, and how long the axis is (vigil.annotations.frame_labels); "vera"
    reads the second annotation. train_list, test_list, annotation, lengths: file names searched under root; annotation
    None takes the official one, or VERA's or UMIL's for "vera"; lengths (name, frames, frames_cv2, …) is needed by
    "urdmu". features: folder of pre-extracted features, read instead of videos; crops: mean, center or a crop's number.
    validation_fraction: of the training videos, drawn by class. missing: refuse, or leave_out the
    videos that are not there.
    """

    monitor = "val/video_auroc"  # training videos carry no times, so validation judges whole videos

    def __init__(
        self,
        root: str,
        demo: bool = False,
        limit_videos: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        convention: Literal["full", "full_matlab", "urdmu", "vadclip", "rtfm", "vera"] = "full",
        train_list: str = "Anomaly_Train.txt",
        test_list: str = "Anomaly_Test.txt",
        annotation: str | None = None,
        lengths: str | None = None,
        features: str | None = None,
        crops: int | Literal["mean", "center"] = "mean",
        validation_fraction: float = 0.1,
        missing: Literal["refuse", "leave_out"] = "refuse",
    ) -> None:
        super().__init__(root, demo, limit_videos, seed, num_workers)
        if not 0 < validation_fraction < 1:
            raise ValueError(f"validation_fraction {validation_fraction}: a number between 0 and 1 is expected")
        self.convention, self.missing = convention, missing
        self.train_list, self.test_list, self.annotation, self.lengths = train_list, test_list, annotation, lengths
        self.features, self.crops = features, crops
        self.validation_fraction = validation_fraction

    @property
    def categories(self) -> list[str]:
        return list(annotations.UCF_CRIME_CATEGORIES)

    def render(self) -> None:
        write_ucf_crime(self.root)

    def videos(self, split: str) -> list[Video]:
        if split in ("test", "predict"):
            return self._found(self.annotated())
        videos = self._found(annotations.ucf_crime(self._file(self.train_list)))
        held = validation_names(videos, self.validation_fraction, self.seed)
        return [video for video in videos if (video.name in held) == (split == "val")]

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        if split == "val":
            return {"video": VideoAuroc(self.known("val"))}
        videos = self.judged(self.known(split))
        slack = SNIPPET_FRAMES if self.convention in ("urdmu", "vadclip", "rtfm") else 0
        return {
            "auroc": FrameAuroc(videos, slack),
            "ap": FrameAp(videos, slack),
            "video": VideoAuroc(videos, slack),
            "events": EventMap(videos, slack=slack),
        }

    def annotated(self) -> list[Video]:
        """The test videos, whether or not their files are there; n_frames as the annotation or `lengths` says, or None.

        Raises ValueError where annotation and test list disagree, or for an annotation that is not the convention's.
        """
        if self.convention == "vera" and self.annotation is None:
            file = self._file(*SECOND_ANNOTATION)
        else:
            file = self._file(self.annotation or "Temporal_Anomaly_Annotation.txt")
        lengths = annotations.lengths(self._file(self.lengths)) if self.lengths else {}
        frames = {name: row["frames"] for name, row in lengths.items()}
        videos = [
            replace(v, n_frames=v.n_frames or frames.get(v.name)) for v in annotations.ucf_crime(file, frames or None)
        ]
        if self.convention == "vera" and any(
            v.name == "Burglary076_x264" and v.anomalies == [(1590, 4300)] for v in videos
        ):
            raise ValueError(
                f"{file}: the official annotation, the convention vera needs the second one (VERA's, UMIL's)"
            )
        listed = {video.name: video.path for video in annotations.ucf_crime(self._file(self.test_list))}
        odd = sorted(listed.keys() ^ {video.name for video in videos})
        if odd:
            raise ValueError(
                f"{file.name} and {self.test_list} disagree on {len(odd)} videos: {', '.join(odd[:10])}; "
                "take both from the same release"
            )
        return [replace(video, path=listed[video.name]) for video in videos]  # the list spells the folder

    def judged(self, videos: Sequence[Video]) -> list[Video]:
        """The videos, n_frames known, as the convention sees them: length of the frame axis and anomalous intervals."""
        count = {video.name: video.n_frames for video in videos}
        if self.convention in ("urdmu", "vadclip", "rtfm"):
            rows = annotations.lengths(self._file(self.lengths)) if self.lengths else {}
            absent = [name for name in count if name not in rows]
            if absent and self.convention == "urdmu":
                raise ValueError(
                    f"the convention urdmu needs OpenCV's frame counts of {len(absent)} videos, as of {absent[0]}; "
                    "set data.init_args.lengths to a csv with columns name, frames, frames_cv2"
                )
            rows = {name: rows.get(name, {"frames": count[name]}) for name in count}
            length = annotations.array_lengths(rows, self.convention)
        else:
            length = count
        label = annotations.frame_labels(videos, length, self.convention)
        return [
            replace(video, n_frames=length[video.name], anomalies=annotations.anomalous_runs(label[video.name]))
            for video in videos
        ]

    def _found(self, videos: list[Video]) -> list[Video]:
        """The videos with their files or features, which are found by name wherever they lie."""
        files: dict[str, list[Path]] = {}
        for folder, _, names in os.walk(self.root, followlinks=True):
            for file in (Path(folder, name) for name in names):
                if file.suffix.lower() in SUFFIXES:
                    files.setdefault(file.stem, []).append(file)
        found = [replace(video, path=_choose(files.get(video.name, []), video.path)) for video in videos]
        if self.features is None:
            return self._kept(found, [video.path is not None for video in found], self.root)
        if self.missing == "leave_out":
            stems = {_stem(annotations.video_name(file.name)) for file in Path(self.features).rglob("*.*")}
            found = self._kept(found, [_stem(video.name) in stems for video in found], self.features)
        there = find_features(self.features, [video.name for video in found])
        return [replace(video, features=there[video.name], fps=FPS) for video in found]

    def _kept(self, videos: list[Video], is_there: list[bool], where: str | Path) -> list[Video]:
        """The videos that are there, if some may be left out. Raises FileNotFoundError naming those that are not."""
        absent = [video.name for video, kept in zip(videos, is_there, strict=True) if not kept]
        if absent and (self.missing == "refuse" or len(absent) == len(videos)):
            raise FileNotFoundError(
                f"{len(absent)} of {len(videos)} videos are not under {where}: {', '.join(absent[:10])}; "
                "complete the download, or set data.init_args.missing: leave_out"
            )
        if absent:
            rank_zero_info(f"{len(absent)} of {len(videos)} videos are not under {where}; left out, as asked.")
        return [video for video, kept in zip(videos, is_there, strict=True) if kept]

    def _file(self, *names: str) -> Path:
        """The first of these files that lies in root or in a folder under it."""
        for name in names:
            for path in (self.root / name, *sorted(self.root.rglob(Path(name).name)), Path(name)):
                if path.is_file():
                    return path
        raise FileNotFoundError(
            f"{self.root}: no {' or '.join(names)} here or in a folder below; "
            "data.init_args.root must be the folder of UCF-Crime, or set demo: true to render a small one"
        )


def _stem(name: str) -> str:
    return name.removesuffix("_x264")  # feature files go by either


def _choose(files: list[Path], spelled: Path | None) -> Path | None:
    """The file that lies where the list says, else the first: the event recognition part repeats 50 normal videos."""
    files = sorted(files)
    if spelled is not None:
        files = sorted(files, key=lambda file: file.parts[-2:] != spelled.parts[-2:])
    return files[0] if files else None


def validation_names(videos: Sequence[Video], fraction: float, seed: int) -> set[str]:
    """Names of the videos held out: `fraction` of each label, spread over its categories by their size, seeded."""
    generator = np.random.default_rng(seed)
    held: set[str] = set()
    for label in (1, 0):
        groups: dict[str | None, list[str]] = {}
        for video in sorted(videos, key=lambda video: video.name):
            if video.label == label:
                groups.setdefault(video.category, []).append(video.name)
        order = []
        for names in groups.values():
            rank = (np.arange(len(names)) + generator.random()) / len(names)  # the smallest ranks, fairly over groups
            order += list(zip(rank, generator.permutation(names), strict=True))
        n_held = round(fraction * len(order))
        held |= {str(name) for _, name in sorted(order)[: max(n_held, 1)]}
    return held
