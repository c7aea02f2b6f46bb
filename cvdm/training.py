"""Train CVDM: a generator that yields a fact per step and leaves logging to its caller.

The state of a training (weights, their moving average, optimiser, position) is written whole to one file;
random numbers depend on (seed, step) alone. So a training that is interrupted and resumed ends with the
same weights as one that was not, bit for bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvdm.config import Recipe, TrainingConfig
from cvdm.dataset import Dataset, dataset_digest
from cvdm.errors import CheckpointError, StorageError, TrainingError
from cvdm.fine_tuning import Base
from cvdm.losses import Losses, batch_losses
from cvdm.model import CVDM
from cvdm.normalisation import Normalisation, fit_normalisation
from cvdm.patches import PatchSource, read_pair
from cvdm.validation import Validation, Validator

ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Step:
    """What one training step did; yielded after its update."""

    step: int
    """Steps done, from 1."""
    total: int
    """Steps of the whole training."""
    losses: dict[str, float]
    """The named terms of `cvdm.losses.Losses`, and `total`."""
    learning_rate: float
    gradient_norm: float
    """Global norm before clipping."""
    seconds: float
    """Wall time of the step, without validation."""
    validation: Validation | None = None
    """On the steps that validate, and on the last."""


class TrainingState:
    """Everything that changes during training."""

    def __init__(self, recipe: Recipe, device: str, base: Base | None = None) -> None:
        torch.manual_seed(recipe.training.seed)
        self.model = CVDM(recipe.model).to(device)
        if base is not None:
            self.model.load_state_dict(base.weights)
        self.average = CVDM(recipe.model).to(device).eval()
        self.average.load_state_dict(self.model.state_dict())
        self.average.requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.model.parameters(), betas=ADAM_BETAS)
        self.step = 0

    def follow(self, decay: float) -> None:
        """Move the averaged weights; early in training the average forgets faster."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                average.lerp_(value, 1 - decay)

    def save(self, path: Path, fingerprint: str) -> None:
        """Write the whole state, all or nothing."""
        temporary = path.with_suffix(".writing")
        content = {
            "fingerprint": fingerprint,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(content, temporary)
            temporary.replace(path)
        except (OSError, RuntimeError) as error:
            temporary.unlink(missing_ok=True)
            raise StorageError(
                f"room for the training state in {path.parent}", str(error), "Free disk space."
            ) from error

    def load(self, path: Path, fingerprint: str) -> None:
        """Continue from `path`, which must come from the same data and recipe."""
        content = read_state(path)
        if content["fingerprint"] != fingerprint:
            raise TrainingError(
                f"a training state of the same data and recipe at {path}",
                "one of another training",
                "Delete it to start anew, or restore the data and parameters that it came from.",
            )
        self.step = content["step"]
        self.model.load_state_dict(content["model"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])


def train(
    dataset: Dataset,
    recipe: Recipe,
    *,
    state_path: Path,
    device: str = "cpu",
    base: Base | None = None,
) -> Iterator[Step]:
    """Train on the training fields to `recipe.training.steps`, continuing from `state_path` if it exists.

    base: what a fine-tuning starts from (`Recipe.for_fine_tuning` is its recipe); None for random weights.
    Yields one `Step` per step; the state is on disk before the step that completes it is yielded.
    Raises DatasetError when a split is empty, TrainingError when loss or gradient is no longer finite or the
    state belongs to another training, StorageError when the state cannot be written.
    """
    dataset.require_splits()
    config = recipe.training
    fingerprint = training_fingerprint(dataset, recipe, base)
    state = TrainingState(recipe, device, base)
    if state_path.exists():
        state.load(state_path, fingerprint)
    normalisation = training_normalisation(dataset, recipe)
    source = PatchSource(dataset, normalisation, patch=config.patch, batch=config.batch, seed=config.seed)
    validator = Validator(dataset, normalisation, recipe.sampling)
    while state.step < config.steps:
        facts = _advance(state, source, config, device)
        validate = state.step == config.steps or state.step % config.validate_every == 0
        if validate or state.step % config.checkpoint_every == 0:
            state.save(state_path, fingerprint)
        yield Step(**facts, validation=validator.validate(state.average) if validate else None)


def training_normalisation(dataset: Dataset, recipe: Recipe) -> Normalisation:
    """The intensity scale that a training on this dataset uses."""
    return fit_normalisation(recipe.model.normalisation, (read_pair(p).low for p in dataset.split("train")))


def training_fingerprint(dataset: Dataset, recipe: Recipe, base: Base | None = None) -> str:
    """Identity of a training: data, base and everything in the recipe that shapes the weights."""
    content = recipe.as_dict()
    del content["sampling"]
    for name in ("validate_every", "checkpoint_every"):
        del content["training"][name]
    identity = {"data": dataset_digest(dataset), "recipe": content}
    if base is not None:
        identity["base"] = base.digest
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_state(path: Path) -> dict[str, Any]:
    """The content of a training state file. Raises CheckpointError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(
            f"a training state at {path}", str(error).split("\n")[0], "Delete it to start anew."
        ) from error


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to a hundredth of the peak; `step` counts from 0."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def _advance(
    state: TrainingState, source: PatchSource, config: TrainingConfig, device: str
) -> dict[str, Any]:
    start = time.perf_counter()
    x, y = (batch.to(device) for batch in source.batch_at(state.step))
    rng = step_generator(config.seed, state.step)
    t, eps = diffusion_times(len(x), rng).to(device), torch.randn(x.shape, generator=rng).to(device)
    losses = batch_losses(state.model, x, y, t, eps)
    total = losses.total(config.smoothness)
    if not torch.isfinite(total):
        raise diverged("loss", losses, state.step + 1)
    rate = learning_rate_at(state.step, config)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.optimiser.zero_grad(set_to_none=True)
    total.backward()
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
    if not torch.isfinite(norm):
        raise diverged("gradient", losses, state.step + 1)
    state.optimiser.step()
    state.step += 1
    state.follow(config.ema)
    return {
        "step": state.step,
        "total": config.steps,
        "losses": losses.as_floats() | {"total": float(total.detach())},
        "learning_rate": rate,
        "gradient_norm": float(norm),
        "seconds": time.perf_counter() - start,
    }


def diverged(what: str, losses: Losses, step: int) -> TrainingError:
    """The diagnosis of a training that went wrong; raised before the step changes any weight."""
    return TrainingError(
        f"a finite {what}",
        f"{losses.as_floats()} at step {step}",
        "Lower training.learning_rate, or look for damaged training images with `cvdm validate`.",
    )


def step_generator(seed: int, step: int) -> torch.Generator:
    """The random numbers of one training step."""
    (word,) = np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(word >> np.uint64(1)))


def diffusion_times(count: int, rng: torch.Generator) -> Tensor:
    """`count` times (B, 1, 1, 1) on [0, 1], spread evenly over the batch (Kingma et al. 2021, app. I.1)."""
    offset = torch.rand(1, generator=rng)
    return ((torch.randperm(count, generator=rng) + offset) / count).view(-1, 1, 1, 1)
