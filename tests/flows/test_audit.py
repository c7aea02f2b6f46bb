"""The audit log: decisions are chained, every edit is found, and nothing that happens is without an entry."""

from __future__ import annotations

import json
import multiprocessing

import pytest

from cvdm.errors import StorageError
from flows.audit import BEGINNING, AuditError, AuditLog, audit_table

DECISIONS = (
    ("promote", 1, "gate"),
    ("reject", 2, "gate"),
    ("promote", 3, "Ada"),
    ("rollback", 1, "Grace"),
    ("undecided", 4, "gate"),
)


@pytest.fixture
def log(tmp_path):
    """Five decisions about one task."""
    log = AuditLog(tmp_path / "kept" / "audit.jsonl")
    for action, version, by in DECISIONS:
        log.append(
            action, task="cells", version=version, by=by, reasons=["a reason"], details={"champion": None}
        )
    return log


def references(log):
    """What the registry would hold: the latest entry of each version."""
    return {f"cells version {entry.version}": log.reference(entry) for entry in log.entries()}


def test_entries_come_back_as_they_were_written(log):
    """In order, numbered, each naming the line before, and sound."""
    entries = log.entries()
    assert [(entry.action, entry.version, entry.by) for entry in entries] == list(DECISIONS)
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.before for entry in entries] == [BEGINNING, *(entry.hash for entry in entries[:-1])]
    found = log.verify(references(log))
    assert found.sound and found.head == entries[-1].hash and found.as_json()["entries"] == 5
    assert log.entries("other") == () and "by Grace: a reason" in audit_table(entries)


def test_no_log_is_an_empty_log(tmp_path):
    """Sound, with the head that stands for the beginning; but not if a version names an entry."""
    log = AuditLog(tmp_path / "none.jsonl")
    assert log.verify().sound and log.verify().head == BEGINNING and audit_table(log.entries())
    assert not log.verify({"cells version 1": f"1:{'a' * 64}"}).sound


def _changed(lines):
    lines[1] = lines[1].replace(b'"reject"', b'"promote"')


def _last_changed(lines):
    lines[-1] = lines[-1].replace(b"undecided", b"promote")


def _removed(lines):
    del lines[2]


def _cut(lines):
    del lines[-1]


def _first_removed(lines):
    del lines[0]


def _swapped(lines):
    lines[1], lines[2] = lines[2], lines[1]


def _written_otherwise(lines):
    lines[0] = json.dumps(json.loads(lines[0])).encode()


def _garbage(lines):
    lines[3] = b"\xff not an entry"


def _inserted(lines):
    lines.insert(2, lines[1])


def _emptied(lines):
    lines.clear()


def _rewritten(lines):
    """The whole chain anew without the rejection, as somebody would who knows how it is made."""
    entries = [json.loads(line) for line in lines if b"reject" not in line]
    lines.clear()
    forged = AuditLog(_rewritten.scratch)
    for one in entries:
        forged.append(
            one["action"], task=one["task"], version=one["version"], by=one["by"], reasons=one["reasons"]
        )
    lines.extend(forged.path.read_bytes().splitlines())


@pytest.mark.parametrize(
    "edit",
    [
        _changed,
        _last_changed,
        _removed,
        _cut,
        _first_removed,
        _swapped,
        _written_otherwise,
        _garbage,
        _inserted,
        _emptied,
        _rewritten,
    ],
)
def test_every_edit_is_found(log, tmp_path, edit):
    """A changed, removed, moved, added or rewritten line, and a cut or forged log."""
    _rewritten.scratch = tmp_path / "forged.jsonl"
    named, head = references(log), log.verify().head
    lines = log.path.read_bytes().splitlines()
    edit(lines)
    log.path.write_bytes(b"".join(line + b"\n" for line in lines))
    found = log.verify(named)
    assert not found.sound and found.problems and "NOT" in found.summary()
    assert not log.verify(head=head[:20]).sound


def test_logs_of_machines_that_share_a_registry_are_verified_each_where_it_is(log, tmp_path):
    """Another machine's latest entry is a fault until its log is named, and then it is counted and told."""
    other = AuditLog(tmp_path / "other.jsonl")
    entry = other.append("promote", task="cells", version=9, by="Ada", reasons=["a reason"])
    named = references(log) | {"cells version 9": other.reference(entry)}
    name = other.verify().log
    (problem,) = log.verify(named).problems
    assert "cells version 9" in problem and name in problem and "CVDM_OTHER_AUDIT_LOGS" in problem
    told = AuditLog(log.path, others=(name,)).verify(named)
    assert told.sound and told.elsewhere == 1 and "verify those where they are" in told.summary()
    forged = named | {"cells version 3": named["cells version 3"].replace("3:", "4:", 1)}
    assert not AuditLog(log.path, others=(name,)).verify(forged).sound


def test_a_reference_from_before_logs_had_names_is_checked_as_before(log):
    """Number and hash alone."""
    old = {name: reference.rpartition(":")[0] for name, reference in references(log).items()}
    assert log.verify(old).sound
    assert not log.verify(old | {"cells version 9": f"2:{'a' * 64}"}).sound


def test_a_head_that_was_noted_is_found_again(log):
    """After more decisions, too."""
    head = log.verify().head
    log.append("promote", task="cells", version=5, by="gate", reasons=[])
    assert log.verify(references(log), head).sound and log.verify(head=head[:16]).sound


def test_what_was_never_acknowledged_is_dropped(log):
    """A line without an end, as power loss leaves it, is neither an entry nor an obstacle."""
    with log.path.open("ab") as file:
        file.write(b'{"number": 6, "action": "prom')
    assert log.verify(references(log)).sound and len(log.entries()) == 5
    assert log.append("promote", task="cells", version=5, by="gate", reasons=[]).number == 6
    assert log.verify(references(log)).sound


def test_a_line_that_is_no_entry_is_an_error_for_readers(log):
    """With the line's number."""
    log.path.write_bytes(log.path.read_bytes() + b"{}\n")
    with pytest.raises(AuditError, match="line 6"):
        log.entries()


def test_a_folder_in_its_place_is_said(tmp_path):
    """No decision goes unrecorded in silence."""
    (tmp_path / "audit.jsonl").mkdir()
    with pytest.raises(StorageError):
        AuditLog(tmp_path / "audit.jsonl").append("promote", task="cells", version=1, by="gate", reasons=[])


def _append_many(path, by):
    for number in range(50):
        AuditLog(path).append("reject", task="cells", version=number, by=by, reasons=["é\r\n\x00"])


def test_processes_that_write_at_once_make_one_chain(tmp_path):
    """Two processes, a hundred entries, none lost; odd characters in reasons do not break lines."""
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_many, args=(path, name)) for name in ("one", "two")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = AuditLog(path).verify()
    assert found.sound and len(found.entries) == 100
    assert {entry.by for entry in found.entries} == {"one", "two"}
