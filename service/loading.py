"""From a model URI to a checkpoint: `models:/cvdm-TASK/NUMBER` -> files -> model. Verifying is the caller's.

The only MLflow import of the service. Nothing is unpickled: of a registered model only the checkpoint
directory is fetched, whose weights are plain tensors. Calls block, sometimes for long: use a thread.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.exceptions import MlflowException

from cvdm.addresses import harmless, without_password
from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.errors import CheckpointError
from service.errors import DownloadError, RegistryError

log = logging.getLogger(__name__)
MODEL_PREFIX = "cvdm-"
CHECKPOINT_ARTIFACT = "artifacts/checkpoint"
"""Where a registered model keeps its checkpoint directory."""
KEPT_DOWNLOADS = 8
"""Checkpoints that stay in the cache folder, newest first."""


@dataclass(frozen=True)
class Version:
    """One registered version of a task's model, as the registry describes it."""

    task: str
    number: int
    run_id: str
    aliases: tuple[str, ...] = ()
    dataset_digest: str | None = None
    git_commit: str | None = None
    verdict: str | None = None
    """The latest word on it, a person's perhaps: promote, reject or undecided; None before there was one."""
    gate_verdict: str | None = None
    """The gate's own, which stays when a person decides otherwise."""
    card: str | None = None
    """Its model card, Markdown."""

    @property
    def model(self) -> str:
        return MODEL_PREFIX + self.task

    @property
    def label(self) -> str:
        """For people."""
        return f"version {self.number} of {self.task}"

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes two sightings the same model, even if somebody rebuilt the registry."""
        return (self.task, self.number, self.run_id)


@dataclass(frozen=True)
class Resident:
    """A verified model in memory. Requests hold the one they started with until they end."""

    version: Version
    checkpoint: Checkpoint

    @property
    def bytes(self) -> int:
        """Of its weights."""
        return sum(values.nbytes for values in self.checkpoint.model.state_dict().values())


Catalogue = Mapping[str, tuple[Version, ...]]
"""Task -> its versions, newest first."""


class Registry:
    """Read-only view of the MLflow registry for some tasks (all `cvdm-*` models when none are named)."""

    def __init__(self, tracking_uri: str, tasks: tuple[str, ...], cache_dir: Path) -> None:
        self._uri = tracking_uri
        self._tasks = tasks
        self._cache = cache_dir
        self._client: MlflowClient | None = None

    def catalogue(self) -> Catalogue:
        """Every version with its aliases. Raises RegistryError when the registry does not answer."""
        try:
            client = self._connect()
            names = [m.name for m in client.search_registered_models(f"name LIKE '{MODEL_PREFIX}%'", 1000)]
            tasks = [name.removeprefix(MODEL_PREFIX) for name in names]
            return {
                task: self._versions(client, task) for task in tasks if not self._tasks or task in self._tasks
            }
        except RegistryError:
            raise
        except Exception as error:  # any: SQL, HTTP and cloud drivers each have their own classes
            raise self._unreachable(str(error)) from harmless(error, self._uri)

    def cached(self, version: Version) -> Path | None:
        """The copy of the version's checkpoint directory that an earlier download left, sound or not."""
        home = self._home(version)
        return home / "checkpoint" if home.is_dir() else None

    def fetch(self, version: Version) -> Path:
        """Download the version's checkpoint directory. Raises RegistryError, DownloadError."""
        home = self._home(version)
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".loading-") as scratch:
            try:
                # Given a models:/ URI, MLflow 3.17 asks the process's global registry, not the one named.
                source = self._connect().get_model_version_download_uri(version.model, str(version.number))
                found = download_artifacts(
                    f"{source}/{CHECKPOINT_ARTIFACT}",
                    dst_path=scratch,
                    tracking_uri=self._uri,
                    registry_uri=self._uri,
                )
            except MlflowException as error:
                if not self._answers(version):
                    raise self._unreachable(str(error)) from harmless(error, self._uri)
                raise DownloadError(
                    f"{CHECKPOINT_ARTIFACT} in models:/{version.model}/{version.number}",
                    self._told(str(error)),
                    "Start the artifact store, or register the model again; it is tried again by itself.",
                ) from harmless(error, self._uri)
            # Another process may have put its own copy there meanwhile, which is as good.
            complete = Path(scratch) / "complete"
            complete.mkdir()
            Path(found).rename(complete / "checkpoint")
            if not home.is_dir():
                complete.rename(home)
        self._prune(home.parent)
        return home / "checkpoint"

    def forget(self, version: Version) -> None:
        """Drop the local copy, so that the next fetch downloads again."""
        shutil.rmtree(self._home(version), ignore_errors=True)

    def _home(self, version: Version) -> Path:
        return self._cache / version.model / f"{version.number}-{version.run_id}"

    def _connect(self) -> MlflowClient:
        scheme, _, path = self._uri.partition(":///")
        if scheme == "sqlite" and not Path(path).is_file():  # MLflow would create an empty one
            raise self._unreachable(f"no database at {path}")
        if self._client is None:
            self._client = MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        return self._client

    def _answers(self, version: Version) -> bool:
        try:
            self._connect().get_model_version(version.model, str(version.number))
        except Exception:  # any: see catalogue
            return False
        return True

    def _versions(self, client: MlflowClient, task: str) -> tuple[Version, ...]:
        name = MODEL_PREFIX + task
        # A search returns versions without their aliases (MLflow 3.17); the model itself knows them.
        pointed: dict[int, list[str]] = {}
        for alias, number in client.get_registered_model(name).aliases.items():
            pointed.setdefault(int(number), []).append(alias)
        found = [_described(task, entry, pointed) for entry in client.search_model_versions(f"name='{name}'")]
        return tuple(sorted(found, key=lambda version: -version.number))

    def _unreachable(self, reason: str) -> RegistryError:
        return RegistryError(
            "the model registry named by CVDM_TRACKING_URI to answer",
            self._told(reason),
            "Start the tracking server or correct the address; models already loaded go on serving.",
        )

    def _told(self, reason: str) -> str:
        """In one line, and without a password: anybody may ask the service how it is."""
        return " ".join(without_password(reason, self._uri).split())[:300]

    @staticmethod
    def _prune(folder: Path) -> None:
        downloads = [path for path in folder.iterdir() if not path.name.startswith(".")]
        for old in sorted(downloads, key=lambda path: -path.stat().st_mtime)[KEPT_DOWNLOADS:]:
            shutil.rmtree(old, ignore_errors=True)


def load(registry: Registry, version: Version, device: str) -> tuple[Path, Checkpoint]:
    """Fetch and read a version, not yet verified. Raises RegistryError, DownloadError, CheckpointError.

    A CheckpointError is about the registered files: a damaged copy in the cache is downloaded again.
    """
    directory = registry.cached(version)
    if directory is not None:
        try:
            return directory, _read(directory, version, device)
        except CheckpointError as error:
            log.warning("%s version %d: copy in the cache dropped: %s", version.task, version.number, error)
            registry.forget(version)
    directory = registry.fetch(version)
    return directory, _read(directory, version, device)


def _read(directory: Path, version: Version, device: str) -> Checkpoint:
    checkpoint = load_checkpoint(directory)
    checkpoint.model.to(device=device)  # apart, because a full device says nothing about the checkpoint
    if checkpoint.record.task != version.task:
        raise CheckpointError(
            f"a model for {version.task}",
            f"one for {checkpoint.record.task}",
            "Register it under its own task.",
        )
    return checkpoint


def chosen_device(setting: str) -> str:
    """`auto` becomes cuda when there is one, else cpu."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if setting == "auto" else setting


def _described(task: str, entry: Any, pointed: Mapping[int, list[str]]) -> Version:
    number = int(entry.version)
    return Version(
        task=task,
        number=number,
        run_id=entry.run_id or entry.tags.get("run_id", ""),
        aliases=tuple(sorted(pointed.get(number, ()))),
        dataset_digest=entry.tags.get("dataset_digest"),
        git_commit=entry.tags.get("git_commit"),
        verdict=entry.tags.get("verdict"),
        gate_verdict=entry.tags.get("gate_verdict"),
        card=entry.description or None,
    )
