"""Clips of a stream as it comes in: each ends at the newest frame, and is handed out before the next frame counts."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from types import FrameType

import torch
from torch.utils.data import IterableDataset

from vigil.live import CausalWindows, LiveFrame, LiveFrames
from vigil.types import Clip, Video, View

ENDLESS = 2**31  # a loader without a length is read one batch ahead, and every score would wait for the next window


class FollowedClips(IterableDataset[Clip]):
    """Causal windows of a growing file or a stream, one Clip each, until it ends, falls silent or somebody stops it.

    Clip.frame looks back, to frames before its span; the last span may reach beyond the end by up to hop - 1 frames.
    At the end `video` is told its frames and rate. newest: the frame that the latest clip ends at. Ctrl-C and SIGTERM
    end the stream, a second one the process. Raises ValueError for a system of several streams, and as LiveFrames does.
    """

    def __init__(
        self,
        address: str,
        video: Video,
        views: Mapping[str, View],
        buffer_frames: int,
        stall_s: float,
        patience_s: float,
    ) -> None:
        if len(views) != 1:
            raise ValueError(f"this system watches {', '.join(views)}; a stream can be followed in one view only")
        ((self.stream, view),) = views.items()
        self.video, self.windows = video, CausalWindows(view)
        self.live = LiveFrames(
            address,
            buffer_frames=buffer_frames,
            stall_s=stall_s,
            idle_s=patience_s,
            give_up_s=patience_s,
            tell=lambda reason: print(
                f"{self.live.name}: {reason}; waited for up to {patience_s:g} s", file=sys.stderr
            ),
        )
        self.newest: LiveFrame | None = None
        self._told_to_stop = False

    def __len__(self) -> int:
        return ENDLESS

    def __iter__(self) -> Iterator[Clip]:
        before, threads = self._listen(), torch.get_num_threads()
        # a core is left to the decoder: OpenMP's threads wait for each other by spinning, and where they share a core
        # with it a window of a small encoder took 300 ms instead of 11
        torch.set_num_threads(max(1, min(threads, len(os.sched_getaffinity(0)) - 1)))
        try:
            for frame in self.live:
                window = self.windows.add(frame.pixels)
                self.video.fps = self.video.fps or self.live.fps
                if window is None:
                    continue
                self.newest = frame
                yield Clip(
                    video=[self.video.name],
                    span=torch.tensor([window.span]),
                    frame={self.stream: window.frame[None]},
                    pixels={self.stream: window.pixels[None]},
                    fps=torch.tensor([self.video.fps or float("nan")]),
                )
        finally:
            torch.set_num_threads(threads)
            self.live.close()
            self.video.n_frames = self.live.n_frames
            for number, handler in before.items():
                signal.signal(number, handler)

    def _listen(self) -> dict[int, object]:
        """Have the first signal end the stream; the handlers there were before."""
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}

    def _stop(self, number: int, _: FrameType | None) -> None:
        if self._told_to_stop:
            raise KeyboardInterrupt
        self._told_to_stop = True
        sys.stderr.write("\nThe stream ends here; what it gave is being written.\n")
        self.live.stop()
