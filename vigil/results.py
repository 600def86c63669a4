"""Rows of results: one for each test that a runner made, a control or somebody else's scores. NumPy, no torch."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from vigil import protocol
from vigil.cells import ROOT, Cell, Step
from vigil.controls import CONTROLS, control_curves
from vigil.curves import Curve
from vigil.judging import frame_numbers, reliability, runs_of
from vigil.measured import BASES, COST, METRIC, NAMED, PROVENANCE
from vigil.protocol import PUBLIC_NAMES
from vigil.provenance import provenance
from vigil.records import commands_of, read_record
from vigil.staleness import digest
from vigil.statistics import draw_videos, resample
from vigil.stored import (
    numbers,
    read_scores,
    read_truth,
    truth_hash,
    write_class_scores,
    write_scores,
    write_truth,
)

PIXELS = ("pixel_auroc", "pixel_ap", "rbdc", "tbdc")
LAST = ("protocol", "command", "folder")
ORACLE = "video_label_oracle"
CODE_OF_A_CONTROL = ("controls", "judging", "calibration", "curves", "statistics", "stored", "columns", "results")
OF_A_CONTROL = {"supervision": "control", "backbone": "none"}
SAME = 1e-12  # another processor may add up in another order
POINTS = 240  # runs of a curve that a picture of it needs; the file has all


def keep_result(table: str, step: Step) -> None:
    """Have details.json and row.json beside what a finished test left.

    Raises ValueError where the number is missing that its dataset is judged by.
    """
    record = read_record(step.record)
    folder = step.folder / record["result"]
    facts = json.loads((folder / "metrics.json").read_text())
    if facts["main_metric"] not in facts["metrics"] and step.cell.kind != "control":
        raise ValueError(
            f"{folder}: no {facts['main_metric']} among its numbers, by which the dataset is judged; "
            f"there are {', '.join(facts['metrics']) or 'none'}"
        )
    rows = [_row_of(table, step, record, facts)]
    if step.cell.kind == "control" and any(rows[0].get(key) is not None for key in PIXELS):
        rows = _split(rows[0])
    if (folder / "truth.csv").is_file() and (folder / "scores.csv").is_file():
        videos = read_truth(folder / "truth.csv")
        curves, refined = read_scores(folder / "scores.csv", videos)
        write_json(folder / "details.json", details(videos, curves, refined, facts["metrics"]))
    write_json(folder / "row.json", rows)  # last: where it is, all of the result is


def _row_of(table: str, step: Step, record: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    cell, fit = step.cell, read_record(step.folder / "fit.json") if step.cell.fit else {}
    cost, found = facts.get("cost", {}), record["fingerprint"]
    commands = [["lightning", *command] for command in commands_of(step)]
    wall = record["wall_s"] + fit.get("wall_s", 0.0)
    return {
        "table": table, "cell": cell.name, "system": cell.system, "kind": cell.kind, "fit": cell.fit or "",
        "test": step.dataset, "dataset": public_name(facts), "demo": int(step.place.world is not None),
        "seed": step.seed, "claim": cell.claim or "", "supervision": _supervision(cell, facts),
        "main_metric": facts["main_metric"], **_shown(facts["metrics"]),
        "trained_parameters": cost.get("trained_parameters"), "fit_s": fit.get("wall_s"), "test_s": record["wall_s"],
        "frames_per_second": cost.get("frames_per_second"), "peak_memory_mb": cost.get("peak_memory_mb"),
        **facts["provenance"],
        **{f"{part}_hash": digest(found[part]) for part in ("config", "code", "data", "weights")},
        "wall_s": wall, "finished": record["finished"], "protocol": facts["protocol"],
        "command": " && ".join(shlex.join(command) for command in commands),
    }  # fmt: skip


def _supervision(cell: Cell, facts: Mapping[str, Any]) -> str:
    return "control" if cell.kind == "control" else str(facts["protocol"]["stated"]["supervision"])


def _shown(metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers that have a column; those of single classes stay in metrics.json and details.json."""
    return {key: value for key, value in metrics.items() if METRIC.fullmatch(key)}


def public_name(facts: Mapping[str, Any]) -> str:
    """A dataset as the field writes it, from the facts of metrics.json."""
    name = str(facts["protocol"]["judged"]["dataset"])
    return PUBLIC_NAMES.get(name, name)


def _split(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The control's frames and its pixels as two rows: differences score the ones, the centre prior the others."""
    frames = {key: value for key, value in row.items() if key not in PIXELS}
    pixels = {key: value for key, value in row.items() if key in PIXELS or not METRIC.fullmatch(key)}
    return [frames, {**pixels, "cell": "pixel centre prior"}]


def details(
    videos: Sequence[Any], curves: Mapping[str, Curve], refined: Mapping[str, Curve], metrics: Mapping[str, float]
) -> dict[str, Any]:
    """What a page shows of a run beyond its row: bootstrap draws, reliability, thinned curves, classes."""
    names = [video.name for video in videos]
    draws: dict[str, str] = {}
    for end, kind in (("", curves), ("_refined", refined)):
        if not kind:
            continue
        runs = runs_of(videos, [kind[name] for name in names])
        drawn = resample(runs, draw_videos(*runs.frames(), 1000, 0))  # as `bootstrap` and `paired` draw them
        for key, values in (("frame_auroc", drawn["auroc"]), ("frame_ap", drawn["average_precision"])):
            draws[key + end] = base64.b64encode(values.astype("<f4").tobytes()).decode()
    shown = pictures(videos, curves, refined)
    classes = {key.partition("/")[2]: value for key, value in metrics.items() if key.startswith("frame_auroc/")}
    bins = reliability(videos, [curves[name] for name in names])
    diagram = {"score": bins.score, "anomalous": bins.share, "frames": bins.size}
    return {"draws": draws, "reliability": diagram, "curves": shown, "classes": classes}


def pictures(
    videos: Sequence[Any], curves: Mapping[str, Curve], refined: Mapping[str, Curve]
) -> dict[str, dict[str, Any]]:
    """Every video's curve as a page draws it, thinned to POINTS runs, with its annotation."""
    return {video.name: _picture(video, curves[video.name], refined.get(video.name)) for video in videos}


def _picture(video: Any, curve: Curve, refined: Curve | None) -> dict[str, Any]:
    edge = curve.edge if refined is None else np.union1d(curve.edge, refined.edge)
    if len(edge) > POINTS + 1:
        edge = np.unique(edge[np.linspace(0, len(edge) - 1, POINTS + 1).astype(int)])
    lines = {"score": curve} | ({} if refined is None else {"refined": refined})
    at = {name: one.score[np.searchsorted(one.edge, edge[:-1], side="right") - 1] for name, one in lines.items()}
    return {
        "n_frames": video.n_frames,
        "fps": video.fps,
        "category": video.category,
        "anomalies": video.anomalies,
        "edge": edge.tolist(),
        **{name: [round(float(value), 4) for value in values] for name, values in at.items()},
    }


def controls_of(like: Mapping[str, Any], tested: Path, out: Path) -> list[Path]:
    """The folders of the controls that are judged as a row is, whose test left its files in `tested`.

    Those that the truth or the class scores alone give; made where they are missing, or made by other code.
    """
    found = []
    if (tested / "truth.csv").is_file():
        found = write_controls(like, read_truth(tested / "truth.csv"), out)
    if (tested / "class_scores.csv").is_file():
        found.append(write_chance(like, tested / "class_scores.csv", out))
    return found


def write_controls(like: Mapping[str, Any], videos: Sequence[Any], out: Path) -> list[Path]:
    """The controls that the truth alone gives, judged as a row is: their folders, each made if it is not there."""
    judged, folders = like["protocol"]["judged"], []
    for name in CONTROLS:
        folder = _control_folder(like, name, out)
        folders.append(folder)
        if not (folder / "row.json").is_file():
            stated = OF_A_CONTROL | ({"target_labels": "of the test videos"} if name == ORACLE else {})
            row = judge(folder, videos, control_curves(name, videos), {}, judged, stated)
            write_json(folder / "row.json", [row | _control(like, name)])
    return folders


def write_chance(like: Mapping[str, Any], class_scores: Path, out: Path) -> Path:
    """The folder of the control of class scores: every class the same score, so that chance decides."""
    folder = _control_folder(like, "chance", out)
    if (folder / "row.json").is_file():
        return folder
    with class_scores.open(newline="") as stream:
        header, *rows = csv.reader(stream)
    categories = header[4:]
    equal = [0.0] * len(categories)
    write_class_scores(
        folder / "class_scores.csv", categories, [(row[0], int(row[1]), int(row[2]), row[3], equal) for row in rows]
    )
    facts = {"protocol": {"judged": like["protocol"]["judged"], "stated": {**protocol.STATED, **OF_A_CONTROL}}}
    values = numbers(folder)
    none = dict.fromkeys(("threshold", "gated_at", "temperature"))
    metrics = {**facts, **none, "provenance": provenance(), "metrics": values}
    write_json(folder / "metrics.json", metrics)
    row = {"dataset": like["dataset"], "supervision": "control", **facts, **_shown(values), **provenance()}
    write_json(folder / "row.json", [row | _control(like, "chance")])
    return folder


def _control_folder(like: Mapping[str, Any], name: str, out: Path) -> Path:
    judged = {key: str(value) for key, value in like["protocol"]["judged"].items()}
    folder = out / f"{like['test']}-{digest(judged | _code())[:12]}" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@cache
def _code() -> dict[str, str]:
    """The code that makes a control and judges it: with other code it is made anew."""
    return {name: (ROOT / "vigil" / f"{name}.py").read_text() for name in CODE_OF_A_CONTROL}


def _control(like: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What a control's row has of the row that it is judged as."""
    command = shlex.join(["python", "benchmark.py", "run", *file_of(like["table"], like["demo"])])
    same = {key: like[key] for key in ("table", "main_metric", "demo", "test")}
    return {**same, "seed": 0, "cell": name.replace("_", " "), "system": name, "kind": "control", "command": command}


def file_of(table: str, demo: object) -> list[str]:
    """The arguments of benchmark.py that name a table's file, of those in configs/benchmarks."""
    file = ROOT / "configs" / "benchmarks" / f"{table}.yaml"
    always = file.is_file() and re.search(r"^only_demo: true", file.read_text(), flags=re.MULTILINE)
    return [f"configs/benchmarks/{table}.yaml", *(["--demo"] if demo and not always else [])]


def judge(
    folder: Path, videos: Sequence[Any], curves: Mapping[str, Curve], refined: Mapping[str, Curve],
    judged: Mapping[str, Any], stated: Mapping[str, Any],
) -> dict[str, Any]:  # fmt: skip
    """The row of curves from elsewhere; truth.csv, scores.csv, metrics.json and details.json are left in `folder`."""
    stated = {**protocol.STATED, **protocol.of_curves(curves), **stated}
    held, sentinels = judged.get("hold_out") or (), "whole_windows" in judged
    values = frame_numbers(videos, curves, refined, unseen=held, sentinels=sentinels)
    facts = {"protocol": {"judged": dict(judged), "stated": stated}, "threshold": None, "gated_at": None}
    write_json(folder / "metrics.json", {**facts, "provenance": provenance(), "metrics": values})
    write_truth(folder / "truth.csv", videos)
    write_scores(folder / "scores.csv", curves, refined)
    write_json(folder / "details.json", details(videos, curves, refined, values))
    return {
        "dataset": public_name(facts), "supervision": stated["supervision"], "protocol": facts["protocol"],
        **_shown(values), **provenance(),
    }  # fmt: skip


def collect(out: Path, folders: Iterable[Path]) -> list[dict[str, Any]]:
    """The rows that lie in these folders, each told its folder below `out`."""
    rows = []
    for folder in folders:
        if (folder / "row.json").is_file():
            of_folder = json.loads((folder / "row.json").read_text())
            rows += [{**row, "folder": folder.relative_to(out).as_posix()} for row in of_folder]
    return rows


def write_measured(file: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """measured.csv: a row per run; see results/README.md. Whole or not at all."""
    there = {key for row in rows for key in row if METRIC.fullmatch(key)}
    named = [key for key in NAMED if key not in LAST]
    metrics = sorted(there, key=lambda key: (BASES.index(METRIC.fullmatch(key)[1]), key))  # type: ignore[index]
    part = file.with_suffix(".part")
    with part.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, [*named, *metrics, *COST, *PROVENANCE, *LAST], extrasaction="ignore")
        writer.writeheader()
        writer.writerows({key: _cell_text(value) for key, value in row.items()} for row in rows)
    part.replace(file)


def differences(row: Mapping[str, Any], out: Path) -> list[str]:
    """What of a row's numbers the files of its run do not give again, in words; empty where all is as it says."""
    folder = out / str(row["folder"])
    name = f"{row['cell']}, {row['test']}, seed {row['seed']}"
    facts_file = folder / "metrics.json"
    if not facts_file.is_file():
        return [f"{name}: {facts_file} is not there"]
    try:
        facts = json.loads(facts_file.read_text())
        judged = facts["protocol"]["judged"]
        if "ground_truth" in judged and truth_hash(read_truth(folder / "truth.csv")) != judged["ground_truth"]:
            return [f"{name}: {folder / 'truth.csv'} is not the truth that it was judged by, {judged['ground_truth']}"]
        held, temperature = judged.get("hold_out") or (), facts.get("temperature")
        sentinels = "whole_windows" in judged
        again = numbers(folder, facts["gated_at"], facts["threshold"], held, temperature, sentinels)
    except (KeyError, json.JSONDecodeError) as error:
        return [f"{name}: {facts_file} is not as a test left it ({error!r})"]
    except (ValueError, OSError) as error:
        return [f"{name}: {error}"]
    found = []
    for key, said in row.items():
        if not METRIC.fullmatch(key) or said in (None, ""):
            continue
        if key not in again:
            found.append(f"{name}: {key} is {said}, and nothing in {folder} gives it")
        elif not _is(said, again[key]):
            found.append(f"{name}: {key} is {said}, {folder} gives {again[key]!r}")
    return found


def _is(said: Any, value: float) -> bool:
    """Whether a number of a row, as text or not, is this value."""
    try:
        return math.isclose(float(said), value, rel_tol=0, abs_tol=SAME)
    except ValueError:
        return False


def write_json(file: Path, content: Any) -> None:
    """Whole or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, default=str) + "\n")
    part.replace(file)


def _cell_text(value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value, sort_keys=True, default=str)
    if isinstance(value, float):
        return repr(value)
    return "" if value is None else value
