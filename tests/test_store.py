"""Readings and facts on disk: written whole, read back equal, and refused where anything is wrong with them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save_file

from tests.disks import closed, largest_file
from vigil.store import FileMemory, Store, cache_root, content_hash, fingerprint, keep_tensors, refuse_shared_names

KEY = {"encoder": "abc", "view": {"frames": 4, "segments": 32}}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    file = tmp_path / "Arson001_x264.mp4"
    file.write_bytes(b"not decoded here")
    return file


def start(target: Callable[..., None], *args: object) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=target, args=args)  # spawn would import torch again
    process.start()
    return process


@pytest.mark.parametrize(
    "reading",
    [
        torch.rand(32, 384),
        torch.rand(3, 4, 5).to(torch.bfloat16),
        torch.arange(7).double(),
        torch.tensor(0.1),
        torch.rand(6, 4).T,
        torch.rand(0, 4),
        torch.tensor([[True, False]]),
        *(torch.arange(5).to(dtype) for dtype in (torch.float16, torch.int64, torch.int32, torch.int16, torch.int8)),
        torch.arange(250, 256).to(torch.uint8),
    ],
    ids=lambda reading: f"{reading.dtype}{tuple(reading.shape)}",
)
def test_a_reading_comes_back_equal(video: Path, reading: torch.Tensor) -> None:
    store = Store(KEY)
    assert store.read(video, ["video"]) is None
    assert store.names(video) == []
    store.write(video, {"video": reading, "other": torch.ones(3)})
    assert store.names(video) == ["other", "video"]
    back = Store(KEY).read(video, ["video"])
    assert back.keys() == {"video"}
    assert back["video"].dtype == reading.dtype
    assert back["video"].shape == reading.shape
    assert torch.equal(back["video"], reading)
    assert torch.equal(load(store.path(video).read_bytes())["video"], reading)  # for other people's programs


def test_a_reading_of_a_type_that_cannot_be_kept_is_refused(video: Path) -> None:
    with pytest.raises(ValueError, match=r"torch\.complex64 cannot be kept; give one of float64"):
        Store(KEY).write(video, {"a": torch.ones(2, dtype=torch.complex64)})


def test_tensors_come_in_the_order_and_number_that_they_are_asked_for(video: Path) -> None:
    store = Store(KEY)
    store.write(video, {f"hidden.{layer}": torch.full((2,), layer) for layer in range(5)})
    read = store.read(video, ["hidden.3", "hidden.1"])
    assert {name: rows.tolist() for name, rows in read.items()} == {"hidden.3": [3, 3], "hidden.1": [1, 1]}
    assert list(read) == ["hidden.3", "hidden.1"]
    assert store.read(video, ["hidden.3", "hidden.5"]) is None


def test_what_is_written_joins_what_is_there(video: Path) -> None:
    store = Store(KEY)
    store.write(video, {"a": torch.ones(2), "b": torch.ones(2)})
    store.write(video, {"b": torch.zeros(3), "c": torch.full((1,), 7.0)})
    read = store.read(video, ["a", "b", "c"])
    assert {name: rows.tolist() for name, rows in read.items()} == {"a": [1, 1], "b": [0, 0, 0], "c": [7]}


def test_a_store_of_another_key_never_meets_it(video: Path) -> None:
    Store(KEY).write(video, {"a": torch.ones(2)})
    for other in ({**KEY, "encoder": "abd"}, {**KEY, "more": None}, {**KEY, "view": {"frames": 4, "segments": 31}}, {}):
        assert Store(other).read(video, ["a"]) is None
        Store(other).write(video, {"a": torch.zeros(2)})
    same = Store({"view": {"segments": 32, "frames": 4}, "encoder": "abc"}).read(video, ["a"])
    assert same["a"].tolist() == [1, 1]


def test_readings_belong_to_the_bytes_of_a_video_and_not_to_its_name(video: Path, tmp_path: Path) -> None:
    store = Store(KEY)
    store.write(video, {"a": torch.ones(2)})
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(video.read_bytes())
    assert store.names(copy) == ["a"]
    video.write_bytes(b"another recording")
    assert store.read(video, ["a"]) is None


def test_a_store_says_in_clear_what_it_is_for(video: Path) -> None:
    store = Store(KEY, made_by="MilRanker")
    store.write(video, {"a": torch.ones(2)})
    assert json.loads((store.folder / "store.json").read_text()) == {"key": KEY, "made_by": "MilRanker"}


def damage(path: Path, how: str) -> None:
    blob = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(blob[:-3])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "one bit changed":
        blob[-1] ^= 1
        path.write_bytes(blob)
    elif how == "of another shape":
        shape, other = b'"shape": [2, 3]', b'"shape": [3, 2]'
        assert shape in blob
        path.write_bytes(blob.replace(shape, other))
    elif how == "foreign":
        save_file({"a": torch.ones(2)}, path)


@pytest.mark.parametrize("how", ["truncated", "empty", "one bit changed", "of another shape", "foreign"])
def test_a_damaged_or_foreign_file_is_refused_by_name_and_can_be_written_again(video: Path, how: str) -> None:
    store = Store(KEY)
    store.write(video, {"a": torch.rand(2, 3)})
    damage(store.path(video), how)
    with pytest.raises(ValueError, match=r"\.safetensors: .*Arson001_x264.*delete the file") as refused:
        store.read(video, ["a"])
    assert str(store.path(video)) in str(refused.value)
    store.write(video, {"b": torch.ones(2, 3)})
    assert store.names(video) == ["b"]  # nothing of a damaged file is taken over
    assert store.read(video, ["b"])["b"].tolist() == [[1] * 3] * 2


def test_a_damaged_file_can_be_discarded(video: Path) -> None:
    store = Store(KEY)
    store.discard(video)  # there is none
    store.write(video, {"a": torch.ones(2)})
    store.discard(video)
    assert store.read(video, ["a"]) is None


def test_readings_of_another_video_or_another_key_under_this_name_are_refused(video: Path, tmp_path: Path) -> None:
    store, other = Store(KEY), Store({"encoder": "other"})
    second = tmp_path / "Arson002_x264.mp4"
    second.write_bytes(b"another recording")
    for writer, of in ((store, second), (other, video)):
        writer.write(of, {"a": torch.rand(2, 3)})
        store.folder.mkdir(parents=True, exist_ok=True)
        store.path(video).write_bytes(writer.path(of).read_bytes())
        for ask in (store.names, lambda asked: store.read(asked, ["a"])):
            with pytest.raises(ValueError, match=r"Arson001_x264.* is damaged \(it is that of another video"):
                ask(video)


def write_often(video: Path, name: str, value: float, times: int) -> None:
    torch.set_num_threads(1)  # a fork has none of its parent's threads
    store = Store(KEY)
    for _ in range(times):
        store.write(video, {name: torch.full((2_000_000,), value)})


def test_a_writer_killed_in_the_middle_leaves_no_partial_reading(video: Path) -> None:
    store = Store(KEY)
    for delay_ms in range(20, 200, 18):
        process = start(write_often, video, "a", 3.0, 10_000)
        time.sleep(delay_ms / 1000)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it was still at it
        reading = store.read(video, ["a"])
        assert reading is None or ((reading["a"] == 3).all() and len(reading["a"]) == 2_000_000)
    parts = list(store.folder.glob("*.part"))
    assert parts  # at least one was in the middle of a file
    for part in parts:
        os.utime(part, times=(time.time() - 4000,) * 2)
    store.prepare()
    assert list(store.folder.glob("*.part")) == []
    store.write(video, {"a": torch.zeros(2)})
    assert store.read(video, ["a"])["a"].tolist() == [0, 0]


def test_two_processes_that_write_the_same_video_leave_one_whole_reading(video: Path) -> None:
    writers = [start(write_often, video, "a", value, 15) for value in (1.0, 2.0)]
    store = Store(KEY)
    while any(writer.is_alive() for writer in writers):
        reading = (store.read(video, ["a"]) or {}).get("a")  # never half of either
        assert reading is None or (len(reading) == 2_000_000 and (reading == reading[0]).all())
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert store.read(video, ["a"])["a"][0] in (1.0, 2.0)
    assert list(store.folder.glob("*.part")) == []


def test_two_processes_that_add_different_tensors_never_mix_them(video: Path) -> None:
    writers = [start(write_often, video, name, value, 10) for name, value in (("a", 1.0), ("b", 2.0))]
    store = Store(KEY)
    while any(writer.is_alive() for writer in writers):
        for name, value in (("a", 1), ("b", 2)):
            reading = store.read(video, [name])
            assert reading is None or (reading[name] == value).all()
    assert [writer.exitcode for writer in writers] == [0, 0]
    for name, value in (("a", 1.0), ("b", 2.0)):  # one's addition may be lost: it is missing then, and made again
        if store.read(video, [name]) is None:
            write_often(video, name, value, 1)
    read = store.read(video, ["a", "b"])
    assert {name: set(rows.tolist()) for name, rows in read.items()} == {"a": {1.0}, "b": {2.0}}


def test_a_failed_write_leaves_nothing(video: Path) -> None:
    store = Store(KEY)
    store.path(video).mkdir(parents=True)
    with pytest.raises(OSError, match="safetensors"):
        store.write(video, {"a": torch.ones(3)})
    assert {path.name for path in store.folder.iterdir()} == {store.path(video).name, "store.json"}


def test_what_was_not_chosen_can_be_dropped(tmp_path: Path) -> None:
    store, videos = Store(KEY), []
    for number in range(4):
        videos.append(tmp_path / f"{number}.mp4")
        videos[-1].write_bytes(bytes([number]))
    layers = {f"hidden.{layer}": torch.full((50,), layer) for layer in range(3)}
    store.write(videos[0], layers)
    store.write(videos[1], {"hidden.1": layers["hidden.1"]})
    store.write(videos[2], {"hidden.0": layers["hidden.0"]})
    store.write(videos[3], layers)
    damage(store.path(videos[3]), "truncated")
    sizes = [store.path(video).stat().st_size for video in videos]
    untouched = store.path(videos[1]).stat()
    freed = store.keep(["hidden.1"])
    assert [store.names(video) for video in videos[:3]] == [["hidden.1"], ["hidden.1"], []]
    assert store.read(videos[0], ["hidden.1"])["hidden.1"].tolist() == [1] * 50
    assert freed == sizes[0] - store.path(videos[0]).stat().st_size + sizes[2]
    assert store.path(videos[1]).stat().st_ino == untouched.st_ino  # it held nothing else, and was not written again
    assert store.path(videos[3]).stat().st_size == sizes[3]  # left for a filling to report
    with pytest.raises(ValueError, match=r"no video has hidden\.7; there are hidden\.1"):
        store.keep(["hidden.1", "hidden.7"])
    assert store.names(videos[0]) == ["hidden.1"]


def test_a_closed_store_is_read_and_facts_that_cannot_be_remembered_are_found_again(
    video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Store(KEY).write(video, {"a": torch.ones(2)})
    with closed(cache_root()):
        store, find = Store(KEY), Counter()
        assert store.read(video, ["a"])["a"].tolist() == [1, 1]
        for fact in ("size", "size", "other"):
            store.memory.recall(video, fact, find)
        assert find.calls == 2
        assert capsys.readouterr().err.count("is not remembered") == 1
        assert FileMemory().recall(video, "size", find) == 16
        assert find.calls == 3
        with pytest.raises(OSError, match=r"readings cannot be written here .*VIGIL_CACHE"):
            store.write(video, {"b": torch.ones(2)})
        with pytest.raises(OSError, match=r"readings cannot be written here"):
            Store({"encoder": "new"}).write(video, {"b": torch.ones(2)})
        with pytest.raises(OSError, match=r"readings cannot be written here"):
            store.discard(video)


def test_facts_that_could_not_be_written_outlast_a_reload(video: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.mp4"
    other.write_bytes(b"of another process")
    FileMemory().recall(video, "before", Counter())
    memory, find = FileMemory(), Counter()
    with closed(cache_root()):
        assert memory.recall(video, "size", find) == 16
        memory.reload()
        assert memory.recall(video, "size", find) == 16
        assert find.calls == 1
    FileMemory().recall(other, "size", Counter())
    assert not memory.knows(other, "size")
    memory.reload()
    assert memory.knows(other, "size")
    assert memory.knows(video, "before")
    assert memory.knows(video, "size")


def test_dropping_passes_over_what_is_called_otherwise_and_links(video: Path, tmp_path: Path) -> None:
    store = Store(KEY)
    store.write(video, {"a": torch.ones(2), "b": torch.ones(2)})
    whole = store.path(video).read_bytes()
    elsewhere, named = tmp_path / "elsewhere", store.folder / "model.safetensors"
    elsewhere.write_bytes(whole)
    named.write_bytes(whole)
    (store.folder / f"{'c' * 32}.safetensors").symlink_to(elsewhere)
    store.keep(["a"])
    assert store.names(video) == ["a"]
    assert elsewhere.read_bytes() == named.read_bytes() == whole
    assert (store.folder / f"{'c' * 32}.safetensors").is_symlink()


def test_two_streams_that_keep_a_tensor_of_one_name_are_refused() -> None:
    refuse_shared_names({"video": ["hidden.1", "hidden.2"], "flow": ["flow"]})
    with pytest.raises(ValueError, match=r"the streams video and flow both keep a tensor hidden\.2"):
        refuse_shared_names({"video": ["hidden.1", "hidden.2"], "flow": ["hidden.2"]})


def test_a_full_disk_keeps_what_was_there(video: Path) -> None:
    store = Store(KEY)
    store.write(video, {"a": torch.ones(2)})
    with largest_file(100_000), pytest.raises(OSError, match=r"no room for .*lightning store prune"):
        store.write(video, {"b": torch.ones(100_000)})
    assert store.read(video, ["a"])["a"].tolist() == [1, 1]
    assert list(store.folder.glob("*.part")) == []


def test_the_cache_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIGIL_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    monkeypatch.setenv("VIGIL_CACHE", "")
    assert cache_root() == Path(".cache/vigil")


class Counter:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, path: Path) -> int:
        self.calls += 1
        return path.stat().st_size


def test_a_fact_is_found_once_and_again_when_the_file_changes(video: Path) -> None:
    find, memory = Counter(), FileMemory()
    assert not memory.knows(video, "size")
    assert [memory.recall(video, "size", find) for _ in range(3)] == [16] * 3
    assert FileMemory().recall(video, "size", find) == 16  # the next run
    assert find.calls == 1
    assert memory.knows(video, "size")
    assert not memory.knows(video, "other")
    video.write_bytes(b"shorter")
    assert memory.recall(video, "size", find) == 7
    before = video.stat()
    os.utime(video, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert not memory.knows(video, "size")
    assert find.calls == 2


def test_a_folder_is_another_one_when_a_file_in_it_changes(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"a")
    first = content_hash(folder)
    memory = FileMemory()
    memory.recall(folder, "content", content_hash)
    (folder / "1.png").write_bytes(b"b")
    assert not memory.knows(folder, "content")
    second = content_hash(folder)
    (folder / "1.png").rename(folder / "2.png")
    assert len({first, second, content_hash(folder)}) == 3


@pytest.mark.parametrize(
    "broken", ['["abc", 12', "", "\0\xff", '["a"]', "7", '[["a"], 1]', "null", '["a", 1, 2]'], ids=repr
)
def test_a_broken_line_is_passed_over(video: Path, broken: str) -> None:
    find = Counter()
    FileMemory().recall(video, "size", find)
    memory = FileMemory()
    memory.file.write_text(f"{broken}\n{memory.file.read_text()}{broken}")
    assert memory.recall(video, "size", find) == 16
    assert find.calls == 1
    for fact in ("after", "later"):  # the first of them ends the broken line, and is lost with it
        memory.recall(video, fact, find)
    assert FileMemory().knows(video, "later")


def remember(video: Path, name: str) -> None:
    memory = FileMemory()
    for number in range(300):
        memory.recall(video, f"{name} {number}", lambda path: "x" * 500)


def test_facts_that_several_processes_append_at_once_are_all_kept(video: Path) -> None:
    processes = [start(remember, video, name) for name in "abc"]
    for process in processes:
        process.join()
    memory = FileMemory()
    assert len(memory.file.read_text().splitlines()) == 900
    assert all(memory.knows(video, f"{name} {number}") for name in "abc" for number in range(300))


@pytest.mark.parametrize("change", ["first", "middle", "last", "size"])
def test_a_fingerprint_tells_files_apart_that_differ_where_videos_do(tmp_path: Path, change: str) -> None:
    data = bytearray(np.random.default_rng(0).bytes(400_000))
    (tmp_path / "one").write_bytes(data)
    (tmp_path / "copy").write_bytes(data)
    if change == "size":
        data += b"x"
    else:
        data[{"first": 3, "middle": len(data) // 5 * 2 + 99, "last": -1}[change]] ^= 1
    (tmp_path / "other").write_bytes(data)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "copy") != fingerprint(tmp_path / "other")


def test_a_frame_folder_has_a_fingerprint(tmp_path: Path) -> None:
    for folder, last in (("one", b"c"), ("copy", b"c"), ("other", b"d")):
        (tmp_path / folder).mkdir()
        for number, content in enumerate((b"a", b"b", last)):
            (tmp_path / folder / f"{number}.jpg").write_bytes(content)
    assert fingerprint(tmp_path / "one") == fingerprint(tmp_path / "copy") != fingerprint(tmp_path / "other")


def test_keeping_a_reading_of_events_keeps_that_of_every_event(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"video")
    store = Store({"reads": "events"}, tmp_path / "store")
    store.write(video, {name: torch.ones(2) for name in ("tokens.0-9", "tokens.12-40", "mil.0-9", "hidden.20")})
    assert keep_tensors(store.folder, ["tokens"]) > 0
    assert store.names(video) == ["tokens.0-9", "tokens.12-40"]
