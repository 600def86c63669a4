"""What a test leaves is enough to judge it again, bit for bit; what others bring is judged, or refused with reasons."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score, top_k_accuracy_score

from datamodules.demo import write_ucf_crime
from tests.finished_tests import CPU, HELD_OUT, command, facts_of, made
from tests.worlds import ROOT
from vigil.curves import Curve, expand
from vigil.stored import (
    numbers,
    read_class_scores,
    read_scores,
    read_truth,
    truth_hash,
    write_class_scores,
    write_scores,
    write_truth,
)
from vigil.types import Video

VIDEOS = [
    Video("a", None, 40, 25.0, 1, "Abuse", [(10, 20), (25, 40)]),
    Video("b", None, 30, 30000 / 1001, 0, "Normal", []),
    Video("c", None, 25, None, 0, None, []),
]
HEADER = "video,first_frame,end_frame,score\n"


def numbers_again(folder: Path) -> dict[str, float]:
    facts = facts_of(folder)
    held = facts["protocol"]["judged"].get("hold_out") or ()
    sentinels = "whole_windows" in facts["protocol"]["judged"]
    return numbers(folder, facts["gated_at"], facts["threshold"], held, facts.get("temperature"), sentinels)


@pytest.mark.parametrize(
    ("name", "some"),
    [
        (
            "refined",
            {
                *("frame_auroc_low_refined", "frame_ap_trapezoid_gated", "ece_refined", "video_auroc_gated"),
                *("event_map", "false_alarms_per_hour", "frame_auroc/Abuse_gated", "frame_auroc_anomalous"),
                *("frame_auroc_unseen_refined", "frame_auroc_seen_gated", f"frame_auroc/{HELD_OUT}"),
            },
        ),
        ("plain", {"frame_auroc_gated", "event_map", "ece"}),
        ("few", {"frame_auroc"}),
        ("difference", {"frame_auroc", "frame_ap"}),
        ("vadclip", {"frame_auroc", "frame_auroc_refined"}),
        ("rtfm", {"frame_auroc", "frame_auroc_refined"}),
        ("pixels", {"pixel_auroc", "pixel_ap", "rbdc", "tbdc", "frame_auroc"}),
        ("whole", {"pixel_auroc", "rbdc", "frame_auroc", "frame_auroc_sentinels"}),
        ("classes", {"top1", "top2", "top3", "top1_low", "top_expansion", "class_ece", "class_nll", "class_entropy"}),
    ],
)
def test_the_files_of_a_test_give_every_one_of_its_numbers_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, name: str, some: set[str]
) -> None:
    folder = made(tmp_path_factory, name)
    said = facts_of(folder)["metrics"]
    assert some <= said.keys()
    for file in folder.glob("*.[cn][sp][vz]"):  # these alone: no config, no checkpoint, no videos
        shutil.copy(file, tmp_path)
    shutil.copy(folder / "metrics.json", tmp_path)
    assert numbers_again(tmp_path) == said


def test_a_number_whose_file_is_gone_is_not_made_up(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    folder = made(tmp_path_factory, "pixels")
    pixels = {"pixel_auroc", "pixel_ap", "rbdc", "tbdc"}
    for gone, keys in (("regions.npz", {"rbdc", "tbdc"}), ("pixel_histogram.npz", pixels), ("truth.csv", None)):
        copy = shutil.copytree(folder, tmp_path / gone)
        (copy / gone).unlink()
        lost = facts_of(folder)["metrics"].keys() - numbers_again(copy).keys()
        assert lost == (facts_of(folder)["metrics"].keys() - pixels if keys is None else keys)


@pytest.mark.parametrize("name", ["difference", "vadclip", "rtfm"])
def test_scores_and_truth_of_a_test_agree_with_scikit_learn_on_the_axis_of_the_convention(
    tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    folder = made(tmp_path_factory, name)
    label, score = {}, {}
    with (folder / "truth.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            label[row["video"]] = np.zeros(int(row["n_frames"]), dtype=int)
            for part in row["anomalies"].split():
                first, end = part.split("-")
                label[row["video"]][int(first) : int(end)] = 1
    with (folder / "scores.csv").open(newline="") as stream:
        for row in csv.DictReader(stream):
            length = int(row["end_frame"]) - int(row["first_frame"])
            score.setdefault(row["video"], []).extend([float(row["refined"] or row["score"])] * length)
    assert {video: len(part) for video, part in label.items()} == {video: len(part) for video, part in score.items()}
    snippets = [len(part) % 16 for part in label.values()]
    assert (snippets == [0] * 4) == (name != "difference")
    joined = np.concatenate(list(label.values())), np.concatenate([score[video] for video in label])
    values, end = facts_of(folder)["metrics"], "" if name == "difference" else "_refined"
    assert values[f"frame_auroc{end}"] == pytest.approx(roc_auc_score(*joined), abs=1e-12)
    assert values[f"frame_ap{end}"] == pytest.approx(average_precision_score(*joined), abs=1e-12)


def test_class_scores_of_a_test_give_scikit_learns_top_k(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = made(tmp_path_factory, "classes")
    categories, _, true, score = read_class_scores(folder / "class_scores.csv")
    assert len(categories) == score.shape[1] == 13
    values = facts_of(folder)["metrics"]
    for k in (1, 2, 3):
        expected = top_k_accuracy_score(true, score, k=k, labels=range(13))
        assert values[f"top{k}"] == pytest.approx(expected, abs=1e-12)


def test_captions_of_a_test_give_every_number_that_needs_no_embedding(tmp_path: Path) -> None:
    write_ucf_crime(tmp_path / "world", size="tiny")
    data = ("--data=Uca", f"--data.root={tmp_path / 'world'}", "--data.task=captions")
    folder = command(tmp_path, "test", *CPU, "--model=tests.test_caption_writer.Telling", *data)
    said = facts_of(folder)["metrics"]
    assert {key for key in said if key.startswith("caption_sbert")} == {
        "caption_sbert", "caption_sbert_low", "caption_sbert_high"
    }  # fmt: skip
    embedded = {"caption_self_similarity", "reference_self_similarity"}
    found = numbers(folder)
    assert found == {key: value for key, value in said.items() if key not in embedded}
    assert found.keys() == said.keys() - embedded
    assert facts_of(folder)["main_metric"] in found
    (folder / "captions.csv").unlink()
    assert numbers(folder) == {}


def test_a_temperature_gives_the_numbers_of_scaled_class_scores(tmp_path: Path) -> None:
    score = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    samples = [(f"v{i % 7}", i, i + 1, "wxyz"[i % 4], row.tolist()) for i, row in enumerate(score)]
    write_class_scores(tmp_path / "class_scores.csv", list("wxyz"), samples)
    plain, scaled = numbers(tmp_path), numbers(tmp_path, temperature=2.0)
    assert scaled.keys() - plain.keys() == {"class_ece_scaled", "class_nll_scaled"}
    halved = [(*sample, (row / 2).tolist()) for (*sample, _), row in zip(samples, score, strict=True)]
    write_class_scores(tmp_path / "class_scores.csv", list("wxyz"), halved)
    assert scaled["class_nll_scaled"] == pytest.approx(numbers(tmp_path)["class_nll"], abs=1e-12)
    assert {key: scaled[key] for key in plain} == plain


# what is written is what is read


def test_truth_comes_back_as_it_was(tmp_path: Path) -> None:
    odd = Video('d "x", é', None, 7, 12.5, None, None, None)
    write_truth(tmp_path / "truth.csv", [*VIDEOS, odd])
    assert read_truth(tmp_path / "truth.csv") == [*VIDEOS, odd]
    text = (tmp_path / "truth.csv").read_text().splitlines()
    assert text[0] == "video,n_frames,fps,label,category,anomalies"
    assert text[1] == "a,40,25.0,1,Abuse,10-20 25-40"


def test_scores_come_back_as_they_were_to_the_last_bit(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    curves, refined = {}, {}
    for video in VIDEOS:
        for kind, step in ((curves, 8), (refined, 3)):
            edge = np.unique(np.append(np.arange(0, video.n_frames, step), video.n_frames)).astype(np.int64)
            kind[video.name] = Curve(edge, (10 ** -generator.uniform(0, 40, len(edge) - 1)).astype(np.float32))
    write_scores(tmp_path / "scores.csv", curves, refined)
    found = read_scores(tmp_path / "scores.csv", VIDEOS[::-1])
    for before, after in zip((curves, refined), found, strict=True):
        assert set(after) == set(before)
        for name, curve in before.items():
            assert after[name].score.dtype == np.float32
            assert np.array_equal(expand(after[name]), expand(curve))
    write_scores(tmp_path / "raw.csv", curves, {})
    assert read_scores(tmp_path / "raw.csv", VIDEOS)[1] == {}


def test_class_scores_come_back_as_they_were(tmp_path: Path) -> None:
    score = np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32)
    videos = ["a,b", "c", "a,b"]
    samples = [(video, 0, 9, name, row.tolist()) for video, name, row in zip(videos, "xyx", score, strict=True)]
    write_class_scores(tmp_path / "class_scores.csv", ["x", "y"], samples)
    categories, of_video, true, found = read_class_scores(tmp_path / "class_scores.csv")
    assert categories == ["x", "y"]
    assert of_video == videos
    assert true.tolist() == [0, 1, 0]
    assert found.dtype == np.float32
    assert np.array_equal(found, score)
    file = tmp_path / "class_scores.csv"
    file.write_text(file.read_text().replace("a,b", "a", 1).replace(",y,", ",z,", 1))
    with pytest.raises(ValueError, match=r"class_scores\.csv, line \d"):
        read_class_scores(file)


def test_the_hash_of_a_truth_is_of_what_decides_curves_and_of_no_order() -> None:
    def changed(**more: object) -> list[Video]:
        first = {"name": "a", "path": None, "n_frames": 40, "fps": 25.0, "label": 1, "category": "Abuse"}
        return [Video(**{**first, "anomalies": [(10, 20), (25, 40)], **more}), *VIDEOS[1:]]

    known = truth_hash(VIDEOS)
    assert len(known) == 16
    assert truth_hash(VIDEOS[::-1]) == truth_hash(changed(category="Arson", fps=None, path=Path("a.mp4"))) == known
    others = [
        {"name": "d"}, {"n_frames": 41}, {"label": 0}, {"anomalies": [(10, 20), (25, 39)]}, {"anomalies": None},
        {"anomalies": []},
    ]  # fmt: skip
    hashes = {truth_hash(changed(**other)) for other in others} | {known, truth_hash(VIDEOS[1:])}
    assert len(hashes) == len(others) + 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("10-20", "10:20"), r"truth\.csv, line 2: .*run it again"),
        (lambda text: text.replace("a,40", "a,forty"), r"truth\.csv, line 2: .*forty.*run it again"),
        (lambda text: text.replace("b,30", "a,30"), r"truth\.csv: 3 rows; a row for each video, once"),
        (lambda text: text.splitlines()[0], r"truth\.csv: 0 rows"),
        (lambda text: text.replace("n_frames", "frames"), r"truth\.csv, line 1: no column n_frames"),
        (lambda text: text.replace("Abuse,", "Abuse,,"), r"truth\.csv, line 2: 7 columns, 6 are expected"),
    ],
)
def test_a_truth_that_cannot_be_read_is_named(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    write_truth(tmp_path / "truth.csv", VIDEOS)
    (tmp_path / "truth.csv").write_text(change((tmp_path / "truth.csv").read_text()))
    with pytest.raises(ValueError, match=message):
        read_truth(tmp_path / "truth.csv")
    with pytest.raises(FileNotFoundError, match=r"other\.csv: no such file; a CSV with the columns video,n_frames"):
        read_truth(tmp_path / "other.csv")


# somebody else's scores

GOOD = HEADER + "a,0,25,0.1\na,25,40,0.9\nb,0,30,0.2\nc,0,25,0.3\n"


def test_rows_may_come_in_any_order_with_any_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    file.write_text(GOOD)
    first, none = read_scores(file, VIDEOS)
    assert none == {}
    assert [curve.score.tolist() for curve in first.values()] == [
        [np.float32(0.1), np.float32(0.9)],
        [np.float32(0.2)],
        [np.float32(0.3)],
    ]
    header, *rows = GOOD.splitlines()
    spelled = [
        "\n".join([header, *rows[::-1]]),
        "\ufeff" + GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\n\n"),
        GOOD.replace("video,first_frame,end_frame,score", " video, first_frame ,end_frame,score"),
        "score,note,end_frame,video,first_frame,refined\n"
        + "".join(f"{s},x,{b},{v},{a},\n" for v, a, b, s in (row.split(",") for row in rows)),
    ]
    for text in spelled:
        file.write_bytes(text.encode())
        again, none = read_scores(file, VIDEOS)
        assert none == {}
        assert list(again) == ["a", "b", "c"]
        for name, curve in again.items():
            assert np.array_equal(expand(curve), expand(first[name]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("b,0,30,0.2\n", ""), r"no scores of 1 of 3 videos: b; score every video of the test"),
        (HEADER, r"no scores of 3 of 3 videos: a, b, c; score every video"),
        (GOOD.replace("b,", "B.mp4,"), r", line 4: 'B\.mp4' is none of the 3 videos to be judged"),
        (GOOD.replace("0.2", "nan"), r", line 4: the score 'nan' is no finite number; give every row one"),
        (GOOD.replace("0.2", "-inf"), r", line 4: the score '-inf' is no finite number"),
        (GOOD.replace("0.2", "1e999"), r", line 4: the score '1e999' is no finite number"),
        (GOOD.replace("0.2", "high"), r", line 4: the score 'high' is no finite number"),
        (GOOD.replace("0.2", ""), r", line 4: the score '' is no finite number"),
        (GOOD.replace("0.2", "1.2"), r", line 4: the score 1\.2 does not lie in \[0, 1\]; rescale all scores alike"),
        (GOOD.replace("0.2", "-0.001"), r", line 4: the score -0\.001 does not lie in \[0, 1\]"),
        (GOOD.replace("b,0,30", "b,0,30.0"), r", line 4: the frame '30\.0' is no whole number"),
        (GOOD.replace("b,0,30", "b,--0,30"), r", line 4: the frame '--0' is no whole number"),
        (GOOD.replace("b,0,30", "b,0,²"), r", line 4: the frame '²' is no whole number"),
        (GOOD.replace("b,0,30", f"b,0,{10**30}"), r", line 4: the frame '10{30}' is no whole number"),
        (GOOD.replace("b,0,30", "b,,30"), r", line 4: the frame '' is no whole number"),
        (GOOD.replace("a,25,40", "a,24,40"), r": frame 24 of a is scored twice; give each frame one score"),
        (GOOD + "c,0,25,0.3\n", r": frame 0 of c is scored twice"),
        (GOOD.replace("a,25,40", "a,26,40"), r"1 of 3 videos have frames without a score: a \(frame 25\); score every"),
        (GOOD.replace("a,25,40", "a,25,39"), r"a \(frame 39\); score every frame of every video"),
        (GOOD.replace("a,25,40", "a,25,41"), r", line 3: frames 25 to 41 of a, which has 40 frames; .*ends are exclus"),
        (GOOD.replace("b,0,30", "b,-1,30"), r", line 4: frames -1 to 30 of b, which has 30 frames; frames count"),
        (GOOD.replace("b,0,30", "b,30,30"), r", line 4: frames 30 to 30 of b"),
        (GOOD.replace("first_frame", "start"), r", line 1: no column first_frame; its columns are video, start"),
        (GOOD.replace(",", ";"), r", line 1: no column video, first_frame, end_frame, score; its columns are video;"),
        (GOOD.replace(HEADER, "video,first_frame,end_frame,score,score\n"), r", line 1: two columns of one name"),
        (GOOD.replace("b,0,30,0.2", "b,0,30,0,2"), r", line 4: 5 columns, 4 are expected as line 1 names them"),
        ("", r", line 1: no column video, first_frame, end_frame, score; its columns are none"),
    ],
)  # fmt: skip
def test_scores_that_cannot_be_judged_are_refused_naming_where_and_what_to_do(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "theirs.csv").write_text(text)
    with pytest.raises(ValueError, match=r"theirs\.csv") as error:
        read_scores(tmp_path / "theirs.csv", VIDEOS)
    assert error.match(message)


def test_names_may_be_quoted_and_hold_commas_and_quotation_marks(tmp_path: Path) -> None:
    odd = [Video('a, "b"', None, 40, 25.0, 1, None, [(0, 9)]), *VIDEOS[1:]]
    file = tmp_path / "theirs.csv"
    file.write_text(GOOD.replace("a,", '"a, ""b""",'))
    found, _ = read_scores(file, odd)
    assert found['a, "b"'].score.tolist() == [np.float32(0.1), np.float32(0.9)]
    file.write_text(GOOD.replace("a,", '"a, ""b""",').replace("b,0,30,0.2", "b,0,30,0,2"))
    with pytest.raises(ValueError, match=r"theirs\.csv, line 4: 5 columns, 4 are expected as line 1 names them"):
        read_scores(file, odd)
    file.write_text(GOOD.replace("a,", '"a, ""b""",').replace("0.2", "x"))
    with pytest.raises(ValueError, match=r"theirs\.csv, line 4: the score 'x'"):
        read_scores(file, odd)


def test_refined_scores_stand_in_every_row_or_in_none(tmp_path: Path) -> None:
    header, *rows = GOOD.splitlines()
    file = tmp_path / "theirs.csv"
    file.write_text("\n".join([f"{header},refined", *(f"{row},{0.5 if row[0] != 'b' else ''}" for row in rows)]))
    with pytest.raises(
        ValueError, match=r"theirs\.csv, line 4: no refined score of b, 3 of 4 rows have one; give ever"
    ):
        read_scores(file, VIDEOS)
    file.write_text("\n".join([f"{header},refined", *(f"{row},{1.5 if row[0] == 'c' else 0.5}" for row in rows)]))
    with pytest.raises(ValueError, match=r"theirs\.csv, line 5: the score 1\.5 does not lie in"):
        read_scores(file, VIDEOS)


def test_a_file_that_is_no_text_or_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "sixteen.csv").write_bytes(GOOD.encode("utf-16"))
    (tmp_path / "zeros.csv").write_bytes(GOOD.replace("0.9", "\0").encode())
    for name in ("sixteen", "zeros"):
        with pytest.raises(ValueError, match=rf"{name}\.csv"):
            read_scores(tmp_path / f"{name}.csv", VIDEOS)
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(
            FileNotFoundError, match=r": no such file; a CSV with the columns video,first_frame,end_frame"
        ):
            read_scores(path, VIDEOS)


def test_judging_loads_neither_torch_nor_lightning() -> None:
    modules = ("judging", "stored", "protocol", "provenance", "controls", "results", "submission", "tables")
    names = ", ".join(f"vigil.{name}" for name in modules)
    code = f"import sys, {names}; print({{'torch', 'lightning', 'scipy', 'sklearn'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
