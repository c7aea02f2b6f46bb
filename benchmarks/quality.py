"""Train one task for some minutes and print what it gains over its input and its baselines.

    python benchmarks/quality.py --task biosr-microtubules --preset demo [--checkpoint DIR]

With --checkpoint an existing model is measured instead. The last line is the summary; exit code 1 when the
model does not beat every classical baseline, or gains less over its input than is promised below, both in
PSNR after intensity fit.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from cvdm.checkpoint import load_checkpoint
from cvdm.dataset import load_dataset
from cvdm.evaluation import Evaluation, summary_table
from cvdm.measuring import evaluate

PROMISED_GAIN_DB = {"biosr-microtubules": 7.0}
"""Least gain over the input, by task; any gain for the others."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="biosr-microtubules")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    data = Path("data") / options.task
    processor = platform.processor() or platform.machine()
    print(
        f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        checkpoint = options.checkpoint or train(data, options.preset, options.device, Path(folder) / "model")
        minutes = (time.perf_counter() - start) / 60
        result = evaluate(load_checkpoint(checkpoint, device=options.device), load_dataset(data))
    print(summary_table(result))
    return report(result, minutes)


def train(data: Path, preset: str, device: str, output: Path) -> Path:
    """Run the training command as anybody would."""
    command = [sys.executable, "-m", "cvdm", "train", "--data", data, "--preset", preset, "--device", device]
    subprocess.run([*map(str, command), "-o", str(output)], check=True)
    return output


def report(result: Evaluation, minutes: float) -> int:
    """Print the gains; 0 when the model beats every classical baseline and keeps its promise."""
    own = result.mean("psnr_fit")
    others = {name: sum(s["psnr_fit"].values()) / len(s["psnr_fit"]) for name, s in result.baselines.items()}
    gains = ", ".join(f"{own - value:+.2f} dB over {name}" for name, value in others.items())
    print(f"{result.task}: {gains}; coverage {result.coverage:.3f}; trained in {minutes:.1f} min")
    beaten = all(own > value for name, value in others.items() if name != "regression-mean")
    promised = own - others["input"] >= PROMISED_GAIN_DB.get(result.task, 0.0)
    return int(not (beaten and promised))


if __name__ == "__main__":
    sys.exit(main())
