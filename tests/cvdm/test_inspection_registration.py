"""Shifts, rotations and scales planted on real pairs are found again."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from changed_fields import quick_frame, shifted
from scipy.ndimage import affine_transform

from cvdm.images import read_image
from cvdm.inspection.registration import register

DATA = Path(__file__).parents[2] / "data"
FMD, BIOSR = DATA / "fmd-confocal-nuclei", DATA / "biosr-microtubules"


def moved(image: np.ndarray, *, dy=0.0, dx=0.0, rotation=0.0, scale=0.0) -> np.ndarray:
    """image under a similarity about its centre, counter-clockwise as displayed, by cubic interpolation."""
    angle = np.deg2rad(rotation)
    matrix = (1 + scale) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(matrix)
    centre = (np.array(image.shape) - 1) / 2
    offset = centre - inverse @ (centre + np.array((dy, dx)))
    return affine_transform(image, inverse, offset=offset, order=3, mode="mirror").astype(np.float32)


@pytest.fixture(scope="module")
def low_snr_pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Registered: fmd targets with an independent quick frame, biosr targets with their simulated input."""
    rng = np.random.default_rng(0)
    nuclei = [read_image(path).pixels for path in sorted((FMD / "high").glob("*.tif"))[::6]]
    found = [(quick_frame(target, rng), target) for target in nuclei]
    for path in sorted((BIOSR / "low").glob("*.tif")):
        found.append((read_image(path).pixels, read_image(BIOSR / "high" / path.name).pixels))
    return found


def test_planted_shifts_are_found_on_low_snr_inputs(low_snr_pairs):
    """The median error over shifts of 0 to 5 px is below 0.06 px, the largest below 0.25 px."""
    rng = np.random.default_rng(1)
    errors = []
    for low, high in low_snr_pairs:
        dy, dx = rng.uniform(-5, 5, 2) * rng.random()
        inside = np.s_[8:-8, 8:-8]
        found = register(low[inside], shifted(high, dy, dx)[inside])
        errors.append(np.hypot(found.dy - dy, found.dx - dx))
    assert np.median(errors) < 0.06
    assert max(errors) < 0.25


@pytest.mark.parametrize(
    ("rotation", "scale"), [(0, 0), (0.2, 0), (-0.5, 0.002), (2, 0), (0, -0.005), (0, 0.02), (1, 0.01)]
)
def test_planted_rotation_and_scale_are_found(low_snr_pairs, rotation, scale):
    """Rotation within 0.1 degree, scale within 0.2 %, with a shift planted besides."""
    for low, high in low_snr_pairs[::7]:
        found = register(low, moved(high, dy=1.5, dx=-2.25, rotation=rotation, scale=scale))
        assert found.rotation_deg == pytest.approx(rotation, abs=0.1)
        assert found.scale == pytest.approx(scale, abs=0.002)
        assert (found.dy, found.dx) == pytest.approx((1.5, -2.25), abs=0.4)


def test_large_shifts_are_found(low_snr_pairs):
    """A stage off by a tenth of the field is found to a pixel."""
    low, high = low_snr_pairs[0]
    found = register(low[:448, :448], high[60:508, 45:493])
    assert (found.dy, found.dx) == pytest.approx((-60, -45), abs=1)


def test_the_measured_drift_of_the_stage_is_seen():
    """fov01 of fmd: its first and last captures lie on either side of their mean, as far as apart."""
    target = read_image(FMD / "high" / "fov01_cap00.tif").pixels
    first, last = (read_image(FMD / "low" / f"fov01_cap{n}.tif").pixels for n in ("00", "40"))
    before, after, whole = register(first, target), register(last, target), register(first, last)
    assert before.dy > 0.5
    assert after.dy < -0.4
    assert whole.dy == pytest.approx(before.dy - after.dy, abs=0.15)


def test_real_pairs_are_registered():
    """Every shipped pair lies within 0.9 px, without rotation or scale."""
    for root in (FMD, BIOSR):
        for path in sorted((root / "low").glob("*.tif"))[::4]:
            found = register(read_image(path).pixels, read_image(root / "high" / path.name).pixels)
            assert found.shift_px < 0.9, path.name
            assert abs(found.rotation_deg) < 0.1, path.name
            assert abs(found.scale) < 0.002, path.name


def test_unrelated_images_have_little_confidence():
    """Fields that share nothing give None or a confidence below that of every true pair."""
    names = ("fov03_cap00", "fov05_cap00", "fov08_cap00", "fov10_cap00", "fov20_cap00")
    lows = [read_image(FMD / "low" / f"{name}.tif").pixels for name in names]
    highs = [read_image(FMD / "high" / f"{name}.tif").pixels for name in names]
    true = [register(low, high).confidence for low, high in zip(lows, highs, strict=True)]
    for i, j in itertools.permutations(range(len(names)), 2):
        found = register(lows[i], highs[j])
        assert found is None or (found.confidence < min(true) and found.windows < 4)


def test_empty_windows_do_not_count(low_snr_pairs):
    """With structure in one quarter only, few windows count and the shift is that quarter's."""
    low, high = low_snr_pairs[0]
    rng = np.random.default_rng(2)
    background = rng.normal(4, 1, (1024, 1024)).astype(np.float32)
    other = rng.normal(4, 0.2, (1024, 1024)).astype(np.float32)
    background[:512, :512], other[:512, :512] = low, shifted(high, 0.5, 1.25)
    found = register(background, other)
    assert found.windows <= 9
    assert (found.dy, found.dx) == pytest.approx((0.5, 1.25), abs=0.25)


def test_without_structure_there_is_no_answer():
    """A constant image, a tiny one and the noise of two frames give None."""
    rng = np.random.default_rng(3)
    noise = [rng.normal(size=(200, 300)).astype(np.float32) for _ in range(2)]
    assert register(*noise) is None
    assert register(noise[0], np.zeros_like(noise[0])) is None
    assert register(noise[0][:10], noise[1][:10]) is None
