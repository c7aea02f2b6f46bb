"""Which model answers, over swaps, failures and outages; with a fake registry."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from dataclasses import replace

import pytest
from service_world import TASK, corrupt_golden
from specimens import make_checkpoint

from cvdm.errors import CheckpointError
from service.device import Device
from service.errors import (
    DownloadError,
    NoModelError,
    ParameterError,
    RegistryError,
    UnknownTaskError,
    UnknownVersionError,
)
from service.loading import Version
from service.residents import Residents
from service.shelf import Shelf


class FakeRegistry:
    """Answers from a list; a version's files are a real checkpoint directory."""

    def __init__(self):
        self.versions: dict[int, Version] = {}
        self.directories = {}
        self.fetched: list[int] = []
        self.down = False
        self.trouble: Exception | None = None

    def add(self, number, directory):
        self.versions[number] = Version(TASK, number, f"run{number}")
        self.directories[number] = directory

    def promote(self, number):
        for n, version in self.versions.items():
            self.versions[n] = replace(version, aliases=("champion",) if n == number else ())

    def catalogue(self):
        if self.down:
            raise RegistryError("an answer", "none", "Start it.")
        newest_first = sorted(self.versions.values(), key=lambda version: -version.number)
        return {TASK: tuple(newest_first)} if newest_first else {}

    def cached(self, version):
        return None

    def fetch(self, version):
        self.fetched.append(version.number)
        if self.trouble is not None:
            raise self.trouble
        return self.directories[version.number]

    def forget(self, version):
        pass


@pytest.fixture(scope="module")
def healthy(checkpoints):
    return [checkpoints(seed=seed) for seed in range(4)]


@pytest.fixture
def registry(healthy):
    fake = FakeRegistry()
    for number, directory in enumerate(healthy, 1):
        fake.add(number, directory)
    return fake


def residents(registry, *, pause_seconds=0.0, room_for=2, **choices):
    """room_for: so many models in memory."""
    one = sum(tensor.nbytes for tensor in make_checkpoint().model.state_dict().values())
    budget, device = int((room_for + 0.5) * one), Device(max_waiting=2)
    shelf = Shelf(registry, device, torch_device="cpu", budget_bytes=budget, pause_seconds=pause_seconds)
    return Residents(registry, shelf, **choices)


def told(models, number):
    return next(m for m in models.describe()["models"] if m["version"] == number)


def test_a_swap_moves_new_requests_and_keeps_old_ones(registry):
    """Who holds the old model keeps it; who asks later gets the new one; then the old one is freed."""

    async def scenario():
        swaps = []
        models = residents(registry, on_swap=swaps.append)
        registry.promote(1)
        await models.refresh()
        held = await models.get(None, None)
        registry.promote(2)
        await models.refresh()
        assert (await models.get(TASK, None)).version.number == 2
        assert held.version.number == 1
        assert [(s.before and s.before.number, s.version.number) for s in swaps] == [(None, 1), (1, 2)]
        freed = weakref.ref(held.checkpoint)
        del held
        gc.collect()
        assert freed() is None

    asyncio.run(scenario())


def test_who_asks_before_the_first_look_waits_for_it(registry):
    """Of a service that has just started nobody is told of an empty registry, which would want a training."""

    async def scenario():
        models = residents(registry)
        early = asyncio.create_task(models.get(TASK, 2))
        await asyncio.sleep(0)
        assert not early.done() and models.describe()["registry"]["checked"] is None
        await models.refresh()
        assert (await early).version.number == 2

        registry.down, silent = True, residents(registry)
        early = asyncio.create_task(silent.get(TASK, 2))
        await silent.refresh()
        with pytest.raises(RegistryError):
            await early

    asyncio.run(scenario())


def test_a_candidate_that_fails_its_golden_replay_never_serves(registry, checkpoints):
    """The old champion serves on, the reason is told, and the candidate is not tried again and again."""
    bad = checkpoints(seed=5)
    corrupt_golden(bad)
    registry.add(9, bad)

    async def scenario():
        models = residents(registry)
        registry.promote(1)
        await models.refresh()
        registry.promote(9)
        for _ in range(3):
            await models.refresh()
        assert (await models.get(None, None)).version.number == 1
        assert registry.fetched == [1, 9]
        assert told(models, 9)["reason"]["error"] == "CheckpointError"
        assert "golden" in told(models, 9)["reason"]["expected"]
        assert not told(models, 9)["verified"] and not told(models, 9)["serving"]
        assert told(models, 1)["serving"] and models.ready
        with pytest.raises(CheckpointError):
            await models.get(None, 9)
        kept = models._shelf.reasons.values()
        assert [reason.__traceback__ for reason in kept] == [None]  # its frames would hold the model

    asyncio.run(scenario())


def test_a_damaged_file_makes_the_first_champion_unready(registry, checkpoints):
    """With a damaged champion and no other there is no readiness, and a request is told the reason."""
    bad = checkpoints(seed=6)
    (bad / "weights.pt").write_bytes(b"damaged")
    registry.add(8, bad)

    async def scenario():
        models = residents(registry)
        registry.promote(8)
        await models.refresh()
        assert not models.ready
        with pytest.raises(CheckpointError, match=r"weights\.pt"):
            await models.get(None, None)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("trouble", "refusal"),
    [
        (OSError(28, "No space left on device"), NoModelError),
        (DownloadError("artifacts/checkpoint", "a connection reset", "Start it."), DownloadError),
    ],
)
def test_trouble_that_passes_is_tried_again(registry, trouble, refusal):
    """A full disk or a failed download keeps a candidate out until there is room or a download."""

    async def scenario():
        models = residents(registry)
        registry.trouble = trouble
        registry.promote(1)
        await models.refresh()
        assert not models.ready and told(models, 1)["reason"]
        with pytest.raises(refusal):
            await models.get(None, None)
        registry.trouble = None
        await models.refresh()
        assert models.ready and told(models, 1)["reason"] is None

    asyncio.run(scenario())


def test_trouble_is_given_a_pause(registry):
    """Neither the watch nor a request tries again before the pause is over; until then the reason is told."""

    async def scenario():
        models = residents(registry, pause_seconds=0.2)
        registry.promote(1)
        registry.trouble = DownloadError("artifacts/checkpoint", "a connection reset", "Start it.")
        await models.refresh()
        await models.refresh()
        with pytest.raises(DownloadError):
            await models.get(None, 1)
        assert registry.fetched == [1]
        registry.trouble = None
        await asyncio.sleep(0.25)
        await models.refresh()
        assert models.ready and registry.fetched == [1, 1]

    asyncio.run(scenario())


def test_previous_is_the_version_that_the_alias_names(registry):
    """The alias is looked up in the registry; without it the request is refused by that name."""

    async def scenario():
        models = residents(registry)
        registry.promote(2)
        await models.refresh()
        with pytest.raises(UnknownVersionError, match="previous"):
            await models.get(None, "previous")
        registry.versions[1] = replace(registry.versions[1], aliases=("previous",))
        assert (await models.get(None, "previous")).version.number == 1
        assert (await models.get(None, None)).version.number == 2

    asyncio.run(scenario())


def test_the_model_unused_for_longest_makes_room(registry):
    """A version is loaded once for everybody; with room for two, a third evicts whoever was idle longest."""

    async def scenario():
        models = residents(registry)
        registry.promote(1)
        await models.refresh()
        both = await asyncio.gather(models.get(None, 2), models.get(None, 2))
        assert both[0] is both[1]
        await models.get(None, None)  # so 2 is the one that nobody used for longest
        await models.get(None, 3)
        assert [told(models, n)["loaded"] for n in (1, 2, 3)] == [True, False, True]
        assert told(models, 2)["verified"]
        await models.get(None, 2)
        assert [told(models, n)["loaded"] for n in (1, 2, 3)] == [False, True, True]
        assert models.loaded == 2
        assert registry.fetched == [1, 2, 3, 2]

    asyncio.run(scenario())


def test_a_champion_that_made_room_still_answers(registry):
    """It stays champion and ready, and is loaded again for whoever asks for it next, even in an outage."""

    async def scenario():
        models = residents(registry, room_for=1)
        registry.promote(1)
        await models.refresh()
        await models.get(None, 2)
        assert models.ready and told(models, 1)["serving"] and not told(models, 1)["loaded"]
        await models.refresh()
        assert not told(models, 1)["loaded"], "looking at the registry alone must not load it"
        registry.down = True
        assert (await models.get(None, None)).version.number == 1
        assert registry.fetched == [1, 2, 1]

    asyncio.run(scenario())


def test_who_challenges_the_champion(registry):
    """The version of the alias, else the newest one if the gate was undecided about it."""

    async def scenario():
        models = residents(registry)
        registry.promote(2)
        await models.refresh()
        assert models.challenger(TASK) is None
        registry.versions[1] = replace(registry.versions[1], verdict="undecided")
        await models.refresh()
        assert models.challenger(TASK) is None, "an old version has had its chance"
        registry.versions[4] = replace(registry.versions[4], verdict="undecided")
        await models.refresh()
        assert models.challenger(TASK).number == 4
        registry.versions[3] = replace(registry.versions[3], aliases=("challenger",))
        await models.refresh()
        assert models.challenger(TASK).number == 3
        registry.versions[3] = replace(registry.versions[3], aliases=())
        registry.promote(4)
        await models.refresh()
        assert models.challenger(TASK) is None

    asyncio.run(scenario())


def test_a_model_larger_than_the_budget_serves_alone(registry):
    """A budget below one model bounds how many stay, and refuses none."""

    async def scenario():
        models = residents(registry, room_for=0)
        registry.promote(1)
        await models.refresh()
        assert (await models.get(None, None)).version.number == 1
        assert (await models.get(None, 2)).version.number == 2
        assert models.loaded == 1

    asyncio.run(scenario())


def test_an_outage_leaves_the_loaded_model_serving(registry):
    """The outage is told; requests for the champion go on; recovery is noticed."""

    async def scenario():
        models = residents(registry)
        registry.promote(1)
        await models.refresh()
        registry.down = True
        await models.refresh()
        assert models.describe()["registry"]["reachable"] is False
        assert models.describe()["registry"]["error"]["remedy"] == "Start it."
        assert (await models.get(None, None)).version.number == 1
        with pytest.raises(RegistryError):
            await models.get(None, 77)
        registry.down = False
        await models.refresh()
        assert models.describe()["registry"]["reachable"] is True

    asyncio.run(scenario())


def test_a_registry_that_forgets_its_champion_changes_nothing(registry):
    """Without alias or even without the model, what serves goes on and stays listed."""

    async def scenario():
        models = residents(registry)
        registry.promote(1)
        await models.refresh()
        registry.versions.clear()
        await models.refresh()
        assert (await models.get(TASK, None)).version.number == 1
        assert told(models, 1)["serving"]

    asyncio.run(scenario())


def test_what_does_not_exist_is_refused_by_name(registry):
    """Unknown task, unknown version, nothing promoted, and a task that must be named."""

    async def scenario():
        models = residents(registry, tasks=(TASK, "second"))
        await models.refresh()
        with pytest.raises(ParameterError, match="second"):
            await models.get(None, None)
        with pytest.raises(UnknownTaskError, match=TASK):
            await models.get("third", None)
        with pytest.raises(UnknownVersionError, match="1, 2, 3, 4"):
            await models.get(TASK, 99)
        with pytest.raises(NoModelError, match="no champion yet"):
            await models.get(TASK, None)
        assert json.dumps(models.describe())

    asyncio.run(scenario())


def test_the_default_task_answers_for_requests_that_name_none(registry):
    """CVDM_DEFAULT_TASK decides among several."""

    async def scenario():
        models = residents(registry, tasks=(TASK, "second"), default_task=TASK)
        registry.promote(3)
        await models.refresh()
        assert (await models.get(None, None)).version.number == 3

    asyncio.run(scenario())
