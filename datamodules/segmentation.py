"""The segmentation sets that anomalies are made of, by name: one reader each, all alike to use.

images = read_set("ade20k", root)            # root/ade20k
masks = images.masks(3)                      # {phrase: bool (T, Y, X)}, decoded when asked for
images.pixels(3), images.phrases(3), images.others(3, 30, generator)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from datamodules.segmentation_clips import MevisSet, ObjectClipSet, mevis, ref_davis, ref_youtube_vos, youtube_vos
from datamodules.segmentation_images import LabelMapSet, ade20k, cityscapes, coco_stuff, mapillary
from datamodules.segmentation_refer import ReferSet, refclef, refcoco, refcoco_plus, refcocog
from datamodules.segmentation_set import Masks, SegmentationSample, SegmentationSet

# name: where below the root of all sets it lies, and what reads it
SETS: dict[str, tuple[str, Callable[..., SegmentationSet]]] = {
    "ade20k": ("ade20k", ade20k),
    "coco_stuff": ("coco_stuff", coco_stuff),
    "cityscapes": ("cityscapes", cityscapes),
    "mapillary": ("mapillary", mapillary),
    "refcoco": ("refer", refcoco),
    "refcoco_plus": ("refer", refcoco_plus),
    "refcocog": ("refer", refcocog),
    "refclef": ("refer", refclef),
    "youtube_vos": ("youtube_vos", youtube_vos),
    "ref_youtube_vos": ("ref_youtube_vos", ref_youtube_vos),
    "mevis": ("mevis", mevis),
    "ref_davis": ("ref_davis", ref_davis),
}


def read_set(name: str, root: str | Path, split: str = "train") -> SegmentationSet:
    """The set `name` of SETS from its folder below root. Raises ValueError for an unknown name."""
    if name not in SETS:
        raise ValueError(f"segmentation set {name!r} is unknown; expected one of {', '.join(SETS)}")
    folder, reader = SETS[name]
    return reader(Path(root) / folder, split)


__all__ = [
    "SETS", "LabelMapSet", "Masks", "MevisSet", "ObjectClipSet", "ReferSet", "SegmentationSample", "SegmentationSet",
    "ade20k", "cityscapes", "coco_stuff", "mapillary", "mevis", "read_set", "ref_davis", "ref_youtube_vos", "refclef",
    "refcoco", "refcoco_plus", "refcocog", "youtube_vos",
]  # fmt: skip
