"""<SEG>: one more token, against Hugging Face's grown embedding and head, and the state that is read at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from tests.test_mllm import LONGER, PROMPT, RATE, clips, their_inputs
from tests.tiny_mllms import FAMILIES, write_mllm
from vigil.mllm import Mllm
from vigil.mllm_families import load_processor

ANSWERS = ["Sure, it is <SEG>.", "<SEG>."]
PROMPTS = [PROMPT, LONGER]


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mllm(tmp_path_factory.mktemp(request.param), request.param, layers=2)


def drawn(mllm: Mllm) -> tuple[torch.Tensor, torch.Tensor]:
    """The new token's two vectors, drawn so that neither is what it starts with."""
    token = mllm.new_token
    assert token is not None
    for value in (token.embedding, token.output):
        value.data.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(len(value))))
    token.output.data.mul_(2)
    return token.embedding.detach(), token.output.detach()


def their_pass(folder: Path, mllm: Mllm) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-likelihood of the answers' tokens and last states at <SEG>, of Hugging Face's model, its vocabulary grown."""
    model: Any = AutoModelForImageTextToText.from_pretrained(folder)
    processor = load_processor(folder)
    assert processor.tokenizer.add_tokens(["<SEG>"], special_tokens=True) == 1
    seg = processor.tokenizer.convert_tokens_to_ids("<SEG>")
    model.resize_token_embeddings(max(len(processor.tokenizer), model.get_input_embeddings().weight.shape[0]))
    embedding, output = drawn(mllm)
    model.get_input_embeddings().weight.data[seg] = embedding
    model.get_output_embeddings().weight.data[seg] = output
    likelihood, states = [], []
    for video, prompt, answer, rate in zip(clips(4, 4), PROMPTS, ANSWERS, RATE, strict=True):
        inputs = their_inputs((model, processor), [video], [prompt], [rate])
        said = [*processor.tokenizer(answer)["input_ids"], processor.tokenizer.eos_token_id]
        ids = torch.cat([inputs["input_ids"], torch.tensor([said])], 1)
        given = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "mm_token_type_ids" in inputs:
            more = torch.zeros((1, len(said)), dtype=torch.long)
            given["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], more], 1)
        found = model(**given, output_hidden_states=True)
        n = len(said)
        logit = (
            found.logits[0, -n - 1 : -1, : seg + 1]
            if seg + 1 == found.logits.shape[-1]
            else found.logits[0, -n - 1 : -1]
        )
        likelihood.append(logit.float().log_softmax(-1)[torch.arange(n), said])
        states.append(found.hidden_states[-1][0, -n:][said.index(seg)])
    return torch.cat(likelihood), torch.stack(states)


def test_what_is_said_and_read_at_the_token_is_as_with_a_grown_vocabulary(folder: Path) -> None:
    mllm = Mllm(str(folder))
    mllm.add_token("<SEG>")
    likelihood, state = their_pass(folder, mllm)
    own = mllm.say_token(clips(4, 4), PROMPTS, ANSWERS, frame_rate=RATE)
    torch.testing.assert_close(own[0], likelihood, rtol=0, atol=1e-4)
    torch.testing.assert_close(own[1], state, rtol=0, atol=1e-4)


def test_its_vectors_alone_get_a_gradient_and_begin_as_the_mean(folder: Path) -> None:
    mllm = Mllm(str(folder))
    token = mllm.add_token("<SEG>")
    table = mllm.model.get_input_embeddings().weight
    torch.testing.assert_close(token.embedding.detach(), table[: token.n_known].mean(0))
    likelihood, state = mllm.say_token(clips(4, 4), PROMPTS, ANSWERS, frame_rate=RATE)
    (state.sum() - likelihood.mean()).backward()
    moved = {name for name, value in mllm.named_parameters() if value.grad is not None and bool(value.grad.any())}
    assert moved == {"new_token.embedding", "new_token.output"}


def test_a_tied_head_ties_the_new_vectors(tmp_path: Path) -> None:
    mllm = Mllm(str(write_mllm(tmp_path, "llava_onevision", layers=2, tie_word_embeddings=True)))
    token = mllm.add_token("<SEG>")
    assert token.output is token.embedding
    assert [name for name, value in mllm.named_parameters() if value.requires_grad] == ["new_token.embedding"]


def test_a_known_word_a_second_token_and_an_answer_without_it_are_refused(folder: Path) -> None:
    mllm = Mllm(str(folder))
    with pytest.raises(ValueError, match="no token was added; call add_token first"):
        mllm.say_token(clips(4, 4), PROMPTS, ANSWERS, frame_rate=RATE)
    with pytest.raises(ValueError, match=r"'<\|im_end\|>' is a token of this model already"):
        mllm.add_token("<|im_end|>")
    mllm.add_token("<SEG>")
    with pytest.raises(ValueError, match=r"<SEG> was added to .* already; one token can be"):
        mllm.add_token("<BOX>")
    with pytest.raises(ValueError, match=r"answer 'It is there\.': <SEG> is expected in it once"):
        mllm.say_token(clips(4, 4), PROMPTS, ["It is there.", "<SEG>."], frame_rate=RATE)
