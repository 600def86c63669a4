"""Attention heads of a frozen model, scaled by what its last hidden state says of the scene."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

Mode = Literal["multiplicative", "additive", "static"]


class Steering(nn.Module):
    """Steered heads: h' = h * (1 + s g), s in [0, 1] one number per sample, g in [-1, 1] one per head and dimension.

    s = sigmoid(Linear(ReLU(Linear(context)))), through `gate_width` units; g = tanh(Linear(Linear(context))), through
    `rank` units of each head, nothing between. `mode` "additive": h' = h + s g. "static": g is learned and the same for
    every context. `global_gate` False: s = 1. A fresh one has g = 0 and so hands back the heads as they came.
    Source: SteerVAD, arXiv:2602.24021, its meta-controller and ablations. Differs: nothing known, but the paper gives
    neither widths, nonlinearity nor start: ReLU, `gate_width`, `rank` and biases everywhere give its 520 K parameters
    (518,929 at 3584 / 4 / 128, and 513 of a scorer); g starts at 0, as LoRA does, so that training begins with the
    scorer on the heads as they are, and torch's start of `rank` inputs, +-0.5, would scramble them.
    """

    def __init__(
        self,
        context_width: int,
        heads: int,
        head_width: int,
        gate_width: int = 128,
        rank: int = 4,
        mode: Mode = "multiplicative",
        global_gate: bool = True,
    ) -> None:
        super().__init__()
        sizes = {"context_width": context_width, "heads": heads, "head_width": head_width}
        sizes |= {"gate_width": gate_width, "rank": rank}
        if min(sizes.values()) < 1 or mode not in get_args(Mode):
            raise ValueError(f"mode {mode!r}, sizes {sizes}; one of {get_args(Mode)} and sizes from 1 are expected")
        self.mode = mode
        self.context_width, self.head_shape, self.rank = context_width, (heads, head_width), rank
        self.gate_width = gate_width if global_gate else 0
        # the first layers of the gate and of every adapter in one: they read the same context
        width = self.gate_width + (0 if mode == "static" else heads * rank)
        self.down = nn.Linear(context_width, width) if width else None
        self.gate = nn.Linear(gate_width, 1) if global_gate else None
        self.up = None if mode == "static" else nn.Parameter(torch.zeros(heads, rank, head_width))
        self.offset = nn.Parameter(torch.zeros(heads, 1, head_width))  # in "static", all there is of g

    def forward(self, context: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
        """context (B, context_width), heads (B, H, D), both any float; the steered heads (B, H, D) and s (B,).

        Worked in the parameters' dtype. Raises ValueError where a width is another than it was built for.
        """
        shape = (*context.shape[:1], *self.head_shape)
        if context.ndim != 2 or context.shape[1] != self.context_width or heads.shape != shape:
            raise ValueError(
                f"context {tuple(context.shape)} and heads {tuple(heads.shape)}; this was built for a context "
                f"(B, {self.context_width}) and heads (B, {self.head_shape[0]}, {self.head_shape[1]})"
            )
        heads = heads.to(self.offset.dtype)
        units = heads.new_empty(len(heads), 0) if self.down is None else self.down(context.to(self.offset.dtype))
        gate = heads.new_ones(len(heads))
        if self.gate is not None:
            gate_logit = self.gate(units[:, : self.gate_width].relu()).squeeze(1)
            gate = gate_logit.to(heads.dtype).sigmoid()  # autocast would take it in bf16
        steer = gate[:, None, None] * self._local(units)
        return (heads + steer if self.mode == "additive" else torch.addcmul(heads, heads, steer)), gate

    def _local(self, units: Tensor) -> Tensor:
        """g (B, H, D), or (1, H, D) where it is static."""
        if self.up is None:
            return self.offset.transpose(0, 1).tanh()
        low = units[:, self.gate_width :].reshape(len(units), self.head_shape[0], self.rank).transpose(0, 1)
        return torch.baddbmm(self.offset, low, self.up).transpose(0, 1).tanh()


class SteeringLoss(NamedTuple):
    """What is minimised, and its two parts: scalars; total = cross_entropy + gate_weight * gate_penalty."""

    total: Tensor
    cross_entropy: Tensor
    gate_penalty: Tensor


def steering_loss(logit: Tensor, label: Tensor, gate: Tensor, gate_weight: float = 0.1) -> SteeringLoss:
    """Mean binary cross-entropy, and the mean squared gate of the normal samples, 0 where there are none.

    logit, label (0 or 1) and gate in [0, 1]: (B,) each, ValueError otherwise.
    Source: SteerVAD, arXiv:2602.24021, lambda_reg = 0.1. Differs: nothing.
    """
    if logit.ndim != 1 or not len(logit) or not logit.shape == label.shape == gate.shape:
        shapes = ", ".join(str(tuple(one.shape)) for one in (logit, label, gate))
        raise ValueError(f"logit, label and gate of shape {shapes}; (B,) each, B from 1, is expected")
    cross_entropy = functional.binary_cross_entropy_with_logits(logit, label.to(logit.dtype))
    normal = (label == 0).to(gate.dtype)
    gate_penalty = (gate.square() * normal).sum() / normal.sum().clamp(min=1)
    return SteeringLoss(cross_entropy + gate_weight * gate_penalty, cross_entropy, gate_penalty)
