"""Fourier ring correlation: images with a known cut-off, and pairs where nothing can be measured."""

from __future__ import annotations

import numpy as np
import pytest

from cvdm.resolution import fourier_ring_correlation, resolution_against, resolution_px, shares_noise

SHAPES = [(256, 256), (255, 301), (384, 200)]


def low_passed(image: np.ndarray, cutoff: float) -> np.ndarray:
    """Without anything finer than `cutoff` cycles per pixel."""
    rows, columns = (np.fft.fftfreq(size) for size in image.shape)
    keep = np.hypot(rows[:, None], columns[None]) <= cutoff
    return np.fft.ifft2(np.fft.fft2(image) * keep).real


def texture(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 10, shape)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cutoff", [0.1, 0.2, 0.35])
def test_the_resolution_is_the_cut_off_of_what_two_images_share(shape, cutoff):
    """One texture up to the cut-off, an independent one beyond: found within two rings."""
    scene = texture(shape)
    shared = low_passed(scene, cutoff)
    other = shared + texture(shape, 1) - low_passed(texture(shape, 1), cutoff)
    curve = fourier_ring_correlation(scene, other)
    assert 1 / resolution_px(curve) == pytest.approx(cutoff, abs=2 / min(shape))
    assert curve.correlations[curve.frequencies < 0.9 * cutoff].min() > 0.9
    assert abs(curve.correlations[curve.frequencies > 1.15 * cutoff].mean()) < 0.05


def test_invented_detail_does_not_improve_the_resolution():
    """Right up to a cut-off and made up or empty beyond it: one resolution, though one looks sharper."""
    target, cutoff = texture((256, 256)), 0.15
    low = texture((256, 256), 2)
    right = low_passed(target, cutoff)
    invented = right + 3 * (texture((256, 256), 3) - low_passed(texture((256, 256), 3), cutoff))
    for reconstruction in (right + np.random.default_rng(4).normal(0, 0.1, right.shape), invented):
        assert 1 / resolution_against(target, reconstruction, low) == pytest.approx(cutoff, abs=0.01)


def test_noise_of_known_power_crosses_where_it_should():
    """Of signal power S and noise power N per image FRC = S / (S + N): 1/7 is crossed where N = 6 S."""
    shape, sigma = (512, 512), 2.0
    radius = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.fftfreq(512)[None])
    blur = np.exp(-2 * (np.pi * sigma * radius) ** 2)
    scene = np.fft.ifft2(np.fft.fft2(texture(shape)) * blur).real  # S(f) = 100 blur^2
    noise = 1.0
    a, b = (scene + np.random.default_rng(seed).normal(0, noise, shape) for seed in (5, 6))
    crossing = np.sqrt(np.log(6 * 100 / noise**2) / 4) / (np.pi * sigma)
    assert resolution_px(fourier_ring_correlation(a, b)) == pytest.approx(1 / crossing, rel=0.06)


def test_a_linear_filter_changes_nothing_and_equal_images_never_cross():
    """Gain, offset and blur of one image leave the curve; of equal images it stays at 1 and never crosses."""
    scene = texture((128, 128))
    same = fourier_ring_correlation(scene, 3 * scene + 7)
    assert np.allclose(same.correlations, 1) and resolution_px(same) is None
    assert same.frequencies[-1] == 0.5 and same.frequencies[0] == 1 / 128


def test_images_that_share_nothing_resolve_nothing():
    """Independent textures give the longest wavelength; a flat image does not divide by zero."""
    assert resolution_px(fourier_ring_correlation(texture((128, 128)), texture((128, 128), 1))) == 128
    flat = fourier_ring_correlation(np.full((64, 64), 3.0), texture((64, 64)))
    assert np.isfinite(flat.correlations).all() and resolution_px(flat) == 64


def test_a_pair_that_shares_its_noise_is_not_measured():
    """A target that averages fifty frames, the input among them, looks finer than it is; without it, not."""
    scene = low_passed(texture((256, 256)), 0.1)
    frames = [scene + np.random.default_rng(seed).normal(0, 10, scene.shape) for seed in range(50)]
    including, without = np.mean(frames, axis=0), np.mean(frames[1:], axis=0)
    assert shares_noise(frames[0], including) and not shares_noise(frames[0], without)
    assert resolution_against(including, scene, frames[0]) is None
    assert resolution_against(without, scene, frames[0]) == pytest.approx(10, rel=0.1)
