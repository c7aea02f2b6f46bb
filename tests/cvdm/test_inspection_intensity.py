"""Clipping, range and grey levels of real images, whole and spoilt on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvdm.images import read_image
from cvdm.inspection.intensity import intensity

DATA = Path(__file__).parents[2] / "data"
NUCLEI = DATA / "fmd-confocal-nuclei"
ODD = Path(__file__).parents[1] / "data" / "odd"


def real(path):
    image = read_image(path)
    return image.pixels[:400, :400], image.full_range


@pytest.fixture
def nuclei():
    return real(NUCLEI / "low" / "fov05_cap00.tif")[0]


@pytest.fixture
def microtubules():
    return real(DATA / "biosr-microtubules" / "high" / "cell011.tif")[0]


@pytest.mark.parametrize("folder", ["low", "high"])
def test_real_confocal_images_are_not_clipped(folder):
    """At most 1 pixel in 10,000 is clipped at either end, in 8 bits that are all used one by one."""
    for path in sorted((NUCLEI / folder).glob("*_cap00.tif"))[::3]:
        measured = intensity(*real(path)[:1], full_range=255)
        assert measured.low.excess < 1e-4 and measured.high.excess < 1e-4
        assert measured.step == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("clipped", [0.0001, 0.01, 0.1])
@pytest.mark.parametrize("end", ["low", "high"])
def test_clipped_pixels_are_counted(microtubules, clipped, end):
    """Saturating a share of the pixels gives that share as excess, far above what the next levels expect."""
    smooth = np.round(microtubules / 64)  # ten bits
    if end == "low":
        smooth = np.maximum(smooth, np.quantile(smooth, clipped))
    else:
        smooth = np.minimum(smooth, np.quantile(smooth, 1 - clipped))
    smooth = np.round(smooth).astype(np.float32)
    result = getattr(intensity(smooth, full_range=1023), end)
    assert result.share >= 0.9 * clipped
    assert result.excess <= result.share
    if clipped >= 0.01:
        assert result.excess > 0.5 * clipped and result.pile_up > 2


@pytest.mark.parametrize("mean", [0.5, 2.0, 30.0])
def test_few_photons_are_not_clipping(mean):
    """Most pixels of a dim image are zero because no photon came, and its count fits the next levels."""
    dim = np.random.default_rng(0).poisson(mean, (300, 300)).astype(np.float32)
    measured = intensity(dim, full_range=255)
    assert measured.low.excess < 0.002 and measured.low.pile_up < 1.5
    assert measured.high.excess < 2e-4


def test_a_subtracted_background_is_clipping(nuclei):
    """The same image with its offset cut off piles up at zero."""
    cut = np.maximum(nuclei - 20, 0)
    measured = intensity(cut, full_range=255)
    assert measured.low.share > 0.5
    assert measured.low.excess > 0.5 and measured.low.pile_up > 10


def test_a_saturated_file_shows_its_clipping():
    """The saturated sample has pixels at the top of its type beyond its own trend."""
    pixels = read_image(ODD / "saturated_uint8.tif").pixels
    measured = intensity(pixels, full_range=255)
    assert measured.high.value == 255
    assert measured.high.excess > 0.001 and measured.high.pile_up > 5


@pytest.mark.parametrize("gain", [1.0, 0.25, 0.05])
def test_the_range_in_use_follows_the_gain(microtubules, gain):
    """A twentieth of the light uses a twentieth of the range; one hot pixel does not use any."""
    dim = np.round(microtubules * gain)
    dim[3, 3] = 65535
    full = intensity(microtubules, full_range=65535)
    measured = intensity(dim, full_range=65535)
    assert measured.range_share == pytest.approx(gain * full.range_share, rel=0.01)
    assert measured.span == pytest.approx(measured.range_share * 65535)


@pytest.mark.parametrize("stretch", [1.0, 1.7, 7.0])
def test_a_stretched_histogram_shows_its_gaps(nuclei, stretch):
    """Eight bits stretched after quantisation keep their number of levels, at the step of the stretch."""
    few = np.round(nuclei / np.float32(max(1, stretch)))
    stretched = np.round(few * np.float32(stretch)).astype(np.float32)
    before, after = intensity(few, full_range=255), intensity(stretched, full_range=255)
    assert after.levels == before.levels
    assert after.step == pytest.approx(stretch, rel=0.06)
    assert after.span_levels == pytest.approx(before.span_levels, rel=0.1)


@pytest.mark.parametrize("bits", [16, 6, 4])
def test_lost_bits_are_noticed(microtubules, bits):
    """Of 16 bits of which 6 or 4 were kept, no more levels than that are left in the span."""
    step = 2 ** (16 - bits)
    measured = intensity(np.floor(microtubules / step) * np.float32(step), full_range=65535)
    assert measured.step == pytest.approx(step, rel=0.6)
    assert measured.span_levels <= 2**bits


def test_a_thinly_populated_histogram_has_no_gaps_to_speak_of(microtubules):
    """Sixteen bits shared by 527 pixels leave most levels out, which is no quantisation."""
    measured = intensity(microtubules[:31, :17], full_range=65535)
    assert measured.levels > 400
    assert measured.step < 20


def test_the_unit_does_not_matter(nuclei):
    """Floating-point images scaled to 0..1 have the same levels, with the step in their own unit."""
    whole = intensity(nuclei, full_range=255)
    scaled = intensity(nuclei / np.float32(255), full_range=None)
    assert scaled.levels == whole.levels and scaled.range_share is None
    assert scaled.step == pytest.approx(whole.step / 255, rel=1e-3)
    assert scaled.high.excess == pytest.approx(whole.high.excess)


@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(31 * 17).reshape(31, 17) % 2,
        np.pad([[1e30]], 20),
        np.random.default_rng(0).normal(-5, 1e-3, (31, 17)),
        np.indices((40, 40)).sum(axis=0),
        np.array([[-3.0, 4.0]]),
    ],
    ids=["two values", "one huge", "small negative", "ramp", "two pixels"],
)
def test_odd_images_are_measured(pixels):
    """Few, negative, huge and fractional values give finite numbers and shares between 0 and 1."""
    measured = intensity(pixels.astype(np.float32), full_range=None)
    for end in (measured.low, measured.high):
        assert 0 <= end.excess <= end.share <= 1
    assert np.isfinite([measured.span, measured.step, measured.span_levels]).all() and measured.step > 0


def test_a_constant_image_says_nothing():
    """There is no scale to use."""
    assert intensity(np.full((31, 17), 3.0, np.float32), full_range=255) is None
