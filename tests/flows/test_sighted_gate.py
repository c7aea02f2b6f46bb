"""The data gate on inputs of several channels, of fewer pixels than their targets, and on stacks."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from sighted import card_with, halved, stacks, two_channels, write_channels

from cvdm.card import load_card
from cvdm.images import write_tiff
from flows.validation import ValidationPolicy, validate_dataset
from flows.validation.measuring import files_of, measure
from flows.validation.page.thumbnails import thumbnail

POLICY = ValidationPolicy()


def refusals(root):
    return {(one.check, one.name): one for one in validate_dataset(root, POLICY).rejected}


@pytest.mark.parametrize("make", [halved, two_channels, stacks])
def test_sound_pairs_are_accepted(make, tmp_path):
    """As they are, with every measurement that pairs of single planes have."""
    root = make(tmp_path / "test-cells", noise=4.0)
    assert refusals(root) == {}
    card = load_card(root)
    rows = measure(files_of(root, card), card).rows
    shifts = [row.shift_px for row in rows if row.shift_px is not None]
    assert len(shifts) > 0.8 * len(rows) and max(shifts) < 0.2
    assert min(row.rank_correlation for row in rows) > 0.8
    low = sorted((root / "low").iterdir())[0]
    assert thumbnail(low, sight=card.sight).problem is None


def test_a_shift_of_the_target_is_found_on_the_common_grid(tmp_path):
    """In pixels of the target: three of them are refused, none passes."""
    root = halved(tmp_path / "test-cells")
    path = root / "high" / "f03_c0.tif"
    pixels = np.roll(tifffile.imread(path), 3, axis=1)
    write_tiff(path, pixels, pixel_size_um=0.05)
    assert set(refusals(root)) == {("shift-px", "f03_c0")}
    card = load_card(root)
    (row,) = [row for row in measure(files_of(root, card), card).rows if row.name == "f03_c0"]
    assert row.shift_yx == pytest.approx((0, 3), abs=0.2)


@pytest.mark.parametrize(("factor", "said"), [(3, "3 times"), (1, "one shape")])
def test_a_wrong_factor_is_told_with_the_right_one(factor, said, tmp_path):
    """On every pair, whatever the card says instead."""
    root = halved(tmp_path / "test-cells", fields=4)
    card_with(root, factor=factor)
    found = refusals(root)
    assert len(found) == 4 and {check for check, _ in found} == {"shape"}
    one = found["shape", "f00_c0"]
    assert said in one.expected and "a factor of 2" in one.actual and "factor: 2" in one.remedy


def test_pixel_sizes_follow_the_factor(tmp_path):
    """A target that states the input's pixel size is refused."""
    root = halved(tmp_path / "test-cells")
    path = root / "high" / "f03_c0.tif"
    write_tiff(path, tifffile.imread(path), pixel_size_um=0.1)
    assert set(refusals(root)) == {("pixel-size", "f03_c0"), ("pixel-size-of-pair", "f03_c0")}


def test_channels_are_those_of_the_card(tmp_path):
    """Other names, one channel only, and a channel with nothing on it are each told."""
    root = two_channels(tmp_path / "test-cells", noise=4.0)
    low = [root / "low" / f"f{field:02d}_c0.ome.tif" for field in range(4)]
    pixels = [tifffile.imread(path) for path in low]
    write_channels(low[0], pixels[0], ("dapi", "tubulin"))
    tifffile.imwrite(low[1], pixels[1][1])
    write_channels(low[2], np.stack([np.full_like(pixels[2][0], 7), pixels[2][1]]))
    found = refusals(root)
    assert set(found) == {("plane", "f00_c0"), ("plane", "f01_c0"), ("constant", "f02_c0")}
    assert "the channels dapi, actin" in found["plane", "f00_c0"].expected
    assert "dapi, tubulin" in found["plane", "f00_c0"].actual
    assert "channel dapi" in found["constant", "f02_c0"].actual


def test_stacks_have_as_many_planes(tmp_path):
    """A target that lacks one is refused, and so is a single plane."""
    root = stacks(tmp_path / "test-cells", noise=4.0)
    for name, kept in (("f01_c0", slice(0, 4)), ("f02_c0", slice(0, 1))):
        path = root / "high" / f"{name}.tif"
        pixels = tifffile.imread(path)[kept]
        tifffile.imwrite(path, pixels, imagej=True, metadata={"axes": "ZYX"})
    assert {check for check, _ in refusals(root)} == {"shape"}
