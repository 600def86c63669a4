"""The demo: render a world, train MilRanker on it, test it, and say where everything is. `make demo` runs this."""

from __future__ import annotations

import json
import time
from pathlib import Path

from cli import main

CONFIG = ["-c", "configs/demo.yaml"]


def newest(pattern: str) -> Path:
    """The file under runs/ that matches and was written last."""
    return max(Path("runs").glob(pattern), key=lambda file: file.stat().st_mtime)


def demo() -> None:
    start = time.perf_counter()
    main(["fit", *CONFIG])
    checkpoint = newest("MilRanker-UcfCrime/*/checkpoints/last.ckpt")
    main(["test", *CONFIG, "--ckpt_path", str(checkpoint)])
    scores = newest("MilRanker-UcfCrime/*/test-*/scores.csv").parent
    metrics = json.loads((scores / "metrics.json").read_text())["metrics"]
    run = checkpoint.parent.parent
    print(f"""
Done in {time.perf_counter() - start:.0f} s. Frame AUROC {metrics["frame_auroc"]:.3f}, 95 % interval over videos \
{metrics["frame_auroc_low"]:.3f} to {metrics["frame_auroc_high"]:.3f}; 0.5 is guessing.

  demo videos        demo_world/ucf_crime/Videos
  checkpoint         {checkpoint}
  scores, a row each {scores / "scores.csv"}
  events found       {scores / "events.csv"}
  curves, pictures   {scores / "curves"}
  TensorBoard        .venv/bin/tensorboard --logdir {run}

Next:
  source .venv/bin/activate
  lightning fit -c configs/demo.yaml --model.init_args.batch_size 4       another value, another run folder
  lightning test -c configs/demo.yaml -c configs/data/xd_violence.yaml --data.init_args.demo true \\
    --data.init_args.root demo_world/xd --ckpt_path {checkpoint}      on another dataset
  lightning predict -c configs/demo.yaml --data OwnVideos --data.videos MY.mp4 --ckpt_path {checkpoint}
  lightning fit -c configs/systems/mil_ranker.yaml -c configs/data/ucf_crime.yaml \\
    -c configs/machines/one_gpu.yaml --data.init_args.root YOUR/UCF-Crime      the real thing""")


if __name__ == "__main__":
    demo()
