"""Metrics of frame scores: torchmetrics.Metric around curves, statistics and events."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from vigil import judging
from vigil.curves import Curve, expand, from_frames, merge_videos
from vigil.temporal import gate
from vigil.types import Clip, Prediction, Video


class FrameMetric(Metric):
    """Gathers the score of every frame of `videos`; a subclass says in `values` what is made of the curves.

    update: the sampled frames are those of the first stream of clip.frame that has frame_score's shape (B, T). A score
    holds from its frame to the next sampled one, the first already from the start of the clip's span, the last to its
    end; a frame repeated to pad the clip counts once, and of frames before the span, which a causal window looks back
    at, the last one holds from the span's start. A window that comes twice counts once, overlaps are averaged.
    Raises ValueError for a score that is no float32 in [0, 1] and for a clip of no video of the list.
    compute: {key: float}, and with `refine` set each key again as key_refined, on curves each refined once; with
    `gate_at` as key_gated too, on curves that are, at last, 0 where they do not exceed it. Raises ValueError naming the
    videos that have a frame without a score. The videos' lengths and labels are read here.
    slack: a convention's axis, videos' n_frames, may end up to so many frames before the scores do, and those beyond it
    are cut; or less than so many behind, and the last score holds to its end. tail: up to so many frames behind the
    axis are cut as well, and scores that end before it are not held: frames that are scored and not to be judged.
    """

    full_state_update = False
    rows: list[Tensor] | Tensor

    def __init__(self, videos: Sequence[Video], slack: int = 0, tail: int = 0) -> None:
        # not cached: refine, gate_at and thresholds may be set between two calls
        super().__init__(compute_with_cache=False)
        self.videos, self.slack, self.tail = list(videos), slack, tail
        self._index = {video.name: index for index, video in enumerate(self.videos)}
        if len(self._index) < len(self.videos):
            raise ValueError(f"{len(self.videos)} videos share {len(self._index)} names; every name must occur once")
        self.refine: Callable[[Tensor], Tensor] | None = None
        self.gate_at: float | None = None
        self._curves: list[Curve] | None = None
        # int64 (R, 5): video, start of the span, first frame, end frame, the score's bits; one state is one gather
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, clip: Clip, prediction: Prediction) -> None:
        """Take in the frame scores of one clip."""
        assert prediction.frame_score is not None  # the Evaluator has looked
        rows = self._rows(clip, prediction.frame_score.detach())
        assert isinstance(self.rows, list)
        self.rows.append(torch.from_numpy(rows).to(self.device))
        self._curves = None

    def compute(self) -> dict[str, float]:
        """The metric's numbers over all videos."""
        curves = self._merged()
        values = self.values(curves)
        if self.refine is not None:
            curves = [self._refined(curve) for curve in curves]
            values |= {f"{key}_refined": value for key, value in self.values(curves).items()}
        if self.gate_at is not None:
            curves = [Curve(curve.edge, gate(curve.score, self.gate_at)) for curve in curves]
            values |= {f"{key}_gated": value for key, value in self.values(curves).items()}
        return values

    def values(self, curves: list[Curve]) -> dict[str, float]:
        """The numbers of one curve per video, in the videos' order."""
        raise NotImplementedError

    def curves(self, refined: bool = False) -> dict[str, Curve]:
        """The curve of every video by name, gathered from all processes.

        After `compute` a process may ask alone; before, all must ask together. Raises ValueError as `compute` does,
        and where refined curves are asked for without `refine`.
        """
        if self._curves is None:
            with self.sync_context(dist_sync_fn=self.dist_sync_fn):
                self._merged()
        curves = self._merged()
        if refined:
            curves = [self._refined(curve) for curve in curves]
        return {video.name: curve for video, curve in zip(self.videos, curves, strict=True)}

    def sync(self, *args: object, **kwargs: object) -> None:
        """As torchmetrics, but a process without any clip joins in with no rows, not a tensor of another shape."""
        self._curves = None  # from now on those of all processes
        if isinstance(self.rows, list) and not self.rows:
            self.rows.append(torch.zeros((0, 5), dtype=torch.int64, device=self.device))
        super().sync(*args, **kwargs)  # type: ignore[arg-type]

    def reset(self) -> None:
        """Forget every score."""
        super().reset()
        self._curves = None

    def _merged(self) -> list[Curve]:
        if self._curves is None:
            lengths = judging.known(self.videos, "n_frames")
            rows = dim_zero_cat(self.rows).cpu().numpy() if len(self.rows) else np.zeros((0, 5), dtype=np.int64)
            rows = rows[np.lexsort(rows.T[::-1])]  # the same order however clips were dealt to processes
            new = np.ones(len(rows), dtype=bool)
            new[1:] = (rows[1:, :3] != rows[:-1, :3]).any(axis=1)
            video, _, first, end, bits = self._on_axis(rows[new], np.array(lengths, dtype=np.int64)).T
            score = bits.astype(np.int32).view(np.float32)
            names = [video.name for video in self.videos]
            self._curves = merge_videos(video, first, end, score, n_frames=lengths, names=names)
        return self._curves

    def _on_axis(self, rows: np.ndarray, length: np.ndarray) -> np.ndarray:
        """Rows that end where their video's axis of `length` (V,) frames does, if `slack` or `tail` allow it."""
        video, _, first, end, _ = rows.T
        last = np.zeros_like(length)
        np.maximum.at(last, video, end)
        axis, reach = length[video], last[video]
        cut = (end > axis) & (reach <= axis + self.slack + self.tail)
        held = (end == reach) & (reach < axis) & (reach > axis - self.slack)
        fitted: np.ndarray = rows[~cut | (first < axis)]
        fitted[:, 3] = np.where(cut | held, axis, end)[~cut | (first < axis)]
        return fitted

    def _refined(self, curve: Curve) -> Curve:
        if self.refine is None:
            raise ValueError("no refined curves: the system's refine was not set on this metric")
        score = torch.from_numpy(expand(curve))
        refined = self.refine(score).detach().cpu().float().numpy()
        if refined.shape != tuple(score.shape) or not ((refined >= 0) & (refined <= 1)).all():
            raise ValueError(
                f"refine made {refined.shape} scores of {tuple(score.shape)}, from {refined.min()} to {refined.max()}; "
                "as many are expected, each in [0, 1]"
            )
        return from_frames(refined)

    def _rows(self, clip: Clip, score: Tensor) -> np.ndarray:
        unknown = [name for name in clip.video if name not in self._index]
        if unknown:
            raise ValueError(f"a clip of {unknown[0]}, which is none of the {len(self.videos)} videos to be judged")
        stream = next((frame for frame in clip.frame.values() if frame.shape == score.shape), None)
        if stream is None or score.ndim != 2 or not score.shape[1]:
            shapes = {name: tuple(frame.shape) for name, frame in clip.frame.items()}
            raise ValueError(
                f"{clip.video[0]}: frame_score {tuple(score.shape)} fits no stream's frames (B, T): {shapes}"
            )
        if score.dtype != torch.float32:
            raise ValueError(
                f"{clip.video[0]}: scores are {score.dtype}; float32 is expected, sigmoid taken in float32"
            )
        value, frame, span = (tensor.cpu().numpy() for tensor in (score, stream, clip.span))
        good = (value >= 0) & (value <= 1)  # false for NaN
        if not good.all():
            row, column = np.argwhere(~good)[0]
            raise ValueError(
                f"{clip.video[row]}: the score of frame {frame[row, column]} is {value[row, column]}; "
                "a number in [0, 1] is expected"
            )
        outside = (frame[:, 0] < 0) | (frame[:, -1] >= span[:, 1]) | (np.diff(frame, axis=1) < 0).any(axis=1)
        if outside.any():
            row = int(np.argmax(outside))
            raise ValueError(
                f"{clip.video[row]}: frames {frame[row].tolist()} do not ascend to within {span[row].tolist()}"
            )
        return self._held(clip.video, value, frame, span)

    def _held(self, names: list[str], score: np.ndarray, frame: np.ndarray, span: np.ndarray) -> np.ndarray:
        kept = np.ones(frame.shape, dtype=bool)
        kept[:, 1:] = frame[:, 1:] != frame[:, :-1]
        row, column = np.nonzero(kept)
        first = np.where(column == 0, span[row, 0], frame[row, column])
        last = np.append(row[1:] != row[:-1], True)
        end = np.where(last, span[row, 1], np.append(first[1:], 0))
        first = np.maximum(first, span[row, 0])
        row, column, first, end = (part[end > span[row, 0]] for part in (row, column, first, end))
        video = np.array([self._index[name] for name in names], dtype=np.int64)
        # + 0: a score of -0.0 is 0
        bits = (score[row, column] + np.float32(0)).view(np.int32)
        return np.stack([video[row], span[row, 0], first, end, bits], axis=1).astype(np.int64)


class FrameAuroc(FrameMetric):
    """AUROC of all frames: frame_auroc, with the 95 % interval of a bootstrap over videos as _low and _high.

    Also frame_auroc_anomalous, over the videos that hold an anomaly; and frame_auroc/<category>, over the anomalous
    videos of one category and all normal ones; a video of several, "Fighting+Shooting", counts in each. With `unseen`
    categories frame_auroc_unseen, over their videos and all normal ones, and frame_auroc_seen, over the rest. Each of
    these is left out where it has no anomalous or no normal frame; frame_auroc itself then raises ValueError.
    sentinels: frame_auroc_sentinels too, see `judging.with_sentinels`.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        slack: int = 0,
        tail: int = 0,
        unseen: Sequence[str] = (),
        sentinels: bool = False,
    ) -> None:
        super().__init__(videos, slack, tail)
        self.unseen, self.sentinels = frozenset(unseen), sentinels

    def values(self, curves: list[Curve]) -> dict[str, float]:
        values = judging.frame_auroc(self.videos, curves, sorted(self.unseen))
        return values | (judging.with_sentinels(self.videos, curves) if self.sentinels else {})


class FrameAp(FrameMetric):
    """Average precision of all frames: frame_ap, its interval _low and _high as in FrameAuroc, frame_ap_trapezoid."""

    def values(self, curves: list[Curve]) -> dict[str, float]:
        return judging.frame_ap(self.videos, curves)


class VideoAuroc(FrameMetric):
    """AUROC of the highest score of each video against its label: video_auroc. Needs no time annotation."""

    def values(self, curves: list[Curve]) -> dict[str, float]:
        return judging.video_auroc(self.videos, curves)


class Calibration(FrameMetric):
    """Expected calibration error of the frames' scores: ece; none of gated curves, which are no likelihoods."""

    def compute(self) -> dict[str, float]:
        gate_at, self.gate_at = self.gate_at, None
        try:
            return super().compute()
        finally:
            self.gate_at = gate_at

    def values(self, curves: list[Curve]) -> dict[str, float]:
        return judging.calibration(self.videos, curves)


class EventMap(FrameMetric):
    """Events above a threshold: event_map, and false_alarms_per_hour on the normal videos.

    Judged on the curves that the system ends with: the refined ones where `refine` is set, which is why no key comes a
    second time. `threshold` is set from outside, fitted by `temporal.fit_threshold` on such curves of the validation
    videos; while it is None there are no keys. An event is scored by its highest frame. false_alarms_per_hour is left
    out without normal videos. fps: of videos that do not say theirs; ValueError where neither says.
    """

    def __init__(self, videos: Sequence[Video], slack: int = 0, tail: int = 0, fps: float | None = None) -> None:
        super().__init__(videos, slack, tail)
        self.fps = fps
        self.threshold: float | None = None

    def compute(self) -> dict[str, float]:
        curves = self._merged()
        if self.threshold is None:
            return {}
        return self.values(curves if self.refine is None else [self._refined(curve) for curve in curves])

    def values(self, curves: list[Curve]) -> dict[str, float]:
        assert self.threshold is not None
        return judging.event_numbers(self.videos, curves, self.threshold, self.fps)
