"""What a system says of every clip, beside the sentence that the dataset has of it: captions.csv, captions.md."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from callbacks.caption_writer import HEIGHT, CaptionWriter, described, strip
from callbacks.score_writer import ScoreWriter
from datamodules import OwnVideos, Uca
from tests.test_uca import WORLD, data_of, write_world
from tests.tiny_systems import PixelDifference, TinyEvents
from tests.tiny_videos import make_trainer
from vigil.captions import read_captions
from vigil.types import Clip, Prediction, Video
from vigil.video import read_frames


class Telling(TinyEvents):
    """Says of each clip which frames it is of; `per_clip` times."""

    per_clip = 1

    def predict(self, clip: Clip) -> Prediction:
        prediction = super().predict(clip)
        said = [f"frames {first} to {end}, it says" for first, end in clip.span.tolist()]
        prediction.caption = said * self.per_clip
        return prediction


class TellingWindows(PixelDifference):
    """Says of each window of a video what its first frame is."""

    def predict(self, clip: Clip) -> Prediction:
        return replace(super().predict(clip), caption=[f"from {first}" for first in clip.span[:, 0].tolist()])


def told(system: Telling, root: Path, folder: Path, **settings: Any) -> list[dict[str, str]]:
    data = data_of(root, system)
    make_trainer(folder, [CaptionWriter(folder)], **settings).test(system, datamodule=data, verbose=False)
    with (folder / "captions.csv").open() as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The world of test_uca, with a second sentence of one of its stretches."""
    test = {**WORLD["Test"], "Arson002_x264": [(0.4, 1.2, "Smoke rose."), (0.4, 1.2, "A man ran.")]}
    return write_world(tmp_path_factory.mktemp("uca"), {"Test": test})


def test_every_sentence_has_its_row_with_what_is_said_and_how_near_it_comes(world: Path, tmp_path: Path) -> None:
    system, trainer = Telling(), make_trainer(tmp_path, [CaptionWriter(tmp_path)])
    trainer.test(system, datamodule=data_of(world, system), verbose=False)
    with (tmp_path / "captions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["video"], int(row["first_frame"]), int(row["end_frame"]), row["reference"]) for row in rows] == [
        ("Fighting002_x264", 5, 15, "A man came."),
        ("Fighting002_x264", 5, 20, "A fight began."),
        ("Fighting002_x264", 25, 49, "They fought again."),
        ("Arson002_x264", 10, 30, "A man ran."),
        ("Arson002_x264", 10, 30, "Smoke rose."),
        ("Normal_Videos_002_x264", 0, 25, "A fire truck went past."),
    ]
    assert all(row["caption"] == f"frames {row['first_frame']} to {row['end_frame']}, it says" for row in rows)
    mean = np.mean([float(row["similarity"]) for row in rows])
    assert trainer.callbacks[0].results["test"]["caption_sbert"] == pytest.approx(mean, abs=1e-6)


def test_samples_stand_in_a_table_beside_their_frames(world: Path, tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path, name="", version="")
    system = Telling()
    data = data_of(world, system)
    trainer = make_trainer(tmp_path, [CaptionWriter(tmp_path, samples=2)])
    trainer.loggers = [board]
    trainer.test(system, datamodule=data, verbose=False)
    head, _, frames, truth, said, similarity = (tmp_path / "captions.md").read_text().splitlines()
    names = ["Fighting002_x264.5-15", "Normal_Videos_002_x264.0-25"]
    assert head == r"|  | Fighting002\_x264, frames 5 to 15 | Normal\_Videos\_002\_x264, frames 0 to 25 |"
    assert frames == f"| Frames | ![](captions/{names[0]}.jpg) | ![](captions/{names[1]}.jpg) |"
    assert truth == "| Ground truth | A man came. | A fire truck went past. |"
    assert said == "| Said | frames 5 to 15, it says | frames 0 to 25, it says |"
    near = [row.similarity for row in read_captions(tmp_path / "captions.csv")]
    assert similarity == f"| Similarity | {near[0]:.3f} | {near[-1]:.3f} |"
    assert {file.stem for file in (tmp_path / "captions").iterdir()} == set(names)
    video = next(video for video in data.known("test") if video.name == "Fighting002_x264")
    with Image.open(tmp_path / "captions" / f"{names[0]}.jpg") as image:
        shown = np.asarray(image).astype(float)
    assert shown.shape == (HEIGHT, 4 * 160, 3)  # frames of 24 x 32
    for column, frame in enumerate(read_frames(video.path, [6, 8, 11, 13])):  # the middles of four parts of 5 to 15
        part = shown[:, 160 * column : 160 * (column + 1)]
        assert part.mean((0, 1)) == pytest.approx(frame.float().mean((1, 2)).numpy(), abs=3)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0, "tensors": 0})
    board.experiment.flush()
    events.Reload()
    assert set(events.Tags()["images"]) == {f"captions/{name}" for name in names}
    text = events.Tensors("captions/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == (tmp_path / "captions.md").read_text().replace(frames + "\n", "")


def test_captions_of_a_video_of_ones_own_have_neither_reference_nor_similarity(world: Path, tmp_path: Path) -> None:
    file = world / "Videos" / "Arson002_x264.mp4"
    system = TellingWindows()
    data = OwnVideos([str(file)], num_workers=0)
    data.watch(system)
    trainer = make_trainer(tmp_path, [CaptionWriter(tmp_path)])
    trainer.predict(system, datamodule=data, return_predictions=False)
    lines = (tmp_path / "captions.csv").read_text().splitlines()
    assert lines[0] == "video,first_frame,end_frame,caption,reference,similarity"
    assert lines[1] == "Arson002_x264,0,16,from 0,,"
    assert len((tmp_path / "captions.md").read_text().splitlines()) == 4  # head, line, frames, said


def test_a_run_of_a_few_batches_leaves_no_table(world: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        told(Telling(), world, tmp_path, fast_dev_run=True)
    assert not (tmp_path / "captions.md").exists()


def test_another_number_of_captions_than_clips_is_refused_also_where_nobody_judges(world: Path, tmp_path: Path) -> None:
    system = Telling()
    system.per_clip = 2
    with pytest.raises(ValueError, match="2 captions of 1 clips; one each is expected"):
        told(system, world, tmp_path)
    clip = Clip(["a"], torch.tensor([[0, 9]]), {"video": torch.tensor([[0, 4]])})
    two = Prediction(caption=["one", "two"])
    with pytest.raises(ValueError, match="Telling gives 2 captions of 1 clips; one each is expected"):
        CaptionWriter(tmp_path).on_predict_batch_end(make_trainer(tmp_path), system, two, clip)


def test_what_was_said_is_kept_where_it_cannot_be_judged(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch limit leaves videos without a caption: the test fails, and the hours of captions are on disk."""
    system = Telling()
    data = data_of(world, system)
    trainer = make_trainer(tmp_path, [CaptionWriter(tmp_path), ScoreWriter(tmp_path)], limit_test_batches=4)
    with pytest.raises(ValueError, match="1 of 3 videos have no caption: Normal_Videos_002_x264"):
        trainer.test(system, datamodule=data, verbose=False)
    lines = (tmp_path / "captions.csv").read_text().splitlines()
    assert len(lines) == 1 + 4
    assert all(line.endswith(",") for line in lines[1:])
    assert "Similarity" not in (tmp_path / "captions.md").read_text()


def test_a_model_that_is_not_there_stops_a_test_before_anything_is_said(world: Path, tmp_path: Path) -> None:
    system = Telling()
    data = Uca(root=str(world), num_workers=0, sbert="./no-such-model")
    data.watch(system)
    with pytest.raises(FileNotFoundError, match=r'no-such-model: no such folder.*pip install -e "\.\[sbert\]"'):
        make_trainer(tmp_path, [CaptionWriter(tmp_path)]).test(system, datamodule=data, verbose=False)


def test_frames_that_cannot_be_read_are_told_instead_of_shown(world: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert strip(Video("a", tmp_path / "broken.mp4"), 0, 9).startswith("cannot be read: ")
    assert strip(Video("a", features=tmp_path / "a.npy"), 0, 9) == "features alone"
    whole = strip(Video("a", world / "Videos" / "Arson002_x264.mp4"), 7, 9)
    assert whole.shape == (3, HEIGHT, 2 * 160)  # a stretch of two frames
    assert whole.dtype == torch.uint8


def test_a_causal_window_describes_what_it_has_seen() -> None:
    """The clip of frames 3 to 24 answers for frames 24 to 48 of a stream that is still coming in."""
    clip = Clip(["a", "b"], torch.tensor([[24, 48], [0, 24]]), {"video": torch.tensor([[3, 13, 24], [0, 10, 20]])})
    assert described(clip) == [(3, 25), (0, 24)]
