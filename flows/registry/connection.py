"""The connection to MLflow's tracking store and model registry, and its failures in words."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE, ErrorCode
from requests.exceptions import RequestException
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cvdm.addresses import harmless, shown_uri, without_password
from cvdm.errors import CvdmError
from flows.settings import Settings

Store = TypeVar("Store", bound=type)
FAILURES: tuple[type[Exception], ...] = (MlflowException, RequestException, SQLAlchemyError, OSError)
"""What a store raises that does not answer, or refuses."""
LASTING = re.compile(
    r"no such (table|column)|has no column|readonly database|authentication failed"
    r'|(role|database|relation|column) ".*" does not exist|failed with error code 4(?!08|29)\d\d'
)
"""What SQLite, PostgreSQL and MLflow's requests say of failures that do not pass by waiting."""


class RegistryError(CvdmError):
    """The tracking server or registry does not answer, or does not hold what was asked for."""


class AwayError(RegistryError):
    """The tracking server or registry does not answer: the same may succeed later."""


@dataclass(frozen=True)
class Connection:
    """One MLflow client and where new experiments keep their artifacts."""

    client: MlflowClient
    uri: str
    artifact_root: str | None
    """None where a tracking server decides."""


def connect(settings: Settings) -> Connection:
    """Open (and on first use create) the store that the settings name. Raises RegistryError."""
    settings.prepare_environment()
    for name in ("mlflow", "alembic"):  # each first connection narrates the database's history
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = settings.tracking_uri
    local = not uri.startswith(("http://", "https://"))
    if uri.startswith("sqlite:"):
        database = Path(uri.removeprefix("sqlite:///"))
        with speaking(uri):
            database.parent.mkdir(parents=True, exist_ok=True)
    with speaking(uri, ImportError, ValueError):  # no driver; an address that is none
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return Connection(client, uri, settings.artifact_root if local else None)


@contextmanager
def speaking(uri: str, *more: type[Exception]) -> Iterator[None]:
    """Turn whatever a store raises, and more kinds, into a RegistryError with a remedy and no password."""
    try:
        yield
    except FAILURES + more as error:
        kind = AwayError if _is_away(error) else RegistryError
        raise kind(
            f"the tracking store at {shown_uri(uri)} to answer",
            " ".join(without_password(str(error), uri).split())[:300],
            "Start it with `cvdm up` or correct CVDM_TRACKING_URI, then run the command again.",
        ) from harmless(error, uri)


def _is_away(error: Exception) -> bool:
    """Whether the same may succeed later: a server did not answer, a database is locked or lost its link.

    MLflow tells the first in words only, and every trouble of a database as temporary, a missing table too.
    """
    said = str(error).partition("[SQL:")[0]  # what follows are a statement's own words
    if LASTING.search(said):
        return False
    if isinstance(error, MlflowException):
        asked = not isinstance(error, RestException) and said.startswith("API request to ")
        return asked or error.error_code == ErrorCode.Name(TEMPORARILY_UNAVAILABLE)
    return isinstance(error, RequestException | OperationalError)


def reporting_failures(store: Store) -> Store:
    """Class decorator for a class with an `uri`: public methods raise RegistryError where MLflow raises."""
    for name, method in list(vars(store).items()):
        if callable(method) and not name.startswith("_"):
            setattr(store, name, _reported(method))
    return store


def _reported(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def wrapped(self: Any, *arguments: Any, **options: Any) -> Any:
        with speaking(self.uri):
            return method(self, *arguments, **options)

    return wrapped
