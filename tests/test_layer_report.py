"""What a fit leaves for eyes: tables that read back exactly, and pictures that open."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from vigil.layer_report import draw_heads, draw_layers, draw_tsne, tsne, write_heads, write_layers

NAMES = ("kl_divergence", "discriminant_ratio", "entropy", "silhouette", "saliency")
CHOSEN = [(5, 2), (6, 3), (6, 0)]


def make_curves(n_layers: int) -> dict[str, np.ndarray]:
    """A hump around two thirds of the depth, as the paper's figures show, with noise."""
    generator = np.random.default_rng(n_layers)
    hump = np.exp(-(((np.arange(n_layers) / n_layers - 0.65) / 0.25) ** 2))
    return {name: hump * (i + 1) / 3 + generator.normal(0, 0.02, n_layers) for i, name in enumerate(NAMES)}


def make_states(n_samples: int, width: int = 64, distance: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Two Gaussian clouds, the anomalous one moved along the first width; every third sample is anomalous."""
    label = (np.arange(n_samples) % 3 == 0).astype(int)
    states = np.random.default_rng(0).normal(size=(n_samples, width)).astype(np.float32)
    states[:, 0] += distance * label
    return states, label


def make_scores(n_layers: int = 8, n_heads: int = 4) -> np.ndarray:
    return np.random.default_rng(1).gamma(1.5, 0.03, (n_layers, n_heads))


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def pixels(picture: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(picture))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def test_layers_read_back_exactly(tmp_path: Path) -> None:
    curves = make_curves(32)
    write_layers(tmp_path / "layers.csv", curves, chosen=20)
    rows = read_csv(tmp_path / "layers.csv")
    assert list(rows[0]) == ["layer", *NAMES, "chosen"]
    assert [int(row["layer"]) for row in rows] == list(range(32))
    assert [row["chosen"] for row in rows] == ["1" if layer == 20 else "0" for layer in range(32)]
    for name, curve in curves.items():
        assert [float(row[name]) for row in rows] == curve.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_layers_of_a_tensor_read_back_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    curve = torch.tensor([0.1, 1e-12, -3.3], dtype=dtype, requires_grad=True)
    write_layers(tmp_path / "layers.csv", {"entropy": curve}, chosen=0)
    assert [float(row["entropy"]) for row in read_csv(tmp_path / "layers.csv")] == curve.tolist()


def test_curves_of_different_lengths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'kl_divergence': 3, 'entropy': 2"):
        write_layers(tmp_path / "layers.csv", {"kl_divergence": [1, 2, 3], "entropy": [1, 2]}, chosen=0)
    assert not (tmp_path / "layers.csv").exists()


def test_no_curves_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        draw_layers({}, 0, "nothing")


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_curve_that_is_not_finite_is_refused(wrong: float) -> None:
    with pytest.raises(ValueError, match="entropy: 1 of 3 values are not finite"):
        draw_layers({"entropy": [1, wrong, 3]}, 0, "broken")


@pytest.mark.parametrize("chosen", [-1, 8])
def test_a_chosen_layer_outside_is_refused(chosen: int) -> None:
    with pytest.raises(ValueError, match=f"layer {chosen} is chosen of 8"):
        draw_layers(make_curves(8), chosen, "outside")


@pytest.mark.parametrize("n_layers", [1, 8, 32])
def test_layers_are_drawn_in_five_panels_at_a_size_to_read(n_layers: int) -> None:
    image = pixels(draw_layers(make_curves(n_layers), n_layers // 2, "five curves"))
    assert image.shape == (520, 1020, 3)


def test_the_chosen_layer_changes_the_picture() -> None:
    assert (pixels(draw_layers(make_curves(8), 5, "a")) != pixels(draw_layers(make_curves(8), 2, "a"))).any()


def test_heads_read_back_exactly(tmp_path: Path) -> None:
    scores = make_scores()
    write_heads(tmp_path / "heads.csv", torch.from_numpy(scores), CHOSEN)
    rows = read_csv(tmp_path / "heads.csv")
    assert list(rows[0]) == ["layer", "head", "separability", "rank", "chosen"]
    assert [(int(row["layer"]), int(row["head"])) for row in rows] == [(la, h) for la in range(8) for h in range(4)]
    assert [float(row["separability"]) for row in rows] == scores.ravel().tolist()
    assert {(int(row["layer"]), int(row["head"])) for row in rows if row["chosen"] == "1"} == set(CHOSEN)
    for row in rows:  # as many heads are better as the rank says
        assert int(row["rank"]) == 1 + (scores > float(row["separability"])).sum()


def test_of_equal_heads_the_first_ranks_first(tmp_path: Path) -> None:
    write_heads(tmp_path / "heads.csv", [[0.0, 0.5], [0.5, 0.0]], [(0, 1)])
    assert [row["rank"] for row in read_csv(tmp_path / "heads.csv")] == ["3", "1", "2", "4"]


@pytest.mark.parametrize("pair", [(8, 0), (0, 4), (-1, 0)])
def test_a_chosen_head_outside_is_refused(tmp_path: Path, pair: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="8 layers x 4 heads"):
        write_heads(tmp_path / "heads.csv", make_scores(), [(0, 0), pair])
    assert not (tmp_path / "heads.csv").exists()


def test_no_head_chosen_is_written_and_drawn(tmp_path: Path) -> None:
    write_heads(tmp_path / "heads.csv", make_scores(), [])
    assert {row["chosen"] for row in read_csv(tmp_path / "heads.csv")} == {"0"}
    assert pixels(draw_heads(make_scores(), [], "none")).std() > 0


def test_a_head_chosen_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        draw_heads(make_scores(), [(1, 1), (1, 1)], "twice")


def test_scores_with_nan_or_of_one_dimension_are_refused() -> None:
    scores = make_scores()
    scores[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 32 values are not finite"):
        draw_heads(scores, CHOSEN, "broken")
    with pytest.raises(ValueError, match="2 dimensions"):
        draw_heads(scores[0], CHOSEN, "flat")


@pytest.mark.parametrize(("n_layers", "n_heads", "least", "most"), [(8, 4, 400, 600), (28, 28, 550, 900)])
def test_heads_are_drawn_at_a_size_to_read(n_layers: int, n_heads: int, least: int, most: int) -> None:
    image = pixels(draw_heads(make_scores(n_layers, n_heads), CHOSEN, "heads"))
    assert least <= min(image.shape[:2]) <= max(image.shape[:2]) <= most
    border = np.concatenate([image[:2].reshape(-1, 3), image[:, :2].reshape(-1, 3), image[:, -2:].reshape(-1, 3)])
    assert (border == 255).all()  # nothing is cut off


def test_tsne_is_the_same_for_a_seed_whatever_the_threads() -> None:
    states, _ = make_states(40)
    first = tsne(states, seed=3)
    for n_threads in (1, 2):
        with threadpool_limits(n_threads):
            before = [pool["num_threads"] for pool in threadpool_info()]
            assert np.array_equal(tsne(states, seed=3), first)
            assert [pool["num_threads"] for pool in threadpool_info()] == before  # it gives back what it took


def test_tsne_of_two_clouds_keeps_them_apart() -> None:
    states, label = make_states(60)
    point = tsne(states)
    distance = np.linalg.norm(point[:, None] - point[None], axis=2) + 1e9 * np.eye(60)
    assert (label[distance.argmin(axis=1)] == label).all()


def test_tsne_does_not_see_the_unit_of_the_states() -> None:
    states = make_states(20)[0].astype(np.float64)
    assert np.array_equal(tsne(states * 2.0**-80), tsne(states))


def test_tsne_does_not_see_an_offset_of_the_states() -> None:
    states = np.round(1024 * make_states(20)[0].astype(np.float64))  # whole numbers, so that the sum is exact
    assert np.array_equal(tsne(states + 2.0**30), tsne(states))


def test_tsne_of_equal_states_is_one_point() -> None:
    assert not tsne(np.full((12, 7), 0.1)).any()


def test_tsne_of_few_distinct_states_is_finite() -> None:
    states = np.repeat(np.eye(3)[:, :2], 4, axis=0)
    assert np.isfinite(tsne(states)).all()
    states = np.zeros((100, 8))
    states[70] = 1e-30
    assert np.isfinite(tsne(states)).all()


def test_tsne_of_the_fewest_samples_works() -> None:
    assert tsne(make_states(5)[0]).shape == (5, 2)


@pytest.mark.parametrize(("n_samples", "width"), [(4, 64), (8, 1)])
def test_too_few_samples_or_widths_are_refused(n_samples: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{n_samples} samples of a width of {width}"):
        tsne(make_states(n_samples, width)[0])


def test_states_with_nan_and_other_labels_are_refused() -> None:
    states, label = make_states(9)
    with pytest.raises(ValueError, match=r"\[0. 2.\] found"):
        draw_tsne({"layer 0": states}, 2 * label)
    with pytest.raises(ValueError, match=r"9 labels, but samples: \{'layer 0': 8\}"):
        draw_tsne({"layer 0": states[:8]}, label)
    with pytest.raises(ValueError, match="9 labels"):
        draw_tsne({}, label)
    states[2, 3] = np.nan
    with pytest.raises(ValueError, match="states of layer 0: 1 of 576"):
        draw_tsne({"layer 0": states}, label)


def test_tsne_is_drawn_the_same_for_a_seed() -> None:
    states, label = make_states(16)
    panels = {"layer 0": np.ones((16, 8)), "layer 20 (chosen)": torch.from_numpy(states), "layer 31": states[:, :9]}
    picture = draw_tsne(panels, torch.from_numpy(label), seed=1)
    assert pixels(picture).shape == (390, 900, 3)
    assert draw_tsne(panels, label, seed=1) == picture


def test_more_samples_than_asked_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    states, label = make_states(101)
    states[:, 0] = np.arange(101)
    seen: list[list[float]] = []

    def look(states: np.ndarray, seed: int) -> np.ndarray:
        seen.append(states[:, 0].tolist())
        return states[:, :2]

    monkeypatch.setattr("vigil.layer_report.tsne", look)
    thinned = draw_tsne({"layer 0": states}, label, max_points=11)
    assert seen == [[0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100]]
    same = draw_tsne({"layer 0": states[::10]}, label[::10])
    assert thinned != same  # the title says 11 of 101, not 11 of 11
