"""What all pictures share: colours, figures, axes, windows of grey values.

Drawn with matplotlib's object interface: no display, no shared state, safe in any thread.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, OURS, OTHER = "#222222", "#8a8a8a", "#0b6e99", "#c8553d"
PANEL_EDGE = 512
"""Longer images are cut to their central square of this edge, so that single pixels stay visible."""
DPI = 110
CLIPPED = 0.005
"""Share of pixels beyond an end of the colour scale above which its bar ends in an arrow."""


def new_figure(columns: int, rows: int, *, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A white figure of columns x rows axes, each width x height inches; the axes row by row."""
    figure = Figure(
        figsize=(columns * width, rows * height + 0.4), dpi=DPI, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


class ImagePart(NamedTuple):
    """One image of a picture."""

    pixels: np.ndarray
    label: str
    limits: tuple[float, float]
    """Ends of the colour scale."""
    colours: str
    """Name of a colour map."""


def image_grid(parts: Sequence[ImagePart], title: str, *, columns: int, width: float = 3.1) -> bytes:
    """Images of one shape (H, W) row by row, each with its title and colour bar, as the bytes of a PNG.

    width: inches per image. Places everything itself: constrained layout takes two thirds of the time of such
    a picture, and pictures are drawn while a training waits.
    """
    rows = -(-len(parts) // columns)
    height, across = parts[0].pixels.shape
    image = 0.78 * width
    cell = image * height / across + 0.35
    whole = (columns * width, rows * cell + 0.45)
    figure = Figure(figsize=whole, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    for index, part in enumerate(parts):
        left, bottom = (index % columns) * width + 0.12, (rows - 1 - index // columns) * cell + 0.1
        axis = figure.add_axes(_share((left, bottom, image, cell - 0.35), whole))
        bar = figure.add_axes(_share((left + image + 0.07, bottom, 0.09, cell - 0.35), whole))
        _show_image(figure, axis, part, cax=bar)
    figure.suptitle(title, fontsize=10, color=INK, y=1 - 0.22 / whole[1], va="center")
    return as_png(figure)


def show_image(figure: Figure, axis: Axes, part: ImagePart) -> None:
    """An image among other plots, with its title and colour bar."""
    _show_image(figure, axis, part, ax=axis, fraction=0.046, pad=0.03)


def _show_image(figure: Figure, axis: Axes, part: ImagePart, **where: Any) -> None:
    low, high = part.limits
    extend = _extend(float((part.pixels < low).mean()), float((part.pixels > high).mean()))
    shown = axis.imshow(part.pixels, cmap=part.colours, vmin=low, vmax=high, interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(part.label, fontsize=9, color=INK)
    bar = figure.colorbar(shown, extend=extend, **where)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)


def _extend(below: float, above: float) -> str:
    """Which ends of a colour bar get an arrow, by the shares of pixels beyond them."""
    ends = {(True, True): "both", (True, False): "min", (False, True): "max", (False, False): "neither"}
    return ends[below > CLIPPED, above > CLIPPED]


def _share(inches: tuple[float, ...], whole: tuple[float, float]) -> tuple[float, float, float, float]:
    left, bottom, width, height = inches
    return left / whole[0], bottom / whole[1], width / whole[0], height / whole[1]


def quiet(axis: Axes) -> None:
    """Small labels, no frame at the top and at the right."""
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=INK)
    axis.title.set_fontsize(9)
    axis.xaxis.label.set_fontsize(8)
    axis.yaxis.label.set_fontsize(8)


def grey_window(pixels: np.ndarray) -> tuple[float, float]:
    """The 0.1 and 99.9 percentiles, never equal."""
    low, high = np.percentile(pixels, (0.1, 99.9))
    return float(low), float(high if high > low else low + 1)


def central(pixels: np.ndarray) -> np.ndarray:
    """The central square of at most `PANEL_EDGE`."""
    tops = [max(0, (size - PANEL_EDGE) // 2) for size in pixels.shape]
    return pixels[tops[0] : tops[0] + PANEL_EDGE, tops[1] : tops[1] + PANEL_EDGE]


def as_png(figure: Figure) -> bytes:
    """The figure as the bytes of a file."""
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()
