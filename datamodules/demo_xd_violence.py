"""A demo copy of XD-Violence on disk, in its authors' layout and annotation formats, with scenes of the demo world."""

from __future__ import annotations

import itertools
import string
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from datamodules.demo import in_parallel, write_demo
from vigil.crimes import REPEATABLE
from vigil.recording import record_joined
from vigil.scenes import VERSION

FPS = 24.0
FIRST_SEED = 10_000_000  # of the scenes; the other demo copies begin at 2, 20, 30 and 40 million
# what each class code shows; nothing of the demo world is a riot, smashed cars and sprayed walls come nearest
CODES = {
    "B1": ("Fighting", "Assault"), "B2": ("Shooting",), "B4": ("Vandalism",), "B5": ("Abuse",),
    "B6": ("RoadAccidents",), "G": ("Explosion", "Arson"),
}  # fmt: skip
JOINED = ("B2", "G", "B6")  # the order in which the video of three classes shows them; its name says G-B2-B6
# codes of the violent training videos, of the violent test videos; normal ones of either; fewest and most frames
SIZES = {
    "tiny": (("B1", "G"), ("B1", "B6"), 2, 2, 48, 64),
    "full": (("B1", "B2", "B4", "B5", "B6", "G"), ("B1", "B2", "B4", "B5", "B6", "G", "G", "B1", "B2"), 6, 7, 96, 140),
}
FILMS = ("Paper.Rivers.2008", "Salt...Stone.1999", "The.Ninth.Lantern.2015", "Cold.Platform.2003")  # none is real
LETTERS = np.array(list(string.ascii_letters + string.digits + "_-"))  # of a YouTube video's eleven


@dataclass(frozen=True)
class XdVideo:
    """One video of the copy: its split, its name as in XD-Violence, and the scenes that are joined in it.

    parts: (class code or "A", scene seed, category, n_frames, n_events).
    """

    split: str
    name: str
    parts: tuple[tuple[str, int, str, int, int], ...]

    @property
    def n_frames(self) -> int:
        """Of all parts together."""
        return sum(n_frames for *_, n_frames, _ in self.parts)


def plan_xd_violence(seed: int = 0, size: str = "full") -> list[XdVideo]:
    """Which videos the copy of this seed holds, training first.

    Names are as odd as the real ones: one-digit hours, dots in a row, `=` and `#`, one training name without the
    padding `-0-0`, one test video of three classes. Raises ValueError for an unknown size or a seed out of range.
    """
    check_plan(seed, size, SIZES)
    train, test, train_normals, test_normals, fewest, most = SIZES[size]
    rng = np.random.default_rng([FIRST_SEED, seed, len(test)])
    found: list[XdVideo] = []
    scene_seeds = itertools.count(FIRST_SEED + 1000 * seed)

    def add(split: str, codes: tuple[str, ...], label: str, n_events: int = 1) -> None:
        parts = []
        for code in codes:
            kinds = CODES.get(code, ("Normal",))
            n_frames = int(rng.integers(fewest, most + 1)) if len(codes) == 1 else max(48, most // 2)
            parts.append((code, next(scene_seeds), kinds[len(found) % len(kinds)], n_frames, n_events))
        source = _source(rng, len(found), sum(part[3] for part in parts))
        found.append(XdVideo(split, f"{source}_label_{label}", tuple(parts)))

    for split, codes, normals in (("train", train, train_normals), ("test", test, test_normals)):
        for number, code in enumerate(codes):
            padded = split == "test" or number > 0
            twice = split == "test" and any(kind in REPEATABLE for kind in CODES[code]) and number == 0
            add(split, (code,), f"{code}-0-0" if padded else code, 2 if twice else 1)
        if split == "test":
            add(split, JOINED, "G-B2-B6")
        for _ in range(normals):
            add(split, ("A",), "A")
    return found


def check_plan(seed: int, size: str, sizes: Collection[str]) -> None:
    """Raises ValueError for a size that is none of `sizes`, or a seed whose scenes would be another copy's."""
    if size not in sizes or not 0 <= seed < 5000:
        raise ValueError(f"size {size!r}, seed {seed}: expected a size of {', '.join(sizes)} and a seed from 0 to 4999")


def _source(rng: np.random.Generator, number: int, n_frames: int) -> str:
    """Where a video is from, as its name says it: a stretch of a film, a whole clip of YouTube's, or a part of one."""
    seconds = int(rng.integers(60, 4000))
    end = seconds + -(-n_frames // int(FPS))
    times = [f"{t // 3600:02d}-{t // 60 % 60:02d}-{t % 60:02d}" for t in (seconds, end)]
    if number % 2 == 0:
        hours = [time.removeprefix("0") for time in times] if number % 4 == 0 else times
        return f"{FILMS[number // 2 % len(FILMS)]}__#{'_'.join(hours)}"
    clip = "".join(rng.choice(LETTERS, 11))
    return f"v={clip}__#{'1' if number % 4 == 1 else '_'.join(times)}"


def write_xd_violence(root: str | Path, seed: int = 0, size: str = "full") -> None:
    """Render the demo copy of XD-Violence into root, unless it is there already, as `write_demo` does it.

    Writes XD-Violence-{train,test}/videos/<name>.mp4 at 24 frames per second and, of the violent test videos alone,
    XD-Violence-test/annotations.txt and annotations_multiclasses.txt: without a final newline, one name with `.mp4`.
    """
    videos = plan_xd_violence(seed, size)
    wanted = {"dataset": "xd_violence", "seed": seed, "size": size, "version": VERSION}
    write_demo(root, wanted, lambda folder: _render(folder, videos))


def _render(root: Path, videos: list[XdVideo]) -> None:
    jobs = [
        (root / f"XD-Violence-{v.split}" / "videos" / f"{v.name}.mp4", FPS, [part[1:] for part in v.parts])
        for v in videos
    ]
    anomalies = in_parallel(record_joined, jobs, sum(video.n_frames for video in videos))
    single, multiple = [], []
    for video, of_parts in zip(videos, anomalies, strict=True):
        if video.split == "train" or video.name.endswith("_label_A"):
            continue
        name = f"{video.name}.mp4" if len(single) == 1 else video.name  # 14 of the real 500 carry it
        events = [
            (first, end, part[0]) for part, spans in zip(video.parts, of_parts, strict=True) for first, end in spans
        ]
        single.append(" ".join([name, *(f"{first} {end}" for first, end, _ in sorted(events))]))
        # class by class as the name has them, so not by start: nine of the real lines are not either
        order = video.name.rpartition("_label_")[2].split("-")
        by_class = sorted(events, key=lambda event: order.index(event[2]))
        multiple.append(" ".join([name, *(f"{code} {first} {end}" for first, end, code in by_class)]))
    for file, lines in (("annotations", single), ("annotations_multiclasses", multiple)):
        (root / "XD-Violence-test" / f"{file}.txt").write_text("\n".join(lines))
