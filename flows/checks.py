"""The checks of validation: what a column of the feature table may hold, and what to say when it does not.

No tool is imported here; flows/expectations.py runs the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cvdm.card import SPLITS
from flows.features import SIDE_NAMES, SIDES, PairFeatures, usual_dtype

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class OneOf:
    """Every value is this one; none is missing."""

    value: Any


@dataclass(frozen=True)
class Within:
    """Every value is larger than `above` and at most `most`; none is missing."""

    above: float | None = None
    most: float | None = None


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


Rule = OneOf | Within | Present | Absent | Contains | Rows


@dataclass(frozen=True)
class ValidationPolicy:
    """Thresholds of the checks; section `validation` of params.yaml."""

    max_saturated: float = 0.02
    """Largest share of an image's pixels at its highest value; more are refused."""
    warn_saturated: float = 0.002
    """Share of pixels at the highest value from which a warning is given."""
    max_black: float = 0.9
    """Largest share of an image's pixels at its lowest value; more are refused."""
    warn_black: float = 0.5
    """Share of pixels at the lowest value from which a warning is given."""


@dataclass(frozen=True)
class Check:
    """One rule for one column of the table, and how to say that it is broken."""

    name: str
    column: str
    """Of the table in flows/expectations.py."""
    rule: Rule
    expected: str
    actual: Callable[[PairFeatures, str], str]
    """What a row's side holds instead."""
    remedy: str | None
    """None: the image reader's own advice."""
    side: str = "low"
    severity: Severity = "error"
    blocks: bool = False
    """A pair that fails here cannot be judged by the checks after it."""

    @property
    def about_table(self) -> bool:
        """Whether no single row is at fault."""
        return isinstance(self.rule, Contains | Rows)

    def remedy_for(self, row: PairFeatures) -> str:
        """What to do about a row."""
        return self.remedy or row.side(self.side).remedy or ""


def checks(rows: Sequence[PairFeatures], policy: ValidationPolicy) -> tuple[Check, ...]:
    """All checks, in the order in which a pair meets them."""
    return (*_of_files(rows), *_of_pixels(rows, policy), *_of_splits())


def _of_files(rows: Sequence[PairFeatures]) -> Iterator[Check]:
    """Is there a readable pair at all?"""
    yield Check(
        "row-count",
        "name",
        Rows(len(rows)),
        "one row for each pair",
        lambda row, side: "another number",
        "Validate again; files changed meanwhile.",
    )
    yield Check(
        "complete",
        "complete",
        OneOf(True),
        "an input in low/ and a target in high/ of the same name",
        lambda row, side: f"no {SIDE_NAMES['high' if row.low.present else 'low']}",
        "Add the missing file or remove its partner.",
        blocks=True,
    )
    yield Check(
        "name",
        "field",
        Present(),
        "a name that tells its field of view by the card's name_pattern",
        lambda row, side: f"'{row.name}'",
        "Rename both files, or correct name_pattern in card.yaml.",
        blocks=True,
    )
    for side in SIDES:
        for name, expected in (
            ("readable", "a readable two-dimensional TIFF"),
            ("finite", "finite pixel values"),
        ):
            yield Check(
                name,
                f"{side}_{name}",
                OneOf(True),
                f"{expected} as {SIDE_NAMES[side]}",
                lambda row, side: str(row.side(side).problem),
                None,
                side=side,
                blocks=True,
            )


def _of_pixels(rows: Sequence[PairFeatures], policy: ValidationPolicy) -> Iterator[Check]:
    """Do the pixels hold what training needs?"""
    yield Check(
        "shape",
        "same_shape",
        OneOf(True),
        "input and target of one shape",
        lambda row, side: f"{row.low.shape} and {row.high.shape}",
        "Export both at the same size and position.",
    )
    for side in SIDES:
        usual, who = usual_dtype(rows, side), SIDE_NAMES[side]
        yield Check(
            "dtype",
            f"{side}_dtype",
            OneOf(usual),
            f"{usual} pixels, as most {who}s of this task have",
            lambda row, side: str(row.side(side).dtype),
            "Export all images of a task with the same bit depth, without rescaling.",
            side=side,
        )
        yield Check(
            "constant",
            f"{side}_span",
            Within(above=0),
            f"more than one grey value in the {who}",
            lambda row, side: f"{row.side(side).lowest:g} everywhere",
            "Remove the pair: shutter closed, lamp off or an empty export.",
            side=side,
        )
        yield from _clipped(side, "saturated", "at_highest", policy.warn_saturated, policy.max_saturated)
        yield from _clipped(side, "black", "at_lowest", policy.warn_black, policy.max_black)


def _clipped(side: str, name: str, feature: str, warn: float, most: float) -> Iterator[Check]:
    """Pixels that pile up at one end of an image's values: a warning from `warn`, refused above `most`."""
    remedy = {
        "saturated": "Lower exposure, laser power or gain and acquire the field again.",
        "black": "Raise the detector's offset, or check that the field is not empty.",
    }[name]
    end = feature.removeprefix("at_")
    limits: tuple[tuple[Severity, float], ...] = (("error", most), ("warning", warn))
    for severity, limit in limits:
        yield Check(
            name,
            f"{side}_{feature}",
            Within(most=limit),
            f"at most {limit:.2%} of the {SIDE_NAMES[side]}'s pixels at its {end} value",
            lambda row, side: f"{getattr(row.side(side), feature):.2%} at {getattr(row.side(side), end):g}",
            remedy,
            side=side,
            severity=severity,
        )


def _of_splits() -> Iterator[Check]:
    """Can the test fields be trusted to be unseen?"""
    yield Check(
        "field-in-one-split",
        "splits_of_field",
        OneOf(1),
        "all pairs of a field of view in one split",
        lambda row, side: f"field {row.field} in {row.splits_of_field} splits",
        "Give different fields different names, and check name_pattern in card.yaml.",
    )
    for side in SIDES:
        who = SIDE_NAMES[side]
        yield Check(
            "leak",
            f"{side}_twin_across",
            Absent(),
            f"no {who} image in two splits",
            lambda row, side: f"the same image as {row.side(side).twin_across}",
            "Remove one of the two, or list their fields under `overlapping` in card.yaml.",
            side=side,
        )
        yield Check(
            "copy",
            f"{side}_twin_in_split",
            Absent(),
            f"every {who} once",
            lambda row, side: f"the same image as {row.side(side).twin_in_split}",
            "Remove one of the two.",
            side=side,
            severity="warning",
        )
    for split in SPLITS:
        yield Check(
            "splits",
            "split",
            Contains(split),
            f"at least one field of view in the {split} split",
            lambda row, side: "none",
            "Add fields, or choose another split.seed in the card before the first training.",
        )
