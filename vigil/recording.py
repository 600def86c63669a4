"""Records demo scenes as a video file and its masks; on its own, so that worker processes load little else."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vigil.scenes import make_scene
from vigil.video import write_video


def record(
    video: Path, masks: Path, fps: float, seed: int, category: str, n_frames: int, n_events: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int, str]]]:
    """Render a scene into a video file, and the masks of its events into an .npz; returns anomalies and captions."""
    scene = make_scene(seed, category, n_frames, n_events=n_events)
    frames = np.empty((n_frames, *scene.background.shape), np.uint8)
    mask = np.zeros(frames.shape[:3], bool)
    for index in range(n_frames):
        frames[index], mask[index] = scene.frame(index)
    write_video(video, frames.transpose(0, 3, 1, 2), fps, preset="veryfast")
    if scene.anomalies:
        np.savez_compressed(masks, bits=np.packbits(mask), shape=np.array(mask.shape))
    return scene.anomalies, scene.captions


def read_masks(path: str | Path) -> np.ndarray:
    """Pixel masks bool (T, Y, X) as `record` wrote them."""
    with np.load(path, allow_pickle=False) as stored:
        shape = tuple(stored["shape"].tolist())
        return np.unpackbits(stored["bits"], count=int(np.prod(shape))).reshape(shape).astype(bool)
