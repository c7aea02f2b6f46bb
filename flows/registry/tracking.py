"""Runs: what happened in one training and how it was judged, written by run id."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModelOutput,
    Metric,
    Param,
    RunStatus,
    RunTag,
)
from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
from mlflow.utils.mlflow_tags import (
    MLFLOW_DATASET_CONTEXT,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_USER,
)

from flows.registry.connection import Connection, reporting_failures

BATCH = 1000
"""Metrics in one request; MLflow refuses more."""
LONGEST_VALUE = 5000
"""Characters of a parameter or tag that every store accepts."""
MONITOR_SECONDS = 10
"""Between two looks at the machine's load and memory."""
FAILURE = "failure"
"""Tag on a run that failed: why."""
ATTEMPT = "attempt"
"""Tag on a run: by which it is found again when the server's answer was lost."""
MACHINE = "machine"
"""Tag on a run: where it was begun, and may go on."""
RESULT = "result.json"
"""Artifact of a run that has come to a verdict."""
LONGEST_DIGEST = 36
"""Characters of a dataset's digest that MLflow accepts; the whole of it is a tag of run and version."""


@dataclass(frozen=True)
class Run:
    """A run and the logged model that comes out of it; metrics are written to both."""

    run_id: str
    model_id: str


@dataclass(frozen=True)
class Row:
    """Metrics of one step, as they were at one time."""

    step: int
    at: int
    """Milliseconds since 1970."""
    values: Mapping[str, float]


@reporting_failures
class Runs:
    """Runs of one store. Every method raises RegistryError when the store fails."""

    def __init__(self, connection: Connection) -> None:
        self._client = connection.client
        self._artifact_root = connection.artifact_root
        self.uri = connection.uri

    def start(
        self,
        task: str,
        name: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        attempt: str | None = None,
    ) -> Run:
        """A new run in the experiment of the task, with the (still pending) model that it will make.

        attempt: a name that an earlier call with it shares, whose answer was lost; its run is completed then.
        """
        experiment = self.experiment(task)
        begun = [] if attempt is None else self._runs(f"tags.{ATTEMPT} = '{attempt}'")
        if begun and (run := self.reopen(begun[0].info.run_id)) is not None:
            return run
        shown = {MLFLOW_USER: getpass.getuser(), MLFLOW_SOURCE_NAME: "cvdm retrain"}
        tags = {"task": task, **shown, **tags, **({} if attempt is None else {ATTEMPT: attempt})}
        created = begun[0] if begun else self._client.create_run(experiment, run_name=name, tags=tags)
        run_id = created.info.run_id
        texts = {key: str(value)[:LONGEST_VALUE] for key, value in params.items()}
        self._client.log_batch(run_id, params=[Param(key, value) for key, value in texts.items()])
        model = self._client.create_logged_model(
            experiment,
            name=f"cvdm-{task}",
            source_run_id=run_id,
            params=texts,
            tags={"task": task},
            model_type="cvdm",
        )
        self._client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
        return Run(run_id, model.model_id)

    def experiment(self, task: str) -> str:
        """The id of the experiment that holds all runs of a task."""
        found = self._client.get_experiment_by_name(task)
        if found is not None:
            return found.experiment_id
        root = self._artifact_root
        location = None if root is None else f"{root if '://' in root else Path(root).as_uri()}/{task}"
        return self._client.create_experiment(task, artifact_location=location)

    def reopen(self, run_id: str) -> Run | None:
        """Go on with an interrupted run, whose failure is overcome then; None for one that is not known."""
        for found in self._runs(f"attributes.run_id = '{run_id}'"):
            run = _whole(found)
            if run is None:
                continue
            if FAILURE in found.data.tags:
                self._client.delete_tag(run_id, FAILURE)
            self._client.update_run(run_id, status=RunStatus.to_string(RunStatus.RUNNING))
            return run
        return None

    def rename(self, run_id: str, name: str) -> None:
        """Give a run another name, by which tables and charts know it."""
        self._client.update_run(run_id, name=name)

    def finish(self, run_id: str, status: str = "FINISHED") -> None:
        """Close a run as FINISHED, FAILED or KILLED."""
        self._client.set_terminated(run_id, status)

    def find(self, task: str, tags: Mapping[str, str]) -> str | None:
        """The newest finished run of a task that carries all these tags."""
        return next(iter(self.finished(task, tags)), None)

    def finished(self, task: str, tags: Mapping[str, str], *, before: str | None = None) -> list[str]:
        """The finished runs of a task that carry all these tags, newest first.

        before: a run; only those that started earlier.
        """
        conditions = [f"tags.`{key}` = '{value}'" for key, value in {"task": task, **tags}.items()]
        if before is not None:
            conditions.append(f"attributes.start_time < {self._client.get_run(before).info.start_time}")
        found = self._runs(" and ".join(["attributes.status = 'FINISHED'", *conditions]))
        return [run.info.run_id for run in found]

    def log_series(self, run: Run, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Metrics of several steps, as of now: (step, {name: value})."""
        now = int(time.time() * 1000)
        self.log_rows(run, [Row(step, now, values) for step, values in rows])

    def log_changed(self, run: Run, values: Mapping[str, float]) -> None:
        """Metrics without a step, those whose last value is another.

        So an attempt that repeats what a killed one had written does not write it twice.
        """
        held = self.metrics(run.run_id)
        self.log_series(run, [(0, {name: new for name, new in values.items() if held.get(name) != new})])

    def log_rows(self, run: Run, rows: Iterable[Row]) -> None:
        """Rows in their order, each whole or not at all."""
        batch: list[Metric] = []
        for row in rows:
            metrics = [
                Metric(name, float(value), row.at, row.step, model_id=run.model_id, run_id=run.run_id)
                for name, value in row.values.items()
            ]
            if len(batch) + len(metrics) > BATCH:
                self._client.log_batch(run.run_id, metrics=batch)
                batch = []
            batch += metrics
        if batch:
            self._client.log_batch(run.run_id, metrics=batch)

    def last_step(self, run: Run, metric: str) -> int:
        """The last step at which a metric was written; 0 before the first."""
        history = self._client.get_metric_history(run.run_id, metric)
        return max((entry.step for entry in history), default=0)

    def metrics(self, run_id: str) -> dict[str, float]:
        """The last value of every metric of a run."""
        return dict(self._client.get_run(run_id).data.metrics)

    def tags(self, run_id: str) -> dict[str, str]:
        """The tags of a run."""
        return dict(self._client.get_run(run_id).data.tags)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Write tags, over older ones of the same name."""
        self._client.log_batch(
            run_id, tags=[RunTag(key, value[:LONGEST_VALUE]) for key, value in tags.items()]
        )

    def describe(self, run_id: str, text: str) -> None:
        """Write the description of a run, Markdown of at most `LONGEST_VALUE` characters."""
        self.set_tags(run_id, {MLFLOW_RUN_NOTE: text})

    def spent(self, task: str, metric: str) -> list[tuple[int, float]]:
        """For each run of a task that has a metric: its start, in ms since 1970, and the last value."""
        runs = self._runs(f"tags.task = '{task}'")
        return [(run.info.start_time, run.data.metrics[metric]) for run in runs if metric in run.data.metrics]

    @contextmanager
    def watching(self, run: Run) -> Iterator[None]:
        """Write load and memory of the machine to the run while the block lasts, by MLflow's own monitor.

        It is a thread, which ends with the block; where the store does not answer, it gives up in silence.
        """
        monitor = SystemMetricsMonitor(
            run.run_id,
            sampling_interval=MONITOR_SECONDS,
            resume_logging=True,
            tracking_uri=self.uri,
        )
        monitor.start()
        try:
            yield
        finally:
            monitor.finish()

    def log_dataset(
        self, run_id: str, *, name: str, digest: str, source: Mapping[str, Any], profile: Mapping[str, Any]
    ) -> None:
        """Record the dataset that a run learned from as its input.

        source: where it is and its version there. profile: its size in numbers.
        """
        dataset = Dataset(
            name,
            digest[:LONGEST_DIGEST],
            source_type="dvc",
            source=json.dumps(source),
            profile=json.dumps(profile),
        )
        tags = [InputTag(MLFLOW_DATASET_CONTEXT, "training")]
        self._client.log_inputs(run_id, datasets=[DatasetInput(dataset, tags=tags)])

    def _runs(self, condition: str) -> list[Any]:
        return all_runs(self._client, condition)


def _whole(found: Any) -> Run | None:
    """A run as MLflow describes it, if it has its model."""
    outputs = [] if found.outputs is None else found.outputs.model_outputs
    return Run(found.info.run_id, outputs[0].model_id) if outputs else None


def all_runs(client: MlflowClient, condition: str) -> list[Any]:
    """Every run of every experiment that meets a condition of MLflow's search, newest first."""
    experiments = [e.experiment_id for e in client.search_experiments()]
    order = ["attributes.start_time DESC"]
    page = client.search_runs(experiments, condition, order_by=order)
    found = list(page)
    while page.token:
        page = client.search_runs(experiments, condition, order_by=order, page_token=page.token)
        found += page
    return found
