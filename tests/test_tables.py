"""What a benchmark's folder and results/ hold: rows of what is done, tables, and the README's among them."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.finished_tests import made
from tests.test_results import step_of
from tests.worlds import ROOT
from vigil import tables
from vigil.cells import Cell, Place, Step
from vigil.records import DONE, FAILED, MISSING, NOT_RUN, NOT_THERE, Planned
from vigil.results import collect, controls_of, differences, keep_result, write_controls
from vigil.stored import read_truth
from vigil.submission import judge_submission

README = "# A\n\n<!-- leaderboard: demo -->\nold\n<!-- end of leaderboard -->\n\nmore\n"


@pytest.fixture
def done(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Step:
    """A finished test with its row and controls, in the folder of a benchmark."""
    step = step_of(made(tmp_path_factory, "plain"), tmp_path / "out", "mil_ranker")
    metrics = step.folder / "run" / "metrics.json"
    facts = json.loads(metrics.read_text())
    metrics.write_text(json.dumps({**facts, "provenance": {**facts["provenance"], "dirty": False}}))
    keep_result("demo", step)
    out = tmp_path / "out"
    (row,) = collect(out, [step.folder / "run"])
    for folder in controls_of(row, step.folder / "run", out / "controls"):
        clean(folder / "row.json")
    return step


def clean(file: Path) -> None:
    """Say that a row was made by code that a commit holds."""
    (row,) = json.loads(file.read_text())
    file.write_text(json.dumps([{**row, "dirty": False}]))


def planned(step: Step, state: str = DONE, why: str = "") -> Planned:
    return Planned(step, state, why)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of its own, with a README and results/."""
    root = tmp_path / "project"
    (root / "results").mkdir(parents=True)
    shutil.copy(ROOT / "results" / "claims.csv", root / "results")
    (root / "README.md").write_text(README)
    monkeypatch.setattr(tables, "ROOT", root)
    monkeypatch.setattr(tables, "README", root / "README.md")
    monkeypatch.setattr(tables, "CLAIMS", root / "results" / "claims.csv")
    return root


def read(file: Path) -> list[dict[str, Any]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_rows_are_those_of_finished_tests_with_their_controls_and_of_scores_from_elsewhere(done: Step) -> None:
    out = done.place.out
    rows = tables.rows_of(out, [[planned(done)]])
    assert [row["kind"] for row in rows] == ["system", *["control"] * 4]
    judge_submission("demo", out, rows, out / rows[0]["folder"] / "scores.csv", "Theirs", None)
    again = tables.rows_of(out, [[planned(done)]])
    assert [row["cell"] for row in again if row["kind"] == "submitted"] == ["Theirs"]
    assert len(again) == len(rows) + 1


@pytest.mark.parametrize("state", [NOT_RUN, FAILED, "stale", "running"])
def test_of_what_is_not_done_neither_a_row_nor_its_controls_are_shown(done: Step, state: str) -> None:
    assert tables.rows_of(done.place.out, [[planned(done, state)]]) == []


def test_controls_of_another_protocol_are_left_out(done: Step) -> None:
    out = done.place.out
    (row,) = collect(out, [done.folder / "run"])
    judged = {**row["protocol"]["judged"], "leaked": 1}
    videos = read_truth(done.folder / "run" / "truth.csv")
    write_controls({**row, "protocol": {**row["protocol"], "judged": judged}}, videos, out / "controls")
    assert len(list(out.glob("controls/*/*/row.json"))) == 8
    assert len(tables.rows_of(out, [[planned(done)]])) == 1 + 4


def test_what_is_unfinished_is_tests_and_fits_that_failed_or_cannot_run(tmp_path: Path) -> None:
    cell = Cell("a", "mil_ranker", "ucf_crime", ["ucf_crime", "xd_violence"], seeds=[0, 1])
    steps = [
        Step(cell, 1, verb, name, Place(tmp_path)) for verb, name in (("fit", "ucf_crime"), ("test", "xd_violence"))
    ]
    for state, expected in ((NOT_RUN, ["test xd_violence"]), (DONE, []), (NOT_THERE, ["test xd_violence"])):
        found = tables.unfinished([[planned(step, state, "because") for step in steps]])
        assert [one["test"] for one in found] == expected
    for state in (FAILED, MISSING):
        found = tables.unfinished([[planned(step, state, "because\nof this") for step in steps]])
        assert found[0] == {"cell": "a", "test": "fit", "seed": 1, "state": state, "why": "because\nof this"}
        assert [one["test"] for one in found] == ["fit", "test xd_violence"]


def test_the_tables_of_a_benchmark_are_written_beside_its_numbers(done: Step) -> None:
    out = done.place.out
    other = Step(Cell("another", "mil_ranker", None, ["ucf_crime"]), 0, "test", "ucf_crime", done.place)
    chains = [[planned(done)], [planned(other, FAILED, "the loss is nan at step 3")]]
    text = tables.write_tables(done.place, chains, chains)
    assert (out / "leaderboard.md").read_text() == text
    assert "a cell" in text
    assert "the loss is nan at step 3" in text
    rows = read(out / "measured.csv")
    assert [row["cell"] for row in rows] == [*("a cell", "random", "constant", "temporal centre", "video label oracle")]
    assert [differences(row, out) for row in rows] == [[]] * 5
    assert read(out / "leaderboard.csv")
    assert (out / "leaderboard.html").read_text().lstrip().lower().startswith("<!doctype html>")


def test_a_published_benchmark_can_be_verified_from_results_alone(done: Step, project: Path) -> None:
    out, results = done.place.out, project / "results"
    tables.write_tables(done.place, [[planned(done)]], [])
    tables.publish("demo", out, [[planned(done)]])
    shutil.rmtree(out)
    rows = read(results / "measured.csv")
    assert len(rows) == 5
    for row in rows:
        assert row["folder"].startswith("stored/demo/")
        assert (results / row["folder"] / "scores.csv").is_file()
        assert differences(row, results) == []
    files = {file.name for file in results.rglob("*") if file.is_file()} - {"measured.csv", "claims.csv"}
    assert files == {"truth.csv", "scores.csv", "metrics.json", "details.json", "row.json"}  # no checkpoint, no picture
    assert tables.readme_differs() == []
    readme = (project / "README.md").read_text()
    assert readme.startswith("# A\n\n<!-- leaderboard: demo -->\n")
    assert readme.endswith("<!-- end of leaderboard -->\n\nmore\n")
    assert "old" not in readme.splitlines()
    assert "a cell" in readme


def test_publishing_again_replaces_a_tables_own_rows_and_no_others(done: Step, project: Path) -> None:
    out, results = done.place.out, project / "results"
    tables.write_tables(done.place, [[planned(done)]], [])
    tables.publish("demo", out, [[planned(done)]])
    first = read(results / "measured.csv")
    other = [{**row, "table": "other"} for row in read(out / "measured.csv")]
    shutil.copytree(out, out.with_name("second"))
    tables.write_measured(out.with_name("second") / "measured.csv", other[:1])
    tables.publish("other", out.with_name("second"), [[planned(done)]])
    assert [row["table"] for row in read(results / "measured.csv")] == ["demo"] * 5 + ["other"]
    tables.publish("demo", out, [[planned(done)]])
    rows = read(results / "measured.csv")
    assert sorted(row["table"] for row in rows) == ["demo"] * 5 + ["other"]
    assert [row for row in rows if row["table"] == "demo"] == first
    assert [differences(row, results) for row in rows] == [[]] * 6


def test_code_that_no_commit_holds_is_not_published(done: Step, project: Path) -> None:
    row_file = done.folder / "run" / "row.json"
    (row,) = json.loads(row_file.read_text())
    row_file.write_text(json.dumps([{**row, "dirty": True}]))
    tables.write_tables(done.place, [[planned(done)]], [])
    with pytest.raises(ValueError, match="rows of code, configs or weights that no commit holds; commit them, delete "):
        tables.publish("demo", done.place.out, [[planned(done)]])
    assert sorted(file.name for file in (project / "results").iterdir()) == ["claims.csv"]
    assert (project / "README.md").read_text() == README


@pytest.mark.parametrize("state", [NOT_RUN, FAILED, "stale", MISSING])
def test_a_benchmark_with_a_step_that_has_no_result_is_not_published(done: Step, project: Path, state: str) -> None:
    tables.write_tables(done.place, [[planned(done)]], [])
    other = Step(Cell("another", "mil_ranker", None, ["ucf_crime"]), 0, "test", "ucf_crime", done.place)
    with pytest.raises(ValueError, match=f"1 steps have no result to publish, as another, test ucf_crime: {state} why"):
        tables.publish("demo", done.place.out, [[planned(done)], [planned(other, state, "why")]])
    tables.publish("demo", done.place.out, [[planned(done)], [planned(other, NOT_THERE, "why")]])


def test_a_readme_whose_table_is_not_that_of_the_results_is_told(done: Step, project: Path) -> None:
    tables.write_tables(done.place, [[planned(done)]], [])
    tables.publish("demo", done.place.out, [[planned(done)]])
    readme = project / "README.md"
    text = readme.read_text()
    readme.write_text(text.replace("a cell", "a better cell", 1))
    (told,) = tables.readme_differs()
    assert told.startswith(
        "README.md: the table demo is not the one that results/measured.csv gives; `report FILE --pub"
    )
    readme.write_text("# A\n")
    assert tables.readme_differs() == [
        "README.md has no table: a line `<!-- leaderboard: NAME -->` and one `<!-- end of leaderboard -->`"
    ]
    readme.write_text(text)
    measured = project / "results" / "measured.csv"
    value = read(measured)[0]["frame_auroc"]
    measured.write_text(measured.read_text().replace(value, "0.123456", 1))
    assert len(tables.readme_differs()) == 1


UCA: dict[str, Any] = {"dataset": "UCA", "demo": 1, "table": "demo", "system": "prompting", "kind": "system"}
SAID = "video,first_frame,end_frame,caption,reference,similarity\nAbuse001_x264,30,90,{},A man falls.,0.25\n"


def described(out: Path, cell: str, caption: str, seed: int = 0, **judged: Any) -> Planned:
    """A finished test on UCA's captions, of one event."""
    step = Step(Cell(cell, "prompting", None, ["uca"]), seed, "test", "uca", Place(out))
    protocol = {"judged": {"dataset": "Uca", "task": "captions", "videos": 1, **judged}, "stated": {}}
    row = {**UCA, "cell": cell, "fit": "", "test": "uca", "seed": seed, "supervision": "zero-shot", "claim": ""}
    row |= {"main_metric": "caption_sbert", "caption_sbert": 0.25, "caption_sbert_low": 0.125}
    row |= {"caption_sbert_high": 0.5, "caption_distinct2": 1.0, "caption_template": 0.75}
    folder = step.folder / "run"
    folder.mkdir(parents=True)
    (folder / "row.json").write_text(json.dumps([{**row, "protocol": protocol, "command": "lightning test"}]))
    (folder / "captions.csv").write_text(SAID.format(caption))
    step.record.write_text(json.dumps({"state": DONE, "result": "run"}))
    return planned(step)


def test_what_systems_say_of_the_same_events_stands_beside_one_another(tmp_path: Path) -> None:
    chains = [[described(tmp_path, "one", "He falls.")], [described(tmp_path, "two", "A door opens.")]]
    chains += [
        [described(tmp_path, "one", "Nothing.", seed=1)],
        [described(tmp_path, "three", "Rain.", text="neutral")],
    ]
    text = tables.write_tables(Place(tmp_path), chains, [])
    assert f"What the systems say of the same events: {tmp_path / 'captions.md'}" in text
    first, second = (tmp_path / "captions.md").read_text().split("### UCA, demo copy\n")[1:]
    assert ("He falls." in first, "A door opens." in first, "Nothing." in first) == (True, True, False)
    assert "A man falls." in first
    assert ("Rain." in first, "Rain." in second) == (False, True)  # another text is another question
    assert "captions.md" not in tables.write_tables(Place(tmp_path), [[planned(chains[0][0].step, FAILED)]], [])
    assert not (tmp_path / "captions.md").exists()


def test_captions_and_the_closed_set_question_are_two_tables_of_uca_with_their_numbers(
    tmp_path: Path, project: Path
) -> None:
    captioned = described(tmp_path, "one", "He falls.").step.folder / "run" / "row.json"
    (row,) = json.loads(captioned.read_text())
    asked = {key: value for key, value in row.items() if not key.startswith("caption_")}
    asked |= {"test": "uca_probe", "main_metric": "top1", "top1": 0.375, "top1_low": 0.25, "top1_high": 0.5}
    asked |= {"top2": 0.5, "top3": 0.75, "top_expansion": 0.375, "class_ece": 0.125, "class_ece_scaled": 0.0625}
    asked["protocol"] = {"judged": {**row["protocol"]["judged"], "task": "probe"}, "stated": {}}
    tables.write_measured(project / "results" / "measured.csv", [{**one, "folder": "stored/a"} for one in (row, asked)])
    (project / "README.md").write_text(README.replace("demo -->", "demo on UCA -->"))
    text = tables._with_tables((project / "README.md").read_text())
    captions, probe = text.split("### UCA")[1:]
    assert "| caption SBERT | caption distinct-2 | most frequent caption template |" in captions
    assert "| 0.250 [0.125, 0.500] | 1.000 | 0.750 |" in captions
    assert "| top-1 | top-2 | top-3 | top-3 less top-1 | class ECE | class ECE at a fitted temperature |" in probe
    assert "| 0.375 [0.250, 0.500] | 0.500 | 0.750 | 0.375 | 0.125 | 0.062 |" in probe
    assert "frame AUROC" not in text
