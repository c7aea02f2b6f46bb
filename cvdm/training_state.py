"""Everything that changes during a training, and the one file that it is written to whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvdm.config import Recipe
from cvdm.errors import CheckpointError, StorageError, TrainingError
from cvdm.fine_tuning import Base
from cvdm.model import CVDM

ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class Best:
    """The averaged weights that validated best."""

    step: int
    crps: float
    weights: dict[str, Tensor]
    """State dict of a `cvdm.model.CVDM`, on the CPU."""


class TrainingState:
    """Weights, their moving average, optimiser, position, and the best that was validated so far."""

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
        self.pieces = recipe.training.pieces
        """Into how many parts a process cuts its share of a batch, so that it fits into memory."""
        self.best: Best | None = None
        self.stale = 0
        """Validations in a row that were no better than the best."""

    def follow(self, decay: float) -> None:
        """Move the averaged weights; early in training the average forgets faster."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
                average.lerp_(value, 1 - decay)

    def judge(self, crps: float) -> None:
        """Keep the averaged weights if their validation is the best so far."""
        if self.best is not None and crps >= self.best.crps:
            self.stale += 1
            return
        weights = {name: value.detach().cpu().clone() for name, value in self.average.state_dict().items()}
        self.best, self.stale = Best(self.step, crps, weights), 0

    def save(self, path: Path, fingerprint: str) -> None:
        """Write the whole state, all or nothing. Raises StorageError."""
        temporary = path.with_suffix(".writing")
        content = {
            "fingerprint": fingerprint,
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "pieces": self.pieces,
            "best": None if self.best is None else vars(self.best),
            "stale": self.stale,
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

    def take_up(self, content: dict[str, Any]) -> None:
        """Continue from the content of a state file."""
        self.step = content["step"]
        self.model.load_state_dict(content["model"])
        self.average.load_state_dict(content["average"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.pieces = max(self.pieces, content["pieces"])
        self.best = None if content["best"] is None else Best(**content["best"])
        self.stale = content["stale"]


def read_own_state(path: Path, fingerprint: str) -> dict[str, Any] | None:
    """The content of the file, which must come from the same data and recipe; None where there is none.

    Raises CheckpointError for a file that cannot be read, TrainingError for one of another training.
    """
    if not path.exists():
        return None
    content = read_state(path)
    if content["fingerprint"] != fingerprint:
        raise TrainingError(
            f"a training state of the same data and recipe at {path}",
            "one of another training",
            "Delete it to start anew, or restore the data and parameters that it came from.",
        )
    return content


def read_state(path: Path) -> dict[str, Any]:
    """The content of a training state file. Raises CheckpointError."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(
            f"a training state at {path}", str(error).split("\n")[0], "Delete it to start anew."
        ) from error


def read_best(path: Path) -> Best:
    """The best weights of a training that has been validated. Raises CheckpointError."""
    best = read_state(path).get("best")
    if best is None:
        raise CheckpointError(
            f"a training at {path} that was validated", "one that was not", "Continue the training."
        )
    return Best(**best)
