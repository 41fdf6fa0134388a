"""What can go wrong when talking to a VLibrary server, as exceptions.

Most mirror the server's errors by their stable `code`; four are born in the client: no connection,
no answer in time, the end of a wait, an answer that cannot be read. A code this release does not
know becomes a plain `VLibraryError` that keeps it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One refused part of a request: where it stands, and why it was refused."""

    location: str
    message: str


class VLibraryError(Exception):
    """The base of every error of this package.

    Attributes:
        code: The stable name of the kind of error.
        message: What went wrong, for a person.
        status: The HTTP status of the answer, or `None` when there was none.
        request_id: The server's name of the request, for its logs, or `None`.
        details: Facts a program can use, such as `wanted` and `found`.
        errors: The refused fields, when the request was refused field by field.
        retry_after_seconds: How long the server asked to wait before another try, or `None`.
    """

    code: str = "error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        request_id: str | None = None,
        details: Mapping[str, Any] | None = None,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = type(self).code if code is None else code
        self.status = status
        self.request_id = request_id
        self.details: dict[str, Any] = dict(details or {})
        self.errors = tuple(errors)
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        """The message, the refused fields, and the request's name in the server's logs."""
        parts = [self.message, *(f"{error.location}: {error.message}" for error in self.errors)]
        text = "; ".join(parts)
        return text if self.request_id is None else f"{text} (request {self.request_id})"


class InvalidInputError(VLibraryError):
    """The server refused a value of the request."""

    code = "invalid-input"


class InvalidVectorFileError(InvalidInputError):
    """The bytes are not an M2IV file."""

    code = "invalid-vector-file"


class InvalidImageError(InvalidInputError):
    """The bytes are not an image the server takes."""

    code = "invalid-image"


class InvalidDatasetError(InvalidInputError):
    """The data set's layout or content is not usable."""

    code = "invalid-dataset"


class ContextOverflowError(InvalidInputError):
    """The prompt and its answer are longer than the backbone's context."""

    code = "context-overflow"


class NotFoundError(VLibraryError):
    """Nothing has that name or id."""

    code = "not-found"


class ConflictError(VLibraryError):
    """The thing changed meanwhile, or is in use."""

    code = "conflict"


class InProgressError(ConflictError):
    """The same request is being answered; asked again in a moment, its answer is there."""

    code = "in-progress"


class IncompatibleBackboneError(VLibraryError):
    """The vector was trained on another backbone than the one that would run it."""

    code = "incompatible-backbone"


class UnsupportedBackboneError(VLibraryError):
    """The backbone's layout is not one that can be steered."""

    code = "unsupported-backbone"


class SteeringError(VLibraryError):
    """A vector was asked for and could not be shown to have been applied."""

    code = "steering-failed"


class CorruptDataError(VLibraryError):
    """Stored bytes no longer match their digest."""

    code = "corrupt-data"


class UnavailableError(VLibraryError):
    """The service cannot answer now; another try may succeed."""

    code = "unavailable"


class BusyError(UnavailableError):
    """Too many requests are in flight."""

    code = "busy"


class WorkerUnavailableError(UnavailableError):
    """No worker answers."""

    code = "worker-unavailable"


class StorageUnavailableError(UnavailableError):
    """The server's object store does not answer."""

    code = "storage-unavailable"


class OutOfDeviceMemoryError(UnavailableError):
    """The accelerator's memory did not suffice for this request."""

    code = "out-of-device-memory"


class DeadlineExceededError(VLibraryError):
    """The request took longer than the server allows."""

    code = "deadline-exceeded"


class JobCancelledError(VLibraryError):
    """The job was cancelled before it finished."""

    code = "cancelled"


class ConfigurationError(VLibraryError):
    """The server's settings do not allow this."""

    code = "configuration"


class StorageFullError(VLibraryError):
    """The server has no room left; the same request works once it has."""

    code = "storage-full"


class QuotaExceededError(VLibraryError):
    """The key may not store more; `details` has the quota, its limit and what was found."""

    code = "quota-exceeded"


class TooLargeError(VLibraryError):
    """The body is larger than the server takes."""

    code = "too-large"


class ConnectionFailedError(VLibraryError):
    """The server could not be reached, or hung up."""

    code = "connection-failed"


class RequestTimeoutError(VLibraryError):
    """The server did not answer within the client's timeout."""

    code = "request-timeout"


class WaitTimeoutError(VLibraryError):
    """The job did not finish while it was waited for; it goes on."""

    code = "wait-timeout"


class InvalidResponseError(VLibraryError):
    """The server's answer is not what this release expects."""

    code = "invalid-response"


def _subclasses(base: type[VLibraryError]) -> Iterator[type[VLibraryError]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _subclasses(cls)


def error_from_code(code: str, message: str, **facts: Any) -> VLibraryError:  # noqa: ANN401
    """An exception of the class that mirrors `code`, ready to raise, with its other arguments."""
    kinds = (kind for kind in _subclasses(VLibraryError) if kind.code == code)
    return next(kinds, VLibraryError)(message, code=code, **facts)
