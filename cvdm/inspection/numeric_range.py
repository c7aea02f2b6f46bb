"""Bring images of extreme values into a range in which float32 sums and squares hold, and others into fewer
bytes.
"""

from __future__ import annotations

import numpy as np

SAFE = (1e-6, 1e9)  # largest magnitude of an image that needs no scaling
SHORT = (np.uint8, np.uint16)


def moderate(image: np.ndarray) -> tuple[np.ndarray, float] | None:
    """image (H, W) as float32 divided by a factor, and that factor, 1 for usual images; None if constant."""
    lowest, highest = float(image.min()), float(image.max())
    if lowest == highest:
        return None
    largest = max(abs(lowest), abs(highest))
    if SAFE[0] <= largest <= SAFE[1]:
        return np.asarray(image, np.float32), 1.0
    return (image.astype(np.float64) / largest).astype(np.float32), largest


def shortened(image: np.ndarray) -> np.ndarray:
    """The same values as uint8 or uint16 where they are whole numbers that fit, else the image itself.

    What counts, compares and sorts pixels is several times quicker with fewer bytes.
    """
    lowest, highest = float(image.min()), float(image.max())
    for short in SHORT:
        if lowest >= 0 and highest <= np.iinfo(short).max:
            whole = image.astype(short)
            return whole if np.array_equal(whole, image) else image
    return image
