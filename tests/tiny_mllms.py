"""Tiny models of every family with random weights, saved as a checkpoint folder: what `Mllm` loads by its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    SiglipVisionConfig,
)

FAMILIES = ("llava_onevision", "internvl", "qwen2_5_vl", "qwen2_vl")
PLACEHOLDER = {
    "llava_onevision": "<video>",
    "internvl": "<video>\n",
    "qwen2_5_vl": "<|vision_start|><|video_pad|><|vision_end|>",
    "qwen2_vl": "<|vision_start|><|video_pad|><|vision_end|>",
}
SPECIAL = {
    "llava_onevision": ["<image>", "<video>"],
    "internvl": ["<img>", "</img>", "<IMG_CONTEXT>", "<video>"],
    "qwen2_5_vl": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    "qwen2_vl": ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
}


def write_mllm(folder: Path, family: str, seed: int = 1, layers: int = 4, width: int = 32, **text: Any) -> Path:
    """A model of `family` with its processor in `folder`, drawn by `seed`; `text`: of the language model's config."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(family)
    decoder = {
        "vocab_size": 300, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.3,
        "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
        "tie_word_embeddings": False, **text,
    }  # fmt: skip
    model = {"llava_onevision": _llava, "internvl": _internvl, "qwen2_5_vl": _qwen, "qwen2_vl": _qwen}[family](
        family, decoder, tokenizer
    )
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(folder)
    _processor(family, tokenizer).save_pretrained(folder)
    return folder


def make_tokenizer(family: str) -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    plain.add_special_tokens([AddedToken(text) for text in ("<|pad|>", "<|im_end|>", *SPECIAL[family])])
    named = {}
    if family == "internvl":
        named = dict(
            zip(
                ("start_image_token", "end_image_token", "context_image_token", "video_token"),
                SPECIAL[family],
                strict=True,
            )
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        padding_side="left",
        extra_special_tokens=named,
    )


def make_template(family: str) -> str:
    return (
        "{% for message in messages %}{{ message['role'] }}: {% for part in message['content'] %}"
        "{% if part['type'] == 'video' %}" + PLACEHOLDER[family] + "{% else %}{{ part['text'] }}"
        "{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
    )


def _processor(family: str, tokenizer: PreTrainedTokenizerFast) -> Any:
    template = make_template(family)
    square = {"height": 28, "width": 28}
    if family == "llava_onevision":
        return LlavaOnevisionProcessor(
            LlavaOnevisionImageProcessor(size=square, image_grid_pinpoints=[[28, 28]]),
            tokenizer,
            LlavaOnevisionVideoProcessor(size=square),
            num_image_tokens=16,
            vision_feature_select_strategy="full",
            chat_template=template,
        )
    if family == "internvl":
        images, videos = GotOcr2ImageProcessor(size=square), InternVLVideoProcessor(size=square)
        return InternVLProcessor(images, tokenizer, videos, image_seq_length=4, chat_template=template)
    size = {"shortest_edge": 28 * 28, "longest_edge": 4 * 28 * 28}
    videos = Qwen2VLVideoProcessor(size=size, cap_pixels_per_frame=False)
    kind = Qwen2_5_VLProcessor if family == "qwen2_5_vl" else Qwen2VLProcessor
    return kind(Qwen2VLImageProcessor(size=size), tokenizer, videos, chat_template=template)


def _llava(family: str, decoder: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Any:
    vision = SiglipVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=7
    )
    config = LlavaOnevisionConfig(
        vision_config=vision,
        text_config=Qwen2Config(**decoder),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_id=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=[[28, 28]],
        tie_word_embeddings=False,
    )
    return LlavaOnevisionForConditionalGeneration(config)


def _internvl(family: str, decoder: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Any:
    vision = InternVLVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=[28, 28],
        patch_size=[7, 7],
    )  # fmt: skip
    config = InternVLConfig(
        vision_config=vision,
        text_config=Qwen2Config(**decoder),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    return InternVLForConditionalGeneration(config)


def _qwen(family: str, decoder: dict[str, Any], tokenizer: PreTrainedTokenizerFast) -> Any:
    width = decoder["hidden_size"]
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}
    if family == "qwen2_5_vl":
        vision |= {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": width, "fullatt_block_indexes": [1]}
    else:
        vision |= {"embed_dim": 16, "hidden_size": width, "mlp_ratio": 2}
    sections = {"rope_type": "default", "type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    ids = {
        name: tokenizer.convert_tokens_to_ids(text)
        for name, text in (
            ("image_token_id", "<|image_pad|>"),
            ("video_token_id", "<|video_pad|>"),
            ("vision_start_token_id", "<|vision_start|>"),
            ("vision_end_token_id", "<|vision_end|>"),
        )
    }
    kinds = {
        "qwen2_5_vl": (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration),
        "qwen2_vl": (Qwen2VLConfig, Qwen2VLForConditionalGeneration),
    }
    make_config, make_model = kinds[family]
    text = {**decoder, "rope_parameters": sections}
    return make_model(make_config(vision_config=vision, text_config=text, tie_word_embeddings=False, **ids))


def write_clip_tower(folder: Path) -> Path:
    """A checkpoint that is no MLLM."""
    from transformers import CLIPVisionModel

    config = CLIPVisionConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    CLIPVisionModel(config).save_pretrained(folder)
    return folder
