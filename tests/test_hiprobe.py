"""HiProbe on tiny MLLMs and videos: its layer, probe and scores by hand, and what it reads, says and leaves behind."""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.linalg import norm
from PIL import Image
from safetensors.torch import load_file
from scipy.ndimage import gaussian_filter1d
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor

import datamodules.clips
import vigil.mllm
from callbacks.evaluator import Evaluator
from callbacks.leak_guard import LeakGuard
from cli import main
from datamodules import UcfCrime
from lightning_modules.hiprobe import PROMPT, HiProbe
from tests.test_explainer import parts_by_frame, rows
from tests.test_filling import kept, start, wait_for
from tests.tiny_mllms import write_mllm
from tests.tiny_videos import make_trainer, write_tiny_video, write_video_world
from tests.worlds import assert_equal, weights
from vigil.curves import expand
from vigil.explanation import Explanation
from vigil.mllm import Mllm
from vigil.saliency import layer_saliency
from vigil.store import cache_root, content_hash
from vigil.types import Clip, Video, View
from vigil.video import read_frames, write_video

HOP, LAYERS = 16, 4
VIEW = View(frames=4, stride=4, hop=HOP)
BAG = View(frames=4, segments=3)


def together(count: int, args: list[str], patch: pytest.MonkeyPatch) -> None:
    """The command by `count` processes that find each other by gloo, started from outside as torchrun does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        patch.setenv("MASTER_PORT", str(free.getsockname()[1]))
    spread = [f"--trainer.devices={count}", "--trainer.strategy=ddp"] if count > 1 else []
    processes = []
    for rank in range(count):
        if count > 1:
            patch.setenv("LOCAL_RANK", str(rank))
        processes.append(start(*args, *spread))
    patch.delenv("LOCAL_RANK", raising=False)
    for process in processes:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in processes] == [0] * count


@dataclass
class Place:
    """What the tests share: an undisturbed fit by one process in `run`, whose readings are in `cache`.

    by_hand: what all layers say of every video, (W, L, D).
    """

    root: Path
    cache: Path
    run: Path
    by_hand: dict[str, Tensor]

    @property
    def checkpoint(self) -> Path:
        return self.run / "checkpoints" / "last.ckpt"

    def data(self) -> UcfCrime:
        data = UcfCrime(str(self.root / "world"), num_workers=0)
        data.watch(self.probe())  # which fits on all training videos, since it needs none for validation
        return data

    def probe(self, **settings: Any) -> HiProbe:
        given = {"test_view": VIEW, "window_batch": 3, "fraction": 1.0, **settings}
        return HiProbe(given.pop("backbone", str(self.root / "mllm")), **given)

    def command(self, stage: str, *more: str) -> list[str]:
        data = ["--data=UcfCrime", f"--data.root={self.root / 'world'}"]
        restored = [f"--ckpt_path={self.checkpoint}"] if stage != "fit" else []
        own = ["--data=OwnVideos"] if stage == "predict" else data
        return [stage, "-c", str(self.root / "hiprobe.yaml"), *own, "--data.num_workers=0", *restored, *more]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("place")
    place = Place(root, root / "cache", root, {})
    folder = write_mllm(root / "mllm", "internvl", seed=3, layers=LAYERS, max_position_embeddings=2048)
    write_video_world(root / "world", n_train=2)
    model = f"{{backbone: {folder}, fraction: 1.0, test_view: {{frames: 4, stride: 4, hop: {HOP}}}, window_batch: 3}}"
    trainer = "{accelerator: cpu, devices: 1, max_epochs: 1, logger: false, enable_progress_bar: false}"
    config = f"model: {{class_path: HiProbe, init_args: {model}}}\ntrainer: {trainer}\n"
    (root / "hiprobe.yaml").write_text(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIGIL_CACHE", str(place.cache))
        together(1, place.command("fit", f"--runs={root / 'runs'}"), patch)
        place.run = next(root.rglob("checkpoints")).parent
        data, mllm = place.data(), Mllm(str(folder))
        for video in data.known("train") + data.known("test"):
            place.by_hand[video.name] = states(mllm, video)
    return place


@pytest.fixture
def shared(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The place, for tests that need no readings of their own."""
    monkeypatch.setenv("VIGIL_CACHE", str(place.cache))
    return place


@torch.no_grad()
def states(mllm: Mllm, video: Video, view: View = VIEW, at: Any = "last_prompt") -> Tensor:
    clips, rates = [], []
    for frames in view.indices(video.n_frames).tolist():
        steps = [b - a for a, b in itertools.pairwise(frames) if b > a]  # what is held at the end is no step
        clips.append(read_frames(video.path, frames))
        rates.append(video.fps / (sum(steps) / len(steps)) if steps else video.fps)
    return mllm.read(clips, PROMPT, hidden=range(mllm.n_layers), at=at, frame_rate=rates).hidden


def fit(system: HiProbe, data: UcfCrime, folder: Path) -> None:
    data.watch(system)
    trainer = make_trainer(folder, [LeakGuard()], max_epochs=1, limit_val_batches=0)
    trainer.fit(system, datamodule=data)
    trainer.save_checkpoint(folder / "last.ckpt")


def test(system: HiProbe, data: UcfCrime, folder: Path, checkpoint: Path | None) -> Evaluator:
    data.watch(system)
    trainer = make_trainer(folder, [LeakGuard()])
    trainer.ckpt_path = checkpoint and str(checkpoint)  # not as an argument, which `setup` does not hear of
    trainer.test(system, datamodule=data, verbose=False)
    return trainer.callbacks[0]


test.__test__ = False  # type: ignore[attr-defined]


def window_scores(evaluator: Evaluator, video: Video) -> np.ndarray:
    return expand(evaluator.curves[video.name])[VIEW.spans(video.n_frames)[:, 0]]


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("asked for what is kept on disk")


def test_layer_probe_threshold_and_scores_are_those_of_the_hidden_states(shared: Place, tmp_path: Path) -> None:
    system, data = shared.probe(), shared.data()
    fit(system, data, tmp_path)
    mean = torch.stack([shared.by_hand[video.name].mean(0) for video in data.known("train")])
    label = torch.tensor([video.label for video in data.known("train")])
    layer = 1 + int(layer_saliency(mean[:, 1:], label).argmax())  # the input layer is not among them
    assert int(system.layer) == layer
    feature = mean[:, layer].double().numpy()
    machine = LogisticRegression(C=1, tol=1e-10, max_iter=10_000).fit(feature, label)
    np.testing.assert_allclose(system.probe.weight.detach(), machine.coef_, atol=1e-4)
    assert system.probe.bias.item() == pytest.approx(float(machine.intercept_[0]), abs=1e-4)
    score = machine.predict_proba(feature)[:, 1].tolist()
    middle = sum(score) / len(score)
    deviation = math.sqrt(sum((value - middle) ** 2 for value in score) / len(score))
    assert float(system.threshold) == pytest.approx(middle + 0.2 * deviation, abs=1e-5)
    evaluator = test(system, data, tmp_path, None)
    for video in data.known("test"):
        found = window_scores(evaluator, video)
        for value, state in zip(found, shared.by_hand[video.name][:, layer], strict=True):
            logit = (system.probe.weight[0] @ state + system.probe.bias[0]).item()
            assert value == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)
        smooth = gaussian_filter1d(found.astype(np.float64), 0.4, mode="reflect").repeat(HOP)[: video.n_frames]
        np.testing.assert_allclose(expand(evaluator.refined[video.name]), smooth, atol=1e-6)
    names = ("frame_auroc", "frame_auroc_refined", "frame_auroc_gated")
    assert len({evaluator.results["test"][name] for name in names}) == 3


def judged(feature: np.ndarray, label: np.ndarray, settings: dict[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """A score as scikit-learn, or the formula, gives it."""
    scorer = settings.get("scorer", "logistic")
    if scorer == "distance":
        normal, anomalous = (feature[label == kind].mean(0) for kind in (0, 1))
        return lambda state: (
            norm(state - normal, axis=1) / (norm(state - normal, axis=1) + norm(state - anomalous, axis=1))
        )
    if scorer == "svm":  # a bias that counts for little in the penalty is nearly free, as ours is
        machine = LinearSVC(dual=False, tol=1e-10, max_iter=100_000, intercept_scaling=1e3).fit(feature, label)
        return lambda state: 1 / (1 + np.exp(-machine.decision_function(state)))
    given = {"C": settings.get("c", 1), "class_weight": settings.get("class_weight")}
    machine = LogisticRegression(**given, tol=1e-10, max_iter=10_000)
    if settings.get("standardize"):
        machine = make_pipeline(StandardScaler(), machine)
    return lambda state: machine.fit(feature, label).predict_proba(state)[:, 1]


@pytest.mark.parametrize(
    ("layer", "settings"),
    [
        (3, {"layer": "last"}),
        (2, {"layer": "middle"}),
        (1, {"layer": 1, "c": 0.1}),
        (1, {"layer": 1, "scorer": "svm"}),
        (1, {"layer": 1, "scorer": "distance"}),
        (1, {"layer": 1, "unit": "segment"}),
        (1, {"layer": 1, "unit": "segment", "class_weight": "balanced"}),
        (1, {"layer": 1, "standardize": True}),
        (1, {"layer": 1, "fit_view": BAG}),
        (3, {"layer": "last", "at": "first_generated"}),
        (1, {"layer": 1, "weights": "random"}),
    ],
)
def test_every_option_gives_the_scores_that_it_should(
    shared: Place, tmp_path: Path, layer: int, settings: dict[str, Any]
) -> None:
    system, data = shared.probe(**settings), shared.data()
    fit(system, data, tmp_path)
    assert int(system.layer) == layer
    assert not (tmp_path / "layers.csv").exists()  # nothing was chosen

    def of(video: Video, view: View) -> np.ndarray:
        kept = view == VIEW and not {"at", "weights"} & settings.keys()
        said = shared.by_hand[video.name] if kept else states(system.mllm, video, view, system.hparams.at)
        return said[:, layer].double().numpy()

    samples = [of(video, settings.get("fit_view", VIEW)) for video in data.known("train")]
    if settings.get("unit") != "segment":
        samples = [part.mean(0, keepdims=True) for part in samples]
    label = np.repeat([video.label for video in data.known("train")], [len(part) for part in samples])
    score = judged(np.concatenate(samples), label, settings)
    fitting = score(np.concatenate(samples))
    assert float(system.threshold) == pytest.approx(fitting.mean() + 0.2 * fitting.std(), abs=1e-3)
    evaluator = test(system, data, tmp_path, None)
    for video in data.known("test"):
        np.testing.assert_allclose(window_scores(evaluator, video), score(of(video, VIEW)), atol=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": LAYERS}, "layer 4: saliency, middle, last, or 0 to 3 is expected"),
        ({"layer": -1}, "layer -1: saliency, middle, last, or 0 to 3 is expected"),
        ({"layer": "deepest"}, "layer 'deepest': saliency, middle, last, or 0 to 3 is expected"),
        ({"fraction": 0.0}, r"fraction 0\.0: a share of the training videos above 0"),
        ({"fraction": 1.5}, r"fraction 1\.5: a share of the training videos above 0 and up to 1"),
        ({"test_view": BAG}, "test_view .* must be windows: stride and hop, and no segments"),
        ({"sigma_segments": -0.4}, r"sigma_segments -0\.4: 0 or more segments are expected"),
    ],
)
def test_options_that_mean_nothing_are_refused(place: Place, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        place.probe(**settings)


def test_a_fit_on_a_video_of_each_label_chooses_a_layer_and_draws_no_neighbours(shared: Place, tmp_path: Path) -> None:
    system, data = shared.probe(fraction=0.01), shared.data()
    fit(system, data, tmp_path)
    assert sorted(video.label for video in data.known("train")) == [0, 1]
    assert {file.name for file in tmp_path.iterdir()} == {"layers.csv", "layers.png", "last.ckpt"}
    assert 0 < float(system.threshold) < 1


def test_a_test_runs_the_layers_up_to_the_chosen_one_and_a_second_run_reads_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system, data, ran = place.probe(), place.data(), set()
    fit(system, data, tmp_path)
    chosen = int(system.layer)
    assert 0 < chosen < LAYERS - 1
    assert not system.mllm.loaded
    other = place.probe()
    for layer, block in enumerate(other.mllm.decoder.layers):
        block.register_forward_hook(lambda *_, layer=layer: ran.add(layer))
    first = test(other, data, tmp_path, tmp_path / "last.ckpt")
    assert ran == set(range(chosen + 1))
    store, _ = data.stores["video", VIEW]
    names = {split: {tuple(store.names(v.path)) for v in data.known(split)} for split in ("train", "test")}
    every = tuple(f"hidden.{layer}" for layer in range(LAYERS))
    assert names == {"train": {every}, "test": {(f"hidden.{chosen}",)}}
    monkeypatch.setattr(datamodules.clips, "read_frames", refuse)
    monkeypatch.setattr(vigil.mllm, "load_mllm", refuse)
    again, data = place.probe(), place.data()
    fit(again, data, tmp_path)
    assert test(again, data, tmp_path, None).results == first.results
    assert_equal(again.state_dict(), system.state_dict())


class Elsewhere(UcfCrime):
    """Another dataset, whose videos would count other seconds if they did not tell their rate."""

    family, fps = "elsewhere", 24.0


def test_a_model_that_counts_seconds_is_tested_on_a_dataset_of_another_rate(place: Place, tmp_path: Path) -> None:
    backbone = str(write_mllm(tmp_path / "qwen", "qwen2_5_vl", layers=2, max_position_embeddings=2048))
    data, scores = place.data(), []
    fit(place.probe(backbone=backbone), data, tmp_path)
    for dataset in (data, Elsewhere(str(place.root / "world"), num_workers=0)):
        evaluator = test(place.probe(backbone=backbone), dataset, tmp_path, tmp_path / "last.ckpt")
        scores.append({name: curve.score.tolist() for name, curve in evaluator.curves.items()})
    assert scores[0] == scores[1]
    assert len(list((cache_root() / "readings").iterdir())) == 2  # where a rate is unknown, the dataset's decides


@pytest.mark.parametrize("settings", [{}, {"kappa": 1.0}, {"threshold": 0.9}, {"sigma_segments": 1.0}])
def test_threshold_and_smoothing_are_as_given_at_the_test(
    shared: Place, tmp_path: Path, settings: dict[str, Any]
) -> None:
    system, data = shared.probe(**settings), shared.data()
    evaluator = test(system, data, tmp_path, shared.checkpoint)
    mean, deviation = weights(shared.run)["fitting_score"].tolist()
    threshold = settings.get("threshold", mean + settings.get("kappa", 0.2) * deviation)
    assert float(system.threshold) == pytest.approx(threshold, abs=1e-12)
    gated, label = [], []
    for video in data.known("test"):
        score = window_scores(evaluator, video).astype(np.float64)
        smooth = gaussian_filter1d(score, settings.get("sigma_segments", 0.4)).astype(np.float32)
        gated += np.where(smooth > threshold, smooth, 0).repeat(HOP)[: video.n_frames].tolist()
        label += [any(a <= t < b for a, b in video.anomalies) for t in range(video.n_frames)]
    assert evaluator.results["test"]["frame_auroc_gated"] == pytest.approx(roc_auc_score(label, gated), abs=1e-9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layer": "last"}, "layer is last here, the checkpoint was fitted with saliency; give the same, or fit anew"),
        ({"scorer": "svm"}, "scorer is svm here, the checkpoint was fitted with logistic; give the same, or fit anew"),
        ({"scorer": "distance"}, "scorer is distance here, .*; give the same, or fit anew"),
        ({"c": 2.0, "unit": "segment"}, r"c is 2\.0 here, .* 1\.0; unit is segment here, .* video; give the same"),
        ({"fraction": 0.5}, r"fraction is 0\.5 here, the checkpoint was fitted with 1\.0"),
        ({"prompt": "What is it?"}, "trained on other frozen weights: .* give the encoder and weights"),
        ({"at": "first_generated"}, "trained on other frozen weights: .* give the encoder and weights"),
    ],
)
def test_what_the_fit_decided_is_refused_before_anything_is_read(
    place: Place, tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    system = place.probe(**settings)
    with pytest.raises(ValueError, match=message):
        test(system, place.data(), tmp_path, place.checkpoint)
    assert not system.mllm.loaded
    assert not (cache_root() / "readings").exists()


def test_a_fit_leaves_its_choice_in_sight_and_a_small_checkpoint(shared: Place, tmp_path: Path) -> None:
    assert [file.name for file in shared.checkpoint.parent.iterdir()] == ["last.ckpt"]
    checkpoint = torch.load(shared.checkpoint, weights_only=True)
    state, saw = checkpoint["state_dict"], checkpoint["seen"]
    assert state.keys() == {"probe.weight", "probe.bias", "layer", "threshold", "fitting_score"}
    assert shared.checkpoint.stat().st_size < 10_000 < 0.1 * (shared.root / "mllm" / "model.safetensors").stat().st_size
    layers = rows(shared.run / "layers.csv")
    assert [row["layer"] for row in layers] == [str(layer) for layer in range(1, LAYERS)]
    assert [row["layer"] for row in layers if row["chosen"] == "1"] == [str(int(state["layer"]))]
    assert layers[0].keys() >= {"kl_divergence", "discriminant_ratio", "entropy", "saliency", "silhouette"}
    assert all(Image.open(shared.run / name).size > (300, 300) for name in ("layers.png", "tsne.png"))
    system, data = shared.probe(), shared.data()
    fit(system, data, tmp_path)
    assert_equal(system.state_dict(), state, tolerance=1e-6)
    assert saw.keys() == {"HiProbe on UcfCrime"}
    assert saw["HiProbe on UcfCrime"]["videos"].keys() == {f"UCF-Crime/{video.name}" for video in data.known("train")}


def test_the_command_reads_the_chosen_layer_alone_and_refuses_before_it_reads(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    given = place.command("test", "--store_only=true")
    with pytest.raises(SystemExit):
        main([*given, "--model.prompt=What?"])
    assert "the checkpoint was trained on other frozen weights" in capsys.readouterr().err
    assert not (cache_root() / "readings").exists()
    main(given)
    names = [tuple(load_file(file)) for file in (cache_root() / "readings").rglob("*.safetensors")]
    assert names == [(f"hidden.{int(weights(place.run)['layer'])}",)] * 4


def predict(place: Place, *more: str) -> Path:
    """The folder that `lightning predict` leaves."""
    before = set(place.run.glob("predict-*"))
    main(place.command("predict", *more))
    (folder,) = set(place.run.glob("predict-*")) - before
    return folder


def test_a_prediction_says_what_the_mllm_says_of_every_segment(shared: Place) -> None:
    files = [next(shared.root.rglob(f"{name}_x264.mp4")) for name in ("Fighting003", "Normal_Videos_006")]
    folder = predict(shared, f"--data.videos={json.dumps([str(file) for file in files])}")
    threshold = json.loads((folder / "metrics.json").read_text())["threshold"]
    expected, mllm, asked = [], Mllm(str(shared.root / "mllm")), Explanation()
    for file in files:
        score = [row for row in rows(folder / "scores.csv") if row["video"] == file.stem]
        length = [int(row["end_frame"]) - int(row["first_frame"]) for row in score]
        curve = np.repeat([float(row["refined"]) for row in score], length)
        for first, end, kind in parts_by_frame(curve, threshold):
            clip = read_frames(file, [first + (2 * k + 1) * (end - first) // 32 for k in range(16)])
            said = mllm.generate([clip], getattr(asked, kind), 64)[0]
            expected.append([file.stem, str(first), str(end), kind, said])
    keys = ("video", "first_frame", "end_frame", "kind", "explanation")
    assert [[row[key] for key in keys] for row in rows(folder / "events.csv")] == expected
    assert {kind for *_, kind, _ in expected} == {"anomalous", "normal"}
    quiet = predict(shared, f"--data.videos={files[0]}", "--model.explain.when=never")
    assert {(row["kind"], row["explanation"]) for row in rows(quiet / "events.csv")} == {("anomalous", "")}


def test_a_test_explains_where_it_is_told_to(shared: Place) -> None:
    main(shared.command("test"))
    main(shared.command("test", "--model.explain.when=always", "--model.explain.max_new_tokens=2"))
    kinds = [{row["kind"] for row in rows(file)} for file in shared.run.glob("test-*/events.csv")]
    assert sorted(kinds, key=len) == [{"anomalous"}, {"anomalous", "normal"}]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--model.explain.whne=always"], "'whne' is not a key here; did you mean 'when'?"),
        (["--model.explain", "{max_new_token: 4}"], "'max_new_token' is not a key here; did you mean 'max_new_tokens'"),
        (["--model.explain.when=sometimes"], "Expected a typing.Literal['never', 'predict', 'always']"),
    ],
)
def test_a_wrong_key_of_an_explanation_is_an_error_that_names_the_right_one(
    place: Place, capsys: pytest.CaptureFixture[str], given: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(place.command("test", *given))
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_a_stream_is_scored_as_it_comes_and_nothing_of_it_is_kept(place: Place, tmp_path: Path) -> None:
    write_tiny_video(tmp_path / "film.mp4", 40, 3)
    film = tmp_path / "film.ts"
    write_video(film, read_frames(tmp_path / "film.mp4", range(40)), 25, keyframe_every=10, preset="ultrafast")
    found = rows(predict(place, f"--data.follow={film}", "--data.patience_s=0.5") / "live.csv")
    assert not (cache_root() / "readings").exists()
    mllm, state = Mllm(str(place.root / "mllm")), weights(place.run)
    assert [int(row["frame"]) for row in found] == [0, 16, 32]
    for row in found:
        clip = read_frames(film, [max(int(row["frame"]) - back, 0) for back in (12, 8, 4, 0)])
        hidden = mllm.read([clip], PROMPT, hidden=[int(state["layer"])]).hidden[0, 0]
        logit = float(state["probe.weight"][0] @ hidden + state["probe.bias"][0])
        assert float(row["score"]) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-5)


@pytest.mark.parametrize(("scorer", "n_missing"), [("logistic", 6), ("distance", 1)])
def test_two_processes_fit_and_score_as_one(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scorer: str, n_missing: int
) -> None:
    missing = place.data().known("train")[:n_missing]
    read, readers, scored = HiProbe.read, {1: tmp_path / "by_one", 2: tmp_path / "by_two"}, []

    def noted(system: HiProbe, clip: Clip, stream: str) -> dict[str, Tensor]:
        with readers[system.trainer.world_size].open("a") as file:
            file.write(f"{clip.video[0]} {system.global_rank}\n")
        return read(system, clip, stream)

    monkeypatch.setattr(HiProbe, "read", noted)
    for count, file in readers.items():
        cache, runs = Path(shutil.copytree(place.cache, tmp_path / f"cache{count}")), tmp_path / f"runs{count}"
        for video in missing:
            for reading in cache.rglob(f"{content_hash(video.path)}.safetensors"):
                reading.unlink()
        monkeypatch.setenv("VIGIL_CACHE", str(cache))
        together(count, place.command("fit", f"--model.scorer={scorer}", f"--runs={runs}"), monkeypatch)
        reader = dict(line.split() for line in file.read_text().splitlines())
        assert reader.keys() == {video.name for video in missing}
        assert len(set(reader.values())) == min(count, n_missing)
        (checkpoint,) = runs.rglob("last.ckpt")
        together(count, place.command("test", f"--model.scorer={scorer}", f"--ckpt_path={checkpoint}"), monkeypatch)
        scored.append(next(runs.rglob("scores.csv")).read_text())
    assert_equal(weights(tmp_path / "runs2"), weights(tmp_path / "runs1"))
    assert scored[0] == scored[1]
    assert len(scored[0].splitlines()) > 8


def test_a_fit_killed_while_it_reads_goes_on_to_the_weights_of_an_undisturbed_one(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, read = place.command("fit", f"--runs={tmp_path}"), HiProbe.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HiProbe, "read", lambda *clip: time.sleep(0.2) or read(*clip))
        process = start(*given)
    wait_for(2, process)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(kept()) < 8
    assert not list(tmp_path.rglob("last.ckpt"))
    together(1, given, monkeypatch)
    assert len(kept()) == 8
    assert_equal(weights(tmp_path), weights(place.run))
