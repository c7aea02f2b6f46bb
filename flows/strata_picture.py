"""A picture of `cvdm.stratified`: where among bright, dim, flat and edged pixels the interval holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from flows.drawing import INK, MUTED, OTHER, OURS, as_png, new_figure, quiet

Strata = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Value by kind of pixels, metric and field, as `cvdm.evaluation.Evaluation.strata`."""
GAUSSIAN_MAE = 0.485
"""Mean absolute error of a Gaussian, as a share of half its 90 % interval: sqrt(2 / pi) / 1.645."""


def kinds_of_pixels(strata: Strata, level: float, title: str) -> bytes:
    """By kind of pixels: coverage against the nominal one; width and error; AUSE. A dot for each field."""
    names = list(strata)
    figure, axes = new_figure(3, 1, width=3.4, height=2.6)
    _dots(axes[0], strata, "coverage", OURS, "one field")
    axes[0].axhline(level, color=INK, linewidth=1, linestyle="--", label="nominal")
    axes[0].set(title="coverage of the interval", ylim=(None, 1))
    _dots(axes[1], strata, "width", OURS, "half of the interval", factor=0.5)
    _dots(axes[1], strata, "mae", OTHER, "mean error", factor=1 / GAUSSIAN_MAE)
    axes[1].set(title="half width and error (share of range)", ylim=(0, None))
    axes[1].set_xlabel(f"error divided by {GAUSSIAN_MAE}: equal to the half width if Gaussian")
    _dots(axes[2], strata, "ause", OURS, "one field")
    axes[2].set(title="← AUSE within", ylim=(0, None))
    for axis in axes:
        axis.set_xticks(range(len(names)), names)
        axis.set_xlim(-0.5, len(names) - 0.5)
        axis.axvline(2.5, color=MUTED, linewidth=0.8, linestyle=":")
        quiet(axis)
    axes[0].legend(frameon=False, fontsize=7)
    axes[1].legend(frameon=False, fontsize=7)
    figure.suptitle(title, fontsize=10, color=INK)
    return as_png(figure)


def _dots(axis: Axes, strata: Strata, metric: str, colour: str, label: str, *, factor: float = 1.0) -> None:
    """Fields as dots, their mean as a line."""
    for place, scores in enumerate(strata.values()):
        values = factor * np.array(list(scores[metric].values()))
        name = label if place == 0 else None
        axis.scatter(np.full(len(values), place), values, color=colour, s=16, alpha=0.6, label=name)
        axis.plot([place - 0.25, place + 0.25], [values.mean()] * 2, color=colour, linewidth=2)
