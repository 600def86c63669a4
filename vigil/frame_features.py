"""What a frozen image encoder says of frames, kept on disk by their pixels: a second epoch need not ask again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from vigil.store import Store

Levels = list[Tensor]  # feature maps (N, D, Y, X), the finest first


class KeptFrames:
    """Feature maps of frames (N, C, Y, X), from the disk where these very pixels were encoded before.

    key: everything that determines the maps besides the pixels; JSON-able. encode: frames -> their maps, called for
    those that are not there, each pixel-identical frame once. chunk: frames encoded at a time. A file per frame, maps
    in the dtype that encode gives them; a damaged one is encoded anew. n_encoded, n_kept: frames so far.
    """

    def __init__(self, key: Mapping[str, Any], encode: Callable[[Tensor], Levels], chunk: int = 16) -> None:
        self.store = Store({"reads": "feature maps of a frame", **key}, made_by="Lavida")
        self.encode, self.chunk = encode, chunk
        self.n_encoded, self.n_kept = 0, 0

    def __call__(self, frames: Tensor) -> Levels:
        digests = [_digest(frame) for frame in frames.cpu()]
        found = {digest: self._recall(digest) for digest in dict.fromkeys(digests)}
        self.n_kept += sum(maps is not None for maps in found.values())
        missing = [digest for digest, maps in found.items() if maps is None]
        for first in range(0, len(missing), self.chunk):
            part = missing[first : first + self.chunk]
            levels = self.encode(frames[[digests.index(digest) for digest in part]])
            for n, digest in enumerate(part):
                found[digest] = [level[n].cpu() for level in levels]
                self.store.write(digest, {f"level.{k}": level[n] for k, level in enumerate(levels)})
            self.n_encoded += len(part)
        rows = [maps for digest in digests if (maps := found[digest]) is not None]
        return [torch.stack(level).to(frames.device) for level in zip(*rows, strict=True)]

    def _recall(self, digest: str) -> Levels | None:
        try:
            names = self.store.names(digest)
            maps = self.store.read(digest, names) if names else None
        except ValueError:  # damaged, and written anew
            return None
        return None if maps is None else [maps[name] for name in sorted(maps)]


def _digest(frame: Tensor) -> str:
    """32 hexadecimal digits of a frame's size and pixels."""
    digest = hashlib.sha256(repr(tuple(frame.shape)).encode())
    digest.update(frame.contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
