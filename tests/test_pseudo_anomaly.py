"""Segmentation sets as anomalies: what is drawn, that a key alone decides it, and that masks and phrases agree."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from callbacks.leak_guard import LeakGuard
from datamodules import PseudoAnomaly
from datamodules.demo_segmentation import write_segmentation
from datamodules.pseudo_anomaly import LAVIDA_MIXTURE
from datamodules.segmentation import SETS
from lightning_modules import MilRanker
from tests.tiny_systems import TinyClips
from tests.tiny_videos import make_trainer
from tests.worlds import assert_equal, lightning, weights
from vigil.exposure import spelling
from vigil.types import Clip, View

CLIPS = {"youtube_vos", "ref_youtube_vos", "mevis", "ref_davis"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("segmentation") / "sets"
    write_segmentation(folder, size="tiny")
    return folder


def data_of(root: Path, **options: Any) -> PseudoAnomaly:
    options = {"num_workers": 0, "samples_per_epoch": 32, "validation_samples": 30, **options}
    data = PseudoAnomaly(str(root), **options)
    data.watch(TinyClips())
    return data


def batches(data: PseudoAnomaly, epoch: int = 0) -> list[Clip]:
    loader = data.train_dataloader()
    loader.batch_sampler.set_epoch(epoch)
    return list(loader)


def assert_same(ours: list[Clip], theirs: list[Clip]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.video, one.phrases) == (other.video, other.phrases)
        assert torch.equal(one.pixels["video"], other.pixels["video"])
        assert torch.equal(one.mask, other.mask)
        assert torch.equal(one.frame_label, other.frame_label)


def test_seed_epoch_and_index_alone_decide_a_sample(root: Path) -> None:
    first = batches(data_of(root), epoch=1)
    torch.manual_seed(5)
    assert_same(batches(data_of(root), epoch=1), first)
    assert_same(batches(data_of(root, num_workers=2), epoch=1), first)
    for other in (batches(data_of(root), epoch=2), batches(data_of(root, seed=1), epoch=1)):
        assert [clip.phrases for clip in other] != [clip.phrases for clip in first]


def test_two_processes_share_what_one_draws(root: Path) -> None:
    whole = [name for clip in batches(data_of(root)) for name in clip.video]
    shares = []
    for rank in (0, 1):
        data = data_of(root)
        data._shard = lambda rank=rank: (rank, 2)
        shares.append(batches(data))
    assert Counter(name for share in shares for clip in share for name in clip.video) == Counter(whole)


def test_an_epoch_goes_on_in_the_middle_with_any_number_of_workers(root: Path) -> None:
    whole = batches(data_of(root))
    loader = data_of(root, num_workers=2).train_dataloader()
    loader.batch_sampler.set_epoch(0)
    loader.load_state_dict({"yielded": 3})
    assert_same(list(loader), whole[3:])


def test_sets_are_drawn_by_weight_and_half_the_samples_are_anomalous(root: Path) -> None:
    exposures = data_of(root, max_categories=8).exposures("train")
    generator = np.random.default_rng(0)
    kinds = generator.random(1500) < exposures.share_of_clips
    drawn = [exposures._draw(0, index, bool(kind)) for index, kind in enumerate(kinds)]
    assert exposures.share_of_clips == pytest.approx(0.7)
    count = Counter(name for name, *_ in drawn)
    for name, weight in LAVIDA_MIXTURE.items():
        assert abs(count[name] / 1500 - weight) < 4 * np.sqrt(weight * (1 - weight) / 1500), name
    shown = [anomalous for *_, anomalous, _ in drawn]
    assert abs(np.mean(shown) - 0.5) < 4 * np.sqrt(0.25 / 1500)


def test_an_anomalous_sample_shows_one_of_its_phrases_and_a_normal_one_none(root: Path) -> None:
    data = data_of(root, samples_per_epoch=120)
    exposures = data.exposures("train")
    for index in range(60):
        name, i, frames, phrases, anomalous, mask = exposures._draw(3, index, index % 2 == 0)
        masks = data.sets[name].masks(i, frames)
        true = {spelling(phrase) for phrase in data.sets[name].phrases(i)}
        asked = [phrase for phrase in phrases if spelling(phrase) in true]
        assert (name in CLIPS) == (index % 2 == 0)
        assert len({spelling(phrase) for phrase in phrases}) == len(phrases)
        if anomalous:
            assert len(asked) == 1
            assert np.array_equal(mask, masks[asked[0]])
        else:
            assert not asked
            assert not mask.any()


@pytest.mark.parametrize("frame_label", ["clip", "mask"])
def test_frame_labels_are_those_of_the_paper_or_of_the_code(root: Path, frame_label: str) -> None:
    seen = set()
    for clip in batches(data_of(root, frame_label=frame_label, samples_per_epoch=200)):
        shown = clip.mask.flatten(2).any(-1)
        expected = shown if frame_label == "mask" else clip.label[:, None].bool().expand_as(shown)
        assert torch.equal(clip.frame_label.bool(), expected)
        seen |= set(clip.label.tolist())
    assert seen == {0, 1}


def test_a_batch_is_of_images_or_of_clips_with_all_that_a_system_needs(root: Path) -> None:
    lengths = set()
    for clip in batches(data_of(root)):
        b, t = clip.frame["video"].shape
        assert clip.pixels["video"].dtype == torch.uint8
        assert clip.pixels["video"].shape[:3] == (b, t, 3)
        assert clip.mask.shape == (b, t, *clip.pixels["video"].shape[-2:])
        assert clip.text == [", ".join(phrases) for phrases in clip.phrases]
        assert all(name.split("/")[0] in (CLIPS if t > 1 else LAVIDA_MIXTURE.keys() - CLIPS) for name in clip.video)
        lengths.add(t)
    assert lengths == {1, 4}


def test_validation_is_drawn_once_from_samples_that_training_never_sees(root: Path) -> None:
    data = data_of(root)
    train, held = data.exposures("train"), data.exposures("val")
    for name, rows in held.rows.items():
        assert len(rows)
        assert not set(rows) & set(train.rows[name])
    videos = {video.name: video for video in data.known("val")}
    assert {video.label for video in videos.values()} == {0, 1}
    for clip in data.val_dataloader():
        assert videos[clip.video[0]].label == int(clip.label)
        assert videos[clip.video[0]].n_frames == clip.frame["video"].shape[1]


def test_a_system_is_fitted_on_it_and_remembers_the_phrases(root: Path, tmp_path: Path) -> None:
    data, system = data_of(root), TinyClips()
    data.watch(system)
    trainer = make_trainer(tmp_path, [LeakGuard()], max_epochs=1)
    trainer.fit(system, datamodule=data)
    assert "video_auroc" in trainer.callbacks[0].results["val"]
    (saw,) = system.seen.values()
    assert {"a person", "fire"} & set(saw["phrases"])


def test_the_phrases_of_a_fit_are_known_before_it_in_every_spelling(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = data_of(root, samples_per_epoch=200)
    data.sets["mevis"].said[0]["A  person!!"] = [0]  # as somebody else might have put it
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
        phrases = data.seen()["phrases"]
    assert phrases == sorted(set(phrases))
    assert {"A  person!!", "a person"} <= set(phrases)
    del data.sets["mevis"].said[0]["A  person!!"]
    assert {phrase for clip in batches(data) for own in clip.phrases for phrase in own} <= set(phrases)


SMALLER = r"160 x 120 pixels, its image .*{} has 80 x 60"


@pytest.mark.parametrize("name", ["ade20k", "refcoco", "ref_youtube_vos", "mevis"])
def test_a_mask_of_another_size_than_its_image_stops_a_fit_naming_both(root: Path, tmp_path: Path, name: str) -> None:
    folder = SETS[name][0]
    shutil.copytree(root / folder, tmp_path / folder)
    data = data_of(tmp_path, mixture={name: 1.0})
    for sample in data.sets[name].samples:
        for frame in range(len(sample.frames)):
            Image.new("RGB", (80, 60)).save(sample.path(frame))
    with pytest.raises(ValueError, match=SMALLER.format(data.sets[name].samples[0].path(0).suffix)) as caught:
        next(iter(data.train_dataloader()))
    mask = {"ade20k": "annotations/training/", "refcoco": "the outlines of", "mevis": "mask_dict.json, mask"}
    assert mask.get(name, "Annotations/") in str(caught.value)


@pytest.mark.parametrize("frame_label", ["clip", "mask"])
def test_an_image_without_objects_is_a_normal_sample(root: Path, tmp_path: Path, frame_label: str) -> None:
    shutil.copytree(root / "ade20k", tmp_path / "ade20k")
    files = sorted((tmp_path / "ade20k" / "annotations" / "training").iterdir())
    for file in files[::2]:
        Image.fromarray(np.zeros((120, 160), np.uint8)).save(file)
    data = data_of(tmp_path, mixture={"ade20k": 1.0}, p=1.0, frame_label=frame_label, validation_fraction=0.2)
    empty, labels = {f"ade20k/{file.stem}" for file in files[::2]}, set()
    for clip in batches(data):
        for row, name in enumerate(clip.video):
            label = int(name not in empty)
            assert (int(clip.label[row]), int(clip.frame_label[row].max())) == (label, label)
            assert bool(clip.mask[row].any()) == bool(label)
            assert clip.phrases[row]
            labels.add(label)
    assert labels == {0, 1}


def test_a_picture_that_several_sets_hold_is_held_out_of_all_of_them(root: Path) -> None:
    data = data_of(root, mixture=dict.fromkeys(("refcoco", "refcoco_plus", "refcocog"), 1.0), validation_fraction=0.3)
    names = {
        part: {data.sets[name].samples[i].name for name, rows in data.exposures(part).rows.items() for i in rows}
        for part in ("train", "val")
    }
    assert names["train"]
    assert names["val"]
    assert not names["train"] & names["val"]


def test_a_video_annotated_in_one_frame_is_a_clip_like_the_others(root: Path) -> None:
    exposures = data_of(root, mixture={"youtube_vos": 1.0}).exposures("train")
    samples = exposures.sets["youtube_vos"].samples
    samples[:] = [replace(sample, frames=sample.frames[:1]) for sample in samples]
    assert exposures[(0, 0, True)].pixels["video"].shape[:2] == (1, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_categories": {"ade20": 6}}, "of sets in the mixture, not ade20"),
        ({"max_categories": 1}, "at least 2 categories"),
        ({"p": 1.5}, r"p in \[0, 1\]"),
        ({"mixture": {}}, "a weight of at least 0"),
        ({"mixture": {"ade20k": -1.0}}, "a weight of at least 0"),
        ({"samples_per_epoch": 0}, "samples_per_epoch=0"),
        ({"validation_fraction": 1.5}, "between 0 and 1"),
    ],
)
def test_options_that_cannot_be_are_refused(root: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_of(root, **options)


def test_an_unknown_set_and_a_missing_one_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'ade20' is unknown; expected one of ade20k"):
        _ = data_of(root, mixture={"ade20": 1.0}).sets
    with pytest.raises(FileNotFoundError, match="ade20k"):
        _ = data_of(tmp_path, mixture={"ade20k": 1.0}).sets


def test_bags_and_testing_are_not_what_it_is_for(root: Path) -> None:
    data = data_of(root)
    data.watch(MilRanker(encoder="demo_deit", weights=None, fit_view=View(1, segments=4), test_view=View(1, 1, 1)))
    with pytest.raises(ValueError, match="watches bags"):
        data.train_dataloader()
    with pytest.raises(ValueError, match="test on another dataset"):
        data_of(root).known("test")


def test_a_fit_that_was_killed_goes_on_to_the_same_weights(root: Path, tmp_path: Path) -> None:
    (tmp_path / "fit.yaml").write_text(f"""\
model: {{class_path: tests.tiny_systems.TinyClips}}
data:
  class_path: PseudoAnomaly
  init_args: {{root: {root}, samples_per_epoch: 24, validation_samples: 12, num_workers: 2}}
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 2
  callbacks+:
  - class_path: tests.worlds.SignalAt
""")
    for runs, stops in (("whole", [None]), ("killed", [(8, signal.SIGKILL), None])):
        for at in stops:
            done = lightning("fit", "-c", "fit.yaml", "--runs", runs, "--save_every", 3, cwd=tmp_path, at=at)
            assert done.returncode == (0 if at is None else -signal.SIGKILL), done.stderr
    assert_equal(weights(tmp_path / "killed"), weights(tmp_path / "whole"))
