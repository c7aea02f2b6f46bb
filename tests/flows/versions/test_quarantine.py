"""Refused pairs are set aside with their reasons; nothing is lost and nothing overwritten."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import tifffile
from versions_project import TASK, files_of, spoil

from cvdm.dataset import load_dataset
from cvdm.errors import DatasetError
from cvdm.images import write_tiff
from cvdm.ledger import load_ledger
from flows.ingest import ingest
from flows.ingest_result import IngestOptions
from flows.quarantine import quarantine
from flows.validation import Finding
from flows.validation.one_pair import PairFiles


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
