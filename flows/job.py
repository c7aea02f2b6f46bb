"""What one retraining is asked to do, and what identifies it: data, parameters and code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

import cvdm
from cvdm.config import Recipe
from cvdm.dataset import Dataset, load_dataset
from cvdm.errors import ConfigError
from cvdm.fine_tuning import Base
from cvdm.params import load_recipe
from cvdm.provenance import git_commit
from flows.gate import GatePolicy, load_policy
from flows.settings import Settings
from flows.validation import ValidationPolicy, load_validation_policy
from flows.version import data_version

SCIENCE, FLOWS = Path(cvdm.__file__).parent, Path(__file__).parent
INSPECTION = SCIENCE / "inspection"
"""Measures that validation judges by; no weight and no score depends on them."""
SHOWN_ONLY = ("data_docs.py", "drift.py")
"""Modules of validation that shape no verdict, like the folders `page` of validation and gate."""
JUDGES = (
    *sorted(path for path in (FLOWS / "validation").glob("*.py") if path.name not in SHOWN_ONLY),
    *sorted((FLOWS / "gate").glob("*.py")),
    FLOWS / "sign_flip.py",
    INSPECTION,
)
"""Sources that shape a verdict, beside those that shape weights and scores."""


@dataclass(frozen=True)
class Start:
    """Where the weights of one candidate start, and why."""

    kind: Literal["scratch", "base", "champion"]
    reason: str
    base: Base | None = None
    """None from scratch."""
    version: int | None = None
    """Of the champion that it starts from."""
    by_rule: bool = False
    """Whether nobody asked for it."""

    def tags(self) -> dict[str, str]:
        """What a run and a version are searched by."""
        found = {"init": self.kind, "init_reason": self.reason}
        if self.base is not None:
            found["init_digest"] = self.base.digest
        if self.version is not None:
            found["init_version"] = str(self.version)
        return found


FROM_SCRATCH = Start("scratch", "asked for")


@dataclass(frozen=True)
class Job:
    """One retraining."""

    task: str
    preset: str
    preset_recipe: Recipe
    """As params.yaml has it, apart from the seed."""
    policy: GatePolicy
    validation: ValidationPolicy
    dataset: Dataset
    dataset_digest: str
    """Over every byte of the data: seconds of work, so pass the job on rather than plan it again."""
    device: str
    settings: Settings
    start: Start = FROM_SCRATCH
    """Where the weights start; see flows/start.py."""

    @classmethod
    def plan(cls, task: str, preset: str, *, seed: int | None, settings: Settings) -> Job:
        """Read parameters and data. Raises ConfigError, DatasetError."""
        recipe = load_recipe(settings.params_file, preset)
        dataset = load_dataset(settings.dataset_dir(task))
        recipe = recipe.seeing(dataset.card.sight)
        if dataset.card.task != task:
            raise ConfigError(
                f"a card of task {task} in {dataset.root}",
                f"'{dataset.card.task}'",
                "Rename the folder or the task.",
            )
        return cls(
            task=task,
            preset=preset,
            preset_recipe=recipe if seed is None else recipe.with_seed(seed),
            policy=load_policy(settings.params_file),
            validation=load_validation_policy(settings.params_file),
            dataset=dataset,
            dataset_digest=dataset.digest,
            device=chosen_device(settings.device),
            settings=settings,
        )

    def starting_from(self, start: Start) -> Job:
        """The same retraining of weights that start elsewhere."""
        return replace(self, start=start)

    @cached_property
    def recipe(self) -> Recipe:
        """What is trained by; from a base it takes fewer steps."""
        return self.preset_recipe.for_fine_tuning() if self.start.base else self.preset_recipe

    @cached_property
    def code_digest(self) -> str:
        """SHA-256 over the science package's sources: what shapes weights and scores, committed or not."""
        return _digest(path for path in SCIENCE.rglob("*.py") if INSPECTION not in path.parents)

    @cached_property
    def git_commit(self) -> str | None:
        """The project's commit, with `-dirty` where files have changed."""
        return git_commit(self.settings.home)

    @cached_property
    def data_version(self) -> str | None:
        """The md5 by which DVC knows the data folder; None where the data are not under DVC."""
        return data_version(self.settings)

    @cached_property
    def evidence(self) -> str:
        """SHA-256 over data, recipe, base and science code: equal evidence teaches the same."""
        return _digest_of(
            {
                "task": self.task,
                "data": self.dataset_digest,
                "recipe": self.recipe.as_dict(),
                "code": self.code_digest,
                "base": self.start.base.digest if self.start.base else None,
            }
        )

    @cached_property
    def judgement(self) -> str:
        """SHA-256 over policies and judging code: another judgement looks again at what was trained."""
        return _digest_of(
            {
                "gate": asdict(self.policy),
                "validation": asdict(self.validation),
                "judges": _digest(path for judge in JUDGES for path in _sources(judge)),
            }
        )

    @property
    def folder(self) -> Path:
        """Where this retraining keeps what it needs to go on after an interruption."""
        return self.settings.mlruns_dir / "training" / f"{self.task}-{self.preset}-{self.evidence[:12]}"

    @property
    def state_path(self) -> Path:
        """The training state within `folder`."""
        return self.folder / "state.pt"

    def params(self) -> dict[str, Any]:
        """Every parameter of the training under its dotted name, for the tracking server."""
        return {**_flat(self.recipe.as_dict()), "device": self.device}

    def tags(self) -> dict[str, str]:
        """What a run and a version are searched by."""
        return {
            "preset": self.preset,
            **self.start.tags(),
            "evidence": self.evidence,
            "judgement": self.judgement,
            "dataset_digest": self.dataset_digest,
            "data_version": self.data_version or "none",
            "git_commit": self.git_commit or "unknown",
            "code_digest": self.code_digest,
            "seed": str(self.recipe.training.seed),
        }


def chosen_device(setting: str) -> str:
    """`auto` becomes cuda where there is a GPU, else cpu. Raises ConfigError for a GPU that is not there."""
    present = torch.cuda.is_available()
    if setting.startswith("cuda") and not present:
        raise ConfigError("a CUDA device", "none", "Set CVDM_DEVICE=auto or cpu.")
    return ("cuda" if present else "cpu") if setting == "auto" else setting


def _digest_of(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sources(place: Path) -> Iterable[Path]:
    return place.rglob("*.py") if place.is_dir() else (place,)


def _digest(sources: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in sorted(sources):
        total.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
