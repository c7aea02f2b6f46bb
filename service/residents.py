"""Which model answers, and the watch that swaps a champion without a restart.

A new champion is loaded beside the old one and replays its golden pair; then one reference moves. Requests
in flight hold the old one and finish on it. A candidate that fails stays out. When the registry does not
answer, or names no champion any more, what is loaded serves on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Set
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cvdm.errors import CvdmError
from service.errors import NoModelError, ParameterError, RegistryError, UnknownTaskError, UnknownVersionError
from service.loading import Catalogue, Registry, Resident, Version
from service.schema import CHALLENGER, CHAMPION, shown
from service.shelf import Shelf

log = logging.getLogger(__name__)
UNDECIDED = "undecided"
"""The gate's word on a version that it could neither promote nor reject."""


@dataclass(frozen=True)
class Swap:
    """A champion took over."""

    version: Version
    before: Version | None


class Residents:
    """What the registry lists, and the models on the shelf that answer for it."""

    def __init__(
        self,
        registry: Registry,
        shelf: Shelf,
        *,
        tasks: tuple[str, ...] = (),
        default_task: str | None = None,
        on_swap: Callable[[Swap], None] = lambda swap: None,
    ) -> None:
        self._registry = registry
        self._shelf = shelf
        self._configured = frozenset(tasks)
        self._default_task = default_task
        self._on_swap = on_swap
        self._catalogue: Catalogue = {}
        self._registry_error: RegistryError | None = None
        self._checked: datetime | None = None
        self._looking, self._looked = asyncio.Lock(), asyncio.Event()

    @property
    def ready(self) -> bool:
        """There is a verified champion."""
        return bool(self._shelf.champions)

    @property
    def loaded(self) -> int:
        """Models in memory."""
        return self._shelf.loaded

    @property
    def bytes(self) -> int:
        """Of the weights of the models in memory."""
        return self._shelf.bytes

    async def watch(self, poll_seconds: float) -> None:
        """Follow the registry until cancelled."""
        while True:
            try:
                await self.refresh()
            except Exception:  # any: the watch must outlive every surprise, and the log shows it
                log.exception("looking at the registry failed")
            await asyncio.sleep(poll_seconds)

    async def refresh(self) -> None:
        """Look at the registry once and verify every task's champion."""
        async with self._looking:
            try:
                await self._look()
                for task in self._catalogue:
                    await self._follow(task)
            except RegistryError as error:
                if self._registry_error is None:
                    log.warning("registry does not answer: %s", error.actual)
                self._registry_error = copy(error)
            else:
                self._registry_error = None

    async def _look(self) -> None:
        try:
            self._catalogue = await asyncio.to_thread(self._registry.catalogue)
        except RegistryError:
            self._looked.set()  # who waits is told so; what nobody foresaw is tried again, and says nothing
            raise
        self._checked = datetime.now(UTC)
        self._looked.set()

    async def get(self, task: str | None, wanted: int | str | None) -> Resident:
        """The model that answers a request: a task's champion, or a version by number or alias.

        Of a service that has just started it waits for the first look at the registry, without which there
        seems to be nothing. Raises UnknownTaskError, UnknownVersionError, ParameterError, NoModelError,
        CheckpointError, RegistryError.
        """
        await self._looked.wait()
        task = self._task_named(task)
        if wanted is None:
            champion = self._shelf.champions.get(task) or self._no_champion(task)
            return await self._shelf.model(champion)
        if self._find(task, wanted) is None:  # perhaps registered since the last look
            await self.refresh()
        version = self._find(task, wanted) or self._no_version(task, wanted)
        return await self._shelf.model(version)

    def is_champion(self, version: Version) -> bool:
        """Whether a version answers when none is named."""
        champion = self._shelf.champions.get(version.task)
        return champion is not None and champion.key == version.key

    def challenger(self, task: str) -> Version | None:
        """The version that would be champion: the alias's, else the newest one if it is undecided."""
        champion = self._shelf.champions.get(task)
        known = self._known(task)
        named = next((version for version in known if CHALLENGER in version.aliases), None)
        if named is None and known and known[0].verdict == UNDECIDED:
            named = known[0]
        if named is None or champion is None or named.key == champion.key:
            return None
        return named

    def card(self, task: str, number: int) -> str:
        """A version's model card, Markdown. Raises UnknownTaskError, UnknownVersionError."""
        task = self._task_named(task)
        version = self._find(task, number) or self._no_version(task, number)
        return version.card or f"Version {number} of {task} has no model card.\n"

    def describe(self) -> dict[str, Any]:
        """The reply of GET /models."""
        error = self._registry_error
        return {
            "ready": self.ready,
            "registry": {
                "reachable": error is None and self._checked is not None,
                "checked": self._checked.isoformat(timespec="seconds") if self._checked else None,
                "error": error.as_dict() if error else None,
            },
            "models": [self._describe(v) for task in sorted(self._tasks()) for v in self._known(task)],
        }

    async def _follow(self, task: str) -> None:
        named, current = self._named(task), self._shelf.champions.get(task)
        if named is None:
            return
        if current is not None and current.key == named.key:
            self._shelf.enthrone(named)  # its aliases and tags may have moved
            return
        try:
            await self._shelf.model(named)
        except RegistryError:
            raise
        except CvdmError:
            return  # the shelf keeps the reason; the old champion serves on
        self._shelf.enthrone(named)
        log.info("%s: champion is version %d (run %s)", task, named.number, named.run_id)
        self._on_swap(Swap(named, current))

    def _named(self, task: str) -> Version | None:
        return next((v for v in self._catalogue.get(task, ()) if CHAMPION in v.aliases), None)

    def _task_named(self, task: str | None) -> str:
        known = sorted(self._tasks())
        task = task or self._default_task or (known[0] if len(known) == 1 else None)
        if not known:
            raise self._registry_silent() or NoModelError(
                "a registered model",
                "an empty registry",
                "Train and promote one, for instance with `cvdm retrain`.",
            )
        if task is None:
            raise ParameterError("a task", "none", f"Add the form field task, one of {', '.join(known)}.")
        if task not in known:
            raise UnknownTaskError(f"one of the tasks {', '.join(known)}", shown(task), "Choose one of them.")
        return task

    def _no_champion(self, task: str) -> Version:
        named = self._named(task)
        if named is not None and named.key in self._shelf.reasons:
            raise copy(self._shelf.reasons[named.key])
        actual = f"version {named.number} still loading" if named else "no champion yet"
        raise self._registry_silent() or NoModelError(
            f"a verified champion of {task}", actual, "Promote a model, or wait and look at GET /models."
        )

    def _no_version(self, task: str, wanted: int | str) -> Version:
        known = ", ".join(str(v.number) for v in reversed(self._known(task)[:20])) or "none so far"
        raise self._registry_silent() or UnknownVersionError(
            f"a registered version of {task} ({known})", str(wanted), "Choose one of them."
        )

    def _registry_silent(self) -> RegistryError | None:
        """Why an answer may be wrong: the registry was not reachable at the last look."""
        return self._registry_error and copy(self._registry_error)

    def _tasks(self) -> Set[str]:
        return self._configured | set(self._catalogue) | set(self._shelf.champions)

    def _known(self, task: str) -> list[Version]:
        listed = list(self._catalogue.get(task, ()))
        champion = self._shelf.champions.get(task)
        if champion is not None and all(v.key != champion.key for v in listed):
            listed.append(champion)  # serves on although the registry lost it
        return listed

    def _find(self, task: str, wanted: int | str) -> Version | None:
        return next((v for v in self._known(task) if v.number == wanted or wanted in v.aliases), None)

    def _describe(self, version: Version) -> dict[str, Any]:
        held, reason = self._shelf.held(version), self._shelf.reasons.get(version.key)
        champion = self._shelf.champions.get(version.task)
        return {
            "task": version.task,
            "model": version.model,
            "version": version.number,
            "run_id": version.run_id,
            "aliases": list(version.aliases),
            "verdict": version.verdict,
            "gate_verdict": version.gate_verdict,
            "dataset_digest": held.checkpoint.record.dataset_digest if held else version.dataset_digest,
            "git_commit": held.checkpoint.record.git_commit if held else version.git_commit,
            "verified": version.key in self._shelf.verified,
            "loaded": held is not None,
            "serving": champion is not None and champion.key == version.key,
            "reason": reason.as_dict() if reason else None,
        }
