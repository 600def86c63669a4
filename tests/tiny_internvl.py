"""Tiny InternVL checkpoints in the layout of those that ship remote code: config, random weights, tokenizer files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor
from transformers.convert_slow_tokenizer import import_protobuf

IMAGE_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
CHAT_TOKENS = ["<|im_end|>", "<|im_start|>"]  # take the ids of unused pieces in InternLM2
LETTERS = "▁etaoinshrdlucmfwypvbgkjqxz.,ABI01"
WORDS = ["th", "he", "in", "the", "▁the", "an", "and", "▁and", "er", "on", "▁s", "ing", "▁▁", "▁▁▁▁", "is", "▁is", "at"]
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def pieces(words: list[str] = WORDS) -> list[tuple[str, float, int]]:
    """Piece, score and type of a vocabulary like InternLM2's: bytes, merged pieces, letters, two unused pieces."""
    listed = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    listed += [(f"<0x{value:02X}>", 0.0, 6) for value in range(256)]
    listed += [(piece, -float(rank), 1) for rank, piece in enumerate([*words, *LETTERS])]
    return [*listed, ("[UNUSED_TOKEN_145]", 0.0, 1), ("[UNUSED_TOKEN_146]", 0.0, 1)]


def write_sentencepiece(
    path: Path, listed: list[tuple[str, float, int]], model_type: int = 2, **normalizer: Any
) -> None:
    """A sentencepiece model, serialised as sentencepiece does; normalizer: fields of its NormalizerSpec."""
    proto = import_protobuf().ModelProto()
    for piece, score, kind in listed:
        proto.pieces.add(piece=piece, score=score, type=kind)
    trainer = proto.trainer_spec
    trainer.model_type, trainer.byte_fallback, trainer.unk_id, trainer.unk_piece = model_type, True, 0, "<unk>"
    trainer.bos_id, trainer.eos_id, trainer.pad_id, trainer.vocab_size = 1, 2, -1, len(listed)
    settings = {"name": "identity", "add_dummy_prefix": False, "remove_extra_whitespaces": False} | normalizer
    for key, value in settings.items():
        setattr(proto.normalizer_spec, key, value)
    path.write_bytes(proto.SerializeToString())


def write_internlm2_tokenizer(folder: Path) -> int:
    """tokenizer.model with InternLM2's manner of added tokens; returns the number of ids."""
    listed = pieces()
    write_sentencepiece(folder / "tokenizer.model", listed)
    first = len(listed) - len(CHAT_TOKENS)
    added = {**{0: "<unk>", 1: "<s>", 2: "</s>"}, **dict(enumerate(CHAT_TOKENS + IMAGE_TOKENS, first))}
    _write_settings(folder, "InternLM2Tokenizer", added, bos_token="<s>", eos_token="</s>", pad_token="</s>")
    (folder / "added_tokens.json").write_text(
        json.dumps(dict(zip(IMAGE_TOKENS, range(len(listed), 999), strict=False)))
    )
    return len(listed) + len(IMAGE_TOKENS)


def write_qwen2_tokenizer(folder: Path) -> int:
    """vocab.json and merges.txt with Qwen2's manner of added tokens; returns the number of ids."""
    vocabulary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "the", "Ġthe", "in"]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\nt h\nth e\nĠ the\ni n\n")
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *IMAGE_TOKENS]
    added = dict(enumerate(tokens, len(vocabulary)))
    _write_settings(folder, "Qwen2Tokenizer", added, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    return len(vocabulary) + len(tokens)


def _write_settings(folder: Path, kind: str, added: dict[int, str], **names: str) -> None:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    decoder = {str(index): {"content": content, **flags} for index, content in added.items()}
    remote = {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}
    settings = {"tokenizer_class": kind, "added_tokens_decoder": decoder, "auto_map": remote, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def tiny_config(
    architecture: str, vocabulary: int, text: Any = None, vision: Any = None, **other: Any
) -> dict[str, Any]:
    """A config.json as the remote code writes it."""
    sizes = {"vocab_size": vocabulary, "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5}
    says: dict[str, Any] = {"rope_theta": 1e4, "torch_dtype": "float32", "bad_words_ids": None, "top_k": 50}
    if architecture == "InternLM2ForCausalLM":
        says |= {
            "bias": False,
            "rope_scaling": {"type": "dynamic", "factor": 2.0},
            "bos_token_id": 1,
            "eos_token_id": 2,
        }
    if architecture == "Qwen3ForCausalLM":
        says["head_dim"] = 12  # not the hidden size over the heads
    seen = {"image_size": 28, "patch_size": 7, "norm_type": "layer_norm", "qk_normalization": False, "qkv_bias": True}
    return {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "llm_config": {"architectures": [architecture], "hidden_act": "silu", **TEXT, **sizes, **says, **(text or {})},
        "vision_config": {"hidden_act": "gelu", "layer_norm_eps": 1e-6, **VISION, **seen, **(vision or {})},
        "template": "internvl2_5",
        **{"downsample_ratio": 0.5, "dynamic_image_size": True, "force_image_size": 28, "max_dynamic_patch": 12},
        **{"ps_version": "v2", "select_layer": -1, "use_llm_lora": 0, "use_backbone_lora": 0, "torch_dtype": "float32"},
        **other,
    }


def tiny_state(config: dict[str, Any]) -> dict[str, Tensor]:
    """Random weights under the remote code's names, far enough from zero and one that each of them is felt."""
    torch.manual_seed(0)
    text, vision = config["llm_config"], config["vision_config"]
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int, bias: bool = False) -> None:
        state[f"{name}.weight"] = (
            torch.randn(shape) / shape[-1] ** 0.5 if len(shape) > 1 else 1 + 0.2 * torch.randn(shape)
        )
        if bias:
            state[f"{name}.bias"] = 0.2 * torch.randn(shape[0])

    d, wide, patches = vision["hidden_size"], vision["intermediate_size"], vision["image_size"] // vision["patch_size"]
    layer_norm = vision["norm_type"] == "layer_norm"
    state["vision_model.embeddings.class_embedding"] = torch.randn(1, 1, d)
    state["vision_model.embeddings.position_embedding"] = torch.randn(1, patches**2 + 1, d)
    add("vision_model.embeddings.patch_embedding", d, 3, vision["patch_size"], vision["patch_size"], bias=True)
    for index in range(vision["num_hidden_layers"]):
        layer = f"vision_model.encoder.layers.{index}"
        for name in ("ls1", "ls2"):
            state[f"{layer}.{name}"] = 1 + 0.2 * torch.randn(d)
        for name in ("norm1", "norm2"):
            add(f"{layer}.{name}", d, bias=layer_norm)
        add(f"{layer}.attn.qkv", 3 * d, d, bias=vision["qkv_bias"])
        add(f"{layer}.attn.proj", d, d, bias=True)
        if vision["qk_normalization"]:
            add(f"{layer}.attn.q_norm", d)
            add(f"{layer}.attn.k_norm", d)
        add(f"{layer}.mlp.fc1", wide, d, bias=True)
        add(f"{layer}.mlp.fc2", d, wide, bias=True)
    h = text["hidden_size"]
    add("mlp1.0", 4 * d, bias=True)
    add("mlp1.1", h, 4 * d, bias=True)
    add("mlp1.3", h, h, bias=True)
    (_add_internlm2 if text["architectures"] == ["InternLM2ForCausalLM"] else _add_llama)(add, text)
    return state


def _add_internlm2(add: Any, text: dict[str, Any]) -> None:
    h, wide, heads, groups = (
        text[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    add("language_model.model.tok_embeddings", text["vocab_size"], h)
    for index in range(text["num_hidden_layers"]):
        layer = f"language_model.model.layers.{index}"
        add(f"{layer}.attention.wqkv", (heads + 2 * groups) * h // heads, h, bias=text["bias"])
        add(f"{layer}.attention.wo", h, h, bias=text["bias"])
        add(f"{layer}.feed_forward.w1", wide, h)
        add(f"{layer}.feed_forward.w3", wide, h)
        add(f"{layer}.feed_forward.w2", h, wide)
        add(f"{layer}.attention_norm", h)
        add(f"{layer}.ffn_norm", h)
    add("language_model.model.norm", h)
    add("language_model.output", text["vocab_size"], h)


def _add_llama(add: Any, text: dict[str, Any]) -> None:
    h, wide, heads, groups = (
        text[k] for k in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    )
    width, qwen2 = text.get("head_dim", h // heads), text["architectures"] == ["Qwen2ForCausalLM"]
    add("language_model.model.embed_tokens", text["vocab_size"], h)
    for index in range(text["num_hidden_layers"]):
        layer = f"language_model.model.layers.{index}"
        for name, count in (("q_proj", heads), ("k_proj", groups), ("v_proj", groups)):
            add(f"{layer}.self_attn.{name}", count * width, h, bias=qwen2)
        add(f"{layer}.self_attn.o_proj", h, heads * width)
        if text["architectures"] == ["Qwen3ForCausalLM"]:
            add(f"{layer}.self_attn.q_norm", width)
            add(f"{layer}.self_attn.k_norm", width)
        add(f"{layer}.mlp.gate_proj", wide, h)
        add(f"{layer}.mlp.up_proj", wide, h)
        add(f"{layer}.mlp.down_proj", h, wide)
        add(f"{layer}.input_layernorm", h)
        add(f"{layer}.post_attention_layernorm", h)
    add("language_model.model.norm", h)
    if not text.get("tie_word_embeddings"):
        add("language_model.lm_head", text["vocab_size"], h)


def write_source(folder: Path, config: dict[str, Any], state: dict[str, Tensor], n_shards: int = 1) -> None:
    """config.json and the weights, dealt out over `n_shards` files; the tokenizer's files are written before."""
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [5, 6]}))
    if n_shards == 1:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    where = {}
    for number in range(n_shards):
        names = sorted(state)[number::n_shards]
        file = f"model-{number + 1:05}-of-{n_shards:05}.safetensors"
        save_file({name: state[name] for name in names}, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))


def make_source(
    folder: Path,
    architecture: str = "InternLM2ForCausalLM",
    n_shards: int = 1,
    dtype: torch.dtype = torch.float32,
    **changes: Any,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A whole checkpoint in a new folder; changes: of its config. Returns config and weights."""
    folder.mkdir()
    tokens = write_internlm2_tokenizer if architecture == "InternLM2ForCausalLM" else write_qwen2_tokenizer
    config = tiny_config(architecture, tokens(folder), **changes)
    state = {name: tensor.to(dtype) for name, tensor in tiny_state(config).items()}
    write_source(folder, config, state, n_shards)
    return config, state
