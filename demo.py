"""The demo: render a world, run every system on it through the benchmark runner, and say where everything is.

`make demo` runs this.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from pathlib import Path

import benchmark
from cli import main
from datamodules.demo import FPS

# the rest takes minutes more
QUICK = ["MilRanker", "HiProbe", "SteerVad", "Prompting", "ZeroShotClip, general words", "ZeroShotClip, class names"]
QUICK += ["frame difference"]  # a control
TABLE = ["configs/benchmarks/demo.yaml", "--tests", "ucf_crime", "--only", *QUICK]
OUT = Path("runs/benchmark/demo")
ROOT = Path("demo_world/ucf_crime")
PROMPTING = ["-c", "configs/systems/prompting.yaml", "-c", "configs/machines/cpu.yaml"]
PROMPTING += ["--model.dtype", "float32", "--model.backbone", "weights/demo_mllm"]
QUESTION = "Describe what happens in this video."
DESCRIBED = "Robbery005_x264"  # a test video


def newest(pattern: str) -> Path:
    """The file that matches and was written last."""
    return max(Path().glob(pattern), key=lambda file: file.stat().st_mtime)


def descriptions() -> str:
    """What the small MLLM says of windows of a test video, beside what happens there."""
    truth = json.loads((ROOT / "uca" / "UCFCrime_Test.json").read_text())[DESCRIBED]
    events = list(zip(truth["timestamps"], truth["sentences"], strict=True))
    with newest("runs/Prompting-OwnVideos/predict-*/captions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    told = []
    for row in rows:
        first_s, end_s = int(row["first_frame"]) / FPS, int(row["end_frame"]) / FPS
        there = [sentence for (begin, end), sentence in events if begin < end_s and first_s < end]
        if there:
            lines = [f"  {first_s:.1f} to {end_s:.1f} s  it says:   {row['caption']}"]
            told.append("\n".join(lines + [f"{'':12}  the truth: {sentence}" for sentence in there]))
    return "\n".join(told[:: max(1, len(told) // 3)][:3])


def results() -> str:
    """Frame AUROC of every row, with its interval; controls after the systems."""
    with (OUT / "measured.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if row["frame_auroc"]]
    rows.sort(key=lambda row: (row["kind"] == "control", -float(row["frame_auroc"])))
    lines = []
    for row in rows:
        value, low, high = (float(row[f"frame_auroc{end}"]) for end in ("", "_low", "_high"))
        name = f"{row['cell']} (control)" if row["kind"] == "control" else row["cell"]
        lines.append(f"  {name:32} {value:.3f}  ({low:.3f} to {high:.3f})")
    return "\n".join(lines)


def demo() -> None:
    start = time.perf_counter()
    status = benchmark.main(["run", *TABLE, "--jobs", str(min(2, os.cpu_count() or 1))])
    if status:
        sys.exit(status)
    video = next(ROOT.rglob(f"{DESCRIBED}.mp4"))
    main(["predict", *PROMPTING, "--data", "OwnVideos", "--data.videos", str(video), "--model.ask", QUESTION])
    checkpoint = newest(f"{OUT}/cells/MilRanker/**/last.ckpt")
    scores = newest(f"{OUT}/cells/MilRanker/**/test-UcfCrime-*/scores.csv").parent
    print(f"""
Done in {time.perf_counter() - start:.0f} s. Frame AUROC, and its 95 % interval over videos; 0.5 is guessing:
{results()}

What the small MLLM says of {video}:
{descriptions()}

  the page of all this {OUT / "leaderboard.html"}
  demo videos          {ROOT}/Videos
  checkpoint           {checkpoint}
  scores, a row each   {scores / "scores.csv"}
  events found         {scores / "events.csv"}
  curves, pictures     {scores / "curves"}
  HiProbe's layers     {newest(f"{OUT}/cells/HiProbe/**/layers.png")}
  SteerVad's heads     {newest(f"{OUT}/cells/SteerVad/**/heads.png")}
  TensorBoard          .venv/bin/tensorboard --logdir {OUT}

Next:
  source .venv/bin/activate
  python benchmark.py run configs/benchmarks/demo.yaml                     all systems, six datasets: 20 min
  lightning fit -c configs/demo.yaml --model.init_args.batch_size 4       one system, with another value
  lightning predict -c configs/demo.yaml --data OwnVideos --data.videos MY.mp4 --ckpt_path {checkpoint}
  lightning fit -c configs/systems/mil_ranker.yaml -c configs/data/ucf_crime.yaml \\
    -c configs/machines/one_gpu.yaml --data.init_args.root YOUR/UCF-Crime      the real thing""")


if __name__ == "__main__":
    demo()
