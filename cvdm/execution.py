"""How the steps of a training are run: precision, recomputation, compilation, determinism.

None of it is part of a model: weights and checkpoints know nothing of it, and a model answers in fp32,
however it was trained. (In bf16 CRPS and coverage of the shipped models stay as they are, but single pixels
move by up to 0.7 % of the intensity range, more than a replay of their golden pairs allows.) Nothing is set
for the process beyond a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cvdm.config import TrainingConfig
from cvdm.errors import TrainingError
from cvdm.gradients import Objective
from cvdm.losses import batch_losses
from cvdm.model import CVDM

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""By the names of `cvdm.config.PRECISIONS`."""


def prepare(model: CVDM, config: TrainingConfig, device: str) -> Objective:
    """Let a model's networks run as `config` says; returns the objective to train it by.

    Raises TrainingError where it cannot be compiled.
    """
    for network in (model.mean_network, model.denoiser):
        network.precision, network.recompute = DTYPES[config.precision], config.recompute
    if not config.compile:
        return batch_losses
    require_compiler(device)
    return torch.compile(batch_losses)


def require_compiler(device: str) -> None:
    """Compile something small. Raises TrainingError."""
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds, most of them not public
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(
            f"a compiler that torch.compile can use on {device}",
            f"{type(error).__name__}: {reason}",
            "Install a C++ compiler (on a GPU Triton, too), or set training.compile to false.",
        ) from error


@contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """Within it, if wanted, operations that could give another result the next time raise instead.

    What was set before is set again after it.
    """
    if not wanted:
        yield
        return
    cudnn = torch.backends.cudnn
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    chosen, tried = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
        cudnn.deterministic, cudnn.benchmark = chosen, tried


def require_determinism(device: str) -> None:
    """Try what a GPU does deterministically only if asked to before it starts. Raises TrainingError."""
    with determinism(True):
        try:
            torch.ones(2, 2, device=device) @ torch.ones(2, 2, device=device)
        except RuntimeError as error:
            raise TrainingError(
                "CUBLAS_WORKSPACE_CONFIG=:4096:8 in the environment of a deterministic training on a GPU",
                " ".join(str(error).split())[:200],
                "Set it and start again, or set training.deterministic to false.",
            ) from error
