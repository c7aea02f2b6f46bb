"""Noise planted on real targets is found again; real targets beat their inputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from cvdm.images import read_image
from cvdm.inspection.noise import measure_noise

DATA = Path(__file__).parents[2] / "data"
FMD, BIOSR = DATA / "fmd-confocal-nuclei", DATA / "biosr-microtubules"
ODD = Path(__file__).parents[1] / "data" / "odd"


def pairs(root: Path, step: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    paths = sorted((root / "low").glob("*.tif"))[::step]
    return [(read_image(path).pixels, read_image(root / "high" / path.name).pixels) for path in paths]


@pytest.fixture(scope="module")
def targets() -> list[np.ndarray]:
    return [pairs(FMD, 60)[0][1], pairs(BIOSR, 20)[0][1]]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("share", [0.01, 0.03, 0.1])
def test_gaussian_noise_of_known_level_is_found_on_real_structure(targets, rng, share):
    """The level is that of the planted and the target's own noise together, within 3 %."""
    for target in targets:
        planted = share * np.percentile(target, 99.9)
        noisy = (target + rng.normal(0, planted, target.shape)).astype(np.float32)
        expected = math.hypot(planted, measure_noise(target).level)
        assert measure_noise(noisy).level == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("photons", [10, 30, 100])
def test_photon_noise_of_known_gain_is_found(targets, rng, photons):
    """Variance per brightness is that of the planted photons within 12 %, the level within 5 %."""
    for target in targets:
        unit = np.percentile(target, 99.9) / photons
        noise = measure_noise((rng.poisson(np.maximum(target, 0) / unit) * unit).astype(np.float32))
        assert noise.gain == pytest.approx(unit, rel=0.12)
        assert noise.level == pytest.approx(math.sqrt(target.mean() * unit), rel=0.05)


def test_snr_falls_by_what_the_noise_rises(targets, rng):
    """Ten times the planted noise costs 20 dB; gain and offset of the image cost nothing."""
    target, deviates = targets[1], rng.normal(size=targets[1].shape)
    span = np.percentile(target, 99.9)
    weak, strong = (measure_noise((target + s * span * deviates).astype(np.float32)) for s in (0.01, 0.1))
    assert weak.snr_db - strong.snr_db == pytest.approx(20, abs=0.7)
    scaled = measure_noise((5 * target + 5 * 0.01 * span * deviates + 300).astype(np.float32))
    assert scaled.snr_db == pytest.approx(weak.snr_db, abs=0.05)
    assert scaled.level == pytest.approx(5 * weak.level, rel=0.01)


@pytest.mark.parametrize(("root", "least"), [(FMD, 12), (BIOSR, 40)])
def test_real_targets_are_better_than_their_inputs(root, least):
    """Every real pair gains clearly, and loses as much when its two images are swapped."""
    for low, high in pairs(root, 3):
        noisy, clean = measure_noise(low), measure_noise(high)
        assert clean.snr_db - noisy.snr_db > least


def test_equally_noisy_images_gain_nothing():
    """Two captures of one field differ by under 2 dB, an image from itself by nothing."""
    captures = sorted((FMD / "low").glob("*.tif"))[:30]
    noises = [measure_noise(read_image(path).pixels) for path in captures]
    for a, b, first, second in zip(noises, noises[1:], captures, captures[1:], strict=False):
        if first.name[:5] == second.name[:5]:
            assert abs(a.snr_db - b.snr_db) < 2


def test_noise_without_signal_has_no_snr(rng):
    """Pure noise is under 0 dB, a constant or tiny image has no answer, an odd small one has a finite one."""
    noise = rng.normal(100, 5, (256, 256)).astype(np.float32)
    assert measure_noise(noise).level == pytest.approx(5, rel=0.03)
    assert measure_noise(noise).snr_db < 0
    assert measure_noise(np.full((64, 64), 3, np.float32)) is None
    assert measure_noise(noise[:12]) is None
    tiny = measure_noise(read_image(ODD / "tiny_31x17_uint16.tif").pixels)
    assert all(np.isfinite(value) for value in vars(tiny).values())


def test_hot_pixels_and_extreme_units_do_not_matter(targets, rng):
    """One hot pixel in a thousand moves the level by under 5 %, units of 1e-20 or 1e30 the SNR not at all."""
    target = targets[0]
    noisy = (target + rng.normal(0, 4, target.shape)).astype(np.float32)
    hot = np.where(rng.random(target.shape) < 0.001, 4 * target.max(), noisy)
    assert measure_noise(hot).level == pytest.approx(measure_noise(noisy).level, rel=0.05)
    for unit in (1e-20, 1e30):
        assert measure_noise((noisy * unit).astype(np.float32)).snr_db == pytest.approx(
            measure_noise(noisy).snr_db, abs=0.01
        )
