from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Disposition
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from vigil.video import DamagedVideo, VideoInfo, probe, read_frames, write_video

UCF_CRIME = Path(__file__).parents[2] / "shared" / "data" / "ucf_crime" / "videos"
CODECS = {
    "h264.mp4": ("libx264", {"g": "12"}),
    "h264.mkv": ("libx264", {"g": "12"}),  # no frame count stored
    "h264.ts": ("libx264", {"g": "12"}),  # neither count nor table
    "open.mkv": ("libx264", {"x264-params": "open-gop=1:keyint=12"}),
    "h264.avi": ("libx264", {}),  # shown in another order than stored, and no times that say so
    "mpeg4.avi": ("mpeg4", {"b": "1M"}),
    "mpeg4_b.avi": ("mpeg4", {"bf": "2"}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "vp8.webm": ("libvpx", {"deadline": "good", "cpu-used": "4", "auto-alt-ref": "1", "lag-in-frames": "16"}),
    "hevc.mp4": ("libx265", {"x265-params": "log-level=none:keyint=12"}),
    "grey.mp4": ("libx264", {}),
}


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    noise = np.random.default_rng(number).integers(0, 40, (height, width, 3))
    image = np.full((height, width, 3), 60) + noise
    image[number % height :, : width // 2, 0] += 120
    return image.astype(np.uint8)


def encode(path: Path, n_frames: int = 40, codec: str = "libx264", turn: int = 0, **stream_settings: object) -> Path:
    options = stream_settings.pop("options", {})
    steps = stream_settings.pop("steps", None)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.options = 64, 48, "yuv420p", options
        for key, value in stream_settings.items():
            setattr(stream, key, value)
        if turn:
            stream.set_display_rotation(turn)
        if steps:
            stream.codec_context.time_base = Fraction(1, 100)
        for number in range(n_frames):
            frame = av.VideoFrame.from_ndarray(picture(number, stream.height, stream.width), format="rgb24")
            if steps:
                frame.pts, frame.time_base = steps[number], Fraction(1, 100)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def decode(path: Path) -> np.ndarray:
    """Every frame as plain PyAV gives it, (T, C, Y, X)."""
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)]).transpose(0, 3, 1, 2)


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return encode(tmp_path / "video.mp4", options={"g": "12"})


@pytest.mark.parametrize("name", CODECS)
def test_frames_equal_those_of_plain_pyav_in_any_order_and_number(name: str, tmp_path: Path) -> None:
    codec, options = CODECS[name]
    settings = {"pix_fmt": "gray"} if name.startswith("grey") else {}
    path = encode(tmp_path / name, codec=codec, options=options, **settings)
    expected = decode(path)
    assert len(expected) == 40
    assert probe(path) == VideoInfo(40, 10.0, 48, 64)
    for indices in ([39, 0, 17, 17, 3], [25], range(40), np.array([38, 12, 11])):
        assert np.array_equal(read_frames(path, indices).numpy(), expected[list(indices)])


@pytest.mark.parametrize(("name", "n_frames"), [("RoadAccidents002", 347), ("Normal_Videos_006", 450)])
def test_real_ucf_crime_videos_have_their_published_number_of_frames(name: str, n_frames: int) -> None:
    path = UCF_CRIME / f"{name}_x264.mp4"
    if not path.exists():
        pytest.skip("the real UCF-Crime videos are not on this machine")
    assert probe(path) == VideoInfo(n_frames, 30.0, 240, 320)
    indices = [n_frames - 1, 0, 200, 260]
    assert np.array_equal(read_frames(path, indices).numpy(), decode(path)[indices])


def test_frames_far_apart_are_reached_by_seeking(tmp_path: Path) -> None:
    path = encode(tmp_path / "long.mp4", 400, options={"g": "10", "preset": "ultrafast"})
    assert np.array_equal(read_frames(path, [395, 5, 200]).numpy(), decode(path)[[395, 5, 200]])


def test_a_variable_frame_rate_keeps_every_frame_and_gives_the_mean_rate(tmp_path: Path) -> None:
    steps = np.cumsum([0] + [3, 20, 7] * 13).tolist()
    path = encode(tmp_path / "variable.mp4", steps=steps)
    assert np.array_equal(read_frames(path, range(40)).numpy(), decode(path))
    assert probe(path).fps == pytest.approx(39 / (steps[-1] / 100), rel=0.01)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_rotation_metadata_is_applied(turn: int, tmp_path: Path) -> None:
    path = encode(tmp_path / "turned.mp4", 3, turn=turn)
    expected = np.rot90(decode(path), turn // 90, axes=(2, 3))
    assert np.array_equal(read_frames(path, [0, 1, 2]).numpy(), expected)
    assert (probe(path).height, probe(path).width) == expected.shape[2:]


def test_one_frame_is_a_video(tmp_path: Path) -> None:
    path = encode(tmp_path / "one.mp4", 1)
    assert probe(path).n_frames == 1
    assert read_frames(path, [0, 0]).shape == (2, 3, 48, 64)


def test_odd_sizes_come_out_as_they_are(tmp_path: Path) -> None:
    path = encode(tmp_path / "odd.mkv", 5, codec="ffv1", pix_fmt="yuv444p", width=37, height=23)
    assert read_frames(path, range(5)).shape == (5, 3, 23, 37)
    assert np.array_equal(read_frames(path, range(5)).numpy(), decode(path))


def add_audio(container: OutputContainer, stream: AudioStream) -> None:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate = 16000
    container.mux([*stream.encode(frame), *stream.encode(None)])


def test_audio_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "audio.m4a"), "w") as container:
        add_audio(container, container.add_stream("aac", rate=16000))
    with pytest.raises(ValueError, match=r"audio\.m4a: no video stream, only audio \(aac\)"):
        read_frames(tmp_path / "audio.m4a", [0])


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        cover = container.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        audio = container.add_stream("aac", rate=16000)
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(0), format="rgb24")))
        container.mux(cover.encode(None))
        add_audio(container, audio)
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & Disposition.attached_pic
    with pytest.raises(ValueError, match=r"song\.m4a: no video stream"):
        probe(path)


def test_text_and_empty_and_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video at all\n" * 50)
    (tmp_path / "text.txt").write_text("not a video at all\n" * 50)
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "empty.mp4").touch()
    for name in ("text.mp4", "text.txt", "noise.mp4", "empty.mp4"):
        with pytest.raises(ValueError, match=name):
            probe(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"missing\.mp4"):
        read_frames(tmp_path / "missing.mp4", [0])


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        read_frames(tmp_path / "pipe.mp4", [0])


def test_a_file_without_permission_is_refused_by_name(video: Path) -> None:
    video.chmod(0)
    for folder in video.parents[:3]:
        folder.chmod(0o755)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65534)  # root may read everything
        with pytest.raises(PermissionError, match=r"video\.mp4"):
            probe(video)
    finally:
        os.seteuid(user)


def test_an_index_beyond_the_end_names_file_index_and_length(video: Path) -> None:
    with pytest.raises(ValueError, match=r"video\.mp4: frame 40 asked for, it has 40"):
        read_frames(video, [0, 40])


@pytest.mark.parametrize("indices", [[], [-1], [0.5], [[0, 1]]])
def test_indices_that_are_none_are_refused(indices: list, video: Path) -> None:
    with pytest.raises(ValueError, match="at least one is expected"):
        read_frames(video, indices)


def test_caps_on_pixels_and_frames_say_which_one(video: Path) -> None:
    with pytest.raises(ValueError, match=r"64x48, max_pixels=1000"):
        read_frames(video, [0], max_pixels=1000)
    with pytest.raises(ValueError, match=r"3 frames asked for at once, max_frames=2"):
        read_frames(video, [0, 1, 2], max_frames=2)


def test_a_replaced_file_is_counted_anew(video: Path) -> None:
    assert probe(video).n_frames == 40
    encode(video, 7)
    assert probe(video).n_frames == 7


def cut(path: Path, target: Path) -> Path:
    """The first two thirds of a file; of an MP4 with its table moved to the front, where a cut leaves it whole."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(source.streams.video[0]):
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
        path = target
    target.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return target


@pytest.mark.parametrize("name", ["h264.mp4", "h264.mkv", "h264.ts", "mpeg4.avi", "h264.avi", "vp9.webm"])
def test_a_truncated_file_is_damaged_and_gives_the_frames_before(name: str, tmp_path: Path) -> None:
    codec, options = CODECS[name]
    path = encode(tmp_path / name, codec=codec, options=options)
    expected = decode(path)
    broken = cut(path, tmp_path / f"cut_{name}")
    sound = probe(broken, until_damage=True).n_frames
    assert 0 < sound < 40
    if name != "h264.ts":  # promises no length: what is missing there cannot be known, what is torn can
        with pytest.raises(DamagedVideo, match=f"cut_{name}: damaged at frame {sound}") as caught:
            probe(broken)
        assert caught.value.frame == sound
        assert np.array_equal(read_frames(broken, range(40), until_damage=True).numpy(), expected[:sound])
    assert np.array_equal(read_frames(broken, [sound - 1, 0], until_damage=True).numpy(), expected[[sound - 1, 0]])


def test_a_file_cut_before_its_table_is_refused(video: Path) -> None:
    video.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"video\.mp4: not a video that FFmpeg opens"):
        probe(video)


def scratched(path: Path, target: Path, number: int) -> Path:
    """A copy with a quarter of the packet of frame `number` overwritten."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        packet = next(p for p in packets if p.pts == sorted(q.pts for q in packets)[number])
        start, length = packet.pos + packet.size // 4, packet.size // 4
    content = bytearray(path.read_bytes())
    content[start : start + length] = np.random.default_rng(0).bytes(length)
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(("name", "bframes"), [("h264.mp4", 0), ("h264.mp4", 3), ("mpeg4.avi", 0)])
def test_what_a_decoder_conceals_is_damage(name: str, bframes: int, tmp_path: Path) -> None:
    codec, options = CODECS[name]
    path = encode(tmp_path / name, codec=codec, options=options | {"bf": str(bframes)}, width=176, height=144)
    expected = decode(path)
    broken = scratched(path, tmp_path / f"scratched_{name}", 20)
    with pytest.raises(DamagedVideo) as caught:
        read_frames(broken, range(40))
    error = caught.value
    assert 20 - bframes <= error.frame <= 20
    assert np.array_equal(error.frames.numpy(), expected[: error.frame])
    assert np.array_equal(read_frames(broken, [3, 20, 1], until_damage=True).numpy(), expected[[3, 1]])
    assert np.array_equal(read_frames(broken, [2, 5]).numpy(), expected[[2, 5]])
    assert probe(broken, until_damage=True).n_frames == error.frame


def test_damage_crosses_a_process_border(tmp_path: Path) -> None:
    error = DamagedVideo(tmp_path / "a.mp4", 3, "torn", torch.ones(2, 3, 4, 4, dtype=torch.uint8))
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.path, back.frame) == (str(error), error.path, 3)
    assert torch.equal(back.frames, error.frames)


class Reads(Dataset):
    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 4

    def __getitem__(self, item: int) -> torch.Tensor:
        return read_frames(self.path, [item, item + 20])


def test_workers_forked_after_reading_read_the_same(video: Path) -> None:
    expected = torch.stack([Reads(video)[item] for item in range(4)])
    loader = DataLoader(Reads(video), batch_size=4, num_workers=2, multiprocessing_context="fork", timeout=60)
    assert torch.equal(next(iter(loader)), expected)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, suffix in enumerate(["png", "tif", "bmp", "png"]):
        Image.fromarray(picture(number)).save(folder / f"frame{number + 8}.{suffix}")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_a_folder_of_images_reads_in_natural_order(images: Path) -> None:
    assert probe(images) == VideoInfo(4, None, 48, 64)
    got = read_frames(images, [2, 0, 2]).numpy()
    assert np.array_equal(got, np.stack([picture(n).transpose(2, 0, 1) for n in (2, 0, 2)]))


def test_a_grey_jpeg_comes_out_in_three_channels(tmp_path: Path) -> None:
    Image.fromarray(picture(0)[..., 0]).save(tmp_path / "1.jpg")
    assert read_frames(tmp_path, [0]).shape == (1, 3, 48, 64)


def test_a_folder_with_a_torn_image_is_damaged_there(images: Path) -> None:
    torn = images / "frame10.bmp"
    torn.write_bytes(torn.read_bytes()[:2000])
    with pytest.raises(DamagedVideo, match=r"frame 2 \(frame10\.bmp"):
        read_frames(images, [0, 2])
    assert read_frames(images, [3, 0, 1], until_damage=True).shape[0] == 3
    assert probe(images, until_damage=True).n_frames == 2


def test_folders_that_are_no_video_are_refused(images: Path, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(ValueError, match="bare: a folder without images"):
        probe(tmp_path / "bare")
    with pytest.raises(ValueError, match="frame 4 asked for, it has 4 images"):
        read_frames(images, [4])
    Image.fromarray(picture(0, 20, 20)).save(images / "frame9.tif")
    with pytest.raises(ValueError, match="frame 1 is 20x20"):
        read_frames(images, range(4))
    Image.fromarray(np.zeros((48, 64), np.uint16)).save(images / "frame9.tif")
    with pytest.raises(ValueError, match="8 bits per channel"):
        read_frames(images, range(4))


def test_written_frames_are_read_back(tmp_path: Path) -> None:
    frames = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 32, 48) * 50
    write_video(tmp_path / "a.mp4", frames, 25, crf=10)
    assert probe(tmp_path / "a.mp4") == VideoInfo(5, 25.0, 32, 48)
    assert (read_frames(tmp_path / "a.mp4", range(5)).int() - frames.int()).abs().max() <= 4


def test_odd_sizes_are_written_with_one_row_or_column_more(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", (np.full((1, 31, 47), n, np.uint8) for n in range(3)), 29.97)
    info = probe(tmp_path / "a.mp4")
    assert (info.n_frames, info.height, info.width) == (3, 32, 48)


def test_an_interrupted_write_leaves_nothing_and_spoils_nothing(video: Path) -> None:
    before = video.read_bytes()

    def frames() -> Iterator[np.ndarray]:
        yield np.zeros((3, 48, 64), np.uint8)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_video(video, frames(), 10)
    assert [path.name for path in video.parent.iterdir()] == ["video.mp4"]
    assert video.read_bytes() == before


def test_frames_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    image = np.zeros((3, 8, 8), np.uint8)
    for frames, message in [([], "no frames"), ([image.astype(float)], "float64"), ([image, image[:, :4]], "one size")]:
        with pytest.raises(ValueError, match=message):
            write_video(tmp_path / "a.mp4", frames, 10)
    with pytest.raises(ValueError, match="0 frames per second"):
        write_video(tmp_path / "a.mp4", [image], 0)
    assert not list(tmp_path.iterdir())
