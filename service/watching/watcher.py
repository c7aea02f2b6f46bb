"""Looks at what was restored, off the event loop and off the device, and tells Prometheus what it saw."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from service.loading import Version
from service.metrics import Metrics
from service.watching.drift import DriftWatch
from service.watching.observation import Sample, features_of

log = logging.getLogger(__name__)
MOST_WAITING = 16
"""Images that wait to be looked at; beyond, some are not: a sitting needs no more than some of its own."""


class Watcher:
    """One per process; may be called from any thread."""

    def __init__(self, drift: DriftWatch, metrics: Metrics) -> None:
        self._drift, self._metrics = drift, metrics
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="watching")
        self._room = threading.BoundedSemaphore(MOST_WAITING)

    def look(self, version: Version, owner: str, sample: Sample) -> None:
        """An image that a task's champion restored for somebody."""
        if not self._room.acquire(blocking=False):
            return
        try:
            self._worker.submit(self._observe, version, owner, sample, time.time())
        except RuntimeError:  # closed
            self._room.release()

    def close(self) -> None:
        """What waits is not looked at any more."""
        self._worker.shutdown(wait=True, cancel_futures=True)
        self._drift.close()

    def _observe(self, version: Version, owner: str, sample: Sample, at: float) -> None:
        try:
            self._metrics.interval(version.task, sample.width)
            features = features_of(sample)
            for judgement in self._drift.observe(version.task, version.run_id, owner, features, at):
                self._metrics.judged(judgement)
        except Exception:  # any: nobody's image depends on it, and the log shows it
            log.exception("an image of %s could not be looked at", version.task)
        finally:
            self._room.release()
