"""Pictures of a learned schedule: each function takes numbers and returns the bytes of a PNG.

Colour scales are the same for every image and every version, so that pictures compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from flows.drawing import (
    INK,
    OTHER,
    OURS,
    ImagePart,
    as_png,
    central,
    grey_window,
    image_grid,
    new_figure,
    quiet,
    show_image,
)

if TYPE_CHECKING:
    from cvdm.schedule import ScheduleCurves
    from cvdm.schedule_drift import SeenSchedule
    from cvdm.validation import Panel

MAP_REACH = 0.1
"""The colours of a map end so far from its median, in diffusion time."""
QUANTITIES = (
    ("gamma", "signal power γ"),
    ("beta", "noise rate β"),
    ("log_snr", "log signal-to-noise ratio"),
)


def schedule_curves(curves: ScheduleCurves, title: str) -> bytes:
    """gamma, beta and log-SNR over time: the median pixel, and a band between the outer quantiles."""
    figure, axes = new_figure(3, 1, width=3.7, height=3.1)
    _draw_curves(axes, curves, OURS, None)
    low, high = curves.quantiles[0], curves.quantiles[-1]
    figure.suptitle(f"{title}: median pixel and {low:.0%} to {high:.0%} of pixels", fontsize=10, color=INK)
    return as_png(figure)


def schedule_maps(panels: Sequence[Panel], title: str) -> bytes:
    """Where the model keeps signal long: one row per validation field, the input and its map."""
    parts: list[ImagePart] = []
    for panel in panels:
        low = central(panel.low)
        parts.append(ImagePart(low, f"{panel.field}: input", grey_window(low), "gray"))
        parts.append(_map_part(panel.schedule_map, ""))
    return image_grid(parts, title, columns=2, width=4.2)


def schedule_drift(
    value: float, ours: SeenSchedule, theirs: SeenSchedule, low: np.ndarray, names: tuple[str, str]
) -> bytes:
    """Both schedules on one image: their curves over each other, their maps beside the input.

    value: the drift over all images. low: the image (h, w). names: of the candidate and of the champion.
    """
    figure, axes = new_figure(3, 2, width=3.9, height=3.2)
    for seen, colour, name in ((theirs, OTHER, names[1]), (ours, OURS, names[0])):
        _draw_curves(axes, seen.curves, colour, name)
    axes[0].legend(frameon=False, fontsize=8)
    low = central(low)
    show_image(figure, axes[3], ImagePart(low, f"{ours.field}: input", grey_window(low), "gray"))
    show_image(figure, axes[4], _map_part(ours.time_map, f"{names[0]}: "))
    show_image(figure, axes[5], _map_part(theirs.time_map, f"{names[1]}: "))
    figure.suptitle(
        f"Schedule of {names[0]} and of {names[1]}: pixels lose their signal "
        f"{value:.2%} of the diffusion time earlier or later, on average",
        fontsize=10,
        color=INK,
    )
    return as_png(figure)


def _draw_curves(axes: Sequence[Axes], curves: ScheduleCurves, colour: str, name: str | None) -> None:
    times, middle = np.asarray(curves.times), len(curves.quantiles) // 2
    for axis, (quantity, label) in zip(axes, QUANTITIES, strict=False):
        rows = np.asarray(getattr(curves, quantity))
        axis.fill_between(times, rows.min(0), rows.max(0), color=colour, alpha=0.25, linewidth=0)
        axis.plot(times, rows[middle], color=colour, linewidth=1.8, label=name)
        axis.set(xlabel="diffusion time t (0 clean, 1 noise)", title=label, xlim=(0, 1))
        quiet(axis)
    if np.asarray(curves.beta).min() > 0:
        axes[1].set_yscale("log")


def _map_part(time_map: np.ndarray, prefix: str) -> ImagePart:
    """The time of equal signal and noise about its median: differences are small beside the median."""
    time_map = central(time_map)
    median = float(np.median(time_map))
    label = f"{prefix}when noise equals signal: t − {median:.3f} (median)"
    return ImagePart(time_map - median, label, (-MAP_REACH, MAP_REACH), "RdBu_r")
