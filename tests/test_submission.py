"""Somebody else's scores: perfect, inverted, constant ones are judged, others refused; the row stands with ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.finished_tests import facts_of, made
from tests.test_results import step_of
from vigil.controls import CONTROLS
from vigil.measured import METRIC
from vigil.protocol import differing
from vigil.results import collect, controls_of, differences, keep_result
from vigil.stored import read_truth
from vigil.submission import judge_submission

Ours = tuple[Path, list[dict[str, Any]]]


@pytest.fixture
def ours(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Ours:
    """A benchmark's folder with one finished test in it, and its row."""
    step = step_of(made(tmp_path_factory, "plain"), tmp_path, "mil_ranker")
    keep_result("demo", step)
    return tmp_path, collect(tmp_path, [step.folder / "run"])


def write_theirs(ours: Ours, score: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A row per frame, its score made from the truth of the video's frames."""
    out, rows = ours
    lines = ["video,first_frame,end_frame,score"]
    for video in read_truth(out / rows[0]["folder"] / "truth.csv"):
        truth = np.zeros(video.n_frames)
        for first, end in video.anomalies:
            truth[first:end] = 1
        lines += [f"{video.name},{t},{t + 1},{value}" for t, value in enumerate(score(truth))]
    file = out / "theirs.csv"
    file.write_text("\n".join(lines))
    return file


def judged(ours: Ours, scores: Path, name: str = "Theirs, 2026", **more: Any) -> dict[str, Any]:
    return judge_submission("demo", ours[0], ours[1], scores, name, more.pop("test", "ucf_crime"), **more)


@pytest.mark.parametrize(
    ("score", "expected"),
    [(lambda truth: truth, 1.0), (lambda truth: 1 - truth, 0.0), (lambda truth: 0 * truth + 0.3, 0.5)],
    ids=["perfect", "inverted", "constant"],
)
def test_perfect_inverted_and_constant_scores_get_what_they_deserve(
    ours: Ours, score: Callable[[np.ndarray], np.ndarray], expected: float
) -> None:
    row = judged(ours, write_theirs(ours, score))
    assert row["frame_auroc"] == row["frame_auroc_low"] == row["frame_auroc_high"] == expected
    assert row["video_auroc"] == max(expected, 0.5)  # inverted, every video has a frame of 1
    if expected == 1:
        assert row["frame_ap"] == 1
        assert row["ece"] == 0
    assert not [key for key in row if METRIC.fullmatch(key) and key.endswith(("_refined", "_gated"))]


def test_our_own_scores_handed_in_get_our_own_numbers(ours: Ours) -> None:
    out, (row,) = ours
    again = judged(ours, out / row["folder"] / "scores.csv")
    for key in ("frame_auroc", "frame_ap", "frame_ap_trapezoid", "video_auroc", "ece", "frame_auroc_high"):
        assert again[key] == row[key]


def test_the_row_stands_in_the_benchmark_under_the_same_protocol_and_can_be_verified(ours: Ours) -> None:
    out, (like,) = ours
    row = judged(ours, write_theirs(ours, lambda truth: truth), supervision="one-class")
    folder = out / "submitted" / "Theirs_2026" / "ucf_crime"
    (stored,) = collect(out, [folder])
    assert stored == json.loads(json.dumps(row, default=str)) | {"folder": "submitted/Theirs_2026/ucf_crime"}
    said = {"table": "demo", "cell": "Theirs, 2026", "kind": "submitted", "test": "ucf_crime", "fit": "", "seed": 0}
    said |= {"dataset": "UCF-Crime", "demo": 0, "main_metric": "frame_auroc", "supervision": "one-class", "claim": ""}
    assert row | said == row
    assert differing(row["protocol"], like["protocol"]) == {}
    stated = row["protocol"]["stated"]
    for key in ("backbone", "smoothing", "selection", "target_labels", "fitted_on_test", "normalisation"):
        assert stated[key] == "not stated"
    assert stated["score_values"] == 2
    assert differences(stored, out) == []
    assert {folder.name for folder in controls_of(stored, folder, out / "controls")} == set(CONTROLS)
    assert "score configs/benchmarks/demo.yaml --scores " in row["command"]
    assert "theirs.csv --name 'Theirs, 2026'" in row["command"]
    assert {file.name for file in folder.iterdir()} == {
        *("row.json", "details.json", "metrics.json", "scores.csv", "truth.csv")
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("0.25", "nan", 1), r"theirs\.csv, line 2: the score 'nan' is no finite number"),
        (
            lambda text: text.replace("Abuse004_x264", "Abuse005_x264"),
            r"theirs\.csv, line \d+: 'Abuse005_x264' is none",
        ),
        (
            lambda text: "\n".join(line for line in text.splitlines() if "Abuse004" not in line),
            r"theirs\.csv: no scores of 1 of 8 videos: Abuse004_x264; score every video",
        ),
        (lambda text: "", r"theirs\.csv, line 1: no column video"),
    ],
)
def test_scores_that_cannot_be_judged_leave_nothing_behind(
    ours: Ours, change: Callable[[str], str], message: str
) -> None:
    file = write_theirs(ours, lambda truth: 0 * truth + 0.25)
    text = file.read_text()
    assert change(text) != text
    file.write_text(change(text))
    with pytest.raises(ValueError, match=message):
        judged(ours, file)
    assert not (ours[0] / "submitted").exists()
    with pytest.raises(FileNotFoundError, match=r"nowhere\.csv: no such file"):
        judged(ours, ours[0] / "nowhere.csv")


def test_handed_in_again_under_one_name_the_later_scores_stand(ours: Ours) -> None:
    judged(ours, write_theirs(ours, lambda truth: truth))
    judged(ours, write_theirs(ours, lambda truth: 1 - truth))
    (row,) = collect(ours[0], [ours[0] / "submitted" / "Theirs_2026" / "ucf_crime"])
    assert row["frame_auroc"] == 0
    assert differences(row, ours[0]) == []
    with pytest.raises(ValueError, match=r"--name Theirs 2026: .*holds the scores of Theirs, 2026; give another name"):
        judged(ours, ours[0] / "theirs.csv", name="Theirs 2026")


def test_a_name_leads_to_no_other_folder(ours: Ours) -> None:
    for name in ("..", "../../x", "/etc"):
        judged(ours, write_theirs(ours, lambda truth: truth), name=name)
    found = {file.parents[1].name for file in ours[0].glob("submitted/*/ucf_crime/row.json")}
    assert found == {"scores", "x", "etc"}
    assert not (ours[0] / "ucf_crime").exists()


def test_which_test_it_is_need_not_be_said_where_there_is_one(ours: Ours) -> None:
    out, rows = ours
    file = write_theirs(ours, lambda truth: truth)
    assert judged(ours, file, test=None)["test"] == "ucf_crime"
    with pytest.raises(ValueError, match=r"--test shanghaitech: .*those with a truth to judge by: ucf_crime$"):
        judged(ours, file, test="shanghaitech")
    two = out, [*rows, {**rows[0], "test": "xd_violence"}]
    with pytest.raises(ValueError, match=r"--test None: which test set .*: ucf_crime, xd_violence$"):
        judged(two, file, test=None)
    for none in ([], [{**rows[0], "kind": "control"}], [{**rows[0], "folder": "nowhere"}]):
        with pytest.raises(ValueError, match=r"to judge by: none: run the file first, one cell is enough"):
            judged((out, none), file, test=None)


def test_a_truth_that_was_edited_judges_nobody(ours: Ours) -> None:
    out, (row,) = ours
    file = write_theirs(ours, lambda truth: truth)
    truth = out / row["folder"] / "truth.csv"
    lines = truth.read_text().splitlines()
    number = next(number for number, line in enumerate(lines) if ",1," in line)  # an anomalous video is now normal
    lines[number] = ",".join([*lines[number].split(",")[:3], "0", "Normal", ""])
    truth.write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=r"truth\.csv: not the truth that a cell was judged by; run that cell again"):
        judged(ours, file)


def test_categories_that_no_fit_saw_are_judged_apart_as_in_our_row(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    step = step_of(made(tmp_path_factory, "refined"), tmp_path, "mil_ranker")
    keep_result("demo", step)
    ours = tmp_path, collect(tmp_path, [step.folder / "run"])
    row = judged(ours, step.folder / "run" / "scores.csv")
    metrics = facts_of(step.folder / "run")["metrics"]
    for key in ("frame_auroc_unseen_refined", "frame_auroc_seen", "frame_ap_refined"):
        assert row[key] == metrics[key]
