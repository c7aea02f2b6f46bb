"""What a flow came to, also where the orchestrator could not be told.

The tasks of a flow need no orchestrator while they run; Prefect only reports to it when the flow starts and
ends. Without this, a retraining that took the night and moved a champion would end as a failed connection.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import httpx
from prefect import Flow
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.servers import ServerError

RETRIES = 3
"""After 2, 4 and 8 seconds: somebody waits for the result at a terminal."""

Arguments = ParamSpec("Arguments")
Outcome = TypeVar("Outcome")


def outcome_of(flow: Flow[Arguments, Outcome], tell: Callable[[str], None]) -> Callable[Arguments, Outcome]:
    """The flow as a function of the same arguments, whose result or error stands without its orchestrator.

    tell: gets one sentence where the orchestrator does not know of the end. The function raises what the flow
    raises, and ServerError where the orchestrator was gone before the flow began.
    """

    @wraps(flow.fn)
    def followed(*arguments: Arguments.args, **options: Arguments.kwargs) -> Outcome:
        results: list[Outcome] = []
        errors: list[Exception] = []

        @wraps(flow.fn)
        def body(*arguments: Arguments.args, **options: Arguments.kwargs) -> Outcome:
            try:
                results.append(flow.fn(*arguments, **options))
            except Exception as error:
                errors.append(error)
                raise
            return results[0]

        try:
            with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: RETRIES}):
                return Flow(body, name=flow.name, flow_run_name=flow.flow_run_name)(*arguments, **options)
        except Exception as error:  # any: what Prefect makes of a server that is gone, ill or full
            if errors and error is errors[0]:
                raise
            if not results and not errors:
                if not isinstance(error, httpx.HTTPError):
                    raise
                raise ServerError(
                    "an orchestrator that takes the run on",
                    f"before it began: {error or type(error).__name__}",
                    "Run it again: where none answers, one is started for the run.",
                ) from error
            tell(
                "What the run came to stands; the orchestrator could not be told, and does not show its end."
            )
            if errors:
                raise errors[0] from None
            return results[0]

    return followed
