"""Pictures of how far class scores can be taken for probabilities: what they show, not how."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from callbacks.calibration_picture import draw_reliability

RIGHT, GAP = (31, 119, 180), (243, 190, 190)  # of accuracy; of the gap, three tenths of tab:red on white


def shares(picture: bytes) -> tuple[float, float]:
    """Which share of a picture is in the colour of accuracy, and which in that of the gap to confidence."""
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    return tuple(float((np.abs(pixels - near).max(-1) < 12).mean()) for near in (RIGHT, GAP))


def make_scores(n_right: int, likelihood: float, n_samples: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Samples of two classes, all as sure of the first one, which is the true one of `n_right`."""
    true = (np.arange(n_samples) >= n_right).astype(np.int64)
    return true, np.tile(np.log([likelihood, 1 - likelihood]), (n_samples, 1)).astype(np.float32)


def test_the_gap_is_as_high_as_confidence_and_accuracy_are_apart() -> None:
    (right, none), (_, some), (_, much) = (
        shares(draw_reliability(*make_scores(n_right, 0.9), None)) for n_right in (90, 70, 20)
    )
    assert right > 0.01
    assert none < 0.3 * some
    assert some < 0.5 * much


def test_a_temperature_adds_a_second_diagram_with_less_of_a_gap() -> None:
    true, score = make_scores(60, 0.9)
    alone, both = draw_reliability(true, score, None), draw_reliability(true, score, 5.42)  # 0.9 becomes 0.6
    assert [Image.open(io.BytesIO(picture)).size for picture in (alone, both)] == [(400, 460), (800, 460)]
    assert shares(both)[1] < 0.7 * shares(alone)[1]  # half as much of a picture twice as wide, and the legend


def test_a_single_sample_that_is_wrong_can_be_drawn() -> None:
    picture = draw_reliability(np.array([1]), np.array([[0.0, -200.0]], dtype=np.float32), 1e-3)
    assert Image.open(io.BytesIO(picture)).size == (800, 460)
