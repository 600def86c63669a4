"""VideoDataModule: Videos of a dataset become windows or bags, Clips and loaders."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, Dataset, Sampler
from torchmetrics import Metric

from vigil.features import read_features, snippet_spans, to_segments
from vigil.store import FileMemory, Store
from vigil.types import Clip, Video, View, Watcher
from vigil.video import VideoInfo, probe, read_frames

EQUAL_PARTS = 32  # rows of every video where features stand for its parts: C3D of Sultani et al.


class VideoDataModule(LightningDataModule):
    """Base of every dataset: a subclass says which videos there are and how they are judged.

    root: the dataset's folder. demo: render the demo copy into root first. limit_videos: at most so many videos of
    each split, both labels alike, for a quick trial. seed: draws the validation split and the order of training.
    num_workers: decoding processes. Source: none; the conventions are this project's.
    """

    monitor: str | None = None  # the logged validation metric, larger is better, that the best checkpoint is chosen by

    def __init__(
        self,
        root: str,
        demo: bool = False,
        limit_videos: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.demo = demo
        self.limit_videos = limit_videos
        self.seed = seed
        self.num_workers = num_workers
        self.stores: dict[View, Store] = {}
        self.watcher: Watcher | None = None
        self.crops: str | int = "mean"
        self.memory = FileMemory()
        self._known: dict[str, list[Video]] = {}

    # what a dataset says -------------------------------------------------------------------------------------------

    def videos(self, split: str) -> list[Video]:
        """The videos of `split`: train, val, test or predict."""
        raise NotImplementedError

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        """How predictions on `split` are judged."""
        raise NotImplementedError

    @property
    def categories(self) -> list[str]:
        """The dataset's classes, "Normal" not among them."""
        raise NotImplementedError

    def render(self) -> None:
        """Write the demo copy of this dataset into root."""
        raise NotImplementedError

    # what every dataset shares -------------------------------------------------------------------------------------

    def watch(self, watcher: Watcher) -> None:
        """Take views and batch sizes from the system that is going to watch."""
        self.watcher = watcher

    def prepare_data(self) -> None:
        if self.demo:
            self.render()

    def known(self, split: str) -> list[Video]:
        """The videos of `split`, limited as asked, each with its frame count and rate."""
        if split not in self._known:
            videos = self._limit(self.videos(split))
            if not videos:
                raise ValueError(f"{type(self).__name__} has no {split} video under {self.root}")
            if split in ("test", "predict"):
                self._refuse_parts_of_unknown_length(videos)
            self._known[split] = [self._measure(video) for video in videos]
        return self._known[split]

    def train_dataloader(self) -> DataLoader:
        watcher, videos = self._watcher, self.known("train")
        groups = [[i for i, video in enumerate(videos) if video.label == label] for label in (1, 0)]
        if watcher.balanced and not all(groups):
            raise ValueError(
                f"training needs anomalous and normal videos, {len(groups[0])} and {len(groups[1])} are there; "
                "raise limit_videos or check the training list"
            )
        batches = SeededBatches(
            groups if watcher.balanced else [groups[0] + groups[1]], watcher.batch_size, self.seed, *self._shard()
        )
        dataset = BagDataset(videos, watcher.fit_views, self.stores, self.crops)
        return ResumableLoader(dataset, batch_sampler=batches, collate_fn=join, **self._workers())

    def val_dataloader(self) -> DataLoader:
        return self._scoring_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._scoring_loader("test")

    def predict_dataloader(self) -> DataLoader:
        return self._scoring_loader("predict")

    def pixel_clips(self, videos: Sequence[Video], stream: str, view: View) -> DataLoader:
        """Every window or segment of `videos` as pixels, one video after the other, none shared among processes."""
        dataset = WindowDataset(videos, {stream: view}, {}, self._watcher.window_batch)
        return DataLoader(dataset, batch_size=None, shuffle=False, **self._workers())

    def _scoring_loader(self, split: str) -> DataLoader:
        watcher = self._watcher
        dataset = WindowDataset(self.known(split), watcher.test_views, self.stores, watcher.window_batch, self.crops)
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
        if unknown and all(len(_features(video, self.crops)) == EQUAL_PARTS for video in unknown):
            raise ValueError(
                f"{unknown[0].features}: {EQUAL_PARTS} rows, as in all of the {len(unknown)} files: equal parts of "
                "videos of unknown length; set data.init_args.lengths to a csv with columns name, frames, or put "
                "the videos under root"
            )

    def _measure(self, video: Video) -> Video:
        """The video with frame count and rate; a file's own count beats the annotation's."""
        if video.features is not None and video.path is None:
            rows = len(_features(video, self.crops))
            return replace(video, n_frames=video.n_frames or 16 * rows)  # 16-frame snippets unless a length is known
        if video.path is None:
            raise FileNotFoundError(f"{video.name}: no video file of this name under {self.root}")
        info = VideoInfo(*self.memory.recall(video.path, "probe", _probe))
        if info.n_frames < 1:
            raise ValueError(f"{video.path}: no frame can be decoded")
        return replace(video, n_frames=info.n_frames, fps=info.fps)


def _probe(path: Path) -> list[Any]:
    info = probe(path)
    return [info.n_frames, info.fps, info.height, info.width]


def outlast_signals(_: int) -> None:
    """For a loader's worker: what stops a whole process group shall find it alive until the batch under way is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(30))  # and no longer, should nobody end it


class WindowDataset(Dataset[Clip]):
    """Windows of videos for scoring: item i is a Clip of up to `size` neighbouring windows of one video."""

    def __init__(
        self,
        videos: Sequence[Video],
        views: Mapping[str, View],
        stores: Mapping[View, Store],
        size: int,
        crops: str | int = "mean",
    ) -> None:
        self.videos, self.views, self.stores, self.crops = videos, dict(views), stores, crops
        self.items: list[tuple[int, int, int]] = []
        for i, video in enumerate(videos):
            n_windows = len(_spans(video, self.views, crops))
            self.items += [(i, first, min(first + size, n_windows)) for first in range(0, n_windows, size)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Clip:
        i, first, end = self.items[index]
        video = self.videos[i]
        span = _spans(video, self.views, self.crops)[first:end]
        clip = Clip(video=[video.name] * (end - first), span=torch.as_tensor(span), frame={})
        for stream, view in self.views.items():
            if video.features is not None:
                rows = torch.from_numpy(_features(video, self.crops)[first:end])
            elif view in self.stores:
                rows = _stored(self.stores[view], video)[first:end]
            else:
                frame = view.indices(_length(video))[first:end]
                clip.frame[stream] = torch.as_tensor(frame)
                clip.pixels[stream] = _pixels(video, frame)
                continue
            clip.features[stream] = rows[:, None]
            clip.frame[stream] = torch.as_tensor(span[:, :1].copy())
        return _labelled(clip, video)


class BagDataset(Dataset[Clip]):
    """Whole videos for training: item i is a Clip of one bag."""

    def __init__(
        self,
        videos: Sequence[Video],
        views: Mapping[str, View],
        stores: Mapping[View, Store],
        crops: str | int = "mean",
    ) -> None:
        self.videos, self.views, self.stores, self.crops = videos, dict(views), stores, crops

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Clip:
        video = self.videos[index]
        n_frames = _length(video)
        clip = Clip(video=[video.name], span=torch.tensor([[0, n_frames]]), frame={})
        for stream, view in self.views.items():
            if video.features is not None:
                bag = torch.from_numpy(to_segments(_features(video, self.crops), view.segments or 32))
            elif view in self.stores:
                bag = _stored(self.stores[view], video)
            else:
                frame = view.indices(n_frames)
                clip.frame[stream] = torch.as_tensor(frame)[None]
                clip.pixels[stream] = _pixels(video, frame)[None]
                continue
            clip.features[stream] = bag[None]
            clip.frame[stream] = torch.as_tensor(view.spans(n_frames)[:, 0].copy())[None]
        return _labelled(clip, video)


def _length(video: Video) -> int:
    assert video.n_frames is not None  # known() measured it
    return video.n_frames


@lru_cache(maxsize=4)
def _read(path: Path, crops: str | int) -> np.ndarray:
    return read_features(path, crops)


def _features(video: Video, crops: str | int) -> np.ndarray:
    assert video.features is not None
    return _read(video.features, crops)  # neighbouring windows ask for one file


def _spans(video: Video, views: Mapping[str, View], crops: str | int) -> np.ndarray:
    if video.features is not None:
        return snippet_spans(len(_features(video, crops)), _length(video))
    return next(iter(views.values())).spans(_length(video))


def _pixels(video: Video, frame: np.ndarray) -> Tensor:
    assert video.path is not None  # known() looked
    pixels = read_frames(video.path, frame.ravel())
    return pixels.view(*frame.shape, *pixels.shape[1:])


def _stored(store: Store, video: Video) -> Tensor:
    assert video.path is not None
    reading = store.read(video.path)
    if reading is None:
        raise FileNotFoundError(
            f"{store.path(video.path)}: the reading of {video.name} went away; run again to redo it"
        )
    return reading


def _labelled(clip: Clip, video: Video) -> Clip:
    if video.label is not None:
        clip.label = torch.full((len(clip.video),), video.label)
    clip.category = None if video.category is None else [video.category] * len(clip.video)
    return clip


def join(clips: Sequence[Clip]) -> Clip:
    """One Clip of several, along B. Pixels of another size are resized to the first's, since a batch has one size."""

    def stack(values: Sequence[Tensor]) -> Tensor:
        return torch.cat([_resized(value, values[0].shape[-2:]) if value.ndim > 4 else value for value in values])

    def streams(get: Callable[[Clip], dict[str, Tensor]]) -> dict[str, Tensor]:
        return {stream: stack([get(clip)[stream] for clip in clips]) for stream in get(clips[0])}

    labels, categories = [clip.label for clip in clips], [clip.category for clip in clips]
    return Clip(
        video=[name for clip in clips for name in clip.video],
        span=torch.cat([clip.span for clip in clips]),
        frame=streams(lambda clip: clip.frame),
        pixels=streams(lambda clip: clip.pixels),
        features=streams(lambda clip: clip.features),
        label=None if None in labels else torch.cat([label for label in labels if label is not None]),
        category=None if None in categories else [name for names in categories for name in names or []],
    )


def _resized(pixels: Tensor, size: torch.Size) -> Tensor:
    if pixels.shape[-2:] == size:
        return pixels
    flat = pixels.flatten(0, -4).float()
    smaller = interpolate(flat, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return smaller.round().clamp(0, 255).to(torch.uint8).view(*pixels.shape[:-2], *size)


class SeededBatches(Sampler[list[int]]):
    """Batches of `size` from each group, in an order that (seed, epoch) alone decides; each rank takes its share.

    `size` counts all ranks together, so a recipe does not change with the number of GPUs; ValueError where the ranks
    do not divide it. The shorter group goes round until the longer one is through.
    """

    def __init__(self, groups: Sequence[Sequence[int]], size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        if size % world:
            near = " or ".join(str(n) for n in (size // world * world, (size // world + 1) * world) if n)
            raise ValueError(
                f"batch_size {size} is shared by {world} processes; it must be a multiple of {world}, such as {near}"
            )
        self.groups = [np.asarray(group) for group in groups]
        self.size, self.seed, self.rank, self.world, self.epoch = size, seed, rank, world, 0

    @property
    def sampler(self) -> SeededBatches:
        return self  # Lightning tells the epoch to batch_sampler.sampler, and to nobody without one

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(max(len(group) for group in self.groups) / self.size)

    def __iter__(self) -> Iterator[list[int]]:
        generator = np.random.default_rng((self.seed, self.epoch))
        orders = []
        for group in self.groups:
            rounds = math.ceil(len(self) * self.size / len(group))
            orders.append(np.concatenate([generator.permutation(group) for _ in range(rounds)]))
        for start in range(0, len(self) * self.size, self.size):
            mine = slice(start + self.rank, start + self.size, self.world)
            yield [int(i) for order in orders for i in order[mine]]


class Shard(Sampler[int]):
    """Every `world`-th item from `rank`, padded by going round: all ranks get equally many, metrics drop repeats."""

    def __init__(self, n_items: int, rank: int = 0, world: int = 1) -> None:
        per_rank = math.ceil(n_items / world)
        self.items = [(rank + world * k) % n_items for k in range(per_rank)]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[int]:
        return iter(self.items)


class ResumableLoader(DataLoader):
    """A DataLoader that goes on in the middle of an epoch: its state is how many batches it has yielded.

    A state at the end of an epoch reads as 0, since the next pass is the next epoch's.
    """

    _start = 0
    _yielded = 0

    def __iter__(self) -> Iterator[Clip]:
        self._yielded, self._start = self._start, 0
        for batch in self._rest(self._yielded) if self._yielded else super().__iter__():
            self._yielded += 1
            yield batch

    def _rest(self, done: int) -> Iterator[Clip]:
        assert self.batch_sampler is not None
        rest = list(self.batch_sampler)[done:]  # in a loader of its own: this one's workers serve the next epochs
        yield from DataLoader(
            self.dataset,
            batch_sampler=rest,
            collate_fn=self.collate_fn,
            num_workers=self.num_workers,
            worker_init_fn=outlast_signals,
        )

    def state_dict(self) -> dict[str, int]:
        return {"yielded": self._yielded % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = state["yielded"]
