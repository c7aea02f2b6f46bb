"""Pictures for people: each function takes numbers and returns the bytes of a PNG.

Windows and colour scales are fixed by the target of a field, not by a model, so that the pictures of two
versions compare. Those of the schedule are in flows/schedule_pictures.py; a retraining has all of them drawn
by a process of their own (flows/easel.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from cvdm.resolution import THRESHOLD
from flows.drawing import (
    INK,
    MUTED,
    OTHER,
    OURS,
    ImagePart,
    as_png,
    central,
    grey_window,
    image_grid,
    new_figure,
    quiet,
)

if TYPE_CHECKING:
    from cvdm.evaluation import Evaluation
    from cvdm.metrics import Sparsification
    from flows.exhibits import CalibrationCurve, RingCurves

ERROR_SHARE, STD_SHARE = 0.25, 0.10
"""Upper ends of the error's and the uncertainty's colour scales, as shares of the target's window."""


def image_panel(
    low: np.ndarray,
    mean: np.ndarray,
    high: np.ndarray | None,
    std: np.ndarray,
    *,
    title: str,
    interval: np.ndarray | None = None,
) -> bytes:
    """Input | reconstruction | target | error | uncertainty (| interval width), arrays (H, W) in file units.

    high: None where there is no target; target and error are then left out.
    """
    low, mean, std = central(low), central(mean), central(std)
    window = grey_window(mean if high is None else central(high))
    span = window[1] - window[0]
    parts: list[ImagePart] = [
        ImagePart(low, "input", window, "gray"),
        ImagePart(mean, "reconstruction", window, "gray"),
    ]
    if high is not None:
        high = central(high)
        parts += [
            ImagePart(high, "target", window, "gray"),
            ImagePart(np.abs(mean - high), "|reconstruction − target|", (0, ERROR_SHARE * span), "magma"),
        ]
    parts.append(ImagePart(std, "uncertainty (std of draws)", (0, STD_SHARE * span), "magma"))
    if interval is not None:
        parts.append(
            ImagePart(central(interval), "width of calibrated interval", (0, 2 * ERROR_SHARE * span), "magma")
        )
    return image_grid(parts, title, columns=len(parts))


def versions_panel(
    low: np.ndarray, high: np.ndarray, means: Mapping[str, np.ndarray], *, title: str
) -> bytes:
    """Input | each version's reconstruction, and below: target | each one's error; (H, W) in file units."""
    low, high = central(low), central(high)
    window = grey_window(high)
    errors = (0.0, ERROR_SHARE * (window[1] - window[0]))
    above: list[ImagePart] = [ImagePart(low, "input", window, "gray")]
    below: list[ImagePart] = [ImagePart(high, "target", window, "gray")]
    for name, mean in means.items():
        above.append(ImagePart(central(mean), name, window, "gray"))
        below.append(ImagePart(np.abs(central(mean) - high), f"|{name} − target|", errors, "magma"))
    return image_grid([*above, *below], title, columns=len(above))


def calibration(curve: CalibrationCurve, title: str) -> bytes:
    """Share of pixels inside the interval against the share that it promises, by field and on average."""
    figure, (axis,) = new_figure(1, 1, width=4.6, height=4.2)
    axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--", label="ideal")
    for index, values in enumerate(curve.observed.values()):
        label = "single field" if index == 0 else None
        axis.plot(curve.nominal, values, color=OURS, linewidth=0.8, alpha=0.4, label=label)
    mean = np.mean(list(curve.observed.values()), axis=0)
    axis.plot(curve.nominal, mean, color=OURS, linewidth=2, marker="o", markersize=4, label="mean of fields")
    axis.set(
        xlabel="nominal coverage (the calibrated interval, scaled as a Gaussian)",
        ylabel="observed coverage on test fields",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axis.set_aspect("equal")
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    axis.set_title(title, fontsize=10, color=INK)
    quiet(axis)
    return as_png(figure)


def per_field(candidate: Evaluation, champion: Evaluation | None, title: str) -> bytes:
    """PSNR, SSIM and CRPS: one row per test field; a dot each for candidate, champion and baselines.

    A line leads from the champion's dot to the candidate's, in the colour of whichever is better.
    """
    fields = sorted(candidate.metrics["crps"])
    methods: list[tuple[str, Mapping[str, Mapping[str, float]], dict[str, Any]]] = [
        (name, scores, {"color": MUTED, "marker": marker, "s": 26})
        for (name, scores), marker in zip(sorted(candidate.baselines.items()), "x+^v<>", strict=False)
    ]
    if champion is not None:
        methods.append(("champion", champion.metrics, {"color": OTHER, "marker": "D", "s": 34}))
    methods.append(("candidate", candidate.metrics, {"color": OURS, "marker": "o", "s": 44}))
    figure, axes = new_figure(3, 1, width=3.9, height=1.5 + 0.28 * len(fields))
    rows = np.arange(len(fields))[::-1]
    for axis, metric, label in zip(
        axes,
        ("psnr_fit", "ssim_fit", "crps"),
        ("PSNR (dB) →", "SSIM →", "← CRPS (share of range)"),
        strict=True,
    ):
        if champion is not None:
            _connect(axis, metric, fields, candidate, champion)
        for name, scores, style in methods:
            axis.scatter([scores[metric][field] for field in fields], rows, label=name, **style)
        axis.set(title=label, ylim=(-0.6, len(fields) - 0.4))
        axis.set_yticks(rows, fields if axis is axes[0] else [])
        axis.grid(axis="y", color="#eeeeee")
        axis.set_axisbelow(True)
        axis.locator_params(axis="x", nbins=5)
        quiet(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(methods), frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10, color=INK)
    return as_png(figure)


def sparsification(curves: Mapping[str, Sparsification], title: str) -> bytes:
    """By field, the error of the pixels left when the most uncertain ones are removed, and the best order."""
    figure, (axis,) = new_figure(1, 1, width=5.2, height=3.8)
    found = list(curves.values())
    removed = np.arange(len(found[0].by_std)) / len(found[0].by_std)
    for curve in found:
        axis.plot(removed, curve.by_std, color=OURS, linewidth=0.8, alpha=0.4)
    by_std, by_error = (np.mean([getattr(c, name) for c in found], axis=0) for name in ("by_std", "by_error"))
    axis.plot([0, 1], [1, 1], color=MUTED, linewidth=1, linestyle=":", label="by chance")
    axis.plot(removed, by_std, color=OURS, linewidth=2, label="most uncertain first")
    axis.plot(removed, by_error, color=INK, linewidth=1.4, linestyle="--", label="worst first (oracle)")
    axis.fill_between(removed, by_error, by_std, color=OURS, alpha=0.12, linewidth=0)
    area = np.mean(by_std - by_error)
    axis.set(
        xlabel="share of pixels removed",
        ylabel="mean error of those left, share of all",
        title=f"{title}\nAUSE {area:.3f}: the shaded area, 0 where uncertainty ranks as error does",
        xlim=(0, 1),
        ylim=(0, None),
    )
    axis.legend(frameon=False, fontsize=8)
    quiet(axis)
    return as_png(figure)


def ring_correlations(curves: Mapping[str, RingCurves], title: str) -> bytes:
    """By field, which detail of reconstruction and input agrees with the target."""
    figure, (axis,) = new_figure(1, 1, width=5.2, height=3.8)
    for name, colour, label in (("low", MUTED, "input"), ("restored", OURS, "reconstruction")):
        for index, curve in enumerate(curves.values()):
            axis.plot(
                curve.frequencies,
                getattr(curve, name),
                ":" if curve.shared_noise else "-",
                color=colour,
                linewidth=1.2,
                label=label if index == 0 else None,
            )
    axis.axhline(THRESHOLD, color=INK, linewidth=1, linestyle="--", label="threshold 1/7")
    note = "dotted: input and target share their noise, nothing is measured there"
    axis.set(
        xlabel="spatial frequency (cycles per pixel)",
        ylabel="Fourier ring correlation with the target",
        title=f"{title}\n{note}" if any(curve.shared_noise for curve in curves.values()) else title,
        xlim=(0, 0.5),
        ylim=(-0.1, 1.02),
    )
    axis.legend(frameon=False, fontsize=8)
    quiet(axis)
    return as_png(figure)


def _connect(axis: Axes, metric: str, fields: list[str], candidate: Evaluation, champion: Evaluation) -> None:
    sign = -1 if metric == "crps" else 1
    for row, field in enumerate(reversed(fields)):
        ours, theirs = candidate.metrics[metric][field], champion.metrics[metric][field]
        colour = OURS if sign * (ours - theirs) > 0 else OTHER
        axis.plot([theirs, ours], [row, row], color=colour, linewidth=2.2, alpha=0.6, zorder=0.5)
