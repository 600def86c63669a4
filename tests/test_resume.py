"""A fit that is killed, stopped or finished, and the same command again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.worlds import assert_equal, lightning, weights, write_feature_world

TWO = ("--trainer.devices", 2, "--trainer.strategy", "ddp")
LAST_STEP = 19  # of the last epoch: its validation is still to come
KILLED_AT = 12  # in the middle of the third epoch of five steps; the last checkpoint is two steps behind


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def undisturbed(world: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = lightning("fit", "-c", world, "--save_every", 5, cwd=folder)
    assert done.returncode == 0, done.stderr
    return weights(folder)


@pytest.mark.parametrize(
    ("number", "status", "step"),
    [(signal.SIGKILL, -9, KILLED_AT), (signal.SIGTERM, 143, KILLED_AT), (signal.SIGINT, 130, KILLED_AT),
     (signal.SIGTERM, 143, LAST_STEP)],
)  # fmt: skip
def test_a_stopped_fit_and_the_same_command_end_in_bit_equal_weights(
    number: signal.Signals, status: int, step: int, world: Path, undisturbed: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    command = ("fit", "-c", world, "--save_every", 5)
    stopped = lightning(*command, cwd=tmp_path, at=(step, number))
    assert stopped.returncode == status, stopped.stderr
    if number != signal.SIGKILL:
        assert "The same command goes on" in stopped.stderr
        (last,) = tmp_path.rglob("last.ckpt")
        assert torch.load(last, weights_only=True)["global_step"] == step + 1  # the batch under way was finished
    resumed = lightning(*command, cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "Going on with the unfinished run" in resumed.stderr + resumed.stdout
    assert_equal(weights(tmp_path), undisturbed)


def test_two_processes_killed_end_in_bit_equal_weights(world: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    command = ("fit", "-c", world, "--save_every", 5, *TWO)
    whole = lightning(*command, cwd=tmp_path / "a")
    assert whole.returncode == 0, whole.stderr
    killed = lightning(*command, cwd=tmp_path / "b", at=(KILLED_AT, signal.SIGKILL))
    assert killed.returncode == -9
    resumed = lightning(*command, cwd=tmp_path / "b")
    assert resumed.returncode == 0, resumed.stderr
    assert_equal(weights(tmp_path / "b"), weights(tmp_path / "a"))


def test_a_signal_to_the_whole_group_finds_workers_that_outlast_it(world: Path, tmp_path: Path) -> None:
    command = ("fit", "-c", world, "--data.init_args.num_workers", 2)
    stopped = lightning(*command, cwd=tmp_path, at=(KILLED_AT, -signal.SIGTERM))
    assert stopped.returncode == 143, stopped.stderr
    assert "The same command goes on" in stopped.stderr
