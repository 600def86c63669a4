"""Choosing among 13 answers and leaving early, beside the plain way of doing each. `make speed`."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.conftest import SpeedRow
from tests.tiny_mllms import write_mllm
from vigil.mllm import Mllm
from vigil.scenes import CATEGORIES

PROMPT = "Which of these happens in the video of the surveillance camera? " + ", ".join(CATEGORIES)
ANSWERS = list(CATEGORIES)


@pytest.fixture(scope="module")
def mllm(tmp_path_factory: pytest.TempPathFactory) -> Mllm:
    """32 decoder layers of width 256 with random weights."""
    folder = tmp_path_factory.mktemp("mllm")
    write_mllm(folder, "llava_onevision", layers=32, width=256, max_position_embeddings=2048, initializer_range=0.02)
    return Mllm(str(folder))


def seconds(steps: list[Callable[[], object]], repeats: int = 5) -> list[float]:
    """Of the fastest of several calls of each step, taken in turns so that other load on the machine meets all."""
    taken: list[list[float]] = [[] for _ in steps]
    for _ in range(1 + repeats):
        for step, times in zip(steps, taken, strict=True):
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
    return [min(times[1:]) for times in taken]


@torch.no_grad()
def test_a_choice_reads_the_prompt_once(mllm: Mllm, speed_row: SpeedRow) -> None:
    clip = torch.randint(0, 256, (8, 3, 60, 80), dtype=torch.uint8)
    prompted = mllm.embed([clip], PROMPT)
    n_prompt = prompted.embedding.shape[1]
    assert n_prompt >= 100
    answers = [torch.tensor(mllm.processor.tokenizer(answer)["input_ids"]) for answer in ANSWERS]
    words = mllm.model.get_input_embeddings()

    def full_pass(chosen: list[Tensor]) -> list[float]:
        """Prompt and answer through the whole model; its visual tokens are given, which favours it."""
        longest = max(map(len, chosen))
        padded = torch.stack([torch.nn.functional.pad(answer, (0, longest - len(answer))) for answer in chosen])
        sequence = torch.cat([prompted.embedding.expand(len(chosen), -1, -1), words(padded)], 1)
        state = mllm.decoder(inputs_embeds=sequence).last_hidden_state[:, n_prompt - 1 : -1]
        likelihood = mllm.model.lm_head(state).log_softmax(-1)
        return [
            float(row[: len(answer)].gather(-1, answer[:, None]).sum())
            for row, answer in zip(likelihood, chosen, strict=True)
        ]

    ours = mllm.choose([clip], PROMPT, ANSWERS)[0]
    one_by_one = torch.tensor([full_pass([answer])[0] for answer in answers])
    torch.testing.assert_close(ours, one_by_one, rtol=0, atol=1e-4)
    torch.testing.assert_close(ours, torch.tensor(full_pass(answers)), rtol=0, atol=1e-4)
    took, *plain = seconds(
        [
            lambda: mllm.choose([clip], PROMPT, ANSWERS),
            lambda: [full_pass([answer]) for answer in answers],
            lambda: full_pass(answers),
        ]
    )
    others = dict(zip(("13 passes", "one batch of 13"), plain, strict=True))
    name = f"likelihood of 13 answers to a prompt of {n_prompt} tokens"
    speed_row(name, took, others, "4 times faster than 13 passes, 2 times than one batch")
    assert others["13 passes"] >= 4 * took
    assert others["one batch of 13"] >= 2 * took


@torch.no_grad()
def test_leaving_at_layer_20_of_32_saves_the_rest(mllm: Mllm, speed_row: SpeedRow) -> None:
    clips = torch.randint(0, 256, (8, 8, 3, 60, 80), dtype=torch.uint8)
    whole = mllm.read(clips, PROMPT, hidden=(20, 31)).hidden
    early = mllm.read(clips, PROMPT, hidden=(20,)).hidden
    assert whole is not None
    assert early is not None
    assert torch.equal(whole[:, 0], early[:, 0])
    took, full = seconds(
        [lambda: mllm.read(clips, PROMPT, hidden=(20,)), lambda: mllm.read(clips, PROMPT, hidden=(20, 31))]
    )
    speed_row("hidden state of layer 20 of 32, 64 frames", took, {"all layers": full}, "1.3 times the frames/s")
    print(f"{64 / took:.0f} frames/s, all layers {64 / full:.0f} frames/s")
    assert full >= 1.3 * took
