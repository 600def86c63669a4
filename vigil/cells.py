"""Cells of a benchmark file: which system is fitted on what, tested on what, with which seeds. No torch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
INPUT = ("data.features", "data.crops")  # what a system is given instead of the pixels that the control looks at
BY_EVENTS = ("uca", "uca_probe")  # judged by what is said of events, not by frames
KEYS_OF_A_FILE = ("every", "demo", "cells", "only_demo", "controls")
KEYS_OF_A_CELL = ("demo", "only_real")  # besides the fields of Cell
OF_ONE_STEP = ("fit_set", "test_set")  # a demo may say them beside its values: those hold for every step
ONLY_TO_BEGIN = "model.start_from"  # what a fit begins with: a test of what was fitted takes the fit's own checkpoint
CONTROL = (
    "frame_difference"  # the control that looks at the pixels, and so is a system; the others need the truth alone
)


@dataclass
class Cell:
    """One system, fitted on one dataset with each of several seeds, and tested on one or more, or fitted for others.

    system, fit, test, machine: names of files in configs/systems, data, machines; fit None where nothing is fitted.
    set: {key: value} of the command, for fit and test alike; fit_set: for the fit alone; test_set: {dataset:
    {key: value}} for one test alone.
    checkpoints: {option: name of a cell} where the option's value is the last checkpoint of that cell's fit with the
    same seed, in the fit and in the tests; model.start_from in the fit alone, where there is one. fits: those cells.
    claim: the method under which results/claims.csv holds the paper's own number. kind: system or control.
    """

    name: str
    system: str
    fit: str | None
    test: list[str]
    machine: str = "cpu"
    seeds: list[int] = field(default_factory=lambda: [0])
    set: dict[str, Any] = field(default_factory=dict)
    fit_set: dict[str, Any] = field(default_factory=dict)
    test_set: dict[str, dict[str, Any]] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)
    claim: str | None = None
    kind: str = "system"
    fits: dict[str, Cell] = field(default_factory=dict)

    @property
    def slug(self) -> str:
        """The name as a folder's."""
        return re.sub(r"[^\w.]+", "_", self.name).strip("_") or "cell"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark file: its table's name, its cells, whether on demo copies, and which cells that leaves out."""

    table: str
    cells: list[Cell]
    demo: bool
    left_out: list[str]


def read_benchmark(file: Path, demo: bool = False) -> Benchmark:
    """A benchmark file: each of `cells` over what `every` says, and with demo what `demo` sets.

    A demo runs on the machine cpu; its fit_set and test_set are said over those of the cells, of the datasets that a
    cell is tested on. A cell may say what `demo` sets for it alone, and `only_real` where a demo could not tell it from
    another. A file of `only_demo` is always read so. The control that looks at pixels is added, tested
    wherever any cell is, unless `controls: false`. Raises FileNotFoundError, and ValueError for unknown keys, unknown
    names of configs, no cells, where two cells are one folder, or for a checkpoint that no cell's fit will give.
    """
    table = _load(file)
    unknown = sorted(table.keys() - set(KEYS_OF_A_FILE))
    if unknown or not isinstance(table.get("cells"), list) or not table["cells"]:
        raise ValueError(
            f"{file}: {', '.join(unknown) or 'no cells'}; {', '.join(KEYS_OF_A_FILE)} may be said, cells must be a list"
        )
    demo = demo or bool(table.get("only_demo"))
    cells, left_out = [], []
    for number, given in enumerate(table["cells"], 1):
        if not isinstance(given, dict) or not given.get("name"):
            raise ValueError(f"{file}: cell {number} has no name; {{name: …, system: …}} is expected")
        if demo and given.get("only_real"):
            left_out.append(str(given["name"]))
            continue
        cells.append(_cell(file, table, given, demo))
    if table.get("controls", True):
        cells += _controls(cells)
    if not cells:
        raise ValueError(f"{file}: every cell is only_real, so there is no demo of it; leave --demo out")
    slugs = [cell.slug for cell in cells]
    twice = sorted({cell.name for cell in cells if slugs.count(cell.slug) > 1})
    if twice:
        raise ValueError(f"{file}: {', '.join(twice)}: every cell needs a name of its own, also as a folder")
    for cell in cells:
        cell.fits = {option: _fitted(file, cells, left_out, cell, option) for option in cell.checkpoints}
    for cell in cells:
        _refuse_circle(file, [cell])
    return Benchmark(file.stem, cells, demo, left_out)


def _fitted(file: Path, cells: list[Cell], left_out: list[str], cell: Cell, option: str) -> Cell:
    """The cell whose fit gives the value of an option of another."""
    name = cell.checkpoints[option]
    where = f"{file}: {cell.name}: checkpoints, {option}: {name}"
    found = next((one for one in cells if one.name == name), None)
    if found is None:
        there = ", ".join(one.name for one in cells)
        because = "the demo leaves it out" if name in left_out else f"no such cell; there are {there}"
        raise ValueError(f"{where}: {because}")
    if found.fit is None:
        raise ValueError(f"{where}: that cell fits nothing and has no checkpoint; name one with a fit")
    lacking = sorted(set(cell.seeds) - set(found.seeds))
    if lacking:
        raise ValueError(f"{where}: that cell is not fitted with the seeds {lacking}; give both the same seeds")
    if option in map(_short, (*cell.set, *cell.fit_set, *(key for one in cell.test_set.values() for key in one))):
        raise ValueError(f"{where}: {option} is set as well; say one of the two")
    return found


def _refuse_circle(file: Path, path: list[Cell]) -> None:
    """Raises ValueError where what a cell's fit needs comes back to it."""
    for cell in path[-1].fits.values():
        if cell in path:
            circle = " needs ".join(one.name for one in (*path, cell))
            raise ValueError(f"{file}: {circle}: no fit of these can be the first; take one of the checkpoints out")
        _refuse_circle(file, [*path, cell])


def _controls(cells: list[Cell]) -> list[Cell]:
    """The control that looks at pixels: a cell for each way in which a dataset is judged."""
    ways: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        for name in (name for name in cell.test if name not in BY_EVENTS):
            said = {**cell.set, **cell.test_set.get(name, {})}
            way = {key: value for key, value in said.items() if key.startswith("data.") and not key.startswith(INPUT)}
            if way not in ways.setdefault(name, []):
                ways[name].append(way)
    found = []
    for number in range(max(map(len, ways.values()), default=0)):
        aims = {name: of[number] for name, of in ways.items() if number < len(of)}
        told = "; ".join(f"{key.split('.')[-1]} {value}" for aim in aims.values() for key, value in aim.items())
        name = "frame difference" if not number else f"frame difference, {told or 'as configured'}"
        found.append(Cell(name, CONTROL, None, list(aims), cells[0].machine, test_set=aims, kind="control"))
    return found


def _cell(file: Path, table: Mapping[str, Any], given: Mapping[str, Any], demo: bool) -> Cell:
    every = table.get("every") or {}
    for said, value in (("every", every), ("demo", table.get("demo") or {}), ("set", given.get("set", {}))):
        if not isinstance(value, dict):
            raise ValueError(f"{file}: {given['name']}: {said} is {value!r}; {{key: value}} is expected")
    merged = {**every, **{key: value for key, value in given.items() if key not in KEYS_OF_A_CELL}}
    shown = [table.get("demo") or {}, given.get("demo") or {}] if demo else [{}, {}]
    values, own = ({key: value for key, value in one.items() if key not in OF_ONE_STEP} for one in shown)
    merged["set"] = {**every.get("set", {}), **values, **given.get("set", {}), **own}
    merged |= {"machine": "cpu"} if demo else {}
    permitted = {one.name for one in fields(Cell)} - {"kind", "fits"}
    unknown = sorted(merged.keys() - permitted)
    where = f"{file}: {given['name']}"
    if unknown:
        known = ", ".join(sorted(permitted | set(KEYS_OF_A_CELL)))
        raise ValueError(f"{where}: {', '.join(unknown)} unknown; {known} may be said")
    absent = [key for key in ("system", "test") if merged.get(key) is None] + ["fit"] * ("fit" not in merged)
    if absent or not (merged["test"] or merged["fit"]):
        told = f"{', '.join(absent)} missing" if absent else "neither fitted nor tested"
        raise ValueError(f"{where}: {told}; fit: null where nothing is fitted, test: [] where it is for other cells")
    cell = Cell(**merged)
    if not isinstance(cell.test, list) or not isinstance(cell.seeds, list) or not cell.seeds:
        raise ValueError(f"{where}: test {cell.test!r} and seeds {cell.seeds!r}: lists are expected")
    nested = isinstance(cell.test_set, dict) and all(isinstance(value, dict) for value in cell.test_set.values())
    if not nested or not isinstance(cell.fit_set, dict) or not all(isinstance(seed, int) for seed in cell.seeds):
        raise ValueError(
            f"{where}: test_set {cell.test_set!r}, fit_set {cell.fit_set!r}, seeds {cell.seeds!r}: {{dataset: {{key: "
            "value}}, {key: value} and whole numbers are expected"
        )
    for folder, names in (("data", [*cell.test, *([cell.fit] if cell.fit else [])]), ("machines", [cell.machine])):
        for name in names:
            if not (ROOT / "configs" / folder / f"{name}.yaml").is_file():
                there = ", ".join(sorted(path.stem for path in (ROOT / "configs" / folder).glob("*.yaml")))
                raise ValueError(f"{where}: no configs/{folder}/{name}.yaml; there are {there}")
    if not isinstance(cell.checkpoints, dict):
        raise ValueError(f"{where}: checkpoints {cell.checkpoints!r}: {{option: name of a cell}} is expected")
    strays = sorted(cell.test_set.keys() - set(cell.test))
    if strays and "test_set" in given:
        raise ValueError(f"{where}: test_set of {', '.join(strays)}, which it is not tested on")
    for one in shown:
        _say_over(cell, one)
    return cell


def _say_over(cell: Cell, shown: Mapping[str, Any]) -> None:
    """What a demo says of the fit or of a test alone, over what the cell says."""
    cell.fit_set = {**cell.fit_set, **shown.get("fit_set", {})}
    for name, values in shown.get("test_set", {}).items():
        if name in cell.test:
            cell.test_set = {**cell.test_set, name: {**cell.test_set.get(name, {}), **values}}


@dataclass(frozen=True)
class Place:
    """Where a benchmark runs: out, its folder; world, of the demo copies, or None for real data.

    data: a folder with one folder per dataset, which then stand for the roots that the configs name, each called as
    the root's own last part: two questions about one dataset share its folder.
    """

    out: Path
    world: Path | None = None
    data: Path | None = None

    def root(self, dataset: str, settings: Mapping[str, Any]) -> str:
        """The folder of a dataset."""
        above = self.world or self.data
        if above is None:
            return str(settings.get("data.root", ""))
        return str(above / Path(str(flat(_config(ROOT / "configs" / "data" / f"{dataset}.yaml"))["data.root"])).name)


@dataclass(frozen=True)
class Step:
    """One command of a cell with one seed: its fit, or one of its tests."""

    cell: Cell
    seed: int
    verb: str
    dataset: str
    place: Place

    @property
    def name(self) -> str:
        return f"{self.verb} {self.dataset}" if self.verb == "test" else "fit"

    @property
    def folder(self) -> Path:
        """Of the cell with this seed: run folders, log and records."""
        return self.place.out / "cells" / self.cell.slug / f"seed_{self.seed}"

    @property
    def record(self) -> Path:
        """What is known of this step's last run."""
        return self.folder / f"{self.name.replace(' ', '_')}.json"

    def needs(self) -> dict[str, Step]:
        """{option: the fit of another cell whose last checkpoint it takes}."""
        fitted = self.verb == "test" and self.cell.fit is not None
        wanted = {option: cell for option, cell in self.cell.fits.items() if not (fitted and option == ONLY_TO_BEGIN)}
        return {option: self._fit_of(cell) for option, cell in wanted.items()}

    def waits_for(self) -> list[Step]:
        """The fits of other cells that come before it, a test's own fit's among them."""
        return [self._fit_of(cell) for cell in {cell.name: cell for cell in self.cell.fits.values()}.values()]

    def _fit_of(self, cell: Cell) -> Step:
        return Step(cell, self.seed, "fit", str(cell.fit), self.place)

    def settings(self) -> dict[str, Any]:
        """Every value that the command is given, {dotted key: value}: of the three configs, and what the cell sets."""
        values: dict[str, Any] = {}
        for folder, name in self._configs():
            values |= flat(_config(ROOT / "configs" / folder / f"{name}.yaml"))
        given = {_short(key): value for key, value in self._given().items()}
        for key, value in given.items():  # a view given whole replaces the view, not one key of it
            values = {name: old for name, old in values.items() if not name.startswith(f"{key}.")}
            values |= flat(value, key) if isinstance(value, dict) else {key: value}
        return values

    def arguments(self) -> list[str]:
        """Of the `lightning` command, its verb first; the checkpoints of its own fit and of `needs` come after them."""
        files = (ROOT / "configs" / folder / f"{name}.yaml" for folder, name in self._configs())
        said = [part for file in files for part in ("-c", os.path.relpath(file))]
        given = {"runs": str(self.folder), **self._given()}
        given |= {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False}
        return [self.verb, *said, *(part for key, value in given.items() for part in (f"--{key}", spelled(value)))]

    def _configs(self) -> list[tuple[str, str]]:
        return [("systems", self.cell.system), ("data", self.dataset), ("machines", self.cell.machine)]

    def _given(self) -> dict[str, Any]:
        values: dict[str, Any] = {"seed_everything": self.seed, "data.seed": self.seed, **self.cell.set}
        values |= self.cell.fit_set if self.verb == "fit" else self.cell.test_set.get(self.dataset, {})
        root = self.place.root(self.dataset, {})
        values |= {"data.root": root} if root else {}
        return values | ({"data.demo": True} if self.place.world is not None else {})


def steps_of(cell: Cell, place: Place) -> Iterator[list[Step]]:
    """The steps of each seed, in the order that they have to be done: one fit, then each test."""
    for seed in cell.seeds:
        fit = [] if cell.fit is None else [Step(cell, seed, "fit", cell.fit, place)]
        yield fit + [Step(cell, seed, "test", dataset, place) for dataset in cell.test]


def there_yet(cell: Cell) -> bool:
    """Whether the cell's system has landed; a table's cells are written before it."""
    return (ROOT / "configs" / "systems" / f"{cell.system}.yaml").is_file()


def gpus_of(cell: Cell, pool: int) -> int:
    """How many GPUs the cell's machine names, or the cell as trainer.devices; `pool` where it takes every one."""
    trainer = _config(ROOT / "configs" / "machines" / f"{cell.machine}.yaml").get("trainer", {})
    if trainer.get("accelerator") not in ("gpu", "cuda"):
        return 0
    devices = cell.set.get("trainer.devices", trainer.get("devices", -1))
    if isinstance(devices, str) and "," in devices:
        devices = devices.split(",")
    count = len(devices) if isinstance(devices, list) else -1 if devices == "auto" else int(devices)
    return max(pool, 1) if count < 0 else count


def flat(values: Any, before: str = "") -> dict[str, Any]:
    """{dotted key: value} of nested mappings; init_args is left out, as the command lets one."""
    if not isinstance(values, dict) or not values:
        return {before: values} if before else {}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, _short(f"{before}.{key}" if before else str(key)))
    return found


def spelled(value: Any) -> str:
    """A value as the command line takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _short(key: str) -> str:
    return ".".join(part for part in key.split(".") if part != "init_args")


@cache
def _config(file: Path) -> dict[str, Any]:
    return _load(file) if file.is_file() else {}


def _load(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; the benchmarks are in configs/benchmarks/")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        content = yaml.load(file.read_text(), Loader=loader)  # safe, and ten times as fast as the one in Python
    except yaml.YAMLError as error:
        raise ValueError(f"{file}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file}: a mapping is expected, found {type(content).__name__}")
    return content
