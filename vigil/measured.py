"""Our own numbers, results/measured.csv: runs, entries over seeds, and the tables whose protocols agree. No torch."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vigil.protocol import differing
from vigil.statistics import Interval, spread

KINDS = ("system", "control", "submitted")
NAMED = (
    *("table", "cell", "system", "kind", "fit", "test", "dataset", "demo", "seed"),
    *("claim", "supervision", "main_metric", "protocol", "command", "folder"),
)
FILLED = ("table", "cell", "system", "kind", "test", "dataset", "demo", "seed", "main_metric", "protocol")
COST = ("trained_parameters", "fit_s", "test_s", "frames_per_second", "peak_memory_mb")
PROVENANCE = (
    *("commit", "dirty", "config_hash", "code_hash", "data_hash", "weights_hash"),
    *("versions", "machine", "wall_s", "finished"),
)
BASES = (  # in the order in which tables show them
    *("frame_auroc", "frame_ap", "frame_ap_trapezoid", "frame_auroc_anomalous", "frame_auroc_seen"),
    *("frame_auroc_unseen", "video_auroc", "event_map", "false_alarms_per_hour", "pixel_auroc", "pixel_ap"),
    *("rbdc", "tbdc", "top1", "top2", "top3", "top_expansion", "class_ece", "class_ece_scaled", "class_nll"),
    *("class_nll_scaled", "class_entropy", "caption_sbert", "caption_distinct1", "caption_distinct2"),
    *("caption_template", "ece", "frame_auroc_sentinels"),
)
LOWER_IS_BETTER = {
    *("false_alarms_per_hour", "ece", "class_ece", "class_ece_scaled", "class_nll", "class_nll_scaled"),
    "caption_template",
}
UNBOUNDED = {"false_alarms_per_hour", "class_nll", "class_nll_scaled", "class_entropy"}
METRIC = re.compile(rf"({'|'.join(sorted(BASES, key=len, reverse=True))})(_low|_high)?(_refined|_gated)?")
ORACLE = "test"  # a `selection` that begins so was made on the test set


@dataclass(frozen=True, eq=False)
class Row:
    """One run: a cell, a test set and a seed. `judged` and `stated` are its protocol; `other` what no column names."""

    table: str
    cell: str
    system: str
    kind: str
    fit: str
    test: str
    dataset: str
    demo: bool
    seed: int
    claim: str
    supervision: str
    main_metric: str
    command: str
    folder: str
    judged: dict[str, Any]
    stated: dict[str, Any]
    metrics: dict[str, float]
    cost: dict[str, float]
    provenance: dict[str, str]
    other: dict[str, str]
    line: int

    @cached_property
    def judged_key(self) -> str:
        """The judged fields as one string, for grouping."""
        return json.dumps(self.judged, sort_keys=True)


def read_measured(file: Path) -> list[Row]:
    """Every run of measured.csv, in its order.

    Raises FileNotFoundError where there is no such file and ValueError, naming file, line and what was found, for a
    missing column or value, a number out of its range, a protocol that is none, and a run that stands there twice.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; `python benchmark.py run FILE` writes it, a row per run")
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        missing = [column for column in NAMED if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{file}, line 1: no column {', '.join(missing)}; expected are {', '.join(NAMED)}")
        protocols: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
        rows = [_row(f"{file}, line {reader.line_num}", reader.line_num, row, protocols) for row in reader]
    first: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        key = (row.table, row.cell, row.fit, row.test, row.demo, row.seed, row.judged_key)
        if key in first:
            raise ValueError(
                f"{file}, line {row.line}: the run of line {first[key].line} again ({row.table}, {row.cell}, "
                f"{row.test}, seed {row.seed}); a run stands there once"
            )
        first[key] = row
    return rows


def _row(
    where: str, line: int, found: dict[str, str], protocols: dict[str, tuple[dict[str, Any], dict[str, Any]]]
) -> Row:
    if None in found or None in found.values():
        raise ValueError(f"{where}: more or fewer values than columns; the file was cut off or edited by hand")
    for column in FILLED:
        if not found[column]:
            raise ValueError(f"{where}: no {column}; every run states it")
    if found["kind"] not in KINDS:
        raise ValueError(f"{where}: the kind is {found['kind']!r}; expected is one of {', '.join(KINDS)}")
    if found["demo"] not in {"0", "1"}:
        raise ValueError(f"{where}: demo is {found['demo']!r}; expected is 0 or 1")
    if not re.fullmatch(r"-?\d+", found["seed"]):
        raise ValueError(f"{where}: the seed is {found['seed']!r}; expected is a whole number")
    metrics = {key: _number(where, key, value) for key, value in found.items() if METRIC.fullmatch(key) and value}
    if found["main_metric"] not in metrics and not (found["kind"] == "control" and metrics):
        raise ValueError(f"{where}: no {found['main_metric']}, which is the run's main metric; judge the run again")
    if found["protocol"] not in protocols:
        protocols[found["protocol"]] = _protocol(where, found["protocol"])
    judged, stated = protocols[found["protocol"]]
    known = {*NAMED, *COST, *PROVENANCE}
    text = ("table", "cell", "system", "kind", "fit", "test", "dataset", "claim", "supervision", "main_metric")
    return Row(
        **{column: found[column] for column in (*text, "command", "folder")},
        demo=found["demo"] == "1",
        seed=int(found["seed"]),
        judged=judged,
        stated=stated,
        metrics=metrics,
        cost={key: _number(where, key, found[key]) for key in COST if found.get(key)},
        provenance={key: found[key] for key in PROVENANCE if found.get(key)},
        other={key: value for key, value in found.items() if value and key not in known and not METRIC.fullmatch(key)},
        line=line,
    )


def _number(where: str, key: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    base = METRIC.fullmatch(key)
    most = 1.0 if base and base[1] not in UNBOUNDED and base[1] != "caption_sbert" else math.inf
    least = -1.0 if base and base[1] == "caption_sbert" else 0.0  # a cosine
    if not (least <= number <= most and math.isfinite(number)):
        bounds = f"from {least:g} to {most:g}" if math.isfinite(most) else f"from {least:g} up"
        raise ValueError(f"{where}: {key} is {value!r}; expected is a number {bounds} (fractions, not per cents)")
    return number


def _protocol(where: str, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        protocol = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: the protocol is no JSON ({error}); judge the run again") from None
    if not isinstance(protocol, dict) or not all(isinstance(protocol.get(k), dict) for k in ("judged", "stated")):
        raise ValueError(f'{where}: the protocol is {text[:60]!r}; expected is {{"judged": {{…}}, "stated": {{…}}}}')
    return protocol["judged"], protocol["stated"]


@dataclass(frozen=True)
class Value:
    """A number over seeds: mean and sample standard deviation, or with one seed its interval over videos."""

    mean: float
    spread: float | None
    interval: Interval | None
    seeds: int

    @property
    def beside(self) -> str:
        """The spread or the interval as it stands beside the mean; empty where there is neither."""
        digits = self._digits
        if self.spread is not None:
            return f"± {self.spread:.{digits}f}"
        return f"[{self.interval.low:.{digits}f}, {self.interval.high:.{digits}f}]" if self.interval else ""

    @property
    def shown(self) -> str:
        """The mean."""
        return f"{self.mean:.{self._digits}f}"

    @property
    def _digits(self) -> int:
        return 3 if self.mean < 10 else 1  # false alarms per hour are no fraction

    def __str__(self) -> str:
        return f"{self.shown} {self.beside}".strip()


@dataclass(frozen=True, eq=False)
class Entry:
    """The runs of one cell on one test set that differ in nothing but their seed."""

    runs: tuple[Row, ...]

    @property
    def first(self) -> Row:
        """The run that stands for the entry where there can be only one: its curves, its protocol."""
        return self.runs[0]

    @property
    def is_control(self) -> bool:
        return self.first.kind == "control"

    @property
    def name(self) -> str:
        """System and cell, or the cell alone where its name holds the system's."""
        cell, system = self.first.cell, self.first.system
        if self.is_control:
            return cell.replace("_", " ")
        letters = (re.sub(r"\W|_", "", text).lower() for text in (system, cell))
        return cell if next(letters) in next(letters) else f"{system}: {cell}"

    @property
    def is_oracle(self) -> bool:
        """Whether something of it was chosen on the test set."""
        return any(str(run.stated.get("selection", "")).startswith(ORACLE) for run in self.runs)

    def value(self, key: str) -> Value | None:
        """A metric over the seeds, None where no run has it; ValueError where only some have."""
        missing = [run.seed for run in self.runs if key not in run.metrics]
        if len(missing) == len(self.runs):
            return None
        if missing:
            raise ValueError(f"{self.name}: {key} is not there for the seeds {missing}; judge them again")
        values = [run.metrics[key] for run in self.runs]
        mean, deviation = spread(values) if len(values) > 1 else (values[0], None)
        low, high = (self.first.metrics.get(bound_key(key, end)) for end in ("low", "high"))
        alone = deviation is None and low is not None and high is not None
        interval = Interval(mean, low, high) if alone and low is not None and high is not None else None
        return Value(mean, deviation, interval, len(self.runs))

    @cached_property
    def main(self) -> Value | None:
        """The main metric; a control may be without, such as the centre prior, which scores pixels alone."""
        return self.value(self.first.main_metric)

    @property
    def rank(self) -> float:
        """What tables are sorted by, largest first."""
        return better(self.first.main_metric) * self.main.mean if self.main else -math.inf


def bound_key(key: str, end: str) -> str:
    """frame_auroc_refined, low -> frame_auroc_low_refined."""
    found = METRIC.fullmatch(key)
    return f"{found[1]}_{end}{found[3] or ''}" if found else f"{key}_{end}"


def entries(rows: Sequence[Row]) -> list[Entry]:
    """The runs grouped over seeds, in the order of the file.

    A control is measured with each benchmark that shares its test set: where its numbers are the same, it stands once.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row.table, row.cell, row.system, row.fit, row.test, row.demo, row.main_metric, row.judged_key)
        groups.setdefault(key, []).append(row)
    found: list[Entry] = []
    controls: set[tuple[Any, ...]] = set()
    for runs in groups.values():
        entry = Entry(tuple(sorted(runs, key=lambda run: run.seed)))
        if entry.is_control:
            numbers = tuple((run.seed, *sorted(run.metrics.items())) for run in entry.runs)
            same = (entry.first.cell, entry.first.dataset, entry.first.demo, entry.first.judged_key, numbers)
            if same in controls:
                continue
            controls.add(same)
        found.append(entry)
    return found


@dataclass(frozen=True, eq=False)
class Table:
    """Entries that may be compared: one dataset, rendered or real, one main metric and one judged protocol.

    differs: {field: (here, there)} against the first table of the same dataset, empty for that one itself.
    """

    entries: tuple[Entry, ...]
    differs: dict[str, tuple[Any, Any]]

    @property
    def first(self) -> Row:
        return self.entries[0].first

    @cached_property
    def controls(self) -> list[Entry]:
        return [entry for entry in self.entries if entry.is_control]

    @property
    def title(self) -> str:
        videos = self.first.judged.get("videos")
        beside = ["demo copy, rendered"] if self.first.demo else []
        beside += [f"{videos} videos"] if videos is not None else []
        name = ", ".join(str(part) for part in (self.first.dataset, self.first.judged.get("task")) if part)
        return f"{name} ({', '.join(beside)})" if beside else name


def tables(rows: Sequence[Row]) -> list[Table]:
    """The entries in tables, best first; the table with most systems of a dataset before the ones that differ."""
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries(rows):
        row = entry.first
        groups.setdefault((row.dataset, row.demo, row.main_metric, row.judged_key), []).append(entry)
    datasets: dict[tuple[str, bool], list[list[Entry]]] = {}
    for (dataset, demo, _, _), group in groups.items():
        group.sort(key=lambda entry: -entry.rank)
        datasets.setdefault((dataset, demo), []).append(group)
    found = []
    for same in datasets.values():
        same.sort(key=lambda group: -sum(not entry.is_control for entry in group))
        there = same[0][0].first
        for group in same:
            here = group[0].first
            differs = differing({"judged": here.judged}, {"judged": there.judged})
            if here.main_metric != there.main_metric:
                differs["main metric"] = (here.main_metric, there.main_metric)
            found.append(Table(tuple(group), differs))
    return found


def better(key: str) -> int:
    """1 where a higher value of the metric is better, -1 where a lower one is."""
    found = METRIC.fullmatch(key)
    return -1 if found and found[1] in LOWER_IS_BETTER else 1
