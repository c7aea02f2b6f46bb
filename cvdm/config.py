"""Frozen configuration values: what a model is, how it is trained, how its posterior is sampled.

A default is written once, here. `params.yaml` holds named presets that override defaults (`cvdm.params`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cvdm.errors import ConfigError
from cvdm.normalisation import NORMALISATIONS
from cvdm.sight import Sight

SCHEDULES = ("pinned", "separable", "linear", "cosine", "log-snr-linear")
PRECISIONS = ("fp32", "bf16")
SOLVERS = ("angular-euler", "dpm-solver++", "ancestral")


@dataclass(frozen=True)
class ScheduleConfig:
    """The noise schedule gamma(t, x); see `cvdm.schedule`."""

    kind: str = "pinned"
    """One of `SCHEDULES`: two that are learned per pixel, three fixed ones as baselines."""
    width: int = 16
    """Channels of the small network that maps the observation to schedule parameters."""
    curves: int = 7
    """Monotone curves that a pixel mixes (pinned) or that all pixels share (separable)."""
    log_snr_clean: float = 7.0
    """Log signal-to-noise ratio at t = 0; the separable schedule starts there but may move."""
    log_snr_noise: float = -7.0
    """Log signal-to-noise ratio at t = 1."""

    def __post_init__(self) -> None:
        _require_choice("schedule.kind", self.kind, SCHEDULES)
        _require_at_least("schedule.width", self.width, 1)
        _require_at_least("schedule.curves", self.curves, 1)
        if not self.log_snr_clean > self.log_snr_noise:
            raise ConfigError(
                "schedule.log_snr_clean above schedule.log_snr_noise",
                f"{self.log_snr_clean} and {self.log_snr_noise}",
                "Raise log_snr_clean or lower log_snr_noise.",
            )


@dataclass(frozen=True)
class NetworkConfig:
    """Size of one U-Net; see `cvdm.networks.UNet`."""

    width: int = 32
    """Channels at the finest level; each coarser level doubles them."""
    levels: int = 3
    """Resolution levels; each halves height and width."""
    blocks: int = 1
    """Residual blocks per level, on the way down and on the way up."""
    stem: int = 2
    """Pixels are gathered stem x stem into channels before the first level; 1 keeps full resolution."""

    def __post_init__(self) -> None:
        for name in ("width", "levels", "blocks", "stem"):
            _require_at_least(f"a network's {name}", getattr(self, name), 1)

    @property
    def stride(self) -> int:
        """Pixels of the image under one pixel of the coarsest level."""
        return self.stem * 2 ** (self.levels - 1)


@dataclass(frozen=True)
class ModelConfig:
    """The three networks: regression mean, denoiser, schedule; docs/training.md compares their sizes."""

    mean: NetworkConfig = field(default_factory=lambda: NetworkConfig(width=16, levels=4, stem=1))
    denoiser: NetworkConfig = field(default_factory=lambda: NetworkConfig(width=16, levels=4, stem=1))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    normalisation: str = "dataset"
    """Where the intensity scale comes from, one of `NORMALISATIONS`; see `cvdm.normalisation`."""
    sight: Sight = field(default_factory=Sight)
    """What the model sees of a field of view; the dataset's card says it (`Recipe.seeing`)."""

    def __post_init__(self) -> None:
        _require_choice("model.normalisation", self.normalisation, NORMALISATIONS)

    @property
    def stride(self) -> int:
        """Images are padded to a multiple of this; 2 is the schedule network's."""
        return math.lcm(self.mean.stride, self.denoiser.stride, 2)


@dataclass(frozen=True)
class TrainingConfig:
    """One training run."""

    steps: int = 20_000
    batch: int = 16
    """Patches per step."""
    patch: int = 64
    """Edge of a square training patch, in pixels; a multiple of the model's stride."""
    learning_rate: float = 1e-2
    """Peak learning rate of Adam, after warm-up and before the cosine decay. Filters are used at unit length
    whatever their stored length, so it is larger than for plain convolutions."""
    warmup: int = 200
    """Steps over which the learning rate rises linearly."""
    ema: float = 0.999
    """Decay of the exponential moving average of the weights; shortened early in training."""
    clip_norm: float = 1.0
    """Gradients are rescaled to at most this global norm."""
    smoothness: float = 1e-3
    """alpha, the weight of (d^2 gamma / dt^2)^2, without which a learned schedule collapses."""
    fine_tuning_steps: float = 0.25
    """Share of `steps` that a fine-tuning takes."""
    fine_tuning_rate: float = 0.3
    """Share of `learning_rate` that a fine-tuning peaks at."""
    seed: int = 0
    validate_every: int = 1_000
    """Steps between validations on the held-out validation fields; the best one's weights are kept."""
    patience: int = 6
    """Validations in a row without a better CRPS that end a training; 0 never does."""
    checkpoint_every: int = 200
    """Steps between writes of the resumable training state."""
    precision: str = "fp32"
    """Of what the U-Nets compute, one of `PRECISIONS`; weights, losses and schedule are fp32 always."""
    pieces: int = 1
    """Parts that a batch is cut into from the start (gradient accumulation); more where memory is short."""
    recompute: bool = False
    """Whether activations within a level are computed again for the backward pass instead of kept."""
    compile: bool = False
    """Whether the objective is compiled; takes a minute or more, needs a C++ compiler, on a GPU Triton."""
    deterministic: bool = False
    """Whether only deterministic algorithms are used; on a CPU training repeats bit for bit without, too."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "patch", "validate_every", "checkpoint_every", "pieces"):
            _require_at_least(f"training.{name}", getattr(self, name), 1)
        _require_at_least("training.warmup", self.warmup, 0)
        _require_at_least("training.patience", self.patience, 0)
        _require_seed("training.seed", self.seed)
        _require_choice("training.precision", self.precision, PRECISIONS)
        if self.pieces > self.batch:
            raise ConfigError(
                f"training.pieces of at most training.batch, {self.batch}", str(self.pieces), "Lower it."
            )
        for name in ("learning_rate", "clip_norm", "fine_tuning_steps", "fine_tuning_rate"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"training.{name} above 0", f"{getattr(self, name)}", "Raise it.")
        if not 0 <= self.ema < 1:
            raise ConfigError("training.ema in [0, 1)", f"{self.ema}", "Use, for instance, 0.999.")
        if self.smoothness < 0:
            raise ConfigError("training.smoothness of at least 0", f"{self.smoothness}", "Raise it.")


@dataclass(frozen=True)
class SamplingConfig:
    """How the posterior is drawn."""

    samples: int = 8
    """K, the number of posterior draws; the uncertainty is their spread, so at least 2."""
    steps: int = 10
    """Denoiser evaluations per draw."""
    seed: int = 0
    """Noise is a function of (seed, draw, step, absolute pixel position) and of nothing else."""
    solver: str = "angular-euler"
    """One of `SOLVERS`."""
    tile: int = 416
    """Edge of the square that one network evaluation restores, in pixels, without its halo. With the default
    networks' halo a tile is then as large as a whole image of 512 pixels, and takes as much memory."""
    halo: int = 0
    """Surroundings that a tile sees, in pixels; 0 means all that the networks can see, and the result does
    not depend on the tile. Less is faster, blended, and depends on it a little."""

    def __post_init__(self) -> None:
        _require_at_least("sampling.samples", self.samples, 2)
        _require_at_least("sampling.steps", self.steps, 1)
        _require_seed("sampling.seed", self.seed)
        _require_at_least("sampling.halo", self.halo, 0)
        _require_at_least("sampling.tile", self.tile, 1)
        _require_choice("sampling.solver", self.solver, SOLVERS)


@dataclass(frozen=True)
class Recipe:
    """All that decides a training, apart from the data."""

    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def __post_init__(self) -> None:
        if self.training.patch % self.model.stride:
            raise ConfigError(
                f"training.patch to be a multiple of the model's stride {self.model.stride}",
                str(self.training.patch),
                "Change training.patch, or levels and stem of model.mean or model.denoiser.",
            )

    def as_dict(self) -> dict[str, Any]:
        """Nested plain values, as `cvdm.params.from_mapping` reads them."""
        return asdict(self)

    def for_fine_tuning(self) -> Recipe:
        """The recipe of a training that starts from a base: fewer steps, smaller ones."""
        own = self.training
        steps = max(1, round(own.steps * own.fine_tuning_steps))
        rate = own.learning_rate * own.fine_tuning_rate
        return replace(self, training=replace(own, steps=steps, learning_rate=rate))

    def seeing(self, sight: Sight) -> Recipe:
        """The same recipe for a model that sees this."""
        return replace(self, model=replace(self.model, sight=sight))

    def with_seed(self, seed: int) -> Recipe:
        """The same recipe with another training seed."""
        return replace(self, training=replace(self.training, seed=seed))


def _require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigError(f"{name} of at least {least}", str(value), f"Set it to {least} or more.")


def _require_seed(name: str, value: int) -> None:
    if not 0 <= value < 2**63:
        raise ConfigError(
            f"{name} from 0 to 2^63 - 1", str(value), "Choose a smaller one that is not negative."
        )


def _require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} to be one of {', '.join(choices)}", f"'{value}'", "Choose one of them.")
