"""One plot per metric: a line per field of view, with a dot for the candidate and one for the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from flows.gate.quantities import Quantity
from flows.validation.page.marks import short
from flows.validation.page.scale import Scale

WIDTH, LEFT, RIGHT = 420, 130, 405
ROW, TOP, BOTTOM = 16, 8, 26
CANDIDATE = '<circle class="accepted" cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill-opacity:1">{tip}</circle>'
CHAMPION = '<path class="other" transform="translate({x:.1f},{y:.1f})" d="M0 -5L5 0L0 5L-5 0Z">{tip}</path>'


def legend(*, with_champion: bool) -> str:
    """What the dots mean, as HTML."""
    shapes = {"candidate": CANDIDATE} | ({"champion": CHAMPION} if with_champion else {})
    return " ".join(
        f'<svg viewBox="0 0 12 12">{shape.format(x=6, y=6, tip="")}</svg> {who}'
        for who, shape in shapes.items()
    )


def dot_plot(quantity: Quantity, candidate: Mapping[str, float], champion: Mapping[str, float]) -> str:
    """An SVG; values that are not finite have no dot."""
    fields = sorted(candidate.keys() | champion.keys())
    values = [v for scores in (candidate, champion) for v in scores.values() if math.isfinite(v)]
    height = TOP + ROW * len(fields) + BOTTOM
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(quantity.label)} by field">'
    ]
    if values:
        scale = _scale(min(values), max(values))
        parts += [_axis(scale, height)]
        parts += [
            _row(field, candidate.get(field), champion.get(field), scale, TOP + ROW * (index + 0.5))
            for index, field in enumerate(fields)
        ]
    return "".join([*parts, "</svg>"])


def _scale(low: float, high: float) -> Scale:
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return Scale(low - margin, high + margin, LEFT, RIGHT)


def _axis(scale: Scale, height: int) -> str:
    bottom = height - BOTTOM + 4
    ticks = scale.ticks()
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 3
    drawn = "".join(
        f'<path class="rule" d="M{x:.1f} {TOP}V{bottom}"/>'
        f'<text x="{x:.1f}" y="{bottom + 13}" text-anchor="middle">{tick:.{digits}f}</text>'
        for tick in ticks[:: 1 + len(ticks) // 6]
        for x in [scale.position(tick)]
    )
    return f'{drawn}<path class="axis" d="M{LEFT} {bottom}H{RIGHT}"/>'


def _row(field: str, ours: float | None, theirs: float | None, scale: Scale, y: float) -> str:
    at = f'x="{LEFT - 10}" y="{y + 3.5:.1f}" text-anchor="end"'
    name = f'<text class="session" {at}>{escape(short(field))}</text>'
    found = [
        (shape, who, value)
        for shape, who, value in ((CHAMPION, "champion", theirs), (CANDIDATE, "candidate", ours))
        if value is not None and math.isfinite(value)
    ]
    places = [scale.position(value) for _, _, value in found]
    joined = f'<path class="rule" d="M{min(places):.1f} {y:.1f}H{max(places):.1f}"/>' if places else ""
    dots = "".join(
        shape.format(x=x, y=y, tip=f"<title>{escape(field)}, {who}: {value:.5g}</title>")
        for (shape, who, value), x in zip(found, places, strict=True)
    )
    return name + joined + dots
