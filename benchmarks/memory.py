"""Peak memory of a reconstruction against image size and number of draws, as a user gets it.

    python benchmarks/memory.py [--checkpoint models/biosr-microtubules] [--device cpu|cuda]

`python -m cvdm reconstruct` restores images of 512 x 512 and 2048 x 2048 pixels of 32 bits, each in a process
of its own, and one of 64 x 64 for what program and model take by themselves. What counts is the peak beyond
that and beyond the arrays of the image, input and result, five of them, where they are in memory: those of a
large image are in files, those of a GPU's in the host's. Promised: the large image takes at most 1.3 x the
small one's, and 16 draws take what 2 do, up to 5 %. On a GPU its memory counts. Each is restored several
times and the median counts: what the C library keeps of freed memory differs from run to run. The last line
is the summary; exit code 1 when a number is missed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from machine import machine
from tqdm import tqdm

from cvdm.checkpoint import load_checkpoint
from cvdm.images import read_image
from cvdm.posterior import CHANNELS
from cvdm.restoration import PIXELS_IN_MEMORY

CHECKOUT = Path(__file__).resolve().parents[1]
LARGER_MOST, DRAWS_MOST = 1.3, 1.05
ALONE = 64
"""Edge of the image that shows what program and model take."""
MIB = 2**20
MEASURED = """
import sys, torch
from machine import peak_bytes
from cvdm.__main__ import main
code = main(sys.argv[1:])
on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
print("peak", peak_bytes(), on_gpu)
sys.exit(code)
"""


@dataclass(frozen=True)
class Taken:
    """By processes that restore the same."""

    mibs: list[float]
    """Peak, resident or on the GPU, of each run, in order of size."""
    seconds: float
    """Median."""

    @property
    def mib(self) -> float:
        """Median."""
        return statistics.median(self.mibs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKOUT / "models" / "biosr-microtubules")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--small", type=int, default=512)
    parser.add_argument("--large", type=int, default=2048)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--many", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1, help="memory does not depend on them")
    parser.add_argument("--tile", type=int, help="the checkpoint's if left out")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{machine(options.device)}; {options.steps} steps, tile {options.tile or 'of the checkpoint'}")
    runs = [
        (ALONE, options.few),
        (options.small, options.samples),
        (options.large, options.samples),
        (options.large, options.few),
        (options.large, options.many),
    ]
    taken: dict[tuple[int, int], Taken] = {}
    with tempfile.TemporaryDirectory(prefix="cvdm-memory-") as folder:
        for edge, samples in tqdm(dict.fromkeys(runs), unit="image", file=sys.stderr):
            ends = [restored(Path(folder), edge, samples, options) for _ in range(options.rounds)]
            mibs, seconds = zip(*ends, strict=True)
            taken[edge, samples] = Taken(sorted(mibs), statistics.median(seconds))
    alone = taken.pop((ALONE, options.few)).mib
    beyond = {}
    for (edge, samples), one in taken.items():
        held = options.device == "cpu" and edge**2 <= PIXELS_IN_MEMORY
        arrays = edge**2 * 4 * (1 + len(CHANNELS)) / MIB if held else 0.0
        beyond[edge, samples] = one.mib - alone - arrays
        print(
            f"{edge:>5} px, K = {samples:>2}: peak {one.mib:.0f} MiB ({one.mibs[0]:.0f} to "
            f"{one.mibs[-1]:.0f}), {beyond[edge, samples]:.0f} beyond program, model ({alone:.0f}) and "
            f"arrays ({arrays:.0f}); {one.seconds:.0f} s"
        )
    return report(beyond, options)


def restored(folder: Path, edge: int, samples: int, options: argparse.Namespace) -> tuple[float, float]:
    """MiB and seconds that it takes to restore a file of edge x edge pixels."""
    task = load_checkpoint(options.checkpoint).record.task
    pixels = read_image(sorted((CHECKOUT / "data" / task / "low").glob("*.tif"))[0]).pixels
    count = -(-edge // min(pixels.shape))
    source, target = folder / f"{edge}.tif", folder / f"{edge}-{samples}.tif"
    tifffile.imwrite(source, np.tile(pixels, (count, count))[:edge, :edge].astype(np.float32))
    choices = {"samples": samples, "steps": options.steps, "tile": options.tile, "device": options.device}
    chosen = [word for name, value in choices.items() if value for word in (f"--{name}", str(value))]
    command = ["reconstruct", source, "-o", target, "--checkpoint", options.checkpoint.resolve(), *chosen]
    begun = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-P", "-c", MEASURED, *map(str, command)],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(CHECKOUT), str(CHECKOUT / "benchmarks")))},
        capture_output=True,
        text=True,
    )
    if ended.returncode != 0:
        raise SystemExit(ended.stderr)
    _, resident, on_gpu = ended.stdout.splitlines()[-1].split()
    peak = int(on_gpu if options.device == "cuda" else resident)
    return peak / MIB, time.perf_counter() - begun


def report(beyond: dict[tuple[int, int], float], options: argparse.Namespace) -> int:
    """Print the summary; 0 when what is promised holds."""
    large = beyond[options.large, options.samples]
    larger = large / beyond[options.small, options.samples]
    draws = beyond[options.large, options.many] / beyond[options.large, options.few]
    print(
        f"{options.large} px take x{larger:.2f} the memory of {options.small} px (at most {LARGER_MOST}); "
        f"{options.many} draws x{draws:.2f} that of {options.few} (at most {DRAWS_MOST})"
    )
    return int(larger > LARGER_MOST or draws > DRAWS_MOST)


if __name__ == "__main__":
    sys.exit(main())
