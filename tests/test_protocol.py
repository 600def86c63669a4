"""What stands beside every number: a field for each thing that numbers of the field silently differ in."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from datamodules import ShanghaiTech, UbNormal, UcfCrime, UcsdPed2, XdViolence
from tests.finished_tests import HELD_OUT, SIGMA_FRAMES, facts_of, made
from vigil.curves import Curve
from vigil.protocol import JUDGED, OF_THE_INPUT, PUBLIC_NAMES, STATED, differing, of_curves, of_test, of_truth
from vigil.types import Video

# what VAD numbers silently differ in, and where metrics.json of a test says it
POINTS = {
    "1 frame axis": ["judged.convention", "judged.frames", "judged.videos"],
    "2 ground truth": ["judged.ground_truth", "judged.annotation"],
    "3 definition of average precision": ["judged.average_precision", "metrics.frame_ap", "metrics.frame_ap_trapezoid"],
    "4 resolution of scores": ["stated.score_values", "stated.score_type", "stated.precision"],
    "5 checkpoint": ["stated.selection"],
    "6 what was chosen per dataset": ["stated.chosen_per_dataset"],
    "7 fitted on test labels": ["stated.fitted_on_test"],
    "8 smoothing": ["stated.smoothing", "metrics.frame_auroc", "metrics.frame_auroc_refined"],
    "9 position prior": ["stated.position_prior"],
    "10 normalisation": ["stated.normalisation"],
    "11 gating": ["stated.gating", "gated_at", "metrics.frame_auroc_gated"],
    "12 aggregation": ["judged.aggregation", "metrics.frame_auroc_anomalous", "metrics.frame_auroc/Abuse"],
    "13 temporal sampling": ["stated.views"],
    "14 prompts": ["stated.prompt_class_names"],
    "15 audio and features": ["stated.audio", "stated.features", "stated.crops", "stated.backbone"],
    "16 split": ["judged.dataset", "judged.split", "judged.leaked", "judged.hold_out"],
    "17 supervision": [
        *("stated.supervision", "stated.target_labels", "stated.n_labelled_videos", "cost.trained_parameters"),
        "stated.pretraining_saw_dataset",
    ],
    "18 level": ["judged.level"],
    "19 pixels": ["judged.resolution"],
    "20 missing and overlapping": ["judged.overlapping_windows", "judged.missing_scores"],
    "21 online": ["stated.online"],
    "22 release of sentences": [],  # of UCA alone, below
    "23 seeds": ["seed"],
}  # fmt: skip


def value_of(facts: dict[str, Any], key: str) -> Any:
    part, _, name = key.partition(".")
    if not name:
        return facts[key]
    return (facts["protocol"] if part in ("judged", "stated") else facts)[part][name]


@pytest.mark.parametrize("point", POINTS)
def test_a_test_says_of_every_point_how_it_was_done(tmp_path_factory: pytest.TempPathFactory, point: str) -> None:
    facts = facts_of(made(tmp_path_factory, "refined"))
    for key in POINTS[point]:
        assert value_of(facts, key) is not None or key == "judged.annotation", key


def test_a_fitted_ranker_says_what_it_was_told_and_how_it_was_chosen(tmp_path_factory: pytest.TempPathFactory) -> None:
    facts = facts_of(made(tmp_path_factory, "refined"))
    judged, stated = facts["protocol"]["judged"], facts["protocol"]["stated"]
    world = made(tmp_path_factory, "ranker").parents[2] / "world"
    listed = (world / "Anomaly_Train.txt").read_text().split()
    assert stated["n_labelled_videos"] == len([line for line in listed if HELD_OUT not in line])
    assert stated["target_labels"] == "of whole videos"
    assert stated["supervision"] == "weakly supervised"
    assert stated["selection"] == "the last checkpoint of the fit"
    assert stated["smoothing"] == f"Gaussian, sigma {SIGMA_FRAMES} frames, both ways"
    assert stated["features"] == "features"
    assert stated["online"] is False
    assert facts["cost"]["trained_parameters"] == 16 * 32 + 32 + 32 * 8 + 8 + 8 + 1
    assert facts["gated_at"] == facts["threshold"]
    tested = (world / "Temporal_Anomaly_Annotation.txt").read_text().splitlines()
    assert judged["videos"] == facts["videos"] == len(tested)
    assert (judged["dataset"], judged["demo"], judged["leaked"]) == ("UcfCrime", False, 0)
    assert judged["hold_out"] == [HELD_OUT]
    assert facts["seed"] == 0


def test_what_was_not_fitted_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    facts = facts_of(made(tmp_path_factory, "difference"))
    said = facts["protocol"]["stated"]
    assert said | {"backbone": "frame difference", "supervision": "control"} == said
    assert said["selection"] == "nothing was fitted"
    assert said["target_labels"] == said["smoothing"] == "none"
    assert said["n_labelled_videos"] == facts["cost"]["trained_parameters"] == 0
    assert said["views"] == {"video": {"frames": 2, "stride": 4, "hop": 8, "segments": None}}
    assert facts["gated_at"] is None


def test_events_with_a_class_are_of_another_level_and_say_which_release_they_are_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    facts = facts_of(made(tmp_path_factory, "classes"))
    judged = facts["protocol"]["judged"]
    assert judged["level"] == "event"
    assert [judged[key] for key in ("release", "text", "irregular", "words")] == [
        "current",
        "original",
        "refuse",
        "narrow",
    ]


def judged_of(factory: pytest.TempPathFactory, name: str) -> dict[str, Any]:
    return facts_of(made(factory, name))["protocol"]


def test_two_conventions_of_a_dataset_differ_by_name_and_by_their_truth(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    full, cut = judged_of(tmp_path_factory, "difference"), judged_of(tmp_path_factory, "vadclip")
    assert differing(full, full) == differing(full, json.loads(json.dumps(full))) == {}
    found = differing(full, cut)
    assert found.keys() == {"convention", "ground_truth", "frames"}
    assert found["convention"] == ("full", "vadclip")
    assert found["frames"][0] > found["frames"][1]
    assert differing(cut, full)["convention"] == ("vadclip", "full")


def test_fewer_videos_and_held_out_categories_are_other_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    plain = judged_of(tmp_path_factory, "plain")
    few = differing(plain, judged_of(tmp_path_factory, "few"))
    assert few.keys() == {"limit_videos", "ground_truth", "frames", "videos"}
    assert few["limit_videos"] == (None, 6)
    assert differing(plain, judged_of(tmp_path_factory, "refined")) == {"hold_out": (None, [HELD_OUT])}


def test_leaks_and_rendered_copies_are_other_tests() -> None:
    def said(**facts: Any) -> dict[str, Any]:
        return of_test({"dataset": "UcfCrime"}, {}, {"leaked": 0, "demo": False, **facts})

    assert differing(said(), said(leaked=3)) == {"leaked": (0, 3)}
    assert differing(said(), said(leaked=None)) == {"leaked": (0, None)}
    assert differing(said(), said(demo=True)) == {"demo": (False, True)}
    assert differing(said(), said(views="other", selection="last")) == {}  # told, and no bar to comparing


def test_what_a_dataset_says_of_its_input_is_told_and_judges_nothing() -> None:
    said = {
        "dataset": "UcfCrime",
        "features": "i3d",
        "crops": "mean",
        "causal": True,
        "future_frames": 0,
        "audio": "used",
    }
    found = of_test(said, {"backbone": "I3D"}, {})
    assert found["judged"] == JUDGED | {"dataset": "UcfCrime"}
    assert {key: found["stated"][key] for key in OF_THE_INPUT} == {key: said[key] for key in OF_THE_INPUT}
    assert found["stated"]["backbone"] == "I3D"
    assert of_test({}, {}, {}) == {"judged": JUDGED, "stated": STATED}


def test_the_defaults_claim_nothing_that_nobody_said() -> None:
    assert STATED["supervision"] == "not stated"
    assert STATED["pretraining_saw_dataset"] == "unknown"
    assert STATED["selection"] == "nothing was fitted"
    assert not set(JUDGED) & set(STATED)


@pytest.mark.parametrize(
    ("kind", "one", "other", "field"),
    [
        (UcfCrime, {}, {"convention": "vera"}, "convention"),
        (UcfCrime, {}, {"annotation": "other.txt"}, "annotation"),
        (XdViolence, {}, {"convention": "xdviodet"}, "convention"),
        (ShanghaiTech, {"split": "one_class"}, {"split": "weak"}, "split"),
        (UbNormal, {}, {"population": "abnormal_only"}, "population"),
        (UcsdPed2, {}, {"resolution": "ped1"}, "resolution"),
    ],
)
def test_every_variant_of_a_dataset_is_named_by_the_field_that_it_changes(
    kind: Any, one: dict[str, Any], other: dict[str, Any], field: str
) -> None:
    here, there = (of_test(kind(root="data", **given).protocol, {}, {}) for given in (one, other))
    assert field in differing(here, there)
    assert differing(here, here) == {}


def test_every_dataset_has_the_name_that_the_field_gives_it() -> None:
    for kind in (UcfCrime, XdViolence, ShanghaiTech, UbNormal, UcsdPed2):
        assert of_test(kind(root="data").protocol, {}, {})["judged"]["dataset"] in PUBLIC_NAMES


def test_truth_and_curves_are_counted() -> None:
    videos = [Video("a", n_frames=40, label=1, anomalies=[(3, 9)]), Video("b", n_frames=2, label=0, anomalies=[])]
    assert of_truth(videos) | {"videos": 2, "frames": 42} == of_truth(videos)
    assert of_truth(videos[:1])["ground_truth"] != of_truth(videos)["ground_truth"]
    score = np.array([0.1, 0.2, 0.1], dtype=np.float32)
    curves = {"a": Curve(np.array([0, 5, 6, 40]), score), "b": Curve(np.array([0, 2]), score[1:2])}
    assert of_curves(curves) == {"score_values": 2}
