"""The decision's page: everything that decided is on it, and nothing else is needed to read it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from gate_scores import evaluation

from flows.gate import Background, GatePolicy, decide
from flows.gate.page import Shown, decision_page

POLICY = GatePolicy()
BACKGROUND = Background(looks=3, strata={"session": {f"f{i}": f"session {i // 3}" for i in range(8)}})


def page(candidate, champion, background=BACKGROUND) -> str:
    decision = decide(candidate, champion, POLICY, background)
    version = None if champion is None else 2
    when = datetime(2026, 3, 4, 9, 30, tzinfo=UTC)
    return decision_page(decision, Shown("cells", 4, version, candidate, champion, background, when))


@pytest.mark.parametrize("champion", [None, evaluation(), evaluation(fields=8, crps=0.001)])
def test_every_test_stands_on_the_page_with_its_numbers(champion):
    """Verdict, reasons, names, values and sentences of all tests, and the number of looks."""
    text = page(evaluation(), champion)
    decision = decide(evaluation(), champion, POLICY, BACKGROUND)
    assert f"<strong>{decision.verdict.capitalize()}</strong>" in text
    for test in decision.tests:
        assert f'<th scope="row">{test.name}</th>' in text
        assert f"<td>{test.measure}</td><td>{test.value:.4g}</td>" in text
    for reason in decision.reasons:
        assert reason.replace("'", "&#39;") in text
    assert "candidate number 3 that is judged on these test fields" in text


def test_a_first_candidate_is_told_without_a_champion():
    """Nothing serves yet that could go on serving, and no dot stands for it."""
    text = page(evaluation(), None)
    assert "first model of its task" in text and "the same for both" not in text
    assert "what serves" not in text and "</svg> champion" not in text
    assert "</svg> champion" in page(evaluation(), evaluation())


def test_every_field_has_a_dot_for_each_model():
    """One line per field and metric, with the value at hand; a value that is no number has no dot."""
    candidate, champion = evaluation(crps=0.009), evaluation()
    champion.metrics["ssim_fit"]["f3"] = float("nan")
    text = page(candidate, champion)
    dots = re.findall(r"<title>(f\d), (candidate|champion): ", text)
    assert dots.count(("f3", "candidate")) == 4 and dots.count(("f3", "champion")) == 3
    assert dots.count(("f7", "champion")) == 4
    assert "f0, candidate: 0.009<" in text and "f0, champion: 0.01<" in text


def test_the_page_needs_nothing_else():
    """No script, no link to anything outside, and names of fields cannot break it."""
    hostile = "<script>alert(1)</script>"
    candidate, champion = evaluation(), evaluation()
    for scores in (candidate.metrics, champion.metrics, *candidate.baselines.values()):
        for values in scores.values():
            values[hostile] = values.pop("f0")
    text = page(candidate, champion)
    HTMLParser().feed(text)
    assert "<script" not in text and "http" not in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text)
