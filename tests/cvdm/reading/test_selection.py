"""Some channels of a stack: their planes and facts, in the file's order, as if there were no others."""

import numpy as np
import pytest
import tifffile

from cvdm.errors import ImageError
from cvdm.reading import read_stack, selected

NAMES = ["DAPI", "GFP", "2"]


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 4000, (2, 3, 4, 24, 20), dtype=np.uint16)  # TCZYX


@pytest.fixture
def stack(tmp_path, pixels):
    path = tmp_path / "stack.ome.tif"
    facts = {"axes": "TCZYX", "Channel": {"Name": NAMES, "EmissionWavelength": [450.0, 510.0, 600.0]}}
    tifffile.imwrite(path, pixels, ome=True, metadata=facts)
    with read_stack(path, max_pixels=10**6) as opened:
        yield opened


def test_several_channels_stay_an_axis(stack, pixels, tmp_path):
    """In the file's order, whatever the order of the names; a name goes before a number."""
    some = selected(stack, ["2", "DAPI", "0"])
    assert (some.axes, some.shape) == ("TCZYX", (2, 2, 4, 24, 20))
    assert some.channel_names == ("DAPI", "2") and some.emission_nm == (450.0, 600.0)
    np.testing.assert_array_equal(some.pixels, pixels[:, [0, 2]])
    assert some.index(5) == {"T": 0, "C": 1, "Z": 1}
    copied = np.zeros(pixels.shape[-2:], np.float32)
    some.copy_plane(13, lambda region, part: copied.__setitem__(region.slices, part), tmp_path / "scratch")
    np.testing.assert_array_equal(copied, pixels[1, 2, 1])


def test_a_single_channel_is_no_axis(stack, pixels):
    """As axes of length one never are."""
    one = selected(stack, ["GFP"])
    assert (one.axes, one.shape, one.channel_names) == ("TZYX", (2, 4, 24, 20), ("GFP",))
    np.testing.assert_array_equal(one.pixels, pixels[:, 1])
    assert selected(one, ["0"]) is selected(one, ["GFP"]) is selected(one, []) is one


@pytest.mark.parametrize("name", ["dapi", "3", "-1", "²", ""])
def test_what_is_not_there_is_refused_with_what_is(stack, name):
    """By its number or its name."""
    with pytest.raises(ImageError, match="0 to 2, DAPI, GFP, 2"):
        selected(stack, ["DAPI", name])
