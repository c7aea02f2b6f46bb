"""Novelty: fields that were not seen are familiar; other focus, noise, sampling and texture are not."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, zoom
from specimens import cells, make_checkpoint, noisy

from cvdm.calibration import Calibration
from cvdm.checkpoint import file_digest, load_checkpoint, save_checkpoint
from cvdm.errors import CheckpointError
from cvdm.normalisation import IntensityScale
from cvdm.novelty import ACROSS, FAMILIAR, NOVEL, WINDOW, fit_familiar, traits_of
from cvdm.observation import Observation
from cvdm.posterior import reconstruct
from cvdm.suitability import doubts_of_image

SCALE = IntensityScale(100.0, 100.0)


def field(seed, size=256):
    rng = np.random.default_rng(seed)
    return np.hypot(*(sum(cells(rng, size) for _ in range(4)) for _ in range(2))) / 6


def acquired(clean, seed=0):
    return noisy(clean, np.random.default_rng(seed)).astype(np.float32)


def lines(size=256):
    rows, columns = np.mgrid[:size, :size]
    return 100 + 80 * np.sin((rows + 2 * columns) / 3.0)


@pytest.fixture(scope="module")
def familiar():
    return fit_familiar((f"f{seed}", acquired(field(seed), seed), SCALE) for seed in range(8))


@pytest.mark.parametrize("seed", range(100, 106))
@pytest.mark.parametrize("size", [128, 256])
def test_fields_that_were_not_seen_are_familiar(familiar, seed, size):
    """Of whatever size."""
    assert familiar.novelty(acquired(field(seed)[:size, :size], seed), SCALE) < 1.15


@pytest.mark.parametrize(
    "strange",
    [
        acquired(field(100)) + np.random.default_rng(1).normal(0, 40, (256, 256)),
        gaussian_filter(acquired(field(100)), 1),
        acquired(zoom(field(100, 512), 0.25, order=1)),
        acquired(lines()),
        np.zeros((256, 256)),
    ],
    ids=["more noise", "filtered", "other sampling", "other texture", "empty"],
)
def test_other_images_are_novel(familiar, strange):
    """Planted; what only differs in structure, but not in spectrum, is not asked about."""
    assert familiar.novelty(strange.astype(np.float32), SCALE) > NOVEL


def test_novelty_grows_with_the_change(familiar):
    """By more noise and by more blur."""
    for changed in (
        [acquired(field(100)) + np.random.default_rng(1).normal(0, s, (256, 256)) for s in (15, 30, 60)],
        [acquired(gaussian_filter(field(100), s)) for s in (0, 2, 8)],
    ):
        found = [familiar.novelty(image, SCALE) for image in changed]
        assert found == sorted(found) and found[-1] > found[0] + 0.1


def test_too_little_to_say_says_nothing(familiar):
    """An image of few windows, or smaller than a segment; fields that cannot be compared with any other."""
    images = [("f0", acquired(field(0)), SCALE), ("f1", np.zeros((20, 300), np.float32), SCALE)]
    assert fit_familiar(images) is None
    assert traits_of(images[1][1], SCALE) is None and familiar.novelty(images[1][1], SCALE) is None
    assert familiar.novelty(lines(127).astype(np.float32), SCALE) is None
    assert familiar.novelty(lines(128).astype(np.float32), SCALE) > NOVEL
    assert fit_familiar([("f", pixels, SCALE) for _, pixels, _ in images[:1] * 2]) is None


def test_of_a_huge_image_a_few_windows_are_read(familiar):
    """It may be in a file."""

    class Watched:
        shape = (100_000, 100_000)
        read = 0

        def __getitem__(self, index):
            rows, columns = (range(*part.indices(100_000)) for part in index)
            self.read += len(rows) * len(columns)
            return np.zeros((len(rows), len(columns)), np.float32)

    familiar.novelty(pixels := Watched(), SCALE)
    assert pixels.read == (ACROSS * WINDOW) ** 2


@pytest.fixture
def checkpoint(familiar):
    """Planted: twice the interval for whatever is twice as novel as a training field."""
    plain = make_checkpoint()
    calibration = replace(plain.calibration, stretches=((1.3, 2.0), (3.0, 2.0)))
    return replace(plain, calibration=calibration, familiar=familiar)


def test_the_interval_of_a_novel_image_is_stretched_and_doubted(checkpoint):
    """About the same mean and std; that of a familiar one is not. Both in half ranges of the model."""
    known, strange = acquired(field(100)), acquired(lines())
    for image, factor in ((known, 1.0), (strange, 2.0)):
        found = reconstruct(checkpoint, image)
        plain = reconstruct(replace(checkpoint, familiar=None), image)
        assert np.array_equal(found.mean, plain.mean) and np.array_equal(found.std, plain.std)
        np.testing.assert_allclose(found.upper - found.mean, factor * (plain.upper - plain.mean), rtol=1e-3)
        (*told,) = doubts_of_image(checkpoint, Observation.of(image), None, "a.tif")
        assert len(told) == (factor > 1)
    assert "times as far" in told[0].actual and "2.0 times as wide" in told[0].remedy


def test_small_parts_of_familiar_fields_are_familiar_too(familiar):
    """Their few windows may be rare ones; nine tenths of them stay below what a person is told of."""
    found = [
        familiar.novelty(acquired(field(seed), seed)[top : top + 128, left : left + 128], SCALE)
        for seed in range(100, 105)
        for top in (0, 64, 128)
        for left in (0, 64, 128)
    ]
    assert np.mean(np.array(found) > NOVEL) < 0.1


def test_it_travels_with_the_model(checkpoint, tmp_path):
    """The same novelty to the last bit; arrays that are code are refused."""
    save_checkpoint(tmp_path / "model", checkpoint, cells(np.random.default_rng(7), 32))
    loaded = load_checkpoint(tmp_path / "model")
    seen = Observation.of(acquired(lines()))
    assert loaded.novelty(seen) == checkpoint.novelty(seen) and loaded.stretch(seen) == 2.0
    path = tmp_path / "model" / "familiar.npz"
    np.savez(path, **vars(checkpoint.familiar) | {"centre": np.array([print], dtype=object)})
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    description["files"]["familiar.npz"] = file_digest(path)
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="Export the model again"):
        load_checkpoint(tmp_path / "model")


def test_the_stretch_sets_in_gradually():
    """1 for what is familiar or unknown; no jump, no fall, and no guess beyond what was planted."""
    calibration = Calibration(0.9, 2.0, 0.01, 3, 0.8, stretches=((0.9, 1.5), (1.5, 2.0), (4.0, 3.0)))
    assert [calibration.stretch(novelty) for novelty in (None, 0.3, FAMILIAR)] == [1, 1, 1]
    found = [calibration.stretch(novelty) for novelty in np.linspace(1, 6, 501)]
    assert (np.diff(found) >= 0).all() and np.diff(found).max() < 0.05
    assert calibration.stretch(NOVEL) == pytest.approx(np.interp(NOVEL, (0.9, 1.5), (1.5, 2.0)))
    assert calibration.stretch(99) == 3
    assert replace(calibration, stretches=()).stretch(5) == 1
