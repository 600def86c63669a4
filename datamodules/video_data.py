"""VideoDataModule: what a dataset says of its videos becomes Clips and loaders."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset
from torchmetrics import Metric

from datamodules.clips import BagDataset, Part, PartDataset, Wanted, WindowDataset, join, read_rows, whole
from datamodules.events import Event, EventDataset, stretches
from datamodules.fitting_set import SampleDataset, WholeSet
from datamodules.loading import ResumableLoader, SeededBatches, Shard, outlast_signals
from vigil import annotations
from vigil.features import find_features
from vigil.metrics import Calibration, EventMap, FrameAp, FrameAuroc, VideoAuroc
from vigil.pixel_metrics import PixelAuroc
from vigil.region_metric import RegionMetric
from vigil.store import FileMemory, Store, fingerprint
from vigil.types import Clip, Video, View, Watcher
from vigil.video import IMAGE_SUFFIXES, VideoInfo, probe

EQUAL_PARTS = 32  # rows of every video where features stand for its parts: C3D of Sultani et al.
SNIPPET_FRAMES = 16  # the axis of a convention that counts snippets is at most one longer or shorter than the video
SNIPPET_CONVENTIONS = ("urdmu", "vadclip", "rtfm", "xdviodet")
SUFFIXES = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".ts", ".m4v", ".flv", ".wmv"}


class VideoDataModule(LightningDataModule):
    """Base of every dataset: a subclass says which videos there are and how they are judged.

    root: the dataset's folder; videos are found below it by name, be they files or folders of images. demo: render the
    demo copy into root first. limit_videos: at most so many videos of each split, both labels alike, for a quick trial.
    seed: draws the validation split, the videos of a system that fits on a share of them, and the order of training.
    num_workers: decoding processes. missing: refuse, or leave_out the videos that are not there. features: folder of
    pre-extracted features, read instead of videos; crops: mean, center or a crop's number. validation_fraction: of the
    training videos, held out by class; None where the dataset names a split "val" of its own. whole_windows: None, or
    frames of a window: a test then judges only the frames of each video's whole windows, laid side by side from its
    first frame, and no video without any, as LAVIDA's released code does. Source: none; the conventions are this
    project's.
    """

    family = ""  # datasets of one family hold the same videos under the same names, as UCF-Crime and UCA do
    fps: float | None = None  # nominal, of videos that do not tell theirs
    main_metric = "frame_auroc"
    # the logged validation metric, larger is better, that the best checkpoint is chosen by; None: there is no best one.
    # Training videos carry no times, so validation judges whole videos
    monitor: str | None = "val/video_auroc"
    splits: tuple[str, ...] = ("train", "test")  # that annotation names; "val" is cut out of train, unless it is here
    scores_frames = True  # whether every frame of a video is scored; else only the items of scoring_dataset are judged
    calibration_split: str | None = None  # the split that a test may fit a temperature of class scores on
    causal = False  # whether no later frame may change a score: then nothing is refined
    overhang = 0  # by how many frames a video's last clip may answer beyond its end
    by_name = True  # whether a video that is not where the dataset says may lie elsewhere below root
    # what its anomalies are called in the prompts of published systems (LAVIDA's released code)
    phrases: tuple[str, ...] = ()
    hold_out: Sequence[str] = ()  # categories that no fit is to see
    counted_by_opencv: tuple[str, ...] = ()  # conventions whose axis is OpenCV's frame count, which is not ours
    convention = "full"  # vigil.annotations.frame_labels
    lengths: str | None = None  # a csv of frame counts

    def __init__(
        self,
        root: str,
        demo: bool = False,
        limit_videos: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        missing: Literal["refuse", "leave_out"] = "refuse",
        features: str | None = None,
        crops: int | Literal["mean", "center"] = "mean",
        validation_fraction: float | None = None,
        whole_windows: int | None = None,
    ) -> None:
        super().__init__()
        if whole_windows is not None and whole_windows < 1:
            raise ValueError(f"whole_windows {whole_windows}: frames of a window, at least 1, are expected")
        if validation_fraction is not None and not 0 < validation_fraction < 1:
            raise ValueError(f"validation_fraction {validation_fraction}: a number between 0 and 1 is expected")
        self.root = Path(root)
        self.demo = demo
        self.limit_videos = limit_videos
        self.seed = seed
        self.num_workers = num_workers
        self.missing, self.features, self.crops = missing, features, crops
        self.validation_fraction, self.whole_windows = validation_fraction, whole_windows
        self.stores: dict[tuple[str, View], tuple[Store, Sequence[str]]] = {}  # what its system keeps, and which of it
        self.watcher: Watcher | None = None
        self.memory = FileMemory()
        self._known: dict[str, list[Video]] = {}
        self.left_out: dict[str, int] = {}
        self.dropped: dict[str, int] = {}  # what whole_windows left of the test unjudged

    # what a dataset says -------------------------------------------------------------------------------------------

    def annotated(self, split: str) -> list[Video]:
        """The videos of `split` (train, val, test or predict) that the dataset names, whether or not they are there.

        path: where the dataset says that a video lies, relative to root, or None where it only gives the name.
        """
        raise NotImplementedError

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        """How predictions on `split` are judged."""
        raise NotImplementedError

    @property
    def categories(self) -> list[str]:
        """The dataset's classes, "Normal" not among them."""
        raise NotImplementedError

    @property
    def protocol(self) -> dict[str, Any]:
        """What decides whether two numbers on this dataset may be compared; stored beside every number."""
        asked = {"limit_videos": self.limit_videos, "features": self.features and Path(self.features).name}
        asked |= {"crops": self.crops} if self.features else {}
        asked |= {"left_out": sum(self.left_out.values())} if self.missing == "leave_out" else {}
        asked |= {"whole_windows": self.whole_windows} | self.dropped
        return {"dataset": type(self).__name__} | {key: value for key, value in asked.items() if value is not None}

    def category_of(self, name: str) -> str | None:
        """The category that a video's name says, None where it says none."""
        return None

    def render(self) -> None:
        """Write the demo copy of this dataset into root."""
        raise ValueError(f"{type(self).__name__} has no demo copy; set data.init_args.demo: false")

    # what every dataset shares -------------------------------------------------------------------------------------

    def watch(self, watcher: Watcher) -> None:
        """Take views and batch sizes from the system that is going to watch."""
        self.watcher = watcher

    def prepare_data(self) -> None:
        if self.demo:
            self.render()
            self.__dict__.pop("_files", None)

    def videos(self, split: str) -> list[Video]:
        """The videos of `split` with their files. Raises FileNotFoundError where some may not be left out."""
        validated = self.watcher is None or self.watcher.validates
        if self.validation_fraction is None or split not in ("train", "val") or (split == "train" and not validated):
            if split == "val" and "val" not in self.splits:
                raise ValueError(
                    f"{type(self).__name__} has no validation split; set data.init_args.validation_fraction, as 0.1"
                )
            return self._there(split)
        videos = self._there("train")
        held = stratified_names(videos, self.validation_fraction, np.random.default_rng(self.seed))
        return [video for video in videos if (video.name in held) == (split == "val")]

    def _there(self, split: str) -> list[Video]:
        located = self.located(split)
        absent = [video.name for video in located if (video.features if self.features else video.path) is None]
        untimed = [video.name for video in self._untimed(split, located) if video.name not in absent]
        faults = [fault for fault in [self.lacks(split, located)] if fault]
        if absent:
            some = f"{len(absent)} of {len(located)} videos are not under {self.features or self.root}"
            faults.insert(0, f"{some}: {', '.join(absent[:10])}")
        if faults and (self.missing == "refuse" or len(absent) + len(untimed) == len(located)):
            raise FileNotFoundError(
                f"{'; '.join(faults)}; complete the download, or set data.init_args.missing: leave_out"
            )
        for fault in faults:
            rank_zero_info(f"{fault}; left out, as asked.")
        gone = {*absent, *untimed}
        self.left_out[split] = len(gone)
        return [video for video in located if video.name not in gone]

    def lacks(self, split: str, videos: Sequence[Video]) -> str:
        """What a split lacks besides the files of `videos`, in words; empty where nothing is known to be missing."""
        untimed = [video.name for video in self._untimed(split, videos)]
        if not untimed:
            return ""
        return f"of {len(untimed)} anomalous {split} videos nothing says when: {', '.join(untimed[:10])}"

    def _untimed(self, split: str, videos: Sequence[Video]) -> list[Video]:
        tested = split == "test" and self.scores_frames
        return [video for video in videos if tested and video.label == 1 and video.anomalies is None]

    def located(self, split: str) -> list[Video]:
        """The videos of `split` as annotated, path and features None where there is no file."""
        videos = [replace(video, path=self._locate(video)) for video in self.annotated(split)]
        if self.features is None:
            return videos
        stems = {_stem(annotations.video_name(file.name)) for file in Path(self.features).rglob("*.*")}
        there = find_features(self.features, [video.name for video in videos if _stem(video.name) in stems])
        return [replace(video, features=there.get(video.name), fps=video.fps or self.fps) for video in videos]

    def known(self, split: str) -> list[Video]:
        """The videos of `split`, limited as asked, each with its frame count and rate."""
        if split not in self._known:
            videos = self._limit(self.videos(split))
            if not videos:
                raise ValueError(f"{type(self).__name__} has no {split} video under {self.root}")
            if split == "train" and self.watcher is not None and self.watcher.fit_fraction < 1:
                drawn = stratified_names(videos, self.watcher.fit_fraction, np.random.default_rng((self.seed, 1)))
                videos = [video for video in videos if video.name in drawn]
            if split in ("test", "predict"):
                self._refuse_parts_of_unknown_length(videos)
            measured = [self._measure(video) for video in videos]
            self._known[split] = self._long_enough(measured) if split == "test" else measured
        return self._known[split]

    def _long_enough(self, videos: list[Video]) -> list[Video]:
        """The videos that hold a whole window, where only those are judged; what that drops is counted."""
        window = self.whole_windows
        if window is None:
            return videos
        if self.slack:
            raise ValueError(
                f"whole_windows {window} with the convention {self.convention}, which has its own axis of snippets; "
                "set data.init_args.convention: full, or leave whole_windows out"
            )
        frames = [video.n_frames or 0 for video in videos]
        if max(frames) < window:
            raise ValueError(
                f"whole_windows {window}: the longest of {len(videos)} test videos has {max(frames)} frames, so none "
                "would be judged; give the frames of a shorter window"
            )
        kept = [video for video, length in zip(videos, frames, strict=True) if length >= window]
        self.dropped = {
            "dropped_videos": len(videos) - len(kept),
            "dropped_frames": sum(length % window for length in frames),
        }
        return kept

    def seen(self) -> dict[str, Any]:
        """What a fit on this data sees: {"videos": {family/name: fingerprint of its file}}, validation among it."""
        validated = self.known("val") if self._watcher.validates else []
        videos = [*self.known("train"), *validated]
        held = {"hold_out": list(self.hold_out)} if self.hold_out else {}
        return {"videos": {f"{self.family}/{video.name}": self._fingerprint(video) for video in videos}} | held

    def tested(self) -> dict[str, str]:
        """{family/name: fingerprint} of the videos that a test judges."""
        return {f"{self.family}/{video.name}": self._fingerprint(video) for video in self.known("test")}

    def faults(self, decode: bool, progress: Callable[[int, int, str], None]) -> list[str]:
        """What `lightning check` should say beyond what it sees of the videos: a sentence for each fault."""
        found = []
        for split in self.splits:
            with contextlib.suppress(ValueError, OSError):  # the check has said that the split cannot be read
                found.append(self.lacks(split, self.located(split)))
        return [fault for fault in found if fault]

    def train_dataloader(self) -> DataLoader | WholeSet:
        watcher, videos = self._watcher, self.known("train")
        groups = [[i for i, video in enumerate(videos) if video.label == label] for label in (1, 0)]
        if (watcher.balanced or watcher.fit_unit) and not all(groups):
            raise ValueError(
                f"training needs anomalous and normal videos, {len(groups[0])} and {len(groups[1])} are there; "
                "raise limit_videos or check the training list"
            )
        dataset = self.fit_dataset(videos)
        if watcher.fit_unit is not None:
            return WholeSet(dataset)
        batches = SeededBatches(
            groups if watcher.balanced else [range(len(dataset))],
            watcher.batch_size,
            self.seed,
            *self._shard(),
            lengths=None if watcher.balanced else getattr(dataset, "lengths", None),
        )
        return ResumableLoader(dataset, batch_sampler=batches, collate_fn=join, **self._workers())

    def val_dataloader(self) -> DataLoader:
        return self._scoring_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._scoring_loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self._scoring_loader("predict")

    def calibration_dataloader(self) -> DataLoader | None:
        """Labelled clips that no test asks about, to fit a temperature of class scores on; None without any."""
        if self.calibration_split is None:
            return None
        loader = self._scoring_loader(self.calibration_split)
        return loader if len(loader) else None

    def setup(self, stage: str) -> None:
        """Refuse a system that scores no frames where frames are judged, before a frozen backbone reads hours."""
        kind = str(getattr(stage, "value", stage))
        if kind != "predict" and self.scores_frames and not self._watcher.scores_frames:
            name = type(self._watcher).__name__
            raise ValueError(
                f"{name} describes events and scores no frames, {type(self).__name__} is judged by its frames: take a "
                f"dataset of events, as Uca, or `lightning predict` for what {name} says of these videos"
            )

    def fit_dataset(self, videos: Sequence[Video]) -> Dataset[Clip]:
        """What training draws from: item i is video i, unless a dataset trains on something else."""
        if self._watcher.fit_unit is not None:
            return SampleDataset(videos, self._watcher.fit_views, self.stores, self._watcher.fit_unit)
        return BagDataset(videos, self._watcher.fit_views, self.stores, self.crops)

    def scoring_dataset(self, videos: Sequence[Video]) -> Dataset[Clip]:
        """What is scored, in order: windows, or stretches of `event_s` seconds for a system that watches events."""
        watcher = self._watcher
        if watcher.event_s is not None:
            return EventDataset(stretches(videos, watcher.event_s), watcher.test_views)
        return WindowDataset(videos, watcher.test_views, self.stores, watcher.window_batch, self.crops)

    def parts(self, videos: Sequence[Video]) -> list[Part]:
        """What a frozen backbone reads of `videos`, video by video: all of each, unless a dataset is one of events."""
        return [whole(video) for video in videos]

    def pixel_clips(
        self, parts: Sequence[Part], stream: str, view: View, wanted: Callable[[Video], bool] = lambda video: True
    ) -> DataLoader:
        """Every window or segment of `parts` as pixels, one video after the other, none shared among processes.

        wanted: asked of each video just before it is read; one that is not wanted any more is passed over.
        """
        dataset = PartDataset(parts, stream, view, self._watcher.window_batch)
        return DataLoader(dataset, batch_size=None, sampler=Wanted(dataset, wanted), **self._workers())

    def stretch_clips(self, wanted: Sequence[tuple[Video, int, int]], stream: str, view: View) -> DataLoader:
        """Pixels of stretches (video, first frame, end frame) of videos, one a Clip, each watched as a bag."""
        events = [Event(video, first, end) for video, first, end in wanted]
        return DataLoader(EventDataset(events, {stream: view}), batch_size=None, **self._workers())

    def frame_metrics(self, split: str, unseen: Sequence[str] = ()) -> dict[str, Metric]:
        """AUROC, AP and events of a split with times; AUROC of whole videos where both labels are there.

        Of the split "val" whole videos alone are judged. unseen: categories that no fit has seen.
        """
        validates = split == "val"
        videos = self.known(split) if validates else self.judged(self.known(split))
        axis = (0, 0) if validates else (self.slack, self.tail)
        labels = {video.label for video in videos}
        whole: dict[str, Metric] = {"video": VideoAuroc(videos, *axis)} if labels == {0, 1} else {}
        if validates:
            if not whole and self.monitor is not None:
                raise ValueError(
                    f"validation needs anomalous and normal videos to choose a checkpoint by, its {len(videos)} videos "
                    f"have the labels {sorted(map(str, labels))}; raise validation_fraction or limit_videos"
                )
            return whole
        return {
            "auroc": FrameAuroc(videos, *axis, unseen, sentinels=self.whole_windows is not None),
            "ap": FrameAp(videos, *axis),
            "events": EventMap(videos, *axis),
            "calibration": Calibration(videos, *axis),
            **whole,
        }

    def pixel_metrics(self, size: tuple[int, int] | None = None) -> dict[str, Metric]:
        """AUROC and AP of pixels, regions and tracks, at `size` (Y, X) or the masks' own; no keys without scores."""
        videos = self.judged(self.known("test"))
        return {"pixel": PixelAuroc(videos, size, self.tail), "regions": RegionMetric(videos, size, self.tail)}

    def judged(self, videos: Sequence[Video]) -> list[Video]:
        """The videos, n_frames known, as the convention sees them: length of the frame axis and anomalous intervals."""
        count = {video.name: video.n_frames for video in videos}
        if self.slack:
            rows = annotations.lengths(self.find_file(self.lengths)) if self.lengths else {}
            absent = [name for name in count if name not in rows]
            if absent and self.convention in self.counted_by_opencv:
                raise ValueError(
                    f"the convention {self.convention} needs OpenCV's frame counts of {len(absent)} videos, as of "
                    f"{absent[0]}; set data.init_args.lengths to a csv with columns name, frames, frames_cv2"
                )
            rows = {name: rows.get(name, {"frames": count[name]}) for name in count}
            count = annotations.array_lengths(rows, self.convention)
        label = annotations.frame_labels(videos, count, self.convention)
        if self.whole_windows is not None:
            label = {name: one[: len(one) - len(one) % self.whole_windows] for name, one in label.items()}
            # an anomaly that lies in a dropped tail is not there to be found
            videos = [replace(v, label=v.label and int(label[v.name].any())) for v in videos]
        return [
            replace(video, n_frames=len(label[video.name]), anomalies=annotations.anomalous_runs(label[video.name]))
            for video in videos
        ]

    @property
    def slack(self) -> int:
        """By how many frames the convention's axis may miss the end of a video: a snippet, or none."""
        return SNIPPET_FRAMES if self.convention in SNIPPET_CONVENTIONS else 0

    @property
    def tail(self) -> int:
        """Up to how many frames at a video's end are scored and not judged."""
        return 0 if self.whole_windows is None else self.whole_windows - 1

    def _scoring_loader(self, split: str) -> DataLoader:
        dataset = self.scoring_dataset(self.known(split))
        return DataLoader(dataset, batch_size=None, sampler=Shard(len(dataset), *self._shard()), **self._workers())

    @property
    def _watcher(self) -> Watcher:
        if self.watcher is None:
            raise ValueError("nobody watches this datamodule yet: call datamodule.watch(system) before the trainer")
        return self.watcher

    def _workers(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": outlast_signals,
        }

    def _shard(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        """What lies below root: files by their name, videos by their stem as well, folders of images by their own."""
        found: dict[str, list[Path]] = {}
        visited = set()
        for folder, folders, names in os.walk(self.root, followlinks=True):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:  # links may lead in circles
                folders.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            images = False
            for name in names:
                if name.startswith("."):  # macOS leaves a ._name beside each file
                    continue
                suffix = os.path.splitext(name)[1].lower()
                if suffix in IMAGE_SUFFIXES:
                    images = True
                    continue
                found.setdefault(name, []).append(Path(folder, name))
                if suffix in SUFFIXES:
                    found.setdefault(name[: -len(suffix)], []).append(Path(folder, name))
            if images:
                found.setdefault(Path(folder).name, []).append(Path(folder))
        return {name: sorted(paths) for name, paths in found.items()}

    def _locate(self, video: Video) -> Path | None:
        """The file that lies where the dataset says, else the first of this name anywhere below root."""
        spelled = video.path
        if spelled is not None and (self.root / spelled).exists():
            return self.root / spelled
        if not self.by_name:
            return None
        files = self._files.get(video.name, [])
        if spelled is not None:  # UCF-Crime's event recognition part repeats 50 normal videos in another folder
            files = sorted(files, key=lambda file: file.parts[-2:] != spelled.parts[-2:])
        return files[0] if files else None

    def find_file(self, *names: str) -> Path:
        """The first of these files that lies in root or in a folder under it."""
        for name in names:
            for path in (self.root / name, *self._files.get(Path(name).name, []), Path(name)):
                if path.is_file():
                    return path
        found = "here or in a folder below" if self.root.is_dir() else "for there is no such folder"
        raise FileNotFoundError(
            f"{self.root}: no {' or '.join(names)} {found}; "
            f"data.init_args.root must be the folder of {type(self).__name__}, or set demo: true to render a small one"
        )

    def _fingerprint(self, video: Video) -> str:
        path = video.path or video.features
        return "" if path is None else str(self.memory.recall(path, "fingerprint", fingerprint))

    def _limit(self, videos: list[Video]) -> list[Video]:
        if self.limit_videos is None or len(videos) <= self.limit_videos:
            return videos
        groups: dict[int | None, list[Video]] = {}
        for video in videos:
            groups.setdefault(video.label, []).append(video)
        for i, (label, group) in enumerate(sorted(groups.items(), key=lambda item: -(item[0] or 0))):
            share = (self.limit_videos - i - 1) // len(groups) + 1
            spread = np.linspace(0, len(group), min(share, len(group)), endpoint=False, dtype=int)
            groups[label] = [group[k] for k in spread]
        kept = {video.name for group in groups.values() for video in group}
        return [video for video in videos if video.name in kept]

    def _refuse_parts_of_unknown_length(self, videos: list[Video]) -> None:
        """Where every file has 32 rows, a row is a part of a video of any length, and not 16 frames."""
        unknown = [video for video in videos if video.features and video.n_frames is None and video.path is None]
        if unknown and all(len(read_rows(video, self.crops)) == EQUAL_PARTS for video in unknown):
            raise ValueError(
                f"{unknown[0].features}: {EQUAL_PARTS} rows, as in all of the {len(unknown)} files: equal parts of "
                "videos of unknown length; set data.init_args.lengths to a csv with columns name, frames, or put "
                "the videos under root"
            )

    def _measure(self, video: Video) -> Video:
        """The video with frame count and rate; a file's own count beats the annotation's."""
        if video.features is not None and video.path is None:
            rows = len(read_rows(video, self.crops))
            return replace(video, n_frames=video.n_frames or 16 * rows)  # 16-frame snippets unless a length is known
        if video.path is None:
            raise FileNotFoundError(f"{video.name}: no video file of this name under {self.root}")
        info = VideoInfo(*self.memory.recall(video.path, "probe", _probe))
        if info.n_frames < 1:
            raise ValueError(f"{video.path}: no frame can be decoded")
        return replace(video, n_frames=info.n_frames, fps=info.fps or video.fps or self.fps)


def _probe(path: Path) -> list[Any]:
    info = probe(path)
    return [info.n_frames, info.fps, info.height, info.width]


def _stem(name: str) -> str:
    return name.removesuffix("_x264")  # feature files go by either


def stratified_names(videos: Sequence[Video], fraction: float, generator: np.random.Generator) -> set[str]:
    """Names of videos drawn: `fraction` of each label, at least one, spread over its categories by their size."""
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
