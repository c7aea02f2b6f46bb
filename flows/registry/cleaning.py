"""What housekeeping may take from the store: files of old runs and versions, runs that nobody continues.

Metrics, parameters, tags and pictures of a run are never taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mlflow.entities import RunTag
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from flows.registry.connection import Connection, reporting_failures
from flows.registry.models import model_name
from flows.registry.tracking import MACHINE, RESULT, all_runs

STATES = "checkpoints"
"""Folder of the training state among a run's artifacts."""
REAPED = "reaped"
"""Tag of a run that was closed because nobody continues it: why."""


@dataclass(frozen=True)
class RunFacts:
    """One run, as far as housekeeping looks at it."""

    run_id: str
    task: str
    status: str
    """RUNNING, FINISHED, FAILED or KILLED."""
    started: int
    """Milliseconds since 1970."""
    ended: int | None
    machine: str = ""
    """Where it was begun; empty for one from before that was kept."""


@reporting_failures
class Cleaning:
    """Looks and removals in one store. Every method raises RegistryError when the store fails."""

    def __init__(self, connection: Connection) -> None:
        self._client = connection.client
        self.uri = connection.uri

    def runs(self) -> list[RunFacts]:
        """Every run that a retraining made, newest first."""
        found = all_runs(self._client, "")
        return [_facts(run) for run in found if "task" in run.data.tags]

    def close(self, run_id: str, why: str) -> None:
        """End a run that is RUNNING; the reason becomes a tag. One that was removed is left alone.

        As FINISHED where it had come to a verdict before and was only judged again, else as KILLED.
        """
        known = all_runs(self._client, f"attributes.run_id = '{run_id}'")
        if not any(run.info.status == "RUNNING" for run in known):
            return
        concluded = any(entry.path == RESULT for entry in self._client.list_artifacts(run_id))
        self._client.log_batch(run_id, tags=[RunTag(REAPED, why)])
        self._client.set_terminated(run_id, "FINISHED" if concluded else "KILLED")

    def state_bytes(self, run_id: str) -> int:
        """Size of the training state that a run keeps; 0 without one."""
        return sum(entry.file_size or 0 for entry in self._client.list_artifacts(run_id, STATES))

    def drop_state(self, run_id: str) -> None:
        """Remove the training state of a run."""
        root = self._client.get_run(run_id).info.artifact_uri
        get_artifact_repository(root, tracking_uri=self.uri).delete_artifacts(STATES)

    def version_bytes(self, model_id: str) -> int:
        """Size of a version's files."""
        return _size(self._repository(model_id), None)

    def delete_version(self, task: str, number: int, model_id: str) -> None:
        """Remove a version and its files; its run stays as it is.

        The version goes last: while it is there, an interrupted removal is found and ended the next time.
        """
        self._repository(model_id).delete_artifacts(None)
        self._client.delete_model_version(model_name(task), str(number))
        self._client.delete_logged_model(model_id)

    def _repository(self, model_id: str) -> Any:
        location = self._client.get_logged_model(model_id).artifact_location
        return get_artifact_repository(location, tracking_uri=self.uri)


def _facts(run: Any) -> RunFacts:
    info = run.info
    tags = run.data.tags
    machine = tags.get(MACHINE, "")
    return RunFacts(info.run_id, tags["task"], info.status, info.start_time, info.end_time, machine)


def _size(repository: Any, path: str | None) -> int:
    entries = repository.list_artifacts(path)
    return sum(
        _size(repository, entry.path) if entry.is_dir else int(entry.file_size or 0) for entry in entries
    )
