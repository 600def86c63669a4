"""What a test leaves behind: numbers that give the metrics again, events, and pictures that open."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchmetrics import Metric

from callbacks.curve_picture import draw_curve, most_telling
from callbacks.evaluator import Evaluator
from callbacks.leak_guard import LeakGuard
from callbacks.score_writer import ScoreWriter, write_events
from datamodules import Uca, UcfCrime
from lightning_modules import MilRanker
from tests.finished_tests import made
from tests.tiny_systems import TinyEvents
from tests.tiny_videos import make_trainer, write_tiny_video
from tests.worlds import write_feature_world
from vigil.curves import Curve, expand
from vigil.stored import write_scores
from vigil.types import Clip, Prediction, Video

SIGMA_FRAMES = 6.0
Rows = list[dict[str, str]]


def read_csv(file: Path) -> Rows:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_feature_world(root, n_videos=4, snippets=(20, 30))
    return root


@pytest.fixture(scope="module", params=[None, SIGMA_FRAMES], ids=["raw", "refined"])
def written(
    world: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> tuple[Path, UcfCrime, Evaluator, MilRanker]:
    """A test of a ranker fitted for two epochs: its folder, data, Evaluator and model."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    model = MilRanker(encoder=None, feature_width=16, hidden=(8, 4), batch_size=2, sigma_frames=request.param)
    data = UcfCrime(str(world), features=str(world / "features"), num_workers=0, validation_fraction=0.2)
    data.watch(model)
    trainer = make_trainer(folder, [ScoreWriter(folder / "test", max_pictures=3)], max_epochs=2)
    trainer.logger = TensorBoardLogger(folder, name="", version="")
    trainer.fit(model, datamodule=data)
    assert not (folder / "test").exists()  # a fit validates, and writes nothing
    trainer.test(model, datamodule=data, verbose=False)
    return folder, data, next(callback for callback in trainer.callbacks if isinstance(callback, Evaluator)), model


def test_scores_csv_has_every_frame_of_every_video_once(written: tuple) -> None:
    folder, data, _, model = written
    rows = read_csv(folder / "test" / "scores.csv")
    assert list(rows[0]) == ["video", "first_frame", "end_frame", "score", "refined"]
    reached = dict.fromkeys([video.name for video in data.known("test")], 0)
    for row in rows:
        assert int(row["first_frame"]) == reached[row["video"]] < int(row["end_frame"])
        reached[row["video"]] = int(row["end_frame"])
        assert 0 <= float(row["score"]) <= 1
        assert (row["refined"] == "") == (model.sigma_frames is None)
    assert reached == {video.name: video.n_frames for video in data.known("test")}


def per_frame(rows: Rows, column: str, world: Path) -> tuple[list[int], list[float]]:
    """Labels from the annotation file and scores from scores.csv, a value per frame."""
    events = {}
    for line in (world / "Temporal_Anomaly_Annotation.txt").read_text().splitlines():
        name, _, first, end, *_ = line.split()
        events[name.removesuffix(".mp4")] = range(int(first), int(end))
    label, score = [], []
    for row in rows:
        for t in range(int(row["first_frame"]), int(row["end_frame"])):
            label.append(int(t in events[row["video"]]))
            score.append(float(row[column]))
    return label, score


def test_scores_csv_gives_the_metrics_again(written: tuple, world: Path) -> None:
    folder, _, _, model = written
    rows = read_csv(folder / "test" / "scores.csv")
    metrics = json.loads((folder / "test" / "metrics.json").read_text())["metrics"]
    for column, ending in (("score", ""), ("refined", "_refined"))[: 1 if model.sigma_frames is None else 2]:
        label, score = per_frame(rows, column, world)
        assert metrics[f"frame_auroc{ending}"] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
        assert metrics[f"frame_ap{ending}"] == pytest.approx(average_precision_score(label, score), abs=1e-12)


def test_scores_csv_is_the_curves_bit_for_bit(written: tuple) -> None:
    folder, _, evaluator, _ = written
    for column, curves in (("score", evaluator.curves), ("refined", evaluator.refined)):
        for name, curve in curves.items():
            rows = [row for row in read_csv(folder / "test" / "scores.csv") if row["video"] == name]
            counts = [int(row["end_frame"]) - int(row["first_frame"]) for row in rows]
            score = np.array([row[column] for row in rows], dtype=np.float32).repeat(counts)
            assert np.array_equal(score, expand(curve))


def test_metrics_json_says_what_was_tested(written: tuple) -> None:
    folder, data, _, model = written
    facts = json.loads((folder / "test" / "metrics.json").read_text())
    assert facts["videos"] == len(data.known("test")) == 8
    assert facts["threshold"] == model.threshold.item()
    assert facts["checkpoint"] is None
    assert ("frame_auroc_refined" in facts["metrics"]) == (model.sigma_frames is not None)


def test_events_csv_is_where_the_final_curve_is_above_the_threshold(written: tuple) -> None:
    folder, _, evaluator, model = written
    rows = read_csv(folder / "test" / "events.csv")
    expected = []
    for name, curve in (evaluator.refined or evaluator.curves).items():
        score, first = [*expand(curve).tolist(), -1.0], None
        for t, value in enumerate(score):
            above = value >= model.threshold.item()
            if above and first is None:
                first = t
            elif not above and first is not None:
                peak = max(range(first, t), key=score.__getitem__)
                expected.append((name, first, t, peak, score[peak]))
                first = None
    found = [
        (
            row["video"],
            int(row["first_frame"]),
            int(row["end_frame"]),
            int(row["peak_frame"]),
            float(row["peak_score"]),
        )
        for row in rows
    ]
    assert len(expected) > 0
    assert found == expected
    for row in rows:
        assert float(row["start_s"]) == pytest.approx(int(row["first_frame"]) / 30, abs=5e-4)
        assert float(row["end_s"]) == pytest.approx(int(row["end_frame"]) / 30, abs=5e-4)


def test_of_many_videos_a_few_are_drawn_evenly_and_shown_in_tensorboard(written: tuple) -> None:
    folder, data, _, _ = written
    pictures = sorted((folder / "test" / "curves").iterdir())
    names = [video.name for video in data.known("test")]
    assert {picture.stem for picture in pictures} == {names[0], names[3], names[7]}
    for picture in pictures:
        assert np.asarray(Image.open(picture).convert("RGB")).std() > 5
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["images"]) == {f"curves/{picture.stem}" for picture in pictures}
    assert {"test/frame_auroc", "train/loss", "val/video_auroc"} <= set(events.Tags()["scalars"])


def curve_of(edge: list[int], score: list[float]) -> Curve:
    return Curve(np.array(edge), np.array(score, dtype=np.float32))


def test_a_row_begins_wherever_either_score_changes(tmp_path: Path) -> None:
    raw, fine = curve_of([0, 16, 30], [0.1, 1 / 3]), curve_of([0, 10, 16, 20, 30], [0.2, 0.3, 0.4, 0.5])
    write_scores(tmp_path / "scores.csv", {"a,b": raw}, {"a,b": fine})
    rows = read_csv(tmp_path / "scores.csv")
    assert [(row["first_frame"], row["end_frame"]) for row in rows] == [
        *(("0", "10"), ("10", "16"), ("16", "20"), ("20", "30")),
    ]
    assert {row["video"] for row in rows} == {"a,b"}
    assert [np.float32(row["score"]) for row in rows] == [np.float32(x) for x in (0.1, 0.1, 1 / 3, 1 / 3)]
    assert [np.float32(row["refined"]) for row in rows] == [np.float32(x) for x in (0.2, 0.3, 0.4, 0.5)]


def test_events_of_a_video_of_unknown_rate_have_no_seconds(tmp_path: Path) -> None:
    curve = curve_of([0, 16, 30, 40, 50], [0.1, 0.8, 0.9, 0.2])
    write_events(tmp_path / "events.csv", {"a": curve}, {"a": Video("a", n_frames=50)}, 0.5)
    (row,) = read_csv(tmp_path / "events.csv")
    assert (row["first_frame"], row["end_frame"], row["peak_frame"]) == ("16", "40", "30")
    assert (row["start_s"], row["end_s"]) == ("", "")
    assert (row["kind"], row["explanation"]) == ("anomalous", "")


def test_events_are_listed_with_what_was_said_of_them_and_normal_stretches_only_then(tmp_path: Path) -> None:
    curve = curve_of([0, 10, 20, 30, 40, 50], [0.1, 0.8, 0.3, 0.2, 0.9])
    said = {"a": [(0, 10, "normal", "A street."), (10, 20, "anomalous", 'A "fight",\nthen'), (20, 40, "normal", "")]}
    videos = {name: Video(name, n_frames=50, fps=10.0) for name in "ab"}
    write_events(tmp_path / "events.csv", dict.fromkeys("ab", curve), videos, 0.5, said)
    rows = read_csv(tmp_path / "events.csv")
    assert list(rows[0])[-2:] == ["kind", "explanation"]
    told = [
        (row["video"], row["first_frame"], row["end_frame"], row["peak_frame"], row["kind"], row["explanation"])
        for row in rows
    ]
    assert told == [
        ("a", "0", "10", "0", "normal", "A street."),
        ("a", "10", "20", "10", "anomalous", 'A "fight",\nthen'),
        ("a", "20", "40", "20", "normal", ""),
        ("a", "40", "50", "40", "anomalous", ""),
        ("b", "10", "20", "10", "anomalous", ""),
        ("b", "40", "50", "40", "anomalous", ""),
    ]
    assert (rows[2]["start_s"], rows[2]["end_s"], rows[2]["peak_s"]) == ("2.000", "4.000", "2.000")
    assert np.float32(rows[2]["peak_score"]) == np.float32(0.3)


def colour_share(picture: bytes, near: tuple[int, int, int]) -> float:
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    return float((np.abs(pixels - near).max(-1) < 12).mean())


SHADE, STRIP = (247, 212, 212), (51, 51, 51)  # a fifth of tab:red on white; the strip of the annotation


def test_a_picture_shades_what_is_detected_and_strips_what_is_annotated() -> None:
    curve = curve_of([0, 16, 30, 50], [0.1, 0.8, 0.2])

    def shares(anomalies: list[tuple[int, int]] | None, threshold: float | None) -> tuple[float, float]:
        picture = draw_curve(Video("a", None, n_frames=50, anomalies=anomalies), curve, None, threshold)
        return colour_share(picture, SHADE), colour_share(picture, STRIP)

    detected, strip = shares([(10, 40)], 0.5)
    nothing, little = shares([], 0.9)
    assert detected > 0.1
    assert strip > little + 0.02
    assert nothing < 0.001
    assert shares(None, 0.5) == pytest.approx((detected, little), abs=0.01)  # the legend differs
    assert shares([(10, 40)], None) == pytest.approx((0, strip), abs=0.01)
    assert shares([(10, 40)], 0.05)[0] > 2 * detected


def test_a_picture_shows_frames_of_the_video(tmp_path: Path) -> None:
    write_tiny_video(tmp_path / "a.mp4", 50, 0)
    curve = curve_of([0, 16, 30, 50], [0.1, 0.8, 0.2])
    refined = curve_of([0, 10, 30, 50], [0.2, 0.7, 0.1])
    settings = {"n_frames": 50, "fps": 25.0, "category": "Arson"}
    with_frames = draw_curve(Video("a", tmp_path / "a.mp4", anomalies=[(10, 40)], **settings), curve, refined, 0.5)
    normal = draw_curve(Video("a", tmp_path / "a.mp4", anomalies=[], **settings), curve, refined, 0.5)
    without = draw_curve(Video("a", None, anomalies=[(10, 40)], **settings), curve, None, None)
    white = (255, 255, 255)
    assert colour_share(with_frames, white) < colour_share(without, white)
    assert len({with_frames, normal, without}) == 3
    assert {Image.open(io.BytesIO(picture)).size for picture in (with_frames, normal, without)} == {(800, 400)}


def test_explanations_stand_below_the_picture_which_grows_by_them_alone(tmp_path: Path) -> None:
    write_tiny_video(tmp_path / "a.mp4", 50, 0)
    curve = curve_of([0, 16, 30, 50], [0.1, 0.8, 0.2])
    video = Video("a", tmp_path / "a.mp4", n_frames=50, fps=25.0, anomalies=[(10, 40)])
    explained = [(16, 30, "anomalous", "It costs $5 or $6_a.\nThen smoke rises. "), (30, 50, "normal", "word " * 900)]

    def rows(parts: list[tuple[int, int, str, str]]) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(draw_curve(video, curve, None, 0.5, parts))).convert("RGB")).astype(int)

    plain, one, two = rows([]), rows(explained[:1]), rows(explained)
    assert plain.shape[:2] == (400, 800)
    assert 400 < len(one) < len(two) < 600  # nine hundred words are cut
    assert (one[410:] < 128).any()
    assert (two[len(one) + 10 :] < 128).any()
    assert not (two[:, -2:] < 128).any()  # no line runs out of the picture


def test_of_many_explanations_the_highest_and_the_longest_normal_one_are_drawn() -> None:
    edge = list(range(0, 80, 10))
    curve = curve_of(edge, [0.1, 0.8, 0.2, 0.9, 0.3, 0.7, 0.1])
    kinds = [("anomalous" if score > 0.5 else "normal") for score in curve.score]
    parts = [(first, first + 10, kind, kind) for first, kind in zip(edge[:-1], kinds, strict=True)]
    assert [part[:3] for part in most_telling(parts, curve)] == [
        *((30, 40, "anomalous"), (10, 20, "anomalous"), (0, 10, "normal"))
    ]
    alarms = [part for part in parts if part[2] == "anomalous"]
    assert [part[0] for part in most_telling(alarms, curve)] == [30, 10, 50]
    assert most_telling([(0, 10, "normal", ""), (40, 70, "normal", "")], curve) == [(40, 70, "normal", "")]
    assert most_telling([], curve) == []


class Gating(MilRanker):
    """Brings its own threshold, and wants to be judged on what lies above it."""

    gates, validates = True, False


def test_a_system_that_gates_keeps_its_threshold_and_is_judged_gated_too(world: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Gating(encoder=None, feature_width=16, hidden=(8, 4), batch_size=2, sigma_frames=SIGMA_FRAMES)
    data = UcfCrime(str(world), features=str(world / "features"), num_workers=0, validation_fraction=0.2)
    data.watch(model)
    trainer = make_trainer(tmp_path, [ScoreWriter(tmp_path / "test", max_pictures=0)])
    (without,) = trainer.test(model, datamodule=data, verbose=False)
    assert not any(key.endswith("_gated") for key in without)
    rows = read_csv(tmp_path / "test" / "scores.csv")
    threshold = float(np.median([float(row["refined"]) for row in rows]))
    model.threshold.fill_(threshold)
    trainer.validate(model, datamodule=data, verbose=False)
    assert model.threshold.item() == threshold  # none is fitted
    (values,) = trainer.test(model, datamodule=data, verbose=False)
    label, score = per_frame(rows, "refined", world)
    gated = [value if value > threshold else 0.0 for value in score]
    assert values["test/frame_auroc_gated"] == pytest.approx(roc_auc_score(label, gated), abs=1e-12)
    assert values["test/frame_auroc_refined"] == pytest.approx(roc_auc_score(label, score), abs=1e-12)
    assert values["test/frame_auroc_gated"] != values["test/frame_auroc_refined"]
    assert not any(key.startswith("test/event_map_") for key in values)


def test_a_video_of_one_frame_can_be_drawn(tmp_path: Path) -> None:
    write_tiny_video(tmp_path / "a.mp4", 1, 0)
    video = Video("a", tmp_path / "a.mp4", n_frames=1, fps=25.0, anomalies=None)
    assert Image.open(io.BytesIO(draw_curve(video, curve_of([0, 1], [0.5]), None, None))).size == (800, 400)


class Breaking(Metric):
    """A metric that finds something wrong at the end."""

    def update(self, clip: Clip, prediction: Prediction) -> None:
        """Nothing is wrong yet."""

    def compute(self) -> dict[str, float]:
        raise ValueError("nobody said when")


class Broken(Uca):
    """Described events, of which a test goes wrong."""

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        return super().metrics(split) | {"breaking": Breaking()}


class Strict(UcfCrime):
    """Videos, of which a test goes wrong."""

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        return super().metrics(split) | {"breaking": Breaking()}


def test_what_was_scored_is_on_disk_before_a_metric_that_failed_is_raised(world: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = MilRanker(encoder=None, feature_width=16, hidden=(8, 4), batch_size=2, sigma_frames=SIGMA_FRAMES)
    data = Strict(str(world), features=str(world / "features"), num_workers=0, validation_fraction=0.2)
    data.watch(model)
    trainer = make_trainer(tmp_path, [ScoreWriter(tmp_path / "test", max_pictures=0)])
    with pytest.raises(ValueError, match="nobody said when"):
        trainer.test(model, datamodule=data, verbose=False)
    rows = read_csv(tmp_path / "test" / "scores.csv")
    assert {row["video"] for row in rows} == {video.name for video in data.known("test")}
    assert json.loads((tmp_path / "test" / "metrics.json").read_text())["metrics"] == {}


def test_class_scores_leave_a_reliability_diagram_and_no_word_of_curves(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(tmp_path_factory, "classes").parents[2] / "world"
    model = TinyEvents()
    data = Uca(str(root), task="probe", num_workers=0)
    data.watch(model)
    trainer = make_trainer(tmp_path, [ScoreWriter(tmp_path / "test")])
    trainer.logger = TensorBoardLogger(tmp_path, name="", version="")
    trainer.test(model, datamodule=data, verbose=False)
    assert Image.open(tmp_path / "test" / "reliability.png").size == (400, 460)
    assert EventAccumulator(str(tmp_path)).Reload().Tags()["images"] == ["reliability"]
    assert {file.name for file in (tmp_path / "test").iterdir()} == {
        *("metrics.json", "class_scores.csv", "reliability.png")
    }
    told = capsys.readouterr().out
    assert f"Results: {tmp_path / 'test'}" in told.replace("\n", "")
    assert "curves" not in told


class Describing(TinyEvents):
    """Says of every event the same."""

    scores_frames = False

    def predict(self, clip: Clip) -> Prediction:
        return Prediction(caption=["A street."] * len(clip.video))


class Counting(Metric):
    """How many captions there are, of the videos that it knows."""

    def __init__(self, videos: list[Video]) -> None:
        super().__init__()
        self.videos = videos
        self.add_state("count", default=torch.zeros(()), dist_reduce_fx="sum")

    def update(self, clip: Clip, prediction: Prediction) -> None:
        """Count them."""
        self.count += len(prediction.caption)

    def compute(self) -> dict[str, float]:
        return {"caption_count": float(self.count)}


class Described(Uca):
    """Events of which only what is said is judged."""

    def metrics(self, split: str = "test") -> dict[str, Metric]:
        return {"count": Counting(self.known(split))}


def test_a_test_of_captions_alone_leaves_its_numbers_and_protocol(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = made(tmp_path_factory, "classes").parents[2] / "world"
    model = Describing()
    data = Described(str(root), num_workers=0)
    data.watch(model)
    trainer = make_trainer(tmp_path, [ScoreWriter(tmp_path / "test")])
    trainer.test(model, datamodule=data, verbose=False)
    assert {file.name for file in (tmp_path / "test").iterdir()} == {"metrics.json"}
    facts = json.loads((tmp_path / "test" / "metrics.json").read_text())
    assert facts["metrics"] == {"caption_count": len(data.events("test"))}
    assert facts["temperature"] is facts["threshold"] is None
    assert facts["protocol"]["judged"]["level"] == "event"
    assert "ground_truth" not in facts["protocol"]["judged"]
    told = capsys.readouterr().out
    assert "curves" not in told
    assert "caption_count" in told


def test_class_scores_are_on_disk_before_a_metric_that_failed_is_raised(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    root = made(tmp_path_factory, "classes").parents[2] / "world"
    model = TinyEvents()
    data = Broken(str(root), task="probe", num_workers=0)
    data.watch(model)
    trainer = make_trainer(tmp_path, [ScoreWriter(tmp_path / "test", max_pictures=0)])
    with pytest.raises(ValueError, match="nobody said when"):
        trainer.test(model, datamodule=data, verbose=False)
    assert len(read_csv(tmp_path / "test" / "class_scores.csv")) == len(data.events("test"))


def test_a_quick_trial_of_a_few_batches_leaves_nothing_and_says_nothing_is_missing(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    root = made(tmp_path_factory, "classes").parents[2] / "world"
    model = TinyEvents()
    data = Uca(str(root), task="probe", num_workers=0)
    data.watch(model)
    trainer = make_trainer(tmp_path, [ScoreWriter(tmp_path / "test", max_pictures=0)], fast_dev_run=True)
    trainer.test(model, datamodule=data, verbose=False)
    assert not (tmp_path / "test").exists()


def test_a_test_leaves_the_truth_it_was_judged_by_and_other_stages_leave_none(written: tuple, world: Path) -> None:
    folder, data, _, model = written
    rows = {row["video"]: row for row in read_csv(folder / "test" / "truth.csv")}
    assert set(rows) == {video.name for video in data.known("test")}
    for line in (world / "Temporal_Anomaly_Annotation.txt").read_text().splitlines():
        name, category, first, end, *_ = line.split()
        row = rows[name.removesuffix(".mp4")]
        anomalous = category != "Normal"
        assert row["anomalies"] == (f"{first}-{end}" if anomalous else "")
        assert (row["label"], row["category"], row["fps"]) == (str(int(anomalous)), category, "30.0")
    trainer = make_trainer(folder, [ScoreWriter(folder / "val", max_pictures=0)])
    trainer.validate(model, datamodule=data, verbose=False)
    assert (folder / "val" / "scores.csv").is_file()
    assert not (folder / "val" / "truth.csv").exists()


def test_metrics_json_says_where_the_numbers_come_from(written: tuple) -> None:
    folder, data, _, model = written
    facts = json.loads((folder / "test" / "metrics.json").read_text())
    assert facts["provenance"].keys() == {"commit", "dirty", "versions", "machine"}
    assert facts["seed"] == data.seed
    assert facts["main_metric"] == "frame_auroc"
    assert facts["gated_at"] is None
    assert facts["cost"] == {}  # nobody watched the clock
    assert facts["protocol"]["stated"]["selection"] == "nothing was fitted"  # so far as anybody noted
    assert (facts["protocol"]["stated"]["smoothing"] == "none") == (model.sigma_frames is None)


def test_weights_that_a_fit_left_in_memory_are_not_said_to_be_unfitted(world: Path, tmp_path: Path) -> None:
    model = MilRanker(encoder=None, feature_width=16, hidden=(8, 4), batch_size=2)
    data = UcfCrime(str(world), features=str(world / "features"), num_workers=0, validation_fraction=0.2)
    data.watch(model)
    trainer = make_trainer(tmp_path, [LeakGuard(), ScoreWriter(tmp_path / "test", max_pictures=0)], max_epochs=1)
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    protocol = json.loads((tmp_path / "test" / "metrics.json").read_text())["protocol"]
    assert protocol["stated"]["selection"] == "the end of the fit"
    assert protocol["stated"]["n_labelled_videos"] == len(data.known("train")) + len(data.known("val"))
    assert protocol["judged"]["leaked"] == 0
