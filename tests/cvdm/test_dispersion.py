"""Dispersion: the spread of few steps is brought to what errors on fields that training never saw ask for."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from specimens import TINY_RECIPE, cells, make_checkpoint

from cvdm.build import build_checkpoint
from cvdm.calibration import (
    DISPERSIONS,
    Calibration,
    CalibrationImage,
    calibrate,
    dispersion_losses,
)
from cvdm.checkpoint import UNSCALED
from cvdm.dataset import load_dataset
from cvdm.measuring import evaluate
from cvdm.metrics import crps, target_range
from cvdm.params import from_mapping
from cvdm.posterior import dispersed, reconstruct
from cvdm.training import train

DRAWS, EDGE = 8, 128


def drawing_four():
    """A checkpoint whose spread could be judged."""
    made = make_checkpoint()
    return replace(made, recipe=replace(made.recipe, sampling=replace(made.recipe.sampling, samples=4)))


def seen(field, *, said=1.0, seed=0, count=DRAWS):
    """A field whose posterior is known, of spreads from 0.05 to 0.5, drawn with `said` times the spread."""
    rng = np.random.default_rng(seed)
    std = np.geomspace(0.05, 0.5, EDGE)[None] * np.ones((EDGE, 1))
    target = rng.normal(0, std)
    noise = rng.normal(size=((count + 1) // 2, EDGE, EDGE))
    draws = said * std * np.stack([noise, -noise], axis=1).reshape(-1, EDGE, EDGE)[:count]
    losses = dispersion_losses(draws, target)
    return CalibrationImage(field, np.abs(target - draws.mean(0)), draws.std(0), losses)


@pytest.mark.parametrize("draws", [4, 5, 7, 8])
@pytest.mark.parametrize("said", [0.5, 0.75, 1.0, 1.5])
def test_a_spread_that_is_wrong_by_a_factor_is_set_right(said, draws):
    """Planted: draws of an exact posterior with a part of their spread, also where one has no opposite."""
    images = [seen(f"f{number}", said=said, seed=number, count=draws) for number in range(3)]
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
    plain = drawing_four()
    wider = replace(plain, calibration=replace(plain.calibration, dispersion=1.5))
    image = cells(np.random.default_rng(3), 48)
    own = plain.recipe.sampling
    for sampling, factor in ((own, 1.5), (replace(own, steps=own.steps + 1), 1.0)):
        one, other = (reconstruct(model, image, sampling=sampling) for model in (plain, wider))
        for name in ("mean", "lower", "upper"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_allclose(other.std, factor * one.std, rtol=1e-6)


def test_the_factor_is_of_steps_and_solver_and_a_reply_tells_it():
    """However many draws there are; without it, the words say what is not calibrated."""
    checkpoint = drawing_four()
    checkpoint = replace(checkpoint, calibration=replace(checkpoint.calibration, dispersion=1.5))
    own = checkpoint.recipe.sampling
    for sampling, factor in ((own, "1.5"), (replace(own, samples=2 * own.samples), "1.5")):
        told = checkpoint.annotations(sampling)
        assert told["spread_factor"] == factor and UNSCALED not in told["not_quantitative"]
    for sampling in (replace(own, steps=own.steps + 1), replace(own, solver="ancestral")):
        told = checkpoint.annotations(sampling)
        assert told["spread_factor"] == "1" and UNSCALED in told["not_quantitative"]


def test_a_built_checkpoint_has_the_factor_of_its_calibration_fields(cells_dataset, tmp_path):
    """Oracle: of the factors about it, the best on those fields; none of two draws, which have no spread."""
    recipe = replace(TINY_RECIPE, sampling=replace(TINY_RECIPE.sampling, samples=4, steps=2))
    recipe = replace(recipe, training=replace(recipe.training, steps=4, validate_every=4))
    dataset, state = load_dataset(cells_dataset), tmp_path / "state.pt"
    list(train(dataset, recipe, state_path=state))
    known = {"git_commit": None, "created": "2026-01-01T00:00:00+00:00"}
    built = build_checkpoint(dataset, recipe, state, **known)

    def loss(factor):
        model = replace(built, calibration=replace(built.calibration, dispersion=factor))
        return evaluate(model, dataset, "calibration", with_baselines=False).mean("crps")

    own = built.calibration.dispersion
    assert own != 1.0 and loss(own) < min(loss(own / 1.1), loss(own * 1.1))
    few = replace(recipe, sampling=replace(recipe.sampling, samples=2))
    assert build_checkpoint(dataset, few, state, **known).calibration.dispersion == 1.0


def test_calibrations_of_before_keep_their_name():
    """Results on disk name the numbers that made them; the name of those without a factor is pinned."""
    calibration = Calibration(level=0.9, quantile=2.0, floor=0.01, fields=3, raw_coverage=0.8)
    assert calibration.id == "6a27cb939ecdcdc1" != replace(calibration, dispersion=1.5).id


def test_an_evaluation_scores_the_calibrated_spread(cells_dataset):
    """CRPS is that of the dispersed draws; coverage and everything of the mean stay what they are."""
    dataset, checkpoint = load_dataset(cells_dataset), drawing_four()
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
