"""Defects to plant in good image pairs, each at three strengths: one to pass, one to warn of, one to refuse.

A defect takes input and target (H, W) float64 in the file's units and gives them back damaged. Used by
benchmarks/validation.py and by the tests, so that both damage alike.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from cvdm.images import read_image, write_tiff
from cvdm.inspection.noise import measure_noise
from flows.validation.one_pair import PairFiles

Images = tuple[np.ndarray, np.ndarray]
Plant = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], Images]


LEVELS = {"slight": None, "middle": "warning", "strong": "error"}
"""Strengths of a defect, and what the gate says to them."""


@dataclass(frozen=True)
class Defect:
    """One kind of damage. A strength is None where the gate has no such level for it."""

    name: str
    check: str
    """The check that has to see it."""
    plant: Plant
    slight: float | None
    """Passes without a word about this pair."""
    middle: float | None
    """Gives a warning."""
    strong: float | None
    """Is refused."""


def saturated(image: np.ndarray, share: float) -> np.ndarray:
    """Clip so that `share` of the pixels stand at the highest value."""
    return np.minimum(image, np.quantile(image, 1 - share))


def crushed(image: np.ndarray, share: float) -> np.ndarray:
    """Subtract too much background, so that `share` of the pixels stand at 0."""
    return np.maximum(image - np.quantile(image, share), 0)


def requantised(image: np.ndarray, levels: float) -> np.ndarray:
    """Leave so many grey levels."""
    lowest, span = image.min(), np.ptp(image)
    return np.round((image - lowest) / span * (levels - 1)) / (levels - 1) * span + lowest


def noisier(image: np.ndarray, deviations: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise of so many standard deviations of the image; dark values fold back from 0."""
    return np.abs(image + rng.normal(0, deviations * image.std(), image.shape))


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """The image as a Gaussian of sigma px shows it."""
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="reflect"))


def moved(
    image: np.ndarray, *, shift: tuple[float, float] = (0, 0), degrees: float = 0, percent: float = 0
) -> np.ndarray:
    """Shift in px, rotate and enlarge about the centre."""
    angle, scale = np.deg2rad(degrees), 1 + percent / 100
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / scale
    centre = (np.array(image.shape) - 1) / 2
    return ndimage.affine_transform(
        image, matrix, centre - matrix @ (centre + np.array(shift)), order=3, mode="reflect"
    )


def curved(image: np.ndarray, gamma: float) -> np.ndarray:
    """Apply a gamma within the image's own range."""
    lowest, span = image.min(), np.ptp(image)
    return ((image - lowest) / span) ** gamma * span + lowest


def stretched(image: np.ndarray, share: float) -> np.ndarray:
    """Fill the range of 8 or 16 bits, `share` of the pixels clipped at either end, as viewers do."""
    low, high = np.quantile(image, (share, 1 - share))
    return np.clip((image - low) / (high - low), 0, 1) * (255 if image.max() < 256 else 65535)


def with_hot_pixels(image: np.ndarray, density: float, rng: np.random.Generator) -> np.ndarray:
    """Set so many single pixels per megapixel to the highest value."""
    damaged = image.copy()
    places = rng.choice(image.size, round(density * image.size / 1e6), replace=False)
    damaged.ravel()[places] = image.max()
    return damaged


def with_lost_rows(image: np.ndarray, count: float, rng: np.random.Generator) -> np.ndarray:
    """Set so many rows to one value."""
    damaged = image.copy()
    damaged[rng.choice(np.arange(8, len(image) - 8, 2), int(count), replace=False)] = image.min()
    return damaged


def staggered(image: np.ndarray, pixels: float) -> np.ndarray:
    """Shift odd rows to the right."""
    damaged = image.copy()
    damaged[1::2] = ndimage.shift(image[1::2], (0, pixels), order=3, mode="reflect")
    return damaged


def defocused(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Blur the scene by a Gaussian of sigma px; the detector's noise comes after, as strong as it was."""
    noise = measure_noise(image)
    scene = blurred(image, sigma)
    if noise is None:
        return scene
    variance = np.maximum(noise.gain * scene + noise.offset_variance, noise.background**2 / 4)
    return scene + rng.normal(0, 1, image.shape) * np.sqrt(variance)


def _emptied(low: np.ndarray, high: np.ndarray, share: float, rng: np.random.Generator) -> Images:
    """Leave a disc of the scene that is `share` of the area; around it both images are dark."""
    rows, columns = np.mgrid[: high.shape[0], : high.shape[1]]
    row, column = np.unravel_index(np.argmax(blurred(high, 8)), high.shape)
    outside = np.hypot(rows - row, columns - column) > np.sqrt(share * high.size / np.pi)

    def darkened(image: np.ndarray, noise: float) -> np.ndarray:
        dark = np.quantile(image, 0.05) + rng.normal(0, noise * np.ptp(image), image.shape)
        return np.where(outside, np.abs(dark), image)

    return darkened(low, 0.02), darkened(high, 0.005)


def _of_low(change: Callable[[np.ndarray, float], np.ndarray]) -> Plant:
    return lambda low, high, strength, rng: (change(low, strength), high)


def _of_high(change: Callable[[np.ndarray, float], np.ndarray]) -> Plant:
    return lambda low, high, strength, rng: (low, change(high, strength))


def _random_low(change: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]) -> Plant:
    return lambda low, high, strength, rng: (change(low, strength, rng), high)


def _random_high(change: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]) -> Plant:
    return lambda low, high, strength, rng: (low, change(high, strength, rng))


def _stretched_apart(low: np.ndarray, high: np.ndarray, share: float, rng: np.random.Generator) -> Images:
    return stretched(low, share), stretched(high, 1e-5)


def _exchanged(low: np.ndarray, high: np.ndarray, strength: float, rng: np.random.Generator) -> Images:
    return high, low


def _elsewhere(low: np.ndarray, high: np.ndarray, strength: float, rng: np.random.Generator) -> Images:
    """A target from somewhere else: nothing of it lies where the input's structure lies."""
    return low, np.roll(high[::-1, ::-1], [length // 3 for length in high.shape], axis=(0, 1))


DEFECTS = (
    Defect("saturated input", "saturated", _of_low(saturated), 0.0002, 0.01, 0.08),
    Defect("saturated target", "saturated", _of_high(saturated), 0.0005, 0.01, 0.08),
    Defect("crushed blacks of the input", "black", _of_low(crushed), 0.1, 0.6, 0.97),
    Defect("crushed blacks of the target", "black", _of_high(crushed), 0.1, 0.6, 0.97),
    Defect("few grey levels in the input", "grey-levels", _of_low(requantised), 80, 20, 5),
    Defect("few grey levels in the target", "grey-levels", _of_high(requantised), 80, 20, 5),
    Defect("input drowned in noise", "snr-db", _random_low(noisier), 0.1, 6, None),
    Defect("noisy target", "snr-gain-db", _random_high(noisier), 0.03, 0.62, 2.0),
    Defect("input and target exchanged", "snr-gain-db", _exchanged, None, None, 1),
    Defect("defocused input", "focus-loss", _random_low(defocused), 0.4, 1.6, 4.0),
    Defect("defocused target", "focus-loss", _random_high(defocused), 0.4, 1.3, 4.0),
    Defect("moved stage", "shift-px", _of_high(lambda i, s: moved(i, shift=(s, -s / 2))), 0.1, 1.3, 5.0),
    Defect("turned camera", "rotation-deg", _of_high(lambda i, s: moved(i, degrees=s)), 0.05, 0.5, 2.0),
    Defect("other zoom", "scale-percent", _of_high(lambda i, s: moved(i, percent=s)), 0.1, 0.6, 2.0),
    Defect("target of another field", "rank-correlation", _elsewhere, None, None, 1),
    Defect("inverted target", "rank-correlation", _of_high(lambda i, s: i.max() - i), None, None, 1),
    Defect("gamma in the target", "curvature", _of_high(curved), 1.15, 2.5, None),
    Defect("separate contrast stretch", "separate-stretch", _stretched_apart, None, 0.01, None),
    Defect("hot pixels in the input", "hot-pixels", _random_low(with_hot_pixels), 10, 150, 1500),
    Defect("hot pixels in the target", "hot-pixels", _random_high(with_hot_pixels), 10, 150, 1500),
    Defect("lost rows in the input", "dropped-lines", _random_low(with_lost_rows), 0, 2, 12),
    Defect("lost rows in the target", "dropped-lines", _random_high(with_lost_rows), 0, 2, 12),
    Defect("staggered scan of the input", "stagger-px", _of_low(staggered), 0.1, 0.7, 2.0),
    Defect("staggered scan of the target", "stagger-px", _of_high(staggered), 0.1, 0.7, 2.0),
    Defect("empty field", "signal-share", _emptied, 0.3, 0.01, 0.0005),
)


def planted(defect: Defect, level: str, pair: PairFiles, folder: Path) -> PairFiles:
    """A damaged copy of a pair, written to low/ and high/ of a folder in the type of the original."""
    images = [read_image(path) for path in (pair.low, pair.high) if path is not None]
    low, high = (image.pixels.astype(float) for image in images)
    rng = np.random.default_rng(zlib.crc32(f"{defect.name} {level}".encode()))
    changed = defect.plant(low, high, getattr(defect, level), rng)
    paths = []
    for side, image, pixels in zip(("low", "high"), images, changed, strict=True):
        paths.append(folder / side / f"{pair.name}.tif")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        write_tiff(paths[-1], np.clip(np.round(pixels), 0, image.full_range).astype(image.dtype))
    return replace(pair, low=paths[0], high=paths[1])
