"""A short training for a comparison: the recipe's rate, clipping and moving average, any gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from tqdm import tqdm

from cvdm.config import NetworkConfig, TrainingConfig
from cvdm.model import CVDM
from cvdm.training import learning_rate_at
from cvdm.training_state import ADAM_BETAS

HALF_RESOLUTION = NetworkConfig(width=32, levels=3, stem=2)
"""The denoiser of all comparisons: half the time of the default one, whose CRPS is a few per cent lower."""


def trained(
    model: CVDM,
    average: CVDM,
    parameters: Sequence[torch.nn.Parameter],
    config: TrainingConfig,
    set_gradients: Callable[[int], None],
    title: str,
) -> CVDM:
    """The averaged weights after `config.steps` steps.

    average: a model of the same kind; takes the weights at first. set_gradients: puts the gradients of
    a step, counted from 0, into the parameters.
    """
    average.load_state_dict(model.state_dict())
    average.eval().requires_grad_(False)
    optimiser = torch.optim.Adam(parameters, betas=ADAM_BETAS)
    for step in tqdm(range(config.steps), title, leave=False):
        optimiser.zero_grad(set_to_none=True)
        set_gradients(step)
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate_at(step, config)
        optimiser.step()
        decay = min(config.ema, (2 + step) / (11 + step))
        with torch.no_grad():
            for mine, theirs in zip(average.parameters(), model.parameters(), strict=True):
                mine.lerp_(theirs, 1 - decay)
    return average
