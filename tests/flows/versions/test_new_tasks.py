"""A new task: its card, how its fields are dealt, and scenes that stay together. Real DVC, real git."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from specimens import cells, make_dataset, noisy
from versions_project import TASK, empty_project, files_of, splits_in

from cvdm.card import Card, Split, load_card
from cvdm.dataset import load_dataset, split_of
from cvdm.errors import ConfigError, DatasetError
from cvdm.images import write_tiff
from cvdm.ledger import Ledger, load_ledger, write_ledger
from flows.ingest import ingest
from flows.ingest_result import IngestOptions
from flows.new_card import card_for, example, write_card
from flows.settings import Settings
from flows.validation.dealing import balanced_split

DATA = Path(__file__).parents[3] / "data"


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


@pytest.mark.parametrize(
    ("names", "pattern", "fitting"),
    [
        (["pos1_t1", "pos1_t2", "pos12_t1"], r"(?P<field>pos\d+)_t\d+", 3),
        (["nucleus_t1", "actin_t1", "actin_t2"], r"(?P<field>[^_]+)_t\d+", 3),
        (["actin-20x-noise1", "membrane", "mito"], "(?P<field>.+)", 3),
    ],
)
def test_the_pattern_that_is_shown_fits_most_names(names, pattern, fitting):
    """Fields that are numbered, that are named, and names that have nothing in common."""
    told = example(names)
    assert told.split("'")[3] == pattern and f"fits {fitting} of 3 names" in told


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


def test_a_task_folder_without_a_card_is_named(settings, second):
    """With what to do, also where a card is brought."""
    card = Path(shutil.copy(settings.dataset_dir(TASK) / "card.yaml", second.parent / "card.yaml"))
    (settings.data_dir / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"card\.yaml in .*empty"):
        ingest(second, "empty", settings, IngestOptions(card=card))


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


def test_what_a_kill_left_of_a_new_card_is_cleared(tmp_path):
    """Planted: another card in the same place. The block has its own, and nothing lies there after it."""
    batch, scratch = make_dataset(tmp_path / "batch", fields=2, size=64), tmp_path / "new-card"
    (batch / "card.yaml").unlink()
    scratch.mkdir()
    for name in ("card.yaml", "half.tmp"):
        (scratch / name).write_text("task: another")
    with card_for(batch, tmp_path / "new-task", scratch, None, r"(?P<field>f\d+)_c\d+") as lent:
        assert load_card(lent.file.parent).task == "new-task"
        assert [path.name for path in lent.file.parent.iterdir()] == ["card.yaml"]
    assert not scratch.exists()
