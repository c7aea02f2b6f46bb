"""Triggers: the rules without waiting, the files that keep what waits, and what a look notices."""

from __future__ import annotations

import json
import os
import re
import shutil
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from drift_rows import rows

from cvdm.drift_signal import Shift, Signal, write_signal
from cvdm.errors import ConfigError
from flows.device_lock import BusyError, device_lock, holder
from flows.registry import Registry
from flows.settings import Settings
from flows.timetable import change
from flows.triggers import desk
from flows.triggers.data_watch import DataWatch
from flows.triggers.desk import begin, put_back, trigger
from flows.triggers.drift_watch import watch_for_drift
from flows.triggers.pending import LATEST_BEGIN, TriggerStore
from flows.triggers.poll import Poll
from flows.triggers.rules import Cause, State, decide_trigger, joined
from flows.triggers.signals import read_signals
from flows.validation import load_validation_policy, validate_dataset

TASK = "test-cells"
NOW = datetime(2026, 11, 20, 3, tzinfo=UTC)
DATA, CLOCK = (
    Cause("data", NOW.isoformat(), "data a instead of b"),
    Cause("schedule", NOW.isoformat(), "the clock"),
)
PERSON = Cause("manual", NOW.isoformat(), "a person")
SIGNAL = Signal(TASK, "service", NOW.isoformat(), (Shift("noise", 0.01, 0.8),), "noise higher")
FREE = State(TASK, (DATA,), False, None, None, timedelta(hours=6), None)


@pytest.mark.parametrize(
    ("changes", "action", "rule", "words"),
    [
        ({}, "start", "none", "something is new"),
        ({"paused": True}, "wait", "paused", "cvdm schedule resume test-cells"),
        ({"repeats": "version 3"}, "refuse", "evidence", "nothing new: .* version 3"),
        ({"last_start": NOW - timedelta(hours=5)}, "wait", "cool-down", "until 2026-11-20 04:00 UTC"),
        ({"last_start": NOW - timedelta(hours=6)}, "start", "none", ""),
        ({"occupant": "'retrain b' in process 7"}, "wait", "device", "retrain b"),
        ({"last_start": NOW, "repeats": "version 3"}, "refuse", "evidence", ""),
        ({"last_start": NOW, "occupant": "'retrain b'"}, "wait", "cool-down", ""),
        # For a person, only the evidence counts: the flow says itself that the device is taken.
        (
            {"causes": (PERSON,), "paused": True, "last_start": NOW, "occupant": "b"},
            "start",
            "none",
            "person",
        ),
        ({"causes": (PERSON,), "repeats": "version 3"}, "refuse", "evidence", "version 3"),
    ],
)
def test_the_first_rule_that_applies_decides(changes, action, rule, words):
    """Each in words that name what it is about."""
    decision = decide_trigger(replace(FREE, **changes), NOW)
    assert (decision.action, decision.rule) == (action, rule)
    assert re.search(words, decision.words)


def test_two_triggers_of_a_task_are_one():
    """Kinds are joined in a fixed order; the same cause again adds nothing."""
    again = replace(CLOCK, at=(NOW + timedelta(days=1)).isoformat())
    causes = joined(joined((DATA,), (CLOCK,)), (again,))
    assert causes == (DATA, CLOCK)
    assert decide_trigger(replace(FREE, causes=causes), NOW).kinds == "schedule+data"


@pytest.fixture
def settings(project_settings, cells_dataset) -> Settings:
    """One task that was never trained."""
    shutil.copytree(cells_dataset, project_settings.data_dir / TASK)
    return Settings.read(schedule_preset="tiny")


@pytest.fixture
def store(settings) -> TriggerStore:
    return TriggerStore(settings)


@contextmanager
def busy(settings):
    """Another retraining on the device."""
    with device_lock(settings.mlruns_dir / "locks", "cpu", "retrain another"):
        yield


def steps(store: TriggerStore) -> list[tuple[str, str, str]]:
    return [(line["step"], line["kinds"], line["rule"]) for line in store.history()]


def test_a_busy_device_makes_a_trigger_wait_until_it_is_free(settings, store):
    """It is kept, told once, joined by the next one, and starts as one afterwards."""
    with busy(settings):
        first = trigger(settings, TASK, (DATA,), now=NOW)
        assert (first.decision.action, first.ticket) == ("wait", None)
        assert "retrain another" in first.decision.words
        trigger(settings, TASK, now=NOW + timedelta(seconds=3))
        trigger(settings, TASK, (CLOCK,), now=NOW + timedelta(minutes=1))
    assert store.pending(TASK).causes == (DATA, CLOCK)
    outcome = trigger(settings, TASK, now=NOW + timedelta(minutes=2))
    assert outcome.ticket and outcome.decision.kinds == "schedule+data" and outcome.preset == "tiny"
    assert steps(store) == [("wait", "data", "device"), ("start", "schedule+data", "none")]
    begin(settings, TASK, outcome.decision.kinds, outcome.ticket)
    assert store.pending(TASK) is None
    assert steps(store)[-1] == ("began", "schedule+data", "none")


def test_what_is_not_new_is_refused_at_once_even_while_the_device_is_busy(settings, store, monkeypatch):
    """Also when the look at the data has put it there; the registry's answer is given here."""
    monkeypatch.setattr(desk, "_repeats", lambda *arguments: "version 3")
    store.add(TASK, (DATA,))
    with busy(settings):
        assert trigger(settings, TASK, now=NOW).decision.rule == "evidence"
    assert store.pending(TASK) is None


def test_a_started_retraining_that_never_begins_is_started_again(settings, store):
    """A killed process loses nothing; before that, the same trigger starts nothing else."""
    first = trigger(settings, TASK, (DATA,), now=NOW)
    assert first.ticket
    joins = trigger(settings, TASK, (CLOCK,), now=NOW + timedelta(minutes=1))
    assert (joins.ticket, joins.decision.rule) == (None, "starting")
    second = trigger(settings, TASK, now=NOW + LATEST_BEGIN + timedelta(seconds=1))
    assert second.ticket and second.ticket != first.ticket
    begin(settings, TASK, "data", first.ticket)  # the first was slow, not dead: what it stood for stays
    assert store.pending(TASK) is not None
    put_back(settings, TASK, second.ticket, "the device is busy")
    assert store.pending(TASK).ticket is None and steps(store)[-1][0] == "put back"


def test_a_retraining_that_is_about_to_begin_holds_the_device(settings, store):
    """Another task waits meanwhile, so that two starts never race for the lock."""
    shutil.copytree(settings.data_dir / TASK, settings.data_dir / "cells-two")
    card = settings.data_dir / "cells-two" / "card.yaml"
    card.write_text(card.read_text().replace(TASK, "cells-two"))
    assert trigger(settings, TASK, (DATA,), now=NOW).ticket
    other = trigger(settings, "cells-two", (DATA,), now=NOW)
    assert other.decision.rule == "device" and f"retrain {TASK}" in other.decision.words


def test_the_cool_down_counts_from_what_began_by_itself(settings, store):
    """A person's retraining starts none."""
    begin(settings, TASK, "manual")
    assert store.last_start(TASK) is None
    begin(settings, TASK, "data")
    outcome = trigger(settings, TASK, (CLOCK,))
    assert outcome.decision.rule == "cool-down" and outcome.ticket is None
    assert trigger(Settings.read(cooldown_hours=0, schedule_preset="tiny"), TASK).ticket


def test_a_paused_task_waits_until_it_is_resumed(settings, store):
    """Also over a broken timetable: nothing is lost."""
    change(settings, TASK, by="ada", now=NOW, enabled=False)
    assert trigger(settings, TASK, (DATA,), now=NOW).decision.rule == "paused"
    (settings.mlruns_dir / "schedule.json").write_text("{")
    with pytest.raises(ConfigError):
        trigger(settings, TASK, (CLOCK,), now=NOW)
    (settings.mlruns_dir / "schedule.json").unlink()
    assert trigger(settings, TASK, now=NOW).decision.kinds == "schedule+data"


def test_a_damaged_file_of_what_waits_is_none(settings, store):
    """And a line of the history that was cut off is passed over, and none after it."""
    with busy(settings):
        trigger(settings, TASK, (DATA,), now=NOW)
    path = settings.mlruns_dir / "triggers" / "pending" / f"{TASK}.json"
    path.write_text(path.read_text()[:40])
    with store.history_file.open("a") as file:
        file.write('{"at": "2026')
    assert store.pending(TASK) is None and len(store.history()) == 1
    assert trigger(settings, TASK, (DATA,), now=NOW).ticket
    assert [line["step"] for line in store.history()] == ["wait", "start"]


def test_a_look_at_the_lock_tells_who_holds_it(tmp_path):
    """Free before, after, and when a killed process has left its name."""
    assert holder(tmp_path, "cuda") is None
    with device_lock(tmp_path, "cuda:0", "retrain a"):
        assert f"'retrain a' in process {os.getpid()}" in str(holder(tmp_path, "cuda"))
        with pytest.raises(BusyError), device_lock(tmp_path, "cuda", "retrain b"):
            pass
    assert holder(tmp_path, "cuda") is None
    (tmp_path / "cuda-0.lock").write_text('{"purpose": "retrain a"}')
    assert holder(tmp_path, "cuda") is None


def test_a_signal_is_answered_when_its_retraining_begins(settings, store):
    """Not when it is noticed, nor when the retraining is started."""
    path = write_signal(settings.signals_dir, SIGNAL)
    outcome = trigger(settings, TASK, now=NOW)
    assert outcome.ticket and outcome.decision.kinds == "drift" and path.exists()
    begin(settings, TASK, "drift", outcome.ticket)
    assert not read_signals(settings) and (path.parent / "answered" / path.name).is_file()


def test_a_newer_signal_takes_the_place_of_an_older_one_of_its_origin(settings):
    """A service that writes one each hour does not fill the folder."""
    later = replace(SIGNAL, at=(NOW + timedelta(hours=1)).isoformat())
    other = replace(SIGNAL, origin="validation")
    for signal in (SIGNAL, other, later):
        write_signal(settings.signals_dir, signal)
    assert list(read_signals(settings).values()) == [other, later]


def test_an_ingest_of_noisier_fields_leaves_a_signal(settings, tiny_checkpoint_dir):
    """Against the champion's table; refused pairs do not count, and more of the same leaves none."""
    registry = Registry.open(settings)
    run = registry.runs.start(TASK, "a run", params={}, tags={})
    usual = rows("a", 16, np.random.default_rng(0))
    registry.artifacts.log_json(
        run.run_id, {"table": [asdict(row) for row in usual]}, "validation/report.json"
    )
    registry.models.set_alias(TASK, "champion", registry.models.register(TASK, run, tiny_checkpoint_dir, {}))

    report = validate_dataset(settings.dataset_dir(TASK), load_validation_policy(settings.params_file))
    noisier = rows("b", 12, np.random.default_rng(1), noise=10.0)
    shown = replace(report, table=(*usual, *noisier))
    assert not watch_for_drift(settings, shown, {row.name for row in noisier}).shifted
    assert not read_signals(settings)
    assert watch_for_drift(settings, shown, set()).shifted
    (signal,) = read_signals(settings).values()
    assert (signal.task, signal.origin) == (TASK, "validation")
    assert [shift.feature for shift in signal.features] == ["low_noise"]
    assert signal.features[0].effect > 0.5 and "low_noise higher" in signal.message


@pytest.mark.parametrize(
    "spoil",
    [
        "{",
        "[]",
        "null",
        "3",
        {"task": None},
        {"origin": "nowhere"},
        {"at": "yesterday"},
        {"at": "2026-11-20T03:00:00"},
        {"features": [{"feature": "noise"}]},
        {"features": [{"feature": "noise", "q_value": "small", "effect": 1}]},
        {"features": 3},
        {"more": 1},
    ],
)
def test_what_is_no_signal_is_set_aside_and_harms_nothing(settings, capsys, spoil):
    """With a word about it; the good one beside it is read."""
    write_signal(settings.signals_dir, SIGNAL)
    bad = settings.signals_dir / f"{TASK}-bad.json"
    bad.write_text(spoil if isinstance(spoil, str) else json.dumps({**asdict(SIGNAL), **spoil}))
    assert list(read_signals(settings).values()) == [SIGNAL]
    assert (bad.parent / "malformed" / bad.name).is_file() and bad.name in capsys.readouterr().err


def test_drift_without_new_pairs_is_told_to_people_and_asked_once(settings, store, monkeypatch, tmp_path):
    """The signal stays; it is asked again when the data change. The registry's answer is given here."""
    monkeypatch.setenv("CVDM_ALERTS", f"file://{tmp_path}/alerts.jsonl")
    asked = []
    monkeypatch.setattr(desk, "_repeats", lambda *arguments: asked.append(1) or "version 3")
    write_signal(settings.signals_dir, SIGNAL)
    poll = Poll(Settings.read(triggers="drift"))
    for _ in range(3):
        assert poll.look(NOW).starts == ()
    assert len(asked) == 1 and len(read_signals(settings)) == 1 and store.pending(TASK) is None
    assert "new pairs" in (tmp_path / "alerts.jsonl").read_text()
    (settings.dataset_dir(TASK) / "card.yaml").touch()
    poll.look(NOW)
    assert len(asked) == 2


def looks(watch: DataWatch, times: int = 3) -> list[str]:
    """What several looks notice."""
    found = [watch.look(TASK, NOW) for _ in range(times)]
    return [one.cause.message for one in found if one is not None]


def test_other_data_are_noticed_once_they_keep_still(settings):
    """The first sight of an untrained task is no news; a removed field is; the file times alone are not."""
    watch, root = DataWatch(settings), settings.dataset_dir(TASK)
    assert looks(watch) == []
    for side in ("low", "high"):
        next((root / side).glob("f03*")).unlink()
        assert watch.look(TASK, NOW) is None  # low/ without high/, and then perhaps not all of it yet
    new = watch.look(TASK, NOW)
    assert new is not None and "instead of" in new.cause.message
    watch.remember(TASK, new.digest)
    (root / "low").touch()
    assert looks(watch) == []


def test_data_that_came_while_nothing_ran_are_noticed(settings):
    """A new process compares with what the last one saw."""
    looks(DataWatch(settings))
    for side in ("low", "high"):
        next((settings.dataset_dir(TASK) / side).glob("f03*")).unlink()
    assert looks(DataWatch(settings), 2)


def test_trouble_with_one_task_keeps_no_other_waiting(settings, store):
    """Its problem is told, and the other starts."""
    (settings.data_dir / "another").mkdir()
    (settings.data_dir / "another" / "card.yaml").touch()
    store.add("another", (DATA,))
    store.add(TASK, (DATA,))
    # a preset that the timetable has and params.yaml has not (any more)
    (settings.mlruns_dir / "schedule.json").write_text(json.dumps({"another": {"preset": "huge"}}))
    found = Poll(settings).look(NOW)
    assert [start.task for start in found.starts] == [TASK]
    assert len(found.problems) == 1 and "another" in found.problems[0]
