"""Dispersion: the spread of few steps is brought to what errors on fields that training never saw ask for."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from specimens import cells, make_checkpoint

from cvdm.calibration import (
    DISPERSIONS,
    Calibration,
    CalibrationImage,
    calibrate,
    dispersion_losses,
)
from cvdm.dataset import load_dataset
from cvdm.measuring import evaluate
from cvdm.metrics import crps, target_range
from cvdm.params import from_mapping
from cvdm.posterior import dispersed, reconstruct

DRAWS, EDGE = 8, 128


def seen(field, *, said=1.0, seed=0):
    """A field whose posterior is known, of spreads from 0.05 to 0.5, drawn with `said` times the spread."""
    rng = np.random.default_rng(seed)
    std = np.geomspace(0.05, 0.5, EDGE)[None] * np.ones((EDGE, 1))
    target = rng.normal(0, std)
    noise = rng.normal(size=(DRAWS // 2, EDGE, EDGE))
    draws = said * std * np.stack([noise, -noise], axis=1).reshape(DRAWS, EDGE, EDGE)
    losses = dispersion_losses(draws, target)
    return CalibrationImage(field, np.abs(target - draws.mean(0)), draws.std(0), losses)


@pytest.mark.parametrize("said", [0.5, 0.75, 1.0, 1.5])
def test_a_spread_that_is_wrong_by_a_factor_is_set_right(said):
    """Planted: draws of an exact posterior with a part of their spread. Eight draws are enough."""
    images = [seen(f"f{number}", said=said, seed=number) for number in range(3)]
    assert calibrate(images, 1e-6).dispersion == pytest.approx(1 / said, rel=0.05)


def test_the_losses_are_the_scores_of_the_dispersed_draws():
    """Oracle: CRPS of the draws themselves, with every factor."""
    rng = np.random.default_rng(0)
    draws, target = rng.normal(size=(DRAWS, 16, 16)), rng.normal(size=(16, 16))
    mean = draws.mean(0)
    scores = [crps(mean + one * (draws - mean), target, antithetic=True).mean() for one in DISPERSIONS]
    np.testing.assert_allclose(dispersion_losses(draws, target), scores, rtol=1e-10)


def test_every_field_weighs_the_same():
    """Ten captures of a field with one need do not outvote a field with another."""
    narrow, right = seen("narrow", said=0.5), seen("right", seed=1)
    both = calibrate([narrow, right], 1e-6).dispersion
    assert calibrate([narrow] * 10 + [right], 1e-6).dispersion == pytest.approx(both, rel=1e-9)
    assert 1.05 < both < 1.95


def test_beyond_what_is_tried_the_nearest_factor_is_taken():
    """Draws without any spread ask for no factor that could be found."""
    assert calibrate([seen("f", said=1e-3)], 1e-6).dispersion == DISPERSIONS[-1]


def test_the_interval_is_fitted_to_the_spread_as_it_comes():
    """With losses or without, of the same errors and spreads it is the same."""
    image = seen("f", said=0.5)
    plain, both = calibrate([replace(image, losses=None)], 1e-6), calibrate([image], 1e-6)
    assert plain.dispersion == 1.0 and both == replace(plain, dispersion=both.dispersion)
    assert from_mapping(Calibration, asdict(both)) == both


def test_a_reply_has_the_calibrated_spread_and_the_same_mean_and_interval():
    """For draws of as many steps as it was fitted for; for others the spread stays as it comes."""
    plain = make_checkpoint()
    wider = replace(plain, calibration=replace(plain.calibration, dispersion=1.5))
    image = cells(np.random.default_rng(3), 48)
    own = plain.recipe.sampling
    for sampling, factor in ((own, 1.5), (replace(own, steps=own.steps + 1), 1.0)):
        one, other = (reconstruct(model, image, sampling=sampling) for model in (plain, wider))
        for name in ("mean", "lower", "upper"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_allclose(other.std, factor * one.std, rtol=1e-6)


def test_fewer_draws_have_the_same_spread():
    """It belongs to the steps and the solver, not to their number."""
    checkpoint = make_checkpoint()
    checkpoint = replace(checkpoint, calibration=replace(checkpoint.calibration, dispersion=1.5))
    own = checkpoint.recipe.sampling
    assert checkpoint.dispersion(replace(own, samples=2 * own.samples)) == 1.5
    assert checkpoint.dispersion(replace(own, solver="ancestral")) == 1.0


def test_an_evaluation_scores_the_calibrated_spread(cells_dataset):
    """CRPS is that of the dispersed draws; coverage and everything of the mean stay what they are."""
    dataset, checkpoint = load_dataset(cells_dataset), make_checkpoint()
    wider = replace(checkpoint, calibration=replace(checkpoint.calibration, dispersion=1.5))
    scores = []

    def keep(image, view, draws):
        spread = dispersed(wider, view.sampling, draws)
        scores.append(crps(spread, image.high, antithetic=True).mean() / target_range(image.high))

    plain = evaluate(checkpoint, dataset, with_baselines=False).metrics
    found = evaluate(wider, dataset, with_baselines=False, on_image=keep).metrics
    for name in ("psnr", "coverage", "width", "ause", "unstretched_coverage"):
        assert found[name] == plain[name]
    assert found["crps"] != plain["crps"]
    assert list(found["crps"].values()) == pytest.approx(scores, rel=1e-6)
