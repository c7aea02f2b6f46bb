"""Validation as a step: judge a task's data, keep what was found, compare with the champion's data.

What is judged, and how, lies in flows/validation/; this module knows where the results go:

    mlruns/validation/NAME/page.html       for people
    mlruns/validation/NAME/report.json     for programs
    mlruns/validation/NAME/data-docs/      every expectation with its result
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from cvdm.storage import replacing
from flows.plain_json import plain_json
from flows.registry import Registry, Run
from flows.settings import Settings
from flows.validation import ValidationReport, load_validation_policy, validate_dataset
from flows.validation.data_docs import write_data_docs
from flows.validation.drift import Drift, drift
from flows.validation.page import write_page

ARTIFACTS = "validation"
"""Folder among the artifacts of a run."""
PAGE, REPORT, DRIFT, DOCS = "page.html", "report.json", "drift.json", "data-docs"


def validate(settings: Settings, task: str) -> ValidationReport:
    """Check a task's dataset and keep the report. Raises DatasetError with every refusal."""
    report = validate_dataset(settings.dataset_dir(task), load_validation_policy(settings.params_file))
    keep(report, settings, task)
    report.raise_if_failed()
    return report


def keep(report: ValidationReport, settings: Settings, name: str) -> Path:
    """Write page, document and Data Docs in the place of earlier ones of this name; returns the page."""
    page = page_of(settings, name)
    folder = page.parent
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / REPORT) as temporary:
        temporary.write_text(plain_json(report.as_json()) + "\n", encoding="utf-8")
    docs = write_data_docs(report, folder / DOCS)
    write_page(report, page, date=datetime.now(UTC), docs=docs)
    return page


def page_of(settings: Settings, name: str) -> Path:
    """Where the page of this name is kept."""
    return settings.mlruns_dir / "validation" / name / PAGE


def log_validation(registry: Registry, run: Run, report: ValidationReport, page: Path) -> None:
    """Store page and document with a run, and what has changed against the champion's data."""
    task = report.card.task
    registry.runs.log_file(run.run_id, page, ARTIFACTS)
    registry.runs.log_json(run.run_id, report.as_json(), f"{ARTIFACTS}/{REPORT}")
    changed = drift_of(registry, task, report)
    if changed is not None:
        registry.runs.log_json(run.run_id, changed.as_json(), f"{ARTIFACTS}/{DRIFT}")


def drift_of(registry: Registry, task: str, report: ValidationReport) -> Drift | None:
    """The new fields against those of the champion; None where no champion has a table of its data."""
    champion = registry.models.champion(task)
    if champion is None:
        return None
    run_id, path = registry.models.version(task, champion).run_id, f"{ARTIFACTS}/{REPORT}"
    if not registry.runs.holds(run_id, path):
        return None
    return drift(registry.runs.read_json(run_id, path)["table"], report.table)
