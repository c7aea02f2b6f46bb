"""Ingest and data versions: real DVC and git in a project of their own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile
from specimens import make_dataset

from cvdm.dataset import dataset_digest, load_dataset
from cvdm.errors import ConfigError, DatasetError, StorageError
from cvdm.images import write_tiff
from flows.settings import PROJECT, Settings
from flows.staging import clear, staged, swap
from flows.validate import ValidationError
from flows.version import VersionError, data_version, ingest, one_at_a_time, pull_data
from flows.version_control import GitError

TASK = "test-cells"


def git(home, *arguments):
    done = subprocess.run(["git", "-C", str(home), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """A first batch with every split in it, and a second one of two more fields."""
    root = tmp_path_factory.mktemp("batches")
    everything = make_dataset(root / "everything", fields=14, size=48)
    for side in ("low", "high"):
        (root / "second" / side).mkdir(parents=True)
        for name in ("f12_c0.tif", "f13_c0.tif"):
            (everything / side / name).rename(root / "second" / side / name)
    return everything, root / "second"


@pytest.fixture(scope="module")
def project(tmp_path_factory, batches):
    """A checkout with DVC in which the first batch is version one."""
    home = tmp_path_factory.mktemp("project")
    (home / "pyproject.toml").write_text(f'[project]\nname = "{PROJECT}"\n')
    (home / "params.yaml").write_text("validation: {max_saturated: 1.0}\n")
    (home / ".gitignore").write_text("/data\n/mlruns\n")
    git(home, "init", "--quiet")
    git(home, "config", "user.name", "A Tester")
    git(home, "config", "user.email", "tester@example.org")
    subprocess.run([sys.executable, "-m", "dvc", "init", "--quiet"], cwd=home, check=True)
    git(home, "add", "--all")
    git(home, "commit", "--quiet", "--message", "Start")
    result = ingest(batches[0], TASK, Settings.read(home=home))
    return home, result


@pytest.fixture
def settings(project, tmp_path):
    """A copy of that project to work in."""
    home = Path(shutil.copytree(project[0], tmp_path / "project", symlinks=True))
    return Settings.read(home=home)


def state(settings):
    """Everything that a refused ingest must leave as it was."""
    files = {path: path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file()}
    return files, data_version(settings), git(settings.home, "rev-parse", "HEAD")


def test_a_new_task_becomes_a_version_with_a_commit_and_a_tag(project):
    """Pairs and card are in place; data.dvc is committed alone and tagged; the digest is the dataset's."""
    home, result = project
    assert len(result.added) == 12 and result.known == 0
    assert result.dataset_digest == dataset_digest(load_dataset(home / "data" / TASK))
    assert result.data_version == data_version(Settings.read(home=home))
    assert git(home, "rev-parse", "HEAD") == result.commit
    assert git(home, "rev-list", "-n", "1", result.tag) == result.commit
    assert git(home, "show", "--name-only", "--format=", "HEAD") == "data.dvc"
    assert git(home, "status", "--porcelain") == ""


def test_a_second_batch_is_added_and_the_same_batch_again_changes_nothing(settings, batches):
    """New names are copied, fields keep their splits; repeated, there is no commit and the same version."""
    before = {pair.name for pair in load_dataset(settings.dataset_dir(TASK)).split("test")}
    first = ingest(batches[1], TASK, settings)
    assert first.added == ("f12_c0", "f13_c0") and first.commit
    assert before <= {pair.name for pair in load_dataset(settings.dataset_dir(TASK)).split("test")}
    again = ingest(batches[1], TASK, settings)
    assert (again.added, again.known, again.commit) == ((), 2, None)
    assert again.data_version == first.data_version
    assert not (settings.data_dir / ".incoming").exists()


def test_a_bad_batch_leaves_everything_as_it_was(settings, batches, tmp_path):
    """One unreadable file refuses the whole batch, by name, and nothing of it stays."""
    batch = Path(shutil.copytree(batches[1], tmp_path / "batch"))
    (batch / "low" / "f12_c0.tif").write_bytes(b"II*\0 cut off")
    before = state(settings)
    with pytest.raises(ValidationError, match="f12_c0"):
        ingest(batch, TASK, settings)
    assert state(settings) == before and not (settings.data_dir / ".incoming").exists()


def test_other_bytes_under_a_known_name_are_refused(settings, batches, tmp_path):
    """Nothing is ever overwritten."""
    batch = Path(shutil.copytree(batches[1], tmp_path / "batch"))
    for side in ("low", "high"):
        write_tiff(batch / side / "f03_c0.tif", tifffile.imread(batch / side / "f12_c0.tif"))
    before = state(settings)
    with pytest.raises(DatasetError, match=r"test-cells/low/f03_c0\.tif exists"):
        ingest(batch, TASK, settings)
    assert state(settings) == before


def test_staged_changes_refuse_before_anything_is_copied(settings, batches):
    """A commit of data.dvc would mix with them; --no-commit goes on without git."""
    (settings.home / "notes").write_text("x")
    git(settings.home, "add", "notes")
    before = state(settings)
    with pytest.raises(GitError, match="--no-commit"):
        ingest(batches[1], TASK, settings)
    assert state(settings) == before
    result = ingest(batches[1], TASK, settings, commit=False)
    assert result.added and result.commit is None and git(settings.home, "rev-parse", "HEAD") == before[2]


def test_what_an_interrupted_ingest_left_is_mended_by_a_rerun(settings, batches):
    """Killed after the swap, before `dvc add`: the rerun finds the pairs known and records them."""
    home, old = settings.dataset_dir(TASK), data_version(settings)
    with staged(batches[1], home, settings.data_dir / ".incoming" / TASK) as batch:
        swap(batch.folder, home)
    (settings.data_dir / ".incoming" / TASK).mkdir(parents=True)
    result = ingest(batches[1], TASK, settings)
    assert (result.known, result.added) == (2, ()) and result.commit
    assert result.data_version == data_version(settings) != old


def test_a_commit_that_was_left_without_its_tag_gets_it(settings, batches):
    """Killed between commit and tag: the rerun tags that commit, and another rerun has nothing to do."""
    done = ingest(batches[1], TASK, settings)
    git(settings.home, "tag", "--delete", done.tag)
    git(settings.home, "commit", "--allow-empty", "--quiet", "--message", "Something else")
    again = ingest(batches[1], TASK, settings)
    assert (again.commit, again.tag) == (done.commit, done.tag)
    assert git(settings.home, "rev-list", "-n", "1", done.tag) == done.commit
    assert ingest(batches[1], TASK, settings).tag is None


def test_leftovers_of_another_task_are_not_recorded(settings, batches):
    """What a killed ingest left goes before `dvc add` looks at the data folder."""
    before = data_version(settings)
    left = settings.data_dir / ".incoming" / "other-task"
    left.mkdir(parents=True)
    (left / "half.tif").write_bytes(b"half")
    assert ingest(batches[0], TASK, settings, commit=False).data_version == before
    assert not left.exists()


def test_a_dataset_between_two_renames_is_put_back(tmp_path):
    """A kill there leaves it in the folder of leftovers; clearing that never removes the only copy."""
    aside = tmp_path / "data" / ".incoming" / f"{TASK}.before"
    aside.mkdir(parents=True)
    (aside / "card.yaml").write_text("x")
    clear(tmp_path / "data" / ".incoming")
    assert (tmp_path / "data" / TASK / "card.yaml").read_text() == "x"
    assert not (tmp_path / "data" / ".incoming").exists()


def test_a_path_is_no_task(settings, batches, tmp_path):
    """Before anything on disk is touched: that folder survives."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("x")
    for task in (str(precious), "../../precious", "..", "", "Cells", f"{TASK}\n"):
        with pytest.raises(ConfigError, match="task name"):
            ingest(batches[1], task, settings)
    assert (precious / "thesis").read_text() == "x" and not (settings.data_dir / ".incoming").exists()


def test_only_one_ingest_runs_at_a_time(settings, batches):
    """The second is told so at once."""
    with (
        one_at_a_time(settings.mlruns_dir / "locks" / "ingest.lock"),
        pytest.raises(VersionError, match="no other ingest"),
    ):
        ingest(batches[1], TASK, settings)


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
    with pytest.raises(VersionError, match="dvc pull"):
        pull_data(settings)


def test_data_without_dvc_have_no_version(tmp_path):
    """None, not an error; a damaged record is one."""
    settings = Settings.read(home=tmp_path)
    assert data_version(settings) is None
    (tmp_path / "data.dvc").write_text("outs: []\n")
    with pytest.raises(VersionError, match=r"data\.dvc"):
        data_version(settings)


def test_a_swap_that_fails_half_way_leaves_the_dataset_in_its_place(tmp_path, monkeypatch):
    """Planted: no exchange in one step, and the second of the renames fails."""
    new, home = tmp_path / "incoming", tmp_path / "home"
    for folder in (new, home):
        folder.mkdir()
        (folder / folder.name).touch()
    rename = Path.rename

    def failing(path, target):
        if path == new:
            raise OSError("planted")
        return rename(path, target)

    monkeypatch.setattr("flows.staging._exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(StorageError):
        swap(new, home)
    assert (home / "home").exists() and (new / "incoming").exists()
