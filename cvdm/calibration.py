"""Calibration on fields that training never saw: an interval that holds what it says, and the right spread.

The interval is split-conformal:

    score      |target - mean| / (std + floor)                  per pixel
    C_i(r)     share of the pixels of calibration field i whose score is at most r
    q          smallest r with mean_i C_i(r) >= level           pooled, every field weighing the same
    q_-i       the same without field i
    widening   smallest k >= 1 with mean_i C_i(k q_-i) >= level
    interval   mean -+ stretch widening q (std + floor)

What is guaranteed. Pixels of a field are alike, so the independent unit is the field. If the n calibration
fields and a new one are exchangeable, the expected share of the new field's pixels inside the interval is
at least level n / (n + 1), whatever the distribution: C_i is bounded and monotone in r (Angelopoulos et al.
2022, arXiv 2208.02814, theorem 1; the same bound in Lee, Barber & Willett 2023, arXiv 2306.06342). `level`
itself would need 1 / (1 - level) - 1 fields, nine for 90 %, and with just so many an interval as wide as
the largest score; one pixel from each field (Dunn, Wasserman & Ramdas 2022, arXiv 1809.07441) needs as many.

What is corrected. Pooled distributions, recommended by the latter for their width, cover too little with few
fields: the quantile was fitted to fields that the next one differs from. Leaving out one field after the
other measures by how much; `widening` makes up for it. Simulated (tests/cvdm/test_calibration.py), it brings
the average over calibration sets to the level from two fields on, whether fields differ little or by half,
and hardly widens where they agree. It is an estimate, no guarantee; with one field nothing can be left out.

Images unlike the training get a wider interval: `stretch` is the factor that calibration fields needed after
changes planted into them (`cvdm.planted_changes`), by the novelty of the changed image; 1 for familiar ones.

Not covered: a promise for a single field, a pixel or a kind of structure, and for unfamiliar images.

The spread of the draws is multiplied by `dispersion`, the factor a with which mean + a (draw - mean) have the
least CRPS on the calibration fields, every field weighing the same. What the networks learned of their own
errors they learned on fields that they know, and few steps can lose spread; an exact posterior has 1.
The mean stays what it is, and the interval too, whose q is fitted to the spread as it comes.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist

import numpy as np

from cvdm.metrics import crps
from cvdm.novelty import FAMILIAR, NOVEL

FLOOR_SHARE = 0.02
"""The floor as a share of the mean spread over images that are no calibration fields. It takes width from
where the model is unsure to where it is sure: with 0.1, intervals are an eighth narrower, and edges of
`fmd-confocal-nuclei` were covered to 80 % instead of 88 % (docs/uncertainty.md)."""
DISPERSIONS = np.geomspace(0.5, 4.0, 25)
"""Factors that are tried on the spread of the draws; between them a parabola is."""
FEWEST_DRAWS = 4
"""From which their spread can be judged."""
GRID = 4096
"""Ranks at which a field's scores are looked at: the quantile is exact to that share of its pixels."""


@dataclass(frozen=True)
class Calibration:
    """What turns mean and std into bounds, and what that is worth."""

    level: float
    """Nominal coverage, for instance 0.9."""
    quantile: float
    """What is used: q times the widening."""
    floor: float
    """Added to every std, as a share of the intensity half-range, so that no interval is empty."""
    fields: int
    """Number of calibration fields."""
    raw_coverage: float
    """Coverage on the calibration fields of the uncalibrated interval mean -+ z std (z of a Gaussian)."""
    widening: float | None = None
    """Correction for few fields; None where there is none: of a single field, or of an earlier release."""
    corrected_level: float | None = None
    """Coverage of the calibration fields by the widened interval: what `level` was raised to."""
    stretches: tuple[tuple[float, float], ...] = ()
    """(novelty, factor) of changed calibration images, ascending in both; none of an earlier release."""
    dispersion: float = 1.0
    """What the draws' deviations from their mean are multiplied by; 1 of an earlier release."""

    def stretch(self, novelty: float | None) -> float:
        """The factor for an image of that novelty (`cvdm.novelty`); 1 where it is not known.

        It sets in gradually above 1, so that a field at the edge of the familiar has no sudden interval, and
        stays what it is beyond the most novel image that was planted.
        """
        if novelty is None or novelty <= FAMILIAR or not self.stretches:
            return 1.0
        novelties, factors = zip(*self.stretches, strict=True)
        fitted = float(np.interp(novelty, novelties, factors))
        return 1.0 + (fitted - 1.0) * min(1.0, (novelty - FAMILIAR) / (NOVEL - FAMILIAR))

    @property
    def guaranteed_level(self) -> float:
        """Expected coverage of a new, exchangeable field, whatever the distribution."""
        return self.level * self.fields / (self.fields + 1)

    def guarantee(self) -> str:
        """What is promised and what is not, in words."""
        needed = fields_needed(self.level)
        correction = (
            "It is not corrected for the small number of fields"
            if self.widening is None
            else f"It is wider by a factor of {self.widening:.3f}, so that intervals fitted on all but one "
            f"of these fields cover {self.level:.0%} of the one left out"
        )
        short = f"; {needed} fields are the fewest for {self.level:.0%}" if self.fields < needed else ""
        return (
            f"Aims at {self.level:.0%} of the pixels of a new field, averaged over fields like the "
            f"{_fields(self.fields)} it was fitted on. {correction}. Guaranteed for exchangeable fields, "
            f"whatever their distribution: {self.guaranteed_level:.1%} on average{short}. "
            "Nothing is promised for a single field or pixel, or for images of another kind."
        )

    @property
    def id(self) -> str:
        """Names these very numbers in the provenance of what they were used for."""
        values = asdict(self)
        if self.dispersion == 1.0:  # what was calibrated before there was a factor keeps its name
            del values["dispersion"]
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]

    def bounds(
        self, mean: np.ndarray, std: np.ndarray, half_range: float, stretch: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound (H, W), in the units of mean and std; half_range in the same units."""
        reach = stretch * self.quantile * (std + self.floor * half_range)
        return (mean - reach).astype(np.float32), (mean + reach).astype(np.float32)


@dataclass(frozen=True)
class CalibrationImage:
    """One reconstructed calibration image; arrays (H, W) in half-ranges, that is, normalised."""

    field: str
    error: np.ndarray
    """|target - mean|."""
    std: np.ndarray
    """Of the draws as they come."""
    losses: np.ndarray | None = None
    """Of `dispersion_losses`; None where the spread is to stay as it comes."""


def dispersion_losses(draws: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean CRPS of antithetic draws (K, H, W) with each of `DISPERSIONS`, in the images' units.

    Of pairs only: a draw without its opposite moves the mean. Two pairs are the fewest that have a spread.
    """
    draws = draws[: len(draws) // 2 * 2]
    assert len(draws) >= FEWEST_DRAWS
    mean = draws.mean(0)
    deviations, missed = draws - mean, mean - target
    error = np.array([np.abs(missed + factor * deviations).mean() for factor in DISPERSIONS])
    # CRPS is error less spread, and the spread is proportional to the factor
    spread = np.abs(missed + deviations).mean() - crps(draws, target, antithetic=True).mean()
    return error - DISPERSIONS * spread


def floor_from(stds: Iterable[np.ndarray]) -> float:
    """The floor, from images that are no calibration fields: those may not shape their own score."""
    return FLOOR_SHARE * float(np.mean([std.mean() for std in stds]))


def calibrate(images: Sequence[CalibrationImage], floor: float, level: float = 0.9) -> Calibration:
    """Fit the interval of nominal coverage `level` on reconstructed calibration images."""
    assert images and 0 < level < 1 and floor > 0
    names = [image.field for image in images]
    profile = _Profile.of([image.error / (image.std + floor) for image in images], names)
    quantile, widening = profile.quantile(level), profile.widening(level)
    used = quantile * (widening or 1.0)
    return Calibration(
        level=level,
        quantile=used,
        floor=floor,
        fields=len(profile.sorted_scores),
        raw_coverage=_raw_coverage(images, level),
        widening=widening,
        corrected_level=None if widening is None else float(profile.covered(used).mean()),
        dispersion=_dispersion(images),
    )


def _dispersion(images: Sequence[CalibrationImage]) -> float:
    """The factor of least loss, by a parabola through the best of `DISPERSIONS` and its neighbours."""
    by_field: dict[str, list[np.ndarray]] = {}
    for image in images:
        if image.losses is None:
            return 1.0
        by_field.setdefault(image.field, []).append(image.losses)
    loss = np.mean([np.mean(losses, axis=0) for losses in by_field.values()], axis=0)
    best = int(loss.argmin())
    if best in (0, len(loss) - 1):
        return float(DISPERSIONS[best])
    below, least, above = loss[best - 1 : best + 2]
    shift = (below - above) / (2 * (below - 2 * least + above))  # in steps of the grid
    return float(DISPERSIONS[best] * (DISPERSIONS[1] / DISPERSIONS[0]) ** shift)


def fields_needed(level: float) -> int:
    """The fewest calibration fields from which a distribution-free bound of that level can be finite."""
    return math.ceil(round(1 / (1 - level) - 1, 9))


@dataclass(frozen=True)
class _Profile:
    """Coverage by reach: of each calibration field, the share of pixels whose score is within it."""

    sorted_scores: tuple[np.ndarray, ...]
    """Of each field, ascending."""
    reaches: np.ndarray
    """(R,) ascending candidates: scores of all fields."""

    @staticmethod
    def of(scores: Sequence[np.ndarray], fields: Sequence[str]) -> _Profile:
        """From the scores of images, whose field may be the same."""
        by_field: dict[str, list[np.ndarray]] = {}
        for values, field in zip(scores, fields, strict=True):
            by_field.setdefault(field, []).append(values.ravel())
        ordered = tuple(np.sort(np.concatenate(parts)) for parts in by_field.values())
        ranks = np.linspace(0, 1, GRID + 1)
        reaches = np.unique(np.concatenate([np.quantile(s, ranks, method="higher") for s in ordered]))
        return _Profile(ordered, reaches)

    def covered(self, reach: float) -> np.ndarray:
        """(n,) of each field within one reach."""
        return np.array([_covered(scores, reach) for scores in self.sorted_scores])

    def quantile(self, level: float, without: int | None = None) -> float:
        """The smallest candidate within which lie `level` of the pixels, fields weighing the same."""
        kept = [scores for at, scores in enumerate(self.sorted_scores) if at != without]

        def covered(reach: float) -> float:
            return float(np.mean([_covered(scores, reach) for scores in kept]))

        # rounding: two fields that cover 0.9 each must cover 0.9
        return float(self.reaches[bisect_left(self.reaches, level - 1e-12, key=covered)])

    def widening(self, level: float) -> float | None:
        """The smallest factor >= 1 by which fields are covered by what was fitted on the others."""
        if len(self.sorted_scores) < 2:
            return None
        others = [self.quantile(level, without=i) for i in range(len(self.sorted_scores))]

        def left_out(factor: float) -> float:
            pairs = zip(self.sorted_scores, others, strict=True)
            return float(np.mean([_covered(scores, factor * reach) for scores, reach in pairs]))

        enough = float(self.reaches[-1]) / max(min(others), np.finfo(np.float64).tiny)
        return _smallest_factor(left_out, level, enough)


def _smallest_factor(left_out: Callable[[float], float], level: float, enough: float) -> float:
    """By bisection to a part in ten thousand; `enough` is a factor that covers everything."""
    if left_out(1.0) >= level - 1e-12:
        return 1.0
    low, high = 1.0, max(enough, 1.0)
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if left_out(middle) >= level else (middle, high)
    return high


def _covered(ascending: np.ndarray, reach: float) -> float:
    return float(np.searchsorted(ascending, reach, side="right")) / ascending.size


def _fields(count: int) -> str:
    return "one field" if count == 1 else f"{count} fields"


def _raw_coverage(images: Sequence[CalibrationImage], level: float) -> float:
    z = NormalDist().inv_cdf((1 + level) / 2)
    covered: dict[str, list[float]] = {}
    for image in images:
        covered.setdefault(image.field, []).append(float((image.error <= z * image.std).mean()))
    return float(np.mean([np.mean(values) for values in covered.values()]))
