"""Every public spelling of UCF-Crime's annotation, every line of the real files, and the totals of every convention."""

from __future__ import annotations

import contextlib
import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from vigil.annotations import (
    CONVENTIONS,
    UCF_CRIME_CATEGORIES,
    anomalous_runs,
    array_length,
    array_lengths,
    frame_labels,
    lengths,
    ucf_crime,
    video_name,
)
from vigil.types import Video

DATA = Path(__file__).parents[2] / "shared" / "data" / "ucf_crime"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/ucf_crime")
OFFICIAL = "Abuse028_x264.mp4  Abuse  165  240  -1  -1  \n"
NORMAL = "Normal_Videos_063_x264.mp4  Normal  -1  -1  -1  -1  \n"


def write(folder: Path, text: str, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def official_by_hand() -> dict[str, list[tuple[int, int]]]:
    found = {}
    for line in (DATA / "annotations" / "Temporal_Anomaly_Annotation.txt").read_text().splitlines():
        name, _, *times = line.split()
        s1, e1, s2, e2 = map(int, times)
        found[name.removesuffix(".mp4")] = [pair for pair in ((s1, e1), (s2, e2)) if pair[0] >= 0]
    return found


TIMED = {  # file: videos, anomalous, with two intervals, sum of n_frames
    "Temporal_Anomaly_Annotation.txt": (290, 140, 16, 0),
    "Temporal_Anomaly_Annotation_vadclip.txt": (290, 140, 16, 0),
    "Temporal_Anomaly_Annotation_New_mist.txt": (290, 140, 16, 1_111_808),
    "UCF_Annotation_urdmu.txt": (290, 140, 16, 1_111_808),
    "Test_Annotation_ekosman.txt": (290, 140, 16, 1_111_808),
    "official_Temporal_Anomaly_Annotation_For_Testing_Videos.zip": (290, 140, 16, 0),
    "seo_test_anomalyv2.txt": (140, 140, 16, 0),
    "seo_test_normalv2.txt": (150, 0, 0, 0),
}
LISTS = {  # file: videos, anomalous
    "annotations/Train_Annotation_ekosman.txt": (1610, 810),
    "annotations/seo_train_anomaly.txt": (810, 810),
    "annotations/seo_train_normal.txt": (800, 0),
    "lists/Anomaly_Train.txt": (1610, 810),
    "lists/Anomaly_Test.txt": (290, 140),
    "lists/rtfm_ucf-i3d.list": (1610, 810),
    "lists/rtfm_ucf-i3d-test.list": (290, 140),
    "lists/urdmu_UCF_Train.list.gz": (1610, 810),
    "lists/urdmu_UCF_Test.list.gz": (290, 140),
    "lists/vadclip_ucf_CLIP_rgb.csv.gz": (1610, 810),
    "lists/vadclip_ucf_CLIP_rgbtest.csv": (290, 140),
}
TOTALS = {
    "full": (1_111_808, 84_182),
    "full_matlab": (1_111_808, 84_338),
    "urdmu": (1_109_680, 84_128),
    "vadclip": (1_109_888, 84_160),
    "rtfm": (1_114_144, 84_389),
    "vera": (1_111_808, 88_094),
}


@needs_data
@pytest.mark.parametrize("file", TIMED)
def test_every_spelling_of_the_official_annotation_says_the_same_intervals(file: str) -> None:
    videos = ucf_crime(DATA / "annotations" / file)
    two = sum(len(video.anomalies or []) == 2 for video in videos)
    frames = sum(video.n_frames or 0 for video in videos)
    assert (len(videos), sum(video.label or 0 for video in videos), two, frames) == TIMED[file]
    official = official_by_hand()
    assert all(video.anomalies == official[video.name] for video in videos)
    assert all((video.category == "Normal") == (video.anomalies == []) for video in videos)


@needs_data
@pytest.mark.parametrize("file", LISTS)
def test_every_list_names_its_videos_once_and_gives_anomalous_ones_no_times(file: str) -> None:
    videos = ucf_crime(DATA / file)
    assert (len(videos), sum(video.label or 0 for video in videos)) == LISTS[file]
    assert len({video.name for video in videos}) == len(videos)
    assert all(video.anomalies == (None if video.label else []) for video in videos)
    assert all(
        video.path is None or (not video.path.is_absolute() and video.path.stem == video.name) for video in videos
    )
    split = "Train" if len(videos) > 290 else "Test"
    official = (DATA / "lists" / f"Anomaly_{split}.txt").read_text().split()
    assert {video.name for video in videos} <= {line.split("/")[-1].removesuffix(".mp4") for line in official}


@needs_data
def test_five_ends_lie_beyond_the_video_and_stay_as_written() -> None:
    videos = ucf_crime(DATA / "annotations" / "UCF_Annotation_urdmu.txt")
    beyond = {
        v.name[:-5]: (v.anomalies[-1][1], v.n_frames) for v in videos if v.anomalies and v.anomalies[-1][1] > v.n_frames
    }
    assert beyond == {
        "Arson011": (1267, 1266),
        "Arson016": (1796, 1795),
        "Explosion033": (3156, 3154),
        "Fighting003": (3103, 3102),
        "Shooting015": (1715, 1713),
    }


@needs_data
def test_vera_and_umil_agree_and_differ_from_the_official_file_in_14_videos() -> None:
    vera, umil = (ucf_crime(DATA / "annotations" / file) for file in ("vera_UCF_Eval.json", "umil_UCF_test.txt"))
    key = {video.name: (video.anomalies, video.category, video.n_frames) for video in vera}
    assert key == {video.name: (video.anomalies, video.category, video.n_frames) for video in umil}
    official = official_by_hand()
    assert (len(key), sum(key[name][0] != official[name] for name in official)) == (290, 14)
    assert key["Burglary076_x264"][0] == [(8400, 9400), (10500, 12600)]


@needs_data
def test_lagovads_fractions_become_the_official_frames_given_the_lengths() -> None:
    path = DATA / "annotations" / "lagovad_ucf_test_anno.json"
    counts = {name: row["frames"] for name, row in lengths(DATA / "ucf_test_lengths.csv").items()}
    assert {video.name: video.anomalies for video in ucf_crime(path, counts)} == official_by_hand()
    assert [video.anomalies for video in ucf_crime(path)].count(None) == 140
    del counts["Abuse028_x264"]
    with pytest.raises(ValueError, match=r"entry 1: Abuse028_x264 has no length"):
        ucf_crime(path, counts)


@needs_data
def test_hivau_seconds_are_the_official_frames_in_116_of_its_128_anomalous_videos() -> None:
    videos = ucf_crime(DATA / "annotations" / "hivau70k_ucf_database_test.json.gz")
    official = official_by_hand()
    assert (len(videos), sum(video.label or 0 for video in videos)) == (251, 128)
    assert sum(video.anomalies == official[video.name] for video in videos if video.label) == 116
    assert {video.fps for video in videos} == {30.0}


@needs_data
def test_the_categories_are_those_of_the_published_label_list() -> None:
    lines = (DATA / "lists" / "ucf_labels.csv").read_text().split()[1:]
    assert sorted([*UCF_CRIME_CATEGORIES, "Normal"]) == [line.split(",")[1] for line in lines]


@needs_data
@pytest.mark.parametrize("file", ["ucf_labels.csv", "pel4vad_ucf_label.list"])
def test_a_list_of_classes_is_not_taken_for_videos(file: str) -> None:
    with pytest.raises(ValueError, match=f"{file}: .*unknown class"):
        ucf_crime(DATA / "lists" / file)


@needs_data
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_totals_of_every_convention_are_the_published_arrays(convention: str) -> None:
    file = "vera_UCF_Eval.json" if convention == "vera" else "Temporal_Anomaly_Annotation.txt"
    length = array_lengths(lengths(DATA / "ucf_test_lengths.csv"), convention)
    labels = frame_labels(ucf_crime(DATA / "annotations" / file), length, convention)
    assert list(labels) == list(length)
    assert all(label.dtype == np.uint8 and len(label) == length[name] for name, label in labels.items())
    assert (sum(map(len, labels.values())), sum(int(label.sum()) for label in labels.values())) == TOTALS[convention]


@needs_data
@pytest.mark.parametrize("convention", ["urdmu", "vadclip", "rtfm"])
def test_array_lengths_by_rule_are_those_of_the_published_arrays(convention: str) -> None:
    rows = lengths(DATA / "ucf_test_lengths.csv")
    assert len(rows) == 290
    for name, row in rows.items():
        assert array_length(row["frames"], row["frames_cv2"], convention, name) == row[f"len_{convention}"]


@pytest.mark.parametrize(
    ("convention", "expected"),
    [
        ("full", [*range(3, 5), *range(30, 33)]),
        ("urdmu", [*range(3, 5), *range(30, 33)]),
        ("vadclip", [*range(3, 5), *range(30, 33)]),
        ("vera", [*range(3, 5), *range(30, 33)]),
        ("full_matlab", [*range(2, 5), *range(29, 33)]),  # frames 3 to 5 and 30 to 33 counted from 1
        ("rtfm", [*range(3, 6), *range(30, 40)]),  # inclusive ends; 7 frames are left after the last, so they join
    ],
)
def test_each_convention_marks_the_frames_of_its_definition(convention: str, expected: list[int]) -> None:
    video = Video("Abuse001_x264", label=1, anomalies=[(3, 5), (30, 33)])
    label = frame_labels([video], {"Abuse001_x264": 40}, convention)["Abuse001_x264"]
    assert np.flatnonzero(label).tolist() == expected


def test_rtfm_leaves_the_tail_normal_when_16_frames_follow_the_event() -> None:
    video = Video("Abuse001_x264", label=1, anomalies=[(3, 24)])
    assert frame_labels([video], {"Abuse001_x264": 40}, "rtfm")["Abuse001_x264"].sum() == 22
    assert frame_labels([video], {"Abuse001_x264": 39}, "rtfm")["Abuse001_x264"].sum() == 36


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_an_end_beyond_the_array_is_clipped(convention: str) -> None:
    video = Video("Abuse001_x264", label=1, anomalies=[(0, 99)])
    assert frame_labels([video], {"Abuse001_x264": 32}, convention)["Abuse001_x264"].tolist() == [1] * 32


def test_a_name_without_a_video_is_normal_only_where_it_says_so() -> None:
    labels = frame_labels([], {"Normal_Videos_003_x264": 4, "Some.Film__#00-01-02_00-02-03_label_A": 3})
    assert [label.tolist() for label in labels.values()] == [[0] * 4, [0] * 3]
    for name in ("Abuse001_x264", "Some.Film__#1_label_B1-0-0", "Some.Film_label_Ab"):
        with pytest.raises(ValueError, match=f"{name} is not annotated"):
            frame_labels([], {name: 4})


@pytest.mark.parametrize(
    ("video", "frames", "words"),
    [
        (Video("Abuse001_x264", label=1, anomalies=None), 9, "not annotated in time"),
        (Video("Abuse001_x264", label=1, anomalies=[]), 9, "not annotated in time"),
        (Video("Abuse001_x264"), 9, "not annotated in time"),
        (Video("Abuse001_x264", label=0, anomalies=[(1, 2)]), 9, "is normal, yet"),
        (Video("Abuse001_x264", label=1, anomalies=[(5, 3)]), 9, "5-3"),
        (Video("Abuse001_x264", label=1, anomalies=[(-4, 3)]), 9, "-4-3"),
        (Video("Abuse001_x264", label=1, anomalies=[(9, 12)]), 9, "the array has 9"),
        (Video("Abuse001_x264", label=1, anomalies=[(1, 2)]), 0, "length 0"),
        (Video("Abuse001_x264", label=1, anomalies=[(1, 2)]), 7.5, "length 7.5"),
    ],
)
def test_a_video_that_cannot_be_labelled_is_named(video: Video, frames: int, words: str) -> None:
    with pytest.raises(ValueError, match=f"Abuse001_x264.*{words}"):
        frame_labels([video], {"Abuse001_x264": frames})


def test_videos_without_length_or_given_twice_and_unknown_conventions_are_refused() -> None:
    videos = [Video(f"Abuse{number:03}_x264", label=1, anomalies=[(1, 2)]) for number in range(12)]
    with pytest.raises(ValueError, match=r"12 videos: Abuse000_x264 has no length; .*Abuse009_x264 .*; and 2 more"):
        frame_labels(videos, {})
    with pytest.raises(ValueError, match="Abuse000_x264 is given twice"):
        frame_labels(videos[:1] * 2, {"Abuse000_x264": 3})
    with pytest.raises(ValueError, match="'ful' is unknown; expected one of full, full_matlab"):
        frame_labels([], {}, "ful")
    with pytest.raises(ValueError, match="unknown"):
        array_length(100, 101, "sultani", "Abuse001_x264")
    with pytest.raises(ValueError, match="OpenCV"):
        array_length(100, None, "urdmu", "Abuse001_x264")
    with pytest.raises(ValueError, match="12 frames"):
        array_length(12, 13, "vadclip", "Abuse001_x264")


def test_runs_of_labels_give_back_the_intervals() -> None:
    assert anomalous_runs(np.array([1, 1, 0, 0, 1, 0, 1])) == [(0, 2), (4, 5), (6, 7)]
    assert anomalous_runs(np.zeros(5)) == []
    video = Video("Abuse001_x264", label=1, anomalies=[(2, 9), (11, 20)])
    assert anomalous_runs(frame_labels([video], {"Abuse001_x264": 25})["Abuse001_x264"]) == video.anomalies


@pytest.mark.parametrize("change", ["plain", "crlf", "bom", "gzip", "zip", "no_newline", "tabs"])
def test_line_ends_bom_and_packing_change_nothing(tmp_path: Path, change: str) -> None:
    text = OFFICIAL + NORMAL
    plain = ucf_crime(write(tmp_path, text))
    path = tmp_path / "changed"
    if change == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("Txt_formate/annotation.txt", text)
    elif change == "gzip":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        changes = {"crlf": text.replace("\n", "\r\n"), "bom": "\ufeff" + text, "no_newline": text.strip()}
        changes["tabs"] = text.replace("  ", "\t")
        path.write_text(changes.get(change, text), encoding="utf-8", newline="")
    assert ucf_crime(path) == plain
    assert [video.anomalies for video in plain] == [[(165, 240)], []]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Abuse030_x264.mp4  Abuse  1275  1360  -1", "line 3: 5 columns, not 6"),
        ("Abuse030_x264.mp4", "line 3: 1 columns, not 6"),
        ("Abuse030_x264.mp4  Abuse  12x5  1360  -1  -1", "line 3: s1 is '12x5', not a whole number"),
        ("Abuse030_x264.mp4  Abuse  12.5  1360  -1  -1", "line 3: s1 is '12.5'"),
        ("Abuse030_x264.mp4  Abuse  1360  1275  -1  -1", "line 3: .*1360-1275"),
        ("Abuse030_x264.mp4  Abuse  1360  1360  -1  -1", "line 3: .*1360-1360"),
        ("Abuse030_x264.mp4  Abuse  -1  1360  -1  -1", "line 3: .*-1-1360"),
        ("Abuse030_x264.mp4  Abuse  -1  -1  -1  -1", "line 3: Abuse030_x264 is Abuse with intervals"),
        ("Normal_Videos_064_x264.mp4  Normal  1  2  -1  -1", "line 3: Normal_Videos_064_x264 is Normal with intervals"),
        ("Abuse030_x264.mp4  Juggling  1275  1360  -1  -1", "line 3: unknown class .*Juggling"),
        ("Abuse030_x264.mp4  Arson  1275  1360  -1  -1", "line 3: .* said to be Abuse and Arson"),
        ("Abuse028_x264.mp4  Abuse  165  240  -1  -1", "line 3: Abuse028_x264 again, first in line 1"),
        ("../Abuse030_x264.mp4  Abuse  1275  1360  -1  -1", "line 3: .*not a file name below"),
        ("/home/me/Abuse030_x264.mp4  Abuse  1275  1360  -1  -1", "line 3: .*absolute"),
        ("C:\\UCF\\Abuse030_x264.mp4  Abuse  1275  1360  -1  -1", "line 3: .*absolute"),
        ("Abuse030\0_x264.mp4  Abuse  1275  1360  -1  -1", "line 3: .*not a file name"),
        ("Abuse/.mp4  Abuse  1275  1360  -1  -1", "line 3: .*names no video"),
    ],
)
def test_a_bad_line_is_named_with_what_was_expected(tmp_path: Path, line: str, words: str) -> None:
    with pytest.raises(
        ValueError, match=rf"list\.txt: 1 bad of 3: {words}(.|\n)*Expected `path  class  s1  e1  s2  e2`"
    ):
        ucf_crime(write(tmp_path, f"{OFFICIAL}{NORMAL}{line}\n"))


def test_all_bad_lines_come_in_one_error_ten_of_them_shown(tmp_path: Path) -> None:
    text = OFFICIAL + "".join(f"Arson{number:03}_x264.mp4  Arson  9  3  -1  -1\n" for number in range(12)) + NORMAL
    with pytest.raises(ValueError, match=r"12 bad of 14: line 2: .*; line 11: .*; and 2 more\. Expected") as error:
        ucf_crime(write(tmp_path, text))
    assert "line 12" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Abuse/Abuse028_x264.mp4 1412 Abuse 2000 2400 -1 -1\n", "starts beyond its 1412 frames"),
        ("Abuse/Abuse028_x264.mp4 0 Abuse 165 240 -1 -1\n", "has 0 frames"),
        ("Arson/Abuse028_x264.mp4 1412\n", "said to be Abuse and Arson"),
        ("frames/Abuse/Abuse028_x264.mp4 1412 2 165 240 -1 -1\n", "said to be Abuse and Arrest"),
        ("frames/Abuse/Abuse028_x264.mp4 1412 14 165 240 -1 -1\n", "unknown class_id 14"),
        ("Abuse/Abuse028_x264.mp4|1413|[165, 240, 300]\n", "not pairs"),
        ("Abuse/Abuse028_x264.mp4|1413|[165, 24\n", "no list of frames"),
        ("Abuse/Abuse028_x264.mp4|0|[165, 240]\n", "it has 0 frames"),
        ("Abuse/Abuse028_x264.mp4 1413 -1\n", "is Abuse with intervals"),
        ("Normal_Videos_event/Normal_Videos_003_x264.mp4 1413 0\n", "last column is '0', not -1"),
        ("clips/holiday.mp4\n", "unknown class of 'clips/holiday.mp4': none given"),
        ("Abuse/Abuse001_x264.mp4\nabuse/Abuse001_x264.mp4\n", "line 2: Abuse001_x264 again"),
        ("path,label\n/x/Abuse/Abuse028_x264__5.npy,Arson\n", "line 2: .*said to be Abuse and Arson"),
        ("path,label\n", "no videos in it"),
        ("dataset/../../Abuse/Abuse028_x264__0.npy\n", "not a file name below"),
        ("", "no videos in it"),
        ("\n\n", "no videos in it"),
        ("[]", "no videos in it"),
        ("[", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": {"n_frames": 1}, "a": {"n_frames": 2}}', "'a' twice"),
        ('[{"video": "frames/Abuse/Abuse028_x264.mp4", "length": 1412}]', "entry 1: .*temporal_label"),
        ('["frames/Abuse/Abuse028_x264.mp4"]', "entry 1: "),
        ('[{"video": "Abuse028_x264", "temporal_label": [1.5, 4, -1, -1], "length": 9}]', "1.5, not a whole number"),
        ('[{"video_path": "Abuse028_x264.mp4", "class_name": "Abuse", "anomaly_span": [[0.5, NaN]]}]', "nan"),
        ('[{"video_path": "Abuse028_x264.mp4", "class_name": "Abuse", "anomaly_span": []}]', "is Abuse with"),
    ],
)
def test_what_no_spelling_allows_is_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=rf"list\.txt: .*{words}"):
        ucf_crime(write(tmp_path, text))


def test_damaged_foreign_and_missing_files_are_refused(tmp_path: Path) -> None:
    packed = gzip.compress(OFFICIAL.encode() * 100)
    cases = {
        "cut.gz": (packed[:-20], "damaged"),
        "broken.gz": (packed[:30] + b"xxxx" + packed[34:], "damaged"),
        "cut.zip": (b"PK\x03\x04 and nothing more", "damaged"),
        "utf16.txt": (OFFICIAL.encode("utf-16"), "not UTF-8"),
        "latin.txt": ("Caf\xe9".encode("latin-1"), "byte 3 is not UTF-8"),
        "huge.gz": (gzip.compress(b"\n" * (16 * 2**20 + 1)), "more than 16 MiB"),
    }
    for name, (data, words) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: .*{words}"):
            ucf_crime(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("ReadMe.docx", "x")
    with pytest.raises(ValueError, match=r"0 \.txt files in the zip"):
        ucf_crime(tmp_path / "empty.zip")
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(FileNotFoundError, match="expected an annotation"):
            ucf_crime(path)


def test_crops_and_others_paths_come_down_to_the_video(tmp_path: Path) -> None:
    text = "".join(f"/home/x/UCFClipFeatures/Abuse/Abuse028_x264__{crop}.npy,Abuse\r\n" for crop in range(10))
    video = Video("Abuse028_x264", label=1, category="Abuse")
    assert ucf_crime(write(tmp_path, "path,label\r\n" + text, "list.csv")) == [video]
    assert ucf_crime(write(tmp_path, "G:\\UCF_Test_ten_crop_i3d\\Abuse028_x264_i3d.npy\r\n")) == [video]


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("Abuse/Abuse028_x264.mp4", "Abuse028_x264"),
        ("Abuse028_x264", "Abuse028_x264"),
        ("G:\\UCF\\Abuse028_x264_i3d.npy", "Abuse028_x264"),
        ("dataset/Abuse/Abuse028_x264__7.npy", "Abuse028_x264"),
        ("Bad.Boys.1995__#00-26-51_00-27-53_label_B2-0-0__0.npy", "Bad.Boys.1995__#00-26-51_00-27-53_label_B2-0-0"),
        ("Thelma...Louise__#1.mp4", "Thelma...Louise__#1"),
    ],
)
def test_a_video_is_called_by_its_name_alone(file: str, name: str) -> None:
    assert video_name(file) == name


def test_lengths_are_read_with_and_without_a_header(tmp_path: Path) -> None:
    plain = lengths(write(tmp_path, "Abuse028_x264.mp4,1412\r\nAbuse030_x264,1544\r\n"))
    assert plain == {"Abuse028_x264": {"frames": 1412}, "Abuse030_x264": {"frames": 1544}}
    headed = lengths(write(tmp_path, "name,category,frames,frames_cv2\nAbuse028_x264,Abuse,1412,1413\n"))
    assert headed == {"Abuse028_x264": {"frames": 1412, "frames_cv2": 1413}}
    assert array_lengths(headed, "urdmu") == {"Abuse028_x264": 1408}
    for text, words in [
        ("Abuse028_x264,1412\nAbuse028_x264,1412\n", "line 2: Abuse028_x264 again"),
        ("Abuse028_x264,many\n", "'many', not a whole number"),
        ("Abuse028_x264,0\n", "at least 1"),
        ("Abuse028_x264\n", "1 columns, not 2"),
        ("name,seconds\nAbuse028_x264,12\n", "expected `name`, `frames`"),
        ("", "no videos"),
    ]:
        with pytest.raises(ValueError, match=words):
            lengths(write(tmp_path, text))


def test_annotations_are_read_without_torch() -> None:
    code = "import sys, vigil.annotations, vigil.features; sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[1]).returncode == 0


@pytest.mark.parametrize("seed", range(20))
def test_random_damage_to_a_file_is_an_error_or_a_list_of_videos_never_another_exception(
    tmp_path: Path, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    entry = {"video": "frames/Abuse/Abuse028_x264.mp4", "temporal_label": [165, 240, -1, -1], "length": 1412}
    for text in (OFFICIAL + NORMAL, json.dumps([entry]), "Abuse/Abuse028_x264.mp4|1413|[165, 240]\n"):
        data = np.frombuffer(text.encode(), dtype=np.uint8).copy()
        where = rng.integers(len(data), size=3)
        data[where] = rng.integers(256, size=3)
        path = tmp_path / "damaged"
        path.write_bytes(data.tobytes())
        with contextlib.suppress(ValueError):
            for video in ucf_crime(path):
                assert video_name(video.name) == video.name
                assert all(0 <= first < end for first, end in video.anomalies or [])
