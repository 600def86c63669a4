"""Readers of the segmentation sets made of videos: YouTube-VOS, Ref-YouTube-VOS, Ref-DAVIS, MeViS."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise
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
    id_masks,
    need,
    read_ids,
    read_json,
    rle_counts,
    safe_name,
)
from vigil.images import image_size

NO_PHRASE = ("others",)  # a category of YouTube-VOS that says nothing
_ENTRY = re.compile(rb'"(\d+)"\s*:\s*\[')  # of mask_dict.json; no run-length string can hold a quotation mark


class ObjectClipSet(SegmentationSet):
    """Videos with an annotation image per frame, whose numbers are objects; {phrase: its objects} per sample."""

    def __init__(
        self, name: str, samples: Sequence[SegmentationSample], annotations: Path, said: Sequence[Said]
    ) -> None:
        super().__init__(name, samples)
        self.annotations, self.said = annotations, said

    def phrases(self, i: int) -> list[str]:
        return list(self.said[i])

    def _masks(self, sample: SegmentationSample, i: int, frames: Sequence[int]) -> Masks:
        ids = []
        for frame in frames:
            image = sample.path(frame)
            path = (self.annotations / sample.name / sample.frames[frame]).with_suffix(".png")
            ids.append(read_ids(need(path, f"the annotation of {image}")))
            check_size(path, ids[-1].shape, image)
            if ids[-1].shape != ids[0].shape:
                raise ValueError(f"{path}: frames of several sizes in {sample.name}; a clip has one")
        return id_masks(self.said[i], np.stack(ids))


class MevisSet(SegmentationSet):
    """MeViS: videos with sentences about one or more objects, whose run-length masks stand in one large file.

    That file is never read whole: `places` says where each object's list of masks begins and ends.
    """

    def __init__(
        self,
        samples: Sequence[SegmentationSample],
        said: Sequence[Said],
        mask_file: Path,
        places: Mapping[int, tuple[int, int]],
    ) -> None:
        super().__init__("MeViS", samples)
        self.said, self.mask_file, self.places = said, mask_file, places

    def phrases(self, i: int) -> list[str]:
        return list(self.said[i])

    def _masks(self, sample: SegmentationSample, i: int, frames: Sequence[int]) -> Masks:
        sizes = [image_size(sample.path(frame)) for frame in frames]
        objects = {number for numbers in self.said[i].values() for number in numbers}
        runs = {number: self._runs(number, sample, frames, sizes) for number in sorted(objects)}
        if len(set(sizes)) > 1:
            raise ValueError(f"{sample.folder}: frames of several sizes; a clip has one")
        shown = {number for number, of_frames in runs.items() if any(run is not None for run in of_frames)}
        return Masks({
            phrase: partial(_united, [runs[number] for number in numbers], sizes[0])
            for phrase, numbers in self.said[i].items()
            if shown.intersection(numbers)
        })  # fmt: skip

    def _runs(
        self, number: int, sample: SegmentationSample, frames: Sequence[int], sizes: Sequence[tuple[int, int]]
    ) -> list[Any]:
        """Its run-length mask in each frame, or None where it cannot be seen."""
        where = f"{self.mask_file}, mask {number} of {sample.name}"
        first, end = self.places[number]
        with self.mask_file.open("rb") as file:
            file.seek(first)
            text = file.read(end - first)
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where}: not valid JSON ({error}); fetch the file again") from error
        if len(entries) < len(sample.frames):
            raise ValueError(f"{where}: {len(entries)} masks for {len(sample.frames)} frames; both of one release?")
        chosen = [entries[frame] for frame in frames]
        for k, (frame, run) in enumerate(zip(frames, chosen, strict=True)):
            if run is not None:
                counts, size = rle_counts(run, where)
                if size != sizes[k]:
                    check_size(where, size, sample.path(frame))
                chosen[k] = run if counts[1::2].any() else None
        return chosen


def _united(runs: Sequence[Sequence[Any]], size: tuple[int, int]) -> np.ndarray:
    """What any of the objects covers: bool (T, Y, X); runs holds a list of T run-length masks per object."""
    mask = np.zeros((len(runs[0]), *size), bool)
    for of_frames in runs:
        for k, run in enumerate(of_frames):
            if run is not None:
                mask[k] |= decode_rle(run)
    return mask


def youtube_vos(root: str | Path, split: str = "train") -> ObjectClipSet:
    """YouTube-VOS: train/JPEGImages/<video>/*.jpg, train/Annotations/<video>/*.png, train/meta.json.

    An object's phrase is its category. A sample's frames are those in which any of its objects is annotated. Only the
    training split is published with masks of all frames.
    """
    _only_train("YouTube-VOS", split)
    home = Path(root) / "train"

    def parse(entry: dict[str, Any]) -> tuple[Iterable[str], Iterable[tuple[str, list[int]]]]:
        objects = entry["objects"]
        frames = {frame for thing in objects.values() for frame in thing["frames"]}
        named = [(thing["category"].replace("_", " "), [_object(key)]) for key, thing in objects.items()]
        return frames, [(phrase, numbers) for phrase, numbers in named if phrase not in NO_PHRASE]

    expected = '"videos": {name: {"objects": {"1": {"category": "dog", "frames": ["00000", …]}, …}}, …}'
    samples, said = _videos("YouTube-VOS", home / "meta.json", home / "JPEGImages", parse, expected)
    return ObjectClipSet("YouTube-VOS", samples, need(home / "Annotations", "the annotation images"), said)


def ref_youtube_vos(root: str | Path, split: str = "train") -> ObjectClipSet:
    """Ref-YouTube-VOS: train/JPEGImages, train/Annotations, meta_expressions/train/meta_expressions.json.

    An object without an expression simply has no phrase. Only the training split is published with masks.
    """
    _only_train("Ref-YouTube-VOS", split)
    return _expressions("Ref-YouTube-VOS", Path(root), "train")


def ref_davis(root: str | Path, split: str = "train") -> ObjectClipSet:
    """Ref-DAVIS, converted to the layout of Ref-YouTube-VOS: {train,valid}/…, meta_expressions/{train,valid}/…"""
    names = {"train": "train", "val": "valid"}
    if split not in names:
        raise ValueError(f"split {split!r}; expected train or val")
    return _expressions("Ref-DAVIS", Path(root), names[split])


def _expressions(name: str, root: Path, split: str) -> ObjectClipSet:
    def parse(entry: dict[str, Any]) -> tuple[Iterable[str], Iterable[tuple[str, list[int]]]]:
        said = [(value["exp"], [_object(value["obj_id"])]) for value in entry["expressions"].values()]
        return entry["frames"], said

    home = root / split
    file = root / "meta_expressions" / split / "meta_expressions.json"
    expected = '"videos": {name: {"frames": ["00000", …], "expressions": {"0": {"exp": "a dog", "obj_id": "1"}, …}}, …}'
    samples, said = _videos(name, file, home / "JPEGImages", parse, expected)
    return ObjectClipSet(name, samples, need(home / "Annotations", "the annotation images"), said)


def mevis(root: str | Path, split: str = "train") -> MevisSet:
    """MeViS: {train,valid_u}/JPEGImages/<video>/*.jpg, …/meta_expressions.json, …/mask_dict.json.

    mask_dict.json is searched once for where each object's masks lie; they are read when they are asked for.
    """
    names = {"train": "train", "val": "valid_u"}
    if split not in names:
        raise ValueError(f"split {split!r}; expected train or val")
    home = Path(root) / names[split]

    def parse(entry: dict[str, Any]) -> tuple[Iterable[str], Iterable[tuple[str, list[int]]]]:
        said = [(value["exp"], [int(n) for n in value["anno_id"]]) for value in entry["expressions"].values()]
        return entry["frames"], said

    expected = '"videos": {name: {"frames": ["00000", …], "expressions": {"0": {"exp": "…", "anno_id": [4]}, …}}, …}'
    file = home / "meta_expressions.json"
    samples, said = _videos("MeViS", file, home / "JPEGImages", parse, expected)
    places = mask_places(home / "mask_dict.json")
    faults = Faults(file, f"masks in {home / 'mask_dict.json'} for every anno_id")
    for sample, phrases in zip(samples, said, strict=True):
        absent = sorted({number for numbers in phrases.values() for number in numbers} - places.keys())
        if absent:
            faults.add(sample.name, f"no masks {', '.join(map(str, absent[:10]))}")
    faults.refuse()
    return MevisSet(samples, said, home / "mask_dict.json", places)


def mask_places(path: Path) -> dict[int, tuple[int, int]]:
    """{object: first and end byte of its list} of a mask_dict.json: {"0": [run-length mask or null, …], …}."""
    if not need(path, "the run-length masks, an entry per object").stat().st_size:
        raise ValueError(f"{path}: empty; fetch it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        keys = [(int(match[1]), match.start(), match.end() - 1) for match in _ENTRY.finditer(data)]
        last = data.rfind(b"]") + 1
        if not re.fullmatch(rb"\s*\{\s*", data[: keys[0][1] if keys else 64]) or data[last:].strip() != b"}":
            raise ValueError(f'{path}: not an object {{"0": [mask or null, …], …}} of JSON, or cut off; fetch it again')
        ends = [data.rfind(b"]", first, following) + 1 for (*_, first), (_, following, _) in pairwise(keys)]
    return {number: (first, end) for (number, _, first), end in zip(keys, [*ends, last], strict=True)}


def _videos(
    name: str,
    file: Path,
    images: Path,
    parse: Callable[[dict[str, Any]], tuple[Iterable[str], Iterable[tuple[str, list[int]]]]],
    expected: str,
) -> tuple[list[SegmentationSample], list[Said]]:
    """The videos of a list file, each with its frames and what is said of it; folders are listed, no image is opened.

    Every frame named must be a file of the list's own spelling; it is looked for when it is read.
    """
    entries = read_json(file, expected).get("videos")
    faults = Faults(file, expected)
    if not isinstance(entries, dict):
        faults.add("videos", f"{type(entries).__name__} found")
        entries = {}
    there = {folder.name for folder in need(images, f"{name}'s frames, a folder per video").iterdir()}
    samples, said = [], []
    for video, entry in sorted(entries.items()):
        try:
            frames, phrases = parse(entry)
            named = sorted(safe_name(frame) for frame in frames)
            if safe_name(video) not in there:
                raise ValueError(f"no such folder in {images}")
            if not named or len(set(named)) < len(named):
                raise ValueError(f"{len(named)} frames, {len(set(named))} of them different")
            said.append(gather(phrases))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            faults.add(video, error)
            continue
        frames = tuple(f"{frame}.jpg" for frame in named)
        samples.append(SegmentationSample(name, video, images / video, frames, is_clip=True))
    faults.refuse()
    return samples, said


def _object(value: object) -> int:
    number = int(str(value))
    if not 0 < number < 256:
        raise ValueError(f"object {number}; an annotation image numbers them from 1 to 255")
    return number


def _only_train(name: str, split: str) -> None:
    if split != "train":
        raise ValueError(f"split {split!r} of {name}: only train is published with masks of every frame")
