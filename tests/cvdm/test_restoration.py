"""An image file restored through files: the same result as in memory, taken up again, nothing left over."""

from dataclasses import replace

import numpy as np
import pytest
import tifffile
from specimens import cells, make_checkpoint

from cvdm import restoration
from cvdm.config import SamplingConfig
from cvdm.errors import ImageError, StorageError
from cvdm.images import read_annotations
from cvdm.optics import ForwardModel, residual_map
from cvdm.posterior import maps_of, posterior_of, reconstruct
from cvdm.reading import read_stack
from cvdm.restoration import evaluations_of, restore_file

SAMPLING = SamplingConfig(samples=2, steps=2, seed=4, tile=32)
SHAPE = (130, 90)

OPTICS = ForwardModel(psf_sigma_px=1.5, photons=80, full_scale=200, read_noise=1.5, offset=100, seed=0)


@pytest.fixture(scope="module")
def checkpoint():
    return make_checkpoint()


@pytest.fixture
def pixels():
    return cells(np.random.default_rng(0), 130)[:, :90].astype(np.uint16)


@pytest.fixture
def source(tmp_path, pixels):
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels, resolution=(1e5, 1e5), resolutionunit="CENTIMETER")
    return path


@pytest.fixture
def through_files(monkeypatch):
    """As if an image of any size were too large for memory."""
    monkeypatch.setattr(restoration, "PIXELS_IN_MEMORY", 0)


def restore(checkpoint, source, target, **changes):
    return restore_file(
        checkpoint, source, target, replace(SAMPLING, **changes), annotations={"made": "here"}
    )


FORMS = {
    "plain": {},
    "in tiles, compressed": {"tile": (32, 48), "compression": "zlib", "predictor": True},
    "in strips, compressed": {"rowsperstrip": 7, "compression": "lzw"},
    "0 is white": {"photometric": "miniswhite"},
    "big-endian": {"byteorder": ">"},
    "as ImageJ writes it": {"imagej": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_through_files_the_result_is_the_same_to_the_byte(checkpoint, pixels, tmp_path, monkeypatch, form):
    """Whatever the input's form, band by band and with bands that do not fit the image."""
    source, held, mapped = tmp_path / "image.tif", tmp_path / "held.tif", tmp_path / "mapped.ome.tif"
    tifffile.imwrite(source, 65535 - pixels if "white" in form else pixels, **FORMS[form])
    restore(checkpoint, source, held)
    monkeypatch.setattr(restoration, "PIXELS_IN_MEMORY", 0)
    monkeypatch.setattr("cvdm.region.BAND_PIXELS", 1000)
    restore(checkpoint, source, mapped)
    assert mapped.read_bytes() == held.read_bytes()
    assert np.ptp(tifffile.imread(mapped)) > 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["held.tif", "image.tif", "mapped.ome.tif"]


def test_the_result_tells_what_it_is(checkpoint, source, tmp_path, through_files):
    """Channels, pixel size and annotations, as of a small image."""
    restore(checkpoint, source, tmp_path / "out.ome.tif")
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as tif:
        assert tif.series[0].shape == (4, *SHAPE) and tif.series[0].axes == "CYX"
        assert 'PhysicalSizeX="0.1"' in tif.ome_metadata
    assert read_annotations(tmp_path / "out.ome.tif") == {"made": "here"}


class Ended(Exception):
    """The end of a process."""


def test_an_attempt_that_ended_is_taken_up(checkpoint, source, tmp_path, through_files):
    """The second one does what the first has left, and no more than two strips again."""
    target, done = tmp_path / "out.tif", []

    def report(until):
        def progress(at, total):
            done.append(at)
            if at >= until * total:
                raise Ended

        return progress

    with pytest.raises(Ended):
        restore_file(checkpoint, source, target, SAMPLING, annotations={}, progress=report(0.6))
    assert not target.exists() and (tmp_path / ".out.tif.cvdm").is_dir()
    first = len(done)
    restore_file(checkpoint, source, target, SAMPLING, annotations={}, progress=report(2))
    undisturbed = tmp_path / "undisturbed.tif"
    restore_file(checkpoint, source, undisturbed, SAMPLING, annotations={})
    assert target.read_bytes() == undisturbed.read_bytes()
    assert done[first] > done[first - 1] - 8 and not (tmp_path / ".out.tif.cvdm").exists()


@pytest.mark.parametrize("change", ["image", "model", "seed"])
def test_another_request_for_the_same_result_begins_anew(
    checkpoint, source, pixels, tmp_path, through_files, change
):
    """What an earlier attempt left is not mixed into it."""
    target = tmp_path / "out.tif"

    def end(done, total):
        if done > total / 2:
            raise Ended

    with pytest.raises(Ended):
        restore_file(checkpoint, source, target, SAMPLING, annotations={}, progress=end)
    if change == "image":
        tifffile.imwrite(source, pixels[::-1])
    model = make_checkpoint(seed=5) if change == "model" else checkpoint
    seed = 9 if change == "seed" else 4
    restore(model, source, target, seed=seed)
    restore(model, source, tmp_path / "new.tif", seed=seed)
    assert np.array_equal(tifffile.imread(target), tifffile.imread(tmp_path / "new.tif"))


def test_too_small_a_disk_is_said_at_once(checkpoint, source, tmp_path, through_files, monkeypatch):
    """With what is needed and what is there."""
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(StorageError, match="GiB of disk space"):
        restore(checkpoint, source, tmp_path / "out.tif")
    assert not (tmp_path / "out.tif").exists()


def test_an_image_that_cannot_be_restored_leaves_nothing(checkpoint, pixels, tmp_path, through_files):
    """NaN in the last row, and intensities that the model never saw."""
    source, broken = tmp_path / "image.tif", pixels.astype(np.float32)
    broken[-1, 5] = np.nan
    for content, message in ((broken, "finite"), (pixels.astype(np.float32) * 257, "mostly 0 to 200")):
        tifffile.imwrite(source, content)
        with pytest.raises(ImageError, match=message):
            restore(checkpoint, source, tmp_path / "out.tif")
        assert [file.name for file in tmp_path.iterdir()] == ["image.tif"]


def test_a_result_never_replaces_its_input(checkpoint, source):
    """Not even under another name of the same file."""
    with pytest.raises(ImageError, match="other than the input"):
        restore(checkpoint, source, source.parent / "." / source.name)


def test_doubts_come_back_with_the_result(checkpoint, tmp_path, pixels, monkeypatch):
    """Planted: an image twice as bright as the model knows, and a stack with two such planes, told once."""
    bright = (pixels * (400 / np.percentile(pixels, 99.8))).astype(np.uint16)
    image, stack = tmp_path / "bright.tif", tmp_path / "stack.ome.tif"
    tifffile.imwrite(image, bright)
    tifffile.imwrite(stack, np.stack([pixels, bright, bright]), metadata={"axes": "ZYX"})
    for source, memory in ((image, 2**20), (image, 0), (stack, 2**20)):
        monkeypatch.setattr(restoration, "PIXELS_IN_MEMORY", memory)
        (doubt,) = restore(checkpoint, source, tmp_path / "out.ome.tif")
        assert doubt.actual.startswith(source.name) and "mostly 0 to 200" in doubt.expected
    tifffile.imwrite(image, pixels)
    assert restore(checkpoint, image, tmp_path / "out.ome.tif") == ()


@pytest.fixture
def stack(tmp_path, pixels):
    """Two channels of three z-planes, and the file's facts."""
    path = tmp_path / "stack.ome.tif"
    rng = np.random.default_rng(1)
    planes = rng.poisson(pixels[None, None, :40, :48], (2, 3, 40, 48)).astype(np.uint16)
    facts = {
        "axes": "CZYX",
        "Channel": [{"Name": "nuclei", "EmissionWavelength": 461.0}, {"Name": "actin"}],
        "PhysicalSizeX": 0.1,
        "PhysicalSizeY": 0.1,
        "PhysicalSizeZ": 0.3,
        "AcquisitionDate": "2024-03-01T10:20:30",
    }
    tifffile.imwrite(path, planes, metadata=facts, ome=True)
    return path


def test_a_stack_is_restored_plane_by_plane(checkpoint, stack, tmp_path):
    """Each as it would be alone with its seed, at its place among the axes; the file's facts are kept."""
    target, done = tmp_path / "out.ome.tif", []
    restore_file(
        checkpoint,
        stack,
        target,
        SAMPLING,
        annotations={"made": "here"},
        progress=lambda at, total: done.append((at, total)),
    )
    with read_stack(target, max_pixels=10**6) as result:
        assert (result.axes, result.shape) == ("ZCYX", (3, 8, 40, 48))
        maps = "reconstruction", "uncertainty_std", "lower", "upper"
        assert result.channel_names == tuple(
            f"{name} {kind}" for name in ("nuclei", "actin") for kind in maps
        )
        assert (result.pixel_size_um, result.z_step_um) == ((0.1, 0.1), 0.3)
        assert result.emission_nm == (461.0,) * 4 + (None,) * 4
        assert result.acquired == "2024-03-01T10:20:30"
        found = result.pixels
    for position, plane in enumerate(tifffile.imread(stack).reshape(6, 40, 48)):
        alone = reconstruct(checkpoint, plane, sampling=replace(SAMPLING, seed=4 + position))
        channel, z = divmod(position, 3)
        np.testing.assert_array_equal(found[z, 4 * channel], alone.mean)
        np.testing.assert_array_equal(found[z, 4 * channel + 3], alone.upper)
    with read_stack(stack, max_pixels=10**6) as opened:
        assert done == [(at, evaluations_of(checkpoint, opened, SAMPLING)) for at in range(1, len(done) + 1)]
    assert done[-1][0] == done[-1][1] and not (tmp_path / ".out.ome.tif.cvdm").exists()


def test_maps_that_are_asked_for_come_with_every_plane(stack, tmp_path):
    """Behind the channels of every result, each what the plane alone has."""
    plain = make_checkpoint()
    checkpoint = replace(plain, record=replace(plain.record, forward_model=OPTICS))
    assert maps_of(plain) == ("schedule_map",) and maps_of(checkpoint) == ("schedule_map", "residual")
    target = tmp_path / "out.ome.tif"
    restore_file(checkpoint, stack, target, SAMPLING, annotations={}, maps=maps_of(checkpoint))
    with read_stack(target, max_pixels=10**6) as result:
        assert result.channel_names[4:6] == ("nuclei schedule_map", "nuclei residual")
        assert result.emission_nm == (461.0,) * 6 + (None,) * 6
        found = result.pixels
    for position, plane in enumerate(tifffile.imread(stack).reshape(6, 40, 48)):
        alone = reconstruct(checkpoint, plane, sampling=replace(SAMPLING, seed=4 + position))
        channel, z = divmod(position, 3)
        np.testing.assert_array_equal(found[z, 6 * channel], alone.mean)
        np.testing.assert_array_equal(found[z, 6 * channel + 4], alone.schedule_map)
        residual = residual_map(alone.mean, plane, OPTICS)
        np.testing.assert_allclose(found[z, 6 * channel + 5], residual, rtol=1e-3, atol=1e-3)


def test_a_residual_does_not_show_where_it_was_cut(pixels, tmp_path, monkeypatch, through_files):
    """Worked out in bands of a few rows it is the residual of the whole image."""
    plain = make_checkpoint()
    checkpoint = replace(plain, record=replace(plain.record, forward_model=OPTICS))
    posterior = posterior_of(checkpoint, pixels, sampling=SAMPLING)
    residual = posterior.channels(["residual"])["residual"]
    whole = residual[0:130, 0:90]
    parts = [residual[top : top + 13, 0:90] for top in range(0, 130, 13)]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)
    np.testing.assert_allclose(residual[50:60, 20:40], whole[50:60, 20:40], atol=1e-5)


def test_planes_of_another_calibration_are_not_taken_up(checkpoint, stack, tmp_path):
    """A model calibrated anew while a stack was half restored: all of its planes have the new bounds."""
    target = tmp_path / "out.tif"

    def end(now, total):
        if now >= 0.5 * total:
            raise Ended

    with pytest.raises(Ended):
        restore_file(checkpoint, stack, target, SAMPLING, annotations={}, progress=end)
    wider = replace(checkpoint, calibration=replace(checkpoint.calibration, quantile=9.0))
    restore(wider, stack, target)
    restore(wider, stack, tmp_path / "new.tif")
    np.testing.assert_array_equal(tifffile.imread(target), tifffile.imread(tmp_path / "new.tif"))


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_a_stack_that_was_begun_is_taken_up(checkpoint, stack, tmp_path, at):
    """Planes that are restored are not restored again, and the result is the same to the byte."""
    target, done = tmp_path / "out.tif", []

    def end(now, total):
        done.append(now)
        if now >= at * total:
            raise Ended

    with pytest.raises(Ended):
        restore_file(checkpoint, stack, target, SAMPLING, annotations={}, progress=end)
    before, again = done[-1], []
    progress = lambda now, total: again.append(now)  # noqa: E731
    restore_file(checkpoint, stack, target, SAMPLING, annotations={}, progress=progress)
    assert again[0] > before - 8
    restore(checkpoint, stack, tmp_path / "undisturbed.tif")
    undisturbed = tifffile.imread(tmp_path / "undisturbed.tif")
    np.testing.assert_array_equal(tifffile.imread(target), undisturbed)


def test_the_plane_at_fault_is_named(checkpoint, stack, tmp_path):
    """By its place along the axes."""
    planes = tifffile.imread(stack).astype(np.float32)
    planes[1, 2] *= 257
    tifffile.imwrite(tmp_path / "bad.ome.tif", planes, metadata={"axes": "CZYX"}, ome=True)
    with pytest.raises(ImageError, match="at C=1, Z=2: an image of"):
        restore(checkpoint, tmp_path / "bad.ome.tif", tmp_path / "out.tif")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.ome.tif", "stack.ome.tif"]
