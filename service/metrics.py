"""Prometheus counters of what the service did; BentoML shows them at /metrics beside its own.

Make one per process, and only after BentoML's worker has started: it sets the folder in which
prometheus_client keeps its numbers.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from service.residents import Swap

SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600)


class Metrics:
    """Counters named `cvdm_*`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._done = Counter(
            "cvdm_reconstructions", "Images restored", ("task", "version"), registry=registry
        )
        self._job_images = Counter(
            "cvdm_job_images", "Images of jobs that ended", ("state",), registry=registry
        )
        self._failed = Counter("cvdm_failures", "Requests without an answer", ("reason",), registry=registry)
        self._swaps = Counter("cvdm_swaps", "Champions that took over", ("task",), registry=registry)
        self._version = Gauge(
            "cvdm_model_version",
            "Version of the champion in service",
            ("task",),
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._seconds = Histogram(
            "cvdm_reconstruction_seconds",
            "From a read upload to its answer, waiting included",
            ("task",),
            registry=registry,
            buckets=SECONDS,
        )

    def restored(self, task: str, version: int, seconds: float) -> None:
        self._done.labels(task, str(version)).inc()
        self._seconds.labels(task).observe(seconds)

    def job_image_ended(self, state: str) -> None:
        self._job_images.labels(state).inc()

    def failed(self, reason: str) -> None:
        self._failed.labels(reason).inc()

    def swapped(self, swap: Swap) -> None:
        self._swaps.labels(swap.version.task).inc()
        self._version.labels(swap.version.task).set(swap.version.number)
