"""Reconstruction: reproducible, free of tiles, any size, in the input's units."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from specimens import cells, make_checkpoint

from cvdm.config import SamplingConfig
from cvdm.errors import ImageError
from cvdm.field_of_view import FieldOfView
from cvdm.normalisation import Normalisation, fit_normalisation
from cvdm.observation import Observation
from cvdm.posterior import Moments, reconstruct

SAMPLING = SamplingConfig(samples=3, steps=3, seed=4, tile=32)


@pytest.fixture(scope="module")
def checkpoint():
    return make_checkpoint()


@pytest.fixture(scope="module")
def image():
    return cells(np.random.default_rng(0), 96)


def test_same_seed_gives_identical_pixels(checkpoint, image):
    """Twice the same request is twice the same array; another seed is another draw."""
    one, two = (reconstruct(checkpoint, image, sampling=SAMPLING) for _ in range(2))
    assert np.array_equal(one.mean, two.mean) and np.array_equal(one.std, two.std)
    other = reconstruct(checkpoint, image, sampling=replace(SAMPLING, seed=5))
    assert not np.array_equal(one.mean, other.mean)


@pytest.mark.parametrize("solver", ["angular-euler", "dpm-solver++", "ancestral"])
@pytest.mark.parametrize("tile", [16, 40, 256])
def test_the_answer_does_not_depend_on_the_tile_size(checkpoint, image, tile, solver):
    """Mean, std and bounds agree within 1e-3 of the intensity range, stochastic solver included."""
    reference, tiled = (
        reconstruct(checkpoint, image, sampling=replace(SAMPLING, tile=t, solver=solver)) for t in (64, tile)
    )
    for name in ("mean", "std", "lower", "upper"):
        assert np.abs(getattr(tiled, name) - getattr(reference, name)).max() < 1e-3 * np.ptp(image)


def test_a_smaller_halo_is_close_but_not_exact(checkpoint, image):
    """The fast tiling trades exactness for speed, visibly but by little."""
    exact = reconstruct(checkpoint, image, sampling=SAMPLING)
    fast = reconstruct(checkpoint, image, sampling=replace(SAMPLING, halo=8))
    assert 0 < np.abs(fast.mean - exact.mean).max() < 0.2 * np.ptp(image)


@pytest.mark.parametrize("shape", [(31, 17), (1, 1), (64, 65), (5, 130)])
def test_any_size_comes_back_as_it_came(checkpoint, shape):
    """Odd, tiny and oblong images keep their shape and give finite values."""
    result = reconstruct(checkpoint, np.full(shape, 50.0, np.float32), sampling=SAMPLING)
    for array in (
        result.mean,
        result.std,
        result.lower,
        result.upper,
        result.schedule_map,
        result.regression_mean,
    ):
        assert array.shape == shape and array.dtype == np.float32 and np.isfinite(array).all()


def test_bounds_enclose_the_mean_and_the_map_is_a_time(checkpoint, image):
    """lower <= mean <= upper everywhere; the schedule map lies in [0, 1] and varies over pixels."""
    result = reconstruct(checkpoint, image, sampling=SAMPLING)
    assert (result.lower <= result.mean).all() and (result.mean <= result.upper).all()
    assert 0 <= result.schedule_map.min() < result.schedule_map.max() <= 1


def test_intensities_come_back_in_the_inputs_units(checkpoint, image):
    """With normalisation per image, another gain and offset give the same reconstruction, so scaled."""
    per_image = replace(checkpoint, normalisation=Normalisation("image", 0.0, 1.0))
    plain = reconstruct(per_image, image, sampling=SAMPLING)
    scaled = reconstruct(per_image, image * 100 + 1000, sampling=SAMPLING)
    np.testing.assert_allclose(scaled.mean, plain.mean * 100 + 1000, rtol=1e-3, atol=2)
    np.testing.assert_allclose(scaled.std, plain.std * 100, rtol=2e-2, atol=2)


def test_constant_image_has_a_scale():
    """An image without contrast does not divide by zero."""
    scale = fit_normalisation("image", [[np.full((8, 8), 7.0)]]).scale_of(np.full((8, 8), 7.0))
    assert np.array_equal(scale.invert(scale.apply(np.full((2, 2), 7.0))), np.full((2, 2), 7.0, np.float32))


def test_progress_counts_to_its_total_and_can_cancel(checkpoint, image):
    """Every network evaluation is reported; an exception from the callback stops the work at once."""
    seen = []
    reconstruct(checkpoint, image, sampling=SAMPLING, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)

    class Cancelled(Exception):
        pass

    def cancel(done, total):
        raise Cancelled

    with pytest.raises(Cancelled):
        reconstruct(checkpoint, image, sampling=SAMPLING, progress=cancel)


def test_draws_do_not_depend_on_how_many_are_sampled_together(checkpoint, image, monkeypatch):
    """Batching draws is a matter of speed: one at a time gives the same result."""
    together = reconstruct(checkpoint, image, sampling=SAMPLING)
    monkeypatch.setattr("cvdm.field_of_view.PIXELS_AT_ONCE", 1)
    alone = reconstruct(checkpoint, image, sampling=SAMPLING)
    np.testing.assert_allclose(alone.mean, together.mean, atol=1e-3 * np.ptp(image))
    np.testing.assert_allclose(alone.std, together.std, atol=1e-3 * np.ptp(image))


def test_opposite_noise_cancels_in_the_mean(image):
    """Two antithetic draws give a mean nearer to that of many draws than two independent ones would.

    Planted: a model whose draws are far apart, so that sampling noise dominates.
    """
    checkpoint = make_checkpoint(seed=3)
    many = reconstruct(checkpoint, image, sampling=replace(SAMPLING, samples=64))
    pair = reconstruct(checkpoint, image, sampling=replace(SAMPLING, samples=2))
    independent_error = many.std.mean() * np.sqrt(2 / np.pi / 2)  # E|mean of two independent draws - mean|
    assert np.abs(pair.mean - many.mean).mean() < independent_error / 2


def test_streamed_moments_equal_those_of_all_draws(checkpoint, image, monkeypatch):
    """Welford's update over batches, the last one smaller, gives numpy's mean and standard deviation."""
    monkeypatch.setattr("cvdm.field_of_view.PIXELS_AT_ONCE", 2 * 128 * 128)
    sampling = replace(SAMPLING, samples=5)
    with torch.inference_mode():
        view, again = (
            FieldOfView(checkpoint.model, checkpoint.normalisation, Observation.of(image), sampling)
            for _ in range(2)
        )
        assert [len(batch) for batch in view.batches] == [2, 2, 1]
        draws = np.stack(list(view.draws())).astype(np.float64)
        mean, std = Moments(again).collect().mean_and_std()
    np.testing.assert_allclose(mean, draws.mean(0))
    np.testing.assert_allclose(std, draws.std(0), rtol=1e-6)


@pytest.mark.parametrize("gain", [4, 16, 257])
def test_intensities_that_the_model_never_saw_are_refused(checkpoint, image, gain):
    """Eight bits saved as sixteen, or another exposure: a named refusal instead of an invented answer."""
    with pytest.raises(ImageError, match="mostly 0 to 200"):
        reconstruct(checkpoint, image * gain, sampling=SAMPLING)


def test_a_somewhat_brighter_image_and_a_few_hot_pixels_are_restored(checkpoint, image):
    """What a new session may bring is no reason to refuse."""
    bright = image * 1.5
    bright[5, 5] = bright[60, 40] = 60_000
    assert np.isfinite(reconstruct(checkpoint, bright, sampling=SAMPLING).mean).all()


def test_an_image_normalised_by_itself_may_have_any_intensities(image):
    """A model of kind `image` takes its scale from each image."""
    model = replace(make_checkpoint(), normalisation=Normalisation("image", 0.0, 200.0))
    one, other = (reconstruct(model, image * gain, sampling=SAMPLING).mean / gain for gain in (1, 257))
    np.testing.assert_allclose(one, other, atol=1e-2)


def test_an_answer_that_is_not_finite_is_never_given(image):
    """Planted: a model whose regression is undefined; the user is told instead of handed NaN."""
    broken = make_checkpoint()
    for parameter in broken.model.mean_network.parameters():
        parameter.fill_(float("nan"))
    with pytest.raises(ImageError, match="infinite or undefined"):
        reconstruct(broken, image, sampling=SAMPLING)
