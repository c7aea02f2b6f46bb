"""What plots are drawn with: marks whose shape and colour say on which side of a threshold a value lies."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from html import escape
from typing import Literal

from flows.validation.policy import Limits

Level = Literal["accepted", "warned", "refused"]
LEVELS: tuple[Level, ...] = ("accepted", "warned", "refused")
CHARACTER = 5.3  # mean width of a character of a plot's labels
LONGEST_NAME = 26
CROSS = "M-3.6 -1.5L-1.5 -3.6L0 -2.1L1.5 -3.6L3.6 -1.5L2.1 0L3.6 1.5L1.5 3.6L0 2.1L-1.5 3.6L-3.6 1.5L-2.1 0Z"


@dataclass(frozen=True)
class Mark:
    """One pair in a plot."""

    name: str
    anchor: str
    level: Level
    value: float
    text: str
    """The value with its unit."""
    session: str | None = None


def level_of(value: float | None, limits: Limits, worse: str) -> Level:
    """On which side of its thresholds a value lies, as the checks see it."""
    if value is None:
        return "accepted"
    sign = 1 if worse == "above" else -1
    if limits.refuse is not None and sign * value > sign * limits.refuse:
        return "refused"
    return "warned" if limits.warn is not None and sign * value > sign * limits.warn else "accepted"


def drawn(mark: Mark, x: float, y: float, *, edge: int = 0) -> str:
    """One mark: a circle, a triangle or a cross; an arrowhead where the value lies farther out."""
    tip = f"<title>{escape(mark.name)}: {escape(mark.text)}</title>"
    if edge:
        shape = f"M{-3 * edge} -4L{4 * edge} 0L{-3 * edge} 4Z"
    elif mark.level == "accepted":
        return f'<circle class="accepted" cx="{x:.1f}" cy="{y:.1f}" r="2.7">{tip}</circle>'
    elif mark.level == "warned":
        shape = "M0 -4.2L4 3.2L-4 3.2Z"
    else:
        shape = CROSS
    return f'<path class="{mark.level}" transform="translate({x:.1f},{y:.1f})" d="{shape}">{tip}</path>'


def labelled(mark: Mark, x: float, y: float, *, before: bool) -> str:
    """The name of a pair beside its mark, as a link to its card."""
    anchor, at = ("end", x - 7) if before else ("start", x + 7)
    return (
        f'<a href="#{mark.anchor}"><text class="name" x="{at:.1f}" y="{y + 3.5:.1f}" text-anchor="{anchor}">'
        f"{escape(short(mark.name))}</text></a>"
    )


def short(name: str) -> str:
    """A name that fits into a plot."""
    return name if len(name) <= LONGEST_NAME else f"{name[:14]}…{name[-11:]}"


def jitter(name: str) -> float:
    """A number from 0 to 1 that spreads equal values, the same in every report."""
    return zlib.crc32(name.encode("utf-8", "replace")) / 2**32
