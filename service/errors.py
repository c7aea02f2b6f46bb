"""What the service refuses and why, each with its HTTP status; the text reaches the client unchanged."""

from __future__ import annotations

from cvdm.errors import CvdmError, ImageError, StorageError


class ServiceError(CvdmError):
    """A request that cannot be answered."""

    status = 500
    retry_after: int | None = None
    """Seconds after which the same request may succeed; None when it will not by itself."""


class BodyError(ServiceError):
    """The body is not a well-formed form."""

    status = 400


class MediaTypeError(ServiceError):
    """The body is something else than a form."""

    status = 415


class UploadTooLargeError(ServiceError):
    """The file is larger than this service accepts."""

    status = 413


class UploadTimeError(ServiceError):
    """The upload did not end in time."""

    status = 408


class ParameterError(ServiceError):
    """A form field is missing, unknown, or out of range."""

    status = 422


class HTTPError(ServiceError):
    """A path that there is, asked for in a way that there is not; the status is that of each."""


class UnknownPathError(ServiceError):
    """There is nothing under that path."""

    status = 404


class UnknownTaskError(ServiceError):
    """No registered model restores this task."""

    status = 404


class UnknownVersionError(ServiceError):
    """The task has no such version."""

    status = 404


class NoModelError(ServiceError):
    """The task has no verified model (yet)."""

    status = 503
    retry_after = 10


class RegistryError(ServiceError):
    """The model registry does not answer."""

    status = 503
    retry_after = 10


class DownloadError(ServiceError):
    """The registry knows a model, but its files could not be fetched (now)."""

    status = 503
    retry_after = 10


class KeysError(ServiceError):
    """A key that cannot be made or revoked."""

    status = 422


class KeysGoneError(ServiceError):
    """There was a file of keys, and nobody can be let in without it."""

    status = 503


class UnauthorizedError(ServiceError):
    """Nobody knows who asks."""

    status = 401


class ForbiddenError(ServiceError):
    """Who asks may not."""

    status = 403


class JobsError(ServiceError):
    """This service keeps no jobs (now)."""

    status = 503
    retry_after = 10


class UnknownJobError(ServiceError):
    """There is no such job, or it is somebody else's."""

    status = 404


class UnfinishedError(ServiceError):
    """A job has no result yet, or never will."""

    status = 409


class RangeError(ServiceError):
    """Bytes of a file were asked for that cannot be told, or are not there."""

    status = 400
    size: int | None = None
    """Of the file, where the bytes are beyond it."""


class QuotaError(ServiceError):
    """Somebody has asked for as much as one may."""

    status = 429
    retry_after = 60


class BusyError(ServiceError):
    """Too many requests are sending or wait for the device."""

    status = 503

    def __init__(self, waiting: int, seconds: int) -> None:
        super().__init__(
            "a free place among those who wait for the device",
            f"{waiting} requests ahead",
            f"Send the request again in about {seconds} seconds.",
        )
        self.retry_after = seconds


class StoppingError(ServiceError):
    """The service is being stopped."""

    status = 503
    retry_after = 30

    def __init__(self) -> None:
        super().__init__("a running service", "one that is being stopped", "Send the request again later.")


class TimeLimitError(ServiceError):
    """The answer took longer than this service allows."""

    status = 504


def status_of(error: CvdmError) -> int:
    """The HTTP status that says whose mistake it was."""
    if isinstance(error, ServiceError):
        return error.status
    if isinstance(error, ImageError):
        return 422
    return 507 if isinstance(error, StorageError) else 503
