"""From the bytes of a TIFF to the bytes of an OME-TIFF."""

from __future__ import annotations

import hashlib
import io
import tempfile

import numpy as np
import pytest
import tifffile
from service_world import acquired, tiff_bytes

from cvdm.errors import ImageError
from cvdm.images import read_annotations
from cvdm.posterior import reconstruct
from cvdm.sight import Sight
from service.errors import ParameterError
from service.inference import check_image, restore
from service.loading import Resident, Version
from service.schema import Order

PIXELS = 2**20


@pytest.fixture
def resident(tiny_checkpoint):
    return Resident(Version("test-cells", 7, "r" * 32, ("champion",)), tiny_checkpoint)


def run(resident, image, order=None, progress=lambda done, total: None, strict=False):
    return restore(resident, io.BytesIO(image), order or Order(), PIXELS, strict, progress)


def test_channels_are_what_the_model_gives(resident):
    """Four named float32 channels equal a direct call, and lower <= reconstruction <= upper."""
    image = acquired(40)
    answer = run(resident, image)
    direct = reconstruct(resident.checkpoint, tifffile.imread(io.BytesIO(image)).astype(np.float32))
    with tifffile.TiffFile(io.BytesIO(answer.file.read())) as tif:
        channels = tif.asarray()
        for name in ("reconstruction", "uncertainty_std", "lower", "upper"):
            assert f'Name="{name}"' in tif.ome_metadata
    assert channels.dtype == np.float32
    np.testing.assert_array_equal(channels, [direct.mean, direct.std, direct.lower, direct.upper])
    assert (channels[2] <= channels[0]).all() and (channels[0] <= channels[3]).all()


def test_a_map_is_one_more_channel(resident):
    """The schedule map as the model gives it; a residual only where the model knows its optics."""
    image = acquired(40)
    answer = run(resident, image, Order(maps=("schedule_map",)))
    direct = reconstruct(resident.checkpoint, tifffile.imread(io.BytesIO(image)).astype(np.float32))
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(answer.file.read()))[4], direct.schedule_map)
    assert answer.headers()["x-cvdm-maps"] == "schedule_map"
    with pytest.raises(ParameterError, match="forward model"):
        run(resident, image, Order(maps=("residual",)))


def test_doubts_are_told_or_refused(resident):
    """In the headers, in ASCII; where the operator says so, instead of a result."""
    image = tiff_bytes(np.full((40, 40), 9, np.uint8), resolution=(5e4, 5e4), resolutionunit="CENTIMETER")
    answer = run(resident, image)
    told = answer.headers()["x-cvdm-warnings"]
    assert "pixels of 0.2" in told and "9 everywhere" in told and told.isascii()
    assert "x-cvdm-warnings" not in run(resident, acquired(40)).headers()
    with pytest.raises(ImageError, match="pixels of about"):
        run(resident, image, strict=True)


def test_provenance_is_in_the_file_and_in_the_headers(resident):
    """Both tell version, run, data, commit, sampling and the checksum of the upload."""
    image = acquired(32)
    answer = run(resident, image, Order(seed=5, samples=3))
    told = read_annotations(io.BytesIO(answer.file.read()))
    assert told == answer.provenance.annotations()
    assert told["version"] == "7" and told["seed"] == "5" and told["samples"] == "3" and told["steps"] == "2"
    assert told["input_sha256"] == hashlib.sha256(image).hexdigest()
    assert told["git_commit"] == "0" * 40
    headers = answer.provenance.headers()
    assert headers["x-cvdm-model"] == "cvdm-test-cells"
    assert headers["x-cvdm-run-id"] == "r" * 32
    assert headers["x-cvdm-dataset-digest"] == "d" * 64


def test_an_interval_for_other_sampling_is_marked_as_uncalibrated(resident):
    """Other samples or steps than the calibration's are told in file and headers; another seed is not."""
    orders = {Order(): "true", Order(seed=5): "true", Order(samples=3): "false", Order(steps=3): "false"}
    for order, calibrated in orders.items():
        answer = run(resident, acquired(32), order)
        assert read_annotations(io.BytesIO(answer.file.read()))["interval_calibrated"] == calibrated
        assert answer.provenance.headers()["x-cvdm-interval-calibrated"] == calibrated


def test_the_same_order_gives_the_same_bytes(resident):
    """Twice the same request, twice the same file; another seed, other pixels."""
    image = acquired(32)
    first, again, other = run(resident, image), run(resident, image), run(resident, image, Order(seed=1))
    assert first.file.read() == again.file.read()
    first.file.seek(0)
    assert first.file.read() != other.file.read()


@pytest.mark.parametrize("spool", [0, 10**6], ids=["on disk", "in memory"])
def test_spooled_uploads_are_read_wherever_they_lie(resident, spool):
    """A spooled file has no usable name; it is read from memory and from disk alike."""
    with tempfile.SpooledTemporaryFile(max_size=spool or 1) as file:
        file.write(acquired(32))
        check_image(file, Sight(), PIXELS)
        assert (
            restore(resident, file, Order(), PIXELS, False, lambda done, total: None).size > 4 * 4 * 32 * 32
        )


def test_the_pixel_size_is_kept(resident):
    """The reply states the input's pixel size."""
    image = tiff_bytes(
        np.zeros((32, 48), np.uint16), ome=True, metadata={"PhysicalSizeX": 0.0313, "PhysicalSizeY": 0.0313}
    )
    with tifffile.TiffFile(io.BytesIO(run(resident, image).file.read())) as tif:
        assert 'PhysicalSizeX="0.0313"' in tif.ome_metadata
        assert tif.series[0].shape == (4, 32, 48)


def test_too_many_pixels_are_refused_from_the_header(resident):
    """The bound holds for decoded pixels, however well they compress."""
    bomb = tiff_bytes(np.zeros((4096, 4096), np.uint8), compression="zlib")
    assert len(bomb) < 2**17
    with pytest.raises(ImageError, match="pixels"):
        check_image(io.BytesIO(bomb), Sight(), PIXELS)


def test_an_exception_in_progress_cancels(resident):
    """Whoever raises in `progress` ends the work with that exception."""

    def progress(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(resident, acquired(32), progress=progress)
