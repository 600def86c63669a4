"""What every system shares: checkpoints of trained tensors alone, and readings of a frozen backbone kept on disk."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import load
from torch import Tensor

import datamodules.clips
import datamodules.video_data
from cli import main
from datamodules import UcfCrime
from lightning_modules import MilRanker
from lightning_modules.system import System, plain
from tests.tiny_videos import make_trainer, write_video_world
from tests.worlds import assert_equal, weights, write_feature_world
from vigil.deit import DEMO_SHAPE
from vigil.records import read_record
from vigil.store import cache_root
from vigil.types import Clip, View
from vigil.video import read_frames

TINY = {"hidden": (8, 4), "batch_size": 2, "fit_view": View(frames=2, segments=3), "test_view": View(2, 8, 16)}


def demo_ranker(seed: int = 0, **settings: Any) -> MilRanker:
    """With the small encoder of the demo, its random weights drawn by `seed`."""
    torch.manual_seed(seed)
    return MilRanker(encoder="demo_deit", weights=None, **{**TINY, **settings})


def feature_ranker(seed: int = 0, **settings: Any) -> MilRanker:
    torch.manual_seed(seed)
    return MilRanker(encoder=None, feature_width=16, **{"hidden": (8, 4), "batch_size": 4, **settings})


@pytest.fixture(scope="module")
def feature_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("features")
    write_feature_world(root, n_videos=4)
    return root


@pytest.fixture(scope="module")
def video_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video_world(tmp_path_factory.mktemp("videos"), n_train=2)


def features_of(root: Path, model: System) -> UcfCrime:
    data = UcfCrime(str(root), features=str(root / "features"), num_workers=0)
    data.watch(model)
    return data


def videos_of(root: Path, model: System, num_workers: int = 0) -> UcfCrime:
    data = UcfCrime(str(root), num_workers=num_workers)
    data.watch(model)
    return data


# checkpoints


def test_a_checkpoint_holds_no_frozen_weights() -> None:
    model = demo_ranker()
    names = set(model.state_dict())
    assert names == {"threshold", *(f"scorer.{k}.{kind}" for k in (0, 3, 5) for kind in ("weight", "bias"))}
    assert len(dict(model.named_parameters())) > 60  # the encoder is there, and left out


def test_a_checkpoint_holds_the_blocks_that_train() -> None:
    frozen, training = set(demo_ranker().state_dict()), set(demo_ranker(train_blocks=2).state_dict())
    assert {".".join(name.split(".")[:4]) for name in training - frozen} == {
        *(f"encoder.model.blocks.{DEMO_SHAPE['depth'] - k}" for k in (1, 2)),
        *("encoder.model.norm.weight", "encoder.model.norm.bias"),
    }


def test_a_saved_checkpoint_is_small_plain_and_gives_the_same_scores(feature_world: Path, tmp_path: Path) -> None:
    model = feature_ranker()
    data = features_of(feature_world, model)
    trainer = make_trainer(tmp_path, max_epochs=2)
    trainer.fit(model, datamodule=data)
    file = tmp_path / "last.ckpt"
    trainer.save_checkpoint(file)
    stored = torch.load(file, weights_only=True)
    assert set(stored["state_dict"]) == set(model.state_dict())
    assert stored["hyper_parameters"]["fit_view"] == {"frames": 4, "stride": None, "hop": None, "segments": 32}
    threshold = stored["state_dict"]["threshold"].item()
    assert 0 < threshold < 1
    first = trainer.test(model, datamodule=data, verbose=False)
    for other in (feature_ranker(seed=1), MilRanker.load_from_checkpoint(file, weights_only=True)):
        second = make_trainer(tmp_path).test(
            other, datamodule=features_of(feature_world, other), ckpt_path=str(file), verbose=False
        )
        assert second == first
        assert other.threshold.item() == threshold
    untrained = feature_ranker(seed=1)
    data = features_of(feature_world, untrained)
    assert make_trainer(tmp_path).test(untrained, datamodule=data, verbose=False) != first


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("scorer.3.bias"), r"scorer\.3\.bias is missing"),
        (lambda state: state.pop("threshold"), r"threshold is missing"),
        (lambda state: state.update(extra=torch.ones(1)), r"extra is not part of this MilRanker"),
        (
            lambda state: state.update({"scorer.0.weight": torch.ones(8, 17)}),
            r"scorer\.0\.weight is \(8, 17\), \(8, 16\) is expected",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_naming_the_tensor(
    feature_world: Path, tmp_path: Path, change: Any, message: str
) -> None:
    model = feature_ranker()
    trainer = make_trainer(tmp_path)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    change(checkpoint["state_dict"])
    torch.save(checkpoint, tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match=rf"does not fit this MilRanker: .*{message}.*give the configuration"):
        make_trainer(tmp_path).test(
            model, datamodule=features_of(feature_world, model), ckpt_path=str(tmp_path / "a.ckpt"), verbose=False
        )


def test_what_goes_into_a_checkpoint_is_plain() -> None:
    value = {"view": View(4, 4, 16), "path": Path("a") / "b", "pair": (1, 2), "more": [{"x": None}]}
    assert plain(value) == {
        "view": {"frames": 4, "stride": 4, "hop": 16, "segments": None},
        "path": "a/b",
        "pair": [1, 2],
        "more": [{"x": None}],
    }


def test_randomness_is_a_function_of_the_batch() -> None:
    model = feature_ranker()

    def drawn(i: int) -> list[float]:
        model.on_train_batch_start(None, i)
        return torch.rand(3).tolist()

    first = drawn(5)
    torch.rand(7)
    assert drawn(5) == first
    assert drawn(6) != first


@pytest.mark.parametrize("settings", [{"batch_size": 0}, {"window_batch": 0}])
def test_batches_of_nothing_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1 is expected of both"):
        feature_ranker(**settings)


def test_frozen_weights_that_have_two_names_are_in_no_checkpoint() -> None:
    model = feature_ranker()
    model.frozen = torch.nn.ModuleDict({"embedding": torch.nn.Linear(3, 5, bias=False)}).requires_grad_(False)
    model.frozen["head"] = torch.nn.Linear(3, 5, bias=False)
    model.frozen["head"].weight = model.frozen["embedding"].weight  # as a language model's head may be
    assert not [name for name in model.state_dict() if name.startswith("frozen")]


# readings


def fit_and_test(model: System, root: Path, folder: Path, num_workers: int = 0) -> list[Any]:
    trainer = make_trainer(folder, max_epochs=1)
    data = videos_of(root, model, num_workers)
    trainer.fit(model, datamodule=data)
    return trainer.test(model, datamodule=data, verbose=False)


def test_readings_are_what_the_encoder_says_of_the_pixels(video_world: Path, tmp_path: Path) -> None:
    model = demo_ranker(window_batch=2)
    trainer = make_trainer(tmp_path, max_epochs=1)
    data = videos_of(video_world, model)
    trainer.fit(model, datamodule=data)
    assert len(data.stores) == 2
    for split, view in (("train", model.fit_views["video"]), ("val", model.test_views["video"])):
        for video in data.known(split):
            store, names = data.stores["video", view]
            reading = store.read(video.path, names)["video"]
            pixels = read_frames(video.path, view.indices(video.n_frames).ravel())
            rows = []
            for frame in pixels:  # the mean of each window's frames, one by one
                rows.append(model.encoder(frame[None])[0])
            expected = torch.stack(rows).view(len(reading), -1, model.encoder.width).mean(1)
            torch.testing.assert_close(reading, expected, rtol=1e-4, atol=1e-5)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("asked for what is kept on disk")


def test_a_second_fit_decodes_no_video_and_runs_no_backbone(
    video_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit_and_test(demo_ranker(), video_world, tmp_path)
    monkeypatch.setattr(datamodules.clips, "read_frames", refuse)
    monkeypatch.setattr(datamodules.video_data, "probe", refuse)
    model = demo_ranker()
    monkeypatch.setattr(model.encoder, "forward", refuse)
    assert fit_and_test(model, video_world, tmp_path) == first


@pytest.mark.parametrize("change", ["seed", "fit_view", "test_view"])
def test_other_weights_or_another_view_ask_for_readings_of_their_own(
    video_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    fit_and_test(demo_ranker(), video_world, tmp_path)
    monkeypatch.setattr(datamodules.clips, "read_frames", refuse)
    other = {
        "seed": {"seed": 1},
        "fit_view": {"fit_view": View(frames=2, segments=4)},
        "test_view": {"test_view": View(2, 8, 8)},
    }
    with pytest.raises(AssertionError, match="kept on disk"):
        fit_and_test(demo_ranker(**other[change]), video_world, tmp_path)


def test_a_damaged_reading_is_reported_and_redone(
    video_world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = fit_and_test(demo_ranker(), video_world, tmp_path)
    readings = sorted(cache_root().rglob("*.safetensors"))
    assert len(readings) == 12  # six videos to train on, two to validate and four to test
    good = load(readings[5].read_bytes())["video"]
    readings[5].write_bytes(readings[5].read_bytes()[:-8])
    caplog.clear()
    with caplog.at_level("INFO"):
        assert fit_and_test(demo_ranker(), video_world, tmp_path) == first
    assert f"{readings[5]}: the reading of" in caplog.text
    assert "Reading 1 videos with the frozen backbone" in caplog.text
    assert torch.equal(load(readings[5].read_bytes())["video"], good)


def test_a_reading_that_goes_away_during_a_run_is_named(video_world: Path, tmp_path: Path) -> None:
    model = demo_ranker()
    data = videos_of(video_world, model)
    make_trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    shutil.rmtree(cache_root() / "readings")
    with pytest.raises(FileNotFoundError, match=r"safetensors: the reading of .* went away; run again"):
        next(iter(data.train_dataloader()))


def test_an_encoder_that_trains_keeps_no_readings(video_world: Path, tmp_path: Path) -> None:
    model = demo_ranker(train_blocks=1, batch_size=1)
    data = videos_of(video_world, model, num_workers=1)
    make_trainer(tmp_path, max_steps=1, limit_val_batches=0).fit(model, datamodule=data)
    assert data.stores == {}
    assert not (cache_root() / "readings").exists()


# a loss that is no number


class Diverging(MilRanker):
    """Its loss becomes no number in the second epoch."""

    value = float("nan")

    def training_step(self, clip: Clip, i: int) -> Tensor:
        loss = super().training_step(clip, i)
        return loss * self.value if self.current_epoch == 1 else loss


class Exploding(Diverging):
    """And here infinite."""

    value = float("inf")


@pytest.mark.parametrize(("kind", "value"), [("MilRanker", ""), ("Diverging", "nan"), ("Exploding", "inf")])
def test_a_loss_that_is_no_number_ends_the_fit_and_the_checkpoint_before_it_stays(
    feature_world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
    value: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    quiet = [f"--trainer.{key}=false" for key in ("enable_progress_bar", "enable_model_summary", "logger")]
    model = "class_path: MilRanker" if kind == "MilRanker" else f"class_path: tests.test_system.{kind}"
    text = (feature_world / "world.yaml").read_text().replace("class_path: MilRanker", model)
    (tmp_path / "world.yaml").write_text(text)
    if kind == "MilRanker":
        main(["fit", "-c", "world.yaml", "--trainer.max_epochs=2", *quiet])
        assert "the loss is" not in capsys.readouterr().err
        return
    main(["fit", "-c", "world.yaml", "--trainer.max_epochs=1", "--runs=one", *quiet])
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", "world.yaml", "--trainer.max_epochs=3", *quiet])
    assert stop.value.code == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    steps = 3  # of an epoch
    words = rf"error: the loss is {value} at step {steps}, in epoch 1; the checkpoint before it is kept\. Lower the .*"
    assert re.fullmatch(words, said)
    (state,) = Path("runs").rglob("state.json")
    assert read_record(state)["state"] != "finished"  # the same command goes on with it
    assert_equal(weights(Path("runs")), weights(Path("one")))
    assert all(tensor.isfinite().all() for tensor in weights(Path("runs")).values())


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"max_epochs": 3}, 30),
        ({"max_epochs": 3, "accumulate_grad_batches": 4}, 9),
        ({"max_epochs": 3, "limit_train_batches": 4}, 12),
        ({"max_epochs": 3, "limit_train_batches": 0.5}, 15),
        ({"max_epochs": 3, "max_steps": 7}, 7),
        ({"max_epochs": -1, "max_steps": 1000}, 1000),
    ],
)
def test_the_steps_of_a_fit_are_those_that_the_trainer_takes(settings: dict[str, Any], steps: int) -> None:
    """Of ten batches an epoch; counted without the trainer's loader, whose place a checkpoint is to restore."""
    system = MilRanker(encoder=None, feature_width=4)
    system.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, **settings)
    system.trainer.datamodule = SimpleNamespace(train_dataloader=lambda: range(10))
    assert system.fit_steps() == steps


def test_a_schedule_without_an_end_is_refused() -> None:
    system = MilRanker(encoder=None, feature_width=4)
    system.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=-1)
    with pytest.raises(ValueError, match="max_epochs and max_steps are both -1"):
        system.fit_steps()
