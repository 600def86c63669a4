"""A store is filled once, by any number of processes, and whatever stops one of them, the next goes on from there."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import datamodules.clips
import lightning_modules.system
from cli import main
from datamodules import UcfCrime
from datamodules.clips import BagDataset, WindowDataset
from lightning_modules import filling
from lightning_modules.filling import share_out
from tests.disks import closed, small_disk
from tests.reading_systems import Layers
from tests.tiny_videos import make_trainer, write_video_world
from tests.worlds import lightning
from vigil.store import cache_root
from vigil.types import Video, View
from vigil.video import read_frames


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video_world(tmp_path_factory.mktemp("videos"), n_train=2)


def data_of(world: Path, model: Layers, num_workers: int = 0) -> UcfCrime:
    data = UcfCrime(str(world), num_workers=num_workers)
    data.watch(model)
    return data


def attached(world: Path, folder: Path, **settings: Any) -> tuple[Layers, list[Video], View]:
    """A system that may call `fill`, six videos and a view."""
    model = Layers(**settings)
    model.trainer = make_trainer(folder)
    model.trainer.datamodule = data_of(world, model)
    return model, model.trainer.datamodule.known("train"), View(frames=2, stride=8, hop=16)


def colours(video: Video, view: View) -> torch.Tensor:
    """Mean colour of each window, from its definition."""
    rows = []
    for frames in view.indices(video.n_frames):
        rows.append(read_frames(video.path, frames).float().mean((0, 2, 3)) / 255)
    return torch.stack(rows)


def test_a_store_holds_what_the_backbone_says_in_its_own_type(world: Path, tmp_path: Path) -> None:
    model, videos, view = attached(world, tmp_path)
    store = model.fill(videos, "video", view, ["hidden.0", "hidden.2"])
    for video in videos:
        read = store.read(video.path, ["hidden.0", "hidden.2"])
        for layer in (0, 2):
            rows = read[f"hidden.{layer}"]
            assert rows.dtype == torch.bfloat16
            torch.testing.assert_close(rows.float(), (layer + 1) * colours(video, view), rtol=1e-2, atol=0)
        assert store.names(video.path) == ["hidden.0", "hidden.2"]


def test_datasets_hand_out_each_reading_under_its_name_in_float32(world: Path, tmp_path: Path) -> None:
    model = Layers(chosen=(0, 2))
    data = data_of(world, model)
    make_trainer(tmp_path, max_epochs=1).fit(model, datamodule=data)
    for dataset, view in (
        (data.fit_dataset(data.known("train")), model.fit_views["video"]),
        (data.scoring_dataset(data.known("val")), model.test_views["video"]),
    ):
        rows: dict[str, list[torch.Tensor]] = {}
        for clip in (dataset[i] for i in range(len(dataset))):
            assert clip.features.keys() == {"hidden.0", "hidden.2"}
            assert clip.pixels == {}
            assert clip.fps.tolist() == [25] * len(clip.video)
            for name, feature in clip.features.items():
                assert feature.dtype == torch.float32
                assert feature.shape == (len(clip.video), view.segments or 1, 3)
                rows.setdefault(f"{clip.video[0]} {name}", []).append(feature.flatten(0, 1))
        for video in data.known("train" if view.segments else "val"):
            for layer in (0, 2):
                expected = (layer + 1) * colours(video, view)
                found = torch.cat(rows[f"{video.name} hidden.{layer}"])
                torch.testing.assert_close(found, expected, rtol=1e-2, atol=0)


def test_a_few_videos_are_calibrated_on_and_only_what_was_chosen_is_read_of_the_rest(
    world: Path, tmp_path: Path
) -> None:
    model, videos, view = attached(world, tmp_path)
    everything = [f"hidden.{layer}" for layer in range(3)]
    store = model.fill(videos[:2], "video", view, everything)
    assert set(model.read_videos) == {video.name for video in videos[:2]}
    model.read_videos = []
    model.fill(videos, "video", view)
    assert sorted(model.read_videos) == sorted(video.name for video in videos[2:])
    assert [store.names(video.path) for video in videos] == [everything] * 2 + [["hidden.1"]] * 4
    store.keep(["hidden.1"])
    assert [store.names(video.path) for video in videos] == [["hidden.1"]] * 6
    assert model.n_loads == 2
    model.fill(videos, "video", view)
    assert model.n_loads == 2  # nothing is missing, and no backbone is needed


def test_reading_in_turns_reads_everything_once(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(filling, "TURN_S", 0)  # after every clip the processes ask each other whether they are done
    model, videos, view = attached(world, tmp_path, sleep_s=0.001)
    with caplog.at_level("INFO"):
        store = model.fill(videos, "video", view)
    assert all(store.names(video.path) == ["hidden.1"] for video in videos)
    assert sorted(model.read_videos) == sorted(video.name for video in videos)
    n_windows = sum(len(view.indices(video.n_frames)) for video in videos)
    assert f"{n_windows} windows in " in caplog.text


def test_a_tensor_that_is_added_leaves_those_that_are_there(world: Path, tmp_path: Path) -> None:
    model, videos, view = attached(world, tmp_path)
    model.fill(videos[:1], "video", view, ["hidden.0"])
    store = model.fill(videos[:1], "video", view, ["hidden.2"])
    assert store.names(videos[0].path) == ["hidden.0", "hidden.2"]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


def tamper(path: Path) -> None:
    blob = bytearray(path.read_bytes())
    blob[-1] ^= 1
    path.write_bytes(blob)


def foreign(path: Path) -> None:
    save_file({"hidden.1": torch.ones(3, 3)}, path)


@pytest.mark.parametrize("damage", [truncate, tamper, foreign])
def test_a_damaged_file_is_reported_and_read_anew_alone(
    world: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    model, videos, view = attached(world, tmp_path)
    store = model.fill(videos, "video", view)
    file = store.path(videos[3].path)
    before = file.read_bytes()
    damage(file)
    model.read_videos = []
    with caplog.at_level("INFO"):
        model.fill(videos, "video", view)
    assert f"{file}: the reading of {videos[3].path.name} is damaged" in caplog.text
    assert "read anew" in caplog.text
    assert model.read_videos == [videos[3].name]
    assert file.read_bytes() == before


def test_a_video_that_another_run_finishes_meanwhile_is_passed_over(world: Path, tmp_path: Path) -> None:
    model, videos, view = attached(world, tmp_path)
    order = sorted(videos, key=lambda video: (-len(view.indices(video.n_frames)), video.name))
    read, store = model.read, model.fill([], "video", view)
    theirs = torch.full((len(view.indices(order[4].n_frames)), 3), 9.0)

    def read_while_another_writes(*given: Any) -> Any:
        if not model.read_videos:
            store.write(order[4].path, {"hidden.1": theirs})
        return read(*given)

    model.read = read_while_another_writes
    model.fill(videos, "video", view)
    assert order[4].name not in model.read_videos
    assert len(model.read_videos) == 5
    assert torch.equal(store.read(order[4].path, ["hidden.1"])["hidden.1"], theirs)


def test_what_a_system_does_not_read_is_refused(world: Path, tmp_path: Path) -> None:
    model, videos, view = attached(world, tmp_path)
    with pytest.raises(ValueError, match=r"Layers\.read gives hidden\.0, hidden\.1, hidden\.2, and not hidden\.3"):
        model.fill(videos, "video", view, ["hidden.1", "hidden.3"])
    read = model.read
    model.read = lambda *given: {name: rows[:1] for name, rows in read(*given).items()}
    with pytest.raises(ValueError, match=r"Layers\.read gives 1 rows of hidden\.1, there are 2 windows"):
        model.fill(videos, "video", view)


def test_filling_leaves_randomness_and_modes_as_they_were(world: Path, tmp_path: Path) -> None:
    model, videos, view = attached(world, tmp_path)
    torch.manual_seed(3)
    random.seed(3)
    expected = torch.rand(1), random.random()
    torch.manual_seed(3)
    random.seed(3)
    model.fill(videos, "video", view)
    assert (torch.rand(1), random.random()) == expected
    assert model.training
    assert not model.frozen.training


def test_whatever_changes_the_numbers_changes_the_folder(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder(stream: str = "video", view: View = View(2, 8, 16), key: str = "colours", **trainer: Any) -> str:
        model = Layers()
        model.trainer = make_trainer(tmp_path, **trainer)
        model.trainer.datamodule = data_of(world, model)
        model.reading_key = lambda: {"reads": key}
        return model.fill([], stream, view).folder.name

    first = folder()
    assert folder() == first
    others = [folder(precision="bf16-mixed"), folder(precision="bf16-true"), folder(stream="flow")]
    others += [folder(view=view) for view in (View(3, 8, 16), View(2, 7, 16), View(2, 8, 15), View(2, segments=3))]
    others.append(folder(key="edges"))
    monkeypatch.setattr(lightning_modules.system, "DECODER", "rgb24-2")
    others.append(folder())
    assert len({first, *others}) == 1 + len(others)


class TwoStreams(Layers):
    """Both streams keep their tensors under one name."""

    def __init__(self) -> None:
        super().__init__()
        self.test_views["flow"] = View(frames=2, stride=4, hop=16)


def test_two_streams_that_keep_one_name_are_refused_before_anything_is_read(world: Path, tmp_path: Path) -> None:
    model = TwoStreams()
    data = data_of(world, model)
    with pytest.raises(ValueError, match=r"the streams video and flow both keep a tensor hidden\.1"):
        make_trainer(tmp_path).predict(model, datamodule=data)
    assert model.read_videos == []


@pytest.mark.parametrize("dataset", [WindowDataset, BagDataset])
def test_a_dataset_of_two_streams_that_keep_one_name_is_refused(
    world: Path, tmp_path: Path, dataset: Callable[..., Any]
) -> None:
    model, videos, _ = attached(world, tmp_path)
    views = {"video": View(frames=2, segments=3), "flow": View(frames=4, segments=3)}
    stores = {(stream, view): (model.fill([], stream, view), ["hidden.1"]) for stream, view in views.items()}
    size = (2,) if dataset is WindowDataset else ()
    with pytest.raises(ValueError, match=r"the streams video and flow both keep a tensor hidden\.1"):
        dataset(videos, views, stores, *size)
    apart = {place: (store, [f"hidden.{k}"]) for k, (place, (store, _)) in enumerate(stores.items())}
    dataset(videos, views, apart, *size)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
def test_videos_are_shared_out_by_length(world_size: int) -> None:
    generator = random.Random(0)
    size = {f"v{i}": generator.randint(1, 100) for i in range(50)}
    shares = share_out(size, world_size)
    assert sorted(name for share in shares for name in share) == sorted(size)
    loads = [sum(size[name] for name in share) for share in shares]
    assert max(loads) - min(loads) <= max(size.values()) // 4
    assert share_out(dict(reversed(size.items())), world_size) == shares  # every rank finds the same


# through the command


def config(world: Path, folder: Path, **settings: Any) -> list[str]:
    model = "".join(f"    {key}: {value}\n" for key, value in {"chosen": [0, 1], **settings}.items())
    (folder / "layers.yaml").write_text(
        f"model:\n  class_path: tests.reading_systems.Layers\n  init_args:\n{model}"
        f"data:\n  class_path: UcfCrime\n  init_args: {{root: {world}, num_workers: 0, validation_fraction: 0.3}}\n"
        "trainer: {accelerator: cpu, devices: 1, max_epochs: 1}\n"
    )
    return ["-c", str(folder / "layers.yaml")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def kept() -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in cache_root().rglob("*.safetensors")}


def start(*args: str) -> BaseProcess:
    def work() -> None:
        torch.set_num_threads(1)  # a fork has none of its parent's threads
        main(list(args))

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def wait_for(n_files: int, process: BaseProcess) -> None:
    until = time.monotonic() + 60
    while len(kept()) < n_files:
        assert process.is_alive()
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize(("stage", "n_videos"), [("fit", 8), ("validate", 2), ("test", 4), ("predict", 4)])
def test_store_only_fills_what_a_stage_needs_and_stops(
    world: Path, here: Path, stage: str, n_videos: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        main([stage, *config(world, here), "--store_only", "true"])
    files = kept()
    assert len(files) == n_videos
    said = caplog.text
    assert f" {sum(map(len, files.values())):,} bytes in " in said or stage == "fit"
    assert str(cache_root() / "readings") in said
    assert {path.name for path in here.iterdir()} == {"layers.yaml"}  # no run folder, no scores, no logs


def test_after_store_only_a_fit_runs_no_backbone_and_is_the_fit_it_would_have_been(
    world: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["fit", *config(world, here)]
    main(command)
    (first,) = here.glob("runs/*/*/checkpoints/last.ckpt")
    main([*command, "--store_only", "true"])
    monkeypatch.setattr(datamodules.clips, "read_frames", lambda *_: pytest.fail("decoded"))
    main(command)
    (second,) = set(here.glob("runs/*/*/checkpoints/last.ckpt")) - {first}
    assert second.parent.parent.name == f"{first.parent.parent.name}-2"
    weights = [torch.load(file, weights_only=True)["state_dict"] for file in (first, second)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_config_of_a_run_can_be_checked(world: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", *config(world, here)])
    (file,) = here.glob("runs/*/*/config.yaml")
    assert "store_only: false" in file.read_text()
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:  # it looks, and finds classes that no video shows
        main(["check", "-c", str(file)])
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "error" not in said.err
    assert "UcfCrime: 1" in said.out


def test_store_only_needs_a_system_that_keeps_readings(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", *config(world, here)]
    text = (here / "layers.yaml").read_text().replace("tests.reading_systems.Layers", "tests.tiny_systems.TinyClips")
    (here / "layers.yaml").write_text(text.replace("    chosen: [0, 1]\n", "    batch_size: 2\n"))
    with pytest.raises(SystemExit) as stop:
        main([*command, "--store_only", "true"])
    assert stop.value.code == 1
    assert "--store_only: this TinyClips keeps no readings" in capsys.readouterr().err


class Speaks(Layers):
    """Its key asks the data; where no layer is chosen, it keeps nothing."""

    trained = False
    needs_checkpoint = False

    def reading_key(self) -> dict[str, Any]:
        return {"reads": "colours", "fps": self.trainer.datamodule.fps}


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_store_only_of_a_system_that_keeps_no_tensor_is_refused(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str], stage: str
) -> None:
    command = [stage, *config(world, here, chosen=[]), "--store_only", "true"]
    text = (here / "layers.yaml").read_text()
    (here / "layers.yaml").write_text(text.replace("tests.reading_systems.Layers", "tests.test_filling.Speaks"))
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 1
    assert "--store_only: this Speaks keeps no readings" in capsys.readouterr().err
    main([*command, "--model.chosen", "[1]"])  # its key may ask the data before a trainer has set it up
    assert kept()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_stopped_filling_goes_on_with_the_rest(
    world: Path, here: Path, caplog: pytest.LogCaptureFixture, number: signal.Signals, status: int
) -> None:
    command = ("fit", *config(world, here, sleep_s=0.1), "--store_only", "true")
    process = start(*command)
    wait_for(3, process)
    while process.is_alive():  # an interrupt that meets a destructor is lost, and a user presses again
        os.kill(process.pid, number)
        process.join(0.5)
    assert process.exitcode == status
    done = {file: file.stat().st_mtime_ns for file in cache_root().rglob("*.safetensors")}
    assert 3 <= len(done) < 8
    with caplog.at_level("INFO"):
        main(["fit", *config(world, here), "--store_only", "true"])
    assert len(kept()) == 8
    assert {file: file.stat().st_mtime_ns for file in done} == done
    told = [int(line.split()[1]) for line in caplog.messages if line.startswith("Reading ")]
    assert sum(told) == 8 - len(done)


def test_two_runs_that_fill_one_store_share_the_work_and_leave_what_one_would(world: Path, here: Path) -> None:
    command = ("fit", *config(world, here), "--store_only", "true")
    main(list(command))
    alone = kept()
    for file in cache_root().rglob("*.safetensors"):
        file.unlink()
    slow = ("fit", *config(world, here, sleep_s=0.05), "--store_only", "true")
    runs = [start(*slow) for _ in range(2)]
    for run in runs:
        run.join()
    assert [run.exitcode for run in runs] == [0, 0]
    assert kept() == alone
    assert list(cache_root().rglob("*.part")) == []


def test_two_ranks_fill_one_store_with_what_one_process_would(world: Path, here: Path) -> None:
    command = ("fit", *config(world, here), "--store_only", "true")
    main(list(command))
    alone = kept()
    for file in cache_root().rglob("*.safetensors"):
        file.unlink()
    done = lightning(*command, "--trainer.devices", 2, "--trainer.strategy", "ddp", cwd=here)
    assert done.returncode == 0, done.stderr
    assert kept() == alone
    assert "Reading 6 videos with the frozen backbone" in done.stderr + done.stdout
    assert "train: hidden.0, hidden.1 of 6 videos" in done.stderr + done.stdout
    assert {path.name for path in here.iterdir()} == {"layers.yaml"}


def test_a_full_disk_keeps_what_was_read_and_the_same_command_goes_on(
    world: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", *config(world, here), "--store_only", "true"]
    with small_disk(here / "disk", "40k") as disk:  # ten pages, one per file
        monkeypatch.setenv("VIGIL_CACHE", str(disk))
        with pytest.raises(SystemExit) as stop:
            main(command)
        assert stop.value.code == 1
        said = capsys.readouterr().err
        assert f"error: {disk}/readings/" in said
        assert all(part in said for part in ("no room for", "are free", "lightning store prune", "VIGIL_CACHE"))
        before = kept()
        assert 0 < len(before) < 8
        assert list(disk.rglob("*.part")) == []
        os.system(f"mount -o remount,size=1m {disk}")
        main(command)
        assert len(kept()) == 8
        assert kept().items() >= before.items()


def test_a_closed_store_serves_a_fit_and_says_so_where_something_is_missing(
    world: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", *config(world, here)]
    main([*command, "--store_only", "true"])
    with closed(cache_root()):
        main(command)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main(["test", *config(world, here, chosen=[2]), "--store_only", "true"])
    assert stop.value.code == 1
    assert "readings cannot be written here" in capsys.readouterr().err
    assert list(here.rglob("last.ckpt"))
