"""Published numbers: who printed what where, and where two printed values contradict each other."""

from __future__ import annotations

import csv
import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from functools import cached_property
from pathlib import Path

COLUMNS = (
    *("method", "year", "venue", "supervision", "backbone", "dataset", "variant", "metric"),
    *("value", "unit", "source", "note"),
)
NEEDED = ("method", "dataset", "metric", "value", "unit", "source")
LARGEST = {"%": 100, "fraction": 1}  # what a unit divides by, and the most a value of it may be

# One method under several spellings. LAVIDA's and HiProbe's own default settings also stand in their ablation tables,
# under the setting's name; a different value there is the paper against itself.
ALIASES = {
    "MGFN": ("MGFN (written MFGN)", "MFGN"),  # a slip of letters in HiProbe-VAD
    "HL-Net": ("HLNet", "Wu et al. (HL-Net)"),  # by name and by authors
    "TPWNG": ("TPWNG (Yang et al.)",),
    "VadCLIP": ("Vadclip",),
    "Sultani et al.": ("DeepMIL",),  # what later lists call it
    "HiProbe-VAD (InternVL2.5)": ("HiProbe-VAD", "HiProbe-VAD ablation: K=8 keyframes of 24"),  # 8 is the paper's own
    "LAVIDA": (
        "LAVIDA (ablation adapter=Proposed)",
        "LAVIDA (ablation queries=48)",  # 48 is what the released code uses
        "LAVIDA (ablation max K_E=30)",  # so is 30
    ),
}
# One acronym, two papers.
NAMESAKES = {("MPT", "2024"): "MPT (ACM MM 2024)"}
BACKBONES = {"pe": "perceptionencoder"}  # Flashback's own short form

# What is known beyond the digits: (method, dataset or "", metric or "", where it stands or "", note).
KNOWN = (
    (
        *("LAVIDA", "XD-Violence", "frame_ap", ""),
        "printed as AP, but the released code computes ROC AUC on XD-Violence: the branch for AP is never reached",
    ),
    (
        *("LAVIDA", "", "", "Tab. 5"),
        "Tab. 5 with 48 queries, the paper's own setting, prints other values than Tab. 1: ShanghaiTech 80.64 and "
        "85.28, UCF-Crime 80.06 and 82.18, XD-Violence 90.30 and 90.62",
    ),
    (
        *("Holmes-VAU", "", "", ""),
        "judged per video, on 398 samples, not per frame; later papers print the two columns swapped (the paper: "
        "UCF-Crime 88.96, XD-Violence 87.68)",
    ),
    (
        *("GODS", "XD-Violence", "", ""),
        "61.56 stands in a column of AP in LAVIDA and in one of AUC in VERA; one of the two is the wrong column",
    ),
)


@dataclass(frozen=True)
class Claim:
    """One published number as it was printed; `line` is its line in the file."""

    method: str
    year: str
    venue: str
    supervision: str
    backbone: str
    dataset: str
    variant: str
    metric: str
    value: str
    unit: str
    source: str
    note: str
    line: int

    @property
    def fraction(self) -> float:
        """The value as our own numbers are written, from 0 to 1."""
        return float(Decimal(self.value) / LARGEST[self.unit])

    @property
    def printed(self) -> str:
        """The value with its unit, as a reader of the source saw it."""
        return f"{self.value} %" if self.unit == "%" else self.value

    @cached_property
    def name(self) -> str:
        """The method under the one spelling that all sources share here."""
        return NAMESAKES.get((self.method, self.year)) or canonical(self.method)

    @cached_property
    def parts(self) -> frozenset[str]:
        """The words of the backbone, in one spelling; empty where the source names none."""
        words = re.findall(r"[a-z0-9.]+", self.backbone.lower())
        return frozenset(BACKBONES.get(word, word) for word in words)


_SPELLING = {
    re.sub(r"[^a-z0-9]+", "", other.lower()): name for name, all_ in ALIASES.items() for other in (name, *all_)
}


def canonical(method: str) -> str:
    """The method's one spelling: of ALIASES where that knows it, whatever the case and punctuation; else itself."""
    return _SPELLING.get(re.sub(r"[^a-z0-9]+", "", method.lower()), method.strip())


def read_claims(file: Path) -> list[Claim]:
    """Every line of claims.csv, in its order.

    Raises FileNotFoundError where there is no such file and ValueError, naming file, line and what was found, for a
    missing column or value, an unknown unit and a value that is no number of its unit.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; it holds the published numbers, one a line")
    with file.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        found = tuple(reader.fieldnames or ())
        if found != COLUMNS:
            raise ValueError(f"{file}, line 1: the columns are {', '.join(found)}; expected are {', '.join(COLUMNS)}")
        return [_claim(file, reader.line_num, row) for row in reader]


def _claim(file: Path, line: int, row: dict[str, str]) -> Claim:
    where = f"{file}, line {line}"
    if None in row or None in row.values():
        raise ValueError(f"{where}: more or fewer than {len(COLUMNS)} values; quote a value that holds a comma")
    for column in NEEDED:
        if not row[column].strip():
            raise ValueError(f"{where}: no {column}; every published number needs {', '.join(NEEDED)}")
    if row["unit"] not in LARGEST:
        raise ValueError(f"{where}: the unit is {row['unit']!r}; expected is one of {', '.join(LARGEST)}")
    try:
        value = float(row["value"])
    except ValueError:
        value = math.nan
    if not 0 <= value <= LARGEST[row["unit"]]:
        raise ValueError(
            f"{where}: the value is {row['value']!r}; expected is a number from 0 to {LARGEST[row['unit']]} "
            f"for the unit {row['unit']}"
        )
    return Claim(**{column: row[column].strip() for column in COLUMNS}, line=line)


def conflicts(claims: Sequence[Claim]) -> dict[Claim, str]:
    """Why a claim is contradicted: what others print of the same method, dataset, variant and metric, and who.

    Values that are one another's rounding (or cutting off of digits) agree. Where two sources name backbones that do
    not fit into each other (I3D and VideoSwin), their numbers are of two models and contradict nothing.
    """
    groups: dict[tuple[str, ...], list[Claim]] = defaultdict(list)
    for claim in claims:
        groups[claim.name, claim.dataset, claim.variant, claim.metric].append(claim)
    marks = {}
    for group in groups.values():
        for claim in group:
            others = [other for other in group if _same_model(claim, other) and not same_value(claim, other)]
            if others:
                marks[claim] = f"{said((claim,))} against {said(others)}"
    return marks


def said(claims: Iterable[Claim]) -> str:
    """The values and who prints each: `70.4 % (LAVIDA, …, Tab. 1), 71.04 % (…)`, a value's sources together."""
    sources: dict[str, list[str]] = defaultdict(list)
    for claim in claims:
        own_name = "" if claim.method == claim.name else f", as {claim.method}"
        sources[claim.printed].append(claim.source + own_name)
    return ", ".join(f"{value} ({'; '.join(dict.fromkeys(names))})" for value, names in sources.items())


def _same_model(one: Claim, other: Claim) -> bool:
    return one.parts <= other.parts or other.parts <= one.parts


def same_value(one: Claim, other: Claim) -> bool:
    """Whether the two could be one number with more or fewer digits; a last digit of 0 may have been filled in."""
    short, long = sorted((_digits(one), _digits(other)), key=lambda value: -int(value.as_tuple().exponent))
    step = Decimal(1).scaleb(int(short.as_tuple().exponent))
    return short in {long.quantize(step, rounding) for rounding in (ROUND_DOWN, ROUND_HALF_UP, ROUND_HALF_EVEN)}


def _digits(claim: Claim) -> Decimal:
    """The value in per cent, with the digits its source vouches for: 75.40 may stand for 75.4, 89.00 not for 89."""
    value = claim.value[:-1] if re.search(r"\.\d+0$", claim.value) else claim.value
    return Decimal(value).scaleb(0 if claim.unit == "%" else 2)


def notes(claim: Claim) -> list[str]:
    """What is known of a claim beyond its digits: its own note, and the entries of KNOWN that speak of it."""
    found = [claim.note] if claim.note else []
    for method, dataset, metric, source, note in KNOWN:
        own = claim.name == method or claim.method.startswith(f"{method} (")
        if own and dataset in {"", claim.dataset} and metric in {"", claim.metric} and source in claim.source:
            found.append(note)
    return found


Published = dict[tuple[str, str, str], list[Claim]]  # by method in its one spelling, dataset and metric


def by_method(claims: Sequence[Claim]) -> Published:
    """What was published of a method on a dataset under a metric, of the whole test set and without a variant.

    UCA's closed-set numbers are kept: there the variant is the question itself, as `task: probe` asks it.
    """
    found: Published = defaultdict(list)
    for claim in claims:
        if not claim.variant or claim.dataset == "UCA":
            found[claim.name, claim.dataset, claim.metric].append(claim)
    return dict(found)
