"""Train a candidate and register it: the loop of `cvdm.training`, with every fact written to its run.

Rerunning the same job after any interruption continues training and run where they stopped; steps that the
run already has are not written again. While the tracking server is away, facts wait in an outbox
(flows/outbox.py), and pictures are drawn beside the training (flows/easel.py). Not covered: a kill -9 in the
milliseconds between a checkpoint and the row of its step loses that row.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from uuid import uuid4

from cvdm.build import build_checkpoint, golden_input
from cvdm.card import SPLITS
from cvdm.checkpoint import load_checkpoint, save_checkpoint
from cvdm.progress import note
from cvdm.storage import replacing
from cvdm.training import Step
from cvdm.training import train as training_steps
from cvdm.training_state import read_best, read_state
from cvdm.validation import Validation
from flows.catalogue import INTERVAL_GUARANTEE
from flows.easel import Easel
from flows.job import Job
from flows.outbox import Outbox
from flows.progress import progress_bar
from flows.registry import FAILURE, MACHINE, Registry, RegistryError, Run
from flows.snapshot import snapshot_files, snapshot_pictures

LOG_EVERY = 10
"""Steps between two rows of metrics; the first, the last and validations are always written."""
FLUSH_SECONDS = 10.0
"""Rows wait at most so long to be sent together."""
RUN_NOTE = "run.json"
"""Where a job's folder names the run to go on with."""
ATTEMPT_NOTE = "attempt"
"""Where it names the run that is being opened, which has no other name yet."""
ENVIRONMENT = "environment.txt"
"""The versions of all packages that trained, among the artifacts."""
PROGRESS_METRIC = "loss/total"
"""The metric by which a resumed run knows how far it was written."""


@dataclass(frozen=True)
class Candidate:
    """A trained and registered model, not yet judged."""

    run: Run
    version: int
    checkpoint: Path
    """Its directory, downloaded from the registry: what is judged is what would serve."""


def open_run(job: Job, registry: Registry) -> Run:
    """The run of an interrupted attempt at this job, or a new one."""
    reference, attempt = job.folder / RUN_NOTE, job.folder / ATTEMPT_NOTE
    noted = noted_run(job.folder)
    if noted is not None and (run := registry.runs.reopen(noted)) is not None:
        return run
    if not attempt.is_file():
        with replacing(attempt) as temporary:
            temporary.write_text(uuid4().hex, encoding="utf-8")
    run = registry.runs.start(
        job.task,
        f"{job.preset} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}",
        params=job.params(),
        tags=job.tags() | {MACHINE: job.settings.machine},
        attempt=attempt.read_text(encoding="utf-8"),
    )
    registry.runs.log_dataset(
        run.run_id,
        name=job.task,
        digest=job.dataset_digest,
        source={"uri": job.dataset.root.as_uri(), "dvc_version": job.data_version},
        profile={"pairs": len(job.dataset.pairs)}
        | {f"{split}_pairs": len(job.dataset.split(split)) for split in SPLITS},
    )
    with replacing(reference) as temporary:
        temporary.write_text(json.dumps({"run_id": run.run_id}) + "\n", encoding="utf-8")
    attempt.unlink()
    return run


def noted_run(folder: Path) -> str | None:
    """The run that a job's folder names; None for one that has none yet."""
    try:
        return str(json.loads((folder / RUN_NOTE).read_text(encoding="utf-8"))["run_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def start_over(registry: Registry, job: Job) -> None:
    """Drop what an interrupted attempt at this job has left, and close its run."""
    run_id = noted_run(job.folder)
    if run_id is not None:
        registry.cleaning.close(run_id, "trained anew, as a person asked for")
    shutil.rmtree(job.folder, ignore_errors=True)


@contextmanager
def closing(registry: Registry, run: Run) -> Iterator[None]:
    """Close the run when the block fails, with the status that its end deserves; it can be reopened."""
    try:
        yield
    except BaseException as error:
        status = "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED"
        try:
            registry.runs.set_tags(run.run_id, {FAILURE: f"{type(error).__name__}: {error}"})
            registry.runs.finish(run.run_id, status)
        except RegistryError as unreachable:
            error.add_note(f"The run could not be closed: {unreachable}")
        raise


def train(job: Job, registry: Registry, run: Run) -> Candidate:
    """Train or go on training, calibrate, register. Raises TrainingError, CheckpointError, StorageError."""
    registered = registry.models.version_of_run(job.task, run.run_id)
    if registered is None:
        registry.artifacts.log_bytes(run.run_id, installed_versions().encode(), ENVIRONMENT)
        follow_training(job, registry, run)
        directory = build(job)
        guarantee = {INTERVAL_GUARANTEE: load_checkpoint(directory).calibration.guarantee()}
        number = registry.models.register(job.task, run, directory, job.tags() | guarantee)
        registry.runs.set_tags(run.run_id, {"version": str(number)})
        registry.runs.rename(run.run_id, f"v{number} {job.preset}")
    else:
        number = registered.number
    copy = job.folder / f"version-{number}"
    if not copy.is_dir():
        registry.models.download(job.task, number, copy)
    return Candidate(run, number, copy)


def installed_versions() -> str:
    """What is installed beside this process, as lines `name==version` in alphabetical order."""
    found = {entry.name.lower().replace("_", "-"): entry.version for entry in distributions()}
    return "".join(sorted(f"{name}=={number}\n" for name, number in found.items()))


def follow_training(job: Job, registry: Registry, run: Run) -> None:
    """Run the training loop to its end and write what it yields. Raises RegistryError when that cannot be."""
    log = StepLog(registry, run, job.state_path)
    steps = training_steps(
        job.dataset, job.recipe, state_path=job.state_path, device=job.device, base=job.start.base
    )
    with progress_bar("train", "step") as progress:
        try:
            for step in steps:
                progress(step.step, step.total)
                for told in (*log.add(step), *step.news):
                    note(f"step {step.step}: {told}")
        except BaseException:
            log.leave()
            raise
        finally:
            log.offer()
    log.deliver()
    trained, best = read_state(job.state_path)["step"], read_best(job.state_path)
    registry.runs.set_tags(run.run_id, {"steps_trained": str(trained), "best_step": str(best.step)})


def build(job: Job) -> Path:
    """Calibrate the trained weights into a checkpoint directory, unless an earlier attempt did."""
    directory = job.folder / "checkpoint"
    if directory.is_dir():
        return directory
    with progress_bar("calibrate", "image") as progress:
        checkpoint = build_checkpoint(
            job.dataset,
            job.recipe,
            job.state_path,
            git_commit=job.git_commit,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            device=job.device,
            base=job.start.base,
            progress=progress,
        )
    save_checkpoint(directory, checkpoint, golden_input(job.dataset))
    return directory


class StepLog:
    """Writes the steps of a training to its run, in batches, each step once.

    state_path: the training state on disk, of which the run keeps the latest one that was validated.
    """

    def __init__(self, registry: Registry, run: Run, state_path: Path) -> None:
        folder = state_path.parent / "outbox"
        self._outbox = Outbox(folder, registry, run, progress_metric=PROGRESS_METRIC)
        self._easel = Easel(folder)
        self._state_path = state_path
        self._written = self._outbox.last_step()
        self._offered = time.monotonic()

    def add(self, step: Step) -> tuple[str, ...]:
        """Take a step; of a validation the pictures follow later. Returns what a person should know.

        Raises StorageError.
        """
        if step.step <= self._written:
            return ()
        if step.validation is not None:
            self._add_validation(step.step, step.validation)
        if step.step == 1 or step.step % LOG_EVERY == 0 or step.validation is not None:
            # last, for a step that has its row is not added again
            self._outbox.add_row(step.step, step_metrics(step))
        if step.validation is None and time.monotonic() - self._offered < FLUSH_SECONDS:
            return ()
        away = self.offer()
        return () if away is None else (f"metrics wait, training goes on. {away}",)

    def offer(self) -> str | None:
        """Send what waits if the server is there; returns why not, the first time that it is away."""
        self._offered = time.monotonic()
        return self._outbox.offer()

    def deliver(self) -> None:
        """Draw and send what waits. Raises DrawingError, RegistryError; it waits on then.

        A picture that cannot be drawn keeps no numbers back.
        """
        try:
            self._easel.finish()
        finally:
            self._outbox.deliver()

    def leave(self) -> None:
        """End what draws beside this process; pictures that it had no time for wait."""
        self._easel.leave()

    def _add_validation(self, step: int, validation: Validation) -> None:
        for path, content in snapshot_files(step, validation).items():
            self._outbox.add_file(path, content)
        for order in snapshot_pictures(step, validation):
            self._easel.put(order)
        self._easel.work()
        self._outbox.add_copy(f"checkpoints/{self._state_path.name}", self._state_path)


def step_metrics(step: Step) -> dict[str, float]:
    """The facts of a step under the names that the tracking server shows."""
    values = {f"loss/{name}": value for name, value in step.losses.items()}
    values |= {
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm,
        "seconds_per_step": step.seconds,
    }
    if step.validation is not None:
        values |= {"validation/crps": step.validation.crps, "validation/psnr": step.validation.psnr}
    return values
