"""Connections on which no request begins are closed, so that half a head holds no socket for ever.

uvicorn times idle connections, but not one that has sent a part of a head; with enough of them nobody else
would get a connection. Bodies are timed where they are read (`service.upload`).
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn import config
from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 20.0
"""Longest time from a connection to the end of its first request's head; after an answer the next one has at
least so long, and at most twice that."""
MOST_FILES = 2**16


class TimedHeads(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # whichever parser is installed
    """uvicorn's protocol with a look at every connection now and then."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._looks = self.loop.call_later(HEAD_SECONDS, self._look, self._answered())

    def connection_lost(self, exc: Exception | None) -> None:
        self._looks.cancel()
        super().connection_lost(exc)

    def _look(self, before: tuple[Any] | None) -> None:
        """before: `_answered` at the last look."""
        answered = self._answered()
        if before is not None and answered is not None and answered[0] is before[0]:
            self.transport.close()
        else:
            self._looks = self.loop.call_later(HEAD_SECONDS, self._look, answered)

    def _answered(self) -> tuple[Any] | None:
        """The last request, which is None before the first; no tuple while one is worked on."""
        return (self.cycle,) if self.cycle is None or self.cycle.response_complete else None


def time_heads() -> None:
    """Have uvicorn use this protocol, which BentoML offers no setting for."""
    config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{TimedHeads.__name__}"


def allow_connections() -> None:
    """Let this process have as many open files as its limit can be raised to: each connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
