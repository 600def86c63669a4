"""A reliability diagram: how often a system is right that is so and so sure of a class, before and after scaling."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vigil.calibration import BINS, Bins
from vigil.judging import class_reliability

WIDTH, HEIGHT, DPI = 4.0, 4.6, 100  # inches, of one diagram and the counts below it
RIGHT, GAP = "tab:blue", "tab:red"


def draw_reliability(true: np.ndarray, score: np.ndarray, temperature: float | None) -> bytes:
    """A PNG: of the bins of `judging.class_reliability` accuracy, confidence and samples; 400 by 460 pixels each.

    true int (N,), score (N, K) as there. With a temperature there is a second diagram, of softmax(score / temperature).
    """
    shown = [("as scored", class_reliability(true, score))]
    if temperature is not None:
        shown.append((f"temperature {temperature:.3g}", class_reliability(true, score, temperature)))
    figure = Figure(figsize=(WIDTH * len(shown), HEIGHT), dpi=DPI, layout="constrained")
    axes = figure.subplots(2, len(shown), height_ratios=(3, 1), squeeze=False, sharex="col", sharey="row")
    most = max(max(bins.size) for _, bins in shown)
    for k, (title, bins) in enumerate(shown):
        _draw_bins(axes[0, k], bins)
        axes[0, k].set_title(f"{title}: calibration error {bins.error:.3f}", fontsize=10, loc="left")
        _draw_counts(axes[1, k], bins, most)
    axes[0, 0].set_ylabel("accuracy")
    axes[1, 0].set_ylabel("samples")
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw_bins(axis: Axes, bins: Bins) -> None:
    left = np.array(bins.number) / BINS
    share, score = np.array(bins.share), np.array(bins.score)
    axis.plot([0, 1], [0, 1], color="0.5", lw=1, ls="--")
    axis.bar(left, share, 1 / BINS, align="edge", color=RIGHT, edgecolor="white", lw=0.5, label="accuracy")
    axis.bar(
        left, score - share, 1 / BINS, bottom=share, align="edge", color=GAP, alpha=0.3, edgecolor=GAP, lw=0.5,
        label="gap to confidence",
    )  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1))
    axis.legend(loc="upper left", fontsize=8, frameon=False)


def _draw_counts(axis: Axes, bins: Bins, most: int) -> None:
    left = np.array(bins.number) / BINS
    axis.bar(left, bins.size, 1 / BINS, align="edge", color="0.6", edgecolor="white", lw=0.5)
    for edge, size in zip(left, bins.size, strict=True):
        axis.text(edge + 0.5 / BINS, size, str(size), fontsize=7, ha="center", va="bottom")
    axis.set(ylim=(0, 1.25 * most), xlabel="confidence: probability of the most probable class")
