"""The service with models that see several channels, or answer on a finer grid."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from service_world import tiff_bytes
from sighted import NAMES
from specimens import TINY_RECIPE, cells, make_checkpoint

from cvdm.checkpoint import load_checkpoint, save_checkpoint
from cvdm.images import read_image
from cvdm.normalisation import Normalisation
from cvdm.posterior import reconstruct
from cvdm.reading import read_stack
from cvdm.sight import Sight
from cvdm.upsampling import Upsampled
from service.loading import Resident, Version

from .test_jobs import FakeResidents, Service

SIGHT = Sight(NAMES, "actin", factor=2)
FACTS = {f"PhysicalSize{axis}": 0.1 for axis in "XY"} | {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A checkpoint of two channels and a factor of two."""
    own = Normalisation("dataset", 0.0, 200.0)
    made = replace(
        make_checkpoint(recipe=TINY_RECIPE.seeing(SIGHT)), normalisation=replace(own, others=(own,))
    )
    directory = tmp_path_factory.mktemp("model") / "checkpoint"
    save_checkpoint(directory, made, np.stack([cells(np.random.default_rng(n), 24) for n in (7, 8)]))
    return directory


@pytest.fixture
def service(directory, tmp_path):
    resident = Resident(Version("test-cells", 1, "r" * 32, ("champion",)), load_checkpoint(directory))
    with Service(FakeResidents(resident), tmp_path / "jobs") as running:
        yield running


@pytest.fixture
def image():
    return np.stack([np.round(cells(np.random.default_rng(n), 40)[:32]) for n in (1, 2)]).astype(np.uint16)


def as_file(pixels, axes="CYX", names=NAMES):
    return tiff_bytes(pixels, ome=True, metadata={"axes": axes, "Channel": {"Name": list(names)}, **FACTS})


def test_one_request_restores_one_of_two_channels_on_the_finer_grid(service, image, directory):
    """The channels of every answer, of twice the size and half the pixel size; as the model gives them."""
    reply = service.client.post("/reconstruct", files={"image": as_file(image)})
    assert reply.status_code == 200, reply.text
    with read_stack(io.BytesIO(reply.content), max_pixels=10**6) as stack:
        assert (stack.axes, stack.shape) == ("CYX", (4, 64, 80))
        assert stack.pixel_size_um == pytest.approx((0.05, 0.05))
        assert stack.channel_names == ("reconstruction", "uncertainty_std", "lower", "upper")
        answer = stack.pixels
    direct = reconstruct(load_checkpoint(directory), image.astype(np.float32))
    np.testing.assert_array_equal(answer, [direct.mean, direct.std, direct.lower, direct.upper])
    turned = service.client.post("/reconstruct", files={"image": as_file(image[::-1], names=NAMES[::-1])})
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(turned.content)), answer)


@pytest.mark.parametrize("path", ["/reconstruct", "/jobs"])
def test_other_channels_are_refused_at_once(service, image, path):
    """One plane, or channels of other names; with those that the model sees."""
    for content in (as_file(image[0], "YX", ("dapi",)), as_file(image, names=("dapi", "tubulin"))):
        reply = service.client.post(path, files={"image": content})
        assert reply.status_code == 422 and "dapi, actin" in reply.json()["expected"], reply.text
        assert "Save exactly these channels" in reply.json()["remedy"]
    assert service.client.get("/jobs").json()["jobs"] == []


def test_a_stack_is_a_job_and_is_seen_on_the_results_grid(service, image):
    """Planes along z of both channels; the viewer shows input and result in the same place."""
    stack = np.stack([image, np.roll(image, 3, axis=2)])
    assert service.client.post("/reconstruct", files={"image": as_file(stack, "ZCYX")}).status_code == 422
    reply = service.enter(as_file(stack, "ZCYX"), samples="2", steps="2")
    assert reply.status_code == 202, reply.text
    assert reply.json()["estimate"]["disk_mib"] > 0
    id = reply.json()["id"]
    assert service.wait_for(id, "done", "failed")["state"] == "done"
    path = f"/jobs/{id}/images/0"
    result = tifffile.imread(io.BytesIO(service.client.get(f"{path}/result").content))
    assert result.shape == (2, 4, 64, 80)
    view = service.client.get(f"{path}/view").json()
    assert (view["height"], view["width"], view["z"], view["channels"]) == (64, 80, 2, list(NAMES))
    assert view["pixel_size_um"] == {"y": pytest.approx(0.05), "x": pytest.approx(0.05)}
    for channel in range(2):
        at = {"z": 1, "c": channel}
        seen = np.asarray(Upsampled(stack[1, channel], 2)[:, :])
        np.testing.assert_array_equal(tile(service, path, layer="input", **at), seen)
        np.testing.assert_array_equal(tile(service, path, layer="upper", **at), result[1, 3])


def test_the_golden_pair_is_replayed_over_http(service, directory):
    """As a version is rehearsed: the file as it is, and the model's own answer."""
    golden = directory / "golden"
    asked = json.loads((golden / "golden.json").read_text())["sampling"]
    fields = {name: str(asked[name]) for name in ("samples", "steps", "seed")}
    with (golden / "input.tif").open("rb") as file:
        reply = service.client.post("/reconstruct", files={"image": file}, data=fields)
    assert reply.status_code == 200, reply.text
    answer = tifffile.imread(io.BytesIO(reply.content))
    for channel, name in enumerate(("mean", "std")):
        np.testing.assert_allclose(answer[channel], read_image(golden / f"{name}.tif").pixels, atol=1e-3)


def tile(service, path, **wanted):
    reply = service.client.get(f"{path}/tile", params=wanted)
    assert reply.status_code == 200, reply.text
    shape = int(reply.headers["x-cvdm-height"]), int(reply.headers["x-cvdm-width"])
    return np.frombuffer(reply.content, "<f4").reshape(shape)
