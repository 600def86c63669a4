"""Detectors that see nothing: random, constant, the middle of the video, the video's label."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vigil.controls import CONTROLS, control_curves
from vigil.curves import expand
from vigil.judging import frame_numbers
from vigil.types import Video

VIDEOS = [
    Video("a", n_frames=100, label=1, anomalies=[(10, 60)], fps=25.0),
    Video("b", n_frames=37, label=0, anomalies=[], fps=25.0),
    Video("c", n_frames=1, label=0, anomalies=[], fps=25.0),
    Video("d", n_frames=16, label=1, anomalies=[(0, 4)], fps=25.0),
]


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_scores_every_frame_of_every_video_as_a_system_would(name: str) -> None:
    curves = control_curves(name, VIDEOS)
    assert [(key, curve.n_frames) for key, curve in curves.items()] == [(v.name, v.n_frames) for v in VIDEOS]
    for curve in curves.values():
        assert curve.score.dtype == np.float32
        assert ((curve.score >= 0) & (curve.score <= 1)).all()


def test_random_scores_hold_for_16_frames_and_are_the_seeds() -> None:
    one, again, other = (control_curves("random", VIDEOS, seed) for seed in (3, 3, 4))
    for name, curve in one.items():
        assert np.array_equal(expand(curve), expand(again[name]))
        assert not np.array_equal(expand(curve), expand(other[name]))
        edges = [*range(0, curve.n_frames, 16), curve.n_frames]
        assert curve.edge.tolist() == edges
    drawn = np.concatenate([curve.score for curve in one.values()])
    assert len(set(drawn.tolist())) == len(drawn)
    many = control_curves("random", [Video("long", n_frames=16 * 4000)])["long"].score
    assert many.mean() == pytest.approx(0.5, abs=0.02)
    assert np.quantile(many, 0.1) == pytest.approx(0.1, abs=0.02)


def test_the_constant_is_a_half_and_ranks_nothing() -> None:
    curves = control_curves("constant", VIDEOS)
    assert {float(value) for curve in curves.values() for value in curve.score} == {0.5}
    assert frame_numbers(VIDEOS, curves)["frame_auroc"] == 0.5


def test_the_centre_is_a_gaussian_over_the_videos_middle() -> None:
    for video in VIDEOS:
        score = expand(control_curves("temporal_centre", [video])[video.name])
        n = video.n_frames
        for t in range(n):
            expected = math.exp(-((t - (n - 1) / 2) ** 2) / (2 * max(n / 2, 1) ** 2))
            assert score[t] == pytest.approx(expected, rel=1e-6)
        assert score.max() == score[(n - 1) // 2]
        assert np.array_equal(score, score[::-1])


def test_the_oracle_knows_the_videos_labels_and_nothing_more() -> None:
    curves = control_curves("video_label_oracle", VIDEOS)
    assert {name: curve.score.tolist() for name, curve in curves.items()} == {"a": [1], "b": [0], "c": [0], "d": [1]}
    values = frame_numbers(VIDEOS, curves)
    assert values["video_auroc"] == 1
    assert values["frame_auroc_anomalous"] == 0.5
    # 54 anomalous frames at 1, of the normal ones 62 at 1 and 38 at 0
    assert values["frame_auroc"] == pytest.approx((38 + 62 / 2) / 100)
    assert values["frame_ap"] == pytest.approx(54 / 116)


def test_an_unknown_control_and_an_unknown_label_are_refused() -> None:
    with pytest.raises(
        ValueError, match="control 'centre': expected one of random, constant, temporal_centre, video_l"
    ):
        control_curves("centre", VIDEOS)
    unknown = Video("x", n_frames=9)
    with pytest.raises(ValueError, match="x: its label is unknown, the oracle needs it; no such control"):
        control_curves("video_label_oracle", [*VIDEOS, unknown])
    assert set(control_curves("random", [unknown])) == {"x"}
