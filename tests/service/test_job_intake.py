"""Images that are no single upload: zipped OME-Zarr folders and what lies on the service's machine."""

from __future__ import annotations

import io
import stat
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
import tifffile
from service_world import acquired, tiff_bytes
from specimens import cells, noisy

from cvdm.errors import ImageError
from cvdm.reading import read_stack
from service.jobs.intake import MOST_ENTRIES, unpack

from .test_jobs import Service, residents  # noqa: F401 - a fixture


@pytest.fixture
def service(residents, tmp_path):  # noqa: F811
    imports = tmp_path / "imports"
    imports.mkdir()
    with Service(residents, tmp_path / "jobs", import_dir=imports) as running:
        running.imports = imports
        yield running


def volume(root, seed=0):
    """An OME-Zarr folder with two z-planes; returns its pixels."""
    zarr = pytest.importorskip("zarr", reason="the extra zarr is not installed")
    planes = [tifffile.imread(io.BytesIO(acquired(40, seed=seed + n))) for n in range(2)]
    group = zarr.open_group(root, mode="w", zarr_format=3)
    group.create_array("0", data=np.stack(planes), chunks=(1, 32, 32))
    scale = [{"type": "scale", "scale": [0.5, 0.1, 0.1]}]
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "zyx"]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    return np.stack(planes)


def zipped(root, *, top=""):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                packed.write(path, f"{top}{path.relative_to(root)}")
    return buffer.getvalue()


def restored(service, reply):
    assert reply.status_code == 202, reply.text
    job = service.wait_for(reply.json()["id"], "done", "failed")
    assert job["state"] == "done", job
    result = service.client.get(job["images"][0]["result"])
    return job, tifffile.imread(io.BytesIO(result.content)), result.headers["content-disposition"]


def named(*paths):
    """As fields of a multipart form, which is what `curl -F path=...` sends."""
    return [("path", (None, path)) for path in paths]


CHOICES = {"samples": "2", "steps": "2"}


@pytest.mark.parametrize("top", ["", "embryo.ome.zarr/"])
def test_a_zipped_folder_is_an_image(service, tmp_path, top):
    """With the folder itself in it or what is in the folder; seen and restored as the same planes are."""
    planes = volume(tmp_path / "a.zarr")
    files = [("image", ("embryo.ome.zarr.zip", zipped(tmp_path / "a.zarr", top=top)))]
    job, result, name = restored(service, service.client.post("/jobs", files=files, data=CHOICES))
    assert (job["images"][0]["axes"], job["images"][0]["shape"]) == ("ZYX", [2, 40, 40])
    assert "embryo.ome.tif" in name
    stack = tiff_bytes(planes, ome=True, metadata={"axes": "ZYX"})
    _, same, _ = restored(service, service.enter(stack, **CHOICES))
    np.testing.assert_array_equal(result, same)
    path = f"/jobs/{job['id']}/images/0"
    tile = service.client.get(f"{path}/tile", params={"layer": "input", "z": 1}).content
    np.testing.assert_array_equal(np.frombuffer(tile, "<f4").reshape(40, 40), planes[1])


def test_images_on_the_machine_are_named_by_path(service):
    """A file and a folder, left where they are; the same content uploaded has the same digest and result."""
    (service.imports / "monday").mkdir()
    image = acquired(40)
    (service.imports / "monday" / "cell.tif").write_bytes(image)
    volume(service.imports / "v.ome.zarr")
    reply = service.client.post("/jobs", data=CHOICES, files=named("monday/cell.tif", "v.ome.zarr"))
    job, result, name = restored(service, reply)
    assert [one["name"] for one in job["images"]] == ["monday/cell.tif", "v.ome.zarr"]
    assert '"cell.ome.tif"' in name
    _, same, _ = restored(service, service.enter(image, **CHOICES))
    np.testing.assert_array_equal(result, same)
    assert service.client.delete(f"/jobs/{job['id']}").status_code == 204
    assert (service.imports / "monday" / "cell.tif").read_bytes() == image
    assert (service.imports / "v.ome.zarr" / "zarr.json").exists()


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("removed", [False, True])
def test_what_was_replaced_since_it_was_accepted_is_not_restored(service, monkeypatch, begun, removed):
    """Before its turn or while it is restored: the provenance would name what was not read."""
    image = service.imports / "cell.tif"
    image.write_bytes(acquired(64))
    hold = None if begun else service.begun(acquired(96), samples="64", steps="200")
    monkeypatch.setattr("service.jobs.runner.AT_DEVICE", 1)
    choices = {"samples": "16", "steps": "20"}
    id = service.client.post("/jobs", data=choices, files=named("cell.tif")).json()["id"]
    while begun and service.job(id)["percent"] == 0:
        time.sleep(0.01)
    if removed:
        image.unlink()
    else:
        image.write_bytes(acquired(64, seed=5))
    if hold is not None:
        service.client.post(f"/jobs/{hold}/cancel")
    error = service.wait_for(id, "failed", "done")["images"][0]["error"]
    assert error["error"] == "ImageError" and error["expected"].startswith("cell.tif as it was when the job")
    folder = service.settings.jobs_dir / "files" / id / "0"
    assert [path.name for path in folder.iterdir()] == ["input"]


@pytest.mark.parametrize("path", ["../secret.tif", "/etc/hostname", "link.tif", "none.tif", ".", "a\0b"])
def test_nothing_outside_the_folder_is_reached(service, path):
    """By no spelling and by no link; what is outside and what is not there have one answer."""
    (service.imports.parent / "secret.tif").write_bytes(acquired(40))
    (service.imports / "link.tif").symlink_to(service.imports.parent / "secret.tif")
    reply = service.client.post("/jobs", files=named(path))
    assert reply.status_code == 422
    if path != ".":
        assert "a path" in reply.json()["expected"] or "the path" in reply.json()["expected"]
    assert service.client.get("/jobs").json()["jobs"] == []


def test_without_a_folder_no_path_is_taken(residents, tmp_path):  # noqa: F811
    """Nor by a request for a single image."""
    with Service(residents, tmp_path / "jobs") as service:
        reply = service.client.post("/jobs", files=named("a.tif"))
        assert reply.status_code == 422 and "CVDM_IMPORT_DIR" in reply.json()["remedy"]
        reply = service.client.post("/reconstruct", files=named("a.tif"))
        assert reply.status_code == 422 and "POST /jobs" in reply.json()["remedy"]


def planted(kind):
    """A ZIP archive with one thing wrong."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("zarr.json", "{}")
        if kind == "leads out":
            packed.writestr("../../evil", "x")
        elif kind == "absolute":
            packed.writestr("/tmp/evil", "x")  # noqa: S108 - planted
        elif kind == "a link":
            entry = zipfile.ZipInfo("0/c")
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            packed.writestr(entry, "/etc/passwd")
        elif kind == "a bomb":
            packed.writestr("0/c", bytes(5_000_000))
        elif kind == "a name twice":
            packed.writestr("0//c", "x")
            packed.writestr("0/c", "y")
        elif kind == "a file that is a folder":
            packed.writestr("0", "x")
            packed.writestr("0/c", "y")
        elif kind == "a long name":
            packed.writestr("0/" + "é" * 128, "x")
        elif kind == "a name that is no UTF-8":
            packed.writestr("0/é", "x")
        elif kind == "another compression":
            packed.writestr("0/c", "x", zipfile.ZIP_BZIP2)
    content = bytearray(buffer.getvalue())
    if kind == "a bomb that lies":
        return lying_bomb()
    if kind == "a name that is no UTF-8":
        return bytes(content).replace("é".encode(), b"\xff\xff")
    if kind == "cut off":
        return bytes(content[:-10])
    return bytes(content)


def crowded(count):
    """An archive of empty files, as its directory says."""
    header = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
    directory = (header + b"a") * count
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), 0, 0)
    return b"PK\3\4" + directory + end


def lying_bomb():
    """Claims ten bytes and unpacks to five million."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("0/c", bytes(5_000_000))
    size = (5_000_000).to_bytes(4, "little")
    return buffer.getvalue().replace(size, (10).to_bytes(4, "little"))


@pytest.mark.parametrize(
    "kind",
    [
        "leads out",
        "absolute",
        "a link",
        "a bomb",
        "a bomb that lies",
        "another compression",
        "cut off",
        "a name twice",
        "a file that is a folder",
        "a long name",
        "a name that is no UTF-8",
    ],
)
def test_planted_archives_are_refused(tmp_path, kind):
    """And make no file outside of their own folder."""
    archive, target = tmp_path / "in" / "a.zip", tmp_path / "in" / "out"
    archive.parent.mkdir()
    archive.write_bytes(planted(kind))
    with pytest.raises(ImageError):
        unpack(archive, target, 1_000_000, "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))
    assert sum(path.stat().st_size for path in target.rglob("*") if path.is_file()) <= 1_000_000


def test_a_crowded_archive_is_refused_before_its_entries_are_objects(tmp_path):
    """By what its directory holds, whatever count its end record claims, in a fraction of the memory."""
    archive = tmp_path / "a.zip"
    archive.write_bytes(crowded(MOST_ENTRIES + 1))
    tracemalloc.start()
    with pytest.raises(ImageError, match="1048577"):
        unpack(archive, tmp_path / "out", 10**6, "a.zip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * archive.stat().st_size


def test_many_archives_unpack_to_no_more_than_one_may(residents, tmp_path):  # noqa: F811
    """Each within the bound of an upload, all together beyond it: refused, and nothing of them stays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("0/c", bytes(400_000))
    with Service(residents, tmp_path / "jobs", max_job_upload_bytes=1_000_000) as service:
        files = [("image", (f"{number}.zip", buffer.getvalue())) for number in range(3)]
        reply = service.client.post("/jobs", files=files)
        assert reply.status_code == 422 and "together" in reply.json()["expected"]
        assert "2.zip" in reply.json()["actual"]
    assert not any(path.is_file() for path in (tmp_path / "jobs" / "incoming").rglob("*"))


def test_an_archive_that_is_no_image_is_refused_by_its_name(service):
    """And nothing of it stays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("notes.txt", "no image")
    files = [("image", ("notes.zip", buffer.getvalue()))]
    reply = service.client.post("/jobs", files=files)
    assert reply.status_code == 422 and "notes.zip" in reply.json()["actual"]
    assert list((service.settings.jobs_dir / "incoming").iterdir()) == []


def test_a_makers_format_is_restored_as_a_job(residents, tmp_path):  # noqa: F811
    """A CZI that is uploaded under whatever name keeps its channels, planes and sizes."""
    writer = pytest.importorskip("pylibCZIrw.czi", reason="the extra vendors is not installed")
    pytest.importorskip("bioio_czi", reason="the extra vendors is not installed")
    path = tmp_path / "embryo.czi"
    rng = np.random.default_rng(2)
    planes = np.round([[noisy(cells(rng, 40), rng) for _ in range(2)] for _ in range(2)]).astype(np.uint16)
    with writer.create_czi(str(path)) as file:
        for channel, z in np.ndindex(2, 2):
            file.write(planes[channel, z][..., None].copy(), plane={"C": channel, "Z": z, "T": 0})
        scales = {"scale_x": 1e-7, "scale_y": 1e-7, "scale_z": 5e-7}
        file.write_metadata("embryo", channel_names={0: "DAPI", 1: "GFP"}, **scales)
    with Service(residents, tmp_path / "jobs") as service:
        files = [("image", ("embryo.czi", path.read_bytes()))]
        reply = service.client.post("/jobs", files=files, data={"samples": "2", "steps": "2"})
        assert reply.status_code == 202, reply.text
        job = service.wait_for(reply.json()["id"], "done", "failed")
        assert job["state"] == "done" and job["images"][0]["axes"] == "CZYX"
        result = service.client.get(f"/jobs/{job['id']}/result")
        assert "embryo.ome.tif" in result.headers["content-disposition"]
    with read_stack(io.BytesIO(result.content), max_pixels=10**6) as stack:
        assert stack.shape == (2, 8, 40, 40) and stack.channel_names[4] == "GFP reconstruction"
        assert stack.pixel_size_um == pytest.approx((0.1, 0.1)) and stack.z_step_um == pytest.approx(0.5)
