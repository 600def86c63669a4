"""What no reader of annotation lets through: damage of every kind ends in one error that names file and lines."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from vigil import annotations
from vigil.annotation_files import drop_crops, split_path
from vigil.annotations import (
    lengths,
    shanghaitech,
    ubnormal,
    ubnormal_tracks,
    uca,
    uca_events,
    ucf_crime,
    ucsd_ped2,
    xd_violence,
    xd_violence_classes,
)

Reader = Callable[[Path], Any]
GOOD: dict[Reader, str] = {
    ucf_crime: "Abuse028_x264.mp4  Abuse  165  240  -1  -1\nNormal_Videos_063_x264.mp4  Normal  -1  -1  -1  -1\n",
    xd_violence: "v=x__#1_label_B4-0-0 0 1517 1970 3038\nA.Film__#0-00-00_0-01-00_label_G-B2-0.mp4 624 912\n",
    xd_violence_classes: "v=x__#1_label_B4-0-0 B4 0 1517 B4 1970 3038\nv=y__#1_label_G-B2-0 B2 624 912\n",
    uca_events: "Abuse001_x264 00:01.2 01:00:02.5 ##A man\nArson002_x264 0:01.2 00:02.5 ## Fire.\n",
    uca: "Abuse001_x264 00:01.2 01:00:02.5 ##A man\nArson002_x264 0:01.2 00:02.5 ## Fire.\n",
    shanghaitech: "01_001,0\n01_0015,1\n",
    ubnormal: "abnormal_scene_1_scenario_1\nnormal_scene_1_scenario_2_fog\n",
    ubnormal_tracks: "1,10,20\n2,15,40\n",
    ucsd_ped2: "TestVideoFile{end+1}.gt_frame = [61:180];\nTestVideoFile{end+1}.gt_frame = [1:48, 91:200];\n",
    lengths: "Abuse028_x264,1412\nAbuse030_x264.mp4,1544\n",
}
readers = pytest.mark.parametrize("read", GOOD, ids=lambda read: read.__name__)
HOSTILE = ("../{}", "a/../../{}", "/etc/{}", "C:\\data\\{}", "..\\{}", "{}\0", "{}\x1b[2J", "")
NAMES = {  # a line around a name, and a name it takes
    ucf_crime: ("{}  Abuse  165  240  -1  -1", "Abuse029_x264.mp4"),
    xd_violence: ("{} 3 9", "v=z__#1_label_B1-0-0"),
    uca_events: ("{} 00:01.2 00:02.5 ##A man", "Abuse002_x264"),
    shanghaitech: ("{},1", "01_0016"),
    ubnormal: ("{}", "abnormal_scene_2_scenario_1"),
    lengths: ("{},12", "Abuse031_x264"),
}


def write(folder: Path, content: str | bytes, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@readers
def test_line_ends_a_byte_order_mark_blank_lines_and_gzip_change_nothing(read: Reader, tmp_path: Path) -> None:
    text = GOOD[read]
    plain = read(write(tmp_path, text))
    assert len(plain) == 2
    changed = [text.replace("\n", "\r\n"), "\ufeff" + text, text.strip(), "\n" + text.replace("\n", "\n \n")]
    for content in (*changed, gzip.compress(text.encode())):
        again = read(write(tmp_path, content))
        if read is uca_events:  # an event also says its line
            again = [(event.video, event.start_s, event.sentence) for event in again]
            assert again == [(event.video, event.start_s, event.sentence) for event in plain]
        else:
            assert again == plain


@readers
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no videos in it"),
        (b" \n\t\n\r\n", "no videos in it"),
        ("Caf\xe9 1 2\n".encode("latin-1"), "byte 3 is not UTF-8"),
        ("abc\n".encode("utf-16"), "byte 0 is not UTF-8"),
        ("abc\n".encode("utf-16-le"), "line 1: "),  # valid UTF-8, of letters and NUL
        (b"\x93NUMPY\x01\x00v\x00", "not UTF-8"),
        (b"PK\x03\x04 and nothing more", "damaged"),
        (gzip.compress(b"abc\n" * 100)[:-9], "damaged"),
        (gzip.compress(b"\n" * (16 * 2**20 + 1)), "more than 16 MiB"),
        (b"<html><body>404: Not Found</body></html>\n", "line 1: "),
        (b"x\n" * 1_000_000, "more than 500000 lines"),
        (b"x" * (17 * 2**20), "more than 16 MiB"),
        (b"x" * 2**20, "line 1: .{,600}$"),
    ],
    ids=["empty", "blank", "latin", "utf16", "utf16le", "npy", "zip", "gzip", "bomb", "html", "lines", "size", "long"],
)
def test_an_empty_damaged_foreign_or_endless_file_is_one_error(
    read: Reader, content: bytes, words: str, tmp_path: Path
) -> None:
    start = time.process_time()
    with pytest.raises(ValueError, match=rf"^list\.txt: .*{words}"):
        read(write(tmp_path, content))
    assert time.process_time() - start < 2  # 0.1 s here; a loop over a million lines takes more


@readers
def test_a_missing_file_and_a_folder_are_not_found(read: Reader, tmp_path: Path) -> None:
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(FileNotFoundError, match="no such file; expected"):
            read(path)


@pytest.mark.parametrize(
    ("read", "line", "words"),
    [
        (ucf_crime, "Abuse030_x264.mp4  Abuse  1275  1360  -1", "5 columns, not 6"),
        (ucf_crime, "Abuse030_x264.mp4  Abuse  12x5  1360  -1  -1", "'12x5', not a whole number"),
        (ucf_crime, "Abuse030_x264.mp4  Abuse  1360  1275  -1  -1", "1360-1275"),
        (ucf_crime, "Abuse030_x264.mp4  Juggling  1275  1360  -1  -1", "unknown class .*Juggling"),
        (ucf_crime, "Abuse028_x264.mp4  Abuse  165  240  -1  -1", "Abuse028_x264 again, first in line 1"),
        (xd_violence, "v=z__#1_label_B4-0-0 0 1517 1970", "not pairs of first and end"),
        (xd_violence, "v=z__#1_label_B4-0-0", "with intervals \\[\\]"),
        (xd_violence, "v=z__#1_label_B4-0-0 0 15.5", "'15.5', not a whole number"),
        (xd_violence, "v=z__#1_label_B4-0-0 0 \uff11\uff15", "not a whole number"),  # digits, but no ASCII
        (xd_violence, "v=z__#1_label_B4-0-0 1517 0", "1517-0"),
        (xd_violence, "v=z__#1_label_B3-0-0 0 1517", "unknown class of 'v=z__#1_label_B3-0-0'"),
        (xd_violence, "v=z__#1 0 1517", "unknown class of 'v=z__#1'"),
        (xd_violence, "v=z__#1_label_A 0 1517", "is Normal with intervals"),
        (xd_violence, "v=x__#1_label_B4-0-0.mp4 0 1517 1970 3038", "label_B4-0-0 again, first in line 1"),
        (xd_violence_classes, "v=z__#1_label_B4-0-0 B4 0 1517 B4 1970", "is not a class, a first and an end"),
        (xd_violence_classes, "v=z__#1_label_B4-0-0 B3 0 1517", "unknown class 'B3'"),
        (xd_violence_classes, "v=z__#1_label_B4-0-0 B4 1517 0", "1517-0"),
        (uca_events, "Abuse002_x264 00:01.2 ##A man", "is not an event"),
        (uca_events, "Abuse002_x264 00:01.2 00:02.5 A man", "is not an event"),
        (uca_events, "Abuse002_x264 00:01.2 00:ab.5 ##A man", "is not an event"),
        (uca_events, "Abuse002_x264 00:01.2 1:2:3:4.5 ##A man", "'1:2:3:4.5' is not a time"),
        (uca_events, "Abuse002_x264 00:02.5 00:01.2 ##A man", "2.5-1.2 s is not 0 <= start < end"),
        (uca_events, "Abuse002_x264 00:01.2 00:02.5 ## ", "no sentence"),
        (uca_events, "Juggling002_x264 00:01.2 00:02.5 ##A man", "unknown class of 'Juggling002_x264'"),
        (shanghaitech, "01_0016", "1 columns, not 2"),
        (shanghaitech, "01_0016,yes", "has is_anomalous 'yes', its name says 1"),
        (shanghaitech, "01_0016,0", "has is_anomalous '0', its name says 1"),
        (shanghaitech, "01_16,1", "unknown name '01_16'"),
        (shanghaitech, "01_0015,1", "01_0015 again, first in line 2"),
        (ubnormal, "abnormal_scene_1_scenario_2 3", "2 columns, not 1"),
        (ubnormal, "strange_scene_1_scenario_2", "unknown name"),
        (ubnormal, "abnormal_scene_1_scenario_1", "again, first in line 1"),
        (ubnormal_tracks, "1,10", "2 columns, not 3"),
        (ubnormal_tracks, "1,ten,20", "start is 'ten', not a whole number"),
        (ubnormal_tracks, "1,10.5,20", "start is '10.5'"),
        (ubnormal_tracks, "1,-3,20", "start is '-3'"),
        (ubnormal_tracks, "3,21,20", "object 3: the end 20 is before the start 21"),
        (ubnormal_tracks, "1,10,20", "object 1 from 10 to 20 again"),
        (ucsd_ped2, "TestVideoFile{end+1}.gt_frame = 61:180;", "is not the ranges of a clip"),
        (ucsd_ped2, "TestVideoFile{end+1}.gt_frame = [61:x];", "'61:x' is no range"),
        (ucsd_ped2, "TestVideoFile{end+1}.gt_frame = [61];", "'61' is no range"),
        (ucsd_ped2, "TestVideoFile{end+1}.gt_frame = [180:61];", "180:61 is not 1 <= first <= last"),
        (ucsd_ped2, "TestVideoFile{end+1}.gt_frame = [0:61];", "0:61 is not 1 <= first <= last"),
        (lengths, "Abuse031_x264", "1 columns, not 2"),
        (lengths, "Abuse031_x264,many", "'many', not a whole number"),
        (lengths, "Abuse031_x264,0", "at least 1 frame"),
        (lengths, "Abuse028_x264,1412", "Abuse028_x264 again"),
    ],
)
def test_a_bad_line_is_named(read: Reader, line: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^list\.txt: 1 bad of 3: line 3: .*{words}.*Expected"):
        read(write(tmp_path, GOOD[read] + line + "\n"))


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("read", NAMES, ids=lambda read: read.__name__)
def test_a_name_never_becomes_a_path_outside_the_data(read: Reader, name: str, tmp_path: Path) -> None:
    line, good = NAMES[read]
    text = GOOD[read] + line.format(name.format(good)) + "\n"
    if name or line != "{}":  # a blank line is none
        with pytest.raises(ValueError, match=r"^list\.txt: .*line 3"):
            read(write(tmp_path, text))
    assert len(read(write(tmp_path, GOOD[read] + line.format(good) + "\n"))) == 3


@pytest.mark.parametrize("read", [ucf_crime, xd_violence, uca_events, ubnormal], ids=lambda read: read.__name__)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no videos in it"),
        ("{}", "no videos in it"),
        ("[1]", "entry 1: "),
        ("[" + "1," * 500_000 + "1]", "more than 500000 entries"),
        ('[{"video": 1}]', "entry 1: "),
        ('{"a": {"x": 1}, "a": {"x": 2}}', "'a' twice"),
        ('[{"video_path": "../x.mp4", "class_name": "Normal", "anomaly_span": []}]', "entry 1: "),
        ('[{"video_path": "x.mp4", "class_name": [1], "anomaly_span": [[0, 1e999]]}]', "entry 1: "),
    ],
)
def test_bad_json_is_one_error(read: Reader, text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^list\.txt: .*{words}"):
        read(write(tmp_path, text))


@readers
def test_all_bad_lines_are_counted_and_ten_are_shown(read: Reader, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"12 bad of 14: line 3: .* line 12: .*; and 2 more") as error:
        read(write(tmp_path, GOOD[read] + "?? ?? ??\n" * 12))
    assert len(re.findall(r"line \d+: ", str(error.value))) == 10


@readers
@pytest.mark.parametrize("seed", range(5))
def test_random_damage_is_an_error_or_a_reading_never_another_exception(
    read: Reader, seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    for content in (GOOD[read].encode(), gzip.compress(GOOD[read].encode())):
        data = np.frombuffer(content, dtype=np.uint8).copy()
        data[rng.integers(len(data), size=2)] = rng.integers(256, size=2)
        with contextlib.suppress(ValueError):
            assert read(write(tmp_path, data.tobytes()))


def test_a_damaged_mat_file_is_an_error_or_a_reading_never_another_exception(tmp_path: Path) -> None:
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = np.array([[61], [180]]), np.array([[1, 91], [48, 200]])
    for compressed in (False, True):
        scipy.io.savemat(tmp_path / "good.mat", {"gt": cells}, do_compression=compressed)
        good = (tmp_path / "good.mat").read_bytes()
        assert [video.anomalies for video in ucsd_ped2(tmp_path / "good.mat")] == [[(60, 180)], [(0, 48), (90, 200)]]
        rng = np.random.default_rng(0)
        for _ in range(100):
            data = np.frombuffer(good, dtype=np.uint8).copy()
            data[rng.integers(128, len(data), size=2)] = rng.integers(256, size=2)
            with contextlib.suppress(ValueError):
                ucsd_ped2(write(tmp_path, data.tobytes(), "damaged.mat"))
        for cut in range(0, len(good), 7):
            with pytest.raises(ValueError, match=r"cut\.mat: "):
                ucsd_ped2(write(tmp_path, good[:cut], "cut.mat"))


def test_further_crops_are_dropped_and_the_same_line_twice_is_left() -> None:
    lines = ["a__0.npy,x", "a__1.npy,x", "b__5.npy", "a__2.npy,y", "a__10.npy,x", "c__#1_label_A", "a__1.npy,x"]
    left = drop_crops([(f"line {number}", line) for number, line in enumerate(lines, 1)])
    assert [place for place, _ in left] == ["line 1", "line 3", "line 4", "line 6", "line 7"]


@pytest.mark.parametrize(
    ("spelled", "name", "path"),
    [
        ("Abuse/Abuse001_x264.mp4", "Abuse001_x264", Path("Abuse/Abuse001_x264.mp4")),
        ("G:\\features\\Abuse001_x264_i3d.npy", "Abuse001_x264", None),
        ("Thelma...Louise__#1_label_A", "Thelma...Louise__#1_label_A", None),
        ("Thelma...Louise__#1_label_A.mp4", "Thelma...Louise__#1_label_A", None),
    ],
)
def test_a_spelled_path_is_a_name_and_a_relative_path(spelled: str, name: str, path: Path | None) -> None:
    assert split_path(spelled) == (name, path)


def test_the_official_zip_is_read_as_its_one_text_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "list.zip", "w") as archive:
        archive.writestr("../../outside.txt", GOOD[xd_violence])  # only read, never unpacked
    assert len(xd_violence(tmp_path / "list.zip")) == 2


def test_every_name_of_the_front_door_is_there() -> None:
    assert all(hasattr(annotations, name) for name in annotations.__all__)
    assert json.dumps(sorted(set(annotations.__all__))) == json.dumps(sorted(annotations.__all__))
