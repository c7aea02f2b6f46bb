"""MRC: modes, byte orders, sizes, axes and damage, from headers built word by word."""

from __future__ import annotations

import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cvdm.errors import ImageError
from cvdm.reading import read_stack

ODD = Path(__file__).parents[2] / "data" / "odd"
REAL = tifffile.imread(ODD / "timelapse_5x100x64_uint16_noaxes.tif")[:3]  # (3, 100, 64) uint16
LIMIT = 10**6


def mrc(pixels, *, mode, order="<", volume=1, extended=b"", stamp=True, **words):
    """The bytes of an MRC file; `words` overwrite header words, counted from 1: w4=3 is mode 3."""
    sections, rows, columns = pixels.shape
    header = bytearray(1024)
    struct.pack_into(
        f"{order}10i", header, 0, columns, rows, sections, mode, 0, 0, 0, columns, rows, sections
    )
    struct.pack_into(f"{order}6f", header, 40, columns * 650, rows * 700, sections * 3000, 90, 90, 90)
    struct.pack_into(f"{order}3i", header, 64, 1, 2, 3)
    struct.pack_into(f"{order}2i", header, 88, volume, len(extended))
    header[208:212] = b"MAP "
    if stamp:
        header[212:216] = b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0"
    for word, value in words.items():
        struct.pack_into(f"{order}i", header, 4 * int(word[1:]) - 4, value)
    return bytes(header) + extended + pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()


def opened(data, **options):
    return read_stack(io.BytesIO(data), **{"max_pixels": LIMIT} | options)


@pytest.mark.parametrize(("mode", "dtype"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("stamp", [True, False])
def test_every_mode_in_both_byte_orders(mode, dtype, order, stamp):
    """Values, type and voxel size (65 x 70 x 300 nm) are the file's, with or without a machine stamp."""
    pixels = (REAL % 120).astype(dtype)
    with opened(mrc(pixels, mode=mode, order=order, stamp=stamp, extended=b"x" * 80)) as stack:
        assert (stack.axes, stack.shape, stack.format) == ("ZYX", pixels.shape, "MRC")
        assert stack.dtype == np.dtype(dtype).name
        assert (*stack.pixel_size_um, stack.z_step_um) == pytest.approx((0.07, 0.065, 0.3))
        np.testing.assert_array_equal(stack.pixels, pixels.astype(np.float32))


def test_a_series_of_images_has_no_named_axis():
    """Without the mark of a volume the sections may be anything; the caller can say what."""
    data = mrc(REAL, mode=6, volume=0)
    with pytest.raises(ImageError, match="3 planes of an unnamed axis"):
        opened(data)
    with opened(data, axes="TYX") as stack:
        assert (stack.axes, stack.z_step_um) == ("TYX", None)
        np.testing.assert_array_equal(stack.pixels, REAL)


@pytest.mark.parametrize("halves", [(-16224, 0), (0, -16224)])
def test_the_dialect_of_optical_microscopes_counts_in_micrometres(halves):
    """With -16224 in the 25th word the cell holds the size of one voxel in micrometres."""
    data = bytearray(mrc(REAL, mode=6))
    struct.pack_into("<2h", data, 96, *halves)
    struct.pack_into("<3f", data, 40, 0.08, 0.09, 0.125)
    with opened(bytes(data)) as stack:
        assert (*stack.pixel_size_um, stack.z_step_um) == pytest.approx((0.09, 0.08, 0.125))


def test_no_cell_is_no_pixel_size():
    """Zeros in the header are not sizes."""
    with opened(mrc(REAL, mode=6, w8=0, w11=0)) as stack:
        assert stack.pixel_size_um is None


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({"w4": 3}, "complex int16"),
        ({"w4": 4}, "complex64"),
        ({"w4": 101}, "4-bit"),
        ({"w4": 77}, "mode 77"),
        ({"w1": 0}, "0"),
        ({"w1": -64}, "-64"),
        ({"w24": -5}, "positive sizes"),
        ({"w17": 3, "w19": 1}, "axes"),
        ({"w1": 65}, "truncated"),
        ({"w24": 64}, "truncated"),
        ({"w1": 2**30, "w2": 2**30}, "at most"),
    ],
)
def test_headers_that_lie_or_hold_something_else_are_refused(words, reason):
    """Each is named, and takes no memory for the pixels it claims."""
    tracemalloc.start()
    with pytest.raises(ImageError, match=reason):
        opened(mrc(REAL, mode=6, **words))
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_a_cut_file_is_truncated_and_a_nan_is_named():
    """Any missing byte is noticed; so is a NaN."""
    data = mrc(REAL, mode=6)
    for end in (300, 1023, 1024, 5000, len(data) - 1):
        with pytest.raises(ImageError, match="truncated"):
            opened(data[:end])
    pixels = REAL.astype(np.float32)
    pixels[1, 2, 3] = np.inf
    with pytest.raises(ImageError, match="Z=1 with 1 NaN"), opened(mrc(pixels, mode=2)) as stack:
        list(stack.planes())


def test_an_old_mrc_file_is_named(tmp_path):
    """A file called .mrc without the mark of the standard is not guessed at."""
    (tmp_path / "old.mrc").write_bytes(mrc(REAL, mode=6).replace(b"MAP ", b"    "))
    with pytest.raises(ImageError, match="without the mark"):
        read_stack(tmp_path / "old.mrc", max_pixels=LIMIT)
