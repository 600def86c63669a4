"""SteerVad: the heads it chooses, the fit that steers them, its scores and its checkpoints, against plain loops."""

from __future__ import annotations

import csv
import json
import multiprocessing
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from scipy.ndimage import gaussian_filter1d
from sklearn.metrics import silhouette_score
from torch import Tensor

import datamodules.clips
import datamodules.fitting_set
import vigil.mllm
from callbacks.explainer import Explainer
from callbacks.score_writer import ScoreWriter
from cli import main
from datamodules import OwnVideos, UcfCrime
from lightning_modules import SteerVad
from lightning_modules.steervad import PROMPT
from tests.real_shapes import write_shape
from tests.tiny_mllms import write_mllm
from tests.tiny_videos import make_trainer, write_video_world
from tests.worlds import assert_equal, lightning, weights
from vigil.curves import expand
from vigil.mllm import Mllm
from vigil.saliency import head_purity
from vigil.types import Clip, Video, View
from vigil.video import read_frames

VIEW = View(frames=2, stride=4, hop=16)  # three or four windows of a video, none overlapping
LAYERS, EPOCHS, RATE, WIDTH, RANK = 3, 4, 1e-2, 6, 4
Settings, State, Patch = dict[str, Any], dict[str, Tensor], pytest.MonkeyPatch


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny MLLM, a UCF-Crime of tiny videos, and the readings of it that all tests share: mllm/, videos/, cache/."""
    folder = tmp_path_factory.mktemp("world")
    write_mllm(folder / "mllm", "internvl", layers=LAYERS)
    (folder / "videos").mkdir()
    write_video_world(folder / "videos", n_train=2)
    return folder


@pytest.fixture(autouse=True)
def _alike(_own_cache: None, world: Path, monkeypatch: Patch) -> Iterator[None]:
    monkeypatch.setenv("VIGIL_CACHE", str(world / "cache"))
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the processes have whose weights are compared with those of this one
    yield
    torch.set_num_threads(before)


def steervad(world: Path, **settings: Any) -> SteerVad:
    torch.manual_seed(0)
    given = {"n_heads": 2, "gate_width": WIDTH, "fraction": 1.0, "test_view": VIEW, "learning_rate": RATE}
    return SteerVad(str(world / "mllm"), **{**given, **settings})


def watched(system: SteerVad, world: Path) -> UcfCrime:
    data = UcfCrime(str(world / "videos"), num_workers=0)
    data.watch(system)
    return data


def fit(system: SteerVad, world: Path, folder: Path, epochs: int = EPOCHS, **more: Any) -> Trainer:
    trainer = make_trainer(folder, max_epochs=epochs)
    trainer.fit(system, datamodule=watched(system, world), **more)
    return trainer


def table_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


# the definition, plainly


def read_by_hand(system: SteerVad, videos: list[Video], view: View) -> list[tuple[Tensor, Tensor]]:
    """Of every video, its segments' last hidden state (W, D) and heads (W, L, H, D), asked one at a time."""
    mllm, found = Mllm(system.mllm.name), []
    asked = {"hidden": [LAYERS - 1], "heads": range(LAYERS), "at": system.hparams.at}
    for video in videos:
        clips = [read_frames(video.path, row)[None] for row in view.indices(video.n_frames)]
        read = [mllm.read(clip, PROMPT, **asked, frame_rate=[25 / 4]) for clip in clips]
        found.append((torch.cat([one.hidden[:, 0] for one in read]), torch.cat([one.heads for one in read])))
    return found


def samples_by_hand(system: SteerVad) -> tuple[Tensor, Tensor, Tensor]:
    """The fitting set: context (B, D), heads (B, L, H, D) and label (B,)."""
    videos = system.trainer.datamodule.known("train")
    read = read_by_hand(system, videos, system.fit_views["video"])
    if system.hparams.unit == "video":
        read = [(context.mean(0, keepdim=True), heads.mean(0, keepdim=True)) for context, heads in read]
    label = [float(video.label) for video, (context, _) in zip(videos, read, strict=True) for _ in context]
    return torch.cat([context for context, _ in read]), torch.cat([heads for _, heads in read]), torch.tensor(label)


def separability_by_hand(heads: Tensor, label: Tensor) -> dict[tuple[int, int], float]:
    """{(layer, head): |m1 - m0|^2 / (v1 + v0)}, a class's v the mean squared distance to its mean m."""
    found = {}
    for place in np.ndindex(*heads.shape[1:3]):
        own = [heads[label == kind][:, place[0], place[1]].double() for kind in (0, 1)]
        mean = [rows.mean(0) for rows in own]
        within = sum(float(((rows - m) ** 2).sum(1).mean()) for rows, m in zip(own, mean, strict=True))
        found[place] = float(((mean[1] - mean[0]) ** 2).sum()) / within
    return found


def forward_by_hand(settings: Settings, state: State, context: Tensor, heads: Tensor) -> tuple[Tensor, Tensor]:
    """Logit and s (B,) of h' = h (1 + s g) or h + s g: s = sigmoid(MLP(context)), g = tanh(B_k A_k context + b_k)."""
    mode, width = settings.get("steering"), WIDTH if settings.get("global_gate", True) else 0
    part = {name.removeprefix("steering."): value for name, value in state.items()}
    s = torch.zeros(len(heads)) if mode == "none" else torch.ones(len(heads))
    units = context @ part["down.weight"].T + part["down.bias"] if "down.weight" in part else context
    if "gate.weight" in part:
        s = 1 / (1 + torch.exp(-(units[:, :width].relu() @ part["gate.weight"][0] + part["gate.bias"])))
    rows = []
    for k, h in enumerate(heads.unbind(1)):
        g = part["offset"][k, 0] if "offset" in part else torch.zeros(())
        if "up" in part:
            g = g + units[:, width + RANK * k : width + RANK * (k + 1)] @ part["up"][k]
        rows.append(h + s[:, None] * g.tanh() * (1 if mode == "additive" else h))
    return torch.cat(rows, 1) @ part["scorer.weight"][0] + part["scorer.bias"], s


def fit_by_hand(settings: Settings, state: State, *samples: Tensor) -> tuple[State, Tensor]:
    """The tensors that EPOCHS steps of AdamW make of `state`, and the scores (B,) that the last step saw."""
    context, heads, label = samples
    state = {name: value.clone().requires_grad_() for name, value in state.items()}
    optimizer = torch.optim.AdamW(state.values(), lr=RATE, weight_decay=1e-2, foreach=False, fused=False)
    for _ in range(EPOCHS):
        logit, s = forward_by_hand(settings, state, context, heads)
        p = 1 / (1 + torch.exp(-logit))
        loss = -(label * p.log() + (1 - label) * (1 - p).log()).mean() + 0.1 * (s[label == 0] ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {name: value.detach() for name, value in state.items()}, p.detach().double()


@pytest.mark.parametrize(
    "settings",
    [{}, {"n_heads": 4}, {"global_gate": False}, {"steering": "additive"}, {"steering": "static"}, {"steering": "none"},
     {"at": "first_generated"}, {"unit": "video"}, {"fit_view": View(frames=2, segments=3)},
     {"threshold": "adaptive", "kappa": 0.5}],
    ids=str,
)  # fmt: skip
def test_heads_weights_threshold_scores_and_tables_are_those_of_the_equations(
    settings: Settings, world: Path, tmp_path: Path
) -> None:
    system = steervad(world, **settings)
    initial = {name: value.detach().clone() for name, value in system.named_parameters()}
    trainer = fit(system, world, tmp_path)
    assert not system.mllm.loaded
    context, heads, label = samples_by_hand(system)
    telling = separability_by_hand(heads, label)
    best = sorted(telling, key=lambda place: -telling[place])[: settings.get("n_heads", 2)]
    assert [tuple(place) for place in system.heads.tolist()] == best
    table = {(int(row["layer"]), int(row["head"])): row for row in table_of(tmp_path / "heads.csv")}
    assert {place: float(row["separability"]) for place, row in table.items()} == pytest.approx(telling, rel=1e-4)
    assert [int(table[place]["rank"]) for place in best] == list(range(1, len(best) + 1))
    assert {place for place, row in table.items() if row["chosen"] == "1"} == set(best)
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")

    chosen = torch.stack([heads[:, layer, head] for layer, head in best], 1)
    state, score = fit_by_hand(settings, initial, context, chosen, label)
    for name, value in system.named_parameters():
        # AdamW makes a full step of a gradient that is all but 0, so rounding shows there
        torch.testing.assert_close(value.detach(), state[name], rtol=0, atol=3e-5, msg=name)
        assert not torch.equal(value, initial[name]), name
    mean, deviation = float(score.mean()), float(score.std(correction=0))
    assert system.fitting_score.tolist() == pytest.approx([mean, deviation], abs=1e-6)
    expected = mean + 0.5 * deviation if "threshold" in settings else 0.65
    assert float(system.threshold) == pytest.approx(expected, abs=1e-6)

    trainer.test(system, datamodule=trainer.datamodule, verbose=False)
    evaluator, videos = trainer.callbacks[0], trainer.datamodule.known("test")
    for video, (context, heads) in zip(videos, read_by_hand(system, videos, VIEW), strict=True):
        chosen = torch.stack([heads[:, layer, head] for layer, head in best], 1)
        score = forward_by_hand(settings, state, context, chosen)[0].double().sigmoid()
        start = VIEW.spans(video.n_frames)[:, 0]
        raw, refined = (expand(curves[video.name])[start] for curves in (evaluator.curves, evaluator.refined))
        np.testing.assert_allclose(raw, score, rtol=0, atol=1e-5)
        np.testing.assert_allclose(refined, gaussian_filter1d(score, 1.5), rtol=0, atol=1e-5)


# which heads


@pytest.mark.parametrize("choose_by", ["silhouette", "purity"])
def test_other_measures_choose_too_of_equal_heads_the_lower_layers(choose_by: str, world: Path, tmp_path: Path) -> None:
    system = steervad(world, choose_by=choose_by, n_heads=5)
    fit(system, world, tmp_path, epochs=1)
    _, heads, label = samples_by_hand(system)
    purity = head_purity(heads, label.long())
    places = list(np.ndindex(*heads.shape[1:3]))
    silhouette = {place: silhouette_score(heads[:, place[0], place[1]], label) for place in places}
    measure = silhouette if choose_by == "silhouette" else {place: float(purity[place]) for place in places}
    assert len(set(purity.flatten().tolist())) < len(places)
    best = sorted(places, key=lambda place: -measure[place])[:5]
    assert [tuple(place) for place in system.heads.tolist()] == best


def test_random_heads_are_a_function_of_the_seed(world: Path, tmp_path: Path, monkeypatch: Patch) -> None:
    drawn = []
    for seed, unit in ((0, "segment"), (0, "video"), (1, "video"), (2, "video")):
        monkeypatch.setenv("PL_GLOBAL_SEED", str(seed))
        system = steervad(world, choose_by="random", n_heads=3, unit=unit)
        fit(system, world, tmp_path, epochs=1)
        drawn.append(system.heads.tolist())
        assert len(system.heads.unique(dim=0)) == 3
    assert drawn[0] == drawn[1]
    assert any(other != drawn[0] for other in drawn[2:])


@pytest.mark.parametrize("choose_by", ["separability", "silhouette", "purity"])
def test_one_sample_of_each_label_is_too_few_to_choose_by(choose_by: str, world: Path, tmp_path: Path) -> None:
    few = {"unit": "video", "fraction": 0.01}
    with pytest.raises(ValueError, match=f"2 samples are too few to choose heads by {choose_by}: .*; raise fraction"):
        fit(steervad(world, choose_by=choose_by, **few), world, tmp_path)
    fit(steervad(world, choose_by="random", **few), world, tmp_path)


# what is read, and how often


def kept(system: SteerVad, split: str) -> set[str]:
    """Names of the tensors that the store holds of each of a split's videos."""
    data = system.trainer.datamodule
    store, _ = data.stores["video", VIEW]
    (names,) = {frozenset(store.names(video.path)) for video in data.known(split)}
    return set(names)


def test_a_test_reads_the_context_and_the_layers_of_the_chosen_heads(
    world: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("VIGIL_CACHE", str(tmp_path / "cache"))
    system = steervad(world, n_heads=1)
    trainer = fit(system, world, tmp_path)
    assert kept(system, "train") == {"context", *(f"heads.{layer}" for layer in range(LAYERS))}
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    chosen = {"context", f"heads.{int(system.heads[0, 0])}"}
    trainer.test(system, datamodule=trainer.datamodule, verbose=False)
    assert kept(system, "test") == chosen
    monkeypatch.setenv("VIGIL_CACHE", str(tmp_path / "other"))
    other, tester = steervad(world, n_heads=1), make_trainer(tmp_path)
    tester.ckpt_path = str(tmp_path / "last.ckpt")  # Lightning tells no setup of a checkpoint that `test` is given
    tester.test(other, datamodule=watched(other, world), verbose=False)
    assert kept(other, "test") == chosen
    assert tester.callbacks[0].results == trainer.callbacks[0].results


def test_a_second_fit_decodes_nothing_loads_nothing_and_moves_its_set_once(
    world: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    fit(steervad(world), world, tmp_path)
    monkeypatch.setattr(datamodules.clips, "read_frames", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(vigil.mllm, "load_mllm", lambda *_: pytest.fail("loaded"))
    calls: list[str] = []
    for owner, name in ((datamodules.fitting_set, "join"), (Clip, "to")):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, real=real, name=name, **b: calls.append(name) or real(*a, **b))
    fit(steervad(world), world, tmp_path)
    assert calls == ["join", "to"]


def test_pixels_that_no_store_holds_score_as_stored_readings_do(world: Path, tmp_path: Path) -> None:
    system = steervad(world)
    video = fit(system, world, tmp_path).datamodule.known("test")[0]
    frame = torch.from_numpy(VIEW.indices(video.n_frames))
    pixels = torch.stack([read_frames(video.path, row) for row in frame.numpy()])
    clip = Clip(
        [video.name] * len(frame), frame, {"video": frame}, {"video": pixels}, fps=torch.full((len(frame),), 25)
    )
    with torch.no_grad():
        score = system.eval().predict(clip).frame_score
        ((context, heads),) = read_by_hand(system, [video], VIEW)
        expected = system(context, torch.stack([heads[:, a, b] for a, b in system.heads.tolist()], 1))[0].sigmoid()
    torch.testing.assert_close(score, expected[:, None].expand(frame.shape), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="no heads are chosen: fit this SteerVad"):
        steervad(world).predict(clip)


def test_a_prediction_explains_what_is_anomalous_and_what_is_normal(world: Path, tmp_path: Path) -> None:
    system = steervad(world, explain={"anomalous": "What is wrong?", "max_new_tokens": 4, "frames": 2})
    fit(system, world, tmp_path)
    file = sorted(world.rglob("*.mp4"))[-1]
    for _ in range(2):  # the second time with a threshold between its scores
        data = OwnVideos([str(file)], num_workers=0)
        data.watch(system)
        trainer = make_trainer(tmp_path, [Explainer(), ScoreWriter(tmp_path, max_pictures=0)])
        trainer.predict(system, datamodule=data, return_predictions=False)
        score = trainer.callbacks[0].refined[file.stem].score
        system.threshold.fill_((score.min() + score.max()) / 2)
    table = table_of(tmp_path / "events.csv")
    assert {row["kind"] for row in table} == {"anomalous", "normal"}
    for row in table:
        first, length = int(row["first_frame"]), int(row["end_frame"]) - int(row["first_frame"])
        clip = read_frames(file, [first + length // 4, first + 3 * length // 4])
        asked = {"anomalous": "What is wrong?", "normal": "Describe what happens in this video."}[row["kind"]]
        assert row["explanation"] == system.mllm.generate([clip], asked, 4, frame_rate=[2 * 25 / length])[0].strip()


# sizes, and what is refused


def test_at_real_sizes_the_papers_520_thousand_parameters_make_a_checkpoint_of_2_mb(
    world: Path, tmp_path: Path, monkeypatch: Patch
) -> None:
    settings = {"fraction": 1.0, "test_view": VIEW, "weights": "random"}
    system = SteerVad(str(write_shape(tmp_path / "shape", "InternVL3-8B")), **settings)
    assert sum(value.numel() for value in system.parameters() if value.requires_grad) == 519_442

    def read(clip: Clip, stream: str) -> State:
        names = system.reading_names(stream)
        return {name: torch.randn(len(clip.video), *((3584,) if name == "context" else (28, 128))) for name in names}

    monkeypatch.setattr(system, "read", read)
    monkeypatch.setattr(system, "load_backbone", lambda: None)
    fit(system, world, tmp_path, epochs=2).save_checkpoint(tmp_path / "last.ckpt")
    assert 2.07e6 < (tmp_path / "last.ckpt").stat().st_size < 2.1e6


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"test_view": View(frames=2, segments=4)}, "must be windows"), ({"n_heads": 13}, "n_heads 13: .* has 12"),
     ({"fraction": 0.0}, "fraction 0.0: a share of the training videos above 0 and up to 1")],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(world: Path, settings: Settings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        steervad(world, **settings)


def test_what_a_fit_decided_cannot_be_changed_and_what_it_did_not_can(world: Path, tmp_path: Path) -> None:
    system, file = steervad(world, threshold="adaptive"), tmp_path / "last.ckpt"
    fit(system, world, tmp_path).save_checkpoint(file)
    mean, deviation = system.fitting_score.tolist()

    def tested(**settings: Any) -> tuple[SteerVad, Any]:
        other, tester = steervad(world, **{"threshold": "adaptive", **settings}), make_trainer(tmp_path)
        tester.test(other, datamodule=watched(other, world), ckpt_path=str(file), verbose=False)
        return other, tester.callbacks[0]

    for name, value in {"choose_by": "random", "n_heads": 3, "steering": "static", "global_gate": False}.items():
        said = f"{name} is {value} here, the checkpoint was fitted with {system.hparams[name]}"
        with pytest.raises(ValueError, match=said):
            tested(**{name: value})
    assert float(tested(threshold=0.3)[0].threshold) == pytest.approx(0.3)
    assert float(tested(kappa=2.0)[0].threshold) == pytest.approx(mean + 2 * deviation, abs=1e-12)
    _, evaluator = tested(sigma_segments=0.0)
    for name, curve in evaluator.curves.items():
        np.testing.assert_array_equal(expand(evaluator.refined[name]), expand(curve))
    assert_equal(SteerVad.load_from_checkpoint(file, weights_only=True).state_dict(), system.state_dict())
    again = steervad(world, threshold="adaptive")
    with pytest.raises(ValueError, match="this fit is finished"):
        fit(again, world, tmp_path, EPOCHS + 1, ckpt_path=str(file))


# through the command


@pytest.fixture
def command(world: Path, tmp_path: Path, monkeypatch: Patch) -> list[str]:
    """A fit of eight steps, started in an empty folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "steervad.yaml").write_text(f"""\
model:
  class_path: SteerVad
  init_args: {{backbone: {world}/mllm, n_heads: 2, fraction: 0.5, test_view: {{frames: 2, stride: 4, hop: 16}}}}
data:
  class_path: UcfCrime
  init_args: {{root: {world}/videos, num_workers: 0}}
trainer: {{accelerator: cpu, devices: 1, max_epochs: 8, callbacks+: [{{class_path: tests.worlds.SignalAt}}]}}
""")
    return ["fit", "-c", str(tmp_path / "steervad.yaml"), "--save_every", "2"]


@pytest.fixture
def undisturbed(command: list[str]) -> State:
    """The weights of this fit, whose folder lies in whole/."""
    main([*command, "--runs", "whole"])
    return weights(Path("whole"))


def test_a_finished_fit_holds_what_was_trained_and_seen_and_is_not_gone_on_with(
    command: list[str], undisturbed: State, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steering = {f"steering.{name}" for name in ("down.weight", "down.bias", "gate.weight", "gate.bias", "up", "offset")}
    assert undisturbed.keys() == steering | {"heads", "fitting_score", "threshold", "scorer.weight", "scorer.bias"}
    (file,) = Path().rglob("last.ckpt")
    assert {"heads.csv", "heads.png"} < {path.name for path in file.parents[1].iterdir()}
    stored = torch.load(file, weights_only=True)
    assert stored["optimizer_states"] == []
    fitted = watched(steervad(world, fraction=0.5), world).known("train")
    (seen,) = stored["seen"].values()
    assert seen["videos"].keys() == {f"UCF-Crime/{video.name}" for video in fitted}
    assert len(fitted) == 4
    for more in ([], ["--trainer.max_epochs", "9"]):
        with pytest.raises(SystemExit):
            main([*command, "--ckpt_path", str(file), *more])
        assert "error: this fit is finished, and its optimiser's state was not kept" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status", "step"),
    [(signal.SIGKILL, -9, 5), (signal.SIGTERM, 143, 5), (signal.SIGINT, 130, 5), (signal.SIGTERM, 143, 7)],
)
def test_a_stopped_fit_and_the_same_command_end_in_bit_equal_weights(
    number: int, status: int, step: int, command: list[str], undisturbed: State, monkeypatch: Any
) -> None:
    command += ["--runs", "stopped"]
    with monkeypatch.context() as environment:
        environment.setenv("VIGIL_TEST_SIGNAL", f"{step}:{int(number)}")
        process = multiprocessing.get_context("fork").Process(target=main, args=(command,))
        process.start()
        process.join()
    assert process.exitcode == status
    (file,) = Path("stopped").rglob("last.ckpt")
    stored = torch.load(file, weights_only=True)
    assert stored["global_step"] == (4 if number == signal.SIGKILL else step + 1)
    assert step == 7 or stored["optimizer_states"][0]["state"]
    main(command)
    assert_equal(weights(Path("stopped")), undisturbed)


def test_a_fit_killed_before_it_could_say_that_it_is_finished_says_so(command: list[str], undisturbed: State) -> None:
    shutil.copytree("whole", "killed")  # the first one's lock lasts as long as this process
    (state,) = Path("killed").rglob("state.json")
    state.write_text('{"state": "running"}')
    main([*command, "--runs", "killed"])
    assert_equal(weights(Path("killed")), undisturbed)
    assert json.loads(state.read_text()) == {"state": "finished"}


def test_two_processes_fit_the_weights_of_one_bit_for_bit(command: list[str], undisturbed: State) -> None:
    spread = ("--trainer.devices", 2, "--trainer.strategy", "ddp", "--runs", "two")
    done = lightning(*command, *spread, cwd=Path())
    assert done.returncode == 0, done.stderr
    assert_equal(weights(Path("two")), undisturbed)


@pytest.mark.parametrize("option", ["--trainer.fast_dev_run", "--store_only"])
def test_a_trial_run_and_a_filling_leave_nothing(option: str, command: list[str]) -> None:
    main([*command, option, "true"])
    assert list(Path().iterdir()) == []
