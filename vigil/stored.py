"""The files a test leaves, to be judged again or by others: truth, scores, class scores, captions. No torch."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vigil import judging
from vigil.captions import judged_numbers, read_captions
from vigil.columns import finite, integers, read_columns
from vigil.curves import Curve, merge_videos
from vigil.types import Video

TRUTH = ["video", "n_frames", "fps", "label", "category", "anomalies"]
SCORES = ["video", "first_frame", "end_frame", "score"]
NAMED = 10  # videos that an error names


def write_truth(file: Path, videos: Sequence[Video]) -> None:
    """truth.csv: a row per video that was judged; anomalies as `first-end` half-open frames, joined by spaces."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(TRUTH)
        writer.writerows(_truth_row(video) for video in videos)


def read_truth(file: Path) -> list[Video]:
    """The videos of a truth.csv. Raises FileNotFoundError, or ValueError naming the line that cannot be read."""
    lines, column = read_columns(file, TRUTH)
    videos = []
    for number, *row in zip(lines, *(column[name] for name in TRUTH), strict=True):
        try:
            videos.append(_truth_of(row))
        except ValueError as error:
            raise ValueError(f"{file}, line {number}: {error}; a test writes this file, run it again") from None
    if len({video.name for video in videos}) < len(videos) or not videos:
        raise ValueError(f"{file}: {len(videos)} rows; a row for each video, once, is expected")
    return videos


def truth_hash(videos: Sequence[Video]) -> str:
    """16 hexadecimal digits of what is judged: every video's length, label and anomalous frames, whatever their order.

    Category and frame rate are left out: no curve's AUROC or AP depends on them.
    """
    lines = sorted(f"{v.name},{v.n_frames},{v.label},{_intervals(v)}" for v in videos)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def write_scores(file: Path, curves: Mapping[str, Curve], refined: Mapping[str, Curve]) -> None:
    """scores.csv: video,first_frame,end_frame,score,refined; ends exclusive; a row wherever either score changes."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*SCORES, "refined"])
        for name, curve in curves.items():
            other = refined.get(name)
            edge = curve.edge if other is None else np.union1d(curve.edge, other.edge)
            score = _at(curve, edge)
            second = [""] * len(score) if other is None else [str(value) for value in _at(other, edge)]
            rows = zip(edge[:-1], edge[1:], score, second, strict=True)
            writer.writerows([name, int(first), int(end), str(raw), fine] for first, end, raw, fine in rows)


def read_scores(file: Path, videos: Sequence[Video]) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """Raw and refined curves of `videos` by name, float32; refined is {} where the file has none.

    Columns video,first_frame,end_frame,score and, if there is one, refined; ends exclusive, rows in any order. Raises
    FileNotFoundError, or ValueError naming the line or the videos: a video that is missing or not in the truth, a frame
    scored twice or not at all, a score that is no number in [0, 1], refined scores of some rows only.
    """
    index = {video.name: number for number, video in enumerate(videos)}
    lengths = np.array([video.n_frames or 0 for video in videos], dtype=np.int64)
    video, first, end, score, fine = _score_columns(file, index, lengths)
    missing = sorted(set(range(len(videos))) - set(video.tolist()))
    if missing:
        named = ", ".join(videos[number].name for number in missing[:NAMED])
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise ValueError(
            f"{file}: no scores of {len(missing)} of {len(videos)} videos: {named}{more}; score every video of the test"
        )
    _refuse_overlap(file, videos, video, first, end)
    names = [one.name for one in videos]
    try:
        curves = merge_videos(video, first, end, score, n_frames=lengths.tolist(), names=names)
        refined = (
            merge_videos(video, first, end, fine, n_frames=lengths.tolist(), names=names) if fine is not None else []
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None
    return dict(zip(names, curves, strict=True)), dict(zip(names, refined, strict=bool(refined)))


def write_class_scores(
    file: Path, categories: Sequence[str], samples: Sequence[tuple[str, int, int, str, Sequence[float]]]
) -> None:
    """class_scores.csv: video,first_frame,end_frame,category and a column per category with the sample's score."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*SCORES[:3], "category", *categories])
        for name, first, end, category, score in samples:
            writer.writerow([name, first, end, category, *(str(np.float32(value)) for value in score)])


def read_class_scores(file: Path) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """The categories (K), and of each sample its video, the true category (N,) and its scores, float32 (N, K)."""
    lines, column = read_columns(file, [*SCORES[:3], "category"])
    categories = list(column)[4:]
    for number, category in zip(lines, column["category"], strict=True):
        if category not in categories:
            raise ValueError(f"{file}, line {number}: category {category!r} is none of {', '.join(categories)}")
    true = np.array([categories.index(category) for category in column["category"]], dtype=np.int64)
    score = np.stack([finite(file, lines, column[name]) for name in categories], axis=1)
    return categories, column["video"], true, score


def numbers(
    folder: Path,
    gated_at: float | None = None,
    threshold: float | None = None,
    unseen: Sequence[str] = (),
    temperature: float | None = None,
    sentinels: bool = False,
) -> dict[str, float]:
    """Every number that the files of a test's folder give, keyed as in metrics.json; see `judging.frame_numbers`.

    temperature: of the class scores, as fitted on validation. How alike captions are to one another is not among them,
    for that needs their embeddings.
    """
    values: dict[str, float] = {}
    if (folder / "scores.csv").is_file() and (folder / "truth.csv").is_file():
        videos = read_truth(folder / "truth.csv")
        curves, refined = read_scores(folder / "scores.csv", videos)
        values |= judging.frame_numbers(videos, curves, refined, gated_at, threshold, unseen, sentinels)
    if (folder / "class_scores.csv").is_file():
        _, of_video, true, score = read_class_scores(folder / "class_scores.csv")
        values |= judging.class_numbers(true, score, of_video, temperature)
    if (folder / "captions.csv").is_file():
        values |= judged_numbers(read_captions(folder / "captions.csv"))
    return values | _pixel_numbers(folder)


def _pixel_numbers(folder: Path) -> dict[str, float]:
    if not (folder / "pixel_histogram.npz").is_file():
        return {}
    from vigil.regions import auroc_of_histogram, average_precision_of_histogram, criteria_of_counts  # needs SciPy

    with np.load(folder / "pixel_histogram.npz") as stored:
        counts = stored["positive"], stored["negative"]
    values = {"pixel_auroc": auroc_of_histogram(*counts), "pixel_ap": average_precision_of_histogram(*counts)}
    if (folder / "regions.npz").is_file():
        with np.load(folder / "regions.npz") as stored:
            values |= criteria_of_counts(stored["counts"], float(stored["alpha"]))
    return values


def _truth_row(video: Video) -> list[object]:
    fps = "" if video.fps is None else repr(float(video.fps))
    label = "" if video.label is None else video.label
    return [video.name, video.n_frames, fps, label, video.category or "", _intervals(video)]


def _truth_of(row: Sequence[str]) -> Video:
    name, n_frames, fps, label, category, intervals = row
    pairs = [part.split("-") for part in intervals.split()]
    anomalies = None if intervals == "unknown" else [(int(first), int(end)) for first, end in pairs]
    return Video(
        name,
        n_frames=int(n_frames),
        fps=float(fps) if fps else None,
        label=int(label) if label else None,
        category=category or None,
        anomalies=anomalies,
    )


def _intervals(video: Video) -> str:
    if video.anomalies is None:
        return "unknown"
    return " ".join(f"{first}-{end}" for first, end in video.anomalies)


def _at(curve: Curve, edge: np.ndarray) -> np.ndarray:
    return curve.score[np.searchsorted(curve.edge, edge[:-1], side="right") - 1]


def _score_columns(
    file: Path, index: Mapping[str, int], lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    lines, column = read_columns(file, SCORES)
    video = np.array([index.get(name, -1) for name in column["video"]], dtype=np.int64)
    for row in np.flatnonzero(video < 0)[:1]:
        raise ValueError(
            f"{file}, line {lines[row]}: {column['video'][row]!r} is none of the {len(index)} videos to be judged"
        )
    first, end = (integers(file, lines, column[name]) for name in ("first_frame", "end_frame"))
    for row in np.flatnonzero((first < 0) | (end <= first) | (end > lengths[video]))[:1]:
        raise ValueError(
            f"{file}, line {lines[row]}: frames {first[row]} to {end[row]} of {column['video'][row]}, which has "
            f"{lengths[video[row]]} frames; frames count from 0, and ends are exclusive"
        )
    given = column.get("refined", [])
    if any(given) and not all(given):
        row = given.index("")
        raise ValueError(
            f"{file}, line {lines[row]}: no refined score of {column['video'][row]}, {sum(map(bool, given))} of "
            f"{len(given)} rows have one; give every row one, or leave the column out"
        )
    return video, first, end, _scores(file, lines, column["score"]), _scores(file, lines, given) if any(given) else None


def _scores(file: Path, lines: Sequence[int], texts: Sequence[str]) -> np.ndarray:
    value = finite(file, lines, texts)
    for row in np.flatnonzero((value < 0) | (value > 1))[:1]:
        raise ValueError(
            f"{file}, line {lines[row]}: the score {texts[row]} does not lie in [0, 1]; rescale all scores alike"
        )
    return value


def _refuse_overlap(file: Path, videos: Sequence[Video], video: np.ndarray, first: np.ndarray, end: np.ndarray) -> None:
    order = np.lexsort((first, video))
    video, first, end = video[order], first[order], end[order]
    for at in np.flatnonzero((video[1:] == video[:-1]) & (first[1:] < end[:-1]))[:1]:
        raise ValueError(
            f"{file}: frame {first[at + 1]} of {videos[video[at]].name} is scored twice; give each frame one score"
        )
