"""The ranker on the demo world: it learns what the labels say, and nothing where they say nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from lightning.pytorch import Trainer, seed_everything

from callbacks.evaluator import Evaluator
from datamodules.ucf_crime import UcfCrime
from lightning_modules.mil_ranker import MilRanker
from tests.worlds import ROOT
from vigil.curves import auroc
from vigil.types import Video, View
from vigil.video import read_frames


class Shuffled(UcfCrime):
    """UcfCrime with the labels of its training videos dealt anew by `deal`; None leaves them."""

    deal: int | None = None

    def videos(self, split: str) -> list[Video]:
        videos = super().videos(split)
        if split not in ("train", "val") or self.deal is None:
            return videos
        labels = np.random.default_rng(self.deal).permutation([video.label for video in videos])
        return [replace(video, label=int(label)) for video, label in zip(videos, labels, strict=True)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _one_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All fits here read one store."""
    monkeypatch.setenv("VIGIL_CACHE", str(cache))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "ucf_crime"
    UcfCrime(str(root), demo=True).prepare_data()
    return root


def fit_and_test(world: Path, deal: int | None) -> tuple[dict[str, float], UcfCrime]:
    """Metrics on the test split of the ranker that configs/demo.yaml describes."""
    config = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    options = {**config["model"]["init_args"]}
    for view in ("fit_view", "test_view"):
        options[view] = View(**options[view])
    options["weights"] = str(ROOT / options["weights"])
    data = Shuffled(**{**config["data"]["init_args"], "root": str(world), "num_workers": 0})
    data.deal = deal
    seed_everything(config["seed_everything"], verbose=False)
    system, evaluator = MilRanker(**options), Evaluator()
    data.watch(system)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=config["trainer"]["max_epochs"],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        use_distributed_sampler=False,
        callbacks=[evaluator],
    )
    trainer.fit(system, datamodule=data)
    trainer.test(system, datamodule=data, verbose=False)
    return evaluator.results["test"], data


def control(data: UcfCrime, kind: str) -> float:
    """Frame AUROC of a detector that scores by brightness, or by the mean absolute difference to the frame before."""
    scores, truth = [], []
    for video in data.known("test"):
        index = np.arange(0, video.n_frames, 8)
        pixels = read_frames(video.path, np.stack([np.maximum(index - 1, 0), index], 1).ravel()).float().mean(1)
        before, now = pixels[0::2], pixels[1::2]
        scores.append((now if kind == "brightness" else (now - before).abs()).mean((1, 2)).numpy())
        truth.append([any(first <= frame < end for first, end in video.anomalies or []) for frame in index])
    score, positive = np.concatenate(scores), np.concatenate(truth).astype(np.int64)
    return auroc(score, positive, 1 - positive)


def test_the_demo_ranker_beats_chance_and_both_controls(world: Path) -> None:
    result, data = fit_and_test(world, deal=None)
    controls = {kind: control(data, kind) for kind in ("brightness", "frame difference")}
    low, high = result["frame_auroc_low"], result["frame_auroc_high"]
    print(f"\nframe AUROC {result['frame_auroc']:.4f} [{low:.4f}, {high:.4f}]; {controls}")
    assert all(abs(value - 0.5) < 0.25 for value in controls.values())
    assert low > max(0.7, *controls.values(), *(1 - value for value in controls.values()))


def test_shuffled_labels_teach_little(world: Path) -> None:
    # Not one half, also where both labels hold as many true anomalies. Most likely a ranking of maxima raises rare
    # looks in one label's bags and leaves them just below the others in the other's, and anomalies are rare looks.
    values = [fit_and_test(world, deal)[0]["frame_auroc"] for deal in range(5)]
    print(f"\nframe AUROC of five shuffles: {[round(value, 4) for value in values]}, mean {np.mean(values):.4f}")
    assert 0.4 < np.mean(values) < 0.7
