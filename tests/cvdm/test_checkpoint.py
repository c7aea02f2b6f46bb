"""A checkpoint directory: complete, tamper-evident, self-proving."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from specimens import cells, make_checkpoint

from cvdm.checkpoint import load_checkpoint, save_checkpoint, verify_golden
from cvdm.errors import CheckpointError, StorageError
from cvdm.posterior import reconstruct


def test_a_loaded_checkpoint_restores_the_same_pixels(tiny_checkpoint, tiny_checkpoint_dir):
    """What was saved is what is loaded: configuration, record, and every pixel."""
    loaded = load_checkpoint(tiny_checkpoint_dir)
    for part in ("recipe", "normalisation", "calibration", "record"):
        assert getattr(loaded, part) == getattr(tiny_checkpoint, part)
    image = cells(np.random.default_rng(1), 40)
    assert np.array_equal(reconstruct(loaded, image).mean, reconstruct(tiny_checkpoint, image).mean)
    verify_golden(tiny_checkpoint_dir, loaded)


@pytest.mark.parametrize("name", ["weights.pt", "golden/mean.tif", "golden/input.tif"])
def test_a_changed_or_missing_file_is_refused(tiny_checkpoint_dir, name):
    """Each file's content is pinned by its digest."""
    path = tiny_checkpoint_dir / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tiny_checkpoint_dir)
    path.unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(tiny_checkpoint_dir)


def test_other_weights_fail_the_golden_replay(tiny_checkpoint_dir):
    """A model that computes something else is caught even when every digest is right."""
    with pytest.raises(CheckpointError, match="golden mean"):
        verify_golden(tiny_checkpoint_dir, make_checkpoint(seed=1))


def test_weights_that_are_code_are_not_run(tiny_checkpoint_dir, tmp_path):
    """A pickled object in place of weights is refused without being executed."""
    marker = tmp_path / "executed"

    class Malicious:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"weights": Malicious()}, tiny_checkpoint_dir / "weights.pt")
    description = json.loads((tiny_checkpoint_dir / "model.json").read_text())
    del description["files"]["weights.pt"]
    (tiny_checkpoint_dir / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError):
        load_checkpoint(tiny_checkpoint_dir)
    from cvdm.checkpoint import file_digest

    description["files"]["weights.pt"] = file_digest(tiny_checkpoint_dir / "weights.pt")
    (tiny_checkpoint_dir / "model.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError):
        load_checkpoint(tiny_checkpoint_dir)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "clue"),
    [
        ("{", "readable"),
        ("[]", "readable"),
        ('{"format": 99, "files": {}}', "format 99"),
        (None, "cvdm export"),
    ],
)
def test_a_folder_that_is_no_checkpoint_says_so(tmp_path, content, clue):
    """No description, broken JSON and another format each give a clear error."""
    if content is not None:
        (tmp_path / "model.json").write_text(content)
    with pytest.raises(CheckpointError, match=clue):
        load_checkpoint(tmp_path)


def test_nothing_half_written_is_left(tiny_checkpoint, tmp_path, monkeypatch):
    """When the disk fills up, neither the directory nor its partial copy remains."""

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cvdm.checkpoint.torch.save", full)
    with pytest.raises(StorageError, match="No space left"):
        save_checkpoint(tmp_path / "model", tiny_checkpoint, np.zeros((16, 16)))
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_never_overwritten(tiny_checkpoint, tiny_checkpoint_dir):
    """Saving onto a model is refused and leaves it as it was."""
    with pytest.raises(CheckpointError, match="Choose another place"):
        save_checkpoint(tiny_checkpoint_dir, tiny_checkpoint, np.zeros((16, 16)))
    load_checkpoint(tiny_checkpoint_dir)


def test_bounds_are_calibrated_for_the_recipes_draws_alone(tiny_checkpoint):
    """Another number of draws or steps is marked as not calibrated."""
    own = tiny_checkpoint.recipe.sampling
    from dataclasses import replace

    assert tiny_checkpoint.is_calibrated_for(replace(own, seed=9, tile=64))
    assert not tiny_checkpoint.is_calibrated_for(replace(own, steps=own.steps + 1))
    others = tiny_checkpoint.annotations(replace(own, samples=7))
    assert others["interval_calibrated"] == "false"
    assert others["interval_guarantee"].startswith(f"None: calibrated are {own.samples} draws of {own.steps}")


def edited(directory: Path, change) -> Path:
    description = json.loads((directory / "model.json").read_text())
    change(description)
    (directory / "model.json").write_text(json.dumps(description))
    return directory


@pytest.mark.parametrize(
    ("change", "clue"),
    [
        (lambda d: d.update(files=list(d["files"])), "readable"),
        (lambda d: d["calibration"].update(quantile="x"), "calibration.quantile"),
        (lambda d: d["normalisation"].update(kind="imgae"), "imgae"),
        (lambda d: d["record"].update(author="x"), "unknown author"),
    ],
    ids=["files", "calibration", "normalisation", "record"],
)
def test_every_part_of_the_description_is_checked(tiny_checkpoint_dir, tmp_path, change, clue):
    """A wrong type, a misspelt kind or an unknown key is named."""
    directory = shutil.copytree(tiny_checkpoint_dir, tmp_path / "copy")
    with pytest.raises(CheckpointError, match=clue):
        load_checkpoint(edited(directory, change))


def test_lack_of_memory_is_not_blamed_on_the_file(tiny_checkpoint_dir, monkeypatch):
    """A caller may then try again, which it must not do with a damaged model."""

    def fails(*_args, **_kwargs):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(torch, "load", fails)
    with pytest.raises(RuntimeError, match="allocate"):
        load_checkpoint(tiny_checkpoint_dir)
