"""What a restored image says of itself, in a few numbers that can be compared with those of others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cvdm.inspection.artefacts import signal_share
from cvdm.inspection.background import background_offset
from cvdm.inspection.focus import measure_focus
from cvdm.inspection.intensity import intensity
from cvdm.inspection.noise import measure_noise
from cvdm.observation import Observation
from cvdm.posterior import Posterior

SIDE = 1024
"""Pixels along a side of the part that is looked at, in the middle of an image."""


@dataclass(frozen=True)
class Sample:
    """The middle of an image, and what a model said of it."""

    observation: Observation
    """In memory."""
    width: float
    """Of the calibrated interval: its mean, as a share of the model's intensity range."""

    @property
    def pixels(self) -> np.ndarray:
        """The restored channel of the input (h, w), in file units."""
        return np.asarray(self.observation.centres[0])


def sample_of(posterior: Posterior) -> Sample:
    """The middle of a restored image. Raises ImageError."""
    observation = posterior.view.observation
    region = observation.middle(SIDE)
    found = posterior.estimate(region)
    width = float(np.mean(found.upper - found.lower)) / (2 * posterior.view.scale.half_range)
    return Sample(observation.cropped(region), width)


def features_of(sample: Sample) -> dict[str, float]:
    """Name -> value, without those that this image does not allow; the names are those of the data gate."""
    pixels = sample.pixels
    found: dict[str, float | None] = {"interval_width": sample.width, "background": background_offset(pixels)}
    use = intensity(pixels, full_range=None)
    if use is not None:  # a constant image says nothing else
        noise, focus = measure_noise(pixels), measure_focus(pixels)
        found |= {
            "span": use.span,
            "noise": noise.level if noise else None,
            "snr_db": noise.snr_db if noise else None,
            "focus_db": focus.focus_db if focus else None,
            "signal_share": signal_share(pixels),
        }
    return {name: float(value) for name, value in found.items() if value is not None and np.isfinite(value)}
