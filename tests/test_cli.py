"""The command as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
import yaml

from cli import main
from tests.tiny_systems import PixelDifference
from tests.worlds import ROOT, weights, write_feature_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_feature_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, where runs/ will be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def fit(world: Path, *more: str) -> Path:
    """A finished fit's run folder."""
    before = set(Path("runs").glob("*/*"))
    main(["fit", "-c", str(world), *more])
    (run,) = set(Path("runs").glob("*/*")) - before
    return run


def test_help_answers_within_a_second_and_without_torch() -> None:
    code = "import sys, cli; cli.main(['--help']); sys.exit('torch' in sys.modules)"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0
    assert "lightning fit -c configs/demo.yaml" in done.stdout
    assert time.perf_counter() - start < 1


def test_lightning_and_vigil_are_both_ours() -> None:
    for name in ("lightning", "vigil"):
        assert [point.value for point in entry_points(group="console_scripts", name=name)] == ["cli:main"]


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("--model.init_args.learning_rat=1", "learning_rate"),
        ("--data.init_args.rot=x", "root"),
        ("--trainer.max_epoch=3", "max_epochs"),
        ("--model.class_path=MilRankr", "MilRanker"),
    ],
)
def test_a_typo_on_the_command_line_names_the_key_and_the_nearest(
    typo: str, meant: str, world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", str(world), typo])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    wrong = typo.partition("=")[0].rpartition(".")[2] if "class_path" not in typo else typo.partition("=")[2]
    assert f"'{wrong}' is not a key here; did you mean '{meant}'?" in said
    assert len(said.splitlines()) < 12  # no page of usage


@pytest.mark.parametrize(
    ("layer", "key", "meant"),
    [("model", "droput", "dropout"), ("trainer", "max_epoch", "max_epochs"), ("data", "convetion", "convention")],
)
def test_a_typo_in_a_config_names_the_key_and_the_nearest(
    layer: str, key: str, meant: str, world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load(world.read_text())
    (config[layer] if layer == "trainer" else config[layer]["init_args"])[key] = 0
    (here / "typo.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", "typo.yaml"])
    assert stop.value.code == 2
    assert f"did you mean '{meant}'?" in capsys.readouterr().err


def test_a_config_that_is_not_there_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", "nothing.yaml"])
    assert stop.value.code == 2
    assert "nothing.yaml" in capsys.readouterr().err


def test_the_later_config_wins_and_print_config_shows_it(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("more.yaml").write_text("trainer: {max_epochs: 7}\n")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", str(world), "-c", "more.yaml", "--print_config"])
    assert not stop.value.code
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["trainer"]["max_epochs"] == 7
    assert printed["model"]["init_args"]["feature_width"] == 16


def test_the_command_line_beats_the_checkpoint_and_says_so(
    world: Path, here: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    last = fit(world, "--trainer.max_epochs=1") / "checkpoints" / "last.ckpt"
    stored = torch.load(last, weights_only=True)["hyper_parameters"]
    assert stored["sigma_frames"] is None
    main(["test", "-c", str(world), "--ckpt_path", str(last), "--model.init_args.sigma_frames=20"])
    (file,) = last.parent.parent.glob("test-*/metrics.json")
    metrics = json.loads(file.read_text())["metrics"]
    assert "frame_auroc_refined" in metrics  # the stored None would leave the curve unsmoothed
    assert "sigma_frames: 20.0 as given here; the checkpoint was trained with None." in caplog.text
    main(["test", "-c", str(world), "--ckpt_path", str(last), "--runs", "elsewhere"])  # as a cell of a benchmark does
    assert len(list(here.glob("elsewhere/MilRanker-UcfCrime/test-*/metrics.json"))) == 1


def test_a_width_that_the_checkpoint_cannot_have_is_refused(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = fit(world, "--trainer.max_epochs=1") / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit) as stop:
        main(["test", "-c", str(world), "--ckpt_path", str(last), "--model.init_args.hidden=[64,8]"])
    assert stop.value.code == 1
    assert "scorer.0.weight is (32, 16), (64, 16) is expected" in capsys.readouterr().err


def test_testing_an_untrained_ranker_is_refused(world: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["test", "-c", str(world)])
    assert stop.value.code == 1
    assert "add --ckpt_path" in capsys.readouterr().err


class Untrained(PixelDifference):
    """One that must not be built in vain: it may fetch a model when it is."""

    trained = False

    def __init__(self) -> None:
        pytest.fail("built")


def test_what_is_not_trained_is_not_even_built_to_be_fitted(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = world.read_text().splitlines(keepends=True)
    kept = [line for line in text if not line.startswith(("model", "  class_path: MilRanker", "  init_args: {encoder"))]
    (here / "config.yaml").write_text("model: {class_path: tests.test_cli.Untrained}\n" + "".join(kept))
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", "config.yaml"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == (
        "error: Untrained is not trained, there is nothing to fit; say `lightning test` with the same configs\n"
    )
    assert [path.name for path in here.iterdir()] == ["config.yaml"]


def test_a_checkpoint_that_is_no_checkpoint_is_named(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("broken.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(SystemExit) as stop:
        main(["test", "-c", str(world), "--ckpt_path", "broken.ckpt"])
    assert stop.value.code == 1
    assert "broken.ckpt: not a checkpoint that can be read safely" in capsys.readouterr().err


def test_a_finished_run_and_a_changed_config_are_never_continued(world: Path, here: Path) -> None:
    first = fit(world, "--trainer.max_epochs=1")
    again = fit(world, "--trainer.max_epochs=1")
    longer = fit(world, "--trainer.max_epochs=2")
    assert again.name == f"{first.name}-2"
    assert longer.name not in (first.name, again.name)
    steps = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] for run in (first, longer)]
    assert steps[1] == 2 * steps[0]
    for name, value in weights(first).items():
        torch.testing.assert_close(weights(again)[name], value, rtol=0, atol=0)


def test_predict_and_validate_leave_scores(world: Path, here: Path) -> None:
    run = fit(world, "--trainer.max_epochs=1")
    last = str(run / "checkpoints" / "last.ckpt")
    main(["predict", "-c", str(world), "--ckpt_path", last])
    main(["validate", "-c", str(world), "--ckpt_path", last])
    assert {file.parent.name.split("-")[0] for file in run.glob("*/scores.csv")} == {"predict", "validate"}


def test_tensorboard_gets_losses_rate_throughput_and_curves(world: Path, here: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = fit(world)
    main(["test", "-c", str(world), "--ckpt_path", str(run / "checkpoints" / "last.ckpt")])
    board = EventAccumulator(str(run))
    board.Reload()
    wanted = {"train/loss", "train/rank", "train/smoothness", "train/sparsity", "lr-AdamW", "train/frames_per_second"}
    assert wanted | {"val/video_auroc"} <= set(board.Tags()["scalars"])
    (folder,) = run.glob("test-*")
    board = EventAccumulator(str(folder))
    board.Reload()
    assert len(board.Tags()["images"]) == 16
    assert "test/frame_auroc" in board.Tags()["scalars"]


def test_a_fit_from_a_checkpoint_with_another_learning_rate_is_refused(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = fit(world, "--trainer.max_epochs=1") / "checkpoints" / "last.ckpt"
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", str(world), "--ckpt_path", str(last), "--model.init_args.learning_rate=1e-6"])
    assert stop.value.code == 1
    assert "learning_rate is 1e-06 here and 0.005 there" in capsys.readouterr().err


def test_best_and_last_are_two_tests(world: Path, here: Path) -> None:
    run = fit(world, "--trainer.max_epochs=1")
    for name in ("best", "last"):
        main(["test", "-c", str(world), "--ckpt_path", str(run / "checkpoints" / f"{name}.ckpt")])
    assert len(list(run.glob("test-*/scores.csv"))) == 2


def test_bf16_leaves_scores_in_full_precision(world: Path, here: Path) -> None:
    run = fit(world, "--trainer.precision=bf16-mixed", "--trainer.max_epochs=2")
    last = str(run / "checkpoints" / "last.ckpt")
    main(["test", "-c", str(world), "--ckpt_path", last, "--trainer.precision=bf16-mixed"])
    (file,) = run.glob("test-*/scores.csv")
    scores = [float(line.split(",")[3]) for line in file.read_text().splitlines()[1:]]
    assert len(set(scores)) > 0.99 * len(scores)  # in bf16 some 600 windows share a few dozen values


def test_a_gpu_that_is_not_there_is_one_line(world: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(SystemExit) as stop:
        main(["fit", "-c", str(world), "--trainer.accelerator=gpu"])
    assert stop.value.code == 1
    assert "configs/machines/cpu.yaml" in capsys.readouterr().err
