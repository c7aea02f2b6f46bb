"""Rows of a validation's table, for tests of drift and of what it asks for."""

from __future__ import annotations

import numpy as np

from flows.validation.features import PairFeatures, SideFeatures


def rows(session, count, rng, *, noise=5.0, captures=2):
    """Pairs of some fields whose features scatter about usual values; captures of a field are alike."""
    found = []
    for field in range(count):
        low = SideFeatures(
            noise=noise * np.exp(rng.normal(0, 0.1)), background=rng.normal(20, 2), snr_db=rng.normal(15, 1)
        )
        high = SideFeatures(noise=np.exp(rng.normal(0, 0.1)), background=rng.normal(20, 2))
        for capture in range(captures):
            name = f"{session}{field:02d}"
            found.append(
                PairFeatures(f"{name}_c{capture}", name, "train", None, low, high, gain=rng.normal(1, 0.1))
            )
    return found
