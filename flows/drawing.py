"""What all pictures share: colours, figures, axes, windows of grey values.

Drawn with matplotlib's object interface: no display, no shared state, safe in any thread.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, OURS, OTHER = "#222222", "#8a8a8a", "#0b6e99", "#c8553d"
PANEL_EDGE = 512
"""Longer images are cut to their central square of this edge, so that single pixels stay visible."""
DPI = 110


def new_figure(columns: int, rows: int, *, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    """A white figure of columns x rows axes, each width x height inches; the axes row by row."""
    figure = Figure(
        figsize=(columns * width, rows * height + 0.4), dpi=DPI, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def show_image(
    figure: Figure, axis: Axes, pixels: np.ndarray, title: str, limits: tuple[float, float], colours: str
) -> None:
    """An image with its title and colour bar; limits are the ends of the colour scale."""
    shown = axis.imshow(pixels, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(title, fontsize=9, color=INK)
    bar = figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)


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
