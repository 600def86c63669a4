"""LoRA in an MLLM's language model, and its export in peft's own format, beside what else was trained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vigil.mllm import Mllm

TARGETS = r".*language_model\..*\.(q_proj|v_proj)"  # the names alone would also hit the vision tower
ABOUT, WEIGHTS, BRIDGE = "vigil.json", "adapter_model.safetensors", "bridge.safetensors"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters of the query and value projections; alpha / rank scales what they add.

    The "dual encoder" paper, Sec. 3.2, names the projections; rank, alpha and dropout stand nowhere and are ours.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.05

    def __post_init__(self) -> None:
        if self.rank < 1 or self.alpha <= 0 or not 0 <= self.dropout < 1:
            raise ValueError(f"{self}: a rank of at least 1, an alpha above 0 and a dropout in [0, 1) are expected")


def add_lora(mllm: Mllm, lora: Lora) -> PeftModel:
    """The model with adapters in it, in float32; peft's wrapper of it, which can save them."""
    mllm.load()
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=TARGETS, bias="none"
    )
    wrapped = get_peft_model(mllm.model, config)
    wrapped.peft_config["default"].base_model_name_or_path = mllm.name
    return wrapped


def export(
    folder: Path, mllm: Mllm, adapter: PeftModel | None, bridge: nn.Module | None, about: dict[str, Any]
) -> None:
    """Write `folder`: the adapters as peft reads them, the bridge's tensors, and what they were made for; bfloat16.

    `PeftModel.from_pretrained(base, folder).merge_and_unload()` is then the fitted language model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapter is not None:
        state = {name: value.bfloat16() for name, value in adapter.state_dict().items() if "lora_" in name}
        adapter.save_pretrained(str(folder), state_dict=state)
        (folder / "README.md").unlink(missing_ok=True)  # a form to fill in
    if bridge is not None:
        tensors = {name: value.detach().cpu().bfloat16().contiguous() for name, value in bridge.state_dict().items()}
        save_file(tensors, folder / BRIDGE)
    made_for = {"backbone": mllm.name, "files": mllm.key["files"]}
    (folder / ABOUT).write_text(json.dumps(made_for | about, indent=1, default=str) + "\n")


def read_export(
    folder: Path, mllm: Mllm, adapter: PeftModel | None, bridge: nn.Module | None, made_with: dict[str, Any]
) -> dict[str, Any]:
    """Put an exported folder's weights into adapters and bridge; what its vigil.json says.

    made_with: settings that must be the same there. Raises FileNotFoundError where a part is missing, ValueError where
    it was made for another backbone, with other settings, or does not say what it was fitted on.
    """
    if not (folder / ABOUT).is_file():
        raise FileNotFoundError(
            f"{folder}: no {ABOUT}, which says what this adapter was made for and fitted on; a fit leaves one in the "
            "folder adapter/ of its run"
        )
    about: dict[str, Any] = json.loads((folder / ABOUT).read_text())
    if about["files"] != mllm.key["files"]:
        raise ValueError(
            f"{folder}: an adapter for {about['backbone']}, here the backbone is {mllm.name}, whose files differ; "
            "give the backbone that it was trained on"
        )
    other = [
        f"{name} {about.get(name)!r}, here {value!r}" for name, value in made_with.items() if about.get(name) != value
    ]
    if other:
        raise ValueError(f"{folder}: it was fitted with {'; '.join(other)}; give the same, or fit anew")
    for part, file in ((adapter, WEIGHTS), (bridge, BRIDGE)):
        if part is not None:
            _put(folder / file, mllm, part)
    return about


def _put(file: Path, mllm: Mllm, part: nn.Module) -> None:
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; an export of a fit with the same fusion and LoRA is expected")
    try:
        stored = load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file}: no whole safetensors file ({error}); export it again") from None
    if isinstance(part, PeftModel):
        named = {name.replace(".default", ""): value for name, value in part.state_dict().items() if "lora_" in name}
    else:
        named = part.state_dict()
    wrong = [f"{name} is missing" for name in sorted(named.keys() - stored.keys())]
    wrong += [f"{name} has no place here" for name in sorted(stored.keys() - named.keys())]
    wrong += [
        f"{name} is {tuple(stored[name].shape)}, {tuple(named[name].shape)} is expected"
        for name in sorted(named.keys() & stored.keys())
        if stored[name].shape != named[name].shape
    ]
    if wrong:
        raise ValueError(
            f"{file}: made for another backbone than {mllm.name}, or with other settings: {'; '.join(wrong[:5])}"
        )
    with torch.no_grad():
        if isinstance(part, PeftModel):
            set_peft_model_state_dict(part, stored)
        else:
            part.load_state_dict(stored)
