"""The suite: a rule that could not be evaluated never passes for one that holds."""

from __future__ import annotations

import pytest

from cvdm.card import load_card
from flows.validation.expectations import Failure, failures
from flows.validation.measuring import files_of, measure
from flows.validation.report import findings_of
from flows.validation.rules import Check, OneOf, Within


@pytest.fixture(scope="module")
def card(cells_dataset):
    return load_card(cells_dataset)


@pytest.fixture(scope="module")
def rows(cells_dataset, card):
    return measure(files_of(cells_dataset, card), card).rows


def check(column, rule):
    return Check("x", column, rule, "", lambda row: "", "")


@pytest.mark.parametrize(
    "broken",
    [check("no_such_column", OneOf(True)), check("name", Within(least=0))],
    ids=["a column that is not there", "a bound on text"],
)
def test_a_rule_that_raises_is_an_error(rows, card, broken):
    """Great Expectations swallows what a metric raises; the suite says it, beside rules that hold."""
    with pytest.raises(RuntimeError, match="could not be evaluated"):
        failures(rows, card, [check("complete", OneOf(True)), broken])


def test_a_row_rule_that_fails_for_no_row_is_an_error(rows):
    """Else it would be counted as failed and reported as nothing."""
    with pytest.raises(RuntimeError, match="low_noise failed for no row"):
        findings_of(rows, (Failure(check("low_noise", Within(least=0)), ()),))
