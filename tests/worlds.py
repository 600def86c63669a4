"""Small worlds and processes that several tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback

ROOT = Path(__file__).parents[1]
CATEGORIES = ("Abuse", "Arson", "Fighting", "Robbery")


def write_feature_world(root: Path, seed: int = 0, n_videos: int = 8, snippets: tuple[int, int] = (20, 60)) -> Path:
    """A UCF-Crime of features: `n_videos` of four classes and four times as many normal ones, a quarter for testing.

    An anomaly is six snippets whose first three of 16 values are raised. Returns a config that reads it.
    """
    generator = np.random.default_rng(seed)
    (root / "features").mkdir(parents=True)
    train, test, annotation = [], [], []

    def write(name: str, folder: str, category: str, tested: bool) -> None:
        length = int(generator.integers(*snippets))
        feature = generator.normal(size=(length, 16)).astype(np.float32)
        times = "-1  -1"
        if category != "Normal":
            first = int(generator.integers(0, length - 8))
            feature[first : first + 6, :3] += 2
            times = f"{16 * first}  {16 * (first + 6)}"
        np.save(root / "features" / f"{name}.npy", feature)
        (test if tested else train).append(f"{folder}/{name}.mp4")
        if tested:
            annotation.append(f"{name}.mp4  {category}  {times}  -1  -1  ")

    for category in CATEGORIES:
        for i in range(n_videos):
            write(f"{category}{i + 1:03d}_x264", category, category, tested=4 * i >= 3 * n_videos)
    for i in range(4 * n_videos):
        tested = i >= 3 * n_videos
        name, folder = (f"Normal_Videos_{i:03d}", "Testing") if tested else (f"Normal_Videos{i:03d}", "Training")
        write(f"{name}_x264", f"{folder}_Normal_Videos_Anomaly", "Normal", tested)
    (root / "Anomaly_Train.txt").write_text("\n".join(train) + "\n")
    (root / "Anomaly_Test.txt").write_text("\n".join(test) + "\n")
    (root / "Temporal_Anomaly_Annotation.txt").write_text("\n".join(annotation) + "\n")
    config = root / "world.yaml"
    config.write_text(f"""\
model:
  class_path: MilRanker
  init_args: {{encoder: null, feature_width: 16, batch_size: 4, learning_rate: 5.0e-3, hidden: [32, 8], dropout: 0.2}}
data:
  class_path: UcfCrime
  init_args: {{root: {root}, features: {root / "features"}, validation_fraction: 0.2, num_workers: 0}}
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 4
  log_every_n_steps: 2
  callbacks+:
  - class_path: tests.worlds.SignalAt
""")
    return config


class SignalAt(Callback):
    """Sends a signal at a training step, from VIGIL_TEST_SIGNAL="step:number"; at rank 0 alone.

    To this process; a negative number goes to its whole group, as SLURM and a terminal do it.
    """

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, i: int) -> None:
        step, number = map(int, os.environ.get("VIGIL_TEST_SIGNAL", "-1:0").split(":"))
        if trainer.global_step == step and trainer.global_rank == 0:
            os.kill(os.getpid(), number) if number > 0 else os.killpg(0, -number)


def lightning(*args: object, cwd: Path, at: tuple[int, int] | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with one thread, in the folder `cwd`; `at`: a step and its signal."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    environment.pop("VIGIL_TEST_SIGNAL", None)
    if at is not None:
        environment["VIGIL_TEST_SIGNAL"] = f"{at[0]}:{int(at[1])}"  # not in the config, which decides the run folder
    command = [sys.executable, "-m", "cli", *map(str, args)]
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        start_new_session=True,
    )


def weights(run_or_root: Path) -> dict[str, torch.Tensor]:
    """The trained tensors of the one last.ckpt below a folder."""
    (file,) = run_or_root.rglob("last.ckpt")
    state: dict[str, torch.Tensor] = torch.load(file, weights_only=True)["state_dict"]
    return state


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], tolerance: float = 0.0) -> None:
    """Every tensor equal, bit for bit unless a tolerance is given."""
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=tolerance, equal_nan=True, msg=name)
