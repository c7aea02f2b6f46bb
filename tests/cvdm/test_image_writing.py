"""Writing TIFF and OME-TIFF: what comes back, and what a failure leaves behind."""

from __future__ import annotations

import errno
import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from cvdm.errors import StorageError
from cvdm.images import read_annotations, read_image, write_ome_tiff, write_tiff
from cvdm.reading import Metadata, read_stack
from cvdm.reading.stack import metadata_of


def test_ome_tiff_round_trip(tmp_path):
    """Channels, names, pixel size and annotations come back; the same content gives the same bytes."""
    channels = {"mean": np.random.rand(7, 9), "std": np.ones((7, 9), np.float32)}
    notes = {"version": "3", "comment": 'a < b & "c" µm\n\x00', "Description": "kept", "Value": "kept too"}
    path, memory = tmp_path / "a.ome.tif", io.BytesIO()
    for target in (path, memory):
        write_ome_tiff(
            target, [channels], metadata=Metadata(pixel_size_um=(0.0313, 0.0313)), annotations=notes
        )
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
        metadata = Metadata(pixel_size_um=size and (size, size))
        write_ome_tiff(tmp_path / "a.tif", [{"x": np.eye(4)}], metadata=metadata, annotations={})
        image = read_image(tmp_path / "a.tif")
        np.testing.assert_array_equal(image.pixels, np.eye(4))
        assert image.pixel_size_um == size
    assert read_annotations(tmp_path / "a.tif") == {}


def test_a_stack_is_read_back_with_its_axes_and_facts(tmp_path):
    """Every plane at its place, and what the facts say in OME's words; a date that is none is left out."""
    values = np.random.default_rng(0).random((2, 3, 2, 5, 4), np.float32)
    planes = [dict(zip("ab", values[t, z], strict=True)) for t in range(2) for z in range(3)]
    facts = Metadata(
        pixel_size_um=(0.1, 0.2),
        z_step_um=0.5,
        channel_names=("a", "b"),
        emission_nm=(520.0, None),
        acquired="2024-03-01T10:20:30",
    )
    path = tmp_path / "a.ome.tif"
    write_ome_tiff(path, planes, extent={"T": 2, "Z": 3}, metadata=facts, annotations={})
    with read_stack(path, max_pixels=1000) as stack:
        assert (stack.axes, stack.shape, metadata_of(stack)) == ("TZCYX", values.shape, facts)
        np.testing.assert_array_equal(stack.pixels, values)
    write_ome_tiff(
        path, planes[:3], extent={"T": 1, "Z": 3}, metadata=replace(facts, acquired="soon"), annotations={}
    )
    with read_stack(path, max_pixels=1000) as stack:
        assert (stack.axes, stack.acquired) == ("ZCYX", None)


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
        write_ome_tiff(FullDisk(), [{"x": np.eye(4)}], metadata=Metadata(), annotations={})
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
