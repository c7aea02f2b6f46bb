"""Folders that `cvdm reconstruct` has a running service restore."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from service_world import TASK, acquired

from cvdm.images import read_annotations
from flows.batch import errands_for
from flows.restore import Draws, restore_by_service
from service.client import Client, ServiceRefusal


@pytest.fixture
def folder(tmp_path):
    """Two images."""
    folder = tmp_path / "in"
    folder.mkdir()
    for n in range(2):
        (folder / f"{n}.tif").write_bytes(acquired(40, seed=20 + n))
    return folder


def restored(service, folder, out, version="champion", **draws):
    return restore_by_service(
        errands_for([str(folder)], str(out)), service.url, TASK, version, Draws(**draws)
    )


def test_a_batch_has_one_version_and_the_next_one_the_new_champion(service, checkpoints, folder, tmp_path):
    """The alias is looked up once; after a swap the same command asks the new champion for new results."""
    service.crown(1)
    out = tmp_path / "out"
    try:
        for champion in (lambda: 1, lambda: service.store.register(checkpoints(seed=41), champion=True)):
            number = champion()
            service.wait_for_champion(number)
            outcome = restored(service, folder, out, samples=2, steps=1)
            assert {made["version"] for made in outcome.restored.values()} == {str(number)}
            assert {read_annotations(path)["version"] for path in outcome.restored} == {str(number)}
    finally:
        service.crown(1)


def test_what_was_cancelled_is_tried_again_by_the_same_command(service, folder, tmp_path):
    """It would take minutes and is cancelled on the way; the same command makes a new job of it."""
    (folder / "1.tif").unlink()
    ids = []
    with Client(service.url) as client, ThreadPoolExecutor(1) as shell:

        def ours():
            return [job["id"] for job in client.jobs() if job["seed"] == 99]

        for _ in range(2):
            command = shell.submit(restored, service, folder, tmp_path, samples=64, steps=200, seed=99)
            service.wait_for(lambda: ours() not in ([], ids))
            (id,) = ours()
            client.job(id).cancel()
            with pytest.raises(ServiceRefusal, match="was cancelled"):
                command.result(60)
            ids.append(id)
    assert len(set(ids)) == 2


def test_a_zarr_folder_is_sent_as_one_image(service, tmp_path):
    """Packed on the way; restored as the same planes are as a TIFF; with a choice of channels."""
    zarr = pytest.importorskip("zarr", reason="the extra zarr is not installed")
    planes = np.stack([tifffile.imread(io.BytesIO(acquired(40, seed=n))) for n in range(3)])
    root = tmp_path / "in" / "embryo.ome.zarr"
    group = zarr.open_group(root, mode="w", zarr_format=3)
    group.create_array("0", data=planes, chunks=(1, 32, 32))
    axes = [{"name": "c", "type": "channel"}, *({"name": axis, "type": "space"} for axis in "yx")]
    datasets = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": [1, 1, 1]}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    outcome = restored(service, tmp_path / "in", tmp_path / "out", samples=2, steps=1, channels="0,2")
    (result,) = outcome.restored
    assert result.name == "embryo.ome.tif" and read_annotations(result)["channels"] == "0, 2"
    with Client(service.url) as client:
        job = client.submit([planes[[0, 2]]], axes="CYX", task=TASK, samples=2, steps=1)
        job.wait()
        job.save(0, tmp_path / "same.ome.tif")
    np.testing.assert_array_equal(tifffile.imread(result), tifffile.imread(tmp_path / "same.ome.tif"))
