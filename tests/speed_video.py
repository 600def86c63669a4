"""How fast frames are sampled, beside plain PyAV, OpenCV and decord: `pytest tests/speed_video.py -s`."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from vigil import video
from vigil.types import View

N_FRAMES = 3600  # two minutes at 30 frames per second
ROUNDS = 3
SAMPLES = {"1 in 16": np.arange(0, N_FRAMES, 16), "16 uniform": View(frames=1, segments=16).indices(N_FRAMES)[:, 0]}
TARGET = "faster than pyav and decord, at least 0.8 of opencv, aiming at 1"


@pytest.fixture(scope="module", params=[250, 12], ids=["gop250", "gop12"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """320x240 H.264: blocks that drift over a noisy background; 250 is x264's default distance of keyframes."""
    generator = np.random.default_rng(0)
    ground = np.kron(generator.integers(0, 255, (3, 15, 20)), np.ones((1, 16, 16)))
    noise = [generator.integers(-6, 7, (1, 240, 320)) for _ in range(8)]

    def frames() -> object:
        for number in range(N_FRAMES):
            image = np.roll(ground, number // 4, axis=2) if number % 600 < 60 else ground.copy()
            for block in range(4):
                x, y = (number * 3 + block * 70) % 280, int(100 + 90 * np.sin(number / 30 + block * 1.3))
                image[:, y : y + 40, x : x + 30] = block * 60
            yield np.clip(image + noise[number % 8], 0, 255).astype(np.uint8)

    path = tmp_path_factory.mktemp("speed") / "clip.mp4"
    video.write_video(path, frames(), 30, preset="medium", keyframe_every=request.param, threads=2)
    return path


def with_pyav(path: Path, indices: np.ndarray) -> np.ndarray:
    """Plain PyAV, every frame to rgb24, as most data loaders do it."""
    wanted = set(indices.tolist())
    kept = []
    with av.open(str(path)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            image = frame.to_ndarray(format="rgb24")
            if number in wanted:
                kept.append(image)
    return np.stack(kept)


def with_opencv(path: Path, indices: np.ndarray) -> np.ndarray:
    """OpenCV with its default threads; skipped frames are grabbed, not retrieved; far ones are sought."""
    import cv2

    capture, kept, position = cv2.VideoCapture(str(path)), [], 0
    for number in indices.tolist():
        if number - position > 64:
            capture.set(cv2.CAP_PROP_POS_FRAMES, number)
            position = number
        while position < number:
            capture.grab()
            position += 1
        kept.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
        position += 1
    return np.stack(kept)


def with_decord(path: Path, indices: np.ndarray) -> np.ndarray:
    import decord

    return decord.VideoReader(str(path)).get_batch(indices).asnumpy()


def ours(path: Path, indices: np.ndarray) -> np.ndarray:
    """Without a remembered index: what the first reading of a file costs."""
    video._index.cache_clear()
    return video.read_frames(path, indices).numpy()


@pytest.mark.parametrize("sample", SAMPLES)
def test_sampling_is_faster_than_the_others(
    sample: str, clip: Path, speed_row: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    indices = SAMPLES[sample]
    ways = {"ours": ours, "pyav": with_pyav}
    ways |= {"opencv": with_opencv} if importlib.util.find_spec("cv2") else {}
    ways |= {"decord": with_decord} if importlib.util.find_spec("decord") else {}
    for name in {"opencv", "decord"} - set(ways):
        print(f"{name}: not installed")
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            got = way(clip, indices)
            best[name] = min(best[name], time.perf_counter() - start)
            assert len(got) == len(indices)
    group = request.node.callspec.params["clip"]
    others = {name: seconds for name, seconds in best.items() if name != "ours"}
    speed_row(f"sample {sample}, keyframe every {group}", best["ours"], others, TARGET)
    assert best["ours"] < min(seconds for name, seconds in others.items() if name != "opencv")
    assert best["ours"] * 0.8 <= others.get("opencv", float("inf"))
