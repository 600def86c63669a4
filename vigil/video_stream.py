"""Frames of a byte stream as its bytes come, and how many were lost: beside video.py the only place of av."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import av
import numpy as np
import torch
from av.codec.context import ThreadType
from av.stream import Disposition
from av.video.stream import VideoStream
from torch import Tensor

from vigil.video import COUNTED_BY_PACKETS, MAX_PIXELS, upright

# analyzeduration, in µs: FFmpeg holds the first frame until it has looked at so much: the default is 22 frames at 30
# per second, this is 5 and tells the rate all the same (nobuffer would lose those looked at). No format that names
# other addresses or files, and no protocol to open them with.
STREAM_OPTIONS = {
    "analyzeduration": "1",
    "format_whitelist": "mpegts,matroska,mov,flv,mpeg,h264,hevc",
    "protocol_whitelist": "none",
}
MAX_DELAYED = 64  # packets a decoder may hold before it shows the first; H.264 and HEVC hold 16 at most


class StreamFrame(NamedTuple):
    """A frame of a byte stream: uint8 (C, Y, X), RGB, as shown.

    seconds: its presentation time on the stream's own clock, None where the stream carries none. arrival: when the
    first bytes of its packet came (time.monotonic()).
    """

    pixels: Tensor
    seconds: float | None
    arrival: float


class ByteSource(Protocol):
    def read(self, size: int, /) -> bytes:
        """Some bytes, at most `size`, as soon as there are any; none at the end."""


class StreamDecoder:
    """The frames of a byte source that cannot be sought in, in the order shown, decoded as the bytes come.

    lost: pictures that came damaged or not at all, those before a stream's first keyframe among them; they are passed
    over. It is final when the iteration is. Formats without packets of one picture each (MPEG-4, VP8) and without
    timestamps tell only of those that fail to decode. after_loss: frames handed out between a lost one and the next
    keyframe; they may show traces of it. broken: why the data could not be read to the end, None where they could.
    """

    def __init__(self, source: ByteSource, name: str, max_pixels: int = MAX_PIXELS) -> None:
        self.name, self.max_pixels = name, max_pixels
        self.lost = self.after_loss = 0
        self.broken: str | None = None
        self._source = _TimedSource(source)
        self._arrival: dict[tuple[int, int], float] = {}  # of packets that gave no frame yet, by restart and pts
        self._restarts = 0  # how often the stream's clock jumped back: a recording sent in a loop, or 26 h of MPEG-TS
        self._dts: int | None = None
        self._steps_s: deque[float] = deque(maxlen=32)
        self._flagged = self._unsure = False
        try:
            self._container = av.open(self._source, "r", options=STREAM_OPTIONS)
        except av.FFmpegError as error:
            raise ValueError(
                f"{name}: not a video stream that FFmpeg opens ({error.strerror}); MPEG-TS, Matroska, FLV or "
                "fragmented MP4 is expected (a plain MP4 can be read only once its index stands in front)"
            ) from error
        videos = self._container.streams.video
        streams = [s for s in videos if s.codec_context is not None and not s.disposition & Disposition.attached_pic]
        if not streams:
            found = ", ".join(stream.type for stream in self._container.streams)
            self._container.close()
            raise ValueError(f"{name}: no video stream that decodes here, only {found or 'nothing'}; send H.264 video")
        self._stream = streams[0]
        context = self._stream.codec_context
        # as in _walk of video.py; frame threads would also wait
        context.thread_type, context.thread_count = ThreadType.NONE, 1

    @property
    def fps(self) -> float | None:
        """Frames per second as the stream says, else as its packets follow each other; None until that is known."""
        if self._stream.average_rate:
            return float(self._stream.average_rate)
        return 1 / statistics.median(self._steps_s) if len(self._steps_s) > 2 else None

    def __iter__(self) -> Iterator[StreamFrame]:
        with self._container:
            for packet in itertools.chain(self._packets(), [None]):
                if packet is not None:
                    self._expect(packet)
                try:
                    frames = self._stream.codec_context.decode(packet)
                except av.FFmpegError:
                    frames = []
                    self._unsure = True
                    if packet is not None and (packet.pts is None or not self._counted):
                        self.lost += 1  # else it is missed when a later frame is shown
                for frame in frames:
                    arrival = self._settle(frame)
                    if arrival is not None:
                        image = np.ascontiguousarray(upright(frame).transpose(2, 0, 1))
                        base = self._stream.time_base  # a frame that comes out at the end has none of its own
                        seconds = float(frame.pts * base) if frame.pts is not None and base is not None else None
                        yield StreamFrame(torch.from_numpy(image), seconds, arrival)
            self._lose(list(self._arrival))

    def close(self) -> None:
        """Lets go of the decoder; a finished iteration has done so."""
        self._container.close()

    @property
    def _counted(self) -> bool:
        return self._stream.codec_context.name in COUNTED_BY_PACKETS

    def _packets(self) -> Iterator[av.Packet[VideoStream]]:
        """Those that carry data; damage that the container's reader stumbles over is jumped, up to 8 times in a row."""
        for _ in range(8):
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:
                        self.broken = None
                        yield packet
                return
            except av.FFmpegError as error:
                self.broken, self._unsure, self._flagged = error.strerror, True, True

    def _expect(self, packet: av.Packet[VideoStream]) -> None:
        """Notes when a packet came, and how many before it did not."""
        if packet.dts is not None:
            step_s = float((packet.dts - self._dts) * packet.time_base) if self._dts is not None else 0.0
            # a jump in time alone may be a camera's varying rate; after a mark of damage it is what went missing
            if self._flagged and self.fps and (missing := round(step_s * self.fps) - 1) > 0:
                self.lost += missing
                self._flagged, self._unsure = False, True
            self._restarts += step_s < 0
            if step_s > 0:
                self._steps_s.append(step_s)
            self._dts = packet.dts
        self._flagged = self._flagged or packet.is_corrupt
        if packet.pts is not None:
            self._arrival[self._restarts, packet.pts] = self._source.arrival(packet.pos)
        if len(self._arrival) > MAX_DELAYED:
            self._lose([next(iter(self._arrival))])

    def _settle(self, frame: av.VideoFrame) -> float | None:
        """When the frame's packet came; None for a frame that is not fit to be shown."""
        if frame.width * frame.height > self.max_pixels:
            raise ValueError(
                f"{self.name}: frames of {frame.width}x{frame.height}, max_pixels={self.max_pixels}; scale the video "
                "down or raise it"
            )
        arrival = self._source.arrival(None)
        own = next((key for key in self._arrival if key[1] == frame.pts), None)
        if own is not None:
            arrival = self._arrival.pop(own)
            self._lose([key for key in self._arrival if key < own])
        if frame.is_corrupt:  # the decoder made some of it up
            self.lost += 1
            self._unsure = True
            return None
        self._unsure = self._unsure and not frame.key_frame
        self.after_loss += self._unsure
        return arrival

    def _lose(self, late: list[tuple[int, int]]) -> None:
        """Gives up these packets: later ones are shown already."""
        for key in late:
            del self._arrival[key]
        if late and self._counted:
            self.lost += len(late)
            self._unsure = True


class _TimedSource:
    """A byte source that remembers when its bytes came."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self._position = source, 0
        self._reads: deque[tuple[int, float]] = deque([(0, time.monotonic())], maxlen=4096)

    def read(self, size: int) -> bytes:
        data = self._source.read(size)
        self._reads.append((self._position, time.monotonic()))
        self._position += len(data)
        return data

    def arrival(self, position: int | None) -> float:
        """When the byte at `position` came; positions are asked for in ascending order, None means the last byte."""
        if position is None or position < 0:
            return self._reads[-1][1]
        while len(self._reads) > 1 and self._reads[1][0] <= position:
            self._reads.popleft()
        return self._reads[0][1]


def decode_stream(source: ByteSource, name: str, max_pixels: int = MAX_PIXELS) -> StreamDecoder:
    """The frames of MPEG-TS, Matroska, FLV, fragmented or index-first MP4 as their bytes come, and what was lost.

    Waits for the first bytes, which tell what it is. One thread; no frame is held back longer than the format makes
    it (MPEG-TS: until two more frames came, as a picture's end shows only then; B frames: their reordering beyond).
    Raises ValueError naming the source for what is no video stream, now, and for frames beyond max_pixels, later.
    """
    return StreamDecoder(source, name, max_pixels)
