"""What is no MLLM of ours is refused before any of it is read, and the message says what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_mllms import write_clip_tower, write_mllm
from vigil.mllm import Mllm
from vigil.mllm_families import FAMILIES

HEAD = "language_model.lm_head.weight"  # as checkpoints of this family spell it


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mllm(tmp_path_factory.mktemp("sound"), "llava_onevision", layers=1)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "model"))


def edit_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_another_kind_of_model_is_refused_with_the_families_that_are_not(tmp_path: Path) -> None:
    write_clip_tower(tmp_path)
    with pytest.raises(ValueError, match=r"model_type 'clip_vision_model'; expected one of llava_onevision") as caught:
        Mllm(str(tmp_path))
    for name in FAMILIES:
        assert name in str(caught.value)


def test_a_checkpoint_with_code_of_its_own_is_refused_and_the_converter_named(folder: Path) -> None:
    edit_config(folder, model_type="internvl_chat", auto_map={"AutoModel": "modeling_internvl_chat.InternVLChatModel"})
    with pytest.raises(ValueError, match=r"code of its own, which is never run.*vigil\.internvl_conversion"):
        Mllm(str(folder))


def test_code_beside_a_known_family_is_never_run(folder: Path) -> None:
    edit_config(folder, auto_map={"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"})
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    mllm = Mllm(str(folder))
    mllm.load()
    assert type(mllm.model).__module__.startswith("transformers.")


def test_weights_of_another_family_are_refused_not_filled_in_by_chance(folder: Path, tmp_path: Path) -> None:
    other = write_mllm(tmp_path / "other", "qwen2_vl", layers=1)
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"weights of another model: \d+ tensors .* are missing, the first .*others"):
        Mllm(str(folder)).load()


def test_one_missing_tensor_is_named(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state[HEAD]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 tensors .* are missing, the first lm_head"):
        Mllm(str(folder)).load()


def test_weights_of_another_size_are_refused(folder: Path, tmp_path: Path) -> None:
    wide = write_mllm(tmp_path / "wide", "llava_onevision", layers=1, width=64)
    shutil.copy(wide / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(ValueError, match="cannot be loaded"):
        Mllm(str(folder)).load()


def test_a_truncated_weight_file_is_refused(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=f"{folder}: its weights cannot be loaded"):
        Mllm(str(folder)).load()


@pytest.mark.parametrize("gone", ["tokenizer.json", "processor_config.json"])
def test_a_folder_without_its_processor_is_refused(folder: Path, gone: str) -> None:
    (folder / gone).unlink()
    with pytest.raises(ValueError, match=r"its processor cannot be loaded.*expected beside its weights"):
        Mllm(str(folder))


def test_a_folder_without_a_chat_template_is_refused(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match=r"no chat template"):
        Mllm(str(folder))


def test_an_attention_that_is_not_installed_is_refused(folder: Path) -> None:
    for attention in ("flash_attention_2", "fast"):
        with pytest.raises(ValueError, match=f"{folder}: its weights cannot be loaded: .*"):
            Mllm(str(folder), attention=attention).load()


def test_the_fingerprint_follows_weights_configuration_and_tokenizer(folder: Path) -> None:
    keys = [Mllm(str(folder)).key["files"]]
    state = load_file(folder / "model.safetensors")
    state[HEAD][0, 0] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    keys.append(Mllm(str(folder)).key["files"])
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    keys.append(Mllm(str(folder)).key["files"])
    (folder / "README.md").write_text("not part of it")
    keys.append(Mllm(str(folder)).key["files"])
    assert keys[2] == keys[3]
    assert len(set(keys)) == 3


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_broken_configuration_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"{folder}/config\.json: no configuration of a model"):
        Mllm(str(folder))


def test_an_unknown_dtype_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="dtype 'bf16': auto, float32"):
        Mllm(str(folder), dtype="bf16")


def test_random_weights_need_no_weight_files(folder: Path) -> None:
    for file in folder.glob("*.safetensors"):
        file.unlink()
    mllm = Mllm(str(folder), weights="random")
    mllm.load()
    assert mllm.n_layers == 1


def test_random_weights_follow_the_dtype(folder: Path) -> None:
    mllm = Mllm(str(folder), dtype="bfloat16", weights="random")
    mllm.load()
    assert {parameter.dtype for parameter in mllm.model.parameters()} == {torch.bfloat16}
