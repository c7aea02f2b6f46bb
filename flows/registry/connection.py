"""The connection to MLflow's tracking store and model registry, and its failures in words."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException, RestException
from requests.exceptions import RequestException
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from cvdm.errors import CvdmError
from flows.settings import Settings

Store = TypeVar("Store", bound=type)


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
    with speaking(uri):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return Connection(client, uri, settings.artifact_root if local else None)


@contextmanager
def speaking(uri: str) -> Iterator[None]:
    """Turn whatever a store raises into a RegistryError with a remedy."""
    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        kind = AwayError if _is_away(error) else RegistryError
        raise kind(
            f"the tracking store at {uri} to answer",
            reason,
            "Start it with `cvdm up` or correct CVDM_TRACKING_URI, then run the command again.",
        ) from error


def _is_away(error: Exception) -> bool:
    """Whether a server did not answer, as MLflow reports it: the request's own failure in words."""
    return isinstance(error, RequestException | OperationalError) or (
        isinstance(error, MlflowException)
        and not isinstance(error, RestException)
        and str(error).startswith("API request to ")
    )


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
