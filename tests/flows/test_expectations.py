"""The suite: a rule that could not be evaluated never passes for one that holds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cvdm.card import load_card
from flows.validation.checks import checks
from flows.validation.expectations import failures
from flows.validation.measuring import files_of, measure
from flows.validation.policy import ValidationPolicy
from flows.validation.report import findings_of
from flows.validation.rules import Check, Failure, OneOf, Within
from flows.validation.suite import failures_of

CHECKOUT = Path(__file__).resolve().parents[2]


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


def test_a_suite_apart_finds_the_same(rows, card):
    """Planted faults come back from the other process as from this one."""
    moved = (rows[0], replace(rows[1], low=replace(rows[1].low, fits=False)), *rows[2:])
    wanted = checks(moved, card, ValidationPolicy())
    apart = failures_of(moved, card, wanted, apart=True)
    assert apart == failures_of(moved, card, wanted)
    assert [one.check.name for one in apart if one.rows == (1,)]


def test_a_validated_retraining_does_not_hold_the_suites_library(project_settings, cells_dataset):
    """It would take some 100 MiB for all the hours of a training."""
    shutil.copytree(cells_dataset, project_settings.dataset_dir("test-cells"))
    program = (
        "import sys; from flows.settings import Settings; from flows.validate import validate\n"
        "if __name__ == '__main__':\n"
        "    report = validate(Settings.read(), 'test-cells')\n"
        "    print(report.checks > 0, [m for m in ('great_expectations', 'pandas') if m in sys.modules])\n"
    )
    script = project_settings.home / "validates.py"  # workers import the main module again: it must be a file
    script.write_text(program, encoding="utf-8")
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, cwd=CHECKOUT)
    assert ran.stdout.split() == ["True", "[]"]
