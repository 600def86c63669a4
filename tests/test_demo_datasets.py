"""The demo copies of XD-Violence, ShanghaiTech, UBnormal and Ped2: their files, read raw, agree with the scenes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.demo import SIZES, plan
from datamodules.demo_campus import (
    CampusVideo,
    plan_shanghaitech,
    plan_ubnormal,
    plan_ucsd_ped2,
    write_shanghaitech,
    write_ubnormal,
    write_ucsd_ped2,
)
from datamodules.demo_xd_violence import CODES, plan_xd_violence, write_xd_violence
from vigil.campus import EVENTS, Shot, object_ids
from vigil.recording import draw
from vigil.scenes import PRETRAINING_SEEDS, make_scene
from vigil.video import probe, read_frames

COPIES: dict[str, tuple[Callable[..., None], Callable[..., list]]] = {
    "xd_violence": (write_xd_violence, plan_xd_violence),
    "shanghaitech": (write_shanghaitech, plan_shanghaitech),
    "ubnormal": (write_ubnormal, plan_ubnormal),
    "ucsd_ped2": (write_ucsd_ped2, plan_ucsd_ped2),
}
XD_NAME = r"(v=[\w-]{11}|[\w.]+)__#(1|\d{1,2}-\d\d-\d\d_\d{1,2}-\d\d-\d\d)_label_(A|(B[12456]|G)(-(B[12456]|G|0)){2})"
UBNORMAL_NAME = r"(ab)?normal_scene_\d+_scenario_?\d+(_\d)?(_fog|_fire|_smoke)?"


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny copy of each dataset, rendered once for this file."""
    root = tmp_path_factory.mktemp("copies")
    for name, (write, _) in COPIES.items():
        write(root / name, seed=0, size="tiny")
    return root


def masks(video: CampusVideo) -> np.ndarray:
    """What the event of a video covers, bool (T, Y, X), rendered anew."""
    return draw(video.shot.scene())[1]


def expected_files(name: str) -> set[str]:
    """Every file of a tiny copy, written out from the plan as the authors' layout has them."""
    files = {"demo_world.json"}
    for video in COPIES[name][1](0, "tiny"):
        if name == "xd_violence":
            files |= {f"XD-Violence-{video.split}/videos/{video.name}.mp4"}
            continue
        frames, event = range(video.shot.n_frames), video.shot.event
        if name == "shanghaitech" and event is None:
            files |= {f"training/videos/{video.name}.avi"}
        elif name == "shanghaitech":
            files |= {f"testing/frames/{video.name}/{i:03d}.jpg" for i in frames}
            files |= {f"testing/test_{kind}_mask/{video.name}.npy" for kind in ("pixel", "frame")}
        elif name == "ubnormal":
            stem = f"Scene{video.shot.camera - 30_000_500}/{video.name}"
            files |= {f"{stem}.mp4"}
            if event is not None:
                inside = f"{stem}_annotations/{video.name}"
                files |= {f"{inside}_tracks.txt", *(f"{inside}_{i:04d}_gt.png" for i in frames)}
        else:
            folder = f"UCSDped2/{video.split.title()}/{video.name}"
            files |= {f"{folder}/{i + 1:03d}.tif" for i in frames}
            files |= {f"{folder}_gt/{i + 1:03d}.bmp" for i in frames if event is not None}
    return (
        files
        | {
            "xd_violence": {f"XD-Violence-test/annotations{kind}.txt" for kind in ("", "_multiclasses")},
            "shanghaitech": {"SH_Train.txt", "SH_Test.txt"},
            "ubnormal": {
                f"scripts/{kind}_{split}_video_names.txt"
                for kind in ("normal", "abnormal")
                for split in ("training", "validation", "test")
            },
            "ucsd_ped2": {"UCSDped2/Test/UCSDped2.m"},
        }[name]
    )


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_holds_the_authors_files_and_no_others(copies: Path, name: str) -> None:
    found = {str(file.relative_to(copies / name)) for file in (copies / name).rglob("*") if file.is_file()}
    assert found == expected_files(name)


@pytest.mark.parametrize("name", COPIES)
def test_a_finished_copy_is_left_alone(copies: Path, name: str) -> None:
    before = (copies / name).stat().st_ino, (copies / name / "demo_world.json").stat().st_mtime_ns
    COPIES[name][0](copies / name, seed=0, size="tiny")
    assert ((copies / name).stat().st_ino, (copies / name / "demo_world.json").stat().st_mtime_ns) == before


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize(("seed", "size"), [(0, "huge"), (-1, "tiny"), (5000, "tiny")])
def test_a_size_or_seed_that_cannot_be_is_refused(tmp_path: Path, name: str, seed: int, size: str) -> None:
    with pytest.raises(ValueError, match=rf"'{size}', seed {seed}: expected a size of tiny, full and a seed from 0"):
        COPIES[name][0](tmp_path / name, seed=seed, size=size)


def test_no_two_copies_share_a_scene_or_a_camera() -> None:
    owner: dict[int, str] = dict.fromkeys(PRETRAINING_SEEDS, "pretraining")
    found = [("ucf_crime", video.scene_seed) for seed in (0, 1, 4999) for size in SIZES for video in plan(seed, size)]
    for name, (_, planned) in COPIES.items():
        for video in (video for seed in (0, 1, 4999) for size in ("tiny", "full") for video in planned(seed, size)):
            parts = [part[1] for part in video.parts] if name == "xd_violence" else [video.shot.seed, video.shot.camera]
            found += [(name, seed) for seed in parts]
    assert [pair for pair in found if owner.setdefault(pair[1], pair[0]) != pair[0]] == []


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("size", ["tiny", "full"])
def test_no_video_is_in_two_splits_and_no_scene_in_two_videos(name: str, size: str) -> None:
    videos = COPIES[name][1](0, size)
    assert len({video.name for video in videos}) == len(videos)
    seeds = [seed for v in videos for seed in ([p[1] for p in v.parts] if name == "xd_violence" else [v.shot.seed])]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(("name", "pattern"), [("xd_violence", XD_NAME), ("ubnormal", UBNORMAL_NAME)])
def test_names_are_spelled_as_the_real_ones(name: str, pattern: str, shared_data: Path) -> None:
    if name == "xd_violence":
        table = (shared_data / name / "lists" / "xd_test_names_labels.csv").read_text().splitlines()[1:]
        real = [line.split(",")[1] for line in table]
    else:
        real = [line for file in (shared_data / name).glob("*_names.txt") for line in file.read_text().splitlines()]
    odd = [spelled for spelled in real if not re.fullmatch(pattern, spelled)]
    assert len(odd) <= len(real) // 100, odd  # films with an apostrophe or a comma
    ours = [video.name for video in COPIES[name][1](0, "full")]
    assert [spelled for spelled in ours if not re.fullmatch(pattern, spelled)] == (
        [ours[0]] if name == "xd_violence" else []  # the one training name without padding
    )


def test_xd_violence_has_each_oddity_of_the_real_names() -> None:
    names = [video.name for video in plan_xd_violence(0, "full") if video.split == "test"]
    first = plan_xd_violence(0, "full")[0]
    assert (first.split, first.name[-9:]) == ("train", "_label_B1")
    for odd in (r"^v=", r"__#1_", r"__#0-", r"__#00-", r"\.\.\.", "G-B2-B6"):
        assert any(re.search(odd, name) for name in names), odd
    for video in plan_xd_violence(0, "full"):
        label = video.name.rpartition("_label_")[2].split("-")
        assert {code for code in label if code != "0"} == {part[0] for part in video.parts}
        assert all(category in CODES.get(code, ("Normal",)) for code, _, category, _, _ in video.parts)


def test_xd_violence_is_annotated_where_its_scenes_say(copies: Path) -> None:
    folder = copies / "xd_violence" / "XD-Violence-test"
    single, multiple = ((folder / f"annotations{kind}.txt").read_text() for kind in ("", "_multiclasses"))
    assert not single.endswith("\n")
    assert not multiple.endswith("\n")
    expected = {}
    for video in plan_xd_violence(0, "tiny"):
        events, start = [], 0
        for code, seed, category, n_frames, n_events in video.parts:
            scene = make_scene(seed, category, n_frames, n_events=n_events)
            events += [(start + first, start + end, code) for first, end in scene.anomalies]
            start += n_frames
        if video.split == "test" and events:
            expected[video.name] = events
    found, classed = {}, {}
    for line in single.split("\n"):
        name, *times = line.split(" ")
        found[name.removesuffix(".mp4")] = list(map(int, times))
    for line in multiple.split("\n"):
        name, *rest = line.split(" ")
        classed[name.removesuffix(".mp4")] = [(int(a), int(b), c) for c, a, b in zip(*[iter(rest)] * 3, strict=True)]
    assert found == {
        name: [time for first, end, _ in events for time in (first, end)] for name, events in expected.items()
    }
    assert {name: sorted(events) for name, events in classed.items()} == expected
    assert any(events != sorted(events) for events in classed.values())
    assert single.count(".mp4 ") == multiple.count(".mp4 ") == 1
    assert max(len(events) for events in expected.values()) == 3
    assert sum(len(events) == 2 for events in expected.values()) == 1


def test_every_video_file_decodes_to_its_frames_and_shows_its_scene(copies: Path) -> None:
    seen = set()
    for name, fps in (("xd_violence", 24), ("shanghaitech", 24), ("ubnormal", 30)):
        files = {file.stem: file for file in (copies / name).rglob("*") if file.suffix in (".mp4", ".avi")}
        for video in COPIES[name][1](0, "tiny"):
            if video.name not in files:
                continue
            n_frames = video.n_frames if name == "xd_violence" else video.shot.n_frames
            info = probe(files[video.name])
            assert (info.n_frames, info.height, info.width) == (n_frames, 120, 160)
            assert info.fps == pytest.approx(fps)
            if name != "xd_violence":
                rendered, stored = (
                    draw(video.shot.scene())[0][[0, 7, -1]],
                    read_frames(files[video.name], [0, 7, n_frames - 1]),
                )
                assert np.abs(stored.numpy().transpose(0, 2, 3, 1).astype(int) - rendered).mean() < 8
            seen.add(files[video.name].suffix)
    assert seen == {".mp4", ".avi"}


def test_shanghaitech_masks_of_pixels_and_of_frames_agree(copies: Path) -> None:
    testing = copies / "shanghaitech" / "testing"
    for video in plan_shanghaitech(0, "tiny"):
        if video.shot.event is None:
            continue
        pixel, frame = (np.load(testing / f"test_{kind}_mask" / f"{video.name}.npy") for kind in ("pixel", "frame"))
        assert pixel.dtype == frame.dtype == np.uint8
        assert np.array_equal(pixel, masks(video))
        assert np.array_equal(frame, pixel.any(axis=(1, 2)))
        assert 0 < frame.sum() < len(frame) == len(list((testing / "frames" / video.name).iterdir()))
        with Image.open(testing / "frames" / video.name / "000.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (160, 120))


def test_shanghaitechs_weak_split_holds_both_kinds_on_both_sides(copies: Path) -> None:
    lists = [(copies / "shanghaitech" / f"SH_{split}.txt").read_text() for split in ("Train", "Test")]
    assert not any(text.endswith("\n") for text in lists)
    train, test = (text.split("\n") for text in lists)
    assert not set(train) & set(test)
    assert {*train, *test} == {video.name for video in plan_shanghaitech(0, "tiny")}
    for names in (train, test):
        assert {len(name.split("_")[1]) for name in names} == {3, 4}
    for name in (*train, *test):
        anomalous = len(name.split("_")[1]) == 4
        where = f"testing/frames/{name}/000.jpg" if anomalous else f"training/videos/{name}.avi"
        assert (copies / "shanghaitech" / where).is_file()


def test_ubnormals_object_ids_are_seen_throughout_their_tracks_and_nowhere_else(copies: Path) -> None:
    for video in plan_ubnormal(0, "tiny"):
        folder = copies / "ubnormal" / f"Scene{video.name.split('_')[2]}" / f"{video.name}_annotations"
        assert folder.is_dir() == (video.shot.event is not None)
        if video.shot.event is None:
            continue
        ids = np.stack([np.asarray(Image.open(file)) for file in sorted(folder.glob("*_gt.png"))])
        assert (ids.dtype, ids.shape) == (np.uint8, (video.shot.n_frames, 120, 160))
        tracked = np.zeros((256, len(ids)), bool)
        for line in (folder / f"{video.name}_tracks.txt").read_text().splitlines():
            assert re.fullmatch(r"\d+,\d+,\d+", line)
            name, start, end = map(int, line.split(","))
            tracked[name, start : end + 1] = True
        named = np.flatnonzero(tracked.any(axis=1))
        assert np.array_equal(np.isin(ids, named), masks(video))
        for name in named:
            assert np.array_equal(tracked[name], (ids == name).any(axis=(1, 2)))
        assert set(np.unique(ids)) - set(named) - {0}, "nobody walks by"


def test_ubnormals_lists_name_each_video_once_and_no_event_is_in_two_splits(copies: Path) -> None:
    listed = {}
    for file in (copies / "ubnormal" / "scripts").iterdir():
        assert not file.read_text().endswith("\n")
        for name in file.read_text().split("\n"):
            assert name not in listed
            listed[name] = file.stem
            assert (copies / "ubnormal" / f"Scene{name.split('_')[2]}" / f"{name}.mp4").is_file()
            assert file.stem.startswith(name.split("_")[0])
    assert listed.keys() == {video.name for video in plan_ubnormal(0, "tiny")}
    events = [
        {v.shot.event for v in plan_ubnormal(0, "full") if v.split == split} for split in ("train", "val", "test")
    ]
    assert set.intersection(*events) == {None}
    assert len(set.union(*events)) - 1 == sum(len(found - {None}) for found in events)


def test_ped2_is_annotated_where_any_pixel_is_anomalous(copies: Path) -> None:
    folder = copies / "ucsd_ped2" / "UCSDped2" / "Test"
    lines = (folder / "UCSDped2.m").read_text().splitlines()
    assert lines[0] == "TestVideoFile = {};"
    videos = [video for video in plan_ucsd_ped2(0, "tiny") if video.split == "test"]
    for video, line in zip(videos, lines[1:], strict=True):
        (frames,) = re.fullmatch(r"TestVideoFile\{end\+1\}\.gt_frame = \[(\d+:\d+(?:, \d+:\d+)*)\];", line).groups()
        mask = np.stack([np.asarray(Image.open(file)) for file in sorted((folder / f"{video.name}_gt").iterdir())])
        assert (mask.dtype, set(np.unique(mask))) == (np.uint8, {0, 255})
        assert np.array_equal(mask == 255, masks(video))
        annotated = np.zeros(len(mask), bool)
        for stretch in frames.split(", "):
            first, last = map(int, stretch.split(":"))
            annotated[first - 1 : last] = True
        assert np.array_equal(annotated, mask.any(axis=(1, 2)))
        with Image.open(folder / video.name / "001.tif") as image:
            assert (image.format, image.mode, image.size) == ("TIFF", "L", (160, 120))


@pytest.mark.parametrize(("event", "place"), [(event, places[0]) for event, (_, places) in EVENTS.items()])
def test_a_campus_event_is_seen_while_it_is_staged_and_at_no_other_time(event: str, place: str) -> None:
    for seed in range(3):
        scene = Shot(seed, 7, place, 72, event).scene()
        ((first, end),) = scene.anomalies
        mask = draw(scene)[1]
        inside = mask.any(axis=(1, 2))
        assert not inside[:first].any()
        assert not inside[end:].any()
        assert inside[first:end].mean() > 0.6  # what passes through starts and ends outside the picture
        assert np.array_equal(object_ids(scene) > 0, mask)


def test_two_fighters_are_two_objects() -> None:
    ids = object_ids(Shot(0, 7, "yard", 48, "fighting").scene())
    assert ids.max() in (2, 4)
    assert set(np.unique(ids)) == set(range(ids.max() + 1))


def test_a_camera_shows_the_same_view_and_another_camera_another() -> None:
    first, second, other = (Shot(seed, camera, "yard", 48).scene() for seed, camera in ((0, 7), (1, 7), (0, 8)))
    assert np.array_equal(first.background * first.light, second.background * second.light)
    assert not np.array_equal(first.background, other.background)
    assert not np.array_equal(first.frame(24)[0], second.frame(24)[0])


def test_fog_lowers_the_contrast_and_leaves_the_mask() -> None:
    clear, foggy = (draw(Shot(3, 7, "yard", 48, "fighting", fog=fog).scene()) for fog in (False, True))
    assert foggy[0].std() < 0.7 * clear[0].std()
    assert np.array_equal(clear[1], foggy[1])


@pytest.mark.parametrize(
    ("shot", "message"),
    [
        (Shot(0, 0, "shop", 60, "cycling"), r"'cycling', place 'shop': expected one of chasing"),
        (Shot(0, 0, "yard", 60, "flying"), r"'flying', place 'yard': expected one of cycling"),
        (Shot(0, 0, "yard", 47), r"47 frames: a shot has at least 48"),
    ],
)
def test_a_shot_that_cannot_be_is_refused(shot: Shot, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shot.scene()
