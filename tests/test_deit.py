"""The frame encoder: timm's own features, frozen where it should be, and plain words where weights are missing."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from vigil.deit import DEMO, MEAN, STD, DeitEncoder
from vigil.scenes import make_scene

ROOT = Path(__file__).parents[1]
DEMO_WEIGHTS = ROOT / "weights" / f"{DEMO}.safetensors"


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 3, 60, 80), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_features_equal_timms_class_token_for_the_same_weights(tmp_path: Path, frames: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224").eval()
    torch.save({"model": model.state_dict()}, tmp_path / "deit.pth")  # as DeiT's authors nest it, with its head
    encoder = DeitEncoder("deit_tiny_patch16_224", tmp_path / "deit.pth")
    with torch.no_grad():
        expected = model.forward_features(encoder.preprocess(frames[0]))[:, 0]
    torch.testing.assert_close(encoder(frames)[0], expected)


def test_preprocessing_equals_torchvisions(frames: torch.Tensor) -> None:
    encoder = DeitEncoder(DEMO, None)
    resized = transforms.resize(frames[0].float() / 255, [96, 96], InterpolationMode.BICUBIC, antialias=True)
    expected = transforms.normalize(resized.clamp(0, 1), list(MEAN), list(STD))
    torch.testing.assert_close(encoder.preprocess(frames[0]), expected)
    # torchvision rounds a uint8 picture to whole levels after each direction of resizing
    picture = torch.from_numpy(make_scene(1, "Arson", 48).frame(40)[0]).permute(2, 0, 1)[None]
    rounded = transforms.resize(picture, [96, 96], InterpolationMode.BICUBIC, antialias=True)
    difference = encoder.preprocess(picture) - transforms.normalize(rounded / 255, list(MEAN), list(STD))
    assert difference.abs().max() < 2 / 255 / min(STD)


def test_every_leading_dimension_is_kept(frames: torch.Tensor) -> None:
    encoder = DeitEncoder(DEMO, None)
    assert encoder(frames).shape == (2, 3, encoder.width)
    assert encoder(frames).dtype == torch.float32
    assert encoder(frames[0, 0]).shape == (encoder.width,)
    torch.testing.assert_close(encoder(frames[1, 2]), encoder(frames)[1, 2])


def test_deit_small_is_384_wide() -> None:
    assert DeitEncoder("deit_small_patch16_224", None).width == 384


def test_chunks_do_not_change_the_features(frames: torch.Tensor) -> None:
    encoder = DeitEncoder(DEMO, None)
    whole = encoder(frames)
    encoder.chunk = 2
    torch.testing.assert_close(encoder(frames), whole)


def test_a_frozen_encoder_stays_frozen_and_in_eval_mode(frames: torch.Tensor) -> None:
    encoder = DeitEncoder(DEMO, None).train()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not any(module.training for module in encoder.model.modules())
    assert not encoder(frames).requires_grad


@pytest.mark.parametrize("train_blocks", [1, 3, 4])
def test_the_last_blocks_train_and_no_others(train_blocks: int, frames: torch.Tensor) -> None:
    encoder = DeitEncoder(DEMO, None, train_blocks=train_blocks).train()
    encoder(frames).square().sum().backward()
    touched = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    last = tuple(f"model.blocks.{i}." for i in range(4 - train_blocks, 4))
    expected = {n for n, _ in encoder.named_parameters() if train_blocks == 4 or n.startswith((*last, "model.norm."))}
    assert touched == expected == {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}
    assert [block.training for block in encoder.model.blocks] == [i >= 4 - train_blocks for i in range(4)]


def test_training_and_evaluating_see_the_same_features(frames: torch.Tensor) -> None:
    encoder = DeitEncoder(DEMO, None, train_blocks=2)
    trained = encoder(frames)
    with torch.no_grad():
        torch.testing.assert_close(encoder(frames), trained.detach())


def test_the_fingerprint_follows_the_weights_and_nothing_else(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first, second = DeitEncoder(DEMO, None), DeitEncoder(DEMO, None)
    save_file(first.model.state_dict(), tmp_path / "first.safetensors")
    again = DeitEncoder(DEMO, tmp_path / "first.safetensors", train_blocks=2, chunk=7)
    assert first.fingerprint == again.fingerprint != second.fingerprint
    with torch.no_grad():
        again.model.norm.bias[0] += 1e-3
    assert again.fingerprint != first.fingerprint


def test_missing_weights_are_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere/none\.safetensors.*python weights/demo_deit\.py"):
        DeitEncoder(DEMO, "nowhere/none.safetensors")
    with pytest.raises(FileNotFoundError, match=r"give the path of a \.safetensors or \.pth"):
        DeitEncoder("deit_tiny_patch16_224", tmp_path / "none.pth")


def test_an_unreachable_hub_is_an_error_that_names_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(FileNotFoundError, match=r"pretrained weights of deit_small_patch16_224.*give weights by path"):
        DeitEncoder("deit_small_patch16_224")
    assert not constants.HF_HUB_OFFLINE


def test_weights_of_another_architecture_are_refused_by_tensor(tmp_path: Path) -> None:
    state = DeitEncoder("deit_tiny_patch16_224", None).model.state_dict()
    save_file(state, tmp_path / "tiny.safetensors")
    with pytest.raises(ValueError, match=r"tiny\.safetensors does not fit demo_deit: \d+ tensors differ.*in the file"):
        DeitEncoder(DEMO, tmp_path / "tiny.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vgg16", "weights": None}, "'vgg16' is no DeiT"),
        ({"name": DEMO}, "give its weights by path"),
        ({"name": DEMO, "weights": None, "train_blocks": 6}, "has 4 blocks"),
    ],
)
def test_what_cannot_be_built_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DeitEncoder(**arguments)  # type: ignore[arg-type]


def test_pixels_that_are_not_uint8_are_refused(frames: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"torch\.float32"):
        DeitEncoder(DEMO, None)(frames.float())


def test_the_demo_weights_are_small_and_load_by_a_path_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: torch.Tensor
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = DeitEncoder(DEMO, "weights/demo_deit.safetensors")
    assert DEMO_WEIGHTS.stat().st_size <= 4_000_000
    assert {value.dtype for value in load_file(DEMO_WEIGHTS).values()} == {torch.float16}
    features = encoder(frames)
    assert features.isfinite().all()
    assert features.std() > 0.1
