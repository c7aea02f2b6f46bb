"""Fine-tuning: a training that starts from the weights of a model instead of random ones.

A model that was trained on one dataset has learned what noise, blur and structure look like; a related
dataset needs only what differs. So fine-tuning takes a share of the steps, at a share of the learning rate.
The intensity scale is fitted to the new data: the network meets the range that it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from cvdm.checkpoint import WEIGHTS, file_digest, load_checkpoint
from cvdm.config import ModelConfig
from cvdm.errors import ConfigError


@dataclass(frozen=True)
class Base:
    """What fine-tuning starts from."""

    weights: Mapping[str, Tensor]
    """State dict of a `cvdm.model.CVDM`."""
    digest: str
    """SHA-256 (hex) of the file that they were read from."""
    task: str
    """What that model restores."""


def read_base(directory: Path, model: ModelConfig) -> Base:
    """The weights of a checkpoint directory, for a model of this size.

    Raises CheckpointError for a damaged directory, ConfigError for a model of another size.
    """
    checkpoint = load_checkpoint(directory)
    if checkpoint.recipe.model != model:
        theirs = checkpoint.recipe.model
        differing = [name for name, value in vars(model).items() if getattr(theirs, name) != value]
        wanted, found = (
            ", ".join(f"{name}: {_as_written(getattr(one, name))}" for name in differing)
            for one in (model, theirs)
        )
        raise ConfigError(
            f"a base of the recipe's size and kind, {wanted}",
            f"{found} in {directory}",
            "Train from scratch, or with a preset that "
            + ("leaves `model` out." if theirs == ModelConfig() else f"has {found} under `model`."),
        )
    return Base(checkpoint.model.state_dict(), file_digest(directory / WEIGHTS), checkpoint.record.task)


def _as_written(value: Any) -> str:
    """As in `params.yaml`."""
    if not is_dataclass(value):
        return str(value)
    return "{" + ", ".join(f"{name}: {part}" for name, part in vars(value).items()) + "}"
