"""Does a spread that is taught by errors on held-out fields beat the draws? A rival with an unfair advantage.

    python benchmarks/taught_spread.py [--tasks T ...] [--steps 800]

The models in models/ restore the first capture of every calibration and test field. For each test field, a
U-Net that sees the input, the regression mean and the spread of the draws learns the size of the mean's
errors on all other of these fields, the other test fields among them, which no model may look at. Its CRPS on
the field left out, of the regression mean with that size and one shape of distribution, stands beside that of
the model, both over one spread for all pixels, fitted on the same fields. Few fields teach it, so it is no
bound of what could be known. Some ten minutes on one core; the last line is the summary.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import machine
from torch import Tensor
from tqdm import tqdm

from cvdm.checkpoint import Checkpoint, load_checkpoint
from cvdm.config import NetworkConfig
from cvdm.constant_interval import ConstantInterval
from cvdm.dataset import load_dataset
from cvdm.field_of_view import FieldOfView
from cvdm.metrics import crps
from cvdm.networks import UNet
from cvdm.patches import ImagePair, read_pair
from cvdm.posterior import dispersed

CHECKOUT = Path(__file__).resolve().parents[1]
TASKS = ("fmd-confocal-nuclei", "biosr-microtubules")
NETWORK = NetworkConfig(width=16, levels=3, stem=1)
PATCH, BATCH, RATE = 64, 8, 3e-3
LEAST = 1e-3
"""Of a learned size of errors, in half-ranges of the intensity scale."""


@dataclass(frozen=True)
class Field:
    """A restored field of view, in half-ranges."""

    name: str
    split: str
    seen: np.ndarray
    """(3, H, W): input, regression mean, log of the spread of the draws."""
    error: np.ndarray
    """Target less regression mean (H, W)."""
    own: float
    """CRPS of the model."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--steps", type=int, default=800, help="of each teaching")
    options = parser.parse_args()
    print(machine("cpu"))
    told = []
    for task in options.tasks:
        fields = restored(task)
        print(f"{task}: CRPS over that of one spread for all pixels\n{'field':>10}{'model':>9}{'taught':>9}")
        rows = []
        for field in (one for one in fields if one.split == "test"):
            others = [one for one in fields if one is not field]
            teacher = taught(others, options.steps, f"{task}, all but {field.name}")
            constant = ConstantInterval.of((one.name, one.error) for one in others)
            rows.append((constant.crps(field.error), field.own, scored(teacher, others, field)))
            one_spread, model, rival = rows[-1]
            print(f"{field.name:>10}{model / one_spread:9.3f}{rival / one_spread:9.3f}")
        one_spread, model, rival = np.mean(rows, axis=0)
        told.append(f"{task}: model -{1 - model / one_spread:.1%}, taught -{1 - rival / one_spread:.1%}")
    print("CRPS against one spread for all pixels: " + "; ".join(told))
    return 0


@torch.inference_mode()
def restored(task: str) -> list[Field]:
    """The first capture of every calibration and test field."""
    checkpoint = load_checkpoint(CHECKOUT / "models" / task)
    dataset = load_dataset(CHECKOUT / "data" / task)
    fields = []
    for split in ("calibration", "test"):
        first = {pair.field: pair for pair in reversed(dataset.split(split))}
        for _, pair in tqdm(sorted(first.items()), f"{task}, {split}", leave=False, file=sys.stderr):
            fields.append(field_of(checkpoint, read_pair(pair), split))
    return fields


def field_of(checkpoint: Checkpoint, image: ImagePair, split: str) -> Field:
    """One field, restored as the model is shipped."""
    sampling = checkpoint.recipe.sampling
    view = FieldOfView(checkpoint.model, checkpoint.normalisation, image.observation, sampling)
    half = view.scale.half_range
    draws = dispersed(checkpoint, sampling, np.stack(list(view.draws()))) / half
    mean, target = view.regression_mean() / half, image.high / half
    low = view.scale.apply(np.asarray(image.low))
    seen = np.stack([low, mean, np.log(draws.std(0) + LEAST)]).astype(np.float32)
    own = float(crps(draws, target, antithetic=True).mean())
    return Field(image.field, split, seen, (target - mean).astype(np.float32), own)


def taught(fields: list[Field], steps: int, title: str) -> UNet:
    """A network for the log of the size of errors, by the likelihood of Laplace's distribution."""
    torch.manual_seed(0)
    rng, network = np.random.default_rng(0), UNet(3, 1, NETWORK)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in tqdm(range(steps), title, leave=False, file=sys.stderr):
        patches = [patch(fields[rng.integers(len(fields))], rng) for _ in range(BATCH)]
        seen, error = (torch.from_numpy(np.stack(part)) for part in zip(*patches, strict=True))
        size = log_size(network, seen)
        loss = (error.abs() * torch.exp(-size) + size).mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        rates.step()
    return network.eval()


def log_size(network: UNet, seen: Tensor) -> Tensor:
    """(B, 1, H, W): what the network makes of the spread of the draws."""
    return seen[:, 2:3] + network(seen)


def patch(field: Field, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random patch of what is seen (3, h, w) and of the error (1, h, w)."""
    top, left = (rng.integers(size - PATCH) for size in field.error.shape)
    where = np.s_[top : top + PATCH, left : left + PATCH]
    return field.seen[:, *where], field.error[None, *where]


@torch.inference_mode()
def scored(network: UNet, others: list[Field], field: Field) -> float:
    """CRPS of the field with the learned size; errors over size are distributed as on the others."""

    def sizes(one: Field) -> np.ndarray:
        height, width = (size - size % network.stride for size in one.error.shape)
        seen = torch.from_numpy(one.seen[None, :, :height, :width])
        return np.exp(log_size(network, seen)[0, 0].numpy())

    shapes = ((one, sizes(one)) for one in others)
    shape = ConstantInterval.of((one.name, cut(one.error, size) / size) for one, size in shapes)
    size = sizes(field)
    return float((size * shape.losses(cut(field.error, size) / size)).mean())


def cut(error: np.ndarray, size: np.ndarray) -> np.ndarray:
    """The error where a size is."""
    return error[: size.shape[0], : size.shape[1]]


if __name__ == "__main__":
    raise SystemExit(main())
