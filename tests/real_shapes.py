"""The published 7B and 8B models' configurations and processors, without weights: what `Mllm` fills by chance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    GotOcr2ImageProcessor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    InternVLVisionConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    Qwen2Config,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Sam2Config,
    SiglipVisionConfig,
)

from tests.tiny_mllms import make_template, make_tokenizer

QWEN_7B = {  # Qwen2-7B and Qwen2.5-7B
    "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "max_position_embeddings": 32768, "tie_word_embeddings": False,
}  # fmt: skip


def write_shape(folder: Path, name: str, **text: Any) -> Path:
    """Configuration and processor of one of the names below in `folder`; `text`: other values."""
    families = {"LLaVA-OneVision-7B": "llava_onevision", "InternVL3-8B": "internvl", "Qwen2-VL-7B": "qwen2_vl"}
    family = families[name]
    tokenizer = make_tokenizer(family)
    if family == "qwen2_vl":
        return _qwen2_vl(folder, tokenizer, text)
    ids = {word: tokenizer.convert_tokens_to_ids(word) for word in ("<image>", "<video>", "<IMG_CONTEXT>")}
    vocabulary = {"llava_onevision": 152000, "internvl": 151674}[family]
    decoder = Qwen2Config(vocab_size=vocabulary, **{**QWEN_7B, **text})
    config: Any
    processor: Any
    if family == "llava_onevision":
        vision = SiglipVisionConfig(
            hidden_size=1152, intermediate_size=4304, num_hidden_layers=26, num_attention_heads=16, image_size=384,
            patch_size=14, vision_use_head=False,
        )  # fmt: skip
        config = LlavaOnevisionConfig(
            vision_config=vision, text_config=decoder, image_token_id=ids["<image>"], video_token_id=ids["<video>"],
            vision_feature_layer=-1, vision_feature_select_strategy="full", image_grid_pinpoints=[[384, 384]],
            tie_word_embeddings=False, architectures=["LlavaOnevisionForConditionalGeneration"],
        )  # fmt: skip
        square = {"height": 384, "width": 384}
        processor = LlavaOnevisionProcessor(
            LlavaOnevisionImageProcessor(size=square), tokenizer, LlavaOnevisionVideoProcessor(size=square),
            num_image_tokens=729, vision_feature_select_strategy="full", chat_template=make_template(family),
        )  # fmt: skip
    else:
        vision = InternVLVisionConfig()  # InternViT-300M at 448 pixels is its default
        config = InternVLConfig(
            vision_config=vision, text_config=decoder, image_token_id=ids["<IMG_CONTEXT>"],
            tie_word_embeddings=False, architectures=["InternVLForConditionalGeneration"],
        )  # fmt: skip
        square = {"height": 448, "width": 448}
        images, videos = GotOcr2ImageProcessor(size=square), InternVLVideoProcessor(size=square)
        processor = InternVLProcessor(
            images, tokenizer, videos, image_seq_length=256, chat_template=make_template(family)
        )
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _qwen2_vl(folder: Path, tokenizer: Any, text: dict[str, Any]) -> Path:
    rope = {"rope_type": "default", "mrope_section": [16, 24, 24], "rope_theta": 1000000.0}
    names = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    start, end, image, video = (tokenizer.convert_tokens_to_ids(word) for word in names)
    vision = {"embed_dim": 1280, "hidden_size": 3584, "depth": 32, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
    config = Qwen2VLConfig(
        text_config={**QWEN_7B, "vocab_size": 152064, "rope_parameters": rope, **text}, vision_config=vision,
        vision_start_token_id=start, vision_end_token_id=end, image_token_id=image, video_token_id=video,
        tie_word_embeddings=False, architectures=["Qwen2VLForConditionalGeneration"],
    )  # fmt: skip
    config.save_pretrained(folder)
    images, videos = Qwen2VLImageProcessor(), Qwen2VLVideoProcessor()
    Qwen2VLProcessor(images, tokenizer, videos, chat_template=make_template("qwen2_vl")).save_pretrained(folder)
    return folder


def write_sam2_small(folder: Path) -> Path:
    """Configuration of SAM2.1-Hiera-Small at 1024 pixels in `folder`: as transformers' default but for depth."""
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 96, "blocks_per_stage": [1, 2, 11, 2],
        "global_attention_blocks": [7, 10, 13], "embed_dim_per_stage": [96, 192, 384, 768],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
    }  # fmt: skip
    config = Sam2Config(vision_config={"backbone_config": backbone, "backbone_channel_list": [768, 384, 192, 96]})
    config.save_pretrained(folder)
    return folder
