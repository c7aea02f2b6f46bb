"""In front of every path of the service, BentoML's own included: who comes, and may he?

With keys, whoever has none is answered 401, but for `OPEN` paths. Without any key the service is open to its
own machine, and to nobody else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from service.errors import ForbiddenError, ServiceError, UnauthorizedError
from service.keys import Call, Key, Keys
from service.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/livez", "/readyz", "/healthz", "/models")
"""Paths for which nobody needs a key: how the service is, and which models it has."""
OPERATORS = ("/metrics",)
"""Paths for operators."""
EVERYBODY = "everybody"
"""Who asks where nobody has to say who he is."""
CALLER = "cvdm_caller"
"""Where a scope has the caller."""


@dataclass(frozen=True)
class Caller:
    """Who asks."""

    key: Key | None = None
    """None where the service is open."""
    keys: Keys | None = None

    @property
    def name(self) -> str:
        """Whose jobs they are."""
        return EVERYBODY if self.key is None else self.key.name

    @property
    def is_operator(self) -> bool:
        """May see and end the jobs of everybody."""
        return self.key is not None and self.key.role == "operator"

    @property
    def most_images(self) -> int | None:
        """Images of jobs that may wait or be worked on; None where the service's own bound holds."""
        return None if self.key is None else self.key.quota.images

    def spend(self, *, images: int, pixels: int) -> None:
        """Count images that are about to be restored. Raises QuotaError."""
        if self.key is not None and self.keys is not None:
            self.keys.spend(self.key, images=images, pixels=pixels)


class Doorkeeper:
    """ASGI middleware."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._keys: Keys | None = None
        self._settled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        try:
            scope[CALLER] = caller = await run_in_threadpool(self._admitted, scope)
        except ServiceError as error:
            headers = {"www-authenticate": "Bearer"} if isinstance(error, UnauthorizedError) else None
            await JSONResponse(error.as_dict(), error.status, headers)(scope, receive, send)
            return
        status, said = 499, Headers()  # if the client goes before it is answered

        async def heard(message: MutableMapping[str, Any]) -> None:
            nonlocal status, said
            if message["type"] == "http.response.start":
                status, said = message["status"], Headers(raw=message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, heard)
        finally:
            if caller.key is not None and caller.keys is not None:
                version, digest = said.get("x-cvdm-version"), said.get("x-cvdm-input-sha256")
                asked = said.get("x-request-id"), scope["method"], scope["path"]
                await run_in_threadpool(caller.keys.log, Call(caller.name, *asked, status, version, digest))

    def _admitted(self, scope: Scope) -> Caller:
        """Raises UnauthorizedError, ForbiddenError."""
        keys = self._file()
        if keys is None or not keys.any:
            if not _is_near(scope):
                raise UnauthorizedError(
                    "a service with keys, or a client on its machine",
                    "a service without keys, and a client elsewhere",
                    "Make keys on the service's machine with `cvdm keys create NAME`.",
                )
            return Caller()
        secret = _secret(Headers(scope=scope))
        key = keys.who(secret) if secret else None
        if key is None:
            raise UnauthorizedError(
                "a key, as `Authorization: Bearer KEY`",
                "an unknown or revoked one" if secret else "none",
                "Ask whoever runs this service for one (`cvdm keys create NAME`).",
            )
        if scope["path"] in OPERATORS and key.role != "operator":
            raise ForbiddenError("an operator's key", f"one of a {key.role}", "Ask with an operator's key.")
        return Caller(key, keys)

    def _file(self) -> Keys | None:
        """Read late: BentoML makes this before the settings are checked."""
        if not self._settled:
            path = Settings.read().keys_file
            self._keys, self._settled = None if path is None else Keys(path), True
        return self._keys


def caller_of(scope: Scope) -> Caller:
    """Who asks, as the doorkeeper found."""
    caller = scope.get(CALLER)
    return caller if isinstance(caller, Caller) else Caller()


def _secret(headers: Headers) -> str | None:
    kind, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() or None if kind.lower() == "bearer" else None


def _is_near(scope: Scope) -> bool:
    """Whether the client is on this machine."""
    client = scope.get("client")
    try:
        return client is None or ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False
