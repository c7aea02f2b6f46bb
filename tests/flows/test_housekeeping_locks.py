"""Nothing is removed under a retraining's feet, on whichever device it trains."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.device_lock import BusyError, all_devices_lock, device_lock, holder
from flows.housekeeping.flow import _carried_out, reap
from flows.housekeeping.plan import Doomed, Item, Plan
from flows.settings import Settings

DEVICES = ("cpu", "cuda", "cuda:1")


@pytest.fixture
def locks(project_settings: Settings) -> Path:
    return project_settings.mlruns_dir / "locks"


def begins(locks: Path, device: str) -> bool:
    """Whether a retraining could begin on a device now."""
    try:
        with device_lock(locks, device, "retrain test-cells"):
            return True
    except BusyError:
        return False


def test_no_retraining_begins_on_any_device_while_something_goes(project_settings, locks):
    """Planted: one on every device, in the middle of a removal."""
    begun = {}

    def remove() -> None:
        begun.update({device: begins(locks, device) for device in DEVICES})

    plan = Plan((Doomed(Item("folder", "old", "old"), remove),), ())
    _carried_out(project_settings, lambda _registry: plan, apply=True)
    assert begun == dict.fromkeys(DEVICES, False)
    assert all(begins(locks, device) for device in DEVICES)


def test_a_mere_look_keeps_nobody_away(project_settings, locks):
    """Without --apply nothing goes, so everybody may begin."""
    begun = {}

    def look(_registry: object) -> Plan:
        begun.update({device: begins(locks, device) for device in DEVICES})
        return Plan((), ())

    _carried_out(project_settings, look, apply=False)
    assert begun == dict.fromkeys(DEVICES, True)


@pytest.mark.parametrize("device", DEVICES)
def test_who_is_kept_away_learns_what_is_running_and_what_to_do(locks, device):
    """A person by the error, a trigger by the look before it starts."""
    with all_devices_lock(locks, "housekeeping"):
        words = f"'housekeeping' in process {os.getpid()}"
        assert words in str(holder(locks, device))
        with pytest.raises(BusyError, match=words) as refusal, device_lock(locks, device, "retrain a"):
            pass
        assert "Wait" in refusal.value.remedy and "housekeeping" in refusal.value.expected
    assert holder(locks, device) is None


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_goes_while_any_device_trains(project_settings, locks, device):
    """The chosen device is another one; a start between the look at the locks and the removal is seen too."""
    copy = project_settings.mlruns_dir / "training" / "test-cells-version-3"
    copy.mkdir(parents=True)
    with device_lock(locks, device, "retrain test-cells"):
        told = reap(project_settings, apply=True).summary(applied=True)
        assert "'retrain test-cells' in process" in told and "run it again" in told
        with pytest.raises(BusyError, match="'retrain test-cells' in process"):
            all_devices_lock(locks, "housekeeping").__enter__()
    assert copy.is_dir()
    assert reap(project_settings, apply=True).goes and not copy.exists()


def test_two_removals_never_go_at_once(project_settings, locks):
    """The second one says so and leaves everything."""
    with all_devices_lock(locks, "retain"):
        told = reap(project_settings, apply=True)
        assert not told.goes and "'retain' in process" in told.summary(applied=True)


def test_what_a_killed_housekeeping_leaves_keeps_nobody_away(locks):
    """Its name is in the file, its lock went with it."""
    locks.mkdir(parents=True)
    (locks / "housekeeping.lock").write_text('{"purpose": "housekeeping"}')
    assert holder(locks, "cpu") is None and all(begins(locks, device) for device in DEVICES)
    with all_devices_lock(locks, "housekeeping"):
        assert not begins(locks, "cuda:1")
