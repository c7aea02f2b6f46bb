"""The service's log: one JSON object a line, with the id of the request that it is about.

    {"at": "2026-11-24T03:00:00.123+00:00", "level": "info", "from": "service.guard", "message": "answered",
     "request_id": "6c1f...", "method": "POST", "path": "/reconstruct", "status": 200, "seconds": 1.25,
     "who": "ann"}

Lines of libraries stay as these write them. Nothing here holds a pixel.
"""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is being answered."""
FACTS = "facts"


class JsonLines(logging.Formatter):
    """A record as a JSON object; `facts` of the record become keys of their own."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            "message": record.getMessage(),
        }
        if (request_id := REQUEST_ID.get()) is not None:
            told["request_id"] = request_id
        told |= getattr(record, FACTS, {})
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told)


def write_json_lines() -> None:
    """From now on what the package `service` logs, from `info` on, goes to standard error in this form."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    log = logging.getLogger("service")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.INFO)
