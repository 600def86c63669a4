"""Tokenizer, chat template and processor of an InternVL checkpoint that ships remote code, read without running any."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, processors
from tokenizers.models import BPE

NAMED = {  # what transformers' InternVLProcessor asks its tokenizer for; <video> is written out before tokenizing
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the remote code's own transform

_INTERNVL2 = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_INTERNVL2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
CONVERSATIONS = {  # `template` of config.json -> system message, end of a turn; source: InternVL, conversation.py
    "internlm2-chat": (_INTERNVL2, "<|im_end|>"),
    "Hermes-2": (_INTERNVL2, "<|im_end|>"),
    "internvl2_5": (_INTERNVL2_5, "<|im_end|>\n"),
}
START_OF_TURN, END_OF_TURN = "<|im_start|>", "<|im_end|>"

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = range(
    1, 7
)  # sentencepiece_model.proto, the type of a piece
_BPE = 2  # the same file, TrainerSpec.model_type


def read_processor(source: Path, config: Mapping[str, Any]) -> Any:
    """The InternVLProcessor of the checkpoint in `source`; config: its config.json.

    An image is cut into tiles and a thumbnail where the source does so, a frame of a video never. The chat template
    opens with the source's system message unless the conversation brings one.
    Raises ValueError for a tokenizer or conversation that has no native counterpart, FileNotFoundError without one.
    """
    from transformers import GotOcr2ImageProcessor, InternVLProcessor, InternVLVideoProcessor  # seconds

    side, length = image_size(config), image_seq_length(config)
    prepare: dict[str, Any] = {
        "size": {"height": side, "width": side},
        "image_mean": list(IMAGENET_MEAN),
        "image_std": list(IMAGENET_STD),
    }
    tiles = GotOcr2ImageProcessor(
        **prepare,
        crop_to_patches=bool(config.get("dynamic_image_size")),
        min_patches=config.get("min_dynamic_patch", 1),
        max_patches=config.get("max_dynamic_patch", 6),  # the remote configuration's default
    )
    return InternVLProcessor(
        tiles,
        read_tokenizer(source),
        InternVLVideoProcessor(**prepare),
        image_seq_length=length,
        chat_template=chat_template(config.get("template")),
    )


def image_size(config: Mapping[str, Any]) -> int:
    """Pixels along a side of what the vision tower is shown."""
    return int(config.get("force_image_size") or config["vision_config"]["image_size"])


def image_seq_length(config: Mapping[str, Any]) -> int:
    """Tokens of the language model that one tile or frame takes: 256 at 448 pixels."""
    patches = image_size(config) // int(config["vision_config"]["patch_size"])
    return int(patches**2 * float(config.get("downsample_ratio", 0.5)) ** 2)


def chat_template(name: str | None) -> str:
    """Jinja template of a conversation: ChatML with `<IMG_CONTEXT>` and `<video>`, as in InternVL's `-hf` checkpoints.

    Differs from those: it opens with the system message that the remote code always adds, and a turn of InternVL2
    ends without the line feed that InternVL2.5 has.
    """
    if name not in CONVERSATIONS:
        raise ValueError(
            f"config.json: template is {name!r}, which is no ChatML conversation that is known here; "
            f"expected one of {', '.join(CONVERSATIONS)}"
        )
    system, end = (json.dumps(text, ensure_ascii=False) for text in CONVERSATIONS[name])
    return (
        "{%- if messages[0]['role'] != 'system' -%}"
        "{{ '<|im_start|>system\\n' + " + system + " + " + end + " }}"
        "{%- endif -%}"
        "{%- for message in messages -%}"
        "{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{%- if message['content'] is string -%}{{ message['content'] }}"
        "{%- else -%}{%- for content in message['content'] -%}"
        "{%- if content['type'] == 'image' -%}{{ '<IMG_CONTEXT>\\n' }}"
        "{%- elif content['type'] == 'video' -%}{{ '<video>\\n' }}"
        "{%- elif content['type'] == 'text' -%}{{ content['text'] }}"
        "{%- endif -%}{%- endfor -%}{%- endif -%}"
        "{{ " + end + " }}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
    )


def read_tokenizer(source: Path) -> Any:
    """The tokenizer in `source` as a PreTrainedTokenizerFast, with every added token at the source's id.

    Taken from tokenizer.json, else Qwen2's vocab.json and merges.txt, else sentencepiece's tokenizer.model, which
    remote code would read in InternLM2's case. Raises FileNotFoundError where there is none of them, ValueError
    where ids would move or the image tokens are missing.
    """
    from transformers import PreTrainedTokenizerFast

    settings = read_json(source / "tokenizer_config.json")
    added = _added_tokens(source, settings)
    names = {
        name: value["content"] if isinstance(value, dict) else value
        for name in ("bos_token", "eos_token", "unk_token", "pad_token")
        if (value := settings.get(name))
    }
    if (source / "tokenizer.json").is_file():
        tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    elif (source / "vocab.json").is_file() and (source / "merges.txt").is_file():
        tokenizer = _qwen2(source)
    elif (source / "tokenizer.model").is_file():
        model = source / "tokenizer.model"
        tokenizer = sentencepiece_bpe(model, {index: token.content for index, token in added.items()})
        names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"} | names
        _frame(tokenizer, names, settings)
    else:
        raise FileNotFoundError(
            f"{source}: no tokenizer.json, vocab.json with merges.txt, or tokenizer.model; download the tokenizer too"
        )
    for index, token in sorted(added.items()):
        tokenizer.add_tokens([token])
        if tokenizer.token_to_id(token.content) != index:
            raise ValueError(
                f"{source}: the added token {token.content!r} has id {index} and would get "
                f"{tokenizer.token_to_id(token.content)}; tokenizer and added tokens must be of one checkpoint"
            )
    needed = [*NAMED.values(), START_OF_TURN, END_OF_TURN]
    needed.remove(NAMED["video_token"])
    missing = [token for token in needed if tokenizer.token_to_id(token) is None]
    if missing:
        raise ValueError(f"{source}: no token {', '.join(missing)} in the tokenizer; expected InternVL's added tokens")
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        **names,
        model_max_length=settings.get("model_max_length", 8192),
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens=NAMED,
    )


def sentencepiece_bpe(path: Path, added: Mapping[int, str]) -> Tokenizer:
    """A sentencepiece BPE model as a Tokenizer that merges the same pieces.

    added: the tokens that take an id, also that of a piece (InternLM2's <|im_start|> takes [UNUSED_TOKEN_146]'s).
    Raises ValueError for what has no counterpart: other models than BPE, suffixed or unescaped spaces, and
    user-defined pieces beside a dummy prefix.
    Differs: where two pieces have one score, the lower id is merged first, not the leftmost pair; pieces marked as
    unused, and those that an added token took the place of, are never merged to.
    """
    from transformers.convert_slow_tokenizer import import_protobuf

    proto = import_protobuf().ModelProto()  # type: ignore[no-untyped-call]
    proto.ParseFromString(path.read_bytes())
    spec, trainer = proto.normalizer_spec, proto.trainer_spec
    own = [(index, piece) for index, piece in enumerate(proto.pieces) if index not in added]
    # a piece with a space is never met: the text has ▁ by then
    defined = [piece.piece for _, piece in own if piece.type == _USER_DEFINED and " " not in piece.piece]
    for wrong, found in (
        (trainer.model_type != _BPE, f"model_type {trainer.model_type}; expected {_BPE}, BPE"),
        (trainer.treat_whitespace_as_suffix, "treat_whitespace_as_suffix"),
        (not spec.escape_whitespaces, "no escape_whitespaces"),
        (spec.add_dummy_prefix and defined, f"a dummy prefix beside {len(defined)} user-defined pieces"),
    ):
        if wrong:
            raise ValueError(f"{path}: a sentencepiece model with {found}, which has no native counterpart")
    vocabulary = {added.get(index, piece.piece): index for index, piece in enumerate(proto.pieces)}
    score = {piece.piece: piece.score for _, piece in own if piece.type == _NORMAL}
    merges = [
        (-value, vocabulary[piece], piece[:cut], piece[cut:])
        for piece, value in score.items()
        for cut in range(1, len(piece))
        if piece[:cut] in score and piece[cut:] in score
    ]
    tokenizer = Tokenizer(
        BPE(
            vocabulary,
            [(left, right) for _, _, left, right in sorted(merges)],
            unk_token=trainer.unk_piece,
            fuse_unk=True,
            byte_fallback=trainer.byte_fallback,
        )
    )
    steps: list[Any] = [normalizers.Precompiled(spec.precompiled_charsmap)] if spec.precompiled_charsmap else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(r"\A +|[ ▁]+\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend("▁"))
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    spaces: list[Any] = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(spaces + [decoders.Strip(" ", left=1)] * spec.add_dummy_prefix)
    # one with ▁ can be met in the normalised text alone
    tokenizer.add_tokens([AddedToken(piece, normalized="▁" in piece, special=False) for piece in defined])
    return tokenizer


def _frame(tokenizer: Tokenizer, names: Mapping[str, str], settings: Mapping[str, Any]) -> None:
    """Begin and end a text as InternLM2Tokenizer does by its add_bos_token (True) and add_eos_token (False)."""
    first = [names["bos_token"]] if settings.get("add_bos_token", True) else []
    last = [names["eos_token"]] if settings.get("add_eos_token", False) else []
    if first or last:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*first, "$A", *last],
            pair=[*first, "$A", "$B:1", *last],
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in {*first, *last}],
        )


def _qwen2(source: Path) -> Tokenizer:
    from transformers import Qwen2Tokenizer

    lines = (source / "merges.txt").read_text(encoding="utf-8").splitlines()
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    tokenizer = Qwen2Tokenizer(vocab=read_json(source / "vocab.json"), merges=merges)  # type: ignore[arg-type]
    return tokenizer.backend_tokenizer


def _added_tokens(source: Path, settings: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Id -> token that stands beside the model's own vocabulary, of tokenizer_config.json and added_tokens.json."""
    added = {}
    for index, facts in settings.get("added_tokens_decoder", {}).items():
        flags = {name: facts.get(name, False) for name in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        added[int(index)] = AddedToken(facts["content"], **flags)
    for content, index in read_json(source / "added_tokens.json").items():
        added.setdefault(index, AddedToken(content, normalized=False, special=True))
        if added[index].content != content:
            raise ValueError(
                f"{source}: id {index} is {added[index].content!r} in tokenizer_config.json and {content!r} in "
                "added_tokens.json; take both files from one checkpoint"
            )
    return added


def read_json(file: Path) -> dict[str, Any]:
    """What the file holds; nothing where it is missing."""
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
