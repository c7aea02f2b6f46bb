"""What a feature table must satisfy: the checks in words, and one Great Expectations suite that runs them.

A check is one column, what it may hold, and sentences for people. A bounded check is two expectations,
because Great Expectations lets missing values pass a bound: each is paired with not-null. The suite is
refused unless as many results come back as expectations went in, none of which raised: an empty suite
succeeds otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import great_expectations as gx
import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.core.batch import Batch
from great_expectations.data_context.types.base import ProgressBarsConfig

from cvdm.card import SPLITS
from flows.features import SIDE_NAMES, SIDES, PairFeatures, SideFeatures, usual_dtype

Severity = Literal["error", "warning"]


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
    column: str | None
    """None for a rule about the whole table."""
    rules: tuple[Any, ...]
    """Great Expectations objects; the first is the rule, others make sure that it cannot pass on nothing."""
    expected: str
    actual: Callable[[PairFeatures], str]
    remedy: Callable[[PairFeatures], str]
    severity: Severity = "error"
    blocks: bool = False
    """A pair that fails here cannot be judged by the checks after it."""


@dataclass(frozen=True)
class Failure:
    """A check that failed, and the rows at fault; none for a rule about the whole table."""

    check: Check
    rows: tuple[int, ...]


def frame(rows: Sequence[PairFeatures]) -> pd.DataFrame:
    """The table as Great Expectations sees it: one column for each thing that is checked."""
    columns: dict[str, list[Any]] = {
        "name": [row.name for row in rows],
        "field": [row.field for row in rows],
        "split": [row.split for row in rows],
        "complete": [row.complete for row in rows],
        "same_shape": [row.same_shape for row in rows],
        "splits_of_field": [row.splits_of_field for row in rows],
    }
    for side in SIDES:
        images = [row.side(side) for row in rows]
        for name in (*SideFeatures.__dataclass_fields__, "span"):
            columns[f"{side}_{name}"] = [getattr(image, name) for image in images]
    return pd.DataFrame(columns)


def checks(rows: Sequence[PairFeatures], policy: ValidationPolicy) -> tuple[Check, ...]:
    """All checks, in the order in which a pair meets them."""
    return (*_of_files(rows), *_of_pixels(rows, policy), *_of_splits())


def failures(rows: Sequence[PairFeatures], checks: Sequence[Check]) -> tuple[Failure, ...]:
    """Run the suite; one entry for each check that does not hold, in the order of the checks."""
    table = frame(rows)
    batch = _batch(table)
    found = []
    results = _results(batch, [rule for check in checks for rule in check.rules])
    for check in checks:
        own = [next(results) for _ in check.rules]
        if not all(result.success for result in own):
            at_fault = {i for result in own for i in result.result.get("unexpected_index_list") or ()}
            found.append(Failure(check, tuple(sorted(at_fault))))
    return tuple(found)


def _results(batch: Batch, rules: list[Any]) -> Iterator[Any]:
    """The result of each rule, in their order. Asserts that every rule was really evaluated."""
    for index, rule in enumerate(rules):  # results come back in another order
        rule.meta = {"index": index}
    suite = gx.ExpectationSuite(name="image pairs", expectations=rules)
    outcome = batch.validate(suite, result_format={"result_format": "COMPLETE"})
    by_index = {result.expectation_config.meta["index"]: result for result in outcome.results}
    assert rules and len(outcome.results) == len(by_index) == len(rules), (
        f"{len(outcome.results)} results for {len(rules)} expectations"
    )
    raised = [result for result in outcome.results if result.exception_info.get("raised_exception")]
    assert not raised, raised[0].exception_info
    return iter([by_index[index] for index in range(len(rules))])


def _batch(table: pd.DataFrame) -> Batch:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("pairs")
    asset = source.add_dataframe_asset("features")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})


def _of_files(rows: Sequence[PairFeatures]) -> Iterator[Check]:
    """Is there a readable pair at all?"""
    yield Check(
        "row-count",
        None,
        (gxe.ExpectTableRowCountToEqual(value=len(rows)),),
        "one row for each pair",
        lambda row: "another number",
        lambda row: "Validate again; files changed meanwhile.",
    )
    yield Check(
        "complete",
        "complete",
        _true("complete"),
        "an input in low/ and a target in high/ of the same name",
        lambda row: f"no {SIDE_NAMES['high' if row.low.present else 'low']}",
        lambda row: "Add the missing file or remove its partner.",
        blocks=True,
    )
    yield Check(
        "name",
        "field",
        (gxe.ExpectColumnValuesToNotBeNull(column="field"),),
        "a name that tells its field of view by the card's name_pattern",
        lambda row: f"'{row.name}'",
        lambda row: "Rename both files, or correct name_pattern in card.yaml.",
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
                _true(f"{side}_{name}"),
                f"{expected} as {SIDE_NAMES[side]}",
                lambda row, side=side: str(row.side(side).problem),
                lambda row, side=side: str(row.side(side).remedy),
                blocks=True,
            )


def _of_pixels(rows: Sequence[PairFeatures], policy: ValidationPolicy) -> Iterator[Check]:
    """Do the pixels hold what training needs?"""
    yield Check(
        "shape",
        "same_shape",
        _true("same_shape"),
        "input and target of one shape",
        lambda row: f"{row.low.shape} and {row.high.shape}",
        lambda row: "Export both at the same size and position.",
    )
    for side in SIDES:
        usual, who = usual_dtype(rows, side), SIDE_NAMES[side]
        column = f"{side}_dtype"
        yield Check(
            "dtype",
            column,
            (
                gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[usual]),
                gxe.ExpectColumnValuesToNotBeNull(column=column),
            ),
            f"{usual} pixels, as most {who}s of this task have",
            lambda row, side=side: str(row.side(side).dtype),
            lambda row: "Export all images of a task with the same bit depth, without rescaling.",
        )
        yield Check(
            "constant",
            f"{side}_span",
            _between(f"{side}_span", 0, None),
            f"more than one grey value in the {who}",
            lambda row, side=side: f"{row.side(side).lowest:g} everywhere",
            lambda row: "Remove the pair: shutter closed, lamp off or an empty export.",
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
            _between(f"{side}_{feature}", None, limit),
            f"at most {limit:.2%} of the {SIDE_NAMES[side]}'s pixels at its {end} value",
            lambda row: f"{getattr(row.side(side), feature):.2%} at {getattr(row.side(side), end):g}",
            lambda row: remedy,
            severity,
        )


def _of_splits() -> Iterator[Check]:
    """Can the test fields be trusted to be unseen?"""
    yield Check(
        "field-in-one-split",
        "splits_of_field",
        _between("splits_of_field", 1, 1, strict=False),
        "all pairs of a field of view in one split",
        lambda row: f"field {row.field} in {row.splits_of_field} splits",
        lambda row: "Give different fields different names, and check name_pattern in card.yaml.",
    )
    for side in SIDES:
        who = SIDE_NAMES[side]
        yield Check(
            "leak",
            f"{side}_twin_across",
            (gxe.ExpectColumnValuesToBeNull(column=f"{side}_twin_across"),),
            f"a {who} that no other split contains",
            lambda row, side=side: f"the same image as {row.side(side).twin_across}",
            lambda row: "Remove one of the two, or list their fields under `overlapping` in card.yaml.",
        )
        yield Check(
            "copy",
            f"{side}_twin_in_split",
            (gxe.ExpectColumnValuesToBeNull(column=f"{side}_twin_in_split"),),
            f"every {who} once",
            lambda row, side=side: f"the same image as {row.side(side).twin_in_split}",
            lambda row: "Remove one of the two.",
            "warning",
        )
    for split in SPLITS:
        yield Check(
            "splits",
            None,
            (gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=[split]),),
            f"at least one field of view in the {split} split",
            lambda row: "none",
            lambda row: "Add fields, or choose another split.seed in the card before anything is trained on it.",
        )


def _true(column: str) -> tuple[Any, ...]:
    return (
        gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[True]),
        gxe.ExpectColumnValuesToNotBeNull(column=column),
    )


def _between(column: str, low: float | None, high: float | None, *, strict: bool = True) -> tuple[Any, ...]:
    """From `low` (exclusive where strict) to `high` (inclusive), and never missing."""
    bounds = {"min_value": low, "max_value": high, "strict_min": strict and low is not None}
    return (
        gxe.ExpectColumnValuesToBeBetween(column=column, **bounds),
        gxe.ExpectColumnValuesToNotBeNull(column=column),
    )
