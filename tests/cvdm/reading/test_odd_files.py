"""Every odd file: what read_stack makes of it, and what read_image makes of it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cvdm.errors import ImageError
from cvdm.images import read_image
from cvdm.reading import read_stack

ODD = Path(__file__).parents[2] / "data" / "odd"
LIMIT = 10**6
# (axes, shape, dtype, format) where read_stack reads; a part of the refusal where it does not; then whether
# read_image reads it too.
OUTCOMES = {
    "allzero_uint16.tif": (("YX", (100, 64), "uint16", "TIFF"), True),
    "bigendian_uint16.tif": (("YX", (100, 64), "uint16", "TIFF"), True),
    "bigtiff_uint16.tif": (("YX", (100, 64), "uint16", "BigTIFF"), True),
    "biosr_microtubules_uint16.mrc": (("YX", (100, 64), "uint16", "MRC"), True),
    "bool_1bit.tif": (("YX", (100, 64), "bool", "TIFF"), True),
    "complex64.tif": ("with complex64", False),
    "corrupt_deflate_stream.tif": ("which is damaged", False),
    "corrupt_truncated_half.tif": ("truncated at", False),
    "corrupt_truncated_pixels.tif": ("truncated at", False),
    "corrupt_zero_bytes.tif": ("an empty file", False),
    "float32_with_nan_inf.tif": ("401 NaN or infinite pixels", False),
    "float64_01range.tif": (("YX", (100, 64), "float64", "TIFF"), True),
    "git_lfs_pointer.tif": ("git-lfs pointer", False),
    "int16_negative_background.tif": (("YX", (100, 64), "int16", "TIFF"), True),
    "miniswhite_uint8.tif": (("YX", (100, 64), "uint8", "TIFF"), True),
    "multichannel_CYX_uint16_imagej.tif": (("CYX", (3, 100, 64), "uint16", "ImageJ TIFF"), False),
    "nonsquare_odd_imagej_uint8.tif": (("YX", (101, 63), "uint8", "ImageJ TIFF"), True),
    "not_a_tiff_png_inside.tif": ("a PNG image", False),
    "ome_ZYX_uint16_with_pixelsize.ome.tif": (("ZYX", (3, 100, 64), "uint16", "OME-TIFF"), False),
    "rgb_lzw_256x256_uint8.tiff": ("3 colour samples", False),
    "saturated_uint8.tif": (("YX", (100, 64), "uint8", "TIFF"), True),
    "timelapse_5x100x64_uint16_noaxes.tif": ("5 planes of an unnamed axis", False),
    "tiny_31x17_uint16.tif": (("YX", (31, 17), "uint16", "TIFF"), True),
    "zstack_ZYX_uint8_imagej.tif": (("ZYX", (5, 100, 64), "uint8", "ImageJ TIFF"), False),
}
READ = [name for name, (stack, _) in OUTCOMES.items() if isinstance(stack, tuple)]
REFUSED = [name for name in OUTCOMES if name not in READ]


def test_every_odd_file_has_an_outcome():
    """No fixture lies around unused, and none is missing."""
    assert {path.name for path in ODD.iterdir()} - {"README.md"} == set(OUTCOMES)


@pytest.mark.parametrize("name", READ)
def test_a_readable_file_has_named_axes_and_its_own_values(name):
    """Axes, shape, type and pixels are the file's, from a path as from an open file."""
    axes, shape, dtype, kind = OUTCOMES[name][0]
    with read_stack(ODD / name, max_pixels=LIMIT) as stack, (ODD / name).open("rb") as file:
        assert (stack.axes, stack.shape, stack.dtype, stack.format) == (axes, shape, dtype, kind)
        planes = list(stack.planes())
        np.testing.assert_array_equal(stack.pixels, read_stack(file, max_pixels=LIMIT).pixels)
        assert not file.closed
    assert [plane.pixels.shape for plane in planes] == [shape[-2:]] * int(np.prod(shape[:-2]))
    assert planes[0].pixels.dtype == np.float32
    assert all(tuple(plane.index) == tuple(axes[:-2]) for plane in planes)
    np.testing.assert_array_equal(np.stack([plane.pixels for plane in planes]).reshape(shape), oracle(name))


def oracle(name):
    """The same pixels by another way."""
    if name.endswith(".mrc"):
        return np.fromfile(ODD / name, "<u2", offset=1024).reshape(100, 64)
    with tifffile.TiffFile(ODD / name) as tif:
        stored = tif.asarray().astype(np.float32)
        white_is_zero = tif.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    return {"bool": 1, "uint8": 255}[OUTCOMES[name][0][2]] - stored if white_is_zero else stored


@pytest.mark.parametrize("name", REFUSED)
def test_any_other_file_is_refused_by_name_with_a_remedy(name, capfd):
    """The message says what the file is and what to do, and nothing else is printed."""
    with (
        pytest.raises(ImageError) as caught,
        read_stack(ODD / name, max_pixels=LIMIT) as stack,
    ):
        list(stack.planes())
    assert OUTCOMES[name][0] in caught.value.actual
    assert name in caught.value.actual
    assert caught.value.remedy
    with (
        pytest.raises(ImageError),
        read_stack(io.BytesIO((ODD / name).read_bytes()), max_pixels=LIMIT) as stack,
    ):
        list(stack.planes())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", OUTCOMES)
def test_read_image_takes_single_planes(name):
    """Where read_image reads, its pixels are the stack's; everything else it refuses."""
    if not OUTCOMES[name][1]:
        with pytest.raises(ImageError):
            read_image(ODD / name)
        return
    with read_stack(ODD / name, max_pixels=LIMIT) as stack:
        np.testing.assert_array_equal(read_image(ODD / name).pixels, stack.pixels)


def test_the_unnamed_series_is_read_once_it_is_named():
    """axes= names what the file does not, and the remedy says so."""
    path = ODD / "timelapse_5x100x64_uint16_noaxes.tif"
    with pytest.raises(ImageError, match='axes="ZYX"'):
        read_stack(path, max_pixels=LIMIT)
    with read_stack(path, max_pixels=LIMIT, axes="TYX") as stack:
        assert (stack.axes, stack.shape) == ("TYX", (5, 100, 64))
        assert [plane.index["T"] for plane in stack.planes()] == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(stack.pixels, tifffile.imread(path))


def test_facts_of_the_odd_files():
    """Pixel size, z-step and the dialect of MRC that counts in micrometres."""
    with read_stack(ODD / "ome_ZYX_uint16_with_pixelsize.ome.tif", max_pixels=LIMIT) as stack:
        assert (stack.pixel_size_um, stack.z_step_um) == ((0.1, 0.1), 0.5)
    with read_stack(ODD / "biosr_microtubules_uint16.mrc", max_pixels=LIMIT) as stack:
        assert stack.pixel_size_um == pytest.approx((0.0313, 0.0313))
        assert stack.z_step_um is None
