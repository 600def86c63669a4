"""`lightning store`: what is on disk in human words, and nothing goes that was not meant."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import store_cli
import vigil.store
from cli import main
from tests.disks import closed
from tests.worlds import ROOT
from vigil.reading_file import ReadingFile
from vigil.store import Store, cache_root

BAG = {
    "backbone": "some-8b",
    "view": {"frames": 4, "stride": None, "hop": None, "segments": 32},
    "precision": "16-true",
}
WINDOWS = {**BAG, "view": {"frames": 8, "stride": 3, "hop": 24, "segments": None}}


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Store, Store, list[Path]]:
    """One of three videos with four layers, of one video with eight; one of a single video."""
    monkeypatch.setenv("COLUMNS", "200")
    videos = []
    for number in range(3):
        videos.append(tmp_path / f"Arson00{number}.mp4")
        videos[-1].write_bytes(bytes([number]))
    large, small = Store(BAG, made_by="HiProbe"), Store(WINDOWS, made_by="MilRanker, demo_deit")
    for number, video in enumerate(videos):
        large.write(video, {f"hidden.{layer}": torch.ones(500) for layer in range(8 if number == 0 else 4)})
    small.write(videos[0], {"video": torch.ones(3)})
    return large, small, videos


def size(store: Store) -> int:
    return sum(file.stat().st_size for file in store.folder.iterdir()) if store.folder.is_dir() else 0


def told(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    main(["store", *args])
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *args: str, status: int = 1) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["store", *args])
    assert stop.value.code == status
    return capsys.readouterr().err


def test_du_says_what_is_there_in_words(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    said = told(capsys, "du")
    for store, words in (
        (
            stores[0],
            ("HiProbe", "32 segments of 4 frames", "hidden.0-3, hidden.4-7 (of 1 of 3 videos)", "some-8b", "16-true"),
        ),
        (stores[1], ("MilRanker, demo_deit", "windows of 8 frames 3 apart, every 24", "video")),
    ):
        assert all(word in said for word in (store.folder.name, *words)), words
    assert str(cache_root() / "readings") in said
    assert said.index(stores[0].folder.name) < said.index(stores[1].folder.name)  # the largest first


def test_du_as_json(stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads(told(capsys, "du", "--json"))
    assert facts["root"] == str(cache_root() / "readings")
    assert facts["bytes"] == size(stores[0]) + size(stores[1])
    large = next(row for row in facts["stores"] if row["id"] == stores[0].folder.name)
    assert large["tensors"] == {f"hidden.{layer}": 3 if layer < 4 else 1 for layer in range(8)}
    assert (large["videos"], large["damaged"], large["bytes"]) == (3, 0, size(stores[0]))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", large["last_written"])


def test_du_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "du") == f"No readings in {cache_root() / 'readings'}.\n"
    assert json.loads(told(capsys, "du", "--json"))["stores"] == []


def test_du_counts_damaged_files_and_survives_a_damaged_store_json(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    large, small, videos = stores
    large.path(videos[1]).write_bytes(b"")
    (small.folder / "store.json").write_text('{"key": 7')
    said = told(capsys, "du")
    assert "3, 1 damaged" in said
    assert "its store.json is not there or damaged" in said


def test_what_lies_in_a_store_json_cannot_move_the_cursor(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"key": {"backbone": "\x1b[2J[red]x"}, "made_by": "\x1b]0;title\x07"}
    (stores[1].folder / "store.json").write_text(json.dumps(about))
    said = told(capsys, "du")
    assert "\x1b" not in said
    assert "[red]x" in said


def test_du_answers_without_torch_or_lightning() -> None:
    code = "import sys, cli; cli.main(['store', 'du']); sys.exit(bool({'torch', 'lightning'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_nothing_goes_without_yes(stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]) -> None:
    large, small, _ = stores
    before = size(large), size(small)
    for args in (["--all"], [large.folder.name], [large.folder.name, "--keep", "hidden.1"], ["--older_than_days", "0"]):
        assert "would go; add --yes to do it" in told(capsys, "prune", *args)
    assert (size(large), size(small)) == before


def test_a_store_goes_by_its_id_or_the_beginning_of_it(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    large, small, videos = stores
    assert "gone, 3 videos" in told(capsys, "prune", large.folder.name[:5], "--yes")
    assert not large.folder.exists()
    assert small.names(videos[0]) == ["video"]
    told(capsys, "prune", "--all", "--yes")
    assert list((cache_root() / "readings").iterdir()) == []


def test_only_stores_written_long_ago_go(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    large, small, videos = stores
    for store, days in ((large, 9), (small, 11)):
        for video in videos:
            if store.names(video):
                os.utime(store.path(video), times=(time.time() - 86400 * days,) * 2)
    large.write(videos[2], {"hidden.0": torch.ones(500)})
    told(capsys, "prune", "--older_than_days", "10", "--yes")
    assert large.folder.exists()
    assert not small.folder.exists()


def test_damaged_files_go_alone(stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]) -> None:
    large, small, videos = stores
    blob = bytearray(large.path(videos[1]).read_bytes())
    blob[-1] ^= 1  # only its checksum tells
    large.path(videos[1]).write_bytes(blob)
    foreign = small.folder / large.path(videos[2]).name
    foreign.write_bytes(large.path(videos[2]).read_bytes())
    for yes, left in (([], True), (["--yes"], False)):
        said = told(capsys, "prune", "--damaged", *yes)
        assert f"{large.path(videos[1])}: the reading of a video is damaged (the bytes of hidden." in said
        assert f"{foreign}: the reading of a video is damaged (it belongs to another store or video)" in said
        assert large.path(videos[1]).exists() == foreign.exists() == left
    assert large.names(videos[0])
    assert small.names(videos[0]) == ["video"]


def test_what_was_not_chosen_goes(stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]) -> None:
    large, _, videos = stores
    would = told(capsys, "prune", large.folder.name, "--keep", "hidden.1", "hidden.2")
    assert "hidden.0, hidden.3, hidden.4-7 (of 1 of 3 videos), 20.0 kB" in would  # 6 + 2 + 2 layers of 500
    told(capsys, "prune", large.folder.name, "--keep", "hidden.1", "hidden.2", "--yes")
    assert [large.names(video) for video in videos] == [["hidden.1", "hidden.2"]] * 3
    assert "it holds nothing else" in told(capsys, "prune", large.folder.name, "--keep", "hidden.1", "hidden.2")


def test_what_killed_processes_left_goes_with_what_is_pruned(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    large = stores[0]
    old, new = large.folder / "a.part", large.folder / "b.part"
    for part, age in ((old, 4000), (new, 10)):
        part.write_bytes(bytes(10))
        os.utime(part, times=(time.time() - age,) * 2)
    told(capsys, "prune", "--damaged", "--yes")
    assert (old.exists(), new.exists()) == (False, True)
    assert "another run may be writing into it" in told(capsys, "prune", large.folder.name, "--yes")
    assert new.exists()


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["prune"], 1, "say what goes: IDs as `lightning store du` names them, --older_than_days, --damaged or --all"),
        (["prune", "--yes"], 1, "say what goes"),
        (["prune", "--all", "--keep", "hidden.1"], 1, "--keep needs the ID of a store"),
        (["prune", "--al"], 2, "did you mean '--all'?"),
        (["prune", "--older_than_day", "3"], 2, "did you mean '--older_than_days'?"),
        (["prune", "--older_than_days", "soon"], 2, "invalid float value: 'soon'"),
        (["prune", "--older_than_days", "-1"], 1, "at least 0 is expected"),
        (["prun", "--all"], 2, "did you mean 'prune'?"),
        (["du", "--jsn"], 2, "did you mean '--json'?"),
        ([], 2, "required"),
    ],
)
def test_a_command_that_is_not_understood_does_nothing(
    stores: tuple[Store, Store, list[Path]],
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    status: int,
    said: str,
) -> None:
    before = size(stores[0]), size(stores[1])
    assert said in refused(capsys, *args, status=status)
    assert (size(stores[0]), size(stores[1])) == before


def test_an_id_or_a_tensor_that_is_not_there_names_the_nearest(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    large, small, _ = stores
    name = large.folder.name
    typo = name[:-1] + ("0" if name[-1] != "0" else "1")
    assert f"{typo}: no such store in {cache_root() / 'readings'}; did you mean {name}?" in refused(
        capsys, "prune", typo, "--yes"
    )
    assert "no such store" in refused(capsys, "prune", small.folder.name, "xyz", "--yes")
    assert "no video has a tensor hiden.1; did you mean hidden.1?" in refused(
        capsys, "prune", name, "--keep", "hiden.1", "--yes"
    )
    assert small.folder.exists()


def test_an_empty_id_is_no_id_even_where_one_store_is_all_there_is(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    large, small, _ = stores
    told(capsys, "prune", small.folder.name, "--yes")
    before = size(large)
    for ids in ([""], [large.folder.name, ""]):
        assert "an ID is empty" in refused(capsys, "prune", *ids, "--yes")
    assert size(large) == before


@pytest.mark.parametrize("args", [["--all"], ["--damaged"], ["--older_than_days", "0"]])
def test_what_is_no_reading_stays(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str], tmp_path: Path, args: list[str]
) -> None:
    large, root = stores[0], cache_root() / "readings"
    weights, called = bytes(20), f"{'a' * 32}.safetensors"
    outside = [tmp_path / "models" / "model.safetensors", tmp_path / "models" / called]
    foreign = [
        root / "my-models" / "model.safetensors",
        root / "my-models" / called,
        large.folder / "model.safetensors",
    ]
    for file in (*outside, *foreign):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(weights)
    (root / ("b" * 16)).symlink_to(tmp_path / "models")
    (large.folder / called).symlink_to(outside[0])
    assert {row["id"] for row in json.loads(told(capsys, "du", "--json"))["stores"]} == {
        store.folder.name for store in stores[:2]
    }
    told(capsys, "prune", *args, "--yes")
    assert all(file.read_bytes() == weights for file in (*outside, *foreign))
    assert (large.folder / called).is_symlink()
    assert "no such store" in refused(capsys, "prune", "my-models", "--yes")
    assert "no such store" in refused(capsys, "prune", "b" * 16, "--yes")


@pytest.fixture
def vanishing(stores: tuple[Store, Store, list[Path]], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reading that another process removes after it was listed and before it is opened."""
    gone = stores[0].path(stores[2][1])

    class Raced(ReadingFile):
        def __init__(self, path: Path, of: str = "a video") -> None:
            if path == gone:
                gone.unlink(missing_ok=True)
            super().__init__(path, of)

    for module in (store_cli, vigil.store):
        monkeypatch.setattr(module, "ReadingFile", Raced)
    return gone


@pytest.mark.parametrize(
    "args",
    [
        ["du"],
        ["prune", "--all", "--yes"],
        ["prune", "--damaged", "--yes"],
        ["prune", "--older_than_days", "0", "--yes"],
        ["prune", "ID", "--keep", "hidden.1"],
        ["prune", "ID", "--keep", "hidden.1", "--yes"],
    ],
    ids=" ".join,
)
def test_a_reading_that_goes_meanwhile_is_passed_over(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str], vanishing: Path, args: list[str]
) -> None:
    large, _, videos = stores
    said = told(capsys, *(large.folder.name if arg == "ID" else arg for arg in args))
    assert said
    assert not vanishing.exists()
    if "--keep" in args and "--yes" in args:
        assert [large.names(video) for video in videos] == [["hidden.1"], [], ["hidden.1"]]


def test_du_passes_over_parts_that_come_and_go(stores: tuple[Store, Store, list[Path]]) -> None:
    done = threading.Event()

    def write_parts() -> None:
        while not done.is_set():
            for part in (stores[0].folder / f"{number}.part" for number in range(5)):
                part.touch()
                part.unlink()

    thread = threading.Thread(target=write_parts)
    thread.start()
    try:
        assert {store_cli.facts(stores[0].folder).videos for _ in range(300)} == {3}
    finally:
        done.set()
        thread.join()


def test_a_closed_folder_is_one_line(
    stores: tuple[Store, Store, list[Path]], capsys: pytest.CaptureFixture[str]
) -> None:
    with closed(cache_root()):
        told(capsys, "du")
        said = refused(capsys, "prune", "--all", "--yes")
    assert said.startswith("error: ")
    assert said.count("\n") == 1
