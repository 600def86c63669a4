"""A tiny CLIP with random weights and a tokenizer of single bytes, saved as a checkpoint folder."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

CONTEXT = 90  # tokens of a text, its beginning and end among them


def write_clip(folder: Path, seed: int = 0, projection: int = 12) -> Path:
    """Both towers, the tokenizer and the image processor in `folder`, drawn by `seed`."""
    alphabet = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<|startoftext|>", "<|endoftext|>", "<|pad|>"]
    tokenizer.add_special_tokens(special)
    ids = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{special[0]} $A {special[1]}", special_tokens=ids)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1], pad_token=special[2]
    )
    shape = {"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "projection_dim": projection}
    text = {"hidden_size": 16, "vocab_size": 259, "max_position_embeddings": CONTEXT, "bos_token_id": ids[0][1]}
    text |= {"eos_token_id": ids[1][1], "pad_token_id": ids[2][1], **shape}
    vision = {"hidden_size": 20, "image_size": 16, "patch_size": 8, **shape}
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=projection))
    with torch.no_grad():
        for parameter in model.parameters():  # as initialised, all pictures would look alike
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
        model.logit_scale.fill_(1.5)
    model.save_pretrained(folder)
    fast.save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder
