"""Datasets of Clips: windows for scoring, bags for training, and how several Clips become one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset, Sampler

from vigil.features import read_features, snippet_spans, to_segments
from vigil.store import Store, refuse_shared_names
from vigil.types import Clip, Video, View
from vigil.video import read_frames

Stores = Mapping[tuple[str, View], tuple[Store, Sequence[str]]]  # of a stream in a view: what is kept, which tensors


class WindowDataset(Dataset[Clip]):
    """Windows of videos for scoring: item i is a Clip of up to `size` neighbouring windows of one video."""

    def __init__(
        self,
        videos: Sequence[Video],
        views: Mapping[str, View],
        stores: Stores,
        size: int,
        crops: str | int = "mean",
    ) -> None:
        self.videos, self.views, self.stores, self.crops = videos, dict(views), stores, crops
        _refuse_shared_names(stores, views)
        self.items: list[tuple[int, int, int]] = []
        for i, video in enumerate(videos):
            n_windows = len(_spans(video, self.views, crops))
            self.items += [(i, first, min(first + size, n_windows)) for first in range(0, n_windows, size)]
        self._kept: dict[str, tuple[int, dict[str, Tensor]]] = {}  # of each stream, the video asked for last

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Clip:
        i, first, end = self.items[index]
        video = self.videos[i]
        span = _spans(video, self.views, self.crops)[first:end]
        clip = Clip(video=[video.name] * (end - first), span=torch.as_tensor(span), frame={})
        for stream, view in self.views.items():
            if video.features is not None:
                clip.features[stream] = torch.from_numpy(read_rows(video, self.crops)[first:end])[:, None]
            elif (stream, view) in self.stores:
                rows = self._stored(stream, i)
                clip.features |= {name: kept[first:end, None].float() for name, kept in rows.items()}
            else:
                frame = view.indices(_length(video))[first:end]
                clip.frame[stream] = torch.as_tensor(frame)
                clip.pixels[stream] = _pixels(video, frame)
                continue
            clip.frame[stream] = torch.as_tensor(span[:, :1].copy())
        return _labelled(clip, video)

    def _stored(self, stream: str, i: int) -> dict[str, Tensor]:
        if self._kept.get(stream, (None,))[0] != i:  # neighbouring windows ask for one video
            self._kept[stream] = (i, _stored(self.stores, stream, self.views[stream], self.videos[i]))
        return self._kept[stream][1]


class Wanted(Sampler[int]):
    """The items of the videos that are still wanted when it is their turn."""

    def __init__(self, dataset: WindowDataset, wanted: Callable[[Video], bool]) -> None:
        self.dataset, self.wanted = dataset, wanted

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        asked, answer = None, False
        for item, (i, _, _) in enumerate(self.dataset.items):
            if i != asked:
                asked, answer = i, self.wanted(self.dataset.videos[i])
            if answer:
                yield item


class BagDataset(Dataset[Clip]):
    """Whole videos for training: item i is a Clip of one bag."""

    def __init__(
        self,
        videos: Sequence[Video],
        views: Mapping[str, View],
        stores: Stores,
        crops: str | int = "mean",
    ) -> None:
        self.videos, self.views, self.stores, self.crops = videos, dict(views), stores, crops
        _refuse_shared_names(stores, views)

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, index: int) -> Clip:
        video = self.videos[index]
        n_frames = _length(video)
        clip = Clip(video=[video.name], span=torch.tensor([[0, n_frames]]), frame={})
        for stream, view in self.views.items():
            if video.features is not None:
                bag = torch.from_numpy(to_segments(read_rows(video, self.crops), view.segments or 32))
                clip.features[stream] = bag[None]
            elif (stream, view) in self.stores:
                rows = _stored(self.stores, stream, view, video)
                clip.features |= {name: kept[None].float() for name, kept in rows.items()}
            else:
                frame = view.indices(n_frames)
                clip.frame[stream] = torch.as_tensor(frame)[None]
                clip.pixels[stream] = _pixels(video, frame)[None]
                continue
            clip.frame[stream] = torch.as_tensor(view.spans(n_frames)[:, 0].copy())[None]
        return _labelled(clip, video)


@dataclass(frozen=True)
class Event:
    """A described stretch of a video: frames `first` to `end`, the latter excluded, and what the sentence says."""

    video: Video
    first: int
    end: int
    sentence: str


class EventDataset(Dataset[Clip]):
    """Described stretches of videos: item i is a Clip of one, every view laid over the stretch instead of the video.

    A bag of one segment is given as plain frames: pixels (B, T, C, Y, X), frame (B, T).
    """

    def __init__(self, events: Sequence[Event], views: Mapping[str, View]) -> None:
        self.events, self.views = events, dict(views)
        windows = [f"{stream} {view}" for stream, view in views.items() if view.segments is None]
        if windows:
            raise ValueError(f"{'; '.join(windows)}: an event is watched as a bag; give segments, and no stride or hop")

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, index: int) -> Clip:
        event = self.events[index]
        clip = Clip(video=[event.video.name], span=torch.tensor([[event.first, event.end]]), frame={})
        for stream, view in self.views.items():
            frame = event.first + view.indices(event.end - event.first)
            if view.segments == 1:
                frame = frame[0]
            clip.frame[stream] = torch.as_tensor(frame)[None]
            clip.pixels[stream] = _pixels(event.video, frame)[None]
        clip.text = [event.sentence]
        return _labelled(clip, event.video)


def _length(video: Video) -> int:
    assert video.n_frames is not None  # known() measured it
    return video.n_frames


@lru_cache(maxsize=4)
def _read(path: Path, crops: str | int) -> np.ndarray:
    return read_features(path, crops)


def read_rows(video: Video, crops: str | int) -> np.ndarray:
    """The video's pre-extracted features (N, D), crops averaged or chosen."""
    assert video.features is not None
    return _read(video.features, crops)  # neighbouring windows ask for one file


def _spans(video: Video, views: Mapping[str, View], crops: str | int) -> np.ndarray:
    if video.features is not None:
        return snippet_spans(len(read_rows(video, crops)), _length(video))
    return next(iter(views.values())).spans(_length(video))


def _pixels(video: Video, frame: np.ndarray) -> Tensor:
    assert video.path is not None  # known() looked
    pixels = read_frames(video.path, frame.ravel())
    return pixels.view(*frame.shape, *pixels.shape[1:])


def _refuse_shared_names(stores: Stores, views: Mapping[str, View]) -> None:
    refuse_shared_names({stream: stores[stream, view][1] for stream, view in views.items() if (stream, view) in stores})


def _stored(stores: Stores, stream: str, view: View, video: Video) -> dict[str, Tensor]:
    """The readings kept of a video: {name: (W, …)}, a row per window or segment, in the dtype they are kept in."""
    assert video.path is not None
    store, names = stores[stream, view]
    readings = store.read(video.path, names)
    if readings is None:
        raise FileNotFoundError(
            f"{store.path(video.path)}: the reading of {video.name} went away; run again to redo it"
        )
    n_rows = len(view.indices(_length(video)))
    for name, rows in readings.items():
        if len(rows) != n_rows:
            raise ValueError(
                f"{store.path(video.path)}: {len(rows)} rows of {name}, {video.name} has {n_rows}; delete the file "
                "and run again to redo it"
            )
    return readings


def _labelled(clip: Clip, video: Video) -> Clip:
    clip.fps = torch.full((len(clip.video),), float("nan") if video.fps is None else video.fps)
    if video.label is not None:
        clip.label = torch.full((len(clip.video),), video.label)
    clip.category = None if video.category is None else [video.category] * len(clip.video)
    frame = next(iter(clip.frame.values()))
    if video.anomalies is not None and frame.ndim == 2:
        clip.frame_label = torch.zeros_like(frame)
        for first, end in video.anomalies:
            clip.frame_label |= ((frame >= first) & (frame < end)).long()
    return clip


def join(clips: Sequence[Clip]) -> Clip:
    """One Clip of several, along B. Pixels of another size are resized to the first's, since a batch has one size.

    The first of this process's share: where sizes are mixed, what is resized depends on the number of processes.
    """

    def stack(values: Sequence[Tensor]) -> Tensor:
        return torch.cat([_resized(value, values[0].shape[-2:]) if value.ndim > 4 else value for value in values])

    def streams(get: Callable[[Clip], dict[str, Tensor]]) -> dict[str, Tensor]:
        return {stream: stack([get(clip)[stream] for clip in clips]) for stream in get(clips[0])}

    def rows(values: Sequence[Tensor | None]) -> Tensor | None:
        return None if any(value is None for value in values) else torch.cat([v for v in values if v is not None])

    def names(values: Sequence[list[Any] | None]) -> list[Any] | None:
        return None if any(value is None for value in values) else [name for value in values for name in value or []]

    pixels = streams(lambda clip: clip.pixels)
    return Clip(
        video=[name for clip in clips for name in clip.video],
        span=torch.cat([clip.span for clip in clips]),
        frame=streams(lambda clip: clip.frame),
        pixels=pixels,
        features=streams(lambda clip: clip.features),
        label=rows([clip.label for clip in clips]),
        category=names([clip.category for clip in clips]),
        frame_label=rows([clip.frame_label for clip in clips]),
        mask=rows([_resized_mask(clip.mask, pixels) for clip in clips]),
        text=names([clip.text for clip in clips]),
        phrases=names([clip.phrases for clip in clips]),
        fps=rows([clip.fps for clip in clips]),
    )


def _resized_mask(mask: Tensor | None, pixels: dict[str, Tensor]) -> Tensor | None:
    """The mask at the size of the pixels, nearest: half a pixel of an object is not an object."""
    if mask is None or not pixels:
        return mask
    size = tuple(next(iter(pixels.values())).shape[-2:])
    return mask if mask.shape[-2:] == size else interpolate(mask.float(), size=size, mode="nearest-exact").bool()


def _resized(pixels: Tensor, size: torch.Size) -> Tensor:
    if pixels.shape[-2:] == size:
        return pixels
    flat = pixels.flatten(0, -4).float()
    smaller = interpolate(flat, size=tuple(size), mode="bilinear", antialias=True, align_corners=False)
    return smaller.round().clamp(0, 255).to(torch.uint8).view(*pixels.shape[:-2], *size)
