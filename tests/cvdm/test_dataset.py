"""Cards, pairs, splits and digests."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from cvdm.dataset import SPLITS, load_card, load_dataset, split_of
from cvdm.errors import DatasetError
from cvdm.images import write_tiff
from cvdm.ledger import Ledger, write_ledger

DATA = Path(__file__).parents[2] / "data"
CARD = {
    "task": "test-cells",
    "structure": "discs",
    "modality": "confocal",
    "licence": "CC0-1.0",
    "citation": "none",
    "inputs": "measured",
    "name_pattern": r"(?P<session>s\d)-(?P<field>f\d+)_c\d",
    "split": {"seed": 1, "train": 0.4, "validation": 0.2, "calibration": 0.2, "test": 0.2},
}


def write_card(root, **changes):
    card = {key: value for key, value in (CARD | changes).items() if value != "absent"}
    (root / "card.yaml").write_text(yaml.safe_dump(card))


def make(root, fields=6, captures=2, **changes):
    root.mkdir(exist_ok=True)
    write_card(root, **changes)
    for field in range(fields):
        for capture in range(captures):
            for side in ("low", "high"):
                pixels = np.full((4, 4), field if side == "high" else capture, np.uint8)
                write_tiff(root / side / f"s{field % 2}-f{field}_c{capture}.tif", pixels)
    return root


def test_pairs_carry_field_and_session_of_their_name(tmp_path):
    """The card's pattern tells field and session; pairs come in the order of their names."""
    dataset = load_dataset(make(tmp_path))
    assert len(dataset.pairs) == 12
    pair = dataset.pairs[0]
    assert (pair.name, pair.field, pair.session) == ("s0-f0_c0", "f0", "s0")
    assert pair.low.read_bytes() and pair.high.read_bytes()
    assert [p.name for p in dataset.pairs] == sorted(p.name for p in dataset.pairs)


def test_every_field_is_in_one_split_and_stays_there(tmp_path):
    """Splits share no field and add up to all; new fields move no old one."""
    small, large = load_dataset(make(tmp_path / "a", 6)), load_dataset(make(tmp_path / "b", 30))
    assert sorted(f for s in SPLITS for f in small.fields(s)) == [f"f{n}" for n in range(6)]
    assert sum(len(small.split(s)) for s in SPLITS) == len(small.pairs)
    for split in SPLITS:
        assert set(small.fields(split)) <= set(large.fields(split))


def test_fields_are_dealt_by_the_fractions(tmp_path):
    """Over many fields the shares come out; a share of nothing gets none; another seed deals anew."""
    card = load_card(make(tmp_path))
    counts = Counter(split_of(f"field {n}", card) for n in range(4000))
    for split in SPLITS:
        assert counts[split] / 4000 == pytest.approx(getattr(card.split, split), abs=0.03)
    write_card(tmp_path, split={"seed": 2, "train": 1, "validation": 0, "calibration": 0, "test": 0})
    assert {split_of(f"field {n}", load_card(tmp_path)) for n in range(500)} == {"train"}


def test_the_hash_of_a_field_is_fixed_for_ever(tmp_path):
    """A change of hashing would silently move fields between train and test: known values guard it."""
    card = load_card(make(tmp_path))
    assert [split_of(f"f{n}", card) for n in range(6)] == [
        "test",
        "test",
        "test",
        "train",
        "test",
        "train",
    ]


def test_overlapping_fields_stay_together(tmp_path):
    """Fields that show the same scene follow the first of their group; no other field moves."""
    alone = load_card(make(tmp_path))
    names = [f"f{n}" for n in range(6)]
    assert len({split_of(name, alone) for name in names[2:6]}) > 1
    write_card(tmp_path, overlapping=[["f2", "f3", "f4", "f5"]])
    together = load_card(tmp_path)
    assert {split_of(name, together) for name in names[2:6]} == {split_of("f2", alone)}
    assert [split_of(name, together) for name in names[:3]] == [split_of(name, alone) for name in names[:3]]


def test_a_starved_split_is_an_error_not_a_surprise(tmp_path):
    """require_splits names the empty splits; a split that does not exist is refused."""
    dataset = load_dataset(make(tmp_path, fields=1))
    (filled,) = [split for split in SPLITS if dataset.split(split)]
    dataset.require_splits(filled)
    with pytest.raises(DatasetError, match="at least one field of view"):
        dataset.require_splits()
    with pytest.raises(DatasetError, match="'holdout'"):
        dataset.split("holdout")


def test_a_ledger_and_a_card_that_touch_move_no_present_field(tmp_path):
    """Who leads a field leads it still when a person lists the same fields in another order."""
    root = make(tmp_path, fields=12)
    dataset = load_dataset(root)
    leader, follower = dataset.fields("train")[0], dataset.fields("test")[0]
    write_ledger(root, Ledger(scenes=((leader, follower),)))
    assert follower in load_dataset(root).fields("train")
    card = yaml.safe_load((root / "card.yaml").read_text()) | {"overlapping": [[follower, leader]]}
    (root / "card.yaml").write_text(yaml.safe_dump(card))
    assert {leader, follower} <= set(load_dataset(root).fields("train"))


def test_the_ledger_adds_sessions_and_the_digest_covers_it(tmp_path):
    """Its sessions win over those of names."""
    root = make(tmp_path)
    before = load_dataset(root)
    digest = before.digest
    write_ledger(root, Ledger({before.pairs[0].name: "Tuesday"}))
    after = load_dataset(root)
    assert after.pairs[0].session == "Tuesday" and after.pairs[-1].session == before.pairs[-1].session
    assert after.digest != digest


def test_files_and_folders_of_other_formats_are_images(tmp_path):
    """MRC, CZI, ND2 and LIF files and OME-Zarr folders go by their name and count by their content."""
    names = {"s0-f0_c9.mrc", "s0-f1_c9.czi", "s0-f2_c9.ND2", "s0-f3_c9.lif", "s0-f0_c8.ome.zarr"}
    root = make(tmp_path / "a")
    for side in ("low", "high"):
        for name in names:
            path = root / side / name
            (path / "0").mkdir(parents=True) if path.suffix == ".zarr" else path.write_bytes(b"x")
        (root / side / "s0-f0_c8.ome.zarr" / "0" / "chunk").write_bytes(b"x")
    dataset = load_dataset(root)
    assert {pair.name for pair in dataset.pairs} >= {name.split(".")[0] for name in names}
    digest = dataset.digest
    assert load_dataset(shutil.copytree(root, tmp_path / "b")).digest == digest
    chunk = root / "low" / "s0-f0_c8.ome.zarr" / "0" / "chunk"
    chunk.rename(chunk.with_name("other"))
    assert load_dataset(root).digest != digest


def test_what_file_managers_leave_is_passed_over(tmp_path):
    """Hidden files and litter are no images, and no reason to refuse a folder."""
    root = make(tmp_path)
    before = load_dataset(root)
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (root / "low" / name).touch()
    assert load_dataset(root) == before


def test_a_digest_is_of_what_was_listed_whatever_comes_later(tmp_path):
    """Planted: an ingest writes the ledger while a training goes on, which has read its pairs long ago."""
    dataset = load_dataset(make(tmp_path / "a"))
    digest = dataset.digest
    (dataset.root / "ledger.json").write_text('{"batches": []}', encoding="utf-8")
    assert dataset.digest == digest


def test_digest_depends_on_content_alone(tmp_path):
    """A copy elsewhere has the same digest; any byte, name or word of the card changes it."""
    original = make(tmp_path / "a")
    digest = load_dataset(original).digest
    assert len(digest) == 64
    copy = shutil.copytree(original, tmp_path / "b")
    assert load_dataset(copy).digest == digest
    write_tiff(copy / "low" / "s0-f0_c0.tif", np.full((4, 4), 9, np.uint8))
    changed = load_dataset(copy).digest
    shutil.copy(original / "low" / "s0-f0_c0.tif", copy / "low")
    write_card(copy, citation="another")
    recarded = load_dataset(copy).digest
    shutil.copy(original / "card.yaml", copy)
    for side in ("low", "high"):
        (copy / side / "s0-f0_c0.tif").rename(copy / side / "s0-f0_c7.tif")
    assert len({digest, changed, recarded, load_dataset(copy).digest}) == 4


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda root: shutil.rmtree(root), "no such file"),
        (lambda root: (root / "card.yaml").unlink(), "no such file"),
        (lambda root: shutil.rmtree(root / "low"), "a folder .*low"),
        (
            lambda root: [shutil.rmtree(root / s) or (root / s).mkdir() for s in ("low", "high")],
            "empty folders",
        ),
        (lambda root: (root / "high" / "s0-f0_c0.tif").unlink(), "a target in high/ .* none for s0-f0_c0"),
        (lambda root: (root / "low" / "s0-f0_c0.tif").unlink(), "an input in low/ .* none for s0-f0_c0"),
        (lambda root: (root / "low" / "a.png").touch(), "only images .* a.png"),
        (lambda root: (root / "low" / "s0-f0_c0.tiff").touch(), "one file per name"),
        (lambda root: [(root / s / "x.tif").touch() for s in ("low", "high")], "name_pattern .*'x'"),
    ],
)
def test_a_broken_folder_is_named(tmp_path, break_it, message):
    """What is missing or too much in a folder is said, with a remedy."""
    root = make(tmp_path / "data")
    break_it(root)
    with pytest.raises(DatasetError, match=message) as caught:
        load_dataset(root)
    assert caught.value.remedy


def test_hidden_files_are_passed_over(tmp_path):
    """Files that a desktop leaves behind are no images."""
    (make(tmp_path) / "low" / ".DS_Store").touch()
    assert len(load_dataset(tmp_path).pairs) == 12


def test_many_missing_targets_make_a_short_message(tmp_path):
    """Five names are listed and the rest counted."""
    shutil.rmtree(make(tmp_path) / "high")
    (tmp_path / "high").mkdir()
    with pytest.raises(DatasetError, match="and 7 more"):
        load_dataset(tmp_path)


FRACTIONS = {"validation": 0.2, "calibration": 0.2, "test": 0.2}
MODEL = {"psf_sigma_px": 2, "photons": 50, "full_scale": 1, "read_noise": 1, "offset": 0, "seed": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colour": "green"}, "unknown colour"),
        ({"task": "absent"}, "missing task"),
        ({"task": "../other"}, "a task name"),
        ({"task": 3}, "of type str"),
        ({"inputs": "guessed"}, "measured or simulated"),
        ({"target_units": "arbitrary"}, "input or own"),
        ({"inputs": "simulated"}, "a forward_model"),
        ({"pixel_size_um": -1}, "pixel_size_um above 0"),
        ({"pixel_size_um": "65 nm"}, "of type float"),
        ({"name_pattern": "("}, "valid name_pattern"),
        ({"name_pattern": ".*"}, "a group"),
        ({"split": {"seed": 1, "train": 0.9, **FRACTIONS}}, "add up to 1"),
        ({"split": {"seed": 1, "train": -0.2, **FRACTIONS, "test": 0.8}}, ">= 0"),
        ({"split": {"seed": 1.5, "train": 0.4, **FRACTIONS}}, "split: seed"),
        ({"split": [1, 2]}, "'key: value' lines"),
        ({"forward_model": {**MODEL, "psf": 3}}, "unknown psf"),
        ({"overlapping": ["f1", "f2"]}, "a list of lists"),
        ({"overlapping": [["f1"]]}, "two or more"),
        ({"overlapping": [["f1", "f2"], ["f2", "f3"]]}, "each field in one"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path, changes, message):
    """Unknown keys, missing keys, wrong types and impossible values each say what was expected."""
    write_card(tmp_path, **changes)
    with pytest.raises(DatasetError, match=message):
        load_card(tmp_path)


@pytest.mark.parametrize("text", ["", "[1, 2]", "task: [", "\x00"])
def test_a_card_that_is_no_card_is_refused(tmp_path, text):
    """Empty files, lists and broken YAML are DatasetErrors too."""
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(DatasetError):
        load_card(tmp_path)


def test_whole_numbers_pass_as_real_ones_and_null_as_unknown(tmp_path):
    """YAML's 1 is a good pixel size; null is an honest one."""
    write_card(tmp_path, pixel_size_um=1, wavelength_nm=None, inputs="simulated", forward_model=MODEL)
    card = load_card(tmp_path)
    assert (card.pixel_size_um, card.wavelength_nm, card.forward_model.photons) == (1.0, None, 50.0)


@pytest.mark.parametrize(
    ("task", "pairs", "fields"),
    [
        ("fmd-confocal-nuclei", 57, [9, 3, 3, 4]),
        ("biosr-microtubules", 11, [6, 1, 2, 2]),
        ("hagen-snr", 8, [3, 1, 2, 2]),
    ],
)
def test_shipped_datasets_are_complete_and_balanced(task, pairs, fields):
    """The demo data load, no split is starved, and attribution and licence travel with them."""
    dataset = load_dataset(DATA / task)
    dataset.require_splits()
    assert dataset.card.task == task
    assert len(dataset.pairs) == pairs
    assert [len(dataset.fields(split)) for split in SPLITS] == fields
    independent = {*dataset.fields("calibration"), *dataset.fields("test")}
    assert not independent & {field for group in dataset.card.overlapping for field in group}
    assert (DATA / task / "ATTRIBUTION.md").is_file() and (DATA / task / "LICENSE").is_file()


def test_no_target_is_shared_between_splits():
    """Captures of one field share a target; two splits never do."""
    for task in ("fmd-confocal-nuclei", "biosr-microtubules", "hagen-snr"):
        dataset = load_dataset(DATA / task)
        targets = [{pair.high.read_bytes() for pair in dataset.split(split)} for split in SPLITS]
        assert sum(map(len, targets)) == len(set().union(*targets))
