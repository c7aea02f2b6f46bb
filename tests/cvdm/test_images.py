"""Reading odd files, pixel sizes, and writing OME-TIFF."""

from __future__ import annotations

import errno
import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cvdm.errors import ImageError, StorageError
from cvdm.images import read_annotations, read_image, write_ome_tiff, write_tiff

ODD = Path(__file__).parents[1] / "data" / "odd"
READABLE = {
    "allzero_uint16.tif": ("uint16", 65535, (0, 0)),
    "bigendian_uint16.tif": ("uint16", 65535, (86, 549)),
    "bigtiff_uint16.tif": ("uint16", 65535, (86, 549)),
    "bool_1bit.tif": ("bool", 1, (0, 1)),
    "float64_01range.tif": ("float64", None, None),
    "int16_negative_background.tif": ("int16", 32767, None),
    "nonsquare_odd_imagej_uint8.tif": ("uint8", 255, None),
    "saturated_uint8.tif": ("uint8", 255, (None, 255)),
    "tiny_31x17_uint16.tif": ("uint16", 65535, None),
}
REFUSED = {
    "biosr_microtubules_uint16.mrc": "an MRC file",
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
    if name != "bool_1bit.tif":  # stored 0-is-white
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


def test_ome_tiff_round_trip(tmp_path):
    """Channels, names, pixel size and annotations come back; the same content gives the same bytes."""
    channels = {"mean": np.random.rand(7, 9), "std": np.ones((7, 9), np.float32)}
    notes = {"version": "3", "comment": 'a < b & "c" µm\n\x00', "Description": "kept", "Value": "kept too"}
    path, memory = tmp_path / "a.ome.tif", io.BytesIO()
    write_ome_tiff(path, channels, pixel_size_um=0.0313, annotations=notes)
    write_ome_tiff(memory, channels, pixel_size_um=0.0313, annotations=notes)
    assert path.read_bytes() == memory.getvalue()
    with tifffile.TiffFile(path) as tif:
        assert tif.series[0].axes == "CYX"
        np.testing.assert_array_equal(tif.asarray(), np.stack(list(channels.values())).astype(np.float32))
        description = tifffile.xml2dict(tif.ome_metadata)["OME"]
    pixels = description["Image"]["Pixels"]
    assert [channel["Name"] for channel in pixels["Channel"]] == ["mean", "std"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (0.0313, "µm")
    assert read_annotations(path) == notes | {"comment": 'a < b & "c" µm\n\ufffd'}
    assert list(tmp_path.iterdir()) == [path]


def test_a_single_channel_is_read_back_with_its_pixel_size(tmp_path):
    """What we write we can read; without a pixel size none is invented."""
    for size in (0.1, None):
        write_ome_tiff(tmp_path / "a.tif", {"x": np.eye(4)}, pixel_size_um=size, annotations={})
        image = read_image(tmp_path / "a.tif")
        np.testing.assert_array_equal(image.pixels, np.eye(4))
        assert image.pixel_size_um == size
    assert read_annotations(tmp_path / "a.tif") == {}


def test_plain_tiff_keeps_type_and_bytes(tmp_path):
    """write_tiff is lossless and repeatable."""
    pixels = np.arange(20, dtype=np.uint16).reshape(4, 5)
    write_tiff(tmp_path / "new" / "a.tif", pixels, pixel_size_um=0.5)
    first = (tmp_path / "new" / "a.tif").read_bytes()
    write_tiff(tmp_path / "new" / "a.tif", pixels, pixel_size_um=0.5)
    assert (tmp_path / "new" / "a.tif").read_bytes() == first
    image = read_image(tmp_path / "new" / "a.tif")
    assert (image.dtype, image.pixel_size_um) == ("uint16", 0.5)
    np.testing.assert_array_equal(image.pixels, pixels)


class FullDisk(io.RawIOBase):
    """A file on a disk without room: the first large write fails."""

    def writable(self):
        return True

    def seekable(self):
        return True

    def seek(self, *_):
        return 0

    def tell(self):
        return 0

    def write(self, _):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_named(tmp_path):
    """A failed write says that the disk is full."""
    with pytest.raises(StorageError, match="No space left") as caught:
        write_ome_tiff(FullDisk(), {"x": np.eye(4)}, pixel_size_um=None, annotations={})
    assert "Free some disk space" in caught.value.remedy


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    """A folder that cannot be made is a StorageError; an interrupted write keeps the older file whole."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError):
        write_tiff(tmp_path / "file" / "a.tif", np.eye(4))
    write_tiff(tmp_path / "a.tif", np.eye(4))
    before = (tmp_path / "a.tif").read_bytes()
    with pytest.raises(struct.error):
        write_tiff(tmp_path / "a.tif", Interrupted())
    assert (tmp_path / "a.tif").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "file"]


class Interrupted:
    """Pixels whose reading fails half-way through a write."""

    ndim = 2

    def __array__(self, *_, **__):
        raise struct.error("interrupted")
