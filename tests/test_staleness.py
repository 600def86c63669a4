"""What a result depends on: a change of configuration, code, data or weights is seen and named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.worlds import ROOT
from vigil import staleness
from vigil.cells import Cell, Place, Step
from vigil.records import write_record
from vigil.staleness import code_of, download_gb, fingerprint, folder_digest, look_again, missing_weights, why_stale


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    look_again()


def step(tmp_path: Path, **values: Any) -> Step:
    cell = Cell("a", "mil_ranker", "ucf_crime", ["ucf_crime"], set={"data.root": str(tmp_path / "data"), **values})
    return Step(cell, 0, "fit", "ucf_crime", Place(tmp_path / "out"))


def test_nothing_changed_is_nothing_stale(tmp_path: Path) -> None:
    assert why_stale(fingerprint(step(tmp_path)), fingerprint(step(tmp_path))) == ""


def test_a_changed_value_is_named_with_both_values(tmp_path: Path) -> None:
    before, after = fingerprint(step(tmp_path)), fingerprint(step(tmp_path, **{"model.dropout": 0.1}))
    assert why_stale(before, after) == "config: model.dropout 0.6 -> 0.1"


def test_where_data_lie_and_how_many_workers_read_them_changes_no_number(tmp_path: Path) -> None:
    one = fingerprint(step(tmp_path))
    assert why_stale(one, fingerprint(step(tmp_path, **{"data.num_workers": 3, "trainer.logger": False}))) == ""


def test_a_file_added_touched_or_gone_changes_the_data(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    file = tmp_path / "data" / "list.txt"
    file.write_text("a")
    seen = [fingerprint(step(tmp_path))]
    for change in (lambda: os.utime(file, ns=(1, 1)), lambda: file.with_name("b.txt").write_text("b"), file.unlink):
        change()
        look_again()
        seen.append(fingerprint(step(tmp_path)))
        assert why_stale(seen[-2], seen[-1]) == "data: ucf_crime changed"


def test_hidden_files_such_as_locks_are_no_data(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    before = folder_digest(tmp_path)
    (tmp_path / ".lock").write_text("")
    look_again()
    assert folder_digest(tmp_path) == before
    assert folder_digest(tmp_path / "none") == "nothing there"


def test_other_weights_under_the_same_name_are_seen(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"one")
    values = {"model.weights": str(weights)}
    before = fingerprint(step(tmp_path, **values))
    weights.write_bytes(b"three")
    assert why_stale(before, fingerprint(step(tmp_path, **values))) == "weights: model.weights changed"


def test_code_is_what_the_system_and_the_dataset_import_and_no_other_system() -> None:
    ranker, probe = code_of("MilRanker", "UcfCrime"), code_of("HiProbe", "UcfCrime")
    shared = {"cli.py", "lightning_cli.py", "callbacks/evaluator.py", "vigil/curves.py", "datamodules/ucf_crime.py"}
    assert shared <= ranker.keys() & probe.keys()
    assert "lightning_modules/mil_ranker.py" in ranker.keys() - probe.keys()
    assert {"lightning_modules/hiprobe.py", "vigil/saliency.py", "vigil/mllm.py"} <= probe.keys() - ranker.keys()
    assert not ranker.keys() & {"vigil/runner.py", "vigil/leaderboard.py", "benchmark.py", "datamodules/uca.py"}


def test_a_change_of_code_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(step(tmp_path))
    real = staleness._read

    def edited(file: Path) -> str:
        return real(file) + ("# edited" if file.name in ("mil.py", "hiprobe.py") else "")

    code_of.cache_clear()
    monkeypatch.setattr(staleness, "_read", edited)
    assert why_stale(before, fingerprint(step(tmp_path))) == "code: vigil/mil.py changed"
    code_of.cache_clear()


def test_a_class_of_ones_own_is_followed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text("from datamodules.video_data import VideoDataModule\n")
    found = code_of("MilRanker", "shop.Shop")
    assert os.path.relpath(tmp_path / "shop.py", ROOT) in found
    assert "datamodules/video_data.py" in found


def test_many_differences_are_counted(tmp_path: Path) -> None:
    values = {f"model.x{number}": number for number in range(6)}
    before, after = fingerprint(step(tmp_path)), fingerprint(step(tmp_path, **values))
    assert why_stale(before, after).endswith("model.x2 unset -> 2, 3 more")


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [("OpenGVLab/InternVL3-8B-hf", 16), ("Qwen/Qwen2.5-VL-7B-Instruct", 14), ("a/b-0.5B", 1),
     ("llava-hf/llava-onevision-qwen2-7b-ov-hf", 14), ("openai/clip-vit-base-patch16", None)],
)  # fmt: skip
def test_the_size_of_a_download_is_read_off_the_name_or_not_told(name: str, gigabytes: float | None) -> None:
    assert download_gb(name) == gigabytes


def test_weights_that_are_neither_here_nor_in_the_cache_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    wanted = {"model.backbone": "OpenGVLab/InternVL3-8B-hf"}
    assert list(missing_weights(wanted).values()) == [
        "weights OpenGVLab/InternVL3-8B-hf, about 16 GB: fetched from the hub at the first run, or give "
        "model.backbone a folder"
    ]
    (tmp_path / "models--OpenGVLab--InternVL3-8B-hf" / "snapshots" / "abc").mkdir(parents=True)
    assert missing_weights(wanted) == {}
    assert missing_weights({"model.backbone": "weights/demo_mllm"}) == {}
    assert "deit_small" in missing_weights({"model.encoder": "deit_small", "model.weights": "pretrained"})


def test_a_checkpoint_of_another_cell_is_known_by_its_file_and_what_its_fit_was_run_with(tmp_path: Path) -> None:
    ranker = step(tmp_path)
    cell = Cell("b", "mil_ranker", None, ["ucf_crime"], fits={"model.ranker": ranker.cell})
    user = Step(cell, 0, "test", "ucf_crime", ranker.place)
    seen = [fingerprint(user)["weights"]["model.ranker"]]
    checkpoint = ranker.folder / "last.ckpt"
    for content, dropout in (("one", 0.1), ("one, longer", 0.1), ("one, longer", 0.2)):
        found = fingerprint(step(tmp_path, **{"model.dropout": dropout}))
        write_record(ranker.record, {"state": "done", "result": "last.ckpt", "fingerprint": found})
        checkpoint.write_text(content)
        os.utime(checkpoint, ns=(1, 1))
        seen.append(fingerprint(user)["weights"]["model.ranker"])
    assert seen[0] == "not fitted"
    assert len(set(seen)) == 4
    assert fingerprint(user)["weights"]["model.ranker"] == seen[-1]
