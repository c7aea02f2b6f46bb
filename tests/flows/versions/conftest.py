"""Checkouts with DVC for the tests of data versions: a first batch is version one, its remote a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from forked_dvc import forked_dvc
from specimens import make_dataset
from versions_project import TASK, empty_project

from flows.ingest import ingest
from flows.settings import Settings


@pytest.fixture(scope="package", autouse=True)
def _dvc_is_imported_once():
    """Importing DVC takes two thirds of most commands; they run in forks of a process that has done it."""
    with forked_dvc() as run, pytest.MonkeyPatch.context() as patch:
        patch.setattr("flows.version.dvc_process", run)
        yield


@pytest.fixture(scope="package")
def batches(tmp_path_factory):
    """A first batch with every split in it, and a second one of two more fields."""
    root = tmp_path_factory.mktemp("batches")
    everything = make_dataset(root / "everything", fields=14, size=64)
    for side in ("low", "high"):
        (root / "second" / side).mkdir(parents=True)
        for name in ("f12_c0.tif", "f13_c0.tif"):
            (everything / side / name).rename(root / "second" / side / name)
    return everything, root / "second"


@pytest.fixture(scope="package")
def project(tmp_path_factory, batches):
    """A checkout in which the first batch is version one."""
    home = empty_project(tmp_path_factory.mktemp("project"))
    batch = Path(shutil.copytree(batches[0], tmp_path_factory.mktemp("first") / "batch"))
    result = ingest(batch, TASK, Settings.read(home=home))
    return home, result


@pytest.fixture
def settings(project, tmp_path):
    """A copy of that project to work in."""
    home = Path(shutil.copytree(project[0], tmp_path / "project", symlinks=True))
    return Settings.read(home=home)


@pytest.fixture
def second(batches, tmp_path):
    """A copy of the second batch, which may be emptied."""
    return Path(shutil.copytree(batches[1], tmp_path / "second"))
