"""Does a reconstruction follow the specimen, or the training? Structures planted into inputs, and erased.

    plant   low + g Poisson(PSF * s / g)                      s >= 0, the structure, in the target's units
    erase   low - g Binomial(low / g, PSF * s / PSF * target)  0 <= s <= target

g: units of the image per photon. Photons of independent sources add up, and a share of them taken at random
leaves what the rest would have sent, so both are images as they would have been acquired, with the noise that
was there (exactly so for Poisson noise; noise of the camera stays as it is). The true change of the target is
known: + s, or - s. What the reconstruction makes of it, compared with the same input unchanged:

    followed   <mean after - mean before, change> / <change, change> over its place; 1: all, 0: nothing
    covered    share of the place's pixels whose new truth is inside of the interval
    told       mean interval width of the place, after over before

A restorer that misses a planted structure, or keeps an erased one, follows with 0 and is wrong by the whole
contrast; it can only be trusted if `covered` is high nevertheless. Not covered: structures that look like
nothing in the training but are there, since only known shapes are planted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cvdm.optics import ForwardModel, blur
from cvdm.posterior import Estimate

PLACE = 0.2
"""Of the peak: pixels of a structure above it are its place."""
BINS = 20
"""Of target values, over which the noise's variance is fitted."""


@dataclass(frozen=True)
class Detection:
    """How light of the target's pixels comes to be in the input."""

    units_per_photon: float
    """g, in file units."""
    psf_sigma_px: float = 0.0
    """Blur of the input against the target; 0 where both share their optics."""

    @staticmethod
    def of(optics: ForwardModel) -> Detection:
        """What a card's forward model says."""
        return Detection(optics.full_scale / optics.photons, optics.psf_sigma_px)

    def seen(self, light: np.ndarray) -> np.ndarray:
        """PSF * light."""
        return blur(light, self.psf_sigma_px) if self.psf_sigma_px > 0 else light.astype(np.float64)


@dataclass(frozen=True)
class Answer:
    """What a reconstruction made of one change."""

    followed: float
    """Share of the change that it shows."""
    covered: float
    """Share of the place's pixels whose new truth is inside of the interval."""
    covered_before: float
    """The same without the change, against the old truth."""
    told: float
    """Mean width of the interval at the place, as a multiple of what it was before."""


def measured_detection(low: np.ndarray, high: np.ndarray) -> Detection:
    """From a pair that shares its optics: the slope of the input's noise variance over the target."""
    edges = np.unique(np.quantile(high, np.linspace(0, 1, BINS + 1)))
    which = np.clip(np.searchsorted(edges, high.ravel(), side="right") - 1, 0, len(edges) - 2)
    counts = np.bincount(which, minlength=len(edges) - 1)
    used = counts > 1
    level = (np.bincount(which, high.ravel(), len(edges) - 1)[used] / counts[used]).astype(np.float64)
    squares = np.bincount(which, (low - high).astype(np.float64).ravel() ** 2, len(edges) - 1)
    variance = squares[used] / counts[used]
    # relative errors of variances are alike: weighed by their inverse
    slope, _ = np.polyfit(level, variance, 1, w=np.sqrt(counts[used]) / np.maximum(variance, 1e-12))
    return Detection(max(float(slope), float(np.finfo(np.float32).tiny)))


def spots(
    shape: tuple[int, int], centres: Sequence[tuple[int, int]], sigma: float, peak: float
) -> np.ndarray:
    """Gaussian spots (H, W) of one size and height, apart from each other."""
    found = np.zeros(shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for row, column in centres:
        distance = (rows - row) ** 2 + (columns - column) ** 2
        found = np.maximum(found, peak * np.exp(-distance / (2 * sigma**2)))
    return found


def filament(
    shape: tuple[int, int], start: tuple[int, int], end: tuple[int, int], sigma: float, peak: float
) -> np.ndarray:
    """A straight filament (H, W) with a Gaussian profile and round ends."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    along = np.subtract(end, start).astype(float)
    length = max(float(np.hypot(*along)), 1e-9)
    offset = (rows - start[0], columns - start[1])
    place = np.clip((offset[0] * along[0] + offset[1] * along[1]) / length**2, 0, 1)
    distance = (offset[0] - place * along[0]) ** 2 + (offset[1] - place * along[1]) ** 2
    return peak * np.exp(-distance / (2 * sigma**2))


def plant(low: np.ndarray, structure: np.ndarray, how: Detection, rng: np.random.Generator) -> np.ndarray:
    """An input (H, W) as it would have been with `structure` in the specimen as well."""
    photons = how.seen(structure) / how.units_per_photon
    return low + how.units_per_photon * rng.poisson(np.clip(photons, 0, None))


def erase(
    low: np.ndarray, target: np.ndarray, structure: np.ndarray, how: Detection, rng: np.random.Generator
) -> np.ndarray:
    """An input (H, W) as it would have been without the part `structure` of its target."""
    photons = np.rint(np.clip(low, 0, None) / how.units_per_photon).astype(np.int64)
    whole, part = how.seen(np.clip(target, 0, None)), how.seen(structure)
    share = np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)
    return low - how.units_per_photon * rng.binomial(photons, np.clip(share, 0, 1))


def judge(before: Estimate, after: Estimate, target: np.ndarray, change: np.ndarray) -> Answer:
    """Compare reconstructions without and with a change of the target, all (H, W); target: the old one."""
    place = np.abs(change) > PLACE * np.abs(change).max()
    moved, wanted = (after.mean - before.mean)[place], change[place]
    return Answer(
        followed=float(moved @ wanted / (wanted @ wanted)),
        covered=_inside(after, target + change, place),
        covered_before=_inside(before, target, place),
        told=float((after.upper - after.lower)[place].mean() / (before.upper - before.lower)[place].mean()),
    )


def _inside(found: Estimate, truth: np.ndarray, place: np.ndarray) -> float:
    return float(((found.lower <= truth) & (truth <= found.upper))[place].mean())
