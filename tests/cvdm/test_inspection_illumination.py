"""Shading planted on real images and on sessions of them, and the background's level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvdm.images import read_image
from cvdm.inspection.illumination import GRID, FlatField, background_offset, shading

NUCLEI = Path(__file__).parents[2] / "data" / "fmd-confocal-nuclei"


def targets():
    return [read_image(path).pixels for path in sorted((NUCLEI / "high").glob("*_cap00.tif"))]


@pytest.fixture(scope="module")
def session():
    """152 images: nineteen fields, each at eight places of a stage that knows no centre (cyclic shifts)."""
    rng = np.random.default_rng(0)
    return [np.roll(image, rng.integers(0, 512, 2), (0, 1)) for image in targets() for _ in range(8)]


@pytest.fixture(scope="module")
def nuclei():
    return read_image(NUCLEI / "high" / "fov05_cap00.tif").pixels


def light(shape, *, falloff=0.0, tilt=0.0):
    """Relative illumination: 1 in the centre, 1 - falloff in the corners, tilted along the rows."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    return (1 - falloff * (x**2 + y**2) / 2 + tilt / 2 * x).astype(np.float32)


def added(images):
    total = FlatField.empty()
    for image in images:
        total = total.plus(image)
    return total.shading()


@pytest.mark.parametrize("falloff", [0.02, 0.2, 0.6])
def test_vignetting_of_an_even_field_is_measured(falloff):
    """On a fluorescent slide the planted shading comes out as it is, noise or not."""
    slide = np.random.default_rng(0).poisson(200 * light((400, 300), falloff=falloff)).astype(np.float32)
    measured = shading(slide)
    assert measured.falloff == pytest.approx(falloff, abs=0.03)
    assert measured.tilt < 0.02


@pytest.mark.parametrize("falloff", [0.0, 0.3, 0.6])
def test_the_mean_of_a_session_shows_its_vignetting(session, falloff):
    """Over 152 images the structure averages out: the planted falloff is met within three standard errors."""
    mean = added(image * light(image.shape, falloff=falloff) for image in session)
    assert mean.falloff_error < 0.06
    assert mean.falloff == pytest.approx(falloff, abs=3 * mean.falloff_error)


def test_the_error_of_the_falloff_is_what_sessions_differ_by(session):
    """Sessions of 19 images scatter by about as much as each of them says."""
    parts = [added(session[start::8]) for start in range(8)]
    scatter = np.std([part.falloff for part in parts], ddof=1)
    assert 0.4 < scatter / np.mean([part.falloff_error for part in parts]) < 2


def test_a_session_tells_more_than_one_image(session):
    """One field of a few nuclei seems shaded by half and more; the session's mean shows that it is not."""
    single = np.median([shading(image).non_uniformity for image in session[::8]])
    assert single > 0.5
    assert added(session).non_uniformity < 0.2


@pytest.mark.parametrize("tilt", [0.02, 0.3, 0.8])
def test_a_tilt_is_told_from_vignetting(session, tilt):
    """A gradient along the rows shows as tilt, not as falloff."""
    mean = added(image * light(image.shape, tilt=tilt) for image in session)
    assert mean.tilt == pytest.approx(tilt, abs=0.1)
    assert abs(mean.falloff) < 3 * mean.falloff_error


def test_the_camera_offset_hides_shading_unless_it_is_given(session):
    """With 100 counts of offset the falloff seems smaller; given the offset it is what was planted."""
    spoilt = [image * light(image.shape, falloff=0.4) + 100 for image in session]
    hidden, known = FlatField.empty(), FlatField.empty()
    for image in spoilt:
        hidden, known = hidden.plus(image), known.plus(image, offset=100)
    assert hidden.shading().falloff < 0.2
    assert known.shading().falloff == pytest.approx(0.4, abs=3 * known.shading().falloff_error)


def test_images_of_any_size_add_up_in_the_same_small_memory(nuclei):
    """The sum keeps a 32x32 grid whatever comes in, and weighs bright and dim images alike."""
    total = FlatField.empty().plus(nuclei).plus(nuclei[:201, :303] * 1000).plus(nuclei[:31, :17])
    assert total.total.shape == (GRID, GRID) and total.count == 3
    one = FlatField.empty().plus(nuclei)
    np.testing.assert_allclose(one.plus(nuclei * 1000).shading().falloff, one.shading().falloff, rtol=1e-4)


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
        assert shading(pixels.astype(np.float32)) is not None
        assert np.isfinite(background_offset(pixels.astype(np.float32)))


def test_an_even_image_has_no_shading():
    """A constant image is perfectly even."""
    measured = shading(np.full((90, 70), 7.0, np.float32))
    assert measured.non_uniformity == pytest.approx(0, abs=1e-6)
    assert measured.falloff == pytest.approx(0, abs=1e-6) and measured.explained == 0


def test_without_light_there_is_no_shading():
    """Black images, and none, allow no statement, and do not spoil a session's sum."""
    black = np.zeros((40, 40), np.float32)
    assert shading(black) is None and FlatField.empty().shading() is None
    assert FlatField.empty().plus(black).count == 0
