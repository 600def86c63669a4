"""The benchmark command: every file's cells are commands, and plan, report, score and verify say what they should."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import cli
from benchmark import main, parse
from tests.worlds import ROOT, write_feature_world
from vigil.cells import Place, read_benchmark, steps_of, there_yet

FILES = sorted((ROOT / "configs" / "benchmarks").glob("*.yaml"))
QUIET = ("runs", "seed_everything", "data.seed", "trainer.enable_", "trainer.logger")


@pytest.mark.parametrize("demo", [False, True], ids=["real", "demo"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_cell_of_every_file_is_a_command_that_can_be_read(
    file: Path, demo: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    found = read_benchmark(file, demo)
    place = Place(Path("runs"), Path("world") if found.demo else None)
    seen = set()
    for cell in (cell for cell in found.cells if there_yet(cell)):
        for step in next(iter(steps_of(cell, place))):
            values = {key: str(value) for key, value in step.settings().items() if not key.startswith(QUIET)}
            taken = [part for option in step.needs() for part in (f"--{option}", "last.ckpt")]
            kinds = (
                step.verb,
                step.dataset,
                *sorted(values),
                *taken,
            )  # the same keys with values of the same type read alike
            if kinds in seen:
                continue
            seen.add(kinds)
            with pytest.raises(SystemExit) as stop:
                cli.main([*step.arguments(), *taken, "--print_config"])
            assert not stop.value.code, (cell.name, capsys.readouterr().err)
            capsys.readouterr()


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file of one cell and its folder, run by the command."""
    folder = tmp_path_factory.mktemp("ran")
    write_feature_world(folder / "world")
    data = {"data.root": str(folder / "world"), "data.features": str(folder / "world" / "features")}
    small = {"model.encoder": None, "model.feature_width": 16, "model.batch_size": 4, "trainer.max_epochs": 3}
    values = {**data, "data.num_workers": 0, "data.validation_fraction": 0.2, **small}
    every = {"system": "mil_ranker", "fit": "ucf_crime", "test": ["ucf_crime"], "set": values}
    cells: list[dict[str, Any]] = [{"name": "Ranker", "claim": "MIL DeiT-Small ranker"}]
    cells.append({"name": "Lavida", "system": "later", "set": {"model.backbone": "OpenGVLab/InternVL3-8B-hf"}})
    file = folder / "small.yaml"
    file.write_text(yaml.safe_dump({"every": every, "cells": cells, "controls": False}))
    command = [sys.executable, str(ROOT / "benchmark.py"), "run", str(file), "--out", str(folder / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return file, folder / "out"


def test_a_run_that_is_over_is_not_run_again(ran: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file, out = ran
    start = time.perf_counter()
    assert main(["run", str(file), "--out", str(out)]) == 0
    assert time.perf_counter() - start < 4
    said = capsys.readouterr().out
    assert "running" not in said
    assert "### UCF-Crime" in said


def test_the_plan_says_what_is_done_missing_and_not_there_yet(
    ran: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = ran
    assert main(["plan", str(file), "--out", str(out)]) == 0
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    told = {(line[0], *[part.strip() for part in line[1:] if part.strip()][1:3]) for line in lines if len(line) > 2}
    assert ("Ranker", "fit", "done") in told
    assert ("Lavida", "test ucf_crime", "not there yet") in told
    other = file.with_name("other.yaml")
    content = yaml.safe_load(file.read_text())
    content["cells"] = [{"name": "Asked", "system": "prompting", "fit": None, "set": {"data.root": "nowhere"}}]
    content["every"]["set"] = {}
    other.write_text(yaml.safe_dump(content))
    assert main(["plan", str(other), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "data: no files in nowhere; get ucf_crime from its authors" in said
    assert "missing: weights OpenGVLab/InternVL3-8B-hf, about 16 GB" in said


def scores(out: Path) -> list[dict[str, str]]:
    (file,) = out.glob("cells/Ranker/seed_0/*/*/test-*/scores.csv")
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_somebody_elses_scores_are_judged_and_join_the_table(
    ran: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, out = ran
    theirs = tmp_path / "theirs.csv"
    rows = [f"{row['video']},{row['first_frame']},{row['end_frame']},{1 - float(row['score'])}" for row in scores(out)]
    theirs.write_text("video,first_frame,end_frame,score\n" + "\n".join(rows) + "\n")
    common = [str(file), "--out", str(out), "--scores", str(theirs)]
    assert main(["score", *common, "--name", "Their detector", "--supervision", "zero-shot"]) == 0
    with (out / "measured.csv").open() as stream:
        measured = {row["cell"]: row for row in csv.DictReader(stream)}
    ours, turned = float(measured["Ranker"]["frame_auroc"]), float(measured["Their detector"]["frame_auroc"])
    assert turned == pytest.approx(1 - ours, abs=1e-12)
    assert measured["Their detector"]["kind"] == "submitted"
    assert "Their detector" in (out / "leaderboard.md").read_text()
    assert main(["verify", str(file), "--out", str(out)]) == 0
    capsys.readouterr()
    theirs.write_text("\n".join(theirs.read_text().splitlines()[:-1]) + "\n")
    assert main(["score", *common, "--name", "Cut off"]) == 1
    assert "theirs.csv" in capsys.readouterr().err
    assert main(["score", *common, "--name", "Cut off", "--test", "uca"]) == 1
    assert "those with a truth to judge by: ucf_crime" in capsys.readouterr().err


def test_a_report_is_markdown_csv_and_a_page(ran: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    file, out = ran
    assert main(["report", str(file), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "MIL DeiT-Small ranker" in said or "86" in said  # the paper's number stands beside ours
    assert "Ranker" in (out / "leaderboard.html").read_text()
    assert "Ranker" in (out / "leaderboard.csv").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["plan", "nowhere.yaml"], "nowhere.yaml: no such file; the benchmarks are in configs/benchmarks/"),
        (["verify", "nowhere.csv"], "nowhere.csv: no such file"),
        (["run", str(FILES[0]), "--jobs", "0"], "--jobs 0: at least 1"),
        (["plan", str(FILES[0]), "--only", "Nobody"], "--only Nobody: the cells are "),
        (["score", str(FILES[0]), "--scores", "a.csv", "--name", "a"], "run the file first"),
    ],
)
def test_a_mistake_on_the_command_line_is_a_line_that_says_what_to_do(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(args) == 1
    assert message in capsys.readouterr().err


def test_no_verb_but_run_needs_torch_or_lightning(ran: tuple[Path, Path], tmp_path: Path) -> None:
    file, out = ran
    theirs = tmp_path / "s.csv"
    theirs.write_text("video,first_frame,end_frame,score\n")
    for verb in ("plan", "report", "verify", "score"):
        more = ["--scores", str(theirs), "--name", "empty"] if verb == "score" else []
        code = (
            "import sys, benchmark; benchmark.main(sys.argv[1:]); "
            "print('loaded', sorted({'torch', 'lightning', 'transformers'} & set(sys.modules)))"
        )
        command = [sys.executable, "-c", code, verb, str(file), "--out", str(out), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        assert "loaded []" in done.stdout, verb


def test_the_command_line_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["run", "--help"])
    assert "--gpus" in capsys.readouterr().out
    assert parse(["report"]).out == Path("runs/benchmark/results")
    assert parse(["plan", "a/b.yaml", "--demo"]).out == Path("runs/benchmark/b-demo")


def test_the_readmes_tables_are_those_of_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--check"]) == 0, capsys.readouterr().out


def test_every_published_row_can_be_judged_again(capsys: pytest.CaptureFixture[str]) -> None:
    measured = ROOT / "results" / "measured.csv"
    assert main(["verify", str(measured)]) == 0, capsys.readouterr().out
    for file in measured.parent.glob("stored/*/*/row.json"):
        assert json.loads(file.read_text())[0]["dirty"] is False
