"""What a retraining costs: energy, CO2e, device time, memory.

The numbers are estimates, by codecarbon in its offline mode: it asks nobody and writes no file. Where the
processor has an energy counter (RAPL) that is read, which covers everything that runs on the machine;
elsewhere the power is this process's share of the processor's nominal power (TDP), a constant for its model.
Memory is a constant per size, a GPU is read from its own counter. Screens, fans and cooling are not in it.
CO2e is energy times the yearly mean of the country's grid (CVDM_COUNTRY_ISO), or of the world's.

A retraining that is interrupted goes on adding where it stopped: what its attempts cost so far lies in its
folder, at most `MEASURE_SECONDS` old. Not covered: the seconds in which codecarbon looks at the hardware.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvdm.errors import ConfigError, StorageError
from cvdm.storage import replacing
from flows.registry import Registry, RegistryError, Run
from flows.usage import HOURS, WORLD, Usage

if TYPE_CHECKING:
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.output_methods.emissions_data import EmissionsData

    from flows.job import Job
    from flows.settings import Settings

MEASURE_SECONDS = 10
NOTE = "energy.json"
"""Where a job's folder keeps what its attempts cost so far."""
MIB = 2**20


class Meter:
    """Measures from its making until `stop`, on top of what earlier attempts cost."""

    def __init__(self, device: str, country: str, earlier: Usage, note: Path) -> None:
        self._device, self._earlier, self._note = device, earlier, note
        self._grid = country or WORLD
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._ended: float | None = None
        self._total: EmissionsData | None = None
        if device.startswith("cuda"):
            import torch  # takes seconds, and whoever only reads energies needs none of it

            torch.cuda.reset_peak_memory_stats(device)
        self._tracker = _tracker(device, country, self)
        # It looks at the processor's name for seconds, which training need not wait for.
        self._starting = threading.Thread(target=self._tracker.start, daemon=True)
        self._starting.start()

    def stop(self) -> Usage:
        """End the measurement; returns what all attempts have cost together, also when called again."""
        if self._ended is None:
            self._starting.join()
            self._tracker.stop()
            with self._lock:
                self._ended = time.monotonic()
        return self.usage()

    def usage(self) -> Usage:
        """What all attempts have cost together until the latest measurement."""
        ended = time.monotonic() if self._ended is None else self._ended
        kwh, co2e_kg = self._energy()
        attempt = Usage(
            kwh=kwh,
            co2e_kg=co2e_kg,
            device_hours=(ended - self._began) / 3600,
            peak_rss_mib=_peak_rss_mib(),
            peak_device_mib=_peak_device_mib(self._device),
            method=self._method(),
            grid=self._grid,
        )
        return self._earlier.plus(attempt)

    def take(self, total: EmissionsData) -> None:
        """Take codecarbon's running total, and keep it for an attempt that may follow."""
        with self._lock, suppress(StorageError):  # a full disk ends the training by itself
            self._total = total
            if self._ended is None:
                with replacing(self._note) as temporary:
                    temporary.write_text(json.dumps(asdict(self.usage())) + "\n", encoding="utf-8")

    def _energy(self) -> tuple[float | None, float | None]:
        """kWh and kg of CO2e of this attempt, without GPUs of the machine that it does not use."""
        total = self._total
        if total is None:
            return None, None
        gpu = total.gpu_energy if self._device.startswith("cuda") else 0.0
        kwh = total.cpu_energy + total.ram_energy + gpu
        per_kwh = total.emissions / total.energy_consumed if total.energy_consumed else 0.0
        return kwh, kwh * per_kwh

    def _method(self) -> str:
        total = self._total
        if total is None:
            return "not measured"
        from codecarbon.core.cpu import is_rapl_available

        counter = sys.platform == "linux" and is_rapl_available()
        parts = ["processor by its RAPL counter" if counter else "processor by load and nominal power (TDP)"]
        parts.append("memory by its size")
        if self._device.startswith("cuda"):
            parts.append("GPU by its counter" if total.gpu_energy else "GPU not measured")
        return f"codecarbon {total.codecarbon_version}: {', '.join(parts)}"


@contextmanager
def metering(job: Job, registry: Registry, run: Run) -> Iterator[Meter]:
    """Measure what the block costs, and write it to the run when the block fails.

    Where it succeeds `log_usage` writes it, within the block, where that may be tried again.
    """
    note = job.folder / NOTE
    meter = Meter(job.device, job.settings.country_iso, _earlier(note, registry, run), note)
    try:
        yield meter
    except BaseException as error:
        try:
            log_usage(registry, run, meter.stop())
        except RegistryError as unreachable:
            error.add_note(f"The energy could not be written: {unreachable}")
        raise


def require_known_country(settings: Settings) -> None:
    """Raise ConfigError for a country whose grid codecarbon does not know."""
    if not settings.country_iso:
        return
    from codecarbon.input import DataSource

    if settings.country_iso not in DataSource().get_global_energy_mix_data():
        raise ConfigError(
            "CVDM_COUNTRY_ISO to be an ISO 3166 alpha-3 code such as DEU, or empty for the world's mean",
            f"'{settings.country_iso}'",
            "Correct the environment variable.",
        )


def log_usage(registry: Registry, run: Run, usage: Usage) -> None:
    """Write what all attempts have cost together, once. Raises RegistryError.

    Each attempt and each judgement is a step of its own, from 1: a metric has one value per step.
    """
    metrics = usage.metrics()
    if registry.runs.metrics(run.run_id).get(HOURS) != metrics[HOURS]:
        registry.runs.log_series(run, [(registry.runs.last_step(run, HOURS) + 1, metrics)])
    registry.runs.set_tags(run.run_id, {"energy_method": usage.method, "energy_grid": usage.grid})


def _tracker(device: str, country: str, meter: Meter) -> OfflineEmissionsTracker:
    from codecarbon import OfflineEmissionsTracker
    from codecarbon.output_methods.base_output import BaseOutput

    # It narrates on the terminal, and before the level that it is given counts.
    logging.getLogger("codecarbon").disabled = True

    class Totals(BaseOutput):
        def out(self, total: EmissionsData, delta: EmissionsData) -> None:
            meter.take(total)

        def live_out(self, total: EmissionsData, delta: EmissionsData) -> None:
            meter.take(total)

    return OfflineEmissionsTracker(
        country_iso_code=country or None,
        tracking_mode="process",
        measure_power_secs=MEASURE_SECONDS,
        api_call_interval=1,  # after how many measurements the totals are handed over
        output_methods=[],
        output_handlers=[Totals()],
        allow_multiple_runs=True,
        gpu_ids=_gpu_ids(device),
    )


def _earlier(note: Path, registry: Registry, run: Run) -> Usage:
    """What earlier attempts cost: by the job's folder, else by the run, whose version is judged again."""
    if note.is_file():
        content: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        return Usage(**content)
    return Usage.from_metrics(registry.runs.metrics(run.run_id))


def _gpu_ids(device: str) -> list[str] | None:
    """The counter of the GPU that is used, by the name that it keeps whatever CUDA_VISIBLE_DEVICES says."""
    if not device.startswith("cuda"):
        return None
    import torch

    return [f"GPU-{torch.cuda.get_device_properties(device).uuid}"]


def _peak_device_mib(device: str) -> float | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return torch.cuda.max_memory_allocated(device) / MIB


def _peak_rss_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (MIB if sys.platform == "darwin" else 1024)
