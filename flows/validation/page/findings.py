"""Refusals and warnings, grouped by rule: what was expected, what to do, and which pairs are concerned."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flows.validation.page.words import title_of, why_of
from flows.validation.report import Finding

LISTED = 12
"""Pairs of a group that are seen at once; the others unfold."""


@dataclass(frozen=True)
class Concerned:
    """A pair that breaks the rule of its group."""

    name: str
    anchor: str
    """Of its card on the page."""
    actual: str


@dataclass(frozen=True)
class Group:
    """All findings of one rule with one remedy."""

    title: str
    why: str
    check: str
    severity: str
    expected: str
    remedy: str
    actual: str | None
    """What was found instead, where no single pair is at fault."""
    pairs: tuple[Concerned, ...]

    @property
    def seen(self) -> tuple[Concerned, ...]:
        """The first ones."""
        return self.pairs[:LISTED]

    @property
    def folded(self) -> tuple[Concerned, ...]:
        """The others."""
        return self.pairs[LISTED:]


def grouped(findings: Iterable[Finding], anchors: Mapping[str, str]) -> list[Group]:
    """Findings by rule and remedy, in the order in which rules were met.

    anchors: by name of a pair, where its card is.
    """
    members: dict[tuple[str, ...], list[Finding]] = defaultdict(list)
    for one in findings:
        alone = one.actual if one.name is None else ""
        members[one.check, one.severity, one.expected, one.remedy, alone].append(one)
    return [_group(found, anchors) for found in members.values()]


def expected_of(finding: Finding) -> str:
    """What was expected; of a measured quantity without its label, which stands in the headline."""
    if finding.quantity is None:
        return finding.expected
    return finding.expected[len(finding.quantity.label) :].removeprefix(": ")


def _group(found: list[Finding], anchors: Mapping[str, str]) -> Group:
    first = found[0]
    return Group(
        title=first.quantity.label if first.quantity else title_of(first.check),
        why=why_of(first.check),
        check=first.check,
        severity=first.severity,
        expected=expected_of(first),
        remedy=first.remedy,
        actual=first.actual if first.name is None else None,
        pairs=tuple(Concerned(one.name, anchors[one.name], one.actual) for one in found if one.name),
    )
