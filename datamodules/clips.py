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
from torch.nn.functional import interpolate, pad
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
        refuse_names_of_two(stores, views)
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
                clip.pixels[stream] = decode(video, frame)
                continue
            clip.frame[stream] = torch.as_tensor(span[:, :1].copy())
        return labelled(clip, video)

    def _stored(self, stream: str, i: int) -> dict[str, Tensor]:
        if self._kept.get(stream, (None,))[0] != i:  # neighbouring windows ask for one video
            self._kept[stream] = (i, kept_of(self.stores, stream, self.views[stream], whole(self.videos[i])))
        return self._kept[stream][1]


@dataclass(frozen=True)
class Part:
    """What a frozen backbone reads and keeps as one: frames `first` to `end` of a video, the latter excluded."""

    video: Video
    first: int
    end: int

    @property
    def suffix(self) -> str:
        """How the names of what is kept of it end; nothing where it is the whole video."""
        return ""

    def frames(self, view: View) -> np.ndarray:
        """Where the view looks, counted from the video's first frame: int64 (W, frames), a row a window or segment."""
        return self.first + view.indices(self.end - self.first)


def whole(video: Video) -> Part:
    """All of a video."""
    return Part(video, 0, _length(video))


class PartDataset(Dataset[Clip]):
    """Parts of videos for a frozen backbone to read: item i is a Clip of up to `size` windows or segments of one part.

    pixels (W, T, C, Y, X), also of a bag: a row per segment.
    """

    def __init__(self, parts: Sequence[Part], stream: str, view: View, size: int) -> None:
        self.parts, self.stream, self.view = parts, stream, view
        self.items: list[tuple[int, int, int]] = []
        for i, part in enumerate(parts):
            n_rows = len(part.frames(view))
            self.items += [(i, first, min(first + size, n_rows)) for first in range(0, n_rows, size)]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Clip:
        i, first, end = self.items[index]
        part = self.parts[i]
        span, frame = self.view.spans(part.end - part.first)[first:end], part.frames(self.view)[first:end]
        return labelled(
            Clip(
                video=[part.video.name] * (end - first),
                span=torch.as_tensor(part.first + span),
                frame={self.stream: torch.as_tensor(frame)},
                pixels={self.stream: decode(part.video, frame)},
            ),
            part.video,
        )


class Wanted(Sampler[int]):
    """The items of the videos that are still wanted when it is their turn."""

    def __init__(self, dataset: PartDataset, wanted: Callable[[Video], bool]) -> None:
        self.dataset, self.wanted = dataset, wanted

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        asked, answer = None, False
        for item, (i, _, _) in enumerate(self.dataset.items):
            video = self.dataset.parts[i].video
            if video.name != asked:
                asked, answer = video.name, self.wanted(video)
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
        refuse_names_of_two(stores, views)

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
                rows = kept_of(self.stores, stream, view, whole(video))
                clip.features |= {name: kept[None].float() for name, kept in rows.items()}
            else:
                frame = view.indices(n_frames)
                clip.frame[stream] = torch.as_tensor(frame)[None]
                clip.pixels[stream] = decode(video, frame)[None]
                continue
            clip.frame[stream] = torch.as_tensor(view.spans(n_frames)[:, 0].copy())[None]
        return labelled(clip, video)


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


def decode(video: Video, frame: np.ndarray) -> Tensor:
    """The pixels of frames of a video: uint8, the shape of `frame` and (C, Y, X)."""
    assert video.path is not None  # known() looked
    pixels = read_frames(video.path, frame.ravel())
    return pixels.view(*frame.shape, *pixels.shape[1:])


def refuse_names_of_two(stores: Stores, views: Mapping[str, View]) -> None:
    """Raises ValueError where two streams keep a tensor of one name."""
    refuse_shared_names({stream: stores[stream, view][1] for stream, view in views.items() if (stream, view) in stores})


def kept_of(stores: Stores, stream: str, view: View, part: Part) -> dict[str, Tensor]:
    """The readings kept of a part: {name: (W, …)}, a row per window or segment, in the dtype they are kept in."""
    path, name = part.video.path, part.video.name
    assert path is not None
    store, names = stores[stream, view]
    readings = store.read(path, [one + part.suffix for one in names])
    if readings is None:
        raise FileNotFoundError(f"{store.path(path)}: the reading of {name} went away; run again to redo it")
    n_rows = len(part.frames(view))
    for kept, rows in readings.items():
        if len(rows) != n_rows:
            raise ValueError(
                f"{store.path(path)}: {len(rows)} rows of {kept}, {name} has {n_rows}; delete the file "
                "and run again to redo it"
            )
    return {one: readings[one + part.suffix] for one in names}


def labelled(clip: Clip, video: Video) -> Clip:
    """The clip with what is known of its video: rate, label, category, and which of the frames are anomalous."""
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
    Features (B, S, …) of unequal S get zeros at the end; how many are true is for a feature of its own to say.
    """

    def stack(values: Sequence[Tensor]) -> Tensor:
        return torch.cat([_resized(value, values[0].shape[-2:]) if value.ndim > 4 else value for value in values])

    def streams(
        get: Callable[[Clip], dict[str, Tensor]], join_rows: Callable[[Sequence[Tensor]], Tensor]
    ) -> dict[str, Tensor]:
        return {stream: join_rows([get(clip)[stream] for clip in clips]) for stream in get(clips[0])}

    def rows(values: Sequence[Tensor | None]) -> Tensor | None:
        return None if any(value is None for value in values) else torch.cat([v for v in values if v is not None])

    def names(values: Sequence[list[Any] | None]) -> list[Any] | None:
        return None if any(value is None for value in values) else [name for value in values for name in value or []]

    pixels = streams(lambda clip: clip.pixels, stack)
    return Clip(
        video=[name for clip in clips for name in clip.video],
        span=torch.cat([clip.span for clip in clips]),
        frame=streams(lambda clip: clip.frame, stack),
        pixels=pixels,
        features=streams(lambda clip: clip.features, _padded),
        label=rows([clip.label for clip in clips]),
        category=names([clip.category for clip in clips]),
        frame_label=rows([clip.frame_label for clip in clips]),
        mask=rows([_resized_mask(clip.mask, pixels) for clip in clips]),
        text=names([clip.text for clip in clips]),
        phrases=names([clip.phrases for clip in clips]),
        fps=rows([clip.fps for clip in clips]),
    )


def _padded(values: Sequence[Tensor]) -> Tensor:
    lengths = {value.shape[1] for value in values if value.ndim >= 3}
    if len(lengths) < 2:
        return torch.cat(list(values))
    longest = max(lengths)
    return torch.cat([pad(value, (0, 0) * (value.ndim - 2) + (0, longest - value.shape[1])) for value in values])


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
