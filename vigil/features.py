"""Pre-extracted features as the field ships them: found by video name, read as (N, D), and which frames each row is."""

from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

from vigil.annotations import video_name

_TYPES = (".npy", ".npz", ".txt")
_CROP = re.compile(r"(?P<head>.+)__(?P<crop>\d{1,2})(?P<tail>(_i3d|_c3d)?\.(npy|npz|txt))", re.IGNORECASE)
_CROP_COUNTS = (1, 5, 10)  # none, the corners and the center, the same mirrored
# where the center stands: `__0` in one file per crop (XDVioDet, UR-DMU, VadCLIP); third after two corners in one array
# of ten (the I3D extraction behind RTFM's features), and in the first half of it
_CENTER_FILE, _CENTER_ROW = 0, 2
_SHOWN = 10  # names in one error


def read_features(path: str | Path, crops: str | int = "mean", crop_axis: int | None = None) -> np.ndarray:
    """The features of one video: float32 (N, D), a row per snippet or segment, all finite.

    Reads .npy and .npz of (N, D), (N, 10, D) or (10, N, D), C3D text (a row of numbers per line), and ten-crop sets of
    files: the path of any crop, `name__3.npy`, stands for all `name__k.npy` beside it.
    crops: "mean" over all (0 to 4 or 0 to 9 must be there), "center", or the number of one.
    crop_axis: which axis of a 3-D array holds the crops; None takes the one of size 10, and refuses (10, 10, D).
    An .npz holds one array, or one named `features`. Nothing pickled is opened.
    Raises FileNotFoundError, or ValueError naming the file, what it holds and what was expected.
    """
    path = Path(path)
    if not (crops in ("mean", "center") or (isinstance(crops, int) and not isinstance(crops, bool) and crops >= 0)):
        raise ValueError(f"crops is {crops!r}; expected mean, center or the number of a crop from 0")
    files = _crop_files(path)
    if not files or not path.is_file():
        return _finite(path, _pick_crop(path, _read_array(path), crops, crop_axis))
    if crops == "mean":
        if sorted(files) != list(range(len(files))) or len(files) not in _CROP_COUNTS:
            raise ValueError(
                f"{path.name}: crops {sorted(files)} lie in {path.parent}, not all of 0-4 or 0-9; choose one"
            )
        wanted = sorted(files)
    else:
        wanted = [_CENTER_FILE if crops == "center" else int(crops)]
        if wanted[0] not in files:
            raise ValueError(f"{path.name}: crop {wanted[0]} is not among the crops {sorted(files)} in {path.parent}")
    arrays = [_read_array(files[crop]) for crop in wanted]
    for crop, array in zip(wanted, arrays, strict=True):
        if array.ndim != 2 or array.shape != arrays[0].shape:
            shapes = f"{array.shape}, {files[wanted[0]].name} {arrays[0].shape}"
            raise ValueError(f"{files[crop].name}: shape {shapes}; expected one (N, D) in every crop's file")
    return _finite(path, np.stack(arrays).mean(axis=0, dtype=np.float64))


def find_features(root: str | Path, names: Iterable[str]) -> dict[str, Path]:
    """{name: feature file} of every video below `root`, in any folder; of a set of crops, the first that is there.

    A file is a video's if it is called so but for `_x264`, `_i3d`, `_c3d`, `__k` and the extension.
    Raises FileNotFoundError naming up to ten videos without a file, ValueError those with several.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected the folder with the feature files")
    found: dict[str, list[Path]] = {}
    for folder, _, files in os.walk(root, onerror=_raise):
        for file in files:
            if file.lower().endswith(_TYPES):
                found.setdefault(_key(video_name(file)), []).append(Path(folder, file))
    result, missing, several = {}, [], []
    for name in names:
        paths = sorted(found.get(_key(name), []))
        if not paths:
            missing.append(name)
        elif len({_crop_set(path) for path in paths}) > 1:
            several.append(f"{name} ({', '.join(str(path.relative_to(root)) for path in paths[:3])})")
        else:
            result[name] = min(paths, key=lambda path: (len(path.name), path.name))
    if missing:
        raise FileNotFoundError(
            f"{root}: no features of {len(missing)} videos: {_first(missing)}; "
            f"expected NAME, NAME_i3d or NAME__0 with {', '.join(_TYPES)}, in any folder below"
        )
    if several:
        raise ValueError(
            f"{root}: more than one feature file of {len(several)} videos: {_first(several)}; keep one kind"
        )
    return result


def to_segments(features: np.ndarray, segments: int = 32) -> np.ndarray:
    """The video in `segments` rows: features (N, D) -> float32 (segments, D), each the mean of its share of the rows.

    The shares' edges are N's linspace cut to whole numbers; an empty share takes the row at its edge, so a video of
    fewer rows than segments repeats rows. Raises ValueError for an empty array or segments < 1.
    Source: process_feat of RTFM, after Sultani et al. Differs: nothing.
    """
    if features.ndim != 2 or len(features) < 1 or segments < 1:
        raise ValueError(f"features {features.shape} in {segments} segments; expected (N, D) with rows, segments >= 1")
    edge = np.linspace(0, len(features), segments + 1, dtype=int)
    shares = [features[first : max(end, first + 1)] for first, end in pairwise(edge)]
    return np.stack([share.mean(axis=0, dtype=np.float64) for share in shares]).astype(np.float32)


def snippet_spans(
    n_snippets: int, n_frames: int | None = None, snippet_frames: int = 16, segments: int = 32
) -> np.ndarray:
    """The frames each feature row answers for: int64 (N, 2), half-open, together the whole video.

    Rows are snippets of `snippet_frames` if that many fill the video to within one snippet; the extractors of the field
    drop or pad up to 16 frames, so the last row holds to n_frames. Else exactly `segments` rows are equal parts of the
    video, as with C3D's 32. n_frames None: snippets of full length. Raises ValueError where neither fits.
    """
    if n_snippets < 1 or snippet_frames < 1 or segments < 1 or (n_frames is not None and n_frames < 1):
        raise ValueError(
            f"{n_snippets} rows of {snippet_frames} frames, {n_frames} in the video; expected at least 1 each"
        )
    filled = n_snippets * snippet_frames
    if n_frames is None or -snippet_frames <= filled - n_frames < snippet_frames:
        edge = np.arange(n_snippets + 1, dtype=np.int64) * snippet_frames
        edge[-1] = filled if n_frames is None else n_frames
    elif n_snippets == segments <= n_frames:
        edge = np.arange(segments + 1, dtype=np.int64) * n_frames // segments
    else:
        raise ValueError(
            f"{n_snippets} feature rows do not fit a video of {n_frames} frames; expected about "
            f"{-(-n_frames // snippet_frames)} snippets of {snippet_frames} frames, or {segments} equal parts"
        )
    return np.stack([edge[:-1], edge[1:]], axis=1)


def _pick_crop(path: Path, array: np.ndarray, crops: str | int, crop_axis: int | None) -> np.ndarray:
    """(N, D) of an array with or without crops."""
    if array.ndim == 2:
        if crops not in ("mean", "center", 0):
            raise ValueError(f"{path.name}: shape {array.shape} holds one crop, not a crop {crops}")
        return array
    if array.ndim != 3:
        raise ValueError(f"{path.name}: shape {array.shape}; expected (N, D), (N, 10, D) or (10, N, D)")
    if crop_axis is None:
        axes = [axis for axis in (0, 1) if array.shape[axis] == 10]
        if len(axes) != 1:
            raise ValueError(f"{path.name}: shape {array.shape} leaves open where ten crops are; give crop_axis 0 or 1")
        crop_axis = axes[0]
    elif crop_axis not in (0, 1):
        raise ValueError(f"crop_axis is {crop_axis}; expected 0 for (crops, N, D) or 1 for (N, crops, D)")
    count = array.shape[crop_axis]
    if crops == "mean":
        return np.asarray(array.mean(axis=crop_axis, dtype=np.float64))
    if crops == "center" and count not in _CROP_COUNTS:
        raise ValueError(f"{path.name}: which of {count} crops is the center is not known; give its number")
    wanted = int(crops) if crops != "center" else min(_CENTER_ROW, count - 1)
    if wanted >= count:
        raise ValueError(f"{path.name}: crop {wanted} of {count}; they count from 0")
    return np.asarray(array.take(wanted, axis=crop_axis))


def _read_array(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such feature file; expected {', '.join(_TYPES)}")
    try:
        if path.suffix.lower() == ".npy":
            array = np.asarray(np.lib.format.open_memmap(path, mode="r"))  # refuses objects and sizes the file lacks
        elif path.suffix.lower() == ".npz":
            array = _read_npz(path)
        elif path.suffix.lower() == ".txt":
            text = path.read_text(encoding="utf-8-sig")
            array = np.loadtxt(text.splitlines(), ndmin=2, comments=None) if text.strip() else np.empty((0, 0))
        else:
            raise ValueError(f"type {path.suffix!r}; expected one of {', '.join(_TYPES)}")
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, MemoryError) as error:
        raise ValueError(
            f"{path.name}: not readable as features ({error}); expected numbers, saved without pickle"
        ) from error
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{path.name}: values of type {array.dtype}; expected floating-point numbers")
    if array.ndim < 2 or 0 in array.shape:
        raise ValueError(f"{path.name}: shape {array.shape}; expected (N, D), (N, 10, D) or (10, N, D), none of them 0")
    return array


def _read_npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("not an .npz archive")
        keys = archive.files
        if "names" in keys:
            raise ValueError("it bundles several videos by `names`; write a file per video")
        if len(keys) != 1 and "features" not in keys:
            raise ValueError(f"it holds {', '.join(keys) or 'nothing'}; expected one array, or one named features")
        return np.asarray(archive[keys[0] if len(keys) == 1 else "features"])


def _finite(path: Path, array: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        features = np.array(array, dtype=np.float32)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        raise ValueError(
            f"{path.name}: {bad.sum()} rows hold NaN or infinity, the first is row {bad.argmax()}; extract again"
        )
    return features


def _crop_files(path: Path) -> dict[int, Path]:
    """{crop: file} of the set that a crop's file belongs to; empty for any other file."""
    match = _CROP.fullmatch(path.name)
    if match is None or not path.parent.is_dir():
        return {}
    found = {}
    for file in path.parent.iterdir():
        other = _CROP.fullmatch(file.name)
        if other and (other["head"], other["tail"]) == (match["head"], match["tail"]):
            found[int(other["crop"])] = file
    return found


def _crop_set(path: Path) -> tuple[Path, str, str]:
    match = _CROP.fullmatch(path.name)
    return (path.parent, match["head"], match["tail"]) if match else (path.parent, path.name, "")


def _raise(error: OSError) -> None:
    raise error  # os.walk would pass over a folder it may not open


def _key(name: str) -> str:
    return re.sub("_x264$", "", name)


def _first(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
