"""The HTTP side: POST /reconstruct and GET /models, as a small Starlette application.

Why not `@bentoml.api`: it answers POST only, spools an upload of any size before our code runs, words its
own validation errors, and does not tell when a client has gone. BentoML mounts this application beside its
/livez, /readyz and /metrics and keeps the process, the metrics and the lifespan.

Every refusal is JSON with error, expected, actual, remedy and request_id. What nobody foresaw is a 500 with
the request id; the traceback goes to the log and never to a client.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from cvdm.errors import CvdmError
from service.errors import ServiceError, status_of

if TYPE_CHECKING:  # imports torch and MLflow, which the supervising process has no use for
    from service.desk import Desk

log = logging.getLogger(__name__)
Endpoint = Callable[[Request], Awaitable[Response]]

CLIENT_GONE = 499
"""Nobody reads this status; it is for the access log, as nginx writes it."""
CHUNK = 2**20
ID_HEADER = "x-request-id"


def build_app() -> Starlette:
    """The application; `app.state.desk` must be set before it is called."""
    routes = [
        Route("/reconstruct", _guarded(reconstruct), methods=["POST"]),
        Route("/models", _guarded(models), methods=["GET"]),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: _http_error})


async def reconstruct(request: Request) -> Response:
    """POST /reconstruct: form file `image` and optional fields in, OME-TIFF out."""
    answer = await _desk(request).reconstruct(request)
    headers = answer.provenance.headers() | {
        "content-length": str(answer.size),
        "content-disposition": 'attachment; filename="reconstruction.ome.tif"',
    }
    return StreamingResponse(_chunks(answer.file), media_type="image/tiff", headers=headers)


async def models(request: Request) -> Response:
    """GET /models: every known version and what became of it."""
    return JSONResponse(_desk(request).models())


def _desk(request: Request) -> Desk:
    return request.app.state.desk


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


def _guarded(endpoint: Endpoint) -> Endpoint:
    """The endpoint with a request id, and every failure turned into its JSON reply."""

    async def guarded(request: Request) -> Response:
        request_id = secrets.token_hex(8)
        try:
            response = await endpoint(request)
        except ClientDisconnect:
            _desk(request).metrics.failed("ClientGone")
            response = Response(status_code=CLIENT_GONE)
        except CvdmError as error:
            _desk(request).metrics.failed(type(error).__name__)
            log.info("%s refused: %s", request_id, error)
            response = _refusal(error, request_id)
        except Exception:  # any: the last line of defence between a bug and a client
            _desk(request).metrics.failed("Unexpected")
            log.exception("%s failed", request_id)
            response = _unexpected(request_id)
        response.headers[ID_HEADER] = request_id
        return response

    return guarded


def _refusal(error: CvdmError, request_id: str) -> Response:
    status = status_of(error)
    retry_after = error.retry_after if isinstance(error, ServiceError) else None
    headers = {"retry-after": str(retry_after)} if retry_after is not None else None
    return JSONResponse(error.as_dict() | {"request_id": request_id}, status, headers)


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


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (a wrong method) in our words."""
    if not isinstance(error, HTTPException):  # registered for this class only
        raise error
    allowed = (error.headers or {}).get("Allow", "another method")
    content = {
        "error": "HTTPError",
        "expected": f"{request.url.path} to be called with {allowed}",
        "actual": f"{request.method}: {error.detail}",
        "remedy": "Correct the request.",
    }
    return JSONResponse(content, error.status_code, error.headers)
