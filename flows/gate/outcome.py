"""What the gate says: tests with their numbers, and the decision that they lead to."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["promote", "reject", "undecided"]

VERSUS_CHAMPION = " vs champion"
"""How the names of the paired tests end."""
MEAN_GAIN, CHANCE = "mean gain", "p"
"""Measures of tests: gains are positive where the candidate is better."""


@dataclass(frozen=True)
class GateTest:
    """One test with its numbers."""

    name: str
    passed: bool | None
    """None: the fields at hand show neither that it holds nor that it fails."""
    value: float
    threshold: float
    detail: str
    """The test in words, numbers included."""
    measure: str
    """What value and threshold are, such as `p` or `mean gain`."""
    binding: bool = True
    """False: shown only, because too little could be measured; it neither fails nor holds anything up."""


@dataclass(frozen=True)
class Decision:
    """The verdict, why, and every test behind it."""

    verdict: Verdict
    reasons: tuple[str, ...]
    """The most important first; never empty."""
    tests: tuple[GateTest, ...]

    @property
    def rests_on_champion(self) -> bool:
        """Whether another champion could change it; failures of the candidate by itself stand."""
        failed = [test.name for test in self.tests if test.passed is False]
        return all(name.endswith(VERSUS_CHAMPION) for name in failed)

    def as_json(self) -> dict[str, Any]:
        """Plain values; numbers that are not finite become null."""
        document = asdict(self)
        for test in document["tests"]:
            numbers = {key: test[key] for key in ("value", "threshold")}
            test.update({key: x if math.isfinite(x) else None for key, x in numbers.items()})
        return document
