"""The families of MLLMs: what differs from one to the next, and how a checkpoint of each is opened."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from vigil.pretrained import find_pretrained

BAR_BYTES = 1e9  # a model from this size on shows how its loading goes


@dataclass(frozen=True)
class Family:
    """What differs from one family to the next.

    placeholder: the configuration's field that holds the id standing for a visual token. axes: 3 where positions count
    time, height and width (M-RoPE), else 1. counts_seconds: whether those of time are seconds, not frames.
    """

    example: str
    placeholder: str
    axes: int = 1
    counts_seconds: bool = False


FAMILIES = {
    "llava_onevision": Family("llava-hf/llava-onevision-qwen2-7b-ov-hf", "video_token_id"),
    "internvl": Family("OpenGVLab/InternVL3-8B-hf", "image_token_id"),  # a video is a row of images to it
    "qwen2_5_vl": Family("Qwen/Qwen2.5-VL-7B-Instruct", "video_token_id", axes=3, counts_seconds=True),
    "qwen2_vl": Family("Qwen/Qwen2-VL-7B-Instruct", "video_token_id", axes=3),
}


def open_mllm(name: str, weights: bool = True) -> tuple[Path, Any, Family]:
    """Folder, configuration and family of a model, none of its weights read. Raises ValueError for another family."""
    folder = find_pretrained(name, weights)
    try:
        said = json.loads((folder / "config.json").read_text())
        kind = said.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / 'config.json'}: no configuration of a model ({error}); fetch it again") from error
    if kind == "internvl_chat":
        raise ValueError(
            f"{name}: it ships code of its own, which is never run here; take the -hf checkpoint where there is one "
            f"({FAMILIES['internvl'].example}), or convert it: python -m vigil.internvl_conversion {folder} OUT"
        )
    if kind not in FAMILIES:
        known = ", ".join(f"{kind} ({family.example})" for kind, family in FAMILIES.items())
        raise ValueError(f"{name}: its config.json says model_type {kind!r}; expected one of {known}")
    from transformers import AutoConfig

    return folder, AutoConfig.from_pretrained(folder, trust_remote_code=False), FAMILIES[kind]


def load_processor(folder: Path) -> Any:
    """Tokenizer, chat template and preprocessing. Raises ValueError where any of them is missing or unsound."""
    import transformers

    kind: Any = transformers.AutoProcessor
    try:
        processor = kind.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        processor.tokenizer.padding_side = "left"
        template, videos = processor.chat_template, processor.video_processor
    except (OSError, ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        why = " ".join(str(error).split())[:300]
        raise ValueError(
            f"{folder}: its processor cannot be loaded ({why}); tokenizer, chat template and the preprocessor's "
            "json files of the model are expected beside its weights"
        ) from error
    if not template:
        raise ValueError(f"{folder}: no chat template (chat_template.jinja); the model's own is expected")
    if getattr(videos, "cap_pixels_per_frame", False) is None:
        videos.cap_pixels_per_frame = True  # as qwen-vl-utils does; left unsaid, the releases of transformers differ
    return processor


def load_mllm(
    folder: Path, dtype: str, attention: str, device_map: str | dict[str, Any] | None = None, random: bool = False
) -> Any:
    """The model in memory, every weight of the checkpoint's, or, for `random`, drawn by a fixed seed.

    Raises ValueError for weights that do not fit the configuration, which transformers would fill in by chance.
    """
    import transformers

    kind: Any = transformers.AutoModelForImageTextToText
    logging: Any = transformers.utils.logging
    settings: dict[str, Any] = {"dtype": dtype, "attn_implementation": attention}
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    shown = logging.is_progress_bar_enabled()
    try:
        if size < BAR_BYTES:
            logging.disable_progress_bar()
        if random:
            config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
            settings["dtype"] = config.dtype if dtype == "auto" else getattr(torch, dtype)
            with torch.random.fork_rng(), torch.device("cpu"):  # every device would draw others
                torch.manual_seed(0)
                model = kind.from_config(config, **settings)
            return model.to(device_map) if isinstance(device_map, str) and device_map != "auto" else model
        model, report = kind.from_pretrained(
            folder,
            device_map=device_map,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **settings,
        )
    except (RuntimeError, ImportError, ValueError, OSError, SafetensorError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"{folder}: its weights cannot be loaded: {text[:500]}") from error
    finally:
        if shown:
            logging.enable_progress_bar()
    missing, other = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing:
        raise ValueError(
            f"{folder}: weights of another model: {len(missing)} tensors of {type(model).__name__} are missing, the "
            f"first {missing[0]}" + (f"; {len(other)} others are there, the first {other[0]}" if other else "")
        )
    return model
