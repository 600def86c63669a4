"""The benchmark runner: plan, run, report, score, verify. `python benchmark.py run configs/benchmarks/demo.yaml`

A thin front: cells are in vigil/cells.py, their processes in vigil/runner.py, the tables in vigil/leaderboard.py. None
of it imports torch; what does is the `lightning` command that each cell starts.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vigil.cells import ROOT, Benchmark, Place, read_benchmark
from vigil.records import DONE, MISSING, NOT_THERE, Planned, plan, weights_lacking
from vigil.staleness import download_gb

STEP_WORDS = "cell", "seed", "step", "state", "hours", "why"


def parse(args: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(
        prog="benchmark.py", description="Tables of cells, each a system fitted on data and tested on data."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    says = {
        "plan": "what would run, what is there already, what is missing, how long it takes",
        "run": "fit and test every cell that is not done; the same command goes on where it stopped",
        "report": "the leaderboard of a file, or without one of results/: Markdown, CSV and a page",
        "score": "judge somebody else's scores.csv as this file's systems are judged",
        "verify": "recompute every number from what the runs stored; status 1 at any difference",
    }
    for verb, help_text in says.items():
        one = verbs.add_parser(verb, help=help_text, description=help_text)
        optional = {"nargs": "?"} if verb == "report" else {}
        one.add_argument("file", type=Path, help="configs/benchmarks/*.yaml, or a measured.csv to verify", **optional)
        one.add_argument("--demo", action="store_true", help="on rendered copies of the datasets, with small backbones")
        one.add_argument("--out", type=Path, help="where runs and tables go; runs/benchmark/FILE by default")
        one.add_argument("--world", type=Path, default=Path("demo_world"), help="where the demo copies are rendered")
        one.add_argument("--data", type=Path, help="a folder with a folder per dataset; by default as the configs say")
        one.add_argument("--machine", help="of configs/machines, instead of what the cells name")
        one.add_argument("--only", nargs="+", metavar="CELL", help="these cells alone, and fits that they take")
        one.add_argument("--tests", nargs="+", metavar="DATASET", help="these test sets alone")
        one.add_argument(
            "--gpus", help="which to hand out, as 0,1; by default all that CUDA_VISIBLE_DEVICES or the driver names"
        )
    runner = verbs.choices["run"]
    runner.add_argument("--jobs", type=int, default=1, help="steps without a GPU at a time")
    runner.add_argument("--launcher", choices=("local", "slurm"), default="local")
    runner.add_argument(
        "--slurm", nargs="*", default=[], metavar="KEY=VALUE", help="submitit's, as slurm_partition=gpu"
    )
    verbs.choices["report"].add_argument(
        "--check", action="store_true", help="compare the README's tables, write nothing"
    )
    verbs.choices["report"].add_argument(
        "--publish", action="store_true", help="put the table into results/ and README"
    )
    submitted = verbs.choices["score"]
    submitted.add_argument("--scores", type=Path, required=True, help="video,first_frame,end_frame,score[,refined]")
    submitted.add_argument("--name", required=True, help="the row's name")
    submitted.add_argument("--test", help="which of the file's test sets; needed where there are several")
    submitted.add_argument("--like", metavar="CELL", help="judged as this cell is, where cells are judged differently")
    submitted.add_argument("--supervision", default="not stated")
    given = parser.parse_args(args)
    name = "results" if given.file is None or given.file.suffix == ".csv" else given.file.stem
    given.out = given.out or Path("runs") / "benchmark" / (name + ("-demo" if given.demo else ""))
    return given


def opened(given: argparse.Namespace) -> tuple[Benchmark, Place]:
    """The benchmark that a command line names, and where it runs."""
    found = read_benchmark(given.file, given.demo)
    cells = found.cells
    if given.only:
        unknown = sorted(set(given.only) - {cell.name for cell in cells})
        if unknown:
            raise ValueError(f"--only {'; '.join(unknown)}: the cells are {'; '.join(cell.name for cell in cells)}")
        cells = [cell for cell in cells if cell.name in given.only]
    if given.tests:
        unknown = sorted(set(given.tests) - {name for cell in cells for name in cell.test})
        if unknown:
            raise ValueError(f"--tests {', '.join(unknown)}: no cell is tested on it")
        cells = [cell for cell in cells if set(cell.test) & set(given.tests)]
    if given.machine and not (ROOT / "configs" / "machines" / f"{given.machine}.yaml").is_file():
        raise ValueError(f"--machine {given.machine}: no configs/machines/{given.machine}.yaml")
    cells = list(cells)
    for cell in cells:
        cell.test = [name for name in cell.test if not given.tests or name in given.tests]
        for fitted in cell.fits.values():
            if fitted not in cells:  # its fit alone is run, for this cell; the loop comes to it as well
                fitted.test = []
                cells.append(fitted)
        cell.machine = given.machine or cell.machine
    place = Place(given.out, given.world if found.demo else None, given.data)
    return Benchmark(found.table, cells, found.demo, found.left_out), place


def whole(given: argparse.Namespace) -> list[list[Planned]]:
    """Every step of the file as it stands now, whatever --only and --tests say: what is done stays in the tables."""
    everything, place = opened(argparse.Namespace(**{**vars(given), "only": None, "tests": None}))
    return plan(everything.cells, place, None)


def pool(given: argparse.Namespace) -> list[str]:
    """The GPUs to hand out."""
    from vigil.provenance import gpus

    said = given.gpus if given.gpus is not None else os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        return [str(number) for number in range(len(gpus()))]
    return [part.strip() for part in said.split(",") if part.strip() and part.strip() != "-1"]


def show_plan(given: argparse.Namespace) -> int:
    """Print what would run."""
    benchmark, place = opened(given)
    chains = plan(benchmark.cells, place, len(pool(given)))
    steps = [one for chain in chains for one in chain]
    lines = [STEP_WORDS]
    for one in steps:
        hours = "" if one.state in (DONE, NOT_THERE) else "?" if one.seconds is None else f"{one.seconds / 3600:.2f}"
        why = "see below" if one.state == MISSING else (one.why.splitlines() or [""])[0]
        lines.append((one.step.cell.name, str(one.step.seed), one.step.name, one.state, hours, why))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    for line in lines:
        print("  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[5]]).rstrip())
    waiting = [one for one in steps if one.state not in (DONE, NOT_THERE, MISSING)]
    known = [one.seconds for one in waiting if one.seconds is not None]
    unknown = len(waiting) - len(known)
    print(f"\n{len(waiting)} steps to run: {sum(known) / 3600:.2f} hours", end="")
    print(f", and {unknown} steps whose like never ran here" if unknown else "")
    for reason in dict.fromkeys(part for one in steps if one.state == MISSING for part in one.why.split("; also ")):
        print(f"missing: {reason}")
    lacking = weights_lacking(chains)
    for text in lacking.values():
        print(f"missing: {text}")
    sizes = [size for size in map(download_gb, lacking) if size]
    if lacking:
        print(f"{sum(sizes):.0f} GB of weights to fetch, and {len(lacking) - len(sizes)} of unknown size")
    for name in benchmark.left_out:
        print(f"left out of the demo: {name}, which the small backbone cannot tell from another cell")
    return 0


def run(given: argparse.Namespace) -> int:
    """Run what is not done, and write the tables."""
    from vigil.launchers import Launcher, Local, Slurm
    from vigil.results import keep_result
    from vigil.runner import Runner, alone
    from vigil.runner_view import View
    from vigil.tables import write_tables

    benchmark, place = opened(given)
    if given.jobs < 1:
        raise ValueError(f"--jobs {given.jobs}: at least 1 is expected")
    launcher: Launcher = Local()
    if given.launcher == "slurm":
        wrong = [part for part in given.slurm if "=" not in part]
        if wrong:
            raise ValueError(f"--slurm {wrong[0]}: KEY=VALUE is expected, as slurm_partition=gpu")
        options = dict(part.split("=", 1) for part in given.slurm)
        launcher = Slurm(place.out / "slurm", {key: int(v) if v.isdigit() else v for key, v in options.items()})
    with alone(place.out):
        cards = pool(given)
        chains = plan(benchmark.cells, place, None if launcher.elsewhere else len(cards))
        with View(place.out) as view:
            runner = Runner(
                chains, launcher, cards, given.jobs, lambda step: keep_result(benchmark.table, step), view.changed
            )
            status = runner.run()
        text = write_tables(place, whole(given), chains)
    print(f"\n{text}\nTables and pages: {place.out / 'leaderboard.html'}, .md, .csv; every number: measured.csv")
    return status


def report(given: argparse.Namespace) -> int:
    """Write the tables of what has run, or compare the README's with the results."""
    from vigil import tables

    if given.check:
        wrong = tables.readme_differs()
        print("\n".join(wrong) or "The README's tables are those of results/measured.csv.")
        return int(bool(wrong))
    if given.file is None or given.file.suffix == ".csv":
        measured = given.file.parent if given.file else ROOT / "results"
        given.out.mkdir(parents=True, exist_ok=True)
        print(tables.write_leaderboard(measured, given.out))
    else:
        benchmark, place = opened(given)
        everything = whole(given)
        print(tables.write_tables(place, everything, plan(benchmark.cells, place, None)))
        if given.publish:
            tables.publish(benchmark.table, place.out, everything)
    print(f"Written: {given.out / 'leaderboard.html'}, .md, .csv")
    return 0


def score(given: argparse.Namespace) -> int:
    """Judge somebody else's scores as the file's systems are judged, and add the row to the tables."""
    from vigil import tables
    from vigil.submission import judge_submission

    benchmark, place = opened(given)
    chains = whole(given)
    row = judge_submission(
        benchmark.table, place.out, tables.rows_of(place.out, chains), given.scores, given.name, given.test,
        given.supervision, given.like,
    )  # fmt: skip
    tables.write_tables(place, chains, chains)
    for key in ("frame_auroc", "frame_auroc_low", "frame_auroc_high", "frame_ap", "frame_auroc_refined"):
        if key in row:
            print(f"{key:20} {row[key]:.4f}")
    print(f"Added to {place.out / 'leaderboard.html'}")
    return 0


def verify(given: argparse.Namespace) -> int:
    """Recompute every number from what was stored."""
    import csv

    from vigil.results import differences

    measured = given.file if given.file.suffix == ".csv" else given.out / "measured.csv"
    if not measured.is_file():
        raise FileNotFoundError(f"{measured}: no such file; `python benchmark.py run {given.file}` writes it")
    with measured.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    wrong = [text for row in rows for text in differences(row, measured.parent)]
    print("\n".join(wrong))
    print(f"{measured}: {len(rows)} rows, {len(wrong)} differences from what their runs stored")
    return int(bool(wrong) or not rows)


def main(args: Sequence[str] | None = None) -> int:
    """One verb; returns its exit status."""
    given = parse(args)
    verbs = {"plan": show_plan, "run": run, "report": report, "score": score, "verify": verify}
    try:
        return verbs[given.verb](given)
    except (ValueError, OSError) as error:
        if os.environ.get("VIGIL_TRACEBACK"):
            raise
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
