"""The shift plot: where the target of each pair lies as seen from its input, in pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from flows.validation.features import PairFeatures
from flows.validation.page.marks import Mark, drawn, labelled, level_of
from flows.validation.policy import Limits

SIZE, MARGIN = 300, 26
MOST_DOTS = 600
"""Beyond, half of them the largest shifts, the others spread evenly over the rest."""
MOST_NAMES = 6
LINE = 11  # of text


def shift_plot(rows: Sequence[PairFeatures], anchors: Sequence[str], limits: Limits) -> str:
    """A square drawing with the thresholds as circles; empty where no pair could be registered."""
    marks = []
    for row, anchor in zip(rows, anchors, strict=True):
        if row.shift_yx is not None and row.shift_px is not None:
            level = level_of(row.shift_px, limits, "above")
            marks.append((Mark(row.name, anchor, level, row.shift_px, in_words(row.shift_yx)), row.shift_yx))
    if not marks:
        return ""
    marks.sort(key=lambda one: -one[0].value)
    if len(marks) > MOST_DOTS:
        half, rest = MOST_DOTS // 2, marks[MOST_DOTS // 2 :]
        marks = marks[:half] + [rest[index * len(rest) // half] for index in range(half)]
    rings = [value for value in (limits.warn, limits.refuse) if value]
    reach = 1.3 * max([*rings, min(marks[0][0].value, 3 * max(rings, default=math.inf)), 0.1])
    parts = [*_frame(reach), *_rings(limits, reach)]
    parts += [_dot(mark, shift, reach) for mark, shift in reversed(marks)]
    parts += _names(marks, reach)
    label = escape(f"Shift between input and target of {len(marks)} pairs, largest {marks[0][0].text}")
    return f'<svg viewBox="0 0 {SIZE} {SIZE}" role="group" aria-label="{label}">{"".join(parts)}</svg>'


def in_words(shift_yx: tuple[float, float]) -> str:
    """A shift as text: "1.8 px down, 2.4 px left"."""
    down, right = shift_yx
    vertical = f"{abs(down):.2g} px {'down' if down >= 0 else 'up'}"
    return f"{vertical}, {abs(right):.2g} px {'right' if right >= 0 else 'left'}"


def _place(shift_yx: tuple[float, float], reach: float) -> tuple[float, float]:
    """Position of a shift; one that lies outside stands at the edge."""
    length = math.hypot(*shift_yx)
    factor = min(1.0, reach / length) if length else 1.0
    unit = (SIZE / 2 - MARGIN) / reach * factor
    return SIZE / 2 + shift_yx[1] * unit, SIZE / 2 + shift_yx[0] * unit


def _names(marks: Sequence[tuple[Mark, tuple[float, float]]], reach: float) -> Iterator[str]:
    """Names of the largest shifts, as far as they do not hide each other."""
    taken: list[float] = []
    for mark, shift in marks:
        x, y = _place(shift, reach)
        if mark.level == "accepted" or len(taken) == MOST_NAMES:
            return
        if all(abs(y - other) >= LINE for other in taken):
            taken.append(y)
            yield labelled(mark, x, y, before=x > SIZE / 2)


def _dot(mark: Mark, shift_yx: tuple[float, float], reach: float) -> str:
    x, y = _place(shift_yx, reach)
    return drawn(mark, x, y)


def _frame(reach: float) -> Iterator[str]:
    middle, end = SIZE / 2, SIZE - MARGIN
    yield f'<path class="axis" d="M{MARGIN} {middle}H{end}M{middle} {MARGIN}V{end}"/>'
    words = ((middle, MARGIN - 10, "up"), (middle, SIZE - 8, "down"))
    for x, y, word in words:
        yield f'<text x="{x}" y="{y}" text-anchor="middle">{word} ({reach:.2g} px)</text>'
    yield f'<text x="{MARGIN - 4}" y="{middle - 6}" text-anchor="start">left</text>'
    yield f'<text x="{end + 4}" y="{middle - 6}" text-anchor="end">right</text>'


def _rings(limits: Limits, reach: float) -> Iterator[str]:
    middle = SIZE / 2
    for level, word, limit in (("warned", "warn", limits.warn), ("refused", "refuse", limits.refuse)):
        if limit:
            radius = limit / reach * (middle - MARGIN)
            yield f'<circle class="ring {level}" cx="{middle}" cy="{middle}" r="{radius:.1f}"/>'
            yield (
                f'<text class="limit {level}" x="{middle + 4}" y="{middle - radius - 4:.1f}">'
                f"{word} above {limit:.3g}</text>"
            )
