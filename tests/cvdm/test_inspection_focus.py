"""Planted blur lowers the focus of real images; brightness and noise do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cvdm.images import read_image
from cvdm.inspection.focus import DB_PER_PX2, measure_focus

DATA = Path(__file__).parents[2] / "data"
ODD = Path(__file__).parents[1] / "data" / "odd"
STRENGTHS = (0, 1, 2, 4)  # px


def targets(task: str) -> list[np.ndarray]:
    paths = sorted((DATA / task / "high").glob("*.tif"))
    fields = {path.stem.split("_")[0]: path for path in paths}
    return [read_image(path).pixels[:768, :768] for path in list(fields.values())[::2]]


def acquired(target: np.ndarray, blur: float, rng: np.random.Generator, photons: float) -> np.ndarray:
    """The target blurred, then with the photon noise and rounding of a quick frame."""
    unit = np.percentile(target, 99.9) / photons
    blurred = gaussian_filter(target, blur) if blur else target
    return (rng.poisson(np.maximum(blurred, 0) / unit) * unit).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("task", ["fmd-confocal-nuclei", "biosr-microtubules"])
@pytest.mark.parametrize("photons", [None, 30])
def test_blur_lowers_focus_beyond_the_spread_of_a_set(task, photons, rng):
    """Focus falls with each strength; at 2 px the best blurred field lies under the worst sharp one."""
    values = []
    for target in targets(task):
        blurred = [
            gaussian_filter(target, sigma) if photons is None else acquired(target, sigma, rng, photons)
            for sigma in STRENGTHS
        ]
        values.append([measure_focus(image).focus_db for image in blurred])
    table = np.array(values)
    assert (np.diff(table, axis=1) < 0).all()
    assert table[:, 2].max() < table[:, 0].min() - 1
    assert table[:, 3].max() < table[:, 0].min() - 10


def test_rounding_to_grey_levels_does_not_hide_blur():
    """Rounding blurred nuclei to 8 bit undoes less than a tenth of what 2 and 4 px of blur take."""
    for target in targets("fmd-confocal-nuclei"):
        sharp = measure_focus(target).focus_db
        for sigma in STRENGTHS[2:]:
            blurred = gaussian_filter(target, sigma)
            exact, rounded = measure_focus(blurred).focus_db, measure_focus(np.rint(blurred)).focus_db
            assert abs(rounded - exact) < 0.1 * (sharp - exact)


def test_blur_is_read_in_pixels():
    """A Gaussian of sigma s adds s^2 to the square of the blur: 2 px are found within 0.5 px."""
    for target in targets("biosr-microtubules"):
        before, after = measure_focus(target), measure_focus(gaussian_filter(target, 2))
        added = np.sqrt((before.focus_db - after.focus_db) / DB_PER_PX2)
        assert added == pytest.approx(2, abs=0.5)
        assert after.blur_px > before.blur_px > 0


@pytest.mark.parametrize("task", ["fmd-confocal-nuclei", "biosr-microtubules"])
def test_brightness_and_noise_hardly_move_focus(task, rng):
    """Gain and offset change nothing; noise of 3 % of the span less than a tenth of a 2 px blur."""
    for target in targets(task):
        sharp = measure_focus(target).focus_db
        assert measure_focus(3.7 * target + 100).focus_db == pytest.approx(sharp, abs=0.02)
        noisy = target + rng.normal(0, 0.03 * np.percentile(target, 99.9), target.shape)
        lost = sharp - measure_focus(gaussian_filter(target, 2)).focus_db
        assert abs(measure_focus(noisy.astype(np.float32)).focus_db - sharp) < 0.1 * lost


def test_images_without_signal_have_no_focus(rng):
    """Constant and tiny images give None, noise none or few windows, small odd files a finite number."""
    assert measure_focus(np.zeros((128, 128), np.float32)) is None
    assert measure_focus(rng.normal(size=(12, 200)).astype(np.float32)) is None
    found = measure_focus(rng.normal(size=(256, 256)).astype(np.float32))
    assert found is None or found.windows <= 8
    small = measure_focus(read_image(ODD / "tiny_31x17_uint16.tif").pixels)
    assert small is None or np.isfinite(small.focus_db)
