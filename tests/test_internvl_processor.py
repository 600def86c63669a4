"""Tokenizer, template and processor of remote-code InternVL: the ids and prompts of the original, without its code."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer
from torchvision.transforms.v2 import functional as transforms
from transformers import AutoProcessor, Qwen2Tokenizer

from tests.tiny_internvl import (
    IMAGE_TOKENS,
    LETTERS,
    WORDS,
    make_source,
    pieces,
    tiny_config,
    write_internlm2_tokenizer,
    write_qwen2_tokenizer,
    write_sentencepiece,
)
from vigil.internvl_processor import chat_template, image_seq_length, read_processor, read_tokenizer, sentencepiece_bpe

TEXTS = [
    "",
    " ",
    "the thing",
    "  and  in",
    "is it",
    "naïve 火",
    "a\nb\t",
    "<s> the",
    "[UNUSED_TOKEN_145]",
    "<0x41>",
    "🙂at",
]

INTERNVL2 = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
INTERNVL2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)


def merge(text: str, listed: list[tuple[str, float, int]]) -> list[str]:
    """Sentencepiece's BPE from its definition: join the neighbours whose piece scores best, the leftmost on a tie."""
    score = {piece: value for piece, value, kind in listed if kind == 1}
    symbols = list(text.replace(" ", "▁"))
    while True:
        joined = [(score[a + b], -i) for i, (a, b) in enumerate(pairwise(symbols)) if a + b in score]
        if not joined:
            break
        at = -max(joined)[1]
        symbols[at : at + 2] = [symbols[at] + symbols[at + 1]]
    out = []
    for symbol in symbols:
        out += [symbol] if symbol in score else [f"<0x{byte:02X}>" for byte in symbol.encode()]
    return out


def sentences(n: int) -> list[str]:
    draw = random.Random(0)
    parts = [*WORDS, *LETTERS, " ", " ", "é", "火", "\n", "Z"]
    return ["".join(draw.choice(parts) for _ in range(draw.randint(1, 40))).replace("▁", " ") for _ in range(n)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_internlm2_tokenizer(tmp_path)
    return tmp_path


# sentencepiece -------------------------------------------------------------------------------------------------------


def test_pieces_equal_those_of_merging_by_score(tmp_path: Path) -> None:
    write_sentencepiece(tmp_path / "tokenizer.model", pieces())
    tokenizer = sentencepiece_bpe(tmp_path / "tokenizer.model", {})
    index = {piece: i for i, (piece, *_) in enumerate(pieces())}
    for text in [*TEXTS, *sentences(200)]:
        got = tokenizer.encode(text)
        assert got.tokens == merge(text, pieces()), text
        assert got.ids == [index[piece] for piece in got.tokens]
        assert tokenizer.decode(got.ids) == text


def test_an_order_of_scores_other_than_that_of_ids_is_followed(tmp_path: Path) -> None:
    listed = pieces(["th", "he"])
    swapped = [(piece, {"th": -9.0, "he": -1.0}.get(piece, value), kind) for piece, value, kind in listed]
    write_sentencepiece(tmp_path / "tokenizer.model", swapped)
    assert sentencepiece_bpe(tmp_path / "tokenizer.model", {}).encode("the").tokens == merge("the", swapped)
    assert merge("the", swapped) == ["t", "he"]
    assert merge("the", listed) == ["th", "e"]


def test_a_dummy_prefix_and_the_removal_of_extra_spaces_are_those_of_the_model(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    write_sentencepiece(path, pieces(), add_dummy_prefix=True)
    assert sentencepiece_bpe(path, {}).encode("the  in").tokens == merge(" the  in", pieces())
    write_sentencepiece(path, pieces(), remove_extra_whitespaces=True)
    assert sentencepiece_bpe(path, {}).encode("  the   in \n ").tokens == merge("the in \n", pieces())


def test_user_defined_pieces_are_cut_out_first(tmp_path: Path) -> None:
    listed = [*pieces(), ("in the", 0.0, 4), ("the▁th", 0.0, 4), ("nd", 0.0, 4)]
    write_sentencepiece(tmp_path / "tokenizer.model", listed)
    got = sentencepiece_bpe(tmp_path / "tokenizer.model", {}).encode("and the thing in the")
    assert got.tokens == ["a", "nd", "▁", "the▁th", "ing", "▁", "in", "▁the"]
    assert got.ids[1] == len(listed) - 1


def test_a_piece_whose_id_an_added_token_took_is_never_merged_to(tmp_path: Path) -> None:
    write_sentencepiece(tmp_path / "tokenizer.model", pieces())
    index = next(i for i, (piece, *_) in enumerate(pieces()) if piece == "the")
    tokenizer = sentencepiece_bpe(tmp_path / "tokenizer.model", {index: "<taken>"})
    left = [row for row in pieces() if row[0] != "the"]
    assert tokenizer.encode("the other the").tokens == merge("the other the", left)
    assert tokenizer.token_to_id("<taken>") == index


@pytest.mark.parametrize(
    ("model_type", "normalizer", "message"),
    [
        (1, {}, "model_type 1; expected 2, BPE"),
        (2, {"escape_whitespaces": False}, "no escape_whitespaces"),
        (2, {"add_dummy_prefix": True}, "a dummy prefix beside 1 user-defined pieces"),
    ],
)
def test_other_sentencepiece_models_are_refused(
    tmp_path: Path, model_type: int, normalizer: dict[str, Any], message: str
) -> None:
    write_sentencepiece(tmp_path / "tokenizer.model", [*pieces(), ("nd", 0.0, 4)], model_type, **normalizer)
    with pytest.raises(ValueError, match=message):
        sentencepiece_bpe(tmp_path / "tokenizer.model", {})


# whole tokenizers ----------------------------------------------------------------------------------------------------


def test_added_tokens_keep_their_ids_also_those_that_take_a_pieces_place(folder: Path) -> None:
    tokenizer = read_tokenizer(folder)
    listed = [piece for piece, *_ in pieces()]
    ids = tokenizer("<|im_start|>the<img>[UNUSED_TOKEN_146]")["input_ids"]
    assert ids[:4] == [1, listed.index("[UNUSED_TOKEN_146]"), listed.index("the"), len(listed)]  # <s> comes first
    assert len(listed) - 1 not in ids[4:]  # the piece is no way to write <|im_start|>
    assert [tokenizer.convert_tokens_to_ids(token) for token in IMAGE_TOKENS] == [*range(len(listed), len(listed) + 9)]
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", "</s>")


def test_each_part_between_special_tokens_is_merged_alone(folder: Path) -> None:
    got = read_tokenizer(folder).convert_ids_to_tokens(read_tokenizer(folder)("th<img>e the</img>\nand")["input_ids"])
    parts = [merge(part, pieces()) for part in ("th", "e the", "\nand")]
    assert got == ["<s>", *parts[0], "<img>", *parts[1], "</img>", *parts[2]]


def test_a_source_that_begins_and_ends_otherwise_is_followed(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"add_bos_token": False, "add_eos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    listed = [piece for piece, *_ in pieces()]
    assert read_tokenizer(folder)("the")["input_ids"] == [listed.index("the"), 2]


def test_qwen2s_files_give_the_ids_of_transformers_own_class(tmp_path: Path) -> None:
    n_ids = write_qwen2_tokenizer(tmp_path)
    theirs, ours = Qwen2Tokenizer.from_pretrained(tmp_path), read_tokenizer(tmp_path)
    for text in [*TEXTS, *sentences(50), "<|im_start|>user\n<img><IMG_CONTEXT></img>\nthe thing<|im_end|>"]:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.convert_tokens_to_ids("<video>") == n_ids  # after all of the source's


def test_a_tokenizer_json_is_taken_as_it_is(folder: Path) -> None:
    first = read_tokenizer(folder)
    first.backend_tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer.model").unlink()
    for text in TEXTS:
        assert read_tokenizer(folder)(text)["input_ids"] == first(text)["input_ids"]


def test_added_tokens_that_would_move_are_refused(folder: Path, tmp_path: Path) -> None:
    added = json.loads((folder / "added_tokens.json").read_text())
    (folder / "added_tokens.json").write_text(json.dumps(added | {"<more>": 999}))
    with pytest.raises(ValueError, match=r"'<more>' has id 999 and would get \d+; "):
        read_tokenizer(folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<more>": 1}))
    with pytest.raises(ValueError, match=r"id 1 is '<s>' in tokenizer_config\.json and '<more>' in added_tokens\.json"):
        read_tokenizer(folder)


def test_a_folder_without_tokenizer_or_without_image_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no tokenizer\.json, vocab\.json with merges\.txt, or tokenizer\.model"
    ):
        read_tokenizer(tmp_path)
    write_sentencepiece(tmp_path / "tokenizer.model", pieces())
    with pytest.raises(ValueError, match=r"no token <img>, </img>, <IMG_CONTEXT>, <\|im_start\|>, <\|im_end\|> in"):
        read_tokenizer(tmp_path)


# prompts and pixels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "system", "end"),
    [("internlm2-chat", INTERNVL2, ""), ("Hermes-2", INTERNVL2, ""), ("internvl2_5", INTERNVL2_5, "\n")],
    ids=["internlm2-chat", "Hermes-2", "internvl2_5"],
)
def test_a_prompt_equals_the_remote_codes_text(folder: Path, name: str, system: str, end: str) -> None:
    processor = read_processor(folder, tiny_config("InternLM2ForCausalLM", 400, template=name))
    talk = [
        {"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "the?"}]},
        {"role": "assistant", "content": "is"},
        {"role": "user", "content": "and"},
    ]
    turns = f"<|im_start|>user\n<video>\nthe?<|im_end|>{end}<|im_start|>assistant\nis<|im_end|>{end}"
    turns += f"<|im_start|>user\nand<|im_end|>{end}<|im_start|>assistant\n"
    expected = f"<|im_start|>system\n{system}<|im_end|>{end}{turns}"
    assert processor.apply_chat_template(talk, add_generation_prompt=True) == expected
    own = [{"role": "system", "content": "th"}, *talk]
    said = processor.apply_chat_template(own, add_generation_prompt=True)
    assert said == f"<|im_start|>system\nth<|im_end|>{end}{turns}"


def test_a_conversation_that_is_no_chatml_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"template is 'phi3-chat'.*expected one of internlm2-chat, Hermes-2, internvl2_5"
    ):
        chat_template("phi3-chat")


def test_a_frame_takes_256_tokens_at_448_pixels() -> None:
    assert image_seq_length({"force_image_size": 448, "vision_config": {"patch_size": 14, "image_size": 224}}) == 256


def test_a_reloaded_processor_writes_frames_out_and_normalises_as_the_remote_code(tmp_path: Path) -> None:
    config, _ = make_source(tmp_path / "source")
    read_processor(tmp_path / "source", config).save_pretrained(tmp_path / "out")
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    video = torch.randint(0, 256, (3, 28, 28, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    inputs = processor(text=["<video>\nthe"], videos=[video.numpy()], return_tensors="pt", do_sample_frames=False)
    frame = "<img>" + 4 * "<IMG_CONTEXT>" + "</img>"
    said = processor.tokenizer(f"Frame1: {frame}\nFrame2: {frame}\nFrame3: {frame}\nthe")["input_ids"]
    assert inputs["input_ids"].tolist() == [said]
    pixels = video.permute(0, 3, 1, 2) / 255
    expected = transforms.normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(inputs["pixel_values"], expected)


@pytest.mark.parametrize(("tiled", "tiles"), [(True, 3), (False, 1)])
def test_an_image_is_tiled_where_the_source_does_so(folder: Path, tiled: bool, tiles: int) -> None:
    config = tiny_config("InternLM2ForCausalLM", 400, dynamic_image_size=tiled)
    picture = Image.new("RGB", (60, 30))  # two squares, and a thumbnail
    assert len(read_processor(folder, config).image_processor(picture)["pixel_values"]) == tiles


def test_the_tokenizer_that_is_written_is_a_plain_tokenizer_json(tmp_path: Path) -> None:
    config, _ = make_source(tmp_path / "source")
    read_processor(tmp_path / "source", config).save_pretrained(tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert tokenizer.encode("the thing").ids == read_tokenizer(tmp_path / "source")("the thing")["input_ids"]
