"""Fewer visual tokens for a language model: dense ones stand for the background, and each sums up what is unlike it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor
from torch.linalg import vector_norm
from torch.nn.functional import embedding_bag

Density = Literal["paper", "lof"]
_BLOCK = {"cpu": 640, "cuda": 2048}  # tokens, at most, whose distances to as many others are held at a time
_HELD = {"cpu": 2**18, "cuda": 2**24}  # values gathered at a time, the former to stay in a processor's cache


def kept_length(n_tokens: int, ratio: float) -> int:
    """How many of a clip's tokens stay: floor(ratio x n_tokens), at least 1. ValueError unless 0 < ratio <= 1."""
    if not 0 < ratio <= 1 or n_tokens < 1:
        raise ValueError(f"a ratio of {ratio} of {n_tokens} tokens; above 0 and at most 1 of 1 or more is expected")
    return max(1, math.floor(ratio * n_tokens))


def compress(
    tokens: Tensor,
    length: int | Tensor,
    mask: Tensor | None = None,
    neighbors: int = 8,
    density: Density = "paper",
) -> tuple[Tensor, Tensor]:
    """Every row's tokens as `length` sums of those least like the background, and where these stand among the tokens.

    tokens (B, S, D), any float; length, of all rows or (B,) of each, from 1 to the row's number of tokens; mask (B, S),
    False on padding, which takes no part. Returns (compressed (B, R, D) of the tokens' type, index (B, R) of the
    references, ascending); R is the longest row's length, a shorter one ends in zeros and index -1. Distances, density
    and softmax are float32, of float64 tokens float64. Gradients reach the tokens through equation 4; the choice of
    references and groups has none.

    Rules: a token is not its own neighbour; a row of fewer than `neighbors` other tokens has all of them as
    neighbours, and a lone token density 0; ties of distance and of density go to the lower index, so of identical
    references the first takes all, and one that nothing is assigned to is returned as it is.

    Raises ValueError for other shapes or types, a length out of range, neighbors < 1, an unknown density, and a row
    with a value that is NaN, infinite or too large to square.
    Source: LAVIDA, arXiv:2602.19248, eq. 3 and 4; "lof" is the density of the authors' code. Differs: the authors stop
    the gradient, and give a reference without tokens the mean of all.
    """
    lengths, rows = _checked(tokens, length, mask, neighbors, density)
    compressed = tokens.new_zeros(len(tokens), max(lengths), tokens.shape[2])
    index = torch.full(compressed.shape[:2], -1, device=tokens.device)
    with torch.autocast(tokens.device.type, enabled=False):
        for number, (kept, position) in enumerate(zip(lengths, rows, strict=True)):
            own = tokens[number] if len(position) == tokens.shape[1] else tokens[number, position]
            _, reference, group = _groups(own, kept, neighbors, density, number)
            compressed[number, :kept] = _sums(own, reference, group, _weights(own, reference, group))
            index[number, :kept] = position[reference]
    return compressed, index


@torch.no_grad()
def heat(
    tokens: Tensor,
    length: int | Tensor,
    mask: Tensor | None = None,
    neighbors: int = 8,
    density: Density = "paper",
) -> tuple[Tensor, Tensor]:
    """What `compress` sees in every token, for pictures: its density and its weight in its reference's softmax.

    Arguments and errors as in `compress`. Returns (density (B, S), from 0 up, infinite where all neighbours are
    identical; attention (B, S), in [0, 1], a group's add up to 1), float32 or float64, 0 on padding.
    """
    lengths, rows = _checked(tokens, length, mask, neighbors, density)
    shown = torch.zeros(2, *tokens.shape[:2], dtype=_wide(tokens), device=tokens.device)
    with torch.autocast(tokens.device.type, enabled=False):
        for number, (kept, position) in enumerate(zip(lengths, rows, strict=True)):
            own = tokens[number, position]
            shown[0, number, position], reference, group = _groups(own, kept, neighbors, density, number)
            shown[1, number, position] = _weights(own, reference, group)
    return shown[0], shown[1]


def _checked(
    tokens: Tensor, length: int | Tensor, mask: Tensor | None, neighbors: int, density: str
) -> tuple[list[int], list[Tensor]]:
    """Every row's length and the positions of its tokens."""
    if tokens.ndim != 3 or not tokens.is_floating_point() or 0 in tokens.shape:
        raise ValueError(f"tokens are {tokens.dtype} {tuple(tokens.shape)}; any float (B, S, D) is expected")
    if mask is not None and (mask.shape != tokens.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; bool {tuple(tokens.shape[:2])} is expected")
    if isinstance(length, Tensor) and (length.shape != tokens.shape[:1] or length.is_floating_point()):
        raise ValueError(
            f"length is {length.dtype} {tuple(length.shape)}; one integer, or one for each of the "
            f"{len(tokens)} rows, is expected"
        )
    if neighbors < 1:
        raise ValueError(f"neighbors is {neighbors}; 1 or more is expected (8 in the authors' code)")
    if density not in ("paper", "lof"):
        raise ValueError(f'density is {density!r}; "paper" or "lof" is expected')
    lengths = [int(one) for one in length.tolist()] if isinstance(length, Tensor) else [length] * len(tokens)
    everything = torch.arange(tokens.shape[1], device=tokens.device)
    rows = [everything] * len(tokens) if mask is None else [one.nonzero()[:, 0] for one in mask.to(tokens.device)]
    for number, (kept, position) in enumerate(zip(lengths, rows, strict=True)):
        if not 1 <= kept <= len(position):
            raise ValueError(
                f"row {number} has {len(position)} tokens and is to keep {kept}; 1 to all of them are "
                "expected: take each row's own kept_length"
            )
    return lengths, rows


def _wide(tokens: Tensor) -> torch.dtype:
    return torch.float64 if tokens.dtype == torch.float64 else torch.float32


def _of_device(sizes: dict[str, int], device: torch.device) -> int:
    return sizes.get(device.type, sizes["cpu"])


def _parts(n_rows: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of rows of `width` values each that are gathered together."""
    step = max(1, _of_device(_HELD, device) // width)
    return (slice(first, min(first + step, n_rows)) for first in range(0, n_rows, step))


@torch.no_grad()
def _groups(tokens: Tensor, length: int, neighbors: int, density: str, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """(density (S,), reference (R,), ascending, group (S,): every token's place in reference) of tokens (S, D)."""
    distances = _Distances(tokens, number)
    everything = torch.arange(len(tokens), device=tokens.device)
    distance, neighbor = distances.nearest(everything, everything, neighbors)
    twin = torch.where(distance == 0, neighbor, len(tokens))
    first_twin = torch.cat([everything[:, None], twin], 1).amin(1)
    # To the last bit, so that the first of identical tokens is a reference wherever any is.
    dense = _density(distance, neighbor, density, tokens.shape[1])[first_twin]
    reference = dense.sort(descending=True, stable=True).indices[:length].sort().values
    place = torch.full_like(everything, -1)
    place[reference] = torch.arange(length, device=tokens.device)

    known = torch.cat([everything[:, None], neighbor], 1)  # by distance: the first that is a reference is the nearest
    referred = place[known] >= 0
    nearest = known.gather(1, referred.byte().argmax(1, keepdim=True))[:, 0]
    far = (~referred.any(1)).nonzero()[:, 0]
    if len(far):
        distinct = reference[first_twin[reference] == reference]
        nearest[far] = distances.nearest(far, distinct, 1)[1][:, 0]
    return dense, reference, place[first_twin[nearest]]


def _density(distance: Tensor, neighbor: Tensor, density: str, width: int) -> Tensor:
    """Density (S,) from the squared distances (S, k), ascending, to every token's neighbours (S, k)."""
    n_neighbors = distance.shape[1]
    if not n_neighbors:
        return distance.new_zeros(len(distance))
    if density == "paper":
        return n_neighbors / distance.sum(1)  # equation 3
    root = distance.sqrt() / math.sqrt(width)
    reach = torch.maximum(root[:, -1][neighbor], root)
    return n_neighbors / (reach.sum(1) + 1e-10)  # the authors' constant


class _Distances:
    """Squared Euclidean distances within tokens (S, D): rough ones by matrix products, exact ones by differences.

    A rough one is off by rounding that depends on how the product is cut. So they only choose candidates; how far off
    they are is measured on these, and where that could hide a nearer token, every token within reach is compared.
    """

    def __init__(self, tokens: Tensor, number: int) -> None:
        self.tokens = tokens.to(_wide(tokens))
        # Without the mean, or distances would drown in what all tokens share.
        self.centered = self.tokens - self.tokens.mean(0)
        self.square = vector_norm(self.centered, dim=1).square_()
        if not self.square.max() < torch.finfo(self.square.dtype).max / 8:  # NaN is not below anything
            raise ValueError(
                f"row {number} of the tokens holds NaN, infinite or too large values; expected are finite "
                "ones whose squares can be added up: look at the model's weights and precision"
            )
        self.error = 8 * torch.finfo(self.square.dtype).eps * self.square.max()

    def nearest(self, rows: Tensor, keys: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """(squared distance (P, n), token (P, n)) of the keys (M,), ascending, nearest to tokens `rows` (P,).

        A token is not near itself. Where there are fewer keys than n, all of them.
        """
        n_others = len(keys) - 1 if rows is keys else len(keys)
        n = min(n, n_others)
        if not n:
            return self.square.new_zeros(len(rows), 0), rows.new_zeros(len(rows), 0)
        rough, candidate = self._candidates(rows, keys, min(n + 1, n_others))
        exact = self._exact(rows, candidate[:, :n])
        distance, token = _ascending(exact, candidate[:, :n], n)
        if n == n_others:
            return distance, token
        self.error = torch.maximum(self.error, 2 * (exact - rough[:, :n]).abs().max())  # twice: these are a sample
        unsure = (rough[:, n] - self.error <= distance[:, -1]).nonzero()[:, 0]
        if rows is keys and len(unsure):
            among_twins = distance[unsure, -1] == 0
            token[unsure[among_twins]] = self._first_twins(unsure[among_twins], n)
            unsure = unsure[~among_twins]
        for part in torch.split(unsure, max(1, 2**20 // len(keys))) if len(unsure) else ():
            within = self._rough(rows[part], slice(None) if rows is keys else keys) <= distance[part, -1:] + self.error
            within &= rows[part][:, None] != keys
            row, key = within.nonzero().unbind(1)
            exact = torch.full(within.shape, math.inf, dtype=self.square.dtype, device=keys.device)
            exact[row, key] = self._exact(rows[part][row], keys[key][:, None])[:, 0]
            distance[part], token[part] = _ascending(exact, keys.expand_as(exact), n)
        return distance, token

    def _first_twins(self, tokens: Tensor, n: int) -> Tensor:
        """(P, n) the first others identical to each of the tokens (P,), ascending, of which there are n or more."""
        if not len(tokens):
            return tokens.new_zeros(0, n)
        _, kind, count = torch.unique(self.tokens[tokens], dim=0, return_inverse=True, return_counts=True)
        first = (count.cumsum(0) - count)[kind, None] + torch.arange(n + 1, device=tokens.device)
        twins = tokens[kind.argsort(stable=True)][first]
        self_last = (twins == tokens[:, None]).byte().argsort(dim=1, stable=True)
        return twins.gather(1, self_last)[:, :n]

    def _candidates(self, rows: Tensor, keys: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The n roughly nearest, as `nearest` returns them; where rows are keys, every product is taken once."""
        best = self.square.new_full((len(rows), n), math.inf)
        token = rows.new_zeros(len(rows), n)

        def offer(place: slice, rough: Tensor, keys: Tensor) -> None:
            near, key = rough.topk(min(n, len(keys)), largest=False, sorted=False)
            best[place], kept = torch.cat([best[place], near], 1).topk(n, largest=False)
            token[place] = torch.cat([token[place], keys[key]], 1).gather(1, kept)

        block = _of_device(_BLOCK, rows.device)
        step = math.ceil(len(keys) / math.ceil(len(keys) / block))
        for start in range(0, len(rows), step):
            here = slice(start, start + step)
            for other in range(start if rows is keys else 0, len(keys), step):
                there = slice(other, other + step)
                if rows is not keys:
                    rough = self._rough(rows[here], keys[there])
                elif start == other:
                    rough = self._rough_among(start, min(start + step, len(rows))).fill_diagonal_(math.inf)
                else:
                    rough = self._rough(here, there)
                    offer(there, rough.T, rows[here])
                offer(here, rough, keys[there])
        return best, token

    def _rough(self, rows: Tensor | slice, keys: Tensor | slice) -> Tensor:
        """(P, M) by |a|^2 + |b|^2 - 2ab."""
        product = torch.addmm(self.square[keys][None], self.centered[rows], self.centered[keys].T, alpha=-2)
        return product.add_(self.square[rows][:, None])

    def _rough_among(self, start: int, stop: int) -> Tensor:
        """(P, P) of the tokens from start to stop, three quarters of the products taken."""
        first, last = slice(start, (start + stop) // 2), slice((start + stop) // 2, stop)
        between = self._rough(first, last)
        upper = torch.cat([self._rough(first, first), between], 1)
        return torch.cat([upper, torch.cat([between.T, self._rough(last, last)], 1)])

    def _exact(self, rows: Tensor, other: Tensor) -> Tensor:
        """(P, n) from tokens `rows` (P,) to tokens `other` (P, n)."""
        pair = torch.stack([rows[:, None].expand_as(other), other], 2).view(-1, 2)
        sign = self.square.new_tensor([1, -1]).expand(pair.shape)
        exact: Tensor = self.square.new_empty(len(pair))
        for part in _parts(len(pair), self.tokens.shape[1], rows.device):
            # A bag of two, one of them negative: their difference, in one pass over both.
            apart = embedding_bag(pair[part], self.tokens, mode="sum", per_sample_weights=sign[part])
            exact[part] = apart.square_().sum(1)
        return exact.view(other.shape)


def _ascending(distance: Tensor, token: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The first n of every row by distance, equal ones by token."""
    token, order = token.sort(1)
    distance, by_distance = distance.gather(1, order).sort(dim=1, stable=True)
    return distance[:, :n], token.gather(1, by_distance)[:, :n]


def _weights(tokens: Tensor, reference: Tensor, group: Tensor) -> Tensor:
    """The softmax of equation 4, (S,): every token's weight in its own group."""
    wide, center = _wide(tokens), reference[group]
    product = tokens.new_empty(len(tokens), dtype=wide)
    for part in _parts(len(tokens), tokens.shape[1], tokens.device):
        own = tokens.index_select(0, center[part]).to(wide)
        product[part] = (own * (tokens[part] - own)).sum(1)  # less |own|^2, the same for all of a group: keeps digits
    logit = -product / math.sqrt(tokens.shape[1])
    top = logit.new_empty(len(reference)).scatter_reduce(0, group, logit.detach(), "amax", include_self=False)
    share = (logit - top[group]).exp()
    return share / share.new_zeros(len(reference)).index_add(0, group, share)[group]


def _sums(tokens: Tensor, reference: Tensor, group: Tensor, weight: Tensor) -> Tensor:
    """The weighted sums of equation 4, (R, D)."""
    alone = (torch.bincount(group, minlength=len(reference)) == 0).nonzero()[:, 0]
    token = torch.cat([torch.arange(len(tokens), device=tokens.device), reference[alone]])
    weight = torch.cat([weight, weight.new_ones(len(alone))])
    place, order = torch.cat([group, alone]).sort(stable=True)
    first = torch.searchsorted(place, torch.arange(len(reference), device=tokens.device))
    return embedding_bag(token[order], tokens.to(weight.dtype), first, mode="sum", per_sample_weights=weight[order])
