"""The leaderboard as one HTML page that needs nothing beside it: tables, filters, pairs, curves. No torch."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vigil.claims import Claim, by_method, conflicts
from vigil.comparison import Details, packed_draws
from vigil.leaderboard_rows import Beside, as_json, facts_of, measured_section, published_section, unfinished_section
from vigil.measured import Entry, Row, Table, tables
from vigil.wording import protocol_value

HERE = Path(__file__).parent
SCRIPTS = ("leaderboard.js", "leaderboard_row.js")  # one module: the second ends with the start
ALL_DRAWS = 200  # entries; with more of them the page keeps the draws of the main metric alone
FEW = 10  # published numbers of a dataset that is not measured: fewer share a table
CURVE_ROWS, CURVE_SIZE = 200, 24_000_000  # rows, and characters, of curves; what is after that stays in its folder


def write_page(
    file: Path,
    rows: Sequence[Row],
    claims: Sequence[Claim],
    details: Details,
    unfinished: Sequence[Mapping[str, Any]] = (),
) -> None:
    """One self-contained HTML file: every entry, every claim, and curves and draws of what `details` gives.

    It needs no network. Raises FileNotFoundError naming the package where one of its two libraries is not installed.
    """
    found = tables(rows)
    numbers = {entry: number for number, entry in enumerate(entry for table in found for entry in table.entries)}
    marks, published = conflicts(claims), by_method(claims)
    blobs, left_out = _blobs(numbers, details)
    beside = Beside(published, marks, details)
    script = "\n" + "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    values = {
        "STYLE": (HERE / "leaderboard.css").read_text(encoding="utf-8"),
        "HASH": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "LEAD": _lead(rows, found, claims),
        "FILTERS": _filters(found, claims),
        "SECTIONS": "".join(_sections(found, claims, numbers, beside)),
        "UNFINISHED": unfinished_section(unfinished),
        "LEFT_OUT": left_out,
        "DATA": as_json([facts_of(entry, published, marks) for entry in numbers]),
        "BLOBS": "\n".join(blobs),
        "DATATABLES": _library("itables", "html/dt_bundle.js"),
        "PLOTLY": _library("plotly", "package_data/plotly.min.js"),
        "SCRIPT": script,
    }
    parts = (HERE / "leaderboard.html").read_text(encoding="utf-8").split("%%")
    file.write_text("".join(values[part] if index % 2 else part for index, part in enumerate(parts)), encoding="utf-8")


def _sections(
    found: Sequence[Table], claims: Sequence[Claim], numbers: Mapping[Entry, int], beside: Beside
) -> Iterator[str]:
    """Dataset by dataset what was measured and what is published; last, together, sets with few numbers alone."""
    measured = dict.fromkeys(table.first.dataset for table in found)
    told: dict[str, list[Claim]] = {}
    for claim in claims:
        told.setdefault(claim.dataset, []).append(claim)
    few = [name for name in told if name not in measured and len(told[name]) < FEW]
    for name in dict.fromkeys([*measured, *told]):
        for number, table in enumerate(found, 1):
            if table.first.dataset == name:
                yield measured_section(table, f"table-{number}", numbers, beside)
        if name in told and name not in few:
            yield published_section(name, told[name], beside.marks)
    if few:
        yield published_section("Other datasets", [claim for name in few for claim in told[name]], beside.marks)


def _library(package: str, path: str) -> str:
    """A wheel's JavaScript, packed; found without importing the package."""
    spec = find_spec(package)
    places = [Path(place) / path for place in (spec.submodule_search_locations or [])] if spec else []
    for place in places:
        if place.is_file():
            return _packed(place.read_bytes())
    raise FileNotFoundError(
        f"{package}/{path}: not there, and the page is built with it; install it with `pip install {package}`"
    )


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 6 if len(content) > 500_000 else 1, mtime=0)).decode()


def _blobs(numbers: Mapping[Entry, int], details: Details) -> tuple[list[str], str]:
    """Draws and packed curves of each entry's first seed, as script elements; and what had to be left out, in words."""
    blobs, size, kept, without = [], 0, 0, 0
    for entry, number in numbers.items():
        draws = packed_draws(details, entry.first)
        if draws is None:
            continue
        main = entry.first.main_metric
        shown = draws if len(numbers) <= ALL_DRAWS else {key: text for key, text in draws.items() if key == main}
        if shown:
            blobs.append(f'<script type="application/json" id="draws-{number}">{as_json(shown)}</script>')
        if kept >= CURVE_ROWS or size > CURVE_SIZE:
            without += 1
            continue
        text = _packed(json.dumps(_compact(details(entry.first) or {}), separators=(",", ":")).encode())
        size, kept = size + len(text), kept + 1
        blobs.append(f'<script type="text/plain" id="curves-{number}">{text}</script>')
    told = []
    if without:
        told.append(f"the curves of {without} rows, which stay in their run folders")
    if len(numbers) > ALL_DRAWS:
        told.append("pairs in other metrics than a table's main one")
    text = f"<p>To keep the page small it leaves out {' and '.join(told)}.</p>" if told else ""
    return blobs, text


def _compact(details: Mapping[str, Any]) -> dict[str, Any]:
    """What a row's own page draws: edges as uint32 and scores as uint16 (1 is 65,535), all videos in one, in base64."""
    curves = details.get("curves") or {}
    refined = all("refined" in curve for curve in curves.values())

    def scores(key: str) -> str:
        values = np.fromiter(chain.from_iterable(curve[key] for curve in curves.values()), dtype=np.float64)
        return base64.b64encode(np.rint(values * 65535).astype("<u2").tobytes()).decode()

    edges = np.fromiter(chain.from_iterable(curve["edge"] for curve in curves.values()), dtype="<u4")
    return {
        "videos": [
            [name, len(c["score"]), c["n_frames"], c.get("fps"), c.get("category"), c.get("anomalies") or []]
            for name, c in curves.items()
        ],
        "edge": base64.b64encode(edges.tobytes()).decode(),
        "score": scores("score"),
        "refined": scores("refined") if curves and refined else None,
        "reliability": details.get("reliability"),
        "classes": details.get("classes"),
    }


def _lead(rows: Sequence[Row], found: Sequence[Table], claims: Sequence[Claim]) -> str:
    entries = [entry for table in found for entry in table.entries]
    own = sum(not entry.is_control for entry in entries)
    finished = max((row.provenance.get("finished", "") for row in rows), default="")
    return (
        f"{own} systems and {len(entries) - own} controls from {len(rows)} runs, in {len(found)} tables whose rows "
        f"were judged alike; beside them {len(claims)} published numbers."
        + (f" Last run finished {escape(finished[:10])}." if finished else "")
    )


def _filters(found: Sequence[Table], claims: Sequence[Claim]) -> str:
    """Options of the three filters: datasets, supervisions, and the protocol fields that take more than one value."""
    rows = [entry.first for table in found for entry in table.entries]
    datasets = dict.fromkeys([*(row.dataset for row in rows), *(claim.dataset for claim in claims)])
    supervisions = sorted(
        {row.supervision for row in rows if row.kind != "control"} | {claim.supervision for claim in claims} - {""}
    )
    fields: dict[str, set[str]] = {}
    for row in rows:
        for field, value in {**row.judged, **row.stated}.items():
            fields.setdefault(field, set()).add(protocol_value(value))
    groups = []
    for field, values in sorted(fields.items()):
        if 2 <= len(values) <= 12:  # a hash that is every row's own is no choice
            name = escape(field.replace("_", " "))
            options = "".join(
                f'<option value="{escape(as_json([field, value]))}">{name}: {escape(value)}</option>'
                for value in sorted(values)
            )
            groups.append(f'<optgroup label="{name}">{options}</optgroup>')

    def select(name: str, title: str, options: str) -> str:
        return (
            f'<label for="filter-{name}">{title}</label><select id="filter-{name}">'
            f'<option value="">all</option>{options}</select>'
        )

    plain = [
        "".join(f"<option>{escape(value)}</option>" for value in values if value) for values in (datasets, supervisions)
    ]
    chosen = [("dataset", "Dataset", plain[0]), ("supervision", "Supervision", plain[1])]
    chosen.append(("protocol", "Protocol", "".join(groups)))
    return "".join(f"<div>{select(*one)}</div>" for one in chosen)
