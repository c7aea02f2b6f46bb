"""The page as a whole: verdict, reasons, every test with its numbers, every field of view."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import flows.validation.page
from cvdm.evaluation import Evaluation
from flows.gate.background import Background
from flows.gate.outcome import VERSUS_CHAMPION, Decision, GateTest
from flows.gate.page.dots import dot_plot, legend
from flows.gate.quantities import COMPARED

HERE = Path(__file__).parent
STYLE = Path(flows.validation.page.__file__).with_name("page.css")
"""Shared with the page of a validation, so that both read alike."""
SUMMARY = {
    "promote": "The candidate may replace what serves.",
    "reject": "The candidate is not good enough; what serves goes on serving.",
    "undecided": "The test fields show neither; what serves goes on serving, and a person may decide.",
}
SUMMARY_OF_FIRST = {
    "promote": "The candidate may serve, as the first model of its task.",
    "reject": "The candidate is not good enough; nothing serves this task yet.",
    "undecided": "The test fields show neither; nothing serves this task yet, and a person may decide.",
}
"""Where there is no champion."""
GAINS = (
    "A gain is positive where the candidate is better, whichever way the metric runs: "
    "+0.002 CRPS is an error smaller by 0.002."
)
CHANCES = (
    "p is how often a candidate exactly at the limit (equal in CRPS, otherwise worse by the margin) would by "
    "chance look as good as this one or, where a test fails, as bad; up to the threshold it counts as shown."
)
LEVELS = {"promote": "accepted", "reject": "refused", "undecided": "warned"}
"""How a verdict is coloured."""


@dataclass(frozen=True)
class Shown:
    """What the page tells beside the decision."""

    task: str
    version: int
    champion_version: int | None
    candidate: Evaluation
    champion: Evaluation | None
    background: Background
    date: datetime


@dataclass(frozen=True)
class Line:
    """One test in the table."""

    name: str
    level: str
    word: str
    measure: str
    value: str
    threshold: str
    detail: str


def decision_page(decision: Decision, shown: Shown) -> str:
    """The page as text."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    champion = shown.champion.metrics if shown.champion else {}
    plots = [
        (quantity, Markup(dot_plot(quantity, shown.candidate.metrics[quantity.metric], theirs)))  # noqa: S704  # escaped there
        for quantity in COMPARED
        if quantity.metric in shown.candidate.metrics
        for theirs in [champion.get(quantity.metric, {})]
    ]
    lines = [_line(test) for test in decision.tests]
    own, relative = (
        [line for line in lines if line.name.endswith(VERSUS_CHAMPION) is against]
        for against in (False, True)
    )
    return environment.get_template("page.html").render(
        style=Markup(STYLE.read_text(encoding="utf-8")),  # noqa: S704
        decision=decision,
        level=LEVELS[decision.verdict],
        summary=(SUMMARY if shown.champion else SUMMARY_OF_FIRST)[decision.verdict],
        shown=shown,
        fields=len(shown.candidate.metrics["crps"]),
        tables=[
            ("The candidate by itself", GAINS, own),
            ("Against the champion, field by field", f"{GAINS} {CHANCES}", relative),
        ],
        plots=plots,
        legend=Markup(legend(with_champion=shown.champion is not None)),  # noqa: S704
    )


def _line(test: GateTest) -> Line:
    level, word = {True: ("accepted", "holds"), False: ("refused", "fails"), None: ("warned", "open")}[
        test.passed
    ]
    if not test.binding:
        level, word = "unmeasured", "not counted"
    numbers = _number(test.value), _number(test.threshold)
    return Line(test.name, level, word, test.measure, *numbers, test.detail)


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else "–"
