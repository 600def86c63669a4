"""Records demo scenes as the files of a dataset; on its own, so that worker processes load little else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from vigil.annotations import anomalous_runs
from vigil.campus import Shot, bystanders, object_ids
from vigil.scenes import Scene, make_scene
from vigil.video import write_video


def draw(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """All frames of a scene, uint8 (T, Y, X, 3), and the masks of its event, bool (T, Y, X)."""
    frames = np.empty((scene.n_frames, *scene.background.shape), np.uint8)
    mask = np.zeros(frames.shape[:3], bool)
    for index in range(scene.n_frames):
        frames[index], mask[index] = scene.frame(index)
    return frames, mask


def record(
    video: Path, masks: Path, fps: float, seed: int, category: str, n_frames: int, n_events: int
) -> tuple[list[tuple[int, int]], list[tuple[int, int, str]]]:
    """Render a scene into a video file, and the masks of its events into an .npz; returns anomalies and captions."""
    scene = make_scene(seed, category, n_frames, n_events=n_events)
    frames, mask = draw(scene)
    _write_file(video, frames, fps)
    if scene.anomalies:
        np.savez_compressed(masks, bits=np.packbits(mask), shape=np.array(mask.shape))
    return scene.anomalies, scene.captions


def read_masks(path: str | Path) -> np.ndarray:
    """Pixel masks bool (T, Y, X) as `record` wrote them."""
    with np.load(path, allow_pickle=False) as stored:
        shape = tuple(stored["shape"].tolist())
        return np.unpackbits(stored["bits"], count=int(np.prod(shape))).reshape(shape).astype(bool)


def record_joined(video: Path, fps: float, parts: list[tuple[int, str, int, int]]) -> list[list[tuple[int, int]]]:
    """Render scenes, each as (seed, category, n_frames, n_events), one after the other into one video file.

    Returns the anomalies of each part, counted from the video's first frame.
    """
    scenes = [make_scene(seed, category, n_frames, n_events=n_events) for seed, category, n_frames, n_events in parts]
    _write_file(video, np.concatenate([draw(scene)[0] for scene in scenes]), fps)
    starts = np.cumsum([0, *(scene.n_frames for scene in scenes)]).tolist()
    return [
        [(start + first, start + end) for first, end in scene.anomalies]
        for start, scene in zip(starts, scenes, strict=False)
    ]


def record_shot(video: Path, fps: float, shot: Shot) -> None:
    """Render a shot into a video file."""
    _write_file(video, draw(shot.scene())[0], fps)


def record_shanghaitech(testing: Path, name: str, shot: Shot) -> None:
    """Render a shot as ShanghaiTech's folder testing/ keeps one: JPEG frames, a mask of pixels and one of frames."""
    frames, mask = draw(shot.scene())
    _write_images([testing / "frames" / name / f"{index:03d}.jpg" for index in range(len(frames))], frames)
    for folder, array in (("test_pixel_mask", mask), ("test_frame_mask", mask.any(axis=(1, 2)))):
        (testing / folder).mkdir(parents=True, exist_ok=True)
        np.save(testing / folder / f"{name}.npy", array.astype(np.uint8))


def record_ubnormal(video: Path, fps: float, shot: Shot) -> None:
    """Render a shot as UBnormal does: a video file and, where there is an event, maps of object ids and their tracks.

    A line of the tracks is object_id,start,end, inclusive: a stretch of frames in which that object of the event can be
    seen. People who only walk by are in the maps too, under one id, and in no track.
    """
    scene = shot.scene()
    _write_file(video, draw(scene)[0], fps)
    if shot.event is None:
        return
    ids, folder = object_ids(scene), video.with_name(f"{video.stem}_annotations")
    normal = bystanders(scene)
    maps = np.where((ids == 0) & normal, ids.max() + 1, ids).astype(np.uint8)
    tracks = [
        f"{name},{first},{end - 1}\n"
        for name in np.unique(ids[ids > 0]).tolist()
        for first, end in anomalous_runs((ids == name).any(axis=(1, 2)))
    ]
    _write_images([folder / f"{video.stem}_{index:04d}_gt.png" for index in range(len(maps))], maps)
    (folder / f"{video.stem}_tracks.txt").write_text("".join(tracks))


def record_ucsd(folder: Path, shot: Shot) -> list[tuple[int, int]]:
    """Render a shot as UCSD does: grey TIFF frames from 001 on and, where there is an event, masks in <folder>_gt.

    Returns the stretches of frames in which the event can be seen, half-open, from 0.
    """
    frames, mask = draw(shot.scene())
    names = [f"{number:03d}" for number in range(1, len(frames) + 1)]
    grey = (frames @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
    _write_images([folder / f"{name}.tif" for name in names], grey)
    if shot.event is not None:
        _write_images([folder.with_name(f"{folder.name}_gt") / f"{name}.bmp" for name in names], mask * np.uint8(255))
    return anomalous_runs(np.asarray(mask.any(axis=(1, 2))))


def _write_file(path: Path, frames: np.ndarray, fps: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, frames.transpose(0, 3, 1, 2), fps, preset="veryfast")


def _write_images(paths: list[Path], images: np.ndarray) -> None:
    """One file for each of the images, uint8 (T, Y, X) or (T, Y, X, 3), in the format its suffix names."""
    for folder in {path.parent for path in paths}:
        folder.mkdir(parents=True, exist_ok=True)
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path, quality=90)  # of JPEG; the other formats have no use for it
