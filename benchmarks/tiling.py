"""Does the answer depend on the tile size, and what do halos cost? One image, several tilings, one run.

    python benchmarks/tiling.py --checkpoint DIR IMAGE [--tiles 128 256 512]

Prints, for each tile size against the largest: worst difference as a share of the dynamic range, and time.
Exit code 1 when a difference exceeds 1e-3, or when the same request twice does not give identical pixels.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cvdm.checkpoint import load_checkpoint
from cvdm.images import read_image
from cvdm.posterior import reconstruct

ALLOWED = 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("image", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tiles", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    checkpoint = load_checkpoint(options.checkpoint, device=options.device)
    pixels = read_image(options.image).pixels
    span = float(np.ptp(pixels))
    sampling = replace(checkpoint.recipe.sampling, samples=2, steps=4)
    results, seconds = {}, {}
    for tile in [*sorted(options.tiles), max(options.tiles)]:
        repeated = results.get(tile)
        start = time.perf_counter()
        results[tile] = reconstruct(checkpoint, pixels, sampling=replace(sampling, tile=tile))
        seconds[tile] = time.perf_counter() - start
        if repeated is not None and not np.array_equal(repeated.mean, results[tile].mean):
            print("the same request twice gave different pixels")
            return 1
    largest = max(options.tiles)
    worst = 0.0
    for tile in sorted(options.tiles):
        difference = max(
            float(np.abs(getattr(results[tile], name) - getattr(results[largest], name)).max()) / span
            for name in ("mean", "std", "lower", "upper")
        )
        worst = max(worst, difference)
        ratio = seconds[tile] / seconds[largest]
        print(f"tile {tile:4}: difference {difference:.2e} of the range, time x{ratio:.2f}")
    height, width = pixels.shape
    print(f"{height} x {width}: worst difference {worst:.2e}, allowed {ALLOWED:.0e}; repeats identical")
    return int(worst > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
