"""Described stretches of videos as Clips, and how a video that nobody annotated is cut into some."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch.utils.data import Dataset

from datamodules.clips import Part, Stores, decode, kept_of, labelled, refuse_names_of_two, whole
from vigil.types import Clip, Video, View


@dataclass(frozen=True)
class Event(Part):
    """A described stretch of a video and what the sentence says; None of a stretch that nobody described."""

    sentence: str | None = None

    @property
    def suffix(self) -> str:
        return f".{self.first}-{self.end}"


class EventDataset(Dataset[Clip]):
    """Described stretches of videos: item i is a Clip of one, every view laid over the stretch instead of the video.

    A bag of one segment is given as plain frames: pixels (B, T, C, Y, X), frame (B, T). A stream that is in `stores`
    comes as what is kept of it, in the dtype it is kept in: features (B, N, …), of a bag of one segment (B, …).
    """

    def __init__(self, events: Sequence[Event], views: Mapping[str, View], stores: Stores | None = None) -> None:
        self.events, self.views, self.stores = events, dict(views), stores or {}
        windows = [f"{stream} {view}" for stream, view in views.items() if view.segments is None]
        if windows:
            raise ValueError(f"{'; '.join(windows)}: an event is watched as a bag; give segments, and no stride or hop")
        refuse_names_of_two(self.stores, self.views)

    @property
    def lengths(self) -> list[int]:
        """Words of each event's sentence: batches of sentences of about one length are padded little."""
        return [len((event.sentence or "").split()) for event in self.events]

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, index: int) -> Clip:
        event = self.events[index]
        clip = Clip(video=[event.video.name], span=torch.tensor([[event.first, event.end]]), frame={})
        for stream, view in self.views.items():
            frame = event.frames(view)
            if view.segments == 1:
                frame = frame[0]
            clip.frame[stream] = torch.as_tensor(frame)[None]
            if (stream, view) in self.stores:
                rows = kept_of(self.stores, stream, view, event)
                clip.features |= {name: kept if view.segments == 1 else kept[None] for name, kept in rows.items()}
            else:
                clip.pixels[stream] = decode(event.video, frame)[None]
        clip.text = None if event.sentence is None else [event.sentence]
        return labelled(clip, event.video)


def stretches(videos: Sequence[Video], event_s: float) -> list[Event]:
    """Each video in stretches of `event_s` seconds, the last one shorter, that nobody described.

    Raises ValueError for a video of unknown rate, or of features instead of pixels.
    """
    if not 0 < event_s < math.inf:
        raise ValueError(f"event_s {event_s}: seconds of a stretch, more than 0, are expected")
    found = []
    for video in videos:
        if video.fps is None or video.path is None:
            lacks = "video file" if video.path is None else "frames per second; set data.init_args.fps"
            raise ValueError(f"{video.name} is to be described in stretches of {event_s:g} s, but has no {lacks}")
        n_frames, step = whole(video).end, max(event_s * video.fps, 1.0)
        edges = [round(k * step) for k in range(math.ceil(n_frames / step))]
        edges = [*(edge for edge in edges if edge < n_frames), n_frames]
        found += [Event(video, first, end) for first, end in pairwise(edges)]
    return found
