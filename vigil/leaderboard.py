"""The leaderboard: measured rows, controls and published numbers, as Markdown, as CSV and as a page."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vigil.claims import Claim, Published, by_method, canonical, conflicts, notes, read_claims, said
from vigil.comparison import Details, details_in, verdict
from vigil.leaderboard_page import write_page
from vigil.leaderboard_rows import claims_of, printed
from vigil.measured import BASES, COST, METRIC, Entry, Row, Table, bound_key, read_measured, tables
from vigil.wording import chosen_of, cost_of, label, protocol_value, stands_apart

__all__ = ["details_in", "markdown", "read_claims", "read_measured", "write_csv", "write_page"]

HEADLINES = (  # what the README shows beside the main metric; the page shows all
    *("frame_auroc", "frame_ap", "frame_auroc_anomalous", "event_map", "pixel_auroc", "rbdc", "tbdc"),
    *("top1", "top2", "top3", "top_expansion", "class_ece", "class_ece_scaled"),
    *("caption_sbert", "caption_distinct2", "caption_template"),
)
LEGEND = (
    "[low, high] is the 95 % interval of one run by bootstrap over videos, ± the standard deviation over seeds. "
    "Controls are in italics. A published number was judged by its authors, under a protocol that is not known or "
    "not this one: it stands beside a row, it does not compete with it."
)


def markdown(
    rows: Sequence[Row],
    claims: Sequence[Claim],
    unfinished: Sequence[Mapping[str, Any]],
    details: Details | None = None,
) -> str:
    """Every table as Markdown under its heading, then the cells that are not in any, each with the first line of why.

    details: what gives a run's details.json; with it the controls column tells the paired difference to the best one.
    Raises ValueError where a row names a claim that no line of the claims has.
    """
    refuse_unknown_claims(rows, claims)
    marks, published = conflicts(claims), by_method(claims)
    parts = [_table(table, published, marks, details) for table in tables(rows)]
    if not parts:
        parts = ["No row is measured yet.\n"]
    if unfinished:
        lines = [f"- {_text(told)}" for told in (_unfinished(cell) for cell in unfinished)]
        parts.append("Not in the tables:\n\n" + "\n".join(lines) + "\n")
    return "\n".join([*parts, LEGEND + "\n"])


def refuse_unknown_claims(rows: Iterable[Row], claims: Sequence[Claim]) -> None:
    """Raises ValueError naming the row whose claim is no method of the claims."""
    names = {claim.name for claim in claims}
    for row in rows:
        if row.claim and canonical(row.claim) not in names:
            raise ValueError(
                f"measured.csv, line {row.line}: {row.cell!r} is to stand beside the claim {row.claim!r}, which is no "
                "method of claims.csv; write the method as it stands there, or leave the claim empty"
            )


def _table(table: Table, published: Published, marks: Mapping[Claim, str], details: Details | None) -> str:
    main = table.first.main_metric
    others = [key for key in HEADLINES if key != main and any(key in e.first.metrics for e in table.entries)]
    final = [f"{main}_refined", f"{main}_gated"]
    shown = [main, *(key for key in final if any(key in e.first.metrics for e in table.entries)), *others]
    has_chosen = any(chosen_of(entry) for entry in table.entries)
    has_cost = any(cost_of(entry) for entry in table.entries)
    has_claim = any(claims_of(entry, published) for entry in table.entries)
    heads = ["system", "supervision", *map(label, shown), *(["published"] if has_claim else [])]
    heads += [*(["chosen"] if has_chosen else []), *(["cost"] if has_cost else []), "controls"]
    lines, footnotes = [heads, ["---"] * len(heads)], []
    for entry in table.entries:
        row = entry.first
        name = _text(entry.name) + (" †" if entry.is_oracle else "")
        values = [str(value) if (value := entry.value(key)) else "" for key in shown]
        told = claims_of(entry, published)
        beside = ", ".join(dict.fromkeys(printed(claim, main) for claim in told))
        if told:
            footnotes.append(_footnote(told, marks, main))
            beside += f" [{len(footnotes)}]" + (" ⚠" if any(claim in marks for claim in told) else "")
        cost = ([_text(chosen_of(entry))] if has_chosen else []) + ([cost_of(entry)] if has_cost else [])
        controls = "" if entry.is_control else _text(str(verdict(entry, table, details)))
        name = f"*{name}*" if entry.is_control else name
        lines.append([name, _text(row.supervision), *values, *([beside] if has_claim else []), *cost, controls])
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    below = [f"Stands apart from the table above: {_text(stands_apart(table))}."] if table.differs else []
    below += ["† chosen on the test set."] if any(entry.is_oracle for entry in table.entries) else []
    below += [f"[{number}] {_text(footnote)}" for number, footnote in enumerate(footnotes, 1)]
    return f"### {_text(table.title)}\n\n{text}\n" + "".join(f"\n{line}\n" for line in below)


def _footnote(told: Sequence[Claim], marks: Mapping[Claim, str], main: str) -> str:
    known = list(dict.fromkeys(note for claim in told for note in notes(claim)))
    contradicted = " ⚠ The values contradict one another." if any(claim in marks for claim in told) else ""
    values = "; ".join(
        ("" if key == main else f"{label(key)} ") + said(claim for claim in told if claim.metric == key)
        for key in dict.fromkeys(claim.metric for claim in told)
    )
    return f"{told[0].name}: {values}.{contradicted}" + "".join(f" {note[0].upper()}{note[1:]}." for note in known)


def _unfinished(cell: Mapping[str, Any]) -> str:
    """The cell, its state and the first line of why."""
    why = cell.get("why") or ""
    lines = why.splitlines() if isinstance(why, str) else [str(line) for line in why]
    first = next((line.strip() for line in lines if line.strip()), "")
    seed = f", seed {cell['seed']}" if cell.get("seed") not in {None, ""} else ""
    test = f" on {cell['test']}" if cell.get("test") else ""
    return f"{cell['cell']}{test}{seed}: {cell['state']}" + (f": {first}" if first else "")


def _text(text: str) -> str:
    """Text that Markdown shows as it is, in a cell of a table too."""
    text = re.sub(r"\s+", " ", text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([|*`\\]|(?<=\])\()", r"\\\1", text)


def write_csv(file: Path, rows: Sequence[Row], claims: Sequence[Claim], details: Details | None = None) -> None:
    """Every entry and every claim, a line each: `what` says which, `table` which entries may be compared.

    Values are means over seeds, fractions for claims too; `marks` holds what the page marks: conflicts, notes, a choice
    on the test set, controls that are not beaten, and the protocol fields that keep a table apart.
    """
    refuse_unknown_claims(rows, claims)
    lines = [
        _line(entry, table, number, details) for number, table in enumerate(tables(rows), 1) for entry in table.entries
    ]
    marks = conflicts(claims)
    lines += [_claim_line(claim, marks) for claim in claims]
    keys = dict.fromkeys(key for line in lines for key in line)
    metrics = sorted((key for key in keys if METRIC.fullmatch(key)), key=lambda key: (BASES.index(_base(key)), key))
    last = ["source", "marks", "command"]
    columns = [key for key in keys if key not in {*metrics, *COST, *last}] + [*metrics, *COST, *last]
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _base(key: str) -> str:
    found = METRIC.fullmatch(key)
    return found[1] if found else key


def _line(entry: Entry, table: Table, number: int, details: Details | None) -> dict[str, Any]:
    row, main = entry.first, entry.main
    marks = ["chosen on the test set"] if entry.is_oracle else []
    marks += [] if entry.is_control else [str(verdict(entry, table, details))]
    marks += [f"stands apart: {stands_apart(table)}"] if table.differs else []
    bounds = set() if len(entry.runs) == 1 else {bound_key(key, end) for key in row.metrics for end in ("low", "high")}
    values = {key: value.mean for key in row.metrics if key not in bounds and (value := entry.value(key))}
    low_high = (main.interval.low, main.interval.high) if main and main.interval else ("", "")
    return {
        **{"what": "measured", "table": number, "dataset": row.dataset, "demo": int(row.demo), "variant": ""},
        **{"name": entry.name, "kind": row.kind, "supervision": row.supervision, "metric": row.main_metric},
        **{"value": main.mean if main else "", "spread": main.spread if main and main.spread is not None else ""},
        **{"low": low_high[0], "high": low_high[1], "seeds": " ".join(str(run.seed) for run in entry.runs)},
        **{"backbone": protocol_value(row.stated.get("backbone", "")), "claim": row.claim},
        **values,
        **{key: sum(run.cost[key] for run in entry.runs) / len(entry.runs) for key in _shared_cost(entry)},
        **{"marks": "; ".join(marks), "command": row.command},
    }


def _shared_cost(entry: Entry) -> list[str]:
    return [key for key in COST if all(key in run.cost for run in entry.runs)]


def _claim_line(claim: Claim, marks: Mapping[Claim, str]) -> dict[str, Any]:
    told = [f"⚠ {marks[claim]}"] if claim in marks else []
    return {
        **{"what": "published", "dataset": claim.dataset, "demo": 0, "variant": claim.variant, "name": claim.method},
        **{"supervision": claim.supervision, "metric": claim.metric, "value": claim.fraction},
        **{"backbone": claim.backbone, "source": claim.source, "marks": "; ".join([*told, *notes(claim)])},
        **{"year": claim.year, "venue": claim.venue},
    }
