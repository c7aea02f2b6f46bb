"""Every endpoint with a request id, and every failure turned into its JSON reply.

A refusal has error, expected, actual, remedy and request_id. What nobody foresaw is a 500 with the request
id; the traceback goes to the log and never to a client.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from cvdm.errors import CvdmError, ImageError
from service.doorkeeper import caller_of
from service.logs import FACTS, REQUEST_ID
from service.refusals import ID_HEADER, UNKNOWN, refusal

log = logging.getLogger(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]

CLIENT_GONE = 499
"""Nobody reads this status; it is for the access log, as nginx writes it."""


def guarded(endpoint: Endpoint) -> Endpoint:
    """The endpoint with a request id, and every failure turned into its JSON reply."""

    async def guarded(request: Request) -> Response:
        request_id, began = secrets.token_hex(8), time.perf_counter()
        REQUEST_ID.set(request_id)
        try:
            response = await endpoint(request)
        except ClientDisconnect:
            request.app.state.desk.metrics.failed("ClientGone")
            response = Response(status_code=CLIENT_GONE)
        except CvdmError as error:
            request.app.state.desk.metrics.failed(type(error).__name__)
            log.info("refused: %s", _for_the_log(error))
            response = refusal(error, request_id)
        except Exception:  # any: the last line of defence between a bug and a client
            request.app.state.desk.metrics.failed("Unexpected")
            log.exception("failed")
            response = _unexpected(request_id)
        response.headers[ID_HEADER] = request_id
        state = request.app.state
        path = state.paths.get(request.scope["endpoint"], UNKNOWN)
        # A method is whatever a client writes; those of the routes are few, and one that fits none is a 405.
        method = request.method if path != UNKNOWN and response.status_code != 405 else UNKNOWN
        seconds = time.perf_counter() - began
        state.desk.metrics.answered(method, path, response.status_code, seconds)
        facts = {"method": method, "path": path, "status": response.status_code, "seconds": round(seconds, 4)}
        log.info("answered", extra={FACTS: facts | {"who": caller_of(request.scope).name}})
        return response

    return guarded


def _for_the_log(error: CvdmError) -> str:
    """A refusal without what was sent: what came instead of a good image begins with its file's name."""
    return (
        f"Expected {error.expected} ({type(error).__name__})" if isinstance(error, ImageError) else str(error)
    )


def _unexpected(request_id: str) -> Response:
    return JSONResponse(
        {
            "error": "UnexpectedError",
            "expected": "an answer",
            "actual": "a failure inside the service",
            "remedy": f"Send the request id {request_id} to whoever runs this service.",
            "request_id": request_id,
        },
        500,
    )
