"""The MLLM that is only asked: its scores are its likelihoods of two answers, kept per question, and nothing trains."""

from __future__ import annotations

import csv
import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.caption_writer import CaptionWriter
from cli import main
from datamodules import OwnVideos, UcfCrime
from lightning_modules.prompting import UNNAMED, Prompting
from tests.tiny_mllms import write_clip_tower, write_mllm
from tests.tiny_videos import make_trainer, write_video_world
from tests.worlds import lightning
from vigil.store import cache_root
from vigil.types import View
from vigil.video import read_frames

VIEW = View(frames=4, stride=4, hop=16)  # two grids of two frames: where their seconds count


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mllm(tmp_path_factory.mktemp("mllm"), "qwen2_5_vl", layers=2, max_position_embeddings=2048)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video_world(tmp_path_factory.mktemp("videos"), n_train=1)


def prompting(backbone: Path, **settings: Any) -> Prompting:
    return Prompting(str(backbone), test_view=VIEW, window_batch=3, **settings)


def test(system: Prompting, root: Path, folder: Path) -> tuple[dict[str, float], Any]:
    data = UcfCrime(str(root), num_workers=0)
    data.watch(system)
    trainer = make_trainer(folder, [CaptionWriter(folder)])
    trainer.test(system, datamodule=data, verbose=False)
    return trainer.callbacks[0].results["test"], trainer.callbacks[0].curves


test.__test__ = False  # type: ignore[attr-defined]


def test_a_score_is_the_likelihood_of_yes_beside_that_of_no(backbone: Path, root: Path, tmp_path: Path) -> None:
    system = prompting(backbone, question="Is there {phrases}? Yes or No.")
    metrics, curves = test(system, root, tmp_path)
    assert metrics.keys() >= {"frame_auroc", "frame_ap"}
    phrases = ", ".join(UcfCrime.phrases)
    assert "fighting" in phrases.lower()
    question = f"Is there {phrases}? Yes or No."
    data = system.trainer.datamodule
    for video in data.known("test"):
        pixels = read_frames(video.path, VIEW.indices(video.n_frames).ravel())
        for row, (start, _) in zip(VIEW.indices(video.n_frames), VIEW.spans(video.n_frames), strict=True):
            clip = pixels[: len(row)]
            pixels = pixels[len(row) :]
            steps = [b - a for a, b in itertools.pairwise(row) if b > a]  # what is held at the end is no step
            rate = video.fps / (sum(steps) / len(steps)) if steps else video.fps
            yes, no = (
                float(system.mllm.choose([clip], question, [answer], frame_rate=[rate])) for answer in ("Yes", "No")
            )
            expected = math.exp(yes) / (math.exp(yes) + math.exp(no))
            curve = curves[video.name]
            assert float(curve.score[curve.edge.tolist().index(start)]) == pytest.approx(expected, abs=1e-5)


def test_a_second_test_loads_no_weights_and_another_question_does(backbone: Path, root: Path, tmp_path: Path) -> None:
    first, _ = test(prompting(backbone), root, tmp_path)
    again = prompting(backbone)
    assert test(again, root, tmp_path)[0] == first
    assert not again.mllm.loaded
    changes = ({"question": "Is anything wrong?"}, {"answers": ("No", "Yes")}, {"weights": "random"})
    for change in changes:
        other = prompting(backbone, **change)
        assert test(other, root, tmp_path)[0] != first
        assert other.mllm.loaded
    assert len(list((cache_root() / "readings").iterdir())) == 1 + len(changes)


def test_the_protocol_tells_the_question_that_was_asked(backbone: Path, root: Path, tmp_path: Path) -> None:
    system = prompting(backbone)
    test(system, root, tmp_path)
    assert system.protocol["question"].startswith("Is there an abnormal event in this video, such as ")
    assert UcfCrime.phrases[0] in system.protocol["question"]
    assert system.protocol["at"] == "last_prompt"
    assert system.protocol["files"] == system.mllm.key["files"]


def test_it_answers_a_question_about_a_video_of_ones_own(
    backbone: Path, root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(root.rglob("*.mp4"))[:2]
    system = prompting(backbone, ask="What happens?", max_new_tokens=4, dtype="float32")
    data = OwnVideos([str(file) for file in files], num_workers=0)
    data.watch(system)
    trainer = make_trainer(tmp_path, [CaptionWriter(tmp_path)])
    trainer.predict(system, datamodule=data, return_predictions=False)
    assert UNNAMED in system.question
    with (tmp_path / "captions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    spans = [tuple(span) for v in data.known("predict") for span in VIEW.spans(v.n_frames).tolist()]
    assert [(int(row["first_frame"]), int(row["end_frame"])) for row in rows] == spans
    assert {row["video"] for row in rows} == {file.stem for file in files}
    video = data.known("predict")[0]
    clip = read_frames(video.path, VIEW.indices(video.n_frames)[0])
    assert rows[0]["caption"] == system.mllm.generate([clip], "What happens?", 4, frame_rate=[video.fps / 4])[0]
    assert rows[0]["reference"] == ""
    assert not (cache_root() / "readings").exists()


def test_no_captions_no_table(backbone: Path, root: Path, tmp_path: Path) -> None:
    test(prompting(backbone), root, tmp_path)
    assert not (tmp_path / "captions.csv").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"answers": ("Yes",)}, "two different ones are expected"),
        ({"answers": ("Yes", "Yes")}, "two different ones are expected"),
        ({"question": " "}, "question is empty"),
        ({"test_view": View(frames=2, segments=4)}, "must be windows"),
    ],
)
def test_settings_that_mean_nothing_are_refused(backbone: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Prompting(str(backbone), **settings)


def test_smoothing_is_the_systems_own_refinement(backbone: Path) -> None:
    curve = torch.tensor([0.0, 1.0, 0.0])
    assert prompting(backbone).refine(curve) is curve
    assert 0 < float(prompting(backbone, sigma_frames=1.0).refine(curve)[0]) < 0.5


def test_a_backbone_that_went_away_is_named_only_where_it_is_needed(backbone: Path, root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(backbone, tmp_path / "copy"))
    system = prompting(copy)
    for file in copy.glob("*.safetensors"):
        file.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=str(copy)):
        test(system, root, tmp_path)


def test_two_processes_say_what_one_says(backbone: Path, root: Path, tmp_path: Path) -> None:
    own = ["--data", "OwnVideos", "--data.videos", str(root), "--data.num_workers", "0"]
    asked = [
        "--model",
        "Prompting",
        "--model.backbone",
        str(backbone),
        "--model.test_view",
        "{frames: 4, stride: 4, hop: 16}",
    ]
    asked += ["--model.ask", "What happens?", "--model.max_new_tokens", "4", "--trainer.accelerator", "cpu"]
    for processes in (1, 2):
        spread = ["--trainer.devices", processes, "--trainer.strategy", "ddp" if processes > 1 else "auto"]
        done = lightning("predict", *asked, *own, *spread, "--runs", f"runs{processes}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    for name in ("captions.csv", "scores.csv"):
        one, two = (next((tmp_path / f"runs{n}").rglob(name)).read_text() for n in (1, 2))
        assert one == two
        assert len(one.splitlines()) > 10


@pytest.mark.parametrize(
    ("backbone_name", "question", "message"),
    [
        ("nobody/no-such-model", "Is it?", "nobody/no-such-model: neither a folder here"),
        ("empty", "Is it?", "empty: no config.json, found nothing"),
        ("clip", "Is it?", "model_type 'clip_vision_model'; expected one of llava_onevision"),
        ("", "word " * 2000, "more than the 2048 that"),
    ],
)
def test_the_command_names_a_backbone_or_a_question_that_will_not_do(
    backbone: Path,
    root: Path,
    backbone_name: str,
    question: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_clip_tower(tmp_path / "clip")
    given = ["--model", "Prompting", "--model.backbone", backbone_name or str(backbone), "--model.question", question]
    given += ["--data", "UcfCrime", "--data.root", str(root), "--data.num_workers", "0", "--trainer.accelerator", "cpu"]
    with pytest.raises(SystemExit) as stop:
        main(["test", *given, "--trainer.logger", "false", "--trainer.enable_progress_bar", "false"])
    assert stop.value.code
    assert message in capsys.readouterr().err
