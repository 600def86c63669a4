"""How a clip and what is asked of it become tokens of a language model: processor, vision encoder, edits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vigil.mllm_families import FAMILIES


@dataclass
class Looked:
    """A clip as the vision encoder saw it: visual tokens (S, D), and the shape (T, Y, X) of the pixels they came of.

    Stands wherever a clip's pixels (T, C, Y, X) may stand: nothing is decoded or encoded again.
    """

    tokens: Tensor
    shape: tuple[int, int, int]


@dataclass
class Row:
    """One clip and what is asked of it.

    ids (S,) with a placeholder for each of its visual tokens (S', D); position int64 (axes, S).
    """

    ids: Tensor
    tokens: Tensor
    position: Tensor


@dataclass
class Prompted:
    """B prompts with their visual tokens as the language model takes them, padded on the left.

    embedding (B, S, D); mask bool (B, S), False on padding; position int64 (axes, B, S); next_position (B,): of the
    first token to come.
    """

    embedding: Tensor
    mask: Tensor
    position: Tensor
    next_position: Tensor


def frame_rate(frame: Tensor, fps: Tensor | None) -> Tensor | None:
    """Sampled frames per second (B,) of clips of the frames frame (B, T), of videos of fps (B,); a held one is none."""
    if fps is None:
        return None
    step = frame.diff(dim=1)
    moving = (step > 0).sum(1)
    mean_step = torch.where(moving > 0, step.clamp(min=0).sum(1) / moving.clamp(min=1), 1.0)
    return fps / mean_step


def check_clips(
    clips: Sequence[Tensor | Looked], prompts: Sequence[str], frame_rate: Tensor | Sequence[float] | None
) -> None:
    """Raises ValueError for clips that are no pictures in colour, and for other numbers of prompts or rates."""
    if frame_rate is not None and len(frame_rate) != len(clips):
        raise ValueError(f"{len(clips)} clips and {len(frame_rate)} frame rates: as many are expected")
    if not clips or len(prompts) != len(clips):
        raise ValueError(f"{len(clips)} clips and {len(prompts)} prompts: as many are expected, and at least one")
    for clip in clips:
        if isinstance(clip, Looked):
            if clip.tokens.ndim != 2 or len(clip.shape) != 3 or min(clip.shape) < 1:
                raise ValueError(
                    f"visual tokens {tuple(clip.tokens.shape)} of pixels {clip.shape}; (S, D) of (T, Y, X) is expected"
                )
        elif clip.dtype != torch.uint8 or clip.ndim != 4 or clip.shape[1] != 3 or not clip.shape[0]:
            raise ValueError(f"a clip is {clip.dtype} {tuple(clip.shape)}; expected uint8 (T, 3, Y, X)")


def alike(clips: Sequence[Tensor]) -> list[list[int]]:
    """Indices of the clips, those of one shape together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, clip in enumerate(clips):
        groups.setdefault(tuple(clip.shape), []).append(i)
    return list(groups.values())


class PromptLayouts:
    """Where the visual tokens of clips that were looked at before stand in a prompt: as a row of such pixels has it.

    Ids and positions depend on the pixels' shape, the prompt and the rate alone; they are found on black frames, once.
    """

    def __init__(self, limit: int = 256) -> None:
        self.limit = limit
        self._known: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def row(self, model: Any, processor: Any, clip: Looked, prompt: str, rate: float | None) -> Row:
        """The clip and what is asked of it."""
        family = FAMILIES[model.config.model_type]
        key = (clip.shape, prompt, rate if family.counts_seconds else None)
        if key not in self._known:
            if len(self._known) >= self.limit:
                self._known.clear()  # rates may differ from clip to clip
            n_frames, height, width = clip.shape
            black = torch.zeros((n_frames, 3, height, width), dtype=torch.uint8)
            inputs = _inputs(model, processor, [black], [prompt], [rate])
            self._known[key] = next(_layouts(model, inputs))
        ids, position = self._known[key]
        return Row(ids, clip.tokens.to(ids.device), position)


def prompt_rows(
    model: Any, processor: Any, clips: Sequence[Tensor], prompts: Sequence[str], frame_rate: Sequence[float] | None
) -> list[Row]:
    """Clips of one size, uint8 (T, C, Y, X), as the model's own processor and vision encoder give them."""
    rates: Sequence[float | None] = frame_rate if frame_rate is not None else [None] * len(clips)
    inputs = _inputs(model, processor, clips, prompts, rates)
    tokens = _visual_tokens(model, inputs, len(clips))
    return [Row(ids, tokens[i], position) for i, (ids, position) in enumerate(_layouts(model, inputs))]


def _inputs(
    model: Any, processor: Any, clips: Sequence[Tensor], prompts: Sequence[str], rates: Sequence[float | None]
) -> Any:
    from transformers.video_utils import VideoMetadata

    family, n_frames = FAMILIES[model.config.model_type], len(clips[0])
    if family.counts_seconds and not all(rate is not None and rate > 0 for rate in rates):
        raise ValueError(
            f"frame rates {list(rates)}: {family.example} places frames by their seconds; give frame_rate, or for a "
            "dataset whose videos do not tell theirs its fps"
        )
    return processor(
        text=[_conversation(processor, prompt) for prompt in prompts],
        videos=list(clips),
        video_metadata=[
            VideoMetadata(total_num_frames=n_frames, fps=rate, frames_indices=list(range(n_frames))) for rate in rates
        ],
        do_sample_frames=False,
        padding=True,
        return_tensors="pt",
    ).to(model.get_input_embeddings().weight.device)


def _layouts(model: Any, inputs: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Ids (S,) and position (axes, S) of each row, its padding cut off."""
    family = FAMILIES[model.config.model_type]
    for i, seen in enumerate(inputs["attention_mask"].bool()):
        ids = inputs["input_ids"][i][seen]
        position = torch.arange(len(ids), device=ids.device)[None]
        if family.axes > 1:
            seconds = {"second_per_grid_ts": inputs["second_per_grid_ts"][i : i + 1]} if family.counts_seconds else {}
            position = model.model.get_rope_index(
                ids[None],
                mm_token_type_ids=inputs["mm_token_type_ids"][i][seen][None],
                video_grid_thw=inputs["video_grid_thw"][i : i + 1],
                **seconds,
            )[0][:, 0]
        yield ids, position


def _conversation(processor: Any, prompt: str) -> str:
    said = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": prompt}]}]
    text: str = processor.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    return text


def _visual_tokens(model: Any, inputs: Any, n_clips: int) -> list[Tensor]:
    """Of each clip (S, D), as the language model would take them."""
    if "pixel_values_videos" not in inputs:
        pixels = inputs["pixel_values"].to(model.dtype)
        found = model.model.get_image_features(pixels).pooler_output
        return list(found.reshape(n_clips, -1, found.shape[-1]))
    grid = {"video_grid_thw": inputs["video_grid_thw"]} if "video_grid_thw" in inputs else {}
    found = model.model.get_video_features(inputs["pixel_values_videos"].to(model.dtype), **grid).pooler_output
    placeholders = (inputs["input_ids"][0] == model.config.video_token_id).sum()
    if len(found[0]) + 1 == placeholders:  # transformers 5.17 adds LLaVA's newline later, in the model's forward
        newline = model.model.image_newline.to(found[0])[None]
        return [torch.cat([tokens, newline]) for tokens in found]
    return list(found)


def replace_tokens(row: Row, tokens: Tensor, place: Tensor | None, placeholder: int) -> Row:
    """The row with other visual tokens (S', D); place (S',): which of the former each is, -1 for new ones, at the end.

    Raises ValueError where their number changes and nobody says which they are, and for places out of order.
    """
    slot = (row.ids == placeholder).nonzero()[:, 0]
    if place is None:
        if len(tokens) != len(slot):
            raise ValueError(
                f"the edit made {len(tokens)} visual tokens of {len(slot)}; return (tokens, where) as well, where each "
                "was among those given, -1 for a new one"
            )
        return Row(row.ids, tokens, row.position)
    kept = place[place >= 0]
    n_new = len(place) - len(kept)
    ordered = bool((kept.diff() > 0).all()) and bool((place[: len(kept)] >= 0).all())
    if len(place) != len(tokens) or not ordered or (len(kept) and int(kept[-1]) >= len(slot)):
        raise ValueError(
            f"the edit returned {len(tokens)} tokens and {len(place)} places; expected as many, ascending below "
            f"{len(slot)}, new ones (-1) last"
        )
    stays = row.ids != placeholder
    stays[slot[kept]] = True
    end = int(slot[-1]) + 1
    head, tail = stays[:end], stays[end:]
    new_ids = row.ids.new_full((n_new,), placeholder)
    ids = torch.cat([row.ids[:end][head], new_ids, row.ids[end:][tail]])
    if len(row.position) == 1:
        return Row(ids, tokens, torch.arange(len(ids), device=ids.device)[None])
    after = row.position[:, end:]  # a prompt never ends in a visual token: the answer's turn follows
    new_position = after[:, :1] + torch.arange(n_new, device=ids.device)
    position = torch.cat([row.position[:, :end][:, head], new_position, after + n_new], 1)
    return Row(ids, tokens, position)


def answered(row: Row, answer: Sequence[int]) -> Row:
    """The row with an answer's tokens at its end."""
    more = row.ids.new_tensor(list(answer))
    step = torch.arange(1, len(more) + 1, device=row.position.device)
    return Row(
        torch.cat([row.ids, more]),
        row.tokens,
        torch.cat([row.position, row.position.max() + step.expand(len(row.position), -1)], 1),
    )


def answers_after(prompted: Prompted, words: Tensor, owner: Tensor) -> Prompted:
    """All answers' tokens in one row after the prompt, each of which sees the prompt and its own answer so far.

    words (N, D): embeddings of the tokens, one answer after the other; owner (N,): which answer each belongs to.
    """
    n_clips, n_axes = len(prompted.mask), len(prompted.position)
    start = (owner[:, None] > owner).sum(1)  # tokens of the answers before
    step = torch.arange(len(owner), device=owner.device) - start
    own = (owner[:, None] == owner) & (step[:, None] >= step)
    before = prompted.mask[:, None, :].expand(-1, len(owner), -1)
    seen = torch.cat([before, own.expand(n_clips, -1, -1)], -1)[:, None]
    mask = torch.zeros(seen.shape, dtype=words.dtype, device=seen.device)
    mask.masked_fill_(~seen, torch.finfo(words.dtype).min)  # added to the scores, as sdpa and eager take it
    position = (prompted.next_position[:, None] + step).expand(n_axes, -1, -1)
    return Prompted(words.expand(n_clips, -1, -1), mask, position, prompted.next_position)
