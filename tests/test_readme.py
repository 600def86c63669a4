"""What the README shows is run: the dataset on its page is added, checked, fitted on and tested."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from cli import main
from tests.tiny_videos import write_tiny_video
from tests.worlds import ROOT

RANKER = ("--model=MilRanker", "--model.encoder=demo_deit", f"--model.weights={ROOT}/weights/demo_deit.safetensors",
          "--model.fit_view={frames: 1, segments: 4}", "--model.test_view={frames: 1, stride: 4, hop: 4}",
          "--model.batch_size=2", "--model.hidden=[8, 4]")  # fmt: skip
QUIET = ("--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false")


def test_the_dataset_of_the_readme_is_twenty_lines_that_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in code.split("class Shop")[1].splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop.py").write_text(code)
    for split, first in (("train", 0), ("test", 20)):
        lines = []
        for number in range(first, first + 8):
            write_tiny_video(tmp_path / "data" / "videos" / f"shop_{number}.mp4", 40, number)
            kind = ("Normal", "Theft", "Normal", "Fall")[number % 4]
            times = ",10,24" if split == "test" and kind != "Normal" else ""
            lines.append(f"shop_{number},{kind}{times}")
        (tmp_path / "data" / f"{split}.csv").write_text("\n".join(lines) + "\n")
    (line,) = re.findall(r"^    (data: .*shop\.Shop.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    (tmp_path / "shop.yaml").write_text(line.replace("/data/shop", "data").replace("0.1", "0.3"))
    shop = ("-c", "shop.yaml", "--data.num_workers=0")
    main(["check", *shop])
    assert "nothing wrong" in capsys.readouterr().out
    main(["fit", *RANKER, *shop, *QUIET])
    (last,) = tmp_path.rglob("last.ckpt")
    main(["test", *RANKER, *shop, *QUIET, f"--ckpt_path={last}"])
    facts = json.loads(next(tmp_path.rglob("metrics.json")).read_text())
    assert {"frame_auroc", "frame_auroc/Theft", "frame_auroc/Fall", "frame_ap", "video_auroc"} <= facts[
        "metrics"
    ].keys()
    view = {"frames": 1, "stride": 4, "hop": 4, "segments": None}
    assert facts["protocol"]["judged"]["dataset"] == "Shop"
    assert facts["protocol"]["stated"]["views"] == {"video": view}
    assert facts["leaked"] == 0
    timed = re.sub("(Theft|Fall)", r"\1,10,24", (tmp_path / "data" / "train.csv").read_text())
    (tmp_path / "data" / "test.csv").write_text(timed)
    with pytest.raises(SystemExit):
        main(["test", *RANKER, *shop, *QUIET, f"--ckpt_path={last}"])
    assert "8 of 8 test videos were seen in fitting" in capsys.readouterr().err
