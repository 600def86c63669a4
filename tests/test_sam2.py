"""SAM2 cut in two: Hugging Face's own maps and masks, only the decoder trained, plain words where it is no SAM2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Sam2ImageProcessor, Sam2Model

from tests.tiny_sam2 import SIZE, WIDTH, tiny_sam2
from vigil.sam2 import Sam2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam2(tmp_path_factory.mktemp("sam2"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sam2(tmp_path_factory.mktemp("sam2_video"), seed=1, video=True)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """One that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "sam2"))


@pytest.fixture(params=["folder", "video"])
def either(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def frames(size: tuple[int, int] = (SIZE, SIZE), n: int = 3) -> Tensor:
    return torch.randint(0, 256, (n, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def prompts(n: int = 3) -> Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(2))


def theirs(folder: Path) -> Any:
    kind: Any = Sam2Model
    return kind.from_pretrained(folder).eval()


# against Hugging Face


@torch.no_grad()
def test_feature_maps_are_those_that_hugging_faces_decoder_gets(either: Path) -> None:
    model, sam2 = theirs(either), Sam2(str(either))
    found = sam2.encode(frames())
    assert [one.shape for one in found] == [(3, WIDTH, SIZE // stride, SIZE // stride) for stride in (4, 8, 16)]
    bare = model.get_image_features(sam2.prepare(frames())).fpn_hidden_states
    projected = [model.mask_decoder.conv_s0(found[0]), model.mask_decoder.conv_s1(found[1]), found[2]]
    for ours, their in zip(projected, bare, strict=True):
        assert torch.equal(ours.flatten(2).permute(2, 0, 1), their)
    assert found[2].std(0).min() > 0  # the frames differ


@torch.no_grad()
def test_masks_are_hugging_faces_with_the_prompt_after_its_empty_click(either: Path) -> None:
    model, sam2 = theirs(either), Sam2(str(either))
    prompt = prompts()
    model.prompt_encoder.register_forward_hook(
        lambda _, __, embedded: (torch.cat([embedded[0], prompt[:, None, None]], 2), embedded[1])
    )
    their = model(pixel_values=sam2.prepare(frames()), multimask_output=True)
    found = sam2.decode(sam2.encode(frames()), prompt)
    assert found.mask_logit.shape == (3, 3, SIZE // 4, SIZE // 4)
    assert torch.equal(found.mask_logit, their.pred_masks[:, 0])
    assert torch.equal(found.iou, their.iou_scores[:, 0])
    assert torch.equal(found.object_logit, their.object_score_logits[:, 0, 0])
    assert found.object_logit.std() > 0


@torch.no_grad()
def test_the_no_memory_embedding_and_the_prompt_reach_the_masks(folder: Path) -> None:
    sam2 = Sam2(str(folder))
    maps = sam2.encode(frames())
    found = sam2.decode(maps, prompts())
    other = sam2.decode(maps, prompts().flip(0))
    assert not torch.allclose(found.object_logit, other.object_logit)
    assert sam2.decoder is not None
    sam2.decoder.no_memory.zero_()
    assert not torch.allclose(found.mask_logit, sam2.decode(maps, prompts()).mask_logit)


def test_frames_of_any_shape_are_squashed_as_hugging_faces_are(folder: Path) -> None:
    sam2, processor = Sam2(str(folder)), Sam2ImageProcessor(size={"height": SIZE, "width": SIZE})
    for size in ((SIZE, SIZE), (48, 100), (160, 90), (1, 1)):
        their = processor(frames(size), return_tensors="pt")["pixel_values"]
        level = 1.01 / 255 / 0.224 if size != (SIZE, SIZE) else 1e-6  # theirs are rounded to whole levels on the way
        assert (sam2.prepare(frames(size)) - their).abs().max() <= level


@torch.no_grad()
def test_frames_by_chunks_are_the_frames_at_once(folder: Path) -> None:
    found, once = Sam2(str(folder), chunk=2).encode(frames(n=5)), Sam2(str(folder)).encode(frames(n=5))
    for one, other in zip(found, once, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


# what is read, and when


def test_nothing_is_read_before_it_is_needed(copy: Path) -> None:
    Sam2("somewhere/else")
    sam2 = Sam2(str(copy))
    assert (sam2.image_size, sam2.width) == (SIZE, WIDTH)
    assert sam2.key["files"]
    assert not sam2.loaded
    assert not list(sam2.parameters())
    (copy / "model.safetensors").rename(copy / "gone")
    with pytest.raises(FileNotFoundError, match="no weights"):
        Sam2(str(copy)).encode(frames())


def test_the_key_is_of_weights_and_dtype_and_not_of_the_place(folder: Path, copy: Path) -> None:
    key = Sam2(str(folder)).key
    assert Sam2(str(copy)).key == key
    assert Sam2(str(folder), dtype="bfloat16").key != key
    assert Sam2(str(folder), weights="random").key != key
    weights = load_file(copy / "model.safetensors")
    weights["no_memory_embedding"] += 1
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert Sam2(str(copy)).key != key


def test_random_weights_are_the_same_each_time_and_need_no_file(folder: Path, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = Sam2(str(copy), weights="random").encode(frames())
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    other = Sam2(str(copy), weights="random").encode(frames())
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.allclose(one[2], Sam2(str(folder)).encode(frames())[2])


def test_the_encoder_keeps_its_dtype_and_the_decoder_float32(folder: Path) -> None:
    sam2 = Sam2(str(folder), dtype="bfloat16")
    maps = sam2.encode(frames())
    assert {one.dtype for one in maps} == {torch.bfloat16}
    assert {one.dtype for one in sam2.encoder.parameters()} == {torch.bfloat16}
    assert sam2.decoder is not None
    assert {one.dtype for one in sam2.decoder.state_dict().values()} == {torch.float32}
    found = sam2.decode(maps, prompts().bfloat16())
    assert {one.dtype for one in found} == {torch.float32}
    same = sam2.decode([one.float() for one in maps], prompts().bfloat16().float())
    assert all(torch.equal(a, b) for a, b in zip(found, same, strict=True))


def test_auto_is_the_checkpoints_dtype(copy: Path) -> None:
    weights = {name: one.bfloat16() for name, one in load_file(copy / "model.safetensors").items()}
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**said, "dtype": "bfloat16"}))
    sam2, wide = Sam2(str(copy), dtype="auto"), Sam2(str(copy))
    maps = sam2.encode(frames())
    assert {one.dtype for one in maps} == {torch.bfloat16}
    assert {one.dtype for one in wide.encode(frames())} == {torch.float32}
    found, same = sam2.decode(maps, prompts()), wide.decode(maps, prompts())
    assert all(torch.equal(a, b) for a, b in zip(found, same, strict=True))


def test_the_trainers_precision_reaches_the_masks_and_not_the_maps(folder: Path) -> None:
    sam2 = Sam2(str(folder))
    maps = sam2.encode(frames())
    found = sam2.decode(maps, prompts())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again, rough = sam2.encode(frames()), sam2.decode(maps, prompts())
    assert all(torch.equal(a, b) for a, b in zip(maps, again, strict=True))
    assert {one.dtype for one in rough} == {torch.float32}
    assert not torch.equal(rough.mask_logit, found.mask_logit)
    torch.testing.assert_close(rough.mask_logit, found.mask_logit, rtol=0.1, atol=0.1)


# what is trained


def test_every_weight_of_the_decoder_learns_and_none_of_the_encoder(folder: Path) -> None:
    sam2 = Sam2(str(folder))
    sam2.load()
    sam2.train()
    prompt = prompts().requires_grad_()
    found = sam2.decode(sam2.encode(frames()), prompt)
    sum(one.sum() for one in found).backward()
    assert sam2.decoder is not None
    assert [name for name, one in sam2.named_parameters() if one.requires_grad] == [
        f"decoder.{name}" for name, _ in sam2.decoder.named_parameters()
    ]
    assert not [name for name, one in sam2.decoder.named_parameters() if one.grad is None]
    assert prompt.grad is not None
    assert prompt.grad.abs().amax(1).min() > 0
    assert all(one.grad is None for one in sam2.encoder.parameters())
    assert sam2.decoder.training
    assert not any(part.training for part in sam2.encoder.modules())


def test_a_checkpoint_holds_the_trained_weights_alone(folder: Path) -> None:
    from lightning_modules.system import System

    def system() -> Any:
        made: Any = System({}, {}, batch_size=1, window_batch=1)
        made.sam2 = Sam2(str(folder))
        made.sam2.load()
        return made

    trained, fresh = system(), system()
    with torch.no_grad():
        for one in trained.sam2.decoder.parameters():
            one.mul_(1.5)
    state = trained.state_dict()
    assert set(state) == {"threshold", *(f"sam2.decoder.{name}" for name, _ in trained.sam2.decoder.named_parameters())}
    maps = fresh.sam2.encode(frames())
    before = fresh.sam2.decode(maps, prompts())
    fresh.load_state_dict(state, strict=False)
    found, expected = fresh.sam2.decode(maps, prompts()), trained.sam2.decode(maps, prompts())
    assert torch.equal(found.mask_logit, expected.mask_logit)
    assert not torch.allclose(found.mask_logit, before.mask_logit)


# what cannot be used


def test_a_folder_of_another_model_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ValueError, match=r"config\.json: model_type 'clip', expected sam2 or sam2_video"):
        _ = Sam2(str(copy)).image_size
    (copy / "config.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"config\.json: no configuration of a model"):
        _ = Sam2(str(copy)).width


def test_weights_that_are_not_whole_are_refused(copy: Path) -> None:
    file = copy / "model.safetensors"
    weights = load_file(file)
    lacking = {name: one for name, one in weights.items() if "obj_score" not in name}
    save_file(lacking, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"missing, the first mask_decoder\.obj_score_token\.weight"):
        Sam2(str(copy)).load()
    weights["mask_decoder.iou_token.weight"] = torch.zeros(1, 7)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="do not load as a SAM2"):
        Sam2(str(copy)).load()
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="do not load as a SAM2"):
        Sam2(str(copy)).load()


def test_points_boxes_and_drawn_masks_need_not_be_there(copy: Path) -> None:
    file = copy / "model.safetensors"
    found = Sam2(str(copy)).encode(frames())
    unused = ("prompt_encoder.mask_embed", "prompt_encoder.point_embed", "prompt_encoder.shared_embedding")
    save_file({k: v for k, v in load_file(file).items() if not k.startswith(unused)}, file, metadata={"format": "pt"})
    assert torch.equal(Sam2(str(copy)).encode(frames())[2], found[2])


def test_pickles_are_never_opened(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin, which can run code"):
        Sam2(str(copy)).load()


def test_what_does_not_fit_is_refused(folder: Path) -> None:
    sam2 = Sam2(str(folder))
    maps = sam2.encode(frames())
    with pytest.raises(ValueError, match=r"torch\.float32 \(3, 3, 64, 64\); expected uint8"):
        sam2.encode(frames().float())
    with pytest.raises(ValueError, match=r"\(2, 3, 3, 8, 8\); expected uint8 \(N, 3, Y, X\)"):
        sam2.encode(torch.zeros(2, 3, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"prompts \(2, 32\); expected"):
        sam2.decode(maps, prompts(2))
    with pytest.raises(ValueError, match=r"prompts \(3, 31\); expected"):
        sam2.decode(maps, prompts()[:, 1:])
    with pytest.raises(ValueError, match="feature maps"):
        sam2.decode(maps[::-1], prompts())
    for unknown in ({"dtype": "int8"}, {"weights": "other"}):
        with pytest.raises(ValueError, match="expected"):
            Sam2(str(folder), **unknown)  # type: ignore[arg-type]
