"""A fit that is killed, stopped or finished, and the same command again."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from tests.worlds import assert_equal, lightning, weights, write_feature_world

TWO = ("--trainer.devices", 2, "--trainer.strategy", "ddp")
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
    ("number", "status"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=str
)
def test_a_stopped_fit_and_the_same_command_end_in_bit_equal_weights(
    number: signal.Signals, status: int, world: Path, undisturbed: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    command = ("fit", "-c", world, "--save_every", 5)
    stopped = lightning(*command, cwd=tmp_path, at=(KILLED_AT, number))
    assert stopped.returncode == status, stopped.stderr
    if number != signal.SIGKILL:
        assert "The same command goes on" in stopped.stderr
        (last,) = tmp_path.rglob("last.ckpt")
        assert torch.load(last, weights_only=True)["global_step"] == KILLED_AT + 1  # the batch under way was finished
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
