"""Every model's probes: a faithful restorer passes them, one that shows what it has learned does not."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from specimens import TINY_RECIPE, cells, make_checkpoint, make_dataset

from cvdm.dataset import load_dataset
from cvdm.observation import Observation
from cvdm.optics import ForwardModel, blur
from cvdm.patches import ImagePair
from cvdm.posterior import Estimate
from cvdm.probes import changes, detection_of, mean_answers, probe_model, probed
from cvdm.probing import Answer, Detection
from cvdm.sight import Sight

GAIN = 2.0


@pytest.fixture(scope="module")
def image():
    """Cells (128, 128) of many photons, with optics that input and target share."""
    high = blur(cells(np.random.default_rng(0), 128), 1).astype(np.float32) + 20
    low = GAIN * np.random.default_rng(1).poisson(high / GAIN)
    return ImagePair("f0", Observation.of(low.astype(np.float32)), high)


def smooth(low):
    """A restorer without knowledge: it averages."""
    mean = blur(low, 1.5)
    return Estimate(mean, np.ones_like(mean), mean - 15, mean + 15)


def test_the_probes_are_what_they_are_called(image):
    """Spots where it is dark, a filament; what is erased is the brightest, and never more than there is."""
    found = dict(changes(image.high))
    assert list(found) == [
        *("spots of 10%", "spots of 30%", "filament of 30%"),
        "brightest structure erased",
    ]
    assert found["spots of 30%"].max() == pytest.approx(3 * found["spots of 10%"].max())
    erased = found["brightest structure erased"]
    assert (erased <= 0).all() and (image.high + erased >= 0).all()
    row, column = np.unravel_index(np.argmin(erased), erased.shape)
    assert image.high[row, column] > np.percentile(image.high, 90)


def test_one_who_averages_follows_and_one_who_remembers_is_found_out(image):
    """Oracle: an average as wide as a spot shows 2 / 3 of it, of a line the root of that; memory nothing."""
    how = detection_of(image, None)
    assert how.units_per_photon == pytest.approx(GAIN, rel=0.1)
    honest = probed(image, how, smooth)
    for name, seen in (("filament of 30%", np.sqrt(2 / 3)), ("spots of 30%", 2 / 3)):
        assert honest[name].followed == pytest.approx(seen, abs=0.06)
    remembered = smooth(image.low)
    for answer in probed(image, how, lambda low: remembered).values():
        assert answer.followed == 0 and answer.told == 1


def test_a_model_is_probed_on_its_test_fields(tmp_path):
    """Two of them, each by each probe, the same again; a model of other inputs is not."""
    dataset = load_dataset(make_dataset(tmp_path / "cells"))
    told = []
    found = probe_model(make_checkpoint(), dataset, lambda *done: told.append(done))
    assert tuple(found) == dataset.fields("test")[:2] and told == [(1, 2), (2, 2)]
    assert found == probe_model(make_checkpoint(), dataset)
    answers = [list(asdict(one).values()) for field in found.values() for one in field.values()]
    assert np.isfinite(answers).all()
    recipe = replace(TINY_RECIPE, model=replace(TINY_RECIPE.model, sight=Sight(context=1)))
    assert probe_model(make_checkpoint(recipe=recipe), dataset) == {}


def test_answers_are_averaged_over_fields():
    """Probe by probe."""
    by_field = {"a": {"spots": Answer(0.0, 1.0, 0.5, 2.0)}, "b": {"spots": Answer(1.0, 0.0, 0.5, 4.0)}}
    assert mean_answers(by_field) == {"spots": Answer(0.5, 0.5, 0.5, 3.0)}
    assert mean_answers({}) == {}


def test_optics_of_the_card_come_first(image):
    """Where they are stated, noise of the pair says nothing."""
    assert detection_of(image, ForwardModel(2.7, 50, 65535, 1.5, 100, 0)) == Detection(65535 / 50, 2.7)
