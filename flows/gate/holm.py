"""One correction for many tests of which any one may decide."""

from __future__ import annotations

from collections.abc import Sequence


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the order of the given ones (Holm 1979, Scand. J. Statist. 6, 65-70).

    The i-th smallest of m is multiplied by m + 1 - i, none becomes smaller than one before it, none exceeds
    1. To reject where an adjusted one is at most alpha errs anywhere with a probability of at most alpha,
    whatever the tests have in common.
    """
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, reached = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        reached = max(reached, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = reached
    return adjusted
