"""Mllm: one multimodal LLM with one seam to edit (visual tokens) and one to read (logits, hidden states, heads)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from vigil.mllm_decoder import first_layers, listening, log_likelihood, mixed
from vigil.mllm_families import load_mllm, load_processor, open_mllm
from vigil.mllm_prompts import (
    Looked,
    Prompted,
    PromptLayouts,
    Row,
    alike,
    answered,
    answers_after,
    check_clips,
    prompt_rows,
    replace_tokens,
)
from vigil.new_token import NewToken
from vigil.pretrained import pretrained_fingerprint

# visual tokens of each row (S, D) -> others (S', D), and where they were (S',) unless their number is the same
Edit = Callable[[list[Tensor]], list[Tensor] | tuple[list[Tensor], list[Tensor]]]
Clips = Tensor | Sequence[Tensor | Looked]
Moment = Literal["last_prompt", "first_generated"]
ChosenBy = Literal["likelihood", "likelihood_per_token", "first_token"]
VERSION = 1  # raise when the same clip and prompt would reach the model otherwise


@dataclass
class Reading:
    """What was read of B clips; None where it was not asked for. In the model's own dtype.

    logits (B, P, vocabulary) at the asked positions. hidden (B, L, D): outputs of the asked decoder layers, counted
    from 0; the last one's is after the final norm, as in Hugging Face's hidden_states[l + 1]. heads (B, L, H, D): what
    each attention head of the asked layers hands to o_proj.
    """

    logits: Tensor | None = None
    hidden: Tensor | None = None
    heads: Tensor | None = None


class Mllm(nn.Module):
    """A multimodal LLM of transformers: LLaVA-OneVision, InternVL (-hf), Qwen2.5-VL or Qwen2-VL, frozen.

    name: on the hub, also name@revision, or a folder. dtype: of the weights; "auto" is the checkpoint's. attention:
    sdpa, eager or flash_attention_2. device_map: accelerate's, for a model that one GPU cannot hold; it stays where it
    is put. weights: "random" draws them by a fixed seed, as a control. No weights are read before they are needed.
    Raises FileNotFoundError where there is no such model, ValueError where it is of another family.
    """

    place: Tensor

    def __init__(
        self,
        name: str,
        dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto",
        attention: str = "sdpa",
        device_map: str | dict[str, Any] | None = None,
        weights: Literal["pretrained", "random"] = "pretrained",
    ) -> None:
        super().__init__()
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ValueError(f"dtype {dtype!r}: auto, float32, bfloat16 or float16 is expected")
        self.name, self.dtype, self.attention = name, dtype, attention
        self.device_map, self.weights = device_map, weights
        self.folder, config, self.family = open_mllm(name, weights == "pretrained")
        self.text_config: Any = config.text_config
        self.n_layers: int = config.text_config.num_hidden_layers
        self.processor = load_processor(self.folder)
        self._placeholder: int = getattr(config, self.family.placeholder)
        self._frame_size = self.processor.video_processor.size
        self._layouts = PromptLayouts()
        self.saves_memory = False
        self.new_token: NewToken | None = None
        # moves with the module, so that weights read later land where it is
        self.register_buffer("place", torch.empty(0), persistent=False)

    @cached_property
    def key(self) -> dict[str, Any]:
        """What determines its numbers, wherever its files lie; for the store. No weights are loaded for it."""
        return {
            "files": pretrained_fingerprint(self.folder),
            "weights": self.weights,
            "dtype": self.dtype,
            "attention": self.attention,
            "prompting": VERSION,
        }

    @property
    def loaded(self) -> bool:
        """Whether its weights are in memory."""
        return hasattr(self, "model")

    def load(self) -> None:
        """Have the weights in memory; again does nothing. Raises ValueError where they do not fit."""
        if self.loaded:
            return
        model = load_mllm(self.folder, self.dtype, self.attention, self.device_map, self.weights == "random")
        model.requires_grad_(False)
        if self.device_map is None:
            self.model = model.to(self.place.device)
        else:
            self.__dict__["model"] = model  # unknown to torch, which would move all of it to one device
        model.eval()

    def unload(self) -> None:
        """Let the weights go, for a fit that only needed them to read."""
        self.__dict__.pop("model", None)
        self._modules.pop("model", None)

    def train(self, mode: bool = True) -> Mllm:
        """As of any module, except that what does not train stays in eval mode."""
        super().train(mode)
        if self.loaded:
            trains = mode and (self.saves_memory or any(one.requires_grad for one in self.model.parameters()))
            self.model.eval()
            self.decoder.train(trains)  # the vision encoder never trains
        return self

    def save_memory(self) -> None:
        """Keep no activation of a decoder layer between forward and backward pass; the layer is run again instead."""
        self.load()
        before = self.decoder.gradient_checkpointing_enable  # the name that transformers 5.17 has
        getattr(self.decoder, "activation_checkpointing_enable", before)({"use_reentrant": False})
        self.saves_memory = True

    def add_token(self, text: str) -> NewToken:
        """Teach the tokenizer one more token, whose vectors are all of it that trains; reads the weights."""
        if self.new_token is not None:
            raise ValueError(f"{self.new_token.text} was added to {self.name} already; one token can be")
        self.load()
        self.new_token = NewToken(text, self.processor, self.model).to(self.place.device)
        return self.new_token

    def limit_frame_pixels(self, limits: tuple[int, int] | None) -> None:
        """Have each frame resized, aspect kept, to between two numbers of pixels, for the families that do so.

        None: the checkpoint's own. Raises ValueError for other families, and for no such two numbers.
        """
        if limits is None:
            self.processor.video_processor.size = self._frame_size
            return
        low, high = limits
        if self.family.axes == 1:
            raise ValueError(
                f"frame pixels {low} to {high}: {self.name} resizes every frame to one size; leave them out, or take a "
                "Qwen2-VL or Qwen2.5-VL"
            )
        if not 0 < low <= high:
            raise ValueError(f"frame pixels {low} to {high}: two numbers above 0 are expected, the smaller first")
        self.processor.video_processor.size = {"shortest_edge": low, "longest_edge": high}

    def token_grid(self, shape: tuple[int, int, int], n_tokens: int) -> tuple[int, int, int] | None:
        """In how many steps of time, rows and columns the visual tokens of pixels (T, Y, X) lie; None where in none.

        n_tokens: how many there are; LLaVA-OneVision puts one that stands for no place behind them.
        """
        n_frames, height, width = shape
        if self.family.axes > 1:
            videos = self.processor.video_processor
            black = torch.zeros((n_frames, 3, height, width), dtype=torch.uint8)
            t, y, x = videos([black], do_sample_frames=False, return_tensors="pt")["video_grid_thw"][0].tolist()
            grid = (t, y // videos.merge_size, x // videos.merge_size)
        else:
            side = math.isqrt(n_tokens // n_frames)
            grid = (n_frames, side, side)
        return grid if math.prod(grid) in (n_tokens, n_tokens - 1) else None

    @property
    def decoder(self) -> Any:
        """The language model without its head; layers[l].self_attn.{q,k,v,o}_proj in every family."""
        self.load()
        return self.model.model.language_model

    # what goes in --------------------------------------------------------------------------------------------------

    def embed(
        self,
        pixels: Clips,
        prompt: str | Sequence[str],
        edit: Edit | None = None,
        frame_rate: Tensor | Sequence[float] | None = None,
        room: int = 0,
    ) -> Prompted:
        """Clips and what is asked of them, as the language model takes them.

        pixels: uint8 (B, T, C, Y, X), or B clips (T, C, Y, X) of any length and size, or what `look` gave of them.
        prompt: one, or one of each clip.
        frame_rate (B,): sampled frames per second; Qwen2.5-VL's positions count in them.
        edit: visual tokens of each row (S, D) -> others (S', D). Where their number changes it returns (tokens, where),
        where int64 (S',): the place of each among the S given, ascending, -1 for new ones, which come last. What is
        left keeps its place in the prompt, and its position where those count time, height and width; others count on
        without a gap. room: tokens that are to follow.
        Raises ValueError for pixels of another kind, and for more tokens than the context holds.
        """
        return self._joined(self._rows(pixels, prompt, edit, frame_rate, room))

    @torch.no_grad()
    def look(self, pixels: Tensor | Sequence[Tensor]) -> list[Looked]:
        """What the vision encoder makes of clips, as `embed` takes it in place of pixels: to be kept, or used twice."""
        self.load()
        with self._own_precision():
            clips = list(pixels)
            rows = self._rows(clips, " ", None, [1.0] * len(clips))  # neither prompt nor rate reaches the encoder
        shapes = [(len(clip), *clip.shape[-2:]) for clip in clips]
        return [Looked(row.tokens, shape) for row, shape in zip(rows, shapes, strict=True)]

    def _rows(
        self,
        pixels: Clips,
        prompt: str | Sequence[str],
        edit: Edit | None,
        frame_rate: Tensor | Sequence[float] | None,
        room: int = 0,
    ) -> list[Row]:
        clips = list(pixels)
        prompts = [prompt] * len(clips) if isinstance(prompt, str) else list(prompt)
        check_clips(clips, prompts, frame_rate)
        self.load()
        rates = None if frame_rate is None else [float(rate) for rate in frame_rate]
        rows: dict[int, Row] = {}
        for i, clip in enumerate(clips):
            if isinstance(clip, Looked):
                rate = None if rates is None else rates[i]
                rows[i] = self._layouts.row(self.model, self.processor, clip, prompts[i], rate)
        fresh = {i: clip for i, clip in enumerate(clips) if isinstance(clip, Tensor)}
        for group in alike(list(fresh.values())):
            those = [list(fresh)[k] for k in group]
            found = prompt_rows(
                self.model,
                self.processor,
                [fresh[i] for i in those],
                [prompts[i] for i in those],
                None if rates is None else [rates[i] for i in those],
            )
            rows |= dict(zip(those, found, strict=True))
        ordered = [rows[i] for i in range(len(clips))]
        if edit is not None:
            edited = edit([row.tokens for row in ordered])
            tokens, places = edited if isinstance(edited, tuple) else (edited, [None] * len(edited))
            if len(tokens) != len(ordered) or len(places) != len(ordered):
                raise ValueError(f"the edit returned tokens of {len(tokens)} clips; {len(ordered)} were given")
            ordered = [
                replace_tokens(*row_and_new, self._placeholder)
                for row_and_new in zip(ordered, tokens, places, strict=True)
            ]
        longest = max(ordered, key=lambda row: len(row.ids))
        limit = self.text_config.max_position_embeddings
        if len(longest.ids) + room > limit:
            raise ValueError(
                f"{len(longest.ids)} tokens, {len(longest.tokens)} of them visual, and {room} to come: more than the "
                f"{limit} that {self.name} takes; shorten the prompt, or give fewer or smaller frames"
            )
        return ordered

    def _joined(self, rows: list[Row]) -> Prompted:
        embedding = []
        for row in rows:
            table = self.model.get_input_embeddings()
            words = table(row.ids) if self.new_token is None else self.new_token.embed(row.ids, table)
            seen = (row.ids == self._placeholder)[:, None]
            expected = (int(seen.sum()), words.shape[-1])
            if tuple(row.tokens.shape) != expected:
                raise ValueError(f"visual tokens are {tuple(row.tokens.shape)}; the prompt has room for {expected}")
            embedding.append(words.masked_scatter(seen, row.tokens.to(words)))
        position = [row.position.T for row in rows]
        mask = [torch.ones_like(row.ids, dtype=torch.bool) for row in rows]
        padded = [pad_sequence(parts, batch_first=True, padding_side="left") for parts in (embedding, mask, position)]
        next_position = torch.stack([row.position.max() + 1 for row in rows])
        return Prompted(padded[0], padded[1], padded[2].permute(2, 0, 1), next_position)

    # what comes out ------------------------------------------------------------------------------------------------

    def read(
        self,
        pixels: Clips,
        prompt: str | Sequence[str],
        hidden: Sequence[int] = (),
        heads: Sequence[int] = (),
        logits: Sequence[int] = (),
        at: Moment = "last_prompt",
        edit: Edit | None = None,
        frame_rate: Tensor | Sequence[float] | None = None,
    ) -> Reading:
        """Hidden states and heads of the decoder layers named, and logits, of clips that one prompt is asked of.

        hidden, heads: layers, from 0. logits: positions counted from the end of the prompt, -1 the last.
        at: last_prompt, whose output is the first token of an answer; or first_generated, that token itself, which
        takes a pass more. With neither logits nor first_generated only the layers up to the deepest asked are run.
        pixels, prompt, edit and frame_rate as in `embed`. Raises ValueError for layers that are not there.
        """
        self._check_asked(hidden, heads, logits, at)
        self.load()
        with nullcontext() if torch.is_grad_enabled() else self._own_precision():
            prompted = self.embed(pixels, prompt, edit, frame_rate, room=int(at == "first_generated"))
            shortest = int(prompted.mask.sum(1).min())
            if logits and -min(logits) > shortest:
                raise ValueError(f"logits {list(logits)}: the shortest prompt has {shortest} tokens")
            cache = None
            if at == "first_generated":
                output = self._run(prompted, use_cache=True)
                token = self.model.lm_head(output.last_hidden_state[:, -1]).argmax(-1)
                cache, prompted = output.past_key_values, self._followed(prompted, token)
            depth = self.n_layers if logits else max([*hidden, *heads]) + 1
            with (
                first_layers(self.decoder, depth),
                listening(self.decoder, hidden, heads) as (layer_output, head_output),
            ):
                last = self._run(prompted, cache=cache).last_hidden_state
            if self.n_layers - 1 in hidden:
                layer_output[self.n_layers - 1] = last[:, -1]
            place = last.device  # a device map may spread the layers
            return Reading(
                logits=self.model.lm_head(last[:, list(logits)]) if logits else None,
                hidden=torch.stack([layer_output[layer].to(place) for layer in hidden], 1) if hidden else None,
                heads=torch.stack([head_output[layer].to(place) for layer in heads], 1) if heads else None,
            )

    @torch.no_grad()
    def generate(
        self,
        pixels: Clips,
        prompt: str | Sequence[str],
        max_new_tokens: int = 64,
        edit: Edit | None = None,
        frame_rate: Tensor | Sequence[float] | None = None,
        mixture: Tensor | None = None,
    ) -> list[str]:
        """An answer for each clip: the likeliest token each time, until the model ends it. Arguments as in `embed`.

        mixture (M,): log-weights of M readings of each clip, which are given one after the other: all clips as the
        first reads them, then all as the second does, …; each token is the likeliest of the weighted distributions.

        Nothing of the checkpoint's generation_config is used but its ends: neither sampling nor repetition penalties.
        """
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens {max_new_tokens}: at least 1 is expected")
        answer: list[Tensor] = []
        with self._at_rest():
            prompted = self.embed(pixels, prompt, edit, frame_rate, room=max_new_tokens)
            ends = torch.tensor(self._end_ids, device=prompted.embedding.device)
            n_readings = 1 if mixture is None else len(mixture)
            ended = torch.zeros(len(prompted.mask) // n_readings, dtype=torch.bool, device=ends.device)
            cache = None
            while len(answer) < max_new_tokens and not ended.all():
                output = self._run(prompted, cache=cache, use_cache=True)
                token = self._likeliest(output.last_hidden_state[:, -1], mixture)
                ended = ended | torch.isin(token, ends)
                answer.append(token.masked_fill(ended, -1))
                cache, prompted = output.past_key_values, self._followed(prompted, token.repeat(n_readings))
        said = [row[row >= 0] for row in torch.stack(answer, 1)]
        return [text.strip() for text in self.processor.tokenizer.batch_decode(said, skip_special_tokens=True)]

    @torch.no_grad()
    def choose(
        self,
        pixels: Clips,
        prompt: str | Sequence[str],
        options: Sequence[str],
        by: ChosenBy = "likelihood",
        edit: Edit | None = None,
        frame_rate: Tensor | Sequence[float] | None = None,
        mixture: Tensor | None = None,
    ) -> Tensor:
        """Log-likelihood of each of K answers to what is asked of a clip: float32 (B, K).

        Of an answer's tokens, the end of the turn not among them; summed, averaged where by is likelihood_per_token,
        or of the first one alone, in which answers may tie. The prompt with its visual tokens is read once, and all
        answers after it in a second pass, blind to one another. mixture as in `generate`.
        Other arguments as in `embed`. Raises ValueError for an empty answer.
        """
        if isinstance(options, str):
            raise ValueError(f"options {options!r}: a list of answers is expected")
        answers = [self.processor.tokenizer(option, add_special_tokens=False)["input_ids"] for option in options]
        if not answers or not all(answers):
            raise ValueError(f"options {list(options)}: at least one answer is expected, and none that is empty")
        if by == "first_token":
            answers = [answer[:1] for answer in answers]
        with self._at_rest():
            prompted = self.embed(pixels, prompt, edit, frame_rate, room=max(map(len, answers)))
            output = self._run(prompted, use_cache=True)
            begun = log_likelihood(self.model.lm_head, output.last_hidden_state[:, -1])
            total = mixed(begun[:, [answer[0] for answer in answers]], mixture)
            fed = [torch.tensor(answer[:-1], dtype=torch.long, device=begun.device) for answer in answers]
            owner = torch.cat([torch.full_like(part, k) for k, part in enumerate(fed)])
            if len(owner):
                words = self.model.get_input_embeddings()(torch.cat(fed))
                with self._masked_attention():
                    state = self._run(answers_after(prompted, words, owner), output.past_key_values).last_hidden_state
                likelihood = log_likelihood(self.model.lm_head, state)
                said = torch.tensor([token for answer in answers for token in answer[1:]], device=begun.device)
                likelihood = likelihood[:, torch.arange(len(said), device=said.device), said]
                total = total.index_add(1, owner, mixed(likelihood, mixture))
        length = torch.tensor([len(answer) for answer in answers], device=total.device)
        return total / length if by == "likelihood_per_token" else total

    def say(
        self,
        pixels: Clips,
        prompt: str | Sequence[str],
        answers: Sequence[str],
        edit: Edit | None = None,
        frame_rate: Tensor | Sequence[float] | None = None,
        mixture: Tensor | None = None,
    ) -> Tensor:
        """Log-likelihood of every token of the answer to each clip, the end of its turn the last: float32 (N,).

        N: the tokens of all B answers one after the other. With gradients: minus its mean is the loss of training on
        answers alone. The language model's head is run at those N places and nowhere else. mixture as in `generate`,
        with an answer per clip. Other arguments as in `embed`. Raises ValueError for an empty answer.
        """
        n_readings = 1 if mixture is None else len(mixture)
        said = self._said(answers) * n_readings
        likelihood, _ = self._answered(said, pixels, prompt, edit, frame_rate)
        return mixed(likelihood.view(n_readings, -1), mixture)[0]

    def say_token(
        self,
        pixels: Clips,
        prompt: str | Sequence[str],
        answers: Sequence[str],
        edit: Edit | None = None,
        frame_rate: Tensor | Sequence[float] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As `say`, and the decoder's last state, after the final norm, at the new token of each answer: (B, D).

        Raises ValueError for an answer that does not hold it once.
        """
        if self.new_token is None:
            raise ValueError("no token was added; call add_token first")
        said = self._said(answers)
        wrong = [text for text, ids in zip(answers, said, strict=True) if ids.count(self.new_token.id) != 1]
        if wrong:
            raise ValueError(f"answer {wrong[0]!r}: {self.new_token.text} is expected in it once")
        likelihood, state = self._answered(said, pixels, prompt, edit, frame_rate)
        place = [len(ids) - ids.index(self.new_token.id) for ids in said]  # from the end
        return likelihood, torch.stack([row[-back] for row, back in zip(state, place, strict=True)])

    def _said(self, answers: Sequence[str]) -> list[list[int]]:
        """The tokens of each answer, the end of its turn the last."""
        empty = [i for i, answer in enumerate(answers) if not answer.strip()]
        if empty:
            raise ValueError(f"answers {empty} of {len(answers)} are empty; a sentence for each clip is expected")
        self.load()
        tokenizer = self.processor.tokenizer
        return [[*tokenizer(text, add_special_tokens=False)["input_ids"], self._end_id] for text in answers]

    def _answered(
        self,
        said: Sequence[list[int]],
        pixels: Clips,
        prompt: str | Sequence[str],
        edit: Edit | None,
        frame_rate: Tensor | Sequence[float] | None,
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihood of every token said (N,), and the last states (B, S, D), whose rows end together."""
        rows = self._rows(pixels, prompt, edit, frame_rate, room=max(map(len, said)))
        if len(rows) != len(said):
            raise ValueError(f"{len(said)} answers to {len(rows)} clips, all readings counted: as many are expected")
        rows = [answered(row, answer) for row, answer in zip(rows, said, strict=True)]
        state = self._run(self._joined(rows)).last_hidden_state  # padded on the left: answers end together
        asked = torch.cat([row[-1 - len(answer) : -1] for row, answer in zip(state, said, strict=True)])
        target = torch.tensor([token for answer in said for token in answer], device=asked.device)
        head = self.model.lm_head
        logit = head(asked) if self.new_token is None else self.new_token.logits(asked, head)
        return logit.float().log_softmax(-1).gather(-1, target[:, None])[:, 0], state

    # how it is run -------------------------------------------------------------------------------------------------

    @property
    def _end_ids(self) -> list[int]:
        ends = self.model.generation_config.eos_token_id
        if ends is None:
            ends = self.processor.tokenizer.eos_token_id
        return list(ends) if isinstance(ends, list | tuple) else [int(ends)]

    @property
    def _end_id(self) -> int:
        """The token that ends a turn where several could: the tokenizer's own."""
        own, ends = self.processor.tokenizer.eos_token_id, self._end_ids
        return own if own in ends else ends[0]

    def _likeliest(self, state: Tensor, mixture: Tensor | None) -> Tensor:
        if mixture is None:
            token: Tensor = self.model.lm_head(state).argmax(-1)
            return token
        return mixed(log_likelihood(self.model.lm_head, state), mixture).argmax(-1)

    def _run(self, prompted: Prompted, cache: Any = None, use_cache: bool = False) -> Any:
        mask: Tensor | None = prompted.mask
        if prompted.mask.ndim == 2:  # a kernel for whole rows is faster and needs no mask
            mask = None if prompted.mask.all() else prompted.mask.long()
        position = prompted.position if len(prompted.position) > 1 else prompted.position[0]
        output = self.decoder(
            inputs_embeds=prompted.embedding,
            attention_mask=mask,
            position_ids=position,
            past_key_values=cache,
            use_cache=use_cache or cache is not None,
        )
        if use_cache and output.past_key_values is None:  # transformers says so once, in a warning
            raise ValueError(
                f"{self.name} trains with gradient checkpointing, which keeps no cache: call eval() before"
            )
        return output

    @contextmanager
    def _own_precision(self) -> Iterator[None]:
        """Compute in the weights' dtype, whatever the trainer's: what is kept on disk must not depend on it."""
        with torch.autocast(self.model.device.type, enabled=False):
            yield

    @contextmanager
    def _at_rest(self) -> Iterator[None]:
        """As if nothing trained: no dropout, no gradient checkpointing, which drops the cache; its own precision."""
        self.load()
        training = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            with self._own_precision():
                yield
        finally:
            for module in training:
                module.training = True

    @contextmanager
    def _masked_attention(self) -> Iterator[None]:
        """An implementation that takes a mask of any shape; those of flash attention do not."""
        if self.attention in ("sdpa", "eager"):
            yield
            return
        self.decoder.set_attn_implementation("sdpa")
        try:
            yield
        finally:
            self.decoder.set_attn_implementation(self.attention)

    def _followed(self, prompted: Prompted, token: Tensor) -> Prompted:
        """The next token (B,) of each row, after what the cache holds."""
        mask = torch.cat([prompted.mask, torch.ones_like(prompted.mask[:, :1])], 1)
        position = prompted.next_position.expand(len(prompted.position), -1)[..., None]
        embedding = self.model.get_input_embeddings()(token[:, None])
        return Prompted(embedding, mask, position, prompted.next_position + 1)

    def _check_asked(self, hidden: Sequence[int], heads: Sequence[int], logits: Sequence[int], at: str) -> None:
        absent = [layer for layer in (*hidden, *heads) if not 0 <= layer < self.n_layers]
        if absent:
            raise ValueError(f"layers {absent}: {self.name} has {self.n_layers}, counted from 0 to {self.n_layers - 1}")
        if not (hidden or heads or logits):
            raise ValueError("nothing to read: name layers in hidden or heads, or positions in logits")
        if at not in ("last_prompt", "first_generated"):
            raise ValueError(f"at {at!r}: last_prompt or first_generated is expected")
        if any(position >= 0 for position in logits) or (at == "first_generated" and set(logits) - {-1}):
            expected = "only -1 is" if at == "first_generated" else "positions from the end, as -1, are"
            raise ValueError(f"logits {list(logits)} at {at}: {expected} expected")
