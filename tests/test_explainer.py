"""Explanations: every stretch of the final curve is put to the system, and its answer reaches table and picture."""

from __future__ import annotations

import contextlib
import csv
import pickle
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from callbacks.evaluator import Evaluator
from callbacks.explainer import Explainer, Stretch, gathered, stretches
from callbacks.score_writer import ScoreWriter
from datamodules import OwnVideos, UcfCrime
from tests.tiny_systems import PixelDifference
from tests.tiny_videos import make_trainer, write_tiny_video, write_video_world
from vigil.curves import Curve, expand
from vigil.explanation import Explanation
from vigil.temporal import smooth
from vigil.types import Clip, Video
from vigil.video import read_frames

QUESTIONS = {"anomalous": "What is wrong?", "normal": "What happens?"}
SIGMA_FRAMES = 3.0


class Telling(PixelDifference):
    """Says which question it got and how bright the clip is; keeps the clips. fails_after: so many answers."""

    per_clip, fails_after, error = 1, 10**9, RuntimeError("out of memory")

    def __init__(self, threshold: float = 0.5, stages: tuple[str, ...] = ("test", "predict"), **asked: str) -> None:
        super().__init__()
        when = {(): "never", ("predict",): "predict", ("test", "predict"): "always"}[stages]
        self.explanation = Explanation(when, **{"anomalous": "", "normal": "", **(asked or QUESTIONS)}, frames=3)
        self.threshold.fill_(threshold)
        self.clips: list[Clip] = []

    def refine(self, curve: Tensor) -> Tensor:
        return smooth(curve, SIGMA_FRAMES)

    def explain(self, clip: Clip, question: str) -> list[str]:
        assert not self.training
        assert not torch.is_grad_enabled()
        if len(self.clips) == self.fails_after:
            raise self.error
        self.clips.append(clip)
        return [f" {question} {brightness(clip.pixels['video'])}\n"] * self.per_clip


def brightness(pixels: Tensor) -> str:
    return f"{pixels.double().mean():.6f}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video_world(tmp_path_factory.mktemp("world"), n_train=1)


def run_test(
    system: Telling, world: Path, folder: Path, max_pictures: int = 0, **settings: Any
) -> tuple[UcfCrime, Evaluator]:
    data = UcfCrime(str(world), num_workers=0)
    data.watch(system)
    trainer = make_trainer(folder, [Explainer(), ScoreWriter(folder, max_pictures)], **settings)
    try:
        trainer.test(system, datamodule=data, verbose=False)
    finally:
        evaluator = next(callback for callback in trainer.callbacks if isinstance(callback, Evaluator))
    return data, evaluator


def parts_by_frame(score: np.ndarray, threshold: float) -> list[tuple[int, int, str]]:
    """Frame by frame: a stretch goes on while its frames stay on one side of the threshold."""
    found: list[tuple[int, int, str]] = []
    for t, value in enumerate(score.tolist()):
        kind = "anomalous" if value > threshold else "normal"
        if found and found[-1][2] == kind:
            found[-1] = (found[-1][0], t + 1, kind)
        else:
            found.append((t, t + 1, kind))
    return found


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("threshold", [-0.1, 0.0, 0.3, 0.5, 0.8, 1.0])
def test_a_curve_is_cut_wherever_it_crosses_the_threshold(threshold: float) -> None:
    score = np.random.default_rng(0).choice(np.array([0.0, 0.3, 0.5, 0.9], dtype=np.float64), 30)
    edge = np.arange(0, 61, 2)
    assert stretches(Curve(edge, score), threshold) == parts_by_frame(score.repeat(2), threshold)


def test_every_stretch_of_the_refined_curve_is_asked_about_by_its_kind(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    system = Telling()
    data, evaluator = run_test(system, world, tmp_path, max_pictures=2)
    expected: dict[str, list[tuple[int, int, str, str]]] = {}
    for video in data.known("test"):
        for first, end, kind in parts_by_frame(expand(evaluator.refined[video.name]), 0.5):
            frames = [first + (2 * k + 1) * (end - first) // 6 for k in range(3)]  # the middles of its three parts
            text = f"{QUESTIONS[kind]} {brightness(read_frames(video.path, frames))}"
            expected.setdefault(video.name, []).append((first, end, kind, text))
    assert evaluator.explanations == expected
    kinds = [kind for parts in expected.values() for *_, kind, _ in parts]
    assert min(kinds.count("anomalous"), kinds.count("normal")) > 3
    assert all(clip.pixels["video"].shape[:3] == (1, 3, 3) and clip.fps.tolist() == [25.0] for clip in system.clips)

    table = rows(tmp_path / "events.csv")
    told = [(row["video"], int(row["first_frame"]), int(row["end_frame"]), row["kind"]) for row in table]
    assert told == [(name, *part[:3]) for name, parts in expected.items() for part in parts]
    assert [row["explanation"] for row in table] == [part[3] for parts in expected.values() for part in parts]
    for picture in (tmp_path / "curves").iterdir():
        width, height = Image.open(picture).size
        assert width == 800
        assert height > 400


def test_a_kind_without_a_question_is_not_explained(world: Path, tmp_path: Path) -> None:
    _, evaluator = run_test(Telling(anomalous="What is wrong?", normal=""), world, tmp_path)
    kinds = {part[2] for parts in evaluator.explanations.values() for part in parts}
    assert kinds == {row["kind"] for row in rows(tmp_path / "events.csv")} == {"anomalous"}


def test_the_screen_shows_a_few_and_says_how_many(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        _, evaluator = run_test(Telling(), world, tmp_path)
    (name, (part, *_)), *_ = evaluator.explanations.items()
    kinds = [kind for parts in evaluator.explanations.values() for _, _, kind, _ in parts]
    told = "\n".join(caplog.messages)
    assert f"Explaining {kinds.count('anomalous')} anomalous and {kinds.count('normal')} normal segments." in told
    assert f"{name}, frames {part[0]} to {part[1]}, {part[2]}: {part[3]}" in told
    assert f"and {len(kinds) - 3} more, all in events.csv" in told


@pytest.mark.parametrize(
    ("system", "settings", "said"),
    [
        (Telling(stages=("predict",)), {}, ""),
        (Telling(threshold=float("nan")), {}, "No segments are explained: the system has no threshold"),
        (Telling(threshold=1.0, anomalous="What is wrong?"), {}, ""),
        (Telling(), {"fast_dev_run": True}, ""),
    ],
    ids=["no questions", "no threshold", "nothing found", "fast_dev_run"],
)
def test_where_nothing_is_to_be_explained_nobody_is_asked(
    system: Telling, settings: dict, said: str, world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        _, evaluator = run_test(system, world, tmp_path, **settings)
    assert evaluator.explanations == {}
    assert system.clips == []
    told = [message for message in caplog.messages if "xplain" in message]
    assert len(told) == bool(said)
    assert not said or told[0].startswith(said)


def test_a_stream_has_no_frames_left_to_explain_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_tiny_video(tmp_path / "film.ts", 40, 0)
    system = Telling()
    data = OwnVideos(follow=str(tmp_path / "film.ts"), patience_s=0.3, num_workers=0)
    data.watch(system)
    trainer = make_trainer(tmp_path, [Explainer(), ScoreWriter(tmp_path, max_pictures=0)])
    with caplog.at_level("INFO"):
        trainer.predict(system, datamodule=data, return_predictions=False)
    assert [message for message in caplog.messages if "explained" in message] == [
        "A stream's segments are not explained: its frames are gone when they are known."
    ]
    assert system.clips == []
    assert (tmp_path / "events.csv").exists()


def test_own_videos_are_explained_after_a_prediction(tmp_path: Path) -> None:
    write_tiny_video(tmp_path / "film.mp4", 40, 0)
    system = Telling()
    data = OwnVideos(str(tmp_path / "film.mp4"), num_workers=0)
    data.watch(system)
    trainer = make_trainer(tmp_path, [Explainer(), ScoreWriter(tmp_path, max_pictures=0)])
    trainer.predict(system, datamodule=data, return_predictions=False)
    assert len(system.clips) > 2
    assert all(row["explanation"] for row in rows(tmp_path / "events.csv"))


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_an_error_on_the_way_costs_neither_the_scores_nor_what_was_said(
    error: BaseException, world: Path, tmp_path: Path
) -> None:
    system = Telling()
    system.fails_after, system.error = 4, error
    # Lightning ends the process when it is interrupted
    with pytest.raises(SystemExit if isinstance(error, KeyboardInterrupt) else RuntimeError):
        run_test(system, world, tmp_path)
    assert (tmp_path / "scores.csv").exists()
    assert (tmp_path / "metrics.json").exists()
    assert sum(row["explanation"] != "" for row in rows(tmp_path / "events.csv")) == 4


def test_another_number_of_explanations_than_segments_is_refused(world: Path, tmp_path: Path) -> None:
    system = Telling()
    system.per_clip = 2
    with pytest.raises(ValueError, match="Telling gives 2 explanations of 1 segment; one is expected"):
        run_test(system, world, tmp_path)


class Processes:
    """Two threads in the place of two processes: all_gather_object as torch.distributed has it."""

    def __init__(self) -> None:
        self.parts, self.rank = [b"", b""], threading.local()
        self.meet = threading.Barrier(2, timeout=20)

    def all_gather_object(self, parts: list[Any], mine: Any) -> None:
        self.parts[self.rank.number] = pickle.dumps(mine)
        self.meet.wait()
        parts[:] = map(pickle.loads, self.parts)

    def run(self, module: dict[int, Any], wanted: list[Stretch]) -> list[Any]:
        results: list[Any] = [None, None]

        def work(number: int) -> None:
            self.rank.number = number
            trainer = SimpleNamespace(
                world_size=2,
                global_rank=number,
                datamodule=SimpleNamespace(
                    stretch_clips=lambda share, stream, view: [clip_of(*part) for part in share]
                ),
                precision_plugin=SimpleNamespace(forward_context=contextlib.nullcontext),
            )
            results[number] = gathered(trainer, module[number], wanted, QUESTIONS)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def clip_of(video: Video, first: int, end: int) -> Clip:
    return Clip([video.name], torch.tensor([[first, end]]), {"video": torch.tensor([[first]])})


class Naming:
    """Says which segment it is shown, and has nothing to say of the segments in `refuses`."""

    device, explanation = "cpu", Explanation("always", **QUESTIONS, frames=3)

    def __init__(self, refuses: tuple[int, ...] = ()) -> None:
        self.refuses, self.seen = refuses, []

    def explain(self, clip: Clip, question: str) -> list[str]:
        first = int(clip.span[0, 0])
        if first in self.refuses:
            raise RuntimeError(f"no answer at {first}")
        self.seen.append(first)
        return [f"{question} {first}"]


@pytest.mark.parametrize("n_stretches", [1, 2, 7])
def test_processes_share_the_stretches_and_all_have_every_answer(
    n_stretches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    processes, modules = Processes(), {0: Naming(), 1: Naming()}
    monkeypatch.setattr("callbacks.explainer.distributed", processes)
    kinds = ("anomalous", "normal")
    wanted = [Stretch(Video("a"), number, number + 1, kinds[number % 2]) for number in range(n_stretches)]
    everything = {number: f"{QUESTIONS[kinds[number % 2]]} {number}" for number in range(n_stretches)}
    assert processes.run(modules, wanted) == [(everything, None)] * 2
    assert sorted(modules[0].seen + modules[1].seen) == list(range(n_stretches))
    assert len(modules[0].seen) - len(modules[1].seen) in (0, 1)


def test_an_error_of_one_process_ends_all_with_what_was_said(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes()
    monkeypatch.setattr("callbacks.explainer.distributed", processes)
    wanted = [Stretch(Video("a"), number, number + 1, "normal") for number in range(6)]
    (said, failure), (also, cause) = processes.run({0: Naming(), 1: Naming(refuses=(3,))}, wanted)
    assert said == also
    assert sorted(said) == [0, 1, 2, 4]
    assert isinstance(cause, RuntimeError)
    with pytest.raises(
        ValueError, match="another process could not explain its segments: RuntimeError: no answer at 3"
    ):
        raise failure


def test_videos_that_are_features_alone_are_counted_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    evaluator, module = Evaluator(), Naming()
    module.threshold = torch.tensor(0.5)
    videos = [Video("a", Path("a.mp4")), Video("b", None, features=Path("b.npy"))]
    evaluator.curves = {video.name: Curve(np.array([0, 4, 8]), np.array([0.2, 0.9])) for video in videos}
    trainer = SimpleNamespace(
        callbacks=[evaluator],
        world_size=1,
        global_rank=0,
        fast_dev_run=False,
        datamodule=SimpleNamespace(
            known=lambda split: videos,
            causal=False,
            stretch_clips=lambda share, stream, view: [clip_of(*part) for part in share],
        ),
        precision_plugin=SimpleNamespace(forward_context=contextlib.nullcontext),
    )
    with caplog.at_level("INFO"):
        Explainer().on_test_end(trainer, module)
    assert "Segments of 1 videos are not explained: their features are here, their pixels not." in caplog.messages
    assert evaluator.explanations == {
        "a": [(0, 4, "normal", "What happens? 0"), (4, 8, "anomalous", "What is wrong? 4")]
    }
    evaluator.explanations = {}
    videos[0] = replace(videos[0], path=None)
    Explainer().on_test_end(trainer, module)
    assert evaluator.explanations == {}
