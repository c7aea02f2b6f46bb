"""Gain, offset, curvature and separate stretches planted on real pairs are found again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvdm.images import read_image
from cvdm.inspection.relation import measure_relation

DATA = Path(__file__).parents[2] / "data"
FMD, BIOSR = DATA / "fmd-confocal-nuclei", DATA / "biosr-microtubules"


def pairs(root: Path, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
    paths = sorted((root / "low").glob("*.tif"))[::step]
    return [(read_image(path).pixels, read_image(root / "high" / path.name).pixels) for path in paths]


@pytest.fixture(scope="module")
def real() -> list[tuple[np.ndarray, np.ndarray]]:
    return pairs(FMD, 12) + pairs(BIOSR, 4)


def stretched(image: np.ndarray, darkest: float) -> np.ndarray:
    """8-bit as a viewer exports it: from a percentile and to the maximum, each image on its own."""
    low, high = np.percentile(image, darkest), image.max()
    return np.rint(np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.float32)


def test_gain_and_offset_are_recovered(real):
    """A target scaled and lifted changes gain and offset by exactly that; the real relation is a line."""
    for low, high in real:
        plain, planted = measure_relation(low, high), measure_relation(low, 2.5 * high + 1000)
        assert planted.gain == pytest.approx(2.5 * plain.gain, rel=0.001)
        assert planted.offset == pytest.approx(2.5 * plain.offset + 1000, rel=0.001)
        assert plain.gain == pytest.approx(1, abs=0.2)
        assert abs(plain.curvature) < 0.06
        assert plain.rank_correlation > 0.98


@pytest.mark.parametrize(("exponent", "sign"), [(0.5, 1), (2.0, -1)])
def test_a_gamma_curve_is_seen_as_curvature(real, exponent, sign):
    """A target raised to a power bends the relation the right way, while it stays monotone."""
    for low, high in real:
        bent = measure_relation(low, high.max() * (high / high.max()) ** exponent)
        assert sign * bent.curvature > 0.08
        assert bent.rank_correlation > 0.98


def test_inverted_and_unrelated_pairs_are_not_monotone(real):
    """An inverted target has rank correlation under -0.9, one of noise has about none."""
    rng = np.random.default_rng(0)
    for low, high in real:
        inverted = measure_relation(low, high.max() - high)
        assert inverted.rank_correlation < -0.9
        assert inverted.gain < 0
        assert (
            abs(measure_relation(low, rng.normal(size=low.shape).astype(np.float32)).rank_correlation) < 0.3
        )


def test_separate_stretches_are_told_from_a_shared_scale(real):
    """Pairs stretched on their own exceed 0.1, shipped pairs do not; without a range there is no answer."""
    for low, high in real:
        full = 65535.0 if high.max() > 255 else 255.0
        assert measure_relation(low, high, full_range=full).separate_stretch < 0.1
        planted = measure_relation(stretched(low, 0), stretched(0.5 * high, 5), full_range=255.0)
        assert planted.both_fill_range
        assert planted.separate_stretch == planted.scale_departure > 0
    low, high = real[0]
    brighter = measure_relation(low, 1.2 * high, full_range=65535.0)  # another gain, but no stretch
    assert brighter.scale_departure > 0.1 and brighter.separate_stretch == 0
    assert measure_relation(low, high).separate_stretch is None


def test_outlying_blocks_do_not_decide(real):
    """A saturated blob over 2 % of the target's area moves gain by less than 5 %."""
    for low, high in real:
        side = round(0.14 * high.shape[0])
        blob = high.copy()
        blob[:side, :side] = high.max()
        assert measure_relation(low, blob).gain == pytest.approx(measure_relation(low, high).gain, rel=0.05)


def test_images_without_contrast_have_no_relation():
    """A constant image gives None, an image with itself gain 1 and offset 0."""
    image = np.random.default_rng(0).gamma(2, 50, (31, 17)).astype(np.float32)
    assert measure_relation(image, np.zeros_like(image)) is None
    same = measure_relation(image, image)
    assert (same.gain, same.offset, same.rank_correlation) == pytest.approx((1, 0, 1), abs=1e-6)
