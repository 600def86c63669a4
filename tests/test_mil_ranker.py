"""MilRanker: its loss, what of it trains, the features of segments, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import AdamW

from callbacks.evaluator import Evaluator
from datamodules import UcfCrime
from lightning_modules import MilRanker
from tests.tiny_videos import make_trainer
from tests.worlds import write_feature_world
from vigil.deit import DEMO_SHAPE
from vigil.types import Clip, View

DEPTH = DEMO_SHAPE["depth"]


def ranker(**settings: Any) -> MilRanker:
    torch.manual_seed(0)
    return MilRanker(**{"encoder": None, "feature_width": 16, "hidden": (8, 4), **settings})


def bags_of_features(label: list[int], width: int = 16, n_segments: int = 5) -> Clip:
    generator = torch.Generator().manual_seed(1)
    return Clip(
        video=[f"v{i}" for i in range(len(label))],
        span=torch.tensor([[0, 80]] * len(label)),
        frame={"video": torch.arange(0, 80, 16).repeat(len(label), 1)},
        features={"video": torch.randn(len(label), n_segments, width, generator=generator)},
        label=torch.tensor(label),
    )


def pixels(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def clip_of(video: torch.Tensor, label: list[int] | None = None) -> Clip:
    n = len(video)
    return Clip(
        video=["v"] * n,
        span=torch.tensor([[0, 8]] * n),
        frame={"video": torch.arange(video[0, ..., 0, 0, 0].numel()).view(video.shape[1:-3]).repeat(n, 1, 1)},
        pixels={"video": video},
        label=None if label is None else torch.tensor(label),
    )


def test_the_loss_is_ranking_and_both_regularisers_of_the_anomalous_bags(tmp_path: Path) -> None:
    model = ranker(smoothness_weight=0.3, sparsity_weight=0.05, margin=0.8).eval()
    model.log_dict = lambda values, **_: None  # outside a fit
    clip = bags_of_features([0, 1, 1, 0])
    score = model(clip).tolist()
    anomalous, normal = [score[1], score[2]], [score[0], score[3]]
    expected = 0.0
    for one, other in zip(anomalous, normal, strict=True):
        expected += max(0, 0.8 - max(one) + max(other)) / 2
        expected += 0.3 * sum((one[i] - one[i + 1]) ** 2 for i in range(4)) / 2
        expected += 0.05 * sum(one) / 2
    assert model.training_step(clip, 0).item() == pytest.approx(expected, rel=1e-6)


def test_a_score_is_a_float32_in_0_to_1_for_every_sampled_frame() -> None:
    model = ranker(encoder="demo_deit", weights=None, feature_width=None).eval()
    with torch.no_grad():
        prediction = model.predict(clip_of(pixels(3, 2, 3, 32, 32)))
    assert prediction.frame_score.shape == (3, 2)
    assert prediction.frame_score.dtype == torch.float32
    assert ((prediction.frame_score > 0) & (prediction.frame_score < 1)).all()
    assert torch.equal(prediction.frame_score[:, 0], prediction.frame_score[:, 1])
    assert len(prediction.frame_score[:, 0].unique()) == 3


def test_segment_features_of_deit_small_are_384_wide_and_the_mean_of_their_frames() -> None:
    model = ranker(encoder="deit_small_patch16_224", weights=None, feature_width=None).eval()
    bag = pixels(1, 2, 2, 3, 24, 32)
    with torch.no_grad():
        feature = model.segment_features(clip_of(bag))
        assert feature.shape == (1, 2, 384)
        for segment in range(2):
            frames = [model.encoder(bag[0, segment, t]) for t in range(2)]
            torch.testing.assert_close(feature[0, segment], (frames[0] + frames[1]) / 2, rtol=1e-4, atol=1e-5)
        window = model.segment_features(clip_of(bag[0]))
    assert window.shape == (2, 1, 384)
    torch.testing.assert_close(window[:, 0], feature[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("train_blocks", [0, 1, 2, DEPTH])
def test_gradients_reach_the_blocks_that_train_and_no_others(train_blocks: int) -> None:
    model = ranker(encoder="demo_deit", weights=None, feature_width=None, train_blocks=train_blocks, dropout=0.0)
    model.log_dict = lambda values, **_: None
    model.train()
    model.training_step(clip_of(pixels(2, 2, 1, 3, 24, 32), [1, 0]), 0).backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    for name, parameter in model.named_parameters():
        part = name.split(".")
        in_block = part[2] == "blocks" and int(part[3]) >= DEPTH - train_blocks
        in_encoder = train_blocks == DEPTH or in_block or (train_blocks > 0 and part[2] == "norm")
        trains = part[0] == "scorer" or in_encoder
        assert (name in reached) == trains, name
        assert not trains or parameter.grad.any(), name
    optimizer = model.configure_optimizers()
    assert isinstance(optimizer, AdamW)
    given = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert given == {id(parameter) for name, parameter in model.named_parameters() if name in reached}


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"v0: features of width 17, this ranker takes 16; .*feature_width: 17"):
        ranker()(bags_of_features([1, 0], width=17))


def test_pixels_without_an_encoder_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no encoder and needs data\.features"):
        ranker()(clip_of(pixels(1, 2, 3, 8, 8)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": "demo_deit", "weights": None}, "either an encoder or"),
        ({"feature_width": None}, "either an encoder or"),
        ({"fit_view": View(4, 4, 16)}, "must be a bag"),
        ({"test_view": View(frames=4, segments=32)}, "must be a bag .* windows"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranker(**settings)


def test_views_may_come_as_a_config_spells_them() -> None:
    model = ranker(fit_view={"frames": 2, "segments": 8}, test_view={"frames": 2, "stride": 4, "hop": 8})
    assert model.fit_views == {"video": View(frames=2, segments=8)}
    assert model.test_views == {"video": View(2, 4, 8)}


def test_a_curve_is_refined_only_if_asked() -> None:
    curve = torch.rand(50)
    assert ranker().refine(curve) is curve
    smoothed = ranker(sigma_frames=5.0).refine(curve)
    assert smoothed.shape == curve.shape
    assert smoothed.std() < curve.std() / 2


def test_it_learns_which_snippets_are_anomalous_from_labels_of_videos(tmp_path: Path) -> None:
    write_feature_world(tmp_path)
    data = UcfCrime(str(tmp_path), features=str(tmp_path / "features"), num_workers=0, validation_fraction=0.2)
    model = ranker(hidden=(32, 8), dropout=0.2, batch_size=4, learning_rate=5e-3, sigma_frames=8.0)
    data.watch(model)
    trainer = make_trainer(tmp_path, max_epochs=20)
    untrained = trainer.test(model, datamodule=data, verbose=False)[0]
    trainer.fit(model, datamodule=data)
    trained = trainer.test(model, datamodule=data, verbose=False)[0]
    assert trained["test/frame_auroc"] > 0.9 > untrained["test/frame_auroc"]
    assert {"test/frame_auroc_refined", "test/frame_ap", "test/event_map", "test/video_auroc"} <= set(trained)
    (evaluator,) = (callback for callback in trainer.callbacks if isinstance(callback, Evaluator))
    highest = {name: curve.score.max() for name, curve in evaluator.refined.items()}
    assert set(highest) == {video.name for video in data.known("test")}
    assert 0 < model.threshold.item() < 1
