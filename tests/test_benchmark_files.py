"""The tables of the papers as files of cells: each names its paper, and claims every number printed for its method."""

from __future__ import annotations

import csv
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "configs" / "benchmarks").glob("*.yaml"))
SAID_OF_A_FILE = {"every", "demo", "only_demo", "controls", "cells"}
SAID_OF_A_CELL = {"name", "system", "fit", "test", "machine", "seeds", "set", "demo", "fit_set", "test_set"}
SAID_OF_A_CELL |= {"claim", "only_real", "checkpoints"}
ADDED = {"frame_difference"}  # a control that every table gets of itself
VARIANTS = {"dual_encoder_8_gpus", "lavida_8_gpus", "lavida_authors"}  # of a system that the demo shows otherwise
OF_ONE_STEP = ("fit_set", "test_set")  # what a demo may say beside the values of every step
UNTRAINED = {"prompting", "zero_shot_clip"}
PAPERS = ("arXiv:2602.19248", "arXiv:2507.17394", "arXiv:2602.24021", "Narrowing the Modality Gap")
PUBLIC = {  # name of a data config -> that of the dataset in results/claims.csv
    "ucf_crime": "UCF-Crime",
    "xd_violence": "XD-Violence",
    "shanghaitech": "ShanghaiTech",
    "ubnormal": "UBnormal",
    "ucsd_ped2": "UCSD Ped2",
    "uca": "UCA",
    "uca_probe": "UCA",
}
PROBE = ("UCA", "13-way closed set of UCF-Crime segments, keyword-filtered")  # UCA's closed-set question in claims.csv

# file -> (beginning of the source in claims.csv, of the methods' names, numbers): counted in the papers' own text, for
# their own methods. SteerVAD was at hand as a summary without numbers of tables, so those are told apart by method.
# Table 4 of HiProbe-VAD prints 16, of which the two of the whole method are those of tables 1 and 2.
DUAL, LAVIDA, HIPROBE = "Dual-encoder VLM", "LAVIDA, CVPR 2026 (arXiv 2602.19248)", "HiProbe-VAD, ACM MM 2025"
STEERVAD = "SteerVAD, ICLR 2026 (arXiv 2602.24021)"
TABLES = {
    "mil_ranker": (rf"{re.escape(DUAL)}.*, Sec\. 3\.1$", r"MIL ", 1),
    "dual_encoder_captions": (rf"{re.escape(DUAL)}.*, Tab\. 2$", r"\([ABC]\) ", 3),
    "dual_encoder_probe": (rf"{re.escape(DUAL)}.*, Tab\. 3$", r"\([ABC]\) ", 9),
    "lavida_main": (rf"{re.escape(LAVIDA)}, Tab\. 1$", r"LAVIDA", 4),
    "lavida_pixels": (rf"{re.escape(LAVIDA)}, Tab\. 2$", r"LAVIDA", 1),
    "lavida_exposure": (rf"{re.escape(LAVIDA)}, Tab\. 3$", r"LAVIDA", 12),
    "lavida_adapter": (rf"{re.escape(LAVIDA)}, Tab\. 4$", r"LAVIDA", 12),
    "lavida_queries": (rf"{re.escape(LAVIDA)}, Tab\. 5$", r"LAVIDA", 12),
    "hiprobe_ucf_crime": (rf"{re.escape(HIPROBE)}.*, Tab\. 1$", r"HiProbe-VAD", 4),
    "hiprobe_xd_violence": (rf"{re.escape(HIPROBE)}.*, Tab\. 2$", r"HiProbe-VAD", 4),
    "hiprobe_across": (rf"{re.escape(HIPROBE)}.*, Tab\. 3$", r"HiProbe-VAD", 8),
    "hiprobe_ablations": (rf"{re.escape(HIPROBE)}.*, Tab\. 4$", r"HiProbe-VAD", 14),
    "hiprobe_keyframes": (rf"{re.escape(HIPROBE)}.*, Tab\. 5$", r"HiProbe-VAD", 4),
    "steervad_main": (re.escape(STEERVAD), r"SteerVAD($| per-class)", 4),
    "steervad_ablations": (re.escape(STEERVAD), r"SteerVAD ablation: (?!100%)", 5),
    "steervad_across": (re.escape(STEERVAD), r"SteerVAD (train|open-set)", 3),
    "steervad_backbones": (re.escape(STEERVAD), r"SteerVAD \(", 2),
    "steervad_labels": (re.escape(STEERVAD), r"SteerVAD ablation: 100%", 1),
}


@cache
def table(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text())


def cells(file: Path) -> list[dict[str, Any]]:
    """Each cell over what `every` says."""
    every = {"fit_set": {}, "test_set": {}, **table(file).get("every", {})}
    return [{**every, **cell} for cell in table(file)["cells"]]


def told(demo: dict[str, Any]) -> dict[str, Any]:
    """What a demo says, as a cell says it: values of every step, of the fit and of tests."""
    values = {key: value for key, value in demo.items() if key not in OF_ONE_STEP}
    return {"set": values, **{key: demo[key] for key in OF_ONE_STEP if key in demo}}


@cache
def claims() -> list[dict[str, str]]:
    with (ROOT / "results" / "claims.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def judges(cell: dict[str, Any], row: dict[str, str]) -> bool:
    """Whether a cell is tested on what a published number is of; a number of one class is of the whole test set."""
    for name in cell["test"]:
        if (row["dataset"], row["variant"]) == PROBE if name == "uca_probe" else row["dataset"] == PUBLIC[name]:
            return True
    return False


def claimed(file: Path, row: dict[str, str]) -> bool:
    """Whether a cell of the file claims a published number: one of a class by the cell of all classes."""
    method = re.sub(" per-class .*", "", row["method"]) if row["variant"].startswith("class ") else row["method"]
    return any(cell.get("claim") == method and judges(cell, row) for cell in cells(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_first_which_table_it_is_or_that_it_is_a_control(file: Path) -> None:
    lines = file.read_text().splitlines()
    header = " ".join(line for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert header.startswith("# ")
    if file.stem in TABLES:
        assert any(paper in header for paper in PAPERS)
    else:
        assert "control" in header or "figure" in header or "ablation" in header
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_says_nothing_unknown_and_no_name_twice(file: Path) -> None:
    assert table(file).keys() <= SAID_OF_A_FILE
    assert table(file).get("every", {}).keys() <= SAID_OF_A_CELL
    for cell in table(file)["cells"]:
        assert cell.keys() <= SAID_OF_A_CELL, cell["name"]
    folders = Counter(re.sub(r"[^\w.]+", "_", cell["name"]).strip("_") for cell in cells(file))
    assert max(folders.values()) == 1, folders


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_cell_names_configs_that_are_there(file: Path) -> None:
    for cell in cells(file):
        assert {"system", "fit", "test"} <= cell.keys(), cell["name"]
        named = [("data", name) for name in (cell["fit"], *cell["test"]) if name is not None]
        named += [("machines", cell.get("machine", "cpu"))]
        named += [("systems", cell["system"])]
        for layer, name in named:
            assert (ROOT / "configs" / layer / f"{name}.yaml").is_file(), (cell["name"], layer, name)
        assert set(cell["test"]) <= PUBLIC.keys()
        assert cell["fit"] is None or cell["system"] not in UNTRAINED, cell["name"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_cell_sets_is_dotted_and_of_the_datasets_it_has(file: Path) -> None:
    every_test = {name for cell in cells(file) for name in cell["test"]}
    demos = [{"name": "demo", "test": [*every_test], **told(table(file).get("demo", {}))}]
    demos += [{**cell, **told(cell["demo"])} for cell in cells(file) if "demo" in cell]
    for cell in [*cells(file), *demos]:
        kept = [cell.get("set", {}), told(cell.get("demo", {}))["set"], cell.get("fit_set", {})]
        kept += cell.get("test_set", {}).values()
        for key in (key for one in (*kept, cell.get("checkpoints", {})) for key in one):
            assert re.fullmatch(r"(model|data|trainer)\.\w+|ckpt_path", key), (cell["name"], key)
        assert cell.get("test_set", {}).keys() <= set(cell.get("test", [])), cell["name"]
        of_data = [key for one in kept[:2] for key in one if key.startswith("data.")]
        # data.* of a cell has to be understood by every dataset it fits and tests on
        assert not of_data or len({cell.get("fit"), *cell.get("test", [])} - {None}) == 1, cell["name"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_file_for_real_data_names_a_gpu_and_shows_something_in_the_demo(file: Path) -> None:
    shown = [cell for cell in cells(file) if not cell.get("only_real")]
    assert shown
    if not table(file).get("only_demo"):
        assert all(cell["machine"] == "one_gpu" for cell in cells(file))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_demo_takes_a_small_backbone_in_every_cell(file: Path) -> None:
    """A cell's own `set` is said over the file's `demo`: it must not name a large backbone there."""
    whole = table(file)
    for cell in whole["cells"]:
        if cell.get("only_real"):
            continue
        every = whole.get("every", {}).get("set", {})
        values = {**every, **whole.get("demo", {}), **cell.get("set", {}), **cell.get("demo", {})}
        system = {**whole.get("every", {}), **cell}["system"]
        key = {"mil_ranker": "model.encoder", "zero_shot_clip": "model.clip"}.get(system, "model.backbone")
        small = {"model.encoder": "demo_deit", "model.clip": "weights/demo_clip"}.get(key, "weights/demo_mllm")
        assert values.get(key) == small, cell["name"]
        if system.startswith("lavida"):
            assert (values.get("model.sam2"), values.get("model.clip")) == ("weights/demo_sam2", "weights/demo_clip")


@pytest.mark.parametrize("file", [file for file in FILES if file.stem.startswith("lavida")], ids=lambda file: file.stem)
def test_lavida_is_tested_as_its_released_code_samples_and_the_demo_as_its_short_videos_allow(file: Path) -> None:
    strides = {"shanghaitech": 2, "ubnormal": 4, "ucf_crime": 128, "xd_violence": 128, "ucsd_ped2": 1}
    for cell in cells(file):
        for name in cell["test"]:
            view = {"frames": 8, "stride": strides[name], "hop": 8 * strides[name]}
            real = cell["test_set"][name]
            assert real["model.test_view"] == view, (cell["name"], name)
            assert real.get("data.whole_windows") == (view["hop"] if "whole windows" in cell["name"] else None)
            demo = {**table(file)["demo"]["test_set"][name], **cell.get("demo", {}).get("test_set", {}).get(name, {})}
            assert demo["model.test_view"]["hop"] == 8 * demo["model.test_view"]["stride"] <= 64
            assert demo.get("data.whole_windows", 1) <= 64
            assert ("data.whole_windows" in demo) == ("data.whole_windows" in real)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_claim_is_a_published_number_of_a_dataset_the_cell_is_tested_on(file: Path) -> None:
    for cell in cells(file):
        if cell.get("claim") is not None:
            assert any(row["method"] == cell["claim"] and judges(cell, row) for row in claims()), cell["name"]


@pytest.mark.parametrize("stem", TABLES)
def test_every_number_of_a_papers_table_is_claimed_by_a_cell_of_its_file(stem: str) -> None:
    source, method, count = TABLES[stem]
    rows = [row for row in claims() if re.match(source, row["source"]) and re.match(method, row["method"])]
    assert len(rows) == count
    (file,) = [file for file in FILES if file.stem == stem]
    assert [(row["method"], row["dataset"]) for row in rows if not claimed(file, row)] == []


def test_the_papers_print_as_many_numbers_of_their_methods_as_are_claimed() -> None:
    counts = Counter[str]()
    for stem, (_, _, count) in TABLES.items():
        counts[stem.split("_")[0]] += count
    assert counts == {"mil": 1, "dual": 12, "lavida": 41, "hiprobe": 34, "steervad": 15}
    own = {DUAL: r"MIL |\([ABC]\) ", LAVIDA: "LAVIDA", HIPROBE: "HiProbe-VAD", STEERVAD: "SteerVAD"}
    printed = [
        row
        for row in claims()
        for paper, method in own.items()
        if row["source"].startswith(paper) and re.match(method, row["method"])
    ]
    assert len(printed) == counts.total()


def test_every_system_stands_in_the_demo() -> None:
    (demo,) = [file for file in FILES if table(file).get("only_demo")]
    there = {file.stem for file in (ROOT / "configs" / "systems").glob("*.yaml")}
    assert there - ADDED - VARIANTS <= {cell["system"] for cell in cells(demo)}
