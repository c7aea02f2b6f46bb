"""Baselines are fitted on train and validation fields and restore in the input's units."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from scipy.ndimage import gaussian_filter

from cvdm.baselines import INPUT, ITERATIONS, SIGMAS, Baselines, as_is, fit_baselines, gaussian_blur
from cvdm.dataset import load_dataset, split_of
from cvdm.errors import DatasetError
from cvdm.images import read_image, write_tiff
from cvdm.metrics import fit_intensity, psnr, target_range
from cvdm.optics import ForwardModel, simulate_widefield

MODEL = ForwardModel(psf_sigma_px=1.5, photons=1000, full_scale=1000, read_noise=2, offset=100, seed=0)


def noisy(target, rng):
    return target + rng.normal(0, 40, target.shape)


def widefield(target, rng):
    return simulate_widefield(target, MODEL, int(rng.integers(100)))


def make(root, degrade, model=None, train=0.5, spoil=()):
    """Twelve fields of smooth blobs; inputs of the `spoil` splits are degraded differently."""
    card = {
        "task": "blobs", "structure": "blobs", "modality": "any", "licence": "CC0", "citation": "none",
        "inputs": "simulated" if model else "measured", "name_pattern": "(?P<field>.+)",
        "split": {"seed": 0, "train": train, "validation": 0.1, "calibration": 0.2, "test": 0.7 - train},
        "forward_model": vars(model) if model else None,
    }  # fmt: skip
    root.mkdir()
    (root / "card.yaml").write_text(yaml.safe_dump(card))
    rng = np.random.default_rng(0)
    for index in range(12):
        target = 1000 * (gaussian_filter(rng.normal(size=(64, 70)), 2.5) > 0.05).astype(float)
        target = gaussian_filter(target, 1)
        write_tiff(root / "high" / f"f{index}.tif", target.astype(np.float32))
        write_tiff(root / "low" / f"f{index}.tif", degrade(target, rng).astype(np.float32))
    dataset = load_dataset(root)
    for pair in dataset.pairs:
        if split_of(pair.field, dataset.card) in spoil:
            write_tiff(pair.low, np.zeros((64, 70), np.float32))
    return dataset


def test_blur_is_chosen_on_train_and_validation_alone(tmp_path):
    """Ruined calibration and test inputs do not change the choice; ruined train inputs do."""
    fitted = fit_baselines(make(tmp_path / "a", noisy))
    assert fitted == fit_baselines(make(tmp_path / "b", noisy, spoil=("calibration", "test")))
    assert fitted != fit_baselines(make(tmp_path / "c", noisy, spoil=("train", "validation")))
    assert SIGMAS[0] < fitted.blur_sigma < SIGMAS[-1]


def test_richardson_lucy_exists_where_the_optics_are_known(tmp_path):
    """With a forward model there are three baselines and deconvolution beats the blur; without, two."""
    dataset = make(tmp_path / "a", widefield, MODEL)
    fitted = fit_baselines(dataset)
    assert fitted.psf_sigma == 1.5
    assert fitted.iterations in ITERATIONS
    assert list(fitted.restorers()) == ["input", "best-blur", "richardson-lucy"]
    scores = dict.fromkeys(fitted.restorers(), 0.0)
    for pair in dataset.split("test"):
        low, high = read_image(pair.low).pixels, read_image(pair.high).pixels
        for name, restore in fitted.restorers().items():
            scores[name] += psnr(fit_intensity(restore(low), high), high, target_range(high))
    assert scores["richardson-lucy"] > max(scores["best-blur"], scores["input"]) + 1
    assert list(fit_baselines(make(tmp_path / "b", widefield)).restorers()) == ["input", "best-blur"]


def test_restorers_keep_shape_units_and_their_input():
    """Each returns float32 of the same shape and mean, and leaves its argument alone."""
    image = np.random.default_rng(0).poisson(50, (33, 47)).astype(np.float32)
    before = image.copy()
    for name, restore in Baselines(1.0, 1.5, 5).restorers().items():
        result = restore(image)
        assert (result.shape, result.dtype) == (image.shape, np.float32)
        assert result.mean() == pytest.approx(image.mean(), rel=1e-3)
        assert (name == INPUT) == np.array_equal(result, image)
    np.testing.assert_array_equal(image, before)


def test_integer_images_pass():
    """Whole-number images are restored without wrapping."""
    image = np.full((9, 9), 250, np.uint8)
    np.testing.assert_array_equal(as_is(image), 250)
    np.testing.assert_allclose(gaussian_blur(1.0)(image), 250, rtol=1e-6)


def test_without_training_fields_nothing_is_fitted(tmp_path):
    """An empty train split is an error, not a default."""
    with pytest.raises(DatasetError, match="train"):
        fit_baselines(make(tmp_path / "a", noisy, train=0.0))
