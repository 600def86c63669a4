"""Reads given frames of a video file or image folder, probes, writes: beside video_stream.py the only place of av."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import torch
from av.codec.context import ThreadType
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import PictureType
from av.video.stream import VideoStream
from PIL import Image, ImageOps
from torch import Tensor

MAX_PIXELS = 7680 * 4320  # 8K: beyond it a broken header is likelier than a camera
MAX_FRAMES = 16_384  # 3.8 GB of 320x240 frames in one tensor
SKIP = 4  # packets worth emptying the decoder for; fewer are decoded for nothing
SEEK = 64  # packets worth a seek of the container; fewer are read and dropped, at some 7 µs each
END = 2**62  # beyond every position and timestamp
SEEKS_BY_TABLE = ("matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2")  # others search, and may land behind the target
DECLARES_DURATION = ("matroska,webm", "avi", "flv")  # elsewhere a table says it, or it is estimated from what is there
# One packet is one frame: true of all files tried. VP8 and MPEG-4 may hold packets without a frame of their own.
COUNTED_BY_PACKETS = {"h264", "hevc", "vp9", "av1", "mpeg2video", "mjpeg"}
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class VideoInfo:
    """Frames that come out, mean frames per second (None where nothing says), pixels as shown, rotation applied."""

    n_frames: int
    fps: float | None
    height: int
    width: int


class DamagedVideo(ValueError):
    """A file that is damaged from `frame` on; `frames` uint8 (T, C, Y, X): those asked for that lie before it."""

    def __init__(self, path: Path, frame: int, reason: str, frames: Tensor | None = None) -> None:
        super().__init__(
            f"{path}: damaged at frame {frame} ({reason}); get the file again, or take the {frame} frames before the "
            "damage with until_damage=True"
        )
        self.path, self.frame, self.reason = path, frame, reason
        self.frames = torch.empty(0, 3, 0, 0, dtype=torch.uint8) if frames is None else frames

    def __reduce__(self) -> tuple[object, ...]:  # to cross a DataLoader worker's pipe
        return DamagedVideo, (self.path, self.frame, self.reason, self.frames)


@dataclass(frozen=True)
class _Index:
    """What a pass over a file's packets tells; a position counts packets in the order they are stored.

    pts, packet (T,): timestamp, ascending, and position of each frame that comes out. key, key_pts (K,): of packets
    that decoding can start at. timed False: timestamps tell nothing, frames are numbered as they come out.
    damage: position of the first packet known to be lost, None where there is none; reason: why, in words.
    """

    pts: np.ndarray
    packet: np.ndarray
    key: np.ndarray
    key_pts: np.ndarray
    timed: bool
    seekable: bool
    fps: float | None
    damage: int | None
    reason: str

    def first_lost(self, position: int | None) -> int:
        """The first frame that may depend on the packet at `position` or on a later one; T where there is none."""
        lost = self.packet >= (END if position is None else position)
        return int(lost.argmax()) if lost.any() else len(self.packet)

    def runs(self, wanted: np.ndarray, from_start: bool) -> list[tuple[int, int]]:
        """Positions to decode for the ascending frames `wanted`: closed intervals, each from a keyframe."""
        if not self.timed:
            return [(0, END)]
        if from_start:
            return [(0, int(self.packet[: wanted[-1] + 1].max()))]
        last = self.packet[wanted].tolist()
        start = self.key[np.searchsorted(self.key_pts, self.pts[wanted], side="right") - 1].tolist()
        runs = [(start[0], last[0])]
        for first, end in zip(start, last, strict=True):
            if first - runs[-1][1] > SKIP:
                runs.append((first, end))
            runs[-1] = (runs[-1][0], max(runs[-1][1], end))
        return runs


class _Rows:
    """The tensor that is handed out, filled as frames come; a frame asked for twice fills two rows."""

    def __init__(self, path: Path, indices: np.ndarray) -> None:
        self.path, self.indices = path, indices
        self.rows: dict[int, list[int]] = {}
        for row, number in enumerate(indices.tolist()):
            self.rows.setdefault(number, []).append(row)
        self.pixels: np.ndarray | None = None

    def put(self, number: int, image: np.ndarray) -> None:
        """Files a (Y, X, 3) image as frame `number`."""
        height, width = image.shape[:2]
        if self.pixels is None:
            self.pixels = np.empty((len(self.indices), 3, height, width), np.uint8)
        if self.pixels.shape[2:] != (height, width):
            raise ValueError(
                f"{self.path}: frame {number} is {width}x{height}, those before are {self.pixels.shape[3]}x"
                f"{self.pixels.shape[2]}; one size is expected, so re-encode or resize them"
            )
        first, *others = self.rows[number]
        for channel in range(3):  # plane by plane: half the time of one transposed copy
            self.pixels[first, channel] = image[..., channel]
        for row in others:
            self.pixels[row] = self.pixels[first]

    def before(self, frame: int) -> Tensor:
        """The rows of frames before `frame`, in the order asked for."""
        if self.pixels is None:
            return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
        kept = self.indices < frame
        return torch.from_numpy(self.pixels if kept.all() else self.pixels[kept])


def probe(path: str | Path, *, until_damage: bool = False, max_pixels: int = MAX_PIXELS) -> VideoInfo:
    """Frames, rate and size of a video file, or of a folder of images (its fps is None).

    Frames are counted, never believed, and remembered: by reading the packets (25 ms for 3,600 frames), or by decoding
    where packets do not tell (AVI, MPEG-4, VP8). A file whose packets are whole may still hold damage that only
    decoding shows; until_damage decodes everything and counts the frames before the first damaged one.
    Raises as read_frames does.
    """
    path = _checked(path)
    first = read_frames(path, [0], until_damage=until_damage, max_pixels=max_pixels)
    height, width = first.shape[2:]
    if path.is_dir():
        return VideoInfo(_sound_images(path, until_damage, max_pixels), None, height, width)
    index = _index(*_stamp(path))
    n_frames = len(index.pts)
    if until_damage:
        wanted = np.arange(index.first_lost(index.damage))
        broken = _decode(path, index, wanted, _Rows(path, wanted[:0]), max_pixels, careful=True)
        n_frames = min(len(wanted), index.first_lost(broken))
    return VideoInfo(n_frames, index.fps, height, width)


def read_frames(
    path: str | Path,
    indices: Sequence[int] | np.ndarray | Tensor,
    *,
    until_damage: bool = False,
    max_pixels: int = MAX_PIXELS,
    max_frames: int = MAX_FRAMES,
) -> Tensor:
    """Frames `indices` of a video file or of a folder of images, as shown: uint8 (T, C, Y, X), RGB, rotation applied.

    indices: at least one, from 0, in any order, repeats allowed; a folder's images count in natural order (2 before
    10). until_damage: of a damaged file, only the rows of frames before the damage. Pixels equal PyAV's
    to_ndarray(format="rgb24"); non-square ones stay so. Changed bits that still decode cannot be noticed.
    Raises FileNotFoundError, PermissionError, DamagedVideo, and ValueError for what is no video, for an index beyond
    the end, for more than max_pixels in a frame and for more than max_frames rows.
    """
    path = _checked(path)
    asked = np.asarray(indices)
    if asked.ndim != 1 or not len(asked) or asked.dtype.kind not in "iu" or asked.min() < 0:
        raise ValueError(f"{path}: frames asked for: {asked!r:.80}; at least one is expected, integers from 0 on")
    if len(asked) > max_frames:
        raise ValueError(f"{path}: {len(asked)} frames asked for at once, {max_frames=}; read in parts or raise it")
    rows = _Rows(path, asked)
    if path.is_dir():
        return _read_images(path, rows, until_damage, max_pixels)
    index = _index(*_stamp(path))
    whole = index.first_lost(index.damage)
    if index.damage is None and asked.max() >= whole:
        raise ValueError(f"{path}: frame {asked.max()} asked for, it has {whole}; indices from 0 to {whole - 1} exist")
    wanted = np.unique(asked[asked < whole])
    broken = _decode(path, index, wanted, rows, max_pixels, careful=False)
    if broken is not None:  # what fails after a jump may be whole when decoded from the start
        broken = _decode(path, index, wanted, rows, max_pixels, careful=True)
    if broken is None and index.damage is None:
        return rows.before(END)
    frame = min(whole, index.first_lost(broken))
    damaged = DamagedVideo(path, frame, "does not decode" if frame < whole else index.reason, rows.before(frame))
    if until_damage and len(damaged.frames):
        return damaged.frames
    raise damaged


def write_video(
    path: str | Path,
    frames: Tensor | np.ndarray | Iterable[Tensor | np.ndarray],
    fps: float | Fraction,
    *,
    crf: int = 23,
    preset: str = "medium",
    keyframe_every: int = 250,
    threads: int = 1,
) -> None:
    """Writes frames, each uint8 (C, Y, X), RGB or grey, as H.264 in yuv420p; `path` appears only when it is complete.

    yuv420p needs even sizes: an odd one gains a copy of its last row or column. crf: 0 (exact but for colour) to 51,
    x264's default 23. threads: one by default, for with more the bytes depend on how many. Even so
    x264 gives the same frames other bytes, and slightly other pixels, from time to time.
    Raises ValueError for no frames, for frames of another type or shape, and for a rate that is not above 0.
    """
    path = Path(path)
    if not fps > 0:
        raise ValueError(f"{path}: {fps} frames per second asked for; more than 0 is expected")
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with av.open(str(partial), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
            stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", threads
            stream.options = {"crf": str(crf), "preset": preset, "g": str(keyframe_every)}
            shape = None
            for number, frame in enumerate(frames):
                image = _image_to_write(path, number, frame, shape)
                if shape is None:
                    shape = image.shape
                    stream.height, stream.width = shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            if shape is None:
                raise ValueError(f"{path}: no frames to write; at least one is expected")
            container.mux(stream.encode(None))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _image_to_write(path: Path, number: int, frame: Tensor | np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
    """The frame as (Y, X, 3) of even size."""
    image = np.asarray(frame)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3) or not image.size:
        raise ValueError(
            f"{path}: frame {number} is {image.dtype} {image.shape}; uint8 (3, Y, X) or (1, Y, X) expected"
        )
    image = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
    image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), mode="edge")
    if shape is not None and image.shape != shape:
        raise ValueError(f"{path}: frame {number} is {image.shape[:2]}, the first is {shape[:2]}; one size is expected")
    return np.ascontiguousarray(image)


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; a video file or a folder of images is expected")
    if not path.is_file() and not path.is_dir():  # opening a pipe may wait for ever
        raise ValueError(f"{path}: neither a file nor a folder; a video file or a folder of images is expected")
    needed = os.R_OK | (os.X_OK if path.is_dir() else 0)
    if not os.access(path, needed, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(f"{path}: this user may not read it; change its permissions (chmod u+r)")
    if path.is_file() and not path.stat().st_size:
        raise ValueError(f"{path}: 0 bytes; a video is expected, so get the file again")
    return path


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_size, status.st_mtime_ns


@lru_cache(maxsize=256)
def _index(name: str, size: int, mtime_ns: int) -> _Index:
    """The index of a file as it is now; another size or time is another file."""
    path = Path(name)
    position, timed, lost, reason, end = 0, True, END, "the file ends early", 0.0
    pts: dict[int, int] = {}  # of every frame that is shown: its position
    key: dict[int, int] = {}
    with _opened(path, END) as (container, stream):
        kind, codec = container.format.name, stream.codec_context.name
        try:
            for packet in container.demux(*(container.streams if kind in DECLARES_DURATION else [stream])):
                if not packet.size:
                    continue
                end = max(end, float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index != stream.index:
                    continue
                lost = min(lost, position) if packet.is_corrupt else lost
                timed = timed and packet.pts is not None and packet.pts not in pts
                if packet.is_keyframe:
                    key[packet.pts or 0] = position
                if key and not packet.is_discard:  # nothing decodes before the first keyframe
                    pts[packet.pts or 0] = position
                position += 1
        except av.FFmpegError as error:
            lost, reason = min(lost, position), f"its packets cannot be read: {error.strerror}"
        if _ends_early(container, stream, size, end):
            lost = min(lost, position)
        rate, time_base = stream.average_rate or stream.guessed_rate, stream.time_base
    timed = timed and kind != "avi"  # AVI stores no display times, and those FFmpeg makes up are out of order
    shown = np.array(sorted(p for p in pts if p >= min(key)), np.int64)
    if not timed or codec not in COUNTED_BY_PACKETS:
        shown, timed, failed = _counted(path, timed, pts)
        lost = min(lost, failed)
    if not len(shown) and lost == END:
        raise ValueError(f"{path}: its video stream holds no frame that decodes; get the file again")
    return _Index(
        pts=shown,
        packet=np.array([pts[p] for p in shown.tolist()], np.int64) if timed else shown,
        key=np.array(sorted(key.values()) if timed else [0], np.int64),
        key_pts=np.array(sorted(key) if timed else [0], np.int64),
        timed=timed,
        seekable=kind in SEEKS_BY_TABLE,
        fps=_rate(shown, rate, time_base, timed and lost == END),
        damage=None if lost == END else lost,
        reason=reason,
    )


def _ends_early(container: InputContainer, stream: VideoStream, size: int, end: float) -> bool:
    """Whether the container promises more than is there: bytes beyond the file, or packets later than `end` seconds."""
    if "mov" in container.format.name:
        return max((entry.pos + entry.size for entry in stream.index_entries), default=0) > size
    claim = float(container.duration or 0) / av.time_base if container.format.name in DECLARES_DURATION else 0.0
    return claim - end > max(1.0, 0.05 * claim)  # seconds: muxers round and guess the last frame's length


def _counted(path: Path, timed: bool, pts: dict[int, int]) -> tuple[np.ndarray, bool, int]:
    """Timestamps (or, where they tell nothing, numbers) of the frames that decode, and the first packet that failed."""
    none = np.zeros(0, np.int64)
    blind = _Index(none, none, none, none, timed=False, seekable=False, fps=None, damage=None, reason="")
    found: list[int] = []
    lost = END
    for _, position, frame in _walk(path, blind, [(0, END)], END):
        if frame is None:
            lost = min(lost, position)
        else:
            found.append(frame.pts or 0)
    timed = timed and set(found) <= set(pts) and found == sorted(set(found))
    return np.array(found if timed else range(len(found)), np.int64), timed, lost


def _rate(pts: np.ndarray, claimed: Fraction | None, time_base: Fraction | None, timed: bool) -> float | None:
    """Mean frames per second: the container's claim where the timestamps agree within 1 %, else as they say."""
    claim = float(claimed) if claimed else None
    if not timed or len(pts) < 2 or time_base is None:
        return claim
    measured = float((len(pts) - 1) / ((int(pts[-1]) - int(pts[0])) * time_base))
    return claim if claim is not None and abs(claim / measured - 1) < 0.01 else measured


@contextlib.contextmanager
def _opened(path: Path, max_pixels: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container and its video stream. Raises ValueError for what is no video, or beyond `max_pixels`."""
    try:
        # files only: a playlist may name an address, and an address may never answer
        container = av.open(str(path), options={"protocol_whitelist": "file"})
    except av.FFmpegError as error:
        raise ValueError(
            f"{path}: not a video that FFmpeg opens ({error.strerror}); a whole video file is expected, so get it "
            "again if it was cut off"
        ) from error
    with container:
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams or container.format.name == "tty":  # tty: any text at all
            found = ", ".join(
                f"{s.type} ({s.codec_context.name if s.codec_context else '?'})" for s in container.streams
            )
            raise ValueError(f"{path}: no video stream, only {found or 'nothing'}; cover art is none")
        context = streams[0].codec_context
        if context is None or not context.width * context.height:
            raise ValueError(f"{path}: its video stream has no decoder here or no picture size; re-encode it as H.264")
        if context.width * context.height > max_pixels:
            raise ValueError(
                f"{path}: frames of {context.width}x{context.height}, {max_pixels=}; scale the video down or raise it"
            )
        yield container, streams[0]


def _decode(path: Path, index: _Index, wanted: np.ndarray, rows: _Rows, max_pixels: int, careful: bool) -> int | None:
    """Decodes the ascending frames `wanted` into `rows`; the position of the first packet that failed, or None.

    careful: everything from the first packet on, to find the one that failed first; else only what `wanted` needs.
    """
    if not len(wanted):
        return None
    missing = set(range(wanted[-1] + 1)) if careful else set(wanted.tolist())
    needed = set(index.packet[wanted].tolist()) if index.timed and not careful else None
    broken: list[int] = []
    for number, position, frame in _walk(path, index, index.runs(wanted, careful), max_pixels, needed):
        if frame is None or frame.is_corrupt:  # corrupt: the decoder made some of it up
            broken.append(position)
            if not careful:
                return position
        if frame is not None and number in missing:
            missing.remove(number)
            if number in rows.rows:
                rows.put(number, upright(frame))
            if not missing:
                break
    return min(broken + [int(index.packet[number]) for number in missing], default=None)


def _walk(
    path: Path, index: _Index, runs: list[tuple[int, int]], max_pixels: int, needed: set[int] | None = None
) -> Iterator[tuple[int, int, av.VideoFrame | None]]:
    """(number, position, frame) of all that the packets of `runs` decode to; frame None where a packet failed.

    position: the first packet whose loss would explain a damaged frame. needed: of the other packets, those that no
    frame depends on are not decoded.
    """
    count = unsure = 0
    with _opened(path, max_pixels) as (container, stream):
        context = stream.codec_context
        # One thread. PyAV's default, slices, switches H.264's checks off: 25 of 25 flipped bits went unmarked. Frame
        # threads mark some and not others from run to run, and outlive the call (container and stream refer to each
        # other), so that a forked worker waits for ever when it collects them.
        context.thread_type, context.thread_count = ThreadType.NONE, 1
        # numbered as they come out, frames of these two may be shown up to 16 before what they depend on
        early = 16 if not index.timed and context.name in ("h264", "hevc") else 0
        for position, floor, packet in _packets(container, stream, index, runs):
            frames: list[av.VideoFrame] = []
            context.skip_frame = "DEFAULT" if needed is None or position in needed else "NONREF"
            try:
                frames = context.decode(packet)
            except av.FFmpegError:
                yield -1, max(0, position - early), None
            for frame in frames:
                if frame.pts is None or not index.timed:
                    depends = frame.pict_type == PictureType.B
                    # B frames shown before a reference depend on it
                    yield count, max(0, (count if depends else unsure) - early), frame
                    count += 1
                    unsure = unsure if depends else count
                    continue
                number = int(np.searchsorted(index.pts, frame.pts))
                # else it is not shown, or depends on what lies before the keyframe that decoding started at
                if number < len(index.pts) and floor <= frame.pts == index.pts[number]:
                    yield number, int(index.packet[number]), frame
            if packet is None:
                context.flush_buffers()


def _packets(
    container: InputContainer, stream: VideoStream, index: _Index, runs: list[tuple[int, int]]
) -> Iterator[tuple[int, int, av.Packet[VideoStream] | None]]:
    """(position, pts of the keyframe its run starts at, packet) of the runs' packets; packet None ends a run."""
    position = 0
    source = _from(None, container.demux(stream))
    for first, last in runs:
        floor = int(index.key_pts[np.searchsorted(index.key, first)]) if first else -END
        if index.seekable and first - position > SEEK:
            container.seek(floor, stream=stream)
            source = _from(floor, container.demux(stream))
            position = first
        while position <= last:
            try:
                packet = next(source, None)
            except av.FFmpegError:  # the index knows of it
                packet = None
            if packet is None:
                break
            # pictures stored after their run's keyframe and shown before it lack what they depend on
            if position >= first and (packet.pts is None or packet.pts >= floor):
                yield position, floor, packet
            position += 1
        yield position, floor, None


def _from(pts: int | None, packets: Iterator[av.Packet[VideoStream]]) -> Iterator[av.Packet[VideoStream]]:
    """Those that carry data (an empty one would end the decoder), from the one at `pts` on."""
    filled = (packet for packet in packets if packet.size)
    return filled if pts is None else itertools.dropwhile(lambda packet: packet.pts != pts, filled)


def upright(frame: av.VideoFrame) -> np.ndarray:
    """The frame as RGB (Y, X, 3), turned and mirrored as its display matrix says: eight ways, nearest right angle."""
    image = frame.to_ndarray(format="rgb24", threads=1)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    # x' = a x + c y, y' = b x + d y of the shown picture (ISO/IEC 14496-12, 8.3.2)
    a, b, _, c, d = (int(number) for number in np.frombuffer(matrix, np.int32)[:5])  # type: ignore[call-overload]
    if abs(a) + abs(d) < abs(b) + abs(c):
        image, a, d = image.transpose(1, 0, 2), c, b
    return image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


@lru_cache(maxsize=256)
def _images(name: str, mtime_ns: int) -> list[Path]:
    """The images of a folder in natural order."""
    found = [p for p in Path(name).iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    if not found:
        raise ValueError(
            f"{name}: a folder without images; files ending in {' '.join(sorted(IMAGE_SUFFIXES))} expected"
        )
    return sorted(found, key=lambda p: [int(s) if s.isdigit() else s for s in re.split(r"([0-9]+)", p.name)])


def _read_images(path: Path, rows: _Rows, until_damage: bool, max_pixels: int) -> Tensor:
    images = _images(str(path), path.stat().st_mtime_ns)
    if max(rows.rows) >= len(images):
        raise ValueError(f"{path}: frame {max(rows.rows)} asked for, it has {len(images)} images")
    for number in sorted(rows.rows):
        try:
            rows.put(number, _read_image(images[number], max_pixels))
        except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
            damaged = DamagedVideo(path, number, f"{images[number].name}: {error}", rows.before(number))
            if until_damage and len(damaged.frames):
                return damaged.frames
            raise damaged from error
    return rows.before(END)


def _sound_images(path: Path, until_damage: bool, max_pixels: int) -> int:
    """How many images there are; until_damage: how many before the first that cannot be read."""
    images = _images(str(path), path.stat().st_mtime_ns)
    if until_damage:
        for number, image in enumerate(images):
            try:
                _read_image(image, max_pixels)
            except (OSError, SyntaxError):
                return number
    return len(images)


def _read_image(path: Path, max_pixels: int) -> np.ndarray:
    """An image as RGB (Y, X, 3), as its EXIF says it stands."""
    with Image.open(path) as image:
        if image.width * image.height > max_pixels:
            raise ValueError(f"{path}: {image.width}x{image.height}, {max_pixels=}; scale it down or raise it")
        if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr") or getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"{path}: mode {image.mode} or several pages; one image of 8 bits per channel is expected")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
