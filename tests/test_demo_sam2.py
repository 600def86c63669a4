"""The demo's SAM2: loads as any other, has seen no demo split, and outlines what one clicks on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import Sam2Model, Sam2Processor

from datamodules.demo import SIZES, plan
from datamodules.demo_segmentation import FIRST_SEED
from datamodules.demo_shots import Shot
from vigil.scenes import PRETRAINING_SEEDS

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "weights" / "demo_sam2"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo_sam2", ROOT / "weights" / "demo_sam2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_sam2"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model() -> Sam2Model:
    return Sam2Model.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def held_out(script: ModuleType) -> list[Shot]:
    """Frames of the last pretraining scenes, which no training ever takes."""
    return [script.draw(seed) for seed in range(PRETRAINING_SEEDS.stop - 60, PRETRAINING_SEEDS.stop)]


def test_the_folder_holds_a_small_model_in_bfloat16_and_nothing_else() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {"config.json", "model.safetensors", "processor_config.json"}
    assert (FOLDER / "model.safetensors").stat().st_size <= 4e6
    with safe_open(FOLDER / "model.safetensors", "pt") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"BF16"}  # noqa: SIM118


def test_it_loads_with_transformers_alone_and_nothing_is_missing() -> None:
    model, report = Sam2Model.from_pretrained(FOLDER, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_500_000
    assert model.config.prompt_encoder_config.image_size == 128
    assert not model.mask_decoder.dynamic_multimask_via_stability


def test_its_processor_squashes_a_picture_as_its_training_did(script: ModuleType, held_out: list[Shot]) -> None:
    frame = held_out[0].frames[0]
    values = Sam2Processor.from_pretrained(FOLDER)(images=frame, return_tensors="pt")["pixel_values"]
    expected = script.normalise(script.squash(frame[None]))
    assert values.shape == (1, 3, 128, 128)
    assert (values - expected).abs().max() < 0.1  # four grey levels


def test_no_demo_split_holds_a_scene_it_was_trained_on() -> None:
    for size in SIZES:
        assert not {video.scene_seed for video in plan(0, size)} & set(PRETRAINING_SEEDS)
    assert PRETRAINING_SEEDS.stop <= FIRST_SEED


def test_a_scene_of_a_demo_split_is_refused_for_training(script: ModuleType) -> None:
    with pytest.raises(AssertionError):
        script.render_scene(FIRST_SEED)


def test_it_outlines_what_one_clicks_on_and_knows_nothing_from_something(
    script: ModuleType, model: Sam2Model, held_out: list[Shot]
) -> None:
    found = script.measure(model, held_out)
    assert found["things"] > 150
    assert found["click on a person, best"] > 0.2
    assert found["click, best candidate"] > 0.2
    assert found["box, best candidate"] > 0.25
    assert found["something or nothing, AUROC"] > 0.85


def test_training_masks_keep_their_area_and_a_thin_thing_stays(script: ModuleType) -> None:
    mask = np.hypot(*np.mgrid[-50:70, -81:79]) < 33
    small = script.shrink_mask(mask)
    assert small.sum() == pytest.approx(mask.mean() * small.size, rel=0.02)
    mask = np.zeros((120, 160), bool)
    mask[30:90, 80] = True  # one pixel wide: less than half of any cell
    rows, columns = np.nonzero(script.shrink_mask(mask))
    assert set(columns) == {32}
    assert set(rows) == set(range(16, 48))


def test_the_sides_of_a_thing_are_measured_from_each_of_its_cells(script: ModuleType) -> None:
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 8:56, 8:56] = True
    masks[1, 16:24, 32:36] = True  # smaller, and before it
    distance, there = script.sides(masks)
    assert there.sum() == 24 * 24
    found = distance[[10, 20], [17, 10]] * 64  # cells whose middles lie at y 21, x 35 and at y 41, x 21
    expected = torch.tensor([[35 - 32, 21 - 16, 36 - 35, 24 - 21], [21 - 8, 41 - 8, 56 - 21, 56 - 41]])
    torch.testing.assert_close(found, expected.float())
    assert not distance[~there].any()


def test_a_prompt_on_nothing_keeps_off_every_thing_and_has_an_empty_mask(script: ModuleType) -> None:
    mask = np.zeros((1, 64, 64), bool)
    mask[0, 20:40, 20:40] = True
    rng = np.random.default_rng(0)
    for boxes in (False, True):
        prompts = script.ask([mask] * 8, [np.ones(1)] * 8, 6, boxes, rng)
        empty = ~prompts.masks.flatten(2).any(2)
        assert 0 < empty.sum() < 48
        low, high = prompts.points[empty].amin(1) / 2, prompts.points[empty].amax(1) / 2
        outside = (high < 20).any(1) | (low > 39.5).any(1)
        assert outside.all()
        centre = prompts.points[~empty].mean(1) / 2
        assert ((centre > 18) & (centre < 42)).all()
