"""The HTTP side: POST /reconstruct and GET /models, as a small Starlette application.

Why not `@bentoml.api`: it answers POST only, spools an upload of any size before our code runs, words its
own validation errors, and does not tell when a client has gone. BentoML mounts this application beside its
/livez and /readyz and keeps the process and the lifespan.

Every refusal is JSON (`service.guard`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from service.errors import HTTPError, JobsError, UnknownPathError
from service.guard import Endpoint, guarded
from service.job_routes import job_routes
from service.page import page
from service.schema import shown
from service.session_routes import session_routes
from service.view_routes import view_routes

if TYPE_CHECKING:  # imports torch and MLflow, which the supervising process has no use for
    from service.desk import Desk

CHUNK = 2**20
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of Prometheus's text format."""


def build_app() -> Starlette:
    """The application; `app.state.desk` must be set before it is called, and `app.state.jobs` for jobs."""
    routes = [
        *(Route(path, guarded(home), methods=["GET"]) for path in ("/", "/ui")),
        Route("/reconstruct", guarded(reconstruct), methods=["POST"]),
        Route("/metrics", guarded(metrics), methods=["GET"]),
        Route("/openapi.json", guarded(openapi), methods=["GET"]),
        Route("/models", guarded(models), methods=["GET"]),
        Route("/models/{task}/{version:int}/card", guarded(card), methods=["GET"]),
    ]
    everything = [
        *routes,
        *job_routes(),
        *view_routes(),
        *session_routes(),
        page(),
        _Otherwise(guarded(nowhere)),
    ]
    app = Starlette(routes=everything, exception_handlers={HTTPException: _http_error})
    app.state.paths = {
        route.endpoint: route.path_format
        for route in everything
        if isinstance(route, Route) and route.methods
    }
    app.state.jobs = JobsError(
        "a service that keeps jobs", "one without a folder for them", "Set CVDM_JOBS_DIR and start it again."
    )
    return app


class _Otherwise(Route):
    """What is asked where there is nothing, by whatever method.

    Matches in part, so that whoever matches in full goes before it.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__("/{path:path}", endpoint)
        self.methods = None

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (Match.PARTIAL if match == Match.FULL else match), child


async def home(request: Request) -> Response:
    """GET / and /ui."""
    return RedirectResponse("/ui/")


async def nowhere(request: Request) -> Response:
    """Everything else."""
    raise UnknownPathError(
        "a path of this service", shown(request.url.path), "See GET /openapi.json, or open /ui in a browser."
    )


async def reconstruct(request: Request) -> Response:
    """POST /reconstruct: form file `image` and optional fields in, OME-TIFF out."""
    answer = await _desk(request).reconstruct(request)
    headers = answer.headers() | {
        "content-length": str(answer.size),
        "content-disposition": 'attachment; filename="reconstruction.ome.tif"',
    }
    return StreamingResponse(_chunks(answer.file), media_type="image/tiff", headers=headers)


async def metrics(request: Request) -> Response:
    """GET /metrics, for Prometheus."""
    return Response(_desk(request).metrics.text(), media_type=CONTENT_TYPE)


async def openapi(request: Request) -> Response:
    """GET /openapi.json: what may be asked and what is answered, for programs."""
    return JSONResponse(_desk(request).openapi)


async def models(request: Request) -> Response:
    """GET /models: every known version and what became of it."""
    return JSONResponse(_desk(request).models())


async def card(request: Request) -> Response:
    """GET /models/{task}/{version}/card: a version's model card, in Markdown."""
    task, version = request.path_params["task"], request.path_params["version"]
    return Response(_desk(request).residents.card(task, version), media_type="text/markdown")


def _desk(request: Request) -> Desk:
    return request.app.state.desk


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(CHUNK):
            yield chunk


async def _http_error(request: Request, error: Exception) -> Response:
    """Starlette's own refusals (a wrong method) in our words."""
    if not isinstance(error, HTTPException):  # registered for this class only
        raise error
    allowed = (error.headers or {}).get("Allow", "another method")
    refused = HTTPError(
        f"{request.url.path} to be called with {allowed}",
        f"{request.method}: {error.detail}",
        "Correct the request.",
    )
    refused.status = error.status_code

    async def refuse(request: Request) -> Response:
        raise refused

    response = await guarded(refuse)(request)
    response.headers.update(error.headers or {})
    return response
