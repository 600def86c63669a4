"""Measured rows: read, grouped over seeds, put into tables that compare, set against controls and published numbers."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.measured_runs import CONTROLS, UNFINISHED, a_leaderboard, curves, noisy, run, smoothed, videos, write
from vigil.comparison import details_in, draws, paired_draws, verdict
from vigil.judging import against_all
from vigil.leaderboard import markdown, read_claims, read_measured, write_csv
from vigil.measured import Row, Table, entries, tables
from vigil.statistics import Runs, paired
from vigil.wording import cost_of, label, parameters, protocol_value, seconds

CLAIMS = read_claims(ROOT / "results" / "claims.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with measured.csv and the runs' details."""
    found = tmp_path_factory.mktemp("leaderboard")
    a_leaderboard(found)
    return found


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    return read_measured(folder / "measured.csv")


@pytest.fixture(scope="module")
def found(rows: list[Row]) -> list[Table]:
    return tables(rows)


def changed(folder: Path, file: Path, line: int, **said: str) -> Path:
    """measured.csv of the folder with something else said on one line (2 is the first row)."""
    with (folder / "measured.csv").open(newline="") as stream:
        given = list(csv.DictReader(stream))
    given[line - 2] |= said
    return write(file, given)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"kind": "baseline"}, r"line 3: the kind is 'baseline'; expected is one of system, control, submitted"),
        ({"demo": "yes"}, r"line 3: demo is 'yes'; expected is 0 or 1"),
        ({"seed": "1.5"}, r"line 3: the seed is '1\.5'"),
        ({"frame_auroc": "96.43"}, r"line 3: frame_auroc is '96\.43'; expected is a number from 0 to 1 \(fractions"),
        ({"frame_auroc": "nan"}, r"line 3: frame_auroc is 'nan'"),
        ({"frame_ap_low": "-0.1"}, r"line 3: frame_ap_low is '-0\.1'"),
        ({"fit_s": "soon"}, r"line 3: fit_s is 'soon'; expected is a number from 0 up"),
        ({"cell": ""}, r"line 3: no cell"),
        ({"protocol": "{"}, r"line 3: the protocol is no JSON"),
        ({"protocol": '{"judged": {}}'}, r'line 3: the protocol is .*; expected is {"judged"'),
        ({"cell": "random", "system": "random"}, r"line 3: the run of line 2 again \(demo, random"),
    ],
)
def test_a_broken_row_is_refused(folder: Path, tmp_path: Path, said: dict[str, str], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read_measured(changed(folder, tmp_path / "measured.csv", 3, **said))


def test_a_system_without_its_main_metric_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 6: no frame_auroc, which is the run's main metric"):
        read_measured(changed(folder, tmp_path / "measured.csv", 6, frame_auroc=""))


def test_a_missing_file_column_or_end_of_a_line_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"measured\.csv: no such file"):
        read_measured(tmp_path / "measured.csv")
    (tmp_path / "measured.csv").write_text("table,cell\n")
    with pytest.raises(ValueError, match=r"line 1: no column system, kind"):
        read_measured(tmp_path / "measured.csv")
    (tmp_path / "cut.csv").write_text((folder / "measured.csv").read_text()[:-400])
    with pytest.raises(ValueError, match=r"cut\.csv, line \d+: more or fewer values than columns"):
        read_measured(tmp_path / "cut.csv")


def test_a_column_of_no_known_name_stays_with_its_row(folder: Path, tmp_path: Path) -> None:
    row = read_measured(changed(folder, tmp_path / "measured.csv", 3, layer="17"))[1]
    assert row.other == {"layer": "17"}


def test_seeds_are_one_entry_with_mean_and_sample_deviation(found: list[Table]) -> None:
    entry = next(entry for entry in found[0].entries if entry.name == "HiProbe")
    values = [one.metrics["frame_auroc"] for one in entry.runs]
    assert len(values) == 3
    assert entry.main is not None
    assert entry.main.mean == pytest.approx(statistics.mean(values), abs=1e-12)
    assert entry.main.spread == pytest.approx(statistics.stdev(values), abs=1e-12)
    assert entry.main.interval is None
    assert str(entry.main) == f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def test_a_single_seed_has_its_interval_and_no_deviation(found: list[Table]) -> None:
    entry = next(entry for entry in found[0].entries if entry.name == "SteerVad")
    metrics = entry.first.metrics
    assert entry.main is not None
    assert entry.main.spread is None
    assert entry.main.interval is not None
    assert entry.main.interval.low == metrics["frame_auroc_low"] < entry.main.mean < metrics["frame_auroc_high"]
    refined = entry.value("frame_auroc_refined")
    assert refined is not None
    assert refined.interval is not None
    assert refined.interval.high == metrics["frame_auroc_high_refined"]


def test_seeds_that_were_judged_differently_are_two_entries(tmp_path: Path) -> None:
    given = [run(tmp_path, videos(number), "HiProbe", noisy(0.3, 0.1), seed=number) for number in (8, 10)]
    found = tables(read_measured(write(tmp_path / "measured.csv", given)))
    assert [len(entry.runs) for table in found for entry in table.entries] == [1, 1]
    assert found[1].differs == {"videos": (10, 8)}


def test_a_metric_that_one_seed_lacks_is_refused(folder: Path, tmp_path: Path) -> None:
    rows = read_measured(changed(folder, tmp_path / "measured.csv", 7, frame_ap=""))
    entry = next(entry for entry in entries(rows) if entry.name == "HiProbe")
    with pytest.raises(ValueError, match=r"HiProbe: frame_ap is not there for the seeds \[1\]"):
        entry.value("frame_ap")


def test_rows_of_another_protocol_stand_apart_with_the_field_named(found: list[Table]) -> None:
    titles = [table.title for table in found]
    assert titles == [
        "UCF-Crime (demo copy, rendered, 16 videos)",
        "UCF-Crime (demo copy, rendered, 12 videos)",
        "XD-Violence (demo copy, rendered, 10 videos)",
    ]
    assert found[0].differs == {}
    assert found[1].differs == {"videos": (12, 16)}
    assert found[2].differs == {}


def test_what_was_judged_does_not_part_a_table(found: list[Table]) -> None:
    assert {entry.first.stated["online"] for entry in found[0].entries} == {True, False}


def test_a_table_is_sorted_best_first_controls_among_the_systems(found: list[Table]) -> None:
    ranks = [entry.rank for entry in found[0].entries]
    assert ranks == sorted(ranks, reverse=True)
    assert {entry.name for entry in found[0].controls} == {name.replace("_", " ") for name in CONTROLS}


def test_controls_measured_twice_with_one_result_stand_once(rows: list[Row], folder: Path, tmp_path: Path) -> None:
    with (folder / "measured.csv").open(newline="") as stream:
        given = list(csv.DictReader(stream))
    again = [row | {"table": "other"} for row in given if row["kind"] == "control"]
    twice = read_measured(write(tmp_path / "measured.csv", given + again))
    assert len(twice) == len(rows) + 8
    assert len(entries(twice)) == len(entries(rows))


def test_a_control_that_ties_is_not_beaten(tmp_path: Path) -> None:
    world = videos(8)
    given = [run(tmp_path, world, "constant", CONTROLS["constant"], kind="control")]
    given.append(run(tmp_path, world, "Flat", CONTROLS["constant"]))
    table = tables(read_measured(write(tmp_path / "measured.csv", given)))[0]
    flat = next(entry for entry in table.entries if not entry.is_control)
    assert str(verdict(flat, table)) == "does not beat constant"


def test_a_system_is_told_which_controls_it_does_not_beat(found: list[Table], folder: Path) -> None:
    told = {e.name: verdict(e, found[0], details_in(folder)) for e in found[0].entries if not e.is_control}
    assert told["HiProbe"].not_beaten == ()
    assert told["HiProbe"].is_clear
    assert str(told["HiProbe"]).startswith("beats all 4; +")
    assert "video label oracle" in told["Lavida"].not_beaten
    assert not told["Lavida"].is_clear
    assert str(verdict(found[1].entries[0], found[1])) == "no control was run"


def test_a_control_of_pixels_alone_is_met_in_pixels(tmp_path: Path) -> None:
    world = videos(8)
    given = [run(tmp_path, world, "Lavida", noisy(0.3, 0.1), pixel_auroc=0.71)]
    prior = run(tmp_path, world, "centre_prior", CONTROLS["constant"], kind="control", pixel_auroc=0.74)
    given.append({key: value for key, value in prior.items() if not key.startswith(("frame_", "video_", "ece"))})
    table = tables(read_measured(write(tmp_path / "measured.csv", given)))[0]
    assert [entry.name for entry in table.entries] == ["Lavida", "centre prior"]
    assert str(verdict(table.entries[0], table)) == "does not beat centre prior in pixel AUROC"
    assert "*centre prior*" in markdown(read_measured(tmp_path / "measured.csv"), CLAIMS, [])


def test_a_metric_where_less_is_better_turns_the_table(tmp_path: Path) -> None:
    world = videos(8)
    said: dict[str, Any] = {"main_metric": "false_alarms_per_hour"}
    given = [run(tmp_path, world, "random", CONTROLS["random"], kind="control", false_alarms_per_hour=30, **said)]
    given += [
        run(tmp_path, world, name, noisy(0.3, 0.1), false_alarms_per_hour=value, **said)
        for name, value in (("Loud", 40), ("Calm", 2))
    ]
    table = tables(read_measured(write(tmp_path / "measured.csv", given)))[0]
    assert [entry.name for entry in table.entries] == ["Calm", "random", "Loud"]
    assert [str(verdict(entry, table)) for entry in table.entries] == [
        "beats all 1",
        "does not beat random",  # itself; the tables ask only of systems
        "does not beat random",
    ]


def test_pairs_from_the_stored_draws_equal_those_from_the_curves(folder: Path, found: list[Table]) -> None:
    world = videos()
    scorers = {"HiProbe": noisy(0.35, 0.12), "SteerVad": noisy(0.3, 0.15), "Lavida": noisy(0.1, 0.25)}
    rows = {entry.name: entry.first for entry in found[0].entries}
    read = details_in(folder)
    for one, other in (("HiProbe", "SteerVad"), ("Lavida", "SteerVad"), ("Lavida", "HiProbe")):
        raw = [curves(world, scorers[name], 0) for name in (one, other)]
        for end, judged in (("", raw), ("_refined", [{k: smoothed(c) for k, c in kind.items()} for kind in raw])):
            runs = [Runs.of(against_all(world, [kind[video.name] for video in world])) for kind in judged]
            expected = paired(*runs)
            for key, name in (("frame_auroc", "auroc"), ("frame_ap", "average_precision")):
                mine, theirs = (draws(read.draws(rows[name]), key + end) for name in (one, other))
                assert mine is not None
                assert theirs is not None
                value = rows[other].metrics[key + end] - rows[one].metrics[key + end]
                difference = paired_draws(value, mine, theirs)
                for field in ("value", "low", "high", "p"):
                    assert getattr(difference, field) == pytest.approx(getattr(expected[name], field), abs=1e-6)


def test_draws_that_do_not_pair_or_are_none_are_refused(folder: Path, tmp_path: Path, rows: list[Row]) -> None:
    with pytest.raises(ValueError, match=r"10 and 20 draws are not paired"):
        paired_draws(0.0, np.zeros(10), np.zeros(20))
    with pytest.raises(ValueError, match=r"the draws of frame_auroc are no float32 values"):
        draws({"frame_auroc": "no base64!"}, "frame_auroc")
    (tmp_path / rows[0].folder).mkdir(parents=True)
    assert details_in(tmp_path)(rows[0]) is None
    (tmp_path / rows[0].folder / "details.json").write_text('{"draws": ')
    with pytest.raises(ValueError, match=r"details\.json: no JSON"):
        details_in(tmp_path)(rows[0])


def test_the_draws_alone_are_those_of_the_whole_file(folder: Path, rows: list[Row]) -> None:
    read = details_in(folder)
    for row in rows:
        whole = read(row)
        assert whole is not None
        assert read.draws(row) == whole["draws"]


def test_markdown_shows_rows_claims_marks_and_what_is_missing(folder: Path, rows: list[Row]) -> None:
    text = markdown(rows, CLAIMS, UNFINISHED, details_in(folder))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "| 86.72 % [1] |" in lines["HiProbe"]
    assert "82.18 %, 82.06 %, 80.06 % [3] ⚠" in lines["Lavida †"]
    assert "does not beat video label oracle" in lines["Lavida †"]
    assert "*random*" in lines
    assert "| 0.500 [0.500, 0.500] |" in lines["*constant*"]
    assert "† chosen on the test set." in text
    assert "Stands apart from the table above: videos is 12 here and 16 there." in text
    assert "- Lavida on ubnormal, seed 0: failed: CUDA out of memory" in text
    assert "at line 3" not in text
    assert "12.3 k trained, fit 31.5 s, 812 frames/s, 640 MB" in lines["SteerVad"]
    assert "| &lt;script&gt;alert(1)&lt;/script&gt; |" in text
    assert text == markdown(rows, CLAIMS, UNFINISHED, details_in(folder))


def test_every_line_of_a_markdown_table_has_as_many_cells(tmp_path: Path) -> None:
    world = videos(8)
    given = [run(tmp_path, world, "a|b\nc", noisy(0.3, 0.1), folder="x", supervision="*all* `of` it [x](y)")]
    text = markdown(read_measured(write(tmp_path / "measured.csv", given)), CLAIMS, [])
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 3
    assert len({line.count("|") for line in lines}) == 1
    assert "\\*all\\* \\`of\\` it [x]\\(y)" in text


def test_a_table_without_a_claim_has_no_column_for_it(rows: list[Row]) -> None:
    heads = [line for line in markdown(rows, CLAIMS, []).splitlines() if line.startswith("| system")]
    assert ["published" in head for head in heads] == [True, False, True]


def test_an_entry_is_named_by_its_cell_and_by_its_system_where_the_cell_does_not(tmp_path: Path) -> None:
    world = videos(8)
    cells = (("HiProbe, last layer", "hiprobe"), ("last layer", "hiprobe"), ("ZeroShotClip", "zero_shot_clip"))
    given = [run(tmp_path, world, cell, noisy(0.3, 0.1), system=system) for cell, system in cells]
    names = [entry.name for entry in entries(read_measured(write(tmp_path / "measured.csv", given)))]
    assert names == ["HiProbe, last layer", "hiprobe: last layer", "ZeroShotClip"]


def test_an_empty_leaderboard_says_so(folder: Path, tmp_path: Path) -> None:
    assert markdown(read_measured(write(tmp_path / "measured.csv", [])), CLAIMS, []).startswith("No row is measured")


def test_a_claim_that_nobody_made_is_refused(folder: Path, tmp_path: Path) -> None:
    rows = read_measured(changed(folder, tmp_path / "measured.csv", 6, claim="HiProb"))
    with pytest.raises(ValueError, match=r"line 6: 'HiProbe' is to stand beside the claim 'HiProb'"):
        markdown(rows, CLAIMS, [])


def test_the_csv_holds_every_entry_and_every_claim(folder: Path, rows: list[Row], tmp_path: Path) -> None:
    write_csv(tmp_path / "all.csv", rows, CLAIMS, details_in(folder))
    with (tmp_path / "all.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [line["what"] for line in lines] == ["measured"] * len(entries(rows)) + ["published"] * len(CLAIMS)
    hiprobe = next(line for line in lines if line["name"] == "HiProbe")
    assert hiprobe["seeds"] == "0 1 2"
    assert float(hiprobe["value"]) == float(hiprobe["frame_auroc"])
    assert hiprobe["frame_auroc_low"] == ""  # of three runs there is a spread, not an interval
    lavida = next(line for line in lines if line["name"] == "Lavida")
    assert "chosen on the test set; does not beat video label oracle" in lavida["marks"]
    five = next(line for line in lines if line["name"].endswith("queries=48)") and line["dataset"] == "UCF-Crime")
    assert five["marks"].startswith("⚠ 80.06 %")
    assert five["value"] == "0.8006"


def test_words_for_numbers() -> None:
    assert [parameters(n) for n in (0, 950, 12345, 7.6e9)] == ["0", "950", "12.3 k", "7.6 G"]
    assert [seconds(n) for n in (8.25, 300, 9000)] == ["8.25 s", "5 min", "2.5 h"]
    assert label("frame_auroc_low_refined") == "frame AUROC, low, refined"
    assert [protocol_value(value) for value in (True, None, [1, 2], "x")] == ["yes", "not stated", "[1, 2]", "x"]


def test_a_cost_is_told_only_where_every_seed_has_it(folder: Path, tmp_path: Path) -> None:
    rows = read_measured(changed(folder, tmp_path / "measured.csv", 7, fit_s=""))
    entry = next(entry for entry in entries(rows) if entry.name == "HiProbe")
    assert cost_of(entry) == "12.3 k trained, 812 frames/s, 640 MB"


REPORT = """
import sys
from pathlib import Path
from vigil.leaderboard import details_in, markdown, read_claims, read_measured, write_csv, write_page
folder, claims = Path(sys.argv[1]), read_claims(Path(sys.argv[2]))
rows, details = read_measured(folder / "measured.csv"), details_in(folder)
(folder / "table.md").write_text(markdown(rows, claims, [], details))
write_csv(folder / "table.csv", rows, claims, details)
write_page(folder / "table.html", rows, claims, details, [])
assert len(rows) == 1000 and not {"torch", "lightning", "plotly", "itables"} & set(sys.modules)
"""


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_report_of_a_thousand_rows_takes_two_seconds(
    tmp_path: Path, seeds: int, record_property: Callable[[str, object], None]
) -> None:
    world = videos(20)
    base = [run(tmp_path, world, f"Base{n}", noisy(0.1 + 0.05 * n, 0.2), seed=n) for n in range(4)]
    given = [run(tmp_path, world, name, scorer, kind="control") for name, scorer in CONTROLS.items()]
    sets = ("UCF-Crime", "XD-Violence", "UBnormal")
    for cell in range((1000 - len(given)) // seeds):
        said = {"cell": f"cell {cell}", "system": "many", "dataset": sets[cell % 3], "claim": "SteerVAD"}
        given += [base[(cell + seed) % 4] | said | {"seed": seed} for seed in range(seeds)]
    write(tmp_path / "measured.csv", given)
    command = [sys.executable, "-c", REPORT, str(tmp_path), str(ROOT / "results" / "claims.csv")]
    took = []
    for _ in range(3):  # the best of three: other work runs beside the tests
        start = time.perf_counter()
        subprocess.run(command, check=True, cwd=ROOT)
        took.append(time.perf_counter() - start)
        if took[-1] <= 2:
            break
    record_property("seconds", min(took))
    assert min(took) <= 2
    page = (tmp_path / "table.html").read_text()
    assert page.count('<script type="text/plain" id="curves-') == 200
    assert "To keep the page small it leaves out the curves of" in page


def test_protocols_are_kept_as_they_were_written(rows: list[Row], folder: Path) -> None:
    with (folder / "measured.csv").open(newline="") as stream:
        given = list(csv.DictReader(stream))
    for row, line in zip(rows, given, strict=True):
        assert {"judged": row.judged, "stated": row.stated} == json.loads(line["protocol"])
