"""Where a pretrained model lies, by hub name or path, and what of it determines its numbers. Safetensors alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from vigil.store import FileMemory, content_hash

CODE_AND_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf")
WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]  # no pickles, and no code
ROOT = Path(__file__).parents[1]


def find_pretrained(name: str, weights: bool = True) -> Path:
    """The folder of a model: a local one, also beside this project's code, or the hub's, fetched unless it is cached.

    name: a path, or the hub's name, with @revision where not the newest is meant. weights: whether they are wanted, or
    the configuration and the processor alone.
    Raises FileNotFoundError, which says what was looked for and how to get it, and ValueError for weights that are no
    safetensors: a pickle can run code.
    """
    for folder in (Path(name), ROOT / name):
        if folder.is_dir():
            return _checked(folder, name, weights)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise FileNotFoundError(
            f"{name}: no such folder, here ({Path.cwd()}) or in {ROOT}; give a model's folder or its name on the hub, "
            "such as llava-hf/llava-onevision-qwen2-7b-ov-hf"
        )
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    wanted = WANTED if weights else [pattern for pattern in WANTED if pattern != "*.safetensors"]
    failure: Exception | None = None
    for offline in (True, False):  # what the cache holds needs no network
        try:
            folder = Path(
                snapshot_download(
                    repository, revision=revision or None, allow_patterns=wanted, local_files_only=offline
                )
            )
            return _checked(folder, name, weights)
        except ValueError:  # pickles, which no network cures
            raise
        except Exception as error:  # the hub's client raises what it likes; a cache may hold a part
            failure = error
    raise FileNotFoundError(
        f"{name}: neither a folder here ({Path.cwd()}), nor in the hub's cache, nor could it be fetched "
        f"({_first_line(failure)}); where there is a network run `hf download {repository}` and copy the cache, "
        "or give the path of its folder"
    ) from failure


def pretrained_fingerprint(folder: Path, memory: FileMemory | None = None) -> str:
    """16 hex digits that change with any weight, with the configuration, the tokenizer or the preprocessing.

    Weight files are hashed whole, once: `memory` holds the hash for as long as size and time of a file stay.
    """
    memory = memory or FileMemory()
    digest = hashlib.sha256()
    for file in sorted(file for pattern in WANTED for file in folder.glob(pattern)):
        digest.update(f"{file.name} {memory.recall(file, 'content', content_hash)}\n".encode())
    return digest.hexdigest()[:16]


def _checked(folder: Path, name: str, weights: bool) -> Path:
    """The folder, if it holds a configuration and every safetensors file that it should."""
    held = sorted(file.name for file in folder.iterdir())
    if "config.json" not in held:
        raise FileNotFoundError(
            f"{folder}: no config.json, found {_listed(held)}; give the folder of a pretrained model"
        )
    if not weights:
        return folder
    dangling = [file for file in held if not (folder / file).exists()]
    if dangling:
        raise FileNotFoundError(f"{folder}: {_listed(dangling)}: links to files that are gone; fetch the model again")
    if not any(file.endswith(".safetensors") for file in held):
        pickles = [file for file in held if file.endswith(CODE_AND_PICKLES)]
        if pickles:
            raise ValueError(
                f"{folder}: its weights are {_listed(pickles)}, which can run code when opened; convert them to "
                "safetensors where you trust them, or take a revision that has them"
            )
        raise FileNotFoundError(
            f"{folder}: no weights (*.safetensors), found {_listed(held)}; complete the download: hf download {name}"
        )
    for index in folder.glob("*.safetensors.index.json"):
        try:
            parts = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{index}: no list of weight files ({error}); fetch it again: hf download {name}"
            ) from error
        missing = sorted(part for part in parts if not (folder / part).exists())
        if missing:
            raise FileNotFoundError(
                f"{folder}: {len(missing)} of {len(parts)} weight files of {index.name} are missing: "
                f"{_listed(missing)}; complete the download: hf download {name}"
            )
    return folder


def _listed(names: list[str]) -> str:
    return (", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")) or "nothing"


def _first_line(error: Exception | None) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
