"""Defects planted in real images: passed when slight, warned of when middling, refused when strong."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted_defects import DEFECTS, LEVELS, planted

from cvdm.card import load_card
from flows.validation import ValidationPolicy, judge
from flows.validation.measuring import files_of, measure

ROOT = Path(__file__).parents[2] / "data" / "fmd-confocal-nuclei"
CASES = [(level, defect) for level in LEVELS for defect in DEFECTS if getattr(defect, level) is not None]


@pytest.fixture(scope="module")
def clean():
    """Card, files and measurements of the real set."""
    card = load_card(ROOT)
    files = files_of(ROOT, card)
    return card, files, measure(files, card)


@pytest.fixture(scope="module", params=list(LEVELS))
def damaged(request, clean, tmp_path_factory):
    """Level, and by defect what was found about its pair; the other pairs are clean."""
    card, files, measured = clean
    root = tmp_path_factory.mktemp(request.param)
    pairs = {
        defect.name: planted(defect, request.param, pair, root)
        for pair, (level, defect) in zip(
            files, [case for case in CASES if case[0] == request.param], strict=False
        )
    }
    rows = measured.without(pair.name for pair in pairs.values())
    report = judge(ROOT, card, rows.plus(measure(list(pairs.values()), card)), ValidationPolicy())
    findings = (*report.rejected, *report.warnings)
    return request.param, {
        name: {(one.check, one.severity) for one in findings if one.name == pair.name}
        for name, pair in pairs.items()
    }


def test_the_real_set_is_clean(clean):
    """Nothing fires on any pair as it is."""
    card, _, measured = clean
    report = judge(ROOT, card, measured, ValidationPolicy())
    assert report.passed and {warning.name for warning in report.warnings} == {None}


def test_each_defect_is_told_at_its_strength(damaged):
    """Slight damage passes without a word, middling gives the warning, strong the refusal."""
    level, found = damaged
    wrong = {}
    for name, findings in found.items():
        (defect,) = (defect for defect in DEFECTS if defect.name == name)
        wanted = LEVELS[level] and (defect.check, LEVELS[level])
        if findings if wanted is None else wanted not in findings:
            wrong[name] = findings
    assert not wrong


def test_every_measured_quantity_has_a_planted_defect():
    """No threshold without a defect that proves it."""
    from flows.validation.quantities import QUANTITIES

    # of whole sessions, in test_validation.py; beside "target of another field"
    elsewhere = {"background-drift", "vignetting", "registration"}
    checks = {quantity.name.replace("_", "-") for quantity in QUANTITIES}
    assert checks - elsewhere == {defect.check for defect in DEFECTS}
