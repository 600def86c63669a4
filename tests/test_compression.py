"""Compression of visual tokens: equations 3 and 4 of LAVIDA, the density of the authors' code, ties, ragged rows."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.live_memory import peak_bytes
from vigil import compression
from vigil.compression import compress, heat, kept_length


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def lattice(*shape: int, seed: int = 0) -> Tensor:
    """Tokens of 0, 1 and 2: many identical ones, many equal distances."""
    return torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(seed)).double()


def by_hand(tokens: Tensor, length: int, neighbors: int, density: str) -> tuple[list, list, list, list]:
    """(compressed, index, density, attention) of one row, in Python's own numbers, one token after the other."""
    row = tokens.tolist()
    size, width = len(row), len(row[0])
    square = [[math.fsum((a - b) ** 2 for a, b in zip(one, other, strict=True)) for other in row] for one in row]
    near = [sorted((square[i][j], j) for j in range(size) if j != i)[:neighbors] for i in range(size)]
    if density == "paper":
        total = [sum(d for d, _ in own) for own in near]
        dense = [len(own) / s if s else math.inf for own, s in zip(near, total, strict=True)]
    else:
        kth = [math.sqrt(own[-1][0] / width) for own in near]
        dense = [len(own) / (sum(max(kth[j], math.sqrt(d / width)) for d, j in own) + 1e-10) for own in near]
    index = sorted(sorted(range(size), key=lambda i: (-dense[i], i))[:length])
    nearest = [min(index, key=lambda r: (square[i][r], r)) for i in range(size)]
    compressed, attention = [], [0.0] * size
    for reference in index:
        own = [i for i in range(size) if nearest[i] == reference]
        product = [sum(a * b for a, b in zip(row[reference], row[i], strict=True)) for i in own]
        weight = [math.exp(-(p - min(product)) / math.sqrt(width)) for p in product]
        for i, w in zip(own, weight, strict=True):
            attention[i] = w / sum(weight)
        sums = [sum(attention[i] * row[i][d] for i in own) for d in range(width)]
        compressed.append(sums if own else row[reference])
    return compressed, index, dense, attention


def check_by_hand(tokens: Tensor, length: int, neighbors: int, density: str, rtol: float = 1e-9) -> None:
    compressed, index = compress(tokens[None], length, neighbors=neighbors, density=density)
    shown = heat(tokens[None], length, neighbors=neighbors, density=density)
    expected = by_hand(tokens, length, neighbors, density)
    assert index[0].tolist() == expected[1]
    for ours, plain in zip((compressed, *shown), (expected[0], *expected[2:]), strict=True):
        torch.testing.assert_close(ours[0].double(), torch.tensor(plain, dtype=torch.float64), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("density", ["paper", "lof"])
@pytest.mark.parametrize(("length", "neighbors"), [(12, 8), (1, 3), (24, 8), (7, 1), (23, 30)])
def test_equations_3_and_4(density: str, length: int, neighbors: int) -> None:
    check_by_hand(randn(24, 6), length, neighbors, density)
    check_by_hand(randn(24, 6, dtype=torch.float32), length, neighbors, density, rtol=1e-5)


def test_the_two_densities_choose_differently() -> None:
    paper, lof = (compress(randn(1, 40, 5), 10, density=density)[1] for density in ("paper", "lof"))
    assert paper.tolist() != lof.tolist()


@pytest.mark.parametrize("length", [1, 10, 35, 60])
@pytest.mark.parametrize("neighbors", [1, 4])
def test_identical_tokens_and_equal_distances_go_to_the_lower_index(length: int, neighbors: int) -> None:
    for seed in range(3):
        tokens = lattice(60, 3, seed=seed)
        check_by_hand(tokens, length, neighbors, "paper")
        check_by_hand(tokens.float(), length, neighbors, "paper", rtol=1e-5)


def test_many_identical_tokens_are_not_compared_with_each_other() -> None:
    tokens = randn(2, 5)[[0, 1] * 8 + [0] * 30].double()
    tokens = torch.cat([tokens, randn(9, 5, seed=1), tokens])
    for length in (1, 50, 101):
        check_by_hand(tokens, length, 3, "paper")
        check_by_hand(tokens, length, 3, "lof")
    alike = randn(1, 1, 2048).expand(1, 600, -1).contiguous()
    assert peak_bytes(lambda: compress(alike, 300)) < 4 * alike.nbytes  # all pairs take six times
    assert compress(alike, 300)[1].tolist() == [list(range(300))]


def test_tokens_that_are_all_as_far_from_each_other_go_to_the_first() -> None:
    compressed, index = compress(torch.eye(50)[None], 3)
    assert index.tolist() == [[0, 1, 2]]
    assert (compressed[0, 0] > 0).tolist() == [True, False, False] + [True] * 47


@pytest.mark.parametrize("density", ["paper", "lof"])
def test_of_identical_references_the_first_takes_all_and_the_rest_stay(density: str) -> None:
    tokens = randn(1, 30, 4).float()
    tokens[0, [20, 3, 11, 25]] = tokens[0, 7].clone()
    _, attention = heat(tokens, 30, neighbors=2, density=density)
    assert attention[0, [3, 7, 11, 20, 25]].tolist() == pytest.approx([0.2] * 5)
    compressed, index = compress(tokens, 2, neighbors=2, density=density)
    assert index.tolist() == [[3, 7]]
    assert torch.equal(compressed[0, 1], tokens[0, 7])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_keeping_all_changes_nothing(dtype: torch.dtype) -> None:
    tokens = randn(2, 70, 8, dtype=dtype)
    compressed, index = compress(tokens, 70)
    assert torch.equal(compressed, tokens)
    assert index.tolist() == [list(range(70))] * 2


def test_tokens_nearly_alike_and_far_from_zero_are_told_apart() -> None:
    tokens = (1000 + 0.01 * randn(40, 8)).float()  # squares of 1e6 end where the distances of 1e-4 begin
    check_by_hand(tokens, 15, 4, "paper", rtol=1e-3)
    tokens = torch.cat([tokens, -tokens])  # which the mean over all does not bring near zero
    check_by_hand(tokens, 30, 4, "paper", rtol=1e-3)


@pytest.mark.parametrize("density", ["paper", "lof"])
@pytest.mark.parametrize("tokens", [randn(2, 65, 7).float(), lattice(2, 65, 3).float(), lattice(2, 65, 3) + 0.1])
def test_the_result_does_not_depend_on_the_size_of_chunks(monkeypatch, tokens: Tensor, density: str) -> None:
    def run(block: int, held: int) -> list[Tensor]:
        monkeypatch.setitem(compression._BLOCK, "cpu", block)
        monkeypatch.setitem(compression._HELD, "cpu", held)
        return [*compress(tokens, 31, neighbors=5, density=density), *heat(tokens, 31, neighbors=5, density=density)]

    whole = run(640, 2**20)
    for block, held in ((1, 300), (13, 7), (64, 1000)):
        for ours, expected in zip(run(block, held), whole, strict=True):
            assert torch.equal(ours, expected)


def test_a_row_comes_out_as_it_does_alone() -> None:
    tokens, mask = randn(4, 50, 6).float(), torch.rand(4, 50, generator=torch.Generator().manual_seed(1)) < 0.7
    mask[3] = True
    length = torch.tensor([3, 17, 1, 50])
    shuffled = tokens.masked_fill(~mask[..., None], math.nan)  # padding may hold anything
    compressed, index = compress(shuffled, length, mask)
    shown = heat(shuffled, length, mask)
    for row, (own, kept) in enumerate(zip(mask, length.tolist(), strict=True)):
        alone, place = compress(tokens[row, own][None], kept)
        assert torch.equal(compressed[row, :kept], alone[0])
        assert torch.equal(index[row, :kept], own.nonzero()[:, 0][place[0]])
        assert not compressed[row, kept:].any()
        assert (index[row, kept:] == -1).all()
        for ours, expected in zip(shown, heat(tokens[row, own][None], kept), strict=True):
            assert torch.equal(ours[row, own], expected[0])
            assert not ours[row, ~own].any()


def test_the_order_of_rows_does_not_matter() -> None:
    tokens, length, order = randn(3, 40, 6), torch.tensor([5, 20, 11]), [2, 0, 1]
    compressed, index = compress(tokens, length)
    permuted = compress(tokens[order], length[order])
    assert torch.equal(permuted[0], compressed[order])
    assert torch.equal(permuted[1], index[order])


def test_indices_ascend() -> None:
    _, index = compress(randn(2, 60, 4), torch.tensor([30, 60]))
    assert all(a < b for a, b in pairwise(index[0, :30].tolist()))


def test_a_lone_token_stays_and_has_no_density() -> None:
    tokens = randn(1, 1, 4)
    assert torch.equal(compress(tokens, 1)[0], tokens)
    density, attention = heat(tokens, 1)
    assert (density.item(), attention.item()) == (0, 1)


@pytest.mark.parametrize("density", ["paper", "lof"])
def test_gradients_are_those_of_equation_4(density: str) -> None:
    tokens = randn(2, 12, 3).requires_grad_()
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 2:5] = False

    def kept(tokens: Tensor) -> Tensor:
        return compress(tokens, torch.tensor([4, 5]), mask, neighbors=3, density=density)[0]

    assert torch.autograd.gradcheck(kept, tokens)
    kept(tokens).sum().backward()
    assert tokens.grad is not None
    assert (tokens.grad.abs().sum(2) > 0).equal(mask)


def test_gradients_reach_an_identical_reference_that_stays() -> None:
    tokens = torch.ones(1, 3, 2, requires_grad=True)
    compress(tokens, 3)[0][0, 2].sum().backward()
    assert tokens.grad is not None
    assert tokens.grad[0].tolist() == [[0, 0], [0, 0], [1, 1]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_tokens_are_compared_in_float32(dtype: torch.dtype) -> None:
    tokens = (3 + randn(2, 60, 16)).to(dtype)
    wide, expected = compress(tokens.float(), 20)
    with torch.autocast("cpu", torch.bfloat16):
        compressed, index = compress(tokens, 20)
        under_autocast = compress(tokens.float(), 20)[0]
    assert compressed.dtype == dtype
    assert torch.equal(index, expected)
    assert torch.equal(compressed, wide.to(dtype))
    assert torch.equal(under_autocast, wide)


def test_no_tensor_is_quadratic_in_the_tokens(monkeypatch) -> None:
    monkeypatch.setitem(compression._BLOCK, "cpu", 64)
    monkeypatch.setitem(compression._HELD, "cpu", 2**10)
    tokens = randn(1, 1500, 2).float()
    assert peak_bytes(lambda: compress(tokens, 750)) < 1500 * 1500 * 4 / 5


def test_kept_length() -> None:
    assert [kept_length(5184, 0.5), kept_length(7, 0.5), kept_length(3, 0.05), kept_length(9, 1)] == [2592, 3, 1, 9]


@pytest.mark.parametrize(("n_tokens", "ratio"), [(0, 0.5), (8, 0), (8, 1.01), (8, math.nan)])
def test_kept_length_refuses(n_tokens: int, ratio: float) -> None:
    with pytest.raises(ValueError, match="ratio"):
        kept_length(n_tokens, ratio)


GOOD = randn(2, 10, 4)
HOLES = torch.tensor([[True] * 10, [True] * 3 + [False] * 7])


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ({"tokens": GOOD[0]}, r"tokens are torch.float64 \(10, 4\)"),
        ({"tokens": GOOD.long()}, "tokens are torch.int64"),
        ({"tokens": GOOD[:, :0]}, r"\(2, 0, 4\)"),
        ({"length": 0}, "row 0 has 10 tokens and is to keep 0"),
        ({"length": 11}, "row 0 has 10 tokens and is to keep 11"),
        ({"length": torch.tensor([4, 11])}, "row 1 has 10 tokens and is to keep 11"),
        ({"length": torch.tensor([4, 4, 4])}, r"length is torch.int64 \(3,\)"),
        ({"length": torch.tensor([4.0, 4.0])}, "length is torch.float32"),
        ({"mask": HOLES}, "row 1 has 3 tokens and is to keep 4"),
        ({"mask": HOLES[:, :9]}, r"mask is torch.bool \(2, 9\)"),
        ({"mask": HOLES.long()}, "mask is torch.int64"),
        ({"neighbors": 0}, "neighbors is 0"),
        ({"density": "knn"}, "density is 'knn'"),
        ({"tokens": GOOD.index_fill(0, torch.tensor(1), math.nan)}, "row 1 of the tokens holds NaN"),
        ({"tokens": GOOD.index_fill(1, torch.tensor(1), math.inf)}, "row 0 of the tokens holds NaN, infinite"),
        ({"tokens": 1e30 * GOOD.float()}, "too large"),
    ],
)
@pytest.mark.parametrize("function", [compress, heat])
def test_bad_input_is_refused(function, arguments: dict, found: str) -> None:
    with pytest.raises(ValueError, match=found):
        function(**{"tokens": GOOD, "length": 4, **arguments})
