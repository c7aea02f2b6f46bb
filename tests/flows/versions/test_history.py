"""Versions of the data listed, compared and brought back, on real git and DVC."""

from __future__ import annotations

import shutil

import pytest
from versions_project import TASK, git

from cvdm.dataset import load_dataset
from flows.checkout import checkout
from flows.device_lock import BusyError, device_lock
from flows.history import difference, files_of_version, history_table, require_version, versions
from flows.ingest import ingest
from flows.ingest_result import IngestOptions
from flows.launch import launch
from flows.settings import Settings
from flows.version import VersionError, run_dvc


@pytest.fixture(scope="module")
def grown(project, batches, tmp_path_factory):
    """A project with two versions: twelve fields, then fourteen."""
    root = tmp_path_factory.mktemp("grown")
    home = shutil.copytree(project[0], root / "project", symlinks=True)
    batch = shutil.copytree(batches[1], root / "second")
    result = ingest(batch, TASK, Settings.read(home=home), IngestOptions(session="day-2"))
    return home, project[1], result


@pytest.fixture
def settings(grown, tmp_path):
    """A copy to go back and forth in."""
    return Settings.read(home=shutil.copytree(grown[0], tmp_path / "project", symlinks=True))


def test_versions_are_listed_newest_first(settings, grown):
    """Each with its commit and tag; the present one is marked."""
    _, first, second = grown
    found = versions(settings)
    assert [one.version for one in found] == [second.data_version, first.data_version]
    assert [one.commit for one in found] == [second.commit, first.commit]
    assert found[0].tags == (second.tag,) and found[0].present and not found[1].present
    assert found[0].files == found[1].files + 5  # four images and the ledger
    assert [line[0] for line in history_table(found).splitlines()] == [" ", "*", " "]


def test_what_a_version_added_is_named(settings, grown):
    """Pairs by their names, once for both images, in either direction and between any two versions."""
    _, first, second = grown
    found = difference(settings, None, None)
    assert found.added == {TASK: ("f12_c0", "f13_c0", "ledger.json")} and not found.removed
    back = difference(settings, second.tag, first.commit[:10])
    assert back.removed == found.added and not back.added and not back.changed
    assert "no difference" in difference(settings, first.tag, first.tag).summary()


def test_a_retraining_of_another_version_than_asked_for_is_refused(settings, grown):
    """By any name of a version; the remedy brings it back. A file that is gone makes it another one, too."""
    _, first, second = grown
    require_version(settings, second.tag)
    with pytest.raises(VersionError) as raised:
        launch(settings, TASK, "smoke", data_version=first.data_version[:8])
    assert f"cvdm data checkout {first.data_version[:8]}" in raised.value.remedy
    (settings.dataset_dir(TASK) / "low" / "f03_c0.tif").unlink()
    with pytest.raises(VersionError, match="f03_c0"):
        require_version(settings, second.tag)


def test_versions_that_only_the_remote_has_are_compared(settings, grown):
    """As on a fresh clone: an empty cache does not look like no difference."""
    shutil.rmtree(settings.home / ".dvc" / "cache")
    shutil.rmtree(settings.mlruns_dir, ignore_errors=True)
    assert difference(settings, None, None).added == {TASK: ("f12_c0", "f13_c0", "ledger.json")}


def test_an_earlier_version_comes_back_and_goes_again(settings, grown):
    """The dataset is the one of that version, bit for bit; the record is a commit of its own."""
    _, first, second = grown
    for version, result in ((first.data_version[:8], first), (second.tag, second)):
        found, commit = checkout(settings, version)
        assert found.version == result.data_version
        assert commit == git(settings.home, "rev-parse", "HEAD")
        assert load_dataset(settings.dataset_dir(TASK)).digest == result.dataset_digest
        assert git(settings.home, "status", "--porcelain") == ""
    assert checkout(settings, second.tag)[1] is None  # there already
    assert [one.version for one in versions(settings)][:2] == [second.data_version, first.data_version]


def test_content_that_only_the_remote_has_is_pulled(settings, grown):
    """As on a fresh clone, whose cache is empty."""
    shutil.rmtree(settings.home / ".dvc" / "cache")
    checkout(settings, grown[1].tag, commit=False)
    assert load_dataset(settings.dataset_dir(TASK)).digest == grown[1].dataset_digest


@pytest.mark.parametrize("lost", ["the list of its files", "one of its files"])
def test_a_version_that_is_lost_is_refused_before_anything_is_touched(settings, grown, monkeypatch, lost):
    """Planted: neither cache nor remote hold it. No file of the data goes, not even for a moment."""
    checkout(settings, grown[1].tag, commit=False)
    gone = grown[2].data_version
    if lost == "one of its files":
        there, here = (set(files_of_version(settings, one).values()) for one in versions(settings)[:2])
        gone = min(there - here)
    lose(settings, gone)
    status = git(settings.home, "status", "--porcelain")
    before = {path: path.stat().st_ino for path in settings.data_dir.rglob("*.tif")}
    asked = []
    monkeypatch.setattr(
        "flows.checkout.run_dvc", lambda _, *words: asked.append(words[0]) or run_dvc(_, *words)
    )
    with pytest.raises(VersionError, match="in DVC's cache or remote"):
        checkout(settings, grown[2].tag, commit=False)
    assert "checkout" not in asked and "pull" not in asked
    assert {path: path.stat().st_ino for path in settings.data_dir.rglob("*.tif")} == before
    assert git(settings.home, "status", "--porcelain") == status


def test_a_version_that_this_machine_has_lost_is_marked_and_named(settings, grown):
    """Planted: as in a clone whose remote never got it. With a remote elsewhere nobody can tell from here."""
    assert [one.held for one in versions(settings)] == [True, True]
    lose(settings, grown[1].data_version)
    found = versions(settings)
    assert [one.held for one in found] == [True, False]
    assert ["lost" in line for line in history_table(found).splitlines()] == [False, False, True]
    with pytest.raises(VersionError, match="in DVC's cache or remote") as raised:
        difference(settings, None, None)
    assert grown[1].data_version[:8] in raised.value.expected and "dvc push" in raised.value.remedy
    run_dvc(settings, "remote", "add", "--default", "--force", "far", "s3://bucket/data")
    assert [one.held for one in versions(settings)] == [True, None]
    assert "lost" not in history_table(versions(settings))


def lose(settings: Settings, md5: str) -> None:
    """Take content from the cache and the remote of a project."""
    for store in (settings.home / ".dvc" / "cache", settings.home / ".data-remote"):
        for file in store.rglob(f"{md5[2:]}*"):
            file.unlink()
    shutil.rmtree(settings.mlruns_dir / "dvc", ignore_errors=True)  # what DVC remembers of it


def test_no_checkout_under_a_retraining(settings, grown):
    """Which reads the data: it is refused, and says who is at work."""
    with (
        device_lock(settings.mlruns_dir / "locks", "cpu", "retrain test-cells"),
        pytest.raises(BusyError, match="'retrain test-cells' in process"),
    ):
        checkout(settings, grown[1].tag)
    checkout(settings, grown[1].tag)


def test_unrecorded_data_are_never_overwritten(settings, grown):
    """A file that no version holds stops the checkout, and nothing has changed."""
    extra = settings.dataset_dir(TASK) / "low" / "new.tif"
    extra.write_bytes(b"precious")
    with pytest.raises(VersionError, match="some version holds"):
        checkout(settings, grown[1].tag)
    assert extra.read_bytes() == b"precious"
    assert versions(settings)[0].present


def test_an_empty_cache_hides_no_unrecorded_data(settings, grown):
    """What nobody has recorded is seen although DVC has forgotten what was."""
    shutil.rmtree(settings.home / ".dvc" / "cache")
    extra = settings.dataset_dir(TASK) / "low" / "new.tif"
    extra.write_bytes(b"precious")
    with pytest.raises(VersionError, match="some version holds"):
        checkout(settings, grown[1].tag)
    assert extra.read_bytes() == b"precious"


def test_a_checkout_that_was_killed_is_completed(settings, grown):
    """Killed when the record was the new one and half of the files were gone: either version can be had."""
    home = settings.home
    git(home, "restore", "--source", grown[1].commit, "--worktree", "--", "data.dvc")
    (settings.dataset_dir(TASK) / "low" / "f12_c0.tif").unlink()
    (settings.dataset_dir(TASK) / "low" / "f03_c0.tif").unlink()
    for result in grown[1:]:
        checkout(settings, result.tag, commit=False)
        assert load_dataset(settings.dataset_dir(TASK)).digest == result.dataset_digest


def test_an_unknown_version_is_answered_with_the_known_ones(settings, grown):
    """So is too short a name, which would fit many."""
    for name in ("no-such", grown[1].data_version[:2], ""):
        with pytest.raises(VersionError) as raised:
            checkout(settings, name)
        assert grown[1].tag in raised.value.remedy


def test_without_git_there_is_no_history(tmp_path):
    """A copy of the data without its repository says so."""
    with pytest.raises(VersionError, match="git checkout"):
        versions(Settings.read(home=tmp_path))
