"""Answers with gradients, clips looked at before, mixed readings: against Hugging Face, peft and plain loops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForImageTextToText

from lightning_modules.adapter import TARGETS, Lora, add_lora
from tests.test_mllm import LONGER, PROMPT, RATE, clips, their_inputs, theirs  # noqa: F401
from tests.tiny_mllms import FAMILIES, write_mllm
from vigil.fusion import instead
from vigil.mllm import Mllm
from vigil.mllm_decoder import mixed

ANSWERS = ["Two people fight.", "A man in a red shirt walks to the door and opens it"]
PROMPTS = [PROMPT, LONGER]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mllm(tmp_path_factory.mktemp(request.param), request.param, layers=3)


@pytest.fixture(scope="module")
def mllm(folder: Path) -> Mllm:
    return Mllm(str(folder))


def their_step(folder: Path, processor: Any, videos: list[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of Hugging Face's model with peft's adapters, labels -100 but for the answers."""
    model = AutoModelForImageTextToText.from_pretrained(folder)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS)
    torch.manual_seed(7)
    tuned = get_peft_model(model, config)
    start_adapters(tuned)
    tuned.eval()  # no dropout; the language model computes the same in both modes
    inputs = their_inputs((model, processor), videos, PROMPTS)
    end = processor.tokenizer.eos_token_id
    said = [[*processor.tokenizer(text)["input_ids"], end] for text in ANSWERS]
    longest = max(map(len, said))
    n_prompt = inputs["input_ids"].shape[1]
    ids, mask, labels, kinds = [], [], [], []
    for i, answer in enumerate(said):  # padded on the left, so that prompt and answer meet
        pad = longest - len(answer)
        row, seen = inputs["input_ids"][i].tolist(), inputs["attention_mask"][i].tolist()
        ids.append([processor.tokenizer.pad_token_id] * pad + row + answer)
        mask.append([0] * pad + seen + [1] * len(answer))
        labels.append([-100] * (pad + n_prompt) + answer)
        if "mm_token_type_ids" in inputs:
            kinds.append([0] * pad + inputs["mm_token_type_ids"][i].tolist() + [0] * len(answer))
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    given |= {"mm_token_type_ids": kinds} if kinds else {}
    other = {name: value for name, value in inputs.items() if name not in given}
    loss = tuned(**{name: torch.tensor(value) for name, value in given.items()}, **other).loss
    loss.backward()
    return loss, {name: value.grad for name, value in tuned.named_parameters() if value.requires_grad}


def start_adapters(model: torch.nn.Module) -> None:
    """Draw both factors: peft starts the second at zero, which leaves the first without a gradient."""
    generator = torch.Generator().manual_seed(3)
    for name, value in sorted(model.named_parameters()):
        if "lora_" in name:
            value.data.copy_(torch.randn(value.shape, generator=generator) * 0.1)


def test_a_training_step_is_that_of_hugging_face_and_peft(folder: Path, theirs: Any) -> None:  # noqa: F811
    videos = clips(4, 4)
    loss, gradient = their_step(folder, theirs[1], videos)
    ours = Mllm(str(folder))
    adapter = add_lora(ours, Lora(rank=4, alpha=8, dropout=0.0))
    start_adapters(adapter)
    own_loss = -ours.say(videos, PROMPTS, ANSWERS, frame_rate=RATE).mean()
    own_loss.backward()
    torch.testing.assert_close(own_loss, loss, rtol=0, atol=1e-5)
    own = {name: value.grad for name, value in adapter.named_parameters() if value.requires_grad}
    assert own.keys() == gradient.keys()
    assert len(own) == 3 * 2 * 2  # layers, projections, factors: none in the vision tower
    for name, value in own.items():
        torch.testing.assert_close(value, gradient[name], rtol=0, atol=1e-5)
    assert max(float(value.abs().max()) for value in own.values()) > 1e-3


def test_saving_memory_changes_neither_loss_nor_gradients(folder: Path) -> None:
    found = []
    for saves in (False, True):
        ours = Mllm(str(folder))
        adapter = add_lora(ours, Lora(rank=4, dropout=0.0))
        start_adapters(adapter)
        if saves:
            ours.save_memory()
        ours.train()
        loss = -ours.say(clips(4, 2), PROMPTS, ANSWERS, frame_rate=RATE).mean()
        loss.backward()
        found.append([loss, *(value.grad for value in adapter.parameters() if value.requires_grad)])
    assert ours.decoder.training
    assert (
        not ours.model.model.multi_modal_projector.training
        if hasattr(ours.model.model, "multi_modal_projector")
        else True
    )
    for plain, saved in zip(*found, strict=True):
        torch.testing.assert_close(saved, plain, rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_clip_that_was_looked_at_before_gives_what_its_pixels_give(mllm: Mllm) -> None:
    videos = [*clips(4, 2), *clips(4, height=30, width=90)]
    rate = [*RATE, 2.0]
    looked = mllm.look(videos)
    asked = {"prompt": [*PROMPTS, LONGER], "frame_rate": rate}
    fresh, kept = mllm.embed(videos, **asked), mllm.embed(looked, **asked)
    for name in ("embedding", "mask", "position", "next_position"):
        torch.testing.assert_close(getattr(kept, name), getattr(fresh, name), rtol=0, atol=2e-6)
    both = mllm.embed([videos[0], looked[1], videos[2]], **asked)
    torch.testing.assert_close(both.embedding, fresh.embedding, rtol=0, atol=2e-6)


@torch.no_grad()
def test_a_mixture_is_the_sum_of_weighted_probabilities(mllm: Mllm) -> None:
    one, other = clips(4, 4), clips(4, 4, seed=5)
    weight = torch.tensor([0.7, 0.3])
    options = ["Yes", "No", "Maybe not"]
    asked = {"prompt": PROMPT, "frame_rate": RATE}
    twice = {"prompt": PROMPT, "frame_rate": RATE * 2, "mixture": weight.log()}
    said = [mllm.say(videos, answers=ANSWERS, **asked).exp() for videos in (one, other)]
    both = mllm.say([*one, *other], answers=ANSWERS, **twice).exp()
    torch.testing.assert_close(both, 0.7 * said[0] + 0.3 * said[1], rtol=1e-4, atol=1e-7)
    chosen = mllm.choose([*one, *other], options=options, **twice)
    for k, option in enumerate(options):  # token by token, in a loop
        tokens = mllm.processor.tokenizer(option)["input_ids"]
        for row in range(2):
            total = 0.0
            for place in range(len(tokens)):
                each = []
                for video in (one[row], other[row]):
                    prompted = mllm.embed([video], PROMPT, frame_rate=RATE[row : row + 1])
                    words = mllm.model.get_input_embeddings()(torch.tensor([tokens[:place]], dtype=torch.long))
                    more = prompted.next_position + torch.arange(place)
                    prompted.embedding = torch.cat([prompted.embedding, words], 1)
                    prompted.mask = torch.cat([prompted.mask, torch.ones((1, place), dtype=torch.bool)], 1)
                    prompted.position = torch.cat([prompted.position, more.expand(len(prompted.position), 1, -1)], 2)
                    state = mllm._run(prompted).last_hidden_state[:, -1]
                    each.append(float(mllm.model.lm_head(state).softmax(-1)[0, tokens[place]]))
                total += float(torch.tensor(0.7 * each[0] + 0.3 * each[1]).log())
            assert float(chosen[row, k]) == pytest.approx(total, abs=1e-4)
    sure = torch.tensor([1.0, 0.0]).log()
    answer = mllm.generate([*one, *other], PROMPT, 6, frame_rate=RATE * 2, mixture=sure)
    assert answer == mllm.generate(one, PROMPT, 6, frame_rate=RATE)


@torch.no_grad()
def test_a_first_token_is_scored_alone(mllm: Mllm) -> None:
    options = ["Shooting", "Shoplifting", "Arson"]  # letters are the tokens here
    found = mllm.choose(clips(4, 4), PROMPT, options, by="first_token", frame_rate=RATE)
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found, mllm.choose(clips(4, 4), PROMPT, ["S", "S", "A"], frame_rate=RATE))


def test_tokens_that_replace_all_others_need_no_pixels(mllm: Mllm) -> None:
    from lightning_modules.dual_encoder import BLIND
    from vigil.mllm_prompts import Looked

    more = torch.randn(1, 5, mllm.text_config.hidden_size, requires_grad=True)
    blind = Looked(torch.empty(0, more.shape[-1]), BLIND)
    loss = -mllm.say([blind], PROMPT, ANSWERS[:1], edit=lambda t: instead(t, more), frame_rate=[1.0]).mean()
    loss.backward()
    assert more.grad is not None
    assert bool((more.grad.abs().amax(-1) > 0).all())


def test_an_empty_answer_and_another_number_of_answers_are_refused(mllm: Mllm) -> None:
    with pytest.raises(ValueError, match=r"answers \[1\] of 2 are empty"):
        mllm.say(clips(4, 4), PROMPT, ["A man", " "], frame_rate=RATE)
    with pytest.raises(ValueError, match="1 answers to 2 clips"):
        mllm.say(clips(4, 4), PROMPT, ["A man"], frame_rate=RATE)
    with pytest.raises(ValueError, match=r"more than the 512 that .* takes"):
        mllm.say(clips(2), PROMPT, ["A man " * 300], frame_rate=RATE[:1])


def test_what_is_mixed_are_probabilities() -> None:
    one, other = torch.tensor([[0.9, 0.1]]), torch.tensor([[0.2, 0.8]])
    found = mixed(torch.cat([one, other]).log(), torch.tensor([0.25, 0.75]).log()).exp()
    torch.testing.assert_close(found, torch.tensor([[0.25 * 0.9 + 0.75 * 0.2, 0.25 * 0.1 + 0.75 * 0.8]]))
