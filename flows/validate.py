"""Validation as a step: judge a task's data, keep what was found, compare with the champion's data.

What is judged, and how, lies in flows/validation/; this module knows where the results go:

    mlruns/validation/NAME/page.html       for people
    mlruns/validation/NAME/report.json     for programs
    mlruns/validation/NAME/data-docs/      every expectation with its result
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvdm.card import CARD_NAME, load_card
from cvdm.dataset import FOLDER_SUFFIXES
from cvdm.errors import DatasetError
from cvdm.storage import replacing
from flows.new_card import card_for
from flows.plain_json import plain_json
from flows.progress import progress_bar
from flows.settings import Settings
from flows.validation import ValidationPolicy, ValidationReport, load_validation_policy, validate_dataset
from flows.validation.batch import arrivals, judge_batch, require_same_card
from flows.validation.drift import Drift
from flows.validation.drift import drift as drift_between
from flows.validation.measuring import PairFiles, files_of, measure
from flows.validation.page import write_page
from flows.validation.report import listed
from flows.validation.single import description, examine_file

if TYPE_CHECKING:  # the registry takes seconds to import, and only drift needs it
    from flows.registry import Registry, Run

ARTIFACTS = "validation"
"""Folder among the artifacts of a run."""
PAGE, REPORT, DRIFT, DOCS = "page.html", "report.json", "drift.json", "data-docs"


@dataclass(frozen=True)
class Examined:
    """What a look at a dataset, a batch or an image came to."""

    document: dict[str, Any]
    text: str
    passed: bool


def examine(
    settings: Settings,
    path: Path | None,
    task: str | None,
    *,
    new_card: Path | None = None,
    name_pattern: str | None = None,
    drift: bool = False,
) -> Examined:
    """Look at one image, at a batch for a task, at a dataset folder or at a task's data, and keep the report.

    path, task:   one of them at least; both for a batch that a task's data do not hold yet.
    new_card, name_pattern: the card of a new task, or how names tell the field; see `cvdm.card.Card`.
    drift:        compare a task's data with the champion's, too. Raises CvdmError.
    """
    policy = load_validation_policy(settings.params_file)
    if path is not None and (path.is_file() or path.name.lower().endswith(FOLDER_SUFFIXES)):
        single = examine_file(path, policy)
        return Examined(single.as_json(), description(single), single.passed)
    if path is not None and task is not None and _is_batch(settings, path, task):
        return _examine_batch(settings, path, task, policy, new_card, name_pattern)
    root = path or settings.dataset_dir(task or "")
    _require_dataset(settings, root, task)
    report = validate_dataset(root, policy)
    page = keep(report, settings, report.card.task)
    document, text = {**report.as_json(), "page": str(page)}, f"{report.summary()}\nReport: {page}"
    if drift:
        from flows.registry import Registry

        changed = drift_of(Registry.open(settings), report)
        document["drift"] = None if changed is None else changed.as_json()
        text += "\n" + (
            changed.summary()
            if changed
            else "drift: no champion whose data are known; `cvdm retrain` makes one"
        )
    return Examined(document, text, report.passed)


def _is_batch(settings: Settings, path: Path, task: str) -> bool:
    """Whether a folder is for a task, known or new, and no dataset of its own."""
    home = settings.dataset_dir(task)
    if home.is_dir():
        return path.resolve() != home.resolve()
    return path.is_dir() and not (path / CARD_NAME).is_file()


def _require_dataset(settings: Settings, root: Path, task: str | None) -> None:
    """Raise DatasetError, with what is known, where there is no dataset folder, or one of another task."""
    known = ", ".join(settings.known_tasks()) or "none yet"
    if not root.is_dir():
        recorded = not settings.known_tasks() and settings.data_dir.with_suffix(".dvc").is_file()
        hint = "`dvc pull` brings the data that are on record" if recorded else f"the tasks are: {known}"
        raise DatasetError(
            "a folder with low/ and high/, an image, or --task with a known task",
            f"nothing at {root}",
            f"Check the path; {hint}.",
        )
    if not (root / CARD_NAME).is_file():
        raise DatasetError(
            f"a dataset with its {CARD_NAME}, or a batch and the task that it is for",
            f"{root} without a card",
            f"Name the task with --task ({known}, or the name of a new one).",
        )
    if task is not None and (found := load_card(root).task) != task:
        raise DatasetError(
            f"a known task ({known}) or a dataset of {task}", f"a dataset of {found}", "Correct --task."
        )


def validate(settings: Settings, task: str) -> ValidationReport:
    """Check a task's dataset and keep the report. Raises DatasetError with every refusal."""
    policy = load_validation_policy(settings.params_file)
    report = validate_dataset(settings.dataset_dir(task), policy, apart=True)
    keep(report, settings, task, docs=False)
    report.raise_if_failed()
    return report


def keep(
    report: ValidationReport,
    settings: Settings,
    name: str,
    *,
    files: Mapping[str, PairFiles] | None = None,
    batch: Collection[str] = (),
    docs: bool = True,
    also_in: Path | None = None,
) -> Path:
    """Write page, document and Data Docs in the place of earlier ones of this name; returns the page.

    files:   where the images are, if not in the report's folder (any more).
    batch:   names of the pairs that came now, if others were there before.
    also_in: a folder that keeps the page when the next one of this name takes its place.
    docs:    whether to write Data Docs; a page that is stored elsewhere cannot link them.
             Raises StorageError.
    """
    page = page_of(settings, name)
    with replacing(page.with_name(REPORT)) as temporary:
        temporary.write_text(plain_json(report.as_json()) + "\n", encoding="utf-8")
    first = None
    if docs:
        from flows.validation.data_docs import write_data_docs  # takes seconds, which a wrong path should not

        first = write_data_docs(report, page.with_name(DOCS))
    now = datetime.now(UTC)
    write_page(report, page, date=now, docs=first, files=files, batch=batch)
    if also_in is not None:
        write_page(report, also_in / PAGE, date=now, files=files, batch=batch)
    return page


def page_of(settings: Settings, name: str) -> Path:
    """Where the page of this name is kept."""
    return settings.mlruns_dir / "validation" / name / PAGE


def log_validation(registry: Registry, run: Run, report: ValidationReport, page: Path) -> None:
    """Store page and document with a run, and what has changed against the champion's data."""
    registry.artifacts.log_file(run.run_id, page, ARTIFACTS)
    registry.artifacts.log_json(run.run_id, report.as_json(), f"{ARTIFACTS}/{REPORT}")
    changed = drift_of(registry, report)
    if changed is not None:
        registry.artifacts.log_json(run.run_id, changed.as_json(), f"{ARTIFACTS}/{DRIFT}")


def drift_of(registry: Registry, report: ValidationReport) -> Drift | None:
    """The new fields against those of the champion; None where no champion has a table of its data."""
    champion = registry.models.champion(report.card.task)
    if champion is None:
        return None
    run_id, path = registry.models.version(report.card.task, champion).run_id, f"{ARTIFACTS}/{REPORT}"
    if not registry.artifacts.holds(run_id, path):
        return None
    return drift_between(registry.artifacts.read_json(run_id, path)["table"], report.table)


def _examine_batch(
    settings: Settings,
    path: Path,
    task: str,
    policy: ValidationPolicy,
    new_card: Path | None,
    name_pattern: str | None,
) -> Examined:
    """A batch beside the task's data, as an ingest would judge it; nothing is taken in."""
    home = settings.dataset_dir(task)
    scratch = settings.mlruns_dir / "new-card" / f"{task}-batch"
    with card_for(path, home, scratch, new_card, name_pattern) as lent:
        require_same_card(path, lent.file, task)
        card = load_card(lent.file.parent)
    present = files_of(home, card) if home.is_dir() else ()
    batch = arrivals(files_of(path, card), present)
    # a batch counts as a session of its own, unless its names tell sessions
    new = [replace(pair, session=pair.session or path.resolve().name) for pair in batch.new]
    pairs = {pair.name: pair for pair in (*present, *new)}
    with progress_bar("validate", "pair") as progress:
        measured = measure(list(pairs.values()), card, progress)
    names = {pair.name for pair in batch.new}
    verdict = judge_batch(path, card, measured, names, policy, choose_seed=lent.made)
    rejected = (*batch.clashes(), *verdict.rejected)
    page = keep(verdict.everything, settings, f"{task}-batch", files=pairs, batch=verdict.names)
    known, count = len(batch.known), len(batch.new) + len(batch.known) + len(batch.clashing)
    document = {
        "ok": not rejected,
        "task": task,
        "pairs": count,
        "accepted": len(verdict.accepted) + known,
        "known": known,
        "rejected": [finding.as_json() for finding in rejected],
        "warnings": [finding.as_json() for finding in verdict.warnings],
        "scenes": [list(scene) for scene in verdict.scenes],
        "page": str(page),
    }
    lines = [
        f"{path.name} for {task}: {count} pairs, {known} known, {len(verdict.accepted)} new ones accepted",
        *listed(rejected, verdict.warnings),
        f"Report: {page}",
    ]
    return Examined(document, "\n".join(lines), not rejected)
