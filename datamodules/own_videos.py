"""Any videos of one's own, without annotation: files, folders and patterns, or a stream that is still coming in."""

from __future__ import annotations

import glob
import math
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_info
from torch.utils.data import DataLoader
from torchmetrics import Metric

from datamodules.following import FollowedClips
from datamodules.video_data import SUFFIXES, VideoDataModule
from vigil.types import Video
from vigil.video import IMAGE_SUFFIXES


class OwnVideos(VideoDataModule):
    """Videos to score, not to judge: for `lightning predict`.

    videos: one or more files of any container, folders (searched through; a folder of images is one video) or patterns
    such as "clips/*.mp4". missing: refuse a file that cannot be read, or leave_out those. fps: frames per second of
    videos that do not tell theirs, which are the folders of images; without it they have none.
    follow: instead of videos, a growing file, tcp://host:port or http(s)://… that is scored as it comes in, causally:
    no frame later than the one it stands for changes a score. It ends when the source ends, has been silent for
    `patience_s`, or at Ctrl-C. buffer_frames: decoded frames that may wait; a source that is read more slowly waits.
    stall_s: silence after which the connection is made anew.
    """

    monitor = None
    splits = ("predict",)
    main_metric = ""

    def __init__(
        self,
        videos: str | list[str] = [],  # noqa: B006 - never changed; a command line cannot give a tuple
        follow: str | None = None,
        limit_videos: int | None = None,
        num_workers: int = 2,
        missing: Literal["refuse", "leave_out"] = "refuse",
        buffer_frames: int = 64,
        stall_s: float = 10.0,
        patience_s: float = 60.0,
        fps: float | None = None,
    ) -> None:
        super().__init__(".", False, limit_videos, 0, num_workers, missing)
        if fps is not None and not 0 < fps < math.inf:
            raise ValueError(f"fps {fps:g}: frames per second, more than 0, are expected")
        self.fps = fps
        self.given = [videos] if isinstance(videos, str) else list(videos)
        if bool(self.given) == bool(follow):
            raise ValueError("give --data.videos FILE, or --data.follow ADDRESS for a stream, and not both")
        self.follow = follow
        self.waiting = {"buffer_frames": buffer_frames, "stall_s": stall_s, "patience_s": patience_s}

    @property
    def categories(self) -> list[str]:
        return []

    @property
    def protocol(self) -> dict[str, Any]:
        causal = {"causal": True, "future_frames": 0} if self.follow else {}
        return super().protocol | causal

    def metrics(self, split: str = "predict") -> dict[str, Metric]:
        return {}

    def located(self, split: str) -> list[Video]:
        if split != "predict":
            raise ValueError(f"own videos carry no annotation to {split} with; use `lightning predict`")
        if self.follow:
            return [Video("stream")]
        paths = self._paths()
        count = Counter(path.stem if path.is_file() else path.name for path in paths)
        names = [path.name if path.is_dir() or count[path.stem] > 1 else path.stem for path in paths]
        again = Counter(names)
        names = [
            name if again[name] == 1 else f"{path.parent.name}-{name}" for name, path in zip(names, paths, strict=True)
        ]
        twice = [name for name, times in Counter(names).items() if times > 1]
        if twice:
            raise ValueError(f"several videos are called {twice[0]}; name them apart, or give them one after the other")
        return [Video(name, path) for name, path in zip(names, paths, strict=True)]

    def known(self, split: str) -> list[Video]:
        if self.follow and split == "predict":
            return self._known.setdefault(split, self.located(split))
        return super().known(split)

    def setup(self, stage: str) -> None:
        """As of every dataset; a stream refuses a system that describes events, for it never has one as a whole."""
        super().setup(stage)
        if self.follow and self._watcher.event_s is not None:
            name = type(self._watcher).__name__
            raise ValueError(
                f"{name} describes stretches of {self._watcher.event_s:g} s that are there as a whole, a stream is "
                "scored frame by frame; give --data.videos, or a system that watches windows"
            )

    def predict_dataloader(self) -> DataLoader:
        if self.follow is None:
            return super().predict_dataloader()
        if self.trainer is not None and self.trainer.world_size > 1:
            raise ValueError(f"a stream is followed by one process, not {self.trainer.world_size}; set devices: 1")
        self.followed = FollowedClips(self.follow, self.known("predict")[0], self._watcher.test_views, **self.waiting)
        return DataLoader(self.followed, batch_size=None, num_workers=0)

    @property
    def causal(self) -> bool:
        return self.follow is not None

    @property
    def overhang(self) -> int:
        return self.followed.windows.hop - 1 if self.follow else 0

    def _limit(self, videos: list[Video]) -> list[Video]:
        kept, wrong = [], []
        for video in super()._limit(videos):
            try:
                kept.append(self._measure(video))
            except (ValueError, OSError) as error:
                wrong.append(str(error))
        if wrong and (self.missing == "refuse" or not kept):
            raise ValueError(
                f"{len(wrong)} of {len(wrong) + len(kept)} videos cannot be read: {'; '.join(wrong[:10])}; take them "
                "out, or set data.init_args.missing: leave_out"
            )
        for reason in wrong:
            rank_zero_info(f"left out, as asked: {reason}")
        return kept

    def _paths(self) -> list[Path]:
        found: dict[Path, None] = {}
        for given in self.given:
            path = self.root / given
            if path.is_dir():
                inside = videos_below(path)
            elif path.exists():
                inside = [path]
            else:
                inside = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
            if not inside:
                raise FileNotFoundError(f"{path}: no such video, nor a folder or pattern that holds any")
            found |= dict.fromkeys(inside)
        return list(found)


def videos_below(folder: Path) -> list[Path]:
    """The video files below a folder, and the folders of images among it; in order of name."""
    files = [file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")]
    videos = [file for file in files if file.suffix.lower() in SUFFIXES]
    images = {file.parent for file in files if file.suffix.lower() in IMAGE_SUFFIXES}
    return sorted([*videos, *(images - {file.parent for file in videos})])  # a picture among videos is a thumbnail
