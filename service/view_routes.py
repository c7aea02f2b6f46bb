"""The HTTP side of looking at a job's images, and of where results come from.

GET /jobs/{id}/images/{n}/view          axes, sizes, layers and levels of an image
GET /jobs/{id}/images/{n}/tile          float32 values, little-endian; layer, t, z, c, level, row, column
GET /jobs/{id}/images/{n}/preview.png   8-bit grey; layer, t, z, c, low, high
GET /provenance/{id}                    what made the results of a job
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.doorkeeper import caller_of
from service.errors import ParameterError
from service.guard import guarded
from service.job_routes import jobs_of
from service.schema import integer, shown

if TYPE_CHECKING:  # imports torch, which the supervising process has no use for
    from service.jobs.records import Item
    from service.jobs.views import Place

LARGEST = 2**31 - 1
UNCHANGING = {"cache-control": "private, max-age=86400, immutable"}
"""Once it has ended an image never changes, nor does its result."""
CHANGING = {"cache-control": "no-store"}
"""Before that, an input is not on the grid yet that a finer result gives it."""
WINDOW = "low", "high"


def view_routes() -> list[Route]:
    """To be mounted beside the others."""
    image = "/jobs/{id}/images/{number:int}"
    return [
        Route(f"{image}/view", guarded(described), methods=["GET"]),
        Route(f"{image}/tile", guarded(tile), methods=["GET"]),
        Route(f"{image}/preview.png", guarded(preview), methods=["GET"]),
        Route("/provenance/{id}", guarded(provenance), methods=["GET"]),
    ]


async def described(request: Request) -> Response:
    """GET /jobs/{id}/images/{n}/view."""
    return JSONResponse(await jobs_of(request).views.describe(await _item(request)))


async def tile(request: Request) -> Response:
    """GET /jobs/{id}/images/{n}/tile."""
    from service.jobs.views import Square

    square = Square(*(_number(request, name) for name in ("level", "row", "column")))
    item = await _item(request)
    values = await jobs_of(request).views.tile(item, _place(request), square)
    height, width = values.shape
    headers = _keeping(item) | {"x-cvdm-height": str(height), "x-cvdm-width": str(width)}
    return Response(values.tobytes(), media_type="application/octet-stream", headers=headers)


async def preview(request: Request) -> Response:
    """GET /jobs/{id}/images/{n}/preview.png."""
    item = await _item(request)
    picture = await jobs_of(request).views.preview(item, _place(request), _window(request))
    return Response(picture, media_type="image/png", headers=_keeping(item))


async def provenance(request: Request) -> Response:
    """GET /provenance/{id}."""
    return JSONResponse(
        await jobs_of(request).provenance(caller_of(request.scope), request.path_params["id"])
    )


async def _item(request: Request) -> Item:
    """In a thread: the table may be busy with writing."""
    desk, caller, path = jobs_of(request), caller_of(request.scope), request.path_params
    return await asyncio.to_thread(desk.item, caller, path["id"], path["number"])


def _keeping(item: Item) -> dict[str, str]:
    """How long a browser may keep what it was shown."""
    return CHANGING if item.ended is None else UNCHANGING


def _place(request: Request) -> Place:
    from service.jobs.views import Place

    layer = request.query_params.get("layer", "reconstruction")
    return Place(layer, *(_number(request, axis) for axis in "tzc"))


def _number(request: Request, name: str) -> int:
    return integer(name, request.query_params.get(name, "0"), 0, LARGEST)


def _window(request: Request) -> tuple[float, float] | None:
    given = [request.query_params.get(name) for name in WINDOW]
    if given == [None, None]:
        return None
    try:
        low, high = (float(text or "nan") for text in given)
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        said = ", ".join(f"{name} {shown(text or '')}" for name, text in zip(WINDOW, given, strict=True))
        raise ParameterError("two numbers low and high, low the smaller one", said, "Correct them.")
    return low, high
