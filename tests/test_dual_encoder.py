"""DualEncoder on a small world of events: what trains, what is kept, what is exported, and what is refused."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from cli import main
from lightning_modules import DualEncoder, MilRanker
from lightning_modules.adapter import Lora, export
from lightning_modules.system import plain
from tests.test_filling_events import WORLD
from tests.test_uca import write_world
from tests.tiny_mllms import write_mllm
from tests.worlds import assert_equal, lightning, weights
from vigil.types import Clip, View

ROOT = Path(__file__).parent.parent
FUSIONS = ("none", "concat", "mil_only", "qformer", "late")
SMALL: dict[str, Any] = {"queries": 3, "query_width": 16, "query_heads": 4, "save_memory": False}
VIEWS: dict[str, Any] = {"view": View(4, segments=1), "mil_view": View(1, segments=3)}


def write_ranker(file: Path, hidden: tuple[int, int] = (8, 4), **given: Any) -> Path:
    torch.manual_seed(0)
    ranker = MilRanker(**{"encoder": "demo_deit", "weights": None, "train_blocks": 1, "hidden": hidden, **given})
    checkpoint = {"state_dict": ranker.state_dict(), "hyper_parameters": dict(ranker.hparams)}
    ranker.on_save_checkpoint(checkpoint)
    checkpoint["seen"] = {"MilRanker on UcfCrime": {"videos": {"UCF-Crime/Arson009_x264": ""}}}
    torch.save(checkpoint, file)
    return file


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mllm(tmp_path_factory.mktemp("mllm"), "llava_onevision", layers=2)


@pytest.fixture(scope="module")
def ranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the weights of its encoder in a file, as a fit's would be."""
    return write_ranker(
        tmp_path_factory.mktemp("ranker") / "last.ckpt", weights=str(ROOT / "weights" / "demo_deit.safetensors")
    )


def system_of(backbone: Path, ranker: Path, fusion: str, **given: Any) -> DualEncoder:
    torch.manual_seed(0)
    file = None if fusion == "none" else str(ranker)
    system = DualEncoder(str(backbone), fusion, file, **{"lora": Lora(4, 8.0, 0.0), **SMALL, **VIEWS, **given})
    system.configure_model()
    return system


def clip_of(n_events: int = 2) -> Clip:
    generator = torch.Generator().manual_seed(1)
    shapes = {"video": (n_events, 4, 3, 40, 60), "mil": (n_events, 3, 1, 3, 40, 60)}
    pixels = {
        name: torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for name, shape in shapes.items()
    }
    frame = {"video": torch.arange(4).expand(n_events, -1), "mil": torch.arange(3)[:, None].expand(n_events, -1, -1)}
    return Clip(
        video=[f"v{i}" for i in range(n_events)],
        span=torch.tensor([[0, 8]] * n_events),
        frame=frame,
        pixels=pixels,
        text=["A man left.", "Two people fight in the street"][:n_events],
        fps=torch.full((n_events,), 30.0),
    )


@pytest.mark.parametrize("fusion", FUSIONS)
def test_adapters_and_bridge_train_and_nothing_else(fusion: str, backbone: Path, ranker: Path) -> None:
    system = system_of(backbone, ranker, fusion)
    assert system.mllm.decoder.training
    for name, parameter in system.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # zero at first, which keeps lora_A from its gradient
    trains = {name for name, parameter in system.named_parameters() if parameter.requires_grad}
    adapters = {name for name in trains if "lora_" in name}
    layers = [f"mllm.model.model.language_model.layers.{i}.self_attn.{p}_proj" for i in (0, 1) for p in "qv"]
    assert adapters == {f"{layer}.lora_{factor}.default.weight" for layer in layers for factor in "AB"}
    rest = {"none": set(), "late": {"bridge", "mix"}}.get(fusion, {"bridge"})
    assert {name.partition(".")[0] for name in trains - adapters} == rest
    torch.stack(list(system._losses(clip_of()).values())).sum().backward()
    moved = {name for name, parameter in system.named_parameters() if parameter.grad is not None}
    assert moved == trains
    assert all(bool((system.get_parameter(name).grad != 0).any()) for name in adapters)


def test_the_alignment_stage_trains_the_q_former_alone_and_hands_it_on(
    backbone: Path, ranker: Path, tmp_path: Path
) -> None:
    first = system_of(backbone, ranker, "qformer", stage="align")
    losses = first._losses(clip_of())
    assert set(losses) == {"caption", "alignment", "contrast"}
    torch.stack(list(losses.values())).sum().backward()
    trains = {name for name, parameter in first.named_parameters() if parameter.requires_grad}
    assert {name.partition(".")[0] for name in trains} == {"bridge"}
    assert all(first.get_parameter(name).grad is not None for name in trains)
    checkpoint = {"state_dict": first.state_dict(), "hyper_parameters": dict(first.hparams)}
    first.on_save_checkpoint(checkpoint)
    torch.save(checkpoint, tmp_path / "align.ckpt")
    second = system_of(backbone, ranker, "qformer", start_from=str(tmp_path / "align.ckpt"))
    assert_equal(second.bridge.state_dict(), first.bridge.state_dict())
    with pytest.raises(ValueError, match=r"tensors of this fusion's bridge are missing there or of another shape"):
        system_of(backbone, ranker, "concat", start_from=str(tmp_path / "align.ckpt"))
    with pytest.raises(ValueError, match=r"align\.ckpt: it was fitted with another backbone, ranker or number of"):
        system_of(backbone, ranker, "qformer", query_heads=2, start_from=str(tmp_path / "align.ckpt"))
    other = write_ranker(tmp_path / "wider.ckpt", hidden=(8, 4))
    with pytest.raises(ValueError, match=r"trained on MIL features of width 128; those of .*wider.ckpt are 8 wide"):
        system_of(backbone, other, "qformer", mil_features="hidden", start_from=str(tmp_path / "align.ckpt"), **{})


def test_without_pixels_mil_only_sees_the_mil_tokens_alone(backbone: Path, ranker: Path) -> None:
    system, clip = system_of(backbone, ranker, "mil_only"), clip_of()
    assert list(system.fit_views) == ["mil"]
    before = system._losses(clip)["caption"]
    del clip.pixels["video"], clip.frame["video"]
    torch.testing.assert_close(system._losses(clip)["caption"], before)


def test_kept_readings_give_what_pixels_give(backbone: Path, ranker: Path) -> None:
    for fusion in ("concat", "late"):
        system, clip = system_of(backbone, ranker, fusion), clip_of()
        loss = system._losses(clip)["caption"]
        said = {name: value for stream in ("video", "mil") for name, value in system.read(clip, stream).items()}
        kept = Clip(clip.video, clip.span, clip.frame, features=said, text=clip.text, fps=clip.fps)
        torch.testing.assert_close(system._losses(kept)["caption"], loss, rtol=0, atol=1e-5)


def run(*args: object) -> None:
    main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("uca"), WORLD)


def arguments(world: Path, backbone: Path, ranker: Path, runs: Path, *more: object) -> list[object]:
    layers = [f"-c={ROOT}/configs/{name}.yaml" for name in ("systems/dual_encoder", "data/uca", "machines/cpu")]
    view = '{"frames": 1, "segments": 3}'
    return [
        *(part for layer in layers for part in layer.split("=")), "--data.root", world, "--runs", runs,
        "--data.num_workers", 0, "--model.backbone", backbone, "--model.ranker", ranker, "--model.dtype", "float32",
        "--model.view", '{"frames": 4, "segments": 1}', "--model.mil_view", view, "--model.max_new_tokens", 4,
        "--model.batch_size", 2, "--trainer.accumulate_grad_batches", 1, "--trainer.enable_progress_bar", "false",
        "--model.learning_rate", 1e-2, *more,
    ]  # fmt: skip


def test_a_fit_ends_in_a_small_checkpoint_an_export_and_judged_captions(
    world: Path, backbone: Path, ranker: Path, tmp_path: Path
) -> None:
    given = arguments(world, backbone, ranker, tmp_path / "runs")
    run("fit", *given)
    (last,) = tmp_path.rglob("last.ckpt")
    state = torch.load(last, weights_only=True)
    assert {name.partition(".")[0] for name in state["state_dict"]} == {"mllm", "bridge", "threshold"}
    assert all("lora_" in name for name in state["state_dict"] if name.startswith("mllm"))
    assert "MilRanker on UcfCrime" in state["seen"]
    folder = last.parent.parent / "adapter"
    base = AutoModelForImageTextToText.from_pretrained(backbone)
    merged = PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
    for layer in (0, 1):
        for name in ("q", "v"):
            key = f"mllm.model.model.language_model.layers.{layer}.self_attn.{name}_proj.lora_"
            a, b = (state["state_dict"][f"{key}{factor}.default.weight"].bfloat16().float() for factor in "AB")
            own = getattr(merged.model.language_model.layers[layer].self_attn, f"{name}_proj").weight
            start = AutoModelForImageTextToText.from_pretrained(backbone).model.language_model.layers[layer].self_attn
            torch.testing.assert_close(own, getattr(start, f"{name}_proj").weight + 2.0 * b @ a, atol=1e-5, rtol=0)
    leaks = ("--leaks", "record")  # the small world's videos are copies of one another
    run("test", *given, *leaks, "--ckpt_path", last)
    (captions,) = tmp_path.rglob("captions.csv")
    assert len(captions.read_text().splitlines()) == 1 + 6  # two sentences of one stretch are two rows
    run(
        "test",
        *arguments(world, backbone, ranker, tmp_path / "probe"),
        "--data.task",
        "probe",
        *leaks,
        "--ckpt_path",
        last,
    )
    assert list(tmp_path.rglob("class_scores.csv"))  # in the run folder of the fit
    exported = tmp_path / "exported"
    shutil.copytree(folder, exported)
    run("test", *arguments(world, backbone, ranker, tmp_path / "again", "--model.start_from", exported, *leaks))
    assert len(list((tmp_path / "again").rglob("captions.csv"))) == 1
    other = write_mllm(tmp_path / "other", "llava_onevision", seed=2, layers=2)
    system = DualEncoder(str(other), "concat", str(ranker), start_from=str(exported), **SMALL, **VIEWS)
    with pytest.raises(ValueError, match=r"exported: an adapter for .*, here the backbone is .*other, whose files"):
        system.configure_model()
    stored = load_file(exported / "bridge.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}


def test_a_fit_that_is_stopped_ends_in_the_weights_of_one_that_is_not(
    world: Path, backbone: Path, ranker: Path, tmp_path: Path
) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    command = ["fit", *arguments(world, backbone, ranker, Path("runs"), "--trainer.max_epochs", 4)]
    command += ["--trainer.callbacks+", "tests.worlds.SignalAt"]
    whole = lightning(*command, cwd=tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    stopped = lightning(*command, cwd=tmp_path / "stopped", at=(2, signal.SIGTERM))  # in the middle of an epoch
    assert stopped.returncode == 143, stopped.stderr
    resumed = lightning(*command, cwd=tmp_path / "stopped")
    assert resumed.returncode == 0, resumed.stderr
    assert_equal(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))


def test_two_processes_fit_and_judge(world: Path, backbone: Path, ranker: Path, tmp_path: Path) -> None:
    two = ("--trainer.devices", 2, "--trainer.strategy", "ddp", "--leaks", "record", "--model.fusion", "late")
    given = arguments(world, backbone, ranker, Path("runs"), *two)
    done = lightning("fit", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr  # a parameter without a gradient would stop DDP
    (last,) = tmp_path.rglob("last.ckpt")
    tested = lightning("test", *given, "--ckpt_path", last, cwd=tmp_path)
    assert tested.returncode == 0, tested.stderr
    (captions,) = tmp_path.rglob("captions.csv")
    assert len(captions.read_text().splitlines()) == 1 + 6


def test_the_config_of_eight_gpus_is_the_same_recipe() -> None:
    one, eight = (
        yaml.safe_load((ROOT / "configs" / "systems" / f"dual_encoder{end}.yaml").read_text())
        for end in ("", "_8_gpus")
    )
    steps = [
        config["model"]["init_args"].pop("batch_size") * config["trainer"].pop("accumulate_grad_batches", 1)
        for config in (one, eight)
    ]
    assert steps == [32, 32]
    assert one == eight


def test_wrong_combinations_and_rankers_are_refused(backbone: Path, ranker: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a checkpoint of a MilRanker is expected with every fusion but none"):
        DualEncoder(str(backbone), "concat")
    with pytest.raises(ValueError, match="only a qformer has an alignment stage"):
        DualEncoder(str(backbone), "concat", str(ranker), stage="align")
    with pytest.raises(FileNotFoundError, match=r"no\.ckpt: no checkpoint here"):
        DualEncoder(str(backbone), "concat", str(tmp_path / "no.ckpt"))
    (tmp_path / "broken.ckpt").write_bytes(ranker.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"broken\.ckpt: no checkpoint of a fit, or a damaged one"):
        DualEncoder(str(backbone), "concat", str(tmp_path / "broken.ckpt"))
    features = write_ranker(tmp_path / "c3d.ckpt", encoder=None, train_blocks=0, feature_width=4096)
    with pytest.raises(ValueError, match="fitted on pre-extracted features of width 4096 and cannot look at a video"):
        DualEncoder(str(backbone), "concat", str(features))
    torch.save({"seen": {}, "hyper_parameters": plain({"backbone": "x"}), "state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match="no checkpoint of a MilRanker; its hyper-parameters are backbone"):
        DualEncoder(str(backbone), "concat", str(tmp_path / "other.ckpt"))
    weights = str(ROOT / "weights" / "demo_deit.safetensors")
    frozen = write_ranker(tmp_path / "frozen.ckpt", train_blocks=0, weights=weights)
    with pytest.raises(ValueError, match=r"this ranker's encoder was frozen \(train_blocks 0\)"):
        DualEncoder(str(backbone), "concat", str(frozen))


def test_an_export_with_other_settings_or_of_unknown_origin_is_refused(
    backbone: Path, ranker: Path, tmp_path: Path
) -> None:
    system = system_of(backbone, ranker, "late")
    about = {**system._made_with(), "mix": 0.5, "seen": {}}
    export(tmp_path / "late", system.mllm, system.adapter, system.bridge, about)
    again = system_of(backbone, ranker, "late", start_from=str(tmp_path / "late"))
    assert float(again.mix) == 0.5
    with pytest.raises(ValueError, match="it was fitted with fusion 'late', here 'concat'; give the same"):
        system_of(backbone, ranker, "concat", start_from=str(tmp_path / "late"))
    (tmp_path / "late" / "vigil.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"late: no vigil\.json, which says what this adapter was made for"):
        system_of(backbone, ranker, "late", start_from=str(tmp_path / "late"))


def test_saving_memory_runs_each_layer_again(backbone: Path, ranker: Path) -> None:
    system = system_of(backbone, ranker, "concat", save_memory=True)
    calls = []
    for layer in system.mllm.decoder.layers:
        layer.self_attn.register_forward_hook(lambda *_: calls.append(1))
    system._losses(clip_of())["caption"].backward()
    assert len(calls) == 4  # two layers, forward and again
