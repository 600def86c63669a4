"""Makes weights/demo_deit.safetensors: a small DeiT that has learnt what stands in frames of the demo world.

Run as `python weights/demo_deit.py` from the repository's root. It renders scenes whose seeds no demo split holds,
trains the encoder to name the attributes of every frame, of the whole frame from the class token and of each patch from
the patch's own token, and prints the numbers of the model card. About 10 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from datamodules.demo import DemoVideo, plan  # noqa: E402
from vigil.curves import auroc  # noqa: E402
from vigil.deit import DEMO, DeitEncoder  # noqa: E402
from vigil.scenes import ATTRIBUTES, CATEGORIES, PRETRAINING_SEEDS, Scene, make_scene, sprite_boxes  # noqa: E402

SIDE, GRID = 96, 8  # pixels and patches along each side of the encoder's picture
FRAMES = 8  # of each scene
N_HELD_OUT = 240  # scenes
CLASSES = [category for pair in zip(CATEGORIES, ["Normal"] * len(CATEGORIES), strict=True) for category in pair]


def shrink(scene: Scene, index: np.ndarray) -> np.ndarray:
    """Frames of a scene as the encoder takes them, bicubic and antialiased: uint8 (T, C, SIDE, SIDE)."""
    picture = torch.from_numpy(np.stack([scene.frame(int(i))[0] for i in index])).permute(0, 3, 1, 2).float()
    small = functional.interpolate(picture, (SIDE, SIDE), mode="bicubic", antialias=True)
    return small.clamp(0, 255).round().to(torch.uint8).numpy()


def patch_attributes(scene: Scene, index: np.ndarray) -> np.ndarray:
    """Which attributes each patch shows: bool (T, GRID², K)."""
    patch = np.zeros((len(index), GRID, GRID, len(ATTRIBUTES)), bool)
    for sprite in scene.sprites:
        box, seen = sprite_boxes(sprite, index)
        box = np.clip(np.round(box / (160, 120, 160, 120) * GRID + (0.2, 0.2, -0.2, -0.2)), 0, GRID).astype(int)
        for row in np.flatnonzero(seen):
            x0, y0, x1, y1 = box[row]
            shown = [ATTRIBUTES.index(name) for name, when in sprite.tags.items() if when[index[row]]]
            patch[row, y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1), shown] = True
    return patch.reshape(len(index), GRID * GRID, -1)


def draw(seed: int) -> tuple[Scene, np.ndarray]:
    """A scene to train on and FRAMES of its frames; of an anomalous one half are taken from its event.

    That is where the rare attributes are.
    """
    assert seed in PRETRAINING_SEEDS
    rng = np.random.default_rng(seed)
    scene = make_scene(seed, CLASSES[seed % len(CLASSES)], int(rng.integers(120, 330)))
    inside = [rng.integers(*scene.anomalies[0], FRAMES // 2)] if scene.anomalies else []
    return scene, np.concatenate([*inside, rng.integers(0, scene.n_frames, FRAMES - sum(map(len, inside)))])


def render_scene(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames uint8 (T, C, Y, X) at the encoder's size, attributes bool (T, K), and of each patch (T, GRID², K)."""
    scene, index = draw(seed)
    return shrink(scene, index), scene.attributes(index), patch_attributes(scene, index)


def render(seeds: range) -> tuple[Tensor, Tensor, Tensor]:
    """render_scene of all seeds, in two processes."""
    with multiprocessing.get_context("fork").Pool(2, torch.set_num_threads, (1,)) as pool:
        parts = pool.map(render_scene, seeds, chunksize=20)
    frames, label, patch = (torch.from_numpy(np.concatenate(part)) for part in zip(*parts, strict=True))
    return frames, label, patch


def augment(frames: Tensor, patch: Tensor) -> tuple[Tensor, Tensor]:
    """Mirrored half of the time; exposure and contrast changed, and a little blur, as a video codec leaves it."""
    if torch.rand(()) < 0.5:
        frames = frames.flip(-1)
        patch = patch.unflatten(1, (GRID, GRID)).flip(2).flatten(1, 2)
    picture = frames.float()
    gain, shift = (
        torch.empty(len(frames), 1, 1, 1).uniform_(0.75, 1.25),
        torch.empty(len(frames), 1, 1, 1).uniform_(-20, 20),
    )
    picture = picture * gain + shift
    blurred = functional.avg_pool2d(picture, 3, 1, 1)
    picture = torch.lerp(picture, blurred, torch.rand(len(frames), 1, 1, 1) * 0.6)
    return picture.clamp(0, 255).to(torch.uint8), patch


def train(
    encoder: DeitEncoder, data: tuple[Tensor, Tensor, Tensor], steps: int, minutes: float, batch: int = 48
) -> None:
    """Fit the encoder to name the attributes of the frames and of their patches, for so many steps or minutes."""
    frames, label, patch = data
    whole, local = nn.Linear(encoder.width, len(ATTRIBUTES)), nn.Linear(encoder.width, len(ATTRIBUTES))
    # the root of the odds: rare attributes count, and yet do not drown the others
    weight = [((1 - rate) / rate).sqrt().clamp(1, 12) for rate in (
        label.float().mean(0).clamp(1e-4, 1 - 1e-4), patch.float().mean((0, 1)).clamp(1e-4, 1 - 1e-4))]  # fmt: skip
    parameters = [*encoder.parameters(), *whole.parameters(), *local.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1.5e-3, weight_decay=0.05, betas=(0.9, 0.98))
    encoder.train()
    order, started = torch.randperm(len(frames)), time.monotonic()
    for step in range(steps):
        if len(order) < batch:
            order = torch.randperm(len(frames))
        chosen, order = order[:batch], order[batch:]
        picture, where = augment(frames[chosen], patch[chosen])
        tokens = encoder.model.forward_features(encoder.preprocess(picture))
        loss = functional.binary_cross_entropy_with_logits(
            whole(tokens[:, 0]), label[chosen].float(), pos_weight=weight[0]
        )
        part = functional.binary_cross_entropy_with_logits(local(tokens[:, 1:]), where.float(), pos_weight=weight[1])
        done = max(step / steps, (time.monotonic() - started) / (60 * minutes))
        if done >= 1:
            break
        optimizer.param_groups[0]["lr"] = (
            1.5e-3 * min(1, (step + 1) / 80) * (0.01 + 0.495 * (1 + math.cos(math.pi * done)))
        )
        optimizer.zero_grad()
        (loss + 2 * part).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 50 == 49:
            print(
                f"step {step + 1} of {steps}: frame {loss:.4f}, patch {part:.4f}, {time.monotonic() - started:.0f} s",
                flush=True,
            )
    encoder.eval()


def fit_linear(features: Tensor, label: Tensor, decay: float = 0.1) -> nn.Linear:
    """Logistic regression on standardised features by LBFGS; the scale is folded into the weights."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    probe = nn.Linear(features.shape[1], label.shape[1])
    nn.init.zeros_(probe.weight)
    optimizer = torch.optim.LBFGS(probe.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (
            functional.binary_cross_entropy_with_logits(probe((features - mean) / std), label)
            + decay * probe.weight.square().sum()
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        probe.weight /= std
        probe.bias -= probe.weight @ mean
    return probe


def mean_average_precision(encoder: DeitEncoder, data: tuple[Tensor, Tensor, Tensor], n_fit: int) -> float:
    """Of linear probes, fitted on the first n_fit frames and judged on the others; rare attributes are left out."""
    features, label = encoder(data[0]), data[1]
    common = (label[:n_fit].sum(0) >= 20) & (label[n_fit:].sum(0) >= 20) & (label[n_fit:].float().mean(0) < 0.9)
    with torch.no_grad():
        score = fit_linear(features[:n_fit], label[:n_fit, common].float())(features[n_fit:])
    found = []
    for column, truth in zip(score.T, label[n_fit:, common].T, strict=True):
        hit = truth[column.argsort(descending=True)].float()
        precision = hit.cumsum(0) / torch.arange(1, len(hit) + 1)
        found.append(float((precision * hit).sum() / hit.sum()))
    return sum(found) / len(found)


def demo_frames(video: DemoVideo) -> tuple[np.ndarray, np.ndarray]:
    """Every eighth frame of a demo video, uint8 (T, C, Y, X), and whether each is anomalous (T,)."""
    scene = video.scene()
    index = range(0, scene.n_frames, 8)
    anomalous = [any(first <= i < end for first, end in scene.anomalies) for i in index]
    return np.stack([scene.frame(i)[0] for i in index]).transpose(0, 3, 1, 2), np.array(anomalous)


def frame_auroc(encoders: dict[str, DeitEncoder]) -> dict[str, float]:
    """Frame AUROC on the demo test split of a logistic regression fitted on frames of the demo training split."""
    data: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "test": []}
    for video in plan(0, "full"):
        data[video.split].append(demo_frames(video))
    label = {split: torch.from_numpy(np.concatenate([part[1] for part in parts])) for split, parts in data.items()}
    found = {}
    for name, encoder in encoders.items():
        features = {
            split: torch.cat([encoder(torch.from_numpy(part[0])) for part in parts]) for split, parts in data.items()
        }
        probe = fit_linear(features["train"], label["train"][:, None].float())
        score = probe(features["test"])[:, 0].detach().numpy()
        truth = label["test"].numpy().astype(np.int64)
        found[name] = auroc(score, truth, 1 - truth)
    return found


def main() -> None:
    """Render, train, save, and print the numbers of the model card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument(
        "--minutes", type=float, default=20, help="training stops here, its learning rate at 0, if earlier"
    )
    parser.add_argument("--out", type=Path, default=HERE / f"{DEMO}.safetensors")
    parser.add_argument("--judge", action="store_true", help="only judge the weights that are there")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    start = PRETRAINING_SEEDS.start
    seeds = range(start, start + options.scenes)
    held_out = range(PRETRAINING_SEEDS.stop - N_HELD_OUT, PRETRAINING_SEEDS.stop)
    taken = {video.scene_seed for size in ("tiny", "small", "full") for video in plan(0, size)}
    assert not taken & set(PRETRAINING_SEEDS), "a demo split holds a pretraining scene"
    started = time.monotonic()
    if not options.judge:
        data = render(seeds)
        print(
            f"rendered {len(data[0])} frames of {len(seeds)} scenes in {time.monotonic() - started:.0f} s", flush=True
        )
        encoder = DeitEncoder(DEMO, weights=None, train_blocks=4)
        train(encoder, data, options.steps, options.minutes)
        state = {key: value.detach().half().contiguous() for key, value in encoder.model.state_dict().items()}
        save_file(state, options.out, metadata={"architecture": DEMO, "made_by": "weights/demo_deit.py"})
        print(
            f"rendered and trained in {time.monotonic() - started:.0f} s; {options.out.stat().st_size / 1e6:.2f} MB",
            flush=True,
        )
    torch.manual_seed(0)
    encoders = {"demo weights": DeitEncoder(DEMO, options.out), "random weights": DeitEncoder(DEMO, None)}
    others = render(held_out)
    for name, encoder in encoders.items():
        precision = mean_average_precision(encoder, others, len(others[0]) // 2)
        print(f"attributes, {name}: mean average precision {precision:.3f}", flush=True)
    for name, value in frame_auroc(encoders).items():
        print(f"demo test split, {name}: frame AUROC {value:.3f}", flush=True)


if __name__ == "__main__":
    main()
