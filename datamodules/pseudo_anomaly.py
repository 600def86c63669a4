"""PseudoAnomaly: segmentation sets turned into anomalies, LAVIDA's Anomaly Exposure; no video of a VAD set in it."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from torchmetrics import Metric

from datamodules.clips import join
from datamodules.demo_segmentation import write_segmentation
from datamodules.loading import ResumableLoader, batch_share
from datamodules.segmentation import SegmentationSet, read_set
from datamodules.video_data import VideoDataModule
from vigil.annotations import anomalous_runs
from vigil.exposure import NoCandidate, expose
from vigil.types import Clip, Video, View

# the released code's, whose "coco" is the four sets of referring expressions
LAVIDA_MIXTURE = {
    "youtube_vos": 0.05, "ref_youtube_vos": 0.2, "mevis": 0.25, "ref_davis": 0.2, "cityscapes": 0.05,
    "refcoco": 0.025, "refcoco_plus": 0.025, "refcocog": 0.025, "refclef": 0.025, "ade20k": 0.1, "mapillary": 0.05,
}  # fmt: skip
VALIDATION = 2**32  # stands where an epoch does
REDRAWS = 100  # a sample that shows every phrase of its set cannot be normal: another one is drawn
Key = tuple[int, int, bool]  # epoch, index in it, whether a clip is drawn (else an image)


class PseudoAnomaly(VideoDataModule):
    """Images and clips of segmentation sets, each asked about some phrases; anomalous where one of them is shown.

    root: holds a folder per set (datamodules.segmentation.SETS). mixture {set: weight}: a sample's set is drawn by
    weight, then the sample uniformly; a batch holds images (clips of one frame) or clips (of the fit view's frames and
    stride), as often as their weights say. p, max_categories: see vigil.exposure.expose; one number, or one per set.
    frame_label: clip, every frame of an anomalous clip is anomalous (the paper), or mask, those that show it (the
    authors' code). samples_per_epoch: over all processes together. validation_fraction: of each set's samples, of which
    `validation_samples` are drawn once. A draw depends on (seed, epoch, index) alone.
    Source: LAVIDA, arXiv:2602.19248, Sec. 3.3. Differs: see vigil.exposure; a clip shorter than the view holds its last
    frame where the code drops it; one that shows none of its phrases in the frames drawn is normal, as in the code.
    """

    splits = ()

    def __init__(
        self,
        root: str,
        demo: bool = False,
        limit_videos: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        mixture: dict[str, float] | None = None,
        p: float = 0.5,
        max_categories: int | dict[str, int] = 30,
        even_count: bool = False,
        frame_label: Literal["clip", "mask"] = "clip",
        samples_per_epoch: int = 4000,
        validation_fraction: float = 0.05,
        validation_samples: int = 200,
    ) -> None:
        super().__init__(root, demo, limit_videos, seed, num_workers, validation_fraction=validation_fraction)
        mixture = dict(LAVIDA_MIXTURE if mixture is None else mixture)
        if not mixture or min(mixture.values()) < 0 or not sum(mixture.values()) > 0:
            raise ValueError(f"mixture {mixture}: a weight of at least 0 for each set, not all 0, is expected")
        limits = {"": max_categories} if isinstance(max_categories, int) else max_categories
        unknown = sorted(limits.keys() - mixture.keys() - {""})
        if unknown or not 0 <= p <= 1 or min(limits.values(), default=2) < 2:
            raise ValueError(
                f"p {p}, max_categories {max_categories}: p in [0, 1] and at least 2 categories are expected"
                + (f", of sets in the mixture, not {', '.join(unknown)}" if unknown else "")
            )
        if samples_per_epoch < 1 or validation_samples < 2:
            raise ValueError(f"{samples_per_epoch=}, {validation_samples=}: at least 1 and 2 are expected")
        self.mixture = {name: weight for name, weight in mixture.items() if weight > 0}
        self.p, self.max_categories, self.frame_label = p, max_categories, frame_label
        self.even_count = even_count
        self.samples_per_epoch, self.validation_samples = samples_per_epoch, validation_samples

    @property
    def categories(self) -> list[str]:
        return []

    @property
    def protocol(self) -> dict[str, Any]:
        chosen = {"mixture": self.mixture, "p": self.p, "max_categories": self.max_categories}
        chosen["even_count"] = self.even_count
        return super().protocol | chosen | {"frame_label": self.frame_label}

    def render(self) -> None:
        write_segmentation(self.root)

    def known(self, split: str) -> list[Video]:
        """The drawn validation samples as videos; training draws anew in every epoch, and is no list of videos."""
        if split != "val":
            raise ValueError(f"PseudoAnomaly has no {split} videos; it is for fitting, test on another dataset")
        if split not in self._known:
            self._known[split] = self.exposures("val").videos()
        return self._known[split]

    def metrics(self, split: str = "val") -> dict[str, Metric]:
        return self.frame_metrics("val")

    def seen(self) -> dict[str, Any]:
        """{"phrases": every phrase that a fit may ask about}, from the lists alone: 420,000 in a second."""
        return {"phrases": sorted({phrase for source in self.sets.values() for phrase in source.vocabulary()})}

    def setup(self, stage: str) -> None:
        """Refuse a system that watches bags before anything is read."""
        self._view()

    def _view(self) -> View:
        view = self._watcher.fit_views["video"]
        if view.segments is not None:
            raise ValueError(f"PseudoAnomaly gives clips of a few frames, this system watches bags: {view}")
        return view

    def faults(self, decode: bool, progress: Callable[[int, int, str], None]) -> list[str]:
        """Every sample's masks, and its pixels where `decode` asks for them."""

        def look(job: tuple[SegmentationSet, int]) -> str | None:
            source, i = job
            try:
                list(source.masks(i).values())
                if decode:
                    source.pixels(i)
            except (ValueError, OSError) as error:
                return f"{source.name}, {source.samples[i].name}: {error}"
            return None

        jobs = [(source, i) for source in self.sets.values() for i in range(len(source))]
        found = []
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:  # Pillow decodes without the interpreter's lock
            for done, (job, fault) in enumerate(zip(jobs, pool.map(look, jobs), strict=True), 1):
                found += [fault] if fault else []
                progress(done, len(jobs), f"{job[0].name} {job[0].samples[job[1]].name}")
        return found

    @cached_property
    def sets(self) -> dict[str, SegmentationSet]:
        """The sets of the mixture, their lists read, no image opened."""
        return {name: read_set(name, self.root) for name in self.mixture}

    def exposures(self, part: str) -> Exposures:
        """What samples are drawn from, for training ("train") or validation ("val")."""
        view = self._view()
        rows = {name: self._rows(source, part) for name, source in self.sets.items()}
        empty = [name for name, row in rows.items() if not len(row)]
        if empty:
            raise ValueError(
                f"{', '.join(empty)}: no samples for {part}; change validation_fraction, or leave them out"
            )
        return Exposures(self, rows, view.offsets)

    def train_dataloader(self) -> DataLoader:
        exposures = self.exposures("train")
        batches = ExposureBatches(
            exposures.share_of_clips, self.samples_per_epoch, self._watcher.batch_size, self.seed, *self._shard()
        )
        return ResumableLoader(exposures, batch_sampler=batches, collate_fn=join, **self._workers())

    def _scoring_loader(self, split: str) -> DataLoader:
        self.known(split)
        return super()._scoring_loader(split)

    def scoring_dataset(self, videos: Sequence[Video]) -> Dataset[Clip]:
        return self.exposures("val").validation()

    def _rows(self, source: SegmentationSet, part: str) -> np.ndarray:
        """The numbers of the samples in a part, (N,)."""
        chosen = [i for i, sample in enumerate(source.samples) if (sample.name in self.held) == (part == "val")]
        return np.array(chosen[: self.limit_videos], dtype=np.int64)

    @cached_property
    def held(self) -> set[str]:
        """Names of the samples held out for validation, in all sets that have them: some show the same pictures.

        A name is drawn by itself, with probability validation_fraction; a set without any gives its likeliest.
        """

        def draw(name: str) -> float:
            return int.from_bytes(hashlib.sha256(f"{self.seed} {name}".encode()).digest()[:7], "big") / 2**56

        fraction, found = self.validation_fraction or 0.0, set()
        for source in self.sets.values():
            names = {sample.name: draw(sample.name) for sample in source.samples}
            found |= {name for name, drawn in names.items() if drawn < fraction} or {min(names, key=names.__getitem__)}
        return found


class Exposures(Dataset[Clip]):
    """Samples of a mixture by key (epoch, index, whether a clip is drawn)."""

    def __init__(self, data: PseudoAnomaly, rows: Mapping[str, np.ndarray], offsets: np.ndarray) -> None:
        self.sets, self.rows, self.seed, self.p = data.sets, dict(rows), data.seed, data.p
        self.max_categories, self.frame_label = data.max_categories, data.frame_label
        self.even_count = data.even_count
        self.n_validation = data.validation_samples
        self.offsets = offsets
        clips = [name for name in rows if self.sets[name].samples[0].is_clip]
        self.weights = {
            kind: {name: data.mixture[name] for name in rows if (name in clips) == kind} for kind in (True, False)
        }
        self.share_of_clips = sum(self.weights[True].values()) / sum(data.mixture.values())

    def __getitem__(self, key: Key) -> Clip:
        return self._clip(*self._draw(*key))

    def __len__(self) -> int:
        return sum(len(rows) for rows in self.rows.values())

    def validation_keys(self) -> list[Key]:
        generator = np.random.default_rng((self.seed, VALIDATION))
        kinds = generator.random(self.n_validation) < self.share_of_clips
        return [(VALIDATION, index, bool(kind)) for index, kind in enumerate(kinds)]

    def validation(self) -> ValidationExposures:
        return ValidationExposures(self)

    def videos(self) -> list[Video]:
        """The validation samples, as many frames long as each one's clip."""
        videos = []
        for index, key in enumerate(self.validation_keys()):
            name, i, frames, _, anomalous, mask = self._draw(*key)
            runs = anomalous_runs(self._frame_label(mask, anomalous))
            videos.append(Video(
                f"{index}-{name}-{self.sets[name].samples[i].name}".replace("/", "-"),
                n_frames=len(frames), fps=1.0, label=int(anomalous), anomalies=runs,
            ))  # fmt: skip
        return videos

    def _draw(self, epoch: int, index: int, is_clip: bool) -> tuple[str, int, list[int], list[str], bool, np.ndarray]:
        """Set, sample, frames, phrases, whether it is anomalous, and the mask (T, Y, X) of what makes it so."""
        generator = np.random.default_rng((self.seed, epoch, index))
        names, weights = zip(*self.weights[is_clip].items(), strict=True)
        name = str(generator.choice(names, p=np.array(weights) / sum(weights)))
        source, rows = self.sets[name], self.rows[name]
        most = self.max_categories if isinstance(self.max_categories, int) else self.max_categories.get(name, 30)
        for _ in range(REDRAWS):
            i = int(rows[generator.integers(len(rows))])
            frames = self._frames(len(source.samples[i].frames), generator) if is_clip else [0]
            masks = source.masks(i, frames)
            own = [str(generator.choice(list(masks)))] if masks else []
            others = source.others(i, 3 * most if self.even_count else most, generator)
            try:
                phrases, anomalous = expose(own, others, self.p, most, generator, source.phrases(i), self.even_count)
            except NoCandidate as error:
                reason = error
                continue
            mask = masks[own[0]] if anomalous else np.zeros((len(frames), *source.size(i)), bool)
            return name, i, frames, phrases, anomalous, mask
        raise ValueError(f"{name}: {REDRAWS} samples in a row could not be exposed; the last: {reason}") from reason

    def _frames(self, n_frames: int, generator: np.random.Generator) -> list[int]:
        start = int(generator.integers(max(1, n_frames - int(self.offsets[-1]))))
        return np.minimum(start + self.offsets, n_frames - 1).tolist()

    def _frame_label(self, mask: np.ndarray, anomalous: bool) -> np.ndarray:
        return mask.any(axis=(1, 2)) if self.frame_label == "mask" else np.full(len(mask), anomalous)

    def _clip(
        self, name: str, i: int, frames: list[int], phrases: list[str], anomalous: bool, mask: np.ndarray
    ) -> Clip:
        frame = torch.tensor([frames])
        return Clip(
            video=[f"{name}/{self.sets[name].samples[i].name}"],
            span=torch.tensor([[frames[0], frames[-1] + 1]]),
            frame={"video": frame},
            pixels={"video": torch.from_numpy(self.sets[name].pixels(i, frames))[None]},
            label=torch.tensor([int(anomalous)]),
            frame_label=torch.from_numpy(self._frame_label(mask, anomalous).astype(np.int64))[None],
            mask=torch.from_numpy(mask)[None],
            text=[", ".join(phrases)],
            phrases=[phrases],
        )


class ValidationExposures(Dataset[Clip]):
    """The samples that validation draws once: item i is named and numbered as video i of `Exposures.videos`."""

    def __init__(self, exposures: Exposures) -> None:
        self.exposures, self.keys, self.videos = exposures, exposures.validation_keys(), exposures.videos()

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> Clip:
        clip, video = self.exposures[self.keys[index]], self.videos[index]
        clip.video, clip.span = [video.name], torch.tensor([[0, video.n_frames]])
        clip.frame = {"video": torch.arange(video.n_frames)[None]}
        return clip


class ExposureBatches(Sampler[list[Key]]):
    """Keys of one epoch in batches, each of images or of clips; `size` counts all ranks, each takes its share."""

    def __init__(self, share_of_clips: float, n_samples: int, size: int, seed: int, rank: int, world: int) -> None:
        self.share = batch_share(size, rank, world)
        self.share_of_clips, self.n_samples, self.size, self.seed = share_of_clips, n_samples, size, seed
        self.epoch = 0

    @property
    def sampler(self) -> ExposureBatches:
        return self  # Lightning tells the epoch to batch_sampler.sampler

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self.n_samples / self.size)

    def __iter__(self) -> Iterator[list[Key]]:
        kinds = np.random.default_rng((self.seed, self.epoch)).random(len(self)) < self.share_of_clips
        for number, kind in enumerate(kinds):
            yield [(self.epoch, number * self.size + k, bool(kind)) for k in range(self.size)[self.share]]
