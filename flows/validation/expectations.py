"""The one Great Expectations suite: runs the rules of flows/validation/checks.py on a feature table.

Great Expectations lets missing values pass a bound, and an empty suite succeeds. So each rule about values
is paired with not-null unless an image may allow no statement, and results are believed only if as many come
back as expectations went in and none of them raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.datasource.fluent.interfaces import Batch

from cvdm.card import Card
from flows.validation.features import SIDES, PairFeatures, SideFeatures
from flows.validation.quantities import QUANTITIES
from flows.validation.rules import Absent, Check, Contains, Failure, OneOf, Present, Rows, Same, Within

SUITE = "image-pairs"
CARD_METADATA = ("pixel_size_um", "numerical_aperture", "wavelength_nm")
"""Keys of the card that files may contradict."""


def frame(rows: Sequence[PairFeatures], card: Card) -> pd.DataFrame:
    """The table as Great Expectations sees it: one column for each thing that is checked."""
    columns: dict[str, list[Any]] = {
        name: [getattr(row, name) for row in rows] for name in ("name", "field", "split", "splits_of_field")
    }
    columns["corresponding"] = [row.corresponds(card.sight) for row in rows]
    for name in ("complete", "same_axes", "lookalike_across", "lookalike_in_split"):
        columns[name] = [getattr(row, name) for row in rows]
    for side in SIDES:
        images = [row.side(side) for row in rows]
        for name in ("readable", "finite", "fits", "empty_channel", "dtype", "twin_across", "twin_in_split"):
            columns[f"{side}_{name}"] = [getattr(image, name) for image in images]
        columns[f"{side}_smallest_side"] = [
            min(image.shape[-2:]) if image.shape else None for image in images
        ]
        columns[f"{side}_constant"] = [_constant(image) for image in images]
        columns |= {f"{side}_{name}": values for name, values in _deviations(images, card, side).items()}
    columns["pixel_size_ratio"] = [
        _apart(_finer(row.low.pixel_size_um, card.factor), row.high.pixel_size_um) for row in rows
    ]
    for quantity in QUANTITIES:
        columns[quantity.column] = [quantity.value(row) for row in rows]
    # about the whole table, the same in every row
    unknown = [name for name in CARD_METADATA if getattr(card, name) is None]
    columns["missing_metadata"] = [" ".join(unknown)] * len(rows)
    targets = [row.high.digest for row in rows if row.high.digest]
    columns["shares_target"] = [len(set(targets)) < len(targets)] * len(rows)
    return pd.DataFrame(columns)


def expectations(check: Check) -> tuple[Any, ...]:
    """A rule in Great Expectations' words."""
    column = check.column
    match check.rule:
        case OneOf(value) | Same(value):
            return (gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[value]), _present(column))
        case Within(least, most, optional):
            bounds = gxe.ExpectColumnValuesToBeBetween(column=column, min_value=least, max_value=most)
            return (bounds,) if optional else (bounds, _present(column))
        case Present():
            return (_present(column),)
        case Absent():
            return (gxe.ExpectColumnValuesToBeNull(column=column),)
        case Contains(value):
            return (gxe.ExpectColumnDistinctValuesToContainSet(column=column, value_set=[value]),)
        case Rows(count):
            return (gxe.ExpectTableRowCountToEqual(value=count),)


def failures(rows: Sequence[PairFeatures], card: Card, checks: Sequence[Check]) -> tuple[Failure, ...]:
    """Run the suite; one entry for each check that does not hold, in the order of the checks."""
    batch = _batch(frame(rows, card))
    found = []
    wanted = [expectations(check) for check in checks]
    results = _results(batch, [one for ones in wanted for one in ones])
    for check, ones in zip(checks, wanted, strict=True):
        own = [next(results) for _ in ones]
        if not all(result.success for result in own):
            at_fault = {i for result in own for i in result.result.get("unexpected_index_list") or ()}
            found.append(Failure(check, tuple(sorted(at_fault))))
    return tuple(found)


def _results(batch: Batch, rules: list[Any]) -> Iterator[Any]:
    """The result of each rule, in their order. Raises RuntimeError unless every rule was really evaluated."""
    for index, rule in enumerate(rules):  # results come back in another order
        rule.meta = {"index": index}
    suite = gx.ExpectationSuite(name=SUITE, expectations=rules)
    outcome = batch.validate(suite, result_format={"result_format": "COMPLETE"})
    by_index = {r.expectation_config.meta["index"]: r for r in outcome.results if r.expectation_config}
    if not rules or not len(outcome.results) == len(by_index) == len(rules):
        raise RuntimeError(f"{len(outcome.results)} results for {len(rules)} expectations")
    raised = [reason for result in outcome.results for reason in _raised(result.exception_info or {})]
    if raised:
        raise RuntimeError(f"an expectation could not be evaluated: {raised[0]}")
    return iter([by_index[index] for index in range(len(rules))])


def _raised(info: Mapping[str, Any]) -> list[str]:
    """The exceptions behind one result, which GX 1.24 nests under the metrics that raised them."""
    entries = [info, *(entry for entry in info.values() if isinstance(entry, Mapping))]
    return [str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")]


def table_definition() -> tuple[Any, Any]:
    """A context in memory, and the definition of the batch that a table of `frame` makes in it."""
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    asset = context.data_sources.add_pandas("pairs").add_dataframe_asset("features")
    return context, asset.add_batch_definition_whole_dataframe("all")


def _batch(table: pd.DataFrame) -> Batch:
    _, definition = table_definition()
    return definition.get_batch({"dataframe": table})


def _present(column: str) -> Any:
    return gxe.ExpectColumnValuesToNotBeNull(column=column)


def _constant(image: SideFeatures) -> bool | None:
    return None if image.lowest is None else image.lowest == image.highest


def _deviations(images: Sequence[SideFeatures], card: Card, side: str) -> dict[str, list[Any]]:
    """By kind of metadata, how far each file departs from the card; None where one of them is silent."""
    size = card.pixel_size_um
    finer = None if size is None else _finer((size, size), 1 if side == "low" else card.factor)
    # the names of several channels decide whether an image fits at all
    channel = "" if side == "low" and card.channels else (card.channel or "").casefold()
    return {
        "pixel_size_deviation": [_apart(image.pixel_size_um, finer) for image in images],
        "numerical_aperture_deviation": [
            _apart(_one(image.numerical_aperture), _one(card.numerical_aperture)) for image in images
        ],
        "wavelength_deviation": [
            _apart(_one(image.wavelength_nm), _one(card.wavelength_nm)) for image in images
        ],
        "other_channel": [
            image.channel if channel and image.channel and image.channel.casefold() != channel else None
            for image in images
        ],
    }


def _finer(size: tuple[float, float] | None, factor: int) -> tuple[float, float] | None:
    return None if size is None else (size[0] / factor, size[1] / factor)


def _one(value: float | None) -> tuple[float] | None:
    return None if value is None else (value,)


def _apart(one: tuple[float, ...] | None, other: tuple[float, ...] | None) -> float | None:
    """Largest relative difference of stated values; None where one side states none."""
    if one is None or other is None:
        return None
    return max(abs(a - b) / b for a, b in zip(one, other, strict=True))
