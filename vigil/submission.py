"""Somebody else's scores, judged as a benchmark's own systems are. NumPy, no torch."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vigil.results import file_of, judge, write_controls
from vigil.stored import read_scores, read_truth, truth_hash


def judge_submission(
    table: str,
    out: Path,
    rows: Sequence[Mapping[str, Any]],
    scores: Path,
    name: str,
    test: str | None,
    supervision: str = "not stated",
) -> dict[str, Any]:
    """The row of a scores.csv, which stands in the benchmark's tables from now on.

    rows: the benchmark's, one of which says by which truth and protocol `test` is judged. Raises ValueError where none
    does yet, where the tests are several and none is named, or for scores that `vigil.stored.read_scores` refuses.
    """
    tested = {
        row["test"]: row for row in rows if row["kind"] == "system" and (out / row["folder"] / "truth.csv").is_file()
    }
    if test is None and len(tested) == 1:
        test = next(iter(tested))
    if test is None or test not in tested:
        known = ", ".join(tested) or "none: run the file first, one cell is enough (--only)"
        raise ValueError(f"--test {test}: which test set these are scores of; those with a truth to judge by: {known}")
    like = tested[test]
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
    judged = {**like["protocol"]["judged"], "leaked": like["protocol"]["judged"].get("leaked")}
    stated = {
        "supervision": supervision,
        "backbone": "not stated",
        "smoothing": "not stated",
        "selection": "not stated",
    }
    stated |= {"target_labels": "not stated", "n_labelled_videos": "not stated", "prompt_class_names": "not stated"}
    row = judge(folder, videos, curves, refined, judged, stated)
    row |= {"table": table, "cell": name, "system": slug, "kind": "submitted", "fit": "", "test": test, "seed": 0}
    row |= {"demo": like["demo"], "main_metric": like["main_metric"], "claim": ""}
    told = ["--scores", scores.name, "--name", name, "--test", test, "--supervision", supervision]
    row |= {"command": shlex.join(["python", "benchmark.py", "score", *file_of(table, like["demo"]), *told])}
    row |= {"finished": datetime.now(UTC).isoformat()}
    (folder / "row.json").write_text(json.dumps([row], default=str) + "\n")
    write_controls(row, videos, out / "controls")
    return row
