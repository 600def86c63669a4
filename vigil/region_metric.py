"""Metric of the regions and tracks that pixel scores find: rbdc and tbdc."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vigil.pixel_metrics import PIECE, PixelMetric, length_of
from vigil.regions import criteria_of_counts, label_regions, link_regions, match_regions
from vigil.types import Video


class RegionMetric(PixelMetric):
    """Region- and track-based detection, rbdc and tbdc: how many regions and tracks are found, at up to one false
    positive region per frame; `criteria_of_counts` names the source and where we differ.

    True regions are the objects of an integer mask or the connected components of a bool one; a track is an object
    of a video, or components linked from frame to frame (`link_regions`). levels: thresholds are 1 / levels,
    2 / levels, … 1, so scores are cut down to multiples of that, and a pixel below 1 / levels is never detected.
    Each threshold that some pixel of a map lies at costs one labelling; levels best is a power of two, which float32
    scores are compared with exactly. alpha, beta: the share of a track's regions, and the IoU, that make a detection.
    """

    def __init__(
        self,
        videos: Sequence[Video],
        size: tuple[int, int] | None = None,
        slack: int = 0,
        levels: int = 64,
        alpha: float = 0.1,
        beta: float = 0.1,
    ) -> None:
        super().__init__(videos, size, slack)
        if levels < 1 or not (0 < alpha <= 1 and 0 < beta <= 1):
            raise ValueError(
                f"levels {levels}, alpha {alpha}, beta {beta}: at least 1 level and shares above 0 up to 1 are expected"
            )
        self.levels, self.alpha, self.beta = levels, alpha, beta
        self._linked: tuple[int, list[np.ndarray]] | None = None

    def count(self, video: int, score: np.ndarray, mask: np.ndarray, frames: np.ndarray) -> np.ndarray:
        """Rows of video, track, regions of it, those detected at each level; track -1: frames, false positives."""
        truths, tracks = [], []
        for frame, of_frame in zip(frames, mask, strict=True):
            regions, objects = label_regions(of_frame)
            if objects is None:
                objects = self._tracks(video)[frame] if regions.any() else np.zeros(0, dtype=np.int64)
            truths.append(regions)
            tracks.append(objects)
        false, detected = match_regions(score, truths, self.levels, self.beta)
        own = [[video, -1, len(frames), *false]]
        for objects, found in zip(tracks, detected, strict=True):
            key = np.stack([np.full_like(objects, video), objects, np.ones_like(objects)], axis=1)
            own.extend(np.concatenate([key, found], axis=1).tolist())
        return np.array(own, dtype=np.int64)

    def merged(self, tables: Iterable[np.ndarray]) -> np.ndarray:
        rows = np.concatenate(list(tables))
        key, inverse = np.unique(rows[:, :2], axis=0, return_inverse=True)
        total = np.zeros((len(key), rows.shape[1] - 2), dtype=np.int64)
        np.add.at(total, inverse.ravel(), rows[:, 2:])
        return np.concatenate([key, total], axis=1)

    def values(self, counts: np.ndarray) -> dict[str, float]:
        return criteria_of_counts(counts, self.alpha)

    def _tracks(self, video: int) -> list[np.ndarray]:
        """The track of every component, frame by frame; of the latest video, as clips come video after video."""
        if self._linked is None or self._linked[0] != video:
            n_frames = length_of(self.videos[video])
            pieces = (np.arange(at, min(at + PIECE, n_frames)) for at in range(0, n_frames, PIECE))
            masks = (mask for piece in pieces for mask in self._masks(self.videos[video], piece, (1, 1)))
            self._linked = video, list(link_regions(label_regions(mask)[0] for mask in masks))
        return self._linked[1]
