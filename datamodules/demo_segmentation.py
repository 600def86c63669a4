"""The demo world as segmentation sets: small copies of each in its own layout, for what anomalies are made of."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from datamodules.demo import write_demo
from datamodules.demo_shots import PEOPLE, Shot, Thing, make_shot
from datamodules.segmentation_images import CITYSCAPES_CLASSES, COCO_STUFF_VOID
from vigil.scenes import VERSION

FIRST_SEED = 50_000_000  # no scene of another demo split has a seed as high
SIZES = {"tiny": (6, 3, 6), "small": (24, 10, 24), "full": (72, 20, 16)}  # images and clips per set, frames per clip
# the classes of each set that the demo world can show, under their numbers in it
ADE20K = {
    1: "wall", 4: "floor, flooring", 7: "road, route", 9: "windowpane, window ", 13: "person, individual, someone",
    21: "car, auto, automobile", 42: "box", 46: "counter", 81: "bus, autobus, coach", 84: "truck, motortruck",
    100: "buffet, counter, sideboard", 103: "van", 116: "bag", 120: "ball", 128: "bicycle, bike, wheel, cycle ",
    137: "traffic light, traffic signal, stoplight",
}  # fmt: skip
COCO_STUFF = {
    0: "unlabeled", 1: "person", 2: "bicycle", 3: "car", 6: "bus", 8: "truck", 10: "traffic light", 12: "street sign",
    28: "umbrella", 31: "handbag", 37: "sports ball", 68: "window", 107: "counter", 115: "floor-other", 149: "road",
    171: "wall-brick", 181: "window-other",
}  # fmt: skip
MAPILLARY = (
    *("Bird", "Road", "Person", "Traffic Light - General (upright)", "Traffic Sign (Front)", "Bicycle", "Bus", "Car"),
    *("Truck", "Car Mount", "Unlabeled"),
)
PALETTE = [0, 0, 0, *np.random.default_rng(0).integers(0, 256, 3 * 255).tolist()]
# our nouns as each set calls them, where it does otherwise
ADE20K_NAMES = {"police car": "car", "window": "windowpane"}
COCO_NAMES = {"police car": "car", "van": "car", "traffic sign": "street sign", "bag": "handbag", "ball": "sports ball"}
ROAD_NAMES = {"police car": "car", "van": "car"}  # Cityscapes and Mapillary Vistas
MAPILLARY_NAMES = ROAD_NAMES | {
    "traffic light": "traffic light - general (upright)",
    "traffic sign": "traffic sign (front)",
}


def write_segmentation(root: str | Path, seed: int = 0, size: str = "full") -> None:
    """Render a small copy of every segmentation set into root, unless they are there already.

    Writes ade20k, coco_stuff, cityscapes, mapillary, refer (RefCOCO, RefCOCO+, RefCOCOg, RefCLEF), youtube_vos,
    ref_youtube_vos, mevis and ref_davis, a folder each, as `write_demo` does it; training splits alone. Raises
    ValueError for an unknown size or a negative seed.
    """
    if size not in SIZES or seed < 0:
        raise ValueError(f"size {size!r}, seed {seed}: expected a size of {', '.join(SIZES)} and a seed of at least 0")
    wanted = {"world": "segmentation", "seed": seed, "size": size, "version": VERSION}
    write_demo(root, wanted, lambda folder: _render(folder, seed, size))


def _render(root: Path, seed: int, size: str) -> None:
    n_images, n_clips, n_frames = SIZES[size]
    writers: list[tuple[Callable[[Path, list[Shot]], None], str, int, int, bool]] = [
        (_write_ade20k, "ade20k", n_images, 1, True), (_write_coco_stuff, "coco_stuff", n_images, 1, True),
        (_write_cityscapes, "cityscapes", n_images, 1, True), (_write_mapillary, "mapillary", n_images, 1, True),
        (_write_refcoco, "refer", n_images, 1, False), (_write_refclef, "refer", n_images, 1, False),
        (_write_youtube_vos, "youtube_vos", n_clips, n_frames, False),
        (_write_ref_youtube_vos, "ref_youtube_vos", n_clips, n_frames, False),
        (_write_mevis, "mevis", n_clips, n_frames, False),
        (_write_ref_youtube_vos, "ref_davis", n_clips, n_frames, False),
    ]  # fmt: skip
    first = FIRST_SEED + 10_000 * seed
    for write, folder, count, length, street in writers:
        write(root / folder, [make_shot(first + i, length, street) for i in range(count)])
        first += count


# the layouts --------------------------------------------------------------------------------------------------------


def _save(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    if palette:
        image = image.convert("P")
        image.putpalette(PALETTE)
    image.save(path, quality=92)  # of a JPEG; a PNG knows no quality


def _label(shot: Shot, number: dict[str, int], names: dict[str, str], void: int, ground: Sequence[int]) -> np.ndarray:
    """The label image uint8 (Y, X) of a shot's first frame: classes {name: number}, called `names` where otherwise.

    ground: the numbers of a road and of a floor, which the lowest tenth of the picture is.
    """
    label = np.full(shot.frames.shape[1:3], void, np.uint8)
    label[-len(label) // 10 :] = ground[0 if shot.road else 1]
    for thing in shot.things:
        noun = "person" if thing.noun in PEOPLE else thing.noun
        name = names.get(noun, noun)
        label[thing.mask[0]] = number.get(name, void)
    return label


def _write_ade20k(root: Path, shots: list[Shot]) -> None:
    number = {names.split(",")[0].strip(): number for number, names in ADE20K.items()}
    for i, shot in enumerate(shots, 1):
        name = f"training/ADE_train_{i:08d}"
        _save(root / "images" / f"{name}.jpg", shot.frames[0])
        _save(root / "annotations" / f"{name}.png", _label(shot, number, ADE20K_NAMES, 0, (7, 4)))
    lines = ["Idx\tRatio\tTrain\tVal\tName", *(f"{n}\t0.0100\t{len(shots)}\t0\t{names}" for n, names in ADE20K.items())]
    (root / "objectInfo150.txt").write_text("\n".join(lines) + "\n")


def _write_coco_stuff(root: Path, shots: list[Shot]) -> None:
    number = {name: number - 1 for number, name in COCO_STUFF.items() if number}
    for i, shot in enumerate(shots, 1):
        name = f"train2017/{i:012d}"
        _save(root / "images" / f"{name}.jpg", shot.frames[0])
        label = _label(shot, number, COCO_NAMES, COCO_STUFF_VOID, (number["road"], number["floor-other"]))
        _save(root / "stuffthingmaps" / f"{name}.png", label)
    (root / "labels.txt").write_text("".join(f"{number}: {name}\n" for number, name in COCO_STUFF.items()))


def _write_cityscapes(root: Path, shots: list[Shot]) -> None:
    number = {name: number for number, name in CITYSCAPES_CLASSES.items()}
    for i, shot in enumerate(shots):
        city = ("northtown", "southtown")[i % 2]
        name = f"train/{city}/{city}_{i:06d}_000019"
        _save(root / "leftImg8bit" / f"{name}_leftImg8bit.png", shot.frames[0])
        _save(root / "gtFine" / f"{name}_gtFine_labelIds.png", _label(shot, number, ROAD_NAMES, 0, (7, 4)))


def _write_mapillary(root: Path, shots: list[Shot]) -> None:
    number = {name.lower(): number for number, name in enumerate(MAPILLARY)}
    void = number["unlabeled"]
    for i, shot in enumerate(shots):
        label = _label(shot, number, MAPILLARY_NAMES, void, (number["road"], void))
        _save(root / "training" / "images" / f"demo{i:018d}.jpg", shot.frames[0])
        _save(root / "training" / "v2.0" / "labels" / f"demo{i:018d}.png", label, palette=True)
    labels = [
        {
            "color": [9 * k, 120, 255 - 9 * k], "instances": k > 1, "readable": name, "evaluate": k < 9,
            "name": "demo--" + name.lower().replace(" ", "-"),
        }
        for k, name in enumerate(MAPILLARY)
    ]  # fmt: skip
    (root / "config_v2.0.json").write_text(json.dumps({"labels": labels, "version": 2.0}, indent=1) + "\n")


def _sentences(thing: Thing, style: str) -> list[str]:
    """What annotators would call the thing: RefCOCO+ without the place, RefCOCOg in whole phrases.

    Each is said of every thing that it is true of, so that its masks together are the whole truth.
    """
    x = float(np.nonzero(thing.mask.any(axis=0))[1].mean()) / thing.mask.shape[2]
    place = "on the left" if x < 0.4 else "on the right" if x > 0.6 else "in the middle"
    whole = thing.phrases()
    if style == "refcocog":
        return [*whole, f"{whole[0]} {place} of the picture"]
    short = [phrase.removeprefix("an ").removeprefix("a ") for phrase in whole]
    return short if style == "refcoco+" else [*short, f"{short[0]} {place}"]


def _write_refer(root: Path, shots: list[Shot], name: str, by: str, images: Sequence[str]) -> None:
    """refs(by).p, in Python 2's protocol, and instances.json; RefCLEF has run-length masks, the others polygons."""
    refs: list[dict[str, Any]] = []
    instances: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": []}
    sent_id = 0
    nouns = sorted({thing.noun for shot in shots for thing in shot.things})
    instances["categories"] = [{"id": k, "name": noun} for k, noun in enumerate(nouns, 1)]
    for i, (shot, image) in enumerate(zip(shots, images, strict=True), 1):
        height, width = shot.frames.shape[1:3]
        instances["images"].append({"id": i, "file_name": image, "height": height, "width": width})
        for thing in shot.things:
            if not thing.mask[0].any():
                continue
            number, category = len(refs) + 1, nouns.index(thing.noun) + 1
            outline: Any = [encode_rle(thing.mask[0])] if name == "refclef" else outlines(thing.mask[0])
            instances["annotations"].append(
                {"id": number, "image_id": i, "category_id": category, "segmentation": outline, "iscrowd": 0}
            )
            sentences = []
            for sentence in _sentences(thing, name):
                sentences.append({"sent": sentence, "raw": sentence, "tokens": sentence.split(), "sent_id": sent_id})
                sent_id += 1
            refs.append({
                "ref_id": number, "ann_id": number, "image_id": i, "category_id": category, "split": "train",
                "file_name": image, "sentences": sentences, "sent_ids": [entry["sent_id"] for entry in sentences],
            })  # fmt: skip
    (root / name).mkdir(parents=True)
    (root / name / f"refs({by}).p").write_bytes(pickle.dumps(refs, protocol=2))
    (root / name / "instances.json").write_text(json.dumps(instances))


def _write_refcoco(root: Path, shots: list[Shot]) -> None:
    """RefCOCO, RefCOCO+ and RefCOCOg, which share COCO's images."""
    images = [f"COCO_train2014_{i:012d}.jpg" for i in range(1, len(shots) + 1)]
    for image, shot in zip(images, shots, strict=True):
        _save(root / "images" / "mscoco" / "images" / "train2014" / image, shot.frames[0])
    for name, by in (("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")):
        _write_refer(root, shots, name, by, images)


def _write_refclef(root: Path, shots: list[Shot]) -> None:
    images = [f"{i}.jpg" for i in range(1, len(shots) + 1)]
    for image, shot in zip(images, shots, strict=True):
        _save(root / "images" / "saiapr_tc-12" / image, shot.frames[0])
    _write_refer(root, shots, "refclef", "unc", images)


def _write_frames(home: Path, video: str, shot: Shot) -> list[str]:
    names = [f"{5 * k:05d}" for k in range(len(shot.frames))]  # every fifth frame is annotated, as in YouTube-VOS
    for name, frame in zip(names, shot.frames, strict=True):
        _save(home / "JPEGImages" / video / f"{name}.jpg", frame)
    return names


def _write_objects(home: Path, video: str, shot: Shot, names: Sequence[str]) -> None:
    """An annotation image with a palette per frame; of things in the same place the later one is seen."""
    ids = np.zeros(shot.frames.shape[:3], np.uint8)
    for number, thing in enumerate(shot.things, 1):
        ids[thing.mask] = number
    for name, image in zip(names, ids, strict=True):
        _save(home / "Annotations" / video / f"{name}.png", image, palette=True)


def _write_youtube_vos(root: Path, shots: list[Shot]) -> None:
    videos: dict[str, Any] = {}
    for i, shot in enumerate(shots):
        video, home = f"{i:04d}demo", root / "train"
        names = _write_frames(home, video, shot)
        _write_objects(home, video, shot, names)
        objects = {
            str(number): {"category": thing.noun.replace(" ", "_"), "frames": names}
            for number, thing in enumerate(shot.things, 1)
        }
        videos[video] = {"objects": objects}
    (root / "train" / "meta.json").write_text(json.dumps({"videos": videos}) + "\n")


def _write_ref_youtube_vos(root: Path, shots: list[Shot]) -> None:
    """Two expressions per object, but none for the last object of a video that has several."""
    videos: dict[str, Any] = {}
    for i, shot in enumerate(shots):
        video, home = f"{i:04d}demo", root / "train"
        names = _write_frames(home, video, shot)
        _write_objects(home, video, shot, names)
        said = [
            {"exp": sentence, "obj_id": str(number)}
            for number, thing in enumerate(shot.things, 1)
            for sentence in _sentences(thing, "refcocog")
            if number == 1 or number < len(shot.things)
        ]
        videos[video] = {"expressions": {str(k): entry for k, entry in enumerate(said)}, "frames": names}
    file = root / "meta_expressions" / "train" / "meta_expressions.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"videos": videos}) + "\n")


def _write_mevis(root: Path, shots: list[Shot]) -> None:
    """Sentences about one thing, and about all of a kind; masks overlap where smoke is before something."""
    videos: dict[str, Any] = {}
    masks: dict[str, list[Any]] = {}
    home = root / "train"
    for i, shot in enumerate(shots):
        video, first = f"{i:04d}demo", len(masks)
        names = _write_frames(home, video, shot)
        for k, thing in enumerate(shot.things):
            masks[str(first + k)] = [encode_rle(mask) if mask.any() else None for mask in thing.mask]
        said: dict[str, list[int]] = {}
        for k, thing in enumerate(shot.things):
            for phrase in thing.phrases():
                said.setdefault(phrase, []).append(first + k)
            if thing.noun in PEOPLE:
                said.setdefault("everybody there", []).append(first + k)
        entries = [{"exp": phrase, "obj_id": numbers, "anno_id": numbers} for phrase, numbers in said.items()]
        expressions = {str(k): entry for k, entry in enumerate(entries)}
        videos[video] = {"expressions": expressions, "frames": names, "vid_id": i}
    (home / "meta_expressions.json").write_text(json.dumps({"videos": videos}) + "\n")
    (home / "mask_dict.json").write_text(json.dumps(masks) + "\n")


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """A mask bool (Y, X) as COCO's compressed run lengths: {size: [Y, X], counts: text}."""
    flat = mask.T.ravel()
    edge = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(np.int8))).tolist()
    counts = np.diff([0, *edge, flat.size]).tolist()
    text = []
    for k, count in enumerate(counts):
        rest = count - counts[k - 2] if k > 2 else count
        while True:
            bits, rest = rest & 31, rest >> 5
            done = rest == (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * (not done)))
            if done:
                break
    return {"size": list(mask.shape), "counts": "".join(text)}


def outlines(mask: np.ndarray) -> list[list[float]]:
    """Polygons [x0, y0, …] that hold exactly the mask bool (Y, X): a rectangle for each run that rows share."""
    polygons: list[list[float]] = []
    open_runs: dict[tuple[int, int], int] = {}
    for y in range(len(mask) + 1):
        edge = np.flatnonzero(np.diff(np.concatenate([[0], mask[y] if y < len(mask) else [], [0]]).astype(np.int8)))
        runs = {(int(first), int(end)) for first, end in edge.reshape(-1, 2)}
        for first, end in sorted(open_runs.keys() - runs):
            top = open_runs.pop((first, end))
            polygons.append([float(value) for value in (first, top, end, top, end, y, first, y)])
        for run in runs - open_runs.keys():
            open_runs[run] = y
    return polygons
