"""Frames of a growing file or of a TCP or HTTP stream as they come, and windows of them that never look ahead."""

from __future__ import annotations

import contextlib
import http.client
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from vigil.sources import SLICE_S, Ending, Source, in_words, open_source, without_password
from vigil.types import View
from vigil.video import MAX_PIXELS
from vigil.video_stream import StreamDecoder, StreamFrame, decode_stream

MAX_PAUSE_S = 10.0  # between two attempts to connect


class LiveFrame(NamedTuple):
    """A frame of a live source: its number from 0, when it came (time.monotonic()), pixels uint8 (C, Y, X).

    seconds: its presentation time on the stream's own clock, None where the stream carries none.
    """

    number: int
    arrival: float
    pixels: Tensor
    seconds: float | None


class Gap(NamedTuple):
    """An interruption before frame number `frame`, or at the end: seconds between arrivals on both sides, and why."""

    frame: int
    seconds: float
    reason: str


class LiveFrames:
    """Iterates the frames of a growing file or a stream, once, while a thread of its own reads and decodes ahead.

    buffer_frames: decoded frames that wait at most; when they do, the thread waits and so does the sender: nothing is
    dropped here. stall_s, idle_s: as for open_source. give_up_s: a source that was dropped is tried again after
    first_pause_s, then after pauses twice as long each, and so is one not there yet; the end has come when no frame
    has for give_up_s. Frames are numbered on after a reconnection; a stream joined midway begins at its next keyframe,
    and an HTTP answer of known length starts over without the frames that were had already.
    Ends without an error when the source does, or when it does not come back: `gaps` holds every interruption, that
    last one too. While iterated, raises ValueError for what is no video at all, for a source that never gives a
    frame, for frames of another size than the first, and what open_source raises for an address that cannot be right.
    tell: called with the reason of every interruption, from the reading thread, as it happens.
    After the end: lost and after_loss as of StreamDecoder, largest_fill of the buffer. fps: None before the first
    frame, and where the stream does not say.
    """

    def __init__(
        self,
        address: str | Path,
        *,
        buffer_frames: int = 32,
        stall_s: float = 10.0,
        idle_s: float = 10.0,
        give_up_s: float = 60.0,
        first_pause_s: float = 0.1,
        max_pixels: int = MAX_PIXELS,
        tell: Callable[[str], None] = lambda reason: None,
    ) -> None:
        if buffer_frames < 1 or not min(stall_s, idle_s, give_up_s, first_pause_s) > 0:
            raise ValueError(
                f"{buffer_frames=} {stall_s=} {idle_s=} {give_up_s=} {first_pause_s=}: at least one frame and times "
                "above 0 are expected"
            )
        self.address, self.name = address, without_password(address)
        self.stall_s, self.idle_s, self.give_up_s, self.first_pause_s = stall_s, idle_s, give_up_s, first_pause_s
        self.max_pixels, self.tell = max_pixels, tell
        self.n_frames = self.lost = self.after_loss = self.largest_fill = 0
        self.fps: float | None = None
        self.gaps: list[Gap] = []
        # a SimpleQueue may be filled by a signal handler while the same thread waits at it; a Queue would lock up
        self._buffer: SimpleQueue[LiveFrame | Exception | None] = SimpleQueue()
        self._space = threading.Semaphore(buffer_frames)
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._shape: torch.Size | None = None
        self._interruption: list[str] = []  # what went wrong since the last frame, each once
        self._last_arrival = self._last_sign = time.monotonic()

    def __iter__(self) -> Iterator[LiveFrame]:
        if self._thread is not None:
            raise ValueError(f"{self.name}: its frames were iterated already; a stream passes once")
        self._thread = threading.Thread(target=self._run, name=f"live {self.name}", daemon=True)
        self._last_arrival = self._last_sign = time.monotonic()
        self._thread.start()
        try:
            while (item := self._buffer.get()) is not None and not self._stopped:
                if isinstance(item, Exception):
                    raise item
                self._space.release()
                yield item
        finally:
            self.close()

    def stop(self) -> None:
        """Ends the iteration at once, without the frames that wait; from any thread or signal handler."""
        self._stopped = True
        self._buffer.put(None)

    def close(self) -> None:
        """Stops, and waits for the thread to be gone; the end of an iteration does so by itself."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def __enter__(self) -> LiveFrames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # of the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._receive()
        except Exception as error:  # it is raised where the frames are iterated
            self._buffer.put(error)
        self._buffer.put(None)

    def _receive(self) -> None:
        pause = self.first_pause_s
        while True:
            before = self.n_frames
            ending = self._connect()
            if ending.dropped and ending.reason not in self._interruption:
                self._interruption.append(ending.reason)
                self.tell(ending.reason)
            if self.n_frames > before:
                pause, self._last_sign = self.first_pause_s, time.monotonic()
            left = self._last_sign + self.give_up_s - time.monotonic()
            if self._stopped or not ending.dropped or left <= 0:
                break
            self._sleep(min(pause, left))
            pause = min(2 * pause, MAX_PAUSE_S)
        if self._stopped:
            return
        if not self.n_frames:
            reason = ", then ".join(self._interruption or [ending.reason])
            raise ValueError(f"{self.name}: no frame came ({reason}); check it, or raise give_up_s")
        if self._interruption:
            self._note_gap(time.monotonic())

    def _connect(self) -> Ending:
        """Hands over the frames of one connection; why it ended."""
        try:
            source = open_source(self.address, stall_s=self.stall_s, idle_s=self.idle_s, halt=self._halt)
        except (FileNotFoundError, ValueError) as error:
            if not self.n_frames:
                raise
            return Ending(True, str(error))
        except (OSError, http.client.HTTPException) as error:
            return Ending(True, in_words(error))
        with contextlib.closing(source):
            try:
                decoder = decode_stream(source, self.name, self.max_pixels)
            except ValueError as error:
                if source.over is not None and source.over.dropped:  # before it could be told what it is
                    return source.over
                if not self.n_frames:
                    raise
                return Ending(True, str(error))
            with contextlib.closing(decoder):
                return self._hand_over(source, decoder)

    def _hand_over(self, source: Source, decoder: StreamDecoder) -> Ending:
        replayed = self.n_frames if source.recording else 0
        lost, after_loss = (0, 0) if source.recording else (self.lost, self.after_loss)
        for number, frame in enumerate(decoder):
            if source.recording and source.over is not None and source.over.dropped:
                return source.over  # what the decoder still holds comes again, in full
            self.lost, self.after_loss = lost + decoder.lost, after_loss + decoder.after_loss
            self.fps = decoder.fps
            if number >= replayed and not self._put(frame):
                return Ending(False, "stopped")
        self.lost, self.after_loss = lost + decoder.lost, after_loss + decoder.after_loss
        ending = source.over or Ending(True, "its data break off")
        if decoder.broken and not ending.dropped:
            self._interruption.append(f"damaged: {decoder.broken}")
        return ending

    def _put(self, frame: StreamFrame) -> bool:
        """Puts a frame into the buffer as soon as there is room; False when stopped before."""
        shape = frame.pixels.shape
        self._shape = self._shape or shape
        if shape != self._shape:
            raise ValueError(
                f"{self.name}: frame {self.n_frames} is {shape[2]}x{shape[1]}, those before are {self._shape[2]}x"
                f"{self._shape[1]}; one size is expected, so start again for the new one"
            )
        while not self._space.acquire(timeout=SLICE_S):
            if self._stopped:
                return False
        if self._interruption:
            self._note_gap(frame.arrival)
        self._last_arrival = max(self._last_arrival, frame.arrival)  # B frames are shown before what came earlier
        self._buffer.put(LiveFrame(self.n_frames, frame.arrival, frame.pixels, frame.seconds))
        self.n_frames += 1
        self.largest_fill = max(self.largest_fill, self._buffer.qsize())
        self._last_sign = time.monotonic()
        return not self._stopped

    def _note_gap(self, now: float) -> None:
        self.gaps.append(Gap(self.n_frames, now - self._last_arrival, ", then ".join(self._interruption)))
        self._interruption = []

    def _halt(self) -> str | None:
        if self._stopped:
            return "stopped"
        waited = time.monotonic() - self._last_sign
        # at a file's end idle_s decides
        if waited > self.give_up_s and "://" in str(self.address):
            return f"no frame for {waited:.1f} s"
        return None

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLICE_S))


class CausalWindow(NamedTuple):
    """A window that ends at the frame it came with: pixels uint8 (T, C, Y, X), frame int64 (T,) ascending.

    span (first, end): the frames it answers for, from its last frame on until the next window.
    """

    pixels: Tensor
    frame: Tensor
    span: tuple[int, int]


class CausalWindows:
    """Windows of frames that are added one after the other; none holds a frame later than the first it answers for.

    At every `hop`th frame, from frame 0 on: a window of the view that ends there; its frames before frame 0 are frame 0
    held. Only frames that a window can still need are kept, (frames - 1) * stride + 1 at most.
    Differs from View.indices, whose windows begin at the first frame they answer for. Raises ValueError for a bag.
    """

    def __init__(self, view: View) -> None:
        if view.stride is None or view.hop is None:
            raise ValueError(f"{view}: a bag needs the whole video; give a view of windows (frames, stride, hop)")
        self.hop = view.hop
        self.back = view.offsets[-1] - view.offsets
        self.step = math.gcd(view.hop, *self.back.tolist())  # frames in between are never sampled
        self.n_frames = 0
        self._kept: deque[tuple[int, Tensor]] = deque(maxlen=int(self.back[0]) // self.step + 1)

    def add(self, pixels: Tensor) -> CausalWindow | None:
        """Takes the next frame, uint8 (C, Y, X); the window that ends at it, if one does."""
        now = self.n_frames
        self.n_frames += 1
        if now % self.step == 0:
            self._kept.append((now, pixels))
        if now % self.hop:
            return None
        frame = np.maximum(now - self.back, 0)
        kept = dict(self._kept)
        rows = torch.stack([kept[number] for number in frame.tolist()])
        return CausalWindow(rows, torch.from_numpy(frame), (now, now + self.hop))

    def cut(self, span: tuple[int, int]) -> tuple[int, int]:
        """A span without frames that have not come: once the stream is over, how far the last window answers."""
        return span[0], min(span[1], self.n_frames)


class Delays:
    """Mean, 95th percentile and maximum of any number of delays, in the memory of 2,400 counters."""

    SHORTEST_S, GROWTH, BINS = 1e-5, 1.01, 2400  # bins 1 % wide, up to 65 hours

    def __init__(self) -> None:
        self.count, self.total_s, self.largest_s = 0, 0.0, 0.0
        self._bins = np.zeros(self.BINS, np.int64)

    def add(self, seconds: float) -> None:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a delay of {seconds} s; 0 or more is expected, so take both times from one clock")
        self.count += 1
        self.total_s += seconds
        self.largest_s = max(self.largest_s, seconds)
        place = math.ceil(math.log(max(seconds / self.SHORTEST_S, 1)) / math.log(self.GROWTH))
        self._bins[min(place, self.BINS - 1)] += 1

    def summary(self) -> dict[str, float]:
        """count, mean_s, p95_s and largest_s; count alone where nothing was added.

        p95_s: the smallest delay that 95 % do not exceed, at most 1 % (and 10 µs) too large.
        """
        if not self.count:
            return {"count": 0}
        place = int(np.searchsorted(np.cumsum(self._bins), 0.95 * self.count))
        p95_s = min(self.SHORTEST_S * self.GROWTH**place, self.largest_s)
        mean_s = self.total_s / self.count
        return {"count": self.count, "mean_s": mean_s, "p95_s": p95_s, "largest_s": self.largest_s}
