"""Steering and its loss against plain loops written from SteerVAD's equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vigil.steering import Mode, Steering, steering_loss

MODES: list[Mode] = ["multiplicative", "additive", "static"]
Number = list[float]


def drawn(mode: Mode = "multiplicative", global_gate: bool = True, **sizes: int) -> Steering:
    """In float64, every parameter drawn: a fresh one would hide what it does behind its zeros."""
    sizes = {"context_width": 6, "heads": 3, "head_width": 5, "gate_width": 7, "rank": 2} | sizes
    steering = Steering(**sizes, mode=mode, global_gate=global_gate).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in steering.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return steering


def inputs(n_samples: int = 4, width: int = 6, heads: int = 3, head_width: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    context = torch.randn(n_samples, width, generator=generator, dtype=torch.float64)
    return context, torch.randn(n_samples, heads, head_width, generator=generator, dtype=torch.float64)


def linear(weight: list[Number], bias: Number, x: Number) -> Number:
    return [b + sum(w * value for w, value in zip(row, x, strict=True)) for row, b in zip(weight, bias, strict=True)]


def by_hand(steering: Steering, context: Number, heads: list[Number]) -> tuple[list[Number], float]:
    """One sample by the equations. The first layers stand in one matrix: the gate's rows, then each head's `rank`."""
    n_gate, gate, first = steering.gate_width, 1.0, [[], []]
    if steering.down is not None:
        first = [steering.down.weight.tolist(), steering.down.bias.tolist()]
    if steering.gate is not None:
        hidden = [max(0.0, value) for value in linear(first[0][:n_gate], first[1][:n_gate], context)]
        gate = 1 / (1 + math.exp(-linear(steering.gate.weight.tolist(), steering.gate.bias.tolist(), hidden)[0]))
    steered = []
    for i, head in enumerate(heads):
        low_bias = steering.offset[i, 0].tolist()
        if steering.up is None:
            raw = low_bias
        else:
            rows = slice(n_gate + i * steering.rank, n_gate + (i + 1) * steering.rank)
            low = linear(first[0][rows], first[1][rows], context)
            raw = linear(steering.up[i].T.tolist(), low_bias, low)
        local = [math.tanh(value) for value in raw]
        if steering.mode == "additive":
            steered.append([h + gate * g for h, g in zip(head, local, strict=True)])
        else:
            steered.append([h * (1 + gate * g) for h, g in zip(head, local, strict=True)])
    return steered, gate


@pytest.mark.parametrize("global_gate", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_every_variant_is_its_equation(mode: Mode, global_gate: bool) -> None:
    steering = drawn(mode, global_gate)
    context, heads = inputs()
    steered, gate = steering(context, heads)
    assert steered.shape == heads.shape
    assert gate.shape == (4,)
    for b in range(4):
        expected, expected_gate = by_hand(steering, context[b].tolist(), heads[b].tolist())
        torch.testing.assert_close(steered[b], torch.tensor(expected, dtype=torch.float64))
        assert gate[b].item() == pytest.approx(expected_gate, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 518_929),  # + 513 of a scorer = 519,442, the 520 K of the paper
        ({"mode": "additive"}, 518_929),
        ({"global_gate": False}, 4 * (3584 * 4 + 4 + 4 * 128 + 128)),
        ({"mode": "static"}, 3584 * 128 + 128 + 128 + 1 + 4 * 128),
        ({"mode": "static", "global_gate": False}, 4 * 128),
    ],
)
def test_parameters_at_the_papers_sizes(options: dict[str, object], expected: int) -> None:
    steering = Steering(3584, 4, 128, **options)
    assert sum(parameter.numel() for parameter in steering.parameters()) == expected
    if not options:
        assert expected + sum(parameter.numel() for parameter in nn.Linear(4 * 128, 1).parameters()) == 519_442


@pytest.mark.parametrize("mode", MODES)
def test_a_fresh_one_hands_back_the_heads_and_can_learn(mode: Mode) -> None:
    steering = Steering(6, 3, 5, gate_width=7, rank=2, mode=mode)
    context, heads = (value.float() for value in inputs())
    steered, gate = steering(context, heads)
    assert torch.equal(steered, heads)
    assert ((gate > 0) & (gate < 1)).all()
    optimizer = torch.optim.SGD(steering.parameters(), 0.1)
    for _ in range(2):  # after one step every part is on the way
        optimizer.zero_grad()
        steering(context, heads)[0].square().sum().backward()
        optimizer.step()
    assert all(parameter.grad.any() for parameter in steering.parameters())


@pytest.mark.parametrize("mode", MODES)
def test_a_closed_gate_lets_the_heads_pass(mode: Mode) -> None:
    steering = drawn(mode)
    with torch.no_grad():
        steering.gate.weight.zero_()
        steering.gate.bias.fill_(-1e4)
    context, heads = inputs()
    steered, gate = steering(context, heads)
    assert not gate.any()
    assert torch.equal(steered, heads)


@pytest.mark.parametrize("global_gate", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_the_gate_and_the_steering_are_bounded(mode: Mode, global_gate: bool) -> None:
    steering = drawn(mode, global_gate)
    context, heads = inputs(50)
    steered, gate = steering(100 * context, heads)
    assert ((gate >= 0) & (gate <= 1)).all()
    reach = 1.0 if mode == "additive" else heads.abs()
    assert ((steered - heads).abs() <= gate[:, None, None] * reach + 1e-12).all()
    if not global_gate:
        assert torch.equal(gate, torch.ones(50, dtype=torch.float64))


def test_static_scaling_does_not_look_at_the_context() -> None:
    context, heads = inputs()
    other = context.flip(0)
    static, dynamic = drawn("static", global_gate=False), drawn("multiplicative", global_gate=False)
    assert torch.equal(static(context, heads)[0], static(other, heads)[0])
    assert not torch.equal(dynamic(context, heads)[0], dynamic(other, heads)[0])


def test_a_sample_is_steered_by_its_own_context_alone() -> None:
    steering = drawn()
    context, heads = inputs()
    whole = steering(context, heads)
    for b in range(4):
        alone = steering(context[b : b + 1], heads[b : b + 1])
        torch.testing.assert_close(alone[0][0], whole[0][b])
        torch.testing.assert_close(alone[1][0], whole[1][b])


@pytest.mark.parametrize("global_gate", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_those_of_finite_differences(mode: Mode, global_gate: bool) -> None:
    steering = drawn(mode, global_gate, context_width=3, heads=2, head_width=2, gate_width=3, rank=1)
    context, heads = inputs(2, 3, 2, 2)
    scorer = torch.tensor([0.3, -1.0, 0.5, 2.0], dtype=torch.float64)
    label = torch.tensor([1, 0])
    names = [name for name, _ in steering.named_parameters()]

    def total(context: Tensor, heads: Tensor, *values: Tensor) -> Tensor:
        parameters = dict(zip(names, values, strict=True))
        steered, gate = torch.func.functional_call(steering, parameters, (context, heads))
        return steering_loss(steered.flatten(1) @ scorer, label, gate).total

    values = [value.detach().requires_grad_() for value in (context, heads, *steering.parameters())]
    assert torch.autograd.gradcheck(total, values)


def test_it_works_in_the_dtype_of_its_parameters() -> None:
    context, heads = inputs()
    single = drawn().float()
    steered, gate = single(context.bfloat16(), heads)
    assert steered.dtype == gate.dtype == torch.float32
    expected = drawn()(context.bfloat16().double(), heads)
    torch.testing.assert_close(steered.double(), expected[0], atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert single(context.float(), heads)[1].dtype == torch.float32


@pytest.mark.parametrize(
    ("context", "heads"),
    [
        ((4, 7), (4, 3, 5)),
        ((4, 6), (4, 2, 5)),
        ((4, 6), (4, 3, 6)),
        ((4, 6), (3, 3, 5)),
        ((4, 6), (4, 15)),
        ((6,), (3, 5)),
    ],
)
def test_other_widths_are_refused(context: tuple[int, ...], heads: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"built for a context \(B, 6\) and heads \(B, 3, 5\)"):
        drawn()(torch.zeros(context), torch.zeros(heads))


@pytest.mark.parametrize("options", [{"rank": 0}, {"gate_width": 0}, {"mode": "divisive"}])
def test_sizes_and_modes_that_mean_nothing_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="sizes from 1"):
        Steering(6, 3, 5, **options)


@pytest.mark.parametrize("label", [[1, 0, 0, 1, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
@pytest.mark.parametrize("gate_weight", [0.1, 2.0])
def test_the_loss_is_cross_entropy_and_the_gate_on_normal_samples(label: list[int], gate_weight: float) -> None:
    logit = [0.5, -2.0, 3.0, -0.1, 0.0]
    gate = [0.9, 0.2, 0.7, 0.4, 1.0]
    cross_entropy, squares = 0.0, []
    for z, y, s in zip(logit, label, gate, strict=True):
        p = 1 / (1 + math.exp(-z))
        cross_entropy -= (y * math.log(p) + (1 - y) * math.log(1 - p)) / 5
        if y == 0:
            squares.append(s**2)
    penalty = sum(squares) / len(squares) if squares else 0.0
    for kind in (torch.int64, torch.float32, torch.bool):
        loss = steering_loss(
            torch.tensor(logit).double(), torch.tensor(label, dtype=kind), torch.tensor(gate).double(), gate_weight
        )
        assert loss.cross_entropy.item() == pytest.approx(cross_entropy, rel=1e-6)
        assert loss.gate_penalty.item() == pytest.approx(penalty, rel=1e-6)
        assert loss.total.item() == pytest.approx(cross_entropy + gate_weight * penalty, rel=1e-6)


def test_a_loss_of_shapes_that_do_not_match_is_refused() -> None:
    for logit, label, gate in [((4, 1), (4,), (4,)), ((4,), (3,), (4,)), ((4,), (4,), (1,)), ((0,), (0,), (0,))]:
        with pytest.raises(ValueError, match=r"\(B,\) each"):
            steering_loss(torch.zeros(logit), torch.zeros(label), torch.zeros(gate))


@pytest.mark.parametrize(("mode", "least", "most"), [("multiplicative", 0.95, 1.0), ("static", 0.0, 0.7)])
def test_what_only_the_context_tells_is_learned_from_it(mode: Mode, least: float, most: float) -> None:
    """What the head's sign means turns around with the scene, which no scorer of the head alone can know."""
    generator = torch.Generator().manual_seed(0)
    scene, label = torch.randint(0, 2, (2, 200), generator=generator)
    context = nn.functional.one_hot(scene, 2).float()
    heads = ((2 * label - 1) * (2 * scene - 1)).float()[:, None, None].expand(-1, 1, 2)
    torch.manual_seed(0)
    steering, scorer = Steering(2, 1, 2, mode=mode), nn.Linear(2, 1)
    optimizer = torch.optim.AdamW([*steering.parameters(), *scorer.parameters()], 3e-2)
    for _ in range(150):
        steered, gate = steering(context, heads)
        logit = scorer(steered.flatten(1)).squeeze(1)
        optimizer.zero_grad()
        steering_loss(logit, label, gate).total.backward()
        optimizer.step()
    assert least <= ((logit > 0) == label.bool()).float().mean().item() <= most
