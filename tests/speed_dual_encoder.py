"""Training on answers alone beside the plain way, and what an export and a checkpoint weigh. `make speed`."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from callbacks.checkpointing import AtomicCheckpointIO
from tests.conftest import SpeedRow
from tests.speed_mllm import seconds
from vigil.fusion import Projection
from vigil.mllm import Mllm
from vigil.scenes import CATEGORIES

PROMPT = "Describe what happens in this video."
ANSWER = "A man in a red shirt walks through the hall from the left"
CLIPS = 8


def backbone() -> Mllm:
    mllm = Mllm("weights/demo_mllm", dtype="float32")
    mllm.load()
    return mllm


@torch.no_grad()
def test_the_head_at_the_answers_places_alone(speed_row: SpeedRow) -> None:
    mllm = backbone()
    looked = mllm.look(torch.randint(0, 256, (CLIPS, 16, 3, 96, 96), dtype=torch.uint8))
    answers = [ANSWER] * CLIPS

    def everywhere() -> torch.Tensor:
        """The head at every place, and labels of -100 where there is no answer, as Hugging Face's loss has it."""
        head = mllm.model.lm_head
        ids = [*mllm.processor.tokenizer(ANSWER)["input_ids"], mllm._end_id]
        prompted = mllm.embed(looked, PROMPT)
        words = mllm.model.get_input_embeddings()(torch.tensor([ids] * CLIPS))
        state = mllm.decoder(inputs_embeds=torch.cat([prompted.embedding, words], 1)).last_hidden_state
        label = torch.full(state.shape[:2], -100)
        label[:, -len(ids) - 1 : -1] = torch.tensor(ids)
        return torch.nn.functional.cross_entropy(head(state).float().flatten(0, 1), label.flatten())

    ours = -mllm.say(looked, PROMPT, answers).mean()
    torch.testing.assert_close(ours, everywhere(), rtol=0, atol=1e-5)
    took, plain = seconds([lambda: mllm.say(looked, PROMPT, answers), everywhere])
    speed_row("loss of 8 answers, demo backbone, 16 frames", took, {"head at every place": plain}, "faster")
    assert plain > took


@torch.no_grad()
def test_a_choice_among_13_on_the_demo_backbone(speed_row: SpeedRow) -> None:
    mllm = backbone()
    looked = mllm.look(torch.randint(0, 256, (1, 16, 3, 96, 96), dtype=torch.uint8))
    options = list(CATEGORIES)
    one = torch.stack([mllm.choose(looked, PROMPT, [option])[0, 0] for option in options])
    torch.testing.assert_close(mllm.choose(looked, PROMPT, options)[0], one, rtol=0, atol=1e-4)
    took, plain = seconds(
        [
            lambda: mllm.choose(looked, PROMPT, options),
            lambda: [mllm.choose(looked, PROMPT, [option]) for option in options],
        ]
    )
    speed_row("likelihood of 13 classes, demo backbone, 16 frames", took, {"a prompt each": plain}, "4 times faster")
    assert plain >= 4 * took


def test_what_a_7b_model_leaves_on_disk(tmp_path: Path, speed_row: SpeedRow) -> None:
    """LoRA of rank 8 in 28 layers of Qwen2-7B's shapes, and the projection of DeiT-Small's features."""
    rank, width, value_width = 8, 3584, 512
    lora = {
        f"layers.{layer}.{name}.lora_{factor}": torch.nn.Parameter(torch.randn(shape))
        for layer in range(28)
        for name, out in (("q_proj", width), ("v_proj", value_width))
        for factor, shape in (("A", (rank, width)), ("B", (out, rank)))
    }
    trained = {**lora, **dict(Projection(384, width).named_parameters())}
    optimizer = torch.optim.AdamW(trained.values())
    torch.stack([parameter.square().mean() for parameter in trained.values()]).sum().backward()
    optimizer.step()
    save_file({name: value.detach().bfloat16() for name, value in trained.items()}, tmp_path / "export.safetensors")
    checkpoint = {"state_dict": dict(trained), "optimizer_states": [optimizer.state_dict()]}
    start = time.perf_counter()
    AtomicCheckpointIO().save_checkpoint(checkpoint, tmp_path / "last.ckpt")
    took = time.perf_counter() - start
    export_mb, checkpoint_mb = ((tmp_path / name).stat().st_size / 1e6 for name in ("export.safetensors", "last.ckpt"))
    print(f"export {export_mb:.1f} MB, checkpoint {checkpoint_mb:.1f} MB, written in {took:.2f} s")
    speed_row(
        f"checkpoint of {checkpoint_mb:.0f} MB of a 7B model's adapters; export {export_mb:.1f} MB", took, {}, "2 s"
    )
    assert export_mb <= 35
    assert checkpoint_mb <= 220
    assert took <= 2
