"""Train CVDM: a generator that yields a fact per step and leaves logging to its caller.

The state of a training (`cvdm.training_state`) is written whole to one file; random numbers depend on
(seed, step) alone. So a training that is interrupted and resumed ends with the same weights as one that was
not, bit for bit on a CPU with the same number of threads.

What comes out is the moving average of the weights that validated best. Without a better validation for
`training.patience` times in a row, training ends early. A batch that does not fit into memory is cut into
halves, whose gradients add up to the same. Several processes (`cvdm.team`) share each batch, and come to the
same as one up to rounding.
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
from cvdm.dataset import Dataset
from cvdm.errors import TrainingError
from cvdm.execution import determinism, prepare, require_determinism
from cvdm.fine_tuning import Base
from cvdm.gradients import Batch, Objective, add_up, gradient_in_memory
from cvdm.normalisation import Normalisation, fit_normalisation
from cvdm.patches import PatchSource, read_images
from cvdm.team import Team
from cvdm.training_state import TrainingState, read_own_state
from cvdm.validation import Validation, Validator

FAR = 30.0
"""Half ranges of the intensity scale beyond which a patch of an image is suspected when training diverges."""

ROUNDING_ONLY = ("checkpoint_every", "pieces", "recompute", "compile", "deterministic")
"""Parameters of a training on which at most the rounding of its weights depends."""


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
    """Into how many parts each process cut its share of the batch."""
    cut: bool
    """Whether this step was the first to need so many, for want of memory."""
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
    team: Team | None = None,
) -> Iterator[Step]:
    """Train on the training fields to `recipe.training.steps`, continuing from `state_path` if it exists.

    base: what a fine-tuning starts from (`Recipe.for_fine_tuning` is its recipe); None for random weights.
    team: the processes that train it together, each by a call of its own; None for this one, on `device`.
    Yields one `Step` per step, to the team's leader alone; the state, which the leader reads and writes, is
    on disk before the step that completes it is yielded.
    Raises DatasetError when a split is empty, TrainingError when loss, gradient or validation is no longer
    finite, not even a single patch fits into memory, the state belongs to another training, or the machine
    cannot do what the recipe asks for, StorageError when the state cannot be written.
    """
    dataset.require_splits()
    recipe = recipe.seeing(dataset.card.sight)
    config = recipe.training
    fingerprint = training_fingerprint(dataset, recipe, base)
    team = team or Team(device)
    _require_a_patch_each(config, team)
    if config.deterministic:
        require_determinism(team.device)
    state = TrainingState(recipe, team.device, base)
    earlier = team.told(read_own_state(state_path, fingerprint) if team.leads else None)
    if earlier is not None:
        state.take_up(earlier)
    normalisation = training_normalisation(dataset, recipe)
    source = PatchSource(dataset, normalisation, patch=config.patch, batch=config.batch, seed=config.seed)
    validator = Validator(dataset, normalisation, recipe.sampling)
    objective = prepare(state.model, config, team.device)
    while not _is_finished(state, config):
        with determinism(config.deterministic):
            facts = _advance(state, source, config, objective, team)
            validation = None
            if due := state.step == config.steps or state.step % config.validate_every == 0:
                validation = _validated(state, validator, facts["learning_rate"], team)
        if not team.leads:
            continue
        if due or state.step % config.checkpoint_every == 0:
            state.save(state_path, fingerprint)
        ended = _why_early(state, config) if _is_finished(state, config) else None
        yield Step(**facts, validation=validation, ended=ended)


def _require_a_patch_each(config: TrainingConfig, team: Team) -> None:
    if config.batch < team.size:
        raise TrainingError(
            f"training.batch of at least one patch for each of {team.size} processes",
            str(config.batch),
            "Raise it, or start fewer processes.",
        )


def training_normalisation(dataset: Dataset, recipe: Recipe) -> Normalisation:
    """The intensity scale that a training on this dataset uses."""
    images = (image for pair in dataset.split("train") for image in read_images(pair))
    return fit_normalisation(recipe.model.normalisation, (image.observation.centres for image in images))


def training_fingerprint(dataset: Dataset, recipe: Recipe, base: Base | None = None) -> str:
    """Identity of a training: data, base and everything in the recipe that shapes what comes out of it."""
    content = recipe.seeing(dataset.card.sight).as_dict()
    for name in ROUNDING_ONLY:
        del content["training"][name]
    identity = {"data": dataset.digest, "recipe": content}
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


def _validated(state: TrainingState, validator: Validator, rate: float, team: Team) -> Validation | None:
    """What the leader sees; every process judges by its scores."""
    validation = validator.validate(state.average) if team.leads else None
    scores = team.told({} if validation is None else {"crps": validation.crps, "psnr": validation.psnr})
    if not math.isfinite(scores["crps"]):
        raise diverged("validation", scores, state.step, rate)
    state.judge(scores["crps"])
    return validation


def _advance(
    state: TrainingState, source: PatchSource, config: TrainingConfig, objective: Objective, team: Team
) -> dict[str, Any]:
    start, pieces = time.perf_counter(), state.pieces
    batch = Batch.drawn(*source.batch_at(state.step), config.seed, state.step)
    rate = learning_rate_at(state.step, config)
    share = batch.part(*team.share(len(batch)))
    model = state.model
    losses, needed = gradient_in_memory(
        model, share, objective, smoothness=config.smoothness, pieces=state.pieces, device=team.device
    )
    losses = add_up(model, losses, share=len(share) / len(batch), team=team)
    state.pieces = team.largest(needed)
    if not math.isfinite(losses["total"]):
        raise diverged("loss", losses, state.step + 1, rate, batch)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
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
