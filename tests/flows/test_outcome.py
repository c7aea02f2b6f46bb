"""What a flow came to stands without its orchestrator: a real one, killed while the flow runs."""

from __future__ import annotations

import httpx
import prefect
import pytest

from cvdm.errors import TrainingError
from flows import outcome
from flows.flow_artifacts import shown_progress
from flows.processes import orchestrator
from flows.progress import progress_bar, told_to
from flows.servers import ServerError, free_port, running
from flows.settings import Settings


@pytest.mark.parametrize("fails", [False, True], ids=["result", "error"])
def test_the_end_of_a_flow_stands_when_its_orchestrator_is_gone(project_settings, monkeypatch, fails):
    """Result or error are those of the flow, told once; the next flow is refused in words."""
    from flows.processes import prefect_server

    monkeypatch.setattr(outcome, "RETRIES", 1)  # a busy machine's server answers 503 at times
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    port, told = free_port("127.0.0.1"), []
    settings = Settings.read(
        home=project_settings.home, prefect_port=port, prefect_url=f"http://127.0.0.1:{port}/api"
    )
    double = prefect.task(lambda number: 2 * number, name="double")
    with running(prefect_server(settings, port, private=True)) as (server,):
        server.wait_until_ready()

        @prefect.flow(name="outlives")
        def outlives(number: int, *, more: int = 0) -> int:
            server.process.kill()
            server.process.wait()
            await_silence(settings.prefect_url)
            with progress_bar("count", "number") as progress:
                progress(1, 1)
            if fails:
                raise TrainingError("finite losses", "NaN", "Lower the learning rate.")
            return int(double(number)) + more

        follow = outcome.outcome_of(outlives, told.append)
        with orchestrator(settings) as ready, ready(), told_to(shown_progress("a-task")):
            if fails:
                with pytest.raises(TrainingError, match="finite losses"):
                    follow(20)
            else:
                assert follow(20, more=2) == 42
            assert len(told) == 1 and "could not be told" in told[0]
            with pytest.raises(ServerError, match="before it began"):
                follow(1)


def test_a_flow_that_ends_under_its_orchestrator_says_nothing(prefect_server):
    """The result is handed on, and a failed request of the flow's own is not taken for the orchestrator."""
    told = []
    assert outcome.outcome_of(prefect.flow(lambda: 42, name="answer"), told.append)() == 42

    @prefect.flow(name="asks")
    def asks() -> None:
        raise httpx.ConnectError("some other server")

    with pytest.raises(httpx.ConnectError, match="some other server"):
        outcome.outcome_of(asks, told.append)()
    assert told == []


def await_silence(url: str) -> None:
    """Until the helpers of a killed server have let go of its port."""
    for _ in range(200):
        try:
            httpx.get(f"{url}/health", timeout=1)
        except httpx.HTTPError:
            return
    pytest.fail("the orchestrator was killed and still answers")
