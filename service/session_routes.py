"""How a browser says who it is: the key once, then a cookie that no script can read.

GET    /session   who asks
POST   /session   with the key in the Authorization header: keep it in a cookie until the browser is closed
DELETE /session   forget it
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from service.doorkeeper import COOKIE, caller_of, secret_of
from service.guard import guarded


def session_routes() -> list[Route]:
    """To be mounted beside the others."""
    return [
        Route("/session", guarded(told), methods=["GET"]),
        Route("/session", guarded(begun), methods=["POST"]),
        Route("/session", guarded(ended), methods=["DELETE"]),
    ]


async def told(request: Request) -> Response:
    """GET /session."""
    caller = caller_of(request.scope)
    role = None if caller.key is None else caller.key.role
    return JSONResponse({"name": caller.name, "role": role, "open": caller.key is None})


async def begun(request: Request) -> Response:
    """POST /session; the doorkeeper has looked at the key."""
    response = await told(request)
    if (secret := secret_of(request.headers)) is not None:
        secure = request.url.scheme == "https"
        response.set_cookie(COOKIE, secret, httponly=True, samesite="strict", secure=secure)
    return response


async def ended(request: Request) -> Response:
    """DELETE /session."""
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response
