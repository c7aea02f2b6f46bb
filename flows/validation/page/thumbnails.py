"""Small pictures of images: reduced by averaging, stretched between percentiles, as PNG inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np

from cvdm.errors import ImageError
from cvdm.images import MAX_PIXELS
from cvdm.places import places_of
from cvdm.reading.opening import read_plane, read_stack
from cvdm.sight import PLAIN, Sight

EDGE = 160
"""Length of a thumbnail's longer side in pixels, about."""
PERCENTILES = (0.1, 99.9)
GREY_STEPS = 64  # of a thumbnail; noise hides the steps, and the file is a third smaller than with 256


@dataclass(frozen=True)
class Thumbnail:
    """A small picture, or why there is none."""

    uri: str | None = None
    """PNG as data URI."""
    width: int = 0
    height: int = 0
    window: tuple[float, float] | None = None
    """Values of the file that are shown black and white."""
    size: str = ""
    """Of the whole image, as "512 × 512 px, uint8"."""
    problem: str | None = None


def thumbnail(path: Path | None, *, edge: int = EDGE, sight: Sight = PLAIN) -> Thumbnail:
    """The picture of one image file; a file that is missing or cannot be read says so in `problem`.

    sight: what the file is; of several channels the restored one is shown, of a stack the middle.
    """
    if path is None:
        return Thumbnail(problem="file missing")
    try:
        pixels, dtype = _shown(path, sight)
    except ImageError as error:
        return Thumbnail(problem=error.actual)
    small = reduced(pixels, edge)
    low, high = (float(value) for value in np.percentile(small, PERCENTILES))
    shares = np.clip((small - low) / (high - low), 0, 1) if high > low else np.full_like(small, 0.5)
    grey = np.round(shares * (GREY_STEPS - 1)) * (255 / (GREY_STEPS - 1))
    png = imagecodecs.png_encode(np.round(grey).astype(np.uint8), level=9)
    rows, columns = pixels.shape
    return Thumbnail(
        uri="data:image/png;base64," + base64.b64encode(png).decode("ascii"),
        width=small.shape[1],
        height=small.shape[0],
        window=(low, high),
        size=f"{columns} × {rows} px, {dtype}",
    )


def _shown(path: Path, sight: Sight) -> tuple[np.ndarray, str]:
    """Pixels (H, W), and their type in the file. Raises ImageError."""
    opened = read_stack if sight.channels or sight.context else read_plane
    with opened(path, max_pixels=MAX_PIXELS) as stack:
        places = places_of(stack, sight)
        planes = places[len(places) // 2].planes[0]
        return stack.plane(planes[len(planes) // 2]).pixels, stack.dtype


def reduced(pixels: np.ndarray, edge: int) -> np.ndarray:
    """(H, W) averaged over square blocks to a longer side of about `edge`; what fills no block is cut."""
    factor = max(1, round(max(pixels.shape) / edge))
    rows, columns = (max(1, length // factor) for length in pixels.shape)
    blocks = pixels[: rows * factor, : columns * factor]
    tall, wide = (min(factor, length) for length in pixels.shape)  # a side may be shorter than a block
    return blocks.reshape(rows, tall, columns, wide).mean(axis=(1, 3), dtype=np.float64)
