"""Runs to lay out on a leaderboard: made-up truth and scores, and what is judged of them in earnest."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vigil.curves import Curve
from vigil.judging import against_all, frame_numbers, reliability
from vigil.measured import COST, NAMED, PROVENANCE
from vigil.statistics import Runs, draw_videos, resample
from vigil.types import Video

CATEGORIES = ("Abuse", "Arson", "Fighting", "Robbery")
Scorer = Callable[[Video, np.ndarray, np.random.Generator], np.ndarray]  # video, truth per run (R,) -> score (R,)


def videos(number: int = 16, frames: int = 960, seed: int = 7) -> list[Video]:
    """Videos of which every second one holds an event."""
    generator = np.random.default_rng(seed)
    found = []
    for index in range(number):
        length = int(frames + 16 * generator.integers(-10, 10))
        first = int(generator.integers(100, length - 300))
        anomalous = index % 2 == 0
        category = CATEGORIES[index // 2 % len(CATEGORIES)] if anomalous else None
        events = [(first, first + int(generator.integers(60, 260)))] if anomalous else []
        name = f"{category or 'Normal'}{index:03d}_x264"
        found.append(Video(name, None, length, 30.0, label=int(anomalous), category=category, anomalies=events))
    return found


def curves(world: Sequence[Video], scorer: Scorer, seed: int) -> dict[str, Curve]:
    """A score per 16 frames of every video."""
    generator = np.random.default_rng(seed)
    found = {}
    for video in world:
        edge = np.unique(np.append(np.arange(0, video.n_frames, 16), video.n_frames)).astype(np.int64)
        truth = np.zeros(video.n_frames)
        for first, end in video.anomalies:
            truth[first:end] = 1
        share = np.add.reduceat(truth, edge[:-1]) / np.diff(edge)
        found[video.name] = Curve(edge, np.clip(scorer(video, share, generator), 0, 1).astype(np.float32))
    return found


def smoothed(curve: Curve) -> Curve:
    """A running mean over five scores."""
    padded = np.pad(curve.score, 2, mode="edge")
    return Curve(curve.edge, np.convolve(padded, np.ones(5, np.float32) / 5, mode="valid").astype(np.float32))


def noisy(signal: float, noise: float) -> Scorer:
    """A detector: the truth, weakened, among noise."""
    return lambda video, truth, generator: 0.3 + signal * truth + noise * generator.standard_normal(len(truth))


CONTROLS: dict[str, Scorer] = {
    "random": lambda video, truth, generator: generator.random(len(truth)),
    "constant": lambda video, truth, generator: np.full(len(truth), 0.5),
    "temporal_centre": lambda video, truth, generator: 1 - np.abs(np.linspace(-1, 1, len(truth))),
    "video_label_oracle": lambda video, truth, generator: np.full(len(truth), float(video.label)),
}


def bootstrap_draws(world: Sequence[Video], judged: Mapping[str, Curve]) -> dict[str, np.ndarray]:
    """AUROC and AP of a thousand draws of videos."""
    runs = Runs.of(against_all(world, [judged[video.name] for video in world]))
    return resample(runs, draw_videos(*runs.frames(), 1000, 0))


def details(world: Sequence[Video], raw: Mapping[str, Curve], refined: Mapping[str, Curve]) -> dict[str, Any]:
    """details.json of a run."""
    packed = {}
    for end, judged in (("", raw), ("_refined", refined)):
        for key, values in bootstrap_draws(world, judged).items():
            name = {"auroc": "frame_auroc", "average_precision": "frame_ap"}[key]
            packed[name + end] = base64.b64encode(values.astype("<f4").tobytes()).decode()
    numbers = frame_numbers(world, raw, refined)
    bins = reliability(world, [raw[video.name] for video in world])
    return {
        "draws": packed,
        "reliability": {"score": bins.score, "anomalous": bins.share, "frames": bins.size},
        "curves": {
            video.name: {
                "n_frames": video.n_frames,
                "fps": video.fps,
                "category": video.category,
                "anomalies": [list(event) for event in video.anomalies],
                "edge": raw[video.name].edge.tolist(),
                "score": raw[video.name].score.tolist(),
                "refined": refined[video.name].score.tolist(),
            }
            for video in world
        },
        "classes": {key.split("/")[1]: value for key, value in numbers.items() if key.startswith("frame_auroc/")},
    }


def run(root: Path, world: Sequence[Video], cell: str, scorer: Scorer, *, seed: int = 0, **said: Any) -> dict[str, Any]:
    """A row of measured.csv, and its details.json below the folder. `said` goes over what the row says by default."""
    raw = curves(world, scorer, seed)
    refined = {name: smoothed(curve) for name, curve in raw.items()}
    numbers = {key: value for key, value in frame_numbers(world, raw, refined).items() if "/" not in key}
    stated = {"backbone": "demo_mllm", "selection": "last", "smoothing": "none", "online": False}
    judged = {"convention": "every frame, ends exclusive", "videos": len(world)}
    stated |= said.pop("stated", {})
    judged |= said.pop("judged", {})
    row = {
        **{"table": "demo", "cell": cell, "system": cell.lower(), "kind": "system", "fit": "ucf_crime"},
        **{"test": "ucf_crime", "dataset": "UCF-Crime", "demo": 1, "seed": seed, "claim": ""},
        **{"supervision": "weakly supervised", "main_metric": "frame_auroc"},
        **{"trained_parameters": 12345, "fit_s": 31.5, "test_s": 8.25, "frames_per_second": 812.0},
        **{"peak_memory_mb": 640.0, "commit": "0123abc", "dirty": 0, "config_hash": "c0ffee", "code_hash": "beef"},
        **{"data_hash": "da7a", "weights_hash": "", "versions": '{"torch": "2.15.0"}', "machine": "2 cores, x86_64"},
        **{"wall_s": 40.0, "finished": "2026-11-22T01:00:00Z"},
        **{"command": f"lightning test -c configs/systems/{cell.lower()}.yaml --seed_everything {seed}"},
        **{"folder": f"runs/{cell.lower().replace('<', '').replace('/', '').replace('>', '')}-{seed}"},
        **numbers,
        **said,
    }
    row["protocol"] = json.dumps({"judged": judged, "stated": stated})
    if row["kind"] == "control":
        row |= {"fit": "", "supervision": "none", "command": "", "trained_parameters": 0, "fit_s": ""}
    place = root / str(row["folder"])
    place.mkdir(parents=True, exist_ok=True)
    (place / "details.json").write_text(json.dumps(details(world, raw, refined)))
    return row


def write(file: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """measured.csv of the rows."""
    rows = list(rows)
    columns = dict.fromkeys([*NAMED, *COST, *PROVENANCE, *(key for row in rows for key in row)])
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns), restval="")
        writer.writeheader()
        writer.writerows(rows)
    return file


def a_leaderboard(folder: Path) -> Path:
    """measured.csv of a small leaderboard with everything that can stand on one."""
    world = videos()
    controls = [run(folder, world, name, scorer, kind="control") for name, scorer in CONTROLS.items()]
    hiprobe = {"claim": "HiProbe-VAD (InternVL2.5)", "supervision": "tuning-free (1% labels)"}
    rows = [run(folder, world, "HiProbe", noisy(0.35, 0.12), seed=seed, **hiprobe) for seed in (0, 1, 2)]
    rows.append(
        run(folder, world, "SteerVad", noisy(0.3, 0.15), claim="SteerVAD", supervision="tuning-free (1% labels)")
    )
    oracle = {"claim": "LAVIDA", "supervision": "zero-shot", "stated": {"selection": "test (oracle)", "online": True}}
    rows.append(run(folder, world, "Lavida", noisy(0.1, 0.25), **oracle))
    rows.append(run(folder, world, "<script>alert(1)</script>", noisy(0.05, 0.3), kind="submitted", fit=""))
    fewer = videos(12)
    rows.append(run(folder, fewer, "HiProbe of 12", noisy(0.3, 0.2), table="cross"))
    xd = {"dataset": "XD-Violence", "test": "xd_violence", "main_metric": "frame_ap", "table": "cross"}
    other = videos(10, seed=11)
    rows.append(run(folder, other, "HiProbe on XD", noisy(0.3, 0.2), claim="HiProbe-VAD", **xd))
    rows += [
        run(folder, other, name, scorer, kind="control", folder=f"runs/xd-{name}", **xd)
        for name, scorer in CONTROLS.items()
    ]
    return write(folder / "measured.csv", controls + rows)


UNFINISHED = [
    {"cell": "Lavida", "test": "ubnormal", "seed": 0, "state": "failed", "why": ["CUDA out of memory", "  at line 3"]},
    {"cell": "DualEncoder", "test": "uca", "seed": 0, "state": "not there yet", "why": ["no config of that name"]},
]
