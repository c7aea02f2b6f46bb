"""Ingest: good pairs become a version, bad ones go to quarantine, nothing is lost. Real DVC, real git."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from specimens import cells, make_dataset, noisy
from versions_project import TASK, dvc, empty_project, git

from cvdm.card import Card, Split, load_card
from cvdm.dataset import dataset_digest, load_dataset, split_of
from cvdm.errors import ConfigError, DatasetError, StorageError
from cvdm.images import write_tiff
from cvdm.ledger import Ledger, load_ledger, write_ledger
from flows.history import versions
from flows.ingest import ingest
from flows.ingest_result import IngestOptions
from flows.new_card import example, write_card
from flows.quarantine import quarantine
from flows.settings import Settings
from flows.staging import clear, staged, swap
from flows.validation import Finding
from flows.validation.dealing import balanced_split
from flows.validation.one_pair import PairFiles
from flows.version import VersionError, data_version, one_ingest_at_a_time
from flows.version_control import GitError

DATA = Path(__file__).parents[3] / "data"


def files_of(*roots):
    """Every file below some folders, by its path within them, with its bytes."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for root in roots
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def splits_in(root):
    """By field, its split as training will see it."""
    dataset = load_dataset(root)
    return {pair.field: split_of(pair.field, dataset.card) for pair in dataset.pairs}


def state(settings):
    """Everything that a refused ingest must leave as it was."""
    files = {path: path.read_bytes() for path in settings.data_dir.rglob("*") if path.is_file()}
    return files, data_version(settings), git(settings.home, "rev-parse", "HEAD")


def test_a_new_task_becomes_a_version_with_a_commit_and_a_tag(project):
    """Pairs and card are in place, pushed, committed with the remote inside the checkout, and tagged."""
    home, result = project
    assert len(result.added) == 12 and result.known == 0
    assert result.dataset_digest == dataset_digest(load_dataset(home / "data" / TASK))
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


def test_what_an_interrupted_ingest_left_is_mended_by_a_rerun(settings, second):
    """Killed after the swap, before `dvc add`: the rerun finds the pairs known and records them."""
    home, old = settings.dataset_dir(TASK), data_version(settings)
    with staged(second, home, settings.data_dir / ".incoming" / TASK, home / "card.yaml") as batch:
        swap(batch.folder, home)
    (settings.data_dir / ".incoming" / TASK).mkdir(parents=True)
    result = ingest(second, TASK, settings)
    assert (result.known, result.added) == (2, ()) and result.commit
    assert result.data_version == data_version(settings) != old


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


def test_a_path_is_no_task(settings, second, tmp_path):
    """Before anything on disk is touched: that folder survives."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").write_text("x")
    for task in (str(precious), "../../precious", "..", "", "Cells", f"{TASK}\n"):
        with pytest.raises(ConfigError, match="task name"):
            ingest(second, task, settings)
    assert (precious / "thesis").read_text() == "x" and not (settings.data_dir / ".incoming").exists()


def test_only_one_ingest_runs_at_a_time(settings, second):
    """The second is told so at once."""
    with (
        one_ingest_at_a_time(settings),
        pytest.raises(VersionError, match="no other ingest"),
    ):
        ingest(second, TASK, settings)


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


def spoil(batch):
    """Damage two of the pairs of a batch, one of them in both ways that a pair can be damaged."""
    (batch / "low" / "f12_c0.tif").write_bytes(b"II*\0 cut off")
    shutil.copy(batch / "low" / "f13_c0.tif", batch / "low" / "f14_c0.tif")  # without a target
    return batch


def test_bad_pairs_go_to_quarantine_and_good_ones_come_in(settings, second):
    """Nothing is lost: each file of the batch is in the data or in quarantine, beside its reason."""
    before = files_of(spoil(second))
    result = ingest(second, TASK, settings, IngestOptions(session="day-2"))
    assert not result.accepted and result.added == ("f13_c0",)
    assert {(one.name, one.check) for one in result.rejected} == {
        ("f12_c0", "readable"),
        ("f14_c0", "complete"),
    }
    folder = settings.home / "quarantine" / TASK / "day-2"
    aside = files_of(folder)
    reasons = json.loads(aside.pop("reasons.json"))
    assert {entry["name"] for entry in reasons} == {"f12_c0", "f14_c0"} and all(e["remedy"] for e in reasons)
    home = settings.dataset_dir(TASK)
    assert {**aside, **{name: files_of(home)[name] for name in before if name not in aside}} == before
    assert set(files_of(second)) == set(before) - set(aside)  # what was taken in stays in the batch
    assert load_ledger(home).sessions == {"f13_c0": "day-2"}
    assert {pair.session for pair in load_dataset(home).pairs} == {None, "day-2"}
    document = json.loads(json.dumps(result.as_json()))
    assert document["quarantine"] == str(folder) and not document["ok"] and document["added"] == ["f13_c0"]


def test_quarantine_never_overwrites(settings, batches, tmp_path):
    """Another bad file of the same name goes into another folder; the same file again changes nothing."""
    for number, content in enumerate((b"first", b"second", b"second")):
        batch = Path(shutil.copytree(batches[1], tmp_path / str(number) / "batch"))
        (batch / "low" / "f12_c0.tif").write_bytes(content)
        ingest(batch, TASK, settings, IngestOptions(commit=False, push=False))
    place = settings.home / "quarantine" / TASK
    assert {path.name for path in place.iterdir()} == {"batch", "batch-2"}
    assert (place / "batch" / "low" / "f12_c0.tif").read_bytes() == b"first"
    assert (place / "batch-2" / "low" / "f12_c0.tif").read_bytes() == b"second"
    assert len(json.loads((place / "batch-2" / "reasons.json").read_text())) == 1


def test_a_read_only_batch_is_copied_and_said_so(settings, second, monkeypatch):
    """Originals that may not be removed stay; their copies are in quarantine all the same."""
    spoil(second)
    unlink = Path.unlink

    def refusing(path, *arguments, **options):  # a superuser, as in a container, may remove anything
        if second in path.parents:
            raise PermissionError(13, "planted")
        return unlink(path, *arguments, **options)

    monkeypatch.setattr(Path, "unlink", refusing)
    result = ingest(second, TASK, settings, IngestOptions(commit=False, push=False))
    assert set(result.quarantined.left) == {"f12_c0", "f14_c0"} and "Still in the batch" in result.summary()
    assert (second / "low" / "f12_c0.tif").exists()
    assert (result.quarantined.folder / "low" / "f12_c0.tif").read_bytes() == b"II*\0 cut off"


def test_other_content_under_a_known_name_is_refused(settings, second):
    """Nothing is ever overwritten; the other pairs of the batch come in."""
    home = settings.dataset_dir(TASK)
    before = files_of(home)
    for side in ("low", "high"):
        write_tiff(second / side / "f03_c0.tif", tifffile.imread(second / side / "f12_c0.tif"))
    result = ingest(second, TASK, settings, IngestOptions(commit=False, push=False))
    assert [(one.name, one.check) for one in result.rejected] == [("f03_c0", "name-taken")]
    assert result.added == ("f12_c0", "f13_c0")
    assert before.items() <= files_of(home).items()


def scene(rng, size=256):
    """A large scene, for fields that show parts of it."""
    return cells(rng, size) + cells(rng, size)[::-1] + cells(rng, size)[:, ::-1]


def add_field(root, name, clean, rng):
    for side, image in (("low", noisy(clean, rng)), ("high", clean + rng.normal(0, 2, clean.shape))):
        (root / side).mkdir(parents=True, exist_ok=True)
        write_tiff(root / side / f"{name}.tif", np.clip(np.round(image), 0, 255).astype(np.uint8))


def test_a_scene_seen_again_follows_its_field_to_its_split(tmp_path):
    """A flipped, brighter part of a present field joins that field's split, and no field ever moves."""
    rng = np.random.default_rng(3)
    first, again = tmp_path / "first", tmp_path / "again"
    scenes = {f"f{number:02d}_c0": scene(rng) for number in range(8)}
    for name, clean in scenes.items():
        add_field(first, name, clean, rng)
    settings = Settings.read(home=empty_project(tmp_path / "project"))
    options = IngestOptions(name_pattern=r"(?P<field>f\d+)_c\d+", commit=False, push=False)
    assert ingest(first, TASK, settings, options).accepted
    home = settings.dataset_dir(TASK)
    dealt = {pair.field: split_of(pair.field, load_card(home)) for pair in load_dataset(home).pairs}
    repeated = {"f20_c0": "f02_c0", "f21_c0": "f05_c0"}
    for name, original in repeated.items():
        add_field(again, name, 0.8 * scenes[original][20:, ::-1][:230], rng)
    add_field(again, "f22_c0", scene(rng), rng)
    result = ingest(again, TASK, settings, IngestOptions(commit=False, push=False))
    assert result.accepted, result.summary()
    assert set(load_ledger(home).scenes) == {("f02", "f20"), ("f05", "f21")}
    assert f"field f20: {result.splits['f20']}, the scene of f02" in result.summary()
    card = load_card(home)
    assert split_of("f20", card) == dealt["f02"] and split_of("f21", card) == dealt["f05"]
    assert {field: split_of(field, card) for field in dealt} == dealt


def test_a_scene_whose_first_field_is_refused_is_dealt_as_it_is_kept(tmp_path):
    """What the result says of the splits is what the dataset does, with a seed that deals what is left."""
    rng = np.random.default_rng(3)
    batch = tmp_path / "batch"
    scenes = {f"f{number:02d}_c0": scene(rng) for number in range(10)}
    scenes |= {"f10_c0": scenes["f00_c0"][:, ::-1], "f11_c0": scenes["f00_c0"][::-1]}
    for name, clean in scenes.items():
        add_field(batch, name, clean, rng)
    path = batch / "low" / "f00_c0.tif"
    write_tiff(path, np.roll(tifffile.imread(path), 30, axis=0))
    settings = Settings.read(home=empty_project(tmp_path / "project"))
    options = IngestOptions(name_pattern=r"(?P<field>f\d+)_c\d+", commit=False, push=False)
    result = ingest(batch, TASK, settings, options)
    assert {one.name for one in result.rejected} == {"f00_c0"}, result.summary()
    assert result.scenes == (("f10", "f11"),)
    kept = load_dataset(settings.dataset_dir(TASK))
    kept.require_splits()
    assert splits_in(kept.root) == result.splits
    assert result.splits["f10"] == result.splits["f11"]
    counts = [len(kept.fields(name)) for name in ("train", "validation", "calibration", "test")]
    assert all(
        abs(count - 11 * share) < 2 for count, share in zip(counts, (0.6, 0.1, 0.15, 0.15), strict=True)
    )


def test_a_scene_that_would_join_two_splits_is_refused(tmp_path):
    """A field that overlaps a train field on its left and a test field on its right cannot be in either."""
    cells_of = sorted((DATA / "biosr-microtubules" / "high").glob("*.tif"))
    names = [f"f{number:02d}" for number in range(8)]
    card = Card(task=TASK, name_pattern="(?P<field>.+)", split=Split())
    card = replace(card, split=balanced_split(card, names, ()))
    write_card(tmp_path / "card.yaml", card)
    dealt = {name: split_of(name, card) for name in names}
    one, other = (next(name for name in names if dealt[name] == split) for split in ("train", "test"))
    columns = {name: slice(0, 450) for name in names} | {one: slice(0, 500), other: slice(504, 1004)}

    def cut(batch, name, cell, across):
        for side in ("low", "high"):
            (tmp_path / batch / side).mkdir(parents=True, exist_ok=True)
            pixels = tifffile.imread(cell.parents[1] / side / cell.name)[:500, across]
            write_tiff(tmp_path / batch / side / f"{name}.tif", pixels)

    for name, cell in zip(names, cells_of[1:], strict=False):
        cut("first", name, cells_of[0] if name in (one, other) else cell, columns[name])
    settings = Settings.read(home=empty_project(tmp_path / "project"))
    options = IngestOptions(card=tmp_path / "card.yaml", commit=False, push=False)
    first = ingest(tmp_path / "first", TASK, settings, options)
    assert first.accepted, first.summary()
    before = files_of(settings.dataset_dir(TASK))
    cut("again", "between", cells_of[0], slice(200, 804))
    result = ingest(tmp_path / "again", TASK, settings, IngestOptions(commit=False, push=False))
    found = {(finding.name, finding.check) for finding in result.rejected}
    assert found == {("between", "overlap-across-splits")}
    assert files_of(settings.dataset_dir(TASK)) == before


def test_a_new_task_needs_no_more_than_a_pattern(tmp_path):
    """Without one the message shows one that fits; with it a card is written, and every split has a field."""
    batch = make_dataset(tmp_path / "batch", fields=6, size=64)
    (batch / "card.yaml").unlink()
    settings = Settings.read(home=empty_project(tmp_path / "project"))
    with pytest.raises(ConfigError) as raised:
        ingest(batch, "new-task", settings)
    pattern = raised.value.remedy.split("'")[3]
    assert raised.value.remedy.startswith("For 'f00_c0', --name-pattern") and "'f00'" in raised.value.remedy
    assert not settings.dataset_dir("new-task").exists()
    with pytest.raises(ConfigError, match="fits none"):
        ingest(batch, "new-task", settings, IngestOptions(name_pattern="(?P<field>x+)"))
    result = ingest(batch, "new-task", settings, IngestOptions(name_pattern=pattern, push=False))
    home = settings.dataset_dir("new-task")
    assert len(result.added) == 6 and result.commit
    load_dataset(home).require_splits()
    assert splits_in(home) == result.splits
    assert yaml.safe_load((home / "card.yaml").read_text())["licence"] is None
    with pytest.raises(ConfigError, match="has a card"):
        ingest(batch, "new-task", settings, IngestOptions(name_pattern="(?P<field>.+)"))
    again = ingest(batch, "new-task", settings, IngestOptions(name_pattern=pattern, push=False))
    assert (again.known, again.added, again.commit) == (6, (), None)


@pytest.mark.parametrize("name", ["_001", "-a", " b", "_", "a", "pos1_t2.x"])
def test_any_name_has_a_pattern_that_fits_it(name):
    """The one that the message shows names a field, wherever separators are."""
    pattern = example([name]).split("'")[3]
    assert re.fullmatch(pattern, name)["field"]


def test_a_card_and_another_pattern_are_not_guessed_between(tmp_path):
    """Whether the card comes with the batch or by --card; the batch's own card is named by the task."""
    batch = make_dataset(tmp_path / "batch", fields=6, size=64, task="new-task")
    settings = Settings.read(home=empty_project(tmp_path / "project"))
    other = IngestOptions(name_pattern="(?P<field>.+)")
    with pytest.raises(ConfigError, match="no other --name-pattern"):
        ingest(batch, "new-task", settings, other)
    card = Path(shutil.copy(batch / "card.yaml", tmp_path / "our.yaml"))
    with pytest.raises(ConfigError, match="no other --name-pattern"):
        ingest(batch, "new-task", settings, replace(other, card=card))
    card.write_text(card.read_text().replace("seed: 2", "seed: 3"))
    with pytest.raises(DatasetError, match="the card of new-task as it is"):
        ingest(batch, "new-task", settings, IngestOptions(card=card))


def test_with_a_dataset_comes_what_its_ingests_found_out(tmp_path):
    """Sessions and scenes of its ledger are those of the new task: its fields are dealt as they were."""
    batch = make_dataset(tmp_path / "batch", fields=8, size=64, task="new-task")
    scenes = (("f05", "f00", "f01"),)
    write_ledger(batch, Ledger({"f00_c0": "day-1"}, scenes))
    before = splits_in(batch)
    (batch / "LICENSES").mkdir()
    settings = Settings.read(home=empty_project(tmp_path / "project"))
    result = ingest(batch, "new-task", settings, IngestOptions(push=False, commit=False))
    home = settings.dataset_dir("new-task")
    assert result.accepted and splits_in(home) == before == result.splits
    assert load_ledger(home) == Ledger({"f00_c0": "day-1"}, scenes)
    assert before["f00"] == before["f05"]


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


def test_a_task_folder_without_a_card_is_named(settings, second):
    """With what to do, also where a card is brought."""
    card = Path(shutil.copy(settings.dataset_dir(TASK) / "card.yaml", second.parent / "card.yaml"))
    (settings.data_dir / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"card\.yaml in .*empty"):
        ingest(second, "empty", settings, IngestOptions(card=card))


def test_what_cannot_be_opened_stays_and_is_said_to(settings, second):
    """A pipe among the parts of a folder stops neither the batch nor the truth about where things are."""
    for side in ("low", "high"):
        (second / side / "f30_c0.zarr" / "0").mkdir(parents=True)
    os.mkfifo(second / "low" / "f30_c0.zarr" / "0" / "pipe")
    result = ingest(second, TASK, settings, IngestOptions(push=False, commit=False))
    assert [(one.name, one.check) for one in result.rejected] == [("f30_c0", "readable")]
    assert result.added and result.as_json()["left_in_place"] == ["f30_c0"]
    assert "Still in the batch" in result.summary() and "were moved" not in result.summary()
    assert (second / "low" / "f30_c0.zarr" / "0" / "pipe").exists()


def test_a_pair_that_is_refused_anew_has_its_new_reason(tmp_path):
    """After it was taken out of quarantine by hand and exported again."""
    place, low = tmp_path / "quarantine", tmp_path / "low"
    low.mkdir()

    def refuse(check):
        (low / "a.tif").write_bytes(b"pixels")
        pair = PairFiles("a", "a", None, low / "a.tif", None)
        return quarantine(place, "batch", [pair], [Finding(check, "a", "error", "x", "y", "z")]).folder

    folder = refuse("saturated")
    (folder / "low" / "a.tif").unlink()
    assert refuse("readable") == folder
    assert [one["check"] for one in json.loads((folder / "reasons.json").read_text())] == ["readable"]


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


def test_a_card_may_come_from_elsewhere(tmp_path):
    """--card FILE; one that is not there, or of another task, is said so and leaves nothing behind."""
    batch = make_dataset(tmp_path / "batch", fields=6, size=64, task="new-task")
    card = (batch / "card.yaml").rename(tmp_path / "our.yaml")
    settings = Settings.read(home=empty_project(tmp_path / "project"))
    with pytest.raises(ConfigError, match="no-such"):
        ingest(batch, "new-task", settings, IngestOptions(card=tmp_path / "no-such.yaml"))
    with pytest.raises(DatasetError, match="'new-task'"):
        ingest(batch, "other-task", settings, IngestOptions(card=card))
    assert not settings.data_dir.exists() or not list(settings.data_dir.iterdir())
    assert ingest(batch, "new-task", settings, IngestOptions(card=card, push=False, commit=False)).accepted


def test_a_batch_of_nothing_but_bad_pairs_makes_no_version(tmp_path):
    """A new task whose pairs are all refused: quarantine, and no dataset."""
    batch = make_dataset(tmp_path / "batch", fields=4, size=64, task="new-task")
    for path in (batch / "low").iterdir():
        path.write_bytes(b"")
    settings = Settings.read(home=empty_project(tmp_path / "project"))
    result = ingest(batch, "new-task", settings)
    assert (result.added, result.data_version, result.commit) == ((), None, None) and not result.accepted
    assert len(files_of(settings.home / "quarantine")) == 9
    assert not settings.dataset_dir("new-task").exists()


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


def test_a_batch_from_quarantine_may_come_again(settings, second):
    """What is still bad goes to another folder of quarantine, and not a byte is lost on the way."""
    spoil(second)
    options = IngestOptions(commit=False, push=False)
    folder = ingest(second, TASK, settings, options).quarantined.folder
    before = {name: content for name, content in files_of(folder).items() if name != "reasons.json"}
    (folder / "low" / "f14_c0.tif").unlink()
    del before["low/f14_c0.tif"]
    again = ingest(folder, TASK, settings, options)
    assert again.quarantined.folder != folder and {one.name for one in again.rejected} == {"f12_c0"}
    assert before.items() <= files_of(again.quarantined.folder).items()


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


def test_a_link_that_leads_nowhere_is_refused_alone(settings, second, tmp_path):
    """The other pairs come in; a name that no file system can write in UTF-8 stops the batch in words."""
    (second / "low" / "f12_c0.tif").unlink()
    (second / "low" / "f12_c0.tif").symlink_to(tmp_path / "gone.tif")
    options = IngestOptions(commit=False, push=False)
    result = ingest(second, TASK, settings, options)
    assert [(one.name, one.check) for one in result.rejected] == [("f12_c0", "readable")]
    assert result.added == ("f13_c0",) and (second / "high" / "f12_c0.tif").exists()
    (second / "low" / os.fsdecode(b"f14_\xb5.tif")).write_bytes(b"x")
    with pytest.raises(DatasetError, match="UTF-8"):
        ingest(second, TASK, settings, options)


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
