"""UCF-Crime: 1,900 surveillance videos, 13 classes; Sultani et al., CVPR 2018."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info
from torchmetrics import Metric

from datamodules.demo import write_ucf_crime
from datamodules.video_data import VideoDataModule
from vigil import annotations
from vigil.types import Video

UCA_TEST = [f"UCFCrime_{part}.{kind}" for part in ("Test", "test") for kind in ("json", "txt", "json.gz", "txt.gz")]
SECOND_ANNOTATION = ("vera_UCF_Eval.json", "UCF_Eval.json", "umil_UCF_test.txt", "UCF_test.txt")


class UcfCrime(VideoDataModule):
    """UCF-Crime as its authors ship it: lists, temporal annotation of the test split, videos anywhere under root.

    convention: which frames are judged anomalous, and how long the axis is (vigil.annotations.frame_labels); "vera"
    reads the second annotation. train_list, test_list, annotation, lengths: file names searched under root; annotation
    None takes the official one, or VERA's or UMIL's for "vera"; lengths (name, frames, frames_cv2, …) is needed by
    "urdmu". features: folder of pre-extracted features, read instead of videos; crops: mean, center or a crop's number.
    validation_fraction: of the training videos, drawn by class. missing: refuse, or leave_out the
    videos that are not there. hold_out: classes that no fit sees; a test then reports AUROC on seen and on unseen
    classes apart, each against all normal videos. without: UCA's test annotation, a file or the folder it lies in:
    its videos are left out of training, most of UCA's test split being on this dataset's training list.
    whole_windows: None, or frames of a window, to judge as LAVIDA's released code does; see VideoDataModule.
    """

    family = "UCF-Crime"
    counted_by_opencv = ("urdmu",)
    phrases = (
        "abuse", "arrest", "arson", "assault", "burglary", "explosion", "fighting", "road accidents", "robbery",
        "shooting", "shoplifting", "stealing", "vandalism",
    )  # fmt: skip
    fps = 30.0  # a dozen videos run at 25

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
        hold_out: list[str] = [],  # noqa: B006 - never changed; a command line cannot give a tuple
        without: str | None = None,
        whole_windows: int | None = None,
    ) -> None:
        base = (root, demo, limit_videos, seed, num_workers, missing, features, crops, validation_fraction)
        super().__init__(*base, whole_windows)
        unknown = sorted(set(hold_out) - set(annotations.UCF_CRIME_CATEGORIES))
        if unknown:
            raise ValueError(f"hold_out {unknown}: expected some of {', '.join(annotations.UCF_CRIME_CATEGORIES)}")
        self.convention, self.hold_out, self.without = convention, list(hold_out), without
        self.train_list, self.test_list, self.annotation, self.lengths = train_list, test_list, annotation, lengths

    @property
    def categories(self) -> list[str]:
        return list(annotations.UCF_CRIME_CATEGORIES)

    @property
    def protocol(self) -> dict[str, Any]:
        held = {"hold_out": self.hold_out} if self.hold_out else {}
        return super().protocol | {"convention": self.convention, "annotation": self.annotation} | held

    def category_of(self, name: str) -> str | None:
        return annotations.ucf_crime_category(name)

    def render(self) -> None:
        write_ucf_crime(self.root)

    def annotated(self, split: str) -> list[Video]:
        if split in ("train", "val"):
            return [video for video in self._listed if video.category not in self.hold_out]
        return self._tested()

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        return self.frame_metrics(split, unseen=self.hold_out)

    @cached_property
    def _listed(self) -> list[Video]:
        """The training list, but for the videos of `without`."""
        videos = annotations.ucf_crime(self.find_file(self.train_list))
        if self.without is None:
            return videos
        file = self._find_uca_test(self.without)
        named = {event.video for event in annotations.uca_events(file, "keep")}
        kept = [video for video in videos if video.name not in named]
        rank_zero_info(
            f"{len(videos) - len(kept)} of {len(videos)} training videos are in {file.name} and left out, as asked."
        )
        if not kept:
            raise ValueError(f"{file}: it names every video of {self.train_list}; nothing is left to train on")
        return kept

    def _find_uca_test(self, given: str) -> Path:
        for place in (self.root / given, Path(given)):
            below = (file for name in UCA_TEST for file in sorted(place.rglob(name)))
            file = place if place.is_file() else next(below, None)
            if file is not None:
                return file
        raise FileNotFoundError(
            f"without {given}: no {UCA_TEST[0]} nor .txt there, neither in {self.root} nor here; name UCA's folder, or "
            "its test annotation"
        )

    def _tested(self) -> list[Video]:
        """The test videos as annotated; n_frames as the annotation or `lengths` says, or None.

        Raises ValueError where annotation and test list disagree, or for an annotation that is not the convention's.
        """
        if self.convention == "vera" and self.annotation is None:
            file = self.find_file(*SECOND_ANNOTATION)
        else:
            file = self.find_file(self.annotation or "Temporal_Anomaly_Annotation.txt")
        lengths = annotations.lengths(self.find_file(self.lengths)) if self.lengths else {}
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
        listed = {video.name: video.path for video in annotations.ucf_crime(self.find_file(self.test_list))}
        odd = sorted(listed.keys() ^ {video.name for video in videos})
        if odd:
            raise ValueError(
                f"{file.name} and {self.test_list} disagree on {len(odd)} videos: {', '.join(odd[:10])}; "
                "take both from the same release"
            )
        return [replace(video, path=listed[video.name]) for video in videos]  # the list spells the folder
