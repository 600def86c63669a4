"""captions.csv: what a system says of every clip, beside the sentence that the dataset has of it."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from callbacks.caption_writer import CaptionWriter, described
from tests.test_uca import data_of, write_world
from tests.tiny_systems import TinyEvents
from tests.tiny_videos import make_trainer
from vigil.types import Clip, Prediction


class Telling(TinyEvents):
    """Says of each clip which frames it is of; `per_clip` times."""

    per_clip = 1

    def predict(self, clip: Clip) -> Prediction:
        prediction = super().predict(clip)
        said = [f"frames {first} to {end}, it says" for first, end in clip.span.tolist()]
        prediction.caption = said * self.per_clip
        return prediction


def told(system: Telling, root: Path, folder: Path, **settings: Any) -> list[dict[str, str]]:
    data = data_of(root, system)
    make_trainer(folder, [CaptionWriter(folder)], **settings).test(system, datamodule=data, verbose=False)
    with (folder / "captions.csv").open() as stream:
        return list(csv.DictReader(stream))


def test_every_clip_has_its_row_beside_the_sentence_it_is_judged_by(tmp_path: Path) -> None:
    root = write_world(tmp_path / "uca")
    system = Telling()
    rows = told(system, root, tmp_path)
    events = data_of(root).events("test")
    assert [(row["video"], int(row["first_frame"]), int(row["end_frame"])) for row in rows] == sorted(
        ((event.video.name, event.first, event.end) for event in events),
        key=lambda row: ([event.video.name for event in events].index(row[0]), *row[1:]),
    )
    assert {row["reference"] for row in rows} == {event.sentence for event in events}
    assert all(row["caption"] == f"frames {row['first_frame']} to {row['end_frame']}, it says" for row in rows)


def test_a_run_of_a_few_batches_leaves_no_table(tmp_path: Path) -> None:
    root = write_world(tmp_path / "uca")
    with pytest.raises(FileNotFoundError):
        told(Telling(), root, tmp_path, fast_dev_run=True)


def test_another_number_of_captions_than_clips_is_refused(tmp_path: Path) -> None:
    system = Telling()
    system.per_clip = 2
    with pytest.raises(ValueError, match="Telling gives 2 captions of 1 clips; one each is expected"):
        told(system, write_world(tmp_path / "uca"), tmp_path)


def test_a_causal_window_describes_what_it_has_seen() -> None:
    """The clip of frames 3 to 24 answers for frames 24 to 48 of a stream that is still coming in."""
    clip = Clip(["a", "b"], torch.tensor([[24, 48], [0, 24]]), {"video": torch.tensor([[3, 13, 24], [0, 10, 20]])})
    assert described(clip) == [(3, 25), (0, 24)]
