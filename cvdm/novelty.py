"""How novel is an image to a model, beside what its training fields are to each other?

    window      64 x 64 pixels of the normalised input, up to 8 x 8 of them over the image
    traits      log10 of its mean power in seven rings of spatial frequency (Welch's method), and its mean
    distance    Euclidean, of traits whitened over the training's windows, to the 8th nearest of these
    factor      that distance over the mean of what the same is for these eight among other fields
    novelty     mean factor of the image's windows, over the largest that a training field has, or would have
                by the spread of its windows if it had so few

The factor is the local outlier factor (Breunig et al. 2000, doi 10.1145/342009.335388) with distances for
reachabilities: a window is novel where it lies apart from others by more than these do from each other, so
rare bright windows count no more than common dark ones. An image as familiar as the training fields has a
novelty of at most about 1. Focus, noise, sampling and texture of another specimen show in the rings.

Not covered: structures that are new but have the spectrum of old ones; channels beside the restored one,
and its neighbours; a defocus that noise or the optics' own blur hides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from scipy.spatial.distance import cdist

from cvdm.normalisation import IntensityScale, Pixels

WINDOW, SEGMENT = 64, 32
"""Pixels along a side of a window, and of the segments with half overlap of which it is the mean."""
RINGS = (0.9, 2.0, 3.0, 4.5, 6.5, 9.0, 12.0, 16.01)
"""Edges between the rings, in periods per segment."""
SMALLEST_POWER = 1e-6
"""Added to each: a thousandth of a half range is no structure."""
ACROSS = 8
"""Windows along each side of an image, at most."""
FEWEST = 4
"""Windows of an image without which nothing is said: single ones of familiar fields are as novel as 2."""
NEIGHBOURS = 8
MOST_WINDOWS = 512
"""Of the training that are kept."""
CAUTION = 2.0
"""Standard deviations by which the mean of few windows may lie above that of many."""
SHRINKAGE = 0.02
"""Of the traits' correlations towards none, so that few windows can be whitened too."""
FAMILIAR, NOVEL = 1.0, 1.25
"""Up to where an image is like a training field, and from where on it is one that a person should look at: of
the shipped data, no field that training did not see reaches 1.05."""


@dataclass(frozen=True, eq=False)
class Familiar:
    """The windows of a training set, T traits each."""

    centre: np.ndarray
    """(T,) mean traits."""
    whitening: np.ndarray
    """(T, T): (traits - centre) @ whitening has unit covariance."""
    windows: np.ndarray
    """(N, T) whitened traits."""
    distances: np.ndarray
    """(N,) of each window to its 8th nearest one of other fields."""
    largest: float
    """Mean factor of the training field for which it is largest."""
    spread: float
    """Standard deviation of the factors of a field's windows."""

    def novelty(self, pixels: Pixels, scale: IntensityScale) -> float | None:
        """Of an image (H, W) in file units; None for one of too few windows to say."""
        traits = traits_of(pixels, scale)
        if traits is None or len(traits) < FEWEST:
            return None
        whitened = (traits - self.centre) @ self.whitening
        factors = _factors(cdist(whitened, self.windows), self.distances)
        fewer = math.sqrt(1 / len(factors) - 1 / ACROSS**2)
        return float(factors.mean() / (self.largest + CAUTION * fewer * self.spread))


def fit_familiar(images: Iterable[tuple[str, Pixels, IntensityScale]]) -> Familiar | None:
    """From a training's images: name of the field, pixels (H, W) in file units, and their scale.

    None where no two fields can be compared.
    """
    by_field: dict[str, list[np.ndarray]] = {}
    for field, pixels, scale in images:
        traits = traits_of(pixels, scale)
        if traits is not None:
            by_field.setdefault(field, []).append(traits)
    if len(by_field) < 2:
        return None
    traits = np.concatenate([part for parts in by_field.values() for part in parts])
    fields = np.repeat(np.arange(len(by_field)), [sum(map(len, parts)) for parts in by_field.values()])
    kept = np.unique(np.linspace(0, len(traits) - 1, MOST_WINDOWS).astype(int))
    traits, fields = traits[kept], fields[kept]
    centre, whitening = traits.mean(0), _whitening(traits)
    windows = (traits - centre) @ whitening
    apart = np.where(fields[:, None] == fields[None], np.inf, cdist(windows, windows))
    distances = np.sort(apart, axis=1)[:, min(NEIGHBOURS, _fewest_others(fields)) - 1]
    factors = [
        _factors(apart[fields == field][:, fields != field], distances[fields != field])
        for field in np.unique(fields)
    ]
    largest = max(float(own.mean()) for own in factors)
    spread = float(np.mean([own.std() for own in factors]))
    return Familiar(centre, whitening, windows, distances, largest, spread)


def traits_of(pixels: Pixels, scale: IntensityScale) -> np.ndarray | None:
    """(n, T) of n windows of an image (H, W) in file units; None for one that is smaller than a segment."""
    height, width = pixels.shape
    if min(height, width) < SEGMENT:
        return None
    return np.array(
        [
            _traits(scale.apply(np.asarray(pixels[top : top + WINDOW, left : left + WINDOW])))
            for top in _begins(height)
            for left in _begins(width)
        ]
    )


def _begins(length: int) -> np.ndarray:
    """Where windows begin along a side, spread evenly."""
    count = min(ACROSS, max(1, length // WINDOW))
    return np.linspace(0, max(0, length - WINDOW), count).astype(int)


def _traits(window: np.ndarray) -> np.ndarray:
    """(T,) of one window, normalised."""
    segments = np.lib.stride_tricks.sliding_window_view(window, (SEGMENT, SEGMENT))
    segments = segments[:: SEGMENT // 2, :: SEGMENT // 2].reshape(-1, SEGMENT, SEGMENT)
    taper, rings = _taper_and_rings()
    flat = segments - segments.mean(axis=(1, 2), keepdims=True)
    power = (np.abs(np.fft.rfft2(flat * taper)) ** 2).mean(0) / SEGMENT**2
    return np.array([*(np.log10(power[ring].mean() + SMALLEST_POWER) for ring in rings), window.mean()])


@cache
def _taper_and_rings() -> tuple[np.ndarray, list[np.ndarray]]:
    line = np.hanning(SEGMENT + 2)[1:-1]
    taper = np.outer(line, line)
    frequency = SEGMENT * np.hypot(np.fft.fftfreq(SEGMENT)[:, None], np.fft.rfftfreq(SEGMENT)[None])
    rings = [(frequency >= low) & (frequency < high) for low, high in pairwise(RINGS)]
    return taper / np.sqrt((taper**2).mean()), rings


def _whitening(traits: np.ndarray) -> np.ndarray:
    """(T, T), from the covariance of traits (N, T)."""
    spread = np.maximum(traits.std(0), 1e-6)
    correlations = np.cov(((traits - traits.mean(0)) / spread).T)
    shrunk = (1 - SHRINKAGE) * correlations + SHRINKAGE * np.eye(len(spread))
    return np.asarray(np.linalg.inv(np.linalg.cholesky(shrunk)).T / spread[:, None])


def _fewest_others(fields: np.ndarray) -> int:
    """How many windows there are beside those of the field that has most."""
    return int(len(fields) - np.bincount(fields).max())


def _factors(apart: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """(n,) of windows, from their distances (n, N) to those of the training and what these are apart (N,)."""
    count = min(NEIGHBOURS, apart.shape[1])
    nearest = np.argpartition(apart, count - 1, axis=1)[:, :count]
    reach = np.take_along_axis(apart, nearest, axis=1).max(1)
    usual = np.maximum(distances[nearest].mean(1), np.finfo(np.float32).eps)
    return np.asarray(reach / usual)
