"""What a stage costs: frames of video per second where they were watched, and none where that is not known."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from callbacks.progress import Cost
from datamodules import UcfCrime
from tests.finished_tests import facts_of, made
from tests.reading_systems import Layers
from tests.tiny_videos import make_trainer, write_video_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video_world(tmp_path_factory.mktemp("videos"), n_train=1)


def cost_of_a_test(world: Path, folder: Path, **settings: Any) -> tuple[dict[str, Any], float]:
    """What a test says it cost, and how long it took by the clock."""
    system, cost = Layers(**settings), Cost()
    data = UcfCrime(str(world), num_workers=0)
    data.watch(system)
    trainer = make_trainer(folder, [cost])
    start = time.perf_counter()
    trainer.test(system, datamodule=data, verbose=False)
    taken = time.perf_counter() - start
    return cost.of(trainer, system, "test"), taken


def test_reading_a_frozen_backbone_counts_and_what_was_read_before_has_no_speed(world: Path, tmp_path: Path) -> None:
    sleep_s, windows = 0.02, 15
    first, taken = cost_of_a_test(world, tmp_path, sleep_s=sleep_s)
    n_frames = round(first["frames_per_second"] * first["seconds"])
    assert windows * sleep_s < first["seconds"] <= taken
    assert n_frames == sum(video.n_frames for video in UcfCrime(str(world), num_workers=0).known("test"))
    second, _ = cost_of_a_test(world, tmp_path, sleep_s=sleep_s)
    assert second["frames_per_second"] is None
    assert second["seconds"] < first["seconds"]
    assert first["trained_parameters"] == second["trained_parameters"] == 3 + 1
    assert first["peak_memory_mb"] > 100


def test_of_features_that_were_given_nobody_knows_the_speed(tmp_path_factory: pytest.TempPathFactory) -> None:
    cost = facts_of(made(tmp_path_factory, "plain"))["cost"]
    assert cost["frames_per_second"] is None
    assert cost["seconds"] > 0


def test_what_comes_after_the_last_batch_costs_nothing(world: Path, tmp_path: Path) -> None:
    system, cost = Layers(), Cost()
    data = UcfCrime(str(world), num_workers=0)
    data.watch(system)
    trainer = make_trainer(tmp_path, [cost])
    trainer.test(system, datamodule=data, verbose=False)
    seconds = cost.of(trainer, system, "test")["seconds"]
    time.sleep(0.05)
    assert cost.of(trainer, system, "test")["seconds"] == seconds
