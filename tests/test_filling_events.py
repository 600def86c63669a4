"""What a frozen backbone says of described events is kept, event by event, and no later run reads it again."""

from __future__ import annotations

import gc
import os
import signal
import time
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import datamodules.clips
from cli import main
from datamodules import Uca
from datamodules.events import Event
from lightning_modules import filling
from tests.reading_systems import EventLayers
from tests.test_filling import start, tamper
from tests.test_uca import write_world
from tests.tiny_videos import make_trainer
from tests.worlds import lightning
from vigil.store import Store, cache_root
from vigil.video import read_frames

WORLD = {
    "Train": {
        "Arson001_x264": [(0.4, 1.2, "A man lit a fire."), (1.6, 1.72, "He left.")],
        "Fighting003_x264": [(0.0, 1.0, "Two men fought over a bag on the ground.")],
        "Normal_Videos001_x264": [(0.0, 2.0, "People walked by.")],
    },
    "Val": {"Fighting001_x264": [(0.0, 1.0, "Two men fought."), (1.2, 1.6, "They left.")]},
    "Test": {
        "Fighting002_x264": [
            (1.0, 1.96, "They fought again."),
            (0.2, 0.8, "A fight began."),
            (0.2, 0.8, "A man came."),
            (0.2, 0.6, "A man looked round."),
        ],
        "Arson002_x264": [(0.4, 1.2, "Smoke rose.")],
        "Normal_Videos_002_x264": [(0.0, 1.0, "A fire truck went past.")],
    },
}
STRETCHES = {  # of the test split, at 25 frames a second
    ("Arson002_x264", 10, 30), ("Fighting002_x264", 5, 15), ("Fighting002_x264", 5, 20), ("Fighting002_x264", 25, 49),
    ("Normal_Videos_002_x264", 0, 25),
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("uca"), WORLD)


def data_of(world: Path, model: EventLayers, **options: Any) -> Uca:
    data = Uca(root=str(world), num_workers=0, **{"task": "probe", **options})
    data.watch(model)
    return data


def predicted(world: Path, folder: Path, model: EventLayers, **options: Any) -> Uca:
    """Have the system's readings of the test events kept, as `lightning predict` does; the data that it was shown."""
    data = data_of(world, model, **{"task": "captions", **options})
    make_trainer(folder).predict(model, datamodule=data, return_predictions=False)
    return data


def kept() -> dict[str, bytes]:
    """Every file of readings by where it lies: two streams keep a file each of one video."""
    return {str(file.relative_to(cache_root())): file.read_bytes() for file in cache_root().rglob("*.safetensors")}


def colour(event: Event, frames: list[int]) -> Tensor:
    """Mean colour of some frames, from its definition."""
    return read_frames(event.video.path, frames).float().mean((0, 2, 3)) / 255


def test_a_clip_holds_what_was_kept_of_its_event_in_the_type_it_was_read_in(world: Path, tmp_path: Path) -> None:
    model = EventLayers()
    data = predicted(world, tmp_path, model)
    dataset = data.scoring_dataset(data.known("predict"))
    for event, clip in zip(dataset.events, (dataset[i] for i in range(len(dataset))), strict=True):
        length = event.end - event.first
        assert clip.pixels == {}
        assert {name: (tuple(rows.shape), rows.dtype) for name, rows in clip.features.items()} == {
            "tokens": ((1, 2 + length % 3, 3), torch.bfloat16),
            "count": ((1,), torch.int64),
            "mil": ((1, 3, 3), torch.bfloat16),
        }
        assert clip.frame["video"].tolist() == [[event.first + (2 * k + 1) * length // 8 for k in range(4)]]
        assert clip.frame["mil"].shape == (1, 3, 2)
        video = colour(event, clip.frame["video"][0].tolist()).expand(1, 2 + length % 3, 3)
        torch.testing.assert_close(clip.features["tokens"].float(), video, rtol=1e-2, atol=0)
        rows = torch.stack([colour(event, part) for part in clip.frame["mil"][0].tolist()])
        torch.testing.assert_close(clip.features["mil"].float(), rows[None], rtol=1e-2, atol=0)
        assert clip.text == [event.sentence]


def test_each_stretch_is_read_once_however_many_sentences_describe_it(world: Path, tmp_path: Path) -> None:
    model = EventLayers(kept=("video",))
    predicted(world, tmp_path, model)
    assert sorted(model.read_events) == sorted(STRETCHES)


def test_a_bag_is_read_in_pieces_and_kept_as_one(world: Path, tmp_path: Path) -> None:
    rows = {}
    for window_batch in (1, 2, 8):
        for file in cache_root().rglob("*.safetensors"):
            file.unlink()
        model = EventLayers(kept=("mil",), window_batch=window_batch)
        data = predicted(world, tmp_path, model)
        clips = (data.scoring_dataset(data.known("predict"))[i] for i in range(len(STRETCHES)))
        rows[window_batch] = [clip.features["mil"] for clip in clips]
        assert len(model.read_events) == len(STRETCHES) * -(-3 // window_batch)
    for ours in rows.values():
        assert all(torch.equal(one, other) for one, other in zip(ours, rows[8], strict=True))


def test_a_second_epoch_and_a_second_run_decode_nothing(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = []
    for again in (False, True):
        if again:
            monkeypatch.setattr(datamodules.clips, "read_frames", lambda *_: pytest.fail("decoded"))
        torch.manual_seed(0)
        model = EventLayers()
        make_trainer(tmp_path, max_epochs=2).fit(model, datamodule=data_of(world, model))
        weights.append(model.scorer.weight.detach())
        assert model.n_loads == (0 if again else 2)  # once for each stream
        assert len(model.read_events) == (0 if again else 4 + 2 * 4)
    assert torch.equal(*weights)


def test_what_is_kept_gives_the_numbers_that_pixels_give(world: Path, tmp_path: Path) -> None:
    scores = []
    for streams in (("video", "mil"), ("video",), ("mil",), ()):
        torch.manual_seed(0)
        model = EventLayers(kept=streams)
        data = data_of(world, model)
        trainer = make_trainer(tmp_path)
        trainer.test(model, datamodule=data, verbose=False)
        clip = next(iter(data.test_dataloader()))
        assert sorted(clip.pixels) == sorted({"video", "mil"} - set(streams))
        assert ("tokens" in clip.features, "mil" in clip.features) == ("video" in streams, "mil" in streams)
        scores.append(sorted(trainer.callbacks[0].metrics["top"].scores()))
    assert all(score == scores[0] for score in scores)


def test_a_probe_reads_its_own_events_and_captions_the_rest_of_them(world: Path, tmp_path: Path) -> None:
    probe = EventLayers(kept=("video",))
    make_trainer(tmp_path).test(probe, datamodule=data_of(world, probe), verbose=False)
    asked = {("Fighting002_x264", 5, 20), ("Fighting002_x264", 25, 49), ("Arson002_x264", 10, 30)}
    assert set(probe.read_events) == asked | {("Fighting001_x264", 0, 25)}  # the last one calibrates
    captions = EventLayers(kept=("video",))
    predicted(world, tmp_path, captions)
    assert set(captions.read_events) == STRETCHES - asked
    again = EventLayers(kept=("video",))
    make_trainer(tmp_path).test(again, datamodule=data_of(world, again), verbose=False)
    assert again.read_events == []


def test_events_of_several_lengths_make_one_batch(world: Path, tmp_path: Path) -> None:
    model = EventLayers()
    data = data_of(world, model)
    make_trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    dataset = data.fit_dataset(data.known("train"))
    clip = datamodules.clips.join([dataset[i] for i in range(4)])
    counts = clip.features["count"].tolist()
    assert counts == [2 + (end - first) % 3 for first, end in clip.span.tolist()]
    assert len(set(counts)) > 1
    assert clip.features["tokens"].shape == (4, max(counts), 3)
    assert clip.features["tokens"].dtype == torch.bfloat16
    for row, count in zip(clip.features["tokens"], counts, strict=True):
        assert (row[:count] > 0).all()
        assert (row[count:] == 0).all()


def test_a_damaged_file_is_reported_and_its_events_are_read_anew(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = EventLayers(kept=("video",))
    data = predicted(world, tmp_path, first)
    before = kept()
    (store, _), video = data.stores["video", first.test_views["video"]], data.known("predict")[0]
    tamper(store.path(video.path))
    model = EventLayers(kept=("video",))
    with caplog.at_level("INFO"):
        predicted(world, tmp_path, model)
    assert f"{store.path(video.path)}: the reading of {video.path.name} is damaged" in caplog.text
    assert set(model.read_events) == {stretch for stretch in STRETCHES if stretch[0] == video.name}
    assert kept() == before


def test_a_video_that_another_run_finishes_meanwhile_is_passed_over(world: Path, tmp_path: Path) -> None:
    model = EventLayers(kept=("video",))
    read = model.read

    def read_while_another_writes(*given: Any) -> Any:
        if not model.read_events:
            other = EventLayers(kept=("video",))
            predicted(world, tmp_path, other)
            assert set(other.read_events) == STRETCHES
        return read(*given)

    model.read = read_while_another_writes
    predicted(world, tmp_path, model)
    assert {name for name, *_ in model.read_events} == {"Fighting002_x264"}  # the one that it had begun


def test_no_more_than_one_videos_events_wait_in_memory(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished: list[weakref.ref[Tensor]] = []
    say, write = filling.say, Store.write

    def written(store: Store, video: Path, tensors: dict[str, Tensor]) -> None:
        assert len(tensors) == 2 * sum(video.stem == name for name, *_ in STRETCHES)  # tokens and count
        finished.extend(map(weakref.ref, tensors.values()))
        write(store, video, tensors)

    def said(*given: Any) -> Any:
        gc.collect()
        assert [reference for reference in finished if reference() is not None] == []
        return say(*given)

    monkeypatch.setattr(Store, "write", written)
    monkeypatch.setattr(filling, "say", said)
    predicted(world, tmp_path, EventLayers(kept=("video",)))
    assert len(finished) == 2 * len(STRETCHES)


# through the command


def config(world: Path, folder: Path, **settings: Any) -> list[str]:
    model = "".join(f"    {key}: {value}\n" for key, value in {"batch_size": 2, **settings}.items())
    (folder / "events.yaml").write_text(
        f"model:\n  class_path: tests.reading_systems.EventLayers\n  init_args:\n{model}"
        f"data:\n  class_path: Uca\n  init_args: {{root: {world}, num_workers: 0, task: probe}}\n"
        "trainer: {accelerator: cpu, devices: 1, max_epochs: 1}\n"
    )
    return ["-c", str(folder / "events.yaml"), "--store_only", "true"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_killed_filling_goes_on_with_the_rest(world: Path, here: Path, caplog: pytest.LogCaptureFixture) -> None:
    process = start("fit", *config(world, here, sleep_s=0.2))
    while not kept():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    done = {file: file.stat().st_mtime_ns for file in cache_root().rglob("*.safetensors")}
    assert 1 <= len(done) < 2 * 3  # a file of each video and stream
    with caplog.at_level("INFO"):
        main(["fit", *config(world, here)])
    assert len(kept()) == 2 * 3
    assert {file: file.stat().st_mtime_ns for file in done} == done
    assert "train: tokens, count of 3 videos" in caplog.text


def test_two_runs_and_two_processes_leave_what_one_would(world: Path, here: Path) -> None:
    main(["test", *config(world, here)])
    alone = kept()
    for file in cache_root().rglob("*.safetensors"):
        file.unlink()
    runs = [start("test", *config(world, here, sleep_s=0.05)) for _ in range(2)]
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    assert kept() == alone
    for file in cache_root().rglob("*.safetensors"):
        file.unlink()
    done = lightning("test", *config(world, here), "--trainer.devices", 2, "--trainer.strategy", "ddp", cwd=here)
    assert done.returncode == 0, done.stderr
    assert kept() == alone


def test_nothing_of_a_video_that_nobody_annotated_is_kept(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = config(world, here)
    text = (here / "events.yaml").read_text()
    data = f"data:\n  class_path: OwnVideos\n  init_args: {{videos: {world}/Videos, num_workers: 0}}\n"
    (here / "events.yaml").write_text(text[: text.index("data:")] + data + text[text.index("trainer:") :])
    with pytest.raises(SystemExit) as stop:
        main(["predict", *command])
    assert stop.value.code == 1
    assert "this EventLayers keeps no readings" in capsys.readouterr().err
    assert kept() == {}
