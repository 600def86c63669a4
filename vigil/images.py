"""Still images: read whole or refused with their name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def read_image(path: Path, mode: str | None = None) -> np.ndarray:
    """An image in a mode of Pillow's (RGB, L), or as its numbers, uint8 (Y, X), where the mode is None.

    Raises FileNotFoundError, and ValueError for a damaged image and for numbers of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image")
    try:
        with Image.open(path) as image:
            if mode is None and image.mode not in ("L", "P"):
                raise ValueError(
                    f"{path}: an image of mode {image.mode}; annotation has one number of 8 bits per pixel (L or P)"
                )
            return np.array(image.convert(mode) if mode is not None else image)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise ValueError(f"{path}: not a sound image ({error}); fetch it again") from error


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image; only its header is read."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such image")
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a sound image ({error}); fetch it again") from error
