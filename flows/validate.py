"""Validation of a dataset folder before anything is trained on it.

Features of every pair (flows/features.py) are judged by checks (flows/checks.py); what fails becomes
a problem or a warning in words that a microscopist can act on. A pair that cannot be judged further, because
it is incomplete, misnamed, unreadable or not finite, is reported for that reason only.

Not covered yet: noise, focus, registration, illumination, near-duplicates and drift.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvdm.card import SPLITS
from cvdm.errors import ConfigError, DatasetError
from cvdm.params import from_mapping, load_section
from flows.checks import Check, ValidationPolicy, checks
from flows.features import PairFeatures, measure
from flows.progress import progress_bar

if TYPE_CHECKING:  # great_expectations takes seconds to import
    from flows.expectations import Failure

LISTED = 5
"""Problems that the message of a failed validation spells out."""


@dataclass(frozen=True)
class Problem:
    """One broken rule."""

    check: str
    pair: str | None
    """None where the whole dataset is at fault."""
    expected: str
    actual: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.pair}: " if self.pair else ""
        return f"{where}expected {self.expected}; got {self.actual}. {self.remedy}"


class ValidationError(DatasetError):
    """A dataset that must not be trained on; `report` has every problem."""

    def __init__(self, report: ValidationReport) -> None:
        problems = report.problems
        listed = "".join(f"\n  - {problem}" for problem in problems[:LISTED])
        more = len(problems) - LISTED
        rest = f"\n  and {more} more (`cvdm validate --json` lists all)" if more > 0 else ""
        super().__init__(
            f"every pair of {report.task} to pass validation",
            f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in {len(report.table)} pairs",
            f"Mend or remove what is listed, then run the command again:{listed}{rest}",
        )
        self.report = report

    def as_dict(self) -> dict[str, Any]:
        """The message for programs, with every problem."""
        return {**super().as_dict(), "problems": [asdict(problem) for problem in self.report.problems]}


@dataclass(frozen=True)
class ValidationReport:
    """What validation found."""

    task: str
    problems: tuple[Problem, ...]
    """Each forbids training."""
    warnings: tuple[Problem, ...]
    """Each deserves a look."""
    checks: int
    """How many were made."""
    table: tuple[PairFeatures, ...]
    """What was measured, a row for each pair."""

    @property
    def passed(self) -> bool:
        """Whether the dataset may be trained on."""
        return not self.problems

    def fields(self) -> dict[str, int]:
        """Fields of view by split."""
        return {split: len({row.field for row in self.table if row.split == split}) for split in SPLITS}

    def raise_if_failed(self) -> None:
        """Raise ValidationError unless passed."""
        if not self.passed:
            raise ValidationError(self)

    def as_json(self) -> dict[str, Any]:
        """Plain values; `ok` says whether the dataset passed."""
        bad = {problem.pair for problem in self.problems}
        return {
            "ok": self.passed,
            "task": self.task,
            "pairs": len(self.table),
            "accepted": sum(row.name not in bad for row in self.table),
            "fields": self.fields(),
            "checks": self.checks,
            "problems": [asdict(problem) for problem in self.problems],
            "warnings": [asdict(warning) for warning in self.warnings],
            "table": [asdict(row) for row in self.table],
        }

    def summary(self) -> str:
        """The report for people."""
        fields = ", ".join(f"{count} {split}" for split, count in self.fields().items())
        state = "passed" if self.passed else "FAILED"
        lines = [f"{self.task}: {state}, {len(self.table)} pairs, fields of view: {fields}"]
        lines += [f"  problem ({p.check}): {p}" for p in self.problems]
        lines += [f"  warning ({w.check}): {w}" for w in self.warnings]
        return "\n".join(lines)


def load_validation_policy(params: Path) -> ValidationPolicy:
    """The section `validation` of a params.yaml. Raises ConfigError on unknown keys."""
    policy = from_mapping(ValidationPolicy, load_section(params, "validation"), "validation")
    for name, value in asdict(policy).items():
        if not 0 <= value <= 1:
            raise ConfigError(f"validation.{name} between 0 and 1", f"{value}", "Write a share of pixels.")
    return policy


def validate_dataset(dataset_root: Path, policy: ValidationPolicy) -> ValidationReport:
    """Measure and judge every pair of a dataset folder, with a progress bar on standard error.

    Raises DatasetError where there is nothing to judge: no card, no folders, no images, other files.
    """
    from flows.expectations import failures

    with progress_bar("validate", "pair") as progress:
        card, rows = measure(dataset_root, progress)
    rules = checks(rows, policy)
    problems, warnings = _problems(rows, failures(rows, rules))
    return ValidationReport(card.task, problems, warnings, len(rules), rows)


def _problems(
    rows: tuple[PairFeatures, ...], failed: tuple[Failure, ...]
) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """Errors and warnings: none for pairs that an earlier check ruled out, no warning beside its error."""
    errors: list[Problem] = []
    warnings: list[Problem] = []
    blocked: set[int] = set()
    for failure in failed:
        check = failure.check
        if check.about_table:
            errors.append(_problem(check, rows[0], pair=None))
            continue
        if not failure.rows:
            raise RuntimeError(f"check {check.name} of {check.column} failed for no row")
        refused = {(problem.check, problem.pair) for problem in errors}
        for index in failure.rows:
            row = rows[index]
            if index in blocked or (check.severity == "warning" and (check.name, row.name) in refused):
                continue
            target = errors if check.severity == "error" else warnings
            target.append(_problem(check, row, pair=row.name))
        if check.blocks:
            blocked |= set(failure.rows)
    return tuple(errors), tuple(warnings)


def _problem(check: Check, row: PairFeatures, *, pair: str | None) -> Problem:
    return Problem(check.name, pair, check.expected, check.actual(row, check.side), check.remedy_for(row))
