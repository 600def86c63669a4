"""Rows of results: from a test that a runner made, controls beside it, and the files that give each number again."""

from __future__ import annotations

import base64
import csv
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from datamodules.demo import write_ucf_crime
from tests.finished_tests import CPU, command, facts_of, made
from vigil.annotations import UCF_CRIME_CATEGORIES
from vigil.cells import Cell, Place, Step
from vigil.controls import CONTROLS
from vigil.curves import expand
from vigil.measured import METRIC, read_measured
from vigil.results import collect, controls_of, details, differences, judge, keep_result, write_controls, write_measured
from vigil.stored import read_scores, read_truth, truth_hash

CLAIM = "MIL DeiT-Small ranker"
MEASURED = {"table": "demo", "cell": "a cell", "system": "mil_ranker", "kind": "system", "test": "ucf_crime", "demo": 0}


def row_of(folder: Path, out: Path) -> dict[str, Any]:
    """A row that says what the test in `folder` found."""
    facts = facts_of(folder)
    numbers = {key: value for key, value in facts["metrics"].items() if METRIC.fullmatch(key)}
    return {"cell": "a cell", "test": "ucf_crime", "seed": 0, "folder": folder.relative_to(out).as_posix(), **numbers}


@pytest.fixture
def finished(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A copy of what a test left, with refined and gated numbers, and its row."""
    folder = shutil.copytree(made(tmp_path_factory, "refined"), tmp_path / "run")
    return folder, row_of(folder, tmp_path)


# what the files of a run give again


@pytest.mark.parametrize("name", ["refined", "pixels", "whole", "classes", "vadclip"])
def test_a_row_that_nobody_touched_has_no_differences(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    folder = made(tmp_path_factory, name)
    row = row_of(folder, folder.parent)
    assert len([key for key in row if METRIC.fullmatch(key)]) >= 3
    assert differences(row, folder.parent) == []
    as_text = {key: "" if value is None else str(value) for key, value in row.items()}  # as a CSV gives it
    assert differences({**as_text, "rbdc_refined": ""}, folder.parent) == []


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *(("refined", key) for key in ("frame_auroc", "frame_ap_high_gated", "event_map", "ece", "frame_auroc_unseen")),
        *(("pixels", key) for key in ("pixel_auroc", "rbdc")),
        ("whole", "frame_auroc_sentinels"),
        ("classes", "top2"),
    ],
)
def test_the_one_number_that_was_changed_by_hand_is_named(
    tmp_path_factory: pytest.TempPathFactory, name: str, key: str
) -> None:
    folder = made(tmp_path_factory, name)
    row = row_of(folder, folder.parent)
    for value in (row[key] + 1e-9, str(row[key] + 1e-9), float("nan"), "high"):
        (told,) = differences({**row, key: value}, folder.parent)
        assert told == f"a cell, ucf_crime, seed 0: {key} is {value}, {folder} gives {row[key]!r}"
    assert differences({**row, key: row[key] + 1e-14}, folder.parent) == []  # sums in another order


@pytest.mark.parametrize("file", ["scores.csv", "truth.csv", "metrics.json"])
def test_a_file_that_is_missing_is_named(finished: tuple[Path, dict[str, Any]], file: str) -> None:
    folder, row = finished
    (folder / file).unlink()
    found = differences(row, folder.parent)
    assert found
    if file == "scores.csv":
        numbers = [key for key in row if METRIC.fullmatch(key)]
        assert found == [
            f"a cell, ucf_crime, seed 0: {key} is {row[key]}, and nothing in {folder} gives it" for key in numbers
        ]
    else:
        assert len(found) == 1
        assert str(folder / file) in found[0]


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_truth_that_was_edited_is_named_even_where_the_numbers_were_edited_along(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, row = finished
    with (folder / "truth.csv").open(newline="") as stream:
        events = next(line["anomalies"] for line in csv.DictReader(stream) if line["anomalies"])
    first, end = events.split("-")
    change(folder / "truth.csv", events, f"{first}-{int(end) - 1}")
    (told,) = differences(row, folder.parent)
    known = facts_of(folder)["protocol"]["judged"]["ground_truth"]
    assert told == f"a cell, ucf_crime, seed 0: {folder / 'truth.csv'} is not the truth that it was judged by, {known}"
    change(folder / "truth.csv", f"{first}-{int(end) - 1}", "often")
    (told,) = differences(row, folder.parent)
    assert "truth.csv, line" in told


def test_scores_that_were_edited_give_other_numbers_or_none(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, row = finished
    lines = (folder / "scores.csv").read_text().splitlines()
    name, first, end, _, refined = lines[5].split(",")
    (folder / "scores.csv").write_text("\n".join([*lines[:5], f"{name},{first},{end},0.999999,{refined}", *lines[6:]]))
    keys = [text.split(": ")[1].split(" is ")[0] for text in differences(row, folder.parent)]
    assert "frame_auroc" in keys
    assert not [key for key in keys if key.endswith(("_refined", "_gated"))]
    (folder / "scores.csv").write_text("\n".join([*lines[:5], *lines[6:]]))
    (told,) = differences(row, folder.parent)
    assert "1 of 8 videos have frames without a score" in told


@pytest.mark.parametrize("text", ["{", "{}", '{"protocol": {}}'])
def test_metrics_that_are_not_as_a_test_left_them_are_named(finished: tuple[Path, dict[str, Any]], text: str) -> None:
    folder, row = finished
    (folder / "metrics.json").write_text(text)
    (told,) = differences(row, folder.parent)
    assert told.startswith(f"a cell, ucf_crime, seed 0: {folder / 'metrics.json'} is not as a test left it (")


# rows and details


def step_of(folder: Path, tmp_path: Path, system: str, kind: str = "system") -> Step:
    """A step whose record says that the test in `folder` is its result."""
    cell = Cell("a cell", system, None, ["ucf_crime"], kind=kind, claim=CLAIM)
    step = Step(cell, 0, "test", "ucf_crime", Place(tmp_path))
    step.folder.mkdir(parents=True)
    shutil.copytree(folder, step.folder / "run")
    found = {part: {"a": "b"} for part in ("config", "code", "data", "weights")}
    record = {
        **{"state": "done", "result": "run", "wall_s": 2.5, "finished": "2026-11-22T01:00:00+00:00"},
        **{"fingerprint": found, "command": ["test", "-c", "a b.yaml"], "commit": "c", "dirty": True},
        **{"versions": {"torch": "2"}, "machine": "m"},
    }
    step.record.write_text(json.dumps(record))
    return step


def test_a_finished_test_becomes_a_row_with_details_and_controls_beside_it(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    step = step_of(made(tmp_path_factory, "refined"), tmp_path, "mil_ranker")
    keep_result("demo", step)
    facts = facts_of(step.folder / "run")
    (row,) = collect(tmp_path, [step.folder / "run", tmp_path / "nothing"])
    assert row["folder"] == "cells/a_cell/seed_0/run"
    said = {"table": "demo", "cell": "a cell", "system": "mil_ranker", "kind": "system", "fit": "", "test": "ucf_crime"}
    said |= {"dataset": "UCF-Crime", "demo": 0, "seed": 0, "claim": CLAIM, "supervision": "weakly supervised"}
    said |= {"main_metric": "frame_auroc", "wall_s": 2.5, "test_s": 2.5, "fit_s": None, **facts["provenance"]}
    said |= {"trained_parameters": 817, "protocol": facts["protocol"], "command": "lightning test -c 'a b.yaml'"}
    assert row | said == row
    numbers = {key: value for key, value in facts["metrics"].items() if "/" not in key}
    assert row | numbers == row
    assert not [key for key in row if "/" in key]
    assert differences(row, tmp_path) == []
    folders = controls_of(row, step.folder / "run", tmp_path / "controls")
    controls = collect(tmp_path, folders)
    assert controls_of(row, step.folder / "run", tmp_path / "controls") == folders
    assert {control["system"] for control in controls} == set(CONTROLS)
    for control in controls:
        assert control["kind"] == control["supervision"] == "control"
        assert control["protocol"]["judged"] == row["protocol"]["judged"]
        assert control["main_metric"] == "frame_auroc"
        assert differences(control, tmp_path) == []
    (constant,) = (control for control in controls if control["system"] == "constant")
    assert constant["frame_auroc"] == constant["video_auroc"] == constant["frame_auroc_unseen"] == 0.5
    assert constant["protocol"]["stated"]["score_values"] == 1


def test_details_hold_draws_reliability_classes_and_curves(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    videos = read_truth(folder / "truth.csv")
    curves, refined = read_scores(folder / "scores.csv", videos)
    metrics = facts_of(folder)["metrics"]
    found = json.loads(json.dumps(details(videos, curves, refined, metrics), default=str))
    assert set(found["draws"]) == {"frame_auroc", "frame_ap", "frame_auroc_refined", "frame_ap_refined"}
    for key, text in found["draws"].items():
        drawn = np.frombuffer(base64.b64decode(text), dtype="<f4")
        assert len(drawn) == 1000
        base, _, end = key.partition("_refined")
        low, high = (metrics[f"{base}_{side}{'_refined' * key.endswith('_refined')}"] for side in ("low", "high"))
        assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([low, high], abs=1e-6)
        assert end == ""
    assert sum(found["reliability"]["frames"]) == sum(video.n_frames for video in videos)
    assert found["classes"]["Abuse"] == metrics["frame_auroc/Abuse"]
    for video in videos:
        drawn = found["curves"][video.name]
        assert drawn["edge"][0] == 0
        assert drawn["edge"][-1] == drawn["n_frames"] == video.n_frames
        assert len(drawn["score"]) == len(drawn["refined"]) == len(drawn["edge"]) - 1
        frames = expand(curves[video.name])
        for first, score in zip(drawn["edge"], drawn["score"], strict=False):
            assert score == pytest.approx(frames[first], abs=5e-5)


def draws_by_loop(label: list[np.ndarray], score: list[np.ndarray]) -> list[tuple[float, float]]:
    """The first draws of videos, with replacement, judged by scikit-learn; those without both kinds drawn again."""
    generator = np.random.default_rng(0)
    drawn = [generator.integers(0, len(label), len(label)) for _ in range(1000)]
    found = []
    for chosen in drawn[:20]:
        truth = np.concatenate([label[k] for k in chosen])
        value = np.concatenate([score[k] for k in chosen])
        both = 0 < truth.sum() < len(truth)
        found.append((roc_auc_score(truth, value), average_precision_score(truth, value)) if both else None)
    return found


def test_draws_are_of_whole_videos_and_scikit_learns_areas(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = finished
    videos = sorted(read_truth(folder / "truth.csv"), key=lambda video: video.name)  # the order that is drawn in
    curves, _ = read_scores(folder / "scores.csv", videos)
    label = [np.zeros(video.n_frames, dtype=int) for video in videos]
    for video, own in zip(videos, label, strict=True):
        for first, end in video.anomalies:
            own[first:end] = 1
    expected = draws_by_loop(label, [expand(curves[video.name]) for video in videos])
    found = details(videos, curves, {}, {})["draws"]
    assert set(found) == {"frame_auroc", "frame_ap"}
    for number, key in enumerate(("frame_auroc", "frame_ap")):
        drawn = np.frombuffer(base64.b64decode(found[key]), dtype="<f4")
        pairs = [(drawn[k], areas[number]) for k, areas in enumerate(expected) if areas is not None]
        assert len(pairs) > 10
        for ours, theirs in pairs:
            assert ours == pytest.approx(theirs, abs=1e-6)


def test_a_control_that_scores_pixels_is_two_rows_of_frames_and_of_pixels(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    keep_result("demo", step_of(made(tmp_path_factory, "pixels"), tmp_path, "frame_difference", "control"))
    frames, pixels = collect(tmp_path, [tmp_path / "cells/a_cell/seed_0/run"])
    assert frames["cell"] == "a cell"
    assert pixels["cell"] == "pixel centre prior"
    assert {key for key in pixels if METRIC.fullmatch(key)} == {"pixel_auroc", "pixel_ap", "rbdc", "tbdc"}
    assert {"frame_auroc", "ece"} <= {key for key in frames if METRIC.fullmatch(key)}
    assert "pixel_auroc" not in frames
    assert differences(frames, tmp_path) == differences(pixels, tmp_path) == []


def test_a_test_of_events_has_a_row_and_chance_as_its_control(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    keep_result("demo", step_of(made(tmp_path_factory, "classes"), tmp_path, "tiny_events"))
    (row,) = collect(tmp_path, [tmp_path / "cells/a_cell/seed_0/run"])
    assert {key for key in row if METRIC.fullmatch(key)} == {
        *(f"top{k}{end}" for k in (1, 2, 3) for end in ("", "_low", "_high")),
        *("top_expansion", "class_ece", "class_nll", "class_entropy"),
    }
    assert (row["dataset"], row["main_metric"]) == ("UCA", "top1")
    write_measured(tmp_path / "measured.csv", [{**row, "folder": "run"}])
    assert read_measured(tmp_path / "measured.csv")[0].metrics["top3"] == row["top3"]
    (chance,) = collect(tmp_path, controls_of(row, tmp_path / row["folder"], tmp_path / "controls"))
    n_classes = len(UCF_CRIME_CATEGORIES)
    assert [chance[f"top{k}"] for k in (1, 2, 3)] == pytest.approx([k / n_classes for k in (1, 2, 3)], abs=1e-12)
    assert (chance["kind"], chance["cell"], chance["test"]) == ("control", "chance", row["test"])
    assert chance["class_nll"] == pytest.approx(math.log(n_classes), abs=1e-12)
    assert differences(chance, tmp_path) == []


def test_a_test_of_captions_has_a_row_that_its_files_give_again(tmp_path: Path) -> None:
    write_ucf_crime(tmp_path / "world", size="tiny")
    data = ("--data=Uca", f"--data.root={tmp_path / 'world'}")
    folder = command(tmp_path, "test", *CPU, "--model=tests.test_caption_writer.Telling", *data)
    keep_result("demo", step_of(folder, tmp_path, "tiny_events"))
    (row,) = collect(tmp_path, [tmp_path / "cells/a_cell/seed_0/run"])
    assert {key for key in row if METRIC.fullmatch(key)} == {
        *("caption_sbert", "caption_sbert_low", "caption_sbert_high", "caption_distinct1", "caption_distinct2"),
        "caption_template",
    }
    assert (row["dataset"], row["main_metric"]) == ("UCA", "caption_sbert")
    write_measured(tmp_path / "measured.csv", [row])
    assert read_measured(tmp_path / "measured.csv")[0].metrics["caption_sbert"] == row["caption_sbert"]
    assert differences(row, tmp_path) == []
    file = tmp_path / row["folder"] / "captions.csv"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n")
    assert "caption_sbert is" in differences(row, tmp_path)[0]


def test_controls_are_judged_once_for_each_protocol(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = finished
    videos, protocol = read_truth(folder / "truth.csv"), facts_of(folder)["protocol"]
    like = {**MEASURED, "main_metric": "frame_auroc", "protocol": protocol}
    write_controls(like, videos, tmp_path / "controls")
    files = sorted(tmp_path.glob("controls/*/*/row.json"))
    times = [file.stat().st_mtime_ns for file in files]
    assert len(files) == len(CONTROLS)
    write_controls({**like, "cell": "another"}, videos, tmp_path / "controls")
    assert [file.stat().st_mtime_ns for file in files] == times
    other = {**protocol, "judged": {**protocol["judged"], "leaked": 2}}
    write_controls({**like, "protocol": other}, videos, tmp_path / "controls")
    assert len(list(tmp_path.glob("controls/*/*/row.json"))) == 2 * len(CONTROLS)


def test_measured_csv_gives_every_value_back(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = finished
    videos, protocol = read_truth(folder / "truth.csv"), facts_of(folder)["protocol"]
    curves, refined = read_scores(folder / "scores.csv", videos)
    (tmp_path / "new").mkdir()
    row = judge(tmp_path / "new", videos, curves, refined, protocol["judged"], {"supervision": "weakly supervised"})
    row |= {**MEASURED, "seed": 3, "main_metric": "frame_auroc", "folder": "new", "command": "a, b", "fit": ""}
    row |= {"claim": "", "trained_parameters": 817, "fit_s": None}
    bare = {key: value for key, value in row.items() if not METRIC.fullmatch(key)} | {
        "seed": 4,
        "main_metric": "top1",
        "top1": 1 / 3,
    }
    write_measured(tmp_path / "measured.csv", [row, bare])
    assert not list(tmp_path.glob("*.part"))
    one, two = read_measured(tmp_path / "measured.csv")
    assert one.metrics == {key: value for key, value in row.items() if METRIC.fullmatch(key)}
    assert two.metrics == {"top1": 1 / 3}
    assert one.judged == json.loads(json.dumps(protocol["judged"]))
    assert one.stated["supervision"] == "weakly supervised"
    assert one.cost == {"trained_parameters": 817}
    with (tmp_path / "measured.csv").open(newline="") as stream:
        header, first, _ = csv.reader(stream)
    metrics = [key for key in header if METRIC.fullmatch(key)]
    assert metrics[0] == "frame_auroc"
    assert metrics[-1].startswith("ece")
    assert metrics.index("frame_auroc_low") < metrics.index("frame_ap")
    assert first[header.index("fit_s")] == ""
    with (tmp_path / "measured.csv").open(newline="") as stream:
        for line in csv.DictReader(stream):
            assert [text for text in differences(line, tmp_path) if "top1" not in text] == []


def test_what_is_judged_from_elsewhere_has_the_numbers_of_the_test_whose_scores_they_are(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, row = finished
    videos, facts = read_truth(folder / "truth.csv"), facts_of(folder)
    curves, refined = read_scores(folder / "scores.csv", videos)
    (tmp_path / "new").mkdir()
    again = judge(tmp_path / "new", videos, curves, refined, facts["protocol"]["judged"], {"supervision": "none"})
    numbers = {key: value for key, value in again.items() if METRIC.fullmatch(key)}
    without = {"event_map", "false_alarms_per_hour"}  # of a threshold, which nobody told
    assert numbers == {
        key: value for key, value in row.items() if METRIC.fullmatch(key) and key not in without and "_gated" not in key
    }
    assert truth_hash(read_truth(tmp_path / "new" / "truth.csv")) == facts["protocol"]["judged"]["ground_truth"]
    assert (tmp_path / "new" / "scores.csv").read_text() == (folder / "scores.csv").read_text()


@pytest.mark.parametrize("file", ["row.json", "details.json"])
def test_a_row_is_whole_or_not_there(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, file: str, refuse_writing: Callable[[Path], None]
) -> None:
    step = step_of(made(tmp_path_factory, "plain"), tmp_path, "mil_ranker")
    refuse_writing(step.folder / "run" / file)
    with pytest.raises(OSError, match="directory"):
        keep_result("demo", step)
    assert not (step.folder / "run" / file).is_file()


@pytest.fixture
def refuse_writing() -> Callable[[Path], None]:
    """Have something in the way of the file that is written beside one."""
    return lambda file: file.with_suffix(".part").mkdir()
