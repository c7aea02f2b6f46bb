"""What the orchestrator shows of a retraining beside states: progress of its steps, links to the evidence.

It costs one small request per step and then one every `PAUSE_SECONDS`. Outside of a flow, and where the
orchestrator does not answer, nothing happens: what is shown never decides what is done.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import create_link_artifact, create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext, TaskRunContext
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from cvdm.addresses import shown_uri
from flows.settings import Settings

GATE_PAGE = "gate/report.html"
"""The gate's decision for people, among the artifacts of its run."""
PAUSE_SECONDS = 5.0
"""Between two updates of one progress."""


def shown_progress(task: str) -> Callable[[str], Callable[[int, int], None]]:
    """For the progress bars of a task's retraining: each is shown in the orchestrator, too."""
    return lambda description: _Progress(task, description)


def show_links(settings: Settings, task: str, experiment: str, run_id: str) -> None:
    """Link from the flow run to where the evidence of its retraining is."""
    for name, artifact, text in (
        ("run", "", "Run in MLflow: losses, schedule, pictures, scores"),
        ("validation", "validation/page.html", "What validation found"),
        ("gate", GATE_PAGE, "The gate's tests, once it has decided"),
    ):
        url = run_page(settings, experiment, run_id, artifact)
        _try(create_link_artifact, link=url, link_text=text, key=_key(task, name))


def run_page(settings: Settings, experiment: str, run_id: str, artifact: str = "") -> str:
    """Address of a run, or of one of its artifacts, in MLflow's interface as `cvdm up` serves it."""
    base = f"http://{settings.host}:{settings.mlflow_port}"
    if settings.tracking_uri.startswith(("http://", "https://")):
        base = shown_uri(settings.tracking_uri).rstrip("/")
    page = f"{base}/#/experiments/{experiment}/runs/{run_id}"
    path = f"{page}/artifacts/{artifact}" if artifact else page
    return f"{path}?workflowType=machine_learning"  # else it opens among its pages for language models


class _Progress:
    """One progress, as the callback (done, total)."""

    def __init__(self, task: str, description: str) -> None:
        self._key, self._description = _key(task, description), description
        self._artifact: UUID | None = None
        self._silent_until = 0.0

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._silent_until and done < total:
            return
        percent = 100 * done / total
        if self._artifact is None:
            self._artifact = _try(
                create_progress_artifact, progress=percent, key=self._key, description=self._description
            )
            failed = self._artifact is None
        else:
            failed = _try(update_progress_artifact, self._artifact, percent) is None
        self._silent_until = float("inf") if failed else now + PAUSE_SECONDS


def _try(request: Callable[..., Any], *arguments: Any, **options: Any) -> UUID | None:
    """Send a request from within a flow, once: None outside of one, and when it fails."""
    if TaskRunContext.get() is None and FlowRunContext.get() is None:
        return None
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):  # by itself it tries for a minute
            made: UUID | None = request(*arguments, **options)
            return made
    except httpx.HTTPError:
        return None


def _key(task: str, name: str) -> str:
    """Lower-case letters, digits and dashes, as the orchestrator demands."""
    return re.sub(r"[^a-z0-9]+", "-", f"{task}-{name}".lower()).strip("-")
