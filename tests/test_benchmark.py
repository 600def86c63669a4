"""The benchmark runner: what a file's cells are, and the table that fitting and testing them makes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

from benchmark import Cell, arguments, parse, read_cells, run, table
from cli import main
from tests.worlds import ROOT, write_feature_world

FILES = sorted((ROOT / "configs" / "benchmarks").glob("*.yaml"))


def write(file: Path, **content: object) -> Path:
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_cell_is_said_over_what_every_cell_says_and_the_demo_over_both(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.yaml",
        every={"system": "hiprobe", "fit": "ucf_crime", "test": ["ucf_crime"], "set": {"model.c": 1, "model.bins": 8}},
        demo={"model.c": 2, "model.dtype": "float32"},
        cells=[{"name": "a", "set": {"model.bins": 4}}, {"name": "b", "seeds": [1, 2], "demo": {"model.c": 3}}],
    )
    plain, shown = read_cells(file), read_cells(file, demo=True)
    assert [cell.set for cell in plain] == [{"model.c": 1, "model.bins": 4}, {"model.c": 1, "model.bins": 8}]
    assert [cell.set["model.c"] for cell in shown] == [2, 3]
    assert [cell.set["model.bins"] for cell in shown] == [4, 8]
    assert [cell.seeds for cell in shown] == [[0], [1, 2]]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([{"name": "a", "sed": [1]}], "a: sed unknown; fit, machine, name, seeds, set, system, test may be said"),
        ([{"name": "a"}, {"name": "a"}], "a: every cell needs a name of its own"),
    ],
)
def test_a_file_with_a_typo_or_two_cells_of_one_name_is_refused(tmp_path: Path, cells: list, message: str) -> None:
    every = {"system": "hiprobe", "fit": "ucf_crime", "test": ["ucf_crime"]}
    with pytest.raises(ValueError, match=message):
        read_cells(write(tmp_path / "a.yaml", every=every, cells=cells))


@pytest.mark.parametrize("demo", [False, True], ids=["real", "demo"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_cell_of_every_file_is_a_command_that_can_be_read(
    file: Path, demo: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert file.read_text().startswith("# ")
    for cell in read_cells(file, demo):
        for verb, datasets in (("fit", [cell.fit]), ("test", cell.test)):
            for dataset in datasets:
                given = arguments(cell, dataset, cell.seeds[0], Path("runs"), Path("world") if demo else None)
                with pytest.raises(SystemExit) as stop:
                    main([verb, *given, "--print_config"])
                assert not stop.value.code, cell.name
    capsys.readouterr()


def test_a_run_fits_and_tests_every_cell_and_goes_on_after_a_failed_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_feature_world(tmp_path / "world")
    world = {"data.root": "world", "data.features": "world/features", "data.num_workers": 0}
    small = {"model.encoder": None, "model.feature_width": 16, "model.batch_size": 4, "trainer.max_epochs": 1}
    every = {"system": "mil_ranker", "fit": "ucf_crime", "test": ["ucf_crime"], "set": {**world, **small}}
    broken = {"name": "too wide", "set": {"model.feature_width": 17}}
    cells = [broken, {"name": "one"}, {"name": "two", "seeds": [0, 1]}]
    file = write(tmp_path / "a.yaml", every=every, cells=cells)
    with pytest.raises(SystemExit, match="1 of 3 cells failed: too wide"):
        run(file, tmp_path / "out", demo=False, world=tmp_path)
    said = capsys.readouterr().out
    assert "1/3 too wide failed" in said
    assert "features of width 16, this ranker takes 17" in said
    with (tmp_path / "out" / "rows.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["cell"], row["seed"]) for row in rows] == [("one", "0"), ("two", "0"), ("two", "1")]
    for row in rows:
        folder = tmp_path / "out" / row["cell"] / f"seed_{row['seed']}"
        (facts,) = folder.rglob("test-*/metrics.json")
        assert float(row["frame_auroc"]) == json.loads(facts.read_text())["metrics"]["frame_auroc"]
    assert (tmp_path / "out" / "table.md").read_text() in said


def test_the_table_has_intervals_of_one_seed_and_deviations_of_several() -> None:
    one = {"cell": "a", "test": "x", "seed": 0, "chosen": 3, "frame_auroc": 0.5}
    rows = [
        one | {"frame_auroc_low": 0.4, "frame_auroc_high": 0.6},
        *(
            {**one, "cell": "b", "seed": seed, "chosen": seed % 2, "frame_auroc": value}
            for seed, value in enumerate((0.5, 0.6, 0.7))
        ),
    ]
    assert table(rows).splitlines()[2:] == [
        "| a | x | 1 | 3 | 0.500 [0.400, 0.600] |",
        "| b | x | 3 | 0 (2x), 1 (1x) | 0.600 ± 0.100 |",
    ]


def test_the_command_line_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["run", "--help"])
    assert "--demo" in capsys.readouterr().out
    assert Cell("a", "hiprobe", "ucf_crime", ["ucf_crime"]).seeds == [0]
