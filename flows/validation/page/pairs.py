"""One card per pair: its images, its verdict and what was measured."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from cvdm.sight import PLAIN, Sight
from flows.validation.features import SIDE_NAMES, SIDES, PairFeatures
from flows.validation.one_pair import PairFiles
from flows.validation.page.marks import LEVELS, Level, level_of
from flows.validation.page.shifts import in_words
from flows.validation.page.thumbnails import EDGE, Thumbnail, thumbnail
from flows.validation.page.values import bare
from flows.validation.page.words import title_of
from flows.validation.policy import ValidationPolicy
from flows.validation.quantities import QUANTITIES, Quantity
from flows.validation.report import Finding, ValidationReport

MOST_PICTURED = 300
"""Pairs with pictures; the others are listed by name."""
MANY, SMALL_EDGE = 120, 112
"""Above so many pairs with pictures, these are smaller, so that the page stays light."""


@dataclass(frozen=True)
class Cell:
    """One measured value."""

    text: str
    level: Level


@dataclass(frozen=True)
class Measured:
    """A line of a pair's table: a value of each image, or one of the pair."""

    title: str
    cells: tuple[Cell | None, ...]
    """Of input and target; a single one is about both."""


@dataclass(frozen=True)
class PairEntry:
    """A pair as the page lists it."""

    anchor: str
    row: PairFeatures
    verdict: Level
    findings: tuple[tuple[str, Finding], ...]
    """With their headlines."""


@dataclass(frozen=True)
class PairCard:
    """A pair with its pictures."""

    entry: PairEntry
    pictures: tuple[tuple[str, Thumbnail], ...]
    """By "input" and "target"."""
    measured: tuple[Measured, ...]
    facts: tuple[str, ...]
    values: str
    """All quantities as a JSON list, for sorting: the larger the worse, null where not measurable."""


def entries(report: ValidationReport, anchors: Sequence[str]) -> list[PairEntry]:
    """All pairs: refused ones first, then those with warnings, then the others; by name in each."""
    found: dict[str, list[Finding]] = defaultdict(list)
    for one in (*report.rejected, *report.warnings):
        if one.name:
            found[one.name].append(one)
    listed = [
        PairEntry(
            anchor,
            row,
            _verdict(found.get(row.name, ())),
            tuple(
                (one.quantity.label if one.quantity else title_of(one.check), one)
                for one in found.get(row.name, ())
            ),
        )
        for row, anchor in zip(report.table, anchors, strict=True)
    ]
    return sorted(listed, key=lambda entry: (-LEVELS.index(entry.verdict), entry.row.name))


def chosen(listed: Sequence[PairEntry]) -> list[PairEntry]:
    """The pairs that get pictures: refused ones and those with warnings, then some of the others."""
    striking = [entry for entry in listed if entry.verdict != "accepted"][:MOST_PICTURED]
    rest = [entry for entry in listed if entry.verdict == "accepted"]
    room = MOST_PICTURED - len(striking)
    if len(rest) > room:
        rest = [rest[index * len(rest) // room] for index in range(room)]
    return striking + rest


def cards(
    listed: Sequence[PairEntry],
    files: Mapping[str, PairFiles],
    policy: ValidationPolicy,
    sight: Sight = PLAIN,
) -> Iterator[PairCard]:
    """Cards of the first pairs; images are read one at a time, a target that captures share only once."""
    edge = EDGE if len(listed) <= MANY else SMALL_EDGE
    last: tuple[str | None, Thumbnail] = (None, Thumbnail())
    for entry in listed:
        own = files.get(entry.row.name)
        low = thumbnail(own.low if own else None, edge=edge, sight=sight)
        digest = entry.row.high.digest
        if not digest or digest != last[0]:
            last = digest, thumbnail(own.high if own else None, edge=edge, sight=sight.of_target)
        high = last[1]
        pictures = tuple(zip((SIDE_NAMES[side] for side in SIDES), (low, high), strict=True))
        yield PairCard(entry, pictures, _measured(entry.row, policy), _facts(entry.row), _values(entry.row))


def _verdict(findings: Sequence[Finding]) -> Level:
    if any(one.severity == "error" for one in findings):
        return "refused"
    return "warned" if findings else "accepted"


def _measured(row: PairFeatures, policy: ValidationPolicy) -> tuple[Measured, ...]:
    lines = []
    for _, same in groupby(QUANTITIES, key=lambda quantity: quantity.name):
        ones = list(same)
        if ones[0].side is None:
            lines.append(Measured(_headed(ones[0]), (_cell(ones[0], row, policy),)))
        else:
            by_side = {one.side: _cell(one, row, policy) for one in ones}
            lines.append(Measured(_headed(ones[0]), tuple(by_side.get(side) for side in SIDES)))
    return tuple(lines)


def _headed(quantity: Quantity) -> str:
    return f"{quantity.title} ({quantity.unit})" if quantity.unit else quantity.title


def _cell(quantity: Quantity, row: PairFeatures, policy: ValidationPolicy) -> Cell:
    value = quantity.value(row)
    text = "–" if value is None else bare(quantity, value)
    return Cell(text, level_of(value, quantity.limits(policy), quantity.worse))


def _facts(row: PairFeatures) -> tuple[str, ...]:
    """What files say of themselves, as far as they do."""
    facts = []
    if row.shift_yx is not None:
        facts.append(f"target lies {in_words(row.shift_yx)} of the input")
    if row.low.pixel_size_um:
        facts.append(f"pixel {row.low.pixel_size_um[0]:.4g} µm")
    if row.low.acquired:
        facts.append(f"acquired {row.low.acquired}")
    return tuple(facts)


def _values(row: PairFeatures) -> str:
    numbers = []
    for quantity in QUANTITIES:
        value = quantity.value(row)
        sign = 1 if quantity.worse == "above" else -1
        numbers.append(None if value is None else float(f"{sign * value:.4g}"))
    return json.dumps(numbers)
