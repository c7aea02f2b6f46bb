"""The data as DVC records them: restored from the remote, errors passed on."""

from __future__ import annotations

import shutil

import pytest

from cvdm.dataset import dataset_digest, load_dataset
from flows.settings import Settings
from flows.version import VersionError, data_version, pull_data

TASK = "test-cells"


def test_lost_data_come_back_from_dvc(settings):
    """`pull_data` restores what data.dvc records."""
    digest = dataset_digest(load_dataset(settings.dataset_dir(TASK)))
    shutil.rmtree(settings.data_dir)
    pull_data(settings)
    assert dataset_digest(load_dataset(settings.dataset_dir(TASK))) == digest


def test_what_dvc_says_is_passed_on(settings):
    """A pull without content fails with DVC's reason."""
    shutil.rmtree(settings.data_dir)
    shutil.rmtree(settings.home / ".dvc" / "cache")
    shutil.rmtree(settings.home / ".data-remote")
    with pytest.raises(VersionError, match="dvc pull"):
        pull_data(settings)


def test_data_without_dvc_have_no_version(tmp_path):
    """None, not an error; a damaged record is one."""
    settings = Settings.read(home=tmp_path)
    assert data_version(settings) is None
    (tmp_path / "data.dvc").write_text("outs: []\n")
    with pytest.raises(VersionError, match=r"data\.dvc"):
        data_version(settings)
