"""One file of readings: named tensors in safetensors, read one by one, written whole, refused where anything is wrong.

Imports no torch: sizes, names and damage of a store can be told at once.
"""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

ITEM_BYTES = {
    **{"F64": 8, "F32": 4, "F16": 2, "BF16": 2},
    **{"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1},
}
LARGEST_HEADER = 100_000_000  # safetensors' own limit
STALE_S = 3600  # a file is written within seconds: a part that is older than this belongs to a process that was killed
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class Packed(NamedTuple):
    """A tensor as it lies on disk: safetensors' name of its type, its shape and its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytearray | memoryview


class Entry(NamedTuple):
    """Where a tensor lies in a file, and what its bytes must add up to."""

    dtype: str
    shape: tuple[int, ...]
    first_byte: int
    end_byte: int
    crc32: str


class ReadingFile:
    """A file of readings, open: `entries` say what is in it, `read` gives the bytes of one tensor.

    Header, length and names are checked when it is opened, a tensor's bytes when it is read. All of it comes through
    one descriptor, so a file that is replaced meanwhile stays what it was. of: whose readings, for errors. key, video:
    what the writer said that they belong to. Raises ValueError, naming the file, for whatever is not whole or no file
    of readings; OSError where it cannot be opened.
    """

    def __init__(self, path: Path, of: str = "a video") -> None:
        self.path, self._of = path, of
        self._descriptor = os.open(path, os.O_RDONLY)
        try:
            self.key, self.video, self.entries = self._parse()
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> ReadingFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._descriptor)

    def read(self, name: str) -> Packed:
        """A tensor's bytes. Raises KeyError for a name that is not there, ValueError for bytes that were altered."""
        entry = self.entries[name]
        data = self._bytes(entry.first_byte, entry.end_byte - entry.first_byte)
        if checksum(data) != entry.crc32:
            raise self.fault(f"the bytes of {name} are not those that were written")
        return Packed(entry.dtype, entry.shape, data)

    def fault(self, reason: str) -> ValueError:
        """The error that says what is wrong with this file."""
        return ValueError(f"{self.path}: the reading of {self._of} is damaged ({reason}); delete the file")

    def _bytes(self, first: int, length: int) -> bytearray:
        buffer = bytearray(length)
        view, done = memoryview(buffer), 0
        while done < length:  # a call reads 2 GB at most
            try:
                count = os.preadv(self._descriptor, [view[done:]], first + done)
            except OSError as error:
                raise self.fault(f"it cannot be read: {error.strerror}") from error
            if not count:
                raise self.fault("it became shorter while it was read")
            done += count
        return buffer

    def _parse(self) -> tuple[str, str, dict[str, Entry]]:
        size = os.fstat(self._descriptor).st_size
        if size < 8:
            raise self.fault(f"it has {size} bytes")
        length = int.from_bytes(self._bytes(0, 8), "little")
        if length > min(size - 8, LARGEST_HEADER):
            raise self.fault(f"its header would have {length} bytes, the file has {size}")
        try:
            header = json.loads(self._bytes(8, length))
            metadata = header.pop("__metadata__")
            key, video, written = metadata["key"], metadata["video"], json.loads(metadata["tensors"])
            entries = {name: self._entry(8 + length, told, written.pop(name)) for name, told in header.items()}
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise self.fault("its header is not that of readings") from error
        if written:
            raise self.fault(f"{', '.join(sorted(written))} went out of its header")
        end = 8 + length
        for name, entry in sorted(entries.items(), key=lambda item: item[1].first_byte):
            if entry.first_byte != end:
                raise self.fault(f"{name} lies at byte {entry.first_byte} instead of {end}")
            end = entry.end_byte
        if end != size:
            raise self.fault(f"its readings end at byte {end}, the file at {size}")
        return key, video, entries

    @staticmethod
    def _entry(start: int, told: dict[str, Any], written: list[Any]) -> Entry:
        dtype, shape, (first, end) = told["dtype"], told["shape"], told["data_offsets"]
        if len(shape) > 16 or not all(type(number) is int and number >= 0 for number in (*shape, first, end)):
            raise ValueError("neither shape nor place")
        if end - first != ITEM_BYTES[dtype] * math.prod(shape):
            raise ValueError("of another size than its shape")
        if written[:2] != [dtype, shape]:  # no checksum of bytes tells (2, 3) from (3, 2)
            raise ValueError("of another shape than was written")
        return Entry(dtype, tuple(shape), start + first, start + end, written[2])


def checksum(data: bytes | bytearray | memoryview) -> str:
    """CRC-32 of bytes, eight hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def write_readings(path: Path, key: str, video: str, tensors: Mapping[str, Packed]) -> None:
    """Write a file that `ReadingFile` reads, whole or not at all: beside its place, to the disk, and then into it.

    Raises OSError that says what to do where the disk is full or the folder cannot be written to.
    """
    order = sorted(tensors, key=lambda name: (-ITEM_BYTES[tensors[name].dtype], name))  # as safetensors: aligned
    header: dict[str, Any] = {}
    written, end = {}, 0
    for name in order:
        dtype, shape, data = tensors[name]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        written[name] = [dtype, list(shape), checksum(data)]
        end += len(data)
    header["__metadata__"] = {"key": key, "video": video, "tensors": json.dumps(written)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    write_whole(path, [len(text).to_bytes(8, "little"), text, *(tensors[name].data for name in order)])


def write_whole(path: Path, parts: list[bytes | bytearray | memoryview]) -> None:
    """Write a file of `parts` that appears whole or not at all; errors as of `write_readings`."""
    part = path.with_name(f"{path.stem}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            for data in parts:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        _unlink(part)
        raise explained(error, path.parent, sum(map(len, parts))) from error
    except BaseException:
        _unlink(part)
        raise


def _unlink(part: Path) -> None:
    try:
        part.unlink()
    except OSError:  # it was never made, or the folder is closed: the error under way says so
        return


def explained(error: OSError, folder: Path, n_bytes: int) -> OSError:
    """The error with what to do about it, where it is one of a full disk or of a folder that is closed."""
    if error.errno in FULL:
        return OSError(
            f"{folder}: no room for {n_bytes:,} bytes of readings, {_free(folder):,} are free ({error.strerror}). "
            "`lightning store prune` makes room, VIGIL_CACHE=FOLDER keeps readings elsewhere; those made so far are "
            "kept, and the same command goes on from there"
        )
    if error.errno in CLOSED:
        return OSError(
            f"{folder}: readings cannot be written here ({error.strerror}), only read; VIGIL_CACHE=FOLDER keeps them "
            "in a folder that can be written to"
        )
    return error


def _free(folder: Path) -> int:
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    return shutil.disk_usage(there).free


def remove_stale(folder: Path) -> int:
    """Remove what killed processes left half written, once it is an hour old; the bytes that this freed."""
    freed = 0
    for part in folder.glob("*.part"):
        try:
            status = part.stat()
            if time.time() - status.st_mtime > STALE_S:
                part.unlink()
                freed += status.st_size
        except FileNotFoundError:  # another process was faster
            continue
    return freed
