"""Measure candidate and champion on the current test fields, with the same seeds, draws and steps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.evaluation import Evaluation, OnImage
from cvdm.evaluation import evaluate as measure
from cvdm.field_of_view import FieldOfView
from cvdm.patches import ImagePair
from cvdm.posterior import conclude
from cvdm.schedule_drift import schedule_drift
from cvdm.validation import validation_crops
from flows import pictures, schedule_pictures
from flows.aliases import standing
from flows.exhibits import Shown, exhibits, side_by_side
from flows.gate import Background, strata_of
from flows.job import Job
from flows.progress import progress_bar
from flows.registry import Registry
from flows.shadow import ShadowSummary, shadow_summary
from flows.start import learned_fields
from flows.strata_picture import strata
from flows.train import Candidate

PICTURED_FIELDS = 4
"""Test fields that are shown as pictures."""
PER_FIELD = "evaluation/per-field.json"
"""Scores of the candidate, a row per test field: as a table, MLflow shows it for several runs at once."""
SPEED = "test/seconds_per_megapixel"
DRIFT_METRIC = "schedule/drift_from_champion"
TEST_FIELDS = "test_fields"
"""Tag on a run: digest of the names of the fields that its candidate was judged on."""


@dataclass(frozen=True)
class Comparison:
    """The evidence that the gate decides on."""

    candidate: Evaluation
    champion: Evaluation | None
    """None for the first model of a task."""
    champion_version: int | None
    background: Background


def evaluate(job: Job, registry: Registry, candidate: Candidate) -> Comparison:
    """Measure both models and write scores and pictures to the candidate's run."""
    checkpoint = load_checkpoint(candidate.checkpoint, device=job.device)
    shown, show = _kept(job, checkpoint)
    ours = _measure(job, checkpoint, "evaluate", on_image=show)
    files = exhibits(checkpoint, shown, f"{job.task} version {candidate.version}")
    version = incumbent(job.task, registry, candidate.version)
    theirs = None
    if version is not None:
        champion = _downloaded(job, registry, version)
        by_champion, show = _kept(job, champion)
        theirs = _measure(job, champion, f"version {version}", with_baselines=False, on_image=show)
        names = (f"version {candidate.version}", f"version {version}")
        files |= side_by_side(shown, by_champion, names)
        _log_drift(job, registry, candidate, checkpoint, champion, names)
    comparison = Comparison(ours, theirs, version, _background(job, registry, candidate, version))
    _log_scores(registry, candidate, comparison)
    files["evaluation/per-field.png"] = _scores_picture(job, candidate, comparison)
    title = f"{job.task} version {candidate.version}: by kind of pixels, test fields"
    files["evaluation/strata.png"] = strata(ours, checkpoint.calibration.level, title)
    for path, content in files.items():
        registry.artifacts.log_bytes(candidate.run.run_id, content, path)
    return comparison


def _kept(job: Job, checkpoint: Checkpoint) -> tuple[dict[str, Shown], OnImage]:
    """What is shown of an evaluation, by field, and the callback that keeps it: one image per field."""
    wanted = sorted(job.dataset.fields("test"))[:PICTURED_FIELDS]
    shown: dict[str, Shown] = {}

    def keep(image: ImagePair, view: FieldOfView, draws: np.ndarray) -> None:
        if image.field in wanted and image.field not in shown:
            shown[image.field] = Shown(image, conclude(checkpoint, view, draws))

    return shown, keep


def _background(job: Job, registry: Registry, candidate: Candidate, champion: int | None) -> Background:
    """What the registry and the images say; marks the run as one that looked at these test fields."""
    fields, run_id = job.dataset.fields("test"), candidate.run.run_id
    tag = {TEST_FIELDS: hashlib.sha256("\n".join(fields).encode()).hexdigest()}
    registry.runs.set_tags(run_id, tag)
    earlier = set(registry.runs.finished(job.task, tag)) - {run_id}
    learned = learned_fields(registry, job.task, candidate.version)
    by_champion = None if champion is None else learned_fields(registry, job.task, champion)
    return Background(
        looks=len(earlier) + 1,
        learned=None if learned is None else frozenset(learned),
        learned_by_champion=None if by_champion is None else frozenset(by_champion),
        strata=strata_of(job.dataset.split("test")),
        shadow=None if champion is None else _shadow(registry, job, champion, candidate),
    )


def _shadow(registry: Registry, job: Job, champion: int, candidate: Candidate) -> ShadowSummary | None:
    """What the service saw of the candidate in the champion's shadow, if it did."""
    run_id = registry.models.version(job.task, champion).run_id
    return shadow_summary(job.settings.jobs_dir, run_id, candidate.run.run_id)


def incumbent(task: str, registry: Registry, candidate: int) -> int | None:
    """The version to compare with: the champion, or its predecessor if the candidate is champion already."""
    now = standing(registry, task)
    return now.champion if now.champion != candidate else now.previous


def _measure(
    job: Job,
    checkpoint: Checkpoint,
    label: str,
    *,
    with_baselines: bool = True,
    on_image: OnImage | None = None,
) -> Evaluation:
    with progress_bar(label, "image") as progress:
        return measure(
            checkpoint,
            job.dataset,
            "test",
            sampling=job.recipe.sampling,
            with_baselines=with_baselines,
            progress=progress,
            on_image=on_image,
        )


def _downloaded(job: Job, registry: Registry, version: int) -> Checkpoint:
    copy = job.folder / f"version-{version}"
    if not copy.is_dir():
        registry.models.download(job.task, version, copy)
    return load_checkpoint(copy, device=job.device)


def _log_scores(registry: Registry, candidate: Candidate, comparison: Comparison) -> None:
    ours, theirs = comparison.candidate, comparison.champion
    scores = {f"test/{name}": ours.mean(name) for name in ours.metrics}
    for baseline, metrics in ours.baselines.items():
        scores |= {
            f"baseline/{baseline}/{name}": float(np.mean(list(v.values()))) for name, v in metrics.items()
        }
    run = candidate.run
    registry.artifacts.log_json(run.run_id, ours.as_json(), "evaluation/candidate.json")
    rows = [[field, *(ours.metrics[name][field] for name in ours.metrics)] for field in ours.metrics["crps"]]
    registry.artifacts.log_table(run.run_id, ["field", *ours.metrics], rows, PER_FIELD)
    if theirs is not None:
        scores |= {f"champion/{name}": theirs.mean(name) for name in theirs.metrics}
        document = {"version": comparison.champion_version, **theirs.as_json()}
        registry.artifacts.log_json(run.run_id, document, "evaluation/champion.json")
    if SPEED not in registry.runs.metrics(run.run_id):  # never twice the same: the first time counts
        scores[SPEED] = ours.seconds_per_megapixel
    registry.runs.log_changed(run, scores)


def _scores_picture(job: Job, candidate: Candidate, comparison: Comparison) -> bytes:
    against = f" against version {comparison.champion_version}" if comparison.champion else ""
    title = f"{job.task} version {candidate.version}{against}, test fields"
    return pictures.per_field(comparison.candidate, comparison.champion, title)


def _log_drift(
    job: Job,
    registry: Registry,
    candidate: Candidate,
    ours: Checkpoint,
    theirs: Checkpoint,
    names: tuple[str, str],
) -> None:
    """How far the learned schedule is from the champion's, as `cvdm.schedule_drift` defines it."""
    crops, run = validation_crops(job.dataset), candidate.run
    drift = schedule_drift(ours, theirs, crops)
    registry.runs.log_changed(run, {DRIFT_METRIC: drift.value})
    picture = schedule_pictures.schedule_drift(drift, crops, names)
    registry.artifacts.log_bytes(run.run_id, picture, "schedule/drift-from-champion.png")
