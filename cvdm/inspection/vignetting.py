"""How much more light a session loses towards the corners than others, from how structure changes in itself.

    g = ridges and blobs: local maxima of a difference of Gaussians, on squares of 4 px
    q = (x^2 + y^2) / 2            position, 0 in the centre and 1 in the corners
    log g(b) - log g(a) = -slope (q(b) - q(a)) + structure     for places a, b with structure, 16 px apart
    falloff = 1 - exp(-slope)      share of the light that is lost in the corners

A blob or a filament does not know where the centre of the field is: it brightens as often towards it as away
from it. Differences of neighbouring places, large ones clipped (Huber), follow the light and hardly notice
where the specimen ends. They do notice a specimen that is thick in the middle and centred in every field: one
session alone cannot tell it from a lamp. So a session is compared with others of the same specimen, centred
by the same people, and the answer is a lower bound on what its corners lose beyond theirs.

Not covered: uneven light that has no centre (tilt, fringes); a loss that all sessions share; isolated points
further apart than 16 px, which hide most of a loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.stats import t as student

from cvdm.inspection.artefacts import dark_noise
from cvdm.inspection.blocks import block_means, median

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
    """Loss of light in the corners, as a share; negative where they are brighter.

    best:     the likeliest value.
    at_least: the lower bound of a 95 % interval.
    """

    best: float
    at_least: float


def local_changes(pixels: np.ndarray) -> LocalChanges | None:
    """What an image (H, W) of any unit says; None with too little structure."""
    if min(pixels.shape) < 4 * APART * CELL:
        return None
    cells = block_means(pixels, CELL)
    cells = cells - median(cells)  # a large offset would leave float32 no digits
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
    limit = CLIPPED * median(np.abs(change)) + 1e-9
    spread = float(np.mean(step**2 * (np.abs(change) < limit)))
    return LocalChanges(spread, float(np.mean(step * np.clip(change, -limit, limit))))


def added_falloff(session: Sequence[LocalChanges], others: Sequence[LocalChanges]) -> Falloff | None:
    """What a session's corners lose beyond those of other sessions; each field of view counts once.

    None where either has fewer than eight fields.
    """
    if min(len(session), len(others)) < FEWEST_FIELDS:
        return None
    (slope, variance), (usual, usual_variance) = _slope(session), _slope(others)
    return _falloff(slope - usual, variance + usual_variance, min(len(session), len(others)))


def lone_falloff(fields: Sequence[LocalChanges]) -> Falloff | None:
    """What the corners of fields lose, light and specimen together; None with fewer than eight fields."""
    return _falloff(*_slope(fields), len(fields)) if len(fields) >= FEWEST_FIELDS else None


def _falloff(slope: float, variance: float, fields: int) -> Falloff:
    least = slope - float(student.ppf(CONFIDENCE, fields - 1)) * math.sqrt(variance)
    return Falloff(1 - math.exp(-slope), 1 - math.exp(-least))


def _slope(fields: Sequence[LocalChanges]) -> tuple[float, float]:
    """The slope that fields share, a ratio of sums, and its variance (Cochran 1977, eq. 6.11)."""
    spread, change = np.array([(one.spread, one.change) for one in fields]).T
    total = max(float(spread.sum()), 1e-30)
    slope = -float(change.sum()) / total
    scatter = float(np.sum((change + slope * spread) ** 2))
    return slope, scatter * len(fields) / (len(fields) - 1) / total**2
