"""A batch beside the data that are there: which pairs may come in, and what is to be known of them.

New fields that show the scene of a present one follow it to its split. Pairs of the batch that break a rule
are taken out until what is left breaks none; present pairs are never taken out for a new one's sake.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from cvdm.card import CARD_NAME, Card, Split
from cvdm.errors import DatasetError
from flows.transfer import same_content
from flows.validation.dealing import balanced_split
from flows.validation.features import SIDES
from flows.validation.measuring import Measurements, PairFiles, dealt_rows
from flows.validation.policy import ValidationPolicy
from flows.validation.report import Finding, ValidationReport, judge
from flows.validation.scenes import among, grouped, scenes_of_new_fields


@dataclass(frozen=True)
class BatchReport:
    """What came of judging a batch."""

    accepted: tuple[str, ...]
    """Names of the pairs that may come in."""
    rejected: tuple[Finding, ...]
    """About pairs that may not."""
    warnings: tuple[Finding, ...]
    """About accepted pairs, the dataset as a whole and, refusals included, pairs that are there already."""
    scenes: tuple[tuple[str, ...], ...]
    """Groups of accepted fields and present ones that show one scene, the one that leads first."""
    split: Split
    """By which the fields are dealt: the card's, or one with the seed that was chosen."""
    report: ValidationReport | None
    """Of the whole dataset with the accepted pairs; None where there is no pair at all."""
    everything: ValidationReport
    """Of the whole dataset with all pairs of the batch, for the page; fields in the splits that they got."""

    @property
    def names(self) -> frozenset[str]:
        """Of all pairs that were judged."""
        return frozenset((*self.accepted, *(one.name for one in self.rejected if one.name)))


@dataclass(frozen=True)
class Arrivals:
    """The pairs of a batch, by what the present data hold under their names."""

    new: tuple[PairFiles, ...]
    known: tuple[PairFiles, ...]
    """There already, byte for byte."""
    clashing: tuple[PairFiles, ...]
    """Under a name that other content has."""
    closed: tuple[tuple[PairFiles, str], ...] = ()
    """With a file that cannot be opened, and why."""

    def clashes(self) -> tuple[Finding, ...]:
        """A refusal for each pair whose name is taken or whose files cannot be opened."""
        unopened = tuple(
            Finding(
                check="readable",
                name=pair.name,
                severity="error",
                expected="files that can be opened",
                actual=reason,
                remedy="Check the link or the permissions, or copy the files again.",
            )
            for pair, reason in self.closed
        )
        return unopened + tuple(
            Finding(
                check="name-taken",
                name=pair.name,
                severity="error",
                expected="a new name for new content",
                actual="other content than the pair of this name that is there",
                remedy="Rename both files; nothing is ever overwritten.",
            )
            for pair in self.clashing
        )


def arrivals(batch: Iterable[PairFiles], present: Iterable[PairFiles]) -> Arrivals:
    """Sort the pairs of a batch by comparing bytes with present pairs of their names. Raises OSError."""
    there = {pair.name: pair for pair in present}
    new, known, clashing, closed = [], [], [], []
    for pair in batch:
        if reason := _closed(pair):
            closed.append((pair, reason))
            continue
        sides = [(getattr(pair, side), getattr(there.get(pair.name), side, None)) for side in SIDES]
        if any(one and other and not same_content(one, other) for one, other in sides):
            clashing.append(pair)
        elif all(other is not None for _, other in sides):
            known.append(pair)
        else:
            new.append(pair)
    return Arrivals(tuple(new), tuple(known), tuple(clashing), tuple(closed))


def _closed(pair: PairFiles) -> str | None:
    """Why an image of a pair cannot be opened, such as a link that leads nowhere; None where both can be."""
    for path in (path for path in (pair.low, pair.high) if path is not None):
        try:
            if path.is_dir():
                if any(
                    part.is_symlink() or not (part.is_dir() or part.is_file()) for part in path.rglob("*")
                ):
                    return f"{path.name}: a folder with links or devices in it"
            elif not path.is_file():
                return f"{path.name}: {'a link that leads nowhere' if path.is_symlink() else 'no file'}"
            else:
                path.open("rb").close()
        except OSError as error:
            return f"{path.name}: {error.strerror or error}"
    return None


def require_same_card(source: Path, card_file: Path, task: str) -> None:
    """Raise DatasetError where a batch brings another card than the one that a task has or gets."""
    brought = source / CARD_NAME
    if brought.is_file() and not same_content(brought, card_file):
        raise DatasetError(
            f"the card of {task} as it is",
            f"another card in {source}",
            "Remove it from the batch; to change what is known of the task, edit the card of the task.",
        )


def judge_batch(
    root: Path,
    card: Card,
    measured: Measurements,
    new: Collection[str],
    policy: ValidationPolicy,
    *,
    choose_seed: bool = False,
) -> BatchReport:
    """Judge present and new pairs, which were measured together. Raises ConfigError.

    new:         names of the batch's pairs.
    choose_seed: whether all fields are new and nobody has said how they are dealt to the splits.
    """
    effective = policy.overridden(card.validation, f"{card.task}/card.yaml: validation")
    found = scenes_of_new_fields(card, measured, new, effective.near_duplicate_score)
    fields_of_batch = {row.field for row in measured.rows if row.name in new and row.field}
    everything, rejected, kept = None, list[Finding](), measured
    while True:
        fields = {row.field for row in kept.rows if row.field}
        scenes = among(found, card, kept, fields_of_batch - fields)
        own = replace(card, split=balanced_split(card, fields, scenes)) if choose_seed else card
        dealt_by = grouped(own, scenes)
        kept = kept.dealt(dealt_by)
        report = judge(root, dealt_by, kept, policy, new=new)
        everything = everything or report
        refused = [*(one for one in report.rejected if one.name in new), *_copies(report, new)]
        if not refused:
            break
        rejected += refused
        kept = kept.without({finding.name for finding in refused if finding.name})
        if not kept.rows:
            return BatchReport((), tuple(rejected), (), (), card.split, None, _told(everything, rejected))
    return BatchReport(
        accepted=tuple(row.name for row in kept.rows if row.name in new),
        rejected=tuple(rejected),
        warnings=(*report.rejected, *report.warnings),
        scenes=scenes,
        split=dealt_by.split,
        report=report,
        everything=replace(
            _told(everything, rejected), card=dealt_by, table=dealt_rows(everything.table, dealt_by)
        ),
    )


def _told(everything: ValidationReport, rejected: Collection[Finding]) -> ValidationReport:
    """The first look at all pairs, with what was refused in it and after it."""
    refused = {(one.name, one.check) for one in rejected}
    others = [one for one in everything.rejected if (one.name, one.check) not in refused]
    warnings = [one for one in everything.warnings if (one.name, one.check) not in refused]
    return replace(everything, rejected=(*rejected, *others), warnings=tuple(warnings))


def _copies(report: ValidationReport, new: Collection[str]) -> list[Finding]:
    """Warnings about new inputs that equal a present one, as refusals: the dataset has them already."""
    copied = {row.name for row in report.table if row.low.twin_in_split and row.low.twin_in_split not in new}
    return [
        replace(one, severity="error")
        for one in report.warnings
        if one.check == "copy" and one.name in new and one.name in copied
    ]
