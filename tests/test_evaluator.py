"""What is fitted before a test of class scores, and what becomes of systems that score no frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from callbacks.evaluator import Evaluator
from callbacks.progress import Cost
from callbacks.score_writer import ScoreWriter
from datamodules import OwnVideos, Uca, UcfCrime
from tests.test_uca import data_of, write_world
from tests.tiny_systems import TinyEvents
from tests.tiny_videos import make_trainer, write_video_world
from tests.worlds import lightning
from vigil.annotations import UCF_CRIME_CATEGORIES
from vigil.calibration import fit_temperature
from vigil.judging import class_numbers
from vigil.types import Clip, Prediction, View


def events(*videos: str) -> dict[str, list[tuple[float, float, str]]]:
    """Two events of each video that the probe asks about, the first described by two sentences, and one it does not."""
    said = {"Arson": "A fire.", "Fighting": "They fought.", "Robbery": "A man robbed a shop."}
    found = {}
    for name in videos:
        told = said[name.rstrip("0123456789")]
        found[f"{name}_x264"] = [(0.2, 0.8, told), (0.2, 0.8, f"Then: {told}"), (1.0, 1.8, told), (0.0, 2.0, "Dusk.")]
    return found


WORLD = {
    "Train": events("Arson001"),
    "Val": events("Arson003", "Fighting001", "Robbery001"),
    "Test": events("Arson002", "Fighting002"),
}


class Knowing(TinyEvents):
    """Knows the class of an event, but takes one that begins early for the next one, and is surer than it may be."""

    scores_frames = False

    def __init__(self, sure: float = 3.0, mistaken: bool = True) -> None:
        super().__init__()
        self.sure, self.mistaken = sure, mistaken
        self.asked: list[str] = []
        self.state: set[tuple[bool, bool, bool]] = set()

    def predict(self, clip: Clip) -> Prediction:
        ((first, _),) = clip.span.tolist()
        self.asked.append(clip.video[0])
        self.state.add((torch.is_grad_enabled(), self.training, torch.is_autocast_enabled("cpu")))
        own = UCF_CRIME_CATEGORIES.index(clip.category[0])
        said = (own + (self.mistaken and first < 20)) % 13
        score = torch.linspace(-1, 0, 13)[None].clone()
        score[0, said] = self.sure
        return Prediction(class_score=score)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("uca"), WORLD)


def judged(root: Path, folder: Path, system: Any, data: Uca | None = None, **settings: Any) -> Evaluator:
    """The Evaluator of a test of the probe, and in folder/test what the test left."""
    data = data_of(root, system, task="probe") if data is None else data
    trainer = make_trainer(folder, [ScoreWriter(folder / "test")], **settings)
    trainer.test(system, datamodule=data, verbose=False)
    return trainer.callbacks[0]


def expected_scores(data: Uca, sampled: list[Any]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What Knowing says of events, in the order of (video, first, end)."""
    system = Knowing()
    true, score, video = [], [], []
    for event in sorted(sampled, key=lambda event: (event.video.name, event.first, event.end)):
        clip = Clip([event.video.name], torch.tensor([[event.first, event.end]]), {}, category=[event.video.category])
        true.append(data.categories.index(event.video.category))
        score.append(system.predict(clip).class_score[0].numpy())
        video.append(event.video.name)
    return np.array(true), np.stack(score), video


def test_a_temperature_is_fitted_on_calibration_samples_alone_and_goes_into_the_numbers(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    system = Knowing()
    data = data_of(world, system, task="probe")
    evaluator = judged(world, tmp_path, system, data)
    once = {(event.video.name, event.first, event.end): event for event in data.sampled("calibration")}
    assert len(once) == 3 * 2
    true, score, _ = expected_scores(data, list(once.values()))
    temperature = fit_temperature(score, true)
    assert 1 < temperature < 5
    assert evaluator.metrics["top"].temperature == temperature
    assert f"Temperature of class scores: {temperature:.4g}, fitted on 6 samples." in caplog.text
    before = len(data.sampled("calibration"))
    assert before == 3 * 3  # of each video two sentences tell of one stretch
    assert (set(system.asked[:before]), set(system.asked[before:])) == (set(WORLD["Val"]), set(WORLD["Test"]))
    facts = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert facts["temperature"] == temperature
    numbers = class_numbers(*expected_scores(data, data.sampled("test")), temperature)
    assert facts["metrics"] == evaluator.results["test"] == pytest.approx(numbers)
    assert facts["metrics"]["class_nll_scaled"] != facts["metrics"]["class_nll"]
    assert evaluator.calibration_s > 0


def test_calibration_samples_are_predicted_as_those_of_the_test_are(world: Path, tmp_path: Path) -> None:
    system = Knowing().train()
    judged(world, tmp_path, system, precision="bf16-mixed")
    assert system.state == {(False, False, True)}  # no gradients, not training, under autocast


def test_a_test_whose_scores_have_no_temperature_says_so_and_goes_on(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    evaluator = judged(world, tmp_path, Knowing(mistaken=False))
    assert "No temperature of class scores is fitted: all 6 samples are right" in caplog.text
    assert evaluator.metrics["top"].temperature is None
    facts = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert facts["temperature"] is None
    assert facts["metrics"]["top1"] == 1
    assert not [key for key in facts["metrics"] if key.endswith("_scaled")]


class Uncertain(Knowing):
    """Has no likelihood of some events."""

    def predict(self, clip: Clip) -> Prediction:
        prediction = super().predict(clip)
        prediction.class_score[0, 0] = float("nan")
        return prediction


def test_what_cannot_be_calibrated_on_is_refused_before_the_test(world: Path, tmp_path: Path) -> None:
    system = Uncertain()
    with pytest.raises(ValueError, match=r"Arson003_x264: class_score is torch\.float32 \(1, 13\), 12 of 13 finite"):
        judged(world, tmp_path, system)
    assert system.asked == ["Arson003_x264"]


def test_calibrating_costs_the_test_nothing(world: Path, tmp_path: Path) -> None:
    system, cost = Knowing(), Cost()
    data = data_of(world, system, task="probe")
    trainer = make_trainer(tmp_path, [ScoreWriter(tmp_path / "test"), cost])
    trainer.test(system, datamodule=data, verbose=False)
    whole, apart = cost.of(trainer, system, "test")["seconds"], trainer.callbacks[0].calibration_s
    said = json.loads((tmp_path / "test" / "metrics.json").read_text())["cost"]
    assert said["seconds"] == pytest.approx(whole - apart)
    assert said["frames_per_second"] == pytest.approx(2 * 50 / (whole - apart))
    assert 0 < apart < whole


def test_a_quick_trial_fits_no_temperature(world: Path, tmp_path: Path) -> None:
    system = Knowing()
    evaluator = judged(world, tmp_path, system, fast_dev_run=True)
    assert set(system.asked) <= set(WORLD["Test"])
    assert evaluator.metrics["top"].temperature is None


class Uncalibrated(Uca):
    """Described events, none of which is set apart."""

    def calibration_dataloader(self) -> None:
        """There is nothing to calibrate on."""


def test_a_dataset_without_calibration_samples_is_tested_as_it_is(world: Path, tmp_path: Path) -> None:
    system = Knowing()
    data = Uncalibrated(str(world), task="probe", num_workers=0)
    data.watch(system)
    assert judged(world, tmp_path, system, data).metrics["top"].temperature is None
    assert "class_ece" in json.loads((tmp_path / "test" / "metrics.json").read_text())["metrics"]


def test_two_processes_fit_the_temperature_of_one(world: Path, tmp_path: Path) -> None:
    evaluator = judged(world, tmp_path, Knowing())
    known = ("--model", "tests.test_evaluator.Knowing", "--data", "Uca", "--data.root", world, "--data.task", "probe")
    two = ("--data.num_workers", 0, "--trainer.accelerator", "cpu", "--trainer.devices", 2, "--trainer.strategy", "ddp")
    done = lightning("test", *known, *two, cwd=tmp_path)  # nine samples to calibrate on, so one comes twice
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("Temperature of class scores") == 1
    (facts,) = (json.loads(file.read_text()) for file in (tmp_path / "runs").rglob("metrics.json"))
    assert facts["temperature"] == evaluator.metrics["top"].temperature > 1
    assert facts["metrics"] == evaluator.results["test"]


# systems that score no frames


class Describing(Knowing):
    """Says what it sees of a video, second by second."""

    event_s = 1.0

    def predict(self, clip: Clip) -> Prediction:
        return Prediction(caption=["A street."] * len(clip.video))


class Silent(TinyEvents):
    """Gives no frame scores, and does not say that it gives none."""

    def predict(self, clip: Clip) -> Prediction:
        return Prediction(caption=["A street."] * len(clip.video))


def test_a_prediction_without_frame_scores_has_no_curves_and_is_written(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system = Describing()
    data = OwnVideos(str(world / "Videos" / "Arson001_x264.mp4"), num_workers=0)
    data.watch(system)
    trainer = make_trainer(tmp_path, [ScoreWriter(tmp_path / "out")])
    trainer.predict(system, datamodule=data, return_predictions=False)
    evaluator = trainer.callbacks[0]
    assert (evaluator.curves, evaluator.refined, evaluator.results["predict"]) == ({}, {}, {})
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"metrics.json"}
    assert "curves" not in capsys.readouterr().out


def test_a_system_that_hides_that_it_scores_no_frames_is_told_to_say_so(tmp_path: Path) -> None:
    data = UcfCrime(str(write_video_world(tmp_path / "world", n_train=1)), num_workers=0)
    system = Silent(test_view=View(frames=4, stride=2, hop=8))
    data.watch(system)
    with pytest.raises(ValueError, match=r"Silent gives no frame scores; it must say scores_frames = False"):
        make_trainer(tmp_path).test(system, datamodule=data, verbose=False)
