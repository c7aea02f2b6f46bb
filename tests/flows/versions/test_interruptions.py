"""Ingests that are killed, fail or meet: a version is always whole, and a rerun completes."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from versions_project import TASK, files_of, git, spoil

from cvdm.dataset import load_dataset
from cvdm.errors import StorageError
from cvdm.ledger import load_ledger
from flows.doctor import data as data_findings
from flows.ingest import ingest
from flows.ingest_note import announce
from flows.ingest_result import IngestOptions
from flows.settings import Settings
from flows.staging import clear, staged, swap
from flows.version import VersionError, data_version, ingest_note, one_ingest_at_a_time


def test_what_an_interrupted_ingest_left_is_mended_by_a_rerun(settings, second):
    """Killed after the swap, before `dvc add`: the rerun finds the pairs known and records them."""
    home, old = settings.dataset_dir(TASK), data_version(settings)
    with staged(second, home, settings.data_dir / ".incoming" / TASK, home / "card.yaml") as batch:
        swap(batch.folder, home)
    (settings.data_dir / ".incoming" / TASK).mkdir(parents=True)
    result = ingest(second, TASK, settings)
    assert (result.known, result.added) == (2, ()) and result.commit
    assert result.data_version == data_version(settings) != old


def test_a_ledger_that_was_changed_already_does_not_stop_the_rerun(settings, second, monkeypatch):
    """Killed after the swap where the version has a ledger: the rerun knows what it left, and records it."""
    first = ingest(keep_one(second), TASK, settings, IngestOptions(session="day-2"))
    assert first.added and (settings.dataset_dir(TASK) / "ledger.json").is_file()

    def killed(_settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("flows.ingest.add_to_dvc", killed)
        ingest(second, TASK, settings, IngestOptions(session="day-3"))
    assert data_version(settings) == first.data_version
    assert any("interrupted" in finding.found for finding in data_findings(settings))
    again = ingest(second, TASK, settings, IngestOptions(session="day-3"))
    assert again.commit and again.data_version != first.data_version and not again.added
    assert load_ledger(settings.dataset_dir(TASK)).sessions.keys() >= {"f12_c0", "f13_c0"}
    assert not ingest_note(settings).exists()


def test_a_ledger_that_somebody_else_changed_still_does(settings, second):
    """Planted: another content than the interrupted ingest announced."""
    ingest(keep_one(second), TASK, settings, IngestOptions(session="day-2"))
    ledger = settings.dataset_dir(TASK) / "ledger.json"
    announce(ingest_note(settings), data_version(settings), {f"data/{TASK}/ledger.json": ledger})
    ledger.write_text(ledger.read_text().replace("day-2", "day-9"))
    with pytest.raises(VersionError, match=r"ledger\.json.*--force"):
        ingest(second, TASK, settings)


def keep_one(batch: Path) -> Path:
    """A batch of one of two pairs, beside the whole one."""
    one = batch.with_name("one")
    for side in ("low", "high"):
        (one / side).mkdir(parents=True)
        shutil.copy(batch / side / "f12_c0.tif", one / side)
    return one


def test_a_commit_that_was_left_without_its_tag_gets_it(settings, second):
    """Killed between commit and tag: the rerun tags that commit, and another rerun has nothing to do."""
    done = ingest(second, TASK, settings)
    git(settings.home, "tag", "--delete", done.tag)
    git(settings.home, "commit", "--allow-empty", "--quiet", "--message", "Something else")
    again = ingest(second, TASK, settings)
    assert (again.commit, again.tag) == (done.commit, done.tag)
    assert git(settings.home, "rev-list", "-n", "1", done.tag) == done.commit
    assert ingest(second, TASK, settings).tag is None


def test_leftovers_of_another_task_are_not_recorded(settings, batches):
    """What a killed ingest left goes before `dvc add` looks at the data folder."""
    before = data_version(settings)
    left = settings.data_dir / ".incoming" / "other-task"
    left.mkdir(parents=True)
    (left / "half.tif").write_bytes(b"half")
    assert ingest(batches[0], TASK, settings, IngestOptions(commit=False)).data_version == before
    assert not left.exists()


def test_a_dataset_between_two_renames_is_put_back(tmp_path):
    """A kill there leaves it in the folder of leftovers; clearing that never removes the only copy."""
    aside = tmp_path / "data" / ".incoming" / f"{TASK}.before"
    aside.mkdir(parents=True)
    (aside / "card.yaml").write_text("x")
    clear(tmp_path / "data" / ".incoming")
    assert (tmp_path / "data" / TASK / "card.yaml").read_text() == "x"
    assert not (tmp_path / "data" / ".incoming").exists()


def test_only_one_ingest_runs_at_a_time(settings, second):
    """The second is told so at once."""
    with (
        one_ingest_at_a_time(settings),
        pytest.raises(VersionError, match="no other ingest"),
    ):
        ingest(second, TASK, settings)


def test_a_glance_at_the_lock_refuses_no_ingest(settings):
    """Who looks whether somebody is at work holds it for a moment."""
    looking = threading.Event()

    def glance():
        with one_ingest_at_a_time(settings):
            looking.set()
            time.sleep(0.1)

    with ThreadPoolExecutor(1) as pool:
        seen = pool.submit(glance)
        assert looking.wait(10)
        with one_ingest_at_a_time(settings):
            assert seen.result() is None


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


def test_a_push_that_fails_undoes_nothing_and_a_rerun_pushes(settings, second):
    """The version stands; the result says why it is not shared."""
    remote = settings.home / ".data-remote"
    shutil.rmtree(remote)
    remote.write_text("not a folder")
    result = ingest(second, TASK, settings, IngestOptions(commit=False))
    assert result.accepted and result.added and not result.pushed and "ush" in result.push_problem
    remote.unlink()
    again = ingest(second, TASK, settings, IngestOptions(commit=False))
    assert again.pushed and again.push_problem is None and again.data_version == result.data_version


KILLED = """
import os, signal, sys
from pathlib import Path
import {module} as module
from flows.history import versions
from flows.ingest import ingest
from flows.ingest_result import IngestOptions
from flows.quarantine import quarantine
from flows.settings import Settings

calls = 0
real = module.{name}


def killing(*arguments, **options):
    global calls
    calls += 1
    if calls == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)

module.{name} = killing
options = IngestOptions(session="day-2", push=False)
ingest(Path(sys.argv[1]), {task!r}, Settings.read(home=Path(sys.argv[2])), options)
"""


@pytest.fixture(scope="module")
def uninterrupted(project, batches, tmp_path_factory):
    """What the spoiled second batch comes to when nothing happens to it."""
    root = tmp_path_factory.mktemp("uninterrupted")
    home = Path(shutil.copytree(project[0], root / "project", symlinks=True))
    batch = spoil(Path(shutil.copytree(batches[1], root / "second")))
    return outcome(
        home, batch, ingest(batch, TASK, Settings.read(home=home), IngestOptions(session="day-2", push=False))
    )


def outcome(home, batch, result):
    data, quarantined = files_of(home / "data"), files_of(home / "quarantine")
    return (
        data,
        quarantined,
        files_of(batch),
        result.data_version,
        git(home, "tag"),
        git(home, "status", "--short"),
    )


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        ("flows.ingest", "swap", 1),
        pytest.param("flows.ingest", "add_to_dvc", 1, marks=pytest.mark.slow),
        ("flows.ingest", "commit_record", 1),
        pytest.param("flows.quarantine", "copied", 2, marks=pytest.mark.slow),
        ("flows.quarantine", "removed", 2),
    ],
)
def test_a_kill_at_any_point_leaves_a_version_and_a_rerun_completes(
    settings, batches, tmp_path, uninterrupted, module, name, call
):
    """After kill -9 the dataset is the old or the new one, whole; a rerun makes it as if never killed."""
    batch = spoil(Path(shutil.copytree(batches[1], tmp_path / "second")))
    home = settings.dataset_dir(TASK)
    before = files_of(home)
    script = KILLED.format(module=module, name=name, call=call, task=TASK)
    done = subprocess.run(
        [sys.executable, "-c", script, str(batch), str(settings.home)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    there = files_of(home)
    assert there == before or set(there) - set(before) == {
        "low/f13_c0.tif",
        "high/f13_c0.tif",
        "ledger.json",
    }
    load_dataset(home)
    result = ingest(batch, TASK, settings, IngestOptions(session="day-2", push=False))
    assert outcome(settings.home, batch, result) == uninterrupted
