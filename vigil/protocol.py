"""What has to stand beside a number before it is compared with another. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vigil.curves import Curve
from vigil.stored import truth_hash
from vigil.types import Video

PUBLIC_NAMES = {
    "UcfCrime": "UCF-Crime",
    "XdViolence": "XD-Violence",
    "Uca": "UCA",
    "ShanghaiTech": "ShanghaiTech",
    "UbNormal": "UBnormal",
    "UcsdPed2": "UCSD Ped2",
}  # as the field writes them, and results/claims.csv

# what judges: two numbers share a table only where all of this, and all that the dataset adds, is equal
JUDGED: dict[str, Any] = {
    "split": "the test split as published",
    "convention": "every frame, ends exclusive",
    "aggregation": "micro: the frames of all videos in one curve",
    "average_precision": "step, without interpolation",
    "level": "frame",
    "resolution": "native",
    "overlapping_windows": "mean",
    "missing_scores": "refused",
}
# what was judged: told beside the number, and to filter by
STATED: dict[str, Any] = {
    "supervision": "not stated",
    "target_labels": "none",
    "n_labelled_videos": 0,
    "pretraining_saw_dataset": "unknown",
    "selection": "nothing was fitted",
    "fitted_on_test": "nothing",
    "chosen_per_dataset": "nothing",
    "backbone": "none",
    "prompt_class_names": "none",
    "smoothing": "none",
    "position_prior": "none",
    "normalisation": "none",
    "gating": "none; keys that end in _gated are of gated curves",
    "audio": "not used",
    "features": "pixels",
    "online": False,
    "score_type": "float32",
}
OF_THE_INPUT = ("features", "crops", "causal", "future_frames", "audio")  # a dataset says them, but they judge nothing


def of_test(data: Mapping[str, Any], system: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{"judged": …, "stated": …} of a test: every field, by default as JUDGED and STATED have it.

    data: what the dataset says of itself; system: what the system does; facts: what the test found (see `of_truth`,
    `of_curves`), a key of JUDGED's kind as well where it is one of ground_truth, frames, videos, leaked, demo, level.
    """
    found = {key: facts[key] for key in ("ground_truth", "frames", "videos", "leaked", "demo", "level") if key in facts}
    stated = {key: value for key, value in facts.items() if key not in found}
    stated |= {key: value for key, value in data.items() if key in OF_THE_INPUT}
    judged = JUDGED | {key: value for key, value in data.items() if key not in OF_THE_INPUT}
    return {"judged": judged | found, "stated": STATED | stated | dict(system)}


def of_truth(videos: Sequence[Video]) -> dict[str, Any]:
    """What the truth says: its hash, and how many videos and frames it has."""
    return {
        "ground_truth": truth_hash(videos),
        "videos": len(videos),
        "frames": sum(video.n_frames or 0 for video in videos),
    }


def of_curves(curves: Mapping[str, Curve]) -> dict[str, Any]:
    """How finely the scores tell frames apart: score_values, the number of distinct scores."""
    return {"score_values": len({float(value) for curve in curves.values() for value in curve.score})}


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """{field: (here, there)} of the judged fields in which two protocols, as `of_test` gives them, differ."""
    here, there = one["judged"], other["judged"]
    return {
        key: (here.get(key), there.get(key))
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key)
    }
