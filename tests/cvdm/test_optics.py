"""The forward model, its inversion, and the simulation of a dataset."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import convolve
from skimage.data import binary_blobs
from skimage.restoration import richardson_lucy as reference_richardson_lucy

from cvdm.errors import DatasetError
from cvdm.images import read_image, write_tiff
from cvdm.optics import (
    ForwardModel,
    blur,
    forward_residual,
    gaussian_psf,
    residual_map,
    richardson_lucy,
    simulate_widefield,
)
from cvdm.simulation import image_seed, simulate_dataset

ROOT = Path(__file__).parents[2]
MODEL = ForwardModel(psf_sigma_px=2.0, photons=200, full_scale=1000, read_noise=2, offset=100, seed=0)


@pytest.fixture
def target():
    return 1000.0 * binary_blobs(96, rng=1, blob_size_fraction=0.2)


def test_psf_is_a_density_of_the_stated_width():
    """The PSF is centred, symmetric, adds up to one, and its standard deviation is sigma."""
    psf = gaussian_psf(2.5)
    axis = np.arange(len(psf)) - len(psf) // 2
    assert psf.sum() == pytest.approx(1)
    np.testing.assert_array_equal(psf, psf[::-1, ::-1])
    assert np.sqrt((psf.sum(0) * axis**2).sum()) == pytest.approx(2.5, rel=0.01)


def test_blur_is_convolution_with_the_psf_and_keeps_the_sum(target):
    """blur and gaussian_psf describe the same optics; mirrored borders lose no light."""
    np.testing.assert_allclose(
        blur(target, 1.5), convolve(target, gaussian_psf(1.5), mode="reflect"), atol=1e-9
    )
    assert blur(target, 1.5).sum() == pytest.approx(target.sum())


def test_blur_is_its_own_adjoint():
    """<a, Hb> = <Ha, b>, which Richardson-Lucy relies on."""
    a, b = np.random.default_rng(0).random((2, 20, 31))
    assert (a * blur(b, 2)).sum() == pytest.approx((blur(a, 2) * b).sum())


def test_simulation_has_the_moments_of_its_model(target):
    """Over many acquisitions: mean = blurred target, variance = photons + read + rounding."""
    stack = np.stack([simulate_widefield(target, MODEL, seed) for seed in range(400)])
    gain = MODEL.photons / MODEL.full_scale
    expected = blur(target, MODEL.psf_sigma_px)
    variance = (expected * gain + MODEL.read_noise**2 + 1 / 12) / gain**2
    standardised = (stack.mean(0) - expected) / np.sqrt(variance / 400)
    assert abs(standardised.mean()) < 0.1
    assert standardised.std() == pytest.approx(1, abs=0.05)
    assert (stack.var(0) / variance).mean() == pytest.approx(1, abs=0.02)


def test_offset_does_not_change_the_units(target):
    """The camera's offset is subtracted again; it only keeps negative noise from being cut off."""
    high = simulate_widefield(target, replace(MODEL, offset=1000), 3)
    np.testing.assert_allclose(simulate_widefield(target, MODEL, 3), high)
    assert high.min() < 0


def test_same_seed_same_pixels(target):
    """Randomness is an argument."""
    np.testing.assert_array_equal(simulate_widefield(target, MODEL, 5), simulate_widefield(target, MODEL, 5))
    assert (simulate_widefield(target, MODEL, 5) != simulate_widefield(target, MODEL, 6)).any()


def test_richardson_lucy_follows_the_reference_away_from_borders(target):
    """Inside, the iteration equals scikit-image's for a scene that is empty at its borders."""
    scene = np.zeros((128, 128))
    scene[30:98, 30:98] = target[:68, :68] + 10
    image = blur(scene + 1, 1.5)
    ours = richardson_lucy(image, 1.5, 10)
    start = image / image.mean()  # the reference starts from 0.5, ours from the mean
    theirs = (
        reference_richardson_lucy(0.5 * start, gaussian_psf(1.5), num_iter=10, clip=False) * 2 * image.mean()
    )
    inside = np.s_[30:98, 30:98]
    np.testing.assert_allclose(ours[inside], theirs[inside], rtol=2e-3)


def test_richardson_lucy_sharpens_and_keeps_light(target):
    """Deconvolution comes closer to the truth than the blurred image and keeps its sum, borders included."""
    image = blur(target, 2.0)
    result = richardson_lucy(image, 2.0, 30)
    assert np.mean((result - target) ** 2) < 0.6 * np.mean((image - target) ** 2)
    assert result.sum() == pytest.approx(image.sum(), rel=1e-4)
    assert (result >= 0).all()


@pytest.mark.parametrize("image", [np.zeros((9, 8)), np.full((9, 8), -3.0), np.eye(9)])
def test_richardson_lucy_stays_finite(image):
    """Empty, negative and sparse images give finite results."""
    assert np.isfinite(richardson_lucy(image, 2.0, 20)).all()


def test_the_truth_explains_its_image_and_nothing_else_does(target):
    """The target's residual is that of noise alone, 1; gain, offset, shift and blur each raise it."""
    target = target + 200  # no pixel so dark that its noise is clipped
    image = simulate_widefield(target, MODEL, seed=3)
    assert forward_residual(target, image, MODEL) == pytest.approx(1, abs=0.1)
    wrong = {
        "gain": 1.1 * target,
        "offset": target + 40,
        "shift": np.roll(target, 1, axis=0),
        "blur": blur(target, 2),
    }
    seen = residual_map(target, image, MODEL)
    assert abs(seen.mean()) < 0.1 and np.mean(np.abs(seen) < 1.96) == pytest.approx(0.95, abs=0.02)
    residuals = {name: forward_residual(candidate, image, MODEL) for name, candidate in wrong.items()}
    assert min(residuals.values()) > 1.3, residuals


def simulated_dataset(root, inputs="simulated"):
    (root / "card.yaml").write_text(
        "{task: blobs, structure: blobs, modality: widefield, licence: none, citation: none, "
        f"inputs: {inputs}, name_pattern: '(?P<field>.+)', "
        "split: {seed: 0, train: 1, validation: 0, calibration: 0, test: 0}, "
        "forward_model: {psf_sigma_px: 2, photons: 50, full_scale: 1000, read_noise: 1, offset: 9, seed: 0}}"
    )
    for seed, name in enumerate(("a", "b")):
        pixels = 1000 * binary_blobs(48, rng=seed).astype(np.uint16)
        write_tiff(root / "high" / f"{name}.tif", pixels)
    return root


def file_digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_simulating_again_gives_the_same_bytes(tmp_path):
    """low/ is a function of high/ and the card; progress counts images."""
    root, calls = simulated_dataset(tmp_path), []
    assert simulate_dataset(root, lambda done, total: calls.append((done, total))) == 2
    first = file_digests(root / "low")
    simulate_dataset(root)
    assert file_digests(root / "low") == first
    assert calls == [(1, 2), (2, 2)]
    assert read_image(root / "low" / "a.tif").dtype == "uint16"


def test_measured_inputs_are_never_overwritten(tmp_path):
    """A card that says measured stops the simulation before it writes."""
    with pytest.raises(DatasetError, match="inputs: measured"):
        simulate_dataset(simulated_dataset(tmp_path, inputs="measured"))
    assert not (tmp_path / "low").exists()


def test_shipped_inputs_are_what_the_card_makes():
    """The biosr-microtubules input of a cell comes out of its target again, pixel for pixel."""
    from cvdm.card import load_card

    root = ROOT / "data" / "biosr-microtubules"
    model = load_card(root).forward_model
    high, low = (read_image(root / side / "cell053.tif").pixels for side in ("high", "low"))
    again = simulate_widefield(high, model, image_seed(model.seed, "cell053"))
    np.testing.assert_array_equal(np.clip(np.rint(again), 0, 65535), low)
    assert low.mean() == pytest.approx(high.mean(), rel=0.04)
