"""Measure candidate and champion on the current test fields, with the same seeds, draws and steps."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.evaluation import Evaluation
from cvdm.field_of_view import FieldOfView
from cvdm.measuring import evaluate as measure
from cvdm.patches import ImagePair
from cvdm.posterior import conclude
from cvdm.probes import mean_answers, probe_model
from cvdm.probing import Answer
from cvdm.schedule_drift import schedule_drift
from cvdm.validation import validation_crops
from flows.aliases import standing
from flows.easel import Easel, Order
from flows.exhibits import Exhibits, Shown, side_by_side
from flows.gate import Background, strata_of
from flows.job import Job
from flows.progress import progress_bar
from flows.registry import Registry
from flows.shadow import ShadowSummary, shadow_summary
from flows.start import learned_fields
from flows.train import Candidate

PICTURED_FIELDS = 4
"""Test fields that are shown as pictures."""
PER_FIELD = "evaluation/per-field.json"
"""Scores of the candidate, a row per test field: as a table, MLflow shows it for several runs at once."""
SPEED = "test/seconds_per_megapixel"
BASELINE = "versus"
"""Before a baseline's scores. MLflow sorts its charts by name: what is alike in all runs should come last."""
PROBE = "probe"
"""Before what the candidate makes of planted and erased structures."""
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
    probes: Mapping[str, Mapping[str, Answer]] = field(default_factory=dict)
    """By test field and probe, what the candidate makes of planted and erased structures (`cvdm.probes`)."""


def evaluate(job: Job, registry: Registry, candidate: Candidate) -> Comparison:
    """Measure both models and write scores and pictures to the candidate's run."""
    checkpoint = load_checkpoint(candidate.checkpoint, device=job.device)
    own = Exhibits(checkpoint.calibration.level, f"{job.task} version {candidate.version}")
    version, theirs = incumbent(job.task, registry, candidate.version), None
    with drawing(job) as easel:
        ours = _measure(job, checkpoint, "evaluate", easel, own.add)
        _put(easel, *own.curves())
        if version is not None:
            champion = _downloaded(job, registry, version)
            names = (f"version {candidate.version}", f"version {version}")

            def beside(shown: Shown) -> Order:
                return side_by_side(shown.image, own.means[shown.image.field], shown.result.mean, names)

            theirs = _measure(job, champion, names[1], easel, beside, with_baselines=False)
            _put(easel, _drift(job, registry, candidate, checkpoint, champion, names))
        with progress_bar("probe", "field") as progress:
            probes = probe_model(checkpoint, job.dataset, progress)
        background = _background(job, registry, candidate, version)
        comparison = Comparison(ours, theirs, version, background, probes)
        _log_scores(registry, candidate, comparison)
        level = checkpoint.calibration.level
        _put(easel, _scores_picture(job, candidate, comparison), _strata_picture(job, candidate, ours, level))
        easel.finish()
        for file in sorted(one for one in easel.drawn.rglob("*") if one.is_file()):
            folder = file.parent.relative_to(easel.drawn).as_posix()
            registry.artifacts.log_file(candidate.run.run_id, file, folder)
    for path, content in own.files().items():
        registry.artifacts.log_bytes(candidate.run.run_id, content, path)
    return comparison


@contextmanager
def drawing(job: Job) -> Iterator[Easel]:
    """An easel of its own for the block; what it has drawn goes with it, unless the block fails."""
    folder = job.folder / "drawing"
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed or was killed
    easel = Easel(folder)
    try:
        yield easel
    finally:
        easel.leave()
    shutil.rmtree(folder, ignore_errors=True)  # only now: a DrawingError names the log in it


def _put(easel: Easel, *orders: Order) -> None:
    for order in orders:
        easel.put(order)
    easel.work()


def _background(job: Job, registry: Registry, candidate: Candidate, champion: int | None) -> Background:
    """What the registry and the images say; marks the run as one that looked at these test fields."""
    fields, run_id = job.dataset.fields("test"), candidate.run.run_id
    tag = {TEST_FIELDS: hashlib.sha256("\n".join(fields).encode()).hexdigest()}
    registry.runs.set_tags(run_id, tag)
    # those before it: a champion that is judged again has not had later candidates as looks of its own
    earlier = registry.runs.finished(job.task, tag, before=run_id)
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
    easel: Easel,
    picture: Callable[[Shown], Order],
    *,
    with_baselines: bool = True,
) -> Evaluation:
    """Score a model; one image of each of the first fields is shown as `picture` orders it."""
    wanted = sorted(job.dataset.fields("test"))[:PICTURED_FIELDS]

    def show(image: ImagePair, view: FieldOfView, draws: np.ndarray) -> None:
        if image.field in wanted:
            wanted.remove(image.field)
            # drawn later: what a restoration takes is measured here
            easel.put(picture(Shown(image, conclude(checkpoint, view, draws))))

    with progress_bar(label, "image") as progress:
        return measure(
            checkpoint,
            job.dataset,
            "test",
            sampling=job.recipe.sampling,
            with_baselines=with_baselines,
            progress=progress,
            on_image=show,
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
            f"{BASELINE}/{baseline}/{name}": float(np.mean(list(v.values()))) for name, v in metrics.items()
        }
    run = candidate.run
    registry.artifacts.log_json(run.run_id, ours.as_json(), "evaluation/candidate.json")
    rows = [[field, *(ours.metrics[name][field] for name in ours.metrics)] for field in ours.metrics["crps"]]
    registry.artifacts.log_table(run.run_id, ["field", *ours.metrics], rows, PER_FIELD)
    if theirs is not None:
        scores |= {f"champion/{name}": theirs.mean(name) for name in theirs.metrics}
        document = {"version": comparison.champion_version, **theirs.as_json()}
        registry.artifacts.log_json(run.run_id, document, "evaluation/champion.json")
    probes = mean_answers(comparison.probes)
    scores |= {
        f"{PROBE}/{_plain(name)}_{what}": getattr(answer, what)
        for name, answer in probes.items()
        for what in ("followed", "covered", "told")
    }
    told = {
        one: {name: vars(answer) for name, answer in found.items()}
        for one, found in comparison.probes.items()
    }
    registry.artifacts.log_json(run.run_id, told, "evaluation/probes.json")
    if SPEED not in registry.runs.metrics(run.run_id):  # never twice the same: the first time counts
        scores[SPEED] = ours.seconds_per_megapixel
    registry.runs.log_changed(run, scores)


def _plain(name: str) -> str:
    """As MLflow allows it in the name of a metric."""
    return name.replace("%", "").replace(" ", "_")


def _scores_picture(job: Job, candidate: Candidate, comparison: Comparison) -> Order:
    against = f" against version {comparison.champion_version}" if comparison.champion else ""
    title = f"{job.task} version {candidate.version}{against}, test fields"
    scores = {"candidate": comparison.candidate, "champion": comparison.champion}
    return Order("evaluation/per-field.png", "per_field", {**scores, "title": title})


def _strata_picture(job: Job, candidate: Candidate, ours: Evaluation, level: float) -> Order:
    title = f"{job.task} version {candidate.version}: by kind of pixels, test fields"
    arguments = {"strata": ours.strata, "level": level, "title": title}
    return Order("evaluation/strata.png", "kinds_of_pixels", arguments)


def _drift(
    job: Job,
    registry: Registry,
    candidate: Candidate,
    ours: Checkpoint,
    theirs: Checkpoint,
    names: tuple[str, str],
) -> Order:
    """Log how far the learned schedule is from the champion's (`cvdm.schedule_drift`); gives its picture."""
    crops = validation_crops(job.dataset)
    drift = schedule_drift(ours, theirs, crops)
    registry.runs.log_changed(candidate.run, {DRIFT_METRIC: drift.value})
    seen = {"ours": drift.ours[0], "theirs": drift.theirs[0], "low": crops[0].low}
    arguments = {"value": drift.value, **seen, "names": names}
    return Order("schedule/drift-from-champion.png", "schedule_drift", arguments)
