"""The paired sign-flip test: honest with a handful of fields, where a t-test would assume too much."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import product

import numpy as np

EXACT_FIELDS = 16
"""Up to so many fields all 2^n sign flips are counted; beyond, as many random ones with a fixed seed."""
TIE = 1e-12
"""Relative difference below which two sums of differences count as equal."""


def sign_flip_p(differences: Iterable[float]) -> float:
    """One-sided p of a mean above zero: the share of sign flips with a sum at least as large as observed.

    Exact under the hypothesis that each field's difference is symmetric about zero. Up to `EXACT_FIELDS`
    values all flips are counted; beyond, 2^16 random ones and the observed one.
    """
    values = np.asarray(list(differences), dtype=np.float64)
    observed, tolerance = values.sum(), TIE * np.abs(values).sum()
    if values.size <= EXACT_FIELDS:
        return float(np.mean(_all_flips(values.size) @ values >= observed - tolerance))
    flips = _random_flips(values.size)
    return float((1 + np.sum(flips @ values >= observed - tolerance)) / (1 + len(flips)))


@lru_cache(maxsize=EXACT_FIELDS + 1)
def _all_flips(fields: int) -> np.ndarray:
    return np.array(list(product((1.0, -1.0), repeat=fields)))


@lru_cache(maxsize=4)
def _random_flips(fields: int) -> np.ndarray:
    return np.random.default_rng(0).choice((1.0, -1.0), size=(2**EXACT_FIELDS, fields))
