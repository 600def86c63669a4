"""Readers of the segmentation sets whose images are labelled by class: ADE20K, COCO-Stuff, Cityscapes, Mapillary."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datamodules.segmentation_set import (
    Faults,
    Masks,
    SegmentationSample,
    SegmentationSet,
    check_size,
    id_masks,
    need,
    numbers_in,
    read_ids,
    read_json,
)
from vigil.exposure import distinct, spelling
from vigil.store import FileMemory

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# what is no thing, so that nobody would call it an event; LAVIDA leaves out 20 of ADE20K's classes, unnamed
ADE20K_BACKGROUND = (
    *("wall", "building", "sky", "floor", "tree", "ceiling", "road", "grass", "sidewalk", "earth", "mountain"),
    *("plant", "water", "sea", "field", "rock", "sand", "river", "hill", "land"),
)
CITYSCAPES_CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car", 27: "truck",
    28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
# LAVIDA's eight: what is neither background nor in almost every picture
CITYSCAPES_RARE = (*("traffic light", "traffic sign", "terrain", "truck", "bus", "train", "motorcycle", "bicycle"),)
COCO_STUFF_VOID, CITYSCAPES_LAST = 255, 33  # labelIds run from 0 to 33; those of no class are void


class LabelMapSet(SegmentationSet):
    """Images with a label image each, whose numbers are classes.

    label_files: below label_folder, one per sample. classes {number: phrase, or None where it is void or background};
    a number without an entry is an error. A label image's numbers are found once and remembered in `memory`.
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[SegmentationSample],
        label_folder: Path,
        label_files: Sequence[str],
        classes: Mapping[int, str | None],
        memory: FileMemory | None = None,
    ) -> None:
        super().__init__(name, samples)
        self.label_folder, self.label_files, self.classes = label_folder, list(label_files), dict(classes)
        self.memory = memory or FileMemory()
        self._numbers: dict[str, list[int]] = {}  # spelling -> every class that is called so
        for number, phrase in self.classes.items():
            if phrase is not None:
                self._numbers.setdefault(spelling(phrase), []).append(number)
        self._known: dict[int, list[str]] = {}

    def phrases(self, i: int) -> list[str]:
        if i not in self._known:
            path = self.label_folder / self.label_files[i]
            need(path, f"the label image of {self.samples[i].path(0)}")
            self._known[i] = self._named(self.memory.recall(path, "label numbers", _numbers), path)
        return self._known[i]

    def vocabulary(self) -> list[str]:
        return list(dict.fromkeys(phrase for phrase in self.classes.values() if phrase is not None))

    def _masks(self, sample: SegmentationSample, i: int, frames: Sequence[int]) -> Masks:
        path = self.label_folder / self.label_files[i]
        label = read_ids(path)
        check_size(path, label.shape, sample.path(0))
        phrases = self._named(numbers_in(label), path)
        return id_masks(
            {phrase: self._numbers[spelling(phrase)] for phrase in phrases}, label[None].repeat(len(frames), 0)
        )

    def _named(self, numbers: Iterable[int], path: Path) -> list[str]:
        unknown = [number for number in numbers if number not in self.classes]
        if unknown:
            raise ValueError(
                f"{path}: holds the classes {', '.join(map(str, unknown[:10]))}, which {self.name} does not have; "
                "is it the set's own label image?"
            )
        named = [self.classes[number] for number in numbers]
        return distinct(phrase for phrase in named if phrase is not None)


def _numbers(path: Path) -> list[int]:
    return numbers_in(read_ids(path))


def ade20k(root: str | Path, split: str = "train") -> LabelMapSet:
    """ADE20K Scene Parsing: images/{training,validation}, annotations likewise, objectInfo150.txt.

    A class is called by the first of its names; those of ADE20K_BACKGROUND are never a phrase, 0 is void.
    """
    root = Path(root)
    folder = _split(split, train="training", val="validation")
    table = need(root / "objectInfo150.txt", "the table of classes, from github.com/CSAILVision/sceneparsing")
    classes: dict[int, str | None] = {0: None}
    faults = Faults(table, "lines of number, ratio, training and validation images, names")
    for line_number, line in enumerate(table.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        columns = line.split("\t")
        if not line.strip() or columns[0].strip() == "Idx":
            continue
        try:
            name = columns[-1].split(",")[0].strip()
            spelling(name)
            classes[int(columns[0])] = None if name in ADE20K_BACKGROUND else name
        except ValueError as error:
            faults.add(f"line {line_number}", error)
    faults.refuse()
    return _label_maps("ADE20K", root / "images" / folder, root / "annotations" / folder, classes, ".png")


def coco_stuff(root: str | Path, split: str = "train") -> LabelMapSet:
    """COCO-Stuff: images/{train,val}2017, the label images of stuffthingmaps likewise, labels.txt.

    Class n of labels.txt is n - 1 in an image, 255 is void. The label images are looked for in stuffthingmaps, then
    annotations. "door-stuff" is called "door", "wall-brick" "brick wall"; the classes "…-other" hold what has no name
    of its own, so they are never a phrase.
    """
    root = Path(root)
    folder = _split(split, train="train2017", val="val2017")
    table = need(root / "labels.txt", "the list of classes, from github.com/nightrome/cocostuff")
    classes: dict[int, str | None] = {COCO_STUFF_VOID: None}
    faults = Faults(table, "lines as `1: person`")
    for line_number, line in enumerate(table.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        number, _, name = line.partition(":")
        try:
            if line.strip() and int(number) > 0:
                classes[int(number) - 1] = _coco_phrase(name.strip())
        except ValueError as error:
            faults.add(f"line {line_number}", error)
    faults.refuse()
    maps = next((root / home for home in ("stuffthingmaps", "annotations") if (root / home / folder).is_dir()), None)
    labels = (maps or root / "stuffthingmaps") / folder
    return _label_maps("COCO-Stuff", root / "images" / folder, labels, classes, ".png")


def _coco_phrase(name: str) -> str | None:
    kind, _, sort = name.partition("-")
    spelling(kind)
    if sort == "other":
        return None
    if sort in ("", "stuff"):
        return kind
    return f"{kind} {sort}" if name == "window-blind" else f"{sort} {kind}"


def cityscapes(root: str | Path, split: str = "train", classes: Sequence[str] = CITYSCAPES_RARE) -> LabelMapSet:
    """Cityscapes: leftImg8bit/{train,val}/<city>/*_leftImg8bit.png, gtFine/…/*_gtFine_labelIds.png.

    classes: those of the 19 that are phrases; LAVIDA's eight unless others are named.
    """
    root = Path(root)
    split = _split(split, train="train", val="val")
    unknown = sorted(set(classes) - set(CITYSCAPES_CLASSES.values()))
    if unknown:
        raise ValueError(
            f"Cityscapes has no class {', '.join(unknown)}; expected some of {', '.join(CITYSCAPES_CLASSES.values())}"
        )
    numbers: dict[int, str | None] = dict.fromkeys(range(CITYSCAPES_LAST + 1))
    numbers |= {number: name for number, name in CITYSCAPES_CLASSES.items() if name in classes}
    images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
    return _label_maps("Cityscapes", images, labels, numbers, "_gtFine_labelIds.png", "_leftImg8bit")


def mapillary(root: str | Path, split: str = "train") -> LabelMapSet:
    """Mapillary Vistas 2: {training,validation}/images, …/v2.0/labels, config_v2.0.json.

    A class is called by its readable name; those that the set does not evaluate (unlabeled, the car itself) are void.
    """
    root = Path(root)
    folder = root / _split(split, train="training", val="validation")
    config = root / "config_v2.0.json"
    entries = read_json(config, "the set's list of classes").get("labels")
    faults = Faults(config, '"labels": [{"readable": "Bird", "evaluate": true, …}, …]')
    classes: dict[int, str | None] = {}
    if not isinstance(entries, list) or not entries:
        faults.add("labels", f"{type(entries).__name__} found")
        entries = []
    for number, entry in enumerate(entries):
        try:
            spelling(entry["readable"])
            classes[number] = entry["readable"].lower() if entry["evaluate"] else None
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            faults.add(f"label {number}", error)
    faults.refuse()
    return _label_maps("Mapillary Vistas", folder / "images", folder / "v2.0" / "labels", classes, ".png")


def _split(split: str, **names: str) -> str:
    if split not in names:
        raise ValueError(f"split {split!r}; expected {' or '.join(names)}")
    return names[split]


def _label_maps(
    name: str, images: Path, labels: Path, classes: Mapping[int, str | None], ending: str, image_ending: str = ""
) -> LabelMapSet:
    """The images of a folder and of those in it, each with the label image called like it but for the ending."""
    there = set(_files(need(labels, f"{name}'s label images")))
    found = [file for file in _files(need(images, f"{name}'s images")) if file.lower().endswith(IMAGE_SUFFIXES)]
    faults = Faults(images, f"a label image in {labels} for every image")
    samples, label_files = [], []
    for file in found:
        stem = os.path.splitext(file)[0].removesuffix(image_ending)
        if stem + ending not in there:
            faults.add(file, f"no {stem + ending}")
        samples.append(SegmentationSample(name, stem, images, (file,)))
        label_files.append(stem + ending)
    faults.refuse()
    return LabelMapSet(name, samples, labels, label_files, classes)


def _files(folder: Path) -> list[str]:
    """Files of a folder and of the folders in it, relative, in order."""
    found = []
    for entry in os.scandir(folder):
        if entry.is_dir():
            found += [f"{entry.name}/{inner.name}" for inner in os.scandir(entry.path) if inner.is_file()]
        else:
            found.append(entry.name)
    return sorted(found)
