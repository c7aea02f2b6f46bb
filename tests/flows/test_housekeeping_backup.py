"""What a backup holds beside runs and models: keys, refused pairs, parameters and cards."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from specimens import make_dataset

from flows.cli import app
from flows.housekeeping.backup import back_up
from flows.housekeeping.drill import drill
from flows.housekeeping.restore import restore
from flows.housekeeping.snapshot import LEFT_OUT, BackupError, Manifest
from flows.registry import Registry
from flows.settings import Settings
from service.keys import Keys

TASK = "test-cells"
LATER = datetime.now(UTC) + timedelta(hours=1)


def no_progress(_done: int, _total: int) -> None:
    pass


def backed_up(settings: Settings, tmp_path: Path, now: datetime | None = None) -> Path:
    return back_up(settings, tmp_path / "backups", no_progress, now)[0]


def restored(backup: Path, tmp_path: Path) -> tuple[Path, Manifest]:
    home = tmp_path / "restored"
    return home, restore(backup, home, no_progress)


def proof(backup: Path, step: str) -> tuple[bool, str]:
    """What the drill says of one step, and whether it passed."""
    found = drill(backup, no_progress)
    (one,) = [one for one in found.proofs if one.step == step]
    return one.passed, one.detail


class TestKeys:
    """The service's keys open the restored service, and nobody else can read them."""

    @pytest.mark.parametrize("place", ["keys.db", "elsewhere/of-users.db"])
    def test_a_key_opens_after_a_restore(self, project_settings, tmp_path, place):
        """Made before the backup, with its quota's count and its calls; the file may lie elsewhere."""
        settings = project_settings.model_copy(update={"keys_file": project_settings.mlruns_dir / place})
        keys = Keys(settings.keys_file)
        secret = keys.create("ann")
        keys.spend(keys.who(secret), images=3, pixels=30)
        backup = backed_up(settings, tmp_path)
        assert proof(backup, "keys") == (True, "1 of the service")
        home, _ = restored(backup, tmp_path)
        again = Keys(home / "mlruns" / "keys.db")
        assert again.who(secret).name == "ann"

    def test_it_is_copied_whole_while_the_service_writes(self, project_settings, tmp_path):
        """Planted: a connection that holds what is not in the main file yet, as in WAL mode."""
        keys = Keys(project_settings.keys_file)
        keys.create("ann")
        writer = sqlite3.connect(keys.path)
        writer.execute("pragma wal_autocheckpoint = 0")
        late = keys.create("late")
        backup = backed_up(project_settings, tmp_path)
        writer.close()
        assert not list(backup.glob("keys.db-*"))
        home, _ = restored(backup, tmp_path)
        assert Keys(home / "mlruns" / "keys.db").who(late) is not None

    def test_the_copy_is_as_private_as_the_original(self, project_settings, tmp_path):
        """Names and calls are nobody's business, in the backup and where it is restored."""
        Keys(project_settings.keys_file).create("ann")
        backup = backed_up(project_settings, tmp_path)
        home, _ = restored(backup, tmp_path)
        for path in (backup / "keys.db", home / "mlruns" / "keys.db"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_without_keys_there_is_no_file_of_keys(self, project_settings, tmp_path):
        """An empty one would close the service to everybody."""
        backup = backed_up(project_settings, tmp_path)
        assert proof(backup, "keys") == (True, "none in this backup")
        home, _ = restored(backup, tmp_path)
        assert not (home / "mlruns" / "keys.db").exists()

    def test_keys_that_were_damaged_before_the_backup_fail_the_drill(self, project_settings, tmp_path):
        """Their checksum holds, their table does not."""
        Keys(project_settings.keys_file).create("ann")
        with sqlite3.connect(project_settings.keys_file) as connection:
            connection.execute("drop table keys")
        connection.close()
        passed, told = proof(backed_up(project_settings, tmp_path), "keys")
        assert not passed and "keys.db" in told


class TestQuarantine:
    """Refused pairs were moved there: it may be their only copy."""

    @pytest.fixture
    def refused(self, project_settings) -> Path:
        """One batch of one refused pair."""
        folder = project_settings.home / "quarantine" / TASK / "day-2"
        for side in ("low", "high"):
            (folder / side).mkdir(parents=True)
            (folder / side / "f12_c0.tif").write_bytes(side.encode())
        (folder / "reasons.json").write_text(json.dumps([{"name": "f12_c0"}]))
        return folder

    def test_refused_pairs_come_back_with_their_reasons(self, project_settings, refused, tmp_path):
        """Byte for byte, at their place."""
        backup = backed_up(project_settings, tmp_path)
        assert proof(backup, "quarantine") == (True, "2 images in 1 batch")
        home, _ = restored(backup, tmp_path)
        again = home / refused.relative_to(project_settings.home)
        assert (again / "low" / "f12_c0.tif").read_bytes() == b"low"
        assert (again / "high" / "f12_c0.tif").read_bytes() == b"high"
        assert json.loads((again / "reasons.json").read_text()) == [{"name": "f12_c0"}]

    def test_reasons_that_cannot_be_read_fail_the_drill(self, project_settings, refused, tmp_path):
        (refused / "reasons.json").write_text('[{"name"')
        passed, told = proof(backed_up(project_settings, tmp_path), "quarantine")
        assert not passed and "day-2" in told


class TestParametersAndCards:
    """They are where the settings say, not where the project has them by default."""

    def test_those_that_lie_outside_of_the_project_come_to_their_usual_place(
        self, project_settings, tmp_path, monkeypatch
    ):
        """The drill looks at the restored ones, although the environment still names the others."""
        outside = tmp_path / "outside"
        make_dataset(outside / "images" / TASK, fields=1)
        params = outside / "ours.yaml"
        params.write_text(project_settings.params_file.read_text() + "# ours\n")
        monkeypatch.setenv("CVDM_PARAMS_FILE", str(params))
        monkeypatch.setenv("CVDM_DATA_DIR", str(outside / "images"))
        monkeypatch.setenv("CVDM_KEYS_FILE", str(outside / "keys.db"))
        backup = backed_up(Settings.read(), tmp_path)
        card = (outside / "images" / TASK / "card.yaml").read_text()
        shutil.rmtree(outside)
        assert proof(backup, "parameters and cards") == (True, "parameters, cards of test-cells")
        home, manifest = restored(backup, tmp_path)
        assert (home / "params.yaml").read_text().endswith("# ours\n")
        assert (home / "data" / TASK / "card.yaml").read_text() == card
        assert (manifest.params_file, manifest.data_dir) == ("params.yaml", "data")

    def test_those_that_lie_elsewhere_in_the_project_stay_there(self, project_settings, tmp_path):
        """And with the cards the record of the data, which names their folder."""
        home = project_settings.home
        make_dataset(home / "sets" / "images" / TASK, fields=1)
        (home / "sets" / "images.dvc").write_text("outs: [{md5: abc.dir, path: images}]\n")
        (home / "sets" / "own.yaml").write_text(project_settings.params_file.read_text())
        places = {"data_dir": home / "sets" / "images", "params_file": home / "sets" / "own.yaml"}
        backup = backed_up(project_settings.model_copy(update=places), tmp_path)
        assert proof(backup, "parameters and cards")[0]
        again, manifest = restored(backup, tmp_path)
        assert (manifest.params_file, manifest.data_dir) == ("sets/own.yaml", "sets/images")
        for name in ("own.yaml", "images.dvc", f"images/{TASK}/card.yaml"):
            assert (again / "sets" / name).is_file(), name

    def test_a_backup_without_parameters_fails_the_drill(self, project_settings, tmp_path):
        """As those do that were made before the settings were asked where they lie."""
        project_settings.params_file.unlink()
        passed, told = proof(backed_up(project_settings, tmp_path), "parameters and cards")
        assert not passed and "params.yaml" in told

    def test_a_card_that_cannot_be_read_fails_the_drill(self, project_settings, tmp_path):
        card = project_settings.data_dir / TASK / "card.yaml"
        card.parent.mkdir(parents=True)
        card.write_text("task: [")
        passed, told = proof(backed_up(project_settings, tmp_path), "parameters and cards")
        assert not passed and TASK in told

    def test_a_manifest_of_before_is_read(self, project_settings, tmp_path):
        """Parameters and cards were at their usual places then."""
        backup = backed_up(project_settings, tmp_path)
        manifest = json.loads((backup / "manifest.json").read_text())
        del manifest["params_file"], manifest["data_dir"]
        (backup / "manifest.json").write_text(json.dumps(manifest))
        assert drill(backup, no_progress).passed


class TestWhatChanges:
    """Training states and the gate's page are replaced: a backup has what was there, the next one the new."""

    @pytest.fixture
    def state(self, project_settings, tmp_path) -> Path:
        """The training state among the artifacts of a run that is under way."""
        registry = Registry.open(project_settings)
        run = registry.runs.start(TASK, "a run", params={}, tags={})
        self.log(registry, run.run_id, b"old", tmp_path)
        return next(Path(project_settings.artifact_root).rglob("state.pt"))

    def log(self, registry: Registry, run_id: str, content: bytes, tmp_path: Path) -> None:
        file = tmp_path / "state.pt"
        file.write_bytes(content)
        registry.artifacts.log_file(run_id, file, "checkpoints")

    def copy_of(self, state: Path, backup: Path, settings: Settings) -> bytes:
        return (backup / "artifacts" / state.relative_to(settings.artifact_root)).read_bytes()

    def test_a_replaced_artifact_of_the_same_size_is_copied_anew(self, project_settings, state, tmp_path):
        """By the platform's own way; the earlier backup keeps what it had."""
        before = backed_up(project_settings, tmp_path)
        run_id = state.parent.parent.parent.name
        self.log(Registry.open(project_settings), run_id, b"new", tmp_path)
        after = backed_up(project_settings, tmp_path, LATER)
        assert self.copy_of(state, before, project_settings) == b"old"
        assert self.copy_of(state, after, project_settings) == b"new"

    def test_one_that_is_replaced_while_it_is_copied_is_copied_anew_the_next_time(
        self, project_settings, state, tmp_path, monkeypatch
    ):
        """Planted: replaced between its content and its time, so that the copy would pass for the new."""
        copyfile = shutil.copyfile

        def overtaken(source: str | Path, target: str | Path, **options: bool) -> object:
            done = copyfile(source, target, **options)
            if Path(source) == state:
                new = state.with_name(".new")
                new.write_bytes(b"new")
                new.replace(state)
            return done

        with monkeypatch.context() as patch:
            patch.setattr(shutil, "copyfile", overtaken)
            first = backed_up(project_settings, tmp_path)
        assert self.copy_of(state, first, project_settings) == b"old"
        after = backed_up(project_settings, tmp_path, LATER)
        assert self.copy_of(state, after, project_settings) == b"new"

    def test_what_is_not_whole_yet_is_left_out(self, project_settings, state, tmp_path):
        """MLflow writes it beside its place and moves it there; by the time of the copy it may be gone."""
        state.with_name(".artifact.uploading.x7").write_bytes(b"ne")
        backup = backed_up(project_settings, tmp_path)
        assert [path.name for path in backup.rglob("*uploading*")] == []
        assert self.copy_of(state, backup, project_settings) == b"old"


def test_damaged_keys_are_no_backup(project_settings, tmp_path):
    """A file that is no database is told at once, not at three in the morning of the restore."""
    project_settings.keys_file.write_bytes(b"no database" * 500)
    with pytest.raises(BackupError, match=r"keys\.db"):
        backed_up(project_settings, tmp_path)


def test_what_is_left_out_is_told(project_settings, tmp_path, capfd):
    """By the command, for people and for programs."""
    run_cvdm("housekeeping", "backup", tmp_path / "backups")
    told = capfd.readouterr().out
    assert all(what in told for what in LEFT_OUT) and "CVDM_JOBS_DIR" in told
    run_cvdm("housekeeping", "backup", tmp_path / "more", "--json")
    assert json.loads(capfd.readouterr().out)["left_out"] == list(LEFT_OUT)


def run_cvdm(*arguments: object) -> None:
    with pytest.raises(SystemExit) as end:
        app([str(argument) for argument in arguments])
    assert not end.value.code
