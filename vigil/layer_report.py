"""What a fit of HiProbe or SteerVad leaves for eyes: which layer and which heads it chose, as tables and pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from torch import Tensor

NAMES = {
    "kl_divergence": "KL divergence",
    "discriminant_ratio": "local discriminant ratio",
    "silhouette": "silhouette score",
    "saliency": "saliency (sum of z-scores)",
}
CLASSES = (("normal", "tab:blue", "o"), ("anomalous", "tab:red", "^"))
FEWEST = 5  # samples of a t-SNE; fewer have no neighbourhoods to speak of
# scikit-learn's 1000 take twice as long; at 1000 samples x 4096 they bring the divergence from 1.59 to 1.57
ITERATIONS = 500


def write_layers(file: Path, curves: Mapping[str, ArrayLike | Tensor], chosen: int, first: int = 0) -> None:
    """layers.csv: layer, every curve in the mapping's order, chosen (0 or 1); a row per layer, floats in full.

    curves: (L,) each, finite, of one length, else ValueError, from the layer `first` on; chosen: one of these layers.
    """
    curve = _check_curves(curves, chosen - first)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["layer", *curve, "chosen"])
        for layer, row in enumerate(zip(*curve.values(), strict=True), first):
            writer.writerow([layer, *(repr(float(value)) for value in row), int(layer == chosen)])


def draw_layers(curves: Mapping[str, ArrayLike | Tensor], chosen: int, title: str, first: int = 0) -> bytes:
    """A PNG with a panel per curve over the layers, the chosen layer marked in each.

    Arguments and errors as in `write_layers`. Source: HiProbe-VAD, arXiv:2507.17394, figures 2 and 3. Differs: one
    panel each, since the curves' units differ.
    """
    curve = _check_curves(curves, chosen - first)
    n_columns = min(3, len(curve))
    n_rows = -(-len(curve) // n_columns)
    figure = Figure(figsize=(3.4 * max(n_columns, 2), 0.8 + 2.2 * n_rows), dpi=100, layout="constrained")
    grid = figure.add_gridspec(n_rows, 6)
    for i, (name, value) in enumerate(curve.items()):
        row, column = divmod(i, n_columns)
        width = 6 // min(n_columns, len(curve) - row * n_columns)  # the last row's panels share what there is
        axis = figure.add_subplot(grid[row, column * width : (column + 1) * width])
        layer = first + np.arange(len(value))
        axis.axvline(chosen, color="tab:red", lw=1.2, ls="--")
        axis.plot(layer, value, "o-", color="tab:blue", lw=1.5, ms=4 if len(value) <= 16 else 3)
        axis.plot(chosen, value[chosen - first], "o", color="tab:red", ms=6)
        axis.set_title(
            f"{NAMES.get(name, name.replace('_', ' '))}\nhighest at layer {first + np.argmax(value)}", fontsize=9
        )
        axis.set_xlabel("layer", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
        axis.tick_params(labelsize=8)
        axis.grid(color="0.9", lw=0.6)
        axis.set_axisbelow(True)
    figure.suptitle(title, fontsize=11, wrap=True)
    mark = Line2D([], [], color="tab:red", lw=1.2, ls="--", marker="o", ms=6, label=f"chosen: layer {chosen}")
    figure.legend(handles=[mark], loc="outside lower center", fontsize=9, frameon=False)
    return _png(figure)


def tsne(states: ArrayLike | Tensor, seed: int = 0) -> np.ndarray:
    """A point of the plane per sample, (N, 2), neighbours in `states` (N, D) near each other.

    The same on every call with a seed. States that are all equal, such as the embedding of one and the same last prompt
    token, lie at the origin. Perplexity min(30, (N - 1) / 3). ValueError for N below 5, D below 2, or a state that is
    not finite. One factor scales all states, which t-SNE does not see; no width is standardised by itself.
    """
    state = _numbers("states", states, 2)
    if state.shape[0] < FEWEST or state.shape[1] < 2:
        raise ValueError(
            f"{state.shape[0]} samples of a width of {state.shape[1]} found; t-SNE needs at least {FEWEST} of at least "
            "2: fit on more samples, or leave the picture out"
        )
    state = state - state[0]  # equal states become exact zeros, and no large mean eats the digits of a distance
    spread = np.abs(state).max()
    if spread == 0:  # scikit-learn 1.9.1 ends the process (segmentation fault) on equal states, and on very small ones
        return np.zeros((len(state), 2))
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(state) - 1) / 3)
    model = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=ITERATIONS)
    with threadpool_limits(1):  # no seed fixes in which order scikit-learn's threads add up; one is enough for a few
        return np.asarray(model.fit_transform(state / spread), dtype=np.float64)


def draw_tsne(
    states: Mapping[str, ArrayLike | Tensor], label: ArrayLike | Tensor, seed: int = 0, max_points: int = 1000
) -> bytes:
    """A PNG with a t-SNE per entry of `states`, titled by its key; normal and anomalous samples in colour and shape.

    states: (N, D) each, D may differ; label (N,), 0 normal or 1 anomalous. Of more samples than max_points only so many
    are drawn, evenly over the list; the title says how many of how many. Errors as in `tsne`, and ValueError where
    lengths differ or a label is neither 0 nor 1.
    Source: HiProbe-VAD, arXiv:2507.17394, figure 4, which gives no settings of its t-SNE.
    """
    labels = _numbers("label", label, 1)
    state = {name: _numbers(f"states of {name}", value, 2) for name, value in states.items()}
    lengths = {name: len(value) for name, value in state.items()}
    if not state or set(lengths.values()) != {len(labels)}:
        raise ValueError(f"there are {len(labels)} labels, but samples: {lengths}; hand over one state per label")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"labels {np.unique(labels)[:5]} found; 0 (normal) and 1 (anomalous) are expected")
    drawn = np.linspace(0, len(labels) - 1, min(len(labels), max_points), dtype=int)
    figure = Figure(figsize=(max(3.0 * len(state), 4.5), 3.9), dpi=100, layout="constrained")
    axes = figure.subplots(1, len(state), squeeze=False)[0]
    for axis, (name, value) in zip(axes, state.items(), strict=True):
        _scatter(axis, tsne(value[drawn], seed), labels[drawn])
        axis.set_title(name, fontsize=10)
    figure.suptitle(f"t-SNE of {len(drawn)} of {len(labels)} samples", fontsize=11)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return _png(figure)


def _scatter(axis: Axes, point: np.ndarray, label: np.ndarray) -> None:
    size = float(np.clip(2000 / len(point), 10, 40))
    for i, (name, color, marker) in enumerate(CLASSES):
        own = point[label == i]
        axis.scatter(
            own[:, 0], own[:, 1], s=size, c=color, marker=marker, alpha=0.7, lw=0, label=f"{name} ({len(own)})"
        )
    low, high = point.min(axis=0), point.max(axis=0)
    half = 0.55 * (high - low).max() or 1.0
    if not point.any():
        axis.text(0, 0.1, "all states are equal", ha="center", fontsize=9)
    x, y = (low + high) / 2
    axis.set(xlim=(x - half, x + half), ylim=(y - half, y + half), aspect="equal")
    axis.set(xticks=[], yticks=[])  # a t-SNE's axes mean nothing


def write_heads(
    file: Path, scores: ArrayLike | Tensor, chosen: Sequence[tuple[int, int]], measure: str = "separability"
) -> None:
    """heads.csv: layer, head, `measure`, rank (1 is best), chosen (0 or 1); a row per head, floats in full.

    scores (L, H), finite; chosen: (layer, head) pairs, counted from 0, each once, else ValueError. Of equal heads the
    one of the lower layer, then of the lower number, ranks first.
    """
    score, pairs = _check_heads(scores, chosen)
    rank = np.empty(score.size, dtype=int)
    rank[np.argsort(-score, axis=None, kind="stable")] = np.arange(1, score.size + 1)
    rows = zip(np.ndindex(score.shape), score.flat, rank, strict=True)
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["layer", "head", measure, "rank", "chosen"])
        writer.writerows([*pair, repr(float(value)), place, int(pair in pairs)] for pair, value, place in rows)


def draw_heads(
    scores: ArrayLike | Tensor, chosen: Sequence[tuple[int, int]], title: str, measure: str = "separability"
) -> bytes:
    """A PNG of every head's `measure`, layers down and heads across; the chosen ones framed and named (L18H4).

    Arguments and errors as in `write_heads`. The names stand at the right of their layer, in the heads' order.
    """
    score, pairs = _check_heads(scores, chosen)
    n_layers, n_heads = score.shape
    cell = float(np.clip(5 / max(score.shape), 0.16, 0.5))  # inches
    figure = Figure(figsize=(max(cell * n_heads + 2.6, 4.5), cell * n_layers + 1.1), dpi=100, layout="compressed")
    axis = figure.add_subplot()
    image = axis.imshow(score, cmap="viridis", interpolation="nearest")
    for layer, head in pairs:
        axis.add_patch(Rectangle((head - 0.5, layer - 0.5), 1, 1, fill=False, ec="tab:red", lw=2))
    names = {layer: " ".join(f"L{layer}H{head}" for row, head in pairs if row == layer) for layer, _ in pairs}
    side = axis.secondary_yaxis("right")
    side.set_yticks(list(names), list(names.values()), fontsize=8, color="tab:red")
    axis.set_xlabel("head", fontsize=9)
    axis.set_ylabel("layer", fontsize=9)
    for one in (axis.xaxis, axis.yaxis):
        one.set_major_locator(MaxNLocator(nbins=14, integer=True, min_n_ticks=1))
    axis.tick_params(labelsize=8)
    bar = figure.colorbar(image, ax=axis, label=measure, fraction=0.08, pad=0.02, aspect=30)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=11, wrap=True)
    return _png(figure)


def _check_curves(curves: Mapping[str, ArrayLike | Tensor], chosen: int) -> dict[str, np.ndarray]:
    curve = {name: _numbers(name, value, 1) for name, value in curves.items()}
    lengths = {name: len(value) for name, value in curve.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"curves over the layers have one length, but: {lengths}; measure all on the same layers")
    n_layers = next(iter(lengths.values()))
    if not 0 <= chosen < n_layers:
        raise ValueError(f"layer {chosen} is chosen of {n_layers}; layers count from 0 to {n_layers - 1}")
    return curve


def _check_heads(
    scores: ArrayLike | Tensor, chosen: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Scores (L, H) and the chosen heads, sorted."""
    score = _numbers("scores", scores, 2)
    n_layers, n_heads = score.shape
    pairs = sorted((int(layer), int(head)) for layer, head in chosen)
    outside = [(layer, head) for layer, head in pairs if not (0 <= layer < n_layers and 0 <= head < n_heads)]
    if outside:
        raise ValueError(f"heads {outside} are chosen of {n_layers} layers x {n_heads} heads; both count from 0")
    if len(set(pairs)) < len(pairs):
        raise ValueError(f"a head is chosen twice in {pairs}; name each once")
    return score, pairs


def _numbers(name: str, values: ArrayLike | Tensor, n_dims: int) -> np.ndarray:
    """float64, which holds float32 and bfloat16 exactly."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().double().numpy()
    number = np.asarray(values, dtype=np.float64)
    if number.ndim != n_dims or not number.size:
        raise ValueError(f"{name} have shape {number.shape}; {n_dims} dimensions are expected, none of them empty")
    if not np.isfinite(number).all():
        count = int((~np.isfinite(number)).sum())
        raise ValueError(f"{name}: {count} of {number.size} values are not finite; look at what they were made from")
    return number


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
