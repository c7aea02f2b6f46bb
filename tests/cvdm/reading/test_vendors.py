"""CZI, ND2 and LIF: what is refused without the extra, and a CZI written by Zeiss's own library with it.

No ND2 or LIF file is at hand, so that their reading is not tested here, only their refusals.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cvdm.errors import ImageError
from cvdm.images import read_image
from cvdm.reading import read_stack

ODD = Path(__file__).parents[2] / "data" / "odd"
REAL = tifffile.imread(ODD / "timelapse_5x100x64_uint16_noaxes.tif")[:4].reshape(2, 2, 100, 64)  # CZYX
LIMIT = 10**6
HEADS = {
    "CZI": b"ZISRAWFILE" + bytes(600),
    "ND2": b"\xda\xce\xbe\x0a" + bytes(600),
    "LIF": b"\x70\x00\x00\x00" + bytes(600),
}


@pytest.fixture
def czi(tmp_path):
    """Two channels of two z-planes, 0.1 um by 0.1 um by 0.5 um."""
    writer = pytest.importorskip("pylibCZIrw.czi", reason="the extra vendors is not installed")
    pytest.importorskip("bioio_czi")
    path = tmp_path / "a.czi"
    with writer.create_czi(str(path)) as file:
        for channel, z in np.ndindex(2, 2):
            file.write(REAL[channel, z][..., None].copy(), plane={"C": channel, "Z": z, "T": 0})
        names = {0: "DAPI", 1: "GFP"}
        file.write_metadata("a", channel_names=names, scale_x=1e-7, scale_y=1e-7, scale_z=5e-7)
    return path


@pytest.mark.parametrize("name", HEADS)
def test_without_the_extra_the_error_names_it(name, tmp_path, monkeypatch):
    """The format is known by its first bytes, whatever the file is called."""
    monkeypatch.setitem(sys.modules, f"bioio_{name.lower()}", None)
    path = tmp_path / "image.tif"
    path.write_bytes(HEADS[name])
    with pytest.raises(ImageError, match=f"bioio-{name.lower()} to read {name}.*vendors"):
        read_stack(path, max_pixels=LIMIT)


@pytest.mark.parametrize("name", HEADS)
def test_uploads_and_read_image_refuse_them_by_name(name):
    """They are read from a path only, and never as a single plane."""
    with pytest.raises(ImageError, match=f"a {name} file on this machine"):
        read_stack(io.BytesIO(HEADS[name]), max_pixels=LIMIT)
    with pytest.raises(ImageError, match=f"{name} file"):
        read_image(io.BytesIO(HEADS[name]))


@pytest.mark.parametrize("name", HEADS)
def test_a_damaged_file_is_an_image_error(name, tmp_path):
    """A head with nothing behind it is named as damaged."""
    pytest.importorskip(f"bioio_{name.lower()}", reason="the extra vendors is not installed")
    path = tmp_path / f"a.{name.lower()}"
    path.write_bytes(HEADS[name])
    with pytest.raises(ImageError, match="damaged"):
        read_stack(path, max_pixels=LIMIT)


def test_a_czi_has_named_axes_sizes_and_channels(czi):
    """Every plane stands where it was written."""
    with read_stack(czi, max_pixels=LIMIT) as stack:
        assert (stack.axes, stack.shape, stack.dtype, stack.format) == ("CZYX", REAL.shape, "uint16", "CZI")
        assert stack.pixel_size_um == pytest.approx((0.1, 0.1))
        assert stack.z_step_um == pytest.approx(0.5)
        assert stack.channel_names == ("DAPI", "GFP")
        for plane in stack.planes():
            np.testing.assert_array_equal(plane.pixels, REAL[plane.index["C"], plane.index["Z"]])
    with pytest.raises(ImageError, match="at most 10 pixels"):
        read_stack(czi, max_pixels=10)


def test_a_cut_czi_is_refused(czi):
    """Its directory lies at the end: what is cut is not read in part."""
    whole = czi.read_bytes()
    for end in (600, len(whole) // 2, len(whole) - 100):
        czi.write_bytes(whole[:end])
        with pytest.raises(ImageError):
            read_stack(czi, max_pixels=LIMIT)
