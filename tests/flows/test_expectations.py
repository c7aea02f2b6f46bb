"""The suite: a rule that could not be evaluated never passes for one that holds."""

from __future__ import annotations

import pytest

from flows.checks import Check, OneOf, Within
from flows.expectations import Failure, failures
from flows.features import measure
from flows.validate import _problems


@pytest.fixture(scope="module")
def rows(cells_dataset):
    return measure(cells_dataset)[1]


def check(column, rule):
    return Check("x", column, rule, "", lambda row, side: "", "")


@pytest.mark.parametrize(
    "broken",
    [check("no_such_column", OneOf(True)), check("name", Within(above=0))],
    ids=["a column that is not there", "a bound on text"],
)
def test_a_rule_that_raises_is_an_error(rows, broken):
    """Great Expectations swallows what a metric raises; the suite says it, beside rules that hold."""
    with pytest.raises(RuntimeError, match="could not be evaluated"):
        failures(rows, [check("complete", OneOf(True)), broken])


def test_a_row_rule_that_fails_for_no_row_is_an_error(rows):
    """Else it would be counted as failed and reported as nothing."""
    with pytest.raises(RuntimeError, match="low_span failed for no row"):
        _problems(rows, (Failure(check("low_span", Within(above=0)), ()),))
