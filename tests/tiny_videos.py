"""A UCF-Crime of tiny real video files, for the tests that decode, and a Trainer as the command builds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from lightning.pytorch import Callback, Trainer

from callbacks.checkpointing import AtomicCheckpointIO
from callbacks.evaluator import Evaluator
from vigil.video import write_video

HEIGHT, WIDTH = 24, 32


def make_trainer(folder: Path, callbacks: Sequence[Callback] = (), **settings: object) -> Trainer:
    """On the CPU in this process, with an Evaluator, without anything on the screen."""
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        plugins=[AtomicCheckpointIO()],
        callbacks=[Evaluator(), *callbacks],
        default_root_dir=folder,
        **settings,
    )


def write_tiny_video(file: Path, n_frames: int, seed: int, height: int = HEIGHT, width: int = WIDTH) -> None:
    """Noise that lasts four frames, so that neighbouring windows differ."""
    noise = np.random.default_rng(seed).integers(0, 256, (-(-n_frames // 4), 3, height // 8, width // 8), np.uint8)
    frames = noise.repeat(4, axis=0)[:n_frames].repeat(8, axis=2).repeat(8, axis=3)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_video(file, frames, 25, preset="ultrafast")


def write_video_world(root: Path, n_train: int = 4) -> Path:
    """`n_train` training videos of each of two classes and as many normal ones; four to test; lists and annotation."""
    train, test, annotation = [], [], []
    seed = 0
    for category in ("Arson", "Fighting"):
        for number in range(1, n_train + 2):
            name, seed = f"{category}{number:03d}_x264", seed + 1
            write_tiny_video(root / "Videos" / category / f"{name}.mp4", 30 + 3 * seed, seed)
            if number <= n_train:
                train.append(f"{category}/{name}.mp4")
            else:
                test.append(f"{category}/{name}.mp4")
                annotation.append(f"{name}.mp4  {category}  8  24  -1  -1  ")
    for number in range(1, 2 * n_train + 3):
        tested = number > 2 * n_train
        folder = "Testing_Normal_Videos_Anomaly" if tested else "Training_Normal_Videos_Anomaly"
        name, seed = f"Normal_Videos_{number:03d}_x264", seed + 1
        write_tiny_video(root / "Videos" / folder / f"{name}.mp4", 30 + 2 * seed, seed)
        (test if tested else train).append(f"{folder}/{name}.mp4")
        if tested:
            annotation.append(f"{name}.mp4  Normal  -1  -1  -1  -1  ")
    (root / "Anomaly_Train.txt").write_text("\n".join(train) + "\n")
    (root / "Anomaly_Test.txt").write_text("\n".join(test) + "\n")
    (root / "Temporal_Anomaly_Annotation.txt").write_text("\n".join(annotation) + "\n")
    return root
