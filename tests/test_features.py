"""Feature files in every shape the field ships, against plain loops and against the real C3D features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vigil.features import find_features, read_features, snippet_spans, to_segments

C3D = Path(__file__).parents[2] / "shared" / "data" / "ucf_crime" / "features" / "c3d_fc6_sample10_32x4096.npz"
needs_c3d = pytest.mark.skipif(not C3D.is_file(), reason="needs ../shared/data/ucf_crime/features")


def crops_of(rows: int = 7, width: int = 4) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, 10, width)).astype(np.float32)


def write_c3d_text(path: Path, features: np.ndarray) -> Path:
    """As the authors' files: six decimals at least, one blank after every number, also the last."""
    path.write_text("".join("".join(f"{value:.9g} " for value in row) + "\n" for row in features.tolist()))
    return path


@needs_c3d
def test_real_c3d_features_read_the_same_from_text_npy_and_npz(tmp_path: Path) -> None:
    with np.load(C3D, allow_pickle=False) as archive:
        names, features = archive["names"].tolist(), archive["features"]
    assert features.shape == (10, 32, 4096)
    for name, feature in zip(names[:2], features[:2], strict=True):
        np.save(tmp_path / f"{name}.npy", feature)
        np.savez(tmp_path / f"{name}.npz", features=feature, fps=np.float32(30))
        write_c3d_text(tmp_path / f"{name}.txt", feature)
        for suffix in ("npy", "npz", "txt"):
            read = read_features(tmp_path / f"{name}.{suffix}")
            assert read.dtype == np.float32
            assert np.array_equal(read, feature)


@needs_c3d
def test_a_bundle_of_ten_videos_is_not_taken_for_ten_crops() -> None:
    with pytest.raises(ValueError, match=r"c3d_fc6.*npz.* several videos"):
        read_features(C3D)


@pytest.mark.parametrize("layout", ["rows_first", "crops_first", "files"])
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_ten_crops_in_every_layout_give_their_mean_or_one_of_them(tmp_path: Path, layout: str, suffix: str) -> None:
    crops = crops_of()
    save = np.save if suffix == "npy" else np.savez
    path = tmp_path / f"Abuse001_x264_i3d.{suffix}"
    if layout == "files":
        for crop in range(10):
            save(tmp_path / f"Abuse001_x264__{crop}.{suffix}", crops[:, crop])
        path = tmp_path / f"Abuse001_x264__5.{suffix}"
    else:
        save(path, crops if layout == "rows_first" else crops.transpose(1, 0, 2))
    mean = np.zeros((7, 4))
    for row in range(7):
        for crop in range(10):
            mean[row] += crops[row, crop].astype(np.float64) / 10
    np.testing.assert_allclose(read_features(path), mean, rtol=1e-6, atol=1e-7)
    assert np.array_equal(read_features(path, crops=3), crops[:, 3])
    # the center is the third crop of a stack, and the file __0 of a set
    assert np.array_equal(read_features(path, crops="center"), crops[:, 0 if layout == "files" else 2])


def test_features_without_crops_are_read_as_they_are(tmp_path: Path) -> None:
    features = crops_of()[:, 0]
    for dtype in (np.float16, np.float32, np.float64):
        np.save(tmp_path / "a.npy", features.astype(dtype))
        for crops in ("mean", "center", 0):
            assert np.array_equal(read_features(tmp_path / "a.npy", crops), features.astype(dtype).astype(np.float32))
    with pytest.raises(ValueError, match=r"a\.npy: shape \(7, 4\) holds one crop"):
        read_features(tmp_path / "a.npy", crops=4)


def test_where_ten_rows_meet_ten_crops_the_axis_must_be_said(tmp_path: Path) -> None:
    crops = crops_of(rows=10)
    np.save(tmp_path / "a.npy", crops)
    with pytest.raises(ValueError, match=r"a\.npy: shape \(10, 10, 4\) leaves open .* crop_axis 0 or 1"):
        read_features(tmp_path / "a.npy")
    np.testing.assert_allclose(read_features(tmp_path / "a.npy", crop_axis=1), crops.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(read_features(tmp_path / "a.npy", crop_axis=0), crops.mean(axis=0), atol=1e-6)


def test_another_number_of_crops_needs_the_axis_too(tmp_path: Path) -> None:
    crops = crops_of()[:, :5]
    np.save(tmp_path / "a.npy", crops)
    with pytest.raises(ValueError, match=r"\(7, 5, 4\) leaves open"):
        read_features(tmp_path / "a.npy")
    assert np.array_equal(read_features(tmp_path / "a.npy", "center", crop_axis=1), crops[:, 2])
    with pytest.raises(ValueError, match="which of 7 crops is the center"):
        read_features(tmp_path / "a.npy", "center", crop_axis=0)
    with pytest.raises(ValueError, match="crop 5 of 5"):
        read_features(tmp_path / "a.npy", 5, crop_axis=1)
    with pytest.raises(ValueError, match="crop_axis is 2"):
        read_features(tmp_path / "a.npy", crop_axis=2)


@pytest.mark.parametrize("crops", ["median", -1, True, 2.0])
def test_an_unknown_choice_of_crops_is_refused(tmp_path: Path, crops: object) -> None:
    np.save(tmp_path / "a.npy", crops_of())
    with pytest.raises(ValueError, match="expected mean, center or the number"):
        read_features(tmp_path / "a.npy", crops)  # type: ignore[arg-type]


def test_an_incomplete_or_inconsistent_set_of_crops_is_refused(tmp_path: Path) -> None:
    crops = crops_of()
    for crop in range(9):
        np.save(tmp_path / f"a__{crop}.npy", crops[:, crop])
    with pytest.raises(ValueError, match=r"a__0\.npy: crops \[0, 1, .*8\].* not all of 0-4 or 0-9"):
        read_features(tmp_path / "a__0.npy")
    with pytest.raises(ValueError, match="crop 9 is not among"):
        read_features(tmp_path / "a__0.npy", crops=9)
    np.save(tmp_path / "a__9.npy", crops[:5, 9])
    with pytest.raises(ValueError, match=r"a__9\.npy: shape \(5, 4\), a__0\.npy \(7, 4\)"):
        read_features(tmp_path / "a__0.npy")
    np.save(tmp_path / "b__5.npy", crops[:, 5])
    assert np.array_equal(read_features(tmp_path / "b__5.npy", crops=5), crops[:, 5])


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.array([{"a": 1}, [2]], dtype=object), "without pickle"),
        (np.array([["a", "b"]]), "type <U1"),
        (np.array([[1j]]), "type complex128"),
        (np.ones((2, 2), dtype=bool), "type bool"),
        (np.ones(4), r"shape \(4,\)"),
        (np.float32(1), r"shape \(\)"),
        (np.ones((2, 2, 2, 2)), r"shape \(2, 2, 2, 2\)"),
        (np.ones((0, 4)), r"shape \(0, 4\)"),
        (np.ones((4, 0)), r"shape \(4, 0\)"),
        (np.ones((3, 10, 0)), r"shape \(3, 10, 0\)"),
        (np.array([[1, 2], [np.nan, 2], [1, np.inf]]), "2 rows hold NaN or infinity, the first is row 1"),
        (np.array([[1e300, 2]]), "1 rows hold NaN or infinity"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_what_is_not_finite_numbers_in_rows_is_refused(
    tmp_path: Path, array: np.ndarray, words: str, suffix: str
) -> None:
    path = tmp_path / f"a.{suffix}"
    (np.save if suffix == "npy" else np.savez)(path, array)
    with pytest.raises(ValueError, match=rf"a\.{suffix}: .*{words}"):
        read_features(path)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.npy", b"", "not readable"),
        ("a.npy", b"not an array at all", "not readable"),
        ("a.npz", b"", "not readable"),
        ("a.npz", b"PK\x03\x04 and nothing more", "not readable"),
        ("a.npz", b"\x93NUMPY", "not readable"),
        ("a.txt", b"", r"shape \(0, 0\)"),
        ("a.txt", b" \n\n", r"shape \(0, 0\)"),
        ("a.txt", b"1 2 3 \n4 5 \n", "row 2"),
        ("a.txt", b"1 2 x \n", "'x'"),
        ("a.txt", b"1 2 nan \n", "row 0"),
        ("a.txt", b"\xff\xfe1", "not readable"),
        ("a.pth", b"1", "type '.pth'; expected one of .npy, .npz, .txt"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=f"{name}: .*{words}"):
        read_features(tmp_path / name)


def test_a_truncated_array_or_one_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((100, 64), dtype=np.float32))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-1000])
    with pytest.raises(ValueError, match=r"a\.npy: not readable"):
        read_features(tmp_path / "a.npy")
    header = b"(100, 64), }      "
    assert header in data
    (tmp_path / "a.npy").write_bytes(data.replace(header, b"(999999999, 64), }"))
    with pytest.raises(ValueError, match=r"a\.npy: not readable"):
        read_features(tmp_path / "a.npy")


def test_an_npz_of_several_arrays_needs_one_named_features(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", rgb=np.ones((2, 3)), flow=np.ones((2, 3)))
    with pytest.raises(ValueError, match="it holds rgb, flow; expected one array, or one named features"):
        read_features(tmp_path / "a.npz")


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a__0.npy", np.ones((2, 3)))
    for name in ("b.npy", "a__1.npy"):
        with pytest.raises(FileNotFoundError, match=name):
            read_features(tmp_path / name)


def test_features_are_found_by_video_name_under_the_fields_spellings(tmp_path: Path) -> None:
    files = [
        "Abuse/Abuse028_x264.npy",
        "UCF_Test_ten_crop_i3d/Arson011_x264_i3d.npy",
        "flat_Fighting003.txt",
        "Normal/Normal_Videos_003_x264.npz",
        *(f"Arrest/Arrest001_x264__{crop}.npy" for crop in range(10)),
        "Fighting003.txt",
        "Abuse/Abuse028_x264.mp4",
        "notes.md",
    ]
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    names = ["Arson011_x264", "Abuse028_x264", "Arrest001_x264", "Fighting003_x264", "Normal_Videos_003_x264"]
    found = find_features(tmp_path, names)
    assert list(found) == names
    relative = [str(path.relative_to(tmp_path)) for path in found.values()]
    assert relative == [files[1], files[0], "Arrest/Arrest001_x264__0.npy", "Fighting003.txt", files[3]]


def test_all_missing_features_are_named_together_up_to_ten(tmp_path: Path) -> None:
    (tmp_path / "Abuse001_x264.npy").touch()
    names = [f"Abuse{number:03}_x264" for number in range(1, 14)]
    with pytest.raises(FileNotFoundError, match=r"12 videos: Abuse002_x264, .*Abuse011_x264 and 2 more; expected NAME"):
        find_features(tmp_path, names)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_features(tmp_path / "absent", names)


def test_two_feature_files_of_one_video_are_refused(tmp_path: Path) -> None:
    for file in ("Abuse001_x264.npy", "Abuse001_x264__0.npy", "Abuse001_x264__1.npy"):
        (tmp_path / file).touch()
    with pytest.raises(ValueError, match=r"1 videos: Abuse001_x264 \(Abuse001_x264.npy, Abuse001_x264__0.npy"):
        find_features(tmp_path, ["Abuse001_x264"])


@pytest.mark.parametrize("rows", [1, 5, 31, 32, 33, 64, 100, 1000])
def test_segments_are_the_means_of_a_plain_loop(rows: int) -> None:
    features = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    segments = to_segments(features)
    assert (segments.shape, segments.dtype) == ((32, 3), np.float32)
    for segment in range(32):
        # whole numbers: rows * segment / 32 is exact in binary
        first, end = rows * segment // 32, rows * (segment + 1) // 32
        total, count = np.zeros(3), 0
        for row in range(first, end):
            total += features[row]
            count += 1
        expected = total / count if count else features[first]
        np.testing.assert_allclose(segments[segment], expected, rtol=1e-5, atol=1e-6)


def test_segments_of_nothing_are_refused() -> None:
    for features, segments in [(np.ones((0, 3)), 32), (np.ones(3), 32), (np.ones((4, 3)), 0)]:
        with pytest.raises(ValueError, match="segments"):
            to_segments(features, segments)


@pytest.mark.parametrize("n_frames", [*range(17, 90), 1412, 21681])
def test_snippets_of_every_extractor_cover_the_video(n_frames: int) -> None:
    dropped = 16 * ((n_frames - 1) // 16)  # urdmu on the shorter of OpenCV's counts
    for n_snippets in {dropped // 16, n_frames // 16, -(-n_frames // 16)}:
        spans = snippet_spans(n_snippets, n_frames)
        assert (spans.shape, spans.dtype) == ((n_snippets, 2), np.int64)
        assert spans[0, 0] == 0
        assert spans[-1, 1] == n_frames
        assert (spans[1:, 0] == spans[:-1, 1]).all()
        assert (spans[:, 0] == 16 * np.arange(n_snippets)).all()
        assert (spans[:, 1] > spans[:, 0]).all()


def test_32_rows_of_a_longer_video_are_equal_parts() -> None:
    spans = snippet_spans(32, 1412)
    assert (spans[0, 0], spans[-1, 1]) == (0, 1412)
    assert (spans[1:, 0] == spans[:-1, 1]).all()
    assert set(np.diff(spans)[:, 0].tolist()) == {44, 45}
    assert snippet_spans(32, 500)[1].tolist() == [16, 32]  # fits as snippets, which comes first
    assert snippet_spans(200, 5000, segments=200)[1].tolist() == [25, 50]


def test_without_a_frame_count_rows_are_whole_snippets() -> None:
    assert snippet_spans(3).tolist() == [[0, 16], [16, 32], [32, 48]]
    assert snippet_spans(2, snippet_frames=24).tolist() == [[0, 24], [24, 48]]


@pytest.mark.parametrize(
    ("n_snippets", "n_frames"), [(100, 1412), (87, 1412), (90, 1412), (32, 20), (2, 16), (33, 1412)]
)
def test_rows_that_fit_neither_way_are_refused(n_snippets: int, n_frames: int) -> None:
    with pytest.raises(ValueError, match=rf"{n_snippets} feature rows do not fit a video of {n_frames} frames"):
        snippet_spans(n_snippets, n_frames)


def test_rows_and_frames_must_be_at_least_one() -> None:
    for arguments in [(0, 16), (1, 0), (1, 16, 0)]:
        with pytest.raises(ValueError, match="at least 1"):
            snippet_spans(*arguments)
