"""Converts InternVL checkpoints that ship remote code (InternVL2.5-8B, Holmes-VAU-2B) to transformers' own class.

    python -m vigil.internvl_conversion SOURCE OUT

SOURCE is the folder as downloaded from the hub, OUT a new one; give OUT wherever a model's name is asked for. No code
and no pickle of SOURCE is opened: its weights are renamed and cut apart, and LoRA beside them merged in. A conversion
that is killed leaves no OUT, only a hidden folder beside it, to be deleted.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vigil.internvl_processor import END_OF_TURN, NAMED, image_seq_length, read_json, read_processor
from vigil.internvl_tensors import Shards

TEXT = {  # architecture of the source's language model -> transformers' model type
    "InternLM2ForCausalLM": "llama",  # the same mathematics: attention's weights are stored fused, all have other names
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_SHAPE = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps"),
)
_OPTIONAL = (
    *("hidden_act", "initializer_range", "attention_dropout", "attention_bias", "mlp_bias", "head_dim"),
    *("use_sliding_window", "sliding_window", "max_window_layers", "layer_types", "tie_word_embeddings"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
_VISION_SHAPE = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "image_size", "patch_size"),
)
_QK_NORM_EPS = 1e-6  # fixed in transformers' InternVLVisionAttention; the remote code takes layer_norm_eps


def convert(
    source: Path,
    out: Path,
    leave_out: Sequence[str] = (),
    progress: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Write the checkpoint of folder `source` to the new folder `out`; returns the names of tensors left out.

    leave_out: beginnings of names of further tensors that are left out on purpose; a tensor that is neither mapped nor
    left out is an error. progress: told a line per step. All is written beside `out` and moved there at the end, so
    that `out` is whole or not there. Memory: one file of weights as written, 2 GiB.
    Raises ValueError for what has no native counterpart, by name, and FileNotFoundError for files that are missing.
    Source: modeling_internvl_chat.py, modeling_internlm2.py and modeling_intern_vit.py of InternVL.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there and not empty; name a new folder")
    config = read_json(source / "config.json")
    if not config:
        raise FileNotFoundError(f"{source}: no config.json; give the folder of a checkpoint as downloaded from the hub")
    check(config)
    processor = read_processor(source, config)
    image_token_id = processor.tokenizer.convert_tokens_to_ids(NAMED["context_image_token"])
    if image_token_id >= config["llm_config"]["vocab_size"]:
        raise ValueError(
            f"{source}: {NAMED['context_image_token']} has id {image_token_id}, the embedding has "
            f"{config['llm_config']['vocab_size']} rows; take tokenizer and config.json from one checkpoint"
        )
    native = native_config(config, image_token_id)
    shards = Shards(source, config, leave_out)
    shards.check(_expected(native))
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        native.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        _generation(source, native, processor.tokenizer).save_pretrained(unfinished)
        shards.write(unfinished, progress)
        unfinished.chmod(0o755)  # mkdtemp's is for its owner alone
        unfinished.replace(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return shards.left_out


def check(config: Mapping[str, Any]) -> None:
    """Raises ValueError for the first thing in a config.json that transformers' InternVL has no counterpart of."""
    if config.get("model_type") != "internvl_chat":
        native = " It is native already: use it as it is." if config.get("model_type") == "internvl" else ""
        raise ValueError(
            f"config.json: model_type is {config.get('model_type')!r}; expected 'internvl_chat', the InternVL "
            f"checkpoints that ship remote code.{native}"
        )
    text, vision = config.get("llm_config") or {}, config.get("vision_config") or {}
    architecture = (text.get("architectures") or [None])[0]
    if architecture not in TEXT:
        raise ValueError(
            f"config.json: the language model is {architecture}; converted are {', '.join(TEXT)}, of which "
            "transformers computes the same without remote code"
        )
    absent = [f"llm_config.{key}" for key in _SHAPE if text.get(key) is None]
    absent += [f"vision_config.{key}" for key in _VISION_SHAPE if vision.get(key) is None]
    if absent:
        raise ValueError(f"config.json says nothing of {', '.join(absent)}; take the file from the hub again")
    norm, eps = vision.get("norm_type", "rms_norm"), vision.get("layer_norm_eps", 1e-6)
    shuffle = config.get("ps_version", "v1")  # the remote configuration's default
    rope = _rope(text)["rope_type"]
    for wrong, found, why in (
        (shuffle != "v2", f"ps_version {shuffle!r}", "transformers shuffles pixels as 'v2' does, 'v1' transposes them"),
        (norm not in {"layer_norm", "rms_norm"}, f"norm_type {norm!r}", "expected 'layer_norm' or 'rms_norm'"),
        (
            vision.get("qk_normalization", True) and eps != _QK_NORM_EPS,
            f"qk_normalization with layer_norm_eps {eps}",
            f"transformers normalises queries and keys with {_QK_NORM_EPS}",
        ),
        (
            architecture == "InternLM2ForCausalLM" and rope not in {"default", "linear", "dynamic"},
            f"rope_scaling of type {rope!r}",
            "InternLM2 knows 'linear' and 'dynamic'",
        ),
        (
            bool(config.get("quantization_config") or text.get("quantization_config")),
            "quantised weights",
            "take the checkpoint they were made from",
        ),
    ):
        if wrong:
            raise ValueError(f"config.json: {found}, which has no native counterpart: {why}")


def native_config(config: Mapping[str, Any], image_token_id: int) -> Any:
    """The InternVLConfig of a checked config.json."""
    from transformers import AutoConfig, InternVLConfig, InternVLVisionConfig  # seconds

    text, vision = config["llm_config"], config["vision_config"]
    architecture = text["architectures"][0]
    facts = {key: text[key] for key in (*_SHAPE, *_OPTIONAL) if text.get(key) is not None}
    if architecture == "InternLM2ForCausalLM":
        facts |= {"attention_bias": text.get("bias", True), "mlp_bias": False}
    tied = bool(text.get("tie_word_embeddings", False))
    dtype = config.get("torch_dtype") or config.get("dtype") or text.get("torch_dtype") or text.get("dtype")
    drop = vision.get("dropout", 0.0)
    return InternVLConfig(
        text_config=AutoConfig.for_model(TEXT[architecture], **facts, rope_parameters=_rope(text)),
        vision_config=InternVLVisionConfig(
            **{key: vision[key] for key in _VISION_SHAPE},
            num_channels=vision.get("num_channels", 3),
            hidden_act=vision.get("hidden_act", "gelu"),
            attention_bias=vision.get("qkv_bias", False),
            use_qk_norm=vision.get("qk_normalization", True),
            norm_type=vision.get("norm_type", "rms_norm"),
            layer_norm_eps=vision.get("layer_norm_eps", 1e-6),
            layer_scale_init_value=vision.get("initializer_factor", 0.1),
            attention_dropout=vision.get("attention_dropout", 0.0),
            projection_dropout=drop,
            initializer_range=vision.get("initializer_range", 0.02),
        ),
        image_token_id=image_token_id,
        image_seq_length=image_seq_length(config),
        downsample_ratio=config.get("downsample_ratio", 0.5),
        vision_feature_layer=config.get("select_layer", -1),
        tie_word_embeddings=tied,  # transformers' default would tie them
        architectures=["InternVLForConditionalGeneration"],
        **({"dtype": dtype} if dtype else {}),
    )


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary position parameters as transformers 5 spells them."""
    scaling = dict(text.get("rope_scaling") or text.get("rope_parameters") or {})
    kind = scaling.pop("type", None)
    return {
        "rope_theta": text.get("rope_theta", 10000.0),
        **scaling,
        "rope_type": scaling.get("rope_type") or kind or "default",
    }


def _expected(native: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that the native model needs; it is built without memory for any of them."""
    import torch
    from transformers import InternVLForConditionalGeneration

    with torch.device("meta"):
        model = InternVLForConditionalGeneration(native)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if native.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes


def _generation(source: Path, native: Any, tokenizer: Any) -> Any:
    """A GenerationConfig that stops at the end of a turn, and wherever the source stops."""
    from transformers import GenerationConfig

    said = read_json(source / "generation_config.json").get("eos_token_id")
    stops = {tokenizer.convert_tokens_to_ids(END_OF_TURN), native.text_config.eos_token_id, tokenizer.eos_token_id}
    stops |= set(said) if isinstance(said, list) else {said}
    known = sorted(stop for stop in stops if stop is not None)
    return GenerationConfig(eos_token_id=known, pad_token_id=tokenizer.pad_token_id)  # type: ignore[no-untyped-call]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: converts, and says what was written and what was left out."""
    parser = argparse.ArgumentParser(prog="python -m vigil.internvl_conversion", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("source", type=Path, help="folder of the checkpoint as downloaded from the hub")
    parser.add_argument("out", type=Path, help="new folder of the native checkpoint")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="NAME", help="beginnings of names of tensors that are not wanted"
    )
    given = parser.parse_args(arguments)
    try:
        left_out = convert(given.source, given.out, given.leave_out, print)
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"{parser.prog}: {error}") from error
    if left_out:
        print(f"left out on purpose: {', '.join(left_out)}")
    print(f"{given.out}: a native InternVL checkpoint")


if __name__ == "__main__":
    main()
