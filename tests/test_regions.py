from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.metrics import average_precision_score, roc_auc_score

from vigil.regions import (
    area_to_one,
    auroc_of_histogram,
    average_precision_of_histogram,
    count_pixels,
    detection_criteria,
    label_regions,
    link_regions,
    match_regions,
)

Pixels = set[tuple[int, int]]


def components(mask: np.ndarray) -> list[Pixels]:
    """By flooding from every pixel in turn, to its eight neighbours."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    for seed in sorted(left):
        if seed not in left:
            continue
        region, front = set(), [seed]
        while front:
            y, x = front.pop()
            if (y, x) in left:
                left.remove((y, x))
                region.add((y, x))
                front += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        found.append(region)
    return found


def true_regions(mask: np.ndarray) -> list[Pixels]:
    if mask.dtype == bool:
        return components(mask)
    return [{(int(y), int(x)) for y, x in np.argwhere(mask == n)} for n in sorted(set(mask[mask > 0].tolist()))]


def iou(one: Pixels, other: Pixels) -> float:
    return len(one & other) / len(one | other)


def some_maps(seed: int, n_maps: int = 1, shape: tuple[int, int] = (11, 14)) -> np.ndarray:
    """Smooth blobs, spread over 0 to 1."""
    raw = gaussian_filter(np.random.default_rng(seed).random((n_maps, *shape)), (0, 1.2, 1.2))
    return ((raw - raw.min()) / np.ptp(raw)).astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_a_histogram_gives_the_auroc_and_ap_of_all_pixels(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # on the bins' own values nothing is rounded, ties among them included
    score = (generator.integers(0, 300, (3, 9, 7)) * 200 / 65535).astype(np.float32)
    mask = generator.random((3, 4, 9, 7)) < 0.3  # each map holds for four frames
    counts = sum(count_pixels(one, held.sum(axis=0), 4) for one, held in zip(score, mask, strict=True))
    label, every = mask.ravel(), np.repeat(score[:, None], 4, axis=1).ravel()
    assert counts.dtype == np.int64
    assert counts.sum(axis=0).tolist() == [label.sum(), (~label).sum()]
    assert auroc_of_histogram(*counts.T) == pytest.approx(roc_auc_score(label, every), abs=1e-12)
    assert average_precision_of_histogram(*counts.T) == pytest.approx(average_precision_score(label, every), abs=1e-12)


def test_binning_moves_the_auroc_by_less_than_its_bound() -> None:
    generator = np.random.default_rng(0)
    score = (0.5 + generator.random((40, 50)) / 5000).astype(np.float32)  # within 14 bins
    mask = generator.random((40, 50)) < 0.4
    positive, negative = count_pixels(score, mask.astype(int), 1).T
    bound = float((positive * negative).sum()) / positive.sum() / negative.sum() / 2
    moved = abs(auroc_of_histogram(positive, negative) - roc_auc_score(mask.ravel(), score.ravel()))
    assert 0 < moved <= bound < 0.05


def test_a_histogram_of_other_bins_or_one_truth_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(65536,\) of each"):
        auroc_of_histogram(np.ones(4, dtype=int), np.ones(4, dtype=int))
    with pytest.raises(ValueError, match="0 anomalous"):
        auroc_of_histogram(np.zeros(65536, dtype=int), np.ones(65536, dtype=int))


@pytest.mark.parametrize("seed", range(4))
def test_regions_are_components_of_eight_neighbours_or_objects(seed: int) -> None:
    generator = np.random.default_rng(seed)
    mask = generator.random((8, 9)) < 0.3
    regions, objects = label_regions(mask)
    assert objects is None
    assert [{(int(y), int(x)) for y, x in np.argwhere(regions == n + 1)} for n in range(regions.max())] == components(
        mask
    )
    numbers = generator.choice([0, 2, 7, 255], (8, 9)).astype(np.uint8)
    if seed == 3:
        numbers[numbers == 0] = 2  # no pixel without an object
    regions, objects = label_regions(numbers)
    assert objects is not None
    assert objects.tolist() == [2, 7, 255]
    assert np.array_equal(np.append(0, objects)[regions], numbers)


def linked_by_loop(masks: np.ndarray) -> list[list[int]]:
    before, tracks, count, found = [], [], 0, []
    for mask in masks:
        now = components(mask)
        pairs = [(-len(a & b), i, j) for i, a in enumerate(before) for j, b in enumerate(now) if a & b]
        mine: dict[int, int] = {}
        taken: set[int] = set()
        for _, i, j in sorted(pairs):
            if i not in taken and j not in mine:
                mine[j] = tracks[i]
                taken.add(i)
        for j in range(len(now)):
            if j not in mine:
                mine[j], count = count, count + 1
        before, tracks = now, [mine[j] for j in range(len(now))]
        found.append(tracks)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_components_are_linked_by_their_largest_overlap(seed: int) -> None:
    masks = some_maps(seed, 12) > 0.6
    masks[5] = False
    linked = [tracks.tolist() for tracks in link_regions(label_regions(mask)[0] for mask in masks)]
    assert linked == linked_by_loop(masks)
    assert linked[5] == []
    assert not set(itertools.chain(*linked[:5])) & set(itertools.chain(*linked[6:]))  # a frame without any ends all
    assert max(map(len, linked)) > 1


def matched_by_loop(score: np.ndarray, mask: np.ndarray, threshold: float) -> tuple[int, list[bool]]:
    seen, true = components(score >= threshold), true_regions(mask)
    false = sum(all(iou(region, other) < 0.1 for other in true) for region in seen)
    return false, [any(iou(region, other) >= 0.1 for other in seen) for region in true]


@pytest.mark.parametrize("seed", range(6))
def test_matches_at_every_threshold_are_those_of_the_definition(seed: int) -> None:
    score = some_maps(seed)[0] ** 2
    score[score < 0.2] = 0  # levels that no pixel lies at
    generator = np.random.default_rng(seed)
    masks = [some_maps(seed + 50)[0] > 0.7, np.zeros((11, 14), dtype=bool), generator.integers(0, 4, (11, 14))]
    false, detected = match_regions(score, [label_regions(mask)[0] for mask in masks], levels=16)
    assert false.any()
    for level in range(16):
        wanted = [matched_by_loop(score, mask, (level + 1) / 16) for mask in masks]
        assert false[level] == sum(count for count, _ in wanted)
        assert [found[:, level].tolist() for found in detected] == [found for _, found in wanted]


@pytest.mark.parametrize(
    ("rate", "found", "area"),
    [
        ([0.0], [1.0], 1.0),
        ([0.0], [0.0], 0.0),
        ([0.5], [1.0], 0.75),  # up to (0.5, 1), then flat
        ([1.0, 0.5, 1.0], [0.9, 0.5, 0.7], 0.125 + 0.3),  # of two at rate 1 the line goes to the lower
        ([2.0, 0.5], [0.8, 0.5], 0.125 + 0.275),  # cut on the line from (0.5, 0.5) to (2, 0.8) at 0.6
        ([4.0], [1.0], 0.125),
        ([0.2, 0.6], [0.8, 0.4], 0.08 + 0.64),  # merging regions lost some: the better threshold stays available
    ],
)
def test_areas_below_curves_drawn_by_hand(rate: list[float], found: list[float], area: float) -> None:
    assert area_to_one(np.array(rate), np.array(found)) == pytest.approx(area)


def test_a_track_needs_alpha_of_its_regions() -> None:
    regions = np.array([10, 20])
    detected = np.array([[1, 10], [1, 1]])  # at the first threshold 10 % and 5 %
    false = np.array([0, 0])
    assert detection_criteria(4, false, regions, detected) == (11 / 30, 0.5)
    assert detection_criteria(4, false, regions, detected, alpha=0.05) == (11 / 30, 1.0)
    with pytest.raises(ValueError, match="no true region"):
        detection_criteria(4, false, regions[:0], detected[:0])
