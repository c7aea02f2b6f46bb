"""What the service did and how it is, for Prometheus.

Make one per process, and only after BentoML's worker has started: it sets the folder in which
prometheus_client keeps its numbers. No label holds what a client chose, an id or a path it tried: each value
would stay in memory.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service.residents import Swap
from service.watching.drift import Judgement

ANSWER_SECONDS = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
WIDTHS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1)
SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600)


@dataclass(frozen=True)
class State:
    """Of the service at one moment."""

    evaluations: int
    """Of a tile by a network, since the last look."""
    requests: int
    """That run or wait."""
    models: int
    """In memory."""
    jobs: Mapping[str, int]
    """State -> images of jobs."""
    memory: Mapping[str, int]
    """process, device, models (their weights) -> bytes in use."""


class Metrics:
    """Counters named `cvdm_*`."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._registry = registry
        self._answers = Counter(
            "cvdm_http_answers", "Answers", ("method", "path", "status"), registry=registry
        )
        self._answer_seconds = Histogram(
            "cvdm_http_seconds",
            "Until an answer begins",
            ("method", "path"),
            registry=registry,
            buckets=ANSWER_SECONDS,
        )
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
        self._evaluations = Counter(
            "cvdm_evaluations", "Evaluations of a tile by a network", registry=registry
        )
        self._waiting = self._gauge("cvdm_requests", "Requests and replays that run or wait", registry)
        self._jobs = self._gauge("cvdm_jobs", "Images of jobs that are kept", registry, ("state",))
        self._memory = self._gauge("cvdm_memory_bytes", "Memory in use", registry, ("of",))
        self._models = self._gauge("cvdm_models", "Models in memory", registry)
        self._seconds = Histogram(
            "cvdm_reconstruction_seconds",
            "From a read upload to its answer, waiting included",
            ("task",),
            registry=registry,
            buckets=SECONDS,
        )

        self._width = Histogram(
            "cvdm_interval_width",
            "Mean width of an image's calibrated interval, as a share of the model's intensity range",
            ("task",),
            registry=registry,
            buckets=WIDTHS,
        )
        self._drift = self._gauge(
            "cvdm_drift_effect",
            "Cliff's delta of the last window of sittings against those before it",
            registry,
            ("task", "feature"),
        )
        self._windows = Counter(
            "cvdm_drift_windows",
            "Windows of sittings that were compared, by whether something had shifted",
            ("task", "shifted"),
            registry=registry,
        )
        self._signals = Counter(
            "cvdm_drift_signals",
            "Signals of drift that were left for a retraining",
            ("task",),
            registry=registry,
        )

        self._shadow = Counter(
            "cvdm_shadow_images", "Images that a challenger restored too", ("task",), registry=registry
        )

    @staticmethod
    def _gauge(name: str, help: str, registry: CollectorRegistry, labels: tuple[str, ...] = ()) -> Gauge:
        return Gauge(name, help, labels, registry=registry, multiprocess_mode="mostrecent")

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)

    def answered(self, method: str, path: str, status: int, seconds: float) -> None:
        """path: as it is routed, with names instead of what a client put in."""
        self._answers.labels(method, path, str(status)).inc()
        self._answer_seconds.labels(method, path).observe(seconds)

    def measured(self, now: State) -> None:
        """What is so at this moment."""
        self._evaluations.inc(now.evaluations)
        self._waiting.set(now.requests)
        self._models.set(now.models)
        for state, images in now.jobs.items():
            self._jobs.labels(state).set(images)
        for of, size in now.memory.items():
            self._memory.labels(of).set(size)

    def restored(self, task: str, version: int, seconds: float) -> None:
        self._done.labels(task, str(version)).inc()
        self._seconds.labels(task).observe(seconds)

    def job_image_ended(self, state: str) -> None:
        self._job_images.labels(state).inc()

    def failed(self, reason: str) -> None:
        self._failed.labels(reason).inc()

    def interval(self, task: str, width: float) -> None:
        self._width.labels(task).observe(width)

    def judged(self, judgement: Judgement) -> None:
        """What became of a window of sittings."""
        self._windows.labels(judgement.task, str(bool(judgement.shifted)).lower()).inc()
        self._signals.labels(judgement.task).inc(judgement.signalled)
        for one in judgement.features:
            if one.effect is not None:
                self._drift.labels(judgement.task, one.feature).set(one.effect)

    def shadowed(self, task: str) -> None:
        self._shadow.labels(task).inc()

    def swapped(self, swap: Swap) -> None:
        self._swaps.labels(swap.version.task).inc()
        self._version.labels(swap.version.task).set(swap.version.number)


def memory_in_use() -> dict[str, int]:
    """Bytes of this process, and of the GPU's memory that it has."""
    found = {}
    with suppress(OSError):  # Linux alone has the file
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        found["process"] = pages * os.sysconf("SC_PAGE_SIZE")
    if torch.cuda.is_available():
        found["device"] = torch.cuda.memory_allocated()
    return found
