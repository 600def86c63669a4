"""Zero-shot CLIP: frame scores from phrases alone, by any data, without training; readings that other phrases share."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import datamodules.clips
import datamodules.video_data
from callbacks.caption_writer import CaptionWriter
from callbacks.score_writer import ScoreWriter
from cli import main
from datamodules import OwnVideos, UcfCrime
from lightning_modules import ZeroShotClip
from lightning_modules.zero_shot_clip import ANOMALOUS, NORMAL
from tests.tiny_clip import write_clip
from tests.tiny_videos import make_trainer, write_tiny_video, write_video_world
from tests.worlds import ROOT
from vigil.clip import ClipTowers
from vigil.types import Clip, View
from vigil.video import read_frames

TINY: dict[str, Any] = {"template": "seen: {}", "normal": ["people", "a road"], "test_view": View(2, 4, 16)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video_world(tmp_path_factory.mktemp("videos"), n_train=2)


def make(folder: Path, **settings: Any) -> ZeroShotClip:
    return ZeroShotClip(str(folder), **{**TINY, **settings})


def run_test(model: ZeroShotClip, root: Path, run: Path, **trainer: Any) -> tuple[dict[str, float], dict[str, Any]]:
    """Metrics of the test split, and {video: curve}."""
    data = UcfCrime(str(root), num_workers=0)
    data.watch(model)
    trainer = make_trainer(run, **trainer)
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    return metrics, trainer.callbacks[0].curves


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("asked for what is kept on disk")


# scores


@pytest.mark.parametrize("aggregate", ["sum", "max"])
def test_a_test_scores_every_window_as_the_definition_says(
    folder: Path, world: Path, tmp_path: Path, aggregate: str
) -> None:
    model = make(folder, aggregate=aggregate)
    metrics, curves = run_test(model, world, tmp_path)
    assert model.anomalous == list(UcfCrime.phrases)
    towers = ClipTowers(str(folder))
    texts = {phrase: towers.texts([f"seen: {phrase}"])[0] for phrase in (*UcfCrime.phrases, "people", "a road")}
    data = UcfCrime(str(world), num_workers=0)
    for video in data.known("test"):
        for start, _ in model.test_views["video"].spans(video.n_frames):
            index = np.minimum([start, start + 4], video.n_frames - 1)
            frames = [towers.images(frame) for frame in read_frames(video.path, index)]
            mean = (frames[0] + frames[1]) / 2
            power = {
                phrase: math.exp(towers.logit_scale * float(mean @ text) / float(mean.norm()))
                for phrase, text in texts.items()
            }
            join = sum if aggregate == "sum" else max
            ours = join(power[phrase] for phrase in UcfCrime.phrases)
            theirs = join(power[phrase] for phrase in ("people", "a road"))
            curve = curves[video.name]
            run = int(np.searchsorted(curve.edge, start, side="right")) - 1
            assert math.isclose(curve.score[run], ours / (ours + theirs), rel_tol=1e-4)
    assert {"test/frame_auroc", "test/frame_ap", "test/video_auroc"} <= metrics.keys()
    assert len({round(float(score), 6) for curve in curves.values() for score in curve.score}) > 4


def test_a_picture_like_an_anomalous_phrase_scores_higher(folder: Path) -> None:
    model = make(folder, anomalous=["a fight"], normal=["people"], template="{}")
    model._encode_phrases()
    ours, theirs = (side[0] for side in model.texts)
    score = model(torch.stack([ours, ours + theirs, theirs]))
    assert score[0] > score[1] > score[2]
    assert math.isclose(float(score[1]), 0.5, abs_tol=1e-5)
    torch.testing.assert_close(model(7 * theirs[None]), score[2:])  # of any length


def test_scores_are_float32_in_the_unit_interval_in_every_precision(folder: Path, world: Path, tmp_path: Path) -> None:
    exact = run_test(make(folder), world, tmp_path)[1]
    for precision in ("bf16-mixed", "bf16-true"):
        curves = run_test(make(folder), world, tmp_path, precision=precision)[1]
        for name, curve in curves.items():
            assert 0 <= curve.score.min() <= curve.score.max() <= 1
            np.testing.assert_allclose(curve.score, exact[name].score, atol=0.03)
            score = torch.from_numpy(np.asarray(curve.score))
            assert (score.bfloat16() != score).any()  # finer than bf16


def test_pre_extracted_features_are_scored_where_they_are_of_this_width(folder: Path) -> None:
    model = make(folder)
    model._encode_phrases()
    feature = torch.randn(3, 1, 12)
    clip = Clip(
        video=["a"] * 3,
        span=torch.tensor([[0, 16]] * 3),
        frame={"video": torch.zeros(3, 1)},
        features={"video": feature},
    )
    torch.testing.assert_close(model.predict(clip).frame_score[:, 0], model(feature[:, 0]))
    clip.features["video"] = torch.randn(3, 1, 13)
    with pytest.raises(ValueError, match=r"features of width 13, .* gives 12; set model\.init_args\.clip"):
        model.predict(clip)


def test_a_clip_of_pixels_as_a_stream_gives_it_scores_as_its_reading_does(folder: Path) -> None:
    model = make(folder)
    model._encode_phrases()
    pixels = torch.randint(0, 256, (3, 2, 3, 24, 32), dtype=torch.uint8)
    frame = torch.arange(6).view(3, 2)
    clip = Clip(["a"] * 3, torch.tensor([[0, 16]] * 3), {"video": frame}, pixels={"video": pixels})
    score = model.predict(clip).frame_score
    assert score.shape == (3, 2)
    assert torch.equal(score[:, 0], score[:, 1])
    reading = model.read(clip, "video")["video"]
    torch.testing.assert_close(reading.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(model(reading), score[:, 0])


# readings


def test_other_phrases_read_no_video_and_run_no_image_tower(
    folder: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_test(make(folder), world, tmp_path)[1]
    monkeypatch.setattr(datamodules.clips, "read_frames", refuse)
    monkeypatch.setattr(datamodules.video_data, "probe", refuse)
    monkeypatch.setattr(ClipTowers, "images", refuse)
    other = make(folder, anomalous=["riot", "a car"], template="{}", aggregate="max")
    second = run_test(other, world, tmp_path)[1]
    assert first.keys() == second.keys()
    assert any(not np.allclose(first[name].score, second[name].score) for name in first)


def test_the_same_phrases_again_need_no_weights_at_all(folder: Path, world: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "clip"))
    first = run_test(make(copy), world, tmp_path)[0]
    again = make(copy)
    assert again.reading_key() is not None
    assert again.towers.logit_scale > again.towers.width / 12
    shutil.rmtree(copy)
    assert run_test(again, world, tmp_path)[0] == first
    assert again.towers.model is None


def test_other_weights_or_another_dtype_ask_for_readings_of_their_own(
    folder: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_test(make(folder), world, tmp_path)
    monkeypatch.setattr(datamodules.clips, "read_frames", refuse)
    for other in (make(write_clip(tmp_path / "other", seed=1)), make(folder, dtype="bfloat16")):
        with pytest.raises(AssertionError, match="kept on disk"):
            run_test(other, world, tmp_path)


# phrases


def test_phrases_given_win_over_the_datasets(folder: Path, world: Path, tmp_path: Path) -> None:
    model = make(folder, anomalous=["a riot"])
    run_test(model, world, tmp_path)
    assert model.protocol == {
        "backbone": str(folder),
        "prompt_class_names": "generic",
        "files": model.towers.fingerprint,
        "dtype": "float32",
        "anomalous": ["a riot"],
        "normal": ["people", "a road"],
        "template": "seen: {}",
        "aggregate": "sum",
    }


def test_own_videos_are_scored_with_general_phrases(folder: Path, tmp_path: Path) -> None:
    write_tiny_video(tmp_path / "mine.mp4", 50, seed=3)
    model = make(folder, anomalous="general", normal="general")
    data = OwnVideos(str(tmp_path / "mine.mp4"), num_workers=0)
    data.watch(model)
    writers = [ScoreWriter(tmp_path / "run"), CaptionWriter(tmp_path / "run")]
    trainer = make_trainer(tmp_path / "run", callbacks=writers)
    trainer.predict(model, datamodule=data, return_predictions=False)
    with (tmp_path / "run" / "captions.csv").open() as stream:
        said = [row["caption"] for row in csv.DictReader(stream)]
    view = model.test_views["video"]
    frames = read_frames(tmp_path / "mine.mp4", view.indices(50)[:, 0])
    phrases = [*ANOMALOUS, *NORMAL]
    texts = model.towers.texts([model.template.replace("{}", phrase) for phrase in phrases])
    for text, frame in zip(said, frames, strict=True):
        cosine = [float(model.towers.images(frame[None])[0] @ row) for row in texts]
        assert text == phrases[cosine.index(max(cosine))]
    rows = (tmp_path / "run" / "scores.csv").read_text().splitlines()
    assert rows[0] == "video,first_frame,end_frame,score,refined"
    assert [row.split(",")[2] for row in rows[1:]][-1] == "50"
    assert (model.anomalous, model.normal) == (list(ANOMALOUS), list(NORMAL))


def test_the_general_phrases_are_the_default_where_the_data_has_none() -> None:
    assert ZeroShotClip().anomalous == list(ANOMALOUS)
    assert ZeroShotClip().normal == list(NORMAL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"test_view": View(frames=1, segments=8)}, "must be windows"),
        ({"template": "a picture"}, "'{}' is expected once"),
        ({"template": "{} and {}"}, "'{}' is expected once"),
        ({"aggregate": "mean"}, "aggregate 'mean': expected sum or max"),
        ({"anomalous": []}, r"anomalous phrases \[\]: at least one"),
        ({"normal": ["a road", " "]}, "normal phrases .*none empty, is expected"),
        ({"anomalous": ["a road", "a fight"]}, "a road: among the anomalous and the normal phrases"),
        ({"dtype": "int8"}, "dtype 'int8'"),
    ],
)
def test_settings_that_mean_nothing_are_refused(folder: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(folder, **settings)


def test_a_phrase_too_long_for_the_tower_is_named(folder: Path, world: Path, tmp_path: Path) -> None:
    long = "somebody who " + "very " * 20 + "slowly walks"
    with pytest.raises(ValueError, match=rf"'seen: {long}' is \d+ tokens long"):
        run_test(make(folder, anomalous=[long]), world, tmp_path)


def test_a_model_that_is_not_there_is_named_before_anything_is_decoded(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datamodules.clips, "read_frames", refuse)
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such folder"):
        run_test(make(tmp_path / "nowhere"), world, tmp_path)


# nothing to train


def test_the_command_refuses_to_fit_and_tests_without_a_checkpoint(
    folder: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["-c", str(ROOT / "configs/systems/zero_shot_clip.yaml"), "-c", str(ROOT / "configs/data/ucf_crime.yaml")]
    given += ["-c", str(ROOT / "configs/machines/cpu.yaml"), "--data.root", str(world), "--data.num_workers", "0"]
    given += ["--model.clip", str(folder), "--model.template", '"{}"', "--model.normal", "[people]"]
    given += ["--trainer.enable_progress_bar", "false", "--trainer.logger", "false"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", *given])
    assert stop.value.code == 1
    assert "error: ZeroShotClip is not trained, there is nothing to fit" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    main(["test", *given])
    (file,) = (tmp_path / "runs").rglob("metrics.json")
    found = json.loads(file.read_text())
    assert 0 <= found["metrics"]["frame_auroc"] <= 1
    assert found["checkpoint"] is None


def test_the_config_gives_what_the_class_gives_by_itself() -> None:
    config = yaml.safe_load((ROOT / "configs/systems/zero_shot_clip.yaml").read_text())["model"]["init_args"]
    assert dict(ZeroShotClip(**config).hparams) | {"test_view": View(1, 1, 16)} == dict(ZeroShotClip().hparams)
