"""Validation of image pairs before anything is trained on them, and its report.

Measurements of every pair (measuring.py, comparing.py) are judged by checks (checks.py); what fails becomes
a refusal or a warning in words that a microscopist can act on. A pair that cannot be judged further, because
it is incomplete, misnamed, unreadable or not finite, is reported for that reason only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cvdm.card import SPLITS, Card, load_card
from cvdm.errors import DatasetError
from flows.progress import progress_bar
from flows.validation.checks import checks
from flows.validation.comparing import compare
from flows.validation.features import PairFeatures
from flows.validation.measuring import Measurements, files_of, measure
from flows.validation.policy import ValidationPolicy
from flows.validation.quantities import Quantity, require_order
from flows.validation.rules import Check, Failure, Severity
from flows.validation.suite import failures_of

LISTED = 5
"""Problems that the message of a failed validation spells out, and names that a warning lists."""


@dataclass(frozen=True)
class Finding:
    """One broken rule."""

    check: str
    name: str | None
    """Of the pair; None where the whole dataset is at fault."""
    severity: Severity
    expected: str
    actual: str
    remedy: str
    quantity: Quantity | None = None
    """The measured number that is beyond a threshold, if that is the rule."""

    def __str__(self) -> str:
        where = f"{self.name}: " if self.name else ""
        return f"{where}expected {self.expected}; got {self.actual}. {self.remedy}"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {key: getattr(self, key) for key in ("name", "check", "expected", "actual", "remedy")}


class ValidationError(DatasetError):
    """A dataset that must not be trained on; `report` has every finding."""

    def __init__(self, report: ValidationReport) -> None:
        rejected = report.rejected
        listed = "".join(f"\n  - {finding}" for finding in rejected[:LISTED])
        more = len(rejected) - LISTED
        rest = f"\n  and {more} more (`cvdm validate --json` lists all)" if more > 0 else ""
        super().__init__(
            f"every pair of {report.card.task} to pass validation",
            f"{len(rejected)} problem{'s' if len(rejected) != 1 else ''} in {len(report.table)} pairs",
            f"Mend or remove what is listed, then run the command again:{listed}{rest}",
        )
        self.report = report

    def as_dict(self) -> dict[str, Any]:
        """The message for programs, with every finding."""
        return {**super().as_dict(), "rejected": [finding.as_json() for finding in self.report.rejected]}


@dataclass(frozen=True)
class ValidationReport:
    """What validation found."""

    root: Path
    """The folder that was judged."""
    card: Card
    policy: ValidationPolicy
    """With what the card overrides."""
    overridden: tuple[str, ...]
    """Names of the thresholds that the card sets."""
    rejected: tuple[Finding, ...]
    """Each forbids training."""
    warnings: tuple[Finding, ...]
    """Each deserves a look."""
    checks: int
    """How many were made."""
    table: tuple[PairFeatures, ...]
    """What was measured, a row for each pair."""
    new: frozenset[str] = frozenset()
    """Pairs that came to present ones, which say what is usual."""

    @property
    def established(self) -> tuple[PairFeatures, ...]:
        """The rows that say what is usual."""
        return tuple(row for row in self.table if row.name not in self.new)

    @property
    def passed(self) -> bool:
        """Whether the dataset may be trained on."""
        return not self.rejected

    @property
    def rejected_names(self) -> frozenset[str]:
        """The pairs that a rule forbids."""
        return frozenset(finding.name for finding in self.rejected if finding.name)

    def fields(self) -> dict[str, int]:
        """Fields of view by split."""
        return {split: len({row.field for row in self.table if row.split == split}) for split in SPLITS}

    def raise_if_failed(self) -> None:
        """Raise ValidationError unless passed."""
        if not self.passed:
            raise ValidationError(self)

    def as_json(self) -> dict[str, Any]:
        """Plain values; `ok` says whether the dataset passed."""
        return {
            "ok": self.passed,
            "task": self.card.task,
            "pairs": len(self.table),
            "accepted": len(self.table) - len(self.rejected_names),
            "fields": self.fields(),
            "checks": self.checks,
            "rejected": [finding.as_json() for finding in self.rejected],
            "warnings": [finding.as_json() for finding in self.warnings],
            "policy": asdict(self.policy),
            "overridden": list(self.overridden),
            "table": [_plain(asdict(row)) for row in self.table],
        }

    def summary(self) -> str:
        """The report for people: every refusal, and each kind of warning once."""
        fields = ", ".join(f"{count} {split}" for split, count in self.fields().items())
        state = "passed" if self.passed else "FAILED"
        lines = [f"{self.card.task}: {state}, {len(self.table)} pairs, fields of view: {fields}"]
        return "\n".join([*lines, *listed(self.rejected, self.warnings)])


def validate_dataset(
    root: Path, policy: ValidationPolicy, *, workers: int | None = None, apart: bool = False
) -> ValidationReport:
    """Measure and judge every pair of a dataset folder, with a progress bar on standard error.

    apart: judge in a process of its own, for a caller that goes on for long; see suite.py.
    Raises DatasetError where there is nothing to judge: no card, no folders, no images, other files.
    """
    card = load_card(root)
    with progress_bar("validate", "pair") as progress:
        measured = measure(files_of(root, card), card, progress, workers=workers)
    return judge(root, card, measured, policy, apart=apart)


def judge(
    root: Path,
    card: Card,
    measured: Measurements,
    policy: ValidationPolicy,
    *,
    new: Collection[str] = (),
    apart: bool = False,
) -> ValidationReport:
    """Judge what was measured, by a policy that the card may override. Raises ConfigError.

    new:   names of pairs that come to present ones, which then say what is usual.
    apart: in a process of its own; see suite.py.
    """
    effective = policy.overridden(card.validation, f"{card.task}/card.yaml: validation")
    require_order(effective)
    rows = compare(measured, card, score=effective.near_duplicate_score, new=new)
    established = [row for row in rows if row.name not in new]
    rules = checks(rows, card, effective, established=established)
    findings = findings_of(rows, failures_of(rows, card, rules, apart=apart))
    return ValidationReport(
        root=root,
        card=card,
        policy=effective,
        overridden=policy.differences(effective),
        rejected=tuple(one for one in findings if one.severity == "error"),
        warnings=tuple(one for one in findings if one.severity == "warning"),
        checks=len(rules),
        table=rows,
        new=frozenset(new),
    )


def listed(rejected: Iterable[Finding], warnings: Iterable[Finding]) -> list[str]:
    """Lines for people: every refusal, and each kind of warning once."""
    return [*(f"  refused ({one.check}): {one}" for one in rejected), *_grouped(warnings)]


def findings_of(rows: tuple[PairFeatures, ...], failed: Iterable[Failure]) -> list[Finding]:
    """None for pairs that an earlier check ruled out, no warning beside a refusal for the same number."""
    found: list[Finding] = []
    blocked: set[int] = set()
    refused: set[tuple[str, int]] = set()
    for failure in failed:
        check = failure.check
        if check.about_table:
            found.append(_finding(check, rows[0], name=None))
            continue
        if not failure.rows:
            raise RuntimeError(f"check {check.name} of {check.column} failed for no row")
        for index in failure.rows:
            if index in blocked or (check.column, index) in refused:
                continue
            found.append(_finding(check, rows[index], name=rows[index].name))
            if check.severity == "error":
                refused.add((check.column, index))
        if check.blocks:
            blocked |= set(failure.rows)
    return found


def _finding(check: Check, row: PairFeatures, *, name: str | None) -> Finding:
    return Finding(
        check=check.name,
        name=name,
        severity=check.severity,
        expected=check.expected,
        actual=check.actual(row),
        remedy=check.remedy_for(row),
        quantity=check.quantity,
    )


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The same with lists for tuples, as JSON has them."""
    kinds: dict[type, Any] = {dict: _plain, tuple: list}
    return {key: kinds.get(type(value), lambda same: same)(value) for key, value in values.items()}


def _grouped(warnings: Iterable[Finding]) -> list[str]:
    """Lines of the summary: warnings of one rule together, with the names of the first few pairs."""
    groups: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for warning in warnings:
        groups[warning.check, warning.expected, warning.remedy].append(warning)
    lines = []
    for (check, expected, remedy), members in groups.items():
        if len(members) == 1:
            lines.append(f"  warning ({check}): {members[0]}")
            continue
        listed = ", ".join(f"{one.name} {one.actual}" for one in members[:LISTED])
        more = f" and {len(members) - LISTED} more" if len(members) > LISTED else ""
        lines.append(
            f"  warning ({check}), {len(members)} pairs: expected {expected}; got {listed}{more}. {remedy}"
        )
    return lines
