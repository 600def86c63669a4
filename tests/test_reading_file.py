"""A file of readings: as safetensors would write it, read in parts, and refused wherever it is not whole."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from tests.disks import closed, largest_file, small_disk
from vigil.reading_file import STALE_S, Packed, ReadingFile, remove_stale, write_readings

NAMES = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int64): "I64", np.dtype(bool): "BOOL"}


def packed(array: np.ndarray) -> Packed:
    return Packed(NAMES[array.dtype], array.shape, bytearray(array.tobytes()))


def arrays() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "hidden.2": generator.normal(size=(4, 3)).astype(np.float32),
        "hidden.10": generator.normal(size=(4, 5)).astype(np.float16),
        "mask": generator.random(7) > 0.5,
        "count": np.array(12),
        "nothing": np.zeros((0, 3), np.float32),
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "abc.safetensors"
    write_readings(path, "the key", "abc", {name: packed(array) for name, array in arrays().items()})
    return path


def test_safetensors_reads_what_we_write(file: Path) -> None:
    read = load(file.read_bytes())
    assert read.keys() == arrays().keys()
    for name, array in arrays().items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_each_tensor_comes_back_with_its_type_and_shape(file: Path) -> None:
    with ReadingFile(file) as readings:
        assert (readings.key, readings.video) == ("the key", "abc")
        for name, array in arrays().items():
            assert readings.read(name) == packed(array)


def test_only_the_bytes_of_the_asked_tensor_are_read(tmp_path: Path) -> None:
    layer = np.zeros((1000, 250), np.float32)
    path = tmp_path / "abc.safetensors"
    write_readings(path, "", "abc", {f"hidden.{k}": packed(layer) for k in range(10)})

    def bytes_read() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    before = bytes_read()
    with ReadingFile(path) as readings:
        readings.read("hidden.7")
    assert layer.nbytes < bytes_read() - before < 1.1 * layer.nbytes


def test_a_file_that_is_replaced_while_it_is_open_stays_what_it_was(file: Path) -> None:
    with ReadingFile(file) as readings:
        write_readings(file, "the key", "abc", {"hidden.2": packed(np.ones((9, 9), np.float32))})
        assert readings.read("hidden.2") == packed(arrays()["hidden.2"])
    with ReadingFile(file) as readings:
        assert readings.read("hidden.2").shape == (9, 9)


def test_a_file_that_is_cut_while_it_is_open_is_refused(file: Path) -> None:
    with ReadingFile(file) as readings:
        os.truncate(file, file.stat().st_size - 1)
        last = max(readings.entries, key=lambda name: readings.entries[name].first_byte)
        with pytest.raises(ValueError, match="it became shorter while it was read"):
            readings.read(last)


@pytest.mark.parametrize("name", ["hidden.2", "hidden.10", "mask", "count"])
def test_a_changed_bit_is_found_in_its_own_tensor_alone(file: Path, name: str) -> None:
    with ReadingFile(file) as readings:
        place = readings.entries[name]
    blob = bytearray(file.read_bytes())
    blob[place.end_byte - 1] ^= 1
    file.write_bytes(blob)
    with ReadingFile(file, "Arson001") as readings:
        for other in arrays().keys() - {name}:
            readings.read(other)
        with pytest.raises(ValueError, match=rf"abc.safetensors: .* Arson001 .*bytes of {name} are not those"):
            readings.read(name)


@pytest.mark.parametrize("length", [0, 5, 8, 20, -1])
def test_a_truncated_file_is_refused_when_it_is_opened(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(
        ValueError, match=r"abc\.safetensors: the reading of Arson001 is damaged \(.*\); delete the file"
    ):
        ReadingFile(file, "Arson001")


def test_bytes_behind_the_last_tensor_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(ValueError, match="its readings end at byte"):
        ReadingFile(file)


@pytest.mark.parametrize(
    "blob",
    [
        *(b"\x80\x04pickled" * 20, b"PK\x03\x04" + bytes(60), (2**60).to_bytes(8, "little") + b"{}"),
        *(b"\xff" * 64, bytes(64), b"\x02" + bytes(7) + b"{}", b"\x04" + bytes(7) + b"null"),
        (60_000).to_bytes(8, "little") + b"[" * 60_000,
        save({"weight": np.ones(2, np.float32)}),
        save({"weight": np.ones(2, np.float32)}, {"key": "the key", "video": "abc"}),
        save({"weight": np.ones(2, np.float32)}, {"key": "the key", "video": "abc", "tensors": "[]"}),
        save({"weight": np.ones(2, np.float32)}, {"key": "the key", "video": "abc", "tensors": "{}"}),
    ],
    ids=lambda blob: repr(blob[:12]),
)
def test_what_is_no_file_of_readings_is_refused(file: Path, blob: bytes) -> None:
    file.write_bytes(blob)
    with pytest.raises(ValueError, match=r"abc\.safetensors: .* is damaged"):
        ReadingFile(file)


def place(**changed: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header["hidden.2"].update(changed)


def written(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        told = json.loads(header["__metadata__"]["tensors"])
        if value is None:
            del told[name]
        else:
            told[name] = value
        header["__metadata__"]["tensors"] = json.dumps(told)

    return change


def both(shape: list[Any]) -> Callable[[dict[str, Any]], None]:
    def change(header: dict[str, Any]) -> None:
        place(shape=shape)(header)
        written("hidden.2", ["F32", shape, "00000000"])(header)

    return change


@pytest.mark.parametrize(
    "change",
    [
        place(shape=[3, 4]),
        place(dtype="I32"),
        *(both(shape) for shape in ([True, 12], [-4, -3], [2**70, 3], [1] * 20, ["4", 3], [4.0, 3], "43", None)),
        *(place(data_offsets=ends) for ends in ([0, 2**60], [-48, 0], [8, 57], [48, 0], [1, 49], [0], "ab", [0.0, 48])),
        lambda header: header.pop("mask"),
        lambda header: header.update(more=header["mask"]),
        lambda header: header.update(mask=7),
        written("mask", None),
        written("ghost", ["F32", [1], "00000000"]),
        *(written("mask", value) for value in ("BOOL", ["BOOL", [7]])),
        lambda header: header.pop("__metadata__"),
        lambda header: header["__metadata__"].pop("video"),
    ],
)  # fmt: skip
def test_a_header_that_contradicts_itself_or_the_file_is_refused(file: Path, change: Callable[..., object]) -> None:
    blob = file.read_bytes()
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + blob[8 + length :])
    with pytest.raises(ValueError, match=r"abc\.safetensors: .* is damaged"):
        ReadingFile(file)


def test_a_folder_and_a_missing_file_are_not_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        ReadingFile(tmp_path / "none")
    with pytest.raises((OSError, ValueError), match=str(tmp_path)):
        ReadingFile(tmp_path)


BIG = {"video": packed(np.zeros(500_000, np.float32))}


def test_a_file_too_large_for_its_disk_leaves_the_old_one_and_says_what_to_do(file: Path) -> None:
    before = file.read_bytes()
    with largest_file(1_000_000), pytest.raises(OSError, match="no room for 2,000,") as refused:
        write_readings(file, "the key", "abc", BIG)
    said = str(refused.value)
    assert said.startswith(f"{file.parent}: no room")
    assert all(part in said for part in ("are free", "lightning store prune", "VIGIL_CACHE", "kept"))
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        file = disk / "abc.safetensors"
        write_readings(file, "the key", "abc", {"a": packed(np.ones(9, np.float32))})
        with pytest.raises(
            OSError, match=r"no room for 2,000,\d+ bytes of readings, 1,04\d,\d+ are free \(No space left"
        ):
            write_readings(file, "the key", "abc", BIG)
        assert list(disk.iterdir()) == [file]
        with ReadingFile(file) as readings:
            assert list(readings.entries) == ["a"]


def test_a_folder_that_is_closed_is_read_and_says_so_when_it_is_written(file: Path) -> None:
    with closed(file.parent):
        with ReadingFile(file) as readings:
            assert readings.read("mask") == packed(arrays()["mask"])
        with pytest.raises(OSError, match=r"readings cannot be written here .*VIGIL_CACHE=FOLDER") as refused:
            write_readings(file, "the key", "abc", {"a": packed(np.ones(9, np.float32))})
    assert str(refused.value).startswith(f"{file.parent}: ")
    assert list(file.parent.iterdir()) == [file]


def test_parts_of_killed_writers_go_once_they_are_an_hour_old(file: Path) -> None:
    for name, age in (("old", STALE_S + 60), ("new", STALE_S - 60)):
        part = file.with_name(f"{name}.part")
        part.write_bytes(bytes(10))
        os.utime(part, times=(time.time() - age,) * 2)
    assert remove_stale(file.parent) == 10
    assert {path.name for path in file.parent.iterdir()} == {"abc.safetensors", "new.part"}


def test_a_file_may_be_read_by_those_whom_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_readings(tmp_path / "a.safetensors", "", "a", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o640
