"""What becomes of the interval when images change: changes planted into calibration fields, and made up for.

    defocus of s px     blur by a Gaussian of that sigma, and photon noise as that of the image
    photons / n         of the image's photons every n-th by chance, and n times the gain

Of each changed image two things are known: its novelty (`cvdm.novelty`), and by which factor its interval had
to be stretched to hold the stated share of its pixels. Over both, the factor is fitted as a monotone curve
(isotonic regression): `cvdm.calibration.Calibration.stretch` widens the interval of an image by as much as
images of its novelty needed.

Not covered: changes that are not planted. Of these the curve is the best guess, and has been found to be a
fair one for another modality (docs/uncertainty.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy.optimize import isotonic_regression

from cvdm.inspection.noise import measure_noise
from cvdm.normalisation import Pixels
from cvdm.observation import Observation
from cvdm.optics import blur

DEFOCUS = (1.5, 3.0, 6.0)
"""Sigma of the blur, in pixels of the input."""
FEWER_PHOTONS = (3.0, 10.0, 30.0)
"""Photons are divided by these."""
MOST_PHOTONS = 1e4
"""In the brightest pixel, about: with more, noise is equal everywhere for all that can be told."""


def changed(observation: Observation, seed: int) -> Iterator[Observation]:
    """An observation after each of the changes, of all its planes alike; the same ones for a seed."""
    for sigma in DEFOCUS:
        yield _each_plane(observation, seed, partial(defocused, sigma=sigma))
    for fewer in FEWER_PHOTONS:
        yield _each_plane(observation, seed, partial(dimmer, fewer=fewer))


def defocused(plane: np.ndarray, rng: np.random.Generator, *, sigma: float) -> np.ndarray:
    """A plane (H, W) as it would have been out of focus, with the noise of its brightness."""
    light, camera = blur(plane, sigma), _Camera.of(plane)
    return light if camera is None else camera.image(rng.poisson(camera.photons(light)))


def dimmer(plane: np.ndarray, rng: np.random.Generator, *, fewer: float) -> np.ndarray:
    """A plane (H, W) as it would have been of fewer photons, brought to the brightness that it had."""
    camera = _Camera.of(plane)
    if camera is None:
        return plane
    kept = rng.binomial(np.rint(camera.photons(plane)).astype(np.int64), 1 / fewer)
    return camera.image(kept * fewer)


def fit_stretches(needed: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """The points of the curve, ascending, from (novelty, factor) of changed images."""
    if not needed:
        return ()
    novelties, factors = zip(*sorted(needed), strict=True)
    fitted = isotonic_regression(np.maximum(1.0, factors)).x
    return tuple((float(novelty), float(factor)) for novelty, factor in zip(novelties, fitted, strict=True))


def _each_plane(
    observation: Observation, seed: int, change: Callable[[np.ndarray, np.random.Generator], np.ndarray]
) -> Observation:
    rng = np.random.default_rng(seed)
    known: dict[int, np.ndarray] = {}  # a plane without neighbours stands for them itself

    def after(plane: Pixels) -> np.ndarray:
        if id(plane) not in known:
            known[id(plane)] = change(np.asarray(plane[:, :]), rng).astype(np.float32)
        return known[id(plane)]

    return replace(observation, channels=tuple(tuple(map(after, planes)) for planes in observation.channels))


@dataclass(frozen=True)
class _Camera:
    """Of a plane: what it makes of photons, if all of its noise were theirs."""

    gain: float
    """File units per photon."""
    dark: float
    """Brightness without any."""

    @classmethod
    def of(cls, plane: np.ndarray) -> _Camera | None:
        """From the noise of an image (H, W); None where there is none."""
        noise = measure_noise(plane)
        if noise is None or noise.level == 0:
            return None
        most = noise.level**2 / (MOST_PHOTONS * float(np.ptp(plane)))
        if noise.gain > most:
            return cls(noise.gain, -noise.offset_variance / noise.gain)
        return cls(most, float(plane.mean()) - noise.level**2 / most)  # noise equal everywhere

    def photons(self, light: np.ndarray) -> np.ndarray:
        """Of a brightness; not below none."""
        return np.maximum((light.astype(np.float64) - self.dark) / self.gain, 0)

    def image(self, photons: np.ndarray) -> np.ndarray:
        """Brightness (H, W) of a number of photons."""
        return self.dark + self.gain * photons
