"""Vignetting planted on real sessions, whose specimens a person has put into the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from cvdm.images import read_image
from cvdm.inspection.background import background_offset
from cvdm.inspection.vignetting import LocalChanges, added_falloff, local_changes, lone_falloff

NUCLEI = Path(__file__).parents[2] / "data" / "fmd-confocal-nuclei" / "high"
WARN = 0.1  # of flows/validation/policy.py


def dimmed(image, loss):
    """The image with the light above its background reduced by up to `loss`, in the corners."""
    offset = background_offset(image)
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in image.shape), indexing="ij")
    return (offset + (image - offset) * (1 - loss * (x**2 + y**2) / 2)).astype(np.float32)


def session(images, loss=0.0):
    found = [local_changes(dimmed(image, loss)) for image in images]
    return [one for one in found if one is not None]


@pytest.fixture(scope="module")
def nuclei():
    """76 fields: nineteen targets, each at four places of a stage that knows no centre (cyclic shifts)."""
    rng = np.random.default_rng(0)
    targets = [read_image(path).pixels for path in sorted(NUCLEI.glob("*_cap00.tif"))]
    return [np.roll(image, rng.integers(0, 512, 2), (0, 1)) for _ in range(4) for image in targets]


@pytest.fixture(scope="module")
def usual(nuclei):
    return session(nuclei[38:])


@pytest.mark.parametrize(("loss", "warned"), [(0.0, False), (0.15, False), (0.6, True)])
def test_a_session_that_loses_more_light_than_the_others_stands_out(nuclei, usual, loss, warned):
    """Of 38 fields against 38 others a loss of 0.6 is beyond the warning; 0.15 and none are not."""
    found = added_falloff(session(nuclei[:38], loss), usual)
    assert (found.at_least > WARN) == warned
    assert found.best == pytest.approx(loss, abs=0.2)


def test_the_bound_rises_with_the_planted_loss(nuclei, usual):
    """The more light is taken from the corners, the more at least is missing."""
    bounds = [added_falloff(session(nuclei[:38], loss), usual).at_least for loss in (0.0, 0.15, 0.3, 0.6)]
    assert bounds == sorted(set(bounds))


def test_few_fields_cannot_tell(nuclei, usual):
    """Random sessions of eight fields under even light are warned of in at most one of twenty."""
    fields, rng = session(nuclei[:38]), np.random.default_rng(1)
    chosen = [rng.choice(38, 8, replace=False) for _ in range(40)]
    found = [added_falloff([fields[i] for i in some], usual) for some in chosen]
    assert sum(one.at_least > WARN for one in found) <= 2


def spots(rng):
    """A noisy field of bright spots, crowded in the middle."""
    field = np.zeros((256, 256))
    rows, columns = np.clip(rng.normal(128, 45, (2, 150)), 0, 255).astype(int)
    np.add.at(field, (rows, columns), rng.lognormal(8, 0.5, 150))
    return rng.poisson(gaussian_filter(field, 5) + 5).astype(np.float32)


def test_centred_specimens_are_no_vignetting_beside_others_like_them():
    """Thick in the middle of every field, they look like a loss of light alone, but not by comparison."""
    rng = np.random.default_rng(1)
    one, other = (session([spots(rng) for _ in range(15)]) for _ in range(2))
    assert lone_falloff(one).at_least > 0.2
    assert added_falloff(one, other).at_least < WARN


def test_units_do_not_matter():
    """Gain and offset leave what an image says unchanged."""
    image = read_image(NUCLEI / "fov05_cap00.tif").pixels
    one, other = local_changes(image), local_changes(300 * image + 1000)
    assert (other.spread, other.change) == pytest.approx((one.spread, one.change), rel=0.01)


def test_few_fields_and_empty_ones_say_nothing():
    """Fewer than eight fields, constant, tiny and empty images give None."""
    same = [LocalChanges(0.01, 0.001)] * 8
    assert added_falloff(same[:7], same) is added_falloff(same, same[:7]) is lone_falloff(same[:7]) is None
    assert added_falloff(same, same).at_least == 0 and lone_falloff(same).best < 0
    rng = np.random.default_rng(2)
    with np.errstate(all="raise"):
        for image in (np.zeros((256, 256)), np.ones((31, 17)), rng.poisson(20, (256, 256))):
            assert local_changes(image.astype(np.float32)) is None
