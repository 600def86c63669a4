"""Makes weights/demo_clip: a small CLIP that has learnt which sentences fit frames of the demo world.

Run as `python weights/demo_clip.py` from the repository's root. It renders scenes whose seeds no demo split holds,
trains both towers from scratch to tell which caption belongs to which frame, and prints the numbers of the model card.
About 9 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import logging

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from demo_deit import (  # noqa: E402
    FRAMES,
    GRID,
    N_HELD_OUT,
    SIDE,
    augment,
    demo_frames,
    draw,
    patch_attributes,
    shrink,
)

from datamodules.demo import plan  # noqa: E402
from datamodules.ucf_crime import UcfCrime  # noqa: E402
from lightning_modules.zero_shot_clip import ANOMALOUS, NORMAL, ZeroShotClip  # noqa: E402
from vigil.clip import ClipTowers, anomalous_share  # noqa: E402
from vigil.curves import auroc  # noqa: E402
from vigil.scenes import ATTRIBUTES, PRETRAINING_SEEDS  # noqa: E402

DEMO = "demo_clip"
CONTEXT = 77  # tokens, as in every CLIP
OPENINGS = ("", "", "a picture of ", "a surveillance picture of ", "a camera shows ")

# what a person would say of each attribute, in the words of the scenes' own sentences, and of no category
SAID = {
    "place_street": ("a street", "a road"), "place_shop": ("a shop",), "place_parking": ("a parking lot",),
    "place_corridor": ("a corridor",), "place_yard": ("a yard",), "place_hall": ("a hall",),
    "night": ("the night", "a dark place at night"), "infrared": ("a grey picture without colour",),
    "lights_flash": ("flickering light",), "one_person": ("one person", "somebody alone"),
    "few_people": ("a few people", "several people"), "crowd": ("a crowd", "many people"),
    "person": ("a person", "somebody", "people"), "child": ("a child", "children"),
    "uniform": ("a police officer", "a guard in uniform", "police"), "masked": ("a masked person", "a robber in black"),
    "vehicle": ("a car", "cars on the road", "a vehicle"), "police_car": ("a police car",), "bicycle": ("a bicycle",),
    "tilted": ("a crashed car", "a car crash"), "fire": ("fire", "flames", "something on fire"),
    "fireball": ("a ball of fire", "something that explodes"), "smoke": ("smoke", "dark smoke"),
    "debris": ("debris", "parts that fly off"), "muzzle_flash": ("a person who fires a gun", "a shot"),
    "beacon": ("flashing lights",), "broken_glass": ("broken glass", "a broken window"), "window": ("a window",),
    "counter": ("a counter",), "graffiti": ("graffiti", "letters sprayed on a wall"), "gun": ("a gun",),
    "stick": ("a stick", "a bat"), "crowbar": ("a crowbar",), "spray_can": ("a spray can",), "can": ("a red can",),
    "money_bag": ("a bag of money", "money"), "bag": ("a bag",), "box": ("a box",), "goods": ("goods",),
    "broom": ("a broom",), "umbrella": ("an umbrella",), "ball": ("a ball",),
    "running": ("a person running", "somebody who runs away"), "arms_raised": ("a person with raised arms",),
    "aiming": ("a person who points a gun",), "punching": ("a person who punches another", "people who hit each other"),
    "kicking": ("a person who kicks another",), "striking": ("a person who beats with a stick",),
    "cowering": ("a person who covers the head",), "crouching": ("a person who crouches",),
    "kneeling": ("a person on the knees",), "cuffed": ("a person in handcuffs",),
    "bending": ("a person who bends down",), "lying": ("a person lying on the ground",),
    "climbing": ("a person climbing through a window",),
    "carrying": ("a person who carries something",), "arm_forward": ("a person who reaches out",),
    "riding": ("a person who rides a bicycle",), "sweeping": ("a person who sweeps the ground",),
}  # fmt: skip
assert set(SAID) == set(ATTRIBUTES)


@dataclass
class Frames:
    """Pixels uint8 (T, C, Y, X), attributes bool (T, K) and of each patch (T, GRID², K), the sentences of each."""

    pixels: Tensor
    label: Tensor
    patch: Tensor
    sentences: list[list[str]]

    def __len__(self) -> int:
        return len(self.pixels)


def render_scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[str]]]:
    """The Frames of one scene, as arrays."""
    scene, index = draw(seed)
    said = [[text for first, end, text in scene.captions if first <= i < end] for i in index]
    return shrink(scene, index), scene.attributes(index), patch_attributes(scene, index), said


def render(seeds: range) -> Frames:
    """render_scene of all seeds, in two processes."""
    with multiprocessing.get_context("fork").Pool(2, torch.set_num_threads, (1,)) as pool:
        parts = list(zip(*pool.map(render_scene, seeds, chunksize=20), strict=True))
    pixels, label, patch = (torch.from_numpy(np.concatenate(part)) for part in parts[:3])
    return Frames(pixels, label, patch, [said for part in parts[3] for said in part])


def make_tokenizer(captions: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 1,024 tokens, learnt from the captions; any text can be said in it."""
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|startoftext|>", "<|endoftext|>", "<|pad|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=1024, special_tokens=special, initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    pairs = [(token, tokenizer.token_to_id(token)) for token in special[:2]]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A {special[1]}", special_tokens=pairs
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1], pad_token=special[2],
        model_max_length=CONTEXT,
    )  # fmt: skip


def make_model(tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    """Both towers, with random weights."""
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 96, "intermediate_size": 384, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": CONTEXT, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "projection_dim": 64,
        "hidden_act": "gelu",
    }  # fmt: skip
    vision = {
        "image_size": SIDE, "patch_size": SIDE // GRID, "hidden_size": 128, "intermediate_size": 512,
        "num_hidden_layers": 4, "num_attention_heads": 4, "projection_dim": 64, "hidden_act": "gelu",
    }  # fmt: skip
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64))


def make_image_processor() -> CLIPImageProcessor:
    """The whole frame squeezed to a square: an event at the edge of a surveillance picture counts."""
    size = {"height": SIDE, "width": SIDE}
    return CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)


def describe(label: Tensor, rarity: Tensor, rng: np.random.Generator) -> tuple[str, list[int]]:
    """One to three attributes of a frame in words, rare ones preferred, and which."""
    there = np.flatnonzero(label.numpy())
    weight = rarity.numpy()[there]
    count = min(len(there), int(rng.integers(1, 4)))
    chosen = rng.choice(there, count, replace=False, p=weight / weight.sum())
    words = [str(rng.choice(SAID[ATTRIBUTES[k]])) for k in chosen]
    return str(rng.choice(OPENINGS)) + " and ".join(words), [int(k) for k in chosen]


def tell(sentences: list[str], label: Tensor, rng: np.random.Generator) -> str:
    """One or two of a frame's sentences; where there is none, that nothing happens, and where."""
    if sentences:
        chosen = rng.choice(len(sentences), min(len(sentences), int(rng.integers(1, 3))), replace=False)
        return str(rng.choice(OPENINGS)) + ", ".join(sentences[k] for k in chosen)
    place = next(SAID[name][0] for name, there in zip(ATTRIBUTES, label, strict=True) if there)
    return str(rng.choice(OPENINGS)) + f"nothing happens in {place}"


def contrast(logit: Tensor, fits: Tensor) -> Tensor:
    """CLIP's loss of pictures (rows) and texts (columns); several may fit: fits bool (B, B), the diagonal true."""
    sides = ((logit, fits.float()), (logit.T, fits.T.float()))
    both = [-(side.log_softmax(1) * (good / good.sum(1, keepdim=True))).sum(1).mean() for side, good in sides]
    return torch.stack(both).mean()


def train(
    model: CLIPModel, tokenizer: PreTrainedTokenizerFast, data: Frames, minutes: float, steps: int, batch: int = 64
) -> None:
    """Fit both towers for so many steps or minutes; heads that name the attributes help, and are thrown away."""
    width = model.config.vision_config.hidden_size
    whole, local = nn.Linear(width, len(ATTRIBUTES)), nn.Linear(width, len(ATTRIBUTES))
    rates = [part.clamp(1e-4, 1 - 1e-4) for part in (data.label.float().mean(0), data.patch.float().mean((0, 1)))]
    weight = [((1 - rate) / rate).sqrt().clamp(1, 12) for rate in rates]
    parameters = [*model.parameters(), *whole.parameters(), *local.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1.5e-3, weight_decay=0.05, betas=(0.9, 0.98), fused=True)
    rng, order, started = np.random.default_rng(0), torch.randperm(len(data)), time.monotonic()
    mean, std = (torch.tensor(value)[:, None, None] for value in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    model.train()
    for step in range(steps):
        done = max(step / steps, (time.monotonic() - started) / (60 * minutes))
        if done >= 1:
            break
        if len(order) < batch:
            order = torch.randperm(len(data))
        chosen, order = order[:batch], order[batch:]
        label = data.label[chosen]
        short = [describe(row, weight[0], rng) for row in label]
        long = [tell(data.sentences[int(i)], row, rng) for i, row in zip(chosen, label, strict=True)]
        # apart, so that the short ones are not padded to the others
        text = [_encode(model, tokenizer, texts) for texts in ([text for text, _ in short], long)]
        pixels, where = augment(data.pixels[chosen], data.patch[chosen])
        seen = model.vision_model(pixel_values=(pixels.float() / 255 - mean) / std)
        image = functional.normalize(model.visual_projection(seen.pooler_output), dim=-1)
        told, said = (model.logit_scale.exp() * image @ feature.T for feature in text)
        # a short caption fits every picture that shows what it names; of a sentence only its own is known to
        fits = torch.stack([label[:, parts].all(1) for _, parts in short], 1)
        same = torch.tensor([[a == b for b in long] for a in long])
        binary = functional.binary_cross_entropy_with_logits
        parts = [
            contrast(told, fits),
            contrast(said, same),
            binary(whole(seen.pooler_output), label.float(), pos_weight=weight[0]),
            2 * binary(local(seen.last_hidden_state[:, 1:]), where.float(), pos_weight=weight[1]),
        ]
        warm = min(1, (step + 1) / 80)
        optimizer.param_groups[0]["lr"] = 1.5e-3 * warm * (0.01 + 0.495 * (1 + math.cos(math.pi * done)))
        optimizer.zero_grad()
        torch.stack(parts).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))  # as CLIP does
        if step % 50 == 49:
            losses = ", ".join(f"{part:.3f}" for part in parts)
            print(f"step {step + 1}: {losses}; {time.monotonic() - started:.0f} s", flush=True)
    model.eval()


def _encode(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> Tensor:
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
    out = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return functional.normalize(out.pooler_output, dim=-1)


def save(folder: Path, model: CLIPModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Weights in float16, tokenizer and image processor, as from_pretrained reads them."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_image_processor().save_pretrained(folder)


def retrieval(towers: ClipTowers, data: Frames) -> tuple[float, float]:
    """Of a frame per scene with a sentence: how often its own is the first, and among the first five, of all."""
    rows = [i for i in range(0, len(data), FRAMES) if data.sentences[i]]
    texts = [", ".join(data.sentences[i][:2]) for i in rows]
    similarity = towers.images(data.pixels[rows]) @ towers.texts(texts).T
    own = similarity.diagonal()[:, None]
    rank = (similarity > own).sum(1)
    return float((rank < 1).float().mean()), float((rank < 5).float().mean())


def frame_auroc(towers: dict[str, ClipTowers]) -> dict[str, float]:
    """{weights and phrases: frame AUROC}, every eighth frame of the demo test split, no label seen by anybody."""
    frames, anomalous = zip(*(demo_frames(video) for video in plan(0, "full") if video.split == "test"), strict=True)
    pixels, truth = torch.from_numpy(np.concatenate(frames)), np.concatenate(anomalous).astype(np.int64)
    template, found = ZeroShotClip().template, {}
    for name, tower in towers.items():
        image = tower.images(pixels)
        for kind, phrases in (("general phrases", ANOMALOUS), ("names of the classes", UcfCrime.phrases)):
            sides = [tower.texts([template.replace("{}", phrase) for phrase in side]) for side in (phrases, NORMAL)]
            score = anomalous_share(image, *sides, tower.logit_scale).numpy()
            found[f"{name}, {kind}"] = auroc(score, truth, 1 - truth)
    return found


def judge(folder: Path) -> None:
    """Print the numbers of the model card."""
    with tempfile.TemporaryDirectory() as other:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        torch.manual_seed(0)
        save(Path(other), make_model(tokenizer), tokenizer)
        towers = {"demo weights": ClipTowers(str(folder)), "random weights": ClipTowers(other)}
        others = render(range(PRETRAINING_SEEDS.stop - N_HELD_OUT, PRETRAINING_SEEDS.stop))
        n_texts = sum(bool(others.sentences[i]) for i in range(0, len(others), FRAMES))
        print(f"retrieval of a frame's own sentences among {n_texts}; chance {1 / n_texts:.3f} and {5 / n_texts:.3f}")
        for name, tower in towers.items():
            first, five = retrieval(tower, others)
            print(f"  {name}: first {first:.3f}, among five {five:.3f}", flush=True)
        for name, value in frame_auroc(towers).items():
            print(f"demo test split, {name}: frame AUROC {value:.3f}", flush=True)


def main() -> None:
    """Render, train, save, and print the numbers of the model card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=2400)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--minutes", type=float, default=6, help="of training; its learning rate is then at 0")
    parser.add_argument("--threads", type=int, default=2, help="fewer than the cores where others use them as well")
    parser.add_argument("--out", type=Path, default=HERE / DEMO)
    parser.add_argument("--judge", action="store_true", help="only judge the weights that are there")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    taken = {video.scene_seed for size in ("tiny", "small", "full") for video in plan(0, size)}
    assert not taken & set(PRETRAINING_SEEDS), "a demo split holds a pretraining scene"
    if not options.judge:
        started = time.monotonic()
        data = render(range(PRETRAINING_SEEDS.start, PRETRAINING_SEEDS.start + options.scenes))
        print(f"rendered {len(data)} frames of {options.scenes} scenes: {time.monotonic() - started:.0f} s", flush=True)
        spoken = [sentence for said in data.sentences for sentence in said]
        tokenizer = make_tokenizer([*spoken, *OPENINGS, *(words for said in SAID.values() for words in said)])
        model = make_model(tokenizer)
        used = time.process_time()
        train(model, tokenizer, data, options.minutes, options.steps)
        print(f"trained with {(time.process_time() - used) / 60:.1f} minutes of one core", flush=True)
        save(options.out, model, tokenizer)
        size = sum(file.stat().st_size for file in options.out.iterdir()) / 1e6
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{count:,} parameters, {size:.2f} MB, {time.monotonic() - started:.0f} s in all", flush=True)
    judge(options.out)


if __name__ == "__main__":
    main()
