"""In front of every path of the service, BentoML's own included: who comes, and may he?

As soon as there was a key, whoever has none is answered 401, but for `OPEN` paths. Where none was ever made,
the service is open to its own machine, and to nobody else. A page of another site that a browser shows is
nobody here: neither may it have the browser change anything (`Origin`), nor pass for this machine under a
name of its own (`Host`).
"""

from __future__ import annotations

import ipaddress
import logging
import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import cookie_parser

from service.errors import ForbiddenError, ServiceError, UnauthorizedError, UnknownPathError
from service.keys import Call, Key, Keys
from service.logs import FACTS, REQUEST_ID
from service.refusals import ID_HEADER, UNKNOWN, refusal
from service.schema import shown
from service.settings import Settings

log = logging.getLogger(__name__)
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
MADE = "cvdm_made"
"""Where a scope has what is made of the request, if its endpoint says so."""
LOOKS = re.compile(r"/jobs(/[^/]+(/events|/images/[^/]+/(view|tile|preview\.png))?)?/?")
"""Paths that a page or a program asks for again and again; a day of such calls would be all that is kept."""
PATH_LENGTH, METHOD_LENGTH = 200, 20
"""Characters of a call that are kept; both are whatever a client writes."""


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


@dataclass
class Made:
    """What is made of a request, where its answer's headers do not tell."""

    version: int | None = None
    digests: Sequence[str] = ()
    """SHA-256 of each image."""


class Doorkeeper:
    """ASGI middleware."""

    def __init__(self, app: App, on_refusal: Callable[[ServiceError, float], None]) -> None:
        """on_refusal: called for each request that is not let in, with the seconds that it took."""
        self._app, self._on_refusal = app, on_refusal
        self._keys: Keys | None = None
        self._settled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            self._file()  # at the start, so that a file that goes later is missed
        if scope["type"] == "http" and not scope["path"].isprintable():
            # BentoML's mount takes no line break for a part of a path, and would answer in other words.
            nowhere = UnknownPathError(
                "a path of printable characters", shown(scope["path"]), "See GET /openapi.json."
            )
            await self._refused(nowhere, scope, receive, send)
            return
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            scope[CALLER] = caller = await run_in_threadpool(self._admitted, scope)
        except ServiceError as error:
            await self._refused(error, scope, receive, send)
            return
        scope[MADE] = made = Made()
        status, said = 499, Headers()  # if the client goes before it is answered

        async def heard(message: MutableMapping[str, Any]) -> None:
            nonlocal status, said
            if message["type"] == "http.response.start":
                status, said = message["status"], Headers(raw=message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, heard)
        finally:
            if caller.keys is not None and _is_kept(scope):
                call = _call(scope, caller.name, status, said, made)
                await run_in_threadpool(caller.keys.log, call)

    async def _refused(self, error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
        """As what is refused inside: with an id, a line in the log, and a count."""
        began, request_id = time.perf_counter(), secrets.token_hex(8)
        REQUEST_ID.set(request_id)
        facts = {"method": UNKNOWN, "path": UNKNOWN, "status": error.status, "who": None}
        log.info("refused at the door: %s", error, extra={FACTS: facts})
        await refusal(error, request_id)(scope, receive, send)
        self._on_refusal(error, time.perf_counter() - began)

    def _admitted(self, scope: Scope) -> Caller:
        """Raises UnauthorizedError, ForbiddenError."""
        headers = Headers(scope=scope)
        _require_own_page(scope["method"], headers)
        keys = self._file()
        if keys is None or not keys.wanted:
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
                "Ask whoever runs this service for one (`cvdm keys create NAME`); commands read CVDM_KEY.",
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


def _is_kept(scope: Scope) -> bool:
    """Whether a call goes into the log of calls: all but looks."""
    return not (scope["method"] in READING and LOOKS.fullmatch(scope["path"]))


def _call(scope: Scope, name: str, status: int, said: Headers, made: Made) -> Call:
    asked = scope["method"][:METHOD_LENGTH], scope["path"][:PATH_LENGTH]
    version = made.version if made.version is not None else said.get("x-cvdm-version")
    digest = " ".join(made.digests) or said.get("x-cvdm-input-sha256")
    return Call(name, said.get(ID_HEADER), *asked, status, None if version is None else str(version), digest)


def made_of(scope: Scope) -> Made:
    """Where an endpoint notes what it made of its request, for the log of calls."""
    made = scope.get(MADE)
    return made if isinstance(made, Made) else Made()


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
