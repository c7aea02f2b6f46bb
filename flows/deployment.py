"""A version on its way to its users: rehearsed in a service process of its own, watched in the running one.

    rehearse  a service is started beside everything else, downloads the version as every service does, and
              restores the golden input over HTTP; the answer must be the golden one
    watch     the service that runs here, if one does, must say within a window that the version serves

A process of its own, because loading in this one proves less: another environment, other settings, another
way to the files. What is wrong with the version is a DeploymentError; a service that cannot start, dies, or
has no room is a ServerError or, where it runs here, a NotTakenOverError: neither says anything about the
version or rejects it.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tifffile

from cvdm.allocation import free_device_memory
from cvdm.errors import CheckpointError
from cvdm.images import read_image
from flows.processes import SERVICE_LIVES, service_server
from flows.promote import NotTakenOverError
from flows.registry import Registry
from flows.restore import restore_at_once
from flows.servers import ServerError, free_port, reachable, running, waiting_line
from flows.settings import Settings
from service.client import ServiceRefusal

POLL_SECONDS, ANSWER_SECONDS = 1.0, 10.0
NEXT_LOOK_SECONDS = 15.0
"""Until a service that follows the registry has looked at it again."""
ASKED = ("samples", "steps", "seed")
"""What a request may choose of the golden pair's sampling; solver and tiles are the model's."""
FAULT_OF_A_VERSION = CheckpointError.__name__
"""How a service says that a version's files or answers are wrong; all else may pass: no room, no network."""


class DeploymentError(CheckpointError):
    """A version does not serve as it should."""


class ServiceDeployment:
    """The way into the service of this machine."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings, self._registry = settings, registry

    def rehearse(self, task: str, version: int) -> None:
        """Replay the golden pair through a service process. Raises DeploymentError, ServerError."""
        free_device_memory()  # the service needs some of what this process has kept after training
        port = free_port("127.0.0.1")
        alone = self._settings.model_copy(update={"host": "127.0.0.1", "tasks": (task,)})
        with (
            tempfile.TemporaryDirectory(prefix="cvdm-rehearsal-") as scratch,
            running(service_server(alone, port, name="rehearsal", alone=True)) as (service,),
        ):
            service.wait_until_ready()
            folder = Path(scratch)
            golden = self._registry.models.download(task, version, folder / "checkpoint") / "golden"
            try:
                replay(service.server.url, task, version, golden, folder / "answer.ome.tif")
            except ServerError:
                service.check_alive()  # how it ended says more
                raise

    def watch(self, task: str, version: int) -> None:
        """Wait until the running service has taken the version over.

        Returns at once where no service runs here, or one of another registry. One that takes connections and
        does not answer runs here: it is waited for like one that does not take over, or one that tells of
        trouble which may pass. Raises DeploymentError for a version that it refuses, NotTakenOverError for
        one that does not serve within the window.
        """
        url = f"http://{reachable(self._settings.host)}:{self._settings.service_port}"
        deadline = time.monotonic() + self._settings.deploy_window_seconds
        if not self._runs(url, deadline) or not self._is_known(url, task, version, deadline):
            return
        deadline = time.monotonic() + self._settings.deploy_window_seconds
        with waiting_line(f"the service takes version {version} over") as tick:
            while True:
                known = models_of(url, task)
                own = next((one for one in known or () if one["version"] == version), {})
                if own.get("serving"):
                    return
                reason = own.get("reason") or {}
                told = " ".join(str(reason.get(part, "")) for part in ("expected", "actual")).strip()
                if reason.get("error") == FAULT_OF_A_VERSION:
                    raise DeploymentError(
                        f"the service to take over version {version} of {task}",
                        told,
                        "See GET /models and the service's log.",
                    )
                if time.monotonic() > deadline:
                    raise self._late(
                        f"take over version {version} of {task}",
                        "no answer" if known is None else told or "another version that serves",
                    )
                tick()
                time.sleep(POLL_SECONDS)

    def _runs(self, url: str, deadline: float) -> bool:
        """Whether a service of this kind runs here. Raises NotTakenOverError for one that hangs till then."""
        while True:
            try:
                return httpx.get(url + SERVICE_LIVES, timeout=ANSWER_SECONDS).is_success
            except httpx.TimeoutException:
                if time.monotonic() > deadline:
                    raise self._late("say that it lives", f"no answer at {url}") from None
            except httpx.HTTPError:  # nobody, or somebody who speaks another language
                return False

    def _late(self, what: str, instead: str) -> NotTakenOverError:
        return NotTakenOverError(
            f"the service to {what} within {self._settings.deploy_window_seconds} s",
            instead,
            "Look at the service's log, then `cvdm promote`; CVDM_DEPLOY_WINDOW_SECONDS gives it more time.",
        )

    def _is_known(self, url: str, task: str, version: int, deadline: float) -> bool:
        """Whether the service follows this registry: it knows the version's run, or will at its next look.

        Raises NotTakenOverError for one that does not say so until the deadline; one that starts again may
        not for a while.
        """
        run = self._registry.models.version(task, version).run_id
        looks_until: float | None = None
        while True:
            known = models_of(url, task)
            if any((one["version"], one["run_id"]) == (version, run) for one in known or ()):
                return True
            if known is not None:
                looks_until = looks_until or time.monotonic() + NEXT_LOOK_SECONDS
                if time.monotonic() > looks_until:
                    return False
            elif time.monotonic() > deadline:
                raise self._late(f"say which versions of {task} it has", "no answer")
            time.sleep(POLL_SECONDS)


def deployment_of(settings: Settings, registry: Registry) -> ServiceDeployment | None:
    """How versions come to serve here; None where the operator wants no rehearsal."""
    return ServiceDeployment(settings, registry) if settings.rehearsal else None


def replay(url: str, task: str, version: int, golden: Path, answer: Path) -> None:
    """Have a service restore the golden input and compare. Raises DeploymentError, ServerError."""
    facts = json.loads((golden / "golden.json").read_text(encoding="utf-8"))
    fields = {"task": task, "version": version, **{name: facts["sampling"][name] for name in ASKED}}
    try:
        restore_at_once(golden / "input.tif", answer, url, fields)
    except ServiceRefusal as error:
        if error.kind != FAULT_OF_A_VERSION:
            raise ServerError(
                f"a service to restore the golden input of version {version} of {task}",
                error.actual,
                "See mlruns/logs/rehearsal.log, and retrain again: what is trained is kept.",
            ) from error
        raise DeploymentError(
            f"version {version} of {task} to restore its golden input",
            str(error),
            "Do not serve this model; register it again from its training run.",
        ) from error
    mean, std, *_ = tifffile.imread(answer)
    allowed = facts["tolerance"] * facts["intensity_range"]
    for name, actual in (("mean", mean), ("std", std)):
        difference = float(np.abs(actual - read_image(golden / f"{name}.tif").pixels).max())
        if not difference <= allowed:  # NaN fails too
            raise DeploymentError(
                f"the golden {name} from a service within {allowed:.4g}",
                f"a difference of {difference:.4g}",
                "Do not serve this model; look for other packages or settings of the service.",
            )


def models_of(url: str, task: str) -> list[dict[str, Any]] | None:
    """What a service says of a task's versions; None where it gives no such answer, or has not looked yet."""
    try:
        reply = httpx.get(f"{url}/models", timeout=ANSWER_SECONDS)
        told = reply.json()
        state = told["registry"]
        looked = reply.is_success and (state["checked"] is not None or state["error"] is not None)
        return [one for one in told["models"] if one["task"] == task] if looked else None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None
