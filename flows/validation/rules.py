"""What a rule is: what one column of the feature table may hold, and what to say when it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flows.validation.features import PairFeatures
from flows.validation.quantities import Quantity

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class OneOf:
    """Every value is this one; none is missing."""

    value: Any


@dataclass(frozen=True)
class Within:
    """Every value is at least `least` and at most `most`."""

    least: float | None = None
    most: float | None = None
    optional: bool = False
    """Whether a value may be missing: where an image allows no statement."""


@dataclass(frozen=True)
class Present:
    """No value is missing."""


@dataclass(frozen=True)
class Absent:
    """Every value is missing."""


@dataclass(frozen=True)
class Contains:
    """Some row holds this value: a rule about the whole table."""

    value: str


@dataclass(frozen=True)
class Rows:
    """The table has so many rows: a rule about the whole table."""

    count: int


@dataclass(frozen=True)
class Same:
    """Every row holds this value, in a column about the whole table."""

    value: Any


Rule = OneOf | Within | Present | Absent | Contains | Rows | Same


@dataclass(frozen=True)
class Check:
    """One rule for one column of the table, and how to say that it is broken."""

    name: str
    column: str
    """Of the table in flows/validation/expectations.py."""
    rule: Rule
    expected: str
    actual: Callable[[PairFeatures], str]
    """What a row holds instead."""
    remedy: str | Callable[[PairFeatures], str]
    severity: Severity = "error"
    blocks: bool = False
    """A pair that fails here cannot be judged by the checks after it."""
    quantity: Quantity | None = None
    """What the check limits, if it is a measured number."""

    @property
    def about_table(self) -> bool:
        """Whether no single row is at fault."""
        return isinstance(self.rule, Contains | Rows | Same)

    def remedy_for(self, row: PairFeatures) -> str:
        """What to do about a row."""
        return self.remedy if isinstance(self.remedy, str) else self.remedy(row)


@dataclass(frozen=True)
class Failure:
    """A check that failed, and the rows at fault; none for a rule about the whole table."""

    check: Check
    rows: tuple[int, ...]
