"""What a viewer asks for of a job's images: tiles of exact values, and pictures for a quick look.

A tile is a square of a plane at one level of a pyramid: at level n each of its pixels is the mean over
2^n x 2^n pixels, of no more than `SAMPLED` x `SAMPLED` of them that lie on a grid. At level 0 the values are
those of the file. The first look at a plane of an input decodes it to a file beside the input, so that
an image of any size takes little memory.

Where a result is finer than its input by a factor, the input is shown on the result's grid once that is
there, as the model saw it, so that both lie on each other. A result of one channel belongs
to all of its input's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import imagecodecs
import numpy as np
import tifffile

from cvdm.normalisation import Pixels, sampled
from cvdm.planes import FileImage, Folder
from cvdm.posterior import CHANNELS
from cvdm.reading import Stack, read_stack, selected
from cvdm.restoration import MOST_PIXELS, channel_labels
from cvdm.upsampling import on_grid
from service.errors import ParameterError, UnfinishedError
from service.jobs.archive import Archive
from service.jobs.records import Item

TILE = 512
SAMPLED = 4
INPUT = "input"
WINDOW_PERCENTILES = 0.5, 99.8
"""Between which values of the input a picture goes from black to white."""
PREVIEW_PIXELS = 1024
"""Longest side of a picture."""
SMALLEST = float(np.finfo(np.float32).tiny)
T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A plane of one layer; axes that an image does not have are 0."""

    layer: str
    t: int = 0
    z: int = 0
    c: int = 0


@dataclass(frozen=True)
class Square:
    """Which tile of a plane: rows and columns count tiles of a level."""

    level: int
    row: int
    column: int


class Views:
    """One per process; works off the event loop, one look at a time."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="views")

    async def describe(self, item: Item) -> dict[str, Any]:
        """How an image is laid out. Raises ImageError."""
        return await self._away(partial(self._described, item))

    async def tile(self, item: Item, place: Place, square: Square) -> np.ndarray:
        """(h, w) float32 little-endian, h and w at most `TILE`. Raises ParameterError, UnfinishedError."""
        return await self._away(lambda: tile_of(self._pixels(item, place), square))

    async def preview(self, item: Item, place: Place, window: tuple[float, float] | None) -> bytes:
        """A PNG of at most `PREVIEW_PIXELS` along a side, 8-bit grey.

        window: what is black and what is white; without one, percentiles of the input's plane, for the result
        too, or from 0 to a high percentile of the plane for uncertainty_std.
        """
        return await self._away(partial(self._picture, item, place, window))

    def close(self) -> None:
        """No look begins after this."""
        self._worker.shutdown(wait=False, cancel_futures=True)

    async def _away(self, look: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, look)

    def _described(self, item: Item) -> dict[str, Any]:
        with self._opened(item) as stack:
            lengths = dict(zip(stack.axes, stack.shape, strict=True))
            factor = self._factor(item)
            y, x = stack.pixel_size_um or (None, None)
            height, width = (factor * length for length in stack.shape[-2:])
            return {
                "name": item.name,
                "height": height,
                "width": width,
                "t": lengths.get("T", 1),
                "z": lengths.get("Z", 1),
                "channels": channel_labels(stack),
                "dtype": stack.dtype,
                "full_range": stack.full_range,
                "pixel_size_um": None if y is None or x is None else {"y": y / factor, "x": x / factor},
                "z_step_um": stack.z_step_um,
                "tile": TILE,
                "levels": levels(height, width),
                "layers": [INPUT, *(_result_layers(item) if item.state == "done" else ())],
            }

    def _pixels(self, item: Item, place: Place) -> Pixels:
        """Raises ParameterError, UnfinishedError."""
        lengths = dict(zip(item.axes, item.shape, strict=True))
        for axis, at in (("T", place.t), ("Z", place.z), ("C", place.c)):
            if not 0 <= at < lengths.get(axis, 1):
                raise ParameterError(
                    f"{axis.lower()} from 0 to {lengths.get(axis, 1) - 1}", str(at), "Correct the number."
                )
        if place.layer == INPUT:
            return on_grid(self._input(item, place), self._factor(item))
        layers = _result_layers(item)
        if place.layer not in layers:
            raise ParameterError(
                f"a layer out of {', '.join((INPUT, *layers))}", repr(place.layer[:40]), "Correct its name."
            )
        if item.state != "done":
            raise UnfinishedError("a restored image", f"one that is {item.state}", "Wait for its end.")
        maps = self._result(item)
        channel = place.c if maps.shape[2] > 1 else 0
        return maps[place.t, place.z, channel, layers.index(place.layer)]

    def _result(self, item: Item) -> np.ndarray:
        """(T, Z, C, layers, H, W) of a restored image, mapped from its file."""
        lengths = dict(zip(item.axes, item.shape, strict=True))
        stored = tifffile.memmap(self._archive.result(item.job, item.number), mode="r")
        layers = len(_result_layers(item))
        found: np.ndarray = stored.reshape(
            lengths.get("T", 1), lengths.get("Z", 1), -1, layers, *stored.shape[-2:]
        )
        return found

    def _factor(self, item: Item) -> int:
        """By which the result is finer than its input, once it is there."""
        return self._result(item).shape[-2] // item.shape[-2] if item.state == "done" else 1

    def _input(self, item: Item, place: Place) -> FileImage:
        index = {"T": place.t, "Z": place.z, "C": place.c}
        lengths = tuple(zip(item.axes[:-2], item.shape[:-2], strict=True))
        position = 0
        for axis, length in lengths:
            position = position * length + index[axis]
        folder = Folder(self._archive.views(item.job, item.number), item.sha256)

        def fill(write: Any, scratch: Path) -> None:
            with self._opened(item) as stack:
                stack.copy_plane(position, write, scratch)

        return folder.image(f"input-{position}", (item.shape[-2], item.shape[-1]), fill)

    @contextmanager
    def _opened(self, item: Item) -> Iterator[Stack]:
        path = self._archive.input(item.job, item.number)
        with read_stack(path, max_pixels=MOST_PIXELS, label=item.name) as stack:
            yield selected(stack, item.channels)

    def _picture(self, item: Item, place: Place, window: tuple[float, float] | None) -> bytes:
        pixels = self._pixels(item, place)
        low, high = window or self._window(item, place, pixels)
        level = next(level for level in range(64) if max(pixels.shape) <= PREVIEW_PIXELS * 2**level)
        values = reduced(pixels, level, slice(0, pixels.shape[0]), slice(0, pixels.shape[1]))
        grey = np.clip((values - low) / max(high - low, SMALLEST), 0, 1) * 255
        return bytes(imagecodecs.png_encode(np.round(grey).astype(np.uint8)))

    def _window(self, item: Item, place: Place, pixels: Pixels) -> tuple[float, float]:
        spread = place.layer == "uncertainty_std"
        shared = pixels if spread else self._pixels(item, Place(INPUT, place.t, place.z, place.c))
        low, high = (float(value) for value in np.percentile(sampled(shared), WINDOW_PERCENTILES))
        return (0.0 if spread else low, high)


def _result_layers(item: Item) -> tuple[str, ...]:
    """What the result of an image has for each channel of it."""
    return (*CHANNELS, *item.maps)


def levels(height: int, width: int) -> int:
    """How many levels a plane has: at the last one it is a single tile."""
    count = 1
    while max(height, width) > TILE * 2 ** (count - 1):
        count += 1
    return count


def tile_of(pixels: Pixels, square: Square) -> np.ndarray:
    """One tile of a plane (H, W). Raises ParameterError."""
    height, width = pixels.shape
    if not 0 <= square.level < levels(height, width):
        raise ParameterError(
            f"a level from 0 to {levels(height, width) - 1}", str(square.level), "Correct the number."
        )
    side = TILE * 2**square.level
    rows = slice(square.row * side, min((square.row + 1) * side, height))
    columns = slice(square.column * side, min((square.column + 1) * side, width))
    if min(square.row, square.column) < 0 or rows.start >= height or columns.start >= width:
        raise ParameterError(
            f"a tile within {-(-height // side)} rows and {-(-width // side)} columns",
            f"row {square.row}, column {square.column}",
            "Correct the numbers.",
        )
    return reduced(pixels, square.level, rows, columns)


def reduced(pixels: Pixels, level: int, rows: slice, columns: slice) -> np.ndarray:
    """A part (h, w) of a plane as float32 with means over 2^level x 2^level pixels, or over some of them."""
    side = 2**level
    taken = min(side, SAMPLED)
    step = side // taken
    found: np.ndarray = np.asarray(
        pixels[slice(rows.start, rows.stop, step), slice(columns.start, columns.stop, step)], np.float32
    )
    for axis in (0, 1):
        starts = np.arange(0, found.shape[axis], taken)
        counts = np.diff(starts, append=found.shape[axis])
        found = np.add.reduceat(found, starts, axis=axis) / counts.reshape((-1, 1) if axis == 0 else (1, -1))
    return found.astype("<f4")
