"""Doubts about an image: raised by what was planted, silent on what resembles the training."""

from dataclasses import replace

import numpy as np
import pytest
from specimens import cells, make_checkpoint, noisy

from cvdm.reading import Metadata
from cvdm.suitability import doubts_of_file, doubts_of_plane, gathered


@pytest.fixture(scope="module")
def checkpoint():
    """Trained at 0.1 um and intensities of 0 to 200."""
    return make_checkpoint()


def planes(*, seed=0):
    rng = np.random.default_rng(seed)
    return noisy(cells(rng, 96), rng).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_images_like_those_of_the_training_raise_none(checkpoint, seed):
    """Whatever the noise."""
    assert doubts_of_plane(checkpoint.normalisation, planes(seed=seed), 65535.0, "a.tif") == []


@pytest.mark.parametrize(
    ("size", "doubted"),
    [
        ((0.1, 0.1), False),
        ((0.12, 0.12), False),
        ((0.082, 0.082), False),
        ((0.13, 0.13), True),
        ((0.05, 0.05), True),
        ((0.1, 0.2), True),
        (None, False),
    ],
)
def test_another_magnification_is_doubted(checkpoint, size, doubted):
    """From a quarter on, in both directions, and where pixels are not square."""
    found = doubts_of_file(checkpoint, Metadata(pixel_size_um=size), "a.tif", "YX")
    assert bool(found) == doubted
    if doubted:
        assert "0.1 µm" in found[0].expected and "a.tif with pixels of" in found[0].actual
        assert "Resample the image to 0.1 µm" in found[0].remedy


def test_a_model_that_knows_no_pixel_size_doubts_none(checkpoint):
    """Nor does it invent one."""
    unknown = replace(checkpoint, record=replace(checkpoint.record, pixel_size_um=None))
    assert doubts_of_file(unknown, Metadata(pixel_size_um=(9, 9)), "a.tif", "YX") == []


def test_planted_defects_are_doubted(checkpoint):
    """Each by its own doubt: nothing on it, cut off, too bright."""
    sound = planes()
    (empty,) = doubts_of_plane(checkpoint.normalisation, np.full((50, 50), 7.0, np.float32), 255.0, "a.tif")
    assert "7 everywhere" in empty.actual
    cut = np.minimum(sound, 120)
    (saturated,) = doubts_of_plane(checkpoint.normalisation, cut, 120.0, "a.tif")
    assert "detector's end, 120" in saturated.expected and "%" in saturated.actual
    (bright,) = doubts_of_plane(checkpoint.normalisation, sound * 2.2, None, "a.tif")
    assert "mostly 0 to 200" in bright.expected


def test_of_a_stack_each_kind_is_told_once(checkpoint):
    """However many planes it is about."""
    known = checkpoint.normalisation
    found = [
        doubt for at in range(4) for doubt in doubts_of_plane(known, planes() * 2.2, None, f"plane {at}")
    ]
    assert len(found) == 4 and [doubt.actual[:7] for doubt in gathered(found)] == ["plane 0"]
