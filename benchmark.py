"""The benchmark runner: tables of cells, each a system fitted and tested by the `lightning` command.

`python benchmark.py run configs/benchmarks/hiprobe_ablations.yaml --demo`
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from cli import main

SHOWN = (
    "frame_auroc",
    "frame_auroc_refined",
    "frame_auroc_gated",
    "frame_ap",
    "frame_ap_refined",
)  # columns, where a system has them


@dataclass
class Cell:
    """One system, fitted on one dataset with each of several seeds, and tested on one or more.

    system, fit, test, machine: names of files in configs/systems, data, machines. set: {key: value} of the command, for
    fit and test alike.
    """

    name: str
    system: str
    fit: str | None
    test: list[str]
    machine: str = "cpu"
    seeds: list[int] = field(default_factory=lambda: [0])
    set: dict[str, Any] = field(default_factory=dict)


def read_cells(file: Path, demo: bool = False) -> list[Cell]:
    """The cells of a benchmark file: each of `cells` over what `every` says, and with demo what `demo` sets.

    A cell may say what `demo` sets for it alone. Raises ValueError for unknown keys, or where a name comes twice.
    """
    table = yaml.safe_load(file.read_text())
    every, cells = table.get("every", {}), []
    for given in table["cells"]:
        own = given.pop("demo", {})
        merged = {**every, **given}
        merged["set"] = {**every.get("set", {}), **(table.get("demo", {}) if demo else {}), **given.get("set", {})}
        merged["set"] |= own if demo else {}
        known = {one.name for one in fields(Cell)}
        unknown = sorted(merged.keys() - known)
        if unknown:
            raise ValueError(
                f"{file}: {given.get('name')}: {', '.join(unknown)} unknown; {', '.join(sorted(known))} may be said"
            )
        cells.append(Cell(**merged))
    names = [cell.name for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{file}: {', '.join(twice)}: every cell needs a name of its own")
    return cells


def arguments(cell: Cell, dataset: str, seed: int, runs: Path, world: Path | None) -> list[str]:
    """What the command is given besides its verb; world: where demo copies are rendered, None for real data."""
    configs = [("systems", cell.system), ("data", dataset), ("machines", cell.machine)]
    said = [part for folder, name in configs for part in ("-c", f"configs/{folder}/{name}.yaml")]
    values = {"runs": str(runs), "seed_everything": seed, "data.seed": seed, **cell.set}
    values |= {} if world is None else {"data.demo": True, "data.root": str(world / dataset)}
    values |= {"trainer.enable_progress_bar": False, "trainer.enable_model_summary": False, "trainer.logger": False}
    return said + [part for key, value in values.items() for part in (f"--{key}", _spelled(value))]


def _spelled(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def newest(folder: Path, pattern: str) -> Path:
    """The file below a folder that was written last. Raises ValueError where there is none."""
    files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime)
    if not files:
        raise ValueError(f"{folder}: the command left no {pattern}")
    return files[-1]


def run_cell(cell: Cell, runs: Path, world: Path | None) -> Iterator[dict[str, Any]]:
    """Fits once per seed and tests on every dataset: a row each. What the command prints is appended to runs/log.txt.

    Raises ValueError with the last lines of that log where a command fails.
    """
    for seed in cell.seeds:
        folder = runs / f"seed_{seed}"
        start, checkpoint = time.perf_counter(), []
        apart = cell.machine != "cpu"  # several processes are started with this one's own command
        if cell.fit is not None:
            command(["fit", *arguments(cell, cell.fit, seed, folder, world)], runs / "log.txt", apart)
            checkpoint = ["--ckpt_path", str(newest(folder, "**/last.ckpt"))]
        fit_s = time.perf_counter() - start
        for dataset in cell.test:
            command(["test", *arguments(cell, dataset, seed, folder, world), *checkpoint], runs / "log.txt", apart)
            facts = json.loads(newest(folder, "**/test-*/metrics.json").read_text())
            protocol, metrics = facts["protocol"], facts["metrics"]
            chosen = protocol.get("layer", protocol.get("heads"))
            named = (
                " ".join(f"L{layer}H{head}" for layer, head in sorted(chosen)) if isinstance(chosen, list) else chosen
            )
            row = {"cell": cell.name, "fit": cell.fit, "test": dataset, "seed": seed, "chosen": named, "fit_s": fit_s}
            yield row | metrics


def command(args: list[str], log: Path, apart: bool = False) -> None:
    """The `lightning` command, in this process or `apart`. Raises ValueError with what it said where it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    said = io.StringIO()
    try:
        if apart:
            done = subprocess.run([sys.executable, "-m", "cli", *args], capture_output=True, text=True, check=False)
            said.write(done.stdout + done.stderr)
            if done.returncode:
                raise SystemExit(done.returncode)
            return
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main(args)
    except SystemExit as stop:
        if stop.code == 130:
            raise KeyboardInterrupt from None
        raise ValueError(said.getvalue().strip()[-500:]) from None
    except Exception as error:  # out of memory, a NaN: this cell's end and not the table's
        raise ValueError(f"{type(error).__name__}: {error}") from error
    finally:
        with log.open("a") as file:
            file.write(f"$ lightning {' '.join(args)}\n{said.getvalue()}\n")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, a line per cell and test set: what was chosen, and each metric as its mean over seeds.

    With one seed the 95 % interval over videos stands behind frame_auroc; with several, their standard deviation.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["cell"], row["test"]), []).append(row)
    shown = [key for key in SHOWN if any(key in row for row in rows)]
    lines = [["cell", "test", "seeds", "chosen", *shown], ["---"] * (4 + len(shown))]
    for (cell, test), group in groups.items():
        chosen: dict[str, int] = {}
        for row in group:
            chosen[str(row["chosen"])] = chosen.get(str(row["chosen"]), 0) + 1
        most = sorted(chosen, key=lambda name: -chosen[name])
        named = ", ".join(name if len(group) == 1 else f"{name} ({chosen[name]}x)" for name in most if name != "None")
        lines.append([cell, test, str(len(group)), named or "-", *(_number(group, key) for key in shown)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _number(group: Sequence[Mapping[str, Any]], key: str) -> str:
    values = [float(row[key]) for row in group if key in row]
    if not values:
        return "-"
    if len(values) > 1:
        return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
    low, high = (group[0].get(f"{key}_{end}") for end in ("low", "high"))
    return f"{values[0]:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def write_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Every number of every row, as CSV."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)


def run(file: Path, out: Path, demo: bool, world: Path) -> None:
    """Every cell of a file, one after another; a failed one is told and the others go on. Status 1 if any failed.

    Writes out/rows.csv and out/table.md after each cell, and prints the table at the end.
    """
    rows: list[dict[str, Any]] = []
    failed = []
    out.mkdir(parents=True, exist_ok=True)
    cells = read_cells(file, demo)
    for number, cell in enumerate(cells, 1):
        start = time.perf_counter()
        try:
            rows.extend(run_cell(cell, out / re.sub(r"\W+", "_", cell.name), world if demo else None))
        except ValueError as error:
            failed.append(cell.name)
            print(f"{number}/{len(cells)} {cell.name} failed: {error}", flush=True)
            continue
        print(f"{number}/{len(cells)} {cell.name}: {time.perf_counter() - start:.0f} s", flush=True)
        write_rows(out / "rows.csv", rows)
        (out / "table.md").write_text(table(rows))
    if rows:
        print(f"\n{table(rows)}\nEvery number: {out / 'rows.csv'}")
    if failed:
        raise SystemExit(f"{len(failed)} of {len(cells)} cells failed: {', '.join(failed)}; see their log.txt")


def parse(args: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(prog="benchmark.py", description="Tables of cells, each fitted and tested.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("run", help="fit and test every cell of a file")
    verb.add_argument("file", type=Path, help="configs/benchmarks/*.yaml")
    verb.add_argument("--demo", action="store_true", help="on rendered copies of the datasets, with small backbones")
    verb.add_argument("--world", type=Path, default=Path("demo_world"), help="where the demo copies are rendered")
    verb.add_argument("--out", type=Path, help="where runs, rows.csv and table.md go; runs/benchmark/FILE by default")
    return parser.parse_args(args)


if __name__ == "__main__":
    given = parse()
    try:
        run(given.file, given.out or Path("runs") / "benchmark" / given.file.stem, given.demo, given.world)
    except (ValueError, OSError, TypeError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
