"""The fitting set of a probe: few labelled videos, read by a frozen backbone, as one batch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from torch.utils.data import Dataset

from datamodules.clips import Stores, WindowDataset, join
from vigil.types import Clip, Video, View


class SampleDataset(Dataset[Clip]):
    """Item i is a Clip of the samples of video i: its segments, or one that is their mean.

    features {name: float32 (B, 1, …)}: B the video's windows, or its parts where the view is a bag; 1 for unit "video".
    Every sample has its video's label. Raises ValueError for videos that no backbone has read.
    """

    def __init__(
        self, videos: Sequence[Video], views: Mapping[str, View], stores: Stores, unit: Literal["video", "segment"]
    ) -> None:
        given = next((video.features for video in videos if video.features is not None), None)
        if given is not None or any((stream, view) not in stores for stream, view in views.items()):
            raise ValueError(
                f"{given or 'the training videos'}: pixels read by the system's own backbone are expected; leave "
                "data.init_args.features out"
            )
        self.segments = WindowDataset(videos, views, stores, size=sys.maxsize)
        self.unit = unit

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> Clip:
        clip = self.segments[index]
        if self.unit == "segment":
            return clip
        first = {name: frame[:1] for name, frame in clip.frame.items()}
        span = clip.span[:1].clone()
        span[0, 1] = clip.span[-1, 1]
        return Clip(
            video=clip.video[:1],
            span=span,
            frame=first,
            features={name: rows.mean(0, keepdim=True) for name, rows in clip.features.items()},
            label=None if clip.label is None else clip.label[:1],
            category=None if clip.category is None else clip.category[:1],
            fps=None if clip.fps is None else clip.fps[:1],
        )


class WholeSet:
    """A loader of one batch: all of a dataset, put together once and handed out again every epoch.

    Every process gets the whole set, so that any number of them fits the same weights.
    """

    def __init__(self, dataset: SampleDataset) -> None:
        self.dataset = dataset
        self._clip: Clip | None = None

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Clip]:
        if self._clip is None:
            self._clip = join([self.dataset[i] for i in range(len(self.dataset))])
        yield self._clip
