"""A model as a directory that explains and proves itself.

    weights.pt          plain state dict, loaded without unpickling code
    familiar.npz        what the training fields look like (`cvdm.novelty`); arrays alone
    model.json          recipe, normalisation, calibration, record, SHA-256 of every other file
    golden/input.tif    a small input, with all its channels; its own neighbour for a model with context
    golden/mean.tif     what the model made of it when it was written
    golden/std.tif
    golden/golden.json  the sampling settings of that replay

Nothing but this package is needed to load it. `verify_golden` replays the golden pair; a service does so
before a model may answer.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from cvdm.calibration import Calibration
from cvdm.config import Recipe, SamplingConfig
from cvdm.errors import CheckpointError, CvdmError, StorageError
from cvdm.images import read_image, write_ome_tiff, write_tiff
from cvdm.model import CVDM
from cvdm.normalisation import Normalisation
from cvdm.novelty import Familiar
from cvdm.observation import Observation
from cvdm.optics import ForwardModel
from cvdm.params import from_mapping
from cvdm.places import read_observation
from cvdm.posterior import reconstruct
from cvdm.reading import Metadata
from cvdm.sight import Sight

FORMAT = 1
WEIGHTS, DESCRIPTION, FAMILIAR = "weights.pt", "model.json", "familiar.npz"
GOLDEN_SAMPLING = SamplingConfig(samples=2, steps=3, seed=0)
GOLDEN_TOLERANCE = 1e-3
"""Largest difference that a replay may show, as a share of the intensity range."""
QUANTITATIVE = "reconstruction, uncertainty_std, lower and upper are intensities in the input's units"
NOT_QUANTITATIVE = "what the interval leaves open is the model's guess: not to be counted or measured"
UNCALIBRATED = "lower and upper are not calibrated for these draws and steps"
UNSCALED = "the scale of uncertainty_std is not calibrated for these steps"


@dataclass(frozen=True)
class Record:
    """Where a model comes from."""

    task: str
    dataset_digest: str
    git_commit: str | None
    """Commit of the code that trained it, with `-dirty` appended where files had changed."""
    seed: int
    steps_trained: int
    created: str
    """ISO 8601 time, UTC."""
    pixel_size_um: float | None = None
    modality: str | None = None
    base_digest: str | None = None
    """SHA-256 of the weights that fine-tuning started from; None for a training from scratch."""
    forward_model: ForwardModel | None = None
    """How inputs arise from targets, where the dataset's card says so."""


@dataclass(frozen=True)
class Checkpoint:
    """A trained, calibrated model, ready to reconstruct."""

    model: CVDM
    recipe: Recipe
    normalisation: Normalisation
    calibration: Calibration
    record: Record
    familiar: Familiar | None = None
    """None of an earlier release, and where no two training fields can be compared."""

    def novelty(self, observation: Observation) -> float | None:
        """How novel the restored channel of an input is; None where that is not known."""
        if self.familiar is None:
            return None
        scale = self.normalisation.scales_of(observation.centres)[0]
        return self.familiar.novelty(observation.centres[0], scale)

    def stretch(self, observation: Observation) -> float:
        """The factor by which the interval of an input is wider than that of a familiar one."""
        return self.calibration.stretch(self.novelty(observation))

    @property
    def sight(self) -> Sight:
        """What the model sees of a field of view."""
        return self.recipe.model.sight

    def is_calibrated_for(self, sampling: SamplingConfig) -> bool:
        """Whether the bounds' coverage was fitted for these draws: it holds for one K, N and solver only."""
        own = self.recipe.sampling
        return (own.samples, own.steps, own.solver) == (sampling.samples, sampling.steps, sampling.solver)

    def has_spread_for(self, sampling: SamplingConfig) -> bool:
        """Whether the factor of the spread was fitted for such draws, of whatever K: for one N and solver."""
        own = self.recipe.sampling
        return (own.steps, own.solver) == (sampling.steps, sampling.solver)

    def dispersion(self, sampling: SamplingConfig) -> float:
        """The factor for the spread of such draws; 1 where none was fitted for them."""
        return self.calibration.dispersion if self.has_spread_for(sampling) else 1.0

    def annotations(self, sampling: SamplingConfig) -> dict[str, str]:
        """What made a reconstruction, for the metadata of its file."""
        return {
            "task": self.record.task,
            "dataset_digest": self.record.dataset_digest,
            "git_commit": self.record.git_commit or "unknown",
            "calibration": self.calibration.id,
            "quantitative": QUANTITATIVE,
            "not_quantitative": "; ".join(
                [NOT_QUANTITATIVE]
                + [UNCALIBRATED] * (not self.is_calibrated_for(sampling))
                + [UNSCALED] * (not self.has_spread_for(sampling))
            ),
            "seed": str(sampling.seed),
            "samples": str(sampling.samples),
            "steps": str(sampling.steps),
            "solver": sampling.solver,
            "tile": str(sampling.tile),
            "spread_factor": f"{self.dispersion(sampling):.4g}",
            "interval_level": str(self.calibration.level),
            "interval_calibrated": str(self.is_calibrated_for(sampling)).lower(),
            "interval_guarantee": self._guarantee_for(sampling),
        }

    def _guarantee_for(self, sampling: SamplingConfig) -> str:
        """What is promised of the interval of such draws, in ASCII, as it travels in headers."""
        if self.is_calibrated_for(sampling):
            return self.calibration.guarantee()
        own = self.recipe.sampling
        return f"None: calibrated are {own.samples} draws of {own.steps} steps by {own.solver}."


def save_checkpoint(directory: Path, checkpoint: Checkpoint, golden_input: np.ndarray) -> None:
    """Write the directory, all or nothing; golden_input is a small input in file units,
    (H, W), or (C, H, W) of several channels.

    Raises StorageError when it cannot be written, CheckpointError when the directory exists already.
    """
    if directory.exists():
        raise CheckpointError(f"no directory yet at {directory}", "one", "Choose another place or remove it.")
    partial = directory.with_name(directory.name + ".writing")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "golden").mkdir(parents=True)
        _write_weights(partial / WEIGHTS, checkpoint.model)
        if checkpoint.familiar is not None:
            np.savez(partial / FAMILIAR, **vars(checkpoint.familiar))
        _write_golden(partial / "golden", checkpoint, golden_input)
        _write_description(partial, checkpoint)
        partial.replace(directory)
    except OSError as error:
        raise StorageError(f"room for a checkpoint at {directory}", str(error), "Free disk space.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_checkpoint(directory: Path, *, device: str = "cpu") -> Checkpoint:
    """Read and check a checkpoint directory. Raises CheckpointError; never runs code from it."""
    description = _read_description(directory)
    for name, digest in description["files"].items():
        path = directory / name
        if not path.is_file() or file_digest(path) != digest:
            raise CheckpointError(
                f"{name} of {directory} as it was written",
                "another content or nothing",
                "Copy or export the model again.",
            )
    try:
        recipe = from_mapping(Recipe, description["recipe"], "recipe")
        return Checkpoint(
            model=_load_model(recipe, directory / WEIGHTS, device),
            recipe=recipe,
            normalisation=from_mapping(Normalisation, description["normalisation"], "normalisation"),
            calibration=from_mapping(Calibration, description["calibration"], "calibration"),
            record=from_mapping(Record, description["record"], "record"),
            familiar=_read_familiar(directory / FAMILIAR) if FAMILIAR in description["files"] else None,
        )
    except (CvdmError, KeyError, TypeError, ValueError, pickle.UnpicklingError, BadZipFile) as error:
        raise CheckpointError(
            f"a model description in {directory} that this version reads",
            str(error),
            "Export the model again.",
        ) from error


def verify_golden(directory: Path, checkpoint: Checkpoint) -> None:
    """Replay the golden pair. Raises CheckpointError when the model no longer gives what it gave."""
    golden = directory / "golden"
    settings = json.loads((golden / "golden.json").read_text(encoding="utf-8"))
    sampling = from_mapping(SamplingConfig, settings["sampling"], "golden.sampling")
    replay = reconstruct(
        checkpoint, read_observation(golden / "input.tif", checkpoint.sight), sampling=sampling
    )
    for name, actual in (("mean", replay.mean), ("std", replay.std)):
        expected = read_image(golden / f"{name}.tif").pixels
        difference = float(np.abs(actual - expected).max())
        allowed = settings["tolerance"] * settings["intensity_range"]
        if not difference <= allowed:  # NaN fails too
            raise CheckpointError(
                f"the golden {name} to be reproduced within {allowed:.4g}",
                f"a difference of {difference:.4g}",
                "Do not serve this model; register it again from its training run.",
            )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _load_model(recipe: Recipe, weights: Path, device: str) -> CVDM:
    """The model with its weights. Lack of memory is no fault of the file: it stays the error that it is."""
    model = CVDM(recipe.model)
    state = torch.load(weights, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:  # names and shapes
        raise CheckpointError(
            f"weights of the recipe in {weights}", str(error), "Export it again."
        ) from error
    return model.to(device=device).eval().requires_grad_(False)


def _read_familiar(path: Path) -> Familiar:
    """Raises KeyError, TypeError, ValueError, BadZipFile for a file that is none."""
    with np.load(path, allow_pickle=False) as held:
        arrays = {name: held[name] for name in held.files}
    numbers = {name: float(arrays[name]) for name in ("largest", "spread")}
    return Familiar(**arrays | numbers)


def _write_weights(path: Path, model: CVDM) -> None:
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    try:
        torch.save(state, path)
    except RuntimeError as error:  # what torch makes of a full disk
        raise OSError(str(error)) from error


def _write_golden(golden: Path, checkpoint: Checkpoint, golden_input: np.ndarray) -> None:
    pixels = golden_input.astype(np.float32)
    # the model's own solver: a service draws with that, whatever else it is asked for
    sampling = replace(GOLDEN_SAMPLING, solver=checkpoint.recipe.sampling.solver)
    observation = Observation.of(pixels, checkpoint.sight)
    result = reconstruct(checkpoint, observation, sampling=sampling)
    if checkpoint.sight.channels:
        named = dict(zip(checkpoint.sight.channels, pixels, strict=True))
        write_ome_tiff(golden / "input.tif", [named], metadata=Metadata(), annotations={})
    else:
        write_tiff(golden / "input.tif", pixels)
    for name, array in (("mean", result.mean), ("std", result.std)):
        write_tiff(golden / f"{name}.tif", array)
    settings = {
        "sampling": asdict(sampling),
        "tolerance": GOLDEN_TOLERANCE,
        "intensity_range": 2 * checkpoint.normalisation.scale_of(observation.centres[0]).half_range,
    }
    (golden / "golden.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write_description(directory: Path, checkpoint: Checkpoint) -> None:
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    description = {
        "format": FORMAT,
        "recipe": checkpoint.recipe.as_dict(),
        "normalisation": asdict(checkpoint.normalisation),
        "calibration": asdict(checkpoint.calibration),
        "record": asdict(checkpoint.record),
        "files": {p.relative_to(directory).as_posix(): file_digest(p) for p in files},
    }
    (directory / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def _read_description(directory: Path) -> Mapping[str, Any]:
    path = directory / DESCRIPTION
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        version = description["format"]
        files = set(dict(description["files"]))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"a checkpoint directory with {DESCRIPTION} at {directory}",
            "none",
            "Correct the path; `dvc pull` brings the shipped ones, `python -m cvdm train` and `cvdm export` "
            "write others.",
        ) from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CheckpointError(f"a readable {path}", str(error), "Copy or export the model again.") from error
    if version != FORMAT:
        raise CheckpointError(
            f"checkpoint format {FORMAT}", f"format {version}", "Use the version that wrote it."
        )
    required = {WEIGHTS, "golden/golden.json", "golden/input.tif", "golden/mean.tif", "golden/std.tif"}
    if missing := required - files:
        raise CheckpointError(
            f"{DESCRIPTION} to list {', '.join(sorted(required))}",
            f"no {', '.join(sorted(missing))}",
            "Export it again.",
        )
    return description
