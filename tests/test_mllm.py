"""Ours equals Hugging Face's own forward, for every family, batch and padding."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from tests.tiny_mllms import FAMILIES, write_mllm
from vigil.mllm import Mllm
from vigil.mllm_prompts import Row, frame_rate, replace_tokens

PROMPT, LONGER = "What happens here?", "Does anything happen in this video that should not? Say yes or no."
RATE = [3.0, 7.5]
N_LAYERS = 4


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mllm(tmp_path_factory.mktemp(request.param), request.param, layers=N_LAYERS)


@pytest.fixture(scope="module")
def mllm(folder: Path) -> Mllm:
    return Mllm(str(folder))


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    """(model, processor) as Hugging Face loads them."""
    processor = AutoProcessor.from_pretrained(folder)
    processor.tokenizer.padding_side = "left"
    return AutoModelForImageTextToText.from_pretrained(folder).eval(), processor


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def clips(*lengths: int, height: int = 40, width: int = 60, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=generator) for n in lengths]


def their_inputs(theirs: Any, videos: list[Tensor], prompts: list[str], rates: list[float] = RATE) -> dict[str, Any]:
    _, processor = theirs
    said = [
        processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": prompt}]}],
            add_generation_prompt=True,
            tokenize=False,
        )
        for prompt in prompts
    ]
    metadata = [VideoMetadata(len(v), fps=r, frames_indices=list(range(len(v)))) for v, r in zip(videos, rates)]  # noqa: B905
    return dict(
        processor(
            text=said,
            videos=videos,
            video_metadata=metadata,
            do_sample_frames=False,
            padding=True,
            return_tensors="pt",
        )
    )


def assert_same(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


# reading


def test_one_clip_reads_as_in_hugging_face_bit_for_bit(mllm: Mllm, theirs: Any) -> None:
    videos = clips(4)
    asked = torch.tensor([-1, -3])
    inputs = their_inputs(theirs, videos, [PROMPT])
    output = theirs[0](**inputs, output_hidden_states=True, logits_to_keep=asked)
    reading = mllm.read(videos, PROMPT, hidden=range(N_LAYERS), logits=(-1, -3), frame_rate=RATE[:1])
    assert_same(reading.logits, output.logits)
    for layer in range(N_LAYERS):
        assert_same(reading.hidden[:, layer], output.hidden_states[layer + 1][:, -1])


def test_a_padded_batch_reads_as_in_hugging_face(mllm: Mllm, theirs: Any) -> None:
    videos, prompts = clips(4, 4), [PROMPT, LONGER]
    inputs = their_inputs(theirs, videos, prompts)
    assert not inputs["attention_mask"].all()
    seen = inputs["attention_mask"]
    if "mm_token_type_ids" not in inputs:  # their forward does not count positions from the first token; generate does
        inputs["position_ids"] = (seen.cumsum(-1) - 1).clamp(min=0)
    output = theirs[0](**inputs, output_hidden_states=True)
    reading = mllm.read(torch.stack(videos), prompts, hidden=(1, 3), logits=(-1,), frame_rate=RATE)
    torch.testing.assert_close(reading.logits, output.logits[:, -1:], rtol=0, atol=2e-5)
    torch.testing.assert_close(reading.hidden[:, 0], output.hidden_states[2][:, -1], rtol=0, atol=2e-5)
    torch.testing.assert_close(reading.hidden[:, 1], output.hidden_states[4][:, -1], rtol=0, atol=2e-5)


def test_a_batch_of_mixed_lengths_and_sizes_equals_its_rows(mllm: Mllm) -> None:
    videos = [*clips(4, 2), *clips(6, height=60, width=40)]
    prompts, rates = [LONGER, PROMPT, PROMPT], [1.0, 2.0, 30.0]
    wanted = {"hidden": (0, 3), "heads": (2,), "logits": (-1,)}
    together = mllm.read(videos, prompts, frame_rate=rates, **wanted)
    for i, (video, prompt, rate) in enumerate(zip(videos, prompts, rates, strict=True)):
        alone = mllm.read([video], prompt, frame_rate=[rate], **wanted)
        for name in wanted:
            torch.testing.assert_close(getattr(together, name)[i], getattr(alone, name)[0], rtol=1e-4, atol=2e-5)


def test_heads_are_attention_times_values(mllm: Mllm, theirs: Any) -> None:
    """Against the attention weights and values that Hugging Face's eager implementation gives."""
    videos = clips(4)
    model = theirs[0]
    values: list[Tensor] = []
    projection = model.model.language_model.layers[1].self_attn.v_proj
    hook = projection.register_forward_hook(lambda _, __, output: values.append(output))
    model.set_attn_implementation("eager")
    output = model(**their_inputs(theirs, videos, [PROMPT]), output_attentions=True)
    model.set_attn_implementation("sdpa")
    hook.remove()
    (value,) = values
    value = value.unflatten(-1, (2, -1)).repeat_interleave(2, dim=2)  # two heads share a value head
    expected = torch.einsum("bhqs,bshd->bqhd", output.attentions[1], value)[:, -1]
    reading = mllm.read(videos, PROMPT, heads=(0, 1), frame_rate=RATE[:1])
    assert reading.heads.shape == (1, 2, 4, 8)
    torch.testing.assert_close(reading.heads[:, 1], expected, rtol=1e-4, atol=1e-5)


def test_the_first_generated_token_reads_as_in_generate(mllm: Mllm, theirs: Any) -> None:
    videos = clips(4)
    output = theirs[0].generate(
        **their_inputs(theirs, videos, [PROMPT]),
        max_new_tokens=2,
        min_new_tokens=2,
        do_sample=False,
        output_hidden_states=True,
        return_dict_in_generate=True,
    )
    reading = mllm.read(videos, PROMPT, hidden=(0, 2, 3), at="first_generated", frame_rate=RATE[:1])
    for i, layer in enumerate((0, 2, 3)):
        torch.testing.assert_close(reading.hidden[:, i], output.hidden_states[1][layer + 1][:, -1], rtol=0, atol=2e-5)


def test_early_exit_runs_no_deeper_layer_and_gives_the_same_numbers(mllm: Mllm) -> None:
    videos = clips(4, 4)
    whole = mllm.read(videos, PROMPT, hidden=(1, 3), heads=(1,), frame_rate=RATE)
    ran: list[int] = []
    layers = mllm.decoder.layers
    hooks = [layer.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, layer in enumerate(layers)]
    head = mllm.model.lm_head.register_forward_hook(lambda *_: ran.append(-1))
    early = mllm.read(videos, PROMPT, hidden=(1,), heads=(1,), frame_rate=RATE)
    for hook in (*hooks, head):
        hook.remove()
    assert ran == [0, 1]
    assert_same(early.hidden[:, 0], whole.hidden[:, 0])
    assert_same(early.heads, whole.heads)
    assert mllm.decoder.layers is layers


def test_a_failure_in_the_middle_leaves_every_layer_in_place(mllm: Mllm) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("stop")

    hook = mllm.decoder.layers[0].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        mllm.read(clips(2), PROMPT, hidden=(1,), frame_rate=RATE[:1])
    hook.remove()
    assert len(mllm.decoder.layers) == N_LAYERS
    assert not mllm.decoder.layers[1]._forward_hooks


# edits


def test_an_edit_that_changes_nothing_changes_nothing(mllm: Mllm) -> None:
    videos = clips(4, 2)
    plain = mllm.read(videos, PROMPT, hidden=(3,), frame_rate=RATE)
    for edit in (lambda tokens: tokens, lambda tokens: (tokens, [torch.arange(len(row)) for row in tokens])):
        assert_same(mllm.read(videos, PROMPT, hidden=(3,), frame_rate=RATE, edit=edit).hidden, plain.hidden)


def test_edited_tokens_enter_as_in_hugging_face(mllm: Mllm, theirs: Any) -> None:
    """Scaled visual tokens, through their own mm_encoder_outputs."""
    videos = clips(4)
    model = theirs[0]
    if "mm_encoder_outputs" not in inspect.signature(model.forward).parameters:
        pytest.skip("this release of transformers takes no edited visual tokens")
    inputs = their_inputs(theirs, videos, [PROMPT])
    pixels = next(inputs.pop(name) for name in ("pixel_values_videos", "pixel_values") if name in inputs)
    if model.config.model_type == "internvl":
        kind, features = "image", model.get_image_features(pixels, return_dict=True)
        features.pooler_output = features.pooler_output * 3
    else:
        kind = "video"
        grid = {"video_grid_thw": inputs["video_grid_thw"]} if "video_grid_thw" in inputs else {}
        features = model.get_video_features(pixels, return_dict=True, **grid)
        output = features.pooler_output
        features.pooler_output = output * 3 if isinstance(output, Tensor) else [part * 3 for part in output]
    expected = model(**inputs, mm_encoder_outputs={kind: features}, logits_to_keep=1).logits
    ours = mllm.read(videos, PROMPT, logits=(-1,), frame_rate=RATE[:1], edit=lambda tokens: [row * 3 for row in tokens])
    assert_same(ours.logits, expected)


def test_dropped_and_added_tokens_take_their_places(mllm: Mllm) -> None:
    """Against the language model run on a sequence put together by hand."""
    videos = clips(4)
    before = mllm.embed(videos, PROMPT, frame_rate=RATE[:1])
    seen: list[Tensor] = []
    new = torch.randn(2, before.embedding.shape[-1])

    def edit(tokens: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        seen.extend(tokens)
        kept = torch.arange(1, len(tokens[0]), 2)
        return [torch.cat([tokens[0][kept], new])], [torch.cat([kept, torch.tensor([-1, -1])])]

    after = mllm.embed(videos, PROMPT, edit, frame_rate=RATE[:1])
    where = [int((before.embedding[0] == token).all(-1).nonzero()[0]) for token in seen[0]]
    rows, position = [], []
    for s in range(before.embedding.shape[1]):
        if s not in where or where.index(s) % 2 == 1:
            rows.append(before.embedding[0, s])
            position.append(before.position[:, 0, s] + (2 if s > where[-1] else 0))
        if s == where[-1]:
            start = before.position[:, 0, s + 1]
            rows += [new[0], new[1]]
            position += [start, start + 1]
    assert_same(after.embedding[0], torch.stack(rows))
    if len(before.position) == 3:
        assert_same(after.position[:, 0], torch.stack(position, 1))
        assert int(after.next_position) == int(before.next_position) + 2
    else:
        assert_same(after.position[0, 0], torch.arange(len(rows)))


def test_gradients_reach_an_edit(mllm: Mllm) -> None:
    with torch.enable_grad():
        scale = torch.ones((), requires_grad=True)
        reading = mllm.read(
            clips(2), PROMPT, hidden=(1,), frame_rate=RATE[:1], edit=lambda tokens: [row * scale for row in tokens]
        )
        reading.hidden.sum().backward()
    assert scale.grad is not None
    assert scale.grad != 0


@pytest.mark.parametrize(
    "edit",
    [
        lambda tokens: [row[:-1] for row in tokens],
        lambda tokens: ([row[:2] for row in tokens], [torch.tensor([1, 0])] * len(tokens)),
        lambda tokens: ([row[:2] for row in tokens], [torch.tensor([-1, 0])] * len(tokens)),
        lambda tokens: ([row[:2] for row in tokens], [torch.tensor([0, 999])] * len(tokens)),
        lambda tokens: ([row[:2] for row in tokens], [torch.tensor([0])] * len(tokens)),
    ],
)
def test_an_edit_that_does_not_say_where_its_tokens_go_is_refused(mllm: Mllm, edit: Any) -> None:
    with pytest.raises(ValueError, match=r"the edit (made|returned) \d+"):
        mllm.read(clips(2), PROMPT, hidden=(1,), frame_rate=RATE[:1], edit=edit)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tokens: [torch.cat([row, row], 1) for row in tokens], r"visual tokens are \(\d+, 64\); .* \(\d+, 32\)"),
        (lambda tokens: [row[:, :16] for row in tokens], r"visual tokens are \(\d+, 16\)"),
        (lambda tokens: tokens[:1], "the edit returned tokens of 1 clips; 2 were given"),
    ],
)
def test_an_edit_of_another_shape_is_refused(mllm: Mllm, edit: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mllm.read(clips(2, 2), PROMPT, hidden=(1,), frame_rate=RATE, edit=edit)


def test_all_visual_tokens_may_go() -> None:
    row = Row(torch.tensor([5, 9, 9, 6]), torch.zeros(2, 3), torch.arange(4)[None])
    left = replace_tokens(row, torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), 9)
    assert left.ids.tolist() == [5, 6]


# generate and choose


def test_answers_are_those_of_hugging_face(mllm: Mllm, theirs: Any) -> None:
    videos, prompts = clips(4, 4), [PROMPT, LONGER]
    model, processor = theirs
    inputs = their_inputs(theirs, videos, prompts)
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    expected = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert mllm.generate(videos, prompts, 12, frame_rate=RATE) == [text.strip() for text in expected]


def test_an_answer_ends_where_the_model_ends_it(mllm: Mllm, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = clips(4, 4)
    long = mllm.read(videos, PROMPT, logits=(-1,), frame_rate=RATE).logits[:, 0].argmax(-1)
    monkeypatch.setattr(mllm.model.generation_config, "eos_token_id", [int(long[0]), 299])
    first, second = mllm.generate(videos, PROMPT, 5, frame_rate=RATE)
    assert first == ""
    assert second == mllm.generate(videos[1:], PROMPT, 5, frame_rate=RATE[1:])[0]


OPTIONS = ["Yes", "No", "a fight", "Robbery, with a gun", "N"]


def naive_choice(mllm: Mllm, theirs: Any, videos: list[Tensor], prompts: list[str], option: str) -> Tensor:
    """(B,) by a full pass of Hugging Face's model over prompt and answer, row by row."""
    model, processor = theirs
    found = []
    for video, prompt, rate in zip(videos, prompts, RATE, strict=True):
        inputs = their_inputs(theirs, [video], [prompt], [rate])
        answer = processor.tokenizer(option, add_special_tokens=False, return_tensors="pt")["input_ids"]
        n_prompt = inputs["input_ids"].shape[1]
        inputs["input_ids"] = torch.cat([inputs["input_ids"], answer], 1)
        inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        if "mm_token_type_ids" in inputs:
            inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(answer)], 1)
        likelihood = model(**inputs).logits[0, n_prompt - 1 : -1].log_softmax(-1)
        total = sum(likelihood[i, int(token)] for i, token in enumerate(answer[0]))
        found.append(total)
    return torch.stack(found)


def test_a_choice_equals_a_full_pass_for_each_answer(mllm: Mllm, theirs: Any) -> None:
    videos, prompts = clips(4, 4), [PROMPT, LONGER]
    ours = mllm.choose(videos, prompts, OPTIONS, frame_rate=RATE)
    expected = torch.stack([naive_choice(mllm, theirs, videos, prompts, option) for option in OPTIONS], 1)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    length = [len(mllm.processor.tokenizer(option)["input_ids"]) for option in OPTIONS]
    averaged = mllm.choose(videos, prompts, OPTIONS, by="likelihood_per_token", frame_rate=RATE)
    torch.testing.assert_close(averaged, ours / torch.tensor(length), rtol=1e-6, atol=1e-6)


def test_a_choice_of_single_tokens_takes_one_pass(mllm: Mllm) -> None:
    passes: list[int] = []
    hook = mllm.decoder.register_forward_hook(lambda *_: passes.append(1))
    mllm.choose(clips(2), PROMPT, ["Y", "N"], frame_rate=RATE[:1])
    assert len(passes) == 1
    mllm.choose(clips(2), PROMPT, ["Yes", "N"], frame_rate=RATE[:1])
    hook.remove()
    assert len(passes) == 3


def test_a_choice_of_edited_tokens_is_that_of_a_generation(mllm: Mllm) -> None:
    """The likeliest first byte is the byte that is generated."""

    def edit(tokens: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        kept = torch.arange(0, len(tokens[0]), 3)
        return [tokens[0][kept]], [kept]

    prompted = {"edit": edit, "frame_rate": RATE[:1]}
    tokens = [mllm.processor.tokenizer.decode([i]) for i in range(33, 120)]
    letters = [token for token in tokens if token.isascii() and token.isalpha()]
    logits = mllm.read(clips(4), PROMPT, logits=(-1,), **prompted).logits[0, 0].log_softmax(-1)
    expected = [logits[mllm.processor.tokenizer(letter)["input_ids"][0]] for letter in letters]
    chosen = mllm.choose(clips(4), PROMPT, letters, **prompted)[0]
    torch.testing.assert_close(chosen, torch.stack(expected), rtol=0, atol=1e-5)


# while training


def test_training_with_checkpointing_changes_no_answer(mllm: Mllm, folder: Path) -> None:
    """transformers drops the cache there, with a warning, and with it the prompt."""
    tuned = Mllm(str(folder))
    tuned.save_memory()
    tuned.train()
    asked = {"frame_rate": RATE}
    assert tuned.generate(clips(4, 4), PROMPT, 6, **asked) == mllm.generate(clips(4, 4), PROMPT, 6, **asked)
    chosen = tuned.choose(clips(4, 4), PROMPT, OPTIONS, **asked)
    assert_same(chosen, mllm.choose(clips(4, 4), PROMPT, OPTIONS, **asked))
    assert tuned.decoder.training
    with pytest.raises(ValueError, match="gradient checkpointing, which keeps no cache"):
        tuned.read(clips(2), PROMPT, hidden=(1,), at="first_generated", frame_rate=RATE[:1])


def test_the_trainers_precision_does_not_change_what_is_read(mllm: Mllm) -> None:
    wanted = {"hidden": (1,), "heads": (2,), "logits": (-1,), "frame_rate": RATE[:1]}
    plain = mllm.read(clips(2), PROMPT, **wanted)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mllm.read(clips(2), PROMPT, **wanted)
        chosen = mllm.choose(clips(2), PROMPT, OPTIONS, frame_rate=RATE[:1])
    for name in ("hidden", "heads", "logits"):
        assert_same(getattr(mixed, name), getattr(plain, name))
    assert_same(chosen, mllm.choose(clips(2), PROMPT, OPTIONS, frame_rate=RATE[:1]))


def test_a_likelihood_in_bfloat16_is_not_rounded_to_eight_bits(folder: Path) -> None:
    rough = Mllm(str(folder), dtype="bfloat16")
    state = rough.read(clips(2), PROMPT, hidden=(N_LAYERS - 1,), frame_rate=RATE[:1]).hidden[:, 0]
    letters = ["Y", "N", "a"]
    ids = [rough.processor.tokenizer(letter)["input_ids"][0] for letter in letters]
    logit = [float((state[0].double() * row.double()).sum()) for row in rough.model.lm_head.weight]
    expected = torch.tensor(logit).log_softmax(-1)[ids]
    chosen = rough.choose(clips(2), PROMPT, letters, frame_rate=RATE[:1])[0]
    torch.testing.assert_close(chosen, expected, rtol=0, atol=1e-4)


# refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": (4,)}, r"layers \[4\]: .* has 4, counted from 0 to 3"),
        ({"heads": (-1,)}, r"layers \[-1\]"),
        ({}, "nothing to read"),
        ({"logits": (0,)}, "positions from the end"),
        ({"logits": (-2,), "at": "first_generated"}, "only -1 is expected"),
        ({"hidden": (0,), "at": "last"}, "last_prompt or first_generated"),
        ({"logits": (-400,)}, r"the shortest prompt has \d+ tokens"),
    ],
)
def test_a_reading_of_what_is_not_there_is_refused(mllm: Mllm, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mllm.read(clips(2), PROMPT, frame_rate=RATE[:1], **settings)


@pytest.mark.parametrize(
    "pixels",
    [[], torch.zeros(1, 2, 3, 8, 8), torch.zeros(1, 2, 1, 8, 8, dtype=torch.uint8), [torch.zeros(0, 3, 8, 8).byte()]],
)
def test_pixels_of_another_kind_are_refused(mllm: Mllm, pixels: Any) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(T, 3, Y, X\)|at least one"):
        mllm.read(pixels, PROMPT, hidden=(0,))


def test_a_prompt_longer_than_the_context_is_refused(mllm: Mllm) -> None:
    with pytest.raises(ValueError, match=r"\d+ tokens, \d+ of them visual, and 0 to come: more than the 512"):
        mllm.read(clips(2), "word " * 200, hidden=(0,), frame_rate=RATE[:1])
    with pytest.raises(ValueError, match="and 600 to come"):
        mllm.generate(clips(2), PROMPT, 600, frame_rate=RATE[:1])


def test_an_empty_answer_is_refused(mllm: Mllm) -> None:
    for options in ([], ["Yes", ""]):
        with pytest.raises(ValueError, match="none that is empty"):
            mllm.choose(clips(2), PROMPT, options, frame_rate=RATE[:1])
    with pytest.raises(ValueError, match="a list of answers is expected"):
        mllm.choose(clips(2), PROMPT, "Yes", frame_rate=RATE[:1])
    with pytest.raises(ValueError, match="max_new_tokens 0"):
        mllm.generate(clips(2), PROMPT, 0, frame_rate=RATE[:1])


def test_as_many_prompts_and_rates_as_clips_are_expected(mllm: Mllm) -> None:
    with pytest.raises(ValueError, match="2 clips and 1 frame rates"):
        mllm.read(clips(2, 2), PROMPT, hidden=(0,), frame_rate=[1.0])
    with pytest.raises(ValueError, match="2 clips and 3 prompts"):
        mllm.read(clips(2, 2), [PROMPT] * 3, hidden=(0,), frame_rate=RATE)


def test_the_family_that_counts_seconds_wants_them(mllm: Mllm, folder: Path) -> None:
    for rate in (None, [float("nan")]):
        if mllm.family.counts_seconds:
            with pytest.raises(ValueError, match="places frames by their seconds"):
                mllm.read(clips(2), PROMPT, hidden=(0,), frame_rate=rate)
        else:
            mllm.read(clips(2), PROMPT, hidden=(0,), frame_rate=rate)


def test_a_frame_rate_is_that_of_the_sampled_frames() -> None:
    frame = torch.tensor([[0, 3, 6, 9], [10, 13, 14, 14], [5, 5, 5, 5]])
    fps = torch.tensor([30.0, 30.0, 25.0])
    assert frame_rate(frame, fps).tolist() == [10.0, 15.0, 25.0]


# weights


def test_a_frozen_model_stays_in_eval_mode_and_out_of_training(mllm: Mllm) -> None:
    mllm.train()
    assert not mllm.model.training
    assert not any(parameter.requires_grad for parameter in mllm.parameters())


def test_nothing_is_loaded_before_it_is_needed_and_the_key_needs_nothing(folder: Path) -> None:
    lazy = Mllm(str(folder))
    key = lazy.key
    assert not lazy.loaded
    assert not list(lazy.parameters())
    lazy.read(clips(2), PROMPT, hidden=(0,), frame_rate=RATE[:1])
    assert lazy.loaded
    assert lazy.key == key
    assert Mllm(str(folder), dtype="bfloat16").key != key
    assert Mllm(str(folder), attention="eager").key != key
    assert Mllm(str(folder), weights="random").key != key
    assert Mllm(str(folder)).key == key


def test_weights_read_late_land_where_the_module_was_moved(folder: Path) -> None:
    mllm = Mllm(str(folder))
    mllm.to("meta")  # a device that every machine has
    mllm.load()
    assert {parameter.device.type for parameter in mllm.model.parameters()} == {"meta"}


def test_random_weights_are_the_same_each_time_and_not_the_checkpoints(mllm: Mllm, folder: Path) -> None:
    wanted = {"hidden": (3,), "frame_rate": RATE[:1]}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = (Mllm(str(folder), weights="random").read(clips(2), PROMPT, **wanted).hidden for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert_same(one, other)
    assert not torch.equal(one, mllm.read(clips(2), PROMPT, **wanted).hidden)


def test_bfloat16_and_eager_attention_come_close(mllm: Mllm, folder: Path) -> None:
    wanted = {"hidden": (1,), "frame_rate": RATE}
    exact = mllm.read(clips(2, 4), PROMPT, **wanted).hidden
    eager = Mllm(str(folder), attention="eager").read(clips(2, 4), PROMPT, **wanted).hidden
    torch.testing.assert_close(eager, exact, rtol=1e-4, atol=2e-5)
    rough = Mllm(str(folder), dtype="bfloat16").read(clips(2, 4), PROMPT, **wanted).hidden
    assert rough.dtype == torch.bfloat16
    assert torch.nn.functional.cosine_similarity(rough.float(), exact, dim=-1).min() > 0.99


def test_a_device_map_places_the_model_and_keeps_it_there(mllm: Mllm, folder: Path) -> None:
    placed = Mllm(str(folder), device_map="cpu")
    wanted = {"hidden": (2,), "frame_rate": RATE[:1]}
    assert_same(placed.read(clips(2), PROMPT, **wanted).hidden, mllm.read(clips(2), PROMPT, **wanted).hidden)
    assert not list(placed.parameters())  # torch does not know of it, so nothing moves it
