"""Readings on disk: what a frozen backbone said of a video, kept so that nobody asks twice."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor


def cache_root() -> Path:
    """Where readings and file facts are kept: VIGIL_CACHE of the environment, else .cache/vigil where it runs."""
    return Path(os.environ.get("VIGIL_CACHE") or Path(".cache") / "vigil")


class FileMemory:
    """Facts about files that are costly to find (frame count, content hash), remembered between runs.

    One line of JSON per fact; a fact holds while the file's size and modification time stay. Appends of any number of
    processes may mix, since a line is written in one call; a broken line is passed over and its fact found again.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or cache_root() / "files.jsonl"
        self._facts: dict[str, Any] | None = None

    def recall(self, path: Path, fact: str, find: Callable[[Path], Any]) -> Any:
        """The fact `fact` of the file or folder `path`; `find(path)` (JSON-able) is called where it is not known."""
        key = self._key(path, fact)
        facts = self._load()
        if key not in facts:
            facts[key] = find(path)
            self.file.parent.mkdir(parents=True, exist_ok=True)
            line = json.dumps([key, facts[key]]) + "\n"
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        return facts[key]

    def knows(self, path: Path, fact: str) -> bool:
        """Whether `recall` would answer at once."""
        return self._key(path, fact) in self._load()

    def reload(self) -> None:
        """Learn what other processes have found since."""
        self._facts = None

    def _key(self, path: Path, fact: str) -> str:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stamp = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr((fact, str(path.resolve()), stamp)).encode()).hexdigest()[:32]

    def _load(self) -> dict[str, Any]:
        if self._facts is None:
            self._facts = {}
            if self.file.is_file():
                for line in self.file.read_text(errors="replace").splitlines():
                    try:
                        key, value = json.loads(line)
                        self._facts[key] = value
                    except (ValueError, TypeError):
                        continue
        return self._facts


def content_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, or of the names and bytes of a folder's files; 32 hexadecimal digits."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if path.is_dir():
            digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:32]


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's size and of six parts of it, or of a folder's first, middle and last file; 32 hex digits.

    Reads at most 200 KB, so that a thousand videos take seconds: equal files have equal fingerprints, and two videos
    that were ever encoded apart differ.
    """
    digest = hashlib.sha256()
    if path.is_dir():
        files = sorted(path.iterdir())
        digest.update(repr([(file.name, file.stat().st_size) for file in files]).encode())
        parts = [(file, 0) for file in (files[:1] + files[len(files) // 2 :][:1] + files[-1:])]
    else:
        size = path.stat().st_size
        digest.update(str(size).encode())
        parts = [(path, k * max(0, size - (1 << 15)) // 5) for k in range(6)]
    for file, start in parts:
        with file.open("rb") as stream:
            stream.seek(start)
            digest.update(stream.read(1 << 15))
    return digest.hexdigest()[:32]


class Store:
    """Readings of one kind, a safetensors file per video.

    key: everything that determines the numbers besides the video's bytes (view, backbone and its weights, dtype, …);
    JSON-able. Stores of other keys stand beside this one and never meet it.
    """

    def __init__(self, key: Mapping[str, Any], root: Path | None = None, memory: FileMemory | None = None) -> None:
        self.key = json.dumps(dict(key), sort_keys=True)
        root = root or cache_root() / "readings"
        self.folder = root / hashlib.sha256(self.key.encode()).hexdigest()[:16]
        self.memory = memory or FileMemory()

    def path(self, video: Path) -> Path:
        """Where the reading of the video file or frame folder `video` is, or would be."""
        return self.folder / f"{self.memory.recall(video, 'content', content_hash)}.safetensors"

    def has(self, video: Path) -> bool:
        """Whether a file is there; `read` says whether it is sound."""
        return self.path(video).is_file()

    def read(self, video: Path) -> Tensor | None:
        """The reading of `video`, or None where there is none. Raises ValueError for a damaged or foreign file."""
        path = self.path(video)
        if not path.is_file():
            return None
        try:
            data = path.read_bytes()  # at once: safe_open opens the path twice, and a writer may come between
            tensor = load(data).get("reading")
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: the reading of {video.name} is damaged ({error}); delete the file") from error
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        if tensor is None or header.get("__metadata__") != self._metadata(path, tensor):
            raise ValueError(f"{path}: not the reading of {video.name} that was asked for, or altered; delete the file")
        return tensor

    def write(self, video: Path, reading: Tensor) -> None:
        """Keep `reading` (any shape and dtype) for `video`; a file appears whole or not at all."""
        path = self.path(video)
        path.parent.mkdir(parents=True, exist_ok=True)
        reading = reading.detach().cpu().contiguous()
        descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        os.close(descriptor)
        try:
            save_file({"reading": reading}, name, metadata=self._metadata(path, reading))
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _metadata(self, path: Path, reading: Tensor) -> dict[str, str]:
        shape = f"{reading.dtype} {tuple(reading.shape)}"  # no checksum of bytes tells (2, 3) from (3, 2)
        return {"key": self.key, "video": path.stem, "shape": shape, "crc32": checksum(reading)}


def checksum(tensor: Tensor) -> str:
    """CRC-32 of a tensor's bytes, eight hexadecimal digits."""
    return f"{zlib.crc32(tensor.contiguous().flatten().view(torch.uint8).numpy().data):08x}"
