"""Where a number comes from: commit, packages and machine, as git, the packages and the kernel say."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import ROOT


def asked_in(folder: Path, code: str, **environment: str) -> Any:
    """What code in a process of its own prints, as JSON; vigil is that of `folder`."""
    variables = {**os.environ, "PYTHONPATH": str(folder), **environment}
    command = [sys.executable, "-c", f"import json; from vigil.provenance import *; print(json.dumps({code}))"]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def git(folder: Path, *args: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *author, *args], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Vigil's part that says where it comes from, alone in a folder."""
    (tmp_path / "vigil").mkdir()
    for name in ("__init__", "provenance"):
        shutil.copy(ROOT / "vigil" / f"{name}.py", tmp_path / "vigil")
    return tmp_path


def test_the_commit_is_that_of_vigils_own_folder_and_dirty_where_code_differs(
    copy: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    git(copy, "init", "-q")
    git(copy, "add", "vigil/__init__.py", "vigil/provenance.py")
    git(copy, "commit", "-q", "-m", "a")
    head = git(copy, "rev-parse", "HEAD")
    (copy / "notes.md").write_text("a page, and not code")
    assert asked_in(copy, "commit()") == [head, False]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "run.py").write_text("import json; from vigil.provenance import commit; print(json.dumps(commit()))")
    variables = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(
        [sys.executable, "run.py"], cwd=elsewhere, env=variables, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [head, False]
    (copy / "vigil" / "new.py").write_text("added = True\n")
    assert asked_in(copy, "commit()") == [head, True]
    (copy / "vigil" / "new.py").unlink()
    (copy / "vigil" / "__init__.py").write_text("changed = True\n")
    assert asked_in(copy, "commit()") == [head, True]


def test_without_a_repository_or_without_git_the_commit_is_unknown_and_not_clean(copy: Path) -> None:
    assert asked_in(copy, "commit()", GIT_CEILING_DIRECTORIES=str(copy.parent)) == ["", None]
    assert asked_in(copy, "commit()", PATH=str(copy)) == ["", None]


def test_the_versions_are_those_that_are_installed(copy: Path) -> None:
    found = asked_in(copy, "versions()")
    assert found["python"] == platform.python_version()
    for name in ("torch", "lightning", "numpy", "torchmetrics", "av"):
        loaded = importlib.import_module(name).__version__
        assert loaded.partition("+")[0] == found[name].partition("+")[0]  # torch's own names the CUDA release
    assert "nothing" not in found.values()


def test_the_machine_is_a_processor_its_cores_and_its_memory(copy: Path) -> None:
    said = asked_in(copy, "machine()")
    cores, memory = said.split(" x ")[1].split(", ")[:2]
    assert int(cores) == os.cpu_count()
    total = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    assert int(memory.removesuffix(" GiB")) == pytest.approx(int(total.split()[1]) / 2**20, abs=1)


def test_graphics_cards_are_those_that_the_driver_names(copy: Path) -> None:
    assert asked_in(copy, "gpus()", PATH=str(copy)) == []
    program = copy / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'Card A\\nCard A\\n'\n")
    program.chmod(0o755)
    path = f"{copy}:{os.environ['PATH']}"
    assert asked_in(copy, "gpus()", PATH=path) == ["Card A", "Card A"]
    assert asked_in(copy, "machine()", PATH=path).endswith(" GiB, 2 x Card A")
    program.write_text("#!/bin/sh\nexit 9\n")
    assert asked_in(copy, "gpus()", PATH=path) == []


def test_it_is_all_said_together_and_goes_into_json(copy: Path) -> None:
    said = asked_in(copy, "provenance()", GIT_CEILING_DIRECTORIES=str(copy.parent))
    assert said.keys() == {"commit", "dirty", "versions", "machine"}
