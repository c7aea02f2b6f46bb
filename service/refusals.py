"""A refusal as a reply: JSON with error, expected, actual, remedy and the request's id, a header too."""

from __future__ import annotations

from starlette.responses import JSONResponse

from cvdm.errors import CvdmError
from service.errors import RangeError, ServiceError, UnauthorizedError, status_of

ID_HEADER = "x-request-id"
UNKNOWN = "other"
"""In metrics and logs, the path and method of what is no route: strangers choose these, and as many."""


def refusal(error: CvdmError, request_id: str) -> JSONResponse:
    """The reply that says what was wrong and what to do."""
    headers = {ID_HEADER: request_id}
    if isinstance(error, UnauthorizedError):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, ServiceError) and error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, RangeError) and error.size is not None:
        headers["content-range"] = f"bytes */{error.size}"
    return JSONResponse(error.as_dict() | {"request_id": request_id}, status_of(error), headers)
