"""What retrainings have come to, so that none is repeated: a finished one of equal evidence is the answer.

Evidence is data, parameters, base and science code (flows/job.py); where the gate, the validation or the
champion is another one by now, the version is judged again without training.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cvdm.errors import DatasetError
from cvdm.storage import replacing
from flows.evaluate import Comparison
from flows.gate import Decision
from flows.job import Job
from flows.registry import RESULT, Registry
from flows.settings import Settings
from flows.start import choose_start
from flows.train import RUN_NOTE, Candidate

ASKED = "asked"
"""Tag of a run: the evidence as planned, before validation chose another start."""


@dataclass(frozen=True)
class RetrainResult:
    """What a retraining came to."""

    task: str
    run_id: str
    version: int
    verdict: str
    """promote, reject or undecided."""
    reasons: tuple[str, ...]
    metrics: dict[str, float]
    """Means over the test fields."""
    baselines: dict[str, dict[str, float]]
    """By baseline, then metric; means over the test fields."""
    seconds: float
    """Wall time of the whole flow; of the first one where `repeated`."""
    repeated: bool = False
    """True when an earlier retraining of equal data, parameters and code had this result."""
    init: str = "scratch"
    """Where the weights started."""
    init_reason: str = ""
    champion_version: int | None = None
    """The version that it was judged against; None for the first model of a task."""

    def described(self) -> str:
        """Which one it is, in words."""
        return f"version {self.version} ({self.verdict}, run {self.run_id})"

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def planned(
    registry: Registry, task: str, preset: str, *, init: str, seed: int | None, settings: Settings
) -> Job:
    """The retraining that is asked for, with its start. Raises ConfigError, DatasetError."""
    job = Job.plan(task, preset, seed=seed, settings=settings)
    return job.starting_from(choose_start(init, registry, job))


def earlier_result(
    registry: Registry, task: str, preset: str, *, init: str, seed: int | None, settings: Settings
) -> RetrainResult | None:
    """The result that a retraining would repeat, before it is started."""
    try:
        return finished(registry, planned(registry, task, preset, init=init, seed=seed, settings=settings))
    except DatasetError:
        return None  # validation says it better


def finished(registry: Registry, job: Job) -> RetrainResult | None:
    """The result of a finished retraining with equal evidence and judgement, if its verdict holds.

    It does while the champion is the one that it was judged against, or its own version.
    """
    run_id = _finished_run(registry, job, "evidence")
    if run_id is None and job.start.by_rule:  # who asks for a start gets that one
        run_id = _finished_run(registry, job, ASKED)
    if run_id is None:
        return None
    document = registry.artifacts.read_json(run_id, RESULT)
    result = replace(RetrainResult(**document), reasons=tuple(document["reasons"]), repeated=True)
    serving = registry.models.champion(job.task)
    return result if serving in (result.champion_version, result.version) else None


def _finished_run(registry: Registry, job: Job, key: str) -> str | None:
    return _with_version(registry, job.task, {key: job.evidence, "judgement": job.judgement})


def _with_version(registry: Registry, task: str, tags: dict[str, str]) -> str | None:
    """The newest finished run with these tags whose version is there; housekeeping may have removed it."""
    kept = {version.run_id for version in registry.models.versions(task)}
    return next((run_id for run_id in registry.runs.finished(task, tags) if run_id in kept), None)


def take_up(registry: Registry, job: Job) -> None:
    """Go on with the finished run of equal evidence, if any: its version is judged, not trained, again."""
    note = job.folder / RUN_NOTE
    run_id = None if note.is_file() else _with_version(registry, job.task, {"evidence": job.evidence})
    if run_id is not None:
        with replacing(note) as temporary:
            temporary.write_text(json.dumps({"run_id": run_id}) + "\n", encoding="utf-8")


def result_of(
    job: Job, candidate: Candidate, comparison: Comparison, decision: Decision, seconds: float
) -> RetrainResult:
    """What a retraining has come to. seconds: wall time of the whole flow."""
    scores = comparison.candidate
    return RetrainResult(
        task=job.task,
        run_id=candidate.run.run_id,
        version=candidate.version,
        verdict=decision.verdict,
        reasons=decision.reasons,
        metrics={name: scores.mean(name) for name in scores.metrics},
        baselines={
            name: {metric: float(np.mean(list(values.values()))) for metric, values in metrics.items()}
            for name, metrics in scores.baselines.items()
        },
        seconds=round(seconds, 1),
        init=job.start.kind,
        init_reason=job.start.reason,
        champion_version=comparison.champion_version,
    )
