"""Detectors that see nothing: what any system has to beat. NumPy, no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vigil.curves import Curve, from_frames
from vigil.types import Video

CONTROLS = ("random", "constant", "temporal_centre", "video_label_oracle")
SEGMENT = 16  # frames that share a random score, as those of a clip do


def control_curves(name: str, videos: Sequence[Video], seed: int = 0) -> dict[str, Curve]:
    """The curve of every video by a control that knows lengths, and at most the videos' labels.

    random: uniform in [0, 1], one draw for 16 frames. constant: 0.5. temporal_centre: a Gaussian over the video's
    middle with half its length as standard deviation, a prior that VERA (arXiv:2412.01095) multiplies scores by.
    video_label_oracle: 1 on every frame of an anomalous video, else 0: what knowing the videos' labels is worth.
    Raises ValueError for another name, and for the oracle where a label is unknown.
    """
    if name not in CONTROLS:
        raise ValueError(f"control {name!r}: expected one of {', '.join(CONTROLS)}")
    generator = np.random.default_rng(seed)
    return {video.name: from_frames(_scores(name, video, generator).astype(np.float32)) for video in videos}


def _scores(name: str, video: Video, generator: np.random.Generator) -> np.ndarray:
    assert video.n_frames is not None
    n_frames = video.n_frames
    if name == "random":
        return np.repeat(generator.random(-(-n_frames // SEGMENT)), SEGMENT)[:n_frames]
    if name == "constant":
        return np.full(n_frames, 0.5)
    if name == "temporal_centre":
        middle = (n_frames - 1) / 2
        centre: np.ndarray = np.exp(-0.5 * ((np.arange(n_frames) - middle) / max(n_frames / 2, 1)) ** 2)
        return centre
    if video.label is None:
        raise ValueError(f"{video.name}: its label is unknown, the oracle needs it; no such control on this dataset")
    return np.full(n_frames, float(video.label))
