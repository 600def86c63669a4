"""The demo copies of the segmentation sets: true masks and words, the layouts' own spelling, seeds of their own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.demo import MARKER, plan
from datamodules.demo_segmentation import FIRST_SEED, SIZES, encode_rle, outlines, write_segmentation
from datamodules.demo_shots import Thing, make_shot
from datamodules.segmentation import SETS, cityscapes, read_set
from datamodules.segmentation_set import decode_rle, polygon_mask
from vigil.crimes import SCRIPTS
from vigil.safe_pickle import load_plain
from vigil.scenes import PRETRAINING_SEEDS, make_scene


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("segmentation") / "world"
    write_segmentation(root, size="tiny")
    return root


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_a_seed_decides_every_byte(world: Path, tmp_path: Path) -> None:
    write_segmentation(tmp_path / "same", size="tiny")
    assert content(tmp_path / "same") == content(world)
    ours, same, other = make_shot(FIRST_SEED, 1), make_shot(FIRST_SEED, 1), make_shot(FIRST_SEED + 10_000, 1)
    assert np.array_equal(ours.frames, same.frames)
    assert not np.array_equal(ours.frames, other.frames)


def test_a_finished_copy_is_left_alone_and_an_unknown_size_refused(world: Path, tmp_path: Path) -> None:
    before = world.stat().st_ino
    write_segmentation(world, size="tiny")
    assert world.stat().st_ino == before
    assert json.loads((world / MARKER).read_text())["world"] == "segmentation"
    for size, seed in (("huge", 0), ("tiny", -1)):
        with pytest.raises(ValueError, match="expected a size of tiny, small"):
            write_segmentation(tmp_path / "x", seed, size)
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="it is no demo world"):
        write_segmentation(tmp_path, size="tiny")


def test_no_scene_is_one_of_another_split() -> None:
    others = [video.scene_seed for seed in range(1000) for video in plan(seed, "full")[-1:]]
    assert max(*others, PRETRAINING_SEEDS.stop) < FIRST_SEED
    n_images, n_clips, _ = SIZES["full"]
    assert 6 * n_images + 4 * n_clips < 10_000  # a seed's scenes; the next seed's begin there


@pytest.mark.parametrize("name", SETS)
def test_every_set_is_there_in_its_number(world: Path, name: str) -> None:
    images = read_set(name, world)
    n_images, n_clips, n_frames = SIZES["tiny"]
    assert len(images) == (n_clips if images.samples[0].is_clip else n_images)
    if images.samples[0].is_clip:
        assert {len(sample.frames) for sample in images.samples} == {n_frames}
    assert images.size(0) == (120, 160)
    if name != "cityscapes":  # where only LAVIDA's eight classes are asked for
        assert "person" in {word for phrase in images.vocabulary() for word in phrase.split()}


def test_no_two_sets_share_a_picture_but_those_of_coco(world: Path) -> None:
    files = [*world.rglob("*.jpg"), *world.rglob("*_leftImg8bit.png")]
    assert len({path.read_bytes() for path in files}) == len(files)
    n_images, n_clips, n_frames = SIZES["tiny"]
    assert len(files) == 6 * n_images + 4 * n_clips * n_frames


@pytest.mark.parametrize("seed", [FIRST_SEED + k for k in (3, 4, 9, 20, 31)])
def test_the_masks_of_a_shot_are_what_the_renderer_shows_of_each_thing(seed: int) -> None:
    """Against the same scene rendered with each thing removed: what changes is the thing's, and nothing else is."""
    shot = make_shot(seed, 2)
    rng = np.random.default_rng([seed, 2])
    category = str(rng.choice([*SCRIPTS])) if rng.random() < 2 / 3 else "Normal"
    scene = make_scene(seed, category, 96)
    begin = scene.anomalies[0][0] if scene.anomalies else 0
    index = max(0, min(begin, 92)) + 2 * np.arange(2)
    assert np.array_equal(shot.frames[0], scene.frame(int(index[0]))[0])
    assert shot.things
    matched = 0
    for thing in shot.things:
        best = 0.0
        for sprite in scene.sprites:
            without = replace(scene, sprites=[other for other in scene.sprites if other is not sprite])
            changed = np.stack([
                np.abs(scene.frame(int(i))[0].astype(int) - without.frame(int(i))[0]).max(axis=-1) > 12 for i in index
            ])  # fmt: skip
            union = (changed | thing.mask).sum()
            best = max(best, float((changed & thing.mask).sum() / union) if union else 0.0)
        matched += best > 0.6
    assert matched >= 0.7 * len(shot.things)  # a thing may have the colour of what is behind it


def test_things_do_not_overlap_unless_one_is_smoke() -> None:
    fires = 0
    for seed in range(FIRST_SEED, FIRST_SEED + 16):
        shot = make_shot(seed, 2, street=True)
        fire = [thing.mask for thing in shot.things if thing.noun in ("fire", "explosion")]
        solid = [thing.mask for thing in shot.things if thing.noun not in ("fire", "explosion", "smoke")]
        fires += len(fire)
        there = [*solid, *([np.any(fire, axis=0)] if fire else [])]  # a fireball and its flash are two
        assert not there or np.sum(there, axis=0).max() == 1
        assert all(thing.mask.shape == shot.frames.shape[:3] for thing in shot.things)
    assert fires


def test_words_go_from_the_general_to_the_particular() -> None:
    mask = np.ones((1, 2, 2), bool)
    assert Thing("fire", "", "", mask).phrases() == ["fire"]
    assert Thing("van", "orange", "", mask).phrases() == ["a van", "an orange van"]
    assert Thing("umbrella", "", "", mask).phrases() == ["an umbrella"]
    assert Thing("person", "red", "running", mask).phrases() == [
        "a person", "a person in red", "a person in red running",
    ]  # fmt: skip
    assert Thing("officer", "", "aiming", mask).phrases() == ["an officer", "an officer aiming"]


def test_a_general_phrase_covers_what_every_particular_one_does(world: Path) -> None:
    for name in ("refcocog", "mevis", "ref_davis"):
        images = read_set(name, world)
        for i in range(len(images)):
            masks = images.masks(i)
            for phrase in masks:
                for longer in masks:
                    if longer.startswith(f"{phrase} "):
                        assert not (masks[longer] & ~masks[phrase]).any(), (name, phrase, longer)


def test_the_files_are_spelled_as_the_sets_do(world: Path) -> None:
    assert (world / "ade20k" / "objectInfo150.txt").read_text().startswith("Idx\tRatio\tTrain\tVal\tName\n1\t")
    file = world / "refer" / "refcoco+" / "refs(unc).p"
    assert file.read_bytes()[:2] == b"\x80\x02"  # Python 2's protocol
    ref = load_plain(file)[0]
    assert {"ref_id", "ann_id", "image_id", "category_id", "split", "sentences", "sent_ids", "file_name"} == set(ref)
    assert {"sent", "raw", "tokens", "sent_id"} == set(ref["sentences"][0])
    for name, mode in (("youtube_vos/train/Annotations", "P"), ("ade20k/annotations", "L"), ("cityscapes/gtFine", "L")):
        assert {Image.open(path).mode for path in (world / name).rglob("*.png")} == {mode}
    masks = json.loads((world / "mevis" / "train" / "mask_dict.json").read_text())
    assert set(masks["0"][0] or masks["0"][-1]) == {"size", "counts"}
    assert {len(entries) for entries in masks.values()} == {SIZES["tiny"][2]}


def test_cityscapes_shows_what_the_other_classes_are_too(world: Path) -> None:
    everything = cityscapes(world / "cityscapes", classes=("person", "road", "bus", "truck", "traffic light"))
    phrases = {phrase for i in range(len(everything)) for phrase in everything.phrases(i)}
    assert {"person", "road"} < phrases


def test_outlines_and_run_lengths_hold_exactly_the_mask() -> None:
    generator = np.random.default_rng(0)
    for density in (0, 0.02, 0.5, 0.97, 1):
        mask = generator.random((13, 17)) < density
        assert np.array_equal(polygon_mask(outlines(mask), 13, 17), mask)
        assert np.array_equal(decode_rle(encode_rle(mask)), mask)
