"""Datasets of Clips: windows for scoring, bags for training, and how several Clips become one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.data import Dataset

from vigil.features import read_features, snippet_spans, to_segments
from vigil.store import Store
from vigil.types import Clip, Video, View
from vigil.video import read_frames


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
                rows = torch.from_numpy(read_rows(video, self.crops)[first:end])
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
                bag = torch.from_numpy(to_segments(read_rows(video, self.crops), view.segments or 32))
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
