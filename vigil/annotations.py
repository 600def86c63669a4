"""The public annotation formats -> Videos, and frame labels in every ground-truth convention."""

from __future__ import annotations

import gzip
import json
import math
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vigil.types import Video

Row = TypeVar("Row")
Value = TypeVar("Value")
Lengths = dict[str, dict[str, int]]  # video name -> column -> frames

NORMAL = "Normal"
# alphabetical, as the class ids 1 to 13 of UMIL's file count them; 0 is Normal
UCF_CRIME_CATEGORIES = (
    *("Abuse", "Arrest", "Arson", "Assault", "Burglary", "Explosion", "Fighting", "RoadAccidents"),
    *("Robbery", "Shooting", "Shoplifting", "Stealing", "Vandalism"),
)
CONVENTIONS = ("full", "full_matlab", "urdmu", "vadclip", "rtfm", "vera")

# VadCLIP's features of these hold one snippet more than their frames fill; found by rebuilding its gt_ucf.npy
_VADCLIP_LONGER = {
    f"{name}_x264" for name in ("Normal_Videos_924", "Normal_Videos_935", "Normal_Videos_940", "Shooting032")
}
_LARGEST_FILE = 16 * 2**20  # the largest public list unpacks to 1.5 MB; more is not an annotation
_SHOWN = 10  # bad lines in one error
_INTEGER = re.compile(r"-?\d{1,12}", re.ASCII)
_EXTENSION = re.compile(r"\.(mp4|avi|mkv|mov|webm|npy|npz|txt|mat)$", re.IGNORECASE)
_FEATURE_SUFFIX = re.compile(r"(_i3d|_c3d)?(__\d+)?(_i3d|_c3d)?$", re.IGNORECASE)
_TIMES = ("s1", "e1", "s2", "e2")
_UCF_LAYOUTS = (
    ("path",),  # Anomaly_Train.txt, Anomaly_Test.txt, lists of features
    ("path", "frames"),  # Train_Annotation of ekosman
    ("path", "class"),  # the csv lists of VadCLIP
    ("path", "frames_cv2", "none"),  # test_normalv2 of seominseok0429
    ("path", "frames_cv2", "intervals"),  # test_anomalyv2 of the same
    ("path", "class", *_TIMES),  # the official file, and VadCLIP's without extensions
    ("path", "class", *_TIMES, "frames"),  # MIST
    ("path", "frames", "class", *_TIMES),  # UR-DMU, ekosman
    ("path", "frames", "class_id", *_TIMES),  # UMIL, the second annotation
)


def ucf_crime(path: str | Path, lengths: Mapping[str, int] | None = None) -> list[Video]:
    """The Videos of one annotation or list file of UCF-Crime, in any public spelling, in the file's order.

    Text, csv and JSON, plain, gzipped, or the official zip; the spelling is recognised by its columns or keys, and a
    line that does not keep to it is an error, never skipped. Columns are apart by blanks, tabs, commas or bars.
    Every Video has name, label and category ("Normal" or a class). anomalies are half-open and as the file says them,
    also where an end lies beyond the video (5 do): [] if normal, None if anomalous without times, as in a list.
    n_frames is the file's count, but None for the seominseok0429 files: theirs are OpenCV's, one more in 224 of 290.
    path is the video's relative path as spelled where the file gives a folder; feature files (.npy) leave it None, and
    only there may a path be absolute. Lines that repeat one video word for word in a list (crops; ten lines of
    train_normal) are one Video. LaGoVAD gives fractions of the video: `lengths` (name -> frames) turns them into
    frames, without it anomalies stay None. HIVAU-70k gives seconds, rounded to frames.
    Raises FileNotFoundError, or one ValueError that names the file and its bad lines.
    """
    path = Path(path)
    text = _read_text(path)
    if text.lstrip()[:1] in ("[", "{"):
        return _ucf_json(path, text, lengths)
    lines = [(f"line {number}", line) for number, line in enumerate(_lines(text), 1) if line.strip()]
    if lines and [column.lower() for column in _columns(lines[0][1])] == ["path", "label"]:
        del lines[0]
    votes = [sum(_fits(_columns(line), layout) for _, line in lines) for layout in _UCF_LAYOUTS]
    layout = _UCF_LAYOUTS[int(np.argmax(votes))]
    if not any(votes):  # say what an annotation looks like, not what a list does
        layout = _UCF_LAYOUTS[5]
    expected = f"`{'  '.join(layout)}`, class {NORMAL}, {', '.join(UCF_CRIME_CATEGORIES)}"
    repeats = layout in (("path",), ("path", "class"))  # crops of one video; ten lines of seominseok0429's train_normal
    return list(_gather(path, lines, lambda line: _ucf_columns(_columns(line), layout), expected, repeats).values())


def video_name(file: str) -> str:
    r"""The video's name in a file name of the field: no folder, extension, crop or feature suffix.

    G:\UCF_Test_ten_crop_i3d\Abuse028_x264_i3d.npy and dataset/Abuse/Abuse028_x264__0.npy are both Abuse028_x264.
    """
    name = re.split(r"[/\\]", file)[-1]
    stem = _EXTENSION.sub("", name)
    return _FEATURE_SUFFIX.sub("", stem, count=1) if re.search(r"\.(npy|npz|txt)$", name, re.IGNORECASE) else stem


def lengths(path: str | Path) -> Lengths:
    """Frame counts by video name: {name: {column: frames}} of a csv.

    With a header: `name`, `frames` and any of `frames_cv2`, `len_urdmu`, `len_vadclip`, `len_rtfm`; other columns are
    left out. Without one: `name,frames` on every line. Raises FileNotFoundError or ValueError as `ucf_crime` does.
    """
    path = Path(path)
    rows = [[column.strip() for column in line.split(",")] for line in _lines(_read_text(path))]
    lines = [(f"line {number}", row) for number, row in enumerate(rows, 1) if any(row)]
    header = ["name", "frames"]
    if lines and "name" in lines[0][1]:
        header = lines.pop(0)[1]
    counted = [key for key in header if key in ("frames", "frames_cv2") or key.startswith("len_")]
    if "frames" not in counted:
        raise ValueError(f"{path.name}: the header is {','.join(header)}; expected `name`, `frames` and others")

    def parse(columns: list[str]) -> tuple[str, dict[str, int]]:
        row = _named(columns, header)
        counts = {key: _integer(row[key], key) for key in counted}
        if min(counts.values()) < 1:
            raise ValueError(f"{counts}: a video has at least 1 frame")
        return _split_path(row["name"])[0], counts

    return _gather(path, lines, parse, f"`{','.join(header)}`")


def array_length(n_frames: int, n_frames_cv2: int | None, convention: str, name: str) -> int:
    """Frames in a video's label array under a UCF-Crime convention: snippets of its features times 16, or all frames.

    n_frames is the canonical count, n_frames_cv2 OpenCV's (n or n + 1), which urdmu alone needs: I3D dropped the last
    frame before cutting. Raises ValueError for an unknown convention, or a video too short for one snippet.
    """
    _check_convention(convention)
    if convention == "urdmu":
        if n_frames_cv2 is None:
            raise ValueError(
                f"{name}: urdmu counts by OpenCV's frames, which are not given; use lengths with frames_cv2"
            )
        length = 16 * ((n_frames_cv2 - 1) // 16)
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

    length: frames in each array (`array_lengths`); what lies beyond it is clipped. Conventions, on intervals (s, e):
    full, urdmu, vadclip: [s, e). vera: the same rule on the second annotation, so `videos` must come from VERA's or
    UMIL's file; official intervals cannot be told from them here, whoever reads the file chooses it. full_matlab:
    1-based and inclusive, [s - 1, e). rtfm: [s, e], and if the last ends less than 16 frames before the array does,
    all after it too.
    A name without a Video is normal only where it says so (Normal_Videos…, …label_A). Raises ValueError, naming up to
    ten videos: one without a length, twice, anomalous without times, with a length or interval that cannot be.
    Source: the arrays of UR-DMU, VadCLIP, RTFM, rebuilt; Evaluate_Anomaly_Detector.m; compute_auc.py of VERA.
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
        raise ValueError(f"no frame labels ({convention}) for {len(wrong)} videos: {_first(wrong)}")
    return labels


def anomalous_runs(label: np.ndarray) -> list[tuple[int, int]]:
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
    slack = 0 if convention in ("full", "full_matlab", "vera") else 16  # arrays of snippets drop up to 16 frames
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
    if convention not in CONVENTIONS:
        raise ValueError(f"ground-truth convention {convention!r} is unknown; expected one of {', '.join(CONVENTIONS)}")


def _ucf_columns(columns: list[str], layout: tuple[str, ...]) -> tuple[str, Video]:
    row = _named(columns, layout)
    number = {key: _integer(row[key], key) for key in ("frames", "frames_cv2", "class_id", *_TIMES) if key in row}
    category = row.get("class")
    if "class_id" in row:
        if not 0 <= number["class_id"] <= len(UCF_CRIME_CATEGORIES):
            raise ValueError(f"unknown class_id {number['class_id']}")
        category = (NORMAL, *UCF_CRIME_CATEGORIES)[number["class_id"]]
    times = [number[key] for key in _TIMES] if "s1" in row else None
    if "none" in row:
        if row["none"] != "-1":
            raise ValueError(f"the last column is {row['none']!r}, not -1")
        times = []
    if "intervals" in row:
        try:
            times = [_integer(value, "a frame") for value in json.loads(row["intervals"])]
        except (json.JSONDecodeError, TypeError, RecursionError):
            raise ValueError(f"{row['intervals']!r} is no list of frames such as [165, 240]") from None
    if number.get("frames_cv2", 1) < 1:
        raise ValueError(f"it has {number['frames_cv2']} frames")
    return _ucf_video(row["path"], category, None if times is None else _pairs(times), number.get("frames"))


def _ucf_json(path: Path, text: str, lengths: Mapping[str, int] | None) -> list[Video]:
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path.name}: not valid JSON: {error}") from error
    if isinstance(entries, dict):
        entries = [{"name": name, **value} if isinstance(value, dict) else value for name, value in entries.items()]
    keys = {key for entry in entries if isinstance(entry, dict) for key in entry}
    spelling: Callable[[dict[str, Any], Mapping[str, int] | None], tuple[str, Video]]
    spelling, expected = _vera, "`video`, `temporal_label` [s1, e1, s2, e2], `length`"
    if "anomaly_span" in keys:
        spelling, expected = (
            _lagovad,
            "`video_path`, `class_name`, `anomaly_span` [[first, end], …] in parts of the video",
        )
    elif "events" in keys:
        spelling, expected = _hivau, "name: {`n_frames`, `fps`, `label` [class], `events` [[first, end], …] in seconds}"

    def parse(entry: Any) -> tuple[str, Video]:
        try:
            return spelling(entry, lengths)
        except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
            raise ValueError(f"{json.dumps(entry)[:80]}: {type(error).__name__} {error}") from None

    rows = [(f"entry {number}", entry) for number, entry in enumerate(entries, 1)]
    return list(_gather(path, rows, parse, expected).values())


def _vera(entry: dict[str, Any], _lengths: Mapping[str, int] | None) -> tuple[str, Video]:
    times = [_integer(value, "temporal_label") for value in entry["temporal_label"]]
    return _ucf_video(entry["video"], None, _pairs(times), _integer(entry["length"], "length"))


def _lagovad(entry: dict[str, Any], lengths: Mapping[str, int] | None) -> tuple[str, Video]:
    name = _split_path(entry["video_path"])[0]
    spans = [(float(first), float(end)) for first, end in entry["anomaly_span"]]
    if not all(0 <= first < end < math.inf for first, end in spans) or bool(spans) == (entry["class_name"] == NORMAL):
        raise ValueError(f"{name} is {entry['class_name']} with anomaly_span {spans}")
    if lengths is None:
        return _ucf_video(entry["video_path"], entry["class_name"], None, None)
    if name not in lengths:
        raise ValueError(f"{name} has no length")
    intervals = [(round(first * lengths[name]), round(end * lengths[name])) for first, end in spans]
    return _ucf_video(entry["video_path"], entry["class_name"], intervals, lengths[name])


def _hivau(entry: dict[str, Any], _lengths: Mapping[str, int] | None) -> tuple[str, Video]:
    fps = float(entry["fps"])
    if not 0 < fps < math.inf:
        raise ValueError(f"{entry['name']} has {fps} frames per second")
    category = entry["label"][0] if entry["label"] else NORMAL
    events = entry["events"] if entry["label"] else []  # a normal video's events are captions
    intervals = [(round(float(first) * fps), round(float(end) * fps)) for first, end in events]
    name, video = _ucf_video(entry["name"], category, intervals, _integer(entry["n_frames"], "n_frames"))
    video.fps = fps
    return name, video


def _ucf_video(
    spelled: str, category: str | None, intervals: list[tuple[int, int]] | None, n_frames: int | None
) -> tuple[str, Video]:
    name, path = _split_path(spelled)
    said = {category} if category is not None else set()
    prefix = re.match(rf"({'|'.join(UCF_CRIME_CATEGORIES)})\d|Normal_Videos", name)
    if prefix:
        said.add(prefix[1] or NORMAL)
    folder = "".join(re.split(r"[/\\]", spelled)[-2:-1])
    if folder in UCF_CRIME_CATEGORIES or "Normal_Videos" in folder:
        said.add(folder if folder in UCF_CRIME_CATEGORIES else NORMAL)
    if not said <= {NORMAL, *UCF_CRIME_CATEGORIES} or not said:
        raise ValueError(f"unknown class of {spelled!r}: {', '.join(sorted(map(str, said))) or 'none given'}")
    if len(said) > 1:
        raise ValueError(f"{name} is said to be {' and '.join(sorted(said))}")
    kind = said.pop()
    if n_frames is not None and n_frames < 1:
        raise ValueError(f"{name} has {n_frames} frames")
    for first, end in intervals or []:
        if not 0 <= first < end:
            raise ValueError(f"{name}: the interval {first}-{end} is not 0 <= first < end")
        if n_frames is not None and first >= n_frames:
            raise ValueError(f"{name}: the interval {first}-{end} starts beyond its {n_frames} frames")
    if intervals is not None and bool(intervals) == (kind == NORMAL):
        raise ValueError(f"{name} is {kind} with intervals {intervals}")
    anomalies = [] if kind == NORMAL else intervals
    return name, Video(name, path, n_frames, label=int(kind != NORMAL), category=kind, anomalies=anomalies)


def _pairs(times: list[int]) -> list[tuple[int, int]]:
    """[s1, e1, -1, -1] -> [(s1, e1)]; whether each pair is an interval is the caller's to check."""
    if len(times) % 2:
        raise ValueError(f"{times} are not pairs of first and end")
    pairs = zip(times[::2], times[1::2], strict=True)
    return [pair for pair in pairs if pair != (-1, -1)]


def _split_path(spelled: str) -> tuple[str, Path | None]:
    """The video's name, and its relative path where the file gives a folder and not a feature file."""
    parts = spelled.replace("\\", "/").split("/")
    if not spelled.isprintable() or ".." in parts:
        raise ValueError(f"{spelled!r} is not a file name below the data folder")
    feature = spelled.lower().endswith((".npy", ".npz"))
    if not feature and (parts[0] == "" or re.match(r"[A-Za-z]:", spelled)):
        raise ValueError(f"{spelled!r} is absolute or empty; only a list of features (.npy) may be")
    name = video_name(parts[-1])
    if name in ("", "."):
        raise ValueError(f"{spelled!r} names no video")
    return name, None if feature or len(parts) == 1 else Path(*parts)


def _columns(line: str) -> list[str]:
    separator = next((mark for mark in "|," if mark in line), None)  # bars first: intervals hold commas
    return [column.strip() for column in line.split(separator)]


def _fits(columns: list[str], layout: tuple[str, ...]) -> bool:
    def fit(column: str, key: str) -> bool:
        if key == "intervals":
            return column.startswith("[")
        return key == "path" or (key == "class") != bool(_INTEGER.fullmatch(column))

    return len(columns) == len(layout) and all(map(fit, columns, layout))


def _named(columns: list[str], layout: Sequence[str]) -> dict[str, str]:
    if len(columns) != len(layout):
        raise ValueError(f"{len(columns)} columns, not {len(layout)}: {' '.join(columns)[:80]!r}")
    return dict(zip(layout, columns, strict=True))


def _integer(value: Any, what: str) -> int:
    if (isinstance(value, str) and _INTEGER.fullmatch(value)) or (
        isinstance(value, int) and not isinstance(value, bool)
    ):
        return int(value)
    raise ValueError(f"{what} is {value!r}, not a whole number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"one object gives {max(keys, key=keys.count)!r} twice")
    return found


def _gather(
    path: Path,
    rows: Sequence[tuple[str, Row]],
    parse: Callable[[Row], tuple[str, Value]],
    expected: str,
    repeats: bool = False,
) -> dict[str, Value]:
    """Every row parsed, by name and in order; all that fail in one ValueError. repeats: two rows may say the same."""
    found: dict[str, Value] = {}
    where: dict[str, str] = {}
    wrong = []
    for place, row in rows:
        try:
            name, value = parse(row)
            if name in found and not (repeats and value == found[name]):
                raise ValueError(f"{name} again, first in {where[name]}")
        except ValueError as error:
            wrong.append(f"{place}: {error}")
            continue
        found.setdefault(name, value)
        where.setdefault(name, place)
    if wrong:
        raise ValueError(f"{path.name}: {len(wrong)} bad of {len(rows)}: {_first(wrong)}. Expected {expected}")
    if not found:
        raise ValueError(f"{path.name}: no videos in it. Expected {expected}")
    return found


def _first(wrong: list[str]) -> str:
    return "; ".join(wrong[:_SHOWN]) + (f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else "")


def _lines(text: str) -> list[str]:
    return re.split(r"\r\n|\r|\n", text)  # str.splitlines would also cut at form feeds


def _read_text(path: Path) -> str:
    """The text of a file, of a gzip, or of the one .txt in a zip."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected an annotation or list, as text, JSON, gzip or zip")
    try:
        with path.open("rb") as file:
            magic = file.read(4)
            file.seek(0)
            if magic[:2] == b"\x1f\x8b":
                data = gzip.GzipFile(fileobj=file).read(_LARGEST_FILE + 1)
            elif magic == b"PK\x03\x04":
                archive = zipfile.ZipFile(file)
                names = [name for name in archive.namelist() if name.lower().endswith(".txt")]
                if len(names) != 1:
                    raise ValueError(f"{path.name}: {len(names)} .txt files in the zip; expected one, the annotation")
                data = archive.open(names[0]).read(_LARGEST_FILE + 1)
            else:
                data = file.read(_LARGEST_FILE + 1)
    except (EOFError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{path.name}: the archive is damaged ({error}); fetch it again") from error
    if len(data) > _LARGEST_FILE:
        raise ValueError(f"{path.name}: more than {_LARGEST_FILE // 2**20} MiB; that is not an annotation")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path.name}: byte {error.start} is not UTF-8; save the file as UTF-8 text") from error
