"""Streams are real: a server on 127.0.0.1 sends a real video as scripted, or a thread writes a growing file."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from tests.loopback import Loopback, answer, chunked, growing, reset, send, stall, ts_pictures
from vigil.live import CausalWindows, Delays, LiveFrames
from vigil.sources import open_source
from vigil.types import View
from vigil.video import read_frames, write_video
from vigil.video_stream import decode_stream

N_FRAMES, GOP, FPS = 40, 10, 30
QUICK = {"stall_s": 5.0, "idle_s": 0.3, "give_up_s": 5.0, "first_pause_s": 0.02}
BRIEF = {**QUICK, "give_up_s": 0.3}


def pictures(n_frames: int = N_FRAMES, height: int = 48, width: int = 64) -> np.ndarray:
    """Coarse noise that wanders, so that pictures differ and depend on those before."""
    noise = np.random.default_rng(0).integers(0, 256, (3, height // 8, width // 8), np.uint8)
    image = noise.repeat(8, axis=1).repeat(8, axis=2)
    return np.stack([np.roll(image, number, axis=2) for number in range(n_frames)])


class Recording:
    """A real MPEG-TS file, its bytes picture by picture, and its frames as read_frames gives them."""

    def __init__(self, path: Path, preset: str = "ultrafast", n_frames: int = N_FRAMES, **settings: int) -> None:
        write_video(path, pictures(n_frames, **settings), FPS, preset=preset, keyframe_every=GOP)
        self.path, self.pieces = path, ts_pictures(path)
        self.frames = read_frames(path, range(n_frames))

    @property
    def head(self) -> list[bytes]:
        """Two GOPs."""
        return self.pieces[: 2 * GOP]

    @property
    def tail(self) -> list[bytes]:
        """The other two."""
        return self.pieces[2 * GOP :]


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return Recording(tmp_path_factory.mktemp("live") / "plain.ts")


@pytest.fixture(scope="module")
def reordered(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    recording = Recording(tmp_path_factory.mktemp("live") / "reordered.ts", preset="medium")
    with av.open(str(recording.path)) as container:
        assert any(packet.pts != packet.dts for packet in container.demux(video=0)), "no B frames"
    return recording


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    yield
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files


def take(live: LiveFrames) -> Tensor:
    """All frames, numbered without a hole."""
    frames = list(live)
    assert [frame.number for frame in frames] == list(range(len(frames)))
    return torch.stack([frame.pixels for frame in frames])


# the decoder ----------------------------------------------------------------------------------------------------------


class Bytes:
    """A byte source that hands out little at a time."""

    def __init__(self, data: bytes, step: int = 700) -> None:
        self.data, self.step, self.position = data, step, 0

    def read(self, size: int) -> bytes:
        part = self.data[self.position : self.position + min(size, self.step)]
        self.position += len(part)
        return part


def remux(source: Path, target: Path, movflags: str = "") -> bytes:
    with av.open(str(source)) as old, av.open(str(target), "w", options={"movflags": movflags}) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                new.mux(packet)
    return target.read_bytes()


@pytest.mark.parametrize(
    ("name", "movflags"),
    [
        ("x.ts", ""),
        ("x.mkv", ""),
        ("x.flv", ""),
        ("fragments.mp4", "frag_keyframe+empty_moov+default_base_moof"),
        ("index_first.mp4", "faststart"),
    ],
)
def test_a_byte_stream_decodes_to_the_frames_of_the_file(
    name: str, movflags: str, reordered: Recording, tmp_path: Path
) -> None:
    mp4 = tmp_path / "plain.mp4"
    write_video(mp4, pictures(), FPS, keyframe_every=GOP)
    data = reordered.path.read_bytes() if name.endswith("ts") else remux(mp4, tmp_path / name, movflags)
    expected = reordered.frames if name.endswith("ts") else read_frames(mp4, range(N_FRAMES))
    decoder = decode_stream(Bytes(data), name)
    frames = list(decoder)
    assert torch.equal(torch.stack([frame.pixels for frame in frames]), expected)
    assert (decoder.lost, decoder.after_loss, decoder.broken) == (0, 0, None)
    assert decoder.fps == pytest.approx(FPS)
    seconds = np.array([frame.seconds for frame in frames])
    assert np.allclose(np.diff(seconds), 1 / FPS, atol=0.002)  # FLV and Matroska round to milliseconds


def test_a_turned_picture_comes_out_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(90)
        image = pictures(1)[0].transpose(1, 2, 0)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode(None))
    (frame,) = decode_stream(Bytes(path.read_bytes()), "turned")
    assert frame.pixels.shape == (3, 64, 48)
    assert torch.equal(frame.pixels, read_frames(path, [0])[0])


@pytest.mark.parametrize("first", [25, 15])
def test_every_picture_that_went_missing_is_counted(first: int, reordered: Recording) -> None:
    decoder = decode_stream(Bytes(b"".join(reordered.pieces[:first] + reordered.pieces[first + 3 :])), "holes")
    frames = list(decoder)
    assert len(frames) + decoder.lost == N_FRAMES
    assert decoder.lost >= 3
    numbers = [round((frame.seconds - frames[0].seconds) * FPS) for frame in frames]
    wrong = sum(not torch.equal(f.pixels, reordered.frames[n]) for n, f in zip(numbers, frames, strict=True))
    assert 0 < wrong <= decoder.after_loss


def test_damaged_pictures_are_passed_over_and_counted(recording: Recording) -> None:
    pieces = list(recording.pieces)
    at = len(pieces[GOP]) // 2
    pieces[GOP] = pieces[GOP][: at - at % 188] + np.random.default_rng(1).bytes(3 * 188) + pieces[GOP][at + 564 :]
    decoder = decode_stream(Bytes(b"".join(pieces)), "damaged")
    frames = list(decoder)
    assert 0 < decoder.lost <= GOP
    assert len(frames) + decoder.lost == N_FRAMES
    whole = [f for f in frames if not GOP <= round(f.seconds * FPS) < 2 * GOP]
    assert all(torch.equal(f.pixels, recording.frames[round(f.seconds * FPS)]) for f in whole)
    assert len(whole) == N_FRAMES - GOP


def test_a_stream_joined_midway_begins_at_a_keyframe_and_counts_what_it_skipped(recording: Recording) -> None:
    decoder = decode_stream(Bytes(b"".join(recording.pieces[3:])), "midway")
    frames = torch.stack([frame.pixels for frame in decoder])
    assert torch.equal(frames, recording.frames[GOP:])
    assert decoder.lost == GOP - 3


def test_a_recording_sent_in_a_loop_loses_nothing(reordered: Recording) -> None:
    decoder = decode_stream(Bytes(b"".join(reordered.pieces * 3)), "loop")
    assert len(list(decoder)) == 3 * N_FRAMES
    assert decoder.lost == 0


@pytest.mark.parametrize(
    "data",
    [
        b"",
        np.random.default_rng(1).bytes(50_000),
        b"a text\n" * 2000,
        b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
    ],
    ids=["nothing", "noise", "text", "playlist", "list"],
)
def test_what_is_no_video_is_refused_by_name(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"camera 7: not a video stream"):
        decode_stream(Bytes(data), "camera 7")


def test_frames_beyond_max_pixels_are_refused(recording: Recording) -> None:
    with pytest.raises(ValueError, match=r"camera: frames of 64x48, max_pixels=3000"):
        list(decode_stream(Bytes(recording.path.read_bytes()), "camera", max_pixels=3000))


# sources --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["recording", "reordered"])
def test_a_steady_stream_gives_every_frame_in_order(name: str, request: pytest.FixtureRequest) -> None:
    recording: Recording = request.getfixturevalue(name)
    with Loopback([send(recording.pieces, fps=100)]) as server:
        live = LiveFrames(server.tcp, **BRIEF)
        assert torch.equal(take(live), recording.frames)
    assert live.lost == 0
    assert live.fps == FPS
    assert live.n_frames == N_FRAMES
    (gap,) = live.gaps  # the end of a TCP connection cannot be told from a drop
    assert gap.frame == N_FRAMES
    assert "closed" in gap.reason


def test_frames_come_out_soon_after_their_bytes_went_out(recording: Recording) -> None:
    with Loopback([send(recording.pieces, fps=FPS)]) as server:
        delays, own = [], Delays()
        for frame in LiveFrames(server.tcp, **BRIEF):
            now = time.monotonic()
            delays.append(now - server.sent[frame.number])
            own.add(now - frame.arrival)
            assert server.sent[frame.number] <= frame.arrival <= now
    # MPEG-TS shows a picture's end only when two more have begun: 2 / FPS is the least; the last ones wait for the end
    steady = np.array(delays[8 : N_FRAMES - 3])
    summary = own.summary()
    print(
        f"\n{FPS} frames per second: first {1e3 * delays[0]:.0f} ms, then median {1e3 * np.median(steady):.1f} ms, "
        f"largest {1e3 * steady.max():.1f} ms; as LiveFrame.arrival tells: mean {1e3 * summary['mean_s']:.1f} ms, "
        f"95 % {1e3 * summary['p95_s']:.1f} ms"
    )
    assert 2 / FPS - 0.01 < np.median(steady) < 2 / FPS + 0.2
    assert delays[0] < 1.0


def test_a_slow_consumer_keeps_the_buffer_full_and_loses_nothing(recording: Recording) -> None:
    with Loopback([send(recording.pieces)]) as server:
        live, seen = LiveFrames(server.tcp, buffer_frames=3, **BRIEF), []
        for frame in live:
            time.sleep(0.01)
            seen.append(frame.pixels)
            assert live.n_frames <= frame.number + 1 + 3
    assert torch.equal(torch.stack(seen), recording.frames)
    assert live.largest_fill == 3


def test_a_consumer_slower_than_every_limit_drops_nothing(recording: Recording) -> None:
    limits = {"stall_s": 0.2, "give_up_s": 0.2, "first_pause_s": 0.02}
    script = [answer(f"200 OK\nContent-Length: {sum(map(len, recording.pieces))}"), send(recording.pieces)]
    with Loopback(script) as server:
        live = LiveFrames(server.http, buffer_frames=2, **limits)
        for frame in live:
            if frame.number in (5, 20):
                time.sleep(0.5)
    assert (live.n_frames, live.gaps) == (N_FRAMES, [])


def test_a_stall_shorter_than_the_limit_loses_nothing(recording: Recording) -> None:
    with Loopback([send(recording.head), stall(0.4), send(recording.tail)]) as server:
        live = LiveFrames(server.tcp, **BRIEF | {"give_up_s": 1.0})
        assert torch.equal(take(live), recording.frames)
    assert [gap.frame for gap in live.gaps] == [N_FRAMES]


@pytest.mark.parametrize(
    ("interruption", "reason"),
    [([], "closed by the other side"), ([reset], "reset by the other side"), ([stall(30.0)], "stalled")],
    ids=["closed", "reset", "stalled"],
)
def test_after_a_drop_the_numbering_goes_on_and_the_gap_is_recorded(
    interruption: list, reason: str, recording: Recording
) -> None:
    times = QUICK | {"stall_s": 0.3, "give_up_s": 1.0}
    with Loopback([send(recording.head), *interruption], [send(recording.tail)]) as server:
        live = LiveFrames(server.tcp, **times)
        assert torch.equal(take(live), recording.frames)
    first, last = live.gaps
    assert (first.frame, last.frame) == (2 * GOP, N_FRAMES)
    assert reason in first.reason
    assert first.seconds > (0.3 if reason == "stalled" else 0.02)
    assert live.lost == 0


def test_a_source_that_refuses_for_a_while_is_waited_for(recording: Recording) -> None:
    with Loopback(0.3, [send(recording.head)], 0.3, [send(recording.tail)]) as server:
        live = LiveFrames(server.tcp, **QUICK | {"give_up_s": 1.5})
        assert torch.equal(take(live), recording.frames)
    assert [gap.frame for gap in live.gaps] == [0, 2 * GOP, N_FRAMES]
    assert live.gaps[0].reason == "refused"
    assert live.gaps[1].seconds > 0.2


def test_a_source_that_never_comes_back_ends_after_give_up_s(recording: Recording) -> None:
    with Loopback([send(recording.pieces)]) as server:
        live = LiveFrames(server.tcp, **QUICK | {"give_up_s": 0.5})
        assert torch.equal(take(live), recording.frames)
    (gap,) = live.gaps
    assert 0.5 <= gap.seconds < 3


def test_a_stream_joined_again_midway_goes_on_at_its_next_keyframe(recording: Recording) -> None:
    with Loopback([send(recording.head)], [send(recording.tail[4:])]) as server:
        live = LiveFrames(server.tcp, **BRIEF)
        assert torch.equal(take(live), torch.cat([recording.frames[: 2 * GOP], recording.frames[3 * GOP :]]))
    assert live.lost == GOP - 4


def test_frames_of_another_size_are_an_error(recording: Recording, tmp_path: Path) -> None:
    other = Recording(tmp_path / "other.ts", n_frames=4, height=32)
    message = r"frame 20 is 64x32, those before are 64x48"
    with Loopback([send(recording.head)], [send(other.pieces)]) as server, pytest.raises(ValueError, match=message):
        list(LiveFrames(server.tcp, **QUICK))


def test_garbage_after_a_drop_is_a_gap_that_ends_the_stream(recording: Recording) -> None:
    noise = np.random.default_rng(2).bytes(20_000)
    with Loopback([send(recording.pieces)], [send([noise])], [send([noise])]) as server:
        live = LiveFrames(server.tcp, **QUICK | {"give_up_s": 0.5})
        assert torch.equal(take(live), recording.frames)
    assert [gap.frame for gap in live.gaps] == [N_FRAMES]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([send([np.random.default_rng(2).bytes(20_000)])], r"127\.0\.0\.1:\d+: no frame came"),
        ([stall(2.0)], "no frame came .*stalled"),
        ([send([(b"\x47\x1f\xff\x10" + b"\xff" * 184) * 50] * 200, fps=100)], "no frame came .*no frame for"),
        ([], "no frame came"),
    ],
    ids=["noise", "silence", "empty packets for ever", "closed at once"],
)
def test_a_source_that_never_sends_a_frame_is_an_error(script: list, message: str) -> None:
    with Loopback(script) as server, pytest.raises(ValueError, match=message):
        list(LiveFrames(server.tcp, **BRIEF | {"stall_s": 0.2}))


@pytest.mark.parametrize("kind", ["length", "chunked", "none"])
def test_http_is_read_to_its_announced_end(kind: str, recording: Recording) -> None:
    size = sum(map(len, recording.pieces))
    head, pieces = {
        "length": (f"200 OK\nContent-Length: {size}", recording.pieces),
        "chunked": ("200 OK\nTransfer-Encoding: chunked", [*chunked(recording.pieces), b"0\r\n\r\n"]),
        "none": ("200 OK\nConnection: close", recording.pieces),
    }[kind]
    with Loopback([answer(head), send(pieces, fps=200)]) as server:
        live = LiveFrames(server.http, **BRIEF)
        assert torch.equal(take(live), recording.frames)
    assert [gap.frame for gap in live.gaps] == ([N_FRAMES] if kind == "none" else [])


def test_a_chunked_answer_that_breaks_off_is_a_drop(recording: Recording) -> None:
    head = answer("200 OK\nTransfer-Encoding: chunked")
    end = [*chunked(recording.tail), b"0\r\n\r\n"]
    with Loopback([head, send(chunked(recording.head))], [head, send(end)]) as server:
        live = LiveFrames(server.http, **QUICK)
        assert torch.equal(take(live), recording.frames)
    (gap,) = live.gaps
    assert gap.frame == 2 * GOP
    assert "closed" in gap.reason


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_a_download_cut_short_starts_over_without_the_frames_that_were_had(kept: float, reordered: Recording) -> None:
    data = reordered.path.read_bytes()
    head = answer(f"200 OK\nContent-Length: {len(data)}")
    with Loopback([head, send([data[: int(kept * len(data))]])], [head, send([data])]) as server:
        live = LiveFrames(server.http, **QUICK)
        assert torch.equal(take(live), reordered.frames)
    assert live.lost == 0
    assert len(live.gaps) == 1
    assert "bytes to come" in live.gaps[0].reason


def test_http_redirections_are_followed(recording: Recording) -> None:
    size = sum(map(len, recording.pieces))
    head = answer(f"200 OK\nContent-Length: {size}")
    with Loopback([answer("302 Found\nLocation: /other.ts")], [head, send(recording.pieces)]) as server:
        assert len(list(LiveFrames(server.http, **BRIEF))) == N_FRAMES
    elsewhere = answer("302 Found\nLocation: file:///etc/hostname")
    message = "file:///etc/hostname: not an address to read a stream from"
    with Loopback([elsewhere]) as server, pytest.raises(ValueError, match=message):
        list(LiveFrames(server.http, **BRIEF))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ([answer("404 Not Found\nContent-Length: 0")], "the server answers 404 Not Found; check the address"),
        ([answer("503 Busy\nContent-Length: 0")], "no frame came .*answers 503 Busy"),
        ([stall(2.0)], "no frame came .*stalled"),
        ([send([b"SSH-2.0\r\n\r\n"])], "no frame came"),
    ],
    ids=["404", "503", "no answer", "not HTTP"],
)
def test_http_that_gives_no_video_says_why(script: list, message: str) -> None:
    with Loopback(script) as server, pytest.raises(ValueError, match=message):
        list(LiveFrames(server.http, **BRIEF | {"stall_s": 0.2}))


def test_a_password_goes_to_the_server_and_into_no_message() -> None:
    with Loopback([answer("401 Unauthorized\nContent-Length: 0")]) as server:
        address = server.http.replace("127", "me:secret@127", 1)
        with pytest.raises(ValueError, match="401") as error:
            list(LiveFrames(address, **BRIEF))
    assert "secret" not in str(error.value)


def test_a_growing_file_is_followed_until_it_grows_no_more(recording: Recording, tmp_path: Path) -> None:
    with growing(tmp_path / "growing.ts", recording.pieces, 0.01):
        live = LiveFrames(tmp_path / "growing.ts", **QUICK | {"idle_s": 0.5})
        assert torch.equal(take(live), recording.frames)
    assert (live.gaps, live.lost) == ([], 0)


def test_a_growing_file_that_starts_over_is_a_drop(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "rotated.ts"
    path.write_bytes(b"".join(recording.pieces[: 3 * GOP]))
    live, seen = LiveFrames(path, buffer_frames=100, **QUICK | {"idle_s": 0.5}), []
    for frame in live:
        seen.append(frame.pixels)
        if frame.number == 2 * GOP:
            path.write_bytes(b"".join(recording.tail[:GOP]))
    assert len(seen) > 3 * GOP
    assert torch.equal(torch.stack(seen[-GOP:]), recording.frames[2 * GOP : 3 * GOP])
    assert "was cut" in live.gaps[0].reason


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("rtsp://127.0.0.1/x", r"tcp://host:port"),
        ("ftp://127.0.0.1/x", "not an address"),
        ("tcp://127.0.0.1", "not an address"),
        ("tcp://127.0.0.1:99999", "Port out of range"),
        ("http:///x", "not an address"),
        (".", "no file but a folder"),
    ],
)
def test_another_address_is_refused(address: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_source(address)
    with pytest.raises(ValueError, match=message):
        list(LiveFrames(address))


def test_a_missing_file_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.ts: no such file"):
        list(LiveFrames(tmp_path / "none.ts"))


# ends -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["waiting", "reconnecting", "full", "file"])
def test_stop_from_another_thread_ends_it_within_a_second(moment: str, recording: Recording, tmp_path: Path) -> None:
    limits = {"stall_s": 60.0, "idle_s": 60.0, "give_up_s": 60.0, "first_pause_s": 30.0}
    path = tmp_path / "file.ts"
    path.write_bytes(recording.path.read_bytes())
    with Loopback([send(recording.pieces), *([stall(30.0)] if moment != "reconnecting" else [])]) as server:
        live = LiveFrames(path if moment == "file" else server.tcp, buffer_frames=2, **limits)
        asked = []
        stopper = threading.Timer(0.5, lambda: (asked.append(time.monotonic()), live.stop()))
        stopper.start()
        for frame in live:
            if moment == "full" and frame.number == 5:
                stopper.join()
        assert time.monotonic() - asked[0] < 1
        stopper.join()


def test_stop_from_a_signal_handler_ends_it(recording: Recording) -> None:
    with Loopback([send(recording.pieces), stall(30.0)]) as server:
        live = LiveFrames(server.tcp)
        previous = signal.signal(signal.SIGALRM, lambda *_: live.stop())
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            start = time.monotonic()
            assert len(list(live)) >= N_FRAMES - 3
            assert time.monotonic() - start < 1.5
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)


def test_leaving_the_loop_ends_the_thread(recording: Recording) -> None:
    with Loopback([send(recording.pieces), stall(30.0)]) as server, LiveFrames(server.tcp) as live:
        for frame in live:
            if frame.number == 3:
                break
    with pytest.raises(ValueError, match="iterated already"):
        next(iter(live))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="buffer_frames=0"):
        LiveFrames("tcp://127.0.0.1:1", buffer_frames=0)


# windows --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("view", [View(1, 1, 1), View(4, 1, 4), View(3, 2, 1), View(4, 6, 4), View(2, 3, 7)])
@pytest.mark.parametrize("n_frames", [1, 30])
def test_windows_end_at_the_first_frame_they_answer_for(view: View, n_frames: int) -> None:
    frames = torch.from_numpy(pictures(n_frames))
    windows = CausalWindows(view)
    found = [window for frame in frames if (window := windows.add(frame)) is not None]
    ends = range(0, n_frames, view.hop)
    expected = [[max(0, end - k * view.stride) for k in range(view.frames)][::-1] for end in ends]
    assert [window.frame.tolist() for window in found] == expected
    assert all(torch.equal(window.pixels, frames[window.frame]) for window in found)
    spans = [windows.cut(window.span) for window in found]
    assert [frame for first, end in spans for frame in range(first, end)] == list(range(n_frames))
    assert len(windows._kept) <= (view.frames - 1) * view.stride + 1


def test_no_window_depends_on_a_later_frame() -> None:
    view, one = View(4, 3, 2), torch.from_numpy(pictures(30))
    for change in range(30):
        other = one.clone()
        other[change:] = 255 - other[change:]
        ours, theirs = CausalWindows(view), CausalWindows(view)
        for frame, changed in zip(one, other, strict=True):
            a, b = ours.add(frame), theirs.add(changed)
            assert (a is None) == (b is None)
            if a is not None and b is not None:
                assert torch.equal(a.pixels, b.pixels) == (a.span[0] < change)


def test_a_bag_has_no_causal_windows() -> None:
    with pytest.raises(ValueError, match="a bag needs the whole video"):
        CausalWindows(View(4, segments=8))


# delays ---------------------------------------------------------------------------------------------------------------


def test_delays_are_summed_up_as_numpy_does() -> None:
    seconds, delays = np.random.default_rng(0).lognormal(-3, 1, 5000), Delays()
    for value in seconds:
        delays.add(float(value))
    summary = delays.summary()
    assert summary["count"] == 5000
    assert summary["mean_s"] == pytest.approx(seconds.mean())
    assert summary["largest_s"] == seconds.max()
    exact = np.quantile(seconds, 0.95, method="inverted_cdf")
    assert exact <= summary["p95_s"] <= 1.011 * exact


def test_delays_know_their_limits() -> None:
    delays = Delays()
    assert delays.summary() == {"count": 0}
    for value in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="0 or more is expected"):
            delays.add(value)
    delays.add(0.0)
    assert delays.summary() == {"count": 1, "mean_s": 0, "p95_s": 0, "largest_s": 0}
    delays.add(1e9)
    assert delays.summary()["largest_s"] == 1e9
