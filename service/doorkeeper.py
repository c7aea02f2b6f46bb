"""In front of every path of the service, BentoML's own included: who comes, and may he?

With keys, whoever has none is answered 401, but for `OPEN` paths. Without any key the service is open to its
own machine, and to nobody else. A page of another site that a browser shows is nobody here: neither may it
have the browser change anything (`Origin`), nor pass for this machine under a name of its own (`Host`).
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse

from service.errors import ForbiddenError, ServiceError, UnauthorizedError, UnknownPathError
from service.keys import Call, Key, Keys
from service.schema import shown
from service.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/", "/livez", "/readyz", "/healthz", "/models", "/openapi.json")
"""Paths for which nobody needs a key: how the service is, which models it has, and how it is asked."""
PAGE = "/ui"
"""The page and all below it, which is the same for everybody."""
COOKIE = "cvdm_key"
READING = ("GET", "HEAD", "OPTIONS")
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

    @asynccontextmanager
    async def spending(self, *, images: int, pixels: int) -> AsyncIterator[None]:
        """Count images that are restored or accepted in the block; what is refused there is not counted.

        An end by the client's leave does: the device had worked for it. Raises QuotaError.
        """
        if self.key is None or self.keys is None:
            yield
            return
        await run_in_threadpool(self.keys.spend, self.key, images=images, pixels=pixels)
        try:
            yield
        except Exception:
            await run_in_threadpool(self.keys.give_back, self.key, images=images, pixels=pixels)
            raise


class Doorkeeper:
    """ASGI middleware."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._keys: Keys | None = None
        self._settled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not scope["path"].isprintable():
            # BentoML's mount takes no line break for a part of a path, and would answer in other words.
            nowhere = UnknownPathError(
                "a path of printable characters", shown(scope["path"]), "See GET /openapi.json."
            )
            await JSONResponse(nowhere.as_dict(), nowhere.status)(scope, receive, send)
            return
        if scope["type"] != "http" or _is_open(scope["path"]):
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
        headers = Headers(scope=scope)
        _require_own_page(scope["method"], headers)
        keys = self._file()
        if keys is None or not keys.any:
            if not _is_near(scope):
                raise UnauthorizedError(
                    "a service with keys, or a client on its machine",
                    "a service without keys, and a client elsewhere",
                    "Make keys on the service's machine with `cvdm keys create NAME`.",
                )
            _require_near_name(headers)
            return Caller()
        secret = secret_of(headers)
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


def secret_of(headers: Headers) -> str | None:
    """The key that a request brings, in its Authorization header or else in the page's cookie."""
    kind, _, secret = headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return secret.strip() or None
    return cookie_parser(headers.get("cookie", "")).get(COOKIE) or None


def _is_open(path: str) -> bool:
    return path in OPEN or path == PAGE or path.startswith(f"{PAGE}/")


def _require_own_page(method: str, headers: Headers) -> None:
    """Raise ForbiddenError when a page of another site would have something changed."""
    origin = headers.get("origin")
    if method not in READING and origin is not None and urlsplit(origin).netloc != headers.get("host"):
        raise ForbiddenError(
            "a request of this service's own page, or of a program",
            f"one of a page from {origin[:100]!r}",
            "Open the service's page at /ui, or ask from a program.",
        )


def _require_near_name(headers: Headers) -> None:
    """Raise ForbiddenError when a browser was led to this machine under another one's name."""
    name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    known = ("localhost", socket.gethostname().lower())
    if not (name in known or name.endswith(".localhost") or _is_loopback(name)):
        raise ForbiddenError(
            "a service without keys asked as localhost",
            f"it asked as {name[:100]!r}",
            "Ask at http://127.0.0.1, or make keys with `cvdm keys create NAME`.",
        )


def _is_near(scope: Scope) -> bool:
    """Whether the client is on this machine."""
    client = scope.get("client")
    return client is None or _is_loopback(client[0])


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
