"""The data as DVC records them: restored from the remote, errors passed on."""

from __future__ import annotations

import json
import shutil

import pytest

from cvdm.dataset import load_dataset
from flows.settings import Settings
from flows.version import VersionError, data_version, pull_base, pull_data, run_dvc

TASK = "test-cells"


def test_lost_data_come_back_from_dvc(settings):
    """`pull_data` restores what data.dvc records."""
    digest = load_dataset(settings.dataset_dir(TASK)).digest
    shutil.rmtree(settings.data_dir)
    pull_data(settings)
    assert load_dataset(settings.dataset_dir(TASK)).digest == digest


def test_the_base_of_a_task_is_brought_once_where_one_is_shipped(settings):
    """A pipeline's output, as `dvc repro` leaves it; one that is there, or none, is left alone."""
    (settings.home / "models" / TASK).mkdir(parents=True)
    base = settings.home / "models" / TASK / "weights.pt"
    base.write_bytes(b"weights")
    manifest = base.parent.with_name(f"{TASK}.manifest.json")
    manifest.write_text("{}")
    stage = {"cmd": "true", "outs": [f"models/{TASK}", f"models/{TASK}.manifest.json"]}
    (settings.home / "dvc.yaml").write_text(json.dumps({"stages": {"train": stage}}))
    for command in (("commit", "--force"), ("push",)):
        run_dvc(settings, *command)
    shutil.rmtree(settings.home / "models")
    shutil.rmtree(settings.home / ".dvc" / "cache")
    pull_base(settings, "other-cells")
    assert not (settings.home / "models").exists()
    pull_base(settings, TASK)
    assert base.read_bytes() == b"weights" and manifest.read_text() == "{}"
    base.chmod(0o644)
    base.write_bytes(b"of a person")
    pull_base(settings, TASK)
    assert base.read_bytes() == b"of a person"


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
