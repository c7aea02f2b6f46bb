"""Pictures for people: each function takes numbers and returns the bytes of a PNG.

Windows and colour scales are fixed by the target of a field, not by a model, so that the pictures of two
versions compare. Drawn with matplotlib's object interface: no display, no shared state, safe in any thread.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from cvdm.evaluation import Evaluation
    from cvdm.schedule import ScheduleCurves

INK, MUTED, OURS, OTHER = "#222222", "#8a8a8a", "#0b6e99", "#c8553d"
ERROR_SHARE, STD_SHARE = 0.25, 0.10
"""Upper ends of the error's and the uncertainty's colour scales, as shares of the target's window."""
PANEL_EDGE = 512
"""Longer images are cut to their central square of this edge, so that single pixels stay visible."""
DPI = 110


@dataclass(frozen=True)
class CalibrationCurve:
    """Observed against nominal coverage."""

    nominal: tuple[float, ...]
    observed: Mapping[str, tuple[float, ...]]
    """By field, one value per nominal level."""


def schedule_curves(curves: ScheduleCurves, title: str) -> bytes:
    """gamma, beta and log-SNR over time: the median pixel, and a band between the outer quantiles."""
    figure, axes = _figure(3, 1, width=3.7, height=3.1)
    times, middle = np.asarray(curves.times), len(curves.quantiles) // 2
    low, high = curves.quantiles[0], curves.quantiles[-1]
    for axis, (name, label) in zip(
        axes,
        [("gamma", "signal power γ"), ("beta", "noise rate β"), ("log_snr", "log signal-to-noise ratio")],
        strict=True,
    ):
        rows = np.asarray(getattr(curves, name))
        axis.fill_between(times, rows.min(0), rows.max(0), color=OURS, alpha=0.25, linewidth=0)
        axis.plot(times, rows[middle], color=OURS, linewidth=1.8)
        axis.set(xlabel="diffusion time t (0 clean, 1 noise)", title=label, xlim=(0, 1))
        _quiet(axis)
    if np.asarray(curves.beta).min() > 0:
        axes[1].set_yscale("log")
    figure.suptitle(f"{title}: median pixel and {low:.0%} to {high:.0%} of pixels", fontsize=10, color=INK)
    return _png(figure)


def schedule_map(low: np.ndarray, schedule: np.ndarray, title: str) -> bytes:
    """Where the model keeps signal long: input and time of equal signal and noise, both (H, W)."""
    low, schedule = _central(low), _central(schedule)
    figure, axes = _figure(2, 1, width=4.2, height=3.6)
    _image(figure, axes[0], low, "input", _window(low), "gray")
    # The scale is the whole range of time, narrowed evenly about its middle where the map is nearly flat.
    middle = float(np.median(schedule))
    reach = max(0.02, float(np.percentile(np.abs(schedule - middle), 99)))
    _image(
        figure,
        axes[1],
        schedule,
        "time of equal signal and noise",
        (middle - reach, middle + reach),
        "viridis",
    )
    figure.suptitle(title, fontsize=10, color=INK)
    return _png(figure)


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
    low, mean, std = _central(low), _central(mean), _central(std)
    window = _window(mean if high is None else _central(high))
    span = window[1] - window[0]
    parts: list[tuple[np.ndarray, str, tuple[float, float], str]] = [
        (low, "input", window, "gray"),
        (mean, "reconstruction", window, "gray"),
    ]
    if high is not None:
        high = _central(high)
        parts += [
            (high, "target", window, "gray"),
            (np.abs(mean - high), "|reconstruction − target|", (0, ERROR_SHARE * span), "magma"),
        ]
    parts.append((std, "uncertainty (std of draws)", (0, STD_SHARE * span), "magma"))
    if interval is not None:
        parts.append(
            (_central(interval), "width of calibrated interval", (0, 2 * ERROR_SHARE * span), "magma")
        )
    figure, axes = _figure(len(parts), 1, width=3.1, height=2.6 * low.shape[0] / low.shape[1] + 0.15)
    for axis, (pixels, label, limits, colours) in zip(axes, parts, strict=True):
        _image(figure, axis, pixels, label, limits, colours)
    figure.suptitle(title, fontsize=10, color=INK)
    return _png(figure)


def calibration(curve: CalibrationCurve, title: str) -> bytes:
    """Share of pixels inside the interval against the share that it promises, by field and on average."""
    figure, (axis,) = _figure(1, 1, width=4.6, height=4.2)
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
    _quiet(axis)
    return _png(figure)


def per_field(candidate: Evaluation, champion: Evaluation | None, title: str) -> bytes:
    """PSNR, SSIM and CRPS: one row per test field; a dot each for candidate, champion and baselines."""
    fields = sorted(candidate.metrics["crps"])
    methods: list[tuple[str, Mapping[str, Mapping[str, float]], dict[str, Any]]] = [
        (name, scores, {"color": MUTED, "marker": marker, "s": 26})
        for (name, scores), marker in zip(sorted(candidate.baselines.items()), "x+^v<>", strict=False)
    ]
    if champion is not None:
        methods.append(("champion", champion.metrics, {"color": OTHER, "marker": "D", "s": 34}))
    methods.append(("candidate", candidate.metrics, {"color": OURS, "marker": "o", "s": 44}))
    figure, axes = _figure(3, 1, width=3.9, height=1.5 + 0.28 * len(fields))
    rows = np.arange(len(fields))[::-1]
    for axis, metric, label in zip(
        axes,
        ("psnr_fit", "ssim_fit", "crps"),
        ("PSNR (dB) →", "SSIM →", "← CRPS (share of range)"),
        strict=True,
    ):
        for name, scores, style in methods:
            axis.scatter([scores[metric][field] for field in fields], rows, label=name, **style)
        axis.set(title=label, ylim=(-0.6, len(fields) - 0.4))
        axis.set_yticks(rows, fields if axis is axes[0] else [])
        axis.grid(axis="y", color="#eeeeee")
        axis.set_axisbelow(True)
        axis.locator_params(axis="x", nbins=5)
        _quiet(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(methods), frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10, color=INK)
    return _png(figure)


def _figure(columns: int, rows: int, *, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(
        figsize=(columns * width, rows * height + 0.4), dpi=DPI, layout="constrained", facecolor="white"
    )
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def _image(
    figure: Figure, axis: Axes, pixels: np.ndarray, title: str, limits: tuple[float, float], colours: str
) -> None:
    shown = axis.imshow(pixels, cmap=colours, vmin=limits[0], vmax=limits[1], interpolation="nearest")
    axis.set_axis_off()
    axis.set_title(title, fontsize=9, color=INK)
    bar = figure.colorbar(shown, ax=axis, fraction=0.046, pad=0.03)
    bar.ax.tick_params(labelsize=7, colors=INK)
    bar.outline.set_visible(False)


def _quiet(axis: Axes) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8, colors=INK)
    axis.title.set_fontsize(9)
    axis.xaxis.label.set_fontsize(8)
    axis.yaxis.label.set_fontsize(8)


def _window(pixels: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(pixels, (0.1, 99.9))
    return float(low), float(high if high > low else low + 1)


def _central(pixels: np.ndarray) -> np.ndarray:
    tops = [max(0, (size - PANEL_EDGE) // 2) for size in pixels.shape]
    return pixels[tops[0] : tops[0] + PANEL_EDGE, tops[1] : tops[1] + PANEL_EDGE]


def _png(figure: Figure) -> bytes:
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return target.getvalue()
