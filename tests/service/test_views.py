"""What a viewer is told: the file's own values, means that are means, planes at their place, refusals."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from service_world import tiff_bytes
from specimens import cells, noisy

from cvdm.errors import CvdmError
from cvdm.posterior import CHANNELS
from service.jobs.views import SAMPLED, TILE, Square, levels, tile_of

from .test_jobs import Service, residents  # noqa: F401 - a fixture

SHAPE = (2, 3, 40, 48)
"""Channels, z-planes, rows, columns."""


@pytest.fixture(scope="module")
def stack():
    rng = np.random.default_rng(3)
    clean = cells(rng, 48)[:40]
    return np.round(np.stack([[noisy(clean, rng) for _ in range(3)] for _ in range(2)])).astype(np.uint16)


@pytest.fixture
def service(residents, tmp_path):  # noqa: F811
    with Service(residents, tmp_path / "jobs") as running:
        yield running


@pytest.fixture
def done(service, stack):
    """The path of a restored stack."""
    facts = {
        "axes": "CZYX",
        "Channel": {"Name": ["nuclei", "actin"]},
        "PhysicalSizeX": 0.2,
        "PhysicalSizeY": 0.1,
        "PhysicalSizeZ": 0.5,
    }
    reply = service.enter(tiff_bytes(stack, ome=True, metadata=facts), samples="2", steps="2", seed="3")
    assert reply.status_code == 202, reply.text
    (image,) = reply.json()["images"]
    assert (image["axes"], image["shape"]) == ("CZYX", list(SHAPE))
    id = reply.json()["id"]
    assert service.wait_for(id, "done", "failed")["state"] == "done"
    return f"/jobs/{id}/images/0"


def values(service, path, **wanted):
    reply = service.client.get(f"{path}/tile", params=wanted)
    assert reply.status_code == 200, reply.text
    shape = int(reply.headers["x-cvdm-height"]), int(reply.headers["x-cvdm-width"])
    return np.frombuffer(reply.content, "<f4").reshape(shape)


def test_every_plane_of_every_layer_is_the_files_own(service, done, stack):
    """Input and result of a stack, by channel and z, to the bit."""
    result = tifffile.imread(io.BytesIO(service.client.get(f"{done}/result").content))
    assert result.shape == (3, 8, 40, 48)
    for channel in range(2):
        for z in range(3):
            at = {"c": channel, "z": z}
            np.testing.assert_array_equal(values(service, done, layer="input", **at), stack[channel, z])
            for number, layer in enumerate(CHANNELS):
                found = values(service, done, layer=layer, **at)
                np.testing.assert_array_equal(found, result[z, 4 * channel + number])


def test_the_layout_is_told(service, done):
    """Axes, names, sizes, and what there is to see."""
    view = service.client.get(f"{done}/view").json()
    assert (view["width"], view["height"], view["z"], view["t"]) == (48, 40, 3, 1)
    assert view["channels"] == ["nuclei", "actin"] and view["levels"] == 1 and view["tile"] == TILE
    assert (view["pixel_size_um"], view["z_step_um"]) == ({"y": 0.1, "x": 0.2}, 0.5)
    assert view["layers"] == ["input", *CHANNELS] and view["full_range"] == 65535


def test_provenance_is_that_of_the_file(service, done):
    """As the result says it itself."""
    id = done.split("/")[2]
    (made,) = service.client.get(f"/provenance/{id}").json()["images"]
    assert made["seed"] == "3" and made["samples"] == "2" and made["version"] == "1"
    assert len(made["input_sha256"]) == 64
    assert service.client.get("/provenance/none").status_code == 404


def test_a_picture_has_the_inputs_window(service, done, stack):
    """Black and white where the caller says, else at percentiles of the input, for the result too."""
    reply = service.client.get(f"{done}/preview.png", params={"layer": "input", "low": 10, "high": 110})
    assert reply.headers["content-type"] == "image/png"
    grey = imagecodecs.png_decode(reply.content)
    expected = np.round(np.clip((stack[0, 0].astype(float) - 10) / 100, 0, 1) * 255)
    assert np.abs(grey - expected).max() <= 1
    before, after, spread = (
        imagecodecs.png_decode(service.client.get(f"{done}/preview.png", params={"layer": layer}).content)
        for layer in ("input", "reconstruction", "uncertainty_std")
    )
    assert before.min() == spread.min() == 0 and before.max() == spread.max() == 255
    assert after.shape == (40, 48)


@pytest.mark.parametrize(
    ("path", "wanted", "said"),
    [
        ("tile", {"layer": "nonsense"}, "a layer out of"),
        ("tile", {"z": 3}, "z from 0 to 2"),
        ("tile", {"t": 1}, "t from 0 to 0"),
        ("tile", {"level": 1}, "a level from 0 to 0"),
        ("tile", {"row": 1}, "a tile within 1 rows"),
        ("tile", {"row": -1}, "row to be a whole number"),
        ("tile", {"column": "1e9"}, "column to be a whole number"),
        ("preview.png", {"low": 3, "high": 3}, "low the smaller one"),
        ("preview.png", {"low": "nan", "high": 4}, "two numbers"),
        ("preview.png", {"high": 4}, "two numbers"),
    ],
)
def test_what_is_not_there_is_refused(service, done, path, wanted, said):
    """With what there is."""
    reply = service.client.get(f"{done}/{path}", params=wanted)
    assert reply.status_code == 422 and said in reply.json()["expected"]


def test_maps_that_were_asked_for_are_layers_too(service, stack):
    """Named in the job and in the layout, and their tiles are the result's own channels."""
    reply = service.enter(tiff_bytes(stack[0, 0]), samples="2", steps="2", maps="schedule_map")
    assert reply.status_code == 202, reply.text
    assert reply.json()["maps"] == ["schedule_map"]
    path = f"/jobs/{reply.json()['id']}/images/0"
    assert service.wait_for(reply.json()["id"], "done", "failed")["state"] == "done"
    assert service.client.get(f"{path}/view").json()["layers"] == ["input", *CHANNELS, "schedule_map"]
    result = service.client.get(f"{path}/result")
    assert result.headers["x-cvdm-maps"] == "schedule_map"
    channels = tifffile.imread(io.BytesIO(result.content))
    found = values(service, path, layer="schedule_map")
    np.testing.assert_array_equal(found, channels[4])
    assert 0 <= found.min() < found.max() <= 1


@pytest.mark.parametrize(("maps", "said"), [("residual", "forward model"), ("colours", "schedule_map")])
def test_maps_that_cannot_be_made_are_refused_at_once(service, stack, maps, said):
    """An unknown name, and a residual of a model without a forward model."""
    reply = service.enter(tiff_bytes(stack[0, 0]), maps=maps)
    assert reply.status_code in (400, 422) and said in reply.text
    assert service.client.get("/jobs").json()["jobs"] == []


def test_an_input_can_be_seen_before_its_result(service, stack):
    """A result that is not there yet is 409, another one's image 404."""
    id = service.enter(tiff_bytes(stack[0, 0]), samples="64", steps="200").json()["id"]
    path = f"/jobs/{id}/images/0"
    assert service.client.get(f"{path}/view").json()["layers"] == ["input"]
    np.testing.assert_array_equal(values(service, path, layer="input"), stack[0, 0])
    assert service.client.get(f"{path}/tile", params={"layer": "lower"}).status_code == 409
    assert service.client.get(f"/jobs/{id}/images/1/view").status_code == 404
    service.client.post(f"/jobs/{id}/cancel")


@pytest.mark.parametrize("look", ["tile", "preview.png"])
def test_a_browser_keeps_what_it_was_shown_of_an_image_that_has_ended(service, stack, look):
    """Before, an input is not yet on the grid of a finer result: kept for a day it would lie beside it."""
    id = service.enter(tiff_bytes(stack[0, 0]), samples="64", steps="200").json()["id"]
    path = f"/jobs/{id}/images/0/{look}"
    shown = service.client.get(path, params={"layer": "input"})
    assert shown.status_code == 200 and shown.headers["cache-control"] == "no-store"
    service.client.post(f"/jobs/{id}/cancel")
    service.wait_for(id, "cancelled")
    assert "immutable" in service.client.get(path, params={"layer": "input"}).headers["cache-control"]


def test_tiles_of_all_levels_are_means():
    """Every pixel of a level is the mean of its square, at the rim of what is there of it."""
    pixels = np.random.default_rng(0).random((TILE + 101, 2 * TILE + 3), np.float32)
    assert levels(*pixels.shape) == 3
    for level in range(3):
        side = 2**level
        assert side <= SAMPLED
        rows, columns = (-(-length // (TILE * side)) for length in pixels.shape)
        for row in range(rows):
            for column in range(columns):
                tile = tile_of(pixels, Square(level, row, column))
                for y, x in ((0, 0), (tile.shape[0] - 1, tile.shape[1] - 1)):
                    top, left = (row * TILE + y) * side, (column * TILE + x) * side
                    square = pixels[top : top + side, left : left + side]
                    assert tile[y, x] == pytest.approx(square.mean(), rel=1e-5)
    with pytest.raises(CvdmError, match="a level from 0 to 2"):
        tile_of(pixels, Square(3, 0, 0))


def test_a_large_plane_is_looked_at_on_a_grid():
    """Of each square no more than 4 x 4 pixels; a plane that is even keeps its value."""
    side = TILE * 16
    seen = []

    class Even:
        shape = (side, side)

        def __getitem__(self, index):
            seen.append([len(range(*part.indices(side))) for part in index])
            return np.full(seen[-1], 7, np.float32)

    tile = tile_of(Even(), Square(4, 0, 0))
    assert seen == [[TILE * SAMPLED] * 2] and tile.shape == (TILE, TILE) and (tile == 7).all()


def test_the_first_job_has_no_estimate_and_the_second_one_has(residents, stack, tmp_path):  # noqa: F811
    """Of time, disk and evaluations; the next process knows it too."""
    with Service(residents, tmp_path) as service:
        told_in(service, stack)
    with Service(residents, tmp_path) as service:
        assert service.enter(tiff_bytes(stack[0, 0])).json()["estimate"]["seconds"] is not None


def told_in(service, stack):
    first = service.enter(tiff_bytes(stack[0, 0]), samples="2", steps="2").json()
    assert first["estimate"]["seconds"] is None and first["estimate"]["disk_mib"] > 0
    assert first["estimate"]["memory_mib"] > 0
    service.wait_for(first["id"], "done")
    volume = tiff_bytes(stack[0], ome=True, metadata={"axes": "ZYX"})
    second = service.enter(volume, samples="2", steps="4").json()
    job = service.wait_for(second["id"], "done")
    taken = sum(image["seconds"] for image in job["images"])
    assert 0.1 * taken < second["estimate"]["seconds"] < 60


def test_chosen_channels_are_restored_alone(service, stack):
    """By name or by number; job, layout, tiles, file and provenance know those alone, and their pixels."""
    image = tiff_bytes(stack, ome=True, metadata={"axes": "CZYX", "Channel": {"Name": ["nuclei", "actin"]}})
    results = {}
    for choice in ("actin", "1"):
        reply = service.enter(image, samples="2", steps="2", channels=choice)
        assert reply.status_code == 202, reply.text
        assert reply.json()["channels"] == [choice] and reply.json()["images"][0]["axes"] == "ZYX"
        id = reply.json()["id"]
        assert service.wait_for(id, "done", "failed")["state"] == "done"
        results[choice] = service.client.get(f"/jobs/{id}/result")
        assert results[choice].headers["x-cvdm-channels"] == choice
        path = f"/jobs/{id}/images/0"
        assert service.client.get(f"{path}/view").json()["channels"] == [""]
        for z in range(3):
            np.testing.assert_array_equal(values(service, path, layer="input", z=z), stack[1, z])
    alone = service.enter(tiff_bytes(stack[1], ome=True, metadata={"axes": "ZYX"}), samples="2", steps="2")
    assert service.wait_for(alone.json()["id"], "done", "failed")["state"] == "done"
    expected = tifffile.imread(io.BytesIO(service.client.get(f"/jobs/{alone.json()['id']}/result").content))
    for result in results.values():
        np.testing.assert_array_equal(tifffile.imread(io.BytesIO(result.content)), expected)


def test_a_channel_far_from_the_models_refuses_no_other(service, stack):
    """Planted: brightfield beside fluorescence. All are refused; the one that is meant is restored."""
    both = np.stack([stack[0, 0], stack[0, 0] + 60000])
    image = tiff_bytes(both, ome=True, metadata={"axes": "CYX", "Channel": {"Name": ["GFP", "brightfield"]}})
    assert service.enter(image).status_code == 422
    assert service.enter(image, channels="GFP", samples="2", steps="2").status_code == 202
    reply = service.enter(image, channels="DAPI")
    assert reply.status_code == 422 and "0 to 1, GFP, brightfield" in reply.json()["expected"]
    files = {"image": ("a.tif", image)}
    reply = service.client.post("/reconstruct", files=files, data={"channels": "GFP"})
    assert reply.status_code == 422 and "/jobs" in reply.json()["remedy"]
