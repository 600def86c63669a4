"""How two rows stand to each other, and a system to the controls of its table. No torch."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from vigil.measured import BASES, Entry, Row, Table, better
from vigil.statistics import Difference
from vigil.wording import label

Details = Callable[[Row], "dict[str, Any] | None"]  # details.json of a run, None where it has none
DRAWS = re.compile(rb'"draws": *(\{[^{}]*\})')  # base64 holds no brace


class DetailsIn:
    """Reads details.json of a run, from below the folder that holds measured.csv.

    A run without one gives None; a broken one raises ValueError.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, row: Row) -> dict[str, Any] | None:
        """All of it."""
        content = self._content(row)
        return None if content is None else self._parsed(row, content)

    def draws(self, row: Row) -> dict[str, str] | None:
        """The draws alone, which a report needs of every row: the curves beside them are not even parsed."""
        content = self._content(row)
        if content is None:
            return None
        found = DRAWS.search(content)
        return dict(self._parsed(row, found[1]) if found else self._parsed(row, content).get("draws") or {})

    def _content(self, row: Row) -> bytes | None:
        file = self.folder / row.folder / "details.json"
        return file.read_bytes() if row.folder and file.is_file() else None

    def _parsed(self, row: Row, content: bytes) -> Any:
        try:
            return json.loads(content)
        except ValueError as error:
            file = self.folder / row.folder / "details.json"
            raise ValueError(f"{file}: no JSON ({error}); judge the run again") from None


def draws(packed: Mapping[str, str] | None, key: str) -> np.ndarray | None:
    """The bootstrap values of a metric, float64, from `draws` of details.json; None where it has none."""
    text = (packed or {}).get(key)
    if text is None:
        return None
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float64)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"the draws of {key} are no float32 values in base64 ({error}); judge the run again") from None


def details_in(folder: Path) -> DetailsIn:
    """What gives the details.json of each run, from below the folder that holds measured.csv."""
    return DetailsIn(folder)


@lru_cache(maxsize=8192)  # the Markdown, the CSV and the page ask for the same ones
def packed_draws(details: Details, row: Row) -> dict[str, str] | None:
    """The draws of a run as they are stored, None where it has no details."""
    if isinstance(details, DetailsIn):
        return details.draws(row)
    found = details(row)
    return None if found is None else dict(found.get("draws") or {})


def paired_draws(value: float, first: np.ndarray, second: np.ndarray) -> Difference:
    """`value`, the second's less the first's, with interval and p as `statistics.paired` has them of the same draws.

    Raises ValueError where the two do not hold as many draws.
    """
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} and {len(second)} draws are not paired; judge both rows again")
    gain = second - first
    low, high = np.quantile(gain, [0.025, 0.975]).tolist()
    p = 2 * (1 + min((gain <= 0).sum(), (gain >= 0).sum())) / (1 + len(gain))
    return Difference(value, low, high, min(1.0, float(p)))


@dataclass(frozen=True)
class Verdict:
    """Which controls of its table an entry does not beat, and how it stands to the best one where draws tell."""

    not_beaten: tuple[str, ...]
    controls: int
    best: str = ""
    difference: Difference | None = None

    @property
    def is_clear(self) -> bool:
        """Whether the interval of the difference to the best control lies above 0."""
        return self.difference is not None and self.difference.low > 0

    def __str__(self) -> str:
        if not self.controls:
            return "no control was run"
        told = f"does not beat {', '.join(self.not_beaten)}" if self.not_beaten else f"beats all {self.controls}"
        if self.difference is None:
            return told
        d = self.difference
        zero = "" if d.low > 0 or d.high < 0 else ", 0 not excluded"
        return f"{told}; {d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}] to {self.best}{zero}"


def verdict(entry: Entry, table: Table, details: Details | None = None) -> Verdict:
    """How an entry stands to the controls of its table; a control ties or wins where its mean is not below.

    The main metric decides, and for a control without it, one that scores pixels alone, the first metric both have.
    With details, the first seed of the entry and of the best control are compared on the same draws of videos.
    """
    main = entry.first.main_metric
    faced, lost = 0, []
    for control in table.controls:
        key = next((key for key in (main, *BASES) if key in control.first.metrics and key in entry.first.metrics), None)
        own, theirs = (one.value(key) if key else None for one in (entry, control))
        if key is None or own is None or theirs is None:
            continue
        faced += 1
        if better(key) * own.mean <= better(key) * theirs.mean:
            lost.append(control.name if key == main else f"{control.name} in {label(key)}")
    best = max(table.controls, key=lambda control: control.rank, default=None)
    if best is None or best.main is None:
        return Verdict(tuple(lost), faced)
    return Verdict(tuple(lost), faced, best.name, None if details is None else _to(entry, best, main, details))


def _to(entry: Entry, best: Entry, key: str, details: Details) -> Difference | None:
    mine, theirs = (draws(packed_draws(details, one.first), key) for one in (entry, best))
    if mine is None or theirs is None:
        return None
    sign = better(key)
    return paired_draws(sign * (entry.first.metrics[key] - best.first.metrics[key]), sign * theirs, sign * mine)
