"""Frame labels in every ground-truth convention of the field, and the lengths they need."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from vigil.annotation_files import (
    first_of,
    gather,
    integer,
    name_columns,
    read_text,
    split_columns,
    split_lines,
    split_path,
)
from vigil.types import Video

Lengths = dict[str, dict[str, int]]  # video name -> column -> frames

CONVENTIONS = ("full", "full_matlab", "urdmu", "vadclip", "rtfm", "vera")  # of UCF-Crime
XD_VIOLENCE_CONVENTIONS = ("full", "xdviodet", "vadclip")
_FULL = ("full", "full_matlab", "vera")  # the others count snippets, so their arrays drop or add up to 16 frames

# VadCLIP's features of these hold one snippet more than their frames fill; found by rebuilding its gt_ucf.npy, gt.npy
_VADCLIP_LONGER = {
    *(f"{name}_x264" for name in ("Normal_Videos_924", "Normal_Videos_935", "Normal_Videos_940", "Shooting032")),
    *(f"v={name}__#1_label_A" for name in ("KERh4R2BbS0", "vHnAmx0UYbM", "wQrV75N2BrI")),
}


def lengths(path: str | Path) -> Lengths:
    """Frame counts by video name: {name: {column: frames}} of a csv.

    With a header: `name`, `frames` and any of `frames_cv2`, `len_urdmu`, `len_vadclip`, `len_rtfm`, `len_xdviodet`;
    other columns are left out. Without one: `name,frames` on every line. Raises FileNotFoundError or ValueError as
    `ucf_crime` does.
    """
    path = Path(path)
    lines = [
        (place, split_columns(line)) for place, line in split_lines(read_text(path)) if line.replace(",", "").strip()
    ]
    header = ["name", "frames"]
    if lines and "name" in lines[0][1]:
        header = lines.pop(0)[1]
    counted = [key for key in header if key in ("frames", "frames_cv2") or key.startswith("len_")]
    if "frames" not in counted:
        raise ValueError(f"{path.name}: the header is {','.join(header)}; expected `name`, `frames` and others")

    def parse(columns: list[str]) -> tuple[str, dict[str, int]]:
        row = name_columns(columns, header)
        counts = {key: integer(row[key], key) for key in counted}
        if min(counts.values()) < 1:
            raise ValueError(f"{counts}: a video has at least 1 frame")
        return split_path(row["name"])[0], counts

    return gather(path, lines, parse, f"`{','.join(header)}`")


def array_length(n_frames: int, n_frames_cv2: int | None, convention: str, name: str) -> int:
    """Frames in a video's label array under a convention: snippets of its features times 16, or all frames.

    n_frames is the canonical count, n_frames_cv2 OpenCV's (n or n + 1), which urdmu alone needs: I3D dropped the last
    frame before cutting. XD-Violence has one count, OpenCV's, and xdviodet is the same rule on it.
    Raises ValueError for an unknown convention, or a video too short for one snippet.
    """
    _check_convention(convention)
    if convention == "urdmu":
        if n_frames_cv2 is None:
            raise ValueError(
                f"{name}: urdmu counts by OpenCV's frames, which are not given; use lengths with frames_cv2"
            )
        length = 16 * ((n_frames_cv2 - 1) // 16)
    elif convention == "xdviodet":
        length = 16 * ((n_frames - 1) // 16)
    elif convention == "vadclip":
        length = 16 * (n_frames // 16) + 16 * (name in _VADCLIP_LONGER)
    elif convention == "rtfm":
        length = 16 * -(-n_frames // 16)
    else:
        length = n_frames
    if length < 1:
        raise ValueError(f"{name}: {n_frames} frames hold no 16-frame snippet, so {convention} has no array for it")
    return length


def array_lengths(rows: Lengths, convention: str) -> dict[str, int]:
    """{name: frames in the array} for `frame_labels`: column len_<convention> where given, else by `array_length`."""
    column = f"len_{convention}"
    return {
        name: row[column] if column in row else array_length(row["frames"], row.get("frames_cv2"), convention, name)
        for name, row in rows.items()
    }


def frame_labels(videos: Iterable[Video], length: Mapping[str, int], convention: str = "full") -> dict[str, np.ndarray]:
    """Ground truth per frame: {name: uint8 (length,)} in `length`'s order, 1 where anomalous, as a convention marks it.

    length: frames in each array (`array_lengths`); what lies beyond it is clipped. Conventions, on intervals (s, e),
    which may overlap: full, urdmu, vadclip, xdviodet: [s, e). vera: the same rule on UCF-Crime's second annotation, so
    `videos` must come from VERA's or UMIL's file; official intervals cannot be told from them here, whoever reads the
    file chooses it. full_matlab: 1-based and inclusive, [s - 1, e). rtfm: [s, e], and if the last ends less than 16
    frames before the array does, all after it too.
    A name without a Video is normal only where it says so (Normal_Videos…, …label_A). Raises ValueError, naming up to
    ten videos: one without a length, twice, anomalous without times, with a length or interval that cannot be.
    Source: the arrays of UR-DMU, VadCLIP, RTFM, XDVioDet, rebuilt; Evaluate_Anomaly_Detector.m; compute_auc.py of VERA.
    """
    _check_convention(convention)
    by_name: dict[str, Video] = {}
    wrong: list[str] = []
    for video in videos:
        if video.name in by_name:
            wrong.append(f"{video.name} is given twice")
        elif video.name not in length:
            wrong.append(f"{video.name} has no length")
        by_name[video.name] = video
    labels = {}
    for name, n_frames in length.items():
        try:
            labels[name] = _label_array(by_name.get(name), name, n_frames, convention)
        except ValueError as error:
            wrong.append(f"{name} {error}")
    if wrong:
        raise ValueError(f"no frame labels ({convention}) for {len(wrong)} videos: {first_of(wrong)}")
    return labels


def anomalous_runs(label: ArrayLike) -> list[tuple[int, int]]:
    """The half-open intervals where label (T,) is not 0, in order."""
    edge = np.flatnonzero(np.diff(np.concatenate([[False], np.asarray(label) != 0, [False]])))
    return [(int(first), int(end)) for first, end in edge.reshape(-1, 2)]


def _label_array(video: Video | None, name: str, n_frames: int, convention: str) -> np.ndarray:
    if n_frames < 1 or int(n_frames) != n_frames:
        raise ValueError(f"has length {n_frames}; a whole number of at least 1 is expected")
    label = np.zeros(int(n_frames), dtype=np.uint8)
    if video is None:
        if not re.match(r"Normal_Videos|.*label_A$", name):
            raise ValueError("is not annotated, and its name does not say that it is normal")
        return label
    intervals = [] if video.label == 0 and video.anomalies is None else video.anomalies
    if intervals is None or (video.label == 1 and not intervals):
        raise ValueError("is not annotated in time; read it from a file with intervals")
    if video.label == 0 and intervals:
        raise ValueError(f"is normal, yet has the intervals {intervals}")
    slack = 0 if convention in _FULL else 16
    for first, end in intervals:
        if not 0 <= first < end:
            raise ValueError(f"has the interval {first}-{end}; expected 0 <= first < end")
        if first >= n_frames + slack:
            raise ValueError(f"starts its event at frame {first}, the array has {n_frames}; is that the right length?")
        label[max(0, first - (convention == "full_matlab")) : end + (convention == "rtfm")] = 1
    last = max((end for _, end in intervals), default=None)
    if convention == "rtfm" and last is not None and n_frames - last < 16:
        label[last:] = 1
    return label


def _check_convention(convention: str) -> None:
    known = list(dict.fromkeys((*CONVENTIONS, *XD_VIOLENCE_CONVENTIONS)))
    if convention not in known:
        raise ValueError(f"ground-truth convention {convention!r} is unknown; expected one of {', '.join(known)}")
