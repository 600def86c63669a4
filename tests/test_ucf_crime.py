"""UCF-Crime: its files as they are, its ground truth in every convention, and its splits."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from datamodules import UcfCrime
from datamodules.video_data import stratified_names
from lightning_modules import MilRanker
from tests.tiny_videos import make_trainer, write_tiny_video, write_video_world
from tests.worlds import write_feature_world
from vigil.annotations_uca import uca_events
from vigil.types import Clip, Prediction, Video, View

LENGTHS = "ucf_test_lengths.csv"
TOTALS = {
    "full": (1_111_808, 84_182),
    "full_matlab": (1_111_808, 84_338),
    "urdmu": (1_109_680, 84_128),
    "vadclip": (1_109_888, 84_160),
    "rtfm": (1_114_144, 84_389),
    "vera": (1_111_808, 88_094),
}


def totals(data: UcfCrime) -> tuple[int, int]:
    judged = data.judged(data.annotated("test"))
    assert len(judged) == 290
    frames = sum(video.n_frames for video in judged)
    return frames, sum(end - first for video in judged for first, end in video.anomalies)


@pytest.mark.parametrize("convention", TOTALS)
def test_a_convention_counts_the_frames_of_the_published_arrays(shared_data: Path, convention: str) -> None:
    data = UcfCrime(str(shared_data / "ucf_crime"), convention=convention, lengths=LENGTHS)
    assert totals(data) == TOTALS[convention]


@pytest.mark.parametrize("convention", ["urdmu", "vadclip", "rtfm"])
def test_the_arrays_of_snippets_follow_from_the_frame_counts(
    shared_data: Path, tmp_path: Path, convention: str
) -> None:
    for source in ("annotations/Temporal_Anomaly_Annotation.txt", "lists/Anomaly_Test.txt"):
        shutil.copy(shared_data / "ucf_crime" / source, tmp_path)
    rows = [line.split(",") for line in (shared_data / "ucf_crime" / LENGTHS).read_text().split()]
    column = [rows[0].index(name) for name in ("name", "frames", "frames_cv2")]
    (tmp_path / "counts.csv").write_text("".join(",".join(row[k] for k in column) + "\n" for row in rows))
    assert totals(UcfCrime(str(tmp_path), convention=convention, lengths="counts.csv")) == TOTALS[convention]


def test_the_second_annotation_may_be_umils(shared_data: Path) -> None:
    data = UcfCrime(str(shared_data / "ucf_crime"), convention="vera", lengths=LENGTHS, annotation="umil_UCF_test.txt")
    assert totals(data) == TOTALS["vera"]


def test_vera_is_not_judged_on_the_official_annotation(shared_data: Path) -> None:
    data = UcfCrime(
        str(shared_data / "ucf_crime"),
        convention="vera",
        lengths=LENGTHS,
        annotation="Temporal_Anomaly_Annotation.txt",
    )
    with pytest.raises(ValueError, match="vera needs the second one"):
        data.annotated("test")


def test_the_lists_hold_1610_and_290_videos_and_validation_comes_out_of_training(shared_data: Path) -> None:
    root = shared_data / "ucf_crime"
    data = UcfCrime(str(root), missing="leave_out")
    data._there = data.annotated  # the files are not here, the lists are
    train, val, test = ({video.name: video for video in data.videos(split)} for split in ("train", "val", "test"))
    assert (len(train) + len(val), len(test)) == (1610, 290)
    assert not set(train) & set(val)
    assert not (set(train) | set(val)) & set(test)
    assert sum(video.label for video in val.values()) == 81  # a tenth of 810
    assert len(val) - 81 == 80  # and of 800
    assert {video.category for video in val.values()} == {"Normal", *data.categories}


def test_the_real_videos_are_measured_and_the_others_left_out(shared_data: Path) -> None:
    root = str(shared_data / "ucf_crime")
    known = {video.name: video for video in UcfCrime(root, missing="leave_out").known("test")}
    assert set(known) == {"Normal_Videos_006_x264", "RoadAccidents002_x264"}
    assert sorted(video.n_frames for video in known.values()) == [347, 450]
    assert known["RoadAccidents002_x264"].anomalies == [(240, 300)]
    assert {video.fps for video in known.values()} == {30.0}
    with pytest.raises(FileNotFoundError, match=r"288 of 290 videos are not under .*leave_out"):
        UcfCrime(root).known("test")


@pytest.mark.parametrize("where", ["uca", "uca/json/UCFCrime_Test.json", "uca/v1_2023"])
def test_the_videos_of_ucas_test_split_can_be_left_out_of_training(
    where: str, shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = UcfCrime(str(shared_data / "ucf_crime"), missing="leave_out", without=str(shared_data / where))
    data._there = data.annotated  # the files are not here, the lists are
    with caplog.at_level("INFO"):
        train, val, test = ({video.name for video in data.videos(split)} for split in ("train", "val", "test"))
    asked = {event.video for event in uca_events(shared_data / "uca" / "json" / "UCFCrime_Test.json")}
    whole = UcfCrime(str(shared_data / "ucf_crime"))
    listed = {video.name for video in whole.annotated("train")}
    assert not (train | val) & asked
    assert (train | val) == listed - asked
    assert len(listed & asked) == 260
    assert test == {video.name for video in whole.annotated("test")}  # nothing is left out of a test
    assert caplog.text.count("260 of 1610 training videos are in UCFCrime_") == 1


def test_an_annotation_to_leave_out_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = write_video_world(tmp_path, n_train=1)
    with pytest.raises(FileNotFoundError, match=r"without elsewhere: no UCFCrime_Test\.json nor \.txt there"):
        UcfCrime(str(root), without="elsewhere").known("train")
    (root / "UCFCrime_Test.txt").write_text(
        "".join(f"{v.name} 00:00.0 00:01.0 ##A man.\n" for v in UcfCrime(str(root)).annotated("train"))
    )
    with pytest.raises(ValueError, match="names every video of Anomaly_Train"):
        UcfCrime(str(root), without="UCFCrime_Test.txt").known("train")


def make_training_videos() -> list[Video]:
    counts = {"Abuse": 48, "Arson": 9, "Robbery": 145, "Normal": 300}
    return [
        Video(f"{category}{i:03d}", label=int(category != "Normal"), category=category)
        for category, count in counts.items()
        for i in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("fraction", [0.1, 0.25])
def test_validation_is_stratified(fraction: float, seed: int) -> None:
    videos = make_training_videos()
    held = stratified_names(videos, fraction, np.random.default_rng(seed))
    kinds = {video.name: video.category for video in videos}
    counts = {kind: sum(kinds[name] == kind for name in held) for kind in ("Abuse", "Arson", "Robbery", "Normal")}
    assert counts["Normal"] == round(300 * fraction)
    assert counts["Abuse"] + counts["Arson"] + counts["Robbery"] == round(202 * fraction)
    for kind, size in (("Abuse", 48), ("Arson", 9), ("Robbery", 145)):
        assert abs(counts[kind] - size * fraction) < 2


def test_validation_depends_on_the_seed_and_not_on_the_order_of_the_list() -> None:
    videos = make_training_videos()
    held = stratified_names(videos, 0.1, np.random.default_rng(0))
    assert stratified_names(videos[::-1], 0.1, np.random.default_rng(0)) == held
    assert len(held & stratified_names(videos, 0.1, np.random.default_rng(1))) < len(held) / 2


def test_validation_takes_at_least_one_of_each_label() -> None:
    videos = [Video(f"{kind}{i}", label=int(kind == "Arson"), category=kind) for kind in ("Arson", "N") for i in (1, 2)]
    held = stratified_names(videos, 0.01, np.random.default_rng(0))
    assert sorted(name[:-1] for name in held) == ["Arson", "N"]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1])
def test_a_validation_fraction_that_leaves_nothing_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        UcfCrime("anywhere", validation_fraction=fraction)


def test_splits_of_video_files(tmp_path: Path) -> None:
    data = UcfCrime(str(write_video_world(tmp_path)), validation_fraction=0.25)
    train, val, test = data.known("train"), data.known("val"), data.known("test")
    assert (len(train), len(val), len(test)) == (12, 4, 4)
    names = [video.name for part in (train, val, test) for video in part]
    assert len(set(names)) == 20
    assert {video.label for video in val} == {0, 1}
    for video in (*train, *val, *test):
        assert video.path.stem == video.name
        assert video.fps == 25


def test_missing_videos_are_refused_by_name_or_left_out_on_request(tmp_path: Path) -> None:
    root = write_video_world(tmp_path)
    (root / "Videos" / "Arson" / "Arson005_x264.mp4").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"1 of 4 videos are not under .*: Arson005_x264; complete the download"
    ):
        UcfCrime(str(root)).known("test")
    kept = UcfCrime(str(root), missing="leave_out").known("test")
    assert [video.name for video in kept] == [
        *("Fighting005_x264", "Normal_Videos_009_x264", "Normal_Videos_010_x264"),
    ]
    shutil.rmtree(root / "Videos")
    with pytest.raises(FileNotFoundError, match="4 of 4 videos"):
        UcfCrime(str(root), missing="leave_out").known("test")


def test_missing_features_are_refused_by_name_or_left_out_on_request(tmp_path: Path) -> None:
    write_feature_world(tmp_path)
    features = tmp_path / "features"
    (features / "Abuse007_x264.npy").unlink()
    (features / "Abuse008_x264.npy").rename(features / "Abuse008_i3d.npy")
    with pytest.raises(FileNotFoundError, match=r"1 of 16 videos are not under .*: Abuse007_x264"):
        UcfCrime(str(tmp_path), features=str(features)).known("test")
    kept = UcfCrime(str(tmp_path), features=str(features), missing="leave_out").known("test")
    assert len(kept) == 15
    assert "Abuse008_x264" in {video.name for video in kept}
    shutil.rmtree(features)
    features.mkdir()
    with pytest.raises(FileNotFoundError, match=r"16 of 16 videos are not under .*features"):
        UcfCrime(str(tmp_path), features=str(features), missing="leave_out").known("test")


@pytest.mark.parametrize("name", ["Anomaly_Train.txt", "Anomaly_Test.txt", "Temporal_Anomaly_Annotation.txt"])
def test_a_missing_list_or_annotation_is_named(tmp_path: Path, name: str) -> None:
    root = write_video_world(tmp_path, n_train=1)
    (root / name).unlink()
    split = "train" if "Train" in name else "test"
    with pytest.raises(FileNotFoundError, match=rf"no {name} here or in a folder below; .*root must be the folder"):
        UcfCrime(str(root)).known(split)


def test_an_annotation_of_another_release_is_refused(tmp_path: Path) -> None:
    root = write_video_world(tmp_path, n_train=1)
    with (root / "Anomaly_Test.txt").open("a") as file:
        file.write("Arson/Arson050_x264.mp4\n")
    with pytest.raises(ValueError, match="disagree on 1 videos: Arson050_x264"):
        UcfCrime(str(root)).known("test")


def test_of_two_files_of_a_name_the_one_where_the_list_says_is_taken(tmp_path: Path) -> None:
    root = write_video_world(tmp_path, n_train=1)
    other = root / "A_first_in_the_alphabet" / "Normal_Videos_003_x264.mp4"
    write_tiny_video(other, 9, 0)
    # the annotation spells no folder, so the test list's cannot be asked for; of training videos it can
    train = root / "Videos" / "Training_Normal_Videos_Anomaly" / "Normal_Videos_001_x264.mp4"
    write_tiny_video(root / "A_first_in_the_alphabet" / train.name, 9, 0)
    known = {video.name: video for split in ("train", "val") for video in UcfCrime(str(root)).known(split)}
    assert known["Normal_Videos_001_x264"].path == train


def test_limit_videos_is_balanced_in_every_split(tmp_path: Path) -> None:
    write_feature_world(tmp_path)
    data = UcfCrime(str(tmp_path), features=str(tmp_path / "features"), limit_videos=4, validation_fraction=0.2)
    for split in ("train", "val", "test"):
        assert sorted(video.label for video in data.known(split)) == [0, 0, 1, 1]


def judged_by(data: UcfCrime, score: dict[str, np.ndarray], n_frames: dict[str, int]) -> dict[str, float]:
    """The metrics, fed by windows of 16 frames that end with the video, a score each."""
    view = View(frames=4, stride=4, hop=16)
    found: dict[str, float] = {}
    for metric in data.metrics("test").values():
        for name, rows in score.items():
            span, frame = (
                torch.from_numpy(array) for array in (view.spans(n_frames[name]), view.indices(n_frames[name]))
            )
            value = torch.from_numpy(rows)[:, None].expand(-1, 4).contiguous()
            metric.update(Clip([name] * len(rows), span, {"video": frame}), Prediction(value))
        if getattr(metric, "threshold", 0.5) is None:
            metric.threshold = 0.5
        found |= metric.compute()
    return found


@pytest.mark.parametrize("convention", ["urdmu", "vadclip", "rtfm"])
def test_an_axis_of_snippets_cuts_the_scores_or_holds_the_last_one(tmp_path: Path, convention: str) -> None:
    root = write_video_world(tmp_path, n_train=1)
    rows = ["name,frames,frames_cv2"]
    known = UcfCrime(str(root)).known("test")
    rows += [f"{video.name},{video.n_frames},{video.n_frames + 1}" for video in known]
    (root / "counts.csv").write_text("\n".join(rows) + "\n")
    data = UcfCrime(str(root), convention=convention, lengths="counts.csv")
    generator = np.random.default_rng(0)
    score, truth, scored, n_frames = {}, [], [], {}
    for video in data.known("test"):
        n = n_frames[video.name] = video.n_frames
        values = generator.random(-(-n // 16)).astype(np.float32)
        score[video.name] = values
        axis = {"urdmu": 16 * (n // 16), "vadclip": 16 * (n // 16), "rtfm": 16 * -(-n // 16)}[convention]
        assert axis != n  # lengths that no snippets fill
        for t in range(axis):
            scored.append(values[min(t // 16, len(values) - 1)])
            inside = any(first <= t < end + (convention == "rtfm") for first, end in video.anomalies)
            truth.append(inside)
        if convention == "rtfm":
            assert all(axis - end >= 16 for _, end in video.anomalies)
    found = judged_by(data, score, n_frames)
    assert found["frame_auroc"] == pytest.approx(roc_auc_score(truth, scored), abs=1e-12)
    assert {"frame_ap", "video_auroc", "event_map", "false_alarms_per_hour"} <= set(found)


def test_full_has_no_slack(tmp_path: Path) -> None:
    data = UcfCrime(str(write_video_world(tmp_path, n_train=1)))
    n_frames = {video.name: video.n_frames for video in data.known("test")}
    score = {name: np.full(-(-n // 16), 0.5, np.float32) for name, n in n_frames.items()}
    assert judged_by(data, score, n_frames)["frame_auroc"] == 0.5
    longer = {name: n - 1 for name, n in n_frames.items()}
    score = {name: np.full(-(-n // 16), 0.5, np.float32) for name, n in longer.items()}
    with pytest.raises(ValueError, match="frames without a score"):
        judged_by(data, score, longer)


def test_urdmu_needs_the_counts_of_opencv(tmp_path: Path) -> None:
    data = UcfCrime(str(write_video_world(tmp_path, n_train=1)), convention="urdmu")
    with pytest.raises(ValueError, match=r"OpenCV's frame counts of 4 videos, as of Arson002_x264; .*lengths"):
        data.metrics("test")


def test_a_ranker_trains_a_step_on_real_c3d_features(shared_data: Path, tmp_path: Path) -> None:
    with np.load(shared_data / "ucf_crime" / "features" / "c3d_fc6_sample10_32x4096.npz") as archive:
        names, features = archive["names"].tolist(), archive["features"]
    (tmp_path / "features").mkdir()
    for name, feature in zip(names, features, strict=True):
        np.save(tmp_path / "features" / f"{name}.npy", feature)
    folder = {name: "Testing_Normal_Videos_Anomaly" if "Normal" in name else name[:-8] for name in names}
    (tmp_path / "Anomaly_Train.txt").write_text("".join(f"{folder[name]}/{name}.mp4\n" for name in names))
    data = UcfCrime(str(tmp_path), features=str(tmp_path / "features"), num_workers=0, validation_fraction=0.1)
    model = MilRanker(encoder=None, feature_width=4096, batch_size=2)
    data.watch(model)
    before = {name: value.clone() for name, value in model.state_dict().items() if name != "threshold"}
    trainer = make_trainer(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 1
    assert torch.isfinite(trainer.callback_metrics["train/loss"])
    after = model.state_dict()
    assert all(not torch.equal(after[name], value) for name, value in before.items())
    bag = data.train_dataloader().dataset[0]
    assert np.array_equal(bag.features["video"][0].numpy(), features[names.index(bag.video[0])])


def test_parts_of_videos_of_unknown_length_are_not_scored(tmp_path: Path) -> None:
    write_feature_world(tmp_path / "world", snippets=(32, 33))
    data = UcfCrime(str(tmp_path / "world"), features=str(tmp_path / "world" / "features"))
    assert data.known("train")
    with pytest.raises(ValueError, match=r"32 rows, as in all of the 16 files.*data\.init_args\.lengths"):
        data.known("test")
