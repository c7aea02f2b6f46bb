"""Train CVDM: a generator that yields a fact per step and leaves logging to its caller.

The state of a training (`cvdm.training_state`) is written whole to one file; random numbers depend on
(seed, step) alone. So a training that is interrupted and resumed ends with the same weights as one that was
not, bit for bit on a CPU with the same number of threads.

What comes out is the moving average of the weights that validated best. Without a better validation for
`training.patience` times in a row, training ends early. A batch that does not fit into memory is cut into
halves, whose gradients add up to the same.
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

import torch

from cvdm.config import Recipe, TrainingConfig
from cvdm.dataset import Dataset, dataset_digest
from cvdm.errors import TrainingError
from cvdm.fine_tuning import Base
from cvdm.gradients import Batch, accumulate_gradient, is_out_of_memory
from cvdm.normalisation import Normalisation, fit_normalisation
from cvdm.patches import PatchSource, read_images
from cvdm.training_state import TrainingState
from cvdm.validation import Validation, Validator

FAR = 30.0
"""Half ranges of the intensity scale beyond which a patch of an image is suspected when training diverges."""


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
    pieces: int
    """Into how many parts the batch was cut, for want of memory."""
    cut: bool
    """Whether this step was the first to need so many."""
    validation: Validation | None = None
    """On the steps that validate, and on the last."""
    ended: str | None = None
    """Why training ends with this step, where it is before `total`."""

    @property
    def news(self) -> tuple[str, ...]:
        """What a person would want to be told of this step, if anything."""
        scores = self.validation
        told = (
            f"CRPS {scores.crps:.5f}, PSNR {scores.psnr:.2f} dB" if scores else None,
            f"memory is short: each batch is cut into {self.pieces} pieces from now on" if self.cut else None,
            self.ended and f"training ends: {self.ended}",
        )
        return tuple(one for one in told if one)


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
    Raises DatasetError when a split is empty, TrainingError when loss, gradient or validation is no longer
    finite, not even a single patch fits into memory, or the state belongs to another training, StorageError
    when the state cannot be written.
    """
    dataset.require_splits()
    recipe = recipe.seeing(dataset.card.sight)
    config = recipe.training
    fingerprint = training_fingerprint(dataset, recipe, base)
    state = TrainingState(recipe, device, base)
    if state_path.exists():
        state.load(state_path, fingerprint)
    normalisation = training_normalisation(dataset, recipe)
    source = PatchSource(dataset, normalisation, patch=config.patch, batch=config.batch, seed=config.seed)
    validator = Validator(dataset, normalisation, recipe.sampling)
    while not _is_finished(state, config):
        facts = _advance(state, source, config, device)
        validation = None
        if state.step == config.steps or state.step % config.validate_every == 0:
            validation = _validated(state, validator, facts["learning_rate"])
        if validation is not None or state.step % config.checkpoint_every == 0:
            state.save(state_path, fingerprint)
        ended = _why_early(state, config) if _is_finished(state, config) else None
        yield Step(**facts, validation=validation, ended=ended)


def training_normalisation(dataset: Dataset, recipe: Recipe) -> Normalisation:
    """The intensity scale that a training on this dataset uses."""
    images = (image for pair in dataset.split("train") for image in read_images(pair))
    return fit_normalisation(recipe.model.normalisation, (image.observation.centres for image in images))


def training_fingerprint(dataset: Dataset, recipe: Recipe, base: Base | None = None) -> str:
    """Identity of a training: data, base and everything in the recipe that shapes what comes out of it."""
    content = recipe.seeing(dataset.card.sight).as_dict()
    del content["training"]["checkpoint_every"]
    identity = {"data": dataset_digest(dataset), "recipe": content}
    if base is not None:
        identity["base"] = base.digest
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def learning_rate_at(step: int, config: TrainingConfig) -> float:
    """Linear warm-up, then half a cosine down to a hundredth of the peak; `step` counts from 0."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(1, config.steps - config.warmup)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * progress)) / 2)


def _is_finished(state: TrainingState, config: TrainingConfig) -> bool:
    return state.step >= config.steps or 0 < config.patience <= state.stale


def _why_early(state: TrainingState, config: TrainingConfig) -> str | None:
    if state.step >= config.steps or state.best is None:
        return None
    return (
        f"no better validation since step {state.best.step} (CRPS {state.best.crps:.5f}), "
        f"{config.patience} times in a row"
    )


def _validated(state: TrainingState, validator: Validator, rate: float) -> Validation:
    validation = validator.validate(state.average)
    if not math.isfinite(validation.crps):
        scores = {"crps": validation.crps, "psnr": validation.psnr}
        raise diverged("validation", scores, state.step, rate)
    state.judge(validation.crps)
    return validation


def _advance(
    state: TrainingState, source: PatchSource, config: TrainingConfig, device: str
) -> dict[str, Any]:
    start, pieces = time.perf_counter(), state.pieces
    batch = Batch.drawn(*source.batch_at(state.step), config.seed, state.step)
    rate = learning_rate_at(state.step, config)
    losses = _gradient(state, batch, config, device)
    if not math.isfinite(losses["total"]):
        raise diverged("loss", losses, state.step + 1, rate, batch)
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), config.clip_norm)
    if not torch.isfinite(norm):
        raise diverged("gradient", losses, state.step + 1, rate, batch)
    for group in state.optimiser.param_groups:
        group["lr"] = rate
    state.optimiser.step()
    state.step += 1
    state.follow(config.ema)
    return {
        "step": state.step,
        "total": config.steps,
        "losses": losses,
        "learning_rate": rate,
        "gradient_norm": float(norm),
        "seconds": time.perf_counter() - start,
        "pieces": state.pieces,
        "cut": state.pieces > pieces,
    }


def _gradient(state: TrainingState, batch: Batch, config: TrainingConfig, device: str) -> dict[str, float]:
    """The terms of the objective, with their gradient in the model; in more pieces where memory is short."""
    while True:
        state.optimiser.zero_grad(set_to_none=True)
        try:
            return accumulate_gradient(
                state.model, batch, smoothness=config.smoothness, pieces=state.pieces, device=device
            )
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if state.pieces == len(batch):
                raise TrainingError(
                    f"memory for one patch of {config.patch} px on {device}",
                    " ".join(str(error).split())[:200],
                    "Lower training.patch or the model's width, or free the device.",
                ) from error
        # outside of the handler: the error's frames would hold the memory
        state.pieces = min(2 * state.pieces, len(batch))
        if device != "cpu":
            torch.cuda.empty_cache()


def diverged(
    what: str, values: dict[str, float], step: int, rate: float, batch: Batch | None = None
) -> TrainingError:
    """The diagnosis of a training that went wrong; raised before the step changes any weight."""
    told = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
    remedy = "Lower training.learning_rate, or look for damaged training images with `cvdm validate`."
    if batch is not None:
        farthest = max(float(batch.x.abs().max()), float(batch.y.abs().max()))
        if not farthest <= FAR:
            told += f"; a training patch reaches {farthest:.3g} half ranges of the intensity scale"
            remedy = "Look for damaged training images with `cvdm validate`."
    return TrainingError(f"a finite {what}", f"{told} at step {step}, learning rate {rate:.3g}", remedy)
