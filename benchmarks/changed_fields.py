"""Fields of view as they come back, cropped, turned, rescaled and noisy; and fingerprints of none at all.

Used by benchmarks/validation.py and by the tests, so that both change alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import fourier_shift

from cvdm.inspection.fingerprints import Fingerprint


def changed(pixels: np.ndarray, rng: np.random.Generator, *, area: float, noise: float) -> np.ndarray:
    """A random crop to `area` of the image, one of the 8 symmetries, gain, offset and Gaussian noise.

    noise: standard deviation as a share of the range from the 0.1 to the 99.9 percentile.
    """
    low, high = np.percentile(pixels, (0.1, 99.9))
    height, width = (int(side * np.sqrt(area)) for side in pixels.shape)
    top, left = (
        rng.integers(full - part + 1) for full, part in zip(pixels.shape, (height, width), strict=True)
    )
    part = np.rot90(pixels[top : top + height, left : left + width], rng.integers(4))
    part = part[::-1] if rng.random() < 0.5 else part
    gain, offset = rng.uniform(0.3, 3), rng.uniform(-1, 1) * (high - low)
    noisy = part * gain + offset + rng.normal(0, noise * (high - low) * gain, part.shape)
    return np.asarray(noisy, dtype=np.float32)


def synthetic_fingerprints(
    count: int, real: Sequence[Fingerprint], rng: np.random.Generator
) -> dict[str, Fingerprint]:
    """Fingerprints with descriptors like the real ones' at random places; every tenth has a noisy twin."""
    descriptors = np.concatenate([one.descriptors for one in real])
    spread = descriptors.std(axis=0)
    pool: dict[str, Fingerprint] = {}
    for number in range(count):
        if number % 10 == 9:
            twin = pool[f"{number - 1:05}"]
            kept = rng.random(len(twin.keypoints)) < 0.6
            places, base, strength = twin.keypoints[kept], twin.descriptors[kept], 0.25
            polarity, thumbnail = twin.polarity[kept], twin.thumbnail
        else:
            chosen = rng.integers(len(descriptors), size=100)
            places, base, strength = rng.uniform(30, 480, (100, 2)), descriptors[chosen], 0.5
            polarity = np.sign(base[:, 0]).astype(np.int8) | 1
            thumbnail = np.clip(rng.normal(0, 100, (64, 64)), -100, 100).astype(np.int8)
        noisy = base + rng.normal(0, strength * spread, base.shape)
        pool[f"{number:05}"] = Fingerprint(
            np.array([512, 512], np.int32),
            places.astype(np.float32),
            polarity,
            np.clip(np.round(noisy), -127, 127).astype(np.int8),
            thumbnail,
        )
    return pool


def twins(count: int) -> set[tuple[str, str]]:
    """The pairs of `synthetic_fingerprints` that belong together."""
    return {(f"{number - 1:05}", f"{number:05}") for number in range(9, count, 10)}


def shifted(image: np.ndarray, dy: float, dx: float) -> np.ndarray:
    """The image shifted exactly, by its spectrum; what leaves on one side enters on the other."""
    return np.asarray(np.fft.ifft2(fourier_shift(np.fft.fft2(image), (dy, dx))).real, dtype=np.float32)


def quick_frame(target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A frame as noisy as those of fmd-confocal-nuclei (variance 3.3 per grey level over 4)."""
    variance = np.maximum(1.8 + 3.3 * (target - 4), 1.8)
    return np.rint(target + rng.normal(size=target.shape) * np.sqrt(variance)).astype(np.float32)
