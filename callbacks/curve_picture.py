"""A picture of a video's scores: the curve, what was annotated and detected, frames around the peak, explanations."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from vigil.curves import Curve
from vigil.temporal import segments
from vigil.types import Video
from vigil.video import read_frames

N_THUMBNAILS = 5
WIDTH, HEIGHT, DPI = 8.0, 4.0, 100  # inches; text below adds to the height
MAX_EXPLAINED, MAX_LINES, LINE_LETTERS = 3, 5, 108
LINE = 0.155  # inches, of 8 point text
DETECTED, ANNOTATED, NORMAL = "tab:red", "0.2", "tab:green"
TOP = (1.05, 1.11)  # of the strip that shows the annotation, above every score

Explained = Sequence[tuple[int, int, str, str]]


def draw_curve(
    video: Video, curve: Curve, refined: Curve | None, threshold: float | None, explained: Explained = ()
) -> bytes:
    """A PNG of a video's scores over its frames and frames around the peak: 800 by 400 pixels, higher by what is said.

    Shaded: where the final curve lies above the threshold. The strip on top: what was annotated. explained: (first
    frame, end frame, "anomalous" or "normal", text); the text of up to three of them is written below.
    """
    best = refined or curve
    chosen = most_telling(explained, best)
    lines = [_lines(video, *part) for part in chosen]
    text_height = LINE * (sum(map(len, lines)) + 0.6 * len(lines))
    upper = [0.6 * HEIGHT, 0.4 * HEIGHT] if video.path else [0.99 * HEIGHT, 0.01 * HEIGHT]
    figure = Figure(figsize=(WIDTH, HEIGHT + text_height), dpi=DPI, layout="constrained")
    rows = [*upper, text_height] if chosen else upper
    grid = figure.add_gridspec(len(rows), N_THUMBNAILS, height_ratios=rows)
    axis = figure.add_subplot(grid[0, :])
    centre = _draw_scores(axis, video, curve, refined, threshold)
    for number, (first, end, kind, _) in enumerate(chosen, 1):
        _mark(axis, (first + end) / 2, number, kind)
    if video.path is not None:
        _draw_frames(figure, grid, video, centre)
    if chosen:
        _write(figure.add_subplot(grid[2, :]), chosen, lines)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def most_telling(explained: Explained, curve: Curve) -> list[tuple[int, int, str, str]]:
    """Up to three of the explained stretches: the highest anomalous ones first, at last the longest normal one."""

    def highest(part: tuple[int, int, str, str]) -> tuple[float, int]:
        first, end = np.searchsorted(curve.edge, part[:2])
        return -float(curve.score[first : max(end, first + 1)].max()), part[0]

    normal = sorted((part for part in explained if part[2] == "normal"), key=lambda part: part[0] - part[1])[:1]
    anomalous = sorted((part for part in explained if part[2] != "normal"), key=highest)
    return [*anomalous[: MAX_EXPLAINED - len(normal)], *normal]


def _draw_scores(axis: Axes, video: Video, curve: Curve, refined: Curve | None, threshold: float | None) -> int:
    """Everything of the upper axis; the frame of the peak."""
    best = refined or curve
    peak = int(np.argmax(best.score))
    centre = int(best.edge[peak] + best.edge[peak + 1]) // 2
    for i, (first, end) in enumerate(video.anomalies or []):
        label = "annotated" if i == 0 else None
        axis.fill_between([first, end], *TOP, facecolor=ANNOTATED, edgecolor=ANNOTATED, lw=0.5, label=label)
    if threshold is not None:
        for i, (a, b) in enumerate(segments(best.score, threshold)):
            label = "detected" if i == 0 else None
            axis.axvspan(best.edge[a], best.edge[b], ymax=1 / TOP[1], color=DETECTED, alpha=0.2, lw=0, label=label)
    if refined is not None:
        axis.stairs(curve.score, curve.edge, color="0.6", lw=1, label="raw score")
    axis.stairs(best.score, best.edge, color="tab:blue", lw=1.8, label="score" if refined is None else "refined score")
    if threshold is not None:
        axis.axhline(threshold, color="0.3", ls="--", lw=1, label="threshold")
    axis.plot(centre, best.score[peak], "v", color="tab:blue", ms=7)
    axis.set(xlim=(0, int(curve.edge[-1])), ylim=(0, TOP[1]), xlabel="frame", ylabel="anomaly score")
    axis.set_yticks([0, 0.25, 0.5, 0.75, 1])
    title = video.name + ("" if video.category is None else f" ({video.category})")
    entries = len(axis.get_legend_handles_labels()[1])
    one_line = len(title) < 80 - 12 * entries  # beside the legend; a long one goes above it
    axis.set_title(title, fontsize=10, loc="left", pad=6 if one_line else 20, parse_math=False)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=entries, fontsize=8, frameon=False)
    return centre


def _mark(axis: Axes, frame: float, number: int, kind: str) -> None:
    box = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": _colour(kind), "lw": 1}
    axis.text(frame, 0.93, str(number), fontsize=7, ha="center", va="center", color=_colour(kind), bbox=box)


def _colour(kind: str) -> str:
    return NORMAL if kind == "normal" else DETECTED


def _draw_frames(figure: Figure, grid: GridSpec, video: Video, centre: int) -> None:
    assert video.path is not None
    assert video.n_frames is not None  # known() measured it
    step = round(video.fps or 25) // 2
    around = centre + step * (np.arange(N_THUMBNAILS) - N_THUMBNAILS // 2)
    index = np.unique(np.clip(around, 0, video.n_frames - 1))
    for k, (frame, pixels) in enumerate(zip(index, read_frames(video.path, index), strict=True)):
        axis = figure.add_subplot(grid[1, k])
        axis.imshow(pixels.permute(1, 2, 0).numpy())
        seconds = f", {frame / video.fps:.1f} s" if video.fps else ""
        axis.set_title(f"frame {frame}{seconds}" + (" (peak)" if frame == centre else ""), fontsize=7)
        axis.axis("off")


def _lines(video: Video, first: int, end: int, kind: str, text: str) -> list[str]:
    """When a stretch is, then what is said of it, cut after MAX_LINES."""
    seconds = f", {first / video.fps:.1f} to {end / video.fps:.1f} s" if video.fps else ""
    said = textwrap.wrap(" ".join(text.split()), LINE_LETTERS, max_lines=MAX_LINES, placeholder=" …")
    return [f"{kind}, frames {first} to {end}{seconds}", *said]


def _write(axis: Axes, chosen: Explained, lines: list[list[str]]) -> None:
    axis.axis("off")
    height = sum(map(len, lines)) + 0.6 * len(lines)
    line = 0.6
    for number, ((_, _, kind, _), (heading, *said)) in enumerate(zip(chosen, lines, strict=True), 1):
        style = {"fontsize": 8, "va": "center", "transform": axis.transAxes, "parse_math": False, "in_layout": False}
        y = 1 - line / height
        axis.text(0, y, f"{number}  {heading}", color=_colour(kind), weight="bold", **style)
        for k, words in enumerate(said, 1):
            axis.text(0.02, y - k / height, words, **style)
        line += 1 + len(said) + 0.6
