"""Verified models in memory: the champions, a few old versions, and why others are not there.

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
        old_versions: int,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self.champions: dict[str, Resident] = {}
        """Task -> the model that answers when no version is named. Replaced whole, never changed."""
        self.reasons: dict[Key, CvdmError] = {}
        """Why a version could not be loaded."""
        self.verified: set[Key] = set()
        """Versions whose golden replay succeeded in this process, in memory or not."""
        self._registry = registry
        self._device = device
        self._torch_device = torch_device
        self._old: OrderedDict[Key, Resident] = OrderedDict()
        self._old_versions = old_versions
        self._pause_seconds = pause_seconds
        self._again: dict[Key, float] = {}  # when, by the monotonic clock, passing trouble may be over
        self._loading: defaultdict[Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def loaded(self) -> int:
        """Models in memory."""
        return len(self.champions) + len(self._old)

    def held(self, version: Version) -> Resident | None:
        """The version's model if it is in memory."""
        champion = self.champions.get(version.task)
        if champion is not None and champion.version.key == version.key:
            return champion
        return self._old.get(version.key)

    async def model(self, version: Version) -> Resident:
        """The version's model, loaded and verified.

        Raises RegistryError, DownloadError, CheckpointError, NoModelError.
        """
        async with self._loading[version.key]:
            held = self.held(version)
            if held is not None:
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
            return resident

    def enthrone(self, resident: Resident) -> None:
        """Make it its task's champion; requests in flight keep the one they hold."""
        self.champions[resident.version.task] = resident
        self._old.pop(resident.version.key, None)

    def keep(self, resident: Resident) -> None:
        """Hold on to an old version that somebody asked for; the one unused for longest makes room."""
        self._old[resident.version.key] = resident
        self._old.move_to_end(resident.version.key)
        while len(self._old) > self._old_versions:
            self._old.popitem(last=False)

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
