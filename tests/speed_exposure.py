"""What anomaly exposure costs beside reading the pixels, on 480 x 854 images. `make speed`."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.demo_segmentation import encode_rle, write_segmentation
from datamodules.segmentation import SegmentationSet, mevis, refcoco, youtube_vos
from datamodules.segmentation_images import LabelMapSet, coco_stuff
from tests.conftest import SpeedRow
from vigil.exposure import expose

HEIGHT, WIDTH, N_IMAGES, N_FRAMES = 480, 854, 60, 8
WORDS = [
    f"{colour} {noun}" for colour in ("red", "blue", "green", "old") for noun in ("car", "dog", "kite", "lamp", "box")
]


def blobs(generator: np.random.Generator) -> list[np.ndarray]:
    """Three round masks."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    centres = generator.uniform((60, 60), (HEIGHT - 60, WIDTH - 60), (3, 2))
    return [(y - cy) ** 2 + (x - cx) ** 2 < generator.uniform(30, 120) ** 2 for cy, cx in centres]


def numbered(masks: list[np.ndarray]) -> np.ndarray:
    label = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, mask in enumerate(masks, 1):
        label[mask] = number
    return label


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def label_maps(root: Path, generator: np.random.Generator, image: np.ndarray) -> SegmentationSet:
    for k in range(N_IMAGES):
        save(root / "images" / "train2017" / f"{k}.jpg", image)
        label = numbered(blobs(generator)) + np.uint8(generator.integers(0, 17))
        save(root / "stuffthingmaps" / "train2017" / f"{k}.png", label)
    (root / "labels.txt").write_text("".join(f"{k}: {word}\n" for k, word in enumerate(["unlabeled", *WORDS])))
    return coco_stuff(root)


def sentences(root: Path, generator: np.random.Generator, image: np.ndarray) -> SegmentationSet:
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    outlines, refs = [], []
    for k in range(N_IMAGES):
        save(root / "images" / "mscoco" / "images" / "train2014" / f"{k}.jpg", image)
        for _ in range(3):
            said = [{"sent": f"the {word} there"} for word in generator.choice(WORDS, 3)]
            refs.append({"image_id": k, "ann_id": len(refs), "split": "train", "sentences": said})
            outlines.append((generator.uniform(90, 390, 2) + circle * generator.uniform(30, 90)).ravel().tolist())
    (root / "refcoco").mkdir()
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in range(N_IMAGES)]
    annotations = [{"id": k, "segmentation": [outline]} for k, outline in enumerate(outlines)]
    (root / "refcoco" / "instances.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return refcoco(root)


def palette_clips(root: Path, generator: np.random.Generator, image: np.ndarray) -> SegmentationSet:
    videos = {}
    names = [f"{k:05d}" for k in range(N_FRAMES)]
    for k in range(N_IMAGES // 4):
        for name in names:
            save(root / "train" / "JPEGImages" / f"{k}" / f"{name}.jpg", image)
            save(root / "train" / "Annotations" / f"{k}" / f"{name}.png", numbered(blobs(generator)))
        objects = {str(number): {"category": str(generator.choice(WORDS)), "frames": names} for number in (1, 2, 3)}
        videos[str(k)] = {"objects": objects}
    (root / "train" / "meta.json").write_text(json.dumps({"videos": videos}))
    return youtube_vos(root)


def run_length_clips(root: Path, generator: np.random.Generator, image: np.ndarray) -> SegmentationSet:
    videos, masks = {}, {}
    names = [f"{k:05d}" for k in range(N_FRAMES)]
    for k in range(N_IMAGES // 4):
        for name in names:
            save(root / "train" / "JPEGImages" / f"{k}" / f"{name}.jpg", image)
        for number in range(3 * k, 3 * k + 3):
            masks[str(number)] = [encode_rle(blobs(generator)[0]) for _ in names]
        said = [{"exp": str(generator.choice(WORDS)), "obj_id": [j], "anno_id": [3 * k + j]} for j in range(3)]
        videos[str(k)] = {"frames": names, "expressions": {str(j): entry for j, entry in enumerate(said)}}
    (root / "train" / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
    (root / "train" / "mask_dict.json").write_text(json.dumps(masks))
    return mevis(root)


KINDS: dict[str, tuple[Callable[[Path, np.random.Generator, np.ndarray], SegmentationSet], int]] = {
    "label images": (label_maps, 1), "sentences and polygons": (sentences, 1),
    "clips of 8, palette images": (palette_clips, N_FRAMES), "clips of 8, run lengths": (run_length_clips, N_FRAMES),
}  # fmt: skip


def expose_all(images: SegmentationSet, with_masks: bool, shown: list[list[str]]) -> tuple[float, int]:
    """Seconds per sample of choosing and labelling, `with_masks` also of decoding the chosen one's; and how many."""
    generator = np.random.default_rng(1)
    start, n_samples = time.perf_counter(), 0
    for _ in range(1 if with_masks else 5):
        for i in range(len(images)):
            masks = images.masks(i) if with_masks else None
            there = list(masks) if masks is not None else shown[i]
            own = [there[int(generator.integers(len(there)))]]
            phrases, anomalous = expose(own, images.others(i, 30, generator), 0.5, 30, generator, images.phrases(i))
            if masks is not None and anomalous:
                assert masks[own[0]].any()
            assert phrases
            n_samples += 1
    return (time.perf_counter() - start) / n_samples, n_samples


@pytest.mark.parametrize("kind", KINDS)
def test_exposure_costs_little_beside_decoding(kind: str, tmp_path: Path, speed_row: SpeedRow) -> None:
    torch.set_num_threads(1)
    build, n_frames = KINDS[kind]
    image = (
        np.random.default_rng(0).integers(0, 255, (HEIGHT // 8, WIDTH // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    )
    images = build(tmp_path, np.random.default_rng(2), np.ascontiguousarray(image[:, :WIDTH]))
    shown = [list(images.masks(i)) for i in range(len(images))]
    if isinstance(images, LabelMapSet):
        assert all(images.phrases(i) for i in range(len(images)))  # found and remembered, as after a first epoch
    chosen = min(expose_all(images, False, shown)[0] for _ in range(5))
    decoded = min(expose_all(images, True, shown)[0] for _ in range(3))
    start = time.perf_counter()
    for i in range(len(images)):
        images.pixels(i)
    pixels = (time.perf_counter() - start) / len(images)
    speed_row(
        f"exposure of a sample, {kind}", chosen,
        {"with its masks decoded": decoded, f"reading its {n_frames} frames": pixels}, "at most 5 ms, one core",
    )  # fmt: skip
    assert chosen < 0.005


def test_writing_the_demo_copies(tmp_path: Path, speed_row: SpeedRow) -> None:
    start = time.perf_counter()
    write_segmentation(tmp_path / "world", size="small")
    seconds = time.perf_counter() - start
    speed_row("demo copies of the segmentation sets", seconds, {}, "at most 30 s")
    assert seconds < 30
