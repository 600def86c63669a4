"""Makes weights/demo_sam2/: a small SAM2 that outlines what one clicks on in frames of the demo world.

Run as `python weights/demo_sam2.py` from the repository's root. It renders scenes whose seeds no demo split holds,
teaches the image encoder what stands where, then prompt encoder and mask decoder to part a thing from all else after a
click or a box, and prints the numbers of the model card. About 16 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import Sam2Config, Sam2ImageProcessor, Sam2Model, Sam2Processor
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.utils import logging

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from demo_deit import N_HELD_OUT, fit_linear  # noqa: E402

from datamodules.demo import plan  # noqa: E402
from datamodules.demo_segmentation import FIRST_SEED  # noqa: E402
from datamodules.demo_shots import MANNERS, NOUNS, PEOPLE, Shot, Thing, make_shot  # noqa: E402
from vigil.curves import auroc, average_precision  # noqa: E402
from vigil.mask_loss import mask_decoder_loss  # noqa: E402
from vigil.scenes import PRETRAINING_SEEDS  # noqa: E402
from vigil.stage import COLOURS  # noqa: E402

DEMO = "demo_sam2"
SIDE, GRID = 128, 64  # pixels of the encoder's picture along each side, and of the masks that it learns from
STRIDES = (4, 8, 16)  # of the features, whose cells learn to say what they show
PROMPTS = 6  # clicks per frame and step, and as many boxes
KEPT = 3000  # frames whose features the mask decoder learns on
NOTHING = 0.25  # the share of prompts where nothing is
WORDS = tuple(dict.fromkeys([*NOUNS.values(), *PEOPLE, "van", *MANNERS.values(), *COLOURS]))


@dataclass
class Frames:
    """Pixels uint8 (N, C, SIDE, SIDE); of each frame the masks of its things, packed (n, GRID²/8), and words (n, K)."""

    pixels: Tensor
    masks: list[np.ndarray]
    words: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.pixels)


def squash(frames: np.ndarray) -> Tensor:
    """Frames (T, Y, X, 3) as the encoder takes them, bilinear and antialiased: uint8 (T, C, SIDE, SIDE)."""
    picture = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    small = functional.interpolate(picture, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
    return small.round().to(torch.uint8)


def shrink_mask(mask: np.ndarray) -> np.ndarray:
    """A mask (Y, X) at GRID, bool: the cells it covers most, as many as its area fills (or ties); thin things stay."""
    cover = functional.adaptive_avg_pool2d(torch.from_numpy(mask)[None].float(), GRID)[0]
    least = cover.flatten().topk(max(1, round(float(cover.sum())))).values[-1]
    return ((cover >= least) & (cover > 0)).numpy()


def words_of(thing: Thing) -> np.ndarray:
    """Which of WORDS are true of a thing: bool (K,)."""
    said = {thing.noun, thing.manner, thing.colour, "person" if thing.noun in PEOPLE else ""}
    return np.array([word in said for word in WORDS])


def draw(seed: int) -> Shot:
    """One frame of a scene and the things in it; one scene in four has buses, lorries, lights and signs besides."""
    assert seed in PRETRAINING_SEEDS
    return make_shot(seed, 1, street=seed % 4 == 0)


def render_scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Frames of one scene, as arrays."""
    shot = draw(seed)
    masks = np.array([shrink_mask(thing.mask[0]) for thing in shot.things], bool).reshape(-1, GRID**2)
    words = np.array([words_of(thing) for thing in shot.things], bool).reshape(-1, len(WORDS))
    return squash(shot.frames)[0].numpy(), np.packbits(masks, axis=1), words


def render(seeds: range) -> Frames:
    """render_scene of all seeds, in two processes."""
    with multiprocessing.get_context("fork").Pool(2, torch.set_num_threads, (1,)) as pool:
        pixels, masks, words = zip(*pool.map(render_scene, seeds, chunksize=20), strict=True)
    return Frames(torch.from_numpy(np.stack(pixels)), list(masks), list(words))


def make_model() -> Sam2Model:
    """The model with random weights."""
    spread = {"initializer_range": 0.08}  # SAM2's 0.02 is for models many times as wide; it stays in the neck
    width = 64
    backbone = {
        "model_type": "sam2_hiera_det_model", "image_size": [SIDE, SIDE], "hidden_size": 24,
        "blocks_per_stage": [1, 2, 3, 1], "embed_dim_per_stage": [24, 48, 96, 192],
        "num_attention_heads_per_stage": [1, 2, 4, 8], "window_size_per_stage": [8, 8, 8, 4],
        "global_attention_blocks": [5], "window_positional_embedding_background_size": [4, 4], **spread,
    }  # fmt: skip
    vision = {
        "model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [192, 96, 48, 24],
        "backbone_feature_sizes": [[SIDE // stride] * 2 for stride in (4, 8, 16)], "fpn_hidden_size": width,
        "fpn_top_down_levels": [0, 1, 2, 3],  # SAM2: 2 and 3; here the fine levels alone see too little
    }  # fmt: skip
    prompt = {"hidden_size": width, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 16}
    decoder = {
        "hidden_size": width, "mlp_dim": 256, "num_attention_heads": 4, "iou_head_hidden_dim": width,
        "dynamic_multimask_via_stability": False,
    }  # fmt: skip
    config = Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder, **spread)
    model = Sam2Model(config)
    with torch.no_grad():
        place = model.shared_image_embedding.positional_embedding
        place.copy_(place.bfloat16())  # as it will be saved
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(place)  # one matrix, as in SAM2
        for part in model.vision_encoder.neck.convs:  # all scales count alike, and none drowns the places beside it
            nn.init.normal_(part.weight, std=0.2 * part.in_channels**-0.5)
        decoder, prompt_encoder = model.mask_decoder, model.prompt_encoder
        # wider, as SAM2's own code draws them: else nothing but where it is tells one token from another
        for part in (decoder.iou_token, decoder.mask_tokens, decoder.obj_score_token, prompt_encoder.point_embed):
            nn.init.normal_(part.weight, std=0.5)
        nn.init.normal_(prompt_encoder.not_a_point_embed.weight, std=0.5)
        for name, part in decoder.named_modules():
            if not hasattr(part, "q_proj"):
                continue
            # a token hands on what it is, and a place looks at itself, from the first step on: else hundreds go by
            nn.init.orthogonal_(part.v_proj.weight)
            part.o_proj.weight.copy_(part.v_proj.weight.T)
            if "_to_" in name:
                nn.init.orthogonal_(part.q_proj.weight, gain=2)
                part.k_proj.weight.copy_(part.q_proj.weight)
    return model


def normalise(pixels: Tensor) -> Tensor:
    """uint8 (N, C, Y, X) as the encoder takes them."""
    mean, std = (torch.tensor(value)[:, None, None] for value in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD))
    return (pixels.float() / 255 - mean) / std


def encode(model: Sam2Model, pixels: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Of uint8 (N, C, SIDE, SIDE) the features (N, D, Y, X) at strides 4, 8, 16; and as the mask decoder takes them."""
    features = list(model.vision_encoder(normalise(pixels)).fpn_hidden_states)
    return features, for_decoder(model, features)


def for_decoder(model: Sam2Model, features: list[Tensor]) -> list[Tensor]:
    """Features of the image encoder as the mask decoder takes them, which has two layers of its own for it."""
    decoder, memory = model.mask_decoder, model.no_memory_embedding.view(1, -1, 1, 1)
    return [decoder.conv_s0(features[0]), decoder.conv_s1(features[1]), features[2] + memory]


def augment(pixels: Tensor) -> Tensor:
    """Exposure and contrast changed, a little blur and grain, as a video codec leaves it; float (N, C, Y, X)."""
    gain, shift, blur, grain = torch.rand(4, len(pixels), 1, 1, 1).unbind()
    picture = pixels.float() * (0.75 + 0.5 * gain) + 40 * shift - 20
    picture = torch.lerp(picture, functional.avg_pool2d(picture, 3, 1, 1), 0.6 * blur)
    return (picture + 6 * grain * torch.randn_like(picture)).clamp(0, 255)


@dataclass
class Prompts:
    """Of B frames, P prompts each: points (B, P, n, 2) in pixels of SIDE, kind (B, P, n), and masks.

    masks bool (B, P, GRID, GRID), empty where the prompt points to nothing. kind: 1 a click, 2 and 3 a box's corners.
    """

    points: Tensor
    kind: Tensor
    masks: Tensor


def click(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A place (1, 2) somewhere in a mask (GRID, GRID), in pixels of SIDE."""
    y, x = divmod(int(rng.choice(np.flatnonzero(mask))), GRID)
    return (np.array([[x, y]]) + rng.random((1, 2))) * SIDE / GRID - 0.5  # the prompt encoder adds the half again


def box_around(mask: np.ndarray, rng: np.random.Generator, spread: float = 0.1) -> np.ndarray:
    """The corners (2, 2) of a mask's box in pixels of SIDE, moved by up to `spread` of its sides."""
    y, x = np.nonzero(mask)
    corners = np.array([[x.min(), y.min()], [x.max() + 1, y.max() + 1]]) * SIDE / GRID
    moved = corners + rng.uniform(-spread, spread, (2, 2)) * (corners[1] - corners[0])
    return np.clip(moved, 0, SIDE) - 0.5


def empty_box(free: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask (GRID, GRID) that is a rectangle where all is free; with none found in eight draws, one cell."""
    for _ in range(8):
        high, wide = rng.integers(2, GRID // 3, 2)
        y, x = int(rng.integers(GRID - high)), int(rng.integers(GRID - wide))
        if free[y : y + high, x : x + wide].all():
            break
    else:
        (y, x), high, wide = divmod(int(rng.choice(np.flatnonzero(free))), GRID), 1, 1
    box = np.zeros_like(free)
    box[y : y + high, x : x + wide] = True
    return box


def ask(
    masks: list[np.ndarray], chance: list[np.ndarray], n_prompts: int, boxes: bool, rng: np.random.Generator
) -> Prompts:
    """Prompts on things of each frame, chosen by `chance` (n,), some on nothing; masks: (n, GRID, GRID) each."""
    points, truths = [], []
    for frame, weight in zip(masks, chance, strict=True):
        covered = torch.from_numpy(frame.any(0))[None].float()
        free = functional.max_pool2d(covered, 5, 1, 2)[0].numpy() == 0  # at the very edge of a thing is no nothing
        for _ in range(n_prompts):
            there = len(frame) > 0 and (rng.random() >= NOTHING or not free.any())
            if there:
                truth = frame[rng.choice(len(frame), p=weight / weight.sum())]
                points.append(box_around(truth, rng) if boxes else click(truth, rng))
            else:
                truth = np.zeros((GRID, GRID), bool)
                points.append(box_around(empty_box(free, rng), rng, 0) if boxes else click(free, rng))
            truths.append(truth)
    shape = (len(masks), n_prompts)
    point = torch.from_numpy(np.stack(points)).float().unflatten(0, shape)
    kind = torch.tensor([2, 3] if boxes else [1]).expand(*shape, -1)
    return Prompts(point, kind, torch.from_numpy(np.stack(truths)).unflatten(0, shape))


def answer(model: Sam2Model, features: list[Tensor], prompts: Prompts, multimask: bool) -> dict[str, Tensor]:
    """The losses of the mask decoder after the prompts."""
    found = model(
        image_embeddings=features, input_points=prompts.points, input_labels=prompts.kind, multimask_output=multimask
    )
    logit, iou, there = found.pred_masks, found.iou_scores, found.object_score_logits
    flat = logit.flatten(0, 1), iou.flatten(0, 1), there.flatten()
    return mask_decoder_loss(*flat, prompts.masks.flatten(0, 1))


def cells(masks: np.ndarray, words: np.ndarray, n_cells: int) -> Tensor:
    """Which words are true of something in each cell: float (n_cells, n_cells, K); masks (n, GRID, GRID)."""
    if not len(masks):
        return torch.zeros(n_cells, n_cells, len(WORDS))
    seen = functional.adaptive_max_pool2d(torch.from_numpy(masks).float(), n_cells)
    return torch.einsum("nyx,nk->yxk", seen, torch.from_numpy(words).float()).clamp(max=1)


def sides(masks: np.ndarray) -> tuple[Tensor, Tensor]:
    """How far the left, top, right and bottom of its thing are from each cell of stride 4, and where there is one.

    float (SIDE/4, SIDE/4, 4) in sides of the picture and bool (SIDE/4, SIDE/4); of several things the smallest counts.
    """
    n_cells = SIDE // STRIDES[0]
    distance, there = torch.zeros(n_cells, n_cells, 4), torch.zeros(n_cells, n_cells, dtype=torch.bool)
    if len(masks):
        seen = functional.adaptive_max_pool2d(torch.from_numpy(masks).float(), n_cells) > 0
        centre = (torch.arange(n_cells) + 0.5) / n_cells
        for k in seen.sum((1, 2)).argsort(descending=True).tolist():
            y, x = np.nonzero(masks[k])
            left, top, right, bottom = (float(v) / GRID for v in (x.min(), y.min(), x.max() + 1, y.max() + 1))
            across, down = torch.meshgrid(centre, centre, indexing="xy")
            box = torch.stack([across - left, down - top, right - across, bottom - down], dim=-1)
            distance[seen[k]], there = box[seen[k]], there | seen[k]
    return distance, there


def unpack(data: Frames, row: int) -> np.ndarray:
    """The masks (n, GRID, GRID) of a frame's things."""
    return np.unpackbits(data.masks[row], axis=1).astype(bool).reshape(-1, GRID, GRID)


def pace(optimizer: torch.optim.Optimizer, step: int, done: float, rate: float) -> None:
    """Set the learning rate: up for 100 steps, then down to 0 on a cosine."""
    warm = min(1, (step + 1) / 100)
    optimizer.param_groups[0]["lr"] = rate * warm * (0.01 + 0.495 * (1 + math.cos(math.pi * done)))


def train_encoder(model: Sam2Model, data: Frames, minutes: float, rate: float = 1.5e-3, batch: int = 16) -> None:
    """Fit the image encoder to say of each cell which words are true of it, and how far its thing reaches.

    SAM2's image encoder is pretrained, too; what reads the words is thrown away.
    """
    width = model.config.vision_config.fpn_hidden_size
    heads, reach = nn.ModuleList(nn.Linear(width, len(WORDS)) for _ in STRIDES), nn.Linear(width, 4)
    weights = [rarity(data, SIDE // stride) for stride in STRIDES]
    parameters = [*model.vision_encoder.parameters(), *heads.parameters(), *reach.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.05, betas=(0.9, 0.98), fused=True)
    order, started, step = torch.randperm(len(data)), time.monotonic(), 0
    model.train()
    while (done := (time.monotonic() - started) / (60 * minutes)) < 1:
        if len(order) < batch:
            order = torch.randperm(len(data))
        chosen, order = order[:batch], order[batch:]
        pixels, masks = turn(data, chosen)
        features = [feature.permute(0, 2, 3, 1) for feature in encode(model, pixels)[0]]
        words = torch.zeros(())
        for head, feature, weight in zip(heads, features, weights, strict=True):
            truth = [cells(m, data.words[int(row)], feature.shape[1]) for row, m in zip(chosen, masks, strict=True)]
            words = words + functional.binary_cross_entropy_with_logits(
                head(feature), torch.stack(truth), pos_weight=weight
            )
        distance, there = (torch.stack(part) for part in zip(*map(sides, masks), strict=True))
        away = (reach(features[0]) - 10 * distance)[there].abs().mean()
        pace(optimizer, step, done, rate)
        optimizer.zero_grad()
        (4 * words + 2 * away).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            print(f"step {step}: words {float(words):.3f}, sides {float(away) / 10:.4f}; {done:.0%}", flush=True)


@torch.no_grad()
def centre(model: Sam2Model, pixels: Tensor) -> None:
    """Bring every channel of the features to mean 0 and spread 0.5 by the neck's own weights.

    Else they drown the places beside them, to which the mask decoder adds them, and no click is ever found.
    """
    neck = model.vision_encoder.neck
    maps = list(zip(*(encode(model, part)[0] for part in pixels.split(16)), strict=True))
    features = [torch.cat(list(part)) for part in maps]  # strides 4, 8, 16; what is coarser passes through them all
    scale = 0.5 / features[-1].std((0, 2, 3))
    means = [feature.mean((0, 2, 3)) * scale for feature in features]
    for conv in neck.convs:
        conv.weight.mul_(scale[:, None, None, None])
        conv.bias.mul_(scale)
    finer, middle, coarse = neck.convs[3], neck.convs[2], neck.convs[1]
    coarse.bias -= means[2]
    middle.bias -= means[1] - means[2]
    finer.bias -= means[0] - means[1]


def rarity(data: Frames, n_cells: int) -> Tensor:
    """How much a cell counts where a word is true (K,): the root of the odds, so that rare words do not go under."""
    shown = [cells(unpack(data, row), data.words[row], n_cells).mean((0, 1)) for row in range(min(1000, len(data)))]
    share = torch.stack(shown).mean(0).clamp(1e-4, 0.5)
    return ((1 - share) / share).sqrt().clamp(1, 12)


def turn(data: Frames, rows: Tensor) -> tuple[Tensor, list[np.ndarray]]:
    """Augmented pixels of some frames and their masks (n, GRID, GRID), mirrored half of the time."""
    pixels, masks = augment(data.pixels[rows]), [unpack(data, int(row)) for row in rows]
    if torch.rand(()) < 0.5:
        pixels, masks = pixels.flip(-1), [mask[..., ::-1].copy() for mask in masks]
    return pixels, masks


def train_decoder(model: Sam2Model, data: Frames, minutes: float, rate: float = 2e-3, batch: int = 8) -> None:
    """Fit prompt encoder and mask decoder to clicks and boxes, on features of the image encoder that are kept."""
    model.eval()
    rows = torch.randperm(len(data))[:KEPT]
    kept: list[list[Tensor]] = [[], [], []]
    masks: list[np.ndarray] = []
    with torch.no_grad():
        for part in rows.split(batch):
            pixels, turned = turn(data, part)
            masks += turned
            for maps, feature in zip(kept, encode(model, pixels)[0], strict=True):
                maps.append(feature.half())
    features = [torch.cat(maps) for maps in kept]
    # rare things and small ones are asked for more often than they are there
    often = np.concatenate(data.words).mean(0).clip(1e-3)
    chance = [
        np.array([1 / often[word].min() for word in data.words[int(row)]]) ** 0.5 * (1 + m.sum((1, 2))) ** -0.25
        for m, row in zip(masks, rows, strict=True)
    ]
    model.vision_encoder.requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01, betas=(0.9, 0.98), fused=True)
    rng, started, step = np.random.default_rng(0), time.monotonic(), 0
    model.train()
    while (done := (time.monotonic() - started) / (60 * minutes)) < 1:
        chosen = rng.integers(len(rows), size=batch)
        seen = for_decoder(model, [feature[chosen].float() for feature in features])
        shown, picked = [masks[row] for row in chosen], [chance[row] for row in chosen]
        clicked = answer(model, seen, ask(shown, picked, PROMPTS, False, rng), True)
        boxed = answer(model, seen, ask(shown, picked, PROMPTS, True, rng), bool(rng.random() < 0.5))
        pace(optimizer, step, done, rate)
        optimizer.zero_grad()
        (clicked["loss"] + boxed["loss"]).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if step % 100 == 0:
            told = ", ".join(f"{name} {float(part):.3f}" for name, part in clicked.items())
            print(f"step {step}: click {told}; box dice {float(boxed['dice']):.3f}; {done:.0%}", flush=True)
    model.vision_encoder.requires_grad_(True)
    model.eval()


def save(folder: Path, model: Sam2Model) -> None:
    """Weights in bfloat16 and the processor, as from_pretrained reads them."""
    model.to(torch.bfloat16).save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    mask_size = {"height": SIDE // 4, "width": SIDE // 4}
    images = Sam2ImageProcessor(size=size, mask_size=mask_size)
    Sam2Processor(images, target_size=SIDE).save_pretrained(folder)


@torch.no_grad()
def outline(model: Sam2Model, shot: Shot, points: np.ndarray, kind: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What P prompts find in a shot's frame: candidates bool (P, M, Y, X), their IoU as foretold (P, M), and (P,) how
    sure it is that something is there.

    points (P, n, 2) in pixels x, y of the frame, of its corner; kind 1 for clicks, 2 for boxes of two corners.
    """
    shape = shot.frames.shape[1:3]
    scaled = torch.from_numpy(points / (shape[1], shape[0])).float() * SIDE - 0.5
    label = torch.arange(kind, kind + points.shape[1]).expand(1, *points.shape[:2])
    found = model(
        pixel_values=normalise(squash(shot.frames[:1])), input_points=scaled[None], input_labels=label,
        multimask_output=True,
    )  # fmt: skip
    logit = functional.interpolate(found.pred_masks[0], shape, mode="bilinear", align_corners=False)
    return (logit > 0).numpy(), found.iou_scores[0].numpy(), found.object_score_logits.flatten().numpy()


def overlap(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Intersection over union of masks (..., Y, X) that are not both empty."""
    return np.asarray((found & true).sum((-2, -1)) / (found | true).sum((-2, -1)))


def prompts_of(shot: Shot, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of a frame with P things a click on each (P, 1, 2), two on nothing (2, 1, 2), and the things' boxes (P, 2, 2)."""
    masks = np.stack([thing.mask[0] for thing in shot.things])
    spots = [np.argwhere(mask)[rng.integers(mask.sum())] for mask in masks]
    corners = [np.argwhere(mask) for mask in masks]
    empty = np.argwhere(~masks.any(0))
    clicks = np.array(spots)[:, None, ::-1] + 0.5
    boxes = np.array([[at.min(0), at.max(0) + 1] for at in corners])[..., ::-1].astype(float)
    return clicks, empty[rng.integers(len(empty), size=2)][:, None, ::-1] + 0.5, boxes


def measure(model: Sam2Model, shots: list[Shot]) -> dict[str, float]:
    """{what: number} over all things of the shots that have some: IoU after one prompt, AUROC of what is nothing."""
    rng, rows = np.random.default_rng(0), []
    things: list[float] = []
    nothing: list[float] = []
    for shot in shots:
        if not shot.things:
            continue
        masks = np.stack([thing.mask[0] for thing in shot.things])
        clicks, empty, boxes = prompts_of(shot, rng)
        found, foretold, sure = outline(model, shot, np.concatenate([clicks, empty]), 1)
        things, nothing = [*things, *sure[: len(masks)]], [*nothing, *sure[len(masks) :]]
        click = overlap(found[: len(masks)], masks[:, None])
        box = overlap(outline(model, shot, boxes, 2)[0], masks[:, None])
        filled = masks.sum((1, 2)) / (boxes[:, 1] - boxes[:, 0]).prod(1)
        chosen = click[np.arange(len(masks)), foretold[: len(masks)].argmax(1)]
        people = [thing.noun in PEOPLE for thing in shot.things]
        rows.append(np.stack([click.max(1), chosen, box.max(1), filled, people, masks.sum((1, 2))], axis=1))
    best, chosen, boxed, filled, person, area = np.concatenate(rows).T
    score = np.array([*things, *nothing], np.float64)
    truth = np.arange(len(score)) < len(things)
    return {
        "things": len(best),
        "click, best candidate": float(best.mean()),
        "click, candidate it trusts": float(chosen.mean()),
        "click on a person, best": float(best[person > 0].mean()),
        "click on less than 100 pixels, best": float(best[area < 100].mean()),
        "box, best candidate": float(boxed.mean()),
        "the box itself, filled": float(filled.mean()),
        "something or nothing, AUROC": auroc(score, truth.astype(np.int64), (~truth).astype(np.int64)),
    }


@torch.no_grad()
def cell_features(model: Sam2Model, shots: list[Shot], stride: int) -> tuple[Tensor, Tensor]:
    """Features (S, D) of all cells of all frames at a stride, and the words that are true of each: bool (S, K)."""
    features, words = [], []
    for shot in shots:
        feature = encode(model, squash(shot.frames))[0][int(math.log2(stride)) - 2]
        features.append(feature[0].flatten(1).T)
        masks = np.array([shrink_mask(thing.mask[0]) for thing in shot.things], bool)
        said = np.array([words_of(thing) for thing in shot.things], bool)
        words.append(cells(masks, said, SIDE // stride).flatten(0, 1) > 0)
    return torch.cat(features), torch.cat(words)


def word_precision(model: Sam2Model, shots: list[Shot], stride: int) -> tuple[float, float, int]:
    """Mean average precision of linear probes of cells, by chance, and over how many words.

    Fitted on the first half of the shots, judged on the second; only words with 20 cells in both.
    """
    half = len(shots) // 2
    (feature, label), (others, truth) = (cell_features(model, part, stride) for part in (shots[:half], shots[half:]))
    common = (label.sum(0) >= 20) & (truth.sum(0) >= 20)
    score = fit_linear(feature, label[:, common].float(), decay=0.001)(others).detach().double().numpy()
    true = truth[:, common].numpy().astype(np.int64)
    found = [average_precision(*column) for column in zip(score.T, true.T, 1 - true.T, strict=True)]
    return float(np.mean(found)), float(true.mean()), len(found)


def judge(folder: Path) -> None:
    """Print the numbers of the model card."""
    shots = [draw(seed) for seed in range(PRETRAINING_SEEDS.stop - N_HELD_OUT, PRETRAINING_SEEDS.stop)]
    torch.manual_seed(0)
    trained = Sam2Model.from_pretrained(folder, dtype=torch.float32)
    for name, model in (("demo weights", trained.eval()), ("random weights", make_model().eval())):
        for what, value in measure(model, shots).items():
            print(f"{name}, {what}: {value:.3f}", flush=True)
        for stride in STRIDES[1:]:
            precision, chance, count = word_precision(model, shots, stride)
            print(
                f"{name}, {count} words of cells of {stride} pixels: {precision:.3f}, chance {chance:.3f}", flush=True
            )


def main() -> None:
    """Render, train, save, and print the numbers of the model card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--minutes", type=float, nargs=2, default=(8, 6), help="of training, encoder and decoder")
    parser.add_argument("--threads", type=int, default=2, help="fewer than the cores where others use them as well")
    parser.add_argument("--out", type=Path, default=HERE / DEMO)
    parser.add_argument("--judge", action="store_true", help="only judge the weights that are there")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    logging.disable_progress_bar()
    taken = {video.scene_seed for size in ("tiny", "small", "full") for video in plan(0, size)}
    assert not taken & set(PRETRAINING_SEEDS), "a demo split holds a pretraining scene"
    assert FIRST_SEED not in PRETRAINING_SEEDS, "the demo's segmentation sets hold pretraining scenes"
    if not options.judge:
        started = time.monotonic()
        data = render(range(PRETRAINING_SEEDS.start, PRETRAINING_SEEDS.start + options.scenes))
        print(f"rendered {len(data)} frames: {time.monotonic() - started:.0f} s", flush=True)
        model = make_model()
        used = time.process_time()
        train_encoder(model, data, options.minutes[0])
        centre(model.eval(), data.pixels[:256])
        train_decoder(model, data, options.minutes[1])
        print(f"trained with {(time.process_time() - used) / 60:.1f} minutes of one core", flush=True)
        save(options.out, model)
        size = sum(file.stat().st_size for file in options.out.iterdir()) / 1e6
        count = sum(parameter.numel() for parameter in model.parameters())
        print(f"{count:,} parameters, {size:.2f} MB, {time.monotonic() - started:.0f} s in all", flush=True)
    judge(options.out)


if __name__ == "__main__":
    main()
