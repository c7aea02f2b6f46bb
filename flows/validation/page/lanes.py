"""One lane of a strip plot: the pairs of a session along the axis of a quantity, the worst ones named.

Where a lane holds more pairs than can be told apart, all but the worst become a histogram about its middle.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from flows.validation.page.marks import CHARACTER, Mark, drawn, jitter, labelled, short
from flows.validation.page.scale import Scale
from flows.validation.page.values import factor
from flows.validation.policy import Limits
from flows.validation.quantities import Quantity

HEIGHT, PADDING = 48, 6
LINES = 4  # of names
MOST_DOTS = 400
MOST_WORST = 40
BIN = 4  # width of a bar of a histogram


@dataclass(frozen=True)
class Frame:
    """What all lanes of a plot share."""

    quantity: Quantity
    limits: Limits
    scale: Scale

    def x(self, value: float) -> float:
        """Where a value stands."""
        return self.scale.position(factor(self.quantity) * value)

    def edge(self, value: float) -> int:
        """-1 or 1 for a value that lies farther out than it stands."""
        return self.scale.beyond(factor(self.quantity) * value)

    def badness(self, mark: Mark) -> float:
        """The larger the worse."""
        return mark.value if self.quantity.worse == "above" else -mark.value


def lane(marks: Sequence[Mark], frame: Frame, top: float, *, names: int) -> Iterator[str]:
    """Draw a lane below `top`; `names` of its worst pairs are named at most."""
    worst = sorted((mark for mark in marks if mark.level != "accepted"), key=frame.badness, reverse=True)
    if len(marks) > MOST_DOTS:
        worst = worst[:MOST_WORST]
        apart = {mark.name for mark in worst}
        yield from _histogram([mark for mark in marks if mark.name not in apart], frame, top)
    else:
        for mark in marks:
            if mark.level == "accepted":
                yield drawn(mark, frame.x(mark.value), _height(mark, top), edge=frame.edge(mark.value))
    yield from _named(worst, frame, top, names)


def _height(mark: Mark, top: float) -> float:
    return top + PADDING + jitter(mark.name) * (HEIGHT - 2 * PADDING)


def _named(worst: Sequence[Mark], frame: Frame, top: float, names: int) -> Iterator[str]:
    """Marks beyond a threshold, each on a line of text with its name as long as there is room."""
    taken: list[list[tuple[float, float]]] = [[] for _ in range(LINES)]
    texts: list[str] = []
    for mark in worst:
        x, edge = frame.x(mark.value), frame.edge(mark.value)
        before = x > (frame.scale.left + frame.scale.right) / 2
        reach = 10 + len(short(mark.name)) * CHARACTER
        span = (x - reach, x + 5) if before else (x - 5, x + reach)
        line = next((n for n, spans in enumerate(taken) if _free(span, spans)), None)
        if line is None or len(texts) == names:
            yield drawn(mark, x, _height(mark, top), edge=edge)
            continue
        taken[line].append(span)
        y = top + HEIGHT * (line + 0.5) / LINES
        yield drawn(mark, x, y, edge=edge)
        texts.append(labelled(mark, x, y, before=before))
    yield from texts  # above every mark


def _free(span: tuple[float, float], taken: Sequence[tuple[float, float]]) -> bool:
    return all(span[1] < start or span[0] > end for start, end in taken)


def _histogram(marks: Sequence[Mark], frame: Frame, top: float) -> Iterator[str]:
    """Bars about the middle of a lane; none reaches across a threshold."""
    limits = [frame.x(limit) for limit in (frame.limits.warn, frame.limits.refuse) if limit is not None]
    edges = np.unique([*np.arange(0, frame.scale.right + 2 * BIN, BIN), *limits])
    bins: dict[tuple[int, str], list[Mark]] = defaultdict(list)
    for mark in marks:  # a value on a threshold shares its place with values beyond, but not its kind
        bins[int(np.searchsorted(edges, frame.x(mark.value))), mark.level].append(mark)
    most = max((len(own) for own in bins.values()), default=1)
    for (index, level), own in sorted(bins.items()):
        tall = max(1.5, (HEIGHT - 8) * len(own) / most)
        left, right = edges[index - 1], edges[index]
        ordered = sorted(own, key=lambda mark: mark.value)
        tip = escape(f"{len(own)} pairs, {ordered[0].text} to {ordered[-1].text}")
        yield (
            f'<rect class="{level}" x="{left:.1f}" y="{top + (HEIGHT - tall) / 2:.1f}" '
            f'width="{max(1, right - left - 0.5):.1f}" height="{tall:.1f}"><title>{tip}</title></rect>'
        )
