"""Layer saliency and head separability against loops written from the papers' equations, NumPy and scikit-learn."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from vigil import saliency
from vigil.saliency import (
    Separability,
    discriminant_ratio,
    feature_entropy,
    head_purity,
    head_silhouette,
    kl_divergence,
    layer_curves,
    layer_saliency,
    neighbor_purity,
    separability,
    silhouette,
)

LAYER_MEASURES = [kl_divergence, discriminant_ratio, feature_entropy, layer_saliency]
HEAD_MEASURES = [separability, head_silhouette, head_purity]
SAMPLE_MEASURES = [silhouette, neighbor_purity]
Measure = Callable[[Tensor, Tensor], Tensor]


def states(seed: int = 0, n_samples: int = 30, n_layers: int = 4, width: int = 12) -> tuple[Tensor, Tensor]:
    """Hidden states (B, L, D) in float64 whose classes differ more from layer to layer, and labels."""
    generator = torch.Generator().manual_seed(seed)
    label = (torch.rand(n_samples, generator=generator) < 0.4).long()
    hidden = torch.randn(n_samples, n_layers, width, generator=generator, dtype=torch.float64)
    hidden *= 0.5 + torch.rand(n_layers, width, generator=generator, dtype=torch.float64)
    hidden += label[:, None, None] * torch.arange(n_layers)[:, None] * 0.4
    return hidden, label


def some_heads(seed: int = 0, n_samples: int = 30) -> tuple[Tensor, Tensor]:
    hidden, label = states(seed, n_samples, n_layers=3, width=4 * 6)
    return hidden.view(n_samples, 3, 4, 6), label


def mean_and_variance(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, sum((value - mean) ** 2 for value in values) / len(values)


def by_class(hidden: Tensor, label: Tensor, layer: int, d: int) -> tuple[float, float, float, float]:
    """Mean and variance of the normal, then of the anomalous samples."""
    column = list(zip(hidden[:, layer, d].tolist(), label.tolist(), strict=True))
    normal, anomalous = ([value for value, own in column if own == c] for c in (0, 1))
    return *mean_and_variance(normal), *mean_and_variance(anomalous)


def equations_1_and_2(hidden: Tensor, label: Tensor, epsilon: float) -> list[float]:
    curve = []
    for layer in range(hidden.shape[1]):
        total = 0.0
        for d in range(hidden.shape[2]):
            mu_n, var_n, mu_a, var_a = by_class(hidden, label, layer, d)
            var_n, var_a = var_n + epsilon, var_a + epsilon
            total += 0.5 * (math.log(var_a / var_n) + (var_n + (mu_n - mu_a) ** 2) / var_a - 1)
        curve.append(total / hidden.shape[2])
    return curve


def equations_3_and_4(hidden: Tensor, label: Tensor) -> list[float]:
    curve = []
    for layer in range(hidden.shape[1]):
        total = 0.0
        for d in range(hidden.shape[2]):
            mu_n, var_n, mu_a, var_a = by_class(hidden, label, layer, d)
            total += (mu_n - mu_a) ** 2 / (var_n + var_a + 1e-8)
        curve.append(total / hidden.shape[2])
    return curve


def equations_5_and_6(hidden: Tensor, bins: int) -> list[float]:
    """The bins counted by numpy.histogram, one dimension at a time."""
    curve = []
    for layer in hidden.double().numpy().swapaxes(0, 1):
        total = 0.0
        for column in layer.T:
            for count in np.histogram(column, bins)[0]:
                if count:
                    total -= count / len(column) * math.log2(count / len(column))
        curve.append(total / layer.shape[1])
    return curve


def fisher(heads: Tensor, label: Tensor) -> Tensor:
    """RSA by its definition: squared distance of the class means over the sum of mean squared distances to them."""
    ratio: list[list[float]] = []
    for layer in heads.double().unbind(1):
        ratio.append([])
        for head in layer.unbind(1):
            mean, spread = {}, {}
            for c in (0, 1):
                own = head[label == c].tolist()
                mean[c] = [sum(column) / len(own) for column in zip(*own, strict=True)]
                spread[c] = sum(math.dist(sample, mean[c]) ** 2 for sample in own) / len(own)
            ratio[-1].append(math.dist(mean[1], mean[0]) ** 2 / (spread[1] + spread[0]))
    return torch.tensor(ratio, dtype=torch.float64)


# layers ------------------------------------------------------------------------------------------------------------


def test_kl_divergence_is_equations_1_and_2() -> None:
    hidden, label = states()
    assert kl_divergence(hidden, label).tolist() == pytest.approx(equations_1_and_2(hidden, label, 1e-8), rel=1e-9)
    assert kl_divergence(hidden, label).tolist() == pytest.approx(equations_1_and_2(hidden, label, 0), rel=1e-6)


def test_kl_divergence_is_that_of_the_normal_from_the_anomalous_gaussian() -> None:
    hidden = torch.tensor([-1.0, 1.0, 0.0, 6.0]).view(4, 1, 1)  # N(0, 1) and N(3, 9)
    value = kl_divergence(hidden, torch.tensor([0, 0, 1, 1]))
    assert value.item() == pytest.approx(0.5 * (math.log(9) + (1 + 9) / 9 - 1), rel=1e-6)
    swapped = kl_divergence(hidden, torch.tensor([1, 1, 0, 0]))
    assert swapped.item() == pytest.approx(0.5 * (-math.log(9) + (9 + 9) / 1 - 1), rel=1e-6)


def test_discriminant_ratio_is_equations_3_and_4() -> None:
    hidden, label = states(1)
    assert discriminant_ratio(hidden, label).tolist() == pytest.approx(equations_3_and_4(hidden, label), rel=1e-9)
    by_hand = discriminant_ratio(torch.tensor([-1.0, 1.0, 0.0, 6.0]).view(4, 1, 1), torch.tensor([0, 0, 1, 1]))
    assert by_hand.item() == pytest.approx(9 / 10, rel=1e-6)


@pytest.mark.parametrize("bins", [2, 10, 32, 4096])
def test_entropy_is_equations_5_and_6(bins: int) -> None:
    hidden, label = states(2, n_samples=200)
    hidden[:, 1, 3] = 7.25
    expected = equations_5_and_6(hidden, bins)
    assert feature_entropy(hidden, label, bins).tolist() == pytest.approx(expected, rel=1e-12)
    assert feature_entropy(hidden.float(), label, bins).tolist() == pytest.approx(expected, rel=1e-12)


def test_entropy_of_values_on_the_edges_of_bins() -> None:
    hidden, label = torch.arange(9.0).view(9, 1, 1), torch.tensor([0] * 4 + [1] * 5)
    # eight bins of width 1: one value each, but the highest value joins the last
    by_hand = 7 / 9 * math.log2(9) + 2 / 9 * math.log2(9 / 2)
    assert feature_entropy(hidden, label, bins=8).item() == pytest.approx(by_hand, rel=1e-12)
    # 41 to a bin; the float32 nearest to 8 / 328 is too small, times it 41 would stay in the first
    hidden, label = torch.arange(329.0).view(329, 1, 1), torch.arange(329) % 2
    by_hand = 7 * 41 / 329 * math.log2(329 / 41) + 42 / 329 * math.log2(329 / 42)
    assert feature_entropy(hidden, label, bins=8).item() == pytest.approx(by_hand, rel=1e-12)


def test_the_blocks_that_are_worked_on_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden, label = states(3, n_samples=300, width=50)
    whole = [measure(hidden, label).tolist() for measure in LAYER_MEASURES]
    monkeypatch.setattr(saliency, "_BLOCK", 1)
    monkeypatch.setattr(saliency, "_RUN", 7)
    for measure, expected in zip(LAYER_MEASURES, whole, strict=True):
        assert measure(hidden, label).tolist() == pytest.approx(expected, rel=1e-12)
    assert feature_entropy(hidden, label).tolist() == pytest.approx(equations_5_and_6(hidden, 32), rel=1e-12)


def test_a_dimension_that_never_varies_has_no_entropy_and_tells_nothing() -> None:
    hidden, label = torch.full((6, 2, 5), 0.1), torch.tensor([0, 1, 0, 1, 0, 0])
    for measure in LAYER_MEASURES:
        assert measure(hidden, label).tolist() == [0.0, 0.0]


def test_saliency_is_the_sum_of_z_scores_over_the_layers() -> None:
    hidden, label = states(4, n_layers=6)
    curves = layer_curves(hidden.unbind(1), label, bins=10)
    parts = [
        equations_1_and_2(hidden, label, 1e-8), equations_3_and_4(hidden, label), equations_5_and_6(hidden, 10)
    ]  # fmt: skip
    for curve, expected in zip((curves.kl, curves.ldr, curves.entropy), parts, strict=True):
        assert curve.tolist() == pytest.approx(expected, rel=1e-9)
    total = [0.0] * 6
    for part in parts:
        mean, variance = mean_and_variance(part)
        total = [one + (value - mean) / math.sqrt(variance) for one, value in zip(total, part, strict=True)]
    assert curves.saliency.tolist() == pytest.approx(total, rel=1e-7)
    assert layer_saliency(hidden, label, bins=10).tolist() == curves.saliency.tolist()


def test_a_measure_that_is_the_same_at_every_layer_adds_nothing() -> None:
    hidden, label = states(5, n_layers=1)
    order = torch.randperm(hidden.shape[2], generator=torch.Generator().manual_seed(0))
    same = torch.cat([hidden, hidden[..., order], hidden], 1)  # the sums round otherwise
    assert layer_saliency(same, label).tolist() == [0.0, 0.0, 0.0]
    assert layer_saliency(hidden, label).tolist() == [0.0]
    pair = layer_curves([torch.tensor([[0.0], [end]]) for end in (1.0, 2.0, 4.0)], torch.tensor([0, 1]))
    assert pair.entropy.tolist() == [1.0, 1.0, 1.0]
    mean, variance = mean_and_variance([1.0, 4.0, 16.0])
    assert pair.saliency.tolist() == pytest.approx([2 * (x - mean) / math.sqrt(variance) for x in (1, 4, 16)], rel=1e-5)


def test_curves_ask_for_one_layer_at_a_time() -> None:
    hidden, label = states(6)
    alive = []

    def layers() -> object:
        for layer in hidden.unbind(1):
            alive.append(layer.clone())
            yield alive.pop()

    assert layer_curves(layers(), label).saliency.tolist() == layer_saliency(hidden, label).tolist()
    narrow = layer_curves([hidden[:, 0], hidden[:, 1, :5]], label)
    assert narrow.kl.tolist() == [kl_divergence(hidden[:, :1], label)[0], kl_divergence(hidden[:, 1:2, :5], label)[0]]


@pytest.mark.parametrize("constant", [0, 1])
def test_a_class_that_is_constant_gives_what_the_equations_give_with_epsilon(constant: int) -> None:
    hidden, label = states(7)
    hidden[label == constant] = hidden[0].clone()
    kl, ldr = equations_1_and_2(hidden, label, 1e-8), equations_3_and_4(hidden, label)
    for dtype, rel in ((torch.float64, 1e-9), (torch.float32, 1e-5)):
        assert kl_divergence(hidden.to(dtype), label).tolist() == pytest.approx(kl, rel=rel)
        assert discriminant_ratio(hidden.to(dtype), label).tolist() == pytest.approx(ldr, rel=rel)


def test_one_sample_of_each_class_is_enough() -> None:
    hidden = torch.tensor([[[0.0, 1.0]], [[2.0, 1.0]]])
    label = torch.tensor([1, 0])
    assert kl_divergence(hidden, label).item() == pytest.approx(0.5 * 4 / 1e-8 / 2, rel=1e-6)
    assert discriminant_ratio(hidden, label).item() == pytest.approx(4 / 1e-8 / 2, rel=1e-6)
    assert feature_entropy(hidden, label).item() == 0.5  # one bit and none
    assert layer_saliency(hidden, label).item() == 0


# heads -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_separability_is_the_ratio_of_its_definition(dtype: torch.dtype, rel: float, offset: float) -> None:
    heads, label = some_heads(n_samples=60)
    heads = (heads + offset).to(dtype)
    ratio = separability(heads, label)
    assert ratio.shape == (3, 4)
    torch.testing.assert_close(ratio, fisher(heads, label), rtol=rel, atol=0)


def test_separability_by_hand() -> None:
    heads = torch.tensor([[0.0, 0.0], [2.0, 0.0], [4.0, 3.0], [4.0, 5.0]]).view(4, 1, 1, 2)
    ratio = separability(heads, torch.tensor([0, 0, 1, 1]))  # means (1, 0) and (4, 4), spreads 1 and 1
    assert ratio.item() == pytest.approx(25 / 2)


def test_an_outlier_that_comes_first_costs_no_digits() -> None:
    heads, label = some_heads(1, n_samples=400)
    heads[0] = 1e6
    heads[int((label != label[0]).nonzero()[0])] = -1e4
    ratio = separability(heads.float(), label)
    torch.testing.assert_close(ratio, fisher(heads.float(), label), rtol=1e-5, atol=0)


def test_a_head_that_never_varies_separates_nothing() -> None:
    heads, label = some_heads(2)
    heads[:, 1, 2] = 0.1
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        ratio = separability(heads.to(dtype), label)
        assert ratio[1, 2].item() == 0
        assert (ratio > 0).sum() == 11
    assert head_silhouette(heads, label)[1, 2].item() == 0


def test_classes_that_differ_and_do_not_vary_are_infinitely_far_apart() -> None:
    label = torch.tensor([0, 1, 1, 0, 1])
    heads = torch.where(label == 1, 0.1, 1e3 + 0.3).view(5, 1, 1, 1).expand(5, 2, 3, 7)
    assert separability(heads, label).tolist() == [[math.inf] * 3] * 2
    streamed = Separability()
    for i in range(5):
        streamed.update(heads[i : i + 1], label[i : i + 1])
    assert streamed.compute().tolist() == [[math.inf] * 3] * 2
    one_each = separability(torch.tensor([0.0, 1.0, 2.0, 1.0]).view(2, 1, 2, 1), torch.tensor([1, 0]))
    assert one_each.tolist() == [[math.inf, 0.0]]


def test_a_constant_class_leaves_the_spread_of_the_other() -> None:
    heads, label = some_heads(3)
    heads[label == 1] = heads[0].clone()
    torch.testing.assert_close(separability(heads, label), fisher(heads, label), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_streamed_in_any_chunks_and_order_it_is_the_same(dtype: torch.dtype, rel: float, offset: float) -> None:
    heads, label = some_heads(4, n_samples=90)
    heads = (heads + offset).to(dtype)
    expected = fisher(heads, label)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.arange(90), label.argsort(stable=True), torch.randperm(90, generator=generator)]
    for order in orders:
        for sizes in ([1] * 90, [7] * 12 + [6], [1, 64, 25], [90]):
            streamed = Separability()
            for chunk in order.split(sizes):
                streamed.update(heads[chunk], label[chunk])
            torch.testing.assert_close(streamed.compute(), expected, rtol=rel, atol=0)
            assert streamed.state is not None
            assert [tuple(part.shape) for part in streamed.state] == [(2,), (2, 3, 4, 6), (2, 3, 4)]


def test_merged_over_processes_it_is_the_same() -> None:
    heads, label = some_heads(5, n_samples=50)
    ranks = [Separability() for _ in range(4)]  # the last never sees a sample
    for rank, rows in enumerate((slice(0, 5), slice(5, 40), slice(40, 50))):
        ranks[rank].update(heads[rows], label[rows])
    whole = Separability()
    for rank in ranks[::-1]:
        whole.merge(pickle.loads(pickle.dumps(rank)))
    torch.testing.assert_close(whole.compute(), separability(heads, label), rtol=1e-12, atol=0)
    before = ranks[1].compute()
    whole.update(heads, label)
    assert torch.equal(ranks[1].compute(), before)


def test_a_refused_chunk_leaves_the_stream_as_it_was() -> None:
    heads, label = some_heads(6)
    streamed = Separability()
    with pytest.raises(ValueError, match="no sample"):
        streamed.compute()
    streamed.update(heads[label == 0], label[label == 0])
    with pytest.raises(ValueError, match=r"\d+ normal and 0 anomalous samples; at least one"):
        streamed.compute()
    bad = heads.clone()
    bad[3, 2, 1, 0] = math.nan
    with pytest.raises(ValueError, match="sample 3, layer 2, head 1: NaN or infinity"):
        streamed.update(bad, label)
    with pytest.raises(ValueError, match=r"\(3, 2, 6\) after \(3, 4, 6\)"):
        streamed.update(heads[:, :, :2], label)
    streamed.update(heads[label == 1], label[label == 1])
    torch.testing.assert_close(streamed.compute(), separability(heads, label), rtol=1e-12, atol=0)


def test_silhouette_is_scikit_learns() -> None:
    heads, label = some_heads(7)
    assert silhouette(heads[:, 0, 0] + 100, label) == pytest.approx(silhouette_score(heads[:, 0, 0], label), rel=1e-9)
    expected = [[silhouette_score(heads[:, layer, head], label) for head in range(4)] for layer in range(3)]
    torch.testing.assert_close(head_silhouette(heads, label), torch.tensor(expected, dtype=torch.float64))


def test_silhouette_by_hand() -> None:
    features = torch.tensor([[0.0], [1.0], [4.0]])  # the only sample of its class counts as 0
    by_hand = ((4 - 1) / 4 + (3 - 1) / 3 + 0) / 3
    assert silhouette(features, torch.tensor([0, 0, 1])) == pytest.approx(by_hand)
    with pytest.raises(ValueError, match="at least 3"):
        silhouette(features[1:], torch.tensor([0, 1]))


def test_silhouette_of_samples_that_are_all_equal_is_zero() -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(91) % 3 % 2
    for width in range(400, 440):  # scikit-learn alone finds up to 0.02 at some of them
        sample = torch.randn(width, generator=generator, dtype=torch.float64)
        assert silhouette(sample.expand(91, width), label) == 0


@pytest.mark.parametrize("neighbors", [1, 10, 39])
def test_purity_is_the_share_of_scikit_learns_neighbours(neighbors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heads, label = some_heads(8, n_samples=40)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    for layer in range(3):
        for head in range(4):
            found = NearestNeighbors(n_neighbors=neighbors).fit(heads[:, layer, head]).kneighbors()[1]
            shares = [sum(int(label[j] == label[i]) for j in row) / neighbors for i, row in enumerate(found)]
            expected[layer, head] = sum(shares) / 40
    torch.testing.assert_close(head_purity(heads, label, neighbors), expected)
    monkeypatch.setattr(saliency, "_DISTANCES", 40 * 7)
    assert neighbor_purity(heads[:, 1, 1], label, neighbors) == pytest.approx(expected[1, 1].item())


def test_of_samples_equally_far_the_earlier_is_the_neighbour() -> None:
    features = torch.zeros(5, 3)  # sample 0's first other is 1, everybody else's is 0
    assert neighbor_purity(features, torch.tensor([0, 0, 0, 1, 1]), neighbors=1) == 3 / 5
    assert neighbor_purity(features, torch.tensor([1, 0, 0, 1, 1]), neighbors=1) == 2 / 5


@pytest.mark.parametrize("neighbors", [0, 30])
def test_purity_needs_as_many_others_as_neighbours(neighbors: int) -> None:
    heads, label = some_heads(9)
    with pytest.raises(ValueError, match="1 to 29 are expected"):
        head_purity(heads, label, neighbors)


# all ---------------------------------------------------------------------------------------------------------------


def samples_for(measure: Measure) -> tuple[Tensor, Tensor]:
    heads, label = some_heads(10)
    if measure in HEAD_MEASURES:
        return heads, label
    return (heads.flatten(2) if measure in LAYER_MEASURES else heads[:, 0, 0]), label


EVERY = pytest.mark.parametrize("measure", LAYER_MEASURES + HEAD_MEASURES + SAMPLE_MEASURES, ids=lambda m: m.__name__)


@EVERY
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_input_is_measured_in_full_precision(measure: Measure, dtype: torch.dtype) -> None:
    samples, label = samples_for(measure)
    samples = samples.to(dtype).requires_grad_()
    before = samples.detach().clone()
    value, expected = torch.as_tensor(measure(samples, label)), torch.as_tensor(measure(samples.double(), label))
    assert value.dtype == expected.dtype
    assert not value.requires_grad
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(samples, before)


@EVERY
@pytest.mark.parametrize("label_dtype", [torch.bool, torch.uint8, torch.float32])
def test_labels_of_any_type_and_samples_of_any_layout_count(measure: Measure, label_dtype: torch.dtype) -> None:
    samples, label = samples_for(measure)
    expected = torch.as_tensor(measure(samples, label))
    axes = list(range(samples.ndim))
    turned = samples.permute(axes[::-1]).contiguous().permute(axes[::-1])
    assert not turned.is_contiguous()
    torch.testing.assert_close(
        torch.as_tensor(measure(turned, label.to(label_dtype))), expected, rtol=1e-12, atol=1e-14
    )


@EVERY
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_and_named(measure: Measure, value: float) -> None:
    samples, label = samples_for(measure)
    samples[(11, 2, 3)[: samples.ndim - 1]][1] = value
    named = "sample 11"
    if measure in LAYER_MEASURES:
        named = "layer 2, sample 11"
    elif measure in HEAD_MEASURES:
        named = "sample 11, layer 2, head 3"
    with pytest.raises(ValueError, match=f"^{named}: NaN or infinity"):
        measure(samples, label)


@pytest.mark.parametrize("measure", [kl_divergence, discriminant_ratio, separability], ids=lambda m: m.__name__)
def test_values_too_large_to_be_squared_are_refused(measure: Measure) -> None:
    samples, label = samples_for(measure)
    with pytest.raises(ValueError, match="too large to be squared"):
        measure(samples.float() * 1e25, label)


@EVERY
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda samples, label: (samples, label * 2), r"labels \[0, 2\]; 0 \(normal\) and 1 \(anomalous\)"),
        (lambda samples, label: (samples, label * 0.5), r"labels \[0.0, 0.5\]"),
        (lambda samples, label: (samples, label * 0), "30 normal and 0 anomalous samples; at least one of each"),
        (lambda samples, label: (samples, label * 0 + 1), "0 normal and 30 anomalous samples; at least one of each"),
        (lambda samples, label: (samples[None], label), r"with label \(30,\); \w+ \(B, .*D\) with label \(B,\) is"),
        (lambda samples, label: (samples, label[:, None]), r"with label \(30, 1\);"),
        (lambda samples, label: (samples[1:], label), r"\(29, .*\) with label \(30,\);"),
        (lambda samples, label: (samples[:0], label[:0]), r"\(0, .*\) with label \(0,\);"),
        (lambda samples, label: (samples[..., :0], label), r"0\) with label \(30,\);"),
        (lambda samples, label: (samples.long(), label), "torch.int64; a floating-point tensor is expected"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    measure: Measure, spoil: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(*spoil(*samples_for(measure)))


@pytest.mark.parametrize("bins", [0, 1, 4097])
def test_bins_are_two_or_more(bins: int) -> None:
    hidden, label = states()
    with pytest.raises(ValueError, match="2 to 4096 are expected"):
        feature_entropy(hidden, label, bins)


def test_a_curve_needs_a_layer_and_says_which_one_is_wrong() -> None:
    hidden, label = states()
    with pytest.raises(ValueError, match="no layer"):
        layer_curves([], label)
    with pytest.raises(ValueError, match=r"layer 1 \(B, D\) with label"):
        layer_curves([hidden[:, 0], hidden[1:, 1]], label)
