"""NewToken: a word that a language model did not know; its own two vectors train, the vocabulary stays as it is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class NewToken(nn.Module):
    """The embedding (D,) of one more token and what its logit is taken with, both float32 and trained.

    text: how it is written. id: the number it gets in the tokenizer, which may lie in rows that a checkpoint holds and
    never used. Both begin with the mean of the known tokens' vectors; a model that ties its head to its embedding ties
    these as well. Beside growing the matrices of a frozen 7B model this saves a copy of both in every pass.
    Source: <SEG> of LISA, arXiv:2308.00692, which trains the whole embedding and head. Differs: one row of each trains.
    """

    def __init__(self, text: str, processor: Any, model: Any) -> None:
        super().__init__()
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        tokenizer = processor.tokenizer
        self.n_known = min(len(tokenizer), len(embedding))
        if not tokenizer.add_tokens([text], special_tokens=True):
            raise ValueError(f"{text!r} is a token of this model already; choose another")
        self.text, self.id = text, int(tokenizer.convert_tokens_to_ids(text))
        self.embedding = nn.Parameter(_mean(embedding[: self.n_known]))
        tied = head is embedding or head.data_ptr() == embedding.data_ptr()
        self.output = self.embedding if tied else nn.Parameter(_mean(head[: self.n_known]))

    def embed(self, ids: Tensor, table: nn.Module) -> Tensor:
        """The embedding (S, D) of tokens ids (S,), of which some may be this one, in the table's dtype."""
        own = ids == self.id
        words: Tensor = table(ids.masked_fill(own, 0))
        return torch.where(own[:, None], self.embedding.to(words), words)

    def logits(self, state: Tensor, head: nn.Module) -> Tensor:
        """Logits (N, V) of states (N, D), this token's in its place; V is larger by one where it has none."""
        known: Tensor = head(state)
        own = (state @ self.output.to(state))[:, None].to(known)
        return torch.cat([known[:, : self.id], own, known[:, self.id + 1 :]], 1)


def _mean(rows: Tensor) -> Tensor:
    """The mean of rows (V, D) in float32, summed a part at a time."""
    parts = torch.split(rows.detach(), 16384)
    return torch.stack([part.float().sum(0) for part in parts]).sum(0) / len(rows)
