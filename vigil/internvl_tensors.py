"""The tensors of an InternVL checkpoint that ships remote code, under transformers' names, one file at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

_VISION, _LAYER = "vision_model.encoder.layers.#.", "model.vision_tower.encoder.layer.#."
_INTERNLM2, _LLAMA = "language_model.model.layers.#.", "model.language_model.layers.#."
NAMES = {  # source -> native, without .weight and .bias; #: number of a layer, *: q, k and v, fused in the source
    "vision_model.embeddings.class_embedding": "model.vision_tower.embeddings.cls_token",
    "vision_model.embeddings.position_embedding": "model.vision_tower.embeddings.position_embeddings",
    "vision_model.embeddings.patch_embedding": "model.vision_tower.embeddings.patch_embeddings.projection",
    f"{_VISION}attn.qkv": f"{_LAYER}attention.*_proj",
    f"{_VISION}attn.proj": f"{_LAYER}attention.projection_layer",
    f"{_VISION}attn.q_norm": f"{_LAYER}attention.q_norm",
    f"{_VISION}attn.k_norm": f"{_LAYER}attention.k_norm",
    f"{_VISION}ls1": f"{_LAYER}lambda_1",
    f"{_VISION}ls2": f"{_LAYER}lambda_2",
    f"{_VISION}norm1": f"{_LAYER}layernorm_before",
    f"{_VISION}norm2": f"{_LAYER}layernorm_after",
    f"{_VISION}mlp.fc1": f"{_LAYER}mlp.fc1",
    f"{_VISION}mlp.fc2": f"{_LAYER}mlp.fc2",
    "mlp1.0": "model.multi_modal_projector.layer_norm",
    "mlp1.1": "model.multi_modal_projector.linear_1",
    "mlp1.3": "model.multi_modal_projector.linear_2",
}
NAMES_INTERNLM2 = {
    "language_model.model.tok_embeddings": "model.language_model.embed_tokens",
    f"{_INTERNLM2}attention.wqkv": f"{_LLAMA}self_attn.*_proj",
    f"{_INTERNLM2}attention.wo": f"{_LLAMA}self_attn.o_proj",
    f"{_INTERNLM2}feed_forward.w1": f"{_LLAMA}mlp.gate_proj",
    f"{_INTERNLM2}feed_forward.w3": f"{_LLAMA}mlp.up_proj",
    f"{_INTERNLM2}feed_forward.w2": f"{_LLAMA}mlp.down_proj",
    f"{_INTERNLM2}attention_norm": f"{_LLAMA}input_layernorm",
    f"{_INTERNLM2}ffn_norm": f"{_LLAMA}post_attention_layernorm",
    "language_model.model.norm": "model.language_model.norm",
    "language_model.output": "lm_head",
}
_LEFT_OUT = (  # what is no part of the model, or computed from its configuration
    r"anomaly_scorer\..*",  # of Holmes-VAU's sampler of frames, which works outside the model
    r".*rotary_emb\.inv_freq",
)
FILE_BYTES = 2 * 2**30  # of a file that is written, and about the memory that writing takes
_LORA_ALPHA_OVER_RANK = 2.0  # InternVL's wrap_llm_lora and wrap_backbone_lora


class _Stored(NamedTuple):
    """A tensor of the source: its name in `file`, and the names of its LoRA factors A and B, if it has any."""

    file: str
    name: str
    lora: tuple[str, str] | None


class Shards:
    """The weights in a folder, read through their headers: what they become, and what is left out.

    left_out: names of the source's tensors that are not wanted.
    Raises ValueError for pickles, for tensors without a native name and for LoRA whose scale is not known,
    FileNotFoundError for files that the index names and the folder lacks.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], leave_out: Sequence[str] = ()) -> None:
        self.folder = folder
        self._text = config["llm_config"]
        self._fused = self._text["architectures"][0] == "InternLM2ForCausalLM"
        self._rank = {
            "language_model": int(config.get("use_llm_lora") or 0),
            "vision_model": int(config.get("use_backbone_lora") or 0),
        }
        self.left_out: list[str] = []
        self._file: dict[str, str] = {}  # name in the source -> file
        self._shape: dict[str, tuple[int, ...]] = {}
        for file in weight_files(folder):
            try:
                with safe_open(folder / file, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118
                        self._file[name] = file
                        self._shape[name] = tuple(opened.get_slice(name).get_shape())
            except SafetensorError as error:
                raise ValueError(
                    f"{folder / file} is no whole safetensors file ({error}); download it again"
                ) from error
        self._stored = self._group(leave_out)

    def _group(self, leave_out: Sequence[str]) -> dict[str, _Stored]:
        """Plain name -> where it is stored; LoRA's factors are put beside the weight that they change."""
        factors: dict[str, dict[str, str]] = {}
        plain: dict[str, str] = {}
        for name in self._file:
            if name.startswith(tuple(leave_out)) or any(re.fullmatch(pattern, name) for pattern in _LEFT_OUT):
                self.left_out.append(name)
                continue
            bare = re.sub(r"^(language_model|vision_model)\.base_model\.model\.", r"\1.", name)
            lora = re.fullmatch(r"(.*)\.lora_([AB])(?:\.default)?\.weight", bare)
            if lora:
                factors.setdefault(f"{lora[1]}.weight", {})[lora[2]] = name
                continue
            bare = bare.replace(".base_layer.", ".")
            if bare in plain:
                raise ValueError(f"{self.folder}: {plain[bare]} and {name} are one tensor; expected one of them")
            plain[bare] = name
        unknown = sorted(
            {name for bare, name in plain.items() if not self._names(bare)} | factors.keys() - plain.keys()
        )
        if unknown:
            raise ValueError(
                f"{self.folder}: {len(unknown)} tensors have no place in the native model: {_some(unknown)}; "
                "if they belong to something else, leave them out by the beginning of their names: --leave-out NAME"
            )
        stored = {}
        for bare, name in plain.items():
            pair = self._pair(bare, factors[bare]) if bare in factors else None
            stored[bare] = _Stored(self._file[name], name, pair)
        return stored

    def _pair(self, bare: str, found: Mapping[str, str]) -> tuple[str, str]:
        """The names of A and B, if config.json says that they are of its rank."""
        part = bare.partition(".")[0]
        key = {"language_model": "use_llm_lora", "vision_model": "use_backbone_lora"}.get(part, "")
        rank = self._shape[found["A"]][0] if found.keys() == {"A", "B"} else None
        if rank is None or rank != self._rank.get(part):
            raise ValueError(
                f"{self.folder}: {bare} has LoRA weights ({', '.join(found.values())}) of rank {rank}, config.json's "
                f"{key} is {self._rank.get(part)}; without its rank the scale alpha / rank is not known: merge LoRA "
                "into the weights with the code that trained it"
            )
        return found["A"], found["B"]

    def _names(self, bare: str) -> tuple[str, ...]:
        """Native names of a tensor: one, three where queries, keys and values are fused, none for an unknown one."""
        if bare.startswith("language_model.") and not self._fused:
            inner = bare.removeprefix("language_model.")
            return (re.sub(r"^model\.", "model.language_model.", inner),)
        stem, parameter = re.fullmatch(r"(.*?)(\.weight|\.bias)?", bare).groups("")  # type: ignore[union-attr]
        layer = re.search(r"\.layers\.(\d+)\.", stem)
        name = {**NAMES, **NAMES_INTERNLM2}.get(re.sub(r"\.layers\.\d+\.", ".layers.#.", stem))
        if name is None:
            return ()
        name = name.replace("#", layer[1] if layer else "") + parameter
        return tuple(name.replace("*", letter) for letter in "qkv") if "*" in name else (name,)

    def _split(self, bare: str, tensor: Tensor) -> tuple[Tensor, ...]:
        """A tensor as the native model holds it: itself, or its rows of queries, keys and values."""
        if ".attn.qkv." in bare:
            return tensor.chunk(3)
        if ".attention.wqkv." not in bare:
            return (tensor,)
        heads, groups = int(self._text["num_attention_heads"]), int(self._text["num_key_value_heads"])
        width = int(self._text["hidden_size"]) // heads
        rows = tensor.reshape(groups, heads // groups + 2, width, *tensor.shape[1:])  # per group: its queries, k, v
        return tuple(part.reshape(-1, *tensor.shape[1:]) for part in (rows[:, :-2], rows[:, -2], rows[:, -1]))

    def check(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Raises ValueError unless the tensors become exactly those `expected`, by name and shape."""
        given: dict[str, tuple[int, ...]] = {}
        for bare, stored in self._stored.items():
            shape = self._shape[stored.name]
            try:
                parts = self._split(bare, torch.empty(shape, device="meta"))
            except RuntimeError as error:
                raise ValueError(f"{stored.file}: {stored.name} {shape} does not fit config.json: {error}") from error
            given |= {name: tuple(part.shape) for name, part in zip(self._names(bare), parts, strict=True)}
        if "lm_head.weight" in given and "lm_head.weight" not in expected:
            self._leave_head_out()
            del given["lm_head.weight"]
        wrong = sorted(name for name in given.keys() | expected.keys() if given.get(name) != expected.get(name))
        if wrong:
            told = [f"{x} {given.get(x, 'missing')}, {expected.get(x, 'not expected')} by config.json" for x in wrong]
            raise ValueError(
                f"{self.folder}: {len(wrong)} tensors do not fit config.json: {_some(told)}; complete the download, or "
                "leave what belongs to something else out: --leave-out NAME"
            )

    def _leave_head_out(self) -> None:
        """The output head that config.json says is the input embedding: its copy is not written."""
        bare = {names[0]: bare for bare in self._stored if (names := self._names(bare))}
        head, embedding = bare["lm_head.weight"], bare.get("model.language_model.embed_tokens.weight")
        if embedding and not torch.equal(self._read(head), self._read(embedding)):
            raise ValueError(
                f"{self.folder}: config.json says tie_word_embeddings, but {head} and {embedding} differ; correct "
                "llm_config's tie_word_embeddings to what the model was trained with"
            )
        self.left_out.append(self._stored.pop(head).name)

    def write(self, out: Path, progress: Callable[[str], None], most_bytes: int = FILE_BYTES) -> None:
        """Write the tensors into `out`, in files of `most_bytes` at most; progress: told of each file.

        A file ends with one of the source's, or before; a tensor that is larger has one of its own.
        """
        files: list[dict[str, int]] = []  # name -> bytes

        def flush(tensors: dict[str, Tensor]) -> None:
            files.append({name: tensor.nbytes for name, tensor in tensors.items()})
            save_file(tensors, out / f"model-{len(files):05}.safetensors", metadata={"format": "pt"})
            progress(f"wrote {len(tensors)} tensors, {sum(files[-1].values()) / 1e9:.2f} GB")

        for file in sorted({stored.file for stored in self._stored.values()}):
            tensors: dict[str, Tensor] = {}
            for bare in [bare for bare, stored in self._stored.items() if stored.file == file]:
                # a slice keeps the whole alive, and is refused on writing
                parts = [part.clone() for part in self._split(bare, self._read(bare))]
                if tensors and sum(tensor.nbytes for tensor in [*tensors.values(), *parts]) > most_bytes:
                    flush(tensors)
                    tensors = {}
                tensors |= dict(zip(self._names(bare), parts, strict=True))
            flush(tensors)
        _name_files(out, files)

    def _read(self, bare: str) -> Tensor:
        """A tensor with its LoRA merged in, in float32 and back."""

        def load(name: str) -> Tensor:  # LoRA's factors may lie in another file
            with safe_open(self.folder / self._file[name], framework="pt") as opened:
                return opened.get_tensor(name)  # type: ignore[no-any-return]

        stored = self._stored[bare]
        tensor = load(stored.name)
        if stored.lora is None:
            return tensor
        a, b = (load(name).float() for name in stored.lora)
        return (tensor.float() + _LORA_ALPHA_OVER_RANK * (b @ a)).to(tensor.dtype)


def _name_files(out: Path, files: Sequence[Mapping[str, int]]) -> None:
    """Give the files the names that transformers expects, and the index that says what lies where."""
    where: dict[str, str] = {}
    for number, names in enumerate(files, 1):
        name = "model.safetensors" if len(files) == 1 else f"model-{number:05}-of-{len(files):05}.safetensors"
        (out / f"model-{number:05}.safetensors").rename(out / name).chmod(0o644)  # save_file's is for its owner alone
        where |= dict.fromkeys(names, name)
    if len(files) > 1:
        size = sum(n_bytes for names in files for n_bytes in names.values())
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(where.items()))}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def weight_files(folder: Path) -> list[str]:
    """Names of the safetensors files that hold the weights in a folder."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise FileNotFoundError(f"{folder}: {index.name} names {_some(missing)}, not there; complete the download")
        return files
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    pickles = sorted(file.name for suffix in ("bin", "pt", "pth", "ckpt") for file in folder.glob(f"*.{suffix}"))
    if pickles:
        raise ValueError(
            f"{folder}: the weights are pickles ({_some(pickles)}), which run code when opened and are never opened "
            "here; take a revision that holds *.safetensors (the hub's safetensors/convert proposes one), or save them "
            "with save_pretrained where you trust them"
        )
    raise FileNotFoundError(f"{folder}: no model.safetensors and no {index.name}; complete the download")


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
