"""A tiny SAM2 of 64 pixels with random weights, saved as a checkpoint folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Sam2Config, Sam2Model, Sam2VideoConfig, Sam2VideoMaskDecoderConfig, Sam2VideoModel

SIZE, WIDTH = 64, 32  # pixels of a side, and D


def tiny_sam2(folder: Path, seed: int = 0, video: bool = False) -> Path:
    """Configuration and weights in `folder`, drawn by `seed`; video: with a memory, as Meta's checkpoints are kept."""
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "image_size": [SIZE, SIZE],
        "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2], "window_size_per_stage": [4, 4, 4, 2],
        "window_positional_embedding_background_size": [4, 4], "global_attention_blocks": [3],
    }  # fmt: skip
    parts: dict[str, Any] = {
        "vision_config": {
            "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8], "fpn_hidden_size": WIDTH,
            "backbone_feature_sizes": [[SIZE // stride] * 2 for stride in (4, 8, 16)],
        },
        "prompt_encoder_config": {"hidden_size": WIDTH, "image_size": SIZE, "mask_input_channels": 8},
        "mask_decoder_config": {
            "hidden_size": WIDTH, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 24,
        },
    }  # fmt: skip
    torch.manual_seed(seed)
    model: Any = Sam2VideoModel(_video_config(parts)) if video else Sam2Model(Sam2Config(**parts))
    with torch.no_grad():
        for parameter in model.parameters():  # as initialised, all prompts would look alike, and some parts are zero
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return folder


def _video_config(parts: dict[str, Any]) -> Sam2VideoConfig:
    decoder: Any = Sam2VideoMaskDecoderConfig
    parts = {**parts, "mask_decoder_config": decoder(**parts["mask_decoder_config"])}  # 5.17 takes a dict for another
    return Sam2VideoConfig(
        **parts, image_size=SIZE, memory_attention_hidden_size=WIDTH, memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=16, memory_attention_rope_feat_sizes=[SIZE // 16] * 2,
        memory_encoder_hidden_size=WIDTH, memory_encoder_output_channels=8, mask_downsampler_embed_dim=WIDTH,
        memory_fuser_embed_dim=WIDTH, memory_fuser_intermediate_dim=16, memory_fuser_num_layers=1,
    )  # fmt: skip
