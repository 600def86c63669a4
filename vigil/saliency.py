"""Which layer (KL divergence, discriminant ratio, entropy) and which heads (separability) tell anomalies best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

EPSILON = 1e-8  # HiProbe-VAD's "small constant"; the paper gives no value
BINS = 32  # HiProbe-VAD's B; the paper gives no value
NEIGHBORS = 10  # our choice
_RUN = 64  # samples summed in float32; the sums are added up in float64
_BLOCK = 2**15  # values put into bins at a time: they stay in the processor's cache, and with one thread of torch
_DISTANCES = 2**22  # distances between samples held at a time
_SAME = 1e-12  # of a curve's largest value: what rounding makes of layers that measure the same
_NAMES = ("sample", "layer", "head")


@dataclass(frozen=True, eq=False)
class LayerCurves:
    """What every layer measures: float64 (L,) each, on the layers' device; the layer to take has the highest saliency.

    kl and ldr from 0 up, entropy in bits, saliency the sum of the three as z-scores over the layers.
    """

    kl: Tensor
    ldr: Tensor
    entropy: Tensor
    saliency: Tensor


def kl_divergence(hidden: Tensor, label: Tensor) -> Tensor:
    """KL divergence of normal from anomalous samples, a Gaussian per dimension, averaged over dimensions.

    hidden (B, L, D), any float; label (B,) of 0 and 1. Returns float64 (L,), 0 or more; means and population
    variances are taken in float32, of float64 input in float64. Raises ValueError for other shapes or labels, for one
    class alone, and where a value is NaN or infinite.
    Source: HiProbe-VAD, arXiv:2507.17394, eq. 1 and 2. Differs: 1e-8 is added to every variance, so that a class that
    is constant in a dimension, as one sample is, gives a finite number: where it is the anomalous class a very large
    one, (normal variance + difference^2) / 2e-8.
    """
    rows = _both_classes(hidden, label, "hidden (B, L, D)")
    return _by_layer(hidden, lambda layer, place: _kl(*_class_moments(layer, rows, place)))


def discriminant_ratio(hidden: Tensor, label: Tensor) -> Tensor:
    """Local discriminant ratio: squared distance of class means over the sum of variances, averaged over dimensions.

    Arguments, precision and errors as in `kl_divergence`. Returns float64 (L,), 0 or more.
    Source: HiProbe-VAD, arXiv:2507.17394, eq. 3 and 4. Differs: nothing; their epsilon, given no value, is 1e-8.
    """
    rows = _both_classes(hidden, label, "hidden (B, L, D)")
    return _by_layer(hidden, lambda layer, place: _ldr(*_class_moments(layer, rows, place)))


def feature_entropy(hidden: Tensor, label: Tensor, bins: int = BINS) -> Tensor:
    """Entropy in bits of every dimension's histogram, averaged over dimensions.

    Arguments, precision and errors as in `kl_divergence`; the label is checked, not used. `bins`, 2 to 4096 of equal
    width, span each dimension's range over all samples; an edge belongs to the bin above it, the highest value to the
    last, as in numpy.histogram. Returns float64 (L,), 0 to log2(min(bins, B)); a dimension that never varies has 0.
    Source: HiProbe-VAD, arXiv:2507.17394, eq. 5 and 6. Differs: nothing; B, given no value there, is an argument.
    """
    _both_classes(hidden, label, "hidden (B, L, D)")
    return _by_layer(hidden, lambda layer, place: _entropy(layer, bins, place))


def layer_saliency(hidden: Tensor, label: Tensor, bins: int = BINS) -> Tensor:
    """How telling each layer is: the saliency of `layer_curves` for hidden (B, L, D), float64 (L,)."""
    _both_classes(hidden, label, "hidden (B, L, D)")
    return layer_curves(hidden.unbind(1), label, bins).saliency


def layer_curves(layers: Iterable[Tensor], label: Tensor, bins: int = BINS) -> LayerCurves:
    """The three measures of every layer and their saliency, one layer in memory at a time.

    layers: a tensor (B, D) each, which may be read as they are asked for; the rest as in `kl_divergence`,
    `discriminant_ratio` and `feature_entropy`. A measure that is the same at every layer, to rounding, adds 0.
    Source: HiProbe-VAD, arXiv:2507.17394, Sec. 4.1.1: z-scores with the population's deviation. Differs: nothing.
    """
    measured, device = [], label.device
    for number, layer in enumerate(layers):
        place, device = f"layer {number}, ", layer.device
        moments = _class_moments(layer, _both_classes(layer, label, f"layer {number} (B, D)"), place)
        measured.append([_kl(*moments), _ldr(*moments), _entropy(layer, bins, place)])
    if not measured:
        raise ValueError("no layer to measure; at least one (B, D) is expected")
    kl, ldr, entropy = torch.tensor(measured, dtype=torch.float64, device=device).unbind(1)
    return LayerCurves(kl, ldr, entropy, _z_score(kl) + _z_score(ldr) + _z_score(entropy))


def separability(heads: Tensor, label: Tensor) -> Tensor:
    """Fisher ratio of every attention head: squared distance of class means over the sum of spreads within.

    heads (B, L, H, D), any float; label (B,) of 0 and 1. A class's spread is the mean squared distance of its samples
    to its mean. Returns float64 (L, H), from 0 up, larger is better; 0 where the means are equal, as in a head that
    never varies; infinity where they differ and nothing varies within, as with one sample of each class. Means and
    spreads are taken in float32, of float64 input in float64. Raises ValueError for other shapes or labels, for one
    class alone, and where a value is NaN or infinite.
    Source: SteerVAD, arXiv:2602.24021, RSA. Differs: nothing.
    """
    streamed = Separability()
    streamed.update(heads, label)
    return streamed.compute()


class Separability:
    """`separability` of samples that come a few at a time; memory depends on the heads alone.

    state: None before the first sample, then count (2,), mean (2, L, H, D) and scatter (2, L, H), the sum of squared
    distances to the mean; float64, normal first. However the samples are split or ordered, the result is the same to
    rounding. Source: Chan, Golub and LeVeque, 1979, for merging.
    """

    def __init__(self) -> None:
        self.state: tuple[Tensor, Tensor, Tensor] | None = None

    def update(self, heads: Tensor, label: Tensor) -> None:
        """Take in heads (B, L, H, D) and label (B,), maybe of one class; where that raises, nothing is taken in."""
        rows = _rows(heads, label, "heads (B, L, H, D)")
        shape = heads.shape[1:]
        flat = heads.detach().flatten(1)
        count = flat.new_tensor([len(own) for own in rows], dtype=torch.float64)
        mean = flat.new_zeros(2, flat.shape[1], dtype=torch.float64)
        scatter = flat.new_zeros(2, *shape[:2], dtype=torch.float64)
        for number, own in enumerate(rows):
            if len(own):
                mean[number], variance = _moments(flat, own)
                scatter[number] = variance.view(shape).sum(-1) * len(own)
        if not scatter.isfinite().all():
            raise _not_finite(heads)
        self._add(count, mean.view(2, *shape), scatter)

    def merge(self, other: Separability) -> None:
        """Take in all that another one, of another process or part of the data, has seen; `other` stays as it is."""
        if other.state is not None:
            self._add(*other.state)

    def compute(self) -> Tensor:
        """What `separability` gives for all samples so far: float64 (L, H). ValueError where a class is missing."""
        if self.state is None:
            raise ValueError("no sample to measure; at least one of each class is expected")
        count, mean, scatter = self.state
        _check_both(*(int(own) for own in count))
        distance = (mean[1] - mean[0]).square().sum(-1)
        within = (scatter / count[:, None, None]).sum(0)
        return torch.where(distance > 0, distance / within, 0.0)

    def _add(self, count: Tensor, mean: Tensor, scatter: Tensor) -> None:
        if self.state is None:
            self.state = count, mean, scatter
            return
        old_count, old_mean, old_scatter = self.state
        if mean.shape != old_mean.shape:
            found, expected = tuple(mean.shape[1:]), tuple(old_mean.shape[1:])
            raise ValueError(f"heads of (L, H, D) {found} after {expected}; samples of one model are expected")
        count, mean, scatter = (part.to(old_mean.device) for part in (count, mean, scatter))
        total = old_count + count
        share = count / total.clamp(min=1)
        shift = mean - old_mean
        between = shift.square().sum(-1) * (old_count * share)[:, None, None]
        self.state = total, old_mean + shift * share[:, None, None, None], old_scatter + scatter + between


def silhouette(features: Tensor, label: Tensor) -> float:
    """How much nearer samples lie to their own class than to the other, from -1 to 1: the mean silhouette.

    features (B, D), any float; label (B,) of 0 and 1, at least 3 samples and both classes, else ValueError, as where a
    value is NaN or infinite. Euclidean distances in float64, by sklearn.metrics.silhouette_score, to which a class's
    only sample is 0; ImportError without scikit-learn. Source: HiProbe-VAD, arXiv:2507.17394, figure 3.
    """
    _both_classes(features, label, "features (B, D)")
    if len(features) < 3:
        raise ValueError("2 samples have no silhouette; at least 3 are expected")
    try:
        from sklearn.metrics import silhouette_score
    except ImportError as error:
        raise ImportError("the silhouette needs scikit-learn: pip install scikit-learn") from error
    sample = _float64(features)
    sample = sample - sample[0]  # distances, taken by products there, of equal samples are then exactly 0
    return float(silhouette_score(sample.cpu().numpy(), (label == 1).cpu().numpy()))


def neighbor_purity(features: Tensor, label: Tensor, neighbors: int = NEIGHBORS) -> float:
    """Share of a sample's nearest others that have its label, averaged over samples, from 0 to 1.

    features (B, D), any float; label (B,) of 0 and 1, both present; neighbors from 1 to B - 1; ValueError otherwise and
    where a value is NaN or infinite. Euclidean distances in float64; of samples equally far, the earlier is nearer.
    """
    _both_classes(features, label, "features (B, D)")
    if not 1 <= neighbors < len(features):
        raise ValueError(f"{neighbors} neighbours of {len(features)} samples; 1 to {len(features) - 1} are expected")
    sample, label = _float64(features), label.to(features.device)
    pure, step = 0, max(1, _DISTANCES // len(sample))
    for first in range(0, len(sample), step):
        # not by products: their rounding would order samples that are equally far
        distance = torch.cdist(sample[first : first + step], sample, compute_mode="donot_use_mm_for_euclid_dist")
        distance.diagonal(first).fill_(torch.inf)  # a sample is not its own neighbour
        nearest = distance.sort(dim=1, stable=True).indices[:, :neighbors]
        pure += int((label[nearest] == label[first : first + step, None]).sum())
    return pure / (len(sample) * neighbors)


def head_silhouette(heads: Tensor, label: Tensor) -> Tensor:
    """`silhouette` of every attention head: heads (B, L, H, D), label (B,) -> float64 (L, H); errors as there."""
    return _by_head(heads, label, silhouette)


def head_purity(heads: Tensor, label: Tensor, neighbors: int = NEIGHBORS) -> Tensor:
    """`neighbor_purity` of every attention head: heads (B, L, H, D), label (B,) -> float64 (L, H); errors as there."""
    return _by_head(heads, label, partial(neighbor_purity, neighbors=neighbors))


def _rows(samples: Tensor, label: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Which samples are normal and which anomalous; `name` ends in the shape they shall have."""
    if samples.ndim != name.count(",") + 1 or not samples.numel() or label.shape != samples.shape[:1]:
        raise ValueError(f"{tuple(samples.shape)} with label {tuple(label.shape)}; {name} with label (B,) is expected")
    if not samples.is_floating_point():
        raise ValueError(f"{name} is {samples.dtype}; a floating-point tensor is expected")
    found = set(label.tolist())
    if not found <= {0, 1}:
        raise ValueError(f"labels {sorted(found)[:10]}; 0 (normal) and 1 (anomalous) are expected")
    label = label.to(samples.device)
    return (label == 0).nonzero()[:, 0], (label == 1).nonzero()[:, 0]


def _both_classes(samples: Tensor, label: Tensor, name: str) -> tuple[Tensor, Tensor]:
    normal, anomalous = _rows(samples, label, name)
    _check_both(len(normal), len(anomalous))
    return normal, anomalous


def _check_both(normal: int, anomalous: int) -> None:
    if not normal or not anomalous:
        raise ValueError(f"{normal} normal and {anomalous} anomalous samples; at least one of each is expected")


def _not_finite(samples: Tensor, place: str = "") -> ValueError:
    """The error for samples (B, ..., D) that cannot be measured; it names the first sample, and where it is."""
    bad = (~samples.isfinite().all(-1)).nonzero()
    if not len(bad):
        return ValueError(f"{place}values up to {float(samples.abs().max()):.3g} are too large to be squared")
    where = ", ".join(f"{name} {index}" for name, index in zip(_NAMES, bad[0].tolist(), strict=False))
    return ValueError(f"{place}{where}: NaN or infinity; only finite values can be measured")


def _moments(samples: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance of some rows of samples (B, D): float64 (D,) each.

    Row by row, so that a thread works on the same columns at each step: step by step over many rows takes nearly twice
    as long on two cores, and many times as long where they are busy.
    """
    sample, order, n_rows = samples.unbind(), rows.tolist(), len(rows)
    # Summed from a value on, so that what never varies is 0 exactly and a common offset costs no digits; of three the
    # one in the middle, since from an outlier on all others would have the outlier's precision.
    first, second, third = (_floats(sample[order[index]]) for index in (0, n_rows // 2, -1))
    typical = third.clamp(first.minimum(second), first.maximum(second))
    total = torch.zeros_like(typical, dtype=torch.float64)
    squares, difference = torch.zeros_like(total), torch.empty_like(typical)
    for start in range(0, n_rows, _RUN):
        part, part_squares = torch.zeros_like(typical), torch.zeros_like(typical)
        for row in order[start : start + _RUN]:
            torch.sub(sample[row], typical, out=difference)
            part += difference
            part_squares.addcmul_(difference, difference)
        total += part
        squares += part_squares
    offset = total / n_rows
    return typical.double() + offset, (squares / n_rows - offset.square()).clamp(min=0)


def _class_moments(layer: Tensor, rows: tuple[Tensor, Tensor], place: str) -> tuple[Tensor, Tensor]:
    """Means and variances of the normal and the anomalous samples of a layer (B, D): float64 (2, D) each."""
    normal, anomalous = (_moments(layer.detach(), own) for own in rows)
    mean, variance = torch.stack([normal[0], anomalous[0]]), torch.stack([normal[1], anomalous[1]])
    if not variance.isfinite().all():
        raise _not_finite(layer, place)
    return mean, variance


def _kl(mean: Tensor, variance: Tensor) -> float:
    normal, anomalous = (variance + EPSILON).unbind()
    distance = (mean[0] - mean[1]).square()
    return float(((anomalous / normal).log() + (normal + distance) / anomalous - 1).mean() / 2)


def _ldr(mean: Tensor, variance: Tensor) -> float:
    return float(((mean[0] - mean[1]).square() / (variance.sum(0) + EPSILON)).mean())


def _entropy(layer: Tensor, bins: int, place: str) -> float:
    if not 2 <= bins <= 4096:
        raise ValueError(f"{bins} bins; 2 to 4096 are expected")
    share = torch.arange(len(layer) + 1, dtype=torch.float64, device=layer.device) / len(layer)
    bits = torch.special.entr(share) / math.log(2)  # of a bin, by the samples in it
    start = bins * torch.arange(layer.shape[1], dtype=torch.int32, device=layer.device)
    total, step = bits.new_zeros(()), max(16, _BLOCK // len(layer))
    for first in range(0, layer.shape[1], step):
        value = _floats(layer.detach()[:, first : first + step].clone())
        low, high = value.amin(0), value.amax(0)  # aminmax takes three times as long
        span = high - low
        if not (span * bins).isfinite().all():
            raise _not_finite(layer, place)
        span += span == 0
        # divided, not multiplied by an inverse: where a value lies on an edge, the quotient is a whole number
        number = value.sub_(low).mul_(bins).div_(span).clamp_(max=bins - 1).int()
        number += start[: number.shape[1]]
        total += bits.index_select(0, number.flatten().bincount(minlength=bins * number.shape[1])).sum()
    return float(total) / layer.shape[1]


def _z_score(curve: Tensor) -> Tensor:
    if curve.amax() - curve.amin() <= _SAME * curve.abs().amax():
        return torch.zeros_like(curve)
    return (curve - curve.mean()) / curve.std(correction=0)


def _by_layer(hidden: Tensor, measure: Callable[[Tensor, str], float]) -> Tensor:
    values = [measure(layer, f"layer {number}, ") for number, layer in enumerate(hidden.unbind(1))]
    return hidden.new_tensor(values, dtype=torch.float64)


def _by_head(heads: Tensor, label: Tensor, measure: Callable[[Tensor, Tensor], float]) -> Tensor:
    _both_classes(heads, label, "heads (B, L, H, D)")
    if not heads.isfinite().all():
        raise _not_finite(heads)
    values = [[measure(head, label) for head in layer.unbind(1)] for layer in heads.unbind(1)]
    return heads.new_tensor(values, dtype=torch.float64)


def _floats(samples: Tensor) -> Tensor:
    return samples if samples.dtype == torch.float64 else samples.float()


def _float64(features: Tensor) -> Tensor:
    if not features.isfinite().all():
        raise _not_finite(features)
    return features.detach().double()
