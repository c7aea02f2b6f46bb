"""Strip plots: each measured quantity with every pair as a dot, against its thresholds and the other pairs.

One row per session, if the dataset has sessions. Pairs beyond a threshold are named and lead to their card.
Where a row holds more pairs than can be told apart, those inside the thresholds become a histogram.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from markupsafe import Markup

from flows.validation.features import PairFeatures
from flows.validation.page.marks import CHARACTER, Level, Mark, drawn, jitter, labelled, level_of, short
from flows.validation.page.scale import Scale, fitting_scale
from flows.validation.page.words import MEASURES, NOT_MEASURED
from flows.validation.policy import Limits, ValidationPolicy
from flows.validation.quantities import QUANTITIES, Quantity

WIDTH, SIDE = 400, 8  # of a drawing, and its margin left and right
TOP, ROW, ROW_LABEL, BOTTOM = 27, 48, 14, 18
LINES = 4  # of names in a row
MOST_DOTS = 400
"""Of one row; beyond, it becomes a histogram with the worst pairs as dots."""
MOST_WORST = 40
MOST_SESSIONS = 12
BIN = 4  # width of a bar of a histogram


@dataclass(frozen=True)
class Strip:
    """One plot and what it says in words."""

    title: str
    unit: str
    why: str
    svg: Markup
    """Empty where nothing could be measured."""
    summary: str
    beyond: int
    """Pairs beyond a threshold."""


def strips(rows: Sequence[PairFeatures], anchors: Sequence[str], policy: ValidationPolicy) -> list[Strip]:
    """A plot for each quantity, those with pairs beyond a threshold first."""
    found = [_strip(quantity, rows, anchors, quantity.limits(policy)) for quantity in QUANTITIES]
    return sorted(found, key=lambda strip: (not strip.svg, strip.beyond == 0))


def _strip(
    quantity: Quantity, rows: Sequence[PairFeatures], anchors: Sequence[str], limits: Limits
) -> Strip:
    marks = [
        Mark(row.name, anchor, level_of(value, limits, quantity.worse), value, quantity.show(value), row.session)
        for row, anchor in zip(rows, anchors, strict=True)
        if (value := quantity.value(row)) is not None
    ]
    title, why = quantity.label, MEASURES.get(quantity.name, "")
    if not marks:
        return Strip(title, quantity.unit, why, Markup(""), NOT_MEASURED.get(quantity.name, ""), 0)
    counts = Counter(mark.level for mark in marks)
    middle = quantity.show(statistics.median(mark.value for mark in marks))
    ends = [quantity.show(end([mark.value for mark in marks])) for end in (min, max)]
    told = [f"median {middle}", f"{ends[0]} to {ends[1]}"]
    told += [f"{counts[level]} beyond “{word}”" for level, word in _WORDS.items() if counts[level]]
    told += [f"{len(rows) - len(marks)} not measurable"] if len(marks) < len(rows) else []
    summary = f"{len(marks)} pairs: {', '.join(told)}."
    svg = _drawing(quantity, marks, limits, summary)
    return Strip(title, quantity.unit, why, Markup(svg), summary,  # noqa: S704  # escaped where it is drawn
 counts["warned"] + counts["refused"])


_WORDS: dict[Level, str] = {"refused": "refuse", "warned": "warn"}


def _drawing(quantity: Quantity, marks: Sequence[Mark], limits: Limits, summary: str) -> str:
    factor = 100 if quantity.unit == "%" else 1
    thresholds = [value for value in (limits.warn, limits.refuse) if value is not None]
    scale = fitting_scale(
        [factor * mark.value for mark in marks],
        [factor * value for value in thresholds],
        left=SIDE,
        right=WIDTH - SIDE,
        may_log=quantity.unit != "dB",
    )
    sessions = _by_session(marks)
    height = ROW + (ROW_LABEL if len(sessions) > 1 else 0)
    floor = TOP + height * len(sessions)
    parts = list(_zones(quantity, limits, scale, factor, floor))
    for index, (session, own) in enumerate(sessions.items()):
        top = TOP + index * height
        if len(sessions) > 1:
            parts.append(f'<text class="session" x="{SIDE}" y="{top + 11}">{escape(session)}</text>')
            parts.append(f'<path class="rule" d="M{SIDE} {top}H{WIDTH - SIDE}"/>')
        parts += _row(own, scale, factor, top + height - ROW, limits, quantity)
    parts += _axis(scale, floor)
    label = escape(f"{quantity.label}. {summary}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {floor + BOTTOM}" role="group" aria-label="{label}">{"".join(parts)}</svg>'
    )


def _by_session(marks: Sequence[Mark]) -> dict[str, list[Mark]]:
    """Marks by session, in the order of their names; many sessions are pooled but for the last ones."""
    names = sorted({mark.session for mark in marks if mark.session is not None})
    pooled = set(names[: -(MOST_SESSIONS - 1)]) if len(names) > MOST_SESSIONS else set()
    rows: dict[str, list[Mark]] = defaultdict(list)
    for mark in sorted(marks, key=lambda mark: mark.session or ""):
        if mark.session in pooled:
            rows[f"{len(pooled)} sessions up to {max(pooled)}"].append(mark)
        else:
            rows[mark.session or "no session"].append(mark)
    return rows


def _zones(
    quantity: Quantity, limits: Limits, scale: Scale, factor: int, floor: int
) -> Iterator[str]:
    """What lies beyond each threshold, shaded, with a labelled line."""
    lines: tuple[tuple[Level, float | None, int], ...] = (("warned", limits.warn, 11), ("refused", limits.refuse, 22))
    for level, limit, y in lines:
        if limit is None:
            continue
        x, above = scale.position(factor * limit), quantity.worse == "above"
        start, end = (x, WIDTH - SIDE) if above else (SIDE, x)
        word = f"{_WORDS[level]} {'above' if above else 'below'} {factor * limit:.3g}{' %' if factor > 1 else ''}"
        room = len(word) * CHARACTER + 6
        before = x + room > WIDTH if above else x - room > 0
        yield f'<rect class="zone {level}" x="{start:.1f}" y="{TOP}" width="{max(0, end - start):.1f}" height="{floor - TOP}"/>'
        yield f'<path class="limit {level}" d="M{x:.1f} {y - 8}V{floor}"/>'
        at, anchor = (x - 4, "end") if before else (x + 4, "start")
        yield f'<text class="limit {level}" x="{at:.1f}" y="{y}" text-anchor="{anchor}">{word}</text>'


def _row(
    marks: Sequence[Mark], scale: Scale, factor: int, top: int, limits: Limits, quantity: Quantity
) -> Iterator[str]:
    """The pairs of one session."""
    sign = 1 if quantity.worse == "above" else -1
    worst = sorted((m for m in marks if m.level != "accepted"), key=lambda mark: -sign * mark.value)
    crowded = len(marks) > MOST_DOTS
    if crowded:
        worst = worst[:MOST_WORST]
        named = {mark.name for mark in worst}
        edges = [scale.position(factor * limit) for limit in (limits.warn, limits.refuse) if limit is not None]
        yield from _histogram([m for m in marks if m.name not in named], scale, factor, top, edges)
    else:
        for mark in marks:
            x = scale.position(factor * mark.value)
            if mark.level == "accepted":
                y = top + 6 + jitter(mark.name) * (ROW - 12)
                yield drawn(mark, x, y, edge=scale.beyond(factor * mark.value))
    ends: list[list[tuple[float, float]]] = [[] for _ in range(LINES)]
    texts = []
    for mark in worst:
        x, edge = scale.position(factor * mark.value), scale.beyond(factor * mark.value)
        before = x > WIDTH / 2
        text = f"{short(mark.name)} {mark.text}" if edge else short(mark.name)
        reach = 10 + len(text) * CHARACTER
        span = (x - reach, x + 5) if before else (x - 5, x + reach)
        line = next((n for n, taken in enumerate(ends) if _free(span, taken)), None)
        if line is None:
            yield drawn(mark, x, top + 6 + jitter(mark.name) * (ROW - 12), edge=edge)
            continue
        ends[line].append(span)
        y = top + ROW * (line + 0.5) / LINES
        yield drawn(mark, x, y, edge=edge)
        texts.append(labelled(mark, x, y, before=before))
    yield from texts  # above every mark


def _free(span: tuple[float, float], taken: Sequence[tuple[float, float]]) -> bool:
    return all(span[1] < start or span[0] > end for start, end in taken)


def _histogram(
    marks: Sequence[Mark], scale: Scale, factor: int, top: int, limits: Sequence[float]
) -> Iterator[str]:
    """Bars about the middle of a row; none reaches across a threshold."""
    edges = np.unique(np.concatenate([np.arange(0, WIDTH + BIN, BIN), limits]))
    bins: dict[int, list[Mark]] = defaultdict(list)
    for mark in marks:
        bins[int(np.searchsorted(edges, scale.position(factor * mark.value), side="left"))].append(mark)
    most = max((len(own) for own in bins.values()), default=1)
    for index, own in sorted(bins.items()):
        tall = max(1.5, (ROW - 8) * len(own) / most)
        left, right = edges[index - 1], edges[index]
        ordered = sorted(own, key=lambda mark: mark.value)
        tip = f"{len(own)} pairs, {ordered[0].text} to {ordered[-1].text}"
        yield (
            f'<rect class="{own[0].level}" x="{left:.1f}" y="{top + (ROW - tall) / 2:.1f}" '
            f'width="{max(1, right - left - 0.5):.1f}" height="{tall:.1f}"><title>{escape(tip)}</title></rect>'
        )


def _axis(scale: Scale, floor: int) -> Iterator[str]:
    yield f'<path class="axis" d="M{SIDE} {floor}H{WIDTH - SIDE}"/>'
    if scale.log:
        x = scale.position(scale.low)
        yield f'<path class="axis" d="M{x:.1f} {floor}v4"/><text x="{x:.1f}" y="{floor + 14}" text-anchor="middle">≈ 0</text>'
    for value in scale.ticks():
        x = scale.position(value)
        if scale.log and x < SIDE + 42:
            continue  # leaves room for the gutter's label
        anchor = "start" if x < 20 else "end" if x > WIDTH - 20 else "middle"
        yield f'<path class="axis" d="M{x:.1f} {floor}v4"/>'
        yield f'<text x="{x:.1f}" y="{floor + 14}" text-anchor="{anchor}">{_plain(value)}</text>'


def _plain(value: float) -> str:
    if value and (abs(value) >= 10_000 or abs(value) < 0.001):
        mantissa, exponent = f"{value:.0e}".split("e")
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"10{raised}" if mantissa == "1" else f"{mantissa}·10{raised}"
    return f"{value:.4g}".replace("-", "−")
