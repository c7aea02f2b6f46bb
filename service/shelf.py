"""Verified models: who is champion, which ones are in memory, and why others are not.

What was asked for stays in memory up to a budget; beyond it the model unused for longest makes room, a
champion too, and is loaded again for whoever asks for it next. Work in flight holds its model to its end.
A version whose registered files are wrong, or which fails its golden replay, is refused for good, and its
reason is kept. Trouble that may pass (memory, disk, network) is kept as a reason too, but after a pause the
version is tried again by whoever asks for it next, the watch included. All state belongs to the event loop;
blocking calls go to threads, golden replays to the device's thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict, defaultdict
from copy import copy

from cvdm.checkpoint import verify_golden
from cvdm.errors import CheckpointError, CvdmError
from service.device import Device, Urgency
from service.errors import NoModelError, RegistryError
from service.loading import Registry, Resident, Version, load

log = logging.getLogger(__name__)
Key = tuple[str, int, str]

PAUSE_SECONDS = 30.0
"""Before a version that met passing trouble is tried again."""


class Shelf:
    """Holds models and loads them, each once, however many ask for it."""

    def __init__(
        self,
        registry: Registry,
        device: Device,
        *,
        torch_device: str,
        budget_bytes: int,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        """budget_bytes: of the weights of all models in memory; a single larger one is held nevertheless."""
        self.champions: dict[str, Version] = {}
        """Task -> the verified version that answers when none is named."""
        self.reasons: dict[Key, CvdmError] = {}
        """Why a version could not be loaded."""
        self.verified: set[Key] = set()
        """Versions whose golden replay succeeded in this process, in memory or not."""
        self._registry = registry
        self._device = device
        self._torch_device = torch_device
        self._held: OrderedDict[Key, Resident] = OrderedDict()  # the one unused for longest first
        self._budget_bytes = budget_bytes
        self._pause_seconds = pause_seconds
        self._again: dict[Key, float] = {}  # when, by the monotonic clock, passing trouble may be over
        self._loading: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def loaded(self) -> int:
        """Models in memory."""
        return len(self._held)

    @property
    def bytes(self) -> int:
        """Of the weights of the models in memory."""
        return sum(resident.bytes for resident in self._held.values())

    def held(self, version: Version) -> Resident | None:
        """The version's model if it is in memory."""
        return self._held.get(version.key)

    async def model(self, version: Version) -> Resident:
        """The version's model, from memory or loaded and verified.

        Raises RegistryError, DownloadError, CheckpointError, NoModelError.
        """
        async with self._loading[version.key]:
            held = self.held(version)
            if held is not None:
                self._held.move_to_end(version.key)
                return held
            known = self.reasons.get(version.key)
            if isinstance(known, CheckpointError):
                raise copy(known)
            if known is not None and time.monotonic() < self._again[version.key]:
                raise copy(known)
            try:
                resident = await self._load_and_verify(version)
            except RegistryError:
                raise
            except Exception as error:  # any: a candidate may fail in every way, and the reason is shown
                raise await self._refuse(version, error) from error
            self.reasons.pop(version.key, None)
            self.verified.add(version.key)
            self._hold(resident)
            return resident

    def enthrone(self, version: Version) -> None:
        """Make a verified version its task's champion, and free the memory of the one before."""
        before = self.champions.get(version.task)
        self.champions[version.task] = version
        if before is not None and before.key != version.key:
            self._held.pop(before.key, None)

    def _hold(self, resident: Resident) -> None:
        """Keep a model in memory, and within the budget those that were used last."""
        self._held[resident.version.key] = resident
        while self.bytes > self._budget_bytes and len(self._held) > 1:
            key, _ = self._held.popitem(last=False)
            log.info("version %d of %s made room in memory", key[1], key[0])

    async def _load_and_verify(self, version: Version) -> Resident:
        directory, checkpoint = await asyncio.to_thread(load, self._registry, version, self._torch_device)
        await self._device.submit(lambda _: verify_golden(directory, checkpoint), Urgency.REPLAY).done
        return Resident(version, checkpoint)

    async def _refuse(self, version: Version, error: Exception) -> CvdmError:
        """Keep the reason, and drop the local copy so that the next attempt downloads it again."""
        reason: CvdmError
        if isinstance(error, CvdmError):
            log.error("%s version %d refused: %s", version.task, version.number, error)
            reason = copy(error)  # without its traceback, whose frames would keep the model in memory
        else:
            log.error("%s version %d could not be loaded", version.task, version.number, exc_info=error)
            reason = NoModelError(
                f"version {version.number} of {version.task} to load",
                type(error).__name__,
                "See the service's log; it is tried again by itself.",
            )
        self.reasons[version.key] = reason
        self._again[version.key] = time.monotonic() + self._pause_seconds
        await asyncio.to_thread(self._registry.forget, version)
        return copy(reason)
