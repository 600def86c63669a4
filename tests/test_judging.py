"""Every frame number, against scikit-learn, torchmetrics and loops over frames."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    auc,
    average_precision_score,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    top_k_accuracy_score,
)
from torchmetrics.functional.classification import binary_calibration_error, multiclass_calibration_error

from vigil.calibration import BINS
from vigil.curves import Curve
from vigil.judging import (
    calibration,
    class_numbers,
    class_reliability,
    event_numbers,
    frame_numbers,
    reliability,
    top_k,
    with_sentinels,
)
from vigil.types import Video

CATEGORIES = ["Abuse", "Fighting+Shooting", "Shooting", None, None, "Abuse", "Normal", "Fighting", ""]
Frames = list[np.ndarray]


def make_world(seed: int = 0, decimals: int = 1) -> tuple[list[Video], dict[str, Curve], Frames, Frames]:
    """Videos, a curve of each, and by plain loops the label and the score of each of their frames; with many ties."""
    generator = np.random.default_rng(seed)
    videos, curves, labels, scores = [], {}, [], []
    for index, category in enumerate(CATEGORIES):
        n_frames = int(generator.integers(60, 200))
        anomalous = bool(category) and category != "Normal"
        events = [(5, 20), (15, 30), (n_frames - 6, n_frames + 9)] if anomalous else []  # overlapping, beyond the end
        videos.append(Video(f"v{index}", None, n_frames, 25.0, int(anomalous), category, events))
        edge = np.unique([0, n_frames, *generator.integers(1, n_frames, 12)]).astype(np.int64)
        score = generator.random(len(edge) - 1).round(decimals).astype(np.float32)
        curves[f"v{index}"] = Curve(edge, score)
        labels.append(np.array([any(a <= t < b for a, b in events) for t in range(n_frames)], dtype=int))
        scores.append(np.array([score[np.flatnonzero(edge <= t)[-1]] for t in range(n_frames)]))
    return videos, curves, labels, scores


def areas(label: np.ndarray, score: np.ndarray) -> tuple[float, float, float]:
    precision, recall, _ = precision_recall_curve(label, score)
    return roc_auc_score(label, score), average_precision_score(label, score), auc(recall, precision)


def chosen(parts: Frames, members: Sequence[bool]) -> np.ndarray:
    return np.concatenate([part for part, is_member in zip(parts, members, strict=True) if is_member])


def halved(curves: dict[str, Curve]) -> dict[str, Curve]:
    """Other curves of the same videos: their scores' square roots."""
    return {name: Curve(curve.edge, np.sqrt(curve.score)[::-1].copy()) for name, curve in curves.items()}


def per_frame(curves: dict[str, Curve]) -> Frames:
    return [
        np.concatenate([[s] * int(b - a) for a, b, s in zip(c.edge[:-1], c.edge[1:], c.score, strict=True)])
        for c in curves.values()
    ]


def test_two_sentinels_count_as_a_normal_frame_of_logit_0_and_an_anomalous_one_of_logit_1() -> None:
    generator = np.random.default_rng(1)
    videos, curves, logits, labels = [], {}, [0.0, 1.0], [0, 1]
    for index in range(6):
        edge = np.arange(0, 41, 8)
        logit = generator.choice([-2.0, -0.4, 0.0, 0.6, 1.0, 3.0], 5)  # some tie with the sentinels
        events = [(10, 29)] if index % 2 else []
        videos.append(Video(f"v{index}", n_frames=40, label=index % 2, anomalies=events))
        curves[f"v{index}"] = Curve(edge, torch.from_numpy(logit).float().sigmoid().numpy())
        logits += logit.repeat(8).tolist()
        labels += [int(any(first <= frame < end for first, end in events)) for frame in range(40)]
    expected = roc_auc_score(labels, logits)
    assert with_sentinels(videos, list(curves.values())) == {
        "frame_auroc_sentinels": pytest.approx(expected, abs=1e-12)
    }
    values = frame_numbers(videos, curves, curves, gated_at=0.7, sentinels=True)
    assert values["frame_auroc_sentinels_refined"] == values["frame_auroc_sentinels"] == pytest.approx(expected)
    assert abs(expected - values["frame_auroc"]) > 1e-4
    assert not any("sentinels" in key for key in frame_numbers(videos, curves))


def test_with_sentinels_a_test_of_normal_videos_alone_has_an_auroc() -> None:
    video, curve = Video("a", n_frames=9, label=0, anomalies=[]), Curve(np.array([0, 9]), np.array([0.6], np.float32))
    assert with_sentinels([video], [curve]) == {"frame_auroc_sentinels": 1.0}  # 0.731 lies above 0.5 and nine times 0.6


def test_areas_of_frames_are_scikit_learns_on_raw_refined_and_gated_curves() -> None:
    videos, curves, labels, scores = make_world()
    refined = halved(curves)
    values = frame_numbers(videos, curves, refined, gated_at=0.7)
    fine = per_frame(refined)
    gated = [np.where(part.astype(np.float64) > 0.7, part, 0) for part in fine]
    for end, parts in (("", scores), ("_refined", fine), ("_gated", gated)):
        found = [values[key + end] for key in ("frame_auroc", "frame_ap", "frame_ap_trapezoid")]
        assert found == pytest.approx(areas(np.concatenate(labels), np.concatenate(parts)), abs=1e-12)
        low, high = values[f"frame_auroc_low{end}"], values[f"frame_auroc_high{end}"]
        assert low < values[f"frame_auroc{end}"] < high
        assert values[f"frame_ap_low{end}"] < values[f"frame_ap{end}"] < values[f"frame_ap_high{end}"]
    assert values["frame_auroc"] != values["frame_auroc_refined"] != values["frame_auroc_gated"]


def test_without_refining_the_raw_curves_are_those_that_are_gated() -> None:
    videos, curves, labels, scores = make_world()
    values = frame_numbers(videos, curves, {}, gated_at=0.4)
    gated = np.concatenate([np.where(part.astype(np.float64) > 0.4, part, 0) for part in scores])
    assert values["frame_auroc_gated"] == pytest.approx(roc_auc_score(np.concatenate(labels), gated), abs=1e-12)
    assert not [key for key in values if key.endswith("_refined")]


def test_a_category_is_judged_with_all_normal_videos_and_a_video_of_two_counts_in_each() -> None:
    videos, curves, labels, scores = make_world()
    values = frame_numbers(videos, curves, unseen=["Shooting", "Abuse"])
    anomalous = [video.label == 1 for video in videos]

    def of(names: set[str]) -> float:
        members = [video.label == 0 or bool(names & set((video.category or "").split("+"))) for video in videos]
        return roc_auc_score(chosen(labels, members), chosen(scores, members))

    for category in ("Abuse", "Fighting", "Shooting"):
        assert values[f"frame_auroc/{category}"] == pytest.approx(of({category}), abs=1e-12)
    assert {key for key in values if "/" in key} == {
        f"frame_auroc/{name}" for name in ("Abuse", "Fighting", "Shooting")
    }
    only = roc_auc_score(chosen(labels, anomalous), chosen(scores, anomalous))
    assert values["frame_auroc_anomalous"] == pytest.approx(only, abs=1e-12)
    assert values["frame_auroc_unseen"] == pytest.approx(of({"Abuse", "Shooting"}), abs=1e-12)
    seen = [video.label == 0 or video.category == "Fighting" for video in videos]
    assert values["frame_auroc_seen"] == pytest.approx(roc_auc_score(chosen(labels, seen), chosen(scores, seen)))
    assert not {"frame_auroc_seen", "frame_auroc_unseen"} & frame_numbers(videos, curves).keys()


def test_a_group_without_normal_frames_is_left_out() -> None:
    world, curves, _, _ = make_world()
    videos = [world[0], world[3]]
    videos[0].anomalies = [(0, videos[0].n_frames)]
    values = frame_numbers(videos, curves)
    assert "frame_auroc_anomalous" not in values
    assert "frame_auroc/Abuse" in values


def test_whole_videos_are_ranked_by_their_highest_frame_where_both_labels_are_there() -> None:
    videos, curves, _, scores = make_world(decimals=3)
    expected = roc_auc_score([video.label for video in videos], [part.max() for part in scores])
    assert frame_numbers(videos, curves)["video_auroc"] == pytest.approx(expected, abs=1e-12)
    anomalous = [video for video in videos if video.label]
    assert "video_auroc" not in frame_numbers(anomalous, curves)


def test_perfect_inverted_and_constant_scores_have_the_areas_they_should() -> None:
    videos, _, labels, _ = make_world()
    for score, expected in ((lambda x: x, 1.0), (lambda x: 1 - x, 0.0), (lambda x: 0 * x + 0.5, 0.5)):
        curves = {
            video.name: Curve(np.arange(len(label) + 1), score(label).astype(np.float32))
            for video, label in zip(videos, labels, strict=True)
        }
        values = frame_numbers(videos, curves, threshold=0.75)
        assert values["frame_auroc"] == values["frame_auroc_low"] == values["frame_auroc_high"] == expected
    share = np.concatenate(labels).mean()
    assert values["frame_ap"] == pytest.approx(share)
    assert values["ece"] == pytest.approx(abs(share - 0.5), abs=1e-9)
    assert values["event_map"] == 0


def events_by_loop(score: np.ndarray, threshold: float) -> list[tuple[int, int, float]]:
    found, first = [], None
    for t, value in enumerate([*score.tolist(), -1.0]):
        if value > threshold and first is None:
            first = t
        elif value <= threshold and first is not None:
            found.append((first, t, max(score[first:t].tolist())))
            first = None
    return found


def event_map_by_loop(found: list[list[tuple[int, int, float]]], truth: list[list[tuple[int, int]]]) -> float:
    """ActivityNet's: found events from the best down, each taking the true one that it overlaps most."""
    areas = []
    ranked = sorted((-score, video, first, end) for video, part in enumerate(found) for first, end, score in part)
    for overlap in (0.1, 0.2, 0.3, 0.4, 0.5):
        free = {(video, event) for video, events in enumerate(truth) for event in events}
        hits = []
        for _, video, first, end in ranked:
            best, most = None, 0.0
            for one, (a, b) in sorted(free):
                shared = max(0, min(end, b) - max(first, a))
                iou = shared / (end - first + b - a - shared)
                if one == video and iou > most:
                    best, most = (one, (a, b)), iou
            hits.append(most >= overlap)
            if hits[-1]:
                free.remove(best)
        precision = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits))]
        total = sum(len(events) for events in truth)
        areas.append(sum(max(precision[k:]) / total for k, hit in enumerate(hits) if hit))
    return sum(areas) / len(areas)


@pytest.mark.parametrize("threshold", [0.15, 0.5, 0.85])
def test_events_are_what_lies_above_the_threshold_and_alarms_those_on_normal_videos(threshold: float) -> None:
    videos, curves, _, _ = make_world(decimals=3)
    for video in videos:
        video.anomalies = [(5, 30)] if video.label else []
    refined = halved(curves)
    values = frame_numbers(videos, curves, refined, threshold=threshold)
    found = [events_by_loop(score.astype(np.float64), threshold) for score in per_frame(refined)]
    expected = event_map_by_loop(found, [video.anomalies for video in videos])
    assert 0 < values["event_map"] == pytest.approx(expected, abs=1e-12)
    alarms = sum(len(part) for part, video in zip(found, videos, strict=True) if not video.label)
    hours = sum(video.n_frames / 25 for video in videos if not video.label) / 3600
    assert values["false_alarms_per_hour"] == pytest.approx(alarms / hours)
    raw = frame_numbers(videos, curves, threshold=threshold)
    assert raw["event_map"] != values["event_map"]  # of the curves that a system ends with
    assert "event_map" not in frame_numbers(videos, curves, refined)


def test_alarms_need_a_frame_rate_and_normal_videos() -> None:
    videos, curves, _, _ = make_world()
    own = [curves[video.name] for video in videos]
    videos[3].fps = None
    with pytest.raises(ValueError, match=r"v3: its frame rate is unknown"):
        event_numbers(videos, own, 0.5)
    assert event_numbers(videos, own, 0.5, fps=25.0)["false_alarms_per_hour"] > 0
    assert "false_alarms_per_hour" not in event_numbers(videos[:1], own[:1], 0.5)


def test_the_calibration_error_is_torchmetrics_on_frames() -> None:
    videos, curves, labels, scores = make_world(decimals=7)
    score, label = torch.from_numpy(np.concatenate(scores)), torch.from_numpy(np.concatenate(labels))
    assert not (score * BINS % 1 == 0).any()  # on a bin's edge the two part
    expected = binary_calibration_error(score.double(), label, n_bins=15, norm="l1").item()
    values = frame_numbers(videos, curves, halved(curves))
    assert values["ece"] == pytest.approx(expected, abs=1e-6)  # torchmetrics adds up in float32
    fine = torch.from_numpy(np.concatenate(per_frame(halved(curves))))
    expected = binary_calibration_error(fine.double(), label, n_bins=15, norm="l1").item()
    assert values["ece_refined"] == pytest.approx(expected, abs=1e-6)
    assert values["ece"] != values["ece_refined"]
    assert "ece_gated" not in frame_numbers(videos, curves, gated_at=0.5)


def test_a_score_on_the_edge_of_a_bin_lies_in_the_lower_one_as_in_the_equation() -> None:
    steps = [Fraction(k, 15) for k in range(16)]
    near = np.array([float(step) for step in steps], dtype=np.float32)
    score = np.unique(
        np.concatenate([near, np.nextafter(near, 0), np.nextafter(near, 1), [0.0, 1.0]]).astype(np.float32)
    )
    video = Video("a", None, 2 * len(score), 25.0, 1, None, [(0, 2 * len(score) - 31)])
    curve = Curve(np.arange(0, 2 * len(score) + 1, 2), score)
    bins: dict[int, list[tuple[float, int]]] = {}
    for t, value in enumerate(np.repeat(score, 2).tolist()):
        index = next(k for k in range(15) if Fraction(value) <= steps[k + 1])  # (k/15, (k+1)/15], and 0 in the first
        bins.setdefault(index, []).append((value, int(t < video.anomalies[0][1])))
    found = reliability([video], [curve])
    assert found.number == sorted(bins)
    assert found.size == [len(bins[k]) for k in sorted(bins)]
    for k, index in enumerate(sorted(bins)):
        assert found.score[k] == pytest.approx(np.mean([value for value, _ in bins[index]]), abs=1e-12)
        assert found.share[k] == pytest.approx(np.mean([label for _, label in bins[index]]), abs=1e-12)
    gap = sum(abs(sum(value - label for value, label in part)) for part in bins.values())
    assert calibration([video], [curve])["ece"] == pytest.approx(gap / (2 * len(score)), abs=1e-12)


def test_a_reliability_diagram_has_only_bins_that_hold_frames() -> None:
    video = Video("a", None, 10, 25.0, 1, None, [(0, 4)])
    found = reliability([video], [Curve(np.array([0, 3, 10]), np.array([0.99, 0.01], dtype=np.float32))])
    assert (found.number, found.size) == ([0, 14], [7, 3])
    assert found.score == pytest.approx([0.01, 0.99])
    assert found.share == pytest.approx([1 / 7, 1])


def test_top_k_is_scikit_learns_and_a_tie_counts_as_if_broken_at_random() -> None:
    generator = np.random.default_rng(0)
    true, score = generator.integers(0, 5, 60), generator.normal(size=(60, 5)).astype(np.float32)
    for k in (1, 2, 3):
        expected = top_k_accuracy_score(true, score, k=k, labels=range(5))
        assert top_k(true, score)[f"top{k}"] == pytest.approx(expected, abs=1e-12)
    tied = generator.integers(0, 3, (60, 4)).astype(np.float32)
    true = generator.integers(0, 4, 60)
    for k in (1, 2, 3):
        hits = []
        for own, row in zip(true, tied, strict=True):
            orders = [sorted(order, key=lambda j, row=row: -row[j])[:k] for order in permutations(range(4))]
            hits.append(np.mean([own in best for best in orders]))
        assert top_k(true, tied)[f"top{k}"] == pytest.approx(np.mean(hits), abs=1e-12)
    assert top_k(np.array([0]), np.array([[0.1, 0.4]])) == {"top1": 0.0}


def make_classes(n_samples: int = 90, n_classes: int = 6) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Categories, log-likelihoods that know something of them, and videos of one to a dozen samples."""
    generator = np.random.default_rng(0)
    true = generator.integers(0, n_classes, n_samples)
    score = generator.normal(scale=2, size=(n_samples, n_classes)) - 7
    score[np.arange(n_samples), true] += 1.5
    return true, score.astype(np.float32), [f"v{number}" for number in np.sort(generator.integers(0, 20, n_samples))]


def by_loop(true: np.ndarray, score: np.ndarray, temperature: float) -> tuple[float, float, float]:
    """Calibration error in 15 bins, negative log-likelihood and entropy, sample by sample."""
    bins, likelihood, entropy = [[] for _ in range(15)], [], []
    for own, row in zip(true.tolist(), score.tolist(), strict=True):
        weight = [2.718281828459045 ** (value / temperature) for value in row]
        chance = [value / sum(weight) for value in weight]
        best = max(range(len(row)), key=chance.__getitem__)
        index = next(k for k in range(15) if chance[best] <= (k + 1) / 15)
        bins[index].append((chance[best], best == own))
        likelihood.append(-np.log(chance[own]))
        entropy.append(-sum(p * np.log(p) for p in chance))
    gap = sum(abs(sum(p for p, _ in part) - sum(hit for _, hit in part)) for part in bins)
    return gap / len(true), float(np.mean(likelihood)), float(np.mean(entropy))


def test_numbers_of_classes_are_those_of_a_loop_before_and_after_scaling() -> None:
    true, score, video = make_classes()
    values = class_numbers(true, score, video, temperature=2.5)
    assert [values[key] for key in ("class_ece", "class_nll", "class_entropy")] == pytest.approx(
        by_loop(true, score, 1.0)
    )
    assert [values["class_ece_scaled"], values["class_nll_scaled"]] == pytest.approx(by_loop(true, score, 2.5)[:2])
    assert values["class_ece"] != pytest.approx(values["class_ece_scaled"], abs=0.05)
    without = class_numbers(true, score, video)
    assert without == {key: value for key, value in values.items() if not key.endswith("_scaled")}


def test_numbers_of_classes_are_those_of_torchmetrics_and_scikit_learn() -> None:
    true, score, video = make_classes()
    chance = torch.from_numpy(score).double().softmax(-1)
    values = class_numbers(true, score, video)
    expected = multiclass_calibration_error(chance, torch.from_numpy(true), num_classes=6, n_bins=15, norm="l1")
    assert values["class_ece"] == pytest.approx(expected.item(), abs=1e-6)
    assert values["class_nll"] == pytest.approx(log_loss(true, chance.numpy(), labels=range(6)), abs=1e-12)


def test_top_k_comes_with_an_interval_over_videos_and_what_three_answers_gain_over_one() -> None:
    true, score, video = make_classes()
    values = class_numbers(true, score, video)
    for key, value in top_k(true, score).items():
        assert values[key] == pytest.approx(value, abs=1e-12)
        assert values[f"{key}_low"] < value < values[f"{key}_high"]
    assert values["top_expansion"] == values["top3"] - values["top1"] > 0
    alone = class_numbers(true, score, [f"v{number}" for number in range(len(true))])
    assert alone["top1_low"] != values["top1_low"]  # samples of one video are drawn together
    two = class_numbers(np.array([0, 1]), np.array([[0.1, 0.4], [0.1, 0.4]]), ["a", "b"])
    assert two["top1"] == 0.5
    assert "top_expansion" not in two


def test_equal_scores_are_as_sure_as_they_are_right() -> None:
    values = class_numbers(np.arange(6), np.full((6, 6), -3.0, dtype=np.float32), ["a"] * 6)
    assert values["class_ece"] == pytest.approx(0, abs=1e-12)
    assert values["class_nll"] == values["class_entropy"] == pytest.approx(np.log(6))
    assert values["top1"] == pytest.approx(1 / 6)


def test_likelihoods_far_apart_lose_nothing_to_rounding() -> None:
    values = class_numbers(np.array([1, 0]), np.array([[0.0, -5e4], [-9e4, -1e5]], dtype=np.float32), ["a", "b"])
    assert values["class_nll"] == pytest.approx(2.5e4)
    assert values["class_entropy"] == 0
    assert values["class_ece"] == pytest.approx(0.5)


def test_a_temperature_moves_confidence_and_leaves_who_is_right() -> None:
    true, score, _ = make_classes()
    before, after = class_reliability(true, score), class_reliability(true, score, 4.0)
    assert sum(before.size) == sum(after.size) == len(true)
    right = [sum(size * share for size, share in zip(bins.size, bins.share, strict=True)) for bins in (before, after)]
    assert right == pytest.approx([len(true) * top_k(true, score)["top1"]] * 2)
    assert max(after.number) < max(before.number)


def test_without_a_sample_there_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"values \(0,\) of 0 groups"):
        class_numbers(np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32), [])


def test_videos_whose_truth_is_unknown_are_named() -> None:
    videos, curves, _, _ = make_world()
    videos[2].anomalies = None
    with pytest.raises(ValueError, match=r"1 of 9 videos have no anomalies: v2; this metric needs it of every video"):
        frame_numbers(videos, curves)


def test_frames_of_one_kind_alone_are_no_ranking() -> None:
    videos, curves, _, _ = make_world()
    with pytest.raises(ValueError, match=r"0 anomalous and \d+ normal frames"):
        frame_numbers([video for video in videos if not video.label], curves)
