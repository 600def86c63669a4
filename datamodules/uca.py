"""UCA, the captions of UCF-Crime: 23,542 described events of 1,854 videos; Yuan et al., CVPR 2024."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import Dataset
from torchmetrics import Metric

from datamodules.clips import Part
from datamodules.demo import write_ucf_crime
from datamodules.events import Event, EventDataset
from datamodules.video_data import VideoDataModule
from vigil import annotations
from vigil.class_metrics import TopK
from vigil.doctor import CAPTION_SLACK_S
from vigil.types import Clip, Video
from vigil.uca_keywords import matches


class Uca(VideoDataModule):
    """Events of UCF-Crime's videos and a sentence for each, in UCA's own splits; an item is a (segment, sentence).

    release: current (23,542 events) or 2023 (20,822, with irregular entries). text: original, or neutral of gender.
    kind: json or txt, where both are there. Of 2023 the JSON gives six events of Arrest008 to Arrest009, where they lie
    beyond the end; the TXT has them right, no durations and 14 broken lines. The neutral text is TXT alone.
    irregular: what becomes of an entry that is damaged or ends beyond its video: refuse, keep (clipped to the video) or
    leave_out; how many there were is printed, `lightning check` names each. missing: as in UcfCrime.
    task: captions, every event of the test split; or probe, the closed-set question which of the 13 classes a segment
    shows, asked of events whose sentence holds a word of their class. words: which list of words (vigil.uca_keywords).
    population: the videos that the probe asks about, uca_test or ucf_test (UCF-Crime's test set, 214 of whose videos
    UCA trains on). per_video: all matching events, or one, the first. The same question, asked of events of UCA's
    validation split, calibrates the probe's likelihoods; of videos that the test asks about none is taken.
    sbert: the Sentence-BERT model that captions are judged by, a name or a folder.
    """

    family = "UCF-Crime"
    fps = 30.0
    monitor = None
    splits = ("train", "val", "test")
    scores_frames = False

    def __init__(
        self,
        root: str,
        demo: bool = False,
        limit_videos: int | None = None,
        seed: int = 0,
        num_workers: int = 2,
        release: Literal["current", "2023"] = "current",
        text: Literal["original", "neutral"] = "original",
        kind: Literal["json", "txt"] = "json",
        irregular: Literal["refuse", "keep", "leave_out"] = "refuse",
        task: Literal["captions", "probe"] = "captions",
        words: Literal["narrow", "recommended", "broad"] = "narrow",
        population: Literal["uca_test", "ucf_test"] = "uca_test",
        per_video: Literal["all", "one"] = "all",
        missing: Literal["refuse", "leave_out"] = "refuse",
        sbert: str = "all-MiniLM-L6-v2",
    ) -> None:
        super().__init__(root, demo, limit_videos, seed, num_workers, missing)
        if release == "2023" and text == "neutral":
            raise ValueError("the 2023 release of UCA has no gender-neutral text; take release: current")
        self.release, self.text, self.kind, self.irregular = release, text, kind, irregular
        self.task, self.words, self.population, self.per_video = task, words, population, per_video
        self.sbert = sbert
        self.main_metric = {"captions": "caption_sbert", "probe": "top1"}[task]
        self.calibration_split = "calibration" if task == "probe" else None
        self._sampled: dict[str, list[Event]] = {}

    @property
    def categories(self) -> list[str]:
        return list(annotations.UCF_CRIME_CATEGORIES)

    @property
    def protocol(self) -> dict[str, Any]:
        chosen = {
            "release": self.release,
            "text": self.text,
            "kind": self.kind,
            "irregular": self.irregular,
            "task": self.task,
        }
        if self.task == "probe":
            asked = {"words": self.words, "population": self.population, "per_video": self.per_video}
        else:
            asked = {"sbert": Path(self.sbert).name}
        return super().protocol | chosen | asked

    def render(self) -> None:
        write_ucf_crime(self.root)

    def annotated(self, split: str) -> list[Video]:
        # of irregular entries the name is as good as any; `events` refuses or leaves them out
        names = dict.fromkeys(event.video for event in self._asked_events(split, "keep"))
        category = {name: annotations.ucf_crime_category(name) for name in names}
        return [Video(name, label=int(category[name] != "Normal"), category=category[name]) for name in names]

    def faults(self, decode: bool, progress: Callable[[int, int, str], None]) -> list[str]:
        """Irregular entries, and events that end after their video's last frame by more than times are rounded."""
        found = []
        for split in self.splits:
            try:
                videos, events = self.located(split), self._events(split, "keep")
            except (ValueError, OSError):
                continue  # the check names a split that cannot be read before it asks here
            file = self.find_file(*self._names(split)).name
            length_s = {}
            for done, video in enumerate(videos, 1):
                length_s[video.name] = self._length_s(video)
                progress(done, len(videos), video.name)
            for event in events:
                ends, wrong = length_s.get(event.video, math.inf), event.irregular
                if event.end_s > ends + CAPTION_SLACK_S:
                    wrong = wrong or f"{event.start_s}-{event.end_s} s, the video's last frame ends at {ends:.1f} s"
                found += [f"{file}, {event.place}: {wrong}"] if wrong else []
        return found

    def _length_s(self, video: Video) -> float:
        """Seconds that a video lasts by its frames, infinite where it is not there or cannot be read."""
        try:
            measured = self._measure(video)
        except (ValueError, OSError):
            return math.inf  # said of its file
        assert measured.n_frames is not None
        assert measured.fps is not None
        return measured.n_frames / measured.fps

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        if split != "test":
            return {}
        events = self.sampled("test")
        asked = {event.video.name: event.video for event in events}  # no event of a video may be left
        # two sentences may describe one stretch, and a metric drops what comes twice unless it is told
        if self.task == "probe":
            stretches = Counter((event.video.name, event.first, event.end) for event in events)
            return {"top": TopK(list(asked.values()), self.categories, stretches)}
        from vigil.caption_metrics import CaptionSimilarity

        samples = Counter((event.video.name, event.first, event.end, event.sentence or "") for event in events)
        return {"captions": CaptionSimilarity(list(asked.values()), samples, self.sbert)}

    def known(self, split: str) -> list[Video]:
        """As of every dataset; of the split "calibration" also none, which is said."""
        if split != self.calibration_split or split in self._known:
            return super().known(split)
        located = self.located(split)
        if not located or (self.missing == "leave_out" and not any(video.path for video in located)):
            lack = f"{len(located)} videos, none of which is there" if located else "no event that the probe asks about"
            rank_zero_info(f"UCA's validation split has {lack}: no temperature is fitted.")
            self._known[split] = []
        return super().known(split)

    def sampled(self, split: str) -> list[Event]:
        """The events of a split, as `events` gives them for its known videos; found once."""
        if split not in self._sampled:
            self._sampled[split] = self.events(split, self.known(split))
        return self._sampled[split]

    def parts(self, videos: Sequence[Video]) -> list[Part]:
        """The events of videos, each stretch once however many sentences describe it."""
        asked = {video.name for video in videos}
        found = {
            (event.video.name, event.first, event.end): event
            for split in self._known
            for event in self.sampled(split)
            if event.video.name in asked
        }
        return [found[key] for key in sorted(found)]

    def events(self, split: str, videos: Sequence[Video] | None = None) -> list[Event]:
        """The (segment, sentence) samples of a split, in the videos' order and by time, clipped to each video's frames.

        An event that starts beyond its video's end shows nothing: ValueError where irregular is refuse, else left out.
        """
        known = {video.name: video for video in (self.known(split) if videos is None else videos)}
        found, beyond = [], []
        asked = self._asked_events(split, self.irregular)
        for event in asked:
            if event.video not in known:
                continue  # limit_videos, or left out as asked
            video = known[event.video]
            assert video.n_frames is not None  # known() measured it
            frames = annotations.caption_frames(event, video.fps or self.fps, video.n_frames)
            if frames is None:
                beyond.append(f"{event.video}, {event.place}: starts at {event.start_s} s, beyond the video's end")
            else:
                found.append(Event(video, *frames, event.sentence))
        if beyond and self.irregular == "refuse":
            raise ValueError(
                f"{len(beyond)} events of UCA show nothing: {'; '.join(beyond[:10])}; get these videos again, or set "
                "data.init_args.irregular: leave_out"
            )
        self._say_irregular(split, len(beyond))
        order = {name: index for index, name in enumerate(known)}
        found.sort(key=lambda event: (order[event.video.name], event.first, event.end))
        return found

    def setup(self, stage: str) -> None:
        """Refuse a system that cannot watch events, or judge, before a frozen backbone reads hours of video."""
        if stage == "fit":
            self._refuse_pairs()
        if stage == "test" and self.task == "captions":
            from vigil.caption_metrics import find_sbert

            find_sbert(self.sbert)
        EventDataset([], self._watcher.fit_views if stage == "fit" else self._watcher.test_views)

    def fit_dataset(self, videos: Sequence[Video]) -> Dataset[Clip]:
        self._refuse_pairs()
        return EventDataset(self._sampled_of(videos), self._watcher.fit_views, self.stores)

    def scoring_dataset(self, videos: Sequence[Video]) -> Dataset[Clip]:
        return EventDataset(self._sampled_of(videos), self._watcher.test_views, self.stores)

    def _sampled_of(self, videos: Sequence[Video]) -> list[Event]:
        return self.sampled(next(split for split, known in self._known.items() if known is videos))

    def _refuse_pairs(self) -> None:
        if self._watcher.balanced:
            raise ValueError("this system pairs anomalous with normal videos, UCA gives events; fit on UcfCrime")

    def _say_irregular(self, split: str, n_beyond: int) -> None:
        if self.irregular == "refuse":
            return  # there are none
        n_irregular = sum(event.irregular is not None for event in self._asked_events(split, "keep"))
        become = "kept, clipped to the video" if self.irregular == "keep" else "left out"
        if n_irregular or n_beyond:
            rank_zero_info(
                f"UCA, {split}: {n_irregular} irregular entries, {become}; {n_beyond} events that start beyond their "
                "video's end, left out. `lightning check` names them."
            )

    def _asked_events(self, split: str, irregular: str) -> list[annotations.UcaEvent]:
        if self.task != "probe" or split in ("train", "val"):
            return self._events(split, irregular)
        events = self._candidates(split, irregular)
        category = {event.video: annotations.ucf_crime_category(event.video) or "" for event in events}
        asked = [
            event
            for event in sorted(events, key=lambda event: (event.video, event.start_s, event.end_s))
            if category[event.video] in self.categories and matches(event.sentence, category[event.video], self.words)
        ]
        return (
            list({event.video: event for event in reversed(asked)}.values())[::-1] if self.per_video == "one" else asked
        )

    def _candidates(self, split: str, irregular: str) -> list[annotations.UcaEvent]:
        """The events that the probe may ask about, whatever their sentence says."""
        if split == "calibration":
            tested = {event.video for event in self._asked_events("test", "keep")}
            return [event for event in self._events("val", irregular) if event.video not in tested]
        if self.population == "uca_test":
            return self._events(split, irregular)
        tested = {video.name for video in annotations.ucf_crime(self.find_file("Anomaly_Test.txt"))}
        return [event for part in self.splits for event in self._events(part, irregular) if event.video in tested]

    def _events(self, split: str, irregular: str) -> list[annotations.UcaEvent]:
        return annotations.uca_events(self.find_file(*self._names(split)), irregular)

    def _names(self, split: str) -> list[str]:
        part = {"train": "Train", "val": "Val"}.get(split, "Test")
        if self.text == "neutral":
            return [f"mask_UCFCrime_{part}.txt{end}" for end in ("", ".gz")]
        kinds = [self.kind, {"json": "txt", "txt": "json"}[self.kind]]
        name = f"UCFCrime_{part.lower() if self.release == '2023' else part}"
        return [f"{name}.{kind}{end}" for kind in kinds for end in ("", ".gz")]
