"""Bring images of extreme values into a range in which float32 sums and squares hold."""

from __future__ import annotations

import numpy as np

SAFE = (1e-6, 1e9)  # largest magnitude of an image that needs no scaling


def moderate(image: np.ndarray) -> tuple[np.ndarray, float] | None:
    """image (H, W) as float32 divided by a factor, and that factor, 1 for usual images; None if constant."""
    lowest, highest = float(image.min()), float(image.max())
    if lowest == highest:
        return None
    largest = max(abs(lowest), abs(highest))
    if SAFE[0] <= largest <= SAFE[1]:
        return np.asarray(image, np.float32), 1.0
    return (image.astype(np.float64) / largest).astype(np.float32), largest
