"""The flow `retrain`: validate -> train -> evaluate -> gate -> promote.

Each step is a plain function that works without Prefect; here it becomes a task of the flow. One retraining
at a time per device, by a lock file. A retraining of the same data, parameters and code as a finished one
returns that one's result, or judges its version again where the gate, the validation or the champion is
another one by now. Call `Settings.prepare_environment` before importing this module: Prefect reads its
environment on import.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar

import prefect
from prefect.cache_policies import NO_CACHE
from prefect.states import State

from cvdm.allocation import keep_freed_memory
from cvdm.errors import DatasetError
from flows.alerts import Alert, Event, require_valid, send, telling_of_failure
from flows.deployment import deployment_of
from flows.device_lock import device_lock
from flows.earlier import ASKED, RetrainResult, finished, planned, result_of, take_up
from flows.energy import log_usage, metering, require_known_country
from flows.evaluate import Comparison, evaluate
from flows.flow_artifacts import GATE_PAGE, show_links, shown_progress
from flows.gate import Decision, Verdict, decide
from flows.gate.page import Shown, decision_page
from flows.history import require_version
from flows.job import Job, chosen_device
from flows.model_card import describe
from flows.progress import told_to
from flows.registry import RESULT, AwayError, Registry, Run
from flows.settings import Settings
from flows.settle import settle, went_back
from flows.start import unless_shifted
from flows.train import Candidate, closing, open_run, start_over, train
from flows.triggers.desk import begin
from flows.usage import Usage
from flows.validate import drift_of, log_validation, page_of, validate
from flows.validation import ValidationReport

EVENTS: dict[Verdict, Event] = {"promote": "promoted", "reject": "rejected", "undecided": "undecided"}
"""How a verdict is told."""
RETRY_SECONDS = (10, 30, 60, 120, 300, 600)
"""Pauses before a step is tried again while the tracking server is away."""

Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


def step(function: Callable[Arguments, Outcome]) -> Callable[Arguments, Outcome]:
    """A plain function as a task of the flow: shown in the orchestrator, never cached or stored by it.

    While the tracking server is away it is tried again: every step goes on where it stopped.
    """
    return prefect.task(
        name=function.__name__.strip("_"),
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=len(RETRY_SECONDS),
        retry_delay_seconds=list(RETRY_SECONDS),
        retry_condition_fn=_server_was_away,
    )(function)


def _server_was_away(_task: Any, _run: Any, state: State) -> bool:
    return isinstance(state.result(raise_on_failure=False), AwayError)


@prefect.flow(name="retrain", flow_run_name="{task} {preset}")
def retrain(
    task: str,
    preset: str = "cpu",
    *,
    init: str = "auto",
    seed: int | None = None,
    data_version: str | None = None,
    force: bool = False,
    trigger: str = "manual",
    ticket: str | None = None,
) -> RetrainResult:
    """Retrain one task by a preset of params.yaml and promote the candidate if the gate says so.

    init: where the weights start, `auto`, `scratch`, `base` or `champion`; see flows/start.py.
    seed: training seed instead of the preset's. force: train anew even when nothing has changed.
    data_version: what the data folder must hold; see flows/history.py.
    trigger, ticket: what it is started for and by which decision; see flows/triggers/.
    Raises CvdmError, whose message says what to do; run again, it goes on where it stopped.
    """
    settings = Settings.read()
    with telling_of_failure(settings, task):
        require_valid(settings)
        require_known_country(settings)
        device = chosen_device(settings.device)
    keep_freed_memory()
    with (
        device_lock(settings.mlruns_dir / "locks", device, f"retrain {task}"),
        telling_of_failure(settings, task),
        told_to(shown_progress(task)),
    ):
        begin(settings, task, trigger, ticket)
        if data_version is not None:
            require_version(settings, data_version)
        registry = step(open_registry)(settings)
        try:
            job = step(planned)(registry, task, preset, init=init, seed=seed, settings=settings)
        except DatasetError:
            step(validate)(settings, task)  # says it better, with every problem
            raise
        earlier = None if force else step(finished)(registry, job)
        return earlier or retrain_anew(registry, job, force=force, trigger=trigger)


def retrain_anew(registry: Registry, job: Job, *, force: bool, trigger: str) -> RetrainResult:
    """The five steps, and what is written around them; what was trained on equal evidence is judged again,
    unless `force` drops it. Whatever asks the tracking server is a step: it may be away for a while.
    """
    began, asked = time.monotonic(), job
    report = step(validate)(job.settings, job.task)
    drift = step(drift_of)(registry, report)
    if drift is not None and drift.shifted:
        send(job.settings, Alert("drift", job.task, drift.summary()))
    start = unless_shifted(job.start, drift)
    if start is not job.start:
        job = job.starting_from(start)
        if not force and (earlier := step(repeated)(registry, job, asked)):
            return earlier
    step(start_over if force else take_up)(registry, job)
    tags = {"trigger": trigger, ASKED: asked.evidence}
    run = step(opened)(registry, job, report, tags)
    with closing(registry, run), metering(job, registry, run) as meter, registry.runs.watching(run):
        candidate = step(train)(job, registry, run)
        comparison = step(evaluate)(job, registry, candidate)
        decision = step(gate)(job, registry, candidate, comparison)
        decision = step(promote)(job, registry, candidate, comparison, decision)
        step(tell)(job, candidate, decision)
        usage = meter.stop()
        step(describe)(job, registry, candidate, comparison, decision, usage)
        result = result_of(job, candidate, comparison, decision, time.monotonic() - began)
        step(conclude)(job, registry, run, result, usage)
    shutil.rmtree(job.folder, ignore_errors=True)
    return result


def open_registry(settings: Settings) -> Registry:
    """The registry of the settings. Raises RegistryError."""
    return Registry.open(settings)


def repeated(registry: Registry, job: Job, asked: Job) -> RetrainResult | None:
    """The finished result of what validation has made of `asked`, which finds it at once the next time."""
    earlier = finished(registry, job)
    if earlier is not None:
        registry.runs.set_tags(earlier.run_id, {ASKED: asked.evidence})
    return earlier


def opened(registry: Registry, job: Job, report: ValidationReport, tags: Mapping[str, str]) -> Run:
    """The job's run, a new one or the one to go on with, and on it what is known before training."""
    run = open_run(job, registry)
    registry.runs.set_tags(run.run_id, tags)
    log_validation(registry, run, report, page_of(job.settings, job.task))
    show_links(job.settings, job.task, registry.runs.experiment(job.task), run.run_id)
    return run


def gate(job: Job, registry: Registry, candidate: Candidate, comparison: Comparison) -> Decision:
    """Decide, and keep every test with its numbers among the run's artifacts, for programs and for people."""
    decision = decide(comparison.candidate, comparison.champion, job.policy, comparison.background)
    run_id = candidate.run.run_id
    registry.artifacts.log_json(run_id, decision.as_json(), "gate/decision.json")
    shown = Shown(
        task=job.task,
        version=candidate.version,
        champion_version=comparison.champion_version,
        candidate=comparison.candidate,
        champion=comparison.champion,
        background=comparison.background,
        date=datetime.now(UTC),
    )
    registry.artifacts.log_bytes(run_id, decision_page(decision, shown).encode(), GATE_PAGE)
    return decision


def promote(
    job: Job, registry: Registry, candidate: Candidate, comparison: Comparison, decision: Decision
) -> Decision:
    """Carry the decision out and write it on run and version; returns the decision that stands."""
    compared = comparison.champion_version
    standing = settle(
        registry,
        job.task,
        candidate.version,
        decision,
        compared=compared,
        deployment=deployment_of(job.settings, registry),
    )
    run_id = candidate.run.run_id
    registry.runs.set_tags(run_id, {"verdict": standing.verdict, "reasons": "; ".join(standing.reasons)})
    # tables and legends of charts show the name alone
    registry.runs.rename(run_id, f"v{candidate.version} {standing.verdict} {job.preset}")
    return standing


def tell(job: Job, candidate: Candidate, decision: Decision) -> None:
    """Send what was decided to whoever is told of it."""
    event: Event = "rolled back" if went_back(decision) else EVENTS[decision.verdict]
    told = f"version {candidate.version}: {'; '.join(decision.reasons)}"
    send(job.settings, Alert(event, job.task, told))


def conclude(job: Job, registry: Registry, run: Run, result: RetrainResult, usage: Usage) -> None:
    """Write what the retraining came to and what it took, and close its run; again, it changes nothing."""
    log_usage(registry, run, usage)
    registry.artifacts.log_json(run.run_id, result.as_json(), RESULT)
    registry.runs.set_tags(run.run_id, {"judgement": job.judgement})
    registry.runs.finish(run.run_id)
