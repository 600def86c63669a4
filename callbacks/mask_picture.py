"""MaskPicture: what a system finds and where, as pictures: frames along the video, the peak, what its tokens show."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from callbacks.curve_picture import DPI, WIDTH
from callbacks.evaluator import Evaluator
from callbacks.overlay import Overlay, _held
from vigil.curves import Curve, expand
from vigil.types import Clip, Video
from vigil.video import read_frames

N_FRAMES = 6  # of the strip
GREEN, OPACITY = (0.0, 255.0, 0.0), 0.5
ANNOTATED = "pink"
LETTERS, MAX_LINES = 100, 4  # of what was asked


class MaskPicture(Overlay):
    """An Overlay that also draws, from the same maps: masks/<video>.png, frames of the video over its frame scores.

    Green where a pixel's score is above one half; pink where anomalies were annotated. After predict
    peaks/<video>.png as well: the frame of the highest score as it is, and with its mask, under what was asked. Where
    the system has `token_maps`, tokens/<video>.png: that frame, and the density and the reverse attention of the visual
    tokens that show it. All go to TensorBoard too.
    Source: figures 4, 5 and 6 of LAVIDA, arXiv:2602.19248.
    """

    def _write(self, trainer: Trainer, split: str) -> None:
        trainer.strategy.barrier("mask_picture")
        if trainer.is_global_zero and self._maps.is_dir() and not trainer.fast_dev_run:
            evaluator = next(callback for callback in trainer.callbacks if isinstance(callback, Evaluator))
            curves = evaluator.refined or evaluator.curves
            for video in trainer.datamodule.known(split):
                files = sorted(self._maps.glob(f"{self._numbers.get(video.name)}-*.npz"))
                if files and video.name in curves:
                    self._draw(trainer, split, video, curves[video.name], files)
        super()._write(trainer, split)  # which removes the maps

    def _draw(self, trainer: Trainer, split: str, video: Video, curve: Curve, files: list[Path]) -> None:
        assert video.path is not None  # an Overlay keeps maps of such videos alone
        index = moments(curve)
        frames = list(read_frames(video.path, index))
        maps = maps_at(files, curve.n_frames, index)
        shown = [tinted(*pair) for pair in zip(frames, maps, strict=True)]
        at = int(np.argmax(expand(curve)[index]))
        self._show(trainer, f"masks/{video.name}", draw_strip(video, curve, index, shown))
        peak = frames[at].permute(1, 2, 0).numpy()
        title = f"{video.name}, frame {index[at]}"
        if split == "predict":
            asked = list(getattr(trainer.lightning_module, "categories", None) or [])
            self._show(trainer, f"peaks/{video.name}", draw_peak(title, asked, peak, shown[at]))
        found = self._token_maps(trainer, video, index[at])
        if found is not None:
            self._show(trainer, f"tokens/{video.name}", draw_tokens(title, peak, *found))

    @staticmethod
    def _token_maps(trainer: Trainer, video: Video, frame: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Density and reverse attention (Y', X') of the tokens that show a frame of a video, where there are any."""
        module: Any = trainer.lightning_module
        if not hasattr(module, "token_maps") or video.n_frames is None:
            return None
        stream, view = next(iter(module.test_views.items()))
        window = int(np.searchsorted(view.spans(video.n_frames)[:, 0], frame, side="right")) - 1
        sampled = view.indices(video.n_frames)[window : window + 1]
        assert video.path is not None
        clip = Clip(
            video=[video.name],
            span=torch.as_tensor(view.spans(video.n_frames)[window : window + 1]),
            frame={stream: torch.as_tensor(sampled)},
            pixels={stream: read_frames(video.path, sampled[0])[None]},
            fps=torch.tensor([float("nan") if video.fps is None else video.fps]),
        )
        with trainer.precision_plugin.forward_context(), torch.no_grad():
            maps = module.token_maps(clip.to(module.device))
        if maps is None:
            return None
        place = int(np.searchsorted(sampled[0], frame, side="right")) - 1  # of the frame that is held at `frame`
        density, attention = (one[0].float().cpu().numpy() for one in maps)
        number = max(place, 0) * len(density) // sampled.shape[1]  # a token may show two frames
        return density[number], attention[number]

    def _show(self, trainer: Trainer, name: str, picture: bytes) -> None:
        """Write a picture to `name`.png in the folder, and to TensorBoard."""
        file = self.folder / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture)
        board = next((logger.experiment for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)), None)
        if board is not None:
            pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
            board.add_image(name, pixels, trainer.global_step, dataformats="HWC")


def moments(curve: Curve, count: int = N_FRAMES) -> list[int]:
    """The frame of the highest score in each of `count` equal parts of a video: its peaks, and how normal parts look.

    The first frame of highest score is always among them. Of a video of fewer frames, every frame.
    """
    score = expand(curve)
    edge = np.linspace(0, len(score), min(count, len(score)) + 1).round().astype(int)
    return [int(first + np.argmax(score[first:end])) for first, end in pairwise(edge)]


def maps_at(files: Sequence[Path], n_frames: int, index: Sequence[int]) -> list[Tensor]:
    """The map, uint8 (Y, X), that holds for each of the frames `index`, of the files that an Overlay keeps."""
    wanted = set(index)
    found = {frame: one for frame, one in enumerate(_held(list(files), n_frames)) if frame in wanted}
    return [found[frame] for frame in index]


def tinted(pixels: Tensor, scores: Tensor) -> np.ndarray:
    """A frame, uint8 (C, Y, X), green where the score is above one half of 255: uint8 (Y, X, C)."""
    score = interpolate(scores[None, None].float(), size=pixels.shape[1:], mode="bilinear")[0]
    green = OPACITY * torch.tensor(GREEN)[:, None, None] + (1 - OPACITY) * pixels
    painted = torch.where(score > 127.5, green, pixels.float())
    return painted.round().to(torch.uint8).permute(1, 2, 0).numpy()


def draw_strip(video: Video, curve: Curve, index: Sequence[int], shown: Sequence[np.ndarray]) -> bytes:
    """A PNG of frames in a row, (Y, X, C) each, and below them the video's score with what was annotated in pink."""
    n_rows, n_columns = shown[0].shape[:2]
    strip = WIDTH / len(shown) * n_rows / n_columns + 0.25
    figure = Figure(figsize=(WIDTH, strip + 2), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(2, len(shown), height_ratios=[strip, 2])
    score = expand(curve)
    for column, (frame, pixels) in enumerate(zip(index, shown, strict=True)):
        _picture(figure.add_subplot(grid[0, column]), pixels, f"frame {frame}: {score[frame]:.2f}")
    axis = figure.add_subplot(grid[1, :])
    for number, (first, end) in enumerate(video.anomalies or []):
        axis.axvspan(first, end, color=ANNOTATED, lw=0, label=None if number else "annotated")
    axis.stairs(curve.score, curve.edge, color="tab:blue", lw=1.8, label="score")
    axis.plot(index, score[list(index)], "o", color="tab:green", ms=5, label="shown")
    axis.set(xlim=(0, curve.n_frames), ylim=(0, 1.02), xlabel="frame", ylabel="anomaly score")
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8, frameon=False)
    name = video.name + ("" if video.category is None else f" ({video.category})")
    axis.set_title(textwrap.shorten(name, 70, placeholder="…"), fontsize=10, loc="left", parse_math=False)
    return _png(figure)


def draw_peak(title: str, asked: Sequence[str], left: np.ndarray, right: np.ndarray) -> bytes:
    """A PNG of a frame as it is and with its mask, (Y, X, C) both; above them, what was asked about."""
    said = f"asked about: {', '.join(asked)}" if asked else ""
    lines = textwrap.wrap(said, LETTERS, max_lines=MAX_LINES, placeholder=" …")
    height = WIDTH / 2 * left.shape[0] / left.shape[1] + 0.45 + 0.17 * len(lines)
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")
    if lines:
        figure.suptitle("\n".join(lines), fontsize=9, x=0.01, ha="left", parse_math=False)
    for axis, pixels, name in zip(figure.subplots(1, 2), (left, right), (title, "what is anomalous"), strict=True):
        _picture(axis, pixels, name)
    return _png(figure)


def draw_tokens(title: str, pixels: np.ndarray, density: np.ndarray, attention: np.ndarray) -> bytes:
    """A PNG of a frame (Y, X, C) and two maps (Y', X') of its tokens, the density on a scale of powers of ten."""
    figure = Figure(figsize=(WIDTH, WIDTH / 3 * pixels.shape[0] / pixels.shape[1] + 0.3), dpi=DPI, layout="constrained")
    axes = figure.subplots(1, 3)
    _picture(axes[0], pixels, title)
    for axis, values, name in ((axes[1], powers(density), "density"), (axes[2], attention, "reverse attention")):
        _picture(axis, values, name, extent=(0, pixels.shape[1], pixels.shape[0], 0), cmap="inferno")
    return _png(figure)


def powers(density: np.ndarray) -> np.ndarray:
    """log10 of densities from 0 to infinity, both ends as the lowest and highest number: identical tokens are dense."""
    with np.errstate(divide="ignore"):
        power = np.log10(density)
    finite = power[np.isfinite(power)]
    return np.clip(power, finite.min(), finite.max()) if len(finite) else np.zeros_like(power)


def _picture(axis: Axes, pixels: np.ndarray, title: str, **style: Any) -> None:
    axis.imshow(pixels, **style)
    axis.set_title(title, fontsize=8, parse_math=False)
    axis.axis("off")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
