"""Makes weights/demo_mllm/: a small LLaVA-OneVision model that captions clips of the demo world, trained from scratch.

Run as `python weights/demo_mllm.py` from the repository's root. It renders scenes whose seeds no demo split holds,
teaches the vision tower what stands in single frames, then the language model to caption clips and to answer yes/no
questions on them, and prints the numbers of the model card. At most 20 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    GenerationConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionVideoProcessor,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)
from transformers import LlavaOnevisionForConditionalGeneration as Mllm
from transformers import LlavaOnevisionProcessor as Processor

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from demo_deit import CLASSES, GRID, SIDE, fit_linear, patch_attributes, shrink  # noqa: E402

from datamodules.demo import DemoVideo, plan  # noqa: E402
from vigil.curves import auroc  # noqa: E402
from vigil.deit import MEAN, STD, DeitEncoder  # noqa: E402
from vigil.scenes import ATTRIBUTES, CATEGORIES, PRETRAINING_SEEDS, make_scene  # noqa: E402

TOKENS = (GRID // 2) ** 2  # of a frame, after pooling; the video adds one newline
FRAMES = 16  # rendered of each scene: two clips of 8, or one of 16
N_HELD_OUT = 240  # scenes
SPREAD = 0.05  # of the language model's first weights: Qwen2's 0.02 is for models ten times as wide
JOINT = 0.75  # of the language model's time passes before the vision tower learns with it
PLACE_NOUNS = r"\b(street|shop|parking lot|corridor|yard|hall)\b"
END = "<|im_end|>"
Turn = tuple[str, str]  # a question and its answer
SPECIAL = ("<|endoftext|>", "<|im_start|>", END, "<image>", "<video>")
# as the published llava-onevision checkpoints have it
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + ('\n' if message['role'] == 'assistant' else ' ') }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'video' %}{{ '<video>' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ ('' if message['role'] == 'assistant' else '\n') + part['text'] }}{% endfor %}"
    "{% endif %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DESCRIBE = (
    "Describe what happens in this video.", "Describe what happens in this video.", "What happens in this video?",
    "Describe the video.", "What are the people doing?", "Describe the surveillance video in one sentence.",
    "Describe the scene and anything unusual in it.", "Could you describe what happened in the video?",
    "Identify any abnormal events or safety hazards in this video.",
    "Analyze the video for anomalies. Describe any violent activities, accidents, or deviations from normal patterns.",
)  # fmt: skip
LIST = ("List everything that happens in this video.", "Describe this video in detail.")
# how a question calls an attribute, where its own name would not do; empty: not asked
PHRASES = {
    "night": "darkness of the night", "infrared": "a picture without colours", "lights_flash": "flickering light",
    "one_person": "only one person", "few_people": "a small group of people", "crowd": "a crowd of people",
    "uniform": "somebody in uniform", "masked": "a masked person", "broken_glass": "broken glass", "window": "",
    "counter": "", "tilted": "a tilted vehicle", "fire": "fire", "smoke": "smoke", "debris": "debris",
    "graffiti": "graffiti", "muzzle_flash": "a flash of a gun", "beacon": "a flashing beacon",
    "goods": "goods in a hand", "umbrella": "an umbrella", "arms_raised": "somebody with raised arms",
    "aiming": "somebody who aims", "arm_forward": "somebody who stretches an arm", "cuffed": "somebody in handcuffs",
}  # fmt: skip
# words that prompts of the systems use and captions do not, so that they stay whole in the vocabulary
ORDINARY = (
    "yes no Yes No normal Normal abnormal anomaly anomalous unusual event events category class none other Answer with "
    "or only one word Is there any in this video? Which of these is shown? Does it show happen happens following clip "
    "frame frames scene camera please the a an of and to for is are was were be that which who what when where how why "
    "not you I it its he she they his her their from at on by as if then than so can could should would will may do "
    "did violence crime accident theft weapon police suspicious dangerous activity behaviour behavior surveillance "
    "score between 0 and 1 describe briefly explain reason likely unlikely true false question answer options list "
    "abuse arrest arson assault burglary explosion fighting road accident robbery shooting shoplifting stealing "
    "vandalism"
)


def question_of(attribute: str) -> str:
    """The question whether an attribute is there, empty for one that is not asked."""
    if attribute.startswith("place_"):
        return f"Is this {'an' if attribute[6] in 'aeiou' else 'a'} {attribute[6:]}?"
    default = f"somebody {attribute}" if attribute.endswith("ing") else f"a {attribute.replace('_', ' ')}"
    phrase = PHRASES.get(attribute, default)
    return f"Is there {phrase}?" if phrase else ""


QUESTIONS = [question_of(attribute) for attribute in ATTRIBUTES]


@dataclass
class Clip:
    """Frames of one scene in order of time: uint8 (T, C, Y, X) at the vision tower's size.

    index (T,): their numbers in the scene. attribute bool (T, K); patch bool (T, GRID², K). captions: of the whole
    scene, (first, end, sentence). place: how they call it.
    """

    frames: np.ndarray
    index: np.ndarray
    attribute: np.ndarray
    patch: np.ndarray
    captions: list[tuple[int, int, str]]
    place: str

    def take(self, chosen: np.ndarray, mirror: bool) -> Clip:
        """The clip of some of the frames; mirrored, left and right change places in picture and words; no patches."""
        frames, captions = self.frames[chosen], self.captions
        if mirror:
            frames, swap = frames[..., ::-1], {"left": "right", "right": "left"}
            captions = [(a, b, re.sub(r"\b(left|right)\b", lambda m: swap[m[0]], text)) for a, b, text in captions]
        return Clip(frames, self.index[chosen], self.attribute[chosen], self.patch[:0], captions, self.place)

    def sentences(self) -> list[str]:
        """The captions that hold for a good part of the clip in order of time, or a plain word where none does."""
        start, stop = self.index[0], self.index[-1] + 1
        shared = [min(end, stop) - max(first, start) for first, end, _ in self.captions]
        found = [
            text for part, (first, end, text) in zip(shared, self.captions, strict=True)
            if part >= 0.3 * (stop - start) or part >= 0.6 * (end - first)
        ]  # fmt: skip
        somebody = self.attribute[:, ATTRIBUTES.index("person")].any()
        plain = "People walk by" if somebody else f"Nothing happens in the {self.place}"
        return list(dict.fromkeys(found)) or [plain]

    def sentence(self) -> str:
        """The caption whose time fits the clip's best: by intersection over union, so that it is the most specific."""
        start, stop = self.index[0], self.index[-1] + 1
        fit = {text: (min(b, stop) - max(a, start)) / (max(b, stop) - min(a, start)) for a, b, text in self.captions}
        return max(self.sentences(), key=lambda text: fit.get(text, 0.0))


def render_scene(seed: int) -> list[Clip]:
    """Two clips of 8 frames of a scene, or of every sixth scene one of 16."""
    assert seed in PRETRAINING_SEEDS
    rng = np.random.default_rng(seed)
    scene = make_scene(seed, CLASSES[seed % len(CLASSES)], int(rng.integers(165, 300)))
    clips = []
    for number in range(1 if (long := rng.random() < 1 / 6) else 2):
        n_frames = FRAMES if long else FRAMES // 2
        stride = int(rng.integers(3, 11)) if long else int(rng.choice((1, 2, 3, 3, 3, 4, 6, 8)))
        last = scene.n_frames - 1 - (n_frames - 1) * stride
        first = int(rng.integers(0, last + 1))
        if scene.anomalies and number == 0:  # around a frame of the event, which is where the rare attributes are
            first = int(np.clip(rng.integers(*scene.anomalies[0]) - n_frames * stride // 2, 0, last))
        index = first + stride * np.arange(n_frames)
        place = "parking lot" if scene.place == "parking" else scene.place
        shown = scene.attributes(index), patch_attributes(scene, index)
        clips.append(Clip(shrink(scene, index), index, *shown, scene.captions, place))
    return clips


def in_two(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """[work(item) for each item], in two processes."""
    with multiprocessing.get_context("fork").Pool(2, torch.set_num_threads, (1,)) as pool:
        return pool.map(work, items, chunksize=8)


def make_processor(sentences: list[str]) -> Processor:
    """Processor with a byte-level BPE of 1280 tokens, trained on the captions and on words of questions."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    asked = [*DESCRIBE, *LIST, *(question for question in QUESTIONS if question), *CATEGORIES]
    words = [form for word in ORDINARY.split() for form in (word, f" {word}")]
    trainer = trainers.BpeTrainer(
        vocab_size=1280 - len(SPECIAL), show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    # often, as a merge is made where it is frequent
    tokenizer.train_from_iterator([*sentences, *(asked + words) * 300], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=SPECIAL[0], padding_side="left", model_max_length=1024,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    picture = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    return Processor(
        image_processor=LlavaOnevisionImageProcessor(image_grid_pinpoints=[[SIDE, SIDE]], **picture),
        tokenizer=fast,
        video_processor=LlavaOnevisionVideoProcessor(**picture),
        num_image_tokens=GRID**2,
        vision_feature_select_strategy="full",
        chat_template=CHAT_TEMPLATE,
    )


def make_model(processor: Processor) -> Mllm:
    """The model with random weights."""
    tokenizer = processor.tokenizer
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=128, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, image_size=SIDE,
            patch_size=SIDE // GRID, vision_use_head=False,
        ),
        text_config=Qwen2Config(
            vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=8,
            num_attention_heads=4, num_key_value_heads=4, initializer_range=SPREAD, max_position_embeddings=1024,
            tie_word_embeddings=True, bos_token_id=None, **ids,
        ),
        image_token_index=processor.image_token_id, video_token_index=processor.video_token_id,
        initializer_range=SPREAD, vision_feature_layer=-1, vision_feature_select_strategy="full",
        image_grid_pinpoints=[[SIDE, SIDE]], tie_word_embeddings=True,
    )  # fmt: skip
    model = Mllm(config)
    model.generation_config = GenerationConfig(do_sample=False, max_new_tokens=64, **ids)
    return model


def same_event(sentence: str) -> str:
    """A caption without colours, places and the words for people, to tell which captions mean the same event."""
    sentence = re.sub(r"\b(an? )?(red|blue|green|white|grey|yellow|orange|purple|brown|black)\b", "", sentence.lower())
    return re.sub(rf"\b(man|woman|child|left|right)\b|{PLACE_NOUNS}", "", sentence)


def questions_of(clip: Clip, others: list[str], rate: np.ndarray, rng: np.random.Generator) -> Iterator[Turn]:
    """Yes/no questions on captions and attributes, without end; half of them say how to answer.

    others: captions of other scenes. rate (K,): how often each attribute is there, so that yes and no are both asked of
    rare ones as well as of common ones.
    """
    share = clip.attribute.mean(0)
    shown = (text for first, end, text in clip.captions if end > clip.index[0] and first <= clip.index[-1])
    overlapping = {same_event(text) for text in [*shown, *clip.sentences()]}
    while True:
        yes = bool(rng.random() < 0.5)
        if rng.random() < 0.25:
            sentence = str(rng.choice(clip.sentences() if yes else others))
            if not yes and rng.random() < 0.5:  # or the name of the place alone would tell
                sentence = re.sub(PLACE_NOUNS, clip.place, sentence)
            if not yes and same_event(sentence) in overlapping:
                continue
            question = f"Does this happen: {sentence}?"
        else:
            weight = ((share >= 0.25) * (1 - rate) if yes else (share == 0) * rate) ** 0.7
            weight[[not question for question in QUESTIONS]] = 0
            question = QUESTIONS[rng.choice(len(weight), p=weight / weight.sum())]
        how = str(rng.choice(("", "", " Answer yes or no.", " Answer Yes or No.")))
        answer = "Yes" if yes else "No"
        yield question + how, answer.lower() if "yes" in how else answer


def turns_of(clip: Clip, questions: Iterator[Turn], rng: np.random.Generator) -> list[Turn]:
    """A caption, sometimes all captions, and yes/no questions: eight altogether."""
    turns = [(str(rng.choice(DESCRIBE)), clip.sentence())]
    if rng.random() < 0.1:
        turns.append((str(rng.choice(LIST)), ". ".join(clip.sentences()[:3])))
    return [*turns, *itertools.islice(questions, 8 - len(turns))]


@dataclass
class Batch:
    """B conversations of S tokens, each asking several questions on one video that do not see each other.

    ids, position, label (B, S): label is the next token where an answer is to be learnt, else -100. part (B, S): 0 for
    the video, k for the k-th question, -k if it is answered yes or no. prompt_end (B,): where the first prompt ends.
    """

    ids: Tensor
    position: Tensor
    label: Tensor
    part: Tensor
    prompt_end: Tensor


def pack(conversations: list[list[Turn]], n_frames: int, processor: Processor) -> Batch:
    """Several questions on one video in one sequence; each sees the video and itself, as if it were the only one."""
    head = [*processor.tokenizer("<|im_start|>user ").input_ids, *[processor.video_token_id] * (TOKENS * n_frames + 1)]
    rows, prompt_end = [], []
    for turns in conversations:
        row = [[token, place, -100, 0] for place, token in enumerate(head)]
        for number, (question, answer) in enumerate(turns, 1):
            prompt = processor.tokenizer(f"\n{question}{END}<|im_start|>assistant\n").input_ids
            answered = processor.tokenizer(answer + END).input_ids
            label = [*[-100] * (len(prompt) - 1), *answered, -100]
            part = -number if answer.lower() in ("yes", "no") else number
            prompt_end += [len(row) + len(prompt) - 1] if number == 1 else []
            for place, token in enumerate(prompt + answered):
                row.append([token, len(head) + place, label[place], part])
        rows.append(row)
    longest = max(map(len, rows))
    padding = [processor.tokenizer.pad_token_id, 0, -100, 99]
    table = torch.tensor([row + [padding] * (longest - len(row)) for row in rows])
    return Batch(*table.unbind(-1), torch.tensor(prompt_end))


def forward(model: Mllm, pixels: Tensor, batch: Batch, train_vision: bool = False) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Loss of every labelled token (N,), in reading order, and the hidden states of all layers."""
    with torch.set_grad_enabled(train_vision and torch.is_grad_enabled()):
        vision = model.model.vision_tower(pixels.flatten(0, 1), output_hidden_states=True).hidden_states[-1]
    video = model.model.apply_pooling(model.model.multi_modal_projector(vision)).unflatten(0, pixels.shape[:2])
    video = torch.cat([video.flatten(1, 2), model.model.image_newline.expand(len(pixels), 1, -1)], dim=1)
    embedded, start = model.get_input_embeddings()(batch.ids), int((batch.part[0] == 0).sum()) - video.shape[1]
    embedded = torch.cat([embedded[:, :start], video, embedded[:, start + video.shape[1] :]], dim=1)
    mask = (batch.part[:, None] == 0) | (batch.part[:, None] == batch.part[:, :, None])
    out = model.model.language_model(
        inputs_embeds=embedded, attention_mask=mask.tril()[:, None], position_ids=batch.position, use_cache=False,
        output_hidden_states=True,
    )  # fmt: skip
    asked = batch.label != -100
    loss = functional.cross_entropy(model.lm_head(out.last_hidden_state[asked]), batch.label[asked], reduction="none")
    return loss, out.hidden_states


def pixels_of(clips: list[Clip], changed: bool = False) -> Tensor:
    """float32 (B, T, C, Y, X) in [-1, 1], as the video processor makes it.

    changed: exposure and contrast of each clip, and a little blur, as other cameras and codecs leave it.
    """
    picture = torch.from_numpy(np.stack([clip.frames for clip in clips])).float()
    if changed:
        shape = (len(clips), 1, 1, 1, 1)
        picture = picture * torch.empty(shape).uniform_(0.75, 1.25) + torch.empty(shape).uniform_(-20, 20)
        blurred = functional.avg_pool2d(picture.flatten(0, 1), 3, 1, 1).view_as(picture)
        picture = torch.lerp(picture, blurred, torch.rand(shape) * 0.6).clamp(0, 255)
    return picture / 127.5 - 1


class Schedule:
    """Steps an optimiser until the clock runs out; the rate rises over 60 steps and falls with the time on a cosine."""

    def __init__(self, modules: list[nn.Module], minutes: float) -> None:
        self.parameters, self.seconds = [p for module in modules for p in module.parameters()], 60 * minutes
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1.5e-3, weight_decay=0.05, betas=(0.9, 0.98))
        self.started, self.count = time.monotonic(), 0

    @property
    def done(self) -> float:
        """Part of the time that has gone."""
        return (time.monotonic() - self.started) / self.seconds

    def step(self, **losses: Tensor) -> None:
        """One step down the sum of the losses, which are printed now and then."""
        self.count += 1
        falling = 0.01 + 0.495 * (1 + math.cos(math.pi * min(1, self.done)))
        self.optimizer.param_groups[0]["lr"] = 1.5e-3 * min(1, self.count / 60) * falling
        self.optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        if self.count % 50 == 0:
            values = ", ".join(f"{name} {float(value.detach()):.4f}" for name, value in losses.items())
            print(f"step {self.count}: {values}, {time.monotonic() - self.started:.0f} s", flush=True)


def tag_loss(logit: Tensor, label: Tensor, rate: Tensor) -> Tensor:
    """Binary cross-entropy; positives count by the root of the odds, so that rare ones do and yet drown no others."""
    rate = rate.clamp(1e-4, 1 - 1e-4)
    weight = ((1 - rate) / rate).sqrt().clamp(1, 12)
    return functional.binary_cross_entropy_with_logits(logit, label.float(), pos_weight=weight)


def train_vision(model: Mllm, clips: list[Clip], minutes: float) -> None:
    """Fit the vision tower to say of frames what demo_deit says, whose blocks it starts with, and to keep colours.

    Its patch embedding is SigLIP's one convolution, demo_deit's three; its tokens are held against demo_deit's after
    the last norm, their mean against the class token.
    """
    tower, rng = model.model.vision_tower, np.random.default_rng(0)
    teacher = DeitEncoder("demo_deit", str(HERE / "demo_deit.safetensors")).model.eval().requires_grad_(False)
    for ours, theirs in zip(tower.encoder.layers, teacher.blocks, strict=True):
        copy_block(ours, theirs)
    heads = nn.ModuleDict({"norm": nn.LayerNorm(128), "frame": nn.Linear(128, 128), "colour": nn.Linear(128, 27)})
    mean, spread = (torch.tensor(value)[:, None, None] for value in (MEAN, STD))
    schedule = Schedule([tower, heads], minutes)
    while schedule.done < 1:
        chosen = [(clips[i], int(rng.integers(len(clips[i].index)))) for i in rng.integers(len(clips), size=48)]
        pixels = pixels_of([clip.take(np.array([t]), mirror=False) for clip, t in chosen], changed=True)[:, 0]
        pixels = pixels.flip(-1) if rng.random() < 0.5 else pixels
        with torch.no_grad():
            said = teacher.forward_features((pixels / 2 + 0.5 - mean) / spread)
        token = heads["norm"](tower(pixels, output_hidden_states=True).hidden_states[-1])
        cells = functional.unfold(functional.avg_pool2d(pixels, SIDE // GRID // 3), 3, stride=3)  # nine of each patch
        schedule.step(
            frame=functional.smooth_l1_loss(heads["frame"](token.mean(1)), said[:, 0]),
            patch=2 * functional.smooth_l1_loss(token, said[:, 1:]),
            colour=functional.smooth_l1_loss(heads["colour"](token), cells.transpose(1, 2), beta=0.2),
        )


@torch.no_grad()
def copy_block(ours: Any, theirs: Any) -> None:
    """The weights of a block of timm's vision transformer into one of SigLIP's of the same widths."""
    weight, bias = theirs.attn.qkv.weight.chunk(3), theirs.attn.qkv.bias.chunk(3)
    for k, name in enumerate(("q_proj", "k_proj", "v_proj")):
        getattr(ours.self_attn, name).weight.copy_(weight[k])
        getattr(ours.self_attn, name).bias.copy_(bias[k])
    same = (
        (ours.self_attn.out_proj, theirs.attn.proj), (ours.mlp.fc1, theirs.mlp.fc1), (ours.mlp.fc2, theirs.mlp.fc2),
        (ours.layer_norm1, theirs.norm1), (ours.layer_norm2, theirs.norm2),
    )  # fmt: skip
    for one, other in same:
        one.load_state_dict(other.state_dict())


def draw(clips: list[Clip], rng: np.random.Generator) -> list[Clip]:
    """Clips of one length from 2 to 32 frames: neighbours, or every second one; for 32, sixteen frames twice each."""
    n_frames = int(rng.choice((2, 4, 8, 16, 32), p=(0.05, 0.3, 0.5, 0.13, 0.02)))
    have = 8 if n_frames <= 8 else 16
    pool, found = [clip for clip in clips if len(clip.index) == have], []
    for k in rng.choice(len(pool), {2: 24, 4: 20, 8: 12, 16: 8, 32: 4}[n_frames], replace=False):
        step = int(rng.integers(1, 3)) if 2 * n_frames <= have else 1
        first = int(rng.integers(max(1, have - step * (n_frames - 1))))
        chosen = np.arange(n_frames) // 2 if n_frames > have else first + step * np.arange(n_frames)
        found.append(pool[k].take(chosen, mirror=bool(rng.random() < 0.5)))
    return found


def train_language(model: Mllm, processor: Processor, clips: list[Clip], minutes: float) -> None:
    """Fit projector and language model to answer, and in the last quarter of the time the vision tower with them."""
    rng, tower = np.random.default_rng(0), model.model.vision_tower
    others = [text for clip in clips for text in clip.sentences()]
    rate = np.mean([clip.attribute.any(0) for clip in clips], axis=0)
    # what the whole clip shows is asked of the state at the end of the prompt too, three quarters up
    summary = nn.Sequential(nn.LayerNorm(128), nn.Linear(128, len(ATTRIBUTES)))
    schedule = Schedule([model, summary], minutes)
    while schedule.done < 1:
        together = schedule.done > JOINT
        tower.requires_grad_(together).zero_grad()
        chosen = draw(clips, rng)
        turns = [turns_of(clip, questions_of(clip, others, rate, rng), rng) for clip in chosen]
        batch = pack(turns, len(chosen[0].index), processor)
        loss, hidden = forward(model, pixels_of(chosen, changed=True), batch, together)
        asked = batch.label != -100
        brief = (batch.part[asked] < 0) & (batch.label[asked] != processor.tokenizer.eos_token_id)
        state = summary(hidden[6][torch.arange(len(chosen)), batch.prompt_end])
        seen = torch.from_numpy(np.stack([clip.attribute.any(0) for clip in chosen]))
        shown = tag_loss(state, seen, torch.from_numpy(rate).float())
        schedule.step(caption=loss[~brief].mean(), answer=loss[brief].mean(), summary=shown)
    tower.requires_grad_(True)


def overlap(found: str, truth: str) -> float:
    """ROUGE-L F1: the longest common subsequence of words over the mean length of the two."""
    a, b = found.lower().split(), truth.lower().split()
    length = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, j in itertools.product(range(len(a)), range(len(b))):
        length[i + 1, j + 1] = length[i, j] + 1 if a[i] == b[j] else max(length[i, j + 1], length[i + 1, j])
    return 2 * float(length[-1, -1]) / max(1, len(a) + len(b))


def read(processor: Processor, videos: Iterable[np.ndarray], question: str) -> dict[str, Tensor]:
    """The model's inputs for one question on videos, each uint8 (T, C, Y, X)."""
    content = [{"type": "video"}, {"type": "text", "text": question}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    videos = [torch.from_numpy(video) for video in videos]
    return dict(processor(text=[prompt] * len(videos), videos=videos, return_tensors="pt"))


@torch.no_grad()
def judge_answers(model: Mllm, processor: Processor, clips: list[Clip]) -> tuple[dict[str, float], list[str]]:
    """On clips of 8 frames: loss of a caption's token, likeness of captions, right yes/no answers; and the captions."""
    rng, tokenizer = np.random.default_rng(0), processor.tokenizer
    truths = [clip.sentence() for clip in clips]
    rate = np.mean([clip.attribute.any(0) for clip in clips], axis=0)
    words = [tokenizer.convert_tokens_to_ids(word) for word in ("yes", "Yes", "no", "No")]
    found, losses, right = [], [], []
    for part in (clips[first : first + 24] for first in range(0, len(clips), 24)):
        pixels = pixels_of(part)
        losses.append(
            forward(model, pixels, pack([[(DESCRIBE[0], clip.sentence())] for clip in part], 8, processor))[0]
        )
        turns = [list(itertools.islice(questions_of(clip, truths, rate, rng), 4)) for clip in part]
        batch = pack(turns, 8, processor)
        asked = torch.isin(batch.label, torch.tensor(words))
        score = model.lm_head(forward(model, pixels, batch)[1][-1][asked])[:, words].softmax(1)
        yes = torch.tensor([answer.lower() == "yes" for turn in turns for _, answer in turn])
        right.append((score[:, :2].sum(1) > 0.5) == yes)
        inputs = read(processor, [clip.frames for clip in part], DESCRIBE[0])
        said = model.generate(**inputs, max_new_tokens=40)[:, inputs["input_ids"].shape[1] :]
        found += processor.batch_decode(said, skip_special_tokens=True)
    shifted = truths[len(truths) // 2 :] + truths[: len(truths) // 2]
    return {
        "caption loss per token": float(torch.cat(losses).mean()),
        "ROUGE-L F1": float(np.mean(list(map(overlap, found, truths)))),
        "ROUGE-L F1 against another clip's caption": float(np.mean(list(map(overlap, found, shifted)))),
        "same event": float(np.mean([same_event(a) == same_event(b) for a, b in zip(found, truths, strict=True)])),
        "yes/no accuracy": float(torch.cat(right).float().mean()),
    }, found


def demo_windows(video: DemoVideo) -> tuple[np.ndarray, np.ndarray]:
    """Windows of 8 frames 3 apart, one every 24: uint8 (N, T, C, Y, X), and their anomalous and other frames (N, 2)."""
    scene = video.scene()
    anomalous = np.array([any(first <= i < end for first, end in scene.anomalies) for i in range(scene.n_frames)])
    starts = range(0, scene.n_frames, 24)
    index = np.minimum(np.add.outer(starts, 3 * np.arange(8)), scene.n_frames - 1)
    count = [(part.sum(), (~part).sum()) for part in (anomalous[start : start + 24] for start in starts)]
    return np.stack([shrink(scene, row) for row in index]), np.array(count)


@torch.no_grad()
def prompt_states(model: Mllm, processor: Processor, windows: np.ndarray) -> Tensor:
    """Hidden state of every layer at the last prompt position: (N, L + 1, D)."""
    found = []
    for part in (windows[first : first + 32] for first in range(0, len(windows), 32)):
        inputs = read(processor, part, DESCRIBE[0])
        hidden = model(**inputs, output_hidden_states=True, logits_to_keep=1).hidden_states
        found.append(torch.stack([state[:, -1] for state in hidden], dim=1))
    return torch.cat(found)


def frame_auroc(model: Mllm, processor: Processor, demo: dict[str, list[np.ndarray]]) -> list[float]:
    """Of each layer: frame AUROC on the demo test split of a logistic regression fitted on the demo training split."""
    states = {split: prompt_states(model, processor, windows) for split, (windows, _) in demo.items()}
    anomalous = torch.from_numpy(demo["train"][1][:, 0] > demo["train"][1][:, 1])[:, None].float()
    found = []
    for layer in range(1, states["train"].shape[1]):
        score = fit_linear(states["train"][:, layer], anomalous)(states["test"][:, layer])[:, 0]
        found.append(auroc(score.detach().numpy(), *demo["test"][1].T))
    return found


def judge(folder: Path, held_out: list[Clip], demo: dict[str, list[np.ndarray]]) -> None:
    """Print the numbers of the model card, for the weights in a folder and for random ones."""
    processor = AutoProcessor.from_pretrained(folder)
    torch.manual_seed(0)
    trained = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    clips = [clip for clip in held_out if len(clip.index) == 8]
    for name, model in (("demo", trained.eval()), ("random", make_model(processor).eval())):
        numbers, captions = judge_answers(model, processor, clips)
        for caption, clip in list(zip(captions, clips, strict=True))[:: len(clips) // 8]:
            print(f"  {name} says: {caption}\n  the scene's: {clip.sentence()}")
        found = ", ".join(f"{key} {value:.3f}" for key, value in numbers.items())
        print(f"{len(clips)} held-out clips, {name} weights: {found}", flush=True)
        layers = " ".join(f"{value:.3f}" for value in frame_auroc(model, processor, demo))
        print(f"demo test split, {name} weights: frame AUROC by layer {layers}", flush=True)


def main() -> None:
    """Render, train, save, and print the numbers of the model card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--minutes", type=float, default=13, help="of training, 3 in 10 of them for the vision tower")
    parser.add_argument("--threads", type=int, default=2, help="1 where others use the cores: two wait for each other")
    parser.add_argument("--out", type=Path, default=HERE / "demo_mllm")
    parser.add_argument("--go_on", action="store_true", help="begin with the language model that is there")
    parser.add_argument("--judge", action="store_true", help="only judge the weights that are there")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    start, stop = PRETRAINING_SEEDS.start, PRETRAINING_SEEDS.stop
    taken = {video.scene_seed for size in ("tiny", "small", "full") for video in plan(0, size)}
    assert not taken & set(PRETRAINING_SEEDS), "a demo split holds a pretraining scene"
    started = time.monotonic()
    # all that is rendered comes first: a fork does not survive the threads that torch starts later
    held_out, demo = list(itertools.chain(*in_two(render_scene, range(stop - N_HELD_OUT, stop)))), {}
    for split in ("train", "test"):
        windows = in_two(demo_windows, [video for video in plan(0, "full") if video.split == split])
        demo[split] = [np.concatenate(column) for column in zip(*windows, strict=True)]
    if not options.judge:
        clips = list(itertools.chain(*in_two(render_scene, range(start, start + options.scenes))))
        print(
            f"rendered {len(clips)} clips of {options.scenes} scenes in {time.monotonic() - started:.0f} s", flush=True
        )
        if options.go_on:
            processor = AutoProcessor.from_pretrained(options.out)
            model = AutoModelForImageTextToText.from_pretrained(options.out, dtype=torch.float32)
        else:
            processor = make_processor([text for clip in clips for *_, text in clip.captions])
            model = make_model(processor)
        print(
            f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(processor.tokenizer)} tokens", flush=True
        )
        train_vision(model, clips, 0.3 * options.minutes)
        train_language(model, processor, clips, 0.7 * options.minutes)
        model.to(torch.bfloat16).save_pretrained(options.out)
        processor.save_pretrained(options.out)
        size = (options.out / "model.safetensors").stat().st_size / 1e6
        print(f"rendered and trained in {time.monotonic() - started:.0f} s; {size:.2f} MB", flush=True)
    judge(options.out, held_out, demo)
    print(f"{time.monotonic() - started:.0f} s in all", flush=True)


if __name__ == "__main__":
    main()
