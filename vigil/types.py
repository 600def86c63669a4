"""View, Video, Clip, Prediction: the four things that travel between a dataset, a system and a metric."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class View:
    """How a system watches a video.

    Windows (segments None): `frames` frames `stride` apart, a window every `hop` frames; the last one is padded by
    holding the video's last frame. A stride of 1.5 takes frames 0, 1, 3, 4, 6, …: each the whole frame at or before its
    place. Bag (stride and hop None): the video in `segments` equal parts, `frames` frames spread evenly over each.
    """

    frames: int
    stride: int | float | None = None
    hop: int | None = None
    segments: int | None = None

    def __post_init__(self) -> None:
        if self.segments is None:
            wrong = self.stride is None or self.hop is None or min(self.frames, self.stride, self.hop) < 1
            wrong = wrong or not math.isfinite(self.stride or 0)
            expected = "a window needs frames, stride and hop, each at least 1"
        else:
            wrong = self.stride is not None or self.hop is not None or min(self.frames, self.segments) < 1
            expected = "a bag needs frames and segments, each at least 1, and neither stride nor hop"
        if wrong:
            raise ValueError(f"{self}: {expected}")
        if isinstance(self.stride, float) and self.stride.is_integer():
            object.__setattr__(self, "stride", int(self.stride))  # 3.0 is 3, also where a key is made of the view

    @property
    def offsets(self) -> np.ndarray:
        """Frames of a window, counted from its first: int64 (frames,)."""
        return np.arange(self.frames) * self._step.numerator // self._step.denominator

    @property
    def _step(self) -> Fraction:
        assert self.stride is not None
        return Fraction(self.stride).limit_denominator(1000)  # 4.8 is meant, not the nearest sum of powers of two

    def indices(self, n_frames: int) -> np.ndarray:
        """Frames to read of a video of `n_frames`: int64 (W, frames), a row per window, or per segment of a bag.

        A bag's video shorter than its segments repeats frames. Raises ValueError for a video without frames.
        """
        if n_frames < 1:
            raise ValueError(f"a video of {n_frames} frames cannot be watched; at least 1 is expected")
        if self.segments is not None:
            # the middle of each of segments * frames equal parts, in integers so that every machine agrees
            count = self.segments * self.frames
            return ((2 * np.arange(count) + 1) * n_frames // (2 * count)).reshape(self.segments, self.frames)
        frame: np.ndarray = np.minimum(self.spans(n_frames)[:, :1] + self.offsets, n_frames - 1)
        return frame

    def spans(self, n_frames: int) -> np.ndarray:
        """Frames that each window or segment answers for: int64 (W, 2), half-open; together they cover the video."""
        if self.segments is not None:
            edge = np.arange(self.segments + 1) * n_frames // self.segments
            return np.stack([edge[:-1], edge[1:]], axis=1)
        assert self.hop is not None
        # a hop beyond the window: its last score holds until the next
        reach = max(math.ceil(self.frames * self._step), self.hop)
        n_windows = 1 + max(0, -(-(n_frames - reach) // self.hop))
        start = self.hop * np.arange(n_windows)
        return np.stack([start, np.minimum(start + reach, n_frames)], axis=1)


@dataclass
class Video:
    """One video of a dataset: what is known of it without opening it, and where it lies.

    name: no folder, no extension. n_frames and fps: None until known. label: 0 normal, 1 anomalous, None unknown.
    anomalies: half-open frame intervals; [] for a normal video, None where nobody annotated the time.
    captions: (first frame, end frame, sentence). masks: frames int64 (T,) -> (T, Y, X), None where there are none:
    bool, or the number of the anomalous object that each pixel shows, 0 where there is none.
    features: a pre-extracted feature file read instead of the pixels.
    """

    name: str
    path: Path | None = None
    n_frames: int | None = None
    fps: float | None = None
    label: int | None = None
    category: str | None = None
    anomalies: list[tuple[int, int]] | None = None
    captions: list[tuple[int, int, str]] = field(default_factory=list)
    masks: Callable[[np.ndarray], np.ndarray] | None = None
    features: Path | None = None


@dataclass
class Clip:
    """What a datamodule hands out: B windows of one video, or B bags; a stream is named as in the system's views.

    pixels {stream: uint8 (B, T, C, Y, X); a bag: (B, N, T, C, Y, X)} or features {stream: float32 (B, N, D)}; readings
    of a frozen backbone are features {their name: float32 (B, N, …)}, N 1 for windows; of events (B, N, …) in the dtype
    they are kept in, (B, …) where the bag has one segment.
    frame {stream: int64 (B, T); a bag: (B, N, T); features: (B, N), of events as pixels}: where each row was sampled.
    span int64 (B, 2): the frames this clip answers for. label (B,), frame_label (B, T), mask bool (B, T, Y, X).
    text: the sentence of each, or its phrases joined by commas; None of stretches that nobody described. phrases: the
    categories that each is asked about.
    fps: frames per second of each row's video, float32 (B,), NaN where unknown.
    """

    video: list[str]
    span: Tensor
    frame: dict[str, Tensor]
    pixels: dict[str, Tensor] = field(default_factory=dict)
    features: dict[str, Tensor] = field(default_factory=dict)
    label: Tensor | None = None
    category: list[str] | None = None
    frame_label: Tensor | None = None
    mask: Tensor | None = None
    text: list[str] | None = None
    phrases: list[list[str]] | None = None
    fps: Tensor | None = None

    def to(self, device: object, non_blocking: bool = False) -> Clip:
        """The same clip with every tensor on `device`."""

        def move(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: move(item) for key, item in value.items()}
            return value.to(device, non_blocking=non_blocking) if hasattr(value, "to") else value

        return replace(self, **{f.name: move(getattr(self, f.name)) for f in fields(self)})


@dataclass
class Prediction:
    """What a system hands back for a Clip.

    frame_score float32 (B, T) in [0, 1]: one per sampled frame, held until the next within the clip's span.
    pixel_score float32 (B, T, Y, X) in [0, 1], caption [str] * B, class_score float32 (B, K), log-likelihoods.
    Each is None where the system gives none; frame_score only of a system that says `scores_frames = False`.
    """

    frame_score: Tensor | None = None
    pixel_score: Tensor | None = None
    caption: list[str] | None = None
    class_score: Tensor | None = None


class Watcher(Protocol):
    """What a datamodule has to know of the system that watches: its views and how much of them at a time.

    fit_views and test_views {stream: View}; batch_size: bags of a training step over all processes together, pairs of
    an anomalous and a normal one where `balanced`; window_batch: windows of one video scored at a time.
    fit_unit: None, or the whole fitting set is one batch, a row per "segment" or the mean of a "video"'s. fit_fraction:
    share of the training videos that is fitted on, drawn by class. validates: whether a fit needs validation videos.
    scores_frames: whether its predictions hold frame scores. event_s: None, or of a system that describes events: the
    seconds of each stretch that it is shown of a video in which nobody marked any.
    """

    fit_views: dict[str, View]
    test_views: dict[str, View]
    batch_size: int
    window_batch: int
    balanced: bool
    fit_unit: Literal["video", "segment"] | None
    fit_fraction: float
    validates: bool
    scores_frames: bool
    event_s: float | None
