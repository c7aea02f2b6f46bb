"""Where an image's zero lies: the level of its background.

How evenly a field is lit is told by comparison between sessions: see cvdm/inspection/vignetting.py.
"""

from __future__ import annotations

import numpy as np

MODE_SAMPLE = 2**15  # pixels


def background_offset(pixels: np.ndarray) -> float:
    """The most common value of the darker half of an image, in its units.

    The half-sample mode (Robertson & Cryer 1974): the densest half of the sorted values is halved again until
    few are left. Neither bright structure nor a tail of dark outliers moves it, unlike a mean or a minimum.
    """
    some = pixels.ravel()[:: max(1, -(-pixels.size // MODE_SAMPLE))]
    # NumPy's stable sort of short whole numbers is a radix sort, quicker than any other
    values = np.sort(some, stable=some.dtype.kind == "u")[: some.size // 2 + 1].astype(np.float64)
    while len(values) > 3:
        half = (len(values) + 1) // 2
        widths = values[half - 1 :] - values[: len(values) - half + 1]
        narrowest = np.flatnonzero(widths == widths.min())
        # equal grey levels give many narrowest halves: the middle one has no bias
        start = narrowest[len(narrowest) // 2]
        values = values[start : start + half]
    return float(values.mean())
