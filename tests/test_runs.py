"""Run folders: what is unfinished goes on, what is finished or changed never does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.worlds import ROOT
from vigil.runs import RunFolder, config_hash, run_of

CONFIG = {"model": {"learning_rate": 1e-4, "hidden": [512, 32]}, "seed": 0}


def begin(root: Path, config: dict[str, object] = CONFIG) -> RunFolder:
    """A run that got as far as a checkpoint; its process has ended."""
    run = RunFolder(root, "MilRanker-UcfCrime", config)
    run.claim()
    run.checkpoint.parent.mkdir(parents=True, exist_ok=True)
    run.checkpoint.write_bytes(b"tensors")
    os.close(run._lock)  # the kernel does this when a process ends
    return run


def test_an_unfinished_run_of_the_same_configuration_is_gone_on_with(tmp_path: Path) -> None:
    assert not RunFolder(tmp_path, "MilRanker-UcfCrime", CONFIG).unfinished
    first = begin(tmp_path)
    again = RunFolder(tmp_path, "MilRanker-UcfCrime", {"seed": 0, "model": dict(reversed(CONFIG["model"].items()))})
    assert again.folder == first.folder == tmp_path / "MilRanker-UcfCrime" / config_hash(CONFIG)
    assert again.unfinished


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    folders = []
    for _ in range(3):
        run = RunFolder(tmp_path, "MilRanker-UcfCrime", CONFIG)
        assert not run.unfinished
        begin(tmp_path).write_state("finished")
        folders.append(run.folder.name)
    digest = config_hash(CONFIG)
    assert folders == [digest, f"{digest}-2", f"{digest}-3"]


@pytest.mark.parametrize(
    "other",
    [
        {**CONFIG, "seed": 1},
        {**CONFIG, "seed": "0"},
        {**CONFIG, "more": None},
        {**CONFIG, "model": {"learning_rate": 1.0001e-4, "hidden": [512, 32]}},
        {**CONFIG, "model": {"learning_rate": 1e-4, "hidden": [32, 512]}},
    ],
)
def test_a_changed_configuration_gets_a_folder_of_its_own(tmp_path: Path, other: dict[str, object]) -> None:
    first = begin(tmp_path)
    run = RunFolder(tmp_path, "MilRanker-UcfCrime", other)
    assert run.folder != first.folder
    assert not run.unfinished


def test_a_run_without_a_checkpoint_starts_again_in_its_folder(tmp_path: Path) -> None:
    run = begin(tmp_path)
    run.checkpoint.unlink()
    again = RunFolder(tmp_path, "MilRanker-UcfCrime", CONFIG)
    assert again.folder == run.folder
    assert not again.unfinished


CLAIM = """
import sys
from pathlib import Path
from vigil.runs import RunFolder
run = RunFolder(Path(sys.argv[1]), "name", {"seed": 0})
run.claim()
print("claimed", flush=True)
sys.stdin.readline()
"""


def test_two_processes_do_not_share_a_run_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CLAIM, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "claimed\n"
        second = RunFolder(tmp_path, "name", {"seed": 0})
        with pytest.raises(ValueError, match="another process is fitting this very configuration"):
            second.claim()
        RunFolder(tmp_path, "name", {"seed": 1}).claim()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        second.claim()


def test_a_run_that_another_process_finished_meanwhile_is_not_claimed(tmp_path: Path) -> None:
    late = RunFolder(tmp_path, "MilRanker-UcfCrime", CONFIG)
    begin(tmp_path).write_state("finished")
    with pytest.raises(ValueError, match="just finished"):
        late.claim()
    assert RunFolder(tmp_path, "MilRanker-UcfCrime", CONFIG).folder != late.folder


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_state_that_says_nothing_is_refused_by_name(tmp_path: Path, text: str) -> None:
    run = begin(tmp_path)
    (run.folder / "state.json").write_text(text)
    with pytest.raises(ValueError, match=r"state\.json: not a run's state; delete .*" + config_hash(CONFIG)):
        RunFolder(tmp_path, "MilRanker-UcfCrime", CONFIG)


def test_a_checkpoint_knows_the_run_it_lies_in(tmp_path: Path) -> None:
    run = begin(tmp_path)
    assert run_of(run.checkpoint) == run.folder
    assert run_of(tmp_path / "from_elsewhere" / "last.ckpt") is None
