"""Equation 7 and SAM2's two-way pass against plain loops, padding that changes nothing, and no weight without a use."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vigil.projector import make_projector

B, T, K, STATE, TEXT, IMAGE, WIDTH, QUERIES, HEADS = 2, 3, 4, 10, 7, 8, 32, 3, 4
KINDS = ("semantic", "mlp", "qformer")


def projector(kind: Any = "semantic", blocks: int = 2) -> nn.Module:
    torch.manual_seed(0)
    module = make_projector(kind, STATE, TEXT, IMAGE, WIDTH, QUERIES, blocks, HEADS, feed_forward=12)
    with torch.no_grad():
        for parameter in module.parameters():  # as initialised, attention would be even and nothing would show
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return module.eval()


@pytest.fixture
def given() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """State, categories, which are known, image; the second clip has two categories."""
    draw = torch.Generator().manual_seed(1)
    known = torch.ones(B, K, dtype=torch.bool)
    known[1, 2:] = False
    state, categories = torch.randn(B, STATE, generator=draw), torch.randn(B, K, TEXT, generator=draw)
    return state, categories, known, torch.randn(B, T, IMAGE, 2, 3, generator=draw)


# plain loops, one frame and one row at a time


def rows(linear: Any, values: list[Tensor]) -> list[Tensor]:
    return [linear.weight @ value + linear.bias for value in values]


def normed(layer: Any, value: Tensor) -> Tensor:
    centred = value - value.mean()
    return centred / math.sqrt(centred.square().mean().item() + layer.eps) * layer.weight + layer.bias


def attend(attention: Any, query: list[Tensor], key: list[Tensor], value: list[Tensor], heads: int) -> list[Tensor]:
    query, key = rows(attention.q_proj, query), rows(attention.k_proj, key)
    value = rows(attention.v_proj, value)
    width = len(query[0]) // heads
    mixed = []
    for one in query:
        parts = []
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            fit = [math.exp((one[part] @ other[part]).item() / math.sqrt(width)) for other in key]
            parts.append(sum(weight * other[part] for weight, other in zip(fit, value, strict=True)) / sum(fit))
        mixed.append(torch.cat(parts))
    return rows(attention.o_proj, mixed)


def plus(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(one, other, strict=True)]


def sine(y: int, x: int, height: int, width: int) -> Tensor:
    """DETR's position encoding, normalised to 2 pi: the row's half, then the column's."""
    halves = []
    for place, size in ((y, height), (x, width)):
        turn = (place + 1) / (size + 1e-6) * 2 * math.pi
        for i in range(IMAGE // 2):
            angle = turn / 10000 ** (2 * (i // 2) / (IMAGE // 2))
            halves.append(math.sin(angle) if i % 2 == 0 else math.cos(angle))
    return torch.tensor(halves)


def plain_look_up(module: Any, categories: Tensor, frame: Tensor) -> list[Tensor]:
    """Equation 7 of one frame (D, Y, X)."""
    height, width = frame.shape[1:]
    places = [(y, x) for y in range(height) for x in range(width)]
    text = rows(module.from_text, list(categories))
    pixels = rows(module.from_image, [frame[:, y, x] + sine(y, x, height, width) for y, x in places])
    found = plus(text, attend(module.look, text, pixels, pixels, heads=8))
    return rows(module.to_key, [normed(module.norm, one) for one in found])


def plain_block(block: Any, queries: list[Tensor], keys: list[Tensor], first: list[Tensor], first_keys: list[Tensor],
                last: bool) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    placed = plus(queries, first)
    queries = plus(queries, attend(block.self_attn, placed, placed, queries, HEADS))
    queries = [normed(block.layer_norm1, one) for one in queries]
    placed, placed_keys = plus(queries, first), plus(keys, first_keys)
    queries = plus(queries, attend(block.cross_attn_token_to_image, placed, placed_keys, keys, HEADS))
    queries = [normed(block.layer_norm2, one) for one in queries]
    hidden = [one.clamp(min=0) for one in rows(block.mlp.proj_in, queries)]
    queries = [normed(block.layer_norm3, one) for one in plus(queries, rows(block.mlp.proj_out, hidden))]
    if last:
        return queries, keys
    placed, placed_keys = plus(queries, first), plus(keys, first_keys)
    keys = plus(keys, attend(block.cross_attn_image_to_token, placed_keys, placed, queries, HEADS))
    return queries, [normed(block.layer_norm4, one) for one in keys]


@torch.no_grad()
def test_every_frames_look_up_is_equation_7(given: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    module: Any = projector()
    _, categories, _, image = given
    found = module.look_up(categories, image)
    assert found.shape == (B, T, K, WIDTH)
    for b in range(B):
        for t in range(T):
            torch.testing.assert_close(found[b, t], torch.stack(plain_look_up(module, categories[b], image[b, t])))


@torch.no_grad()
@pytest.mark.parametrize("blocks", [1, 3])
def test_prompts_are_equation_8_and_the_two_way_pass(blocks: int, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    module: Any = projector(blocks=blocks)
    state, categories, known, image = given
    found = module(*given)
    assert found.shape == (B, T, IMAGE)
    for b in range(B):
        for t in range(T):
            seen = categories[b][known[b]]
            keys = [*rows(module.from_state, [state[b]]), *plain_look_up(module, seen, image[b, t])]
            first, first_keys = list(module.queries), keys
            queries = first
            for i, block in enumerate(module.blocks):
                queries, keys = plain_block(block, queries, keys, first, first_keys, last=i == blocks - 1)
            plain = module.to_prompt.weight @ torch.cat(queries) + module.to_prompt.bias
            torch.testing.assert_close(found[b, t], plain, rtol=1e-4, atol=1e-5)


# every kind


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_padded_categories_change_nothing(kind: str, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    module = projector(kind)
    state, categories, known, image = given
    found = module(*given)
    assert found.shape == (B, T, IMAGE)
    alone = module(state[1:], categories[1:, :2], known[1:, :2], image[1:])
    torch.testing.assert_close(found[1:], alone)
    loud = categories.masked_fill(~known[..., None], 1e3)
    torch.testing.assert_close(module(state, loud, known, image), found)


@torch.no_grad()
def test_prompts_follow_state_names_and_frame_and_only_those_that_a_kind_reads(
    given: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    state, categories, known, image = given
    reads = {"semantic": [True, True, True], "mlp": [True, False, False], "qformer": [True, True, False]}
    for kind, expected in reads.items():
        module = projector(kind)
        found = module(*given)
        others = (
            module(state.flip(0), categories, known, image),
            module(state, categories + 1, known, image),
            module(state, categories, known, image.flip(1)),
        )
        assert [not torch.allclose(found, other, atol=1e-5) for other in others] == expected
        assert (not torch.allclose(found[:, 0], found[:, 1], atol=1e-5)) == (kind == "semantic")


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns(kind: str, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    module = projector(kind).train()
    with torch.inference_mode():  # a validation comes first, and what it made is no part of a graph
        module(*given)
    module(*given).square().sum().backward()
    still = [name for name, one in module.named_parameters() if one.grad is None or not one.grad.any()]
    assert not still
    # of no use is also what only rounding moves; a key's bias shifts all fits of a query alike, and no softmax sees it
    weak = {name for name, one in module.named_parameters() if one.grad is not None and one.grad.abs().max() < 1e-5}
    assert all(name.endswith(("k_proj.bias", "key.bias")) for name in weak)


@pytest.mark.parametrize("kind", KINDS)
def test_a_projector_starts_with_small_weights_and_no_bias(kind: Any) -> None:
    torch.manual_seed(0)
    module = make_projector(kind, 64, 64, 64, width=64, queries=40, heads=4, feed_forward=64)
    linears = [part for part in module.modules() if isinstance(part, nn.Linear)]
    assert not torch.cat([linear.bias for linear in linears]).any()
    assert torch.cat([linear.weight.flatten() for linear in linears]).std().item() == pytest.approx(0.02, rel=0.02)
    if kind != "mlp":
        assert module.queries.shape == (40, 64)
        assert module.queries.std().item() == pytest.approx(1, rel=0.05)


def test_the_papers_projector_has_the_authors_weights_less_the_dead_ones() -> None:
    with torch.device("meta"):
        module = make_projector("semantic", 3584, 512, 256)
    count = sum(one.numel() for one in module.parameters())
    # 54.19 M in the authors' code, of which 1.18 M are the last block's keys and 0.2 M a head that nothing reads
    attention, head = 3 * (768 * 384 + 384) + 384 * 768 + 768, 768 * 256 + 256
    assert count + attention + 2 * 768 + head == pytest.approx(54.19e6, abs=0.005e6)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_inputs_meet_float32_weights(kind: str, given: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    module = projector(kind)
    state, categories, known, image = given
    rough = (state.bfloat16(), categories.bfloat16(), known, image.bfloat16())
    found = module(*rough)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, module(*(one.float() if one.is_floating_point() else one for one in rough)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(module(*rough).float(), found, rtol=0.1, atol=0.1)


def test_a_projector_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="projector 'linear': expected semantic, mlp, qformer"):
        projector("linear")
    with pytest.raises(ValueError, match="at least 1"):
        projector(blocks=0)
    with pytest.raises(ValueError, match="width 36 is no multiple of 16"):
        make_projector("semantic", STATE, TEXT, IMAGE, width=36)
    with pytest.raises(ValueError, match="width 16 is no multiple of 24"):
        make_projector("semantic", STATE, TEXT, IMAGE, width=16)
    with pytest.raises(ValueError, match="width 16 is no multiple of 12"):
        make_projector("qformer", STATE, TEXT, IMAGE, width=16)
