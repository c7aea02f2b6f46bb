"""What a measurement ran on, and how two things are timed side by side; for the other benchmarks."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch


def machine(device: str) -> str:
    """One line: processor or GPU, cores, threads, load, PyTorch."""
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    load = os.getloadavg()[0]
    return (
        f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, load {load:.1f}, "
        f"torch {torch.__version__}"
    )


def interleaved(
    jobs: Mapping[str, Callable[[], object]], *, rounds: int, device: str, done: Callable[[], object]
) -> dict[str, list[float]]:
    """Seconds of every job in every round; all take turns, so that a disturbance meets each of them.

    The first round warms up and is left out. done: called after each job.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, job in jobs.items():
            begun = time.perf_counter()
            job()
            if device == "cuda":
                torch.cuda.synchronize()
            if turn > 0:
                seconds[name].append(time.perf_counter() - begun)
            done()
    return seconds


def ratio(seconds: Mapping[str, list[float]], one: str, other: str) -> float:
    """How much longer the one takes: the median over rounds of what they took in the same round."""
    return statistics.median(a / b for a, b in zip(seconds[one], seconds[other], strict=True))


def peak_bytes() -> int:
    """Most memory that this program has held so far, or since `reset_peak`; Linux.

    getrusage will not do: a process begins with its parent's peak there.
    """
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def reset_peak() -> int:
    """Forget earlier peaks; returns what is held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak_bytes()
