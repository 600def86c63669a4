"""Words for what measured.csv keeps under keys: metrics, costs, protocol fields."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from vigil.measured import COST, METRIC, Entry, Table

LABELS = {
    "frame_auroc": "frame AUROC",
    "frame_ap": "frame AP",
    "frame_ap_trapezoid": "frame AP (trapezoid)",
    "frame_auroc_anomalous": "frame AUROC, anomalous videos",
    "frame_auroc_seen": "frame AUROC, seen classes",
    "frame_auroc_unseen": "frame AUROC, unseen classes",
    "video_auroc": "video AUROC",
    "event_map": "event mAP",
    "false_alarms_per_hour": "false alarms per hour",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "rbdc": "RBDC",
    "tbdc": "TBDC",
    "top1": "top-1",
    "top2": "top-2",
    "top3": "top-3",
    "top_expansion": "top-3 less top-1",
    "class_ece": "class ECE",
    "class_ece_scaled": "class ECE at a fitted temperature",
    "class_nll": "class NLL",
    "class_nll_scaled": "class NLL at a fitted temperature",
    "class_entropy": "class entropy, nats",
    "caption_sbert": "caption SBERT",
    "caption_distinct1": "caption distinct-1",
    "caption_distinct2": "caption distinct-2",
    "caption_template": "most frequent caption template",
    "ece": "ECE",
    "peak_f1": "peak F1",
}


def label(key: str) -> str:
    """A metric's name as a reader says it: frame_auroc_refined -> frame AUROC, refined."""
    found = METRIC.fullmatch(key)
    if not found:
        return LABELS.get(key, key.replace("_", " "))
    return ", ".join([LABELS[found[1]], *(part[1:] for part in (found[2], found[3]) if part)])


def cost_of(entry: Entry) -> str:
    """What the entry costs in a few words, means over its seeds; empty where nothing is stated."""
    known = [key for key in COST if all(key in run.cost for run in entry.runs)]
    mean = {key: sum(run.cost[key] for run in entry.runs) / len(entry.runs) for key in known}
    words: dict[str, Callable[[float], str]] = {
        "trained_parameters": lambda number: f"{parameters(number)} trained",
        "fit_s": lambda number: f"fit {seconds(number)}",
        "frames_per_second": lambda number: f"{number:,.0f} frames/s",
        "peak_memory_mb": lambda number: f"{number:,.0f} MB",
    }
    return ", ".join(say(mean[key]) for key, say in words.items() if mean.get(key))


def chosen_of(entry: Entry) -> str:
    """Which layer, or which heads, a fit chose; with several seeds how often each. Empty where it chooses neither."""
    names: dict[str, int] = {}
    for run in entry.runs:
        layer, heads = run.stated.get("layer"), run.stated.get("heads")
        if isinstance(heads, list) and heads:
            name = " ".join(f"L{of}H{head}" for of, head in sorted(heads))
        elif layer is not None:
            name = f"layer {layer}"
        else:
            continue
        names[name] = names.get(name, 0) + 1
    most = sorted(names, key=lambda name: -names[name])
    return ", ".join(name if len(entry.runs) == 1 else f"{name} ({names[name]}x)" for name in most)


def parameters(number: float) -> str:
    """1234567 -> 1.2 M."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def seconds(number: float) -> str:
    """A duration in the unit that suits it."""
    if number < 120:
        return f"{number:.3g} s"
    return f"{number / 60:.0f} min" if number < 7200 else f"{number / 3600:.1f} h"


def protocol_value(value: Any) -> str:
    """A protocol field's value as text: yes and no for booleans, JSON for what has parts."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "not stated"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def stands_apart(table: Table) -> str:
    """The fields that keep a table apart, with both values."""
    return "; ".join(
        f"{field.replace('_', ' ')} is {protocol_value(here)} here and {protocol_value(there)} there"
        for field, (here, there) in table.differs.items()
    )
