"""A model is found by path, beside the project, or in the hub's cache; what is not there is named with what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vigil.pretrained import ROOT, find_pretrained, pretrained_fingerprint
from vigil.store import FileMemory

COMMIT = "a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d0"


def write(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_a_folder_is_found_by_its_path_and_beside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "model", "config.json", "model.safetensors")
    assert find_pretrained(str(folder)) == folder
    monkeypatch.chdir(tmp_path)
    assert find_pretrained("model") == Path("model")
    if (ROOT / "weights" / "demo_mllm").is_dir():
        assert find_pretrained("weights/demo_mllm") == ROOT / "weights" / "demo_mllm"


@pytest.mark.parametrize("name", ["./nothing", "/nothing/here", "nothing", "a/b/c"])
def test_a_path_that_is_not_there_is_no_name_on_the_hub(name: str) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no such folder, here \(.*\) or in .*; give a model's folder or its name"
    ):
        find_pretrained(name)


def test_a_name_that_is_neither_here_nor_cached_says_how_to_get_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"nobody/no-such-model@v1: neither .*`hf download nobody"):
        find_pretrained("nobody/no-such-model@v1")


def test_what_the_hubs_cache_holds_is_found_without_a_network(tmp_path: Path) -> None:
    """In a process of its own, since the hub's client reads its cache's place when it is imported."""
    repository = tmp_path / "hub" / "models--team--model"
    write(repository / "snapshots" / COMMIT, "config.json", "model.safetensors")
    write(repository / "refs", "main")
    (repository / "refs" / "main").write_text(COMMIT)
    names = ["team/model", f"team/model@{COMMIT}"]
    code = f"from vigil.pretrained import find_pretrained; print(*map(find_pretrained, {names}))"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert [Path(found).name for found in done.stdout.split()] == [COMMIT, COMMIT]


def test_a_folder_that_holds_no_model_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no config\.json, found nothing"):
        find_pretrained(str(write(tmp_path / "empty")))
    with pytest.raises(FileNotFoundError, match=r"no config\.json, found a\.txt"):
        find_pretrained(str(write(tmp_path / "text", "a.txt")))
    with pytest.raises(FileNotFoundError, match=r"no weights \(\*\.safetensors\), found config\.json"):
        find_pretrained(str(write(tmp_path / "bare", "config.json")))


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "model.pth", "consolidated.00.pt"])
def test_a_pickle_is_never_opened(tmp_path: Path, pickle: str) -> None:
    with pytest.raises(ValueError, match=rf"its weights are {pickle}, which can run code"):
        find_pretrained(str(write(tmp_path / "model", "config.json", pickle)))


def test_a_download_that_stopped_half_way_is_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "config.json", "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileNotFoundError, match=r"1 of 2 weight files .* are missing: model-2\.safetensors"):
        find_pretrained(str(folder))
    write(folder, "model-2.safetensors")
    assert find_pretrained(str(folder)) == folder


def test_a_broken_list_of_weight_files_and_a_dangling_link_are_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "config.json", "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json: no list of weight files"):
        find_pretrained(str(folder))
    (folder / "model.safetensors.index.json").unlink()
    (folder / "model-2.safetensors").symlink_to(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match=r"model-2\.safetensors: links to files that are gone"):
        find_pretrained(str(folder))


def test_a_fingerprint_changes_with_any_byte_that_matters(tmp_path: Path) -> None:
    folder = write(tmp_path / "model", "config.json", "model.safetensors", "README.md")
    memory = FileMemory(tmp_path / "facts.jsonl")
    first = pretrained_fingerprint(folder, memory)
    assert len(first) == 16
    (folder / "README.md").write_text("other")
    assert pretrained_fingerprint(folder, memory) == first
    (folder / "model.safetensors").write_text("model.safetensorz")
    assert pretrained_fingerprint(folder, memory) != first
