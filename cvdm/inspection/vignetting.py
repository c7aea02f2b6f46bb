"""How much light a session's fields lose towards their corners, from how structure changes within itself.

    g = ridges and blobs: local maxima of a difference of Gaussians, on squares of 4 px
    q = (x^2 + y^2) / 2            position, 0 in the centre and 1 in the corners
    log g(b) - log g(a) = -slope (q(b) - q(a)) + structure      for places a, b 16 px apart, both with structure
    falloff = 1 - exp(-slope)      share of the light that is lost in the corners

A person centres specimens, so a session's mean image is bright in the middle even under even light
(cvdm/inspection/illumination.py). A blob or a filament does not know where the centre of the field is: it
brightens as often towards it as away from it. Differences of neighbouring places, large ones clipped (Huber),
follow the light and hardly notice where the specimen ends.

What is left of the specimen: cells that are brighter in their middle, one of them centred in every field, look
like a loss of light too. So a session gives a lower bound, which takes the differences between its fields
into account, and only a large one means anything. Not covered: uneven light that has no centre (tilt, fringes).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.stats import t as student

from cvdm.inspection.artefacts import dark_noise
from cvdm.inspection.blocks import block_means

CELL = 4  # px
FINE, COARSE = 0.7, 2.5  # cells, of the difference of Gaussians
APART = 4  # cells, of two places
SEEN = 5.0  # standard deviations of the noise, above which there is structure
CLIPPED = 1.04  # of the median difference: two thirds of a Gaussian's standard deviation
FEWEST_PAIRS = 50
FEWEST_FIELDS = 8
CONFIDENCE = 0.975  # of the lower bound, one-sided


@dataclass(frozen=True)
class LocalChanges:
    """What one image says: two numbers, whatever its size.

    spread: mean square of the differences in position, of places that are not clipped.
    change: mean product of differences in position and in log brightness.
    """

    spread: float
    change: float


@dataclass(frozen=True)
class Falloff:
    """Loss of light in the corners of a session's fields, as a share; negative where they are brighter.

    best:     the likeliest value.
    at_least: the lower bound of a 95 % interval.
    fields:   how many fields had structure enough.
    """

    best: float
    at_least: float
    fields: int


def local_changes(pixels: np.ndarray) -> LocalChanges | None:
    """What an image (H, W) of any unit says; None with too little structure."""
    if min(pixels.shape) < 4 * APART * CELL:
        return None
    cells = block_means(pixels, CELL)
    cells = cells - np.median(cells)  # a large offset would leave float32 no digits
    noise = dark_noise(cells)
    band = gaussian_filter(cells, FINE) - gaussian_filter(cells, COARSE)
    strength = gaussian_filter(maximum_filter(band, 3), FINE)
    seen = strength > max(SEEN * noise, 1e-6 * float(strength.max()))
    level = np.log(strength, out=np.zeros_like(strength), where=seen)
    y, x = (((np.arange(length) + 0.5) * 2 / length - 1) ** 2 / 2 for length in cells.shape)
    position = np.add.outer(y, x)
    steps, changes = [], []
    for a, b in ((np.s_[:-APART], np.s_[APART:]), (np.s_[:, :-APART], np.s_[:, APART:])):
        both = seen[a] & seen[b]
        steps.append((position[b] - position[a])[both])
        changes.append((level[b] - level[a])[both])
    step, change = np.concatenate(steps), np.concatenate(changes)
    if len(step) < FEWEST_PAIRS:
        return None
    limit = CLIPPED * float(np.median(np.abs(change))) + 1e-9
    spread = float(np.mean(step**2 * (np.abs(change) < limit)))
    return LocalChanges(spread, float(np.mean(step * np.clip(change, -limit, limit))))


def falloff(fields: Sequence[LocalChanges]) -> Falloff | None:
    """The loss of light that different fields of one session share; None with fewer than eight of them."""
    if len(fields) < FEWEST_FIELDS:
        return None
    spread, change = np.array([(one.spread, one.change) for one in fields]).T
    total = float(spread.sum())
    if total == 0:
        return None
    slope = -float(change.sum()) / total
    # of a ratio of sums over fields (Cochran 1977, eq. 6.11)
    variance = float(np.sum((change + slope * spread) ** 2)) * len(fields) / (len(fields) - 1)
    least = slope - float(student.ppf(CONFIDENCE, len(fields) - 1)) * math.sqrt(variance) / total
    return Falloff(1 - math.exp(-slope), 1 - math.exp(-least), len(fields))
