"""Strip plots: each measured quantity with every pair as a dot, against its thresholds and the other pairs.

One lane per session, if the dataset has sessions. Pairs beyond a threshold are named and lead to their card.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from flows.validation.features import PairFeatures
from flows.validation.page.lanes import HEIGHT, Frame, lane
from flows.validation.page.marks import CHARACTER, Level, Mark, level_of
from flows.validation.page.scale import Scale, fitting_scale
from flows.validation.page.values import bare, factor, plain
from flows.validation.page.words import MEASURES, NOT_MEASURED
from flows.validation.policy import Limits, ValidationPolicy
from flows.validation.quantities import QUANTITIES, Quantity

WIDTH, SIDE = 400, 8  # of a drawing, and its margin left and right
TOP, LABEL, BOTTOM = 27, 14, 18
MOST_NAMES = 10
MOST_SESSIONS = 12
LIMIT_WORDS: dict[Level, str] = {"refused": "refuse", "warned": "warn"}


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


def _strip(quantity: Quantity, rows: Sequence[PairFeatures], anchors: Sequence[str], limits: Limits) -> Strip:
    marks = []
    for row, anchor in zip(rows, anchors, strict=True):
        value = quantity.value(row)
        if value is not None:
            level = level_of(value, limits, quantity.worse)
            marks.append(Mark(row.name, anchor, level, value, quantity.show(value), row.session))
    title, why = quantity.label, MEASURES.get(quantity.name, "")
    if not marks:
        return Strip(title, quantity.unit, why, Markup(""), NOT_MEASURED.get(quantity.name, ""), 0)
    summary = _summary(quantity, marks, len(rows))
    svg = Markup(_drawing(quantity, marks, limits, summary))  # noqa: S704  # escaped where it is drawn
    return Strip(title, quantity.unit, why, svg, summary, sum(mark.level != "accepted" for mark in marks))


def _summary(quantity: Quantity, marks: Sequence[Mark], pairs: int) -> str:
    """A plot in a sentence."""
    counts = Counter(mark.level for mark in marks)
    numbers = [mark.value for mark in marks]
    middle, least, most = (bare(quantity, one(numbers)) for one in (statistics.median, min, max))
    told = [f"median {middle}, from {least} to {most} {quantity.unit}".rstrip()]
    told += [f"{counts[level]} beyond “{word}”" for level, word in LIMIT_WORDS.items() if counts[level]]
    told += [f"{pairs - len(marks)} not measurable"] if len(marks) < pairs else []
    return f"{len(marks)} pair{'s' if len(marks) > 1 else ''}: {', '.join(told)}."


def _drawing(quantity: Quantity, marks: Sequence[Mark], limits: Limits, summary: str) -> str:
    scaled = factor(quantity)
    scale = fitting_scale(
        [scaled * mark.value for mark in marks],
        [scaled * value for value in (limits.warn, limits.refuse) if value is not None],
        left=SIDE,
        right=WIDTH - SIDE,
        may_log=quantity.unit != "dB",
    )
    frame, sessions = Frame(quantity, limits, scale), _by_session(marks)
    label = LABEL if len(sessions) > 1 else 0
    floor = TOP + (HEIGHT + label) * len(sessions)
    parts = list(_zones(frame, floor))
    for index, (session, own) in enumerate(sessions.items()):
        top = TOP + index * (HEIGHT + label)
        if label:
            parts.append(f'<text class="session" x="{SIDE}" y="{top + 11}">{escape(session)}</text>')
            parts.append(f'<path class="rule" d="M{SIDE} {top}H{WIDTH - SIDE}"/>')
        parts += lane(own, frame, top + label, names=max(2, MOST_NAMES // len(sessions)))
    parts += _axis(scale, floor)
    words = escape(f"{quantity.label}. {summary}")
    size = f"0 0 {WIDTH} {floor + BOTTOM}"
    return f'<svg viewBox="{size}" role="group" aria-label="{words}">{"".join(parts)}</svg>'


def _by_session(marks: Sequence[Mark]) -> dict[str, list[Mark]]:
    """Marks by session, in the order of their names; many sessions are pooled but for the last ones."""
    names = sorted({mark.session for mark in marks if mark.session is not None})
    pooled = set(names[: -(MOST_SESSIONS - 1)]) if len(names) > MOST_SESSIONS else set()
    found: dict[str, list[Mark]] = defaultdict(list)
    for mark in sorted(marks, key=lambda mark: mark.session or ""):
        if mark.session in pooled:
            found[f"{len(pooled)} sessions up to {max(pooled)}"].append(mark)
        else:
            found[mark.session or "no session"].append(mark)
    return found


def _zones(frame: Frame, floor: int) -> Iterator[str]:
    """What lies beyond each threshold, shaded, with a labelled line."""
    above, scaled = frame.quantity.worse == "above", factor(frame.quantity)
    lines: tuple[tuple[Level, float | None, int], ...] = (
        ("warned", frame.limits.warn, 11),
        ("refused", frame.limits.refuse, 22),
    )
    for level, limit, y in lines:
        if limit is None:
            continue
        x = frame.x(limit)
        start, end = (x, WIDTH - SIDE) if above else (SIDE, x)
        words = f"{LIMIT_WORDS[level]} {'above' if above else 'below'} {scaled * limit:.4g}"
        words += " %" if scaled > 1 else ""
        room = len(words) * CHARACTER + 6
        before = x + room > WIDTH if above else x - room > 0
        yield f'<rect class="zone {level}" x="{start:.1f}" y="{TOP}" '
        yield f'width="{max(0.0, end - start):.1f}" height="{floor - TOP}"/>'
        yield f'<path class="limit {level}" d="M{x:.1f} {y - 8}V{floor}"/>'
        at, anchor = (x - 4, "end") if before else (x + 4, "start")
        yield f'<text class="limit {level}" x="{at:.1f}" y="{y}" text-anchor="{anchor}">{words}</text>'


def _axis(scale: Scale, floor: int) -> Iterator[str]:
    yield f'<path class="axis" d="M{SIDE} {floor}H{WIDTH - SIDE}"/>'
    values = [(scale.position(value), plain(value)) for value in scale.ticks()]
    if scale.log:  # the gutter first, and no label over its own
        values = [one for one in values if one[0] >= SIDE + 42]
        values.insert(0, (scale.position(scale.low), f"≤ {plain(float(f'{scale.low:.1g}'))}"))
    for x, words in values:
        anchor = "start" if x < 20 and not scale.log else "end" if x > WIDTH - 20 else "middle"
        yield f'<path class="axis" d="M{x:.1f} {floor}v4"/>'
        yield f'<text x="{x:.1f}" y="{floor + 14}" text-anchor="{anchor}">{words}</text>'
