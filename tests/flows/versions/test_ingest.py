"""Ingest: good pairs become a version, bad ones go to quarantine, nothing is lost. Real DVC, real git."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from versions_project import TASK, dvc, files_of, git, state

from cvdm.card import load_card
from cvdm.dataset import load_dataset
from cvdm.errors import ConfigError
from cvdm.images import write_tiff
from flows.history import versions
from flows.ingest import ingest
from flows.ingest_result import IngestOptions
from flows.settings import Settings
from flows.version import VersionError, data_version
from flows.version_control import GitError


def test_a_new_task_becomes_a_version_with_a_commit_and_a_tag(project):
    """Pairs and card are in place, pushed, committed with the remote inside the checkout, and tagged."""
    home, result = project
    assert len(result.added) == 12 and result.known == 0
    assert result.dataset_digest == load_dataset(home / "data" / TASK).digest
    assert result.data_version == data_version(Settings.read(home=home))
    assert git(home, "rev-parse", "HEAD") == result.commit
    assert git(home, "rev-list", "-n", "1", result.tag) == result.commit
    committed = git(home, "show", "--name-only", "--format=", "HEAD").splitlines()
    assert "data.dvc" in committed and result.pushed
    assert {name.split("/")[0] for name in committed} == {"data.dvc", ".data-remote"}
    assert git(home, "status", "--porcelain") == ""


def test_a_second_batch_is_added_and_the_same_batch_again_changes_nothing(settings, second):
    """New names are copied, fields keep their splits; repeated, there is no commit and the same version."""
    before = {pair.name for pair in load_dataset(settings.dataset_dir(TASK)).split("test")}
    first = ingest(second, TASK, settings)
    assert first.added == ("f12_c0", "f13_c0") and first.commit
    assert before <= {pair.name for pair in load_dataset(settings.dataset_dir(TASK)).split("test")}
    again = ingest(second, TASK, settings)
    assert (again.added, again.known, again.commit) == ((), 2, None)
    assert again.data_version == first.data_version
    assert not (settings.data_dir / ".incoming").exists()


def test_staged_changes_refuse_before_anything_is_copied(settings, second):
    """A commit of data.dvc would mix with them; --no-commit goes on without git."""
    (settings.home / "notes").write_text("x")
    git(settings.home, "add", "notes")
    before = state(settings)
    with pytest.raises(GitError, match="--no-commit"):
        ingest(second, TASK, settings)
    assert state(settings) == before
    result = ingest(second, TASK, settings, IngestOptions(commit=False))
    assert result.added and result.commit is None and git(settings.home, "rev-parse", "HEAD") == before[2]


def test_a_path_is_no_task(settings, second, tmp_path):
    """Before anything on disk is touched: that folder survives."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("x")
    for task in (str(precious), "../../precious", "..", "", "Cells", f"{TASK}\n"):
        with pytest.raises(ConfigError, match="task name"):
            ingest(second, task, settings)
    assert (precious / "thesis").read_text() == "x" and not (settings.data_dir / ".incoming").exists()


def test_a_folder_that_links_the_data_is_no_batch(settings, tmp_path):
    """What is refused of it would be moved out of another task's data."""
    (tmp_path / "batch").mkdir()
    for side in ("low", "high"):
        (tmp_path / "batch" / side).symlink_to(settings.dataset_dir(TASK) / side)
    before = files_of(settings.data_dir)
    with pytest.raises(ConfigError, match="outside of the data folder"):
        ingest(tmp_path / "batch", "another", settings, IngestOptions(name_pattern="(?P<field>.+)"))
    assert files_of(settings.data_dir) == before


def test_data_outside_of_the_project_have_no_versions(settings, second, tmp_path):
    """Said before anything is copied, by ingest and log alike."""
    elsewhere = Settings.read(home=settings.home, data_dir=tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="a data folder within"):
        ingest(second, TASK, elsewhere)
    with pytest.raises(ConfigError, match="CVDM_DATA_DIR"):
        versions(elsewhere)
    assert not elsewhere.data_dir.exists()


def test_a_part_of_an_image_that_has_changed_is_not_versioned(settings, second):
    """A chunk of an OME-Zarr among the data counts like an image, and so does the ledger."""
    chunk = settings.dataset_dir(TASK) / "low" / "f40_c0.zarr" / "0" / "0"
    chunk.parent.mkdir(parents=True)
    chunk.write_bytes(b"pixels")
    dvc(settings.home, "add", "data")
    chunk.unlink()  # DVC may have linked it
    chunk.write_bytes(b"others")
    with pytest.raises(VersionError, match="f40_c0"):
        ingest(second, TASK, settings, IngestOptions(commit=False))


@pytest.mark.parametrize("lost", ["everything", "one file", "content"])
def test_data_that_are_not_the_recorded_ones_are_not_versioned(settings, second, lost):
    """A clone without its data, or with older ones, must not become a version that lacks somebody's pairs."""
    home = settings.dataset_dir(TASK)
    if lost == "everything":
        shutil.rmtree(settings.data_dir)
    elif lost == "one file":
        (home / "low" / "f03_c0.tif").unlink()
    else:
        path = home / "low" / "f03_c0.tif"
        pixels = tifffile.imread(path)
        path.unlink()  # another name of it lies in the cache
        write_tiff(path, pixels[::-1])
    before = state(settings)
    with pytest.raises(VersionError, match="dvc pull"):
        ingest(second, TASK, settings)
    assert state(settings) == before


def test_a_card_may_be_edited_between_ingests(settings, second):
    """What a person has learned about the data comes into the next version."""
    card = settings.dataset_dir(TASK) / "card.yaml"
    text = card.read_text() + "channel: DAPI\n"
    card.unlink()
    card.write_text(text)
    assert ingest(second, TASK, settings, IngestOptions(push=False)).commit
    assert load_card(settings.dataset_dir(TASK)).channel == "DAPI"


def test_the_data_folder_is_no_batch(settings, second):
    """Refused pairs are moved out of a batch: never out of a dataset."""
    other = Path(shutil.copytree(second, settings.data_dir / "other-task"))
    for source in (other, settings.dataset_dir(TASK)):
        with pytest.raises(ConfigError, match="outside of the data folder"):
            ingest(source, TASK, settings)


def test_the_session_is_compared_with_the_others(settings, tmp_path):
    """A batch whose camera offset is another one is told so when it comes in."""
    home, batch = settings.dataset_dir(TASK), tmp_path / "batch"
    for side in ("low", "high"):
        (batch / side).mkdir(parents=True)
    for number, pair in enumerate(load_dataset(home).pairs[:4]):
        for side, path in (("low", pair.low), ("high", pair.high)):
            turned = tifffile.imread(path)[::-1].astype(int) + (30 if side == "low" else 0)
            write_tiff(batch / side / f"f{50 + number}_c0.tif", np.clip(turned, 0, 255).astype(np.uint8))
    result = ingest(batch, TASK, settings, IngestOptions(session="day-2", commit=False, push=False))
    assert result.accepted and "background-drift" in {warning.check for warning in result.warnings}


def test_a_session_name_is_a_name(settings, second):
    """It becomes a folder's name in quarantine, so a path is refused."""
    with pytest.raises(ConfigError, match="session name"):
        ingest(second, TASK, settings, IngestOptions(session="../day"))
