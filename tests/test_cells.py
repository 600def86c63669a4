"""Cells of a benchmark file: what is said over what, which command comes of it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vigil.cells import Place, Step, flat, gpus_of, read_benchmark, steps_of

EVERY = {"system": "hiprobe", "fit": "ucf_crime", "test": ["ucf_crime"]}


def write(file: Path, **content: Any) -> Path:
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_cell_is_said_over_what_every_cell_says_and_the_demo_over_both(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.yaml",
        every={**EVERY, "set": {"model.c": 1, "model.bins": 8}, "machine": "one_gpu"},
        demo={"model.c": 2, "model.dtype": "float32"},
        cells=[{"name": "a", "set": {"model.bins": 4}}, {"name": "b", "seeds": [1, 2], "demo": {"model.c": 3}}],
        controls=False,
    )
    plain, shown = read_benchmark(file), read_benchmark(file, demo=True)
    assert [cell.set for cell in plain.cells] == [{"model.c": 1, "model.bins": 4}, {"model.c": 1, "model.bins": 8}]
    assert [cell.set["model.c"] for cell in shown.cells] == [2, 3]
    assert [cell.set["model.bins"] for cell in shown.cells] == [4, 8]
    assert [cell.seeds for cell in shown.cells] == [[0], [1, 2]]
    assert [cell.machine for cell in (*plain.cells, *shown.cells)] == ["one_gpu", "one_gpu", "cpu", "cpu"]
    assert (plain.demo, shown.demo, shown.table) == (False, True, "a")


def test_a_demo_says_of_fit_and_tests_alone_over_what_the_cell_says_of_them(tmp_path: Path) -> None:
    view = {"frames": 8, "stride": 128, "hop": 1024}
    file = write(
        tmp_path / "a.yaml",
        every={**EVERY, "test": ["ucf_crime", "ubnormal"], "fit_set": {"model.c": 1}},
        demo={
            "model.bins": 4,
            "fit_set": {"data.samples": 64},
            "test_set": {"ucf_crime": {"model.view": {"frames": 2}, "data.b": 2}, "shanghaitech": {"model.view": {}}},
        },
        cells=[
            {"name": "a", "test_set": {"ucf_crime": {"model.view": view, "data.a": 1}, "ubnormal": {"data.c": 3}}},
            {"name": "b", "demo": {"test_set": {"ucf_crime": {"data.b": 5}}}},
        ],
        controls=False,
    )
    plain, shown = read_benchmark(file).cells, read_benchmark(file, demo=True).cells
    assert plain[0].test_set == {"ucf_crime": {"model.view": view, "data.a": 1}, "ubnormal": {"data.c": 3}}
    assert shown[0].test_set == {
        "ucf_crime": {"model.view": {"frames": 2}, "data.a": 1, "data.b": 2},
        "ubnormal": {"data.c": 3},
    }
    assert shown[1].test_set == {"ucf_crime": {"model.view": {"frames": 2}, "data.b": 5}}
    assert [cell.fit_set for cell in plain] == [{"model.c": 1}] * 2
    assert [cell.fit_set for cell in shown] == [{"model.c": 1, "data.samples": 64}] * 2
    assert [cell.set for cell in shown] == [{"model.bins": 4}] * 2
    place = Place(tmp_path)
    (steps,) = steps_of(shown[0], place)
    told = [step.arguments() for step in steps]
    assert "--data.samples" in told[0]
    assert "--data.samples" not in told[1]
    assert told[1][told[1].index("--model.view") + 1] == '{"frames": 2}'


def test_a_demo_leaves_out_what_it_could_not_tell_apart_and_says_so(tmp_path: Path) -> None:
    cells = [{"name": "a"}, {"name": "b", "only_real": True}]
    file = write(tmp_path / "a.yaml", every=EVERY, cells=cells, controls=False)
    assert [cell.name for cell in read_benchmark(file).cells] == ["a", "b"]
    shown = read_benchmark(file, demo=True)
    assert ([cell.name for cell in shown.cells], shown.left_out) == (["a"], ["b"])
    assert read_benchmark(write(tmp_path / "b.yaml", every=EVERY, cells=cells, only_demo=True)).demo


def test_the_control_that_looks_at_pixels_is_tested_wherever_frames_are_judged(tmp_path: Path) -> None:
    cells = [{"name": "a", "test": ["ucf_crime", "uca", "uca_probe"]}, {"name": "b", "test": ["xd_violence"]}]
    found = read_benchmark(write(tmp_path / "a.yaml", every=EVERY, cells=cells))
    assert [cell.kind for cell in found.cells] == ["system", "system", "control"]
    assert found.cells[-1].test == ["ucf_crime", "xd_violence"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"cells": [{"name": "a", "sed": [1]}]},
            "a.yaml: a: sed unknown; checkpoints, claim, demo, fit, fit_set, machine, name",
        ),
        ({"cells": [{"name": "a"}, {"name": "a"}]}, "a: every cell needs a name of its own"),
        (
            {"cells": [{"name": "a b"}, {"name": "a/b"}]},
            "a b, a/b: every cell needs a name of its own, also as a folder",
        ),
        ({"cells": [{"system": "hiprobe"}]}, "cell 1 has no name"),
        ({"cells": []}, "no cells"),
        ({"cell": [], "cells": [{"name": "a"}]}, "a.yaml: cell; every, demo, cells"),
        ({"cells": [{"name": "a", "fit": "ucf_crimes"}]}, "no configs/data/ucf_crimes.yaml; there are own_videos"),
        ({"cells": [{"name": "a", "machine": "gpu"}]}, "no configs/machines/gpu.yaml; there are cpu, ddp, one_gpu"),
        ({"cells": [{"name": "a", "seeds": 3}]}, "seeds 3: lists are expected"),
        ({"cells": [{"name": "a", "test_set": {"ubnormal": {}}}]}, "test_set of ubnormal, which it is not tested on"),
        ({"cells": [{"name": "a", "fit": None, "test": []}]}, "a.yaml: a: neither fitted nor tested"),
        (
            {"cells": [{"name": "a", "checkpoints": ["b"]}]},
            r"checkpoints \['b'\]: {option: name of a cell} is expected",
        ),
    ],
)
def test_a_file_with_a_fault_is_refused_by_name(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_benchmark(write(tmp_path / "a.yaml", every=EVERY, **content))


TAKES = {"name": "a", "checkpoints": {"model.ranker": "b"}}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([TAKES], "a: checkpoints, model.ranker: b: no such cell; there are a"),
        ([TAKES, {"name": "b", "fit": None}], "b: that cell fits nothing and has no checkpoint; name one with a fit"),
        (
            [{**TAKES, "seeds": [0, 3]}, {"name": "b"}],
            r"b: that cell is not fitted with the seeds \[3\]; give both the",
        ),
        (
            [TAKES, {"name": "b", "checkpoints": {"model.x": "a"}}],
            "a needs b needs a: no fit of these can be the first",
        ),
        ([{**TAKES, "checkpoints": {"model.ranker": "a"}}], "a needs a: no fit of these can be the first"),
        ([{**TAKES, "set": {"model.init_args.ranker": "c"}}, {"name": "b"}], "model.ranker is set as well; say one of"),
        ([TAKES, {"name": "b", "only_real": True}], "model.ranker: b: the demo leaves it out"),
    ],
)
def test_a_checkpoint_that_no_fit_will_give_is_refused(
    tmp_path: Path, cells: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_benchmark(write(tmp_path / "a.yaml", every=EVERY, cells=cells, only_demo=True, controls=False))


def test_a_step_needs_the_fits_of_its_seed_and_a_fitted_one_its_beginning_no_more(tmp_path: Path) -> None:
    taken = {"model.ranker": "ranker", "model.start_from": "first"}
    cells = [
        {"name": "user", "seeds": [1], "checkpoints": taken},
        {"name": "untrained", "seeds": [1], "fit": None, "checkpoints": taken},
        {"name": "first", "seeds": [1, 2], "test": [], "checkpoints": {"model.ranker": "ranker"}},
        {"name": "ranker", "seeds": [1, 2], "fit": "xd_violence", "test": []},
    ]
    found = read_benchmark(write(tmp_path / "a.yaml", every=EVERY, cells=cells, controls=False))
    chains = {cell.name: list(steps_of(cell, Place(tmp_path)))[-1] for cell in found.cells}
    fit, test = chains["user"]
    needed = {option: (one.cell.name, one.seed, one.name, one.dataset) for option, one in fit.needs().items()}
    ranker = ("ranker", 1, "fit", "xd_violence")
    assert needed == {"model.ranker": ranker, "model.start_from": ("first", 1, "fit", "ucf_crime")}
    assert [one.cell.name for one in test.needs().values()] == ["ranker"]
    assert [one.cell.name for one in test.waits_for()] == ["ranker", "first"]
    assert chains["untrained"][0].needs() == {**fit.needs()}
    assert [step.name for step in chains["ranker"]] == ["fit"]


def test_a_cell_must_say_what_it_is_fitted_on_even_if_nothing(tmp_path: Path) -> None:
    every = {"system": "prompting", "test": ["ucf_crime"]}
    with pytest.raises(ValueError, match="a: fit missing; fit: null where nothing is fitted"):
        read_benchmark(write(tmp_path / "a.yaml", every=every, cells=[{"name": "a"}]))


def test_a_missing_file_and_one_that_is_no_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.yaml: no such file; the benchmarks are in configs/benchmarks/"):
        read_benchmark(tmp_path / "a.yaml")
    (tmp_path / "a.yaml").write_text("cells: [")
    with pytest.raises(ValueError, match=r"a\.yaml: not YAML"):
        read_benchmark(tmp_path / "a.yaml")


def cell_of(tmp_path: Path, **values: Any) -> Any:
    return read_benchmark(write(tmp_path / "a.yaml", every=EVERY, cells=[{"name": "a", **values}])).cells[0]


def test_one_fit_serves_every_test_and_every_seed_has_its_own(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, test=["ucf_crime", "xd_violence"], seeds=[3, 5])
    chains = list(steps_of(cell, Place(tmp_path)))
    names = ["fit", "test ucf_crime", "test xd_violence"]
    assert [[(step.seed, step.name) for step in chain] for chain in chains] == [
        [(seed, name) for name in names] for seed in (3, 5)
    ]
    assert len({step.folder for chain in chains for step in chain}) == 2
    untrained = cell_of(tmp_path, system="prompting", fit=None)
    assert [[step.name for step in chain] for chain in steps_of(untrained, Place(tmp_path))] == [["test ucf_crime"]]


def test_settings_are_the_configs_with_what_the_cell_sets_whole_views_included(tmp_path: Path) -> None:
    view = {"frames": 2, "stride": 12, "hop": 24}
    values = {"model.init_args.test_view": view, "model.layer": "last"}
    cell = cell_of(
        tmp_path, set=values, fit_set={"data.limit_videos": 4}, test_set={"ucf_crime": {"data.convention": "rtfm"}}
    )
    fit, test = next(steps_of(cell, Place(tmp_path)))
    found = test.settings()
    assert {key: value for key, value in found.items() if key.startswith("model.test_view")} == {
        f"model.test_view.{key}": value for key, value in view.items()
    }
    assert (found["model.layer"], found["model.class_path"], found["trainer.accelerator"]) == ("last", "HiProbe", "cpu")
    assert (found["data.convention"], fit.settings()["data.convention"]) == ("rtfm", "full")
    assert ("data.limit_videos" in found, fit.settings()["data.limit_videos"]) == (False, 4)


def test_data_come_from_the_configs_a_folder_of_ones_own_or_the_rendered_world(tmp_path: Path) -> None:
    cell = cell_of(tmp_path)

    def root(place: Place) -> Any:
        return Step(cell, 0, "test", "ucf_crime", place).settings()["data.root"]

    assert root(Place(tmp_path)) == "data/ucf_crime"
    assert root(Place(tmp_path, data=Path("/sets"))) == "/sets/ucf_crime"
    world = Place(tmp_path, world=Path("world"))
    demo = Step(cell, 0, "test", "ucf_crime", world)
    assert demo.settings()["data.root"] == "world/ucf_crime"
    assert [world.root(name, {}) for name in ("uca", "uca_probe")] == ["world/uca"] * 2  # rendered once
    assert demo.settings()["data.demo"] is True


def test_gpus_are_as_many_as_the_machine_or_the_cell_names(tmp_path: Path) -> None:
    assert gpus_of(cell_of(tmp_path), 4) == 0
    assert gpus_of(cell_of(tmp_path, machine="one_gpu"), 4) == 1
    assert gpus_of(cell_of(tmp_path, machine="ddp"), 4) == 4
    assert gpus_of(cell_of(tmp_path, machine="ddp", set={"trainer.devices": 2}), 4) == 2
    assert gpus_of(cell_of(tmp_path, machine="ddp"), 0) == 1  # which is more than there are


def test_nested_values_are_dotted_and_init_args_left_out() -> None:
    nested = {"model": {"class_path": "A", "init_args": {"view": {"frames": 2}, "list": [1]}}, "seed": 3, "empty": {}}
    assert flat(nested) == {
        "model.class_path": "A", "model.view.frames": 2, "model.list": [1], "seed": 3, "empty": {},
    }  # fmt: skip
