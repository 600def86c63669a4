"""Somebody else's scores, judged as a benchmark's own systems are. NumPy, no torch."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vigil import protocol
from vigil.results import file_of, judge, write_json
from vigil.stored import read_scores, read_truth, truth_hash


def judge_submission(
    table: str,
    out: Path,
    rows: Sequence[Mapping[str, Any]],
    scores: Path,
    name: str,
    test: str | None,
    supervision: str = "not stated",
    cell: str | None = None,
) -> dict[str, Any]:
    """The row of a scores.csv, which stands in the benchmark's tables from now on.

    rows: the benchmark's, one of which says by which truth and protocol `test` is judged, that of `cell` where they
    differ. Whatever else a protocol states nobody told us: it says so, also of leaks. Raises ValueError where no row
    judges so yet, where it is not clear which does, or for scores that `vigil.stored.read_scores` refuses.
    """
    like = _judged_alike(rows, out, test, cell)
    test = str(like["test"])
    truth = out / like["folder"] / "truth.csv"
    videos = read_truth(truth)
    if truth_hash(videos) != like["protocol"]["judged"]["ground_truth"]:
        raise ValueError(f"{truth}: not the truth that {like['cell']} was judged by; run that cell again")
    curves, refined = read_scores(scores, videos)
    slug = re.sub(r"[^\w.]+", "_", name).strip("_.") or "scores"
    folder = out / "submitted" / slug / test
    if (folder / "row.json").is_file():
        (before,) = json.loads((folder / "row.json").read_text())
        if before["cell"] != name:
            raise ValueError(f"--name {name}: {folder} holds the scores of {before['cell']}; give another name")
    folder.mkdir(parents=True, exist_ok=True)
    stated = {**dict.fromkeys(protocol.STATED, "not stated"), "supervision": supervision, "leaks": "not known"}
    row = judge(folder, videos, curves, refined, like["protocol"]["judged"], stated)
    row |= {"table": table, "cell": name, "system": slug, "kind": "submitted", "fit": "", "test": test, "seed": 0}
    row |= {"demo": like["demo"], "main_metric": like["main_metric"], "claim": ""}
    told = ["--scores", os.path.relpath(scores), "--name", name, "--test", test, "--supervision", supervision]
    row |= {"command": shlex.join(["python", "benchmark.py", "score", *file_of(table, like["demo"]), *told])}
    row |= {"finished": datetime.now(UTC).isoformat()}
    write_json(folder / "row.json", [row])
    return row


def _judged_alike(
    rows: Sequence[Mapping[str, Any]], out: Path, test: str | None, cell: str | None
) -> Mapping[str, Any]:
    """The one row, of those whose truth is there, that says how a test set is judged; with no leak rather than some."""
    there = [row for row in rows if row["kind"] == "system" and (out / row["folder"] / "truth.csv").is_file()]
    tests = list(dict.fromkeys(row["test"] for row in there))
    if test is None and len(tests) == 1:
        test = tests[0]
    if test not in tests:
        known = ", ".join(tests) or "none: run the file first, one cell is enough (--only)"
        raise ValueError(f"--test {test}: which test set these are scores of; those with a truth to judge by: {known}")
    alike = [row for row in there if row["test"] == test and cell in (None, row["cell"])]
    alike = [row for row in alike if not row["protocol"]["judged"].get("leaked")] or alike
    ways = {json.dumps(row["protocol"]["judged"], sort_keys=True) for row in alike}
    if len(ways) != 1:
        cells = ", ".join(dict.fromkeys(row["cell"] for row in there if row["test"] == test))
        raise ValueError(f"--test {test} is judged in {len(ways)} ways; say --like CELL, one of {cells}")
    return alike[0]
