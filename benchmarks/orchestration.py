"""What the platform costs beside the science: `python benchmarks/orchestration.py [--preset demo]`.

The same training and evaluation twice on this machine, one after the other, in a clone where a smaller
retraining went before, so that the databases are there:

    bare      python -m cvdm train, python -m cvdm evaluate     no tracker, no orchestrator, no service
    platform  cvdm retrain                                      with all of them, and the checks that go along

Prints wall times, CPU seconds (which other work on the machine disturbs less), their ratios, what each step
of the flow took, and peak resident memory: of the process that trains, and of it with everything that it has
started (orchestrator, rehearsal, judging, drawing). Exit code 1 when the rest,
without validation, gate, rehearsal and model card, which are work of their own, costs more than 5 % of the
bare wall time or 300 MiB.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

CHECKOUT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(CHECKOUT / "tests"))
from story.world import CVDM, World  # noqa: E402

MOST_TIME, MOST_MEMORY_MIB = 0.05, 300
BESIDES = ("validate", "gate", "promote", "describe")
"""Steps of the flow that a bare training does without."""
LOOK_SECONDS = 0.2


@dataclass
class Measured:
    """One command."""

    seconds: float = 0.0
    cpu: float = 0.0
    """CPU seconds, its descendants' included."""
    own_mib: float = 0.0
    """Largest resident memory of the process."""
    family_mib: float = 0.0
    """Likewise with all of its descendants."""

    def then(self, later: Measured) -> Measured:
        """Both, one after the other."""
        return Measured(
            self.seconds + later.seconds,
            self.cpu + later.cpu,
            max(self.own_mib, later.own_mib),
            max(self.family_mib, later.family_mib),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="fmd-confocal-nuclei")
    parser.add_argument("--preset", default="demo")
    options = parser.parse_args()
    print(
        f"{platform.platform()}, torch {torch.__version__}, {os.cpu_count()} cores, preset {options.preset}"
    )
    with tempfile.TemporaryDirectory(prefix="cvdm-orchestration-") as folder:
        world = World(Path(folder) / "world")
        world.build({})
        platform_once = (str(CVDM), "retrain", "--task", "biosr-microtubules", "--preset", "smoke")
        measured(world, *platform_once, "--init", "scratch")
        trained = measured(world, *science("train", options.task, "--preset", options.preset))
        evaluated = measured(world, *science("evaluate", options.task))
        whole = measured(
            world,
            str(CVDM),
            "retrain",
            "--task",
            options.task,
            "--preset",
            options.preset,
            "--init",
            "scratch",
        )
        steps = step_seconds(world)
    print(f"bare by step: train {trained.seconds:.0f}, evaluate {evaluated.seconds:.0f}")
    return report(trained.then(evaluated), whole, steps)


def science(command: str, task: str, *more: str) -> tuple[str, ...]:
    """A command of `python -m cvdm` for one task."""
    way = {
        "train": ("--output", "bare/model"),
        "evaluate": ("--checkpoint", "bare/model", "--output", "bare/e.json"),
    }
    return (sys.executable, "-P", "-m", "cvdm", command, "--data", f"data/{task}", *way[command], *more)


def measured(world: World, *command: str) -> Measured:
    """Run a command to its end."""
    began, found, ended = time.monotonic(), Measured(), threading.Event()
    before = children_cpu()
    with (world.root / "story.log").open("a") as told:
        process = subprocess.Popen(command, cwd=world.home, env=world.environment, stdout=told, stderr=told)
    watcher = threading.Thread(target=look, args=(psutil.Process(process.pid), found, ended))
    watcher.start()
    code = process.wait()
    ended.set()
    watcher.join()
    if code != 0:
        raise SystemExit(f"{command} ended with {code}:\n{(world.root / 'story.log').read_text()[-3000:]}")
    found.seconds, found.cpu = time.monotonic() - began, children_cpu() - before
    return found


def children_cpu() -> float:
    """CPU seconds of all processes so far that have ended and were waited for."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def look(process: psutil.Process, found: Measured, ended: threading.Event) -> None:
    """Keep the largest memory seen."""
    while not ended.wait(LOOK_SECONDS):
        try:
            own, family = resident(process), sum(resident(one) for one in process.children(recursive=True))
        except psutil.NoSuchProcess:
            continue
        found.own_mib, found.family_mib = max(found.own_mib, own), max(found.family_mib, own + family)


def resident(process: psutil.Process) -> float:
    """MiB; 0 of a process that has ended meanwhile."""
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def step_seconds(world: World) -> dict[str, float]:
    """How long each step of the flow took, as the orchestrator has it."""
    (database,) = world.settings().mlruns_dir.rglob("prefect.db")
    rows = sqlite3.connect(database).execute(
        "select name, (julianday(end_time) - julianday(start_time)) * 86400 from task_run order by start_time"
    )
    return {name.rsplit("-", 1)[0]: seconds for name, seconds in rows if seconds is not None}


def report(bare: Measured, whole: Measured, steps: dict[str, float]) -> int:
    """Print it all; returns the exit code."""
    besides = sum(steps.get(name, 0.0) for name in BESIDES)
    cost = (whole.seconds - besides) / bare.seconds - 1
    memory = whole.own_mib - bare.own_mib
    print(f"{'':10}{'seconds':>9}{'CPU':>7}{'MiB':>7}{'with all that it started':>26}")
    for name, one in (("bare", bare), ("platform", whole)):
        print(f"{name:10}{one.seconds:9.0f}{one.cpu:7.0f}{one.own_mib:7.0f}{one.family_mib:26.0f}")
    print(f"{'ratio':10}{whole.seconds / bare.seconds:9.3f}{whole.cpu / bare.cpu:7.3f}")
    known = ", ".join(f"{name} {seconds:.0f}" for name, seconds in steps.items())
    print(f"seconds by step: {known}, else {whole.seconds - sum(steps.values()):.0f}")
    print(f"orchestration (without {', '.join(BESIDES)}): {cost:+.1%} time, {memory:+.0f} MiB")
    return 0 if cost <= MOST_TIME and memory <= MOST_MEMORY_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
