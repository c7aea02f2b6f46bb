"""The HTTP side of jobs.

POST   /jobs                          form files `image` or fields `path`, others as of /reconstruct; 202
GET    /jobs                          the newest jobs; with before=ID, those that came before that one
GET    /jobs/{id}                     state, percent, images
GET    /jobs/{id}/events              the same whenever it changes, as server-sent events, until the end
GET    /jobs/{id}/images/{n}/result   an OME-TIFF; ranges are served
GET    /jobs/{id}/result              of a job of one image
POST   /jobs/{id}/cancel              end it
DELETE /jobs/{id}                     forget it
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from copy import copy
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    MalformedRangeHeader,
    RangeNotSatisfiable,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from cvdm.errors import CvdmError
from service.doorkeeper import caller_of, made_of
from service.errors import RangeError, UnfinishedError, UnknownJobError
from service.guard import guarded
from service.schema import headers_of, shown

if TYPE_CHECKING:  # imports torch and MLflow, which the supervising process has no use for
    from service.jobs.desk import JobDesk

EVENT_SECONDS = 0.5
"""Between two looks for a change."""
SILENT_SECONDS = 15.0
"""After which a comment keeps a silent stream open."""


def job_routes() -> list[Route]:
    """To be mounted beside the others."""
    return [
        Route("/jobs", guarded(enter), methods=["POST"]),
        Route("/jobs", guarded(listed), methods=["GET"]),
        Route("/jobs/{id}", guarded(described), methods=["GET"]),
        Route("/jobs/{id}", guarded(removed), methods=["DELETE"]),
        Route("/jobs/{id}/cancel", guarded(cancelled), methods=["POST"]),
        Route("/jobs/{id}/events", guarded(events), methods=["GET"]),
        Route("/jobs/{id}/result", guarded(result), methods=["GET"]),
        Route("/jobs/{id}/images/{number:int}/result", guarded(result), methods=["GET"]),
    ]


async def enter(request: Request) -> Response:
    """POST /jobs."""
    from service.jobs.arrival import Placed, Uploaded

    desk = jobs_of(request)
    caller, key = caller_of(request.scope), request.headers.get("idempotency-key")
    desk.expect(caller, key)
    async with request.app.state.desk.received_job(request) as upload:
        images: list[Uploaded | Placed] = [
            Uploaded(image.filename or "image", image.file) for image in upload.images
        ]
        images += [Placed(path) for path in upload.paths]
        job, new = await desk.enter(caller, images, upload.fields, key)
    made = made_of(request.scope)
    made.version, made.digests = job["version"], desk.digests(caller, job["id"])
    return JSONResponse(job, 202 if new else 200, {"location": job["links"]["self"]})


async def listed(request: Request) -> Response:
    """GET /jobs."""
    before = request.query_params.get("before")
    jobs = await asyncio.to_thread(jobs_of(request).jobs, caller_of(request.scope), before)
    return JSONResponse({"jobs": jobs})


async def described(request: Request) -> Response:
    """GET /jobs/{id}."""
    return JSONResponse(await _described(request))


async def removed(request: Request) -> Response:
    """DELETE /jobs/{id}."""
    await jobs_of(request).remove(caller_of(request.scope), request.path_params["id"])
    return Response(status_code=204)


async def cancelled(request: Request) -> Response:
    """POST /jobs/{id}/cancel."""
    desk, caller = jobs_of(request), caller_of(request.scope)
    return JSONResponse(await desk.cancel(caller, request.path_params["id"]))


async def events(request: Request) -> Response:
    """GET /jobs/{id}/events."""
    first = await _described(request)  # refused before the stream begins
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(_changes(request, first), media_type="text/event-stream", headers=headers)


async def result(request: Request) -> Response:
    """GET /jobs/{id}/images/{number}/result, and /result of a job of one image."""
    from cvdm.images import read_annotations

    id = request.path_params["id"]
    number = request.path_params.get("number")
    if number is None:
        images = (await _described(request))["images"]
        if len(images) > 1:
            raise UnfinishedError(
                "a job of one image", f"one of {len(images)}", f"Ask for /jobs/{id}/images/NUMBER/result."
            )
        number = 0
    desk, caller = jobs_of(request), caller_of(request.scope)
    path, name = await asyncio.to_thread(desk.result, caller, id, number)
    _require_range(request.headers.get("range"), path.stat().st_size)
    headers = headers_of(await asyncio.to_thread(read_annotations, path))
    return FileResponse(path, media_type="image/tiff", filename=name, headers=headers)


def _require_range(asked: str | None, size: int) -> None:
    """Refuse in our words what Starlette would refuse in others. Raises RangeError."""
    if asked is None:
        return
    try:
        FileResponse._parse_range_header(asked, size)
    except MalformedRangeHeader as error:
        raise RangeError(
            "a Range like bytes=0-1023", shown(asked), "Correct the header, or leave it out."
        ) from error
    except RangeNotSatisfiable as error:
        refused = RangeError(f"a Range within {size} bytes", shown(asked), "Ask for bytes that are there.")
        refused.status, refused.size = 416, size
        raise refused from error


def jobs_of(request: Request) -> JobDesk:
    """Who answers for jobs. Raises JobsError."""
    desk: JobDesk | CvdmError = request.app.state.jobs
    if isinstance(desk, CvdmError):
        raise copy(desk)
    return desk


async def _described(request: Request) -> dict[str, Any]:
    """In a thread: a batch has up to a thousand images, and is asked about often."""
    desk, caller = jobs_of(request), caller_of(request.scope)
    return await asyncio.to_thread(desk.describe, caller, request.path_params["id"])


async def _changes(request: Request, told: dict[str, Any]) -> AsyncIterator[str]:
    """Ends with the job, when it is removed, and when the service is stopped."""
    silent = 0.0
    yield _event(told)
    while told["ended"] is None:
        await asyncio.sleep(EVENT_SECONDS)
        silent += EVENT_SECONDS
        if request.app.state.desk.closed:
            return
        try:
            now = await _described(request)
        except UnknownJobError:
            return
        if now != told:
            told, silent = now, 0.0
            yield _event(told)
        elif silent >= SILENT_SECONDS:
            silent = 0.0
            yield ": still here\n\n"


def _event(job: dict[str, Any]) -> str:
    return f"event: {job['state']}\ndata: {json.dumps(job)}\n\n"
