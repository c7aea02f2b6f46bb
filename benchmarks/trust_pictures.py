"""The pictures of benchmarks/trust.py, from its numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flows.drawing import INK, MUTED, OTHER, OURS, as_png, new_figure, quiet

LEVEL = 0.9


def draw_all(result: dict, folder: Path) -> None:
    """Write docs/trust-*.png."""
    pictures = {
        "strata": strata(result["strata"]),
        "unfamiliar": unfamiliar(result["unfamiliar"]),
        "probes": probes(result["probes"]),
        "calibration": calibration(result["calibration"]),
    }
    for name, content in pictures.items():
        (folder / f"trust-{name}.png").write_bytes(content)


def strata(found: dict) -> bytes:
    """Coverage by kind of pixels, a dot for each test field."""
    figure, axes = new_figure(len(found), 1, width=4.2, height=2.8)
    for axis, (task, kinds) in zip(axes, found.items(), strict=True):
        for place, scores in enumerate(kinds.values()):
            values = np.array(list(scores["coverage"].values()))
            axis.scatter(np.full(len(values), place), values, color=OURS, s=16, alpha=0.6)
            axis.plot([place - 0.25, place + 0.25], [values.mean()] * 2, color=OURS, linewidth=2)
        axis.axhline(LEVEL, color=INK, linewidth=1, linestyle="--")
        axis.set(title=task, ylabel="coverage", ylim=(0.6, 1))
        axis.set_xticks(range(len(kinds)), list(kinds))
        quiet(axis)
    return as_png(figure)


def unfamiliar(found: dict) -> bytes:
    """How much wider the interval and how much larger the error is than on a familiar image."""
    figure, axes = new_figure(len(found), 1, width=5.0, height=3.2)
    for axis, (task, rows) in zip(axes, found.items(), strict=True):
        shown = {name: row for name, row in rows.items() if "width" in row}
        reference = shown["defocus 0 px"]
        heights = np.arange(len(shown))[::-1]
        for metric, colour, label, shift in (
            ("width", OURS, "interval width", 0.18),
            ("error", OTHER, "error", -0.18),
        ):
            values = [row[metric] / reference[metric] for row in shown.values()]
            axis.barh(heights + shift, values, height=0.34, color=colour, label=label)
        for height, row in zip(heights, shown.values(), strict=True):
            axis.annotate(
                f"{row['coverage']:.0%} covered",
                (1, height),
                xycoords=("axes fraction", "data"),
                xytext=(-2, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                fontsize=7,
                color=INK,
            )
        axis.axvline(1, color=MUTED, linewidth=0.8, linestyle="--")
        axis.set_yticks(heights, list(shown))
        longest = max(row[m] / reference[m] for row in shown.values() for m in ("width", "error"))
        axis.set(title=task, xlabel="times that of the same field in focus", xlim=(0, 1.3 * longest))
        quiet(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=7)
    return as_png(figure)


def probes(found: dict) -> bytes:
    """How much of a change the reconstruction shows, and whether its interval holds the new truth."""
    figure, axes = new_figure(len(found), 1, width=5.0, height=2.4)
    for axis, (task, rows) in zip(axes, found.items(), strict=True):
        heights = np.arange(len(rows))[::-1]
        for metric, colour, label, marker in (
            ("followed", OURS, "share of the change that is shown", "o"),
            ("covered", OTHER, "new truth inside of the interval", "D"),
            ("covered_before", MUTED, "same place before", "x"),
        ):
            values = [row[metric] for row in rows.values()]
            axis.scatter(values, heights, color=colour, marker=marker, s=34, label=label)
        axis.axvline(1, color=INK, linewidth=0.8, linestyle="--")
        axis.set_yticks(heights, list(rows))
        axis.set(title=task, xlim=(0, 1.25), ylim=(-0.6, len(rows) - 0.4))
        axis.grid(axis="y", color="#eeeeee")
        axis.set_axisbelow(True)
        quiet(axis)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=7)
    return as_png(figure)


def calibration(rows: list[dict[str, float]]) -> bytes:
    """Average coverage of a new field over number of calibration fields."""
    figure, (axis,) = new_figure(1, 1, width=4.6, height=3.0)
    fields = [row["fields"] for row in rows]
    for name, colour, label in (
        ("corrected", OURS, "widened by leaving one out"),
        ("plain", OTHER, "pooled, uncorrected"),
        ("guaranteed", MUTED, "guaranteed whatever the distribution"),
    ):
        axis.plot(fields, [row[name] for row in rows], "o-", color=colour, label=label, markersize=4)
    axis.axhline(LEVEL, color=INK, linewidth=1, linestyle="--")
    axis.set(xlabel="calibration fields", ylabel="average coverage of a new field", ylim=(0.4, 1))
    axis.legend(frameon=False, fontsize=7)
    quiet(axis)
    return as_png(figure)
