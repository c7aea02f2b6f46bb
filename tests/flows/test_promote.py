"""Promotion and rollback on a real store: aliases move, are verified, and go back when verification fails."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from specimens import cells, make_checkpoint, spoil_weights

from cvdm.checkpoint import save_checkpoint
from cvdm.errors import CheckpointError, CvdmError, StorageError
from flows.aliases import Standing, alone, standing
from flows.catalogue import catalogue, catalogue_table
from flows.gate import Decision, GateTest
from flows.promote import NotTakenOverError, audit_references, promote, rollback
from flows.registry import CHAMPION, Registry, RegistryError
from flows.settle import settle, went_back

TASK = "test-cells"
BY = {"reasons": ("better",), "by": "gate"}


@pytest.fixture
def registry(project_settings) -> Registry:
    return Registry.open(project_settings)


@pytest.fixture
def add(registry, tmp_path):
    """Register one more version; with `broken` its golden answer is another model's."""

    def register(seed: int = 0, *, broken: bool = False) -> int:
        directory = tmp_path / f"source-{seed}-{broken}" / "checkpoint"
        directory.parent.mkdir()
        save_checkpoint(directory, make_checkpoint(seed=seed), cells(np.random.default_rng(7), 32))
        if broken:
            spoil_weights(directory)
        run = registry.runs.start(TASK, "a run", params={}, tags={})
        return registry.models.register(TASK, run, directory, {})

    return register


def test_the_gate_does_not_overrule_a_rollback_and_a_person_does(registry, add):
    """A version that a person took back stays back however well it is judged, until a person promotes it."""
    first, second = add(1), add(2)
    promote(registry, TASK, first, **BY)
    promote(registry, TASK, second, **BY)
    rollback(registry, TASK, reason="worse on thick samples", by="Ada")
    better = Decision("promote", ("better",), ())
    stands = settle(registry, TASK, second, better, compared=first)
    assert stands.verdict == "undecided"
    assert "by Ada" in stands.reasons[0] and "worse on thick samples" in stands.reasons[0]
    assert registry.models.champion(TASK) == first
    promote(registry, TASK, second, reasons=["thick samples are mended"], by="Ada")
    rollback(registry, TASK, to=first, reason="only to compare", by="Ada")
    promote(registry, TASK, second, reasons=["compared"], by="Ada")
    assert settle(registry, TASK, second, better, compared=second).verdict == "promote"


def test_the_first_promotion_makes_a_champion_without_a_previous(registry, add):
    """Aliases and the decision's tags are on the version."""
    number = add()
    assert promote(registry, TASK, number, **BY) == Standing(TASK, number, None)
    tags = registry.models.version(TASK, "champion").tags
    assert (tags["verdict"], tags["reasons"], tags["decided_by"]) == ("promote", "better", "gate")
    assert tags["decided_at"].endswith("+00:00")


def test_the_gates_word_stays_beside_a_persons(registry, add):
    """A person promotes what the gate rejected: the version tells both, and who decided."""
    first, second = add(1), add(2)
    promote(registry, TASK, first, **BY)
    settle(registry, TASK, second, Decision("reject", ("CRPS not better",), ()), compared=first)
    promote(registry, TASK, second, reasons=("seen by eye",), by="Ada")
    tags = registry.models.version(TASK, second).tags
    assert (tags["verdict"], tags["reasons"], tags["decided_by"]) == ("promote", "seen by eye", "Ada")
    assert (tags["gate_verdict"], tags["gate_reasons"]) == ("reject", "CRPS not better")


def test_a_persons_promotion_before_the_gates_word_stays_on_record(registry, add, project_settings):
    """The gate judges afterwards: its word is added, and what the person decided and why is told."""
    first = add(1)
    promote(registry, TASK, first, reasons=("needed today",), by="Ada")
    told = catalogue_table(catalogue(registry, (TASK,), project_settings))
    assert "promote by Ada, before the gate had judged it: needed today" in told
    settle(registry, TASK, first, Decision("reject", ("CRPS not better",), ()), compared=None)
    tags = registry.models.version(TASK, first).tags
    assert (tags["verdict"], tags["reasons"], tags["decided_by"]) == ("promote", "needed today", "Ada")
    assert tags["gate_verdict"] == "reject" and "CRPS not better" in tags["gate_reasons"]
    told = catalogue_table(catalogue(registry, (TASK,), project_settings))
    assert "promote by Ada, against the gate: needed today" in told


def test_the_next_promotion_keeps_the_former_champion_and_rollback_swaps_them(registry, add):
    """promote, roll back, roll back again: always one champion, and the other one is previous."""
    first, second = add(0), add(1)
    promote(registry, TASK, first, **BY)
    assert promote(registry, TASK, second, **BY) == Standing(TASK, second, first)
    assert rollback(registry, TASK, reason="odd nuclei", by="Ada") == Standing(TASK, first, second)
    assert "Ada" in registry.models.version(TASK, second).tags["rolled_back"]
    assert "odd nuclei" in registry.models.version(TASK, first).tags["restored"]
    assert rollback(registry, TASK, reason="was fine", by="Ada") == Standing(TASK, second, first)


def test_rollback_to_any_version(registry, add):
    """A version by number serves again; the champion becomes the previous."""
    first, second, third = add(0), add(1), add(2)
    for number in (first, second, third):
        promote(registry, TASK, number, **BY)
    assert rollback(registry, TASK, first, reason="x", by="Ada") == Standing(TASK, first, third)
    with pytest.raises(RegistryError, match="serves already"):
        rollback(registry, TASK, first, reason="x", by="Ada")


def test_promoting_the_champion_again_changes_nothing(registry, add):
    """After an interruption the same promotion can be carried out again; previous stays what it was."""
    first, second = add(0), add(1)
    promote(registry, TASK, first, **BY)
    promote(registry, TASK, second, **BY)
    assert promote(registry, TASK, second, **BY) == Standing(TASK, second, first)


def test_without_a_previous_version_rollback_says_so(registry, add):
    """Nothing to go back to is an error with a remedy."""
    promote(registry, TASK, add(), **BY)
    with pytest.raises(RegistryError, match="no previous version"):
        rollback(registry, TASK, reason="x", by="Ada")


def test_a_version_that_fails_its_golden_replay_never_serves(registry, add):
    """The aliases stay, and the gate's promotion becomes a rejection that says why."""
    good, bad = add(0), add(1, broken=True)
    promote(registry, TASK, good, **BY)
    with pytest.raises(CheckpointError, match="golden"):
        promote(registry, TASK, bad, **BY)
    with pytest.raises(CheckpointError, match="golden"):
        rollback(registry, TASK, bad, reason="x", by="Ada")
    assert standing(registry, TASK) == Standing(TASK, good, None)
    decision = settle(registry, TASK, bad, Decision("promote", ("better",), ()), compared=good)
    assert decision.verdict == "reject"
    assert decision.reasons[0].startswith("not servable")
    assert registry.models.version(TASK, bad).tags["verdict"] == "reject"


class Flaky:
    """Models whose champion cannot be downloaded: a store that fails after the aliases have moved."""

    def __init__(self, models, failure: type[CvdmError] = RegistryError) -> None:
        self._models, self._failure = models, failure

    def __getattr__(self, name):
        return getattr(self._models, name)

    def download(self, task, which, to):
        if which == CHAMPION:
            raise self._failure("the store to answer", "nothing", "Start it.")
        return self._models.download(task, which, to)


def test_aliases_go_back_when_the_new_champion_cannot_be_loaded(registry, add):
    """A failure after the move restores champion and previous, and is written on the version."""
    first, second, third = add(0), add(1), add(2)
    promote(registry, TASK, first, **BY)
    promote(registry, TASK, second, **BY)
    flaky = replace(registry, models=Flaky(registry.models))
    for attempt in (
        lambda: promote(flaky, TASK, third, **BY),
        lambda: rollback(flaky, TASK, reason="x", by="A"),
    ):
        with pytest.raises(RegistryError):
            attempt()
        assert standing(registry, TASK) == Standing(TASK, second, first)
    assert "RegistryError" in registry.models.version(TASK, third).tags["reverted"]
    assert "verdict" not in registry.models.version(TASK, third).tags


@pytest.mark.parametrize("verdict", ["reject", "undecided"])
def test_other_verdicts_are_written_and_move_nothing(registry, add, verdict):
    """A decision against a candidate leaves its reasons on it and the champion in place."""
    good, other = add(0), add(1)
    promote(registry, TASK, good, **BY)
    settle(registry, TASK, other, Decision(verdict, ("worse here", "and there"), ()), compared=good)
    assert standing(registry, TASK) == Standing(TASK, good, None)
    tags = registry.models.version(TASK, other).tags
    assert (tags["verdict"], tags["reasons"]) == (verdict, "worse here; and there")


class Killed(BaseException):
    """The end of a process, which no handler survives."""


class Dying:
    """Models that make so many writes and then none: what a kill -9 leaves behind, revert included."""

    def __init__(self, models, writes: int, death: type[BaseException] = Killed) -> None:
        self._models, self._left, self._death = models, writes, death

    def __getattr__(self, name):
        return getattr(self._models, name)

    def _write(self, method, *arguments):
        if self._left == 0:
            raise self._death("the store to answer", "nothing", "Start it.")
        self._left -= 1
        return method(*arguments)

    def set_alias(self, *arguments):
        return self._write(self._models.set_alias, *arguments)

    def set_tags(self, *arguments):
        return self._write(self._models.set_tags, *arguments)


@pytest.mark.parametrize("writes", range(5))
def test_a_kill_between_any_two_writes_loses_no_version(registry, add, writes):
    """Either the old aliases stand or the new ones do, and the next command works from there."""
    first, second, third = add(0), add(1), add(2)
    before, after = Standing(TASK, second, first), Standing(TASK, third, second)
    promote(registry, TASK, first, **BY)
    promote(registry, TASK, second, **BY)
    dying = replace(registry, models=Dying(registry.models, writes))
    with pytest.raises(Killed):
        promote(dying, TASK, third, **BY)
    assert standing(registry, TASK) == (before if writes < 3 else after)
    assert promote(registry, TASK, third, **BY) == after
    assert registry.models.previous(TASK) == second
    dying = replace(registry, models=Dying(registry.models, writes))
    with pytest.raises(Killed):
        rollback(dying, TASK, reason="x", by="Ada")
    swapped = Standing(TASK, second, third)
    assert standing(registry, TASK) == (after if writes < 3 else swapped)
    assert rollback(registry, TASK, reason="x", by="Ada") == swapped
    assert "by Ada" in registry.models.version(TASK, third).tags["rolled_back"]
    assert [one.action for one in registry.audit.entries(TASK)].count("rollback") == 1
    assert rollback(registry, TASK, reason="after all", by="Ada") == after


@pytest.mark.parametrize("writes", range(6))
def test_a_promotion_that_is_killed_and_repeated_is_one_decision(registry, add, writes):
    """The repetition finishes what the log has on record; it enters nothing again."""
    first, second = add(0), add(1)
    promote(registry, TASK, first, **BY)
    with pytest.raises(Killed):
        promote(replace(registry, models=Dying(registry.models, writes)), TASK, second, **BY)
    promote(registry, TASK, second, **BY)
    told = [(one.action, one.version) for one in registry.audit.entries()]
    assert told == [("promote", first), ("promote", second)]
    assert registry.audit.verify(audit_references(registry)).sound
    promote(registry, TASK, second, reasons=["again"], by="Ada")
    assert len(registry.audit.entries()) == 3


@pytest.mark.parametrize("words", ["better", "better by 1.002, no longer by 1.001"])
def test_a_repeated_promotion_that_fails_goes_back_to_who_served_before_the_kill(registry, add, words):
    """A kill after the aliases have moved does not make the candidate its own fallback.

    Neither does another wording of the decision, nor a removal that came between.
    """
    first, second, third = add(0), add(1), add(2)
    promote(registry, TASK, first, **BY)
    promote(registry, TASK, second, **BY)
    with pytest.raises(Killed):
        promote(replace(registry, models=Dying(registry.models, 5)), TASK, third, **BY)
    assert standing(registry, TASK) == Standing(TASK, third, second)
    registry.audit.append("removed", task=TASK, version=9, by="retain", reasons=["old"])
    with pytest.raises(CheckpointError):
        promote(registry, TASK, third, reasons=[words], by="gate", deployment=NeverServes())
    assert standing(registry, TASK) == Standing(TASK, second, first)


def test_a_promotion_that_was_finished_is_not_made_again(registry, add):
    """A kill while the outcome is told brings `settle` again: the version would be its own fallback then.

    Other words of the gate are another decision; so is the same one once somebody else has served.
    """
    first, second = add(0), add(1)
    promote(registry, TASK, first, **BY)
    better = Decision("promote", ("better",), ())
    assert settle(registry, TASK, second, better, compared=first) == better
    count = len(registry.audit.entries())
    assert settle(registry, TASK, second, better, compared=first, deployment=NeverServes()) == better
    assert len(registry.audit.entries()) == count
    assert standing(registry, TASK) == Standing(TASK, second, first)
    settle(registry, TASK, second, Decision("promote", ("much better",), ()), compared=first)
    assert len(registry.audit.entries()) == count + 1
    promote(registry, TASK, first, reasons=["a doubt"], by="Ada")
    assert settle(registry, TASK, second, better, compared=first).verdict == "undecided"


def test_a_rollback_does_not_wait_for_a_rehearsal(registry, add):
    """It takes minutes; what has changed meanwhile is looked at before anything moves."""
    first, second, third = add(0), add(1), add(2)
    promote(registry, TASK, first, **BY)
    promote(registry, TASK, second, **BY)

    class RolledBackMeanwhile(NeverServes):
        def rehearse(self, task, version):
            rollback(registry, task, reason="an incident", by="Ada")

    better = Decision("promote", ("better",), (compared_with_champion(True),))
    stands = settle(registry, TASK, third, better, compared=second, deployment=RolledBackMeanwhile())
    assert stands.verdict == "undecided" and f"version {first} serves by now" in stands.reasons[0]
    assert standing(registry, TASK) == Standing(TASK, first, second)


@pytest.mark.parametrize(
    ("error", "verdict"), [(CheckpointError, "reject"), (NotTakenOverError, "undecided")]
)
def test_what_does_not_come_to_serve_goes_back_and_is_rejected_for_its_own_fault_only(
    registry, add, error, verdict
):
    """A service that hangs says nothing of the version: a person may promote it when that is mended."""
    first, second = add(0), add(1)
    promote(registry, TASK, first, **BY)
    better = Decision("promote", ("better",), ())
    stands = settle(registry, TASK, second, better, compared=first, deployment=NeverServes(error))
    assert stands.verdict == verdict and went_back(stands) and "the old one" in stands.reasons[0]
    assert not went_back(better)
    assert registry.models.version(TASK, second).tags["verdict"] == verdict
    assert standing(registry, TASK) == Standing(TASK, first, None)


def test_a_champion_that_is_rejected_when_judged_again_is_said_to_serve(registry, add):
    """It is not like any failed candidate: it goes on serving until a person decides."""
    first, second = add(0), add(1)
    promote(registry, TASK, first, **BY)
    worse = Decision("reject", ("not above the blur",), ())
    stands = settle(registry, TASK, first, worse, compared=None)
    assert stands.reasons[0].startswith("serves all the same") and stands.reasons[1:] == worse.reasons
    assert settle(registry, TASK, second, worse, compared=first).reasons == worse.reasons
    assert registry.models.champion(TASK) == first


class NeverServes:
    """A service that does not take the new champion over."""

    def __init__(self, error: type[CvdmError] = CheckpointError) -> None:
        self._error = error

    def rehearse(self, task, version):
        pass

    def watch(self, task, version):
        raise self._error("the service to serve it", "the old one", "Look at its log.")


def test_a_store_that_is_down_while_reverting_does_not_hide_the_error(registry, add):
    """What failed first is raised, with a note that the aliases could not be put back."""
    number = add()
    unreadable = Flaky(Dying(registry.models, 5, RegistryError), CheckpointError)
    with pytest.raises(CheckpointError) as failure:
        promote(replace(registry, models=unreadable), TASK, number, **BY)
    assert "could not be put back" in failure.value.__notes__[0]


def compared_with_champion(passed: bool | None) -> GateTest:
    return GateTest("crps vs champion", passed, 0.1, 0.1, "CRPS", "p")


def test_a_decision_against_another_champion_is_not_carried_out(registry, add):
    """Somebody promoted meanwhile: undecided, and why; failures of the candidate by itself stand."""
    judged, meanwhile, candidate = add(0), add(1), add(2)
    promote(registry, TASK, judged, **BY)
    better = Decision("promote", ("better",), (compared_with_champion(True),))
    worse = Decision("reject", ("worse",), (compared_with_champion(False),))
    blurred = Decision(
        "reject", ("blurred",), (GateTest("psnr_fit vs input", False, 0, 0, "blurred", "mean gain"),)
    )
    promote(registry, TASK, meanwhile, **BY)
    for decision in (better, worse):
        settled = settle(registry, TASK, candidate, decision, compared=judged)
        assert settled.verdict == "undecided"
        assert f"judged against version {judged}, but version {meanwhile} serves" in settled.reasons[0]
    assert registry.models.version(TASK, candidate).tags["verdict"] == "undecided"
    assert settle(registry, TASK, candidate, blurred, compared=judged) == blurred
    assert standing(registry, TASK) == Standing(TASK, meanwhile, judged)
    assert settle(registry, TASK, candidate, better, compared=meanwhile) == better
    assert settle(registry, TASK, candidate, better, compared=meanwhile) == better  # champion by now
    assert standing(registry, TASK) == Standing(TASK, candidate, meanwhile)


def test_moves_of_one_task_wait_for_each_other(registry, add, capfd):
    """A promotion says what it waits for and begins when the move before it has ended."""
    number = add()
    with alone(registry, TASK):
        moving = threading.Thread(target=lambda: promote(registry, TASK, number, **BY))
        moving.start()
        moving.join(1.0)
        assert registry.models.champion(TASK) is None
        assert "another move of" in capfd.readouterr().err  # it verifies after the lock is its
    moving.join(60)
    assert registry.models.champion(TASK) == number


def test_the_gate_does_not_undo_a_persons_promotion(registry, add):
    """The champion that a person replaced stays replaced, however well it is judged again."""
    first, second = add(1), add(2)
    promote(registry, TASK, second, **BY)
    promote(registry, TASK, first, reasons=["edges are blurred in the other"], by="Ada")
    stands = settle(registry, TASK, second, Decision("promote", ("better",), ()), compared=first)
    assert stands.verdict == "undecided" and "edges are blurred" in stands.reasons[0]
    assert registry.models.champion(TASK) == first


def test_every_decision_has_an_entry_in_the_audit_log(registry, add, monkeypatch):
    """Promotions, refusals, rollbacks and moves that were taken back; and each version names its latest."""
    first, second, third = add(1), add(2), add(3)
    promote(registry, TASK, first, **BY)
    promote(registry, TASK, second, reasons=["seen by eye"], by="Ada")
    rollback(registry, TASK, reason="blurred", by="Grace")
    settle(registry, TASK, third, Decision("reject", ("worse",), ()), compared=first)
    calls = []

    def fails_at_the_second(registry, task, which):
        calls.append(which)
        if len(calls) == 2:
            raise CheckpointError("a golden answer", "another", "Retrain.")

    monkeypatch.setattr("flows.promote.verify", fails_at_the_second)
    with pytest.raises(CheckpointError):
        promote(registry, TASK, third, reasons=["again"], by="Ada")
    told = [(one.action, one.version, one.by, one.details["champion"]) for one in registry.audit.entries()]
    assert told == [
        ("promote", first, "gate", None),
        ("promote", second, "Ada", first),
        ("rollback", first, "Grace", second),
        ("reject", third, "gate", first),
        ("promote", third, "Ada", first),
        ("reverted", third, "Ada", first),
    ]
    assert registry.audit.verify(audit_references(registry)).sound
    assert len(audit_references(registry)) == 3
    lines = registry.audit.path.read_bytes().splitlines(keepends=True)
    registry.audit.path.write_bytes(b"".join(lines[:-2]))
    assert not registry.audit.verify(audit_references(registry)).sound


def test_without_an_entry_nothing_moves(registry, add):
    """A log that cannot be written stops a promotion before an alias changes."""
    first, second = add(1), add(2)
    promote(registry, TASK, first, **BY)
    registry.audit.path.unlink()
    registry.audit.path.mkdir()
    with pytest.raises(StorageError):
        promote(registry, TASK, second, **BY)
    assert registry.models.champion(TASK) == first
