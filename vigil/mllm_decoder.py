"""A language model's first layers alone, and what its layers and attention heads say at the last position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


@contextmanager
def first_layers(decoder: Any, depth: int) -> Iterator[None]:
    """Have a decoder of transformers run its first `depth` layers alone."""
    whole = decoder.layers
    decoder.layers = whole[:depth]
    try:
        yield
    finally:
        decoder.layers = whole


@contextmanager
def listening(
    decoder: Any, hidden: Sequence[int], heads: Sequence[int]
) -> Iterator[tuple[dict[int, Tensor], dict[int, Tensor]]]:
    """What the layers `hidden` (B, D) and the heads of the layers `heads` (B, H, D) say, by layer, while it runs."""
    said: tuple[dict[int, Tensor], dict[int, Tensor]] = ({}, {})
    hooks = []
    for layer in dict.fromkeys(hidden):
        hooks.append(decoder.layers[layer].register_forward_hook(_keep_output(said[0], layer)))
    for layer in dict.fromkeys(heads):
        projection = decoder.layers[layer].self_attn.o_proj
        count = decoder.config.num_attention_heads
        hooks.append(projection.register_forward_pre_hook(_keep_heads(said[1], layer, count)))
    try:
        yield said
    finally:
        for hook in hooks:
            hook.remove()


def log_likelihood(head: nn.Linear, state: Tensor) -> Tensor:
    """Log-softmax over the vocabulary, float32 (..., V); a head in bf16 would leave eight bits of a logit, and ties."""
    if type(head) is not nn.Linear or head.weight.dtype == torch.float32 or head.weight.device != state.device:
        return head(state).float().log_softmax(-1)  # type: ignore[no-any-return]
    parts = torch.split(head.weight, 16384)  # the whole of a 7B model's head would take 2 GB
    return torch.cat([linear(state.float(), part.float()) for part in parts], -1).log_softmax(-1)


def mixed(likelihood: Tensor, mixture: Tensor | None) -> Tensor:
    """Log-likelihoods (M * B, …) of M readings of B clips, each weighted, as those of one: (B, …).

    mixture (M,): log of weights that sum to 1; None for one reading. What is averaged are probabilities.
    """
    if mixture is None:
        return likelihood
    each = likelihood.reshape(len(mixture), -1, *likelihood.shape[1:])
    return torch.logsumexp(each + mixture.to(each).view(-1, *[1] * likelihood.ndim), 0)


def _keep_output(said: dict[int, Tensor], layer: int) -> Callable[[nn.Module, Any, Any], None]:
    def keep(_: nn.Module, __: Any, output: Any) -> None:
        state = output[0] if isinstance(output, tuple) else output
        said[layer] = state[:, -1]

    return keep


def _keep_heads(said: dict[int, Tensor], layer: int, count: int) -> Callable[[nn.Module, Any], None]:
    def keep(_: nn.Module, inputs: Any) -> None:
        said[layer] = inputs[0][:, -1].unflatten(-1, (count, -1))

    return keep
