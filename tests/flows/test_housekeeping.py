"""Housekeeping on a real store: what goes, what never does, and that a backup brings everything back."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import prefect
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Running
from specimens import cells, make_checkpoint, make_dataset

from cvdm.checkpoint import save_checkpoint
from cvdm.errors import ConfigError
from flows.device_lock import device_lock
from flows.housekeeping.addresses import readdress
from flows.housekeeping.backup import back_up, newest
from flows.housekeeping.drill import drill
from flows.housekeeping.flow import housekeeping, reap, retain
from flows.housekeeping.policy import RetentionPolicy, load_retention
from flows.housekeeping.restore import restore
from flows.housekeeping.retain import plan_retention, reasons_to_stay
from flows.housekeeping.snapshot import MANIFEST, BackupError, read_manifest, write_manifest
from flows.promote import audit_references, promote
from flows.registry import MACHINE, RESULT, Registry, RegistryError, Run, Version
from flows.settings import Settings
from flows.train import RUN_NOTE

TASK = "test-cells"
LATER = datetime.now(UTC) + timedelta(days=400)
"""When everything that is made here is old."""
STRICT = RetentionPolicy(keep_versions=1, keep_promoted=1, keep_days=30, keep_states_days=7)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("source") / "checkpoint"
    save_checkpoint(directory, make_checkpoint(seed=1), cells(np.random.default_rng(7), 32))
    return directory


@pytest.fixture
def registry(project_settings) -> Registry:
    return Registry.open(project_settings)


def add_version(registry: Registry, checkpoint: Path, tmp_path: Path, **tags: str) -> tuple[int, Run]:
    """A finished run with a training state among its artifacts, and its version."""
    run = registry.runs.start(TASK, "a run", params={}, tags={})
    state = tmp_path / "state.pt"
    state.write_bytes(b"s" * 1000)
    registry.artifacts.log_file(run.run_id, state, "checkpoints")
    number = registry.models.register(TASK, run, checkpoint, tags)
    registry.runs.finish(run.run_id)
    return number, run


def no_progress(_done: int, _total: int) -> None:
    pass


class TestReaping:
    """Closed and removed is what nobody continues, and nothing else."""

    def test_a_run_without_a_folder_is_closed_with_its_reason(self, project_settings, registry, monkeypatch):
        """It was killed long ago; a person who looks at MLflow sees why it is not RUNNING any more."""
        monkeypatch.setattr("flows.housekeeping.reap.GRACE", timedelta(0))
        run = registry.runs.start(TASK, "dead", params={}, tags={})
        told = reap(project_settings, apply=False)
        assert [one.item.kind for one in told.goes] == ["run"] and "--apply" in told.summary(applied=False)
        assert status(registry, run) == "RUNNING"
        reap(project_settings, apply=True)
        assert status(registry, run) == "KILLED" and "no process" in registry.runs.tags(run.run_id)["reaped"]

    def test_a_killed_retraining_that_can_go_on_stays(self, project_settings, registry, monkeypatch):
        """Its folder names the run: both are left for the same command."""
        monkeypatch.setattr("flows.housekeeping.reap.GRACE", timedelta(0))
        run = registry.runs.start(TASK, "killed", params={}, tags={})
        folder = job_folder(project_settings, f"{TASK}-demo-0123456789ab", run)
        told = reap(project_settings, apply=True)
        assert not told.goes and "can go on" in told.summary(applied=True)
        assert status(registry, run) == "RUNNING" and folder.is_dir()

    def test_what_nobody_went_on_with_for_weeks_goes_with_its_run(
        self, project_settings, registry, monkeypatch
    ):
        """After new data no command asks for the same any more; its state in MLflow goes by retention."""
        monkeypatch.setattr("flows.housekeeping.reap.GRACE", timedelta(0))
        run = registry.runs.start(TASK, "killed", params={}, tags={})
        folder = job_folder(project_settings, f"{TASK}-demo-0123456789ab", run)
        unbegun = project_settings.mlruns_dir / "training" / f"{TASK}-demo-ba9876543210"
        unbegun.mkdir()
        for path in (folder / RUN_NOTE, folder, unbegun):
            os.utime(path, (0, 0))
        told = reap(project_settings, apply=True)
        assert [one.item.kind for one in told.goes] == ["run", "folder", "folder"]
        assert status(registry, run) == "KILLED" and not folder.exists() and not unbegun.exists()

    def test_a_verdict_that_was_looked_at_again_stands(self, project_settings, registry, monkeypatch):
        """Planted: a second judgement was killed and given up; the run is as finished as it was before."""
        monkeypatch.setattr("flows.housekeeping.reap.GRACE", timedelta(0))
        run = registry.runs.start(TASK, "judged", params={}, tags={})
        registry.artifacts.log_json(run.run_id, {}, RESULT)
        reap(project_settings, apply=True)
        assert status(registry, run) == "FINISHED"

    def test_runs_of_another_machine_are_left_to_it(self, project_settings, registry, monkeypatch):
        """Its locks and folders are not here: nobody here knows whether the run lives."""
        monkeypatch.setattr("flows.housekeeping.reap.GRACE", timedelta(0))
        ours = registry.runs.start(TASK, "ours", params={}, tags={MACHINE: project_settings.machine})
        theirs = registry.runs.start(TASK, "theirs", params={}, tags={MACHINE: "box-a:/srv/mlruns"})
        told = reap(project_settings, apply=True)
        assert (status(registry, ours), status(registry, theirs)) == ("KILLED", "RUNNING")
        assert "of box-a" in told.summary(applied=True)

    def test_an_orchestrator_elsewhere_is_left_alone(self, project_settings):
        """Flow runs do not say whose they are."""
        shared = project_settings.model_copy(update={"prefect_url": "http://flows.example/api"})
        assert "other machines may share it" in reap(shared, apply=True).summary(applied=True)

    def test_a_run_that_has_just_begun_stays(self, project_settings, registry):
        """Between the run and its folder lies a moment."""
        run = registry.runs.start(TASK, "young", params={}, tags={})
        reap(project_settings, apply=True)
        assert status(registry, run) == "RUNNING"

    def test_folders_of_finished_jobs_and_copies_of_champions_go(self, project_settings, registry):
        """Killed between its last step and its clearing away; nothing in it is needed."""
        run = registry.runs.start(TASK, "done", params={}, tags={})
        registry.runs.finish(run.run_id)
        done = job_folder(project_settings, f"{TASK}-demo-0123456789ab", run)
        copy = project_settings.mlruns_dir / "training" / f"{TASK}-version-3"
        copy.mkdir()
        (copy / "weights.pt").write_bytes(b"w" * 500)
        plan = reap(project_settings, apply=True)
        assert plan.bytes >= 500 and not done.exists() and not copy.exists()

    def test_nothing_goes_while_somebody_retrains(self, project_settings):
        """The device's lock is the truth, and a removal holds it."""
        copy = project_settings.mlruns_dir / "training" / f"{TASK}-version-3"
        copy.mkdir(parents=True)
        with device_lock(project_settings.mlruns_dir / "locks", "cpu", "retrain test-cells"):
            told = reap(project_settings, apply=True)
            assert not told.goes and "retrain test-cells" in told.summary(applied=True)
        assert copy.is_dir()

    def test_a_flow_run_without_a_process_is_crashed(self, project_settings, prefect_server, monkeypatch):
        """The orchestrator takes it for RUNNING for ever; other people's flows are left alone."""
        monkeypatch.setattr("flows.housekeeping.reap.GRACE", timedelta(0))
        monkeypatch.setattr("flows.housekeeping.reap.answers", lambda _url: True)
        make_dataset(project_settings.dataset_dir(TASK))
        url = PREFECT_API_URL.value()
        own = {"prefect_url": url, "host": urlsplit(url).hostname, "prefect_port": urlsplit(url).port}
        settings = project_settings.model_copy(update=own)

        @prefect.flow
        def orphan() -> None:
            pass

        with get_client(sync_client=True) as client:
            dead, other = (
                client.create_flow_run(orphan, name=name, state=Running()).id
                for name in (f"{TASK} demo", "somebody else's")
            )
            reap(settings, apply=True)
            states = {one: client.read_flow_run(one).state for one in (dead, other)}
        assert states[dead].is_crashed() and "process is gone" in states[dead].message
        assert states[other].is_running()

    def test_a_backup_that_fails_is_told(self, project_settings, prefect_server, tmp_path, monkeypatch):
        """Nobody looks at Prefect's page at night."""
        alerts = tmp_path / "alerts.jsonl"
        monkeypatch.setenv("CVDM_ALERTS", alerts.as_uri())
        monkeypatch.setenv("CVDM_BACKUP_DIR", str(project_settings.home / "backups"))
        assert housekeeping(return_state=True).is_failed()
        (told,) = (json.loads(line) for line in alerts.read_text().splitlines())
        assert (told["event"], told["task"]) == ("failed", "housekeeping") and "outside of" in told["text"]

    def test_housekeeping_by_the_clock_reports_and_backs_up(
        self, project_settings, prefect_server, tmp_path, monkeypatch
    ):
        """What would go is told, a backup is written, nothing is removed unless the settings say so."""
        monkeypatch.setenv("CVDM_BACKUP_DIR", str(tmp_path / "backups"))
        copy = project_settings.mlruns_dir / "training" / f"{TASK}-version-3"
        copy.mkdir(parents=True)
        state = housekeeping(return_state=True)
        assert state.is_completed() and "reap: 1 would go" in state.message and copy.is_dir()
        report = json.loads((project_settings.mlruns_dir / "housekeeping.json").read_text())
        assert report["reap"]["goes"][0]["name"] == copy.name and newest(tmp_path / "backups") is not None


class TestRetention:
    """Old versions go, unless something holds them."""

    def test_what_is_held_stays_however_old(self, registry, checkpoint, tmp_path):
        """Planted temptations: previous, pinned, an ancestor of the champion; one old version goes alone."""
        numbers = [add_version(registry, checkpoint, tmp_path)[0] for _ in range(4)]
        child, _ = add_version(registry, checkpoint, tmp_path, init="champion", init_version=str(numbers[1]))
        add_version(registry, checkpoint, tmp_path)
        for number in (numbers[0], child):
            promote(registry, TASK, number, reasons=("better",), by="gate")
        registry.models.set_tags(TASK, numbers[2], {"pinned": "for the paper"})
        plan = plan_retention(registry, STRICT, LATER)
        going = [one.item.name for one in plan.goes if one.item.kind == "version"]
        assert going == [f"{TASK} {numbers[3]}"]
        reasons = {item.name: item.reason for item in plan.stays}
        assert "previous" in reasons[f"{TASK} {numbers[0]}"]
        assert f"version {child} was fine-tuned from it" in reasons[f"{TASK} {numbers[1]}"]
        assert "for the paper" in reasons[f"{TASK} {numbers[2]}"]

    def test_a_removed_version_leaves_its_run_and_its_neighbours(self, registry, checkpoint, tmp_path):
        """Its files go, its metrics stay, and what serves still loads."""
        (old, run), (champion, _) = (add_version(registry, checkpoint, tmp_path) for _ in range(2))
        registry.runs.log_series(run, [(1, {"loss/total": 0.5})])
        promote(registry, TASK, champion, reasons=("better",), by="gate")
        files = artifacts_of(registry, run)
        assert files.is_dir()
        plan = plan_retention(registry, STRICT, LATER)
        assert plan.bytes > 1000
        plan.apply()
        with pytest.raises(RegistryError):
            registry.models.version(TASK, old)
        assert not files.exists() or not any(path.is_file() for path in files.rglob("*"))
        assert registry.runs.metrics(run.run_id) == {"loss/total": 0.5}
        last = registry.audit.entries()[-1]
        assert (last.action, last.version, last.by) == ("removed", old, "housekeeping")
        assert registry.audit.verify(audit_references(registry)).sound
        assert registry.models.download(TASK, "champion", tmp_path / "copy").is_dir()
        assert not plan_retention(registry, STRICT, LATER).goes

    def test_what_is_chosen_after_the_look_stays(self, registry, checkpoint, tmp_path):
        """A person promotes one and pins another while housekeeping removes the first."""
        gone, promoted, pinned, _ = (add_version(registry, checkpoint, tmp_path)[0] for _ in range(4))
        plan = plan_retention(registry, STRICT, LATER)
        promote(registry, TASK, promoted, reasons=("needed",), by="Ada")
        registry.models.set_tags(TASK, pinned, {"pinned": "for the paper"})
        plan.apply()
        left = [one.number for one in registry.models.versions(TASK)]
        assert promoted in left and pinned in left and gone not in left
        assert registry.models.download(TASK, "champion", tmp_path / "copy").is_dir()

    def test_who_served_once_stays_for_a_rollback_whatever_was_said_later(self):
        """A champion that was judged again, and found neither better nor worse, was promoted all the same."""
        judged_again = {"verdict": "undecided", "promoted_at": "2026-01-02", "decided_at": "2026-03-01"}
        older = {"verdict": "promote", "decided_at": "2026-01-01"}  # from before the time was kept
        versions = [
            replace(version(number, run_id=str(number)), tags=tags)
            for number, tags in ((2, judged_again), (1, older))
        ]
        one, two = (RetentionPolicy(0, count, 1, 1) for count in (1, 2))
        assert list(reasons_to_stay(versions, one, frozenset(), LATER)) == [2]
        assert list(reasons_to_stay(versions, two, frozenset(), LATER)) == [2, 1]

    def test_an_interrupted_removal_is_ended_the_next_time(self, registry, checkpoint, tmp_path, monkeypatch):
        """Planted: the process dies when the files are gone and the version is still registered."""
        (old, run), _ = (add_version(registry, checkpoint, tmp_path) for _ in range(2))
        with monkeypatch.context() as patch:
            patch.setattr(registry.cleaning._client, "delete_model_version", dying)
            with pytest.raises(KeyboardInterrupt):
                plan_retention(registry, STRICT, LATER).apply()
        assert not artifacts_of(registry, run).exists()
        plan_retention(registry, STRICT, LATER).apply()
        assert old not in [one.number for one in registry.models.versions(TASK)]

    def test_training_states_go_before_versions(self, registry, checkpoint, tmp_path):
        """After two weeks the state of a finished run is of no use, its weights are registered."""
        number, run = add_version(registry, checkpoint, tmp_path)
        soon = datetime.now(UTC) + timedelta(days=8)
        plan = plan_retention(registry, STRICT, soon)
        assert [one.item.kind for one in plan.goes] == ["training state"] and plan.bytes == 1000
        plan.apply()
        assert not registry.artifacts.holds(run.run_id, "checkpoints/state.pt")
        assert registry.models.version(TASK, number).number == number

    def test_by_default_nothing_young_goes(self, project_settings, registry, checkpoint, tmp_path):
        """Dry or not: the shipped policy keeps three months."""
        for _ in range(2):
            add_version(registry, checkpoint, tmp_path)
        assert not retain(project_settings, apply=True).goes

    def test_an_open_run_keeps_its_version(self):
        """A retraining that was killed after it had registered goes on with that version."""
        old = version(1, run_id="open")
        policy = RetentionPolicy(0, 0, 1, 1)
        assert "not finished" in reasons_to_stay([old], policy, frozenset({"open"}), LATER)[1]
        assert reasons_to_stay([old], policy, frozenset(), LATER) == {}

    def test_a_policy_of_nonsense_is_refused(self, tmp_path):
        """By the name of its key."""
        params = tmp_path / "params.yaml"
        params.write_text("retention: {keep_days: -1}\n")
        with pytest.raises(ConfigError, match=r"retention\.keep_days"):
            load_retention(params)


class TestBackup:
    """A whole backup brings the platform back; one that is not whole says so."""

    @pytest.fixture
    def backup(self, project_settings, registry, checkpoint, tmp_path) -> Path:
        number, _ = add_version(registry, checkpoint, tmp_path)
        promote(registry, TASK, number, reasons=("better",), by="gate")
        return back_up(project_settings, tmp_path / "backups", no_progress)[0]

    def test_the_drill_replays_champions_from_the_backup_alone(self, backup, project_settings):
        """The original is away, so that no address can lead there."""
        shutil.rmtree(project_settings.mlruns_dir)
        found = drill(backup, no_progress)
        assert found.passed, found.summary()
        told = found.summary()
        assert (
            f"{TASK} version 1" in told
            and "1 entries, unbroken" in told
            and "brings the platform back" in told
        )

    def test_what_is_restored_is_a_platform(self, backup, project_settings, tmp_path):
        """Registry, files and parameters at another place."""
        shutil.rmtree(project_settings.mlruns_dir)
        home = tmp_path / "elsewhere"
        restore(backup, home, no_progress)
        shutil.copy(project_settings.home / "pyproject.toml", home)
        again = Registry.open(Settings.read(home=home))
        assert again.models.champion(TASK) == 1
        assert again.models.download(TASK, "champion", tmp_path / "copy").is_dir()
        assert (home / "params.yaml").read_text() == project_settings.params_file.read_text()

    def test_a_folder_with_something_in_it_is_not_written_over(self, backup, tmp_path):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.txt").write_text("mine")
        with pytest.raises(BackupError, match="empty or new folder"):
            restore(backup, tmp_path / "full", no_progress)

    @pytest.mark.parametrize(
        ("damage", "words"),
        [("flip", "other content"), ("lose", "is missing"), ("cut", "instead of"), ("add", "belong here")],
    )
    def test_damage_is_found_and_named(self, backup, damage, words):
        """A flipped byte, a lost file, a database that ends too early, a file that nobody wrote."""
        weights = next(backup.rglob("weights.pt"))
        if damage == "flip":
            content = bytearray(weights.read_bytes())
            content[100] ^= 1
            weights.write_bytes(content)
        elif damage == "lose":
            weights.unlink()
        elif damage == "cut":
            database = backup / "mlflow.db"
            database.write_bytes(database.read_bytes()[:-4096])
        else:
            (backup / "artifacts" / "extra.bin").write_bytes(b"?")
        found = drill(backup, no_progress)
        assert not found.passed and words in found.summary() and "of no use" in found.summary()

    def test_an_edited_audit_log_fails_the_drill(self, backup, project_settings, tmp_path):
        """Its checksum holds, because it was edited before the backup."""
        log = project_settings.audit_file
        log.write_text(log.read_text().replace('"better"', '"bribed"'))
        edited, _ = back_up(project_settings, tmp_path / "more", no_progress)
        found = drill(edited, no_progress)
        assert [proof.step for proof in found.proofs if not proof.passed] == ["audit log"]

    def test_an_interrupted_backup_is_none(self, backup):
        """The manifest is written last."""
        (backup / MANIFEST).unlink()
        with pytest.raises(BackupError, match="interrupted"):
            drill(backup, no_progress)
        assert newest(backup.parent) is None

    def test_a_registry_whose_files_are_elsewhere_is_not_called_whole(
        self, backup, project_settings, registry, tmp_path
    ):
        """Planted: the artifacts were moved and the registry was not told; then it is, and all is well."""
        before = Path(project_settings.artifact_root)
        moved = project_settings.model_copy(update={"artifact_root": str(tmp_path / "larger-disk")})
        shutil.move(before, moved.artifact_root)
        with pytest.raises(BackupError, match=f"addresses elsewhere.*readdress {before}`"):
            back_up(moved, tmp_path / "more", no_progress)
        assert not drill(forged(backup, tmp_path), no_progress).passed
        with pytest.raises(BackupError, match=str(before)):
            readdress(moved, tmp_path / "nowhere")
        assert readdress(moved, before) > 0
        assert registry.models.download(TASK, "champion", tmp_path / "copy").is_dir()
        assert drill(back_up(moved, tmp_path / "more", no_progress)[0], no_progress).passed

    def test_a_spoiled_copy_is_not_handed_on(self, backup, project_settings, capfd):
        """Planted: a byte of an old backup flips on its disk; the new one has the original's, and says so."""
        weights = next(backup.rglob("weights.pt"))
        times = weights.stat()
        content = bytearray(weights.read_bytes())
        content[100] ^= 1
        weights.write_bytes(content)
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
        later, _ = back_up(
            project_settings, backup.parent, no_progress, datetime.now(UTC) + timedelta(hours=1)
        )
        assert drill(later, no_progress).passed and not drill(backup, no_progress).passed
        assert "1 files of" in capfd.readouterr().err

    def test_what_goes_while_it_is_copied_ends_no_backup(self, project_settings, registry, tmp_path):
        """Planted: a trigger is answered between the list of files and its copy."""
        pending = project_settings.mlruns_dir / "triggers" / "pending" / "cells.json"
        pending.parent.mkdir(parents=True)
        pending.write_text("{}")

        def answered(_done: int, _total: int) -> None:
            pending.unlink(missing_ok=True)

        (project_settings.mlruns_dir / "audit.jsonl").touch()  # is copied before
        target, manifest = back_up(project_settings, tmp_path / "backups", answered)
        assert not any("pending" in name for name in manifest.files)
        assert read_manifest(target).files == manifest.files

    def test_a_folder_of_backups_is_answered_with_the_newest(self, backup):
        """It is no backup itself, and nothing is wrong with those in it."""
        with pytest.raises(BackupError, match="a folder of 1") as raised:
            drill(backup.parent, no_progress)
        assert backup.name in raised.value.remedy

    def test_a_backup_inside_the_project_is_refused(self, project_settings):
        """It would go with what it is a backup of, and git would see it."""
        for inside in (project_settings.home, project_settings.home / "backups"):
            with pytest.raises(BackupError, match="outside of"):
                back_up(project_settings, inside, no_progress)
        assert not (project_settings.home / "backups").exists()

    def test_a_second_backup_shares_what_has_not_changed(self, backup, project_settings, tmp_path):
        """Artifacts are linked; each backup is whole by itself."""
        later, manifest = back_up(
            project_settings, backup.parent, no_progress, datetime.now(UTC) + timedelta(hours=1)
        )
        weights = next(backup.rglob("weights.pt"))
        assert (later / weights.relative_to(backup)).stat().st_ino == weights.stat().st_ino
        shutil.rmtree(backup)
        assert drill(later, no_progress).passed
        assert manifest.bytes > 0

    def test_the_copy_of_the_database_is_consistent_while_it_is_written(self, backup):
        """SQLite's own backup: the copy passes its integrity check."""
        connection = sqlite3.connect(backup / "mlflow.db")
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        connection.close()

    def test_a_store_elsewhere_is_refused_with_what_to_do(self, project_settings, tmp_path):
        remote = project_settings.model_copy(update={"tracking_uri": "postgresql://user:secret@host/db"})
        with pytest.raises(BackupError, match="pg_dump") as refusal:
            back_up(remote, tmp_path, no_progress)
        assert "secret" not in str(refusal.value)


def forged(backup: Path, tmp_path: Path) -> Path:
    """A copy of a backup whose manifest names another folder of artifacts than its database does."""
    copy = shutil.copytree(backup, tmp_path / "forged" / backup.name)
    write_manifest(copy, replace(read_manifest(copy), artifact_root=str(tmp_path / "empty")))
    return copy


def dying(*_arguments: object) -> None:
    raise KeyboardInterrupt


def status(registry: Registry, run: Run) -> str:
    return next(one.status for one in registry.cleaning.runs() if one.run_id == run.run_id)


def job_folder(settings: Settings, name: str, run: Run) -> Path:
    folder = settings.mlruns_dir / "training" / name
    folder.mkdir(parents=True)
    (folder / RUN_NOTE).write_text(json.dumps({"run_id": run.run_id}))
    return folder


def artifacts_of(registry: Registry, run: Run) -> Path:
    """Where the files of a run's model lie."""
    return Path(registry.cleaning._repository(run.model_id).artifact_dir)


def version(number: int, *, run_id: str, aliases: Sequence[str] = ()) -> Version:
    return Version(TASK, number, run_id, "m", 0, tuple(aliases), {})
