"""Folders and patterns of images: which results in which place, and what becomes of those that fail."""

import threading
from pathlib import Path

import numpy as np
import pytest
from specimens import cells

from cvdm.errors import ImageError
from cvdm.images import write_tiff
from flows.batch import Errand, carry_out, errands_for


@pytest.fixture
def folder(tmp_path):
    """Images in two folders, with what is none."""
    root = tmp_path / "in"
    for name in ("a.tif", "b.TIFF", "c.ome.tif", "day2/a.tif", ".hidden/x.tif", "notes.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_tiff(root / name, np.round(cells(np.random.default_rng(len(name)), 40)))
    return root


def found(paths, output):
    return {
        str(errand.source): str(errand.target) for errand in errands_for([str(p) for p in paths], str(output))
    }


def test_a_folder_keeps_its_shape(folder, tmp_path):
    """Every image in it, hidden ones and other files left out; the same names, one ending."""
    out = tmp_path / "out"
    assert found([folder], out) == {
        str(folder / image): str(out / result)
        for image, result in (
            ("a.tif", "a.ome.tif"),
            ("b.TIFF", "b.ome.tif"),
            ("c.ome.tif", "c.ome.tif"),
            ("day2/a.tif", "day2/a.ome.tif"),
        )
    }


def test_files_and_patterns_go_to_a_folder_and_one_file_to_a_file(folder, tmp_path, monkeypatch):
    """A pattern that the shell left alone is one; a trailing slash or a folder means a folder."""
    monkeypatch.chdir(folder)
    out = tmp_path / "out"
    assert found(["*.tif"], out) == {"a.tif": str(out / "a.ome.tif"), "c.ome.tif": str(out / "c.ome.tif")}
    assert found([folder / "day2" / "*.tif"], f"{out}/").keys() == {str(folder / "day2" / "a.tif")}
    assert found(["a.tif"], out) == {"a.tif": str(out)}
    assert found(["a.tif"], f"{out}/") == {"a.tif": str(out / "a.ome.tif")}
    assert found(["a.tif"], tmp_path) == {"a.tif": str(tmp_path / "a.ome.tif")}


def test_results_inside_the_folder_are_not_taken_for_images(folder):
    """Restored twice, a folder has no results of results."""
    out = folder / "restored"
    first = found([folder], out)
    for target in first.values():
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(b"result")
    assert found([folder], out) == first


def test_what_cannot_be_meant_is_refused(folder, tmp_path):
    """Two images for one result, nothing found, an image as its own result."""
    with pytest.raises(ImageError, match=r"different names.*day2"):
        found([folder / "a.tif", folder / "day2" / "a.tif"], tmp_path / "out")
    for nothing in (folder / "none.tif", folder / "*.nd2"):
        with pytest.raises(ImageError, match="no such file"):
            found([nothing], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=r"images .* none"):
        found([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(ImageError, match="other than the input"):
        found([folder / "c.ome.tif"], folder)


def test_one_that_fails_keeps_no_other_from_being_restored(tmp_path):
    """Alone it fails the whole."""

    def restore(errand, stopped):
        if errand.source.name == "bad":
            raise ImageError("an image", "none", "Look.")
        return {"seed": "0"}

    errands = [Errand(tmp_path / name, tmp_path / f"{name}.out") for name in ("a", "bad", "c")]
    outcome = carry_out(errands, restore, at_once=2)
    assert set(outcome.restored) == {tmp_path / "a.out", tmp_path / "c.out"}
    assert set(outcome.failed) == {tmp_path / "bad"}
    assert "NOT restored" in outcome.as_text() and outcome.as_json()["failed"][0]["actual"] == "none"
    with pytest.raises(ImageError):
        carry_out(errands[1:2], restore)


def test_ctrl_c_ends_what_runs_and_begins_nothing(tmp_path):
    """The work sees that nobody waits for it; the interruption reaches the caller."""
    begun, going = [], threading.Event()

    def restore(errand, stopped):
        begun.append(errand.source.name)
        if errand.source.name == "0":
            going.wait(10)
            raise KeyboardInterrupt
        going.set()
        assert stopped.wait(10)
        raise KeyboardInterrupt

    errands = [Errand(tmp_path / str(n), tmp_path / f"{n}.out") for n in range(9)]
    with pytest.raises(KeyboardInterrupt):
        carry_out(errands, restore, at_once=2)
    assert len(begun) < 5


def test_an_ome_zarr_folder_is_one_image(folder, tmp_path):
    """In a folder, by itself, and in a pattern; what is in it are no images; its endings are left out."""
    for name in ("stack.ome.zarr", "day2/old.zarr"):
        (folder / name / "0").mkdir(parents=True)
        (folder / name / ("zarr.json" if "ome" in name else ".zattrs")).write_text("{}")
        (folder / name / "0" / "chunk.tif").write_bytes(b"")
    out = tmp_path / "out"
    inside = found([folder], out)
    assert len(inside) == 6
    assert inside[str(folder / "stack.ome.zarr")] == str(out / "stack.ome.tif")
    assert inside[str(folder / "day2" / "old.zarr")] == str(out / "day2" / "old.ome.tif")
    assert found([folder / "stack.ome.zarr"], out) == {str(folder / "stack.ome.zarr"): str(out)}
    assert found([f"{folder}/*.zarr"], f"{out}/") == {
        str(folder / "stack.ome.zarr"): str(out / "stack.ome.tif")
    }


def test_a_link_that_leads_back_ends(folder, tmp_path):
    """A folder that is linked into itself is looked through once."""
    (folder / "day2" / "again").symlink_to(folder)
    assert len(found([folder], tmp_path / "out")) == 4
