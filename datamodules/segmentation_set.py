"""What every segmentation set shares: samples, phrases that are true of them, and their masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vigil.exposure import distinct, spelling
from vigil.images import image_size, read_image

Said = dict[str, list[int]]  # phrase -> the numbers of the objects, or classes, that it is said of
_SHOWN = 10  # bad entries in one error


@dataclass(frozen=True, slots=True)
class SegmentationSample:
    """One image, or the annotated frames of one video, none of them opened yet.

    frames: file names below `folder`, in order of time. is_clip: whether it is a video.
    """

    set_name: str
    name: str
    folder: Path
    frames: tuple[str, ...]
    is_clip: bool = False

    def path(self, frame: int) -> Path:
        """The image file of a frame."""
        return self.folder / self.frames[frame]


class Masks(Mapping[str, np.ndarray]):
    """{phrase: its mask bool (T, Y, X)} of the phrases that the frames show, each decoded when it is asked for."""

    def __init__(self, decode: Mapping[str, Callable[[], np.ndarray]]) -> None:
        self._decode = decode

    def __getitem__(self, phrase: str) -> np.ndarray:
        return self._decode[phrase]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._decode)

    def __len__(self) -> int:
        return len(self._decode)


class SegmentationSet:
    """Samples of one segmentation set. A subclass says what is true of each, and where in the picture.

    Raises ValueError for a set without samples.
    """

    def __init__(self, name: str, samples: Sequence[SegmentationSample]) -> None:
        if not samples:
            raise ValueError(f"{name}: no samples; check root and split")
        self.name, self.samples = name, list(samples)

    def __len__(self) -> int:
        return len(self.samples)

    # what a set says -----------------------------------------------------------------------------------------------

    def phrases(self, i: int) -> list[str]:
        """Every phrase known to be true of sample i, in any of its frames."""
        raise NotImplementedError

    def vocabulary(self) -> list[str]:
        """Every phrase that the set can ask about, in every spelling that it has; no image is opened."""
        return list(dict.fromkeys(phrase for i in range(len(self)) for phrase in self.phrases(i)))

    def _masks(self, sample: SegmentationSample, i: int, frames: Sequence[int]) -> Masks:
        raise NotImplementedError

    # what every set shares -----------------------------------------------------------------------------------------

    def masks(self, i: int, frames: Sequence[int] | None = None) -> Masks:
        """The phrases that the given frames of sample i show, each with its mask; all frames where none are given.

        A phrase whose mask is empty in all of them is not there. Raises ValueError for damaged annotation, a mask of
        another size than its frame, or a frame that is not there; FileNotFoundError for a missing file.
        """
        return self._masks(self.samples[i], i, self._frames(i, frames))

    def pixels(self, i: int, frames: Sequence[int] | None = None) -> np.ndarray:
        """The given frames of sample i, or all of them: uint8 (T, C, Y, X), as they are stored.

        An EXIF rotation is not followed, since the masks do not know of it.
        """
        sample = self.samples[i]
        images = [read_image(sample.path(frame), "RGB") for frame in self._frames(i, frames)]
        if len({image.shape for image in images}) > 1:
            raise ValueError(f"{sample.folder}: {sample.name} has frames of several sizes; a clip has one")
        pixels = np.empty((len(images), 3, *images[0].shape[:2]), np.uint8)
        for row, image in zip(pixels, images, strict=True):
            for channel in range(3):  # plane by plane: half the time of one transposed copy
                row[channel] = image[..., channel]
        return pixels

    def size(self, i: int) -> tuple[int, int]:
        """Height and width of sample i, from the header of its first image."""
        return image_size(self.samples[i].path(0))

    def others(self, i: int, count: int, generator: np.random.Generator) -> list[str]:
        """One phrase each of up to `count` other samples, drawn uniformly; a sample without phrases gives none."""
        among = len(self.samples) - 1
        drawn = generator.choice(among, min(count, among), replace=False) if among else np.zeros(0, int)
        choices = [self.phrases(int(j) + (int(j) >= i)) for j in drawn]
        return [phrases[int(generator.integers(len(phrases)))] for phrases in choices if phrases]

    def _frames(self, i: int, frames: Sequence[int] | None) -> list[int]:
        n_frames = len(self.samples[i].frames)
        chosen = list(range(n_frames)) if frames is None else [int(frame) for frame in frames]
        if not chosen or not all(0 <= frame < n_frames for frame in chosen):
            raise ValueError(
                f"{self.name}: frames {chosen} of {self.samples[i].name}; it has {n_frames}, counted from 0"
            )
        return chosen


def id_masks(phrases: Mapping[str, Sequence[int]], ids: np.ndarray) -> Masks:
    """Masks of the phrases that stand for any of the numbers in ids, uint8 (T, Y, X)."""
    there = set(numbers_in(ids))
    shown = {phrase: numbers for phrase, numbers in phrases.items() if there.intersection(numbers)}
    return Masks({phrase: partial(_among, numbers, ids) for phrase, numbers in shown.items()})


def numbers_in(ids: np.ndarray) -> list[int]:
    """The numbers that an array of uint8, not empty, holds, in order."""
    flat = ids.ravel()
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1  # few: neighbours mostly have one number
    return [int(number) for number in np.unique(flat[np.concatenate([[0], starts])])]


def _among(numbers: Sequence[int], ids: np.ndarray) -> np.ndarray:
    mask = np.zeros(ids.shape, bool)
    for number in numbers:
        mask |= ids == number
    return mask


def read_ids(path: Path) -> np.ndarray:
    """The numbers in an annotation image, uint8 (Y, X): grey levels, or places in the palette."""
    return read_image(path, None)


def check_size(mask: Path | str, size: tuple[int, ...], image: Path) -> None:
    """Raises ValueError unless a mask of `size` (Y, X) fits the image file."""
    expected = image_size(image)
    if tuple(size) != expected:
        raise ValueError(
            f"{mask}: {size[1]} x {size[0]} pixels, its image {image} has {expected[1]} x {expected[0]}; "
            "take both from the same release, none of them resized"
        )


def polygon_mask(polygons: Sequence[Sequence[float]], height: int, width: int, where: str = "polygons") -> np.ndarray:
    """Where the centre of a pixel lies inside any of the polygons [x0, y0, x1, y1, …]: bool (Y, X).

    Inside by the even-odd rule; corners are in pixels, (0, 0) the picture's corner; what lies beyond it is cut off.
    Differs from pycocotools along edges, by pixels whose centre is at most about half a pixel away: that one rounds
    the outline to pixels first. Raises ValueError, naming `where`, for what is no polygon.
    """
    mask = np.zeros((height, width), bool)
    for polygon in polygons:
        try:
            corner = np.asarray(polygon, np.float64).reshape(-1, 2)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: not a polygon [x0, y0, x1, y1, …] ({error})") from None
        if not np.isfinite(corner).all() or len(corner) < 1:
            raise ValueError(f"{where}: a polygon of {len(corner)} corners, or of infinite ones")
        size = np.array([width, height])
        left, top = np.clip(np.floor(corner.min(axis=0)), 0, size).astype(int)
        right, bottom = np.clip(np.ceil(corner.max(axis=0)), 0, size).astype(int)
        inside = _inside(corner - (left, top), bottom - top, right - left)
        mask[top:bottom, left:right] |= inside
    return mask


def _inside(corner: np.ndarray, height: int, width: int) -> np.ndarray:
    """Whether an odd number of edges of the polygon (N, 2) cross the row to the left of each pixel's centre."""
    (x0, y0), (x1, y1) = corner.T, np.roll(corner, -1, axis=0).T
    low, high = (np.clip(np.ceil(y - 0.5), 0, height).astype(int) for y in (np.minimum(y0, y1), np.maximum(y0, y1)))
    edge = np.repeat(np.arange(len(corner)), high - low)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(high - low) - high, high - low)
    x = x0[edge] + (row + 0.5 - y0[edge]) * (x1 - x0)[edge] / (y1 - y0)[edge]
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    crossings = np.bincount(row * (width + 1) + column, minlength=height * (width + 1)).reshape(height, width + 1)
    return np.asarray(np.logical_xor.accumulate(crossings[:, :-1] % 2 == 1, axis=1))


def rle_counts(rle: Mapping[str, Any], where: str) -> tuple[np.ndarray, tuple[int, int]]:
    """Run lengths int64, of zeros first, and the size (Y, X) of a COCO run-length mask, compressed or not.

    Raises ValueError, naming `where`, for runs that do not fill the size.
    """
    try:
        height, width = (int(value) for value in rle["size"])
        counts = rle["counts"]
        if isinstance(counts, (str, bytes)):
            counts = _decompress(counts if isinstance(counts, bytes) else counts.encode("ascii"))
        counts = np.asarray(counts, np.int64).reshape(-1)
        wrong = height < 1 or width < 1 or bool((counts < 0).any()) or int(counts.sum()) != height * width
    except (KeyError, TypeError, ValueError, OverflowError, IndexError) as error:
        raise ValueError(f"{where}: not a run-length mask ({type(error).__name__}: {error})") from None
    if wrong:
        raise ValueError(
            f"{where}: runs of {int(counts.sum())} pixels in all for {height} rows of {width}; the file is damaged"
        )
    return counts, (height, width)


def _decompress(text: bytes) -> np.ndarray:
    """Run lengths of a compressed string: five bits a character, the sixth says that more follow; from the third on
    each is the difference to the one two before."""
    value = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    if not len(value) or value.min() < 0 or value.max() > 63 or value[-1] & 32:
        raise ValueError(f"counts {text[:20]!r} are no compressed run lengths")
    end = np.flatnonzero(value & 32 == 0)
    first = np.concatenate([[0], end[:-1] + 1])
    place = np.arange(len(value)) - np.repeat(first, end - first + 1)
    if place.max() > 11:
        raise ValueError(f"counts {text[:20]!r} hold a number of more than 60 bits")
    number = np.add.reduceat((value & 31) << (5 * place), first)
    number -= (value[end] >> 4 & 1) << (5 * (place[end] + 1))  # its highest bit is the sign
    for start in (1, 2):
        number[start::2] = np.cumsum(number[start::2])
    return number


def decode_rle(rle: Mapping[str, Any], where: str = "mask") -> np.ndarray:
    """The mask of a COCO run-length annotation {size: [Y, X], counts: numbers or compressed}: bool (Y, X)."""
    counts, (height, width) = rle_counts(rle, where)
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(width, height).T


def gather(pairs: Iterable[tuple[str, list[int]]]) -> Said:
    """{phrase: every number that it, or another spelling of it, comes with}, as it is spelled first.

    A phrase without a letter or digit, as an annotator's slip of the finger, says nothing and is left out.
    """
    said = [(" ".join(phrase.split()), numbers) for phrase, numbers in pairs if any(map(str.isalnum, phrase))]
    first = {spelling(phrase): phrase for phrase in distinct(phrase for phrase, _ in said)}
    gathered: Said = {phrase: [] for phrase in first.values()}
    for phrase, numbers in said:
        gathered[first[spelling(phrase)]] += numbers
    return gathered


def need(path: Path, what: str) -> Path:
    """The file or folder, or a FileNotFoundError saying `what` it should have been."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: not there; expected {what}")
    return path


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file. Raises FileNotFoundError or ValueError."""
    try:
        found = json.loads(need(path, what).read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not valid JSON ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: a JSON {type(found).__name__}; expected an object, {what}")
    return found


def safe_name(name: object) -> str:
    """The relative path that an annotation names. Raises ValueError for one that leads out of its folder."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        raise ValueError(f"{name!r} is no file name")
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name!r} leads out of the set's folder")
    return name


class Faults:
    """What is wrong with the entries of a file, gathered so that one error can show up to ten of them."""

    def __init__(self, where: Path | str, expected: str) -> None:
        self.where, self.expected, self.found = where, expected, list[str]()

    def add(self, entry: object, error: Exception | str) -> None:
        """Note an entry and what was found."""
        kind = "" if isinstance(error, (ValueError, str)) else f"{type(error).__name__} "
        self.found.append(f"{entry}: {kind}{error}")

    def refuse(self) -> None:
        """Raise a ValueError where anything was noted."""
        if self.found:
            more = f"; and {len(self.found) - _SHOWN} more" if len(self.found) > _SHOWN else ""
            raise ValueError(
                f"{self.where}: {len(self.found)} bad entries: {'; '.join(self.found[:_SHOWN])}{more}. "
                f"Expected {self.expected}"
            )
