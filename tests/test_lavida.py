"""Lavida on small models: what trains, what is scored, which categories are refused, fits that stop and go on."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch.nn.functional import interpolate

from cli import main
from datamodules.demo_segmentation import write_segmentation
from lightning_modules import Lavida
from lightning_modules.adapter import Lora
from tests.tiny_clip import CONTEXT, write_clip
from tests.tiny_mllms import FAMILIES, write_mllm
from tests.tiny_sam2 import tiny_sam2
from tests.tiny_videos import write_tiny_video, write_video_world
from tests.worlds import assert_equal, lightning, weights
from vigil.types import Clip, View

ROOT = Path(__file__).parent.parent
SMALL: dict[str, Any] = {
    "adapter_width": 32, "adapter_blocks": 2, "adapter_heads": 2, "n_queries": 4, "save_memory": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("models")
    folders = {family: str(write_mllm(root / family, family, layers=2)) for family in FAMILIES}
    return {**folders, "sam2": str(tiny_sam2(root / "sam2")), "clip": str(write_clip(root / "clip"))}


def system_of(models: dict[str, str], family: str = "llava_onevision", **given: Any) -> Lavida:
    torch.manual_seed(0)
    values = {"dtype": "float32", "lora": Lora(4, 8.0, 0.0), **SMALL, **given}
    system = Lavida(models[family], models["sam2"], models["clip"], **values)
    system.configure_model()
    system.log_dict = lambda *_, **__: None  # it logs to a trainer, of which there is none here
    for name, parameter in system.named_parameters():
        if "lora_B" in name or (name.startswith("projector.") and parameter.ndim > 1):
            torch.nn.init.normal_(parameter, std=0.2)  # as they begin, lora_A gets no gradient and words hardly matter
    return system


def clip_of(n_clips: int = 2, n_frames: int = 4, anomalous: int = 1) -> Clip:
    """Clips of 40 x 60 pixels, the first `anomalous` of which show a rectangle of what is asked about."""
    generator = torch.Generator().manual_seed(1)
    mask = torch.zeros((n_clips, n_frames, 40, 60), dtype=torch.bool)
    mask[:anomalous, 1:, 5:25, 10:40] = True
    return Clip(
        video=[f"v{i}" for i in range(n_clips)],
        span=torch.tensor([[0, n_frames]] * n_clips),
        frame={"video": torch.arange(n_frames).expand(n_clips, -1)},
        pixels={"video": torch.randint(0, 256, (n_clips, n_frames, 3, 40, 60), dtype=torch.uint8, generator=generator)},
        mask=mask,
        frame_label=mask.any((2, 3)).long(),
        phrases=[["fire"], ["a red car", "smoke", "a dog"]][:n_clips],
        fps=torch.full((n_clips,), 30.0),
    )


@pytest.mark.parametrize("adapter", ["semantic", "mlp", "qformer"])
def test_adapters_token_projector_and_decoder_train_and_nothing_else(adapter: str, models: dict[str, str]) -> None:
    system = system_of(models, adapter=adapter)
    trains = {name for name, parameter in system.named_parameters() if parameter.requires_grad}
    layers = [f"mllm.model.model.language_model.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qv"]
    lora = {f"{layer}.lora_{factor}.default.weight" for layer in layers for factor in "AB"}
    rest = {name for name in trains - lora if not name.startswith(("projector.", "sam2.decoder."))}
    assert rest == {"mllm.new_token.embedding", "mllm.new_token.output"}
    assert lora <= trains
    system.training_step(clip_of(), 0).backward()
    still = {name for name in trains if system.get_parameter(name).grad is None}
    assert still == set()  # DDP waits for every one
    assert all(bool(system.get_parameter(name).grad.any()) for name in (*lora, *rest))
    saved = {name for name in system.state_dict() if name != "threshold"}
    assert saved == trains


def test_seg_learns_where_tokens_are_compressed(models: dict[str, str]) -> None:
    """In the released code no embedding gets a gradient then."""
    system = system_of(models, compression=0.25)
    system.training_step(clip_of(), 0).backward()
    assert float(system.mllm.new_token.embedding.grad.norm()) > 0


def test_a_batch_without_any_anomaly_has_the_object_and_the_text_terms_alone(models: dict[str, str]) -> None:
    system, logged = system_of(models), {}
    system.log_dict = lambda values, **_: logged.update(values)
    loss = system.training_step(clip_of(anomalous=0), 0)
    loss.backward()
    assert float(logged["train/mask"]) == float(logged["train/dice"]) == float(logged["train/iou"]) == 0
    torch.testing.assert_close(loss, logged["train/object"] + logged["train/text"])
    assert all(parameter.grad is not None for parameter in system.parameters() if parameter.requires_grad)


def test_a_frame_of_an_anomalous_clip_counts_as_its_label_says(models: dict[str, str]) -> None:
    """Equation 2 gives every frame of an anomalous clip label 1, also one that does not show the object."""
    system, logged = system_of(models), []
    system.log_dict = lambda values, **_: logged.append(float(values["train/object"]))
    clip = clip_of()
    assert clip.frame_label[0].tolist() == [0, 1, 1, 1]
    torch.manual_seed(0)
    system.training_step(clip, 0)
    clip.frame_label[0] = 1
    torch.manual_seed(0)
    system.training_step(clip, 0)
    assert logged[0] != logged[1]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_of_every_frame_and_pixel_and_do_not_depend_on_the_batch(
    family: str, models: dict[str, str]
) -> None:
    system, clip = system_of(models, family).eval(), clip_of()
    system.mllm.eval()
    with torch.no_grad():
        both = system.predict(clip)
        assert both.frame_score.shape == (2, 4)
        assert both.pixel_score.shape == (2, 4, 40, 60)
        assert both.frame_score.dtype == both.pixel_score.dtype == torch.float32
        assert 0 <= float(both.pixel_score.min()) < float(both.pixel_score.max()) <= 1
        for i in (0, 1):
            one = Clip([clip.video[i]], clip.span[i : i + 1], {"video": clip.frame["video"][i : i + 1]})
            one.pixels, one.phrases, one.fps = (
                {"video": clip.pixels["video"][i : i + 1]},
                [clip.phrases[i]],
                clip.fps[:1],
            )
            alone = system.predict(one)
            torch.testing.assert_close(alone.frame_score[0], both.frame_score[i], rtol=0, atol=1e-4)
            torch.testing.assert_close(alone.pixel_score[0], both.pixel_score[i], rtol=0, atol=1e-4)


def test_a_score_is_the_object_logit_and_the_likeliest_mask_and_a_gate_multiplies_it(models: dict[str, str]) -> None:
    found = {}
    for gate in ("none", "soft", "hard"):
        system, clip = system_of(models, pixel_gate=gate).eval(), clip_of()
        system.mllm.eval()
        with torch.no_grad():
            found[gate] = system.predict(clip)
            _, decoded = system._detect(clip, clip.phrases, fitting=False)
    score = torch.sigmoid(decoded.object_logit)
    torch.testing.assert_close(found["none"].frame_score.flatten(), score)
    for n in range(8):  # frame by frame
        m = int(decoded.iou[n].argmax())
        logit = interpolate(decoded.mask_logit[n, m][None, None], size=(40, 60), mode="bilinear")[0, 0]
        mask = torch.sigmoid(logit)
        torch.testing.assert_close(found["none"].pixel_score.flatten(0, 1)[n], mask)
        torch.testing.assert_close(found["soft"].pixel_score.flatten(0, 1)[n], mask * score[n])
        torch.testing.assert_close(found["hard"].pixel_score.flatten(0, 1)[n], mask * (score[n] > 0.5))


def test_a_budget_of_pixels_holds_for_fit_or_test_alone(models: dict[str, str]) -> None:
    system, clip = system_of(models, "qwen2_vl", fit_frame_pixels=(784, 1568)).eval(), clip_of()
    system.mllm.eval()
    with torch.no_grad():
        before = system.predict(clip).frame_score
        system.training_step(clip, 0)
        assert torch.equal(system.predict(clip).frame_score, before)


def test_other_words_give_other_scores(models: dict[str, str]) -> None:
    system, clip = system_of(models).eval(), clip_of()
    system.mllm.eval()
    with torch.no_grad():
        first = system.predict(clip).frame_score
        clip.phrases = [["water"], ["a blue house", "fog", "a cat"]]
        assert not torch.allclose(system.predict(clip).frame_score, first, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_maps_of_the_compression_lie_as_the_tokens_do(family: str, models: dict[str, str]) -> None:
    system = system_of(models, family)
    density, attention = system.token_maps(clip_of())
    assert density.shape == attention.shape
    steps = 2 if family.startswith("qwen") else 4  # of time; Qwen joins two frames
    assert density.shape[:2] == (2, steps)
    assert density.shape[2] * density.shape[3] > 1
    assert system_of(models, family, compression=1.0).token_maps(clip_of()) is None


def test_kept_image_features_give_the_same_scores(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIL_CACHE", str(tmp_path))
    plain, keeping = system_of(models), system_of(models, keep_image_features=True)
    for system in (plain, keeping):
        system.mllm.eval()
    with torch.no_grad():
        true = plain.predict(clip_of()).frame_score
        assert torch.equal(keeping.predict(clip_of()).frame_score, true)
        assert torch.equal(keeping.predict(clip_of()).frame_score, true)
    assert (keeping.kept.n_encoded, keeping.kept.n_kept) == (8, 8)


def test_options_that_cannot_be_meant_are_refused(models: dict[str, str]) -> None:
    names = (models["llava_onevision"], models["sam2"], models["clip"])
    with pytest.raises(ValueError, match=r"compression 0.0: the share of visual tokens kept, in \(0, 1\]"):
        Lavida(*names, compression=0.0, **SMALL)
    with pytest.raises(ValueError, match="must be windows"):
        Lavida(*names, test_view=View(frames=8, segments=4), **SMALL)
    with pytest.raises(ValueError, match="resizes every frame to one size; leave them out"):
        system_of(models, test_frame_pixels=(784, 1568)).predict(clip_of())
    with pytest.raises(ValueError, match=r"'\{phrases\}' once in a question"):
        Lavida(*names, questions=[], **SMALL)
    clip = clip_of()
    clip.mask = None
    with pytest.raises(ValueError, match="v0: a clip without masks and phrases; Lavida is fitted on PseudoAnomaly"):
        system_of(models).training_step(clip, 0)


def run(*args: object) -> None:
    main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("segmentation")
    write_segmentation(root, size="tiny")
    return root


def arguments(models: dict[str, str], runs: Path, *more: object, data: str = "pseudo_anomaly") -> list[object]:
    layers = [f"-c={ROOT}/configs/{name}.yaml" for name in ("systems/lavida", f"data/{data}", "machines/cpu")]
    values = {**SMALL, "batch_size": 2, "learning_rate": 1e-3, "projector_learning_rate": 1e-3, "warmup_steps": 2}
    values |= {"fit_frame_pixels": "null", "test_frame_pixels": "null", "save_memory": "false", "dtype": "float32"}
    values |= {"backbone": models["llava_onevision"], "sam2": models["sam2"], "clip": models["clip"]}
    values |= {"fit_view": '{"frames": 3, "stride": 1, "hop": 3}', "test_view": '{"frames": 3, "stride": 2, "hop": 6}'}
    return [
        *(part for layer in layers for part in layer.split("=")), "--runs", runs,
        *(part for name, value in values.items() for part in (f"--model.{name}", value)),
        "--data.num_workers", 0, "--trainer.accumulate_grad_batches", 1, "--trainer.enable_progress_bar", "false",
        *more,
    ]  # fmt: skip


def fitting(models: dict[str, str], world: Path, runs: Path, *more: object) -> list[object]:
    mixture = '{"ade20k": 0.5, "mevis": 0.5}'
    few = ("--data.samples_per_epoch", 8, "--data.validation_samples", 6, "--trainer.max_epochs", 2)
    return arguments(models, runs, "--data.root", world, "--data.mixture", mixture, *few, *more)


def test_a_fit_on_segmentation_sets_then_a_video_of_ones_own(
    models: dict[str, str], world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("fit", *fitting(models, world, tmp_path / "runs"))
    (last,) = tmp_path.rglob("last.ckpt")
    state = torch.load(last, weights_only=True)
    parts = {".".join(name.split(".")[:2]) for name in state["state_dict"]}
    assert {"mllm.new_token", "mllm.model", "sam2.decoder"} <= parts
    assert not any(name.startswith("sam2.encoder") for name in state["state_dict"])
    video = tmp_path / "mine.mp4"
    write_tiny_video(video, n_frames=13, seed=0)
    own = arguments(models, tmp_path / "own", "--data.videos", video, "--ckpt_path", last, data="own_videos")
    words = ("--model.categories", '["fire", "a person climbing a fence"]')
    run("predict", *own, *words)
    (scores,) = tmp_path.rglob("scores.csv")
    rows = [line.split(",") for line in scores.read_text().splitlines()[1:]]
    assert [int(rows[0][1]), int(rows[-1][2])] == [0, 13]  # every frame, though 13 are two windows and a bit
    assert list(tmp_path.rglob("overlays/mine.mp4"))
    for given, message in (
        ((), r"categories \[\] (of OwnVideos): at least one, and none empty, is expected"),
        (("--model.categories", str([f"thing {i}" for i in range(200)])), "200 categories (given): at most 40"),
        (("--model.categories", str(["a <SEG>"])), "category 'a <SEG>' of OwnVideos holds a special token of"),
        (("--model.categories", str(["a" * (CONTEXT + 1)])), f"tokens long, {models['clip']} reads {CONTEXT}"),
    ):
        with pytest.raises(SystemExit):
            run("predict", *own, *given)
        assert message.replace("\\", "") in capsys.readouterr().err


def test_a_fit_on_anomaly_videos_is_refused(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video_world(tmp_path / "videos")
    with pytest.raises(SystemExit):
        run("fit", *arguments(models, tmp_path / "runs", "--data.root", tmp_path / "videos", data="ucf_crime"))
    assert "Lavida is fitted on PseudoAnomaly, which has masks and phrases, not UcfCrime" in capsys.readouterr().err


def test_a_fit_that_is_stopped_ends_in_the_weights_of_one_that_is_not(
    models: dict[str, str], world: Path, tmp_path: Path
) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    command = ["fit", *fitting(models, world, Path("runs")), "--trainer.callbacks+", "tests.worlds.SignalAt"]
    whole = lightning(*command, cwd=tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    stopped = lightning(*command, cwd=tmp_path / "stopped", at=(5, signal.SIGTERM))
    assert stopped.returncode == 143, stopped.stderr
    resumed = lightning(*command, cwd=tmp_path / "stopped")
    assert resumed.returncode == 0, resumed.stderr
    assert_equal(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))


def test_two_processes_fit_and_score_as_one_does(models: dict[str, str], world: Path, tmp_path: Path) -> None:
    two = ("--trainer.devices", 2, "--trainer.strategy", "ddp")
    done = lightning("fit", *fitting(models, world, Path("runs"), *two), cwd=tmp_path)
    assert done.returncode == 0, done.stderr  # a parameter without a gradient would stop DDP
    (last,) = tmp_path.rglob("last.ckpt")
    write_tiny_video(tmp_path / "mine.mp4", n_frames=25, seed=0)
    found = []
    for name, more in (("one", ()), ("two", two)):
        words = ("--model.categories", '["fire"]', "--data.videos", "mine.mp4", "--ckpt_path", last)
        given = arguments(models, Path(name), *words, *more, data="own_videos")
        done = lightning("predict", *given, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        (scores,) = (tmp_path / name).rglob("scores.csv")
        found.append(scores.read_text())
        assert (scores.parent / "masks" / "mine.png").is_file()
        shutil.rmtree(scores.parent)
    assert found[0] == found[1]


def test_the_configs_of_eight_gpus_and_of_the_authors_differ_only_where_they_say() -> None:
    folder = ROOT / "configs" / "systems"
    one, eight, authors = (
        yaml.safe_load((folder / f"lavida{end}.yaml").read_text()) for end in ("", "_8_gpus", "_authors")
    )
    differ = {name for name, value in one["model"]["init_args"].items() if authors["model"]["init_args"][name] != value}
    assert differ == {
        "density",
        "questions",
        "answers",
        "pixel_gate",
        "mask_weights",
        "test_frame_pixels",
        "batch_size",
    }
    steps = [
        config["model"]["init_args"].pop("batch_size") * config["trainer"].pop("accumulate_grad_batches", 1)
        for config in (one, eight)
    ]
    assert steps == [16, 16]
    assert one == eight
