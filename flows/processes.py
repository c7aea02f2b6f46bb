"""The servers of the platform: tracking, orchestrator, schedule and service, together or one at a time.

    up               all of them until Ctrl-C (`cvdm up`)
    orchestrator     the Prefect server that answers already, or a private one for the block
    running_service  the reconstruction service for the block

Each runs on a leash (flows/servers.py, flows/tether.py): when this process ends, however it ends, nothing is
left running. Output goes to mlruns/logs/NAME.log.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

from pydantic import SecretStr

from cvdm.addresses import shown_uri
from cvdm.errors import ConfigError
from cvdm.storage import storage_error
from flows.alerts import require_valid
from flows.servers import RunningServer, Server, answers, free_port, reachable, require_free_ports, running
from flows.settings import Settings

CODE = Path(__file__).resolve().parent.parent
"""The folder of the packages `flows` and `service`."""
WATCH_SECONDS = 0.5
DELIVERY_SECONDS = 15.0
TRACKING = "mlflow"
"""The tracking server's name."""
_TRACKING_APP = "cvdm"
"""The entry point of flows/registry/tracking_app.py."""
SERVICE_READY, SERVICE_LIVES = "/readyz", "/livez"


@dataclass(frozen=True)
class Address:
    """What somebody can open in a browser, and what it is."""

    name: str
    url: str
    note: str


def up(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run everything until interrupted; `announce` gets one table of addresses when all is ready.

    Raises ConfigError, PortError before anything starts, ServerError when a server does not come up or ends
    by itself.
    """
    require_valid(settings)
    _make_prefect_home(settings)
    *stores, service = local_servers(settings)
    require_free_ports((*stores, service))
    with running(*stores) as first:
        # Who comes first to a new database, or with a new MLflow to an old one, brings its tables up; two who
        # do it at once fail.
        tracking, others = (
            [one for one in first if (one.server.name == TRACKING) is it] for it in (True, False)
        )
        _wait_for(tracking)
        with running(service) as second:
            _wait_for((*others, *second))
            with running(schedule_runner(settings)) as (runner,):
                announce(address_table(addresses(settings)))
                watch((*first, *second, runner))


def _wait_for(servers: Iterable[RunningServer]) -> None:
    for server in servers:
        server.wait_until_ready()


def watch(servers: tuple[RunningServer, ...]) -> None:
    """Block until interrupted, or until one ends by itself: ServerError."""
    while True:
        for server in servers:
            server.check_alive()
        time.sleep(WATCH_SECONDS)


def local_servers(settings: Settings) -> tuple[Server, ...]:
    """What is to run here, the service last; a tracking server or orchestrator elsewhere is used as it is."""
    servers = [service_server(settings, settings.service_port)]
    if tracks_locally(settings):
        servers.insert(0, mlflow_server(settings))
    if orchestrates_locally(settings):
        servers.insert(0, prefect_server(settings, settings.prefect_port, private=False))
    return tuple(servers)


def tracks_locally(settings: Settings) -> bool:
    """Whether tracking is a database of our own rather than a server somewhere."""
    return not settings.tracking_uri.startswith(("http://", "https://"))


def orchestrates_locally(settings: Settings) -> bool:
    """Whether CVDM_PREFECT_URL is the server that `up` would start."""
    return settings.prefect_url == f"http://{settings.host}:{settings.prefect_port}/api"


@contextmanager
def orchestrator(settings: Settings) -> Iterator[Callable[[], AbstractContextManager[str]]]:
    """A Prefect server for the block: the one that answers, else a private one, which takes seconds to start.

    The block gets a context manager that waits until it answers, directs this process to it, and gives its
    address; what can be done before, such as imports, is done while it starts.
    """
    settings.prepare_environment()
    if answers(f"{settings.prefect_url}/health"):
        yield partial(_prefect_at, settings.prefect_url)
        return
    _make_prefect_home(settings)
    server = prefect_server(settings, free_port("127.0.0.1"), private=True)
    with running(server) as (started,):

        @contextmanager
        def ready() -> Iterator[str]:
            started.wait_until_ready()
            with _prefect_at(f"{server.url}/api") as url:
                yield url

        yield ready


@contextmanager
def running_service(settings: Settings, port: int) -> Iterator[str]:
    """The address of a service with a verified model, for the block. Raises ServerError, PortError."""
    with running(service_server(settings, port, alone=True)) as (started,):
        started.wait_until_ready(SERVICE_READY)
        yield started.server.url


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run the service alone until interrupted."""
    with running(service_server(settings, settings.service_port)) as servers:
        servers[0].wait_until_ready()
        announce(address_table(addresses(settings)[-1:]))
        watch(servers)


def mlflow_server(settings: Settings) -> Server:
    """MLflow's page and API, without its Assistant, over the database and artifacts that the flows write.

    Where they are, passwords included, it learns from its environment: everybody can read a command line.
    Raises ConfigError where MLflow cannot find the application.
    """
    command = (
        *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
        *("--host", settings.host, "--port", str(settings.mlflow_port)),
        *("--app-name", _TRACKING_APP),
    )
    _require_tracking_app()
    extra = {
        "MLFLOW_BACKEND_STORE_URI": settings.tracking_uri,
        "MLFLOW_ARTIFACTS_DESTINATION": settings.artifact_root,
    }
    return _server(settings, TRACKING, command, settings.mlflow_port, "/health", "CVDM_MLFLOW_PORT", extra)


def _require_tracking_app() -> None:
    """MLflow asks the installed package for it, which an installation from before it came does not know."""
    if not entry_points(group="mlflow.app", name=_TRACKING_APP):
        raise ConfigError(
            f"the installed package to offer MLflow's application '{_TRACKING_APP}'",
            "an installation older than this code",
            "Install it again, as the README says.",
        )


def prefect_server(settings: Settings, port: int, *, private: bool) -> Server:
    """The orchestrator; a private one shows no page and leaves schedules alone."""
    host = "127.0.0.1" if private else settings.host
    options = ("--no-ui", "--no-scheduler", "--no-late-runs") if private else ()
    command = (
        *(sys.executable, "-m", "prefect", "server", "start"),
        *("--host", host, "--port", str(port), *options),
    )
    # Finished runs and their events are removed after a while; by default events only.
    extra = {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        # its page asks there, by default at port 4200 whichever port is the server's
        "PREFECT_SERVER_UI_API_URL": f"http://{reachable(host)}:{port}/api",
    }
    name = "prefect-private" if private else "prefect"
    return _server(settings, name, command, port, "/api/health", "CVDM_PREFECT_PORT", extra, host)


def service_server(settings: Settings, port: int, *, name: str = "service", alone: bool = False) -> Server:
    """The reconstruction service; ready to be asked how it is, not necessarily with a model.

    alone: for this process and a while, without the jobs and the keys of those whom the facility serves.
    """
    command = (
        *(sys.executable, "-m", "bentoml", "serve", "service.service:CvdmService"),
        *("--host", settings.host, "--port", str(port)),
    )
    extra = {"CVDM_SIGNALS_DIR": str(settings.signals_dir)}
    if alone:
        extra = dict.fromkeys(("CVDM_JOBS_DIR", "CVDM_KEYS_FILE", "CVDM_SIGNALS_DIR"), "")
    return _server(settings, name, command, port, SERVICE_LIVES, "CVDM_SERVICE_PORT", extra)


def schedule_runner(settings: Settings) -> Server:
    """The process that starts retrainings when the schedule says so, also of tasks that come later."""
    extra = {"PREFECT_API_URL": settings.prefect_url}
    return _server(settings, "schedule", (sys.executable, "-m", "flows.schedule"), extra=extra)


def addresses(settings: Settings, *, models: bool = True) -> tuple[Address, ...]:
    """What `cvdm up` offers, the service last. models: ask the service whether it has one."""
    host, service = reachable(settings.host), f"http://{reachable(settings.host)}:{settings.service_port}"
    own = f"http://{host}:{settings.mlflow_port}"
    tracking = own if tracks_locally(settings) else shown_uri(settings.tracking_uri)
    prefect = shown_uri(settings.prefect_url).removesuffix("/api").replace(settings.host, host)
    note = "page at /ui; POST /reconstruct, /jobs; GET /models"
    if models:
        ready = answers(f"{service}{SERVICE_READY}")
        note += "; ready" if ready else "; champions are being loaded, `cvdm retrain` makes a first one"
    return (
        Address("MLflow", tracking, "runs, metrics, models"),
        Address("Prefect", prefect, "flow runs; when it retrains: `cvdm schedule list`"),
        Address("service", service, note),
    )


def address_table(rows: tuple[Address, ...]) -> str:
    """Names, addresses and notes in columns."""
    width = max(len(row.url) for row in rows)
    return "\n".join(f"{row.name:8}  {row.url:{width}}  {row.note}" for row in rows)


def _server(
    settings: Settings,
    name: str,
    command: tuple[str, ...],
    port: int | None = None,
    probe: str | None = None,
    port_setting: str = "",
    extra: dict[str, str] | None = None,
    host: str | None = None,
) -> Server:
    log = settings.mlruns_dir / "logs" / f"{name}.log"
    environment = child_environment(settings) | (extra or {})
    return Server(
        name, command, environment, CODE, log, host or settings.host, port, probe, port_setting=port_setting
    )


def child_environment(settings: Settings) -> dict[str, str]:
    """This process's settings for a child, and what the tools must know; a person's own choices stay."""
    own = {f"CVDM_{name.upper()}": _as_text(value) for name, value in settings}
    tools = settings.tool_environment() | {
        "BENTOML_HOME": str(settings.mlruns_dir / "bentoml"),
        "CVDM_CACHE_DIR": str(settings.mlruns_dir / "cache"),
        "PYTHONUNBUFFERED": "1",
    }
    return own | {name: value for name, value in tools.items() if name not in os.environ}


def _as_text(value: object) -> str:
    """A setting as its environment variable; a secret as it is, for it would arrive as asterisks."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _make_prefect_home(settings: Settings) -> None:
    """Prefect's server makes the last folder of its home only, and fails without those above it."""
    home = Path(os.environ.get("PREFECT_HOME") or settings.mlruns_dir / "prefect")
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, home) from error


@contextmanager
def _prefect_at(url: str) -> Iterator[str]:
    """Point Prefect's client at a server, in this process and in those that it starts; gives its address."""
    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = url
    from prefect.settings import PREFECT_API_URL, temporary_settings

    try:
        with temporary_settings({PREFECT_API_URL: url}):
            yield url
    finally:
        _deliver_to_prefect()
        os.environ.pop("PREFECT_API_URL")
        if before is not None:
            os.environ["PREFECT_API_URL"] = before


def _deliver_to_prefect() -> None:
    """Send what Prefect has to say while its server lives; at exit it would wait for one that is gone."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=DELIVERY_SECONDS)
