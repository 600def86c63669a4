"""Feature maps of frames, kept by their pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from vigil.frame_features import KeptFrames


def encode(frames: Tensor) -> list[Tensor]:
    """Three maps of each frame, that no other frame has."""
    values = frames.float().mean((2, 3)).bfloat16()
    return [values[..., None, None].expand(-1, -1, side, side).contiguous() for side in (8, 4, 2)]


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    monkeypatch.setenv("VIGIL_CACHE", str(tmp_path / "cache"))
    return torch.randint(0, 256, (5, 3, 6, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_second_look_encodes_nothing_and_gives_the_same_bits(frames: Tensor) -> None:
    kept = KeptFrames({"encoder": "a"}, encode, chunk=2)
    first, again = kept(frames), kept(frames.flip(0))
    assert (kept.n_encoded, kept.n_kept) == (5, 5)
    for true, one, other in zip(encode(frames), first, again, strict=True):
        assert one.dtype == torch.bfloat16
        assert torch.equal(one, true)
        assert torch.equal(other, true.flip(0))


def test_a_frame_held_to_pad_a_window_is_encoded_once(frames: Tensor) -> None:
    kept = KeptFrames({"encoder": "a"}, encode)
    found = kept(frames[[0, 1, 1, 1]])
    assert kept.n_encoded == 2
    assert torch.equal(found[0], encode(frames[[0, 1, 1, 1]])[0])


def test_another_encoder_and_another_size_of_the_same_bytes_are_not_taken_for_it(frames: Tensor) -> None:
    kept, other = KeptFrames({"encoder": "a"}, encode), KeptFrames({"encoder": "b"}, encode)
    kept(frames)
    other(frames)
    kept(frames.view(5, 3, 7, 6))
    assert (kept.n_encoded, other.n_encoded) == (10, 5)


def test_a_damaged_file_is_encoded_anew(frames: Tensor, tmp_path: Path) -> None:
    KeptFrames({"encoder": "a"}, encode)(frames)
    file = next((tmp_path / "cache").rglob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 255
    file.write_bytes(data)
    kept = KeptFrames({"encoder": "a"}, encode)
    assert torch.equal(kept(frames)[0], encode(frames)[0])
    assert kept.n_encoded == 1
    assert KeptFrames({"encoder": "a"}, encode)(frames)[2].shape == (5, 3, 2, 2)
