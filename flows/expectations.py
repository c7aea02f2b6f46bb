"""The one Great Expectations suite: runs the rules of flows/checks.py on a feature table.

Great Expectations lets missing values pass a bound, and an empty suite succeed. So each rule about values is
paired with not-null, and results are believed only if as many come back as expectations went in and none
of them raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations import expectations as gxe
from great_expectations.data_context.types.base import ProgressBarsConfig
from great_expectations.datasource.fluent.interfaces import Batch

from flows.checks import Absent, Check, Contains, OneOf, Present, Rows, Within
from flows.features import SIDES, PairFeatures, SideFeatures


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


def expectations(check: Check) -> tuple[Any, ...]:
    """A rule in Great Expectations' words."""
    column = check.column
    match check.rule:
        case OneOf(value):
            return (gxe.ExpectColumnValuesToBeInSet(column=column, value_set=[value]), _present(column))
        case Within(above, most):
            bounds = gxe.ExpectColumnValuesToBeBetween(
                column=column, min_value=above, max_value=most, strict_min=above is not None
            )
            return (bounds, _present(column))
        case Present():
            return (_present(column),)
        case Absent():
            return (gxe.ExpectColumnValuesToBeNull(column=column),)
        case Contains(value):
            return (gxe.ExpectColumnDistinctValuesToContainSet(column=column, value_set=[value]),)
        case Rows(count):
            return (gxe.ExpectTableRowCountToEqual(value=count),)


def failures(rows: Sequence[PairFeatures], checks: Sequence[Check]) -> tuple[Failure, ...]:
    """Run the suite; one entry for each check that does not hold, in the order of the checks."""
    batch = _batch(frame(rows))
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
    suite = gx.ExpectationSuite(name="image pairs", expectations=rules)
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


def _batch(table: pd.DataFrame) -> Batch:
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("pairs")
    asset = source.add_dataframe_asset("features")
    return asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": table})


def _present(column: str) -> Any:
    return gxe.ExpectColumnValuesToNotBeNull(column=column)
