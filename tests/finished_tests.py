"""What a real `lightning test` leaves, of every kind of number: made once for all the tests that read it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from cli import main
from datamodules.demo import write_ucf_crime
from datamodules.demo_campus import write_ubnormal
from lightning_modules import FrameDifference, MilRanker
from tests.tiny_videos import write_video_world
from tests.worlds import write_feature_world
from vigil.temporal import smooth

SIGMA_FRAMES = 6.0
HELD_OUT = "Arson"
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.logger=false")
CPU = ("--trainer.accelerator=cpu", "--trainer.devices=1", "--data.num_workers=0")
_MADE: dict[str, Path] = {}


class Gating(MilRanker):
    """A ranker that wants to be judged on what lies above its threshold, too."""

    gates = True


class SmoothedDifference(FrameDifference):
    """One that is smoothed, so that where its curve ends changes its last scores."""

    def refine(self, curve: Tensor) -> Tensor:
        return smooth(curve, SIGMA_FRAMES)


@contextlib.contextmanager
def inside(folder: Path) -> Any:
    """Work in a folder, where runs/ will be."""
    before = Path.cwd()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def command(folder: Path, *args: object) -> Path:
    """Run `lightning` in a folder; the folder that this run made below runs/."""
    with inside(folder):
        before = set(Path("runs").glob("*/*"))
        main([*map(str, args), *QUIET])
        (made,) = set(Path("runs").glob("*/*")) - before
    return folder / made


def _ranker(top: Path) -> Path:
    """A run folder below which a ranker was fitted on all categories but one; beside it world.yaml."""
    config = write_feature_world(top / "world", n_videos=4, snippets=(20, 30))
    text = config.read_text().replace("class_path: MilRanker", "class_path: tests.finished_tests.Gating")
    config.write_text(text.replace("max_epochs: 4", "max_epochs: 2"))
    return command(top, "fit", "-c", config, f"--data.hold_out=[{HELD_OUT}]", f"--model.sigma_frames={SIGMA_FRAMES}")


def _tested(factory: pytest.TempPathFactory, *more: str) -> Path:
    run = made(factory, "ranker")
    top = run.parents[2]
    before = set(run.rglob("metrics.json"))
    args = ["test", "-c", top / "world" / "world.yaml", "--ckpt_path", run / "checkpoints" / "last.ckpt", *more]
    with inside(top):
        main([*map(str, args), *QUIET])
    (found,) = set(run.rglob("metrics.json")) - before
    return found.parent


def _of_videos(top: Path, *more: object) -> Path:
    return command(top, "test", *CPU, *more)


def made(factory: pytest.TempPathFactory, name: str) -> Path:
    """The folder of a finished test, by its name in KINDS, or of what it needs; made once."""
    if name not in _MADE:
        _MADE[name] = KINDS[name](factory)
    return _MADE[name]


def facts_of(folder: Path) -> dict[str, Any]:
    """The content of metrics.json."""
    return json.loads((folder / "metrics.json").read_text())


def _refined(factory: pytest.TempPathFactory) -> Path:
    return _tested(factory, f"--data.hold_out=[{HELD_OUT}]", f"--model.sigma_frames={SIGMA_FRAMES}")


def _difference(
    factory: pytest.TempPathFactory, model: str = "lightning_modules.FrameDifference", convention: str = "full"
) -> Path:
    top = made(factory, "videos")
    data = ("--data=UcfCrime", f"--data.root={top / 'world'}", f"--data.convention={convention}")
    return _of_videos(top, f"--model={model}", *data)


def _videos(factory: pytest.TempPathFactory) -> Path:
    top = factory.mktemp("videos")
    write_video_world(top / "world", n_train=1)
    return top


def _pixels(factory: pytest.TempPathFactory, *more: str) -> Path:
    top = factory.mktemp("pixels")
    write_ubnormal(top / "world", size="tiny")
    data = ("--data=UbNormal", f"--data.root={top / 'world'}", *more)
    return _of_videos(top, "--model=lightning_modules.FrameDifference", *data)


def _classes(factory: pytest.TempPathFactory) -> Path:
    top = factory.mktemp("classes")
    write_ucf_crime(top / "world", size="tiny")
    data = ("--data=Uca", f"--data.root={top / 'world'}", "--data.task=probe")
    return _of_videos(top, "--model=tests.tiny_systems.TinyEvents", *data)


KINDS: dict[str, Callable[[pytest.TempPathFactory], Path]] = {
    "ranker": lambda factory: _ranker(factory.mktemp("ranker")),
    "refined": _refined,  # raw, refined and gated numbers, events, classes, one of them unseen
    "plain": _tested,  # the same weights, nothing refined
    "few": lambda factory: _tested(factory, "--data.limit_videos=6"),
    "videos": _videos,
    "difference": _difference,
    "vadclip": lambda factory: _difference(factory, "tests.finished_tests.SmoothedDifference", "vadclip"),  # cuts
    "rtfm": lambda factory: _difference(factory, "tests.finished_tests.SmoothedDifference", "rtfm"),  # adds frames
    "pixels": _pixels,
    "whole": lambda factory: _pixels(factory, "--data.whole_windows=32"),  # drops tails
    "classes": _classes,
}
