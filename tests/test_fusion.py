"""What takes whose place, the Q-Former's shapes, and the alignment loss against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch

from vigil.fusion import TEMPERATURE, Projection, QueryFormer, alignment_loss, beside, instead


def test_new_tokens_stand_after_the_old_ones_or_in_their_place() -> None:
    tokens, more = [torch.zeros(5, 4), torch.zeros(3, 4)], torch.ones(2, 2, 4)
    placed, places = beside(tokens, more)
    assert [place.tolist() for place in places] == [[0, 1, 2, 3, 4, -1, -1], [0, 1, 2, -1, -1]]
    assert [row[:, 0].tolist() for row in placed] == [[0] * 5 + [1, 1], [0] * 3 + [1, 1]]
    placed, places = instead(tokens, more)
    assert [place.tolist() for place in places] == [[-1, -1]] * 2
    assert all(bool((row == 1).all()) for row in placed)


def test_a_projection_is_two_layers_with_gelu_between() -> None:
    torch.manual_seed(0)
    projection, mil = Projection(6, 8), torch.randn(2, 3, 6)
    first, _, second = projection
    by_hand = mil @ first.weight.T + first.bias
    by_hand = 0.5 * by_hand * (1 + torch.erf(by_hand / math.sqrt(2)))
    torch.testing.assert_close(projection(mil), by_hand @ second.weight.T + second.bias)


def test_queries_see_every_segment_and_where_it_stands() -> None:
    torch.manual_seed(0)
    bridge = QueryFormer(6, 8, segments=5, queries=3, hidden=16, layers=2, heads=4).eval()
    mil = torch.randn(2, 5, 6, requires_grad=True)
    tokens = bridge(mil)
    assert tokens.shape == (2, 3, 8)
    tokens.square().sum().backward()
    assert mil.grad is not None
    assert bool((mil.grad.abs().amax(-1) > 0).all())
    assert all(parameter.grad is not None for parameter in bridge.parameters())  # DDP waits for every one
    with torch.no_grad():
        for name, parameter in bridge.named_parameters():
            if name == "place" or "crossattention.attention" in name:
                parameter.mul_(30)  # first weights are so small that every segment gets the same attention
        assert not torch.allclose(bridge(mil.flip(1)), bridge(mil), atol=1e-4)


def test_the_alignment_loss_is_that_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    query, tokens = torch.randn(3, 2, 5), [torch.randn(4, 5), torch.randn(7, 5), torch.randn(2, 5)]

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a * b).sum() / (a.norm() * b.norm()))

    pooled = [[tokens[0][:2], tokens[0][2:]], [tokens[1][:4], tokens[1][4:]], [tokens[2][:1], tokens[2][1:]]]
    target = [[part.mean(0) for part in parts] for parts in pooled]
    apart = 1 - sum(cosine(query[b, q], target[b][q]) for b in range(3) for q in range(2)) / 6
    mean = [torch.stack(parts).mean(0) for parts in target]
    logit = [[cosine(query[b].mean(0), mean[k]) / TEMPERATURE for k in range(3)] for b in range(3)]
    contrast = 0.0
    for b in range(3):
        row, column = logit[b], [logit[k][b] for k in range(3)]
        for line in (row, column):
            contrast -= (line[b] - math.log(sum(math.exp(value) for value in line))) / 6
    found = alignment_loss(query, tokens)
    assert [float(value) for value in found] == pytest.approx([apart, contrast], abs=1e-5)
    assert float(alignment_loss(query[:1], tokens[:1])[1]) == 0.0
    with pytest.raises(ValueError, match="2 queries are aligned with 1 visual tokens; take fewer queries"):
        alignment_loss(query[:1], [torch.randn(1, 5)])
