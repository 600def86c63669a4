"""The runner: real commands as processes; failing, killed, gone on with, side by side on claimed GPUs."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmark import main, opened, parse
from tests.tiny_videos import write_tiny_video
from tests.worlds import ROOT, write_feature_world
from vigil.cells import Place, read_benchmark, steps_of
from vigil.records import commands_of, plan
from vigil.runner import alone, explained, last_lines

RANKER = {"model.encoder": None, "model.feature_width": 16, "model.batch_size": 4, "model.hidden": [32, 8]}
TIMES = {
    "wall_s",
    "fit_s",
    "test_s",
    "finished",
    "frames_per_second",
    "peak_memory_mb",
    "folder",
    "command",
    "code_hash",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_feature_world(root)
    return root


def write_file(file: Path, world: Path, cells: list[dict[str, Any]], **more: Any) -> Path:
    data = {"data.root": str(world), "data.features": str(world / "features"), "data.num_workers": 0}
    values = {**data, "data.validation_fraction": 0.2, **RANKER, "trainer.max_epochs": 2}
    every = {"system": "mil_ranker", "fit": "ucf_crime", "test": ["ucf_crime"], "set": values}
    file.write_text(yaml.safe_dump({"every": every, "cells": cells, "controls": False, **more}))
    return file


def records(out: Path) -> dict[str, dict[str, Any]]:
    """{cell/step: record} of everything that ran."""
    files = sorted(out.glob("cells/*/seed_*/*.json"))
    return {f"{file.parent.parent.name}/{file.stem}": json.loads(file.read_text()) for file in files}


def numbers(out: Path) -> list[dict[str, str]]:
    """measured.csv without what no two runs share."""
    with (out / "measured.csv").open() as stream:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(stream)]


def states(file: Path, out: Path, pool: int = 0) -> dict[str, tuple[str, str]]:
    found = plan(read_benchmark(file).cells, Place(out), pool)
    return {f"{one.step.cell.slug}/{one.step.name}": (one.state, one.why) for chain in found for one in chain}


@pytest.fixture(scope="module")
def done(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """A run with cells that fail in the ways that cells do, and one that does not: file, folder, what was said."""
    folder = tmp_path_factory.mktemp("done")
    out = folder / "out"
    cells = [
        {"name": "not a number", "set": {"model.learning_rate": 1e30, "trainer.max_epochs": 20}},
        {"name": "no memory", "set": {"model.hidden": [10**14, 8]}},
        {"name": "no weights", "system": "prompting", "fit": None, "set": {"model.backbone": str(folder / "nowhere")}},
        {"name": "no data", "set": {"data.root": str(folder / "empty")}},
        {"name": "later", "system": "later", "fit": "pseudo_anomaly"},
        {"name": "good", "seeds": [0, 1], "test": ["xd_violence", "ucf_crime"]},  # the first finds no lists of its own
    ]
    file = write_file(folder / "a.yaml", world, cells)
    for cell, keys in (("no weights", RANKER),):  # prompting has no such options
        content = yaml.safe_load(file.read_text())
        for key in (*keys, "trainer.max_epochs", "data.features"):
            content["every"]["set"].pop(key)
        for one in content["cells"]:
            extra = {**RANKER, "trainer.max_epochs": 2, "data.features": str(world / "features")}
            one["set"] = ({} if one["name"] == cell else extra) | one.get("set", {})
    file.write_text(yaml.safe_dump(content))
    command = [sys.executable, str(ROOT / "benchmark.py"), "run", str(file), "--out", str(out), "--jobs", "2"]
    said = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, timeout=600)
    assert said.returncode == 1, said.stderr
    return file, out, said.stdout


def test_a_failed_cell_is_recorded_with_its_last_words_and_the_others_go_on(done: tuple[Path, Path, str]) -> None:
    _, out, said = done
    found = records(out)
    assert found["not_a_number/fit"]["state"] == "failed"
    assert "error: the loss is nan at step" in found["not_a_number/fit"]["error"]
    assert "Lower the learning rate" in found["not_a_number/fit"]["error"]
    assert found["no_memory/fit"]["state"] == "failed"
    assert "memory" in found["no_memory/fit"]["error"]
    assert "nowhere: no such folder" in found["no_weights/test_ucf_crime"]["error"]
    assert [found[f"good/{step}"]["state"] for step in ("fit", "test_ucf_crime")] == ["done", "done"]
    assert found["good/test_xd_violence"]["state"] == "failed"  # and held no other test up
    table = (out / "leaderboard.md").read_text()
    assert table in said
    for text in ("the loss is nan", "no such folder", "no data", "not there yet", "memory"):
        assert text in table


def test_what_is_missing_is_not_tried_and_how_to_get_it_is_told(done: tuple[Path, Path, str]) -> None:
    file, out, _ = done
    found = states(file, out)
    assert found["no_data/fit"][0] == "missing"
    assert "get ucf_crime from its authors" in found["no_data/fit"][1]
    assert found["later/fit"][0] == "not there yet"
    assert not (out / "cells" / "no_data").exists()


def test_every_number_of_a_run_is_in_measured_csv_and_can_be_verified(
    done: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    file, out, _ = done
    with (out / "measured.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    good = [row for row in rows if row["cell"] == "good"]
    assert [row["seed"] for row in good] == ["0", "1"]
    assert {row["cell"] for row in rows if row["kind"] == "control"} == {
        "random", "constant", "temporal centre", "video label oracle",
    }  # fmt: skip
    for row in good:
        facts = json.loads((out / row["folder"] / "metrics.json").read_text())
        assert float(row["frame_auroc"]) == facts["metrics"]["frame_auroc"]
        assert all(row[key] for key in ("commit", "versions", "machine", "data_hash", "code_hash"))
        assert float(row["wall_s"]) > 1
        assert row["command"].startswith("lightning fit -c ")
        assert " && lightning test -c " in row["command"]
    assert main(["verify", str(file), "--out", str(out)]) == 0
    assert f"{len(rows)} rows, 0 differences" in capsys.readouterr().out
    text = (out / "measured.csv").read_text()
    changed = text.replace(good[0]["frame_auroc"], "0.123456")
    other = out / "other.csv"
    other.write_text(changed)
    assert main(["verify", str(other)]) == 1
    assert "good, ucf_crime, seed 0: frame_auroc is 0.123456" in capsys.readouterr().out


def test_what_is_done_stays_done_and_a_change_makes_it_stale_by_name(done: tuple[Path, Path, str]) -> None:
    file, out, _ = done
    assert [states(file, out)[f"good/{step}"][0] for step in ("fit", "test ucf_crime")] == ["done", "done"]
    content = yaml.safe_load(file.read_text())
    for cell in content["cells"]:
        cell["set"] |= {"model.dropout": 0.1} if cell["name"] == "good" else {}
    other = file.with_name("other.yaml")
    other.write_text(yaml.safe_dump(content))
    found = states(other, out)
    assert found["good/fit"] == ("stale", "config: model.dropout 0.6 -> 0.1")
    assert found["good/test ucf_crime"][0] == "stale"


def test_a_test_of_another_fit_and_a_result_that_is_gone_are_stale(done: tuple[Path, Path, str]) -> None:
    file, out, _ = done
    record = out / "cells" / "good" / "seed_1" / "fit.json"
    before = record.read_text()
    try:
        record.write_text(json.dumps(json.loads(before) | {"finished": "another time"}))
        chains = plan([cell for cell in read_benchmark(file).cells if cell.name == "good"], Place(out), 0)
        assert [one.why for one in chains[1]][::2] == ["", "its fit is not the one that was tested"]
        record.write_text(json.dumps(json.loads(before) | {"result": "gone.ckpt"}))
        chains = plan([cell for cell in read_benchmark(file).cells if cell.name == "good"], Place(out), 0)
        assert chains[1][0].state == "stale"
        assert chains[1][0].why.endswith("gone.ckpt is gone")
        assert chains[1][2].why == "its fit is stale"
    finally:
        record.write_text(before)


def test_a_runner_killed_three_times_ends_with_the_table_of_an_undisturbed_one(world: Path, tmp_path: Path) -> None:
    cells = [{"name": "one", "set": {"trainer.max_epochs": 60}}, {"name": "two", "set": {"model.dropout": 0.1}}]
    file = write_file(tmp_path / "a.yaml", world, cells)

    def command(out: str) -> list[str]:
        return [sys.executable, str(ROOT / "benchmark.py"), "run", str(file), "--out", str(tmp_path / out)]

    whole = subprocess.run(command("whole"), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    moments = random.Random(time.time_ns())
    seconds = []
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        process = subprocess.Popen(
            command("killed"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 -- no thread is here
        )  # fmt: skip
        seconds.append(moments.uniform(1, 14))
        time.sleep(seconds[-1])
        process.send_signal(number)
        said, _ = process.communicate(timeout=120)
        assert process.returncode in (-number, 130, 0), (seconds, said)
    last = subprocess.run(command("killed"), capture_output=True, text=True, check=False, cwd=tmp_path)
    assert last.returncode == 0, (seconds, last.stdout + last.stderr)
    pairs = zip(numbers(tmp_path / "killed"), numbers(tmp_path / "whole"), strict=True)
    differ = [(key, ours[key], theirs[key]) for ours, theirs in pairs for key in ours if ours[key] != theirs[key]]
    assert not differ, seconds
    logs = [path.read_text() for path in (tmp_path / "killed").glob("cells/*/seed_0/log.txt")]
    assert all(log.count("$ lightning fit") >= 1 for log in logs)


def test_eight_cells_share_two_gpus_and_two_processes_of_one_cell_claim_both(tmp_path: Path) -> None:
    for number in range(4):
        kind = "Abuse" if number % 2 else "Normal_Videos_"
        write_tiny_video(tmp_path / "data" / f"{kind}{number:03d}_x264.mp4", 40, number)
    names = [f"Abuse{number:03d}_x264" for number in (1, 3)] + [f"Normal_Videos_{n:03d}_x264" for n in (0, 2)]
    (tmp_path / "data" / "Anomaly_Test.txt").write_text("".join(f"x/{name}.mp4\n" for name in names))
    lines = [f"{n}.mp4  {'Abuse  5  20' if n[0] == 'A' else 'Normal  -1  -1'}  -1  -1  " for n in names]
    (tmp_path / "data" / "Temporal_Anomaly_Annotation.txt").write_text("\n".join(lines) + "\n")
    on_cpu = {"trainer.accelerator": "cpu", "trainer.precision": "32-true", "data.root": str(tmp_path / "data")}
    two = {"trainer.devices": 2, "trainer.precision": "bf16-mixed"}
    every = {"system": "frame_difference", "fit": None, "test": ["ucf_crime"], "machine": "one_gpu"}
    cells: list[dict[str, Any]] = [{"name": f"cell {n}", "set": {"model.window_batch": n}} for n in range(1, 8)]
    cells.insert(3, {"name": "both", "machine": "ddp", "set": two})
    content = {"every": {**every, "set": {**on_cpu, "data.num_workers": 0}}, "cells": cells, "controls": False}
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump(content))
    out = tmp_path / "out"
    assert {state for state, _ in states(file, out, pool=0).values()} == {"missing"}
    assert main(["run", str(file), "--out", str(out), "--gpus", "4,7"]) == 0
    found = records(out)
    assert len(found) == 8
    spans = {}
    for name, record in found.items():
        start, end = (datetime.fromisoformat(record[key]).timestamp() for key in ("started", "finished"))
        spans[name] = (start, end, set(record["gpus"]))
        assert len(record["gpus"]) == (2 if name.startswith("both") else 1)
    together = 0
    for name, (start, end, gpus) in spans.items():
        for other, (begin, finish, theirs) in spans.items():
            if name < other and start < finish and begin < end:
                together += 1
                assert not gpus & theirs, (name, other)
    assert together >= 3  # pairs of cells that ran side by side
    rows = numbers(out)
    assert len({row["frame_auroc"] for row in rows if row["kind"] == "system"}) == 1  # batches change no score


def test_two_processes_in_bf16_run_beside_one(world: Path, tmp_path: Path) -> None:
    on_cpu = {"trainer.accelerator": "cpu"}
    two = {"name": "two", "machine": "ddp", "set": {**on_cpu, "trainer.devices": 2}}
    one = {"name": "one", "machine": "one_gpu", "set": {**on_cpu, "trainer.precision": "32-true"}}
    file = write_file(tmp_path / "a.yaml", world, [two, one])
    out = tmp_path / "out"
    assert main(["run", str(file), "--out", str(out), "--gpus", "0,1,2"]) == 0
    found = records(out)
    assert (found["two/fit"]["gpus"], found["one/fit"]["gpus"]) == (["0", "1"], ["2"])
    assert found["one/fit"]["started"] < found["two/fit"]["finished"]
    assert found["two/fit"]["started"] < found["one/fit"]["finished"]
    log = (out / "cells" / "two" / "seed_0" / "log.txt").read_text()
    assert "GLOBAL_RANK: 1, MEMBER: 2/2" in log
    assert "bf16" in json.dumps(json.loads(next(out.glob("cells/two/**/metrics.json")).read_text())["protocol"])


def test_jobs_of_submitit_do_as_processes_do(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vigil.launchers import Slurm
    from vigil.results import keep_result
    from vigil.runner import Runner

    monkeypatch.chdir(tmp_path)
    file = write_file(tmp_path / "a.yaml", world, [{"name": "one"}])
    place = Place(tmp_path / "out")
    chains = plan(read_benchmark(file).cells, place, None)
    launcher = Slurm(tmp_path / "jobs", {}, cluster="local")
    assert Runner(chains, launcher, [], 1, lambda step: keep_result("a", step)).run() == 0
    found = records(tmp_path / "out")
    assert {name: record["state"] for name, record in found.items()} == {
        "one/fit": "done", "one/test_ucf_crime": "done",
    }  # fmt: skip
    assert all(record["job"].startswith("job ") for record in found.values())
    assert "AUROC" in (tmp_path / "out/cells/one/seed_0/log.txt").read_text().upper()


@pytest.fixture(scope="module")
def taken(world: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    """A run of cells that take one another's checkpoints, one of whose fits fails: file, folder, status."""
    folder = tmp_path_factory.mktemp("taken")
    cells: list[dict[str, Any]] = [
        {"name": "user", "checkpoints": {"model.start_from": "base", "model.weights": "base"}},
        {"name": "of broken", "checkpoints": {"model.start_from": "broken"}},
        {"name": "broken", "test": [], "set": {"model.hidden": [10**14, 8]}},
        {"name": "base", "test": []},
    ]
    file, out = write_file(folder / "a.yaml", world, cells), folder / "out"
    return file, out, main(["run", str(file), "--out", str(out), "--jobs", "2"])


def test_a_cell_waits_for_the_fit_whose_checkpoint_it_takes(taken: tuple[Path, Path, int]) -> None:
    file, out, _ = taken
    found = records(out)
    assert {name: record["state"] for name, record in found.items()} == {
        "base/fit": "done", "broken/fit": "failed", "user/fit": "done", "user/test_ucf_crime": "done",
    }  # fmt: skip
    assert found["base/fit"]["finished"] < found["user/fit"]["started"]
    assert found["broken/fit"]["started"] < found["base/fit"]["finished"]  # others go on beside one that waits
    checkpoint = str(out / "cells" / "base" / "seed_0" / found["base/fit"]["result"])
    fit, test = (found[f"user/{name}"]["command"] for name in ("fit", "test_ucf_crime"))
    assert fit[-4:] == ["--model.start_from", checkpoint, "--model.weights", checkpoint]
    assert test[-4:-2] == ["--ckpt_path", str(out / "cells" / "user" / "seed_0" / found["user/fit"]["result"])]
    assert test[-2:] == ["--model.weights", checkpoint]  # what it began with is in its own checkpoint
    (cell,) = [cell for cell in read_benchmark(file).cells if cell.name == "user"]
    tested = next(steps_of(cell, Place(out)))[-1]
    assert commands_of(tested) == [found["base/fit"]["command"], fit, test]


def test_a_cell_whose_checkpoint_failed_is_not_run_and_says_so(taken: tuple[Path, Path, int]) -> None:
    file, out, status = taken
    assert status == 1
    assert states(file, out)["of_broken/fit"] == ("not run", "waits for the fit of broken (failed)")
    assert "of broken on test ucf_crime, seed 0: not run: waits for the fit" in (out / "leaderboard.md").read_text()
    assert not (out / "cells" / "of_broken").exists()


def test_a_stale_fit_makes_those_stale_that_take_its_checkpoint(taken: tuple[Path, Path, int], tmp_path: Path) -> None:
    file, out, _ = taken
    assert [state for state, _ in states(file, out).values()].count("done") == 3
    content = yaml.safe_load(file.read_text())
    content["cells"][-1]["set"] = {"model.dropout": 0.1}
    other = tmp_path / "a.yaml"
    other.write_text(yaml.safe_dump(content))
    found = states(other, out)
    assert found["user/fit"] == ("stale", "waits for the fit of base (stale)")
    assert found["user/test ucf_crime"][0] == "stale"
    checkpoint = out / "cells" / "base" / "seed_0" / records(out)["base/fit"]["result"]
    before = checkpoint.stat()
    try:
        os.utime(checkpoint, ns=(1, 1))  # fitted again
        found = states(file, out)
        assert found["base/fit"][0] == "done"
        assert found["user/fit"] == ("stale", "weights: model.start_from changed, model.weights changed")
        assert found["user/test ucf_crime"] == ("stale", "weights: model.weights changed")
    finally:
        os.utime(checkpoint, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_cell_alone_brings_the_fits_with_it_that_it_needs(taken: tuple[Path, Path, int]) -> None:
    file, out, _ = taken
    found, place = opened(parse(["plan", str(file), "--out", str(out), "--only", "user", "--tests", "ucf_crime"]))
    steps = [one.step for chain in plan(found.cells, place, 0) for one in chain]
    names = [f"{step.cell.name}: {step.name}" for step in steps]
    assert names == ["user: fit", "user: test ucf_crime", "base: fit"]


def test_two_runners_do_not_share_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(ValueError, match="another runner is at work in this folder"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def test_the_last_words_are_the_error_or_else_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("old error\nerror: old\n")
    start = os.path.getsize(log)
    with log.open("a") as stream:
        stream.write("".join(f"line {number}\n" for number in range(20)))
    assert last_lines(log, start).splitlines() == [f"line {number}" for number in range(15, 20)]
    with log.open("a") as stream:
        stream.write("error: no\nmore of it\n")
    assert last_lines(log, start) == "error: no\nmore of it"
    assert explained(-9, "x").startswith("killed (signal 9), as the kernel does when memory runs out")
    assert explained(-15, "x").startswith("ended by signal 15")
    assert explained(3, "") == "exit status 3, and it said nothing"
