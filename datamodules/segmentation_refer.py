"""Readers of the segmentation sets whose images are described in sentences: RefCOCO, RefCOCO+, RefCOCOg, RefCLEF."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.segmentation_set import (
    Faults,
    Masks,
    Said,
    SegmentationSample,
    SegmentationSet,
    check_size,
    decode_rle,
    gather,
    need,
    polygon_mask,
    read_json,
    rle_counts,
    safe_name,
)
from vigil.images import image_size
from vigil.safe_pickle import load_plain

ANNOTATORS = ("unc", "umd", "google", "berkeley")  # whose splits: refs(unc).p is preferred where there are several


class ReferSet(SegmentationSet):
    """Images with sentences, each about one object: {sentence: its objects} per sample, {object: outline} of all.

    An outline is polygons [[x, y, …], …], one run-length mask, or a list of them (RefCLEF). sizes: height and width of
    each image as the annotation has them, or None.
    """

    def __init__(
        self,
        name: str,
        samples: Sequence[SegmentationSample],
        said: Sequence[Said],
        outlines: Mapping[int, Any],
        sizes: Sequence[tuple[int, int] | None],
    ) -> None:
        super().__init__(name, samples)
        self.said, self.outlines, self.sizes = said, outlines, sizes

    def phrases(self, i: int) -> list[str]:
        return list(self.said[i])

    def _masks(self, sample: SegmentationSample, i: int, frames: Sequence[int]) -> Masks:
        size, annotated = image_size(sample.path(0)), self.sizes[i]
        if annotated is not None and annotated != size:
            check_size(f"{self.name}: the outlines of {sample.name}", annotated, sample.path(0))
        objects = {number for numbers in self.said[i].values() for number in numbers}
        mask = {number: self._outlined(sample, number, size) for number in sorted(objects)}
        shown = {number for number in objects if mask[number].any()}
        return Masks({
            sentence: partial(_united, [mask[number] for number in numbers], len(frames))
            for sentence, numbers in self.said[i].items()
            if shown.intersection(numbers)
        })  # fmt: skip

    def _outlined(self, sample: SegmentationSample, number: int, size: tuple[int, int]) -> np.ndarray:
        where = f"{self.name}: outline {number} of {sample.name}"
        outline = self.outlines[number]
        parts = outline if isinstance(outline, list) else [outline]
        if parts and all(isinstance(part, list) for part in parts):
            return polygon_mask(parts, *size, where)
        mask = np.zeros(size, bool)
        for part in parts:
            check_size(where, rle_counts(part, where)[1], sample.path(0))  # before it is as large as it says
            mask |= decode_rle(part, where)
        return mask


def _united(masks: Sequence[np.ndarray], n_frames: int) -> np.ndarray:
    return np.repeat([np.any(masks, axis=0)], n_frames, axis=0)


def refcoco(root: str | Path, split: str = "train") -> ReferSet:
    """RefCOCO, as refer.py has it: refcoco/refs(unc).p, refcoco/instances.json, images/mscoco/images/train2014."""
    return _refer(Path(root), "refcoco", "RefCOCO", split)


def refcoco_plus(root: str | Path, split: str = "train") -> ReferSet:
    """RefCOCO+: refcoco+/refs(unc).p and the rest as of RefCOCO."""
    return _refer(Path(root), "refcoco+", "RefCOCO+", split)


def refcocog(root: str | Path, split: str = "train") -> ReferSet:
    """RefCOCOg: refcocog/refs(umd).p, or refs(google).p, and the rest as of RefCOCO."""
    return _refer(Path(root), "refcocog", "RefCOCOg", split)


def refclef(root: str | Path, split: str = "train") -> ReferSet:
    """RefCLEF: refclef/refs(unc).p, refclef/instances.json, images/saiapr_tc-12."""
    return _refer(Path(root), "refclef", "RefCLEF", split)


def _refer(root: Path, folder: str, name: str, split: str) -> ReferSet:
    """One sample per image that the split has sentences about; those without a letter or digit say nothing."""
    home = need(root / folder, f"{name}'s annotation")
    images = need(
        root / "images" / ("saiapr_tc-12" if folder == "refclef" else "mscoco/images/train2014"), f"{name}'s images"
    )
    files = [home / f"refs({annotators}).p" for annotators in ANNOTATORS]
    file = next((file for file in files if file.is_file()), files[0])
    refs = load_plain(need(file, f"the sentences, from one of refs({'|'.join(ANNOTATORS)}).p"))
    image_of, size_of, outlines = _instances(home / "instances.json")
    said: dict[str, list[tuple[str, list[int]]]] = {}
    splits = set()
    faults = Faults(file, "a list of refs with split, image_id, ann_id (both in instances.json), sentences of sent")
    for number, ref in enumerate(refs if isinstance(refs, list) else [refs]):
        try:
            splits.add(str(ref["split"]))
            if ref["split"] == split:
                outlines[ref["ann_id"]]
                sentences = [(sentence["sent"], [ref["ann_id"]]) for sentence in ref["sentences"]]
                said.setdefault(image_of[ref["image_id"]], []).extend(sentences)
        except (KeyError, TypeError) as error:
            faults.add(f"ref {number}", error)
    faults.refuse()
    if not said:
        raise ValueError(f"{file}: no ref of the split {split!r}; it has {', '.join(sorted(splits)) or 'none'}")
    faults = Faults(file, f"sentences of text, about images in {images}")
    gathered = {}
    for image in sorted(said):
        try:
            gathered[image] = gather(said[image])
            if not os.path.isfile(images / image):
                raise ValueError("no such image")
        except (TypeError, AttributeError, ValueError) as error:
            faults.add(image, error)
    faults.refuse()
    used = {number for sentences in gathered.values() for numbers in sentences.values() for number in numbers}
    samples = [SegmentationSample(name, os.path.splitext(image)[0], images, (image,)) for image in gathered]
    sizes = [size_of[image] for image in gathered]
    return ReferSet(name, samples, list(gathered.values()), {number: outlines[number] for number in used}, sizes)


def _instances(file: Path) -> tuple[dict[Any, str], dict[str, tuple[int, int] | None], dict[Any, Any]]:
    """{image: its file name}, {file name: its size, where it is said}, {object: its outline} of an instances.json."""
    found = read_json(file, "images and annotations, as COCO has them")
    faults = Faults(file, '"images": [{"id", "file_name"}, …], "annotations": [{"id", "segmentation"}, …]')
    image_of: dict[Any, str] = {}
    size_of: dict[str, tuple[int, int] | None] = {}
    outlines: dict[Any, Any] = {}
    for key in ("images", "annotations"):
        entries = found.get(key)
        if not isinstance(entries, list):
            faults.add(key, f"{type(entries).__name__} found")
            continue
        for number, entry in enumerate(entries):
            try:
                if key == "images":
                    image_of[entry["id"]] = name = safe_name(entry["file_name"])
                    said = "height" in entry and "width" in entry
                    size_of[name] = (int(entry["height"]), int(entry["width"])) if said else None
                else:
                    outlines[entry["id"]] = entry["segmentation"]
            except (KeyError, TypeError, ValueError) as error:
                faults.add(f"{key} {number}", error)
    faults.refuse()
    return image_of, size_of, outlines
