"""From what the language model says of a clip to one prompt of the mask decoder per frame."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

VISION_HEADS = 8  # of the attention from categories to pixels, in the authors' code


class SemanticProjector(nn.Module):
    """Multi-Scale Semantic Projector: a clip's state, looked up in every frame by the categories' names.

    t = W_c categories, v = W_v (image + sine position); f_a = W_o LayerNorm(t + CrossAttn(t, v, v)) for each frame;
    keys [W_LLM state, f_a]; learned queries and keys update each other in `blocks` of SAM2's two-way blocks; all
    queries, side by side, are mapped to the prompt.

    Source: LAVIDA, arXiv:2602.19248, eq. 7 and 8, Sec. 3.7. Differs: residual, LayerNorm and position in equation 7,
    queries and keys that keep their first value as their position, and one linear map of all queries at the end are
    the authors' code's, of which the paper says nothing. Their second head, which nothing reads, is left out, and so is
    what the last block would do to the keys.
    """

    def __init__(
        self,
        state_width: int,
        text_width: int,
        image_width: int,
        width: int,
        queries: int,
        blocks: int,
        heads: int,
        feed_forward: int,
    ) -> None:
        super().__init__()
        from transformers.models.sam2.modeling_sam2 import Sam2Attention, Sam2SinePositionEmbedding

        _divides(2 * VISION_HEADS, width, "width")
        _divides(2 * heads, width, "width")
        position: Any = Sam2SinePositionEmbedding
        attention: Any = Sam2Attention
        self.position = position(num_position_features=image_width // 2, normalize=True)
        self.from_text, self.from_image = nn.Linear(text_width, width), nn.Linear(image_width, width)
        self.look = attention(_two_way_config(width, VISION_HEADS, feed_forward))
        self.norm, self.to_key = nn.LayerNorm(width), nn.Linear(width, width)
        self.from_state = nn.Linear(state_width, width)
        self.queries = nn.Parameter(torch.empty(queries, width))
        config = _two_way_config(width, heads, feed_forward)
        self.blocks = nn.ModuleList(_two_way_block(config, last=i == blocks - 1) for i in range(blocks))
        self.to_prompt = nn.Linear(queries * width, image_width)
        _initialise(self, self.queries)

    def forward(self, state: Tensor, categories: Tensor, known: Tensor, image: Tensor) -> Tensor:
        frames = self.look_up(categories, image)
        b, t = frames.shape[:2]
        state = self.from_state(state.to(frames.dtype))[:, None, None].expand(-1, t, -1, -1)
        keys = torch.cat([state, frames], 2).flatten(0, 1)[:, None]
        seen = torch.cat([known.new_ones(b, 1), known], 1).repeat_interleave(t, 0)[:, None, None]
        first = self.queries.expand(b * t, 1, -1, -1)
        found, first_keys = first, keys
        for block in self.blocks:
            found, keys, _ = block(found, keys, first, first_keys, seen)
        return cast(Tensor, self.to_prompt(found.reshape(b, t, -1)))

    def look_up(self, categories: Tensor, image: Tensor) -> Tensor:
        """What each category finds in each frame, equation 7's f_a: (B, T, K, width)."""
        b, t = image.shape[:2]
        dtype = self.queries.dtype
        text = self.from_text(categories.to(dtype)).repeat_interleave(t, 0)[:, None]
        maps = image.flatten(0, 1).to(dtype)
        maps = maps + self.position(maps[:1].shape, maps.device, torch.float32).to(dtype)
        pixels = self.from_image(maps.flatten(2).transpose(1, 2))[:, None]
        found: Tensor = self.to_key(self.norm(text + self.look(query=text, key=pixels, value=pixels)[0]))
        return found.reshape(b, t, *found.shape[2:])


class MlpProjector(nn.Module):
    """Two layers from the clip's state alone, the same prompt for every frame. Source: LISA, arXiv:2308.00692."""

    def __init__(self, state_width: int, image_width: int) -> None:
        super().__init__()
        self.hidden, self.to_prompt = nn.Linear(state_width, state_width), nn.Linear(state_width, image_width)
        _initialise(self)

    def forward(self, state: Tensor, categories: Tensor, known: Tensor, image: Tensor) -> Tensor:
        prompt: Tensor = self.to_prompt(self.hidden(state.to(self.hidden.weight.dtype)).relu())
        return prompt[:, None].expand(-1, image.shape[1], -1)


class QformerProjector(nn.Module):
    """Learned queries over the state and the categories' names, the same prompt for every frame.

    Source: table 4 of LAVIDA, arXiv:2602.19248, which names a Q-Former and nothing else of it; here transformers'
    (BLIP-2, arXiv:2301.12597), from scratch, of as many blocks as the semantic projector and with its last map.
    """

    def __init__(
        self,
        state_width: int,
        text_width: int,
        image_width: int,
        width: int,
        queries: int,
        blocks: int,
        heads: int,
        feed_forward: int,
    ) -> None:
        super().__init__()
        from transformers import Blip2QFormerConfig
        from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel

        _divides(heads, width, "width")
        config = Blip2QFormerConfig(
            vocab_size=1, hidden_size=width, num_hidden_layers=blocks, num_attention_heads=heads,
            intermediate_size=feed_forward, encoder_hidden_size=width, cross_attention_frequency=1,
        )  # fmt: skip
        model: Any = Blip2QFormerModel
        self.from_state, self.from_text = nn.Linear(state_width, width), nn.Linear(text_width, width)
        self.queries = nn.Parameter(torch.empty(queries, width))
        self.former = model(config)
        self.to_prompt = nn.Linear(queries * width, image_width)
        _initialise(self, self.queries)

    def forward(self, state: Tensor, categories: Tensor, known: Tensor, image: Tensor) -> Tensor:
        dtype = self.queries.dtype
        keys = torch.cat([self.from_state(state.to(dtype))[:, None], self.from_text(categories.to(dtype))], 1)
        found = self.former(
            query_embeds=self.queries.expand(len(state), -1, -1),
            encoder_hidden_states=keys,
            encoder_attention_mask=torch.cat([known.new_ones(len(known), 1), known], 1).long(),
        ).last_hidden_state
        prompt: Tensor = self.to_prompt(found.flatten(1))
        return prompt[:, None].expand(-1, image.shape[1], -1)


def make_projector(
    kind: Literal["semantic", "mlp", "qformer"],
    state_width: int,
    text_width: int,
    image_width: int,
    width: int = 768,
    queries: int = 48,
    blocks: int = 5,
    heads: int = 12,
    feed_forward: int = 2048,
) -> nn.Module:
    """A module (state (B, W), categories (B, K, C), known bool (B, K), image (B, T, D, Y, X)) -> prompts (B, T, D).

    state: the language model's last state at <SEG>; categories: text features of the names, known False where K is
    padding; image: SAM2's stride-16 maps. state_width, text_width, image_width: W, C, D. The rest is of the semantic
    and the qformer kind. Raises ValueError for another kind, or heads that do not divide the width.
    """
    shape = (width, queries, blocks, heads, feed_forward)
    if min(shape) < 1:
        raise ValueError(f"width, queries, blocks, heads, feed_forward are {shape}; at least 1 is expected of each")
    made: dict[str, Callable[[], nn.Module]] = {
        "semantic": lambda: SemanticProjector(state_width, text_width, image_width, *shape),
        "mlp": lambda: MlpProjector(state_width, image_width),
        "qformer": lambda: QformerProjector(state_width, text_width, image_width, *shape),
    }
    if kind not in made:
        raise ValueError(f"projector {kind!r}: expected {', '.join(made)}")
    return made[kind]()


class _Unmoved(nn.Module):
    """Stands for an attention whose outcome nobody reads; without weights, which would never get a gradient."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, None]:
        return torch.zeros_like(query), None


def _two_way_config(width: int, heads: int, feed_forward: int) -> Any:
    from transformers.models.sam2.configuration_sam2 import Sam2MaskDecoderConfig

    kind: Any = Sam2MaskDecoderConfig
    # num_hidden_layers is, to a block, the depth of its feed-forward
    config = kind(hidden_size=width, num_attention_heads=heads, mlp_dim=feed_forward, num_hidden_layers=2)
    config._attn_implementation = "sdpa"  # left unsaid it is eager, which takes no mask of bool
    return config


def _two_way_block(config: Any, last: bool) -> nn.Module:
    from transformers.models.sam2.modeling_sam2 import Sam2TwoWayAttentionBlock

    kind: Any = Sam2TwoWayAttentionBlock
    block: nn.Module = kind(config)
    if last:
        block.cross_attn_image_to_token, block.layer_norm4 = _Unmoved(), nn.Identity()
    return block


def _divides(divisor: int, width: int, name: str) -> None:
    if width % divisor:
        raise ValueError(f"{name} {width} is no multiple of {divisor}, which its heads need; give another")


def _initialise(module: nn.Module, queries: nn.Parameter | None = None) -> None:
    """As in the authors' code: linear maps N(0, 0.02) without bias, queries N(0, 1)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.02)
            nn.init.zeros_(part.bias)
    if queries is not None:
        nn.init.normal_(queries)
