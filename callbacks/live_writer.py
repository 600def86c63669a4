"""LiveWriter: the scores of a stream that is followed, each on disk as soon as it is known."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path
from typing import Any, TextIO

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from vigil.live import Delays
from vigil.types import Clip, Prediction


class LiveWriter(Callback):
    """Appends to live.csv while a stream is followed, and says in stream.json what came of it; else does nothing.

    live.csv: frame,stream_s,score,delay_s: the newest frame of a window, its time on the stream's own clock, the score
    that holds from it on, and the time from the frame's arrival to its score's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.delays = Delays()
        self._file: TextIO | None = None

    def on_predict_start(self, trainer: Trainer, module: LightningModule) -> None:
        if getattr(trainer.datamodule, "follow", None) is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = (self.folder / "live.csv").open("w", newline="", buffering=1)
        self._rows = csv.writer(self._file)
        self._rows.writerow(["frame", "stream_s", "score", "delay_s"])
        rank_zero_info(f"Following {trainer.datamodule.follow}; scores as they come: {self.folder / 'live.csv'}")

    def on_predict_batch_end(
        self, trainer: Trainer, module: Any, outputs: Prediction, batch: Clip, i: int, loader: int = 0
    ) -> None:
        if self._file is None:
            return
        newest = trainer.datamodule.followed.newest
        score = float(outputs.frame_score[0, -1])
        delay = time.monotonic() - newest.arrival
        self.delays.add(delay)
        seconds = "" if newest.seconds is None else f"{newest.seconds:.3f}"
        self._rows.writerow([newest.number, seconds, repr(score), f"{delay:.4f}"])

    def on_predict_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self._file is None:
            return
        self._file.close()
        live = trainer.datamodule.followed.live
        delay = self.delays.summary()
        facts = {
            "source": live.name,
            "frames": live.n_frames,
            "fps": live.fps,
            "causal": True,
            "frames_lost": live.lost,
            "frames_after_loss": live.after_loss,
            "largest_fill_of_buffer": live.largest_fill,
            "delay": delay,
            "gaps": [gap._asdict() for gap in live.gaps],
        }
        (self.folder / "stream.json").write_text(json.dumps(facts, indent=1) + "\n")
        rank_zero_info(
            f"{live.n_frames} frames, {live.lost} lost, {len(live.gaps)} interruptions; from a frame's arrival to its "
            f"score {delay.get('mean_s', 0):.3f} s on average, {delay.get('largest_s', 0):.3f} s at most."
        )
