"""ShanghaiTech Campus: the lists of the weakly supervised split -> Videos; a video's name says whether it is normal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from vigil.annotation_files import (
    NORMAL,
    drop_crops,
    gather,
    integer,
    name_columns,
    read_text,
    split_columns,
    split_header,
    split_lines,
    split_path,
    video_name,
)
from vigil.types import Video

# in the order of PEL4VAD's anomaly.list; its relabel.list says "handcart" for cart
SHANGHAITECH_CATEGORIES = (
    *("cycling", "chasing", "cart", "fighting", "skateboarding", "vehicle", "running", "jumping", "wandering"),
    *("lifting", "robbery", "climbing_over", "throwing"),
)
_OTHER_SPELLINGS = {"handcart": "cart"}
_NAME = re.compile(r"\d\d_(\d{3,4})", re.ASCII)  # 01_001 of the original training set, 01_0014 of the test set
_LAYOUTS = (("name",), ("name", "is_anomalous"), ("name", "is_anomalous", "frames"), ("name", "classes"))
_EXPECTED = "`name`, `name,0 or 1`, `name,0 or 1,frames` or `name class,class`, a name such as 01_001 or 01_0014"


def shanghaitech(path: str | Path) -> list[Video]:
    """The Videos of one list of ShanghaiTech, in any public spelling, in the file's order.

    Names alone (SH_Train.txt, SH_Test.txt), MIST's csv, RTFM's lists of features, PEL4VAD's relabel.list with classes,
    a csv with a header that has `name` or `path`. label comes from the name: three digits after the camera are a video
    of the original training set, normal, four of the test set, anomalous; a file that says otherwise is refused.
    category: "Normal", the classes joined by "+" where the file gives them, else None. anomalies: [] or None, the times
    are in masks. n_frames: the csv's column `frames`; None for MIST's, which are -1 for anomalous
    videos and one or two short for the normal ones.
    Raises FileNotFoundError, or one ValueError that names the file and its bad lines.
    """
    path = Path(path)
    lines = split_lines(read_text(path))
    header = split_header(path, lines)
    rows = drop_crops(lines[1:] if header else lines)
    layout = header or _layout(rows)

    def parse(line: str) -> tuple[str, Video]:
        return _read_row(name_columns(_columns(line), layout), counted=header is not None)

    return list(gather(path, rows, parse, f"`{','.join(header)}`" if header else _EXPECTED).values())


def _columns(line: str) -> list[str]:
    """Apart by a blank where there is one, as the classes behind it are apart by commas; else by commas."""
    columns = line.split()
    return columns if len(columns) > 1 else split_columns(line)


def _layout(rows: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The layout that most lines with a name have."""
    votes = dict.fromkeys(_LAYOUTS, 0)
    for _, line in rows:
        columns = _columns(line)
        named = _NAME.fullmatch(video_name(columns[0]))
        fitting = [layout for layout in _LAYOUTS if named and len(layout) == len(columns)]
        if len(fitting) == 2:  # a flag or classes
            fitting = fitting[:1] if columns[1] in ("0", "1") else fitting[1:]
        for layout in fitting:
            votes[layout] += 1
    return max(votes, key=lambda layout: votes[layout])


def _read_row(row: dict[str, str], counted: bool) -> tuple[str, Video]:
    name, path = split_path(row.get("path") or row.get("name", ""))
    said = _NAME.fullmatch(name)
    if said is None:
        raise ValueError(f"unknown name {name!r}")
    label = int(len(said[1]) == 4)
    if row.get("is_anomalous", str(label)) != str(label):
        raise ValueError(f"{name} has is_anomalous {row['is_anomalous']!r}, its name says {label}")
    n_frames = integer(row["frames"], "frames") if "frames" in row else None
    if n_frames is not None and n_frames < 1 and (counted or n_frames != -1):
        raise ValueError(f"{name} has {n_frames} frames")
    category = None if label else NORMAL
    if "classes" in row:
        classes = [_OTHER_SPELLINGS.get(kind, kind) for kind in row["classes"].split(",")]
        unknown = [kind for kind in classes if kind not in SHANGHAITECH_CATEGORIES]
        if unknown:
            raise ValueError(f"unknown class {', '.join(unknown)} of {name}")
        if not label:
            raise ValueError(f"{name} is normal by its name, yet shows {row['classes']}")
        category = "+".join(classes)
    video = Video(name, path, n_frames if counted else None, label=label, category=category)
    video.anomalies = None if label else []
    return name, video
