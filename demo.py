"""The demo: render a world, fit three systems on it, test them beside two baselines, and say where everything is.

`make demo` runs this.
"""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

from cli import main
from datamodules.demo import FPS

CONFIG = ["-c", "configs/demo.yaml"]
ROOT = Path("demo_world/ucf_crime")
WORLD = ["-c", "configs/data/ucf_crime.yaml", "--data.demo", "true", "--data.root", str(ROOT)]
CPU = ["-c", "configs/machines/cpu.yaml"]
# small backbones of our own in place of those of several GB
PROMPTING = ["-c", "configs/systems/prompting.yaml", "--model.dtype", "float32"]
PROMPTING += ["--model.backbone", "weights/demo_mllm"]
# fitted on all training videos, not on 1 % of some hundred, with words that the small MLLM was trained on
PROBE = ["--model.dtype", "float32", "--model.backbone", "weights/demo_mllm", "--model.fraction", "1.0"]
PROBE += ["--model.prompt", "Describe what happens in this video."]
PROBES = {"HiProbe": ["-c", "configs/systems/hiprobe.yaml"], "SteerVad": ["-c", "configs/systems/steervad.yaml"]}
CLIP = ["-c", "configs/systems/zero_shot_clip.yaml", "--model.anomalous", "general"]
CLIP += ["--model.clip", "weights/demo_clip"]
DESCRIBED = "Robbery005_x264"  # a test video


def newest(pattern: str) -> Path:
    """The file under runs/ that matches and was written last."""
    return max(Path("runs").glob(pattern), key=lambda file: file.stat().st_mtime)


def auroc(system: str) -> str:
    """Frame AUROC of the system's last test, with its interval."""
    found = json.loads(newest(f"{system}-UcfCrime/**/test-*/metrics.json").read_text())["metrics"]
    return f"{found['frame_auroc']:.3f}  ({found['frame_auroc_low']:.3f} to {found['frame_auroc_high']:.3f})"


def descriptions() -> str:
    """What the small MLLM says of windows of a test video, beside what happens there."""
    truth = json.loads((ROOT / "uca" / "UCFCrime_Test.json").read_text())[DESCRIBED]
    events = list(zip(truth["timestamps"], truth["sentences"], strict=True))
    with newest("Prompting-OwnVideos/predict-*/captions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    told = []
    for row in rows:
        first_s, end_s = int(row["first_frame"]) / FPS, int(row["end_frame"]) / FPS
        there = [sentence for (begin, end), sentence in events if begin < end_s and first_s < end]
        if there:
            lines = [f"  {first_s:.1f} to {end_s:.1f} s  it says:   {row['caption']}"]
            told.append("\n".join(lines + [f"{'':12}  the truth: {sentence}" for sentence in there]))
    return "\n".join(told[:: max(1, len(told) // 3)][:3])


def demo() -> None:
    start = time.perf_counter()
    main(["fit", *CONFIG])
    checkpoint = newest("MilRanker-UcfCrime/*/checkpoints/last.ckpt")
    main(["test", *CONFIG, "--ckpt_path", str(checkpoint)])
    scores = newest("MilRanker-UcfCrime/*/test-*/scores.csv").parent
    for name, config in PROBES.items():
        main(["fit", *config, *PROBE, *WORLD, *CPU])
        main(["test", *config, *PROBE, *WORLD, *CPU, "--ckpt_path", str(newest(f"{name}-UcfCrime/*/**/last.ckpt"))])
    for baseline in (PROMPTING, CLIP):
        main(["test", *baseline, *WORLD, *CPU])
    video = next(ROOT.rglob(f"{DESCRIBED}.mp4"))
    own = ["--data", "OwnVideos", "--data.videos", str(video), "--model.ask", "Describe what happens in this video."]
    main(["predict", *PROMPTING, *CPU, *own])
    run = checkpoint.parent.parent
    print(f"""
Done in {time.perf_counter() - start:.0f} s. Frame AUROC, and its 95 % interval over videos; 0.5 is guessing:
  MilRanker, trained here          {auroc("MilRanker")}
  HiProbe, a layer of a small MLLM {auroc("HiProbe")}
  SteerVad, four of its heads      {auroc("SteerVad")}
  Prompting, a small MLLM asked    {auroc("Prompting")}
  ZeroShotClip, a small CLIP       {auroc("ZeroShotClip")}

What the small MLLM says of {video}:
{descriptions()}

  demo videos        {ROOT}/Videos
  checkpoint         {checkpoint}
  scores, a row each {scores / "scores.csv"}
  events found       {scores / "events.csv"}
  curves, pictures   {scores / "curves"}
  HiProbe's layers   {newest("HiProbe-UcfCrime/*/layers.png")}
  SteerVad's heads   {newest("SteerVad-UcfCrime/*/heads.png")}
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
