"""Before and after a version serves: real service processes, started here."""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import psutil
import pytest
from service_world import answering, respond
from specimens import cells, make_checkpoint, spoil_weights

from cvdm.checkpoint import save_checkpoint
from flows.aliases import Standing, standing
from flows.audit import Entry
from flows.deployment import DeploymentError, ServiceDeployment, deployment_of, models_of, replay
from flows.gate import Decision
from flows.processes import SERVICE_READY, service_server
from flows.promote import NotTakenOverError, promote
from flows.registry import Registry
from flows.servers import RunningServer, ServerError, free_port, running
from flows.settings import Settings
from flows.settle import settle, went_back

TASK = "test-cells"
BY = {"reasons": ("better",), "by": "gate"}
NO_ROOM = {"error": "NoModelError", "expected": "version 1 to load", "actual": "OutOfMemoryError"}


@pytest.fixture(scope="module")
def settings(module_settings) -> Settings:
    changes = {"service_port": free_port("127.0.0.1"), "deploy_window_seconds": 60, "rehearsal": True}
    return module_settings.model_copy(update=changes)


@pytest.fixture(scope="module")
def registry(settings) -> Registry:
    return Registry.open(settings)


@pytest.fixture(scope="module")
def versions(registry, tmp_path_factory) -> tuple[int, int, int, int]:
    """Three sound versions, the first of which serves, and one whose golden answer is another model's."""
    numbers = []
    for seed in (1, 2, 3, 4):
        directory = tmp_path_factory.mktemp(f"source-{seed}") / "checkpoint"
        save_checkpoint(directory, make_checkpoint(seed=seed), cells(np.random.default_rng(7), 32))
        if seed == 4:
            spoil_weights(directory)
        run = registry.runs.start(TASK, "a run", params={}, tags={})
        numbers.append(registry.models.register(TASK, run, directory, {}))
    promote(registry, TASK, numbers[0], **BY)
    return tuple(numbers)


@pytest.fixture(scope="module")
def service(settings, versions) -> Iterator[RunningServer]:
    """The service that runs on this machine, with the first version."""
    with running(service_server(settings, settings.service_port)) as (started,):
        started.wait_until_ready(SERVICE_READY)
        yield started


def last_entry(registry: Registry) -> Entry:
    return registry.audit.entries()[-1]


def test_a_sound_version_passes_its_rehearsal_and_leaves_no_process(settings, registry, versions):
    """A service of its own restores the golden input over HTTP as it was restored when it was made."""
    before = set(psutil.Process().children(recursive=True))  # of other tests' services, for instance
    ServiceDeployment(settings, registry).rehearse(TASK, versions[1])
    children = set(psutil.Process().children(recursive=True)) - before
    assert not [one for one in children if "bentoml" in " ".join(one.cmdline())]


def test_a_version_with_other_weights_fails_its_rehearsal(settings, registry, versions):
    """Planted: checksums hold, the golden pair does not; the reason is the service's own."""
    with pytest.raises(DeploymentError, match="golden"):
        ServiceDeployment(settings, registry).rehearse(TASK, versions[3])


def test_a_service_that_dies_in_the_rehearsal_rejects_nobody(settings, registry, versions, monkeypatch):
    """Planted: it is killed between being ready and the replay; nothing is decided, and its end is told."""

    def killed(service: RunningServer, *_: object) -> None:
        wait_until_ready(service)
        service.process.kill()
        service.process.wait()

    wait_until_ready = RunningServer.wait_until_ready
    monkeypatch.setattr(RunningServer, "wait_until_ready", killed)
    decisions = len(registry.audit.entries())
    with pytest.raises(ServerError, match="rehearsal"):
        settle(
            registry,
            TASK,
            versions[1],
            Decision("promote", ("better",), ()),
            compared=versions[0],
            deployment=ServiceDeployment(settings, registry),
        )
    assert len(registry.audit.entries()) == decisions
    assert registry.models.version(TASK, versions[1]).tags.get("verdict") is None


def test_a_service_without_room_says_nothing_of_a_version(settings, registry, versions, tmp_path):
    """A busy service is not the version's fault; nobody at all is not either."""
    golden = registry.models.download(TASK, versions[1], tmp_path / "checkpoint") / "golden"
    for kind, status in (("BusyError", 503), ("NoModelError", 503), ("UnexpectedError", 500)):
        full = {"error": kind, "expected": "room", "actual": "OutOfMemoryError", "remedy": "Wait."}
        with (
            answering(partial(respond, told=full, status=status)) as port,
            pytest.raises(ServerError, match="OutOfMemoryError"),
        ):
            replay(f"http://127.0.0.1:{port}", TASK, versions[1], golden, tmp_path / "answer.tif")
    with pytest.raises(ServerError, match="golden input"):
        replay(f"http://127.0.0.1:{port}", TASK, versions[1], golden, tmp_path / "answer.tif")


def test_a_promoted_version_is_taken_over_by_the_running_service(settings, registry, versions, service):
    """When a promotion returns, the service answers with the new champion."""
    promote(registry, TASK, versions[1], **BY, deployment=Watched(settings, registry))
    serving = [one["version"] for one in models_of(service.server.url, TASK) or () if one["serving"]]
    assert serving == [versions[1]]


def test_a_service_that_hangs_sends_the_aliases_back(settings, registry, versions, service):
    """Planted: the service stops answering while it should take over; the former champion stands again."""
    before = standing(registry, TASK)
    short = settings.model_copy(update={"deploy_window_seconds": 2})
    family = psutil.Process(service.process.pid).children(recursive=True)

    class Freezing(Watched):
        def _is_known(self, *arguments):
            known = super()._is_known(*arguments)
            for process in family:
                process.send_signal(signal.SIGSTOP)
            return known

    try:
        decision = settle(
            registry,
            TASK,
            versions[2],
            Decision("promote", ("better",), ()),
            compared=before.champion,
            deployment=Freezing(short, registry),
        )
    finally:
        for process in family:
            process.send_signal(signal.SIGCONT)
    assert decision.verdict == "undecided" and "within 2 s" in decision.reasons[0]
    assert went_back(decision)
    assert standing(registry, TASK) == before
    assert "within 2 s" in registry.models.version(TASK, versions[2]).tags["reverted"]
    assert [entry.action for entry in registry.audit.entries()][-2:] == ["reverted", "undecided"]
    assert last_entry(registry).version == versions[2]


@pytest.mark.parametrize("path", ["/livez", "/models"])
def test_a_service_that_hangs_before_it_is_asked_is_no_missing_service(registry, versions, settings, path):
    """Planted: it takes the connection and says nothing, at the first question or at the second."""
    before = standing(registry, TASK)
    number = next(one for one in versions if one != before.champion)
    with hanging(path) as port:
        hung = settings.model_copy(update={"service_port": port, "deploy_window_seconds": 1})
        with pytest.MonkeyPatch.context() as patch, pytest.raises(NotTakenOverError, match="no answer"):
            patch.setattr("flows.deployment.ANSWER_SECONDS", 0.5)
            patch.setattr("flows.deployment.NEXT_LOOK_SECONDS", 1.0)
            promote(registry, TASK, number, **BY, deployment=Watched(hung, registry))
    assert standing(registry, TASK) == before


def test_a_service_that_starts_again_is_waited_for(registry, versions, settings, monkeypatch):
    """Planted: its worker was killed, so it says nothing for a while, then knows nothing, then finds the
    device full; that is no reason to send the aliases back."""
    monkeypatch.setattr("flows.deployment.NEXT_LOOK_SECONDS", 0.0)
    monkeypatch.setattr("flows.deployment.POLL_SECONDS", 0.05)
    number, said = versions[0], []
    known = {"task": TASK, "version": number, "run_id": registry.models.version(TASK, number).run_id}
    looks = [
        None,
        {"registry": {"checked": None}, "models": []},
        {"registry": {"checked": "now"}, "models": [known | {"serving": False, "reason": None}]},
        {"registry": {"checked": "now"}, "models": [known | {"serving": False, "reason": NO_ROOM}]},
        {"registry": {"checked": "now"}, "models": [known | {"serving": True, "reason": None}]},
    ]

    def again(handler):
        if handler.path == "/models":
            said.append(looks[min(len(said), len(looks) - 1)])
        respond(handler, said[-1] if said else {})

    with answering(again) as port:
        back = settings.model_copy(update={"service_port": port})
        ServiceDeployment(back, registry).watch(TASK, number)
    assert said == looks


def test_a_version_that_the_service_refuses_is_not_waited_for(registry, versions, settings):
    """Planted: it found other weights; that passes with no time, as no room does."""
    number = versions[0]
    known = {"task": TASK, "version": number, "run_id": registry.models.version(TASK, number).run_id}
    wrong = {"error": "CheckpointError", "expected": "the golden mean", "actual": "another", "remedy": ""}
    told = {"registry": {"checked": "now"}, "models": [known | {"serving": False, "reason": wrong}]}
    with answering(partial(respond, told=told)) as port:
        here = settings.model_copy(update={"service_port": port})
        with pytest.raises(DeploymentError, match="the golden mean another"):
            ServiceDeployment(here, registry).watch(TASK, number)
        told["models"][0]["reason"] = NO_ROOM
        short = here.model_copy(update={"deploy_window_seconds": 1})
        with pytest.raises(NotTakenOverError, match="OutOfMemoryError"):
            ServiceDeployment(short, registry).watch(TASK, number)


def test_a_service_without_its_registry_is_one_of_another(registry, versions, settings, monkeypatch):
    """Planted: it says that its registry does not answer. Ours does, so it is nothing to wait for."""
    monkeypatch.setattr("flows.deployment.NEXT_LOOK_SECONDS", 0.0)
    silent = {"checked": None, "error": {"error": "RegistryError"}}
    with answering(lambda handler: respond(handler, {"registry": silent, "models": []})) as port:
        ServiceDeployment(settings.model_copy(update={"service_port": port}), registry).watch(
            TASK, versions[0]
        )


@pytest.mark.parametrize("told", [[], "ok", {"registry": None}, {"models": 1}])
def test_what_is_no_service_of_ours_says_nothing_of_models(told):
    """JSON of another kind."""
    with answering(lambda handler: respond(handler, told)) as port:
        assert models_of(f"http://127.0.0.1:{port}", TASK) is None


@contextmanager
def hanging(path: str) -> Iterator[int]:
    """A server on a free port that answers everything at once but `path`, which it never does."""
    release = threading.Event()

    def silent(handler):
        if handler.path == path:
            release.wait()
        respond(handler, {})

    with answering(silent) as port:
        try:
            yield port
        finally:
            release.set()


def test_a_service_of_another_registry_is_nothing_to_wait_for(
    settings, versions, service, _empty_store, tmp_path, monkeypatch
):
    """Version 1 of the same task in another store: the service here will never serve it."""
    monkeypatch.setattr("flows.deployment.NEXT_LOOK_SECONDS", 0.0)
    database = shutil.copy(_empty_store, tmp_path / "mlflow.db")
    own = settings.model_copy(
        update={"tracking_uri": f"sqlite:///{database}", "artifact_root": str(tmp_path / "artifacts")}
    )
    registry, directory = Registry.open(own), tmp_path / "checkpoint"
    save_checkpoint(directory, make_checkpoint(seed=5), cells(np.random.default_rng(7), 32))
    run = registry.runs.start(TASK, "a run", params={}, tags={})
    number = registry.models.register(TASK, run, directory, {})
    assert number == versions[0]
    promote(registry, TASK, number, **BY, deployment=Watched(own, registry))
    assert registry.models.champion(TASK) == number


def test_without_a_service_nothing_is_awaited(module_settings, registry, versions):
    """Nobody listens: a promotion is complete as soon as the alias has moved."""
    quiet = module_settings.model_copy(update={"service_port": free_port("127.0.0.1")})
    promote(registry, TASK, versions[0], **BY, deployment=Watched(quiet, registry))
    assert standing(registry, TASK) == Standing(TASK, versions[0], versions[1])


def test_an_operator_may_do_without(settings, registry):
    """CVDM_REHEARSAL=0 is for machines that serve nothing."""
    assert deployment_of(settings, registry) is not None
    assert deployment_of(settings.model_copy(update={"rehearsal": False}), registry) is None


class Watched(ServiceDeployment):
    """Without the rehearsal, which has tests of its own."""

    def rehearse(self, task: str, version: int) -> None:
        pass
