"""The level of an image's background, on real and planted ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvdm.images import read_image
from cvdm.inspection.background import background_offset

NUCLEI = Path(__file__).parents[2] / "data" / "fmd-confocal-nuclei"


def targets():
    return [read_image(path).pixels for path in sorted((NUCLEI / "high").glob("*_cap00.tif"))]


@pytest.fixture(scope="module")
def nuclei():
    return read_image(NUCLEI / "high" / "fov05_cap00.tif").pixels


@pytest.mark.parametrize("offset", [0.5, 10.0, 500.0])
def test_a_drift_of_the_background_is_measured(nuclei, offset):
    """An added offset moves the estimate by itself, although half the field is nuclei."""
    before = background_offset(nuclei)
    assert background_offset(nuclei + np.float32(offset)) - before == pytest.approx(offset, abs=0.01)


def test_backgrounds_of_one_session_agree():
    """Nineteen fields with different nuclei have backgrounds within three grey levels of each other."""
    assert np.ptp([background_offset(image) for image in targets()]) <= 3


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4])
def test_structure_does_not_move_the_background(share):
    """However much of a noisy field is bright, the estimate stays within two standard deviations."""
    rng = np.random.default_rng(1)
    field = rng.normal(100, 5, (300, 300))
    field[: int(share * 300)] += 400
    assert background_offset(field.astype(np.float32)) == pytest.approx(97, abs=6)


@pytest.mark.parametrize(
    "pixels",
    [np.full((31, 17), 4.0), np.pad([[9.0]], 40), np.ones((1, 1)), np.indices((50, 60)).sum(axis=0) % 2],
    ids=["constant", "one pixel", "one", "checkerboard"],
)
def test_odd_images_raise_nothing(pixels):
    """Constant, tiny and artificial images are measured, without a warning."""
    with np.errstate(all="raise"):
        assert np.isfinite(background_offset(pixels.astype(np.float32)))
