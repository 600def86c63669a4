"""Score maps against masks: histograms of pixels, connected regions, tracks, RBDC and TBDC; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy import ndimage

from vigil.curves import auroc, average_precision

BINS = 65_536  # of a pixel's score, in every pixel_histogram.npz
_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # 8-connectivity


def count_pixels(score: np.ndarray, positive: np.ndarray, n_frames: int) -> np.ndarray:
    """Histogram of one score map that holds for `n_frames` frames: int64 (BINS, 2), positive and negative pixels.

    score float32 (Y, X) in [0, 1], binned as round(score * 65535); positive (Y, X): in how many of the frames the mask
    covers each pixel.
    """
    bins = np.rint(score * np.float32(BINS - 1)).astype(np.int64).ravel()
    covered = positive.ravel()
    inside = np.flatnonzero(covered)
    counts = np.zeros((BINS, 2), dtype=np.int64)
    # bincount sums in float64, exact up to 2**53 pixels
    counts[:, 0] = np.bincount(bins[inside], weights=covered[inside], minlength=BINS)
    counts[:, 1] = np.bincount(bins, minlength=BINS) * n_frames - counts[:, 0]
    return counts


def auroc_of_histogram(positive: np.ndarray, negative: np.ndarray) -> float:
    """AUROC of all pixels of a histogram, int64 (BINS,) each, as PixelAuroc.histogram gives it; exact on the bins.

    Pixels of one bin tie, so it lies off the AUROC of the unbinned scores by at most half the share of (positive,
    negative) pairs that fall into one bin, sum(positive * negative) / sum(positive) / sum(negative) / 2. Scores of one
    bin lie at most about 1/65535 apart. Raises ValueError where positives or negatives are missing.
    """
    return auroc(_bin_scores(positive, negative), positive, negative)


def average_precision_of_histogram(positive: np.ndarray, negative: np.ndarray) -> float:
    """Average precision of all pixels of a histogram; pixels of one bin tie. Shapes and errors as for the AUROC."""
    return average_precision(_bin_scores(positive, negative), positive, negative)


def label_regions(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The true regions of one frame: int32 (Y, X) numbered from 1, 0 elsewhere, and which object each of them is.

    mask (Y, X) bool: a region is a connected component (8 neighbours), and there are no objects (None). Integers: all
    pixels of one number are one region, and objects (G,) holds the numbers, ascending.
    """
    if mask.dtype == bool:
        if not mask.any():
            return np.zeros(mask.shape, dtype=np.int32), None
        return ndimage.label(mask, _NEIGHBOURS)[0], None
    numbers, inverse = np.unique(mask, return_inverse=True)
    objects = numbers[numbers > 0]
    shift = len(objects) + 1 - len(numbers)  # 1 where no pixel is 0
    return (inverse.reshape(mask.shape) + shift).astype(np.int32), objects.astype(np.int64)


def link_regions(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Tracks of components that carry no name: for each frame int64 (G,), the track of its regions 1 to G, from 0.

    frames: (Y, X) of regions as label_regions numbers them, one after the other. A region goes on with the track of
    the region of the frame before that it shares most pixels with, each track going on once; pairs are made greedily,
    the largest overlap first, then the lower numbers. A region that gets no partner begins a track, so a frame without
    any ends them all.
    """
    before, tracks, n_tracks = None, np.zeros(0, dtype=np.int64), 0
    for regions in frames:
        count = int(regions.max(initial=0))
        linked = np.full(count, -1, dtype=np.int64)
        if before is not None:
            old, new, shared = _shared(before[regions > 0], regions[regions > 0])
            free = np.ones(len(tracks) + 1, dtype=bool)
            for pair in np.lexsort((new, old, -shared)):
                if free[old[pair]] and linked[new[pair] - 1] < 0:
                    linked[new[pair] - 1] = tracks[old[pair] - 1]
                    free[old[pair]] = False
        begun = linked < 0
        linked[begun] = n_tracks + np.arange(begun.sum())
        n_tracks += int(begun.sum())
        before, tracks = regions, linked
        yield linked


def match_regions(
    score: np.ndarray, truths: Sequence[np.ndarray], levels: int, beta: float = 0.1
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Regions detected at every threshold l / levels, l from 1 up, in the frames that one score map holds for.

    score float32 (Y, X) in [0, 1]; truths: the true regions (Y, X) of each frame, numbered from 1. A detected region is
    a connected component (8 neighbours) of score >= threshold. Returns the false positive regions of all frames,
    int64 (levels,): those whose IoU with every true region is below beta; and for each frame bool (G, levels): the true
    regions that some detected region meets with an IoU of at least beta.
    """
    level = np.floor(score * np.float32(levels)).astype(np.int32)  # exact where levels is a power of two
    occupied = np.bincount(level.ravel(), minlength=levels + 1) > 0
    row_level, column_level = level.max(axis=1), level.max(axis=0)
    where = [np.nonzero(truth) for truth in truths]
    numbers = [truth[pixels] for truth, pixels in zip(truths, where, strict=True)]
    areas = [np.bincount(number, minlength=1) for number in numbers]
    false = np.zeros(levels, dtype=np.int64)
    detected = [np.zeros((len(area) - 1, levels), dtype=bool) for area in areas]
    for threshold in range(int(level.max()), 0, -1):  # nothing is above it
        column = threshold - 1
        if not occupied[threshold]:  # the same pixels as at the threshold above
            false[column] = false[column + 1]
            for found in detected:
                found[:, column] = found[:, column + 1]
            continue
        (top, bottom), (left, right) = _reach(row_level >= threshold), _reach(column_level >= threshold)
        regions, count = ndimage.label(level[top:bottom, left:right] >= threshold, _NEIGHBOURS)
        sizes = np.bincount(regions.ravel()) if any(len(number) for number in numbers) else None
        for (y, x), number, area, found in zip(where, numbers, areas, detected, strict=True):
            false[column] += count
            if sizes is None or not len(number):
                continue
            boxed = (y >= top) & (y < bottom) & (x >= left) & (x < right)
            true, seen, both = _shared(number[boxed], regions[y[boxed] - top, x[boxed] - left])
            hit = both / (area[true] + sizes[seen] - both) >= beta
            found[true[hit] - 1, column] = True
            false[column] -= len(np.unique(seen[hit]))
    return false, detected


def detection_criteria(
    n_frames: int, false: np.ndarray, regions: np.ndarray, detected: np.ndarray, alpha: float = 0.1
) -> tuple[float, float]:
    """RBDC and TBDC: the areas below the region and the track detection rate, over false positive regions per frame.

    false (L,): false positive regions at each threshold, in n_frames frames; regions (K,): the true regions of every
    track; detected (K, L): those of them detected. A track is detected where at least alpha of its regions are.
    Raises ValueError without a true region.
    Source: Ramachandra and Jones, Street Scene, WACV 2020 (arXiv:1902.05872), which sets alpha = beta = 0.1.
    Differs: detected regions come from thresholding a map anew at a fixed set of thresholds, so as they merge neither
    rate need rise while the threshold falls; `area_to_one` says how the curve is then drawn. Regions are compared by
    their pixels. The script of Georgescu et al. (TPAMI 2021, compute_tbdc_rbdc.py) compares boxes instead, which are
    detected once and for all with a score each, and holds the curve flat from its last point up to rate 1.
    """
    if not regions.sum():
        raise ValueError("no true region in any mask: RBDC and TBDC need at least one; judge anomalous videos too")
    rate = false / n_frames
    tracks_found = detected / regions[:, None] >= alpha
    return area_to_one(rate, detected.sum(axis=0) / regions.sum()), area_to_one(rate, tracks_found.mean(axis=0))


def criteria_of_counts(counts: np.ndarray, alpha: float = 0.1) -> dict[str, float]:
    """rbdc and tbdc of the counts that a RegionMetric keeps: int64 (R, 3 + L), rows as its `count` gives them."""
    video, track = counts[counts[:, 1] < 0], counts[counts[:, 1] >= 0]
    rbdc, tbdc = detection_criteria(int(video[:, 2].sum()), video[:, 3:].sum(axis=0), track[:, 2], track[:, 3:], alpha)
    return {"rbdc": rbdc, "tbdc": tbdc}


def area_to_one(rate: np.ndarray, found: np.ndarray) -> float:
    """Area below `found` (L,), in [0, 1], over the rates 0 to 1 of false positives per frame, `rate` (L,), any order.

    The curve begins at (0, 0), no region detected at all. Its height at a rate is the best that any threshold with at
    most that rate finds, points joined by straight lines (trapezoids); it is cut at rate 1 on the line to the next
    point, and stays flat up to 1 where it ends before.
    """
    order = np.lexsort((found, rate))
    x = np.concatenate([[0.0], rate[order]])
    y = np.concatenate([[0.0], np.maximum.accumulate(found[order])])
    inside = int(np.searchsorted(x, 1.0, side="right"))
    end = y[inside - 1]
    if inside < len(x):
        end += (y[inside] - end) * (1 - x[inside - 1]) / (x[inside] - x[inside - 1])
    return float(np.trapezoid(np.append(y[:inside], end), np.append(x[:inside], 1.0)))


def _shared(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regions that share pixels: their numbers in two labellings (P,) of the same pixels, and how many they share."""
    both = (first > 0) & (second > 0)
    width = int(second.max(initial=0)) + 1
    pair, count = np.unique(first[both].astype(np.int64) * width + second[both], return_counts=True)
    return pair // width, pair % width, count


def _reach(wanted: np.ndarray) -> tuple[int, int]:
    where = np.flatnonzero(wanted)
    return int(where[0]), int(where[-1]) + 1


def _bin_scores(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    if positive.shape != (BINS,) or negative.shape != (BINS,):
        raise ValueError(f"a histogram of {positive.shape} and {negative.shape} bins; ({BINS},) of each is expected")
    return np.arange(BINS) / (BINS - 1)
