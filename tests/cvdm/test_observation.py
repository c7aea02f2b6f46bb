"""What a model sees beside the plane that it restores: read, stacked and brought to one grid."""

import numpy as np
import pytest
import tifffile
from sighted import QUICK_RECIPE, card_with, halved, stacks, two_channels, write_channels
from specimens import make_dataset

from cvdm.card import load_card
from cvdm.dataset import load_dataset
from cvdm.errors import ConfigError, DatasetError, ImageError
from cvdm.images import read_image, write_tiff
from cvdm.normalisation import IntensityScale
from cvdm.observation import Observation
from cvdm.patches import PatchSource, read_images, read_pair
from cvdm.places import observed, places_of, read_observation
from cvdm.reading import read_stack
from cvdm.region import Region
from cvdm.sight import Sight
from cvdm.training import training_normalisation
from cvdm.upsampling import Upsampled

AS_IT_IS = IntensityScale(0.0, 1.0)
TWO = Sight(("dapi", "actin"), "actin")


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_centres_of_pixels_correspond(factor):
    """A parabola is reproduced at u = (p + 1/2) / factor - 1/2, as cubic convolution does."""
    u = (np.arange(20 * factor) + 0.5) / factor - 0.5
    coarse = np.add.outer(np.arange(20.0) ** 2, 3 * np.arange(20.0))
    fine = np.asarray(Upsampled(coarse, factor)[:, :])
    inside = slice(2 * factor, -2 * factor)
    np.testing.assert_allclose(fine[inside, inside], np.add.outer(u**2, 3 * u)[inside, inside], rtol=1e-5)


def test_a_part_is_the_same_as_in_the_whole():
    """Bit for bit, whatever its edges; and strided, as previews read."""
    pixels = np.random.default_rng(0).normal(size=(31, 23)).astype(np.float32)
    fine = Upsampled(pixels, 3)
    whole = fine[:, :]
    assert whole.shape == fine.shape == (93, 69) and whole.dtype == np.float32
    for rows, columns in (
        (slice(0, 1), slice(68, 69)),
        (slice(7, 50), slice(11, 30)),
        (slice(1, 90, 4),) * 2,
    ):
        np.testing.assert_array_equal(fine[rows, columns], whole[rows, columns])


def test_the_restored_plane_comes_first_and_then_its_neighbours():
    """(C', h, w): the restored channel's own plane, its neighbours, the other channel likewise."""
    planes = [np.full((8, 8), value, np.float32) for value in range(6)]
    seen = Observation((tuple(planes[3:]), tuple(planes[:3])))
    stacked = seen.normalised(Region(2, 4, 1, 5), (AS_IT_IS, AS_IT_IS))
    assert stacked.shape == (6, 2, 4) and stacked[:, 0, 0].tolist() == [4, 3, 5, 1, 0, 2]
    assert seen.restored[0:1, 0:1] == 4


def test_channels_are_told_apart_by_name_and_else_by_order(tmp_path):
    """Whatever order the file has; names of other channels, more or fewer of them are refused."""
    pixels = np.stack([np.full((32, 32), 10), np.full((32, 32), 20)])
    write_channels(tmp_path / "turned.tif", pixels, ("Actin", "DAPI"))
    write_channels(tmp_path / "nameless.tif", pixels, ("", ""))
    assert read_observation(tmp_path / "turned.tif", TWO).centres[0][0, 0] == 10
    assert read_observation(tmp_path / "nameless.tif", TWO).centres[0][0, 0] == 20
    write_channels(tmp_path / "other.tif", pixels, ("dapi", "tubulin"))
    with pytest.raises(ImageError, match=r"dapi, actin; got other.tif with 2 .dapi, tubulin."):
        read_observation(tmp_path / "other.tif", TWO)
    write_channels(tmp_path / "three.tif", np.concatenate([pixels, pixels[:1]]), ("a", "b", "c"))
    with pytest.raises(ImageError, match=r"2 channels.*three.tif with 3"):
        read_observation(tmp_path / "three.tif", TWO)
    tifffile.imwrite(tmp_path / "one.tif", pixels[0].astype(np.uint16))
    with pytest.raises(ImageError, match=r"one.tif with 1. Save exactly"):
        read_observation(tmp_path / "one.tif", TWO)
    with pytest.raises(ImageError, match=r"an image of 2 channels .dapi, actin.; got one of 1"):
        Observation.of(pixels[0], TWO)
    with pytest.raises(ImageError, match="one two-dimensional"):
        read_observation(tmp_path / "turned.tif", Sight())


def test_edge_planes_stand_for_those_beyond(tmp_path):
    """Each plane of a stack with its neighbours along the axis of the card, and along no other."""
    pixels = np.arange(8, dtype=np.uint16).reshape(2, 4, 1, 1) * np.ones((1, 1, 16, 16), np.uint16)
    tifffile.imwrite(tmp_path / "tz.tif", pixels, imagej=True, metadata={"axes": "TZYX"})
    with read_stack(tmp_path / "tz.tif", max_pixels=10**6) as stack:
        along_z = [place.planes for place in places_of(stack, Sight(context=1))]
        along_t = [place.planes for place in places_of(stack, Sight(context=1, context_axis="T"))]
        seen = observed(stack, Sight(context=2))
    assert along_z[0] == ((0, 0, 1),) and along_z[3] == ((2, 3, 3),) and along_z[5] == ((4, 5, 6),)
    assert along_t[1] == ((1, 1, 5),) and along_t[6] == ((2, 6, 6),)
    assert [int(plane[0, 0]) for plane in seen[5].channels[0]] == [4, 4, 5, 6, 7]


def test_patches_are_parts_of_the_observation(tmp_path):
    """Low and high of a patch are the same window: of coarse inputs, and of every channel."""
    dataset = load_dataset(halved(tmp_path / "half", noise=0.0))
    normalisation = training_normalisation(dataset, QUICK_RECIPE)
    low, high = PatchSource(dataset, normalisation, patch=32, batch=16, seed=1).batch_at(0)
    assert low.shape == high.shape == (16, 1, 32, 32)
    for one, other in zip(low[:, 0].numpy(), high[:, 0].numpy(), strict=True):
        means = (image.reshape(8, 4, 8, 4).mean((1, 3))[1:-1, 1:-1] for image in (one, other))
        assert np.corrcoef(*(mean.ravel() for mean in means))[0, 1] > 0.93
    dataset = load_dataset(two_channels(tmp_path / "two"))
    normalisation = training_normalisation(dataset, QUICK_RECIPE)
    low, high = PatchSource(dataset, normalisation, patch=32, batch=4, seed=1).batch_at(0)
    assert low.shape == (4, 2, 32, 32) and high.shape == (4, 1, 32, 32)
    assert normalisation.low > 100 > normalisation.others[0].low > 20
    assert (
        np.corrcoef(low[:, 1].ravel(), high[:, 0].ravel())[0, 1]
        > 0.9
        > 0.1 + np.corrcoef(low[:, 0].ravel(), high[:, 0].ravel())[0, 1]
    )


def test_pairs_that_do_not_correspond_are_refused(tmp_path):
    """Another factor than the card's, and stacks of different length; with what to do."""
    root = halved(tmp_path / "half", factor=2)
    card_with(root, factor=3)
    with pytest.raises(DatasetError, match="factor of 3; got 48 x 48 and 96 x 96"):
        read_pair(load_dataset(root).pairs[0])
    root = stacks(tmp_path / "stacks")
    pair = load_dataset(root).pairs[0]
    assert len(read_images(pair)) == 5
    with tifffile.TiffFile(pair.high) as tif:
        pixels = tif.asarray()
    tifffile.imwrite(pair.high, pixels[:4], imagej=True, metadata={"axes": "ZYX"})
    with pytest.raises(DatasetError, match="as many planes; got ZYX with 5 and ZYX with 4"):
        read_images(pair)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"channels": ["dapi"]}, "two or more different names"),
        ({"channels": ["dapi", "DAPI"], "channel": "dapi"}, "two or more different names"),
        ({"channels": ["dapi", "actin"]}, "the channel that the target shows, out of dapi, actin"),
        ({"channels": ["dapi", "actin"], "channel": "gfp"}, "got gfp"),
        ({"channels": "dapi"}, "a list of names"),
        ({"factor": 5}, "factor from 1 to 4"),
        ({"factor": 2.0}, "of type int"),
        ({"context": -1}, "context from 0"),
        ({"context": 1, "context_axis": "C"}, "context_axis: Z or T"),
        (
            {
                "factor": 2,
                "forward_model": {
                    "psf_sigma_px": 1.0,
                    "photons": 1.0,
                    "full_scale": 1.0,
                    "read_noise": 1.0,
                    "offset": 0.0,
                    "seed": 0,
                },
            },
            "no forward_model with a factor",
        ),
    ],
)
def test_a_card_that_cannot_be_is_refused(tmp_path, keys, said):
    """With the key that is wrong."""
    root = halved(tmp_path / "half", fields=1)
    card_with(root, **({"factor": 1} | keys))
    with pytest.raises(DatasetError, match=said):
        load_card(root)


def test_a_sight_checks_itself():
    """Wherever it comes from, a recipe of a checkpoint included."""
    with pytest.raises(ConfigError, match="out of none"):
        Sight(restored="actin")
    assert Sight(("a", "b", "c"), "b", context=1).inputs == 9 and Sight(("a", "b", "c"), "b").order == (
        1,
        0,
        2,
    )


def test_a_target_in_units_of_its_own_comes_in_those_of_its_input(tmp_path):
    """A stretch of the target alone is undone, to within what the input's noise leaves open."""
    root, rng = make_dataset(tmp_path / "cells", fields=4), np.random.default_rng(0)
    for path in sorted((root / "high").iterdir()):
        write_tiff(
            path, (read_image(path).pixels * rng.uniform(2, 200) + rng.uniform(0, 50)).astype(np.float32)
        )
    card = root / "card.yaml"
    stretched = [read_pair(pair) for pair in load_dataset(root).pairs]
    card.write_text(card.read_text(encoding="utf-8") + "target_units: own\n", encoding="utf-8")
    for before, after in zip(stretched, map(read_pair, load_dataset(root).pairs), strict=True):
        assert np.abs(before.high - before.low).mean() > 20
        assert np.polyfit(after.low.ravel(), after.high.ravel(), 1)[0] == pytest.approx(1, abs=0.2)
        assert (after.high - after.low).mean() == pytest.approx(0, abs=0.5)
