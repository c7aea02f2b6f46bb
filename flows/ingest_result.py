"""What an ingest is asked for and what it comes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.quarantine import Quarantined
from flows.validation import Finding, ValidationReport
from flows.validation.one_pair import PairFiles
from flows.validation.report import listed

LISTED = 5
"""Pairs that a line names."""


@dataclass(frozen=True)
class IngestOptions:
    """What a person may say beside the folder and the task."""

    session: str | None = None
    """Name of the acquisition session, e.g. its date."""
    card: Path | None = None
    """Card of a new task, where the batch has none."""
    name_pattern: str | None = None
    """Enough for a new task without a card: see `Card.name_pattern`."""
    commit: bool = True
    push: bool = True


@dataclass(frozen=True)
class IngestResult:
    """What an ingest came to."""

    task: str
    session: str | None
    added: tuple[str, ...]
    """Names of the new pairs."""
    known: int
    """Pairs of the batch that were there already, byte for byte."""
    splits: Mapping[str, str]
    """Of the new fields."""
    scenes: tuple[tuple[str, ...], ...]
    """Groups of new fields and present ones that show one scene."""
    rejected: tuple[Finding, ...]
    """Why pairs of the batch were refused."""
    warnings: tuple[Finding, ...]
    quarantined: Quarantined | None
    """Where the refused pairs are."""
    everything: ValidationReport
    """Of the dataset with all pairs of the batch, good and bad."""
    files: Mapping[str, PairFiles]
    """Where each pair of that report is now."""
    dataset_digest: str | None
    """None where no pair of a new task was accepted; likewise the following."""
    data_version: str | None
    """The md5 that data.dvc records for the whole data folder."""
    commit: str | None
    """The git commit of data.dvc; None where nothing changed or no commit was wanted."""
    tag: str | None
    pushed: bool
    """Whether DVC's remote has this version."""
    push_problem: str | None

    @property
    def accepted(self) -> bool:
        """Whether no pair of the batch was refused."""
        return not self.rejected

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        same = ("task", "session", "known", "dataset_digest", "data_version", "commit", "tag", "pushed")
        moved = self.quarantined
        return {
            "ok": self.accepted,
            **{name: getattr(self, name) for name in same},
            "push_problem": self.push_problem,
            "added": list(self.added),
            "splits": dict(self.splits),
            "scenes": [list(scene) for scene in self.scenes],
            "rejected": [finding.as_json() for finding in self.rejected],
            "warnings": [finding.as_json() for finding in self.warnings],
            "quarantine": None if moved is None else str(moved.folder),
            "left_in_place": [] if moved is None else list(moved.left),
        }

    def _beside(self, field: str) -> str:
        """With which other fields a field shares its scene, in words."""
        others = [name for scene in self.scenes if field in scene for name in scene if name != field]
        return f", the scene of {', '.join(others)}" if others else ""

    def summary(self) -> str:
        """The result for people."""
        refused = {finding.name for finding in self.rejected}
        counts = f"{len(self.added)} new pairs, {self.known} known, {len(refused)} refused"
        lines = [f"{self.task}: {counts}; data version {self.data_version}"]
        lines += [
            f"  field {field}: {split}{self._beside(field)}" for field, split in sorted(self.splits.items())
        ]
        lines += listed(self.rejected, self.warnings)
        if self.quarantined is not None:
            if self.quarantined.pairs:
                lines.append(
                    f"The refused pairs were moved to {self.quarantined.folder}, with their reasons; "
                    "mend them there and ingest that folder."
                )
            if left := self.quarantined.left:
                lines.append(f"Still in the batch, not to be opened or removed: {', '.join(left[:LISTED])}.")
        if self.commit:
            tag = f", tag {self.tag}" if self.tag else ""
            lines.append(f"Committed as {self.commit[:12]}{tag}; `git push --follow-tags` shares it.")
        elif not self.added:
            lines.append("Nothing has changed.")
        if self.push_problem:
            lines.append(f"Not pushed: {self.push_problem}")
        return "\n".join(lines)
