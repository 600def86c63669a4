"""The ranking objective against loops written from equations 6 and 7 of Sultani et al., CVPR 2018."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vigil.mil import SegmentScorer, rank_bags, smoothness, sparsity


def bags(seed: int, n_bags: int = 5, n_segments: int = 32) -> list[list[float]]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_bags, n_segments, generator=generator, dtype=torch.float64).tolist()


@pytest.mark.parametrize("margin", [1.0, 0.2])
def test_ranking_is_the_hinge_on_the_maxima_of_equation_6(margin: float) -> None:
    anomalous, normal = bags(0, n_segments=7), bags(1, n_segments=9)
    total = 0.0
    for one, other in zip(anomalous, normal, strict=True):
        total += max(0.0, margin - max(one) + max(other))
    value = rank_bags(torch.tensor(anomalous).double(), torch.tensor(normal).double(), margin)
    assert value.shape == ()
    assert value.item() == pytest.approx(total / 5, rel=1e-6)


def test_both_terms_of_equation_7() -> None:
    anomalous = bags(2)
    smooth = sparse = 0.0
    for bag in anomalous:
        for i in range(31):
            smooth += (bag[i] - bag[i + 1]) ** 2
        for i in range(32):
            sparse += bag[i]
    score = torch.tensor(anomalous, dtype=torch.float64)
    assert smoothness(score).item() == pytest.approx(smooth / 5, rel=1e-12)
    assert sparsity(score).item() == pytest.approx(sparse / 5, rel=1e-12)


def test_bags_apart_by_the_margin_cost_nothing_and_teach_nothing() -> None:
    anomalous = torch.tensor([[0.1, 1.0]], requires_grad=True)
    loss = rank_bags(anomalous, torch.tensor([[0.0, 0.0]]))
    assert loss.item() == 0.0
    loss.backward()
    assert anomalous.grad is not None
    assert not anomalous.grad.any()


def test_only_the_highest_segment_of_each_bag_is_taught() -> None:
    anomalous = torch.tensor([[0.1, 0.7, 0.2]], requires_grad=True)
    normal = torch.tensor([[0.6, 0.3, 0.2]], requires_grad=True)
    rank_bags(anomalous, normal).backward()
    assert anomalous.grad.tolist() == [[0, -1, 0]]
    assert normal.grad.tolist() == [[1, 0, 0]]


def test_smoothness_of_a_constant_score_is_zero() -> None:
    assert smoothness(torch.full((2, 32), 0.7)).item() == 0.0


@pytest.mark.parametrize(
    ("anomalous", "normal"), [((2, 4), (3, 4)), ((0, 4), (0, 4)), ((2, 0), (2, 4)), ((4,), (4,)), ((2, 4), (2, 0))]
)
def test_bags_that_do_not_pair_up_are_refused(anomalous: tuple[int, ...], normal: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not pair up"):
        rank_bags(torch.rand(anomalous), torch.rand(normal))


def test_the_scorer_has_the_layers_of_section_3_3_and_one_logit_per_segment() -> None:
    scorer = SegmentScorer(4096)
    assert [tuple(p.shape) for p in scorer.parameters() if p.ndim == 2] == [(512, 4096), (32, 512), (1, 32)]
    assert [layer.p for layer in scorer if isinstance(layer, nn.Dropout)] == [0.6, 0.6]
    assert sum(isinstance(layer, nn.ReLU) for layer in scorer) == 1
    scorer.eval()
    feature = torch.rand(2, 3, 4096)
    logit = scorer(feature)
    assert logit.shape == (2, 3)
    first, second, third = (layer for layer in scorer if isinstance(layer, nn.Linear))
    for b in range(2):
        for n in range(3):
            hidden = (first.weight @ feature[b, n] + first.bias).clamp(min=0)
            expected = third.weight @ (second.weight @ hidden + second.bias) + third.bias
            assert logit[b, n].item() == pytest.approx(expected.item(), abs=1e-4)
