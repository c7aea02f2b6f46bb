"""What a training on a CPU gains by keeping memory that its steps free: `python benchmarks/allocation.py`.

Two processes, of which one keeps it (cvdm/allocation.py), take turns of a few steps with the same batch; the
ratio is the median over turns. It prints pages mapped per step and peak memory, too. No number is promised.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from machine import machine
from tqdm import tqdm

CHECKOUT = Path(__file__).resolve().parents[1]
WAYS = ("kept", "given back")
STEPS = 10
"""Of one turn."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        take_turns(options.way, options.preset)
        return 0
    print(f"{machine('cpu')}; preset {options.preset}, {options.rounds} turns of {STEPS} steps")
    workers = {way: Worker(way, options.preset) for way in WAYS}
    for worker in workers.values():
        worker.turn()  # warms up
    turns: dict[str, list[tuple[float, int, float]]] = {way: [] for way in WAYS}
    with tqdm(total=options.rounds * 2, unit="turn", file=sys.stderr) as bar:
        for _ in range(options.rounds):
            for way, worker in workers.items():
                turns[way].append(worker.turn())
                bar.update()
    for way, taken in turns.items():
        seconds, pages, peak = (statistics.median(values) for values in zip(*taken, strict=True))
        print(f"{way:>10}: {seconds * 1e3:.1f} ms and {pages:.0f} pages per step, peak {peak:.0f} MiB")
    gains = [kept[0] / back[0] for kept, back in zip(*turns.values(), strict=True)]
    print(f"memory kept x{statistics.median(gains):.2f} time")
    return 0


class Worker:
    """A process that trains when it is told to."""

    def __init__(self, way: str, preset: str) -> None:
        command = [sys.executable, __file__, "--way", way, "--preset", preset]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def turn(self) -> tuple[float, int, float]:
        """Seconds and pages per step, and peak memory so far in MiB."""
        told, heard = self._process.stdin, self._process.stdout
        if told is None or heard is None:
            raise RuntimeError("a worker without its pipes")
        told.write("go\n")
        seconds, pages, peak = heard.readline().split()
        return float(seconds), int(pages), float(peak)


def take_turns(way: str, preset: str) -> None:
    """One turn for each line of standard input."""
    from training import Training

    from cvdm.allocation import keep_freed_memory
    from cvdm.params import load_recipe

    if way == "kept" and not keep_freed_memory():
        sys.exit("the C library here cannot")
    training = Training(load_recipe(CHECKOUT / "params.yaml", preset), "cpu")
    for _ in sys.stdin:
        mapped, begun = usage().ru_minflt, time.perf_counter()
        for _ in range(STEPS):
            training.step()
        seconds = (time.perf_counter() - begun) / STEPS
        print(seconds, (usage().ru_minflt - mapped) // STEPS, usage().ru_maxrss / 1024, flush=True)


def usage() -> resource.struct_rusage:
    return resource.getrusage(resource.RUSAGE_SELF)


if __name__ == "__main__":
    sys.exit(main())
