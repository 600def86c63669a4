"""The leak guard: what a fit saw goes into its checkpoint, and a test on it is refused or its number marked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from callbacks.leak_guard import LeakGuard, categories_seen, leaked
from cli import main
from datamodules import UcfCrime
from datamodules.demo import write_ucf_crime
from tests.worlds import lightning, write_feature_world

SEEN = {
    "Encoder on Uca": {"videos": {"UCF-Crime/Arson001": "a1", "UCF-Crime/Arson002": "a2", "UCF-Crime/Arson003": ""}},
    "Lavida on PseudoAnomaly": {"phrases": ["road accidents", "arsons"]},
}


@pytest.mark.parametrize(
    ("tested", "expected"),
    [
        ({"UCF-Crime/Arson001": "a1"}, {"UCF-Crime/Arson001": "(by Encoder on Uca)"}),
        ({"UCF-Crime/Arson001": "other"}, {"UCF-Crime/Arson001": "(by Encoder on Uca)"}),
        ({"UCF-Crime/Arson003": "a3"}, {"UCF-Crime/Arson003": "(by Encoder on Uca)"}),
        ({"XD-Violence/v": "a2"}, {"XD-Violence/v": "(by Encoder on Uca, as UCF-Crime/Arson002)"}),
        (
            {"XD-Violence/Arson001": "x", "UCF-Crime/Arson004": ""},
            {},
        ),  # a name counts in its family, no file is no copy
        ({}, {}),
    ],
)
def test_a_video_is_leaked_by_its_name_or_by_its_content(tested: dict[str, str], expected: dict[str, str]) -> None:
    assert leaked(SEEN, tested) == expected
    assert leaked({}, tested) == {}


def test_a_category_is_seen_in_any_spelling() -> None:
    assert categories_seen(SEEN, ["Abuse", "Arson", "RoadAccidents"]) == ["Arson", "RoadAccidents"]
    assert categories_seen({"x": {"videos": {"Arson": ""}}}, ["Arson"]) == []


def test_another_way_to_treat_leaks_is_refused() -> None:
    with pytest.raises(ValueError, match="leaks 'ignore': expected refuse or record"):
        LeakGuard("ignore")


# through the command -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a world of features: 36 training and 20 test videos."""
    return write_feature_world(tmp_path_factory.mktemp("world"), n_videos=4)


@pytest.fixture(scope="module")
def top(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def fit(world: Path, *more: str, runs: str = "runs") -> Path:
    """The last.ckpt of a fit of one epoch."""
    before = set(Path(runs).rglob("last.ckpt"))
    main(["fit", "-c", str(world), "--trainer.max_epochs=1", "--runs", runs, *more])
    (last,) = set(Path(runs).rglob("last.ckpt")) - before
    return last


def seen_by(checkpoint: Path) -> dict[str, Any]:
    return torch.load(checkpoint, weights_only=True)["seen"]


def facts_of(checkpoint: Path) -> dict[str, Any]:
    """The one metrics.json of a run."""
    (file,) = checkpoint.parent.parent.glob("test-*/metrics.json")
    return json.loads(file.read_text())


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    with pytest.raises(SystemExit) as stop:
        main(["test", *map(str, args)])
    assert stop.value.code == 1
    return capsys.readouterr().err


def names_of(world: Path, split: str) -> set[str]:
    lines = (world.parent / f"Anomaly_{split}.txt").read_text().split()
    return {f"UCF-Crime/{Path(line).stem}" for line in lines}


ON_TEST = "--data.init_args.train_list=Anomaly_Test.txt"  # fits on the very videos that are tested


def test_a_fit_notes_training_and_validation_videos_and_a_clean_test_says_none(world: Path, here: Path) -> None:
    last = fit(world)
    assert set(seen_by(last)) == {"MilRanker on UcfCrime"}
    videos = seen_by(last)["MilRanker on UcfCrime"]["videos"]
    assert videos.keys() == names_of(world, "Train")
    assert len(set(videos.values())) == len(videos)
    main(["test", "-c", str(world), "--ckpt_path", str(last)])
    facts = facts_of(last)
    assert (facts["leaked"], facts["leaked_videos"], facts["categories_seen"]) == (0, [], [])


def test_a_test_on_videos_that_were_fitted_on_is_refused_by_name_or_recorded(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = fit(world, ON_TEST)
    n_tested = len(names_of(world, "Test"))
    said = refused(capsys, "-c", world, "--ckpt_path", last)
    assert f"{n_tested} of {n_tested} test videos were seen in fitting: UCF-Crime/Abuse004_x264 (by MilRanker" in said
    assert "say --leaks record" in said
    assert not list(last.parent.parent.glob("test-*/metrics.json"))
    main(["test", "-c", str(world), "--ckpt_path", str(last), "--leaks", "record"])
    facts = facts_of(last)
    assert facts["leaked"] == n_tested
    assert set(facts["leaked_videos"]) == names_of(world, "Test")
    assert "frame_auroc" in facts["metrics"]


def test_the_same_content_under_another_name_is_found(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = write_feature_world(here / "world", n_videos=4)
    shutil.copy(here / "world/features/Abuse004_x264.npy", here / "world/features/Arson001_x264.npy")
    said = refused(capsys, "-c", world, "--ckpt_path", fit(world))
    assert "1 of 8 test videos were seen in fitting: UCF-Crime/Abuse004_x264 (by MilRanker on UcfCrime" in said
    assert "as UCF-Crime/Arson001_x264)" in said


def test_what_an_earlier_checkpoint_saw_is_carried_on(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = fit(world, ON_TEST)
    later = fit(world, f"--model.init_args.start_from={earlier}")
    videos = {who: set(what["videos"]) for who, what in seen_by(later).items()}
    assert videos == {
        "MilRanker on UcfCrime": names_of(world, "Test"),
        "MilRanker on UcfCrime, fit 2": names_of(world, "Train"),
    }
    said = refused(capsys, "-c", world, "--ckpt_path", later)  # without the earlier file: the checkpoint knows
    assert "8 of 8 test videos were seen in fitting" in said


def test_a_fit_that_goes_on_notes_its_videos_once(world: Path, here: Path) -> None:
    last = fit(world)
    main(["fit", "-c", str(world), "--ckpt_path", str(last), "--trainer.max_epochs=2"])
    (longer,) = set(Path("runs").rglob("last.ckpt")) - {last}
    steps = [torch.load(file, weights_only=True)["global_step"] for file in (last, longer)]
    assert steps[1] == 2 * steps[0]
    assert seen_by(longer) == seen_by(last)


def test_a_checkpoint_that_does_not_say_what_it_saw_is_no_clean_one(
    world: Path, here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = fit(world)
    stored = torch.load(last, weights_only=True)
    del stored["seen"]
    torch.save(stored, last)
    main(["test", "-c", str(world), "--ckpt_path", str(last)])
    assert "does not say which videos it saw: leaks cannot be told" in caplog.text
    assert (facts_of(last)["leaked"], facts_of(last)["leaked_videos"]) == (None, None)


def test_a_trial_run_notes_nothing(world: Path, here: Path) -> None:
    main(["fit", "-c", str(world), "--trainer.fast_dev_run=true"])
    assert not list(here.rglob("last.ckpt"))


def test_two_processes_both_refuse(world: Path, here: Path) -> None:
    last = fit(world, ON_TEST)
    two = ("test", "-c", world, "--ckpt_path", last, "--trainer.devices", 2, "--trainer.strategy", "ddp")
    done = lightning(*two, cwd=here)
    assert done.returncode == 1
    assert done.stderr.count("8 of 8 test videos were seen in fitting") == 2


# UCA against UCF-Crime -----------------------------------------------------------------------------------------------

SENTENCES = {"Arson": "There is a fire.", "Fighting": "They fight.", "Vandalism": "He smashed it.", "Normal": "Quiet."}
UCA_TRAIN = ("Arson001", "Arson002", "Normal_Videos001", "Normal_Videos_004")  # 002 and 004: of UCF-Crime's test set
UCA_VAL = ("Fighting002", "Normal_Videos002")  # 002: of UCF-Crime's test set
UCA_TEST = ("Fighting001", "Vandalism001", "Vandalism002", "Normal_Videos003", "Normal_Videos_005", "Normal_Videos_006")


def write_uca(root: Path, splits: Mapping[str, tuple[str, ...]]) -> None:
    for split, names in splits.items():
        entries = {}
        for name in names:
            category = "Normal" if name.startswith("Normal") else name[:-3]
            entries[f"{name}_x264"] = {
                "duration": 1.6, "timestamps": [[0.2, 1.5]], "sentences": [SENTENCES[category]]
            }  # fmt: skip
        (root / "uca" / f"UCFCrime_{split}.json").write_text(json.dumps(entries))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny demo copy of UCF-Crime, where UCA trains on some of UCF-Crime's test videos, as it really does."""
    root = tmp_path_factory.mktemp("demo") / "ucf_crime"
    write_ucf_crime(root, size="tiny")
    write_uca(root, {"Train": UCA_TRAIN, "Val": UCA_VAL, "Test": UCA_TEST})
    return root


def config_of(demo: Path, kind: str, **options: Any) -> str:
    config = {
        "model": {"class_path": "tests.tiny_systems.TinyEvents"},
        "data": {"class_path": kind, "init_args": {"root": str(demo), "num_workers": 0, **options}},
        "trainer": {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "log_every_n_steps": 1},
    }
    file = Path(f"{'-'.join([kind, *map(str, options.values())])}.yaml")
    file.write_text(yaml.safe_dump(config))
    return str(file)


def test_what_uca_trains_on_may_not_be_tested_on_ucf_crime(
    demo: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = fit(Path(config_of(demo, "Uca")))
    assert len(seen_by(last)["TinyEvents on Uca"]["videos"]) == len(UCA_TRAIN + UCA_VAL)
    why = "(by TinyEvents on Uca)"

    said = refused(capsys, "-c", config_of(demo, "UcfCrime"), "--ckpt_path", last)
    assert "3 of 6 test videos were seen in fitting" in said
    for name in ("Arson002", "Fighting002", "Normal_Videos_004"):
        assert f"UCF-Crime/{name}_x264 {why}" in said

    said = refused(capsys, "-c", config_of(demo, "Uca", task="probe", population="ucf_test"), "--ckpt_path", last)
    assert "2 of 3 test videos were seen in fitting" in said  # of its three anomalous ones
    assert all(f"UCF-Crime/{name}_x264 {why}" in said for name in ("Arson002", "Fighting002"))

    main(
        ["test", "-c", config_of(demo, "Uca", task="probe"), "--ckpt_path", str(last)]
    )  # UCA's own test split is clean
    assert facts_of(last)["leaked"] == 0
    assert "top1" in facts_of(last)["metrics"]


# classes held out ----------------------------------------------------------------------------------------------------


def auroc_of(scores: dict[str, np.ndarray], labels: dict[str, np.ndarray], names: list[str]) -> float:
    """Share of (anomalous, normal) pairs of frames that stand in the right order, ties half."""
    score, label = (np.concatenate([values[name] for name in names]) for values in (scores, labels))
    difference = score[label == 1][:, None] - score[label == 0][None]
    return float((difference > 0).mean() + (difference == 0).mean() / 2)


def test_held_out_classes_are_not_fitted_on_and_judged_apart(world: Path, here: Path) -> None:
    held = "--data.init_args.hold_out=[Arson,Robbery]"
    last = fit(world, held)
    fitted = seen_by(last)["MilRanker on UcfCrime"]["videos"]
    assert fitted.keys() == {
        name for name in names_of(world, "Train") if not name[10:].startswith(("Arson", "Robbery"))
    }
    main(["test", "-c", str(world), "--ckpt_path", str(last), held])
    metrics, protocol = facts_of(last)["metrics"], facts_of(last)["protocol"]
    assert protocol["judged"]["hold_out"] == ["Arson", "Robbery"]

    data = UcfCrime(str(world.parent), features=str(world.parent / "features"), num_workers=0)
    videos = {video.name: video for video in data.known("test")}
    labels = {name: np.zeros(video.n_frames, int) for name, video in videos.items()}
    scores = {name: np.full(video.n_frames, np.nan) for name, video in videos.items()}
    for name, video in videos.items():
        for first, end in video.anomalies:
            labels[name][first:end] = 1
    (file,) = last.parent.parent.glob("test-*/scores.csv")
    for line in file.read_text().splitlines()[1:]:
        name, first, end, score, _ = line.split(",")
        scores[name][int(first) : int(end)] = float(score)
    unseen = [name for name in videos if videos[name].category in ("Arson", "Robbery", "Normal")]
    seen = [name for name in videos if videos[name].category not in ("Arson", "Robbery")]
    assert metrics["frame_auroc_unseen"] == pytest.approx(auroc_of(scores, labels, unseen), abs=1e-12)
    assert metrics["frame_auroc_seen"] == pytest.approx(auroc_of(scores, labels, seen), abs=1e-12)
    assert metrics["frame_auroc"] == pytest.approx(auroc_of(scores, labels, list(videos)), abs=1e-12)


def test_a_class_held_out_of_the_test_alone_is_no_unseen_class(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = fit(world)
    said = refused(capsys, "-c", world, "--ckpt_path", last, "--data.init_args.hold_out=[Arson]")
    assert "hold_out says Arson, yet the system was fitted on 3 videos of it: Arson00" in said


def test_validation_holds_no_class_that_is_held_out_and_a_class_that_is_none_is_refused(world: Path) -> None:
    options = {"features": str(world.parent / "features"), "validation_fraction": 0.4}
    data = UcfCrime(str(world.parent), hold_out=["Arson"], **options)
    categories = {split: {video.category for video in data.known(split)} for split in ("train", "val", "test")}
    assert categories["train"] | categories["val"] == {"Abuse", "Fighting", "Robbery", "Normal"}
    assert "Arson" in categories["test"]
    with pytest.raises(ValueError, match=r"hold_out \['Arsonn'\]: expected some of Abuse, "):
        UcfCrime(str(world.parent), hold_out=["Arsonn"], **options)
