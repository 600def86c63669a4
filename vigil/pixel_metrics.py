"""Metrics of pixel scores: torchmetrics.Metric around counts of score maps, and the one of pooled pixels."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from vigil.curves import merge_videos
from vigil.regions import BINS, auroc_of_histogram, average_precision_of_histogram, count_pixels
from vigil.types import Clip, Prediction, Video

PIECE = 16  # frames whose masks are held at a time


class PixelMetric(Metric):
    """Holds every score map of `videos` against the masks; a subclass counts in `count` and concludes in `values`.

    update: the sampled frames are those of the first stream of clip.frame that fits pixel_score (B, T, Y, X). A map
    holds from its frame to the next sampled one within the clip's span, the last to its end, and the first already
    from its start; where frames were sampled before the span, only the last of them holds, from the span's start. A
    frame repeated to pad the clip counts once, a window that comes twice too. Windows must not overlap: maps are
    counted as they come and cannot be averaged afterwards.
    Raises ValueError for that, for scores that are no float32 in [0, 1], for a clip of no video of the list, and for
    videos without masks that are not known to be normal (label 0); a normal one without masks has none anywhere.
    size (Y, X): both maps and masks are brought to it by nearest neighbours; (158, 238) is what LAVIDA's authors use
    for UCSD Ped2, who first enlarge both to 1024 x 1024, which is not done here. None: maps are brought to the size of
    the masks, bilinear without antialiasing; for a normal video without masks this is the size that the first video
    with masks has, and without any the map's own.
    slack: spans may end up to so many frames behind their video's n_frames; what lies there is not judged.
    compute: {key: float}, {} where no clip came with pixel scores. Raises ValueError naming the videos where only some
    came with them, or some frames are missing.
    Only counts are kept. Those of the latest update stay apart until the next one: a sampler that evens the processes'
    shards out repeats whole clips, each the last of its process, which are then counted once. Any other window that
    two processes judged raises ValueError in compute.
    """

    full_state_update = False
    windows: list[Tensor]
    settled: list[Tensor]
    latest: list[Tensor]

    def __init__(self, videos: Sequence[Video], size: tuple[int, int] | None = None, slack: int = 0) -> None:
        super().__init__(compute_with_cache=False)
        self.videos, self.size, self.slack = list(videos), size, slack
        self._index = {video.name: index for index, video in enumerate(self.videos)}
        if len(self._index) < len(self.videos):
            raise ValueError(f"{len(self.videos)} videos share {len(self._index)} names; every name must occur once")
        if size is not None and min(size) < 1:
            raise ValueError(f"size {size}: rows and columns, each at least 1, are expected")
        self._spans: dict[int, list[tuple[int, int]]] = {}  # judged by this process, ascending
        self._bare: set[int] = set()  # videos that came without pixel scores
        self._counts: np.ndarray | None = None
        self._mask_size: tuple[int, int] | None = None
        # int64 (R, 4): video, span, number of the update; an empty span is a clip without pixel scores
        self.add_state("windows", default=[], dist_reduce_fx=None)
        self.add_state("settled", default=[], dist_reduce_fx=None)
        self.add_state("latest", default=[], dist_reduce_fx=None)

    def update(self, clip: Clip, prediction: Prediction) -> None:
        """Take in the score maps of one clip."""
        unknown = [name for name in clip.video if name not in self._index]
        if unknown:
            raise ValueError(f"a clip of {unknown[0]}, which is none of the {len(self.videos)} videos to be judged")
        rows, tables = [], []
        if prediction.pixel_score is None:
            bare = {self._index[name] for name in clip.video} - self._bare
            self._bare |= bare
            rows = [(video, 0, 0) for video in sorted(bare)]
        else:
            score = prediction.pixel_score.detach()
            frame = self._checked(clip, score)
            for row, name in enumerate(clip.video):
                video, (first, end) = self._index[name], self._span(name, *clip.span[row].tolist())
                if first < end and self._is_new(video, first, end):
                    rows.append((video, first, end))
                    held = _held(frame[row], first, end)
                    parts = self._maps(self.videos[video], score[row], held)
                    tables.append(self.merged(self.count(video, *part) for part in parts))
        if rows:
            self._keep(rows, tables)

    def compute(self) -> dict[str, float]:
        """The metric's numbers over all videos."""
        counts = self._gathered()
        return self.values(counts) if len(counts) else {}

    def counts(self) -> np.ndarray | None:
        """The counts of all processes, as `merged` makes them; None without pixel scores.

        After `compute` a process may ask alone; before, all must ask together. Raises ValueError as `compute` does.
        """
        if self._counts is None:
            with self.sync_context(dist_sync_fn=self.dist_sync_fn):
                self._gathered()
        counts = self._gathered()
        return counts if len(counts) else None

    def count(self, video: int, score: np.ndarray, mask: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Counts int64 (R, C) of the map score (Y, X), which holds for frames (F,) of a video, masked (F, Y, X)."""
        raise NotImplementedError

    def merged(self, tables: Iterable[np.ndarray]) -> np.ndarray:
        """The counts of several tables together."""
        raise NotImplementedError

    def values(self, counts: np.ndarray) -> dict[str, float]:
        """The numbers of the counts of all videos."""
        raise NotImplementedError

    def sync(self, *args: object, **kwargs: object) -> None:
        """As torchmetrics, with one tensor per state and process, also of a process without any clip."""
        self._counts = None  # from now on those of all processes
        self.windows = [dim_zero_cat(self.windows) if self.windows else self._tensor(np.zeros((0, 4)))]
        self.settled = self.settled or [self._tensor(np.zeros((0, 1)))]
        self.latest = self.latest or [self._tensor(np.zeros((0, 1)))]
        super().sync(*args, **kwargs)  # type: ignore[arg-type]

    def reset(self) -> None:
        """Forget every map."""
        super().reset()
        self._spans, self._bare, self._counts = {}, set(), None

    def _tensor(self, table: np.ndarray) -> Tensor:
        return torch.from_numpy(table.astype(np.int64)).to(self.device)

    def _keep(self, rows: list[tuple[int, int, int]], tables: list[np.ndarray]) -> None:
        before = [table.cpu().numpy() for table in (*self.settled, *self.latest) if len(table)]
        self.settled = [self._tensor(self.merged(before))] if before else []
        self.latest = [self._tensor(self.merged(tables))] if tables else []
        number = np.full((len(rows), 1), self._update_count)
        self.windows.append(self._tensor(np.concatenate([np.array(rows), number], axis=1)))
        self._counts = None

    def _gathered(self) -> np.ndarray:
        """The counts of all processes, each window once; no rows where nobody gave pixel scores."""
        if self._counts is None:
            windows = [table.cpu().numpy() for table in self.windows]
            if not self._is_synced:
                windows = [np.concatenate(windows)] if windows else []
            last = [rows[:, 3] == rows[:, 3].max(initial=0) for rows in windows]
            settled = [rows[~is_last] for rows, is_last in zip(windows, last, strict=True)]
            latest = [rows[is_last] for rows, is_last in zip(windows, last, strict=True)]
            chosen, kept = self._once(settled, latest)
            scored = self._judged(np.concatenate([np.zeros((0, 4), dtype=np.int64), *chosen])[:, :3])
            tables = [*self.settled, *(self.latest[i] for i in kept if i < len(self.latest))]
            filled = [table.cpu().numpy() for table in tables if len(table)]
            self._counts = self.merged(filled) if scored else np.zeros((0, 1), dtype=np.int64)
        return self._counts

    def _once(self, settled: list[np.ndarray], latest: list[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
        """The rows to be counted, and of which processes the latest update is."""
        seen: set[tuple[int, int]] = set()
        chosen, kept = [], []
        for process, rows in enumerate([*settled, *latest]):
            keys = {(video, first) for video, first, end, _ in rows.tolist() if end}
            repeated = keys & seen
            if repeated and (process < len(settled) or repeated != keys):
                video, first = min(repeated)
                raise ValueError(
                    f"{self.videos[video].name}: two processes judged the frames from {first} on, and not as the last "
                    "clip of one of them; give each clip to one process, as DistributedSampler does"
                )
            seen |= keys
            if not repeated:
                chosen.append(rows)
                kept += [process - len(settled)] if process >= len(settled) else []
        return chosen, kept

    def _judged(self, rows: np.ndarray) -> bool:
        """Whether there are pixel scores; raises ValueError unless they cover every frame once or there are none."""
        bare = np.unique(rows[rows[:, 2] == 0, 0])
        scored = rows[rows[:, 2] > 0]
        if len(bare) and not len(scored):
            return False
        if len(bare):
            names = [self.videos[video].name for video in bare]
            raise ValueError(f"{_listed(names)} came without pixel scores, others with them; give them for all clips")
        lengths = [length_of(video) for video in self.videos]
        video, first, end = scored[np.lexsort((scored[:, 1], scored[:, 0]))].T
        nothing = np.zeros(len(video), dtype=np.float32)
        names = [video.name for video in self.videos]
        merge_videos(video, first, end, nothing, n_frames=lengths, names=names)  # raises where a frame has no score
        clash = np.flatnonzero((video[1:] == video[:-1]) & (first[1:] < end[:-1]))
        for at in clash[:1].tolist():
            one, other = ((int(first[i]), int(end[i])) for i in (at, at + 1))
            self._refuse_overlap(int(video[at]), one, other)
        return True

    def _checked(self, clip: Clip, score: Tensor) -> np.ndarray:
        """The frames (B, T) of maps that are as expected."""
        name = clip.video[0]
        stream = next((frame for frame in clip.frame.values() if frame.shape == score.shape[:2]), None)
        if stream is None or score.ndim != 4 or not score.numel():
            shapes = {key: tuple(frame.shape) for key, frame in clip.frame.items()}
            raise ValueError(f"{name}: pixel_score {tuple(score.shape)} fits no stream's frames (B, T): {shapes}")
        if score.dtype != torch.float32:
            raise ValueError(f"{name}: pixel scores are {score.dtype}; float32 is expected, sigmoid taken in float32")
        frame, span = stream.cpu().numpy(), clip.span.cpu().numpy()
        low, high = torch.aminmax(score)
        if not (low >= 0 and high <= 1):  # true for NaN
            row, column, y, x = ((score >= 0) & (score <= 1)).logical_not().nonzero()[0].tolist()
            raise ValueError(
                f"{clip.video[row]}: the score of frame {frame[row, column]} at row {y}, column {x} is "
                f"{score[row, column, y, x].item()}; a number in [0, 1] is expected"
            )
        outside = (frame[:, -1] >= span[:, 1]) | (span[:, 0] >= span[:, 1]) | (np.diff(frame, axis=1) < 0).any(axis=1)
        if outside.any():
            row = int(np.argmax(outside))
            raise ValueError(
                f"{clip.video[row]}: frames {frame[row].tolist()} do not ascend to the end of {span[row].tolist()}"
            )
        self._refuse_unmasked()
        return frame

    def _refuse_unmasked(self) -> None:
        names = [video.name for video in self.videos if video.masks is None and video.label != 0]
        if names:
            raise ValueError(
                f"{_listed(names)} came without masks and not as normal (label 0); pixel scores need the masks of all "
                "anomalous videos, so complete the data folder or leave this metric out"
            )

    def _span(self, name: str, first: int, end: int) -> tuple[int, int]:
        n_frames = length_of(self.videos[self._index[name]])
        if first < 0 or end > n_frames + self.slack:
            raise ValueError(
                f"{name}: a score for the frames {first} to {end} (end exclusive), but the video has {n_frames} frames"
            )
        return first, min(end, n_frames)

    def _is_new(self, video: int, first: int, end: int) -> bool:
        spans = self._spans.setdefault(video, [])
        at = bisect_left(spans, (first, end))
        if at < len(spans) and spans[at] == (first, end):
            return False
        for other in spans[max(at - 1, 0) : at + 1]:
            if other[0] < end and first < other[1]:
                self._refuse_overlap(video, other, (first, end))
        spans.insert(at, (first, end))
        return True

    def _refuse_overlap(self, video: int, one: tuple[int, int], other: tuple[int, int]) -> None:
        raise ValueError(
            f"{self.videos[video].name}: windows of the frames {one[0]} to {one[1]} and {other[0]} to {other[1]} (end "
            "exclusive) overlap, and score maps are not averaged; give the view a hop of frames times stride"
        )

    def _maps(
        self, video: Video, score: Tensor, held: list[tuple[int, int, int]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """What `count` takes, of one window's maps (T, Y, X): a few frames at a time."""
        owner = np.repeat([index for index, _, _ in held], [end - first for _, first, end in held])
        frames = np.arange(held[0][1], held[-1][2])
        for at in range(0, len(frames), PIECE):
            piece, owners = frames[at : at + PIECE], owner[at : at + PIECE]
            mask = self._masks(video, piece, (score.shape[1], score.shape[2]))
            for index in np.unique(owners):
                fitted = self._fitted(score[int(index)], (mask.shape[1], mask.shape[2]))
                yield fitted, mask[owners == index], piece[owners == index]

    def _fitted(self, score: Tensor, size: tuple[int, int]) -> np.ndarray:
        if score.shape != size and self.size is None:
            score = functional.interpolate(score[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        fitted: np.ndarray = score.cpu().numpy()
        return fitted if fitted.shape == size else fitted[_nearest(fitted.shape, size)]

    def _masks(self, video: Video, frames: np.ndarray, own: tuple[int, int]) -> np.ndarray:
        """Masks (F, Y, X) at the size that is judged; own: the maps' size."""
        if video.masks is None:
            return np.zeros((len(frames), *(self.size or self._size_of_masks() or own)), dtype=bool)
        mask = np.asarray(video.masks(frames))
        if mask.ndim != 3 or len(mask) != len(frames) or mask.dtype.kind not in "bui" or not mask.size:
            raise ValueError(
                f"{video.name}: {mask.dtype} masks of shape {mask.shape} for {len(frames)} frames; "
                "bool or integers (T, Y, X) are expected"
            )
        if mask.dtype.kind == "i" and mask.min() < 0:
            raise ValueError(f"{video.name}: its masks hold the number {mask.min()}; objects count from 1, 0 is none")
        if self.size is not None and mask.shape[1:] != self.size:
            mask = mask[:, *_nearest((mask.shape[1], mask.shape[2]), self.size)]
        return mask

    def _size_of_masks(self) -> tuple[int, int] | None:
        """That of the first video with masks, so that every process finds the same."""
        first = next((video for video in self.videos if video.masks is not None), None)
        if self._mask_size is None and first is not None:
            shape = self._masks(first, np.zeros(1, dtype=np.int64), (1, 1)).shape
            self._mask_size = shape[1], shape[2]
        return self._mask_size


class PixelAuroc(PixelMetric):
    """AUROC and AP of all pixels of all frames pooled: pixel_auroc and pixel_ap.

    Scores are counted in 65,536 bins, round(score * 65535), and curves are exact on the bins; `auroc_of_histogram`
    bounds what that changes. A pixel of an object of whichever number is positive.
    """

    def count(self, video: int, score: np.ndarray, mask: np.ndarray, frames: np.ndarray) -> np.ndarray:
        return count_pixels(score, np.count_nonzero(mask, axis=0), len(frames))

    def merged(self, tables: Iterable[np.ndarray]) -> np.ndarray:
        total = np.zeros((BINS, 2), dtype=np.int64)
        for table in tables:
            total += table
        return total

    def values(self, counts: np.ndarray) -> dict[str, float]:
        positive, negative = counts.T
        return {
            "pixel_auroc": auroc_of_histogram(positive, negative),
            "pixel_ap": average_precision_of_histogram(positive, negative),
        }


def _held(frame: np.ndarray, first: int, end: int) -> list[tuple[int, int, int]]:
    """Which of the sampled frames (T,) holds from where to where within first to end."""
    new = np.flatnonzero(np.diff(frame, prepend=frame[0] - 1))  # of a repeated frame the first
    start = np.clip(frame[new], first, end)
    start[0] = first
    stop = np.append(start[1:], end)
    return [(int(i), int(a), int(b)) for i, a, b in zip(new, start, stop, strict=True) if a < b]


@cache
def _nearest(before: tuple[int, ...], after: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The rows (Y, 1) and columns (X,) that `torch.nn.functional.interpolate` takes: so masks keep their type."""
    lines = [torch.arange(length, dtype=torch.float32)[None, None] for length in before]
    pairs = zip(lines, after, strict=True)
    y, x = (functional.interpolate(line, size=length, mode="nearest")[0, 0].long().numpy() for line, length in pairs)
    return y[:, None], x


def length_of(video: Video) -> int:
    """n_frames, which is known or a ValueError."""
    if video.n_frames is None:
        raise ValueError(f"{video.name} has no n_frames; pixel scores need it of every video")
    return video.n_frames


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} videos ({', '.join(names[:10])}{', …' if len(names) > 10 else ''})"
