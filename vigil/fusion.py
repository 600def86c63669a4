"""How MIL tokens meet the MLLM's: projection, Q-Former, and what takes whose place in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, cross_entropy, normalize

TEMPERATURE = 0.07  # of the contrast; CLIP's first value

Placed = tuple[list[Tensor], list[Tensor]]  # as vigil.mllm.Edit returns them


class Projection(nn.Sequential):
    """Two-layer perceptron from MIL features into the language model's width: (B, N, D) -> (B, N, width).

    Source: "dual encoder" paper, Sec. 2.1; the form (GELU between) is LLaVA's, which it cites.
    """

    def __init__(self, mil_width: int, width: int) -> None:
        super().__init__(nn.Linear(mil_width, width), nn.GELU(), nn.Linear(width, width))


class QueryFormer(nn.Module):
    """Learned queries that look at the MIL features and become visual tokens: (B, N, D) -> (B, Q, width).

    segments: N, each of which has a learned place. hidden, layers, heads: of transformers' Q-Former.
    Source: BLIP-2, arXiv:2301.12597, which the "dual encoder" paper proposes for its gap, Sec. 4.3. Differs: it starts
    from scratch, not from BERT, and no text enters it.
    """

    def __init__(
        self, mil_width: int, width: int, segments: int, queries: int, hidden: int, layers: int, heads: int
    ) -> None:
        super().__init__()
        from transformers import Blip2QFormerConfig
        from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel

        config = Blip2QFormerConfig(
            vocab_size=1, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=4 * hidden, encoder_hidden_size=mil_width, cross_attention_frequency=1,
        )  # fmt: skip
        self.query = nn.Parameter(torch.randn(1, queries, hidden) * config.initializer_range)
        self.place = nn.Parameter(torch.randn(1, segments, mil_width) * config.initializer_range)
        model: Any = Blip2QFormerModel
        self.former = model(config)
        self.project = nn.Linear(hidden, width)

    def forward(self, mil: Tensor) -> Tensor:
        query = self.query.expand(len(mil), -1, -1)
        state = self.former(query_embeds=query, encoder_hidden_states=mil + self.place).last_hidden_state
        tokens: Tensor = self.project(state)
        return tokens


def beside(tokens: Sequence[Tensor], more: Tensor) -> Placed:
    """All visual tokens (S, D) of each clip, the new ones more (B, N, D) after them, and their places."""
    placed = [torch.cat([own, new.to(own)]) for own, new in zip(tokens, more, strict=True)]
    return placed, [_places(len(own), more) for own in tokens]


def instead(tokens: Sequence[Tensor], more: Tensor) -> Placed:
    """The new tokens more (B, N, D) alone, in the place of each clip's own, and their places."""
    return [new.to(own) for own, new in zip(tokens, more, strict=True)], [_places(0, more) for _ in tokens]


def _places(n_kept: int, more: Tensor) -> Tensor:
    kept = torch.arange(n_kept, device=more.device)
    return torch.cat([kept, kept.new_full((more.shape[1],), -1)])


def alignment_loss(query: Tensor, tokens: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """How far the queries' tokens are from the MLLM's own visual tokens of the same clips.

    query (B, Q, D); tokens: (S, D) of each clip, S at least Q. Returns two scalars: 1 minus the mean cosine between
    query q and the mean of the q-th of Q equal parts of the clip's tokens, in [0, 2]; and the contrast among the B
    clips, cross-entropy both ways over the cosines of their means, 0 where B is 1.
    Source: the "dual encoder" paper asks for "alignment pre-training" and gives no loss: both terms are this project's,
    the second BLIP-2's image-text contrast with visual tokens in the place of text.
    """
    short = [len(own) for own in tokens if len(own) < query.shape[1]]
    if short:
        raise ValueError(f"{query.shape[1]} queries are aligned with {short[0]} visual tokens; take fewer queries")
    pooled = [torch.stack([part.mean(0) for part in own.float().tensor_split(query.shape[1])]) for own in tokens]
    target = torch.stack(pooled)
    with torch.autocast(query.device.type, enabled=False):  # bf16 would leave steps of 0.05 of a cosine / TEMPERATURE
        query = query.float()
        apart = 1 - cosine_similarity(query, target, dim=-1).mean()
        cosine = normalize(query.mean(1), dim=-1) @ normalize(target.mean(1), dim=-1).T / TEMPERATURE
    same = torch.arange(len(query), device=query.device)
    return apart, (cross_entropy(cosine, same) + cross_entropy(cosine.T, same)) / 2
