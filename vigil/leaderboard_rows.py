"""The leaderboard page's tables, row by row, as HTML; every text from outside is escaped here. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from vigil.claims import Claim, Published, canonical, notes
from vigil.comparison import Details, verdict
from vigil.measured import BASES, METRIC, Entry, Table, Value, better
from vigil.wording import label, parameters, protocol_value, seconds, stands_apart

SHOWN = (  # as columns; a row's own page has all
    *("frame_auroc", "frame_ap", "frame_auroc_anomalous", "video_auroc", "event_map", "false_alarms_per_hour"),
    *("pixel_auroc", "pixel_ap", "rbdc", "tbdc", "top1", "top2", "top3", "top_expansion", "class_ece"),
    *("class_ece_scaled", "caption_sbert", "caption_distinct2", "caption_template", "ece"),
)
COSTS: dict[str, tuple[str, Callable[[float], str]]] = {
    "trained_parameters": ("trained parameters", parameters),
    "fit_s": ("fit", seconds),
    "frames_per_second": ("frames/s", lambda number: f"{number:,.0f}"),
    "peak_memory_mb": ("peak memory, MB", lambda number: f"{number:,.0f}"),
}
KINDS_SHOWN = {"system": ("", ""), "control": (" control", "control"), "submitted": (" submitted", "scores handed in")}


def as_json(value: Any) -> str:
    """JSON that no text within it can end early, in a script element or in an attribute once that is escaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


@dataclass(frozen=True, eq=False)
class Beside:
    """What stands beside the measured rows: published numbers, their conflicts, and what gives a run's details."""

    published: Published
    marks: Mapping[Claim, str]
    details: Details


@dataclass(frozen=True)
class _Columns:
    """A table's columns: the main metric, raw, refined and gated; claims, where any row has one; other metrics; costs.

    scale: the range of the main metric.
    """

    main: list[str]
    has_claims: bool
    others: list[str]
    costs: list[str]
    scale: tuple[float, float]

    @classmethod
    def of(cls, table: Table, published: Published) -> _Columns:
        has = {key for entry in table.entries for key in entry.first.metrics}
        first = table.first.main_metric
        main = [key for key in (first, f"{first}_refined", f"{first}_gated") if key in has]
        others = [key for key in SHOWN if key in has and key not in main]
        costs = [key for key in COSTS if any(_cost(entry, key) is not None for entry in table.entries)]
        has_claims = any(claims_of(entry, published) for entry in table.entries)
        return cls(main, has_claims, others, costs, _scale(table))

    def head(self) -> str:
        def cell(text: str, number: bool) -> str:
            return f'<th scope="col"{" class=number" if number else ""}>{escape(text)}</th>'

        words = [cell("System", False), cell("Supervision", False), *(cell(label(key), True) for key in self.main)]
        words += [*([cell("Published", False)] if self.has_claims else []), cell("Against the controls", False)]
        words += [cell(label(key), True) for key in self.others]
        return "".join([*words, *(cell(COSTS[key][0], True) for key in self.costs)])


def measured_section(table: Table, name: str, numbers: Mapping[Entry, int], beside: Beside) -> str:
    """A table of entries that may be compared, with its protocol above and the form for pairs below it."""
    main, columns, title = table.first.main_metric, _Columns.of(table, beside.published), escape(table.title)
    body = "".join(_row(entry, numbers[entry], table, columns, beside) for entry in table.entries)
    apart = (
        f'<p class="apart">Stands apart from the first table of {escape(table.first.dataset)}: '
        f"{escape(stands_apart(table))}.</p>"
        if table.differs
        else ""
    )
    judged = "".join(_term(field, value) for field, value in table.first.judged.items())
    oracle = "<p>† Chosen on the test set.</p>" if any(entry.is_oracle for entry in table.entries) else ""
    return (
        f'<section class="measured" id="{name}" data-dataset="{escape(table.first.dataset)}" '
        f'data-judged="{escape(as_json(_fields(table.first.judged)))}" '
        f'data-metric="{escape(main)}">\n<h2>{title}</h2>{apart}'
        f'<details class="protocol"><summary>How its rows were judged</summary><dl>{judged}</dl></details>\n'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}, measured">'
        f'<table class="rows"><caption>Measured here. Best first by {escape(label(main))}.</caption>'
        f"<thead><tr>{columns.head()}</tr></thead><tbody>{body}</tbody></table></div>{oracle}\n"
        f'<form class="pair" aria-label="Compare two rows of {title}"></form>\n</section>\n'
    )


def _row(entry: Entry, number: int, table: Table, columns: _Columns, beside: Beside) -> str:
    row = entry.first
    kind, tag = KINDS_SHOWN[row.kind]
    small = [
        *([tag] if tag not in {"", row.supervision} else []),
        *([f"{len(entry.runs)} seeds"] if len(entry.runs) > 1 else []),
    ]
    name = escape(entry.name) + (' <span title="chosen on the test set">†</span>' if entry.is_oracle else "")
    held = None if entry.is_control else verdict(entry, table, beside.details)
    cells = [
        f'<th scope="row"><button type="button" class="open">{name}</button>'
        + (f"<small>{', '.join(small)}</small>" if small else "")
        + "</th>",
        f"<td>{escape(row.supervision)}</td>",
        *(_number_cell(entry.value(key), columns.scale if key == columns.main[0] else None) for key in columns.main),
        *(
            [_claims_cell(claims_of(entry, beside.published), beside.marks, columns.main[0])]
            if columns.has_claims
            else []
        ),
        _verdict_cell(str(held), bool(held.not_beaten)) if held else "<td></td>",
        *(_number_cell(entry.value(key), None) for key in columns.others),
    ]
    for key in columns.costs:
        value = _cost(entry, key)
        shown = "" if value is None else escape(COSTS[key][1](value))
        cells.append(f'<td class="number" data-order="{-1 if value is None else value}">{shown}</td>')
    return (
        f'<tr class="entry{kind}" data-entry="{number}" data-supervision="{escape(row.supervision)}" '
        f'data-stated="{escape(as_json(_fields(row.stated)))}">{"".join(cells)}</tr>\n'
    )


def _number_cell(value: Value | None, scale: tuple[float, float] | None) -> str:
    if value is None:
        return '<td class="number" data-order="-1"></td>'
    low, high = value.mean, value.mean
    if value.spread is not None:
        low, high = value.mean - value.spread, value.mean + value.spread
    elif value.interval:
        low, high = value.interval.low, value.interval.high
    small = f"<small>{value.beside}</small>" if value.beside else ""
    return (
        f'<td class="number" data-order="{value.mean!r}"><b>{value.shown}</b>{small}'
        + (_whisker(low, value.mean, high, scale) if scale else "")
        + "</td>"
    )


def _scale(table: Table) -> tuple[float, float]:
    """The range of the main metric over the table's rows, intervals included."""
    values = [entry.main for entry in table.entries if entry.main]
    low = min((v.interval.low if v.interval else v.mean - (v.spread or 0) for v in values), default=0.0)
    high = max((v.interval.high if v.interval else v.mean + (v.spread or 0) for v in values), default=1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _whisker(low: float, mean: float, high: float, scale: tuple[float, float]) -> str:
    a, m, b = (4 + 92 * (value - scale[0]) / (scale[1] - scale[0]) for value in (low, mean, high))
    return (
        '<svg class="whisker" viewBox="0 0 100 8" aria-hidden="true" focusable="false">'
        f'<line x1="{a:.1f}" x2="{b:.1f}" y1="4" y2="4"/><circle cx="{m:.1f}" cy="4" r="2.6"/></svg>'
    )


def claims_of(entry: Entry, published: Published) -> list[Claim]:
    """What its paper prints of an entry in the metrics that the entry has, the main one first."""
    row = entry.first
    if not row.claim:
        return []
    keys = dict.fromkeys([row.main_metric, *(key for key in BASES if key in row.metrics)])
    return [claim for key in keys for claim in published.get((canonical(row.claim), row.dataset, key), [])]


def printed(claim: Claim, main: str) -> str:
    """A published number as printed, with its metric where that is not the table's main one."""
    return claim.printed if claim.metric == main else f"{claim.printed} {label(claim.metric)}"


def _claims_cell(told: Sequence[Claim], marks: Mapping[Claim, str], main: str) -> str:
    if not told:
        return "<td></td>"
    values = ", ".join(dict.fromkeys(printed(claim, main) for claim in told))
    printers = ", ".join(dict.fromkeys(claim.source.partition(",")[0] for claim in told))
    mark = ' <span class="mark">contradicted</span>' if any(claim in marks for claim in told) else ""
    items = "".join(
        f"<li>{escape(printed(claim, main))}, {escape(claim.source)}"
        + (f", as {escape(claim.method)}" if claim.method != claim.name else "")
        + "".join(f"<br><em>{escape(note)}</em>" for note in notes(claim))
        + "</li>"
        for claim in told
    )
    return (
        f'<td data-order="{told[0].fraction}"><details class="claims"><summary>{escape(values)}{mark}'
        f"<small>printed by {escape(printers)}</small></summary>"
        f"<ul>{items}</ul></details></td>"
    )


def _verdict_cell(told: str, lost: bool) -> str:
    said, _, difference = told.partition("; ")
    small = f"<small>{escape(difference)}</small>" if difference else ""
    return f'<td class="verdict{" lost" if lost else ""}">{escape(said)}{small}</td>'


def _cost(entry: Entry, key: str) -> float | None:
    values = [run.cost[key] for run in entry.runs if key in run.cost]
    return sum(values) / len(values) if len(values) == len(entry.runs) else None


def _fields(protocol: Mapping[str, Any]) -> list[list[str]]:
    return [[field, protocol_value(value)] for field, value in protocol.items()]


def _term(field: str, value: Any) -> str:
    return f"<div><dt>{escape(field.replace('_', ' '))}</dt><dd>{escape(protocol_value(value))}</dd></div>"


def published_section(name: str, told: Sequence[Claim], marks: Mapping[Claim, str]) -> str:
    """What others print of a dataset, or of several under a common name, in a table of its own: whole test sets first.

    Within a metric the highest value comes first, which ranks nothing: the protocols differ.
    """
    several = len({claim.dataset for claim in told}) > 1
    rows = "".join(_claim_row(claim, marks, several) for claim in sorted(told, key=_order))
    heads = ("Method", "Supervision", "Backbone", "Metric", "Value", "Printed by", "Remarks")
    head = "".join(f'<th scope="col"{" class=number" if text == "Value" else ""}>{text}</th>' for text in heads)
    title = escape(name)
    count = f"{len(told)} published number{'' if len(told) == 1 else 's'}"
    return (
        f'<section class="published"><h2>{title}, as published</h2>'
        "<p>Judged by their authors, under protocols that are not known or not ours. They compare neither with the "
        "rows measured here nor, without care, with one another.</p>"
        f'<div class="scroll" tabindex="0" role="region" aria-label="{title}, as published"><table class="claims">'
        f"<caption>{count} for {title}.</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></div></section>\n"
    )


def _order(claim: Claim) -> tuple[Any, ...]:
    known = BASES.index(claim.metric) if claim.metric in BASES else len(BASES)
    return (bool(claim.variant), claim.dataset, known, claim.variant, -claim.fraction)


def _claim_row(claim: Claim, marks: Mapping[Claim, str], several: bool) -> str:
    remarks = [f'<span class="mark">contradicted</span> {escape(marks[claim])}'] if claim in marks else []
    remarks += [escape(note) for note in notes(claim)]
    metric = label(claim.metric) + (f" on {claim.dataset}" if several else "")
    metric += f", {claim.variant}" if claim.variant else ""
    source = " ".join(part for part in (claim.venue, claim.year) if part)
    return (
        f'<tr data-supervision="{escape(claim.supervision)}" data-dataset="{escape(claim.dataset)}">'
        f'<th scope="row">{escape(claim.method)}<small>{escape(source)}</small></th>'
        f"<td>{escape(claim.supervision)}</td><td>{escape(claim.backbone)}</td><td>{escape(metric)}</td>"
        f'<td class="number" data-order="{claim.fraction}">{escape(claim.printed)}</td>'
        f"<td>{escape(claim.source)}</td><td>{'<br>'.join(remarks)}</td></tr>\n"
    )


def unfinished_section(unfinished: Sequence[Mapping[str, Any]]) -> str:
    """The cells that are in no table, each with its state and the lines of why."""
    items = []
    for cell in unfinished:
        why = cell.get("why") or ""
        lines = "\n".join(why) if isinstance(why, list | tuple) else str(why)
        seed = f", seed {cell['seed']}" if cell.get("seed") not in {None, ""} else ""
        test = f" on {cell['test']}" if cell.get("test") else ""
        said = f"<b>{escape(str(cell['cell']))}</b>{escape(test + seed)}: {escape(str(cell['state']))}"
        items.append(f"<li>{said}{f'<pre>{escape(lines)}</pre>' if lines.strip() else ''}</li>")
    if not items:
        return ""
    return f'<section id="unfinished"><h2>Not in the tables</h2><ul>{"".join(items)}</ul></section>'


def facts_of(entry: Entry, published: Published, marks: Mapping[Claim, str]) -> dict[str, Any]:
    """What a row's own page shows beside its curves."""
    row = entry.first
    metrics = {}
    for key in row.metrics:
        found = METRIC.fullmatch(key)
        if found and not found[2] and (value := entry.value(key)):
            metrics[key] = [label(key), str(value), [run.metrics[key] for run in entry.runs]]
    told = claims_of(entry, published)
    return {
        **{"name": entry.name, "kind": row.kind, "dataset": row.dataset, "demo": row.demo, "metric": row.main_metric},
        **{"sign": better(row.main_metric), "supervision": row.supervision, "fit": row.fit, "test": row.test},
        **{"seeds": [run.seed for run in entry.runs], "metrics": metrics, "oracle": entry.is_oracle},
        **{"judged": _fields(row.judged), "stated": _fields(row.stated), "table": row.table},
        **{"provenance": {**row.provenance, **row.other, "folder": row.folder}, "command": row.command},
        "published": [[printed(c, row.main_metric), c.source, marks.get(c, ""), notes(c)] for c in told],
    }
