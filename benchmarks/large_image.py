"""Memory that an image larger than memory takes: `python benchmarks/large_image.py [--edge 20000]`.

Repeats an image of the shipped data to edge x edge pixels of 16 bits and restores it by `python -m cvdm
reconstruct` with a model that the preset `smoke` trains first, and before it one of 64 x 64 pixels, for what
program and model take by themselves. Prints peak resident memory, how much of it is not pages of files (which
the system takes back when it needs them), the largest size of all files meanwhile, and time. Exit code 1 when
the large one takes 2 GiB or more beyond the small one.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
import torch

from cvdm.checkpoint import load_checkpoint
from cvdm.config import SamplingConfig
from cvdm.images import read_image
from cvdm.restoration import memory_bytes

CHECKOUT = Path(__file__).resolve().parents[1]
DATA = CHECKOUT / "data" / "fmd-confocal-nuclei"
MOST_MIB = 2048
LOOK_SECONDS = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--edge", type=int, default=20000, help="pixels")
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--checkpoint", type=Path, help="instead of training one")
    parser.add_argument("--scratch", type=Path, help="where the large files go; some 130 bytes per pixel")
    options = parser.parse_args()
    print(f"{platform.platform()}, torch {torch.__version__}, {os.cpu_count()} cores, {options.edge} px,")
    print(f"{options.samples} draws of {options.steps} steps, tiles of {options.tile} px")
    with tempfile.TemporaryDirectory(prefix="cvdm-large-", dir=options.scratch) as name:
        folder = Path(name)
        checkpoint = options.checkpoint or trained(folder / "model")
        choices = ("--samples", options.samples, "--steps", options.steps, "--tile", options.tile)
        found = {}
        for edge in (64, options.edge):
            write_repeated(folder / "image.tif", edge)
            found[edge] = restored(folder, checkpoint, [str(choice) for choice in choices])
            check(folder / "out.tif", edge)
        model, edge = load_checkpoint(checkpoint), options.edge
        sampling = SamplingConfig(samples=options.samples, steps=options.steps, tile=options.tile)
        estimated = memory_bytes(model, (edge, edge), sampling) / 2**20
    alone, whole = found[64].mib, found[options.edge].mib
    seconds = found[options.edge].seconds
    print(f"peak memory {whole:.0f} MiB, {whole - alone:.0f} MiB beyond the {alone:.0f} of program and model")
    anonymous = found[options.edge].anonymous_mib - found[64].anonymous_mib
    print(f"({anonymous:.0f} without pages of files; the service's estimate: {estimated:.0f} MiB);", end=" ")
    print(f"{found[options.edge].disk_gib:.1f} GiB on disk meanwhile; {seconds:.0f} s,", end=" ")
    print(f"{seconds / options.edge**2 * 1e6:.2f} s per megapixel")
    return 0 if whole - alone < MOST_MIB else 1


class Found:
    """What a command took."""

    seconds = 0.0
    mib = 0.0
    """Peak resident memory."""
    anonymous_mib = 0.0
    """The most of it, whenever that was, that is not pages of files."""
    disk_gib = 0.0
    """Of the folder, at its largest."""


def trained(output: Path) -> Path:
    """A model of the preset `smoke`."""
    run("train", "--data", str(DATA), "--preset", "smoke", "--output", str(output))
    return output


def write_repeated(path: Path, edge: int) -> None:
    """A 16-bit TIFF of edge x edge pixels, an image repeated; written band by band."""
    pixels = read_image(sorted((DATA / "low").glob("*.tif"))[0]).pixels.astype(np.uint16)
    wide = np.tile(pixels, (1, -(-edge // pixels.shape[1])))[:, :edge]
    rows = (wide[row % len(wide)].tobytes() for row in range(edge))
    tifffile.imwrite(path, rows, shape=(edge, edge), dtype=np.uint16, photometric="minisblack")


def restored(folder: Path, checkpoint: Path, choices: list[str]) -> Found:
    """Restore folder/image.tif to folder/out.tif."""
    found = Found()
    began = time.monotonic()
    paths = (str(folder / "image.tif"), "--output", str(folder / "out.tif"))
    found.mib = run(
        "reconstruct", *paths, "--checkpoint", str(checkpoint), *choices, look=partial(look, folder, found)
    )
    found.seconds = time.monotonic() - began
    return found


def run(*arguments: str, look: Callable[[int], None] = lambda process: None) -> float:
    """Run `python -m cvdm`; returns its peak resident memory in MiB."""
    process = subprocess.Popen([sys.executable, "-P", "-m", "cvdm", *arguments], cwd=CHECKOUT)
    try:
        while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
            look(process.pid)
            time.sleep(LOOK_SECONDS)
    except BaseException:
        process.kill()
        raise
    _, status, usage = ended
    if status != 0:
        raise SystemExit(f"cvdm {arguments[0]} failed")
    return usage.ru_maxrss / 1024


def look(folder: Path, found: Found, process: int) -> None:
    """Keep the largest size of all files, the workspace's included, and of memory that is no file's."""
    size = 0
    with suppress(FileNotFoundError):  # a file or folder that has just gone: the next look sees all
        for file in folder.rglob("*"):
            size += file.stat().st_size
    found.disk_gib = max(found.disk_gib, size / 2**30)
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    anonymous = sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))  # none of a zombie
    found.anonymous_mib = max(found.anonymous_mib, anonymous / 1024)


def check(path: Path, edge: int) -> None:
    """The result is whole: its corners and its middle are finite, and not all the same."""
    result = tifffile.memmap(path, mode="r")
    corners = (np.array(result[:, at : at + 32, at : at + 32]) for at in (0, edge // 2 - 16, edge - 32))
    if result.shape != (4, edge, edge) or not all(np.isfinite(c).all() and np.ptp(c) > 0 for c in corners):
        raise SystemExit(f"{path} is not whole")


if __name__ == "__main__":
    sys.exit(main())
