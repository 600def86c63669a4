"""Converted checkpoints compute what the remote code's architecture says, and what does not fit is refused by name."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor

from tests.tiny_internvl import make_source, tiny_config, tiny_state, write_source
from vigil.internvl_conversion import check, convert, main
from vigil.internvl_tensors import Shards

INTERNLM2, QWEN2 = "InternLM2ForCausalLM", "Qwen2ForCausalLM"
TIGHT = {"atol": 1e-5, "rtol": 1e-5}


# the architecture, from its definition -------------------------------------------------------------------------------


def root_mean_square_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def rotate(x: Tensor, base: float, step: float) -> Tensor:
    """Rotary positions on x (S, H, D): the pair (i, i + D / 2) turns by step * position * base ** (-2 i / D)."""
    half = x.shape[-1] // 2
    angle = step * torch.arange(len(x))[:, None, None] * base ** (-torch.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)


def attend(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """(S, H, D) of queries over (S, G, D) of keys and values, head by head."""
    heads, per_group = query.shape[1], query.shape[1] // key.shape[1]
    out = []
    for head in range(heads):
        weight = query[:, head] @ key[:, head // per_group].T / query.shape[-1] ** 0.5
        if causal:
            weight = weight.masked_fill(torch.ones_like(weight).triu(1).bool(), float("-inf"))
        out.append(weight.softmax(-1) @ value[:, head // per_group])
    return torch.cat(out, -1)


def language(state: dict[str, Tensor], text: dict[str, Any], x: Tensor) -> Tensor:
    """Logits (S, vocabulary) of embeddings x (S, D): InternLM2 with its fused weights, or Llama, Qwen2 and Qwen3."""
    heads, groups, eps = text["num_attention_heads"], text["num_key_value_heads"], text["rms_norm_eps"]
    width = text.get("head_dim", text["hidden_size"] // heads)
    base, longest, scaling = text["rope_theta"], text["max_position_embeddings"], text.get("rope_scaling")
    if scaling and scaling["type"] == "dynamic" and len(x) > longest:
        base *= (scaling["factor"] * len(x) / longest - (scaling["factor"] - 1)) ** (width / (width - 2))

    step = 1 / scaling["factor"] if scaling and scaling["type"] == "linear" else 1.0

    def linear(name: str, value: Tensor) -> Tensor:
        return F.linear(value, state[f"{name}.weight"], state.get(f"{name}.bias"))

    fused = text["architectures"] == [INTERNLM2]
    for index in range(text["num_hidden_layers"]):
        layer = f"language_model.model.layers.{index}"
        names = ("attention_norm", "ffn_norm") if fused else ("input_layernorm", "post_attention_layernorm")
        y = root_mean_square_norm(x, state[f"{layer}.{names[0]}.weight"], eps)
        if fused:
            qkv = linear(f"{layer}.attention.wqkv", y).view(len(x), groups, heads // groups + 2, width)
            query, key, value = qkv[:, :, :-2].reshape(len(x), heads, width), qkv[:, :, -2], qkv[:, :, -1]
        else:
            query, key, value = (
                linear(f"{layer}.self_attn.{n}_proj", y).view(len(x), -1, width) for n in ("q", "k", "v")
            )
        if f"{layer}.self_attn.q_norm.weight" in state:
            query = root_mean_square_norm(query, state[f"{layer}.self_attn.q_norm.weight"], eps)
            key = root_mean_square_norm(key, state[f"{layer}.self_attn.k_norm.weight"], eps)
        out = attend(rotate(query, base, step), rotate(key, base, step), value, causal=True)
        x = x + linear(f"{layer}.attention.wo" if fused else f"{layer}.self_attn.o_proj", out)
        y = root_mean_square_norm(x, state[f"{layer}.{names[1]}.weight"], eps)
        mlp = [f"{layer}.feed_forward.w{n}" for n in (1, 3, 2)]
        gate, up, down = mlp if fused else [f"{layer}.mlp.{n}_proj" for n in ("gate", "up", "down")]
        x = x + linear(down, F.silu(linear(gate, y)) * linear(up, y))
    x = root_mean_square_norm(x, state["language_model.model.norm.weight"], eps)
    embedding = "language_model.model." + ("tok_embeddings.weight" if fused else "embed_tokens.weight")
    head = "language_model." + ("output.weight" if fused else "lm_head.weight")
    return x @ state.get(head, state[embedding]).T


def see(state: dict[str, Tensor], config: dict[str, Any], picture: Tensor) -> Tensor:
    """Visual tokens (S, D) of one normalised picture (3, Y, X): InternViT, pixel shuffle v2, mlp1."""
    vision, prefix = config["vision_config"], "vision_model.embeddings"
    size, heads, eps = vision["patch_size"], vision["num_attention_heads"], vision["layer_norm_eps"]
    rows = picture.shape[-1] // size
    patches = picture.view(3, rows, size, rows, size).permute(1, 3, 0, 2, 4).reshape(rows * rows, -1)
    x = patches @ state[f"{prefix}.patch_embedding.weight"].flatten(1).T + state[f"{prefix}.patch_embedding.bias"]
    position = state[f"{prefix}.position_embedding"][0]
    table = position[1:]
    if len(table) != len(x):
        grid = table.T.view(1, -1, int(len(table) ** 0.5), int(len(table) ** 0.5))
        table = F.interpolate(grid, size=(rows, rows), mode="bicubic", align_corners=False)[0].flatten(1).T
    x = torch.cat([state[f"{prefix}.class_embedding"][0] + position[:1], x + table])

    def norm(name: str, value: Tensor) -> Tensor:
        if vision["norm_type"] == "rms_norm":
            return root_mean_square_norm(value, state[f"{name}.weight"], eps)
        centred = value - value.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    last = vision["num_hidden_layers"] + (1 + config["select_layer"])
    for index in range(last):
        layer = f"vision_model.encoder.layers.{index}"
        qkv = F.linear(
            norm(f"{layer}.norm1", x), state[f"{layer}.attn.qkv.weight"], state.get(f"{layer}.attn.qkv.bias")
        )
        query, key, value = qkv.chunk(3, -1)
        if vision["qk_normalization"]:  # over all heads at once
            query = root_mean_square_norm(query, state[f"{layer}.attn.q_norm.weight"], eps)
            key = root_mean_square_norm(key, state[f"{layer}.attn.k_norm.weight"], eps)
        out = attend(*(part.view(len(x), heads, -1) for part in (query, key, value)), causal=False)
        out = F.linear(out, state[f"{layer}.attn.proj.weight"], state[f"{layer}.attn.proj.bias"])
        x = x + out * state[f"{layer}.ls1"]
        y = F.linear(norm(f"{layer}.norm2", x), state[f"{layer}.mlp.fc1.weight"], state[f"{layer}.mlp.fc1.bias"])
        out = F.linear(F.gelu(y), state[f"{layer}.mlp.fc2.weight"], state[f"{layer}.mlp.fc2.bias"])
        x = x + out * state[f"{layer}.ls2"]
    grid = x[1:].view(rows, rows, -1)
    tokens = torch.stack(  # the four neighbours of a square become one token, squares row by row
        [grid[y : y + 2, z : z + 2].flatten() for y in range(0, rows, 2) for z in range(0, rows, 2)]
    )
    tokens = F.layer_norm(tokens, tokens.shape[-1:], state["mlp1.0.weight"], state["mlp1.0.bias"])
    tokens = F.gelu(F.linear(tokens, state["mlp1.1.weight"], state["mlp1.1.bias"]))
    return F.linear(tokens, state["mlp1.3.weight"], state["mlp1.3.bias"])


# reading what was written --------------------------------------------------------------------------------------------


def ask(processor: Any, n_frames: int = 2) -> Any:
    """A video and a question, as the model takes them."""
    video = torch.randint(0, 256, (n_frames, 30, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    content = [{"type": "video"}, {"type": "text", "text": "is the thing in the room?"}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    return processor(text=[prompt], videos=[video.numpy()], return_tensors="pt", do_sample_frames=False)


def compare(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """The native checkpoint's logits for a video and a question against those of the definition."""
    model, report = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    inputs = ask(AutoProcessor.from_pretrained(folder))
    tokens = torch.cat([see(state, config, picture) for picture in inputs["pixel_values"]])
    fused = config["llm_config"]["architectures"] == [INTERNLM2]
    table = state["language_model.model." + ("tok_embeddings.weight" if fused else "embed_tokens.weight")]
    embeddings = table[inputs["input_ids"][0]].clone()
    embeddings[inputs["input_ids"][0] == model.config.image_token_id] = tokens
    expected = language(state, config["llm_config"], embeddings)
    with torch.no_grad():
        logits = model(**inputs).logits[0]
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, **TIGHT)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    make_source(tmp_path / "source")
    return tmp_path / "source"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def rewrite(source: Path, **changes: Any) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | changes))


# what the weights compute --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", [INTERNLM2, QWEN2, "LlamaForCausalLM", "Qwen3ForCausalLM"])
def test_logits_equal_those_of_the_architectures_definition(tmp_path: Path, out: Path, architecture: str) -> None:
    config, state = make_source(tmp_path / "source", architecture, n_shards=2)
    assert convert(tmp_path / "source", out) == []
    compare(out, config, state)


@pytest.mark.parametrize(
    "changes",
    [
        {"vision": {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}},  # InternViT-6B
        {"text": {"bias": True, "rope_scaling": {"type": "linear", "factor": 2.0}}},
        {"force_image_size": 56},
        {"select_layer": -2},
    ],
    ids=["intern_vit_6b", "bias", "larger_image", "earlier_layer"],
)
def test_options_of_the_architecture_are_kept(tmp_path: Path, out: Path, changes: dict[str, Any]) -> None:
    config, state = make_source(tmp_path / "source", **changes)
    convert(tmp_path / "source", out)
    compare(out, config, state)


@pytest.mark.parametrize("longest", [64, 24])
def test_dynamic_positions_equal_plain_ones_up_to_the_longest_and_the_formula_beyond(
    tmp_path: Path, out: Path, longest: int
) -> None:
    config, state = make_source(tmp_path / "source", text={"max_position_embeddings": longest})
    convert(tmp_path / "source", out)
    model = AutoModelForImageTextToText.from_pretrained(out)
    tokens = torch.randint(0, 300, (1, 40), generator=torch.Generator().manual_seed(2))
    embeddings = state["language_model.model.tok_embeddings.weight"][tokens[0]]
    with torch.no_grad():
        logits = model(input_ids=tokens).logits[0]
    torch.testing.assert_close(logits, language(state, config["llm_config"], embeddings), **TIGHT)
    plain = language(state, config["llm_config"] | {"rope_scaling": None}, embeddings)
    assert torch.allclose(logits, plain, **TIGHT) == (longest == 64)


def test_tied_embeddings_need_no_head_and_a_copy_of_them_is_left_out(tmp_path: Path, out: Path) -> None:
    config, state = make_source(tmp_path / "source", QWEN2, text={"tie_word_embeddings": True})
    assert "language_model.lm_head.weight" not in state
    convert(tmp_path / "source", out)
    compare(out, config, state)
    state["language_model.lm_head.weight"] = state["language_model.model.embed_tokens.weight"].clone()
    save_file(state, tmp_path / "source" / "model.safetensors")
    assert convert(tmp_path / "source", tmp_path / "again") == ["language_model.lm_head.weight"]
    assert "lm_head.weight" not in load_file(tmp_path / "again" / "model.safetensors")
    state["language_model.lm_head.weight"] += 1
    save_file(state, tmp_path / "source" / "model.safetensors")
    with pytest.raises(ValueError, match=r"says tie_word_embeddings, but .*lm_head.* differ"):
        convert(tmp_path / "source", tmp_path / "other")


def test_lora_is_merged_at_twice_the_product_of_its_factors(tmp_path: Path, out: Path) -> None:
    config, state = make_source(tmp_path / "source", use_llm_lora=3, use_backbone_lora=2)
    wrapped = {}
    for name, tensor in state.items():
        part, rank = name.partition(".")[0], 3 if name.startswith("language_model") else 2
        stem, parameter = name.rsplit(".", 1)
        inner = stem.replace(f"{part}.", f"{part}.base_model.model.") if part != "mlp1" else stem
        if not stem.endswith((".wqkv", ".attn.proj")):
            wrapped[f"{inner}.{parameter}"] = tensor
            continue
        wrapped[f"{inner}.base_layer.{parameter}"] = tensor
        if parameter == "weight":
            a, b = torch.randn(rank, tensor.shape[1]) / 4, torch.randn(tensor.shape[0], rank) / 4
            wrapped |= {f"{inner}.lora_A.default.weight": a, f"{inner}.lora_B.default.weight": b}
            state = state | {name: tensor + 2 * b @ a}
    write_source(tmp_path / "source", config, wrapped, n_shards=3)  # factors lie beside other weights
    convert(tmp_path / "source", out)
    compare(out, config, state)
    rewrite(tmp_path / "source", use_llm_lora=0)
    with pytest.raises(ValueError, match=r"wqkv.* LoRA weights .* of rank 3, config.json's use_llm_lora is 0.*merge"):
        convert(tmp_path / "source", tmp_path / "again")


# what is written -----------------------------------------------------------------------------------------------------


def test_bfloat16_is_kept_bit_by_bit_over_two_files_with_an_index(tmp_path: Path, out: Path) -> None:
    _, state = make_source(tmp_path / "source", n_shards=2, dtype=torch.bfloat16, torch_dtype="bfloat16")
    convert(tmp_path / "source", out)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    files = [load_file(out / f"model-0000{number}-of-00002.safetensors") for number in (1, 2)]
    written = files[0] | files[1]
    assert index["weight_map"].keys() == written.keys()
    assert all(name in files[int(index["weight_map"][name][10]) - 1] for name in written)
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in state.values())
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    down = "language_model.model.layers.1.feed_forward.w2.weight"
    assert torch.equal(written["model.language_model.layers.1.mlp.down_proj.weight"], state[down])
    model = AutoModelForImageTextToText.from_pretrained(out)
    assert model.dtype == torch.bfloat16


def test_a_large_file_is_written_in_parts(tmp_path: Path, out: Path) -> None:
    config, state = make_source(tmp_path / "source")
    convert(tmp_path / "source", out)
    whole = load_file(out / "model.safetensors")
    (out / "model.safetensors").unlink()
    Shards(tmp_path / "source", config).write(out, print, most_bytes=60_000)
    files = sorted(out.glob("*.safetensors"))
    parts = [load_file(file) for file in files]
    sizes = [sum(tensor.nbytes for tensor in part.values()) for part in parts]
    assert len(files) > 2
    assert max(sizes) <= 60_000
    assert {name: tensor.tolist() for part in parts for name, tensor in part.items()} == {
        name: tensor.tolist() for name, tensor in whole.items()
    }
    compare(out, config, state)


def test_generation_stops_at_the_end_of_a_turn_and_where_the_source_stops(source: Path, out: Path) -> None:
    convert(source, out)
    processor, model = AutoProcessor.from_pretrained(out), AutoModelForImageTextToText.from_pretrained(out)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert model.generation_config.eos_token_id == sorted([2, 5, 6, end])
    assert model.config.image_token_id == processor.image_token_id < model.config.text_config.vocab_size


def test_no_code_of_the_source_is_run_or_copied(source: Path, out: Path, tmp_path: Path) -> None:
    for name in ("modeling_internvl_chat", "configuration_internvl_chat", "tokenization_internlm2"):
        (source / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    convert(source, out)
    AutoProcessor.from_pretrained(out)
    assert not (tmp_path / "ran").exists()
    assert {file.suffix for file in out.iterdir()} == {".json", ".jinja", ".safetensors"}
    assert "auto_map" not in "".join(file.read_text() for file in out.glob("*.json"))


def test_what_is_no_part_of_the_model_is_left_out_by_name_and_the_rest_is_an_error(tmp_path: Path, out: Path) -> None:
    config, state = make_source(tmp_path / "source")
    others = {
        "anomaly_scorer.linear.weight": torch.zeros(2, 2),
        "language_model.model.layers.0.attention.rotary_emb.inv_freq": torch.zeros(4),
    }
    write_source(tmp_path / "source", config, state | others | {"counter.weight": torch.zeros(1)})
    with pytest.raises(
        ValueError, match=r"1 tensors have no place in the native model: counter\.weight; .*--leave-out"
    ):
        convert(tmp_path / "source", out)
    assert not out.exists()
    assert sorted(convert(tmp_path / "source", out, ["counter."])) == sorted([*others, "counter.weight"])
    compare(out, config, state)


def test_the_command_says_what_it_wrote_and_ends_with_an_error_in_words(
    source: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(source), str(out)])
    assert "wrote 67 tensors, 0.00 GB" in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"out is there and not empty; name a new folder"):
        main([str(source), str(out)])


# what is refused -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "internvl"}, "model_type is 'internvl'.*native already"),
        ({"model_type": "llava"}, "model_type is 'llava'; expected 'internvl_chat'"),
        (
            {"text": {"architectures": ["Phi3ForCausalLM"]}},
            "language model is Phi3ForCausalLM; converted are InternLM2",
        ),
        ({"text": {"num_key_value_heads": None}}, r"says nothing of llm_config\.num_key_value_heads"),
        ({"vision": {"patch_size": None}}, r"says nothing of vision_config\.patch_size"),
        ({"text": {"rope_scaling": {"type": "yarn", "factor": 2.0}}}, "rope_scaling of type 'yarn'.*InternLM2 knows"),
        ({"ps_version": "v1"}, "ps_version 'v1', which has no native counterpart"),
        ({"vision": {"norm_type": "batch_norm"}}, "norm_type 'batch_norm'"),
        ({"vision": {"qk_normalization": True, "layer_norm_eps": 1e-5}}, "qk_normalization with layer_norm_eps 1e-05"),
        ({"quantization_config": {"bits": 4}}, "quantised weights"),
    ],
)
def test_what_has_no_native_counterpart_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    check(tiny_config(INTERNLM2, 300))
    with pytest.raises(ValueError, match=message):
        check(tiny_config(INTERNLM2, 300, **changes))


def test_a_config_that_does_not_name_the_pixel_shuffle_means_v1() -> None:
    config = tiny_config(INTERNLM2, 300)
    del config["ps_version"]
    with pytest.raises(ValueError, match="ps_version 'v1'"):
        check(config)


def test_pickles_are_refused_and_never_opened(source: Path, out: Path, tmp_path: Path) -> None:
    (source / "model.safetensors").unlink()
    (source / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'touch " + bytes(tmp_path / "ran") + b"'\ntR.")
    with pytest.raises(ValueError, match=r"pickles \(pytorch_model\.bin\), which run code.*\*\.safetensors"):
        convert(source, out)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("broken", ["gone", "cut", "none", "no config"])
def test_missing_and_broken_files_are_named(tmp_path: Path, out: Path, broken: str) -> None:
    source = tmp_path / "source"
    make_source(source, n_shards=2)
    second = source / "model-00002-of-00002.safetensors"
    if broken == "gone":
        second.unlink()
    elif broken == "cut":
        second.write_bytes(second.read_bytes()[:-8])
    elif broken == "none":
        (source / "model.safetensors.index.json").unlink()
    else:
        (source / "config.json").unlink()
    said = {
        "gone": "index.json names model-00002-of-00002.safetensors, not there; complete the download",
        "cut": "model-00002-of-00002.safetensors is no whole safetensors file",
        "none": "no model.safetensors and no model.safetensors.index.json",
        "no config": "no config.json; give the folder of a checkpoint",
    }
    with pytest.raises((ValueError, FileNotFoundError), match=said[broken]):
        convert(source, out)
    assert os.listdir(tmp_path) == ["source"]


def test_a_missing_tensor_and_one_of_another_shape_are_named(tmp_path: Path, out: Path) -> None:
    config, state = make_source(tmp_path / "source")
    del state["vision_model.encoder.layers.1.ls2"]
    state["mlp1.1.bias"] = torch.zeros(5)
    write_source(tmp_path / "source", config, state)
    with pytest.raises(
        ValueError, match=r"2 tensors do not fit.*linear_1\.bias \(5,\), \(32,\) by.*lambda_2 missing, \(16"
    ):
        convert(tmp_path / "source", out)
    state["language_model.model.layers.0.attention.wqkv.weight"] = torch.zeros(7, 32)
    write_source(tmp_path / "source", config, state)
    with pytest.raises(ValueError, match=r"wqkv\.weight \(7, 32\) does not fit config\.json"):
        convert(tmp_path / "source", out)


def test_a_tensor_stored_under_two_names_is_refused(tmp_path: Path) -> None:
    config = tiny_config(INTERNLM2, 300)
    state = tiny_state(config)
    twice = "language_model.base_model.model.output.weight"
    tmp_path.joinpath("source").mkdir()
    write_source(tmp_path / "source", config, state | {twice: torch.zeros(300, 32)})
    with pytest.raises(ValueError, match="are one tensor; expected one of them"):
        Shards(tmp_path / "source", config)


def test_a_folder_that_is_not_empty_is_refused_and_an_empty_one_is_used(source: Path, out: Path) -> None:
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        convert(source, out)
    (out / "notes.txt").unlink()
    convert(source, out)
    assert (out / "config.json").is_file()


def test_a_conversion_that_fails_on_the_way_leaves_nothing(source: Path, out: Path) -> None:
    def fail(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt):
        convert(source, out, progress=fail)
    assert os.listdir(out.parent) == ["source"]


def test_a_conversion_that_is_killed_on_the_way_leaves_no_out(tmp_path: Path, out: Path) -> None:
    make_source(tmp_path / "source", n_shards=2)
    killed = multiprocessing.get_context("fork").Process(
        target=convert, args=(tmp_path / "source", out, (), lambda line: os.kill(os.getpid(), signal.SIGKILL))
    )
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    (unfinished,) = tmp_path.glob(".out.*")
    assert [file.name for file in unfinished.glob("model*")] == ["model-00001.safetensors"]
    assert not out.exists()
    convert(tmp_path / "source", out)  # and what it left is in nobody's way
    shutil.rmtree(unfinished)


def test_a_tokenizer_of_another_checkpoint_is_refused(tmp_path: Path, out: Path) -> None:
    make_source(tmp_path / "source", QWEN2)
    config = tiny_config(QWEN2, 260)  # the image tokens lie beyond the last row of the embedding
    write_source(tmp_path / "source", config, tiny_state(config))
    with pytest.raises(ValueError, match=r"<IMG_CONTEXT> has id 265, the embedding has 260 rows"):
        convert(tmp_path / "source", out)
