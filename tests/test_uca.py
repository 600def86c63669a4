"""UCA as a datamodule: which events a task asks about, where they lie in a video, and what a system gets to see."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules import Uca
from datamodules.clips import join
from datamodules.demo import write_ucf_crime
from datamodules.events import Event
from lightning_modules import MilRanker
from tests.reading_systems import EventLayers
from tests.tiny_systems import PixelDifference, TinyEvents
from tests.tiny_videos import make_trainer, write_tiny_video
from vigil.types import Prediction, Video, View
from vigil.video import read_frames

SPLITS = ("train", "val", "test")
EVENTS = {"train": 15_677, "val": 3_534, "test": 4_331}
OLD_EVENTS = {"train": 13_864, "val": 3_124, "test": 3_834}
BEYOND = {"train": 142, "val": 35, "test": 18}  # the 2023 JSON: ends after the video's duration
FRAMES, FPS = 50, 25  # of each video of the tiny world
SIZES = {"Arson002_x264": (48, 64)}  # (Y, X), of the others 24 x 32
WORLD = {
    "Train": {
        "Arson001_x264": [(0.4, 1.2, " A man lit a fire. "), (1.6, 1.7, "He left.")],
        "Normal_Videos001_x264": [(0.0, 2.0, "People walked by.")],
    },
    "Val": {"Fighting001_x264": [(0.0, 1.0, "Two men fought.")]},
    "Test": {
        "Fighting002_x264": [
            (1.0, 1.96, "They fought again."),
            (0.2, 0.8, "A fight began."),
            (0.2, 0.6, "A man came."),
        ],
        "Arson002_x264": [(0.4, 1.2, "Smoke rose.")],
        "Normal_Videos_002_x264": [(0.0, 1.0, "A fire truck went past.")],
    },
}


def write_world(root: Path, world: Mapping[str, Mapping[str, Any]] = WORLD, duration_s: float = FRAMES / FPS) -> Path:
    """Tiny videos at 25 frames a second under names of UCF-Crime, and their captions as UCA's JSON."""
    for split, videos in world.items():
        entries = {}
        for seed, (name, events) in enumerate(videos.items()):
            write_tiny_video(root / "Videos" / f"{name}.mp4", FRAMES, seed, *SIZES.get(name, (24, 32)))
            entries[name] = {
                "duration": duration_s,
                "timestamps": [[first, end] for first, end, _ in events],
                "sentences": [sentence for *_, sentence in events],
            }
        (root / f"UCFCrime_{split}.json").write_text(json.dumps(entries))
    return root


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("uca"))


def data_of(root: Path, system: Any = None, **options: Any) -> Uca:
    data = Uca(root=str(root), num_workers=0, **options)
    data.watch(TinyEvents() if system is None else system)
    return data


def endless(data: Uca, split: str) -> list[Video]:
    """The videos of a split, none of whose events can lie beyond its end."""
    return [replace(video, n_frames=10**7, fps=30.0) for video in data.annotated(split)]


def told(events: list[Event]) -> list[tuple[str, int, int, str]]:
    return [(event.video.name, event.first, event.end, event.sentence) for event in events]


# the real lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["original", "neutral"])
def test_the_current_release_holds_23542_events(text: str, shared_data: Path) -> None:
    data = data_of(shared_data / "uca", text=text)
    assert {split: len(data.events(split, endless(data, split))) for split in SPLITS} == EVENTS


def test_the_neutral_text_differs_in_words_and_not_in_times(shared_data: Path) -> None:
    ours, theirs = (
        [(event.video.name, event.first, event.end, event.sentence) for event in data.events("val", videos)]
        for data in (data_of(shared_data / "uca", text=text) for text in ("original", "neutral"))
        for videos in [sorted(endless(data, "val"), key=lambda video: video.name)]
    )
    assert sorted(event[:3] for event in ours) == sorted(event[:3] for event in theirs)
    assert len(set(theirs) - set(ours)) > 2000
    assert any(" man " in event[3] for event in ours)


@pytest.mark.parametrize("split", SPLITS)
def test_irregular_entries_of_the_2023_release_are_refused_kept_or_left_out_and_counted(
    split: str, shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    refusing = data_of(shared_data / "uca", release="2023")
    with pytest.raises(ValueError, match=rf"{BEYOND[split]} irregular of {OLD_EVENTS[split]} events: .* event \d+: "):
        refusing.events(split, endless(refusing, split))
    keeping = data_of(shared_data / "uca", release="2023", irregular="keep")
    assert len(keeping.events(split, endless(keeping, split))) == OLD_EVENTS[split]
    assert f"UCA, {split}: {BEYOND[split]} irregular entries, kept, clipped to the video; 0 events" in caplog.text
    leaving = data_of(shared_data / "uca", release="2023", irregular="leave_out")
    assert len(leaving.events(split, endless(leaving, split))) == OLD_EVENTS[split] - BEYOND[split]
    assert f"UCA, {split}: {BEYOND[split]} irregular entries, left out; 0 events" in caplog.text


@pytest.mark.parametrize("per_video", ["all", "one"])
@pytest.mark.parametrize(
    ("words", "population", "n_events", "n_videos"),
    [("narrow", "uca_test", 327, 144), ("recommended", "uca_test", 491, 168), ("broad", "uca_test", 530, 172),
     ("narrow", "ucf_test", 200, 107), ("recommended", "ucf_test", 319, 127), ("broad", "ucf_test", 352, 130)],
)  # fmt: skip
def test_the_probe_asks_about_the_published_number_of_events(
    words: str, population: str, n_events: int, n_videos: int, per_video: str, shared_data: Path
) -> None:
    data = data_of(shared_data, task="probe", words=words, population=population, per_video=per_video)
    events = data.events("test", endless(data, "test"))
    assert len(events) == (n_videos if per_video == "one" else n_events)
    assert len({event.video.name for event in events}) == n_videos
    assert {event.video.category for event in events} <= set(data.categories)


def test_the_probe_changes_nothing_that_is_fitted_on(shared_data: Path) -> None:
    data = data_of(shared_data, task="probe", population="ucf_test")
    assert [len(data.events(split, endless(data, split))) for split in ("train", "val")] == [15_677, 3_534]


# a world with videos -------------------------------------------------------------------------------------------------


def test_events_come_video_by_video_and_by_time_at_the_videos_own_rate(world: Path) -> None:
    assert told(data_of(world).events("test")) == [
        ("Fighting002_x264", 5, 15, "A man came."),
        ("Fighting002_x264", 5, 20, "A fight began."),
        ("Fighting002_x264", 25, 49, "They fought again."),
        ("Arson002_x264", 10, 30, "Smoke rose."),
        ("Normal_Videos_002_x264", 0, 25, "A fire truck went past."),
    ]


@pytest.mark.parametrize(
    ("per_video", "sentences"),
    [("all", ["A fight began.", "They fought again.", "Smoke rose."]), ("one", ["A fight began.", "Smoke rose."])],
)
def test_the_probe_asks_of_events_with_a_word_of_their_class_alone(
    per_video: str, sentences: list[str], world: Path
) -> None:
    data = data_of(world, task="probe", per_video=per_video)
    assert sorted(event.sentence for event in data.events("test")) == sorted(sentences)  # no fire truck, it is normal
    assert {video.name for video in data.known("test")} == {"Fighting002_x264", "Arson002_x264"}
    assert [len(data.events(split)) for split in ("train", "val")] == [3, 1]


def test_the_probe_of_ucf_crimes_test_set_takes_its_events_from_every_split(world: Path) -> None:
    (world / "Anomaly_Test.txt").write_text("Arson/Arson001_x264.mp4\nFighting/Fighting002_x264.mp4\n")
    data = data_of(world, task="probe", population="ucf_test")
    assert [event.sentence for event in data.events("test")] == [
        "A man lit a fire.", "A fight began.", "They fought again."
    ]  # fmt: skip


def test_an_item_is_its_event_seen_by_every_view(world: Path) -> None:
    views = {"video": View(frames=16, segments=1), "mil": View(frames=2, segments=32)}
    system = TinyEvents()
    system.fit_views = system.test_views = views
    data = data_of(world, system)
    clip = next(clip for clip in data.test_dataloader() if clip.text == ["Smoke rose."])
    assert clip.pixels["video"].shape == (1, 16, 3, 48, 64)
    assert clip.pixels["mil"].shape == (1, 32, 2, 3, 48, 64)
    assert clip.pixels["mil"].dtype == torch.uint8
    assert (clip.video, clip.category, clip.label.tolist()) == (["Arson002_x264"], ["Arson"], [1])
    assert clip.span.tolist() == [[10, 30]]
    # the middles of 16 and of 64 equal parts of frames 10 to 30
    assert clip.frame["video"].tolist() == [[10 + int((k + 0.5) * 20 / 16) for k in range(16)]]
    assert clip.frame["mil"].flatten().tolist() == [10 + int((k + 0.5) * 20 / 64) for k in range(64)]
    file = world / "Videos" / "Arson002_x264.mp4"
    for stream in views:
        expected = read_frames(file, clip.frame[stream].flatten().numpy()).view(clip.pixels[stream].shape)
        assert torch.equal(clip.pixels[stream], expected)


def test_an_event_of_a_tenth_of_a_second_holds_its_frames(world: Path) -> None:
    data = data_of(world)
    clip = next(
        clip for clip in (data.fit_dataset(data.known("train"))[i] for i in range(3)) if clip.text[0] == "He left."
    )
    assert clip.span.tolist() == [[40, 42]]
    assert clip.frame["video"].tolist() == [[40, 40, 41, 41]]


def test_events_of_videos_of_several_sizes_make_one_batch(world: Path) -> None:
    data = data_of(world)
    clips = list(data.test_dataloader())
    joined = join(clips[2:4])
    assert [tuple(clip.pixels["video"].shape) for clip in clips[2:4]] == [(1, 4, 3, 24, 32), (1, 4, 3, 48, 64)]
    assert joined.pixels["video"].shape == (2, 4, 3, 24, 32)
    assert torch.equal(joined.pixels["video"][:1], clips[2].pixels["video"])
    assert joined.text == ["They fought again.", "Smoke rose."]
    assert joined.span.tolist() == [[25, 49], [10, 30]]


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose captions are of a cut of 3 s, where the videos have 2 s."""
    events = [(0.4, 1.2, "In time."), (1.6, 2.6, "Ends late."), (2.1, 2.8, "Starts late.")]
    return write_world(tmp_path_factory.mktemp("longer"), {"Test": {"Arson001_x264": events}}, duration_s=3.0)


def test_an_event_beyond_the_videos_end_is_refused_or_left_out_and_one_across_it_is_clipped(
    longer: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(ValueError, match=r"1 events of UCA show nothing: Arson001_x264.* event 3: starts at 2\.1 s"):
        data_of(longer).events("test")
    for irregular in ("keep", "leave_out"):
        events = data_of(longer, irregular=irregular).events("test")
        assert told(events) == [("Arson001_x264", 10, 30, "In time."), ("Arson001_x264", 40, 50, "Ends late.")]
    assert caplog.text.count("1 events that start beyond their video's end, left out") == 2


def test_a_video_without_an_event_that_can_be_seen_is_not_judged(tmp_path: Path) -> None:
    events = {"Arson001_x264": [(2.1, 2.8, "A fire.")], "Fighting001_x264": [(0.4, 1.2, "They fought.")]}
    data = data_of(write_world(tmp_path, {"Test": events}, 3.0), task="probe", irregular="leave_out")
    top = data.metrics("test")["top"]
    for clip in data.test_dataloader():
        top.update(clip, Prediction(torch.zeros(1, 4), class_score=torch.ones(1, 13)))
    assert top.compute()["top1"] == pytest.approx(1 / 13)
    assert sum(top.counts().values()) == 1


def test_perfect_class_scores_get_1_and_equal_ones_their_chance(world: Path) -> None:
    data = data_of(world, task="probe")
    perfect, equal = (data.metrics("test")["top"] for _ in range(2))
    for clip in data.test_dataloader():
        score = torch.zeros(1, len(data.categories))
        score[0, data.categories.index(clip.category[0])] = 1
        perfect.update(clip, Prediction(torch.zeros(1, 4), class_score=score))
        equal.update(clip, Prediction(torch.zeros(1, 4), class_score=torch.full_like(score, 0.5)))
    assert [perfect.compute()[f"top{k}"] for k in (1, 2, 3)] == [1, 1, 1]
    assert [equal.compute()[f"top{k}"] for k in (1, 2, 3)] == pytest.approx([k / 13 for k in (1, 2, 3)])
    assert {name: count for name, count in perfect.counts().items() if count} == {"Fighting": 2, "Arson": 1}


def test_a_system_is_fitted_on_events_and_judged_by_its_classes(world: Path, tmp_path: Path) -> None:
    system = TinyEvents()
    data = data_of(world, system, task="probe")
    trainer = make_trainer(tmp_path, max_epochs=2)
    before = system.scorer.weight.clone()
    trainer.fit(system, datamodule=data)
    assert trainer.global_step == 2 * 2  # three events, two at a time
    assert not torch.equal(system.scorer.weight, before)
    trainer = make_trainer(tmp_path)
    trainer.test(system, datamodule=data, verbose=False)
    result = trainer.callbacks[0].results["test"]
    assert result.keys() >= {"top1", "top2", "top3"}
    clips = list(data.test_dataloader())
    best = [data.categories[int(system.predict(clip).class_score.argmax())] for clip in clips]
    right = np.mean([found == clip.category[0] for found, clip in zip(best, clips, strict=True)])
    assert result["top1"] == pytest.approx(right)


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_system_that_cannot_watch_events_is_refused_before_anything_is_read(
    stage: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIGIL_CACHE", str(tmp_path / "cache"))
    ranker = MilRanker(encoder="demo_deit", weights=None, hidden=(8, 4), batch_size=2)
    words = "pairs anomalous with normal videos" if stage == "fit" else "an event is watched as a bag"
    for system in [ranker] if stage == "fit" else [ranker, PixelDifference()]:
        with pytest.raises(ValueError, match=words):
            getattr(make_trainer(tmp_path), stage)(system, datamodule=data_of(world, system))
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_the_2023_release_has_no_neutral_text(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no gender-neutral text; take release: current"):
        Uca(str(tmp_path), release="2023", text="neutral")


def test_the_protocol_names_what_the_probe_asked(world: Path) -> None:
    captions, probe = (data_of(world, task=task).protocol for task in ("captions", "probe"))
    both = {"dataset": "Uca", "release": "current", "text": "original", "kind": "json", "irregular": "refuse"}
    assert captions == both | {"task": "captions", "sbert": "all-MiniLM-L6-v2"}
    assert probe == both | {"task": "probe", "words": "narrow", "population": "uca_test", "per_video": "all"}
    folder = data_of(world, sbert=str(world / "models" / "all-MiniLM-L6-v2"))
    assert folder.protocol == captions  # wherever it lies


def test_captions_are_judged_by_sentence_bert_and_classes_by_likelihood(world: Path) -> None:
    captions, probe = data_of(world), data_of(world, task="probe")
    assert (captions.main_metric, probe.main_metric) == ("caption_sbert", "top1")
    metric = captions.metrics("test")["captions"]
    assert {video.name for video in metric.videos} == set(WORLD["Test"])
    assert {key[:3]: count for key, count in metric.samples.items()} == {
        ("Fighting002_x264", 5, 15): 1, ("Fighting002_x264", 5, 20): 1, ("Fighting002_x264", 25, 49): 1,
        ("Arson002_x264", 10, 30): 1, ("Normal_Videos_002_x264", 0, 25): 1,
    }  # fmt: skip
    assert captions.metrics("val") == probe.metrics("val") == {}


def test_a_model_that_is_not_there_is_named_before_anything_is_read(world: Path, tmp_path: Path) -> None:
    system = EventLayers()
    data = data_of(world, system, sbert=str(tmp_path / "absent"))
    with pytest.raises((FileNotFoundError, ValueError), match="absent"):
        make_trainer(tmp_path).test(system, datamodule=data)
    assert system.n_loads == 0


def sentences(loader: Any) -> list[str]:
    return [clip.text[0] for clip in loader]


def test_a_probe_is_calibrated_on_the_validation_split_asked_alike(tmp_path: Path) -> None:
    val = {
        "Fighting001_x264": [(0.0, 1.0, "Two men fought."), (1.0, 1.4, "He hid."), (1.2, 1.6, "They fight again.")],
        "Arson003_x264": [(0.0, 1.0, "A fire began.")],
        "Normal_Videos003_x264": [(0.0, 1.0, "Smoke of a barbecue.")],
    }
    root = write_world(tmp_path, {**WORLD, "Val": val})
    every = ["Two men fought.", "They fight again.", "A fire began."]
    assert sentences(data_of(root, task="probe").calibration_dataloader()) == ["A fire began.", *every[:2]]
    one = data_of(root, task="probe", per_video="one")
    assert sentences(one.calibration_dataloader()) == ["A fire began.", "Two men fought."]
    assert data_of(root).calibration_dataloader() is None  # captions have no likelihood
    (root / "Anomaly_Test.txt").write_text("Arson/Arson003_x264.mp4\nFighting/Fighting002_x264.mp4\n")
    tested = data_of(root, task="probe", population="ucf_test")
    assert sentences(tested.calibration_dataloader()) == every[:2]  # the test asks about the fire


def test_without_an_event_to_calibrate_on_that_is_said_and_the_test_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_world(tmp_path, {**WORLD, "Val": {"Fighting001_x264": [(0.0, 1.0, "He hid.")]}})
    system = TinyEvents()
    trainer = make_trainer(tmp_path)
    with caplog.at_level("INFO"):
        trainer.test(system, datamodule=data_of(root, system, task="probe"), verbose=False)
    assert caplog.text.count("validation split has no event that the probe asks about: no temperature is fitted") == 1
    assert "top1" in trainer.callbacks[0].results["test"]
    (root / "UCFCrime_Val.json").write_text((root / "UCFCrime_Train.json").read_text())
    (root / "Videos" / "Arson001_x264.mp4").unlink()
    with caplog.at_level("INFO"):
        gone = data_of(root, task="probe", missing="leave_out")
    assert gone.calibration_dataloader() is None
    assert "validation split has 1 videos, none of which is there: no temperature is fitted" in caplog.text
    with pytest.raises(FileNotFoundError, match="Arson001_x264"):
        data_of(root, task="probe").calibration_dataloader()


def test_of_the_real_lists_no_video_calibrates_the_probe_that_it_is_tested_on(shared_data: Path) -> None:
    for population, n_events in (("uca_test", 295), ("ucf_test", 273)):
        data = data_of(shared_data, task="probe", population=population)
        tested, calibrating = ({v.name for v in data.annotated(split)} for split in ("test", "calibration"))
        assert not tested & calibrating
        assert len(data.events("calibration", endless(data, "calibration"))) == n_events


def test_batches_of_a_fit_hold_sentences_of_one_length(world: Path) -> None:
    assert data_of(world).train_dataloader().batch_sampler.lengths.tolist() == [5, 2, 3]


def test_a_video_that_is_gone_is_named_or_left_out_with_its_events(tmp_path: Path) -> None:
    root = write_world(tmp_path)
    (root / "Videos" / "Arson002_x264.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 videos are not under .*Arson002_x264"):
        data_of(root).events("test")
    events = data_of(root, missing="leave_out").events("test")
    assert {event.video.name for event in events} == {"Fighting002_x264", "Normal_Videos_002_x264"}


def test_a_limit_takes_videos_of_both_labels_with_all_their_events(world: Path) -> None:
    events = data_of(world, limit_videos=2).events("test")
    assert [event.video.name for event in events] == ["Fighting002_x264"] * 3 + ["Normal_Videos_002_x264"]


def test_the_demo_copy_is_read_and_its_events_lie_in_their_videos(tmp_path: Path) -> None:
    write_ucf_crime(tmp_path / "demo", size="tiny")
    data = data_of(tmp_path / "demo")
    for split in SPLITS:
        entries = json.loads((tmp_path / f"demo/uca/UCFCrime_{split.title()}.json").read_text())
        events = data.events(split)
        assert {video.name for video in data.known(split)} == set(entries)
        assert sorted(event.sentence for event in events) == sorted(
            sentence for entry in entries.values() for sentence in entry["sentences"]
        )
        assert all(0 <= event.first < event.end <= event.video.n_frames for event in events)
