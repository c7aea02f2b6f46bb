"""Reading a multipart upload with a hard limit, before anything is decoded.

Starlette's parser spools a file beyond 1 MB to the temporary folder. The limit is held twice: against the
declared length before the first byte is read, and against what really comes. A sender that drips is cut off,
because it holds a place that others wait for; how long a whole upload may take is the caller's to bound.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from cvdm.storage import storage_error
from service.errors import (
    BodyError,
    MediaTypeError,
    ParameterError,
    UploadTimeError,
    UploadTooLargeError,
)
from service.schema import shown

FORM_BYTES = 64 * 1024
"""Room for boundaries and the short fields beside the file."""
FIELD_BYTES = 1024
FIELDS = 20
PATH = "path"
"""Form field of an image that is not uploaded; may come as often as images may."""
DRAIN_SECONDS = 5.0
GRACE_SECONDS, SLOWEST = 20.0, 1024
"""An upload may lag so long behind a sender of so many bytes per second."""
EXAMPLE = "Send it like `curl -F image=@INPUT.tif -o OUTPUT.tif URL/reconstruct`."


@dataclass(frozen=True)
class Upload:
    """One parsed request; close it when the files are no longer needed."""

    images: tuple[UploadFile, ...]
    paths: tuple[str, ...]
    """Images on the service's machine, by their names there."""
    fields: Mapping[str, str]
    """Every other form field."""
    form: FormData

    @property
    def image(self) -> BinaryIO:
        """The file of a request for a single image."""
        return self.images[0].file

    async def close(self) -> None:
        await self.form.close()


async def read_upload(request: Request, limit: int, *, most_images: int = 1) -> Upload:
    """Receive a form; limit: bytes of all files together.

    Raises MediaTypeError, UploadTooLargeError, UploadTimeError, BodyError, ParameterError, StorageError.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise MediaTypeError(
            "multipart/form-data with the file field image", kind or "no content type", EXAMPLE
        )
    try:
        declared = request.headers.get("content-length", "0")
        if int(declared) > limit + FORM_BYTES:
            raise _too_large(limit)
        counted = Request(request.scope, _counted(request.receive, limit))
        form = await counted.form(
            max_files=most_images, max_fields=FIELDS + most_images, max_part_size=FIELD_BYTES
        )
    except UploadTooLargeError:
        await _drain(request.receive, limit)
        raise
    except OSError as error:
        await _drain(request.receive, limit)
        raise storage_error(error, "the upload") from error
    except HTTPException as error:  # how Starlette reports a malformed form
        raise BodyError("a well-formed form with one file", str(error.detail), EXAMPLE) from error
    try:
        return _checked(form, limit)
    except BaseException:
        await form.close()
        raise


def _checked(form: FormData, limit: int) -> Upload:
    images = tuple(value for value in form.getlist("image") if isinstance(value, UploadFile))
    paths = tuple(value for value in form.getlist(PATH) if isinstance(value, str) and value.strip())
    names = [name for name, value in form.multi_items() if value not in images and name != PATH]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ParameterError("every form field once", f"{shown(repeated[0])} twice", "Send it once.")
    if not images and not paths:
        came = f"only {', '.join(shown(name) for name in names)}" if names else "no fields"
        raise ParameterError("a file in the form field image", came, EXAMPLE)
    if sum(image.size or 0 for image in images) > limit:
        raise _too_large(limit)
    fields = {name: value for name, value in form.items() if isinstance(value, str) and name != PATH}
    return Upload(images, paths, fields, form)


def _counted(receive: Receive, limit: int) -> Receive:
    """`receive` that raises as soon as more came than may come, or too little in its time."""
    seen, began = 0, time.monotonic()

    async def counted() -> Message:
        nonlocal seen
        late = began + GRACE_SECONDS + seen / SLOWEST - time.monotonic()
        try:
            async with asyncio.timeout(late):
                message = await receive()
        except TimeoutError as error:
            raise UploadTimeError(
                f"an upload of at least {SLOWEST} bytes per second",
                f"{seen} bytes in {time.monotonic() - began:.0f} s",
                "Send it over a faster connection.",
            ) from error
        seen += len(message.get("body", b""))
        if seen > limit + FORM_BYTES:
            raise _too_large(limit)
        return message

    return counted


async def _drain(receive: Receive, limit: int) -> None:
    """Take and drop some more of the body: a sender cut off at once often misses the reply."""
    taken = 0
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            while taken < limit + FORM_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


def _too_large(limit: int) -> UploadTooLargeError:
    return UploadTooLargeError(
        f"a file of at most {limit / 2**20:g} MiB",
        "a larger one",
        "Crop the image, or raise CVDM_MAX_UPLOAD_BYTES.",
    )
