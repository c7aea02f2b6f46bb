"""Runs the suite of expectations.py, here or in a process of its own.

Great Expectations takes seconds to import and some 100 MiB for as long as its process lives, so it is
imported only when the suite runs, and not at all by a process that goes on for hours after.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvdm.card import Card
from flows.validation.features import PairFeatures
from flows.validation.rules import Check, Failure
from flows.validation.workers import submit, worker_pool


def failures_of(
    rows: Sequence[PairFeatures], card: Card, checks: Sequence[Check], *, apart: bool = False
) -> tuple[Failure, ...]:
    """`expectations.failures`; apart: in a process of its own."""
    if not apart:
        return _failures(rows, card, checks)
    # what a check says of a row stays here: functions of a row do not travel
    bare = [Check(check.name, check.column, check.rule, "", actual=str, remedy="") for check in checks]
    with worker_pool(1) as pool:
        broken = submit(pool, _broken, rows, card, bare).result()
    return tuple(Failure(checks[position], at_fault) for position, at_fault in broken)


def _broken(
    rows: Sequence[PairFeatures], card: Card, checks: Sequence[Check]
) -> list[tuple[int, tuple[int, ...]]]:
    """By position, the checks that fail, with the rows at fault."""
    positions = {id(check): position for position, check in enumerate(checks)}
    return [(positions[id(failure.check)], failure.rows) for failure in _failures(rows, card, checks)]


def _failures(rows: Sequence[PairFeatures], card: Card, checks: Sequence[Check]) -> tuple[Failure, ...]:
    from flows.validation.expectations import failures

    return failures(rows, card, checks)
