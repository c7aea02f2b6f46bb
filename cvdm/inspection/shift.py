"""Whether two sets of images differ: a test per feature, false discoveries under control, and effect sizes.

    D     = max |F_reference - F_current|                     Kolmogorov-Smirnov, exact for small samples
    q     = p-values adjusted by Benjamini & Hochberg (1995)  expected share of false alarms among q <= level
    delta = P(current > reference) - P(current < reference)   Cliff (1993), -1 to 1, free of units

Values must be independent: one per field of view, not one per crop or capture of it. Not covered: features
that differ only jointly.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import comb

import numpy as np
from scipy.stats import false_discovery_control, ks_2samp, mannwhitneyu


@dataclass(frozen=True)
class FeatureShift:
    """How one feature differs between two sets.

    feature:           its name.
    reference_count:   finite values in the reference; current_count likewise.
    reference_median:  in the feature's units; None without values; current_median likewise.
    p_value:           of the two-sided Kolmogorov-Smirnov test; None where a set has no values.
    q_value:           the same adjusted for the number of features tested.
    smallest_p:        what p_value is at least with so few values: no shift, however large, gives less.
    effect:            Cliff's delta, 1 where every current value is above every reference value.
    standardised:      difference of medians over the reference's spread (from its quartiles); None if 0.
    """

    feature: str
    reference_count: int
    current_count: int
    reference_median: float | None
    current_median: float | None
    p_value: float | None
    q_value: float | None
    smallest_p: float | None
    effect: float | None
    standardised: float | None

    @property
    def direction(self) -> str:
        """Whether current values are "higher", "lower" or "neither" than reference values."""
        if not self.effect:
            return "neither"
        return "higher" if self.effect > 0 else "lower"

    def summary(self) -> str:
        """For people, of a feature that has values on both sides."""
        return (
            f"{self.feature} {self.direction}: {self.current_median:.3g}, was {self.reference_median:.3g} "
            f"(effect {self.effect:+.2f}, q = {self.q_value:.3g})"
        )


LEVEL = 0.05
"""Expected share of false alarms among the features that are called shifted."""
EFFECT = 0.5
"""Cliff's delta from which a difference matters: three quarters of new fields above the typical old one."""


def shifted(features: Iterable[FeatureShift], level: float = LEVEL) -> tuple[FeatureShift, ...]:
    """Features whose difference is neither chance nor small."""
    return tuple(
        one
        for one in features
        if one.q_value is not None and one.q_value <= level and abs(one.effect or 0.0) >= EFFECT
    )


def distribution_shift(
    reference: Mapping[str, np.ndarray], current: Mapping[str, np.ndarray]
) -> tuple[FeatureShift, ...]:
    """One row per feature of either table, in the order of their names.

    Values that are not finite are left out and show in the counts. A feature without values in one of the
    tables has None for every statistic and does not count among the tests.
    """
    names = sorted({*reference, *current})
    samples = {name: (_finite(reference.get(name)), _finite(current.get(name))) for name in names}
    p_values = {name: _p_value(*pair) for name, pair in samples.items() if all(len(one) for one in pair)}
    adjusted = false_discovery_control(list(p_values.values())) if p_values else []
    q_values = dict(zip(p_values, (float(q) for q in adjusted), strict=True))
    return tuple(
        _row(name, *samples[name], p_value=p_values.get(name), q_value=q_values.get(name)) for name in names
    )


def _finite(values: np.ndarray | None) -> np.ndarray:
    numbers = np.asarray([] if values is None else values, dtype=np.float64).ravel()
    return numbers[np.isfinite(numbers)]


def _p_value(reference: np.ndarray, current: np.ndarray) -> float:
    """Ties, as of counts, make the exact test conservative, never liberal."""
    with warnings.catch_warnings():
        # scipy says where it cannot count exactly; the asymptotic p-value that it then gives serves as well
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(ks_2samp(reference, current).pvalue)


def _row(
    name: str, reference: np.ndarray, current: np.ndarray, *, p_value: float | None, q_value: float | None
) -> FeatureShift:
    tested = p_value is not None
    return FeatureShift(
        feature=name,
        reference_count=len(reference),
        current_count=len(current),
        reference_median=float(np.median(reference)) if len(reference) else None,
        current_median=float(np.median(current)) if len(current) else None,
        p_value=p_value,
        q_value=q_value,
        # complete separation: 2 of all ways to deal the values
        smallest_p=min(1.0, 2 / comb(len(reference) + len(current), len(reference))) if tested else None,
        effect=_cliffs_delta(reference, current) if tested else None,
        standardised=_standardised(reference, current) if tested else None,
    )


def _cliffs_delta(reference: np.ndarray, current: np.ndarray) -> float:
    above = mannwhitneyu(current, reference, method="asymptotic").statistic  # ties count a half
    return float(2 * above / (len(reference) * len(current)) - 1)


def _standardised(reference: np.ndarray, current: np.ndarray) -> float | None:
    lower, upper = np.percentile(reference, (25, 75))
    spread = (upper - lower) / 1.349  # a Gaussian's standard deviation
    return float((np.median(current) - np.median(reference)) / spread) if spread > 0 else None
