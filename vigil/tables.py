"""What a benchmark's folder and the project's results hold together: tables, the README's among them. No torch."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vigil import leaderboard
from vigil.caption_table import caption_table
from vigil.cells import ROOT, Place
from vigil.comparison import DetailsIn
from vigil.measured import Row
from vigil.records import DONE, FAILED, MISSING, NOT_THERE, Planned, read_record
from vigil.results import collect, controls_of, pictures, write_measured
from vigil.stored import read_scores, read_truth

CLAIMS = ROOT / "results" / "claims.csv"
STORED = (
    "truth.csv",
    "scores.csv",
    "captions.csv",
    "class_scores.csv",
    "pixel_histogram.npz",
    "regions.npz",
    "metrics.json",
    "details.json",
    "row.json",
)  # what a published row keeps of its run
README = ROOT / "README.md"
SAMPLES = 4  # events whose captions are shown beside one another
# a benchmark file's name and, to show some of its tables alone, datasets: `leaderboard: demo on UCF-Crime, UBnormal`
MARKED = re.compile(r"(<!-- leaderboard: ([\w-]+)(?: on ([^>]+?))? -->\n)(.*?)(<!-- end of leaderboard -->)", re.DOTALL)


def write_tables(place: Place, chains: Sequence[Sequence[Planned]], asked: Sequence[Sequence[Planned]]) -> str:
    """measured.csv and leaderboard.md, .csv, .html of all finished tests in the benchmark's folder; the Markdown.

    Where systems were judged by what they say, captions.md has their captions of some events beside one another.
    chains: of the whole file, whose results stay in the tables; asked: those whose lack of a result is told.
    """
    rows = rows_of(place.out, chains)
    write_measured(place.out / "measured.csv", rows)
    text = write_leaderboard(place.out, place.out, unfinished(asked))
    said = captions(place.out, rows)
    (place.out / "captions.md").unlink(missing_ok=True)  # of rows that are no longer there
    if said:
        (place.out / "captions.md").write_text(said)
        text += f"\nWhat the systems say of the same events: {place.out / 'captions.md'}\n"
    return text


def captions(out: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows' systems say of the same events, a Markdown table for each test and protocol; empty without any.

    Of a cell with several seeds the first one's.
    """
    groups: dict[tuple[str, str], dict[str, Path]] = {}
    titles: dict[tuple[str, str], str] = {}
    for row in rows:
        file = out / row["folder"] / "captions.csv"
        if row.get("caption_sbert") is not None and file.is_file():
            key = (row["test"], json.dumps(row["protocol"]["judged"], sort_keys=True, default=str))
            groups.setdefault(key, {}).setdefault(row["cell"], file)
            titles[key] = f"{row['dataset']}{', demo copy' if row['demo'] else ''}"
    return "\n".join(f"### {titles[key]}\n\n{caption_table(files, SAMPLES)}" for key, files in groups.items())


def rows_of(out: Path, chains: Sequence[Sequence[Planned]]) -> list[dict[str, Any]]:
    """The rows of finished tests, of scores from elsewhere, and of the controls judged as any of them is."""
    done = [one.step for chain in chains for one in chain if one.step.verb == "test" and one.state == DONE]
    rows = collect(out, (step.folder / read_record(step.record)["result"] for step in done))
    rows += collect(out, sorted(file.parent for file in out.glob("submitted/*/*/row.json")))
    controls = [folder for row in rows for folder in controls_of(row, out / row["folder"], out / "controls")]
    return rows + collect(out, dict.fromkeys(controls))


def unfinished(chains: Sequence[Sequence[Planned]]) -> list[dict[str, Any]]:
    """The steps without a result, for the tables: tests, and fits that failed or cannot run."""
    found = []
    for one in (one for chain in chains for one in chain if one.state != DONE):
        step = one.step
        if step.verb == "test" or one.state in (FAILED, MISSING):
            told = {"cell": step.cell.name, "test": step.name, "seed": step.seed}
            found.append({**told, "state": one.state, "why": one.why})
    return found


def write_leaderboard(measured: Path, out: Path, missing: Sequence[dict[str, Any]] = ()) -> str:
    """leaderboard.md, .csv and .html in `out`, of measured.csv in the folder `measured`; returns the Markdown."""
    rows, claims = leaderboard.read_measured(measured / "measured.csv"), leaderboard.read_claims(CLAIMS)
    details = WithCurves(measured)
    text = leaderboard.markdown(rows, claims, missing, details)
    (out / "leaderboard.md").write_text(text)
    leaderboard.write_csv(out / "leaderboard.csv", rows, claims, details)
    leaderboard.write_page(out / "leaderboard.html", rows, claims, details, missing)
    return text


def publish(table: str, out: Path, chains: Sequence[Sequence[Planned]]) -> None:
    """Put a benchmark's rows, and what is needed to judge them again, into results/, and its table into the README.

    Raises ValueError where a step of a system that is there has no result that stands, or a row no commit.
    """
    lacking = [one for chain in chains for one in chain if one.state not in (DONE, NOT_THERE)]
    if lacking:
        first = lacking[0]
        raise ValueError(
            f"{out}: {len(lacking)} steps have no result to publish, as {first.step.cell.name}, {first.step.name}: "
            f"{first.state} {first.why}; run them, of all cells and test sets"
        )
    results = ROOT / "results"
    with (out / "measured.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    if any(row["dirty"] not in ("False", "") for row in rows):
        raise ValueError(
            f"{out}: rows of code, configs or weights that no commit holds; commit them, delete {out} and run again"
        )
    stored = results / "stored" / table
    shutil.rmtree(stored, ignore_errors=True)
    for number, row in enumerate(rows):
        name = re.sub(r"\W+", "_", f"{row['cell']} {row['test']} {row['seed']}")
        target = stored / f"{number:03d}_{name}"
        target.mkdir(parents=True)
        for file in STORED:
            if (out / row["folder"] / file).is_file():
                shutil.copyfile(out / row["folder"] / file, target / file)
        if (target / "details.json").is_file():  # the curves are in scores.csv, five times as small
            found = json.loads((target / "details.json").read_text())
            (target / "details.json").write_text(json.dumps({**found, "curves": {}}) + "\n")
        row["folder"] = target.relative_to(results).as_posix()
    measured = results / "measured.csv"
    others: list[dict[str, Any]] = []
    if measured.is_file():
        with measured.open(newline="") as stream:
            others = [row for row in csv.DictReader(stream) if row["table"] != table]
    write_measured(measured, others + rows)
    README.write_text(_with_tables(README.read_text()))


def readme_differs() -> list[str]:
    """The tables of the README that are not those which results/ gives, in words."""
    text = README.read_text()
    new = _with_tables(text)
    if not MARKED.search(text):
        return ["README.md has no table: a line `<!-- leaderboard: NAME -->` and one `<!-- end of leaderboard -->`"]
    pairs = zip(MARKED.finditer(text), MARKED.finditer(new), strict=True)
    return [
        f"README.md: the table {old[2]} is not the one that results/measured.csv gives; `report FILE --publish` "
        "writes it"
        for old, made in pairs
        if old[4] != made[4]
    ]


def _with_tables(text: str) -> str:
    """The README's text with each marked table made of the results."""
    results = ROOT / "results"
    if not (results / "measured.csv").is_file():
        raise FileNotFoundError(f"{results / 'measured.csv'}: no such file; `report FILE --publish` makes it of a run")
    rows, claims = leaderboard.read_measured(results / "measured.csv"), leaderboard.read_claims(CLAIMS)

    def made(found: re.Match[str]) -> str:
        datasets = found[3].split(", ") if found[3] else None
        chosen = [row for row in rows if row.table == found[2] and (datasets is None or row.dataset in datasets)]
        table = leaderboard.markdown(chosen, claims, (), leaderboard.details_in(results))
        return f"{found[1]}{table}{found[5]}"

    return MARKED.sub(made, text)


class WithCurves(DetailsIn):
    """Reads details.json of a run; the curves of a published row, left out there, come from its scores.csv."""

    def __call__(self, row: Row) -> dict[str, Any] | None:
        found, folder = super().__call__(row), self.folder / row.folder
        if found is None or found.get("curves", True) or not (folder / "scores.csv").is_file():
            return found
        videos = read_truth(folder / "truth.csv")
        return {**found, "curves": pictures(videos, *read_scores(folder / "scores.csv", videos))}
