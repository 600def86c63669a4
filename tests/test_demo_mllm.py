"""The demo's multimodal LLM: loads as any other, has seen no demo split, and says more than random weights do."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaOnevisionProcessor
from transformers import LlavaOnevisionForConditionalGeneration as Mllm

from datamodules.demo import SIZES, plan
from vigil.scenes import PRETRAINING_SEEDS, make_scene

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "weights" / "demo_mllm"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_mllm", ROOT / "weights" / "demo_mllm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_mllm"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def processor() -> LlavaOnevisionProcessor:
    return AutoProcessor.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Mllm:
    return AutoModelForImageTextToText.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def held_out(script: ModuleType) -> list[object]:
    """Clips of eight frames of the last pretraining scenes, which no training ever takes."""
    stop = PRETRAINING_SEEDS.stop
    clips = [clip for seed in range(stop - 16, stop) for clip in script.render_scene(seed)]
    return [clip for clip in clips if len(clip.index) == 8]


def prompt_of(processor: LlavaOnevisionProcessor, question: str) -> str:
    content = [{"type": "video"}, {"type": "text", "text": question}]
    message = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(message, add_generation_prompt=True, tokenize=False))


def test_the_folder_holds_a_small_model_in_bfloat16_and_nothing_else() -> None:
    known = {"config.json", "generation_config.json", "model.safetensors", "processor_config.json", "tokenizer.json",
             "tokenizer_config.json", "chat_template.jinja"}  # fmt: skip
    assert {path.name for path in FOLDER.iterdir()} == known
    assert (FOLDER / "model.safetensors").stat().st_size <= 8e6
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"BF16"}  # noqa: SIM118


def test_it_is_llava_onevision_of_at_most_three_million_parameters(model: Mllm) -> None:
    assert isinstance(model, Mllm)
    assert sum(parameter.numel() for parameter in model.parameters()) <= 3_000_000
    assert model.config.vision_config.model_type == "siglip_vision_model"
    assert model.config.text_config.num_hidden_layers >= 8
    assert model.config.text_config.num_attention_heads >= 4


def test_no_demo_split_holds_a_scene_it_was_trained_on() -> None:
    for size in SIZES:
        for seed in (0, 1, 2, 99):
            assert not {video.scene_seed for video in plan(seed, size)} & set(PRETRAINING_SEEDS)


def test_a_scene_of_a_demo_split_is_refused_for_training(script: ModuleType) -> None:
    with pytest.raises(AssertionError):
        script.render_scene(plan(0, "tiny")[0].scene_seed)


@pytest.mark.parametrize("text", ["A man in a red shirt", "Zażółć — 東京 🙂\n\ttab", "".join(map(chr, range(32, 127)))])
def test_any_text_survives_the_tokenizer(processor: LlavaOnevisionProcessor, text: str) -> None:
    ids = processor.tokenizer(text).input_ids
    assert processor.tokenizer.decode(ids) == text
    assert max(ids) < len(processor.tokenizer)


@pytest.mark.parametrize("word", ["yes", "no", "Yes", "No"])
def test_yes_and_no_are_one_token_each(processor: LlavaOnevisionProcessor, word: str) -> None:
    assert len(processor.tokenizer(word).input_ids) == 1


@pytest.mark.parametrize(("n_frames", "height", "width"), [(1, 120, 160), (3, 33, 57), (32, 96, 96)])
def test_videos_of_any_size_and_length_are_read(
    model: Mllm, processor: LlavaOnevisionProcessor, n_frames: int, height: int, width: int
) -> None:
    video = torch.randint(0, 256, (n_frames, 3, height, width), dtype=torch.uint8)
    inputs = processor(text=[prompt_of(processor, "What happens?")], videos=[video], return_tensors="pt")
    assert (inputs["input_ids"] == model.config.video_token_id).sum() == 16 * n_frames + 1
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()


def test_left_padded_prompts_give_the_same_as_single_ones(model: Mllm, processor: LlavaOnevisionProcessor) -> None:
    video = torch.randint(0, 256, (2, 3, 40, 60), dtype=torch.uint8)
    prompts = [prompt_of(processor, text) for text in ("Describe.", "Is there a fire? Answer yes or no.")]
    with torch.no_grad():
        both = model(**processor(text=prompts, videos=[video] * 2, padding=True, return_tensors="pt")).logits[:, -1]
        for prompt, logit in zip(prompts, both, strict=True):
            single = model(**processor(text=[prompt], videos=[video], return_tensors="pt")).logits[0, -1]
            torch.testing.assert_close(logit, single, atol=1e-4, rtol=1e-4)


def test_packed_training_gives_the_loss_of_the_ordinary_forward(
    script: ModuleType, model: Mllm, processor: LlavaOnevisionProcessor, held_out: list[object]
) -> None:
    clip = held_out[0]
    turns = [("Describe the video.", "A man walks"), ("Is there a gun?", "No")]
    with torch.no_grad():
        packed = script.forward(model, script.pixels_of([clip]), script.pack([turns], 8, processor))[0]
        expected = []
        for question, answer in turns:
            text = prompt_of(processor, question) + answer + "<|im_end|>"
            inputs = processor(text=[text], videos=[torch.from_numpy(clip.frames)], return_tensors="pt")
            count = len(processor.tokenizer(answer).input_ids) + 1
            logit = model(**inputs).logits[0, -count - 1 : -1].log_softmax(-1)
            expected.append(-logit.gather(1, inputs["input_ids"][0, -count:, None])[:, 0])
    torch.testing.assert_close(packed, torch.cat(expected), atol=1e-3, rtol=1e-3)


def test_held_out_captions_surprise_it_far_less_than_random_weights(
    script: ModuleType, model: Mllm, processor: LlavaOnevisionProcessor, held_out: list[object]
) -> None:
    torch.manual_seed(0)
    random = script.make_model(processor).eval()
    pixels = script.pixels_of(held_out)
    batch = script.pack([[(script.DESCRIBE[0], clip.sentence())] for clip in held_out], 8, processor)
    with torch.no_grad():
        loss = {name: script.forward(m, pixels, batch)[0].mean() for name, m in (("demo", model), ("random", random))}
        blind = script.forward(model, pixels.roll(7, 0), batch)[0].mean()
    assert loss["demo"] < 0.3 * loss["random"]
    assert loss["demo"] < 0.9 * blind  # another clip's pictures do not serve as well


def test_it_captions_a_scene_in_words_of_the_demo_world(
    script: ModuleType, model: Mllm, processor: LlavaOnevisionProcessor, held_out: list[object]
) -> None:
    scenes = [make_scene(seed, category, 200) for seed, category in enumerate(script.CLASSES * 3)]
    known = {word.lower().strip(".,") for scene in scenes for *_, text in scene.captions for word in text.split()}
    videos = [torch.from_numpy(clip.frames) for clip in held_out[:6]]
    inputs = processor(text=[prompt_of(processor, script.DESCRIBE[0])] * 6, videos=videos, return_tensors="pt")
    words = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    captions = processor.batch_decode(words, skip_special_tokens=True)
    for caption in captions:
        spoken = [word.lower().strip(".,") for word in caption.split()]
        assert 4 <= len(spoken) <= 40
        assert sum(word in known for word in spoken) >= 0.9 * len(spoken)
    assert len(set(captions)) > 2  # of what it sees, not one for all
