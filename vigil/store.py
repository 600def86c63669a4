"""Readings on disk: what a frozen backbone said of a video, kept so that nobody asks twice."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from vigil.reading_file import CLOSED, FULL, Packed, ReadingFile, explained, remove_stale, write_readings, write_whole

if TYPE_CHECKING:
    import torch
    from torch import Tensor

READING = re.compile(r"[0-9a-f]{32}\.safetensors")  # what the readings of a video are called: by its content_hash
DTYPES = {  # safetensors' names of torch's
    **{"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32"},
    **{"I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"},
}


def cache_root() -> Path:
    """Where readings and file facts are kept: VIGIL_CACHE of the environment, else .cache/vigil where it runs."""
    root = Path(os.environ.get("VIGIL_CACHE") or Path(".cache") / "vigil")
    if root.is_file():
        raise ValueError(f"{root}: VIGIL_CACHE is a file; name a folder, which is made where there is none")
    return root


class FileMemory:
    """Facts about files that are costly to find (frame count, content hash), remembered between runs.

    One line of JSON per fact; a fact holds while the file's size and modification time stay. Appends of any number of
    processes may mix, since a line is written in one call; a broken line is passed over and its fact found again.
    Where the file cannot be written, that is said once, and each process finds its facts for itself.
    """

    _told: ClassVar[set[Path]] = set()

    def __init__(self, file: Path | None = None) -> None:
        self.file = file or cache_root() / "files.jsonl"
        self._facts: dict[str, Any] | None = None

    def recall(self, path: Path, fact: str, find: Callable[[Path], Any]) -> Any:
        """The fact `fact` of the file or folder `path`; `find(path)` (JSON-able) is called where it is not known."""
        key = self._key(path, fact)
        facts = self._load()
        if key not in facts:
            facts[key] = find(path)
            try:
                self._append(json.dumps([key, facts[key]]) + "\n")
            except OSError as error:
                if error.errno not in (*CLOSED, *FULL):
                    raise
                if self.file not in self._told:
                    self._told.add(self.file)
                    sys.stderr.write(f"{self.file}: {error.strerror}; what is found of the videos is not remembered.\n")
        return facts[key]

    def _append(self, line: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)

    def knows(self, path: Path, fact: str) -> bool:
        """Whether `recall` would answer at once."""
        return self._key(path, fact) in self._load()

    def reload(self) -> None:
        """Learn what other processes have found since; what this one found stays, written or not."""
        self._facts = {**(self._facts or {}), **self._read()}

    def _key(self, path: Path, fact: str) -> str:
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        stamp = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
        return hashlib.sha256(repr((fact, str(path.resolve()), stamp)).encode()).hexdigest()[:32]

    def _load(self) -> dict[str, Any]:
        if self._facts is None:
            self._facts = self._read()
        return self._facts

    def _read(self) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if self.file.is_file():
            for line in self.file.read_text(errors="replace").splitlines():
                try:
                    key, value = json.loads(line)
                    facts[key] = value
                except (ValueError, TypeError):
                    continue
        return facts


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
    """Readings of one kind, a file of named tensors per video: "hidden.20" (W, D), W windows or segments of the video.

    key: everything that determines the numbers besides the video's bytes (view, backbone and its weights, dtype, …);
    JSON-able. Stores of other keys stand beside this one and never meet it. made_by: the system, for people to read.
    Any number of processes may read and write. Two that add different tensors to one video at the same time may lose
    one's; it is then missing and read anew, never mixed. Raises ValueError for a damaged or foreign file, and OSError
    that says what to do for a full disk or a closed folder.
    """

    def __init__(
        self, key: Mapping[str, Any], root: Path | None = None, memory: FileMemory | None = None, made_by: str = ""
    ) -> None:
        self.key = json.dumps(dict(key), sort_keys=True)
        self.folder = (root or readings_root()) / folder_name(self.key)
        self.memory = memory or FileMemory()
        self.made_by = made_by

    def path(self, video: Path | str) -> Path:
        """Where the readings of the video file or frame folder `video` are, or would be; or of what has this hash."""
        content = video if isinstance(video, str) else self.memory.recall(video, "content", content_hash)
        return self.folder / f"{content}.safetensors"

    def names(self, video: Path | str) -> list[str]:
        """The tensors that are there of `video`; their bytes are not looked at."""
        try:
            with self._open(video) as file:
                return sorted(file.entries)
        except FileNotFoundError:
            return []

    def read(self, video: Path | str, names: Iterable[str]) -> dict[str, Tensor] | None:
        """The tensors `names` of `video`, in the dtype they were computed in; None where any of them is missing."""
        names = list(names)
        try:
            with self._open(video) as file:
                if not file.entries.keys() >= set(names):
                    return None
                return {name: _unpacked(file.read(name)) for name in names}
        except FileNotFoundError:
            return None

    def write(self, video: Path | str, tensors: Mapping[str, Tensor]) -> None:
        """Keep `tensors`, of any shape and dtype, beside what is there of `video`; a damaged file is replaced."""
        packed = {name: _packed(tensor) for name, tensor in tensors.items()}
        try:
            with self._open(video) as file:
                packed = {name: file.read(name) for name in file.entries if name not in packed} | packed
        except (FileNotFoundError, ValueError):
            pass
        path = self.path(video)
        if not (self.folder / "store.json").is_file():
            self.prepare()
        write_readings(path, self.key, path.stem, packed)

    def prepare(self) -> None:
        """Make the folder, say in its store.json what it is for, and remove what killed processes left an hour ago."""
        about = json.dumps({"key": json.loads(self.key), "made_by": self.made_by}, indent=1) + "\n"
        write_whole(self.folder / "store.json", [about.encode()])
        remove_stale(self.folder)

    def discard(self, video: Path | str) -> None:
        """Remove what is there of `video`."""
        path = self.path(video)
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise explained(error, self.folder, 0) from error

    def keep(self, names: Iterable[str]) -> int:
        """Drop every tensor but `names` from every file; the bytes that this freed. See `keep_tensors`."""
        return keep_tensors(self.folder, names)

    def _open(self, video: Path | str) -> ReadingFile:
        path = self.path(video)
        if not path.is_file():  # a folder can be opened as well
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        file = ReadingFile(path, path.stem if isinstance(video, str) else video.name)
        if (file.key, file.video) != (self.key, path.stem):
            with file:
                raise file.fault("it is that of another video, or of another backbone or view")
        return file


def readings_root() -> Path:
    """The folder that stores stand in."""
    return cache_root() / "readings"


def folder_name(key: str) -> str:
    """What the folder of a store with this key is called."""
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def reading_files(folder: Path) -> list[Path]:
    """The files of readings in a store's folder, in order of name: no links, and nothing that is called otherwise."""
    try:
        with os.scandir(folder) as inside:
            names = [one.name for one in inside if READING.fullmatch(one.name) and one.is_file(follow_symlinks=False)]
    except FileNotFoundError:  # another process removed the store
        return []
    return [folder / name for name in sorted(names)]


def without_stretch(name: str) -> str:
    """The name that a system reads under, of a tensor of one event: tokens for tokens.12-40."""
    return re.sub(r"\.\d+-\d+$", "", name)


def refuse_shared_names(kept: Mapping[str, Iterable[str]]) -> None:
    """Raises ValueError where two streams keep a tensor of one name: a clip holds one. kept: {stream: names}."""
    owner: dict[str, str] = {}
    for stream, names in kept.items():
        for name in names:
            if owner.setdefault(name, stream) != stream:
                raise ValueError(
                    f"the streams {owner[name]} and {stream} both keep a tensor {name}, and a clip holds one of that "
                    "name; let reading_names and read name them apart"
                )


def keep_tensors(folder: Path, names: Iterable[str]) -> int:
    """Drop every tensor but `names`, those of events among them, from a store's folder; the bytes that this freed.

    A file that holds none of them goes. A damaged file stays, for a filling to report; one that another process removes
    meanwhile is passed over. Raises ValueError for a name that no file holds, before anything is dropped.
    """
    names, held = set(names), {}
    for path in reading_files(folder):
        try:
            with ReadingFile(path) as file:
                held[path] = set(file.entries)
        except (ValueError, FileNotFoundError):
            continue
    there = {without_stretch(name) for inside in held.values() for name in inside}
    if names - there:
        raise ValueError(
            f"{folder}: no video has {', '.join(sorted(names - there))}; there are {', '.join(sorted(there)) or 'none'}"
        )
    freed = 0
    for path, inside in held.items():
        kept = {name for name in inside if without_stretch(name) in names}
        if kept == inside:
            continue
        try:
            before = path.stat().st_size
            if not kept:
                path.unlink()
                freed += before
                continue
            with ReadingFile(path) as file:
                write_readings(path, file.key, file.video, {name: file.read(name) for name in kept})
            freed += before - path.stat().st_size
        except (ValueError, FileNotFoundError):
            continue
    return freed


def _packed(tensor: Tensor) -> Packed:
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    dtype = next((short for short, long in DTYPES.items() if long == name), None)
    if dtype is None:
        raise ValueError(f"a reading of {tensor.dtype} cannot be kept; give one of {', '.join(DTYPES.values())}")
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return Packed(dtype, tuple(tensor.shape), flat.numpy().data)  # the tensor's own bytes


def _unpacked(packed: Packed) -> Tensor:
    import torch

    dtype: torch.dtype = getattr(torch, DTYPES[packed.dtype])
    if not packed.data:
        return torch.empty(packed.shape, dtype=dtype)
    return torch.frombuffer(packed.data, dtype=dtype).view(packed.shape)
