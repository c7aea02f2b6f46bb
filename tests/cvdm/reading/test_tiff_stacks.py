"""TIFF stacks: axes, compressions, types of number, damage, memory and the facts they state."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cvdm.errors import ConfigError, ImageError
from cvdm.images import read_image
from cvdm.reading import read_stack

ODD = Path(__file__).parents[2] / "data" / "odd"
REAL = tifffile.imread(ODD / "timelapse_5x100x64_uint16_noaxes.tif")  # (5, 100, 64) uint16
LIMIT = 10**6


def written(pixels, **options):
    """The bytes of a TIFF."""
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, photometric="minisblack", **options)
    return file.getvalue()


def opened(data, **options):
    return read_stack(io.BytesIO(data), **{"max_pixels": LIMIT} | options)


@pytest.mark.parametrize("order", ["TZCYX", "ZCYX", "CTYX", "TYX", "CYX", "ZYX"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_ome_axes_keep_the_order_of_the_file(order, compression):
    """Each plane stands at the index that the file gives it."""
    shape = {"T": 2, "Z": 3, "C": 4, "Y": 6, "X": 5}
    pixels = np.arange(np.prod([shape[axis] for axis in order]), dtype=np.uint16)
    pixels = pixels.reshape([shape[axis] for axis in order])
    with opened(written(pixels, ome=True, metadata={"axes": order}, compression=compression)) as stack:
        assert (stack.axes, stack.shape, stack.format) == (order, pixels.shape, "OME-TIFF")
        np.testing.assert_array_equal(stack.pixels, pixels)
        for plane in stack.planes():
            np.testing.assert_array_equal(plane.pixels, pixels[tuple(plane.index.values())])
        last = stack.plane(stack.plane_count - 1)
        assert last.index == {axis: shape[axis] - 1 for axis in order[:-2]}


def test_an_imagej_hyperstack_has_its_three_axes_and_sizes():
    """Time, z and channel of ImageJ, with y and x sizes apart, z-spacing and unit."""
    pixels = np.stack([REAL[:4].reshape(2, 2, 100, 64)] * 3)
    facts = {"axes": "TZCYX", "unit": "um", "spacing": 0.3}
    data = written(pixels, imagej=True, resolution=(10, 5), metadata=facts)
    with opened(data) as stack:
        assert (stack.axes, stack.shape, stack.format) == ("TZCYX", pixels.shape, "ImageJ TIFF")
        assert (stack.pixel_size_um, stack.z_step_um) == ((0.2, 0.1), pytest.approx(0.3))
        np.testing.assert_array_equal(stack.pixels, pixels)


@pytest.mark.parametrize("byteorder", "<>")
def test_an_imagej_stack_under_a_single_page_is_read(byteorder):
    """ImageJ writes large stacks as one page with all planes behind it; a byte too few is a truncation."""
    data = written(REAL, imagej=True, metadata={"axes": "TYX"}, byteorder=byteorder)
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        first = tif.pages.first
        start, end_of_tags = first.dataoffsets[0], first.offset + 2 + 12 * len(first.tags)
    alone = bytearray(data[: start + REAL.nbytes])
    alone[end_of_tags : end_of_tags + 4] = bytes(4)  # no next page
    with opened(bytes(alone)) as stack:
        assert (stack.axes, stack.shape) == ("TYX", REAL.shape)
        np.testing.assert_array_equal(stack.pixels, REAL)
    for short in (alone[:-1], alone[: start + REAL[0].nbytes]):
        with pytest.raises(ImageError, match="truncated"):
            opened(bytes(short))
        with pytest.raises(ImageError, match="truncated"):
            read_image(io.BytesIO(bytes(short)))


def test_a_stack_of_tifffile_under_a_single_page_is_read():
    """The same of a shape in tifffile's own description."""
    data = io.BytesIO()
    with tifffile.TiffWriter(data) as tif:
        tif.write(REAL, metadata={"axes": "TYX"}, truncate=True, photometric="minisblack")
    with opened(data.getvalue()) as stack:
        np.testing.assert_array_equal(stack.pixels, REAL)
    with pytest.raises(ImageError, match="truncated"):
        opened(data.getvalue()[:-1])


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd", "packbits"])
@pytest.mark.parametrize(
    "layout",
    [{}, {"tile": (32, 48)}, {"rowsperstrip": 7}, {"bigtiff": True}, {"byteorder": ">"}],
    ids=lambda layout: "".join(layout) or "plain",
)
def test_every_layout_and_lossless_compression_gives_the_same_pixels(compression, layout):
    """Tiles, strips, BigTIFF and big-endian numbers change nothing."""
    with opened(written(REAL, metadata={"axes": "TYX"}, compression=compression, **layout)) as stack:
        assert stack.axes == "TYX"
        np.testing.assert_array_equal(stack.pixels, REAL)


@pytest.mark.parametrize(
    ("dtype", "full_range"),
    [
        ("bool", 1),
        ("uint8", 255),
        ("uint16", 65535),
        ("uint32", 2**32 - 1),
        ("int16", 32767),
        ("float16", None),
        ("float32", None),
        ("float64", None),
    ],
)
@pytest.mark.parametrize("byteorder", "<>")
def test_every_type_of_number_is_read(dtype, full_range, byteorder):
    """The values come through as float32, and the type is told."""
    pixels = (REAL % 251).astype(dtype)
    with opened(written(pixels, metadata={"axes": "ZYX"}, byteorder=byteorder)) as stack:
        assert (stack.dtype, stack.full_range) == (dtype, full_range)
        np.testing.assert_array_equal(stack.pixels, pixels.astype(np.float32))


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True},
        {"ome": True},
        {"ome": True, "compression": "zlib"},
        {"compression": "lzw"},
        {"bigtiff": True},
        {"byteorder": ">", "tile": (32, 32)},
        {"rowsperstrip": 7},
        {"rowsperstrip": 7, "compression": "packbits"},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
@pytest.mark.parametrize("axes", [None, "TYX"])
def test_no_cut_loses_planes_in_silence(options, axes):
    """A stack cut anywhere is refused, or whole: never fewer planes, never zeros."""
    data = written(REAL[:, :40, :30], metadata={"axes": "TYX"}, **options)
    refused = 0
    for end in [*range(1, len(data), len(data) // 60), *range(len(data) - 20, len(data))]:
        try:
            with opened(data[:end], axes=axes) as stack:
                np.testing.assert_array_equal(stack.pixels, REAL[:, :40, :30])
        except ImageError:
            refused += 1
    assert refused >= 55


@pytest.mark.parametrize("options", [{"rowsperstrip": 10}, {"tile": (32, 32), "compression": "zlib"}])
def test_parts_beyond_the_end_and_empty_parts_are_not_zeros(options):
    """A strip or tile that lies outside the file, or has no bytes, is a truncation and not darkness."""
    data = written(REAL[0], metadata=None, **options)
    names = ("TileOffsets", "TileByteCounts") if "tile" in options else ("StripOffsets", "StripByteCounts")
    for name, lie in zip(names, (len(data) + 5, 0), strict=True):
        file = io.BytesIO(data)
        with tifffile.TiffFile(file, mode="r+b") as tif:
            tag = tif.pages.first.tags[name]
            tag.overwrite((*tag.value[:-1], lie))
            forged = file.getvalue()
        with pytest.raises(ImageError, match="truncated at"):
            opened(forged)


def test_a_chain_of_pages_that_bites_its_tail_is_refused():
    """Pages that lead back to an earlier one do not go round for ever."""
    data = bytearray(written(REAL, metadata={"axes": "TYX"}))
    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        last, tags = tif.pages[4].offset, len(tif.pages[4].tags)
    data[last + 2 + tags * 12 : last + 6 + tags * 12] = (8).to_bytes(4, "little")
    with pytest.raises(ImageError, match="leads back"):
        opened(bytes(data))


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}, {"compression": "zlib"}])
def test_damage_raises_nothing_but_an_image_error(options):
    """Bytes changed at random in headers and pixels give pixels or an ImageError."""
    rng = np.random.default_rng(0)
    whole = written(REAL[:, :20, :20], metadata={"axes": "TYX"}, **options)
    for _ in range(150):
        damaged = bytearray(whole)
        for place in rng.integers(0, 900, 6):
            damaged[place] = rng.integers(256)
        try:
            with opened(bytes(damaged)) as stack:
                assert stack.pixels.shape == stack.shape
        except ImageError:
            continue


def test_memory_is_bounded_by_a_plane():
    """Going through forty planes takes the memory of a few."""
    pixels = np.zeros((40, 512, 512), np.uint16)
    file = io.BytesIO(written(pixels, metadata={"axes": "TYX"}, compression="zlib"))
    with read_stack(file, max_pixels=10**8) as stack:
        tracemalloc.start()
        for plane in stack.planes():
            assert plane.pixels.shape == (512, 512)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 6 * 512 * 512 * 4


def test_an_absurd_stack_is_refused_from_the_header():
    """max_pixels counts all planes; a page that claims 60000 x 60000 costs no memory."""
    with pytest.raises(ImageError, match="at most 31999 pixels"):
        opened(written(REAL, metadata={"axes": "TYX"}), max_pixels=REAL.size - 1)
    file = io.BytesIO(written(np.zeros((16, 16), np.uint8), compression="zlib", metadata=None))
    with tifffile.TiffFile(file, mode="r+b") as tif:
        for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
            tif.pages.first.tags[name].overwrite(60_000)
        data = file.getvalue()
    tracemalloc.start()
    with pytest.raises(ImageError, match="60000 x 60000"):
        opened(data)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_nan_names_its_plane():
    """The message says in which plane the NaN is."""
    pixels = REAL.astype(np.float32)
    pixels[3, 10, 10] = np.nan
    with (
        pytest.raises(ImageError, match="T=3 with 1 NaN"),
        opened(written(pixels, metadata={"axes": "TYX"})) as stack,
    ):
        list(stack.planes())


@pytest.mark.parametrize("axes", ["YX", "ZTYX", "QYX", "ZZYX", "YXZ", "ZXY", "zyx", ""])
def test_wrong_axes_are_refused(axes):
    """Too few, too many, unknown, repeated and misplaced axes are never bent to fit."""
    with pytest.raises((ImageError, ConfigError)):
        opened(written(REAL, metadata=None), axes=axes)


def test_the_caller_cannot_rename_what_the_file_names():
    """A file that says T is not read as Z; the same axes, or also those of length one, are accepted."""
    data = written(REAL[:, None], ome=True, metadata={"axes": "TCYX"})
    with pytest.raises(ImageError, match="the axes ZYX"):
        opened(data, axes="ZYX")
    for axes in ("TYX", None):
        with opened(data, axes=axes) as stack:
            assert stack.axes == "TYX"


def test_ome_facts_are_read():
    """Sizes with their units, channels, wavelengths, aperture and date come from the OME-XML."""
    xml = """<?xml version="1.0"?>
    <OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">
      <Instrument ID="Instrument:0">
        <Objective ID="Objective:0" LensNA="0.8"/><Objective ID="Objective:1" LensNA="1.4"/>
      </Instrument>
      <Image ID="Image:0"><AcquisitionDate>2024-03-01T12:30:00</AcquisitionDate>
        <ObjectiveSettings ID="Objective:1"/>
        <Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="64" SizeY="100" SizeC="5"
          SizeZ="1" SizeT="1" PhysicalSizeX="65" PhysicalSizeXUnit="nm" PhysicalSizeY="0.07"
          PhysicalSizeZ="0.3"><Channel ID="Channel:0:0" Name="DAPI" SamplesPerPixel="1"
          ExcitationWavelength="405" EmissionWavelength="0.46" EmissionWavelengthUnit="µm"/>
          <Channel ID="Channel:0:1" Name="GFP" SamplesPerPixel="1" ExcitationWavelength="488"/>
          <Channel ID="Channel:0:2" SamplesPerPixel="1"/><Channel ID="Channel:0:3" SamplesPerPixel="1"/>
          <Channel ID="Channel:0:4" SamplesPerPixel="1"/><TiffData/></Pixels></Image></OME>"""
    with opened(written(REAL, description=xml.encode(), metadata=None)) as stack:
        assert stack.axes == "CYX"
        assert stack.pixel_size_um == pytest.approx((0.07, 0.065))
        assert stack.z_step_um == pytest.approx(0.3)
        assert stack.channel_names == ("DAPI", "GFP", "", "", "")
        assert stack.wavelengths_nm == (405.0, 488.0, None, None, None)
        assert stack.emission_nm == (460.0, None, None, None, None)
        assert stack.numerical_aperture == 1.4
        assert stack.acquired == "2024-03-01T12:30:00"


def test_a_plain_file_states_little():
    """The date of the plain tag is read; what is not there is None or empty."""
    with opened(written(REAL[0], metadata=None, datetime="2023:05:06 07:08:09")) as stack:
        assert stack.acquired == "2023-05-06T07:08:09"
        assert (stack.pixel_size_um, stack.z_step_um, stack.numerical_aperture) == (None, None, None)
        assert (stack.channel_names, stack.wavelengths_nm, stack.emission_nm) == ((), (), ())


def test_ome_planes_that_are_missing_are_not_filled_with_zeros():
    """An OME header that promises more planes than the file has is refused."""
    data = written(REAL, ome=True, metadata={"axes": "TYX"}).replace(b'SizeT="5"', b'SizeT="9"')
    with pytest.raises(ImageError):
        opened(data)


def test_several_images_in_a_file_are_refused():
    """Which of them is meant is not guessed."""
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as tif:
        tif.write(REAL[0], metadata=None)
        tif.write(REAL[0, :50], metadata=None)
    with pytest.raises(ImageError, match="2 separate images"):
        opened(file.getvalue())
