"""Strata of pixels: kinds that are told apart without looking at what is to be covered."""

import numpy as np
import pytest
from scipy.stats import norm
from specimens import cells, make_checkpoint

from cvdm.dataset import load_dataset
from cvdm.evaluation import summary_table
from cvdm.measuring import evaluate
from cvdm.stratified import INTENSITIES, STRUCTURES, Judged, edges, strata_of_pixels, stratified


def ideal(rng, size=256):
    """A prior, its noisy observation, and the exact posterior of a target: 90 % intervals that are right."""
    target = rng.normal(0, 1, (size, size))
    seen = target + rng.normal(0, 1, target.shape)
    mean, std = seen / 2, np.full(target.shape, np.sqrt(0.5))
    reach = norm.ppf(0.95) * std
    return Judged(mean, std, mean - reach, mean + reach, np.abs(target - mean), target)


def test_an_ideal_posterior_covers_every_third_of_its_predictions():
    """Oracle: 90 % of each third by the mean; of the brightest by target, an ideal model misses more."""
    image = ideal(np.random.default_rng(0))
    found = stratified(image)
    for name in INTENSITIES:
        assert found[name]["coverage"] == pytest.approx(0.9, abs=0.01)
        assert found[name]["share"] == pytest.approx(1 / 3, abs=0.001)
    brightest = image.target > np.quantile(image.target, 2 / 3)
    assert np.mean((image.target <= image.upper)[brightest]) < 0.87


def test_a_posterior_too_sure_of_bright_pixels_is_seen_there_and_nowhere_else():
    """Planted: half of the width where the mean is bright."""
    image = ideal(np.random.default_rng(1))
    bright = image.mean > np.quantile(image.mean, 2 / 3)
    reach = np.where(bright, 0.5, 1.0) * (image.upper - image.mean)
    sure = Judged(image.mean, image.std, image.mean - reach, image.mean + reach, image.crps, image.target)
    found = {name: scores["coverage"] for name, scores in stratified(sure).items()}
    assert found["bright"] < 0.65 and min(found["dim"], found["middle"]) > 0.88


def test_kinds_are_disjoint_and_cover_the_image():
    """Every pixel has one brightness and is either edge or smooth."""
    clean = cells(np.random.default_rng(2))
    masks = strata_of_pixels(clean, clean)
    for kinds in (INTENSITIES, STRUCTURES):
        assert (sum(masks[kind].astype(int) for kind in kinds) == 1).all()


def test_edges_are_where_the_discs_end():
    """Noise and a few hot pixels move few pixels from one class to the other; a flat image has none."""
    rng = np.random.default_rng(3)
    clean = cells(rng)
    noisy = clean + rng.normal(0, 4, clean.shape)
    noisy[rng.integers(0, 96, 3), rng.integers(0, 96, 3)] = 500
    assert np.mean(edges(noisy) != edges(clean)) < 0.08
    slope = np.hypot(*np.gradient(clean))
    assert edges(clean)[slope > 20].mean() > 0.95 and edges(clean)[slope < 0.1].mean() < 0.05
    assert not edges(np.full((32, 32), 3.0)).any()


def test_a_stratum_that_an_image_does_not_have_is_left_out():
    """One small dot is too few pixels to say anything of structure."""
    target = np.zeros((64, 64))
    target[30:33, 30:33] = 100
    image = Judged(target, target + 1, target - 1, target + 1, target, target)
    assert set(stratified(image)) == {"dim", "smooth"}


def test_an_evaluation_tells_its_strata(cells_dataset):
    """Per field and as mean in the document, and as a table for people."""
    dataset = load_dataset(cells_dataset)
    result = evaluate(make_checkpoint(), dataset, with_baselines=False)
    assert list(result.strata) == [*INTENSITIES, *STRUCTURES]
    document = result.as_json()["strata"]["bright"]["coverage"]
    assert set(document["per_field"]) == set(dataset.fields("test"))
    assert document["mean"] == pytest.approx(np.mean(list(document["per_field"].values())))
    assert "edges" in summary_table(result)


def test_strata_add_up_to_the_whole(cells_dataset):
    """Coverage of thirds, weighed by their share, is the coverage of the field."""
    result = evaluate(make_checkpoint(), load_dataset(cells_dataset), with_baselines=False)
    for kinds in (INTENSITIES, STRUCTURES):
        for field, whole in result.metrics["coverage"].items():
            parts = [result.strata[kind] for kind in kinds]
            total = sum(part["share"][field] * part["coverage"][field] for part in parts)
            assert total == pytest.approx(whole, abs=1e-6)
