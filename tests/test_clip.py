"""CLIP's towers: Hugging Face's own features, nothing read before it is needed, and plain words where it cannot be."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPProcessor

from datamodules.demo import plan
from tests.disks import closed, largest_file
from tests.tiny_clip import CONTEXT, write_clip
from vigil.clip import ClipTowers, anomalous_share
from vigil.scenes import PRETRAINING_SEEDS
from vigil.store import cache_root

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "weights" / "demo_clip"
TEXTS = ["a fight", "somebody walks", "a fire with smoke", "é"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """One that a test may spoil."""
    return Path(shutil.copytree(folder, tmp_path / "clip"))


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 3, 24, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# against Hugging Face


def test_image_features_equal_hugging_faces(folder: Path, frames: torch.Tensor) -> None:
    processor, model = CLIPProcessor.from_pretrained(folder), CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        inputs = processor(text=["a"], images=list(frames.flatten(0, 1)), return_tensors="pt")
        out = model(**inputs)
        bare = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
    found = ClipTowers(str(folder)).images(frames)
    assert found.dtype == torch.float32
    assert torch.equal(found.flatten(0, 1), torch.nn.functional.normalize(bare, dim=-1))
    torch.testing.assert_close(found.flatten(0, 1), out.image_embeds)
    assert bare.std(0).min() > 0.05  # the pictures differ


def test_text_features_equal_hugging_faces(folder: Path) -> None:
    processor, model = CLIPProcessor.from_pretrained(folder), CLIPModel.from_pretrained(folder).eval()
    found = ClipTowers(str(folder)).texts(TEXTS)
    with torch.no_grad():
        inputs = processor(text=TEXTS, padding=True, return_tensors="pt")
        bare = model.get_text_features(**inputs).pooler_output
    assert torch.equal(found, torch.nn.functional.normalize(bare, dim=-1))
    for text, feature in zip(TEXTS, found, strict=True):  # one by one, so that nothing is padded
        with torch.no_grad():
            alone = model.get_text_features(**processor(text=[text], return_tensors="pt")).pooler_output
        torch.testing.assert_close(feature, alone[0] / alone.norm())


def test_scaled_cosines_equal_hugging_faces_logits(folder: Path, frames: torch.Tensor) -> None:
    processor, model = CLIPProcessor.from_pretrained(folder), CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        inputs = processor(text=TEXTS, images=list(frames[0]), padding=True, return_tensors="pt")
        expected = model(**inputs).logits_per_image
    towers = ClipTowers(str(folder))
    torch.testing.assert_close(towers.logit_scale * towers.images(frames[0]) @ towers.texts(TEXTS).T, expected)
    assert math.isclose(towers.logit_scale, math.exp(1.5), rel_tol=1e-6)


# shapes and modes


def test_every_leading_dimension_is_kept(folder: Path, frames: torch.Tensor) -> None:
    towers = ClipTowers(str(folder))
    whole = towers.images(frames)
    assert whole.shape == (2, 3, towers.width) == (2, 3, 12)
    assert towers.images(frames[0, 0]).shape == (12,)
    torch.testing.assert_close(towers.images(frames[1, 2]), whole[1, 2])


def test_chunks_do_not_change_the_features(folder: Path, frames: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, small = ClipTowers(str(folder)), ClipTowers(str(folder), chunk=2)
    expected = whole.texts(TEXTS)
    monkeypatch.setenv("VIGIL_CACHE", str(cache_root() / "other"))
    torch.testing.assert_close(small.texts(TEXTS), expected)
    torch.testing.assert_close(small.images(frames), whole.images(frames))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_float32_near_the_true_features(folder: Path, frames: torch.Tensor, dtype: str) -> None:
    exact, half = ClipTowers(str(folder)), ClipTowers(str(folder), dtype)  # type: ignore[arg-type]
    for ours, theirs in ((half.images(frames), exact.images(frames)), (half.texts(TEXTS), exact.texts(TEXTS))):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.norm(dim=-1), torch.ones(ours.shape[:-1]))
        assert (ours * theirs).sum(-1).min() > 0.98
        assert not torch.equal(ours, theirs)
    assert half.fingerprint != exact.fingerprint


def test_the_towers_stay_frozen_and_in_eval_mode(folder: Path, frames: torch.Tensor) -> None:
    towers = ClipTowers(str(folder)).train()
    towers.load()
    model = towers.model
    towers.load()
    assert towers.model is model  # read once
    towers.train()
    assert not any(module.training for module in towers.modules())
    assert not any(parameter.requires_grad for parameter in towers.parameters())
    assert not towers.images(frames).requires_grad


# what needs no weights


def test_nothing_is_read_before_it_is_needed(tmp_path: Path) -> None:
    towers = ClipTowers(str(tmp_path / "nowhere"))
    assert towers.model is None
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        towers.load()


def test_facts_are_told_without_weights_in_memory(folder: Path) -> None:
    towers = ClipTowers(str(folder))
    assert (towers.width, len(towers.fingerprint)) == (12, 16)
    assert towers.logit_scale > 1
    assert towers.model is None


def test_a_text_asked_about_before_needs_no_weights(copy: Path) -> None:
    first = ClipTowers(str(copy)).texts(TEXTS)
    second = ClipTowers(str(copy))
    assert second.fingerprint
    shutil.rmtree(copy)
    assert torch.equal(second.texts(list(reversed(TEXTS))), first.flip(0))
    assert second.model is None
    with pytest.raises((OSError, ValueError)):
        second.texts(["another"])


def test_a_damaged_text_is_made_again(folder: Path) -> None:
    first = ClipTowers(str(folder)).texts(TEXTS)
    files = sorted((cache_root() / "texts").rglob("*.safetensors"))
    assert len(files) == len(TEXTS)
    files[0].write_bytes(files[0].read_bytes()[:-5])
    again = ClipTowers(str(folder))
    torch.testing.assert_close(again.texts(TEXTS), first)
    assert again.model is not None
    assert all(load_file(file)["feature"].shape == (12,) for file in files)


def test_texts_that_cannot_be_kept_are_made_each_time_and_that_is_said_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = ClipTowers(str(folder)).texts(TEXTS)
    for name, unwritable in (("full", lambda _: largest_file(20)), ("closed", closed)):
        cache = cache_root() / name
        cache.mkdir()
        with monkeypatch.context() as patch, unwritable(cache):
            patch.setenv("VIGIL_CACHE", str(cache))
            towers = ClipTowers(str(folder))
            torch.testing.assert_close(towers.texts(TEXTS), expected)
            torch.testing.assert_close(towers.texts(TEXTS[:2]), expected[:2])
            said = capsys.readouterr().err
        assert said.count("what is made of the texts is not remembered") == 1
        assert str(cache / "texts") in said
        assert [path for path in (cache / "texts").rglob("*") if path.is_file()] == []


def test_the_fingerprint_follows_the_content_and_not_the_folder(folder: Path, copy: Path, tmp_path: Path) -> None:
    assert ClipTowers(str(folder)).fingerprint == ClipTowers(str(copy)).fingerprint
    assert ClipTowers(str(write_clip(tmp_path / "b", seed=1))).fingerprint != ClipTowers(str(folder)).fingerprint
    processor = json.loads((copy / "preprocessor_config.json").read_text())
    (copy / "preprocessor_config.json").write_text(json.dumps(processor | {"do_center_crop": False}))
    assert ClipTowers(str(copy)).fingerprint != ClipTowers(str(folder)).fingerprint


def test_a_relative_folder_is_found_beside_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert ClipTowers("weights/demo_clip").folder == DEMO


# what is refused


def test_a_text_longer_than_the_tower_reads_is_refused_and_not_cut(folder: Path) -> None:
    towers = ClipTowers(str(folder))
    fits = "x" * (CONTEXT - 2)
    assert towers.texts([fits]).shape == (1, 12)
    with pytest.raises(ValueError, match=rf"'x+y' is {CONTEXT + 1} tokens long, .* reads {CONTEXT}; say it shorter"):
        towers.texts(["short", fits + "y"])


@pytest.mark.parametrize("texts", [[], "a fight"])
def test_texts_must_be_a_list_of_some(folder: Path, texts: list[str]) -> None:
    with pytest.raises(ValueError, match="a list of at least one is expected"):
        ClipTowers(str(folder)).texts(texts)


def test_pixels_that_are_no_uint8_pictures_are_refused(folder: Path, frames: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"torch\.float32 \(2, 3, 3, 24, 32\); expected uint8"):
        ClipTowers(str(folder)).images(frames.float())
    with pytest.raises(ValueError, match=r"\(2, 3, 1, 24, 32\); expected uint8 \(\.\.\., 3, Y, X\)"):
        ClipTowers(str(folder)).images(frames[:, :, :1])


def test_another_kind_of_model_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"model_type": "siglip"}))
    with pytest.raises(ValueError, match=r"config\.json says model_type 'siglip', not 'clip'"):
        ClipTowers(str(copy)).load()


def drop(state: dict[str, torch.Tensor]) -> None:
    del state["visual_projection.weight"]


def add(state: dict[str, torch.Tensor]) -> None:
    state["classifier.weight"] = torch.ones(2, 12)


def widen(state: dict[str, torch.Tensor]) -> None:
    state["text_projection.weight"] = torch.ones(13, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"1 tensors missing \(visual_projection\.weight\), 0 unexpected; give a whole CLIP"),
        (add, r"0 tensors missing, 1 unexpected \(classifier\.weight\)"),
        (widen, "do not load as a CLIP"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_not_drawn_at_random(
    copy: Path, change: Callable[[dict[str, torch.Tensor]], None], message: str
) -> None:
    state = load_file(copy / "model.safetensors")
    change(state)
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        ClipTowers(str(copy)).load()


def test_position_ids_of_old_checkpoints_are_passed_over(copy: Path, folder: Path) -> None:
    state = load_file(copy / "model.safetensors")
    for tower in ("text_model", "vision_model"):
        state[f"{tower}.embeddings.position_ids"] = torch.arange(4)[None]
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(ClipTowers(str(copy)).texts(TEXTS), ClipTowers(str(folder)).texts(TEXTS))


def test_damaged_weights_are_named(copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"do not load as a CLIP .*fetch them again"):
        ClipTowers(str(copy)).load()
    with pytest.raises(ValueError, match=r"model\.safetensors: damaged"):
        _ = ClipTowers(str(copy)).logit_scale


def test_a_pickle_is_never_opened(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        ClipTowers(str(copy)).load()


@pytest.mark.parametrize("name", ["preprocessor_config.json", "tokenizer.json"])
def test_a_folder_without_processor_or_tokenizer_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"{copy}: no image processor and tokenizer that can be read"):
        ClipTowers(str(copy)).load()


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(ValueError, match="dtype 'int8': expected float32, bfloat16 or float16"):
        ClipTowers(dtype="int8")  # type: ignore[arg-type]


# the score


@pytest.mark.parametrize("aggregate", ["sum", "max"])
def test_the_anomalous_share_equals_a_loop_over_the_definition(aggregate: str) -> None:
    generator = torch.Generator().manual_seed(0)
    image, anomalous, normal = (
        torch.nn.functional.normalize(torch.randn(count, 6, generator=generator), dim=-1) for count in (5, 3, 4)
    )
    found = anomalous_share(image, anomalous, normal, 20.0, aggregate)  # type: ignore[arg-type]
    for picture, share in zip(image.tolist(), found.tolist(), strict=True):
        power = [
            [math.exp(20.0 * sum(a * b for a, b in zip(picture, text, strict=True))) for text in side]
            for side in (anomalous.tolist(), normal.tolist())
        ]
        ours, theirs = (sum(side) if aggregate == "sum" else max(side) for side in power)
        assert math.isclose(share, ours / (ours + theirs), rel_tol=1e-5)
    assert found.std() > 0.1


def test_a_share_is_float32_in_the_unit_interval_even_under_autocast() -> None:
    image = torch.nn.functional.normalize(torch.randn(50, 6), dim=-1)
    texts = torch.nn.functional.normalize(torch.randn(4, 6), dim=-1)
    plain = anomalous_share(image, texts[:2], texts[2:], 100.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = anomalous_share(image, texts[:2], texts[2:], 100.0)
    assert torch.equal(plain, mixed)
    assert mixed.dtype == torch.float32
    assert 0 <= plain.min() <= plain.max() <= 1


def test_an_unknown_aggregate_is_refused() -> None:
    with pytest.raises(ValueError, match="aggregate 'mean': expected sum or max"):
        anomalous_share(torch.ones(1, 2), torch.ones(1, 2), torch.ones(1, 2), 1.0, "mean")  # type: ignore[arg-type]


# the demo's weights


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_clip", ROOT / "weights" / "demo_clip.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_clip"] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


def test_the_demo_weights_are_small_half_precision_and_finite() -> None:
    files = [file for file in DEMO.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= 4_000_000
    assert not [file for file in files if file.suffix not in (".json", ".safetensors", ".txt")]
    state = load_file(DEMO / "model.safetensors")
    assert {value.dtype for value in state.values()} == {torch.float16}
    assert sum(value.numel() for value in state.values()) <= 1_500_000
    assert all(value.isfinite().all() for value in state.values())


def test_no_demo_split_holds_a_scene_that_the_demo_weights_have_seen(script: ModuleType) -> None:
    taken = {video.scene_seed for size in ("tiny", "small", "full") for seed in (0, 1) for video in plan(seed, size)}
    assert taken
    assert not taken & set(PRETRAINING_SEEDS)
    with pytest.raises(AssertionError):
        script.render_scene(PRETRAINING_SEEDS.stop)


def test_captions_name_no_category_but_in_the_words_of_the_scenes(script: ModuleType) -> None:
    words = " ".join(phrase for said in script.SAID.values() for phrase in said)
    for name in ("abus", "arrest", "arson", "assault", "burgl", "explosion", "fight", "robbery", "shoot", "shoplift",
                 "steal", "vandal", "accident", "anomal", "crim"):  # fmt: skip
        assert name not in words


def test_the_demo_weights_tell_sentences_of_unseen_scenes_better_than_random_ones(
    script: ModuleType, tmp_path: Path
) -> None:
    last = PRETRAINING_SEEDS.stop - script.N_HELD_OUT
    parts = [script.render_scene(seed) for seed in range(last, last + 26)]
    pixels, label, patch = (torch.cat([torch.from_numpy(part[i]) for part in parts]) for i in range(3))
    data = script.Frames(pixels, label, patch, [said for part in parts for said in part[3]])
    first, five = script.retrieval(ClipTowers(str(DEMO)), data)
    tokenizer = script.PreTrainedTokenizerFast.from_pretrained(DEMO)
    torch.manual_seed(0)
    script.save(tmp_path / "random", script.make_model(tokenizer), tokenizer)
    drawn = script.retrieval(ClipTowers(str(tmp_path / "random")), data)
    assert five > 2 * drawn[1]
    assert first > 2 * drawn[0]
