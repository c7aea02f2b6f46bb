"""Registered models: one per task, `cvdm-TASK`; versions, their tags, and the aliases that say which serves.

A version is a models-from-code pyfunc around a checkpoint directory, which lies at `artifacts/checkpoint` of
the model's files. The aliases `champion` and `previous` are read from the model itself: a search returns
versions without their aliases (MLflow 3.17).
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import mlflow
import mlflow.pyfunc
import numpy as np
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from mlflow.types import Schema, TensorSpec

import cvdm
from cvdm.checkpoint import load_checkpoint
from cvdm.sight import Sight
from flows.registry.connection import Connection, RegistryError, reporting_failures
from flows.registry.tracking import LONGEST_VALUE, Run

CHAMPION, PREVIOUS = "champion", "previous"
CHECKPOINT = "checkpoint"
"""Key and folder name of the checkpoint directory within a model's artifacts."""
REQUIREMENTS = ("torch", "numpy", "scipy", "scikit-image", "tifffile", "imagecodecs", "pyyaml")
"""What the checkpoint needs to run; given, because MLflow would guess by importing everything."""


@dataclass(frozen=True)
class Version:
    """One registered version of a task's model."""

    task: str
    number: int
    run_id: str
    model_id: str
    """The logged model behind it."""
    created: int
    """Milliseconds since 1970."""
    aliases: tuple[str, ...]
    tags: Mapping[str, str]


def model_name(task: str) -> str:
    """The registered model of a task."""
    return f"cvdm-{task}"


@reporting_failures
class Models:
    """Versions of one store. Every method raises RegistryError when the store fails or lacks something."""

    def __init__(self, connection: Connection) -> None:
        self._client = connection.client
        self.uri = connection.uri

    def register(self, task: str, run: Run, checkpoint: Path, tags: Mapping[str, str]) -> int:
        """Upload a checkpoint directory as the model of `run` and register it; returns its version."""
        with tempfile.TemporaryDirectory() as scratch:
            package = Path(scratch) / "model"
            save_package(checkpoint, package, run)
            self._client.log_model_artifacts(run.model_id, str(package))
        self._client.finalize_logged_model(run.model_id, "READY")
        if model_name(task) not in self._names():
            self._client.create_registered_model(model_name(task), tags={"task": task})
        # The SQL store finds the logged model through the process-wide address only (MLflow 3.17).
        mlflow.set_tracking_uri(self.uri)
        created = self._client.create_model_version(
            model_name(task),
            source=f"models:/{run.model_id}",
            run_id=run.run_id,
            model_id=run.model_id,
            tags={"task": task, "run_id": run.run_id, **tags},
        )
        return int(created.version)

    def tasks(self) -> tuple[str, ...]:
        """The tasks that have a registered model."""
        return tuple(sorted(name.removeprefix("cvdm-") for name in self._names() if name.startswith("cvdm-")))

    def versions(self, task: str) -> tuple[Version, ...]:
        """All versions of a task, newest first; none when nothing is registered yet."""
        aliases = self._aliases(task)
        found = self._client.search_model_versions(f"name = '{model_name(task)}'")
        return tuple(sorted((_version(task, entry, aliases) for entry in found), key=lambda v: -v.number))

    def version(self, task: str, which: int | str) -> Version:
        """A version by number or alias. Raises RegistryError that names those there are."""
        for candidate in self.versions(task):
            if str(candidate.number) == str(which) or which in candidate.aliases:
                return candidate
        known = ", ".join(str(v.number) for v in self.versions(task)) or "none"
        raise RegistryError(
            f"a version or alias '{which}' of {model_name(task)}",
            f"versions {known}",
            f"See `cvdm models --task {task}`, or train one with `cvdm retrain --task {task}`.",
        )

    def version_of_run(self, task: str, run_id: str) -> Version | None:
        """The version that a run registered, if it came that far."""
        return next((v for v in self.versions(task) if v.run_id == run_id), None)

    def champion(self, task: str) -> int | None:
        """The number of the version that serves."""
        return self._aliases(task).get(CHAMPION)

    def previous(self, task: str) -> int | None:
        """The number of the version that served before."""
        return self._aliases(task).get(PREVIOUS)

    def set_alias(self, task: str, alias: str, number: int | None) -> None:
        """Point an alias at a version, or remove it."""
        if number is not None:
            self._client.set_registered_model_alias(model_name(task), alias, str(number))
        elif alias in self._aliases(task):
            self._client.delete_registered_model_alias(model_name(task), alias)

    def set_tags(self, task: str, number: int, tags: Mapping[str, str]) -> None:
        """Write tags of a version, over older ones of the same name."""
        for key, value in tags.items():
            self._client.set_model_version_tag(model_name(task), str(number), key, value[:LONGEST_VALUE])

    def describe(self, task: str, number: int, text: str) -> None:
        """Write the description of a version, Markdown of at most `LONGEST_VALUE` characters."""
        self._client.update_model_version(model_name(task), str(number), text[:LONGEST_VALUE])

    def download(self, task: str, which: int | str, to: Path) -> Path:
        """Copy the checkpoint directory of a version (number or alias) to `to`, which must not exist yet."""
        version = self.version(task, which)
        to.parent.mkdir(parents=True, exist_ok=True)
        # A models:/ address would be looked up in the process-wide registry (MLflow 3.17).
        root = self._client.get_model_version_download_uri(model_name(task), str(version.number))
        uri = f"{root}/artifacts/{CHECKPOINT}"
        with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}.") as scratch:
            Path(download_artifacts(uri, dst_path=scratch, tracking_uri=self.uri)).rename(to)
        return to

    def _names(self) -> list[str]:
        return [model.name for model in self._client.search_registered_models(max_results=1000)]

    def _aliases(self, task: str) -> dict[str, int]:
        try:
            found = self._client.get_registered_model(model_name(task)).aliases
        except MlflowException as error:
            if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                return {}
            raise
        return {alias: int(number) for alias, number in found.items()}


def save_package(checkpoint: Path, package: Path, run: Run) -> None:
    """Write a checkpoint directory as an MLflow model that carries the code it needs."""
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        # MLflow asks for an input example; the golden pair is one, with its answer.
        warnings.simplefilter("ignore", UserWarning)
        named, code = Path(scratch) / CHECKPOINT, Path(scratch) / "cvdm"
        shutil.copytree(checkpoint, named)
        shutil.copytree(Path(cvdm.__file__).parent, code, ignore=shutil.ignore_patterns("__pycache__"))
        mlflow.pyfunc.save_model(
            package,
            python_model=str(Path(__file__).with_name("model_code.py")),
            artifacts={CHECKPOINT: str(named)},
            code_paths=[str(code)],
            signature=signature_of(load_checkpoint(checkpoint).sight),
            pip_requirements=[f"{name}=={installed(name).split('+')[0]}" for name in REQUIREMENTS],
            mlflow_model=Model(run_id=run.run_id, model_id=run.model_id, model_uuid=run.model_id),
        )


def signature_of(sight: Sight) -> ModelSignature:
    """What a model takes, (H, W) or (C, H, W), and what it gives."""
    shape = (len(sight.channels), -1, -1) if sight.channels else (-1, -1)
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), shape)]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (4, -1, -1))]),
    )


def _version(task: str, entry: Any, aliases: Mapping[str, int]) -> Version:
    number = int(entry.version)
    return Version(
        task=task,
        number=number,
        run_id=entry.run_id or "",
        model_id=(entry.source or "").removeprefix("models:/"),
        created=int(entry.creation_timestamp),
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        tags=dict(entry.tags),
    )
