"""ShanghaiTech, UBnormal and UCSD Ped2: every line of the real files, masks and tracks against their totals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from vigil.annotations import (
    SHANGHAITECH_CATEGORIES,
    anomalous_runs,
    frame_labels,
    lengths,
    shanghaitech,
    track_intervals,
    ubnormal,
    ubnormal_tracks,
    ucsd_ped2,
)
from vigil.types import Video

SHANGHAITECH = {  # file: videos, anomalous, sum of n_frames
    "SH_Train.txt": (238, 63, 0),
    "SH_Test.txt": (199, 44, 0),
    "mist_SH_Train_new.txt": (238, 63, 0),
    "mist_SH_Test_NEW.txt": (199, 44, 0),
    "rtfm_shanghai-i3d-train-10crop.list": (238, 63, 0),
    "rtfm_shanghai-i3d-test-10crop.list": (199, 44, 0),
    "pel4vad_relabel.list": (63, 63, 0),
    "sht_frame_counts.csv": (437, 107, 315_396),
}
UBNORMAL = {
    **{"normal_training": (186, 0), "normal_validation": (26, 0), "normal_test": (53, 0)},
    **{"abnormal_training": (82, 82), "abnormal_validation": (38, 38), "abnormal_test": (158, 158)},
}
PED2 = [(60, 180), (94, 180), (0, 146), (30, 180), (0, 129), (0, 159), (45, 180), (0, 180), (0, 120), (0, 150)]
PED2 += [(0, 180), (87, 180)]


def write(folder: Path, text: str, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def runs(label: np.ndarray) -> list[tuple[int, int]]:
    """The intervals of label, frame by frame."""
    found: list[tuple[int, int]] = []
    for frame in np.flatnonzero(label).tolist():
        if found and found[-1][1] == frame:
            found[-1] = (found[-1][0], frame + 1)
        else:
            found.append((frame, frame + 1))
    return found


@pytest.mark.parametrize("file", SHANGHAITECH)
def test_every_list_of_shanghaitech_agrees_with_the_names(shared_data: Path, file: str) -> None:
    videos = shanghaitech(shared_data / "shanghaitech" / "lists" / file)
    anomalous = sum(video.label or 0 for video in videos)
    assert (len(videos), anomalous, sum(video.n_frames or 0 for video in videos)) == SHANGHAITECH[file]
    split = "Train" if len(videos) in (63, 238) else "Test"
    listed = (shared_data / "shanghaitech" / "lists" / f"SH_{split}.txt").read_text().split()
    assert {video.name for video in videos} <= set(listed) or len(videos) == 437
    assert all(video.label == (len(video.name) == 7) for video in videos)
    assert all(video.anomalies == (None if video.label else []) and video.path is None for video in videos)


def test_the_shanghaitech_masks_are_107_videos_with_17326_anomalous_frames(shared_data: Path) -> None:
    counted = {v.name: v for v in shanghaitech(shared_data / "shanghaitech" / "lists" / "sht_frame_counts.csv")}
    with (shared_data / "shanghaitech" / "lists" / "sht_frame_counts.csv").open() as file:
        positive = {row["name"]: int(row["positive_frames"]) for row in csv.DictReader(file)}
    masks = np.load(shared_data / "shanghaitech" / "test_frame_mask.npz")
    assert set(masks.files) == {name for name, video in counted.items() if video.label}
    total = 0
    for name in masks.files:
        intervals = anomalous_runs(masks[name])
        assert intervals == runs(masks[name])
        assert counted[name].n_frames == len(masks[name])
        assert sum(end - first for first, end in intervals) == positive[name]
        total += positive[name]
    assert (len(masks.files), sum(len(masks[name]) for name in masks.files), total) == (107, 40_791, 17_326)


def test_the_classes_of_shanghaitech_are_those_of_the_published_list(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "shanghaitech" / "lists"
    assert list(SHANGHAITECH_CATEGORIES) == (folder / "pel4vad_anomaly.list").read_text().split()
    videos = {video.name: video.category for video in shanghaitech(folder / "pel4vad_relabel.list")}
    assert (videos["01_0026"], videos["01_0054"]) == ("fighting+chasing", "cart")  # spelled handcart there
    with pytest.raises(ValueError, match="unknown name 'cycling'"):
        shanghaitech(folder / "pel4vad_anomaly.list")
    with pytest.raises(ValueError, match="unknown class juggling of 01_0014"):
        shanghaitech(write(tmp_path, "01_0014 cycling,juggling\n"))
    with pytest.raises(ValueError, match="01_001 is normal by its name, yet shows cycling"):
        shanghaitech(write(tmp_path, "01_001 cycling\n"))


def test_mist_counts_are_one_or_two_frames_short_and_not_taken(shared_data: Path) -> None:
    folder = shared_data / "shanghaitech" / "lists"
    real = {name: row["frames"] for name, row in lengths(folder / "sht_frame_counts.csv").items()}
    rows = [line.split(",") for line in (folder / "mist_SH_Test_NEW.txt").read_text().split()]
    short = [real[name] - int(frames) for name, anomalous, frames in rows if anomalous == "0"]
    assert (short.count(1), short.count(2), len(short)) == (120, 35, 155)
    assert {video.n_frames for video in shanghaitech(folder / "mist_SH_Test_NEW.txt")} == {None}


@pytest.mark.parametrize("frames", ["0", "-2", "x"])
def test_a_frame_count_that_cannot_be_is_refused(frames: str, tmp_path: Path) -> None:
    for text in (f"01_001,0,{frames}\n", f"name,frames\n01_001,{frames}\n"):
        with pytest.raises(ValueError, match=r"list\.txt: .*frames"):
            shanghaitech(write(tmp_path, text))


@pytest.mark.parametrize("file", UBNORMAL)
def test_every_list_of_ubnormal_agrees_with_its_names(shared_data: Path, file: str) -> None:
    videos = ubnormal(shared_data / "ubnormal" / f"{file}_video_names.txt")
    assert (len(videos), sum(video.label or 0 for video in videos)) == UBNORMAL[file]
    assert all(video.anomalies == (None if video.label else []) for video in videos)
    assert {video.category for video in videos} == {None if file.startswith("abnormal") else "Normal"}


def test_lagovad_ends_one_frame_after_stgnf_but_for_each_video_s_last_interval(shared_data: Path) -> None:
    folder = shared_data / "ubnormal"
    truth = np.load(folder / "stgnf_test_gt_1normal_0abnormal.npz")
    counts = {name: len(truth[name]) for name in truth.files}
    stgnf = {name: runs(truth[name] == 0) for name in truth.files}
    marked = sum(end - first for intervals in stgnf.values() for first, end in intervals)
    assert (len(counts), sum(counts.values()), marked) == (211, 92_640, 49_650)
    videos = {video.name: video for video in ubnormal(folder / "lagovad_ubnormal_test_anno.json", counts)}
    assert {name: video.n_frames for name, video in videos.items()} == counts
    assert sum(videos[name].anomalies == stgnf[name] for name in counts) == 172
    later = {
        name: [(first, end + (i + 1 < len(intervals))) for i, (first, end) in enumerate(intervals)]
        for name, intervals in stgnf.items()
    }
    # one video has an interval of a single frame, which [start, end) leaves out
    assert [name for name in counts if videos[name].anomalies != later[name]] == ["abnormal_scene_22_scenario_4"]
    assert videos["abnormal_scene_22_scenario_4"].anomalies == [(0, 272), (284, 285), (294, 450)]
    labels = frame_labels(videos.values(), counts)
    assert sum(int(label.sum()) for label in labels.values()) == 49_692
    listed = {v.name for kind in ("normal", "abnormal") for v in ubnormal(folder / f"{kind}_test_video_names.txt")}
    assert listed == set(counts)


def test_lagovad_without_lengths_leaves_the_times_open(shared_data: Path) -> None:
    videos = ubnormal(shared_data / "ubnormal" / "lagovad_ubnormal_test_anno.json")
    assert [video.anomalies for video in videos].count(None) == 158
    with pytest.raises(ValueError, match="entry 1: abnormal_scene_5_scenario_7 has no length"):
        ubnormal(shared_data / "ubnormal" / "lagovad_ubnormal_test_anno.json", {})


@pytest.mark.parametrize(
    ("name", "kind", "span", "words"),
    [
        ("normal_scene_1_scenario_1", "Abnormal", "[[0, 0.5]]", "has the intervals"),
        ("abnormal_scene_1_scenario_1", "Normal", "[]", "has the intervals"),
        ("abnormal_scene_1_scenario_1", "Riot", "[[0, 0.5]]", "class_name 'Riot'"),
        ("abnormal_scene_1_scenario_1", "Abnormal", "[[0.5, 0]]", "anomaly_span"),
        ("abnormal_scene_1_scenario_1", "Abnormal", "[[2, 3]]", "starts beyond its 9 frames"),
    ],
)
def test_a_span_that_contradicts_its_name_is_refused(
    name: str, kind: str, span: str, words: str, tmp_path: Path
) -> None:
    text = f'[{{"video_path": "{name}.mp4", "class_name": "{kind}", "anomaly_span": {span}}}]'
    with pytest.raises(ValueError, match=f"entry 1: {name}.*{words}"):
        ubnormal(write(tmp_path, text), {name: 9})


def test_every_track_of_training_and_validation_is_read(shared_data: Path, tmp_path: Path) -> None:
    entries = json.loads((shared_data / "ubnormal" / "stgnf_trainval_tracks.json").read_text())
    folder = shared_data / "ubnormal"
    named = [v.name for s in ("training", "validation") for v in ubnormal(folder / f"abnormal_{s}_video_names.txt")]
    assert set(entries) == set(named)
    count = 0
    for name, tracks in entries.items():
        text = "".join(",".join(map(str, track)) + "\n" for track in tracks)
        path = write(tmp_path, text, f"{name}_tracks.txt")
        assert ubnormal_tracks(path) == [tuple(track) for track in tracks]
        np.savetxt(path, np.array(tracks), delimiter=",")  # 4.500000000000000000e+02
        assert ubnormal_tracks(path) == [tuple(track) for track in tracks]
        for convention, more in (("official", 1), ("stgnf", 0)):
            label = np.zeros(max(last for *_, last in tracks) + 2, dtype=bool)
            for _, first, last in tracks:
                label[first : last + more] = True
            assert track_intervals(ubnormal_tracks(path), convention) == runs(label)
        count += len(tracks)
    assert (len(entries), count) == (120, 271)


def test_a_track_s_last_frame_is_in_officially_and_out_in_stgnf() -> None:
    tracks = [(2, 30, 40), (1, 10, 20), (3, 21, 25), (1, 50, 50)]
    assert track_intervals(tracks) == [(10, 26), (30, 41), (50, 51)]
    assert track_intervals(tracks, "stgnf") == [(10, 20), (21, 25), (30, 40)]
    assert track_intervals([]) == []
    with pytest.raises(ValueError, match="'half' is unknown; expected official or stgnf"):
        track_intervals(tracks, "half")
    with pytest.raises(ValueError, match="the track 9-3 is not"):
        track_intervals([(1, 9, 3)])


@pytest.mark.parametrize(("text", "track"), [("1.0,0.0,450.", (1, 0, 450)), (" 1 , 2 , 2 ", (1, 2, 2))])
def test_whole_numbers_spelled_as_floats_are_read(text: str, track: tuple[int, int, int], tmp_path: Path) -> None:
    assert ubnormal_tracks(write(tmp_path, text)) == [track]


@pytest.mark.parametrize("text", ["1,0,4.505e+01", "1,0,1e+10", "1,0,nan", "1,0,1e999", "1,0,1.5", "1,0,0x10"])
def test_a_number_that_is_not_whole_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"end is .*, not a whole number from 0"):
        ubnormal_tracks(write(tmp_path, text))


def test_ped2_s_mat_file_is_read_as_scipy_reads_it(shared_data: Path) -> None:
    path = shared_data / "ucsd_ped2" / "ped2.mat"
    expected = [
        Video(f"Test{number:03d}", label=1, anomalies=[(int(first) - 1, int(last)) for first, last in cell.T])
        for number, cell in enumerate(scipy.io.loadmat(path)["gt"][0], 1)
    ]
    assert ucsd_ped2(path) == expected
    assert [video.anomalies for video in expected] == [[interval] for interval in PED2]


def test_the_official_script_of_ped2_says_the_same(shared_data: Path, tmp_path: Path) -> None:
    lines = [f"TestVideoFile{{end+1}}.gt_frame = [{first + 1}:{end}];" for first, end in PED2]
    path = write(tmp_path, "% ground truth\nTestVideoFile = {};\n\n" + "\r\n".join(lines), "UCSDped2.m")
    assert ucsd_ped2(path) == ucsd_ped2(shared_data / "ucsd_ped2" / "ped2.mat")


@pytest.mark.parametrize(
    ("ranges", "intervals"),
    [("[61:180]", [(60, 180)]), ("[1:48, 91:200]", [(0, 48), (90, 200)]), ("[ 5:9 12:12 ]", [(4, 9), (11, 12)])],
)
def test_ranges_of_a_clip_become_half_open_from_0(
    ranges: str, intervals: list[tuple[int, int]], tmp_path: Path
) -> None:
    (video,) = ucsd_ped2(write(tmp_path, f"TestVideoFile{{end+1}}.gt_frame = {ranges}; % both\n", "UCSDped2.m"))
    assert (video.name, video.label, video.anomalies) == ("Test001", 1, intervals)


@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_mat_file_of_any_number_type_is_read(kind: str, compressed: bool, tmp_path: Path) -> None:
    cells = np.empty((1, 3), dtype=object)
    cells[0, :] = [np.array([[1, 91], [48, 200]], dtype=kind), np.array([[7], [7]], dtype=kind), np.zeros((2, 0))]
    scipy.io.savemat(tmp_path / "gt.mat", {"other": np.eye(3), "gt": cells}, do_compression=compressed)
    videos = ucsd_ped2(tmp_path / "gt.mat")
    assert [video.anomalies for video in videos] == [[(0, 48), (90, 200)], [(6, 7)], []]
    assert [(video.label, video.category) for video in videos] == [(1, None), (1, None), (0, "Normal")]


@pytest.mark.parametrize(
    ("name", "cells", "words"),
    [
        ("gt", np.eye(2), "no cell `gt` but 'gt'"),
        ("truth", [[[1], [5]]], "no cell `gt` but 'truth'"),
        ("gt", [[[9], [3]]], "cell 1: Test001: the range 9:3"),
        ("gt", [[[0], [3]]], "cell 1: Test001: the range 0:3"),
        ("gt", [[[1], [3]], [[1.5], [3]]], "1 bad of 2: cell 2: .*not 2 x K whole numbers"),
        ("gt", [[[1], [2], [3]]], "cell 1: .*not 2 x K whole numbers"),
        ("gt", ["abc"], "not readable: a matrix of class 4"),
    ],
)
def test_a_mat_file_of_another_content_is_refused(name: str, cells: Any, words: str, tmp_path: Path) -> None:
    value = cells
    if isinstance(cells, list):
        value = np.empty((1, len(cells)), dtype=object)
        for i, cell in enumerate(cells):
            value[0, i] = np.array(cell)
    scipy.io.savemat(tmp_path / "gt.mat", {name: value})
    with pytest.raises(ValueError, match=rf"^gt\.mat: .*{words}"):
        ucsd_ped2(tmp_path / "gt.mat")


def test_a_mat_file_with_cells_in_a_column_is_refused(tmp_path: Path) -> None:
    cells = np.empty((2, 1), dtype=object)
    cells[:, 0] = [np.array([[1], [2]]), np.array([[3], [4]])]
    scipy.io.savemat(tmp_path / "gt.mat", {"gt": cells})
    with pytest.raises(ValueError, match=r"a cell \(2, 1\) of 2 parts, not \(1, clips\)"):
        ucsd_ped2(tmp_path / "gt.mat")


def test_other_versions_of_mat_files_are_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "gt.mat", {"gt": np.eye(2)}, format="4")
    with pytest.raises(ValueError, match="not as a MAT 5 file"):
        ucsd_ped2(tmp_path / "gt.mat")
    (tmp_path / "gt.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF")
    with pytest.raises(ValueError, match="save it with -v7 or -v6"):
        ucsd_ped2(tmp_path / "gt.mat")
