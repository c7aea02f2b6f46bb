"""Reading odd, hostile and ordinary files, and the pixel size they state."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cvdm.errors import ImageError
from cvdm.images import read_image

ODD = Path(__file__).parents[1] / "data" / "odd"
READABLE = {
    "allzero_uint16.tif": ("uint16", 65535, (0, 0)),
    "bigendian_uint16.tif": ("uint16", 65535, (86, 549)),
    "bigtiff_uint16.tif": ("uint16", 65535, (86, 549)),
    "biosr_microtubules_uint16.mrc": ("uint16", 65535, (86, 549)),
    "bool_1bit.tif": ("bool", 1, (0, 1)),
    "float64_01range.tif": ("float64", None, None),
    "int16_negative_background.tif": ("int16", 32767, None),
    "nonsquare_odd_imagej_uint8.tif": ("uint8", 255, None),
    "saturated_uint8.tif": ("uint8", 255, (None, 255)),
    "tiny_31x17_uint16.tif": ("uint16", 65535, None),
}
REFUSED = {
    "complex64.tif": "complex64",
    "corrupt_deflate_stream.tif": "damaged",
    "corrupt_truncated_half.tif": "truncated",
    "corrupt_truncated_pixels.tif": "truncated",
    "corrupt_zero_bytes.tif": "an empty file",
    "float32_with_nan_inf.tif": "401 NaN or infinite pixels",
    "git_lfs_pointer.tif": "git-lfs pointer",
    "multichannel_CYX_uint16_imagej.tif": "3 channels",
    "not_a_tiff_png_inside.tif": "a PNG image",
    "ome_ZYX_uint16_with_pixelsize.ome.tif": "3 z-planes",
    "rgb_lzw_256x256_uint8.tiff": "3 colour samples",
    "timelapse_5x100x64_uint16_noaxes.tif": "5 planes",
    "zstack_ZYX_uint8_imagej.tif": "5 z-planes",
    "missing.tif": "No such file",
}


def test_every_odd_file_is_expected_to_do_something():
    """No fixture lies around unused."""
    names = {path.name for path in ODD.iterdir()} - {"README.md", "miniswhite_uint8.tif"}
    assert names == (set(READABLE) | set(REFUSED)) - {"missing.tif"}


@pytest.mark.parametrize("name", READABLE)
def test_two_dimensional_files_are_read_in_their_own_units(name):
    """Byte order, container and type of number do not change the values; the full range is the type's."""
    dtype, full_range, extremes = READABLE[name]
    image = read_image(ODD / name)
    assert image.pixels.ndim == 2
    assert image.pixels.dtype == np.float32
    assert (image.dtype, image.full_range) == (dtype, full_range)
    for found, expected in zip(
        (image.pixels.min(), image.pixels.max()), extremes or (None, None), strict=True
    ):
        assert expected is None or found == expected
    if name.endswith(".mrc"):
        stored = np.fromfile(ODD / name, "<u2", offset=1024).reshape(100, 64)
        np.testing.assert_array_equal(image.pixels, stored.astype(np.float32))
    elif name != "bool_1bit.tif":  # stored 0-is-white
        np.testing.assert_array_equal(image.pixels, tifffile.imread(ODD / name).astype(np.float32))


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_by_name_with_a_remedy(name, capfd):
    """The message says what the file is, from a path as from an upload, and nothing else is printed."""
    with pytest.raises(ImageError) as caught:
        read_image(ODD / name)
    assert REFUSED[name] in caught.value.actual
    assert name in caught.value.actual
    assert caught.value.remedy
    if name != "missing.tif":
        with pytest.raises(ImageError):
            read_image(io.BytesIO((ODD / name).read_bytes()))
    assert capfd.readouterr() == ("", "")


def test_zero_is_white_is_inverted():
    """A file that stores dark as large is read with large meaning bright."""
    stored = tifffile.imread(ODD / "miniswhite_uint8.tif")
    np.testing.assert_array_equal(read_image(ODD / "miniswhite_uint8.tif").pixels, 255.0 - stored)


def test_singleton_axes_make_a_two_dimensional_image(tmp_path):
    """A stack of one plane, one channel and one time point is an image."""
    pixels = np.arange(12, dtype=np.uint16).reshape(1, 1, 1, 3, 4)
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, metadata={"axes": "TZCYX"})
    tifffile.imwrite(
        tmp_path / "b.ome.tif", pixels, ome=True, photometric="minisblack", metadata={"axes": "TZCYX"}
    )
    for name in ("a.tif", "b.ome.tif"):
        np.testing.assert_array_equal(read_image(tmp_path / name).pixels, pixels[0, 0, 0])


def test_a_line_of_pixels_keeps_its_two_axes(tmp_path):
    """An image one pixel high is still (1, W)."""
    tifffile.imwrite(tmp_path / "line.tif", np.arange(9, dtype=np.uint8).reshape(1, 9))
    assert read_image(tmp_path / "line.tif").pixels.shape == (1, 9)


def test_an_absurd_size_is_refused_from_the_header(tmp_path):
    """A header that claims 60000 x 60000 pixels costs no memory for them."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((16, 16), np.uint8), compression="zlib", metadata=None)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages.first.tags[name].overwrite(60_000)
    with pytest.raises(ImageError, match="60000 x 60000"):
        read_image(path)
    with pytest.raises(ImageError, match="at most 100 pixels"):
        read_image(ODD / "bool_1bit.tif", max_pixels=100)


def test_a_bomb_within_a_small_header_does_not_unpack(tmp_path):
    """A stream that unpacks to more than the header says is refused."""
    path = tmp_path / "bomb.tif"
    tifffile.imwrite(
        path, np.zeros((2000, 2000), np.uint8), compression="zlib", rowsperstrip=2000, metadata=None
    )
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages.first.tags[name].overwrite(10)
    with pytest.raises(ImageError, match="damaged"):
        read_image(path)


@pytest.mark.parametrize("name", sorted(READABLE))
def test_no_damage_raises_anything_but_an_image_error(name, tmp_path):
    """Bytes flipped or cut at random give an image or an ImageError, never another exception."""
    rng = np.random.default_rng(0)
    whole = (ODD / name).read_bytes()
    for _ in range(40):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.3 else whole)
        places = np.minimum(rng.integers(0, 400, 6), len(damaged) - 1)
        for place in places:
            damaged[place] = rng.integers(256)
        try:
            assert read_image(io.BytesIO(bytes(damaged)), max_pixels=10**6).pixels.ndim == 2
        except ImageError:
            continue


def test_lossy_compression_is_refused(tmp_path):
    """JPEG inside TIFF changes the noise: refused with its name."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((64, 64), np.uint8), compression="jpeg")
    with pytest.raises(ImageError, match="JPEG"):
        read_image(tmp_path / "a.tif")


def test_a_tinted_image_is_read_and_a_colour_palette_refused(tmp_path):
    """A look-up table that only tints intensities keeps them; one that encodes colours does not."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    green = np.zeros((3, 256), np.uint16)
    green[1] = np.arange(256) * 257
    write = {"photometric": "palette", "metadata": None}
    tifffile.imwrite(tmp_path / "green.tif", pixels, colormap=green, **write)
    tifffile.imwrite(tmp_path / "wild.tif", pixels, colormap=np.roll(green, 100, axis=1), **write)
    np.testing.assert_array_equal(read_image(tmp_path / "green.tif").pixels, pixels)
    with pytest.raises(ImageError, match="palette"):
        read_image(tmp_path / "wild.tif")


def test_references_to_other_files_are_not_followed(tmp_path):
    """An OME-TIFF that names a second file does not make the reader open it."""
    planes = np.ones((2, 8, 8), np.uint8)
    tifffile.imwrite(tmp_path / "secret.ome.tif", planes, ome=True, metadata={"axes": "ZYX"})
    with tifffile.TiffFile(tmp_path / "secret.ome.tif") as tif:
        xml = tif.ome_metadata
    identity = xml.split('UUID="')[1].split('"')[0]
    reference = f'<UUID FileName="secret.ome.tif">{identity}</UUID></TiffData>'
    forged = xml.replace('PlaneCount="2"/>', f'PlaneCount="2">{reference}').replace(
        f'UUID="{identity}"', f'UUID="urn:uuid:{"0" * 8}"', 1
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", planes[0], description=forged.encode(), metadata=None)
    assert read_image(tmp_path / "a.ome.tif").pixels.shape == (8, 8)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {
                "ome": True,
                "metadata": {"PhysicalSizeX": 65.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.065},
            },
            0.065,
        ),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.2}}, 0.2),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3}}, None),
        ({"ome": True, "metadata": {}}, None),
        ({"imagej": True, "resolution": (5, 5), "metadata": {"unit": "um"}}, 0.2),
        ({"imagej": True, "resolution": (5, 5), "metadata": {"unit": "\\u00B5m"}}, 0.2),
        ({"imagej": True, "resolution": (1000, 1000), "metadata": {"unit": "mm"}}, 1.0),
        ({"imagej": True, "resolution": (5, 5), "metadata": {"unit": "pixel"}}, None),
        ({"imagej": True}, None),
        ({"resolution": (50_000, 50_000), "resolutionunit": "CENTIMETER"}, 0.2),
        ({"resolution": (254_000, 254_000), "resolutionunit": "INCH"}, 0.1),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (1, 1), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (50_000, 50_000), "resolutionunit": "NONE"}, None),
        ({}, None),
    ],
)
def test_pixel_size_is_what_the_file_really_states(tmp_path, options, expected):
    """OME and ImageJ units are converted to micrometres; print resolutions are not pixel sizes."""
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.uint8), **options)
    assert read_image(tmp_path / "a.tif").pixel_size_um == (pytest.approx(expected) if expected else None)
