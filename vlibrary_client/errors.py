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

    def __init_subclass__(cls, *, code: str | None = None) -> None:
        cls.code = code or cls.code

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


class InvalidInputError(VLibraryError, code="invalid-input"):
    """The server refused a value of the request."""


class InvalidVectorFileError(InvalidInputError, code="invalid-vector-file"):
    """The bytes are not an M2IV file."""


class InvalidImageError(InvalidInputError, code="invalid-image"):
    """The bytes are not an image the server takes."""


class InvalidDatasetError(InvalidInputError, code="invalid-dataset"):
    """The data set's layout or content is not usable."""


class ContextOverflowError(InvalidInputError, code="context-overflow"):
    """The prompt and its answer are longer than the backbone's context."""


class NotFoundError(VLibraryError, code="not-found"):
    """Nothing has that name or id."""


class ConflictError(VLibraryError, code="conflict"):
    """The thing changed meanwhile, or is in use."""


class InProgressError(ConflictError, code="in-progress"):
    """The same request is being answered; asked again in a moment, its answer is there."""


class IncompatibleBackboneError(VLibraryError, code="incompatible-backbone"):
    """The vector was trained on another backbone than the one that would run it."""


class UnsupportedBackboneError(VLibraryError, code="unsupported-backbone"):
    """The backbone's layout is not one that can be steered."""


class SteeringError(VLibraryError, code="steering-failed"):
    """A vector was asked for and could not be shown to have been applied."""


class CorruptDataError(VLibraryError, code="corrupt-data"):
    """Stored bytes no longer match their digest."""


class UnavailableError(VLibraryError, code="unavailable"):
    """The service cannot answer now; another try may succeed."""


class BusyError(UnavailableError, code="busy"):
    """Too many requests are in flight."""


class WorkerUnavailableError(UnavailableError, code="worker-unavailable"):
    """No worker answers."""


class StorageUnavailableError(UnavailableError, code="storage-unavailable"):
    """The server's object store does not answer."""


class OutOfDeviceMemoryError(UnavailableError, code="out-of-device-memory"):
    """The accelerator's memory did not suffice for this request."""


class DeadlineExceededError(VLibraryError, code="deadline-exceeded"):
    """The request took longer than the server allows."""


class JobCancelledError(VLibraryError, code="cancelled"):
    """The job was cancelled before it finished."""


class ConfigurationError(VLibraryError, code="configuration"):
    """The server's settings do not allow this."""


class StorageFullError(VLibraryError, code="storage-full"):
    """The server has no room left; the same request works once it has."""


class QuotaExceededError(VLibraryError, code="quota-exceeded"):
    """The key may not store more; `details` has the quota, its limit and what was found."""


class TooLargeError(VLibraryError, code="too-large"):
    """The body is larger than the server takes."""


class ConnectionFailedError(VLibraryError, code="connection-failed"):
    """The server could not be reached, or hung up."""


class RequestTimeoutError(VLibraryError, code="request-timeout"):
    """The server did not answer within the client's timeout."""


class WaitTimeoutError(VLibraryError, code="wait-timeout"):
    """The job did not finish while it was waited for; it goes on."""


class InvalidResponseError(VLibraryError, code="invalid-response"):
    """The server's answer is not what this release expects."""


def _subclasses(base: type[VLibraryError]) -> Iterator[type[VLibraryError]]:
    for cls in base.__subclasses__():
        yield cls
        yield from _subclasses(cls)


def error_from_code(code: str, message: str, **facts: Any) -> VLibraryError:  # noqa: ANN401
    """An exception of the class that mirrors `code`, ready to raise, with its other arguments."""
    kinds = (kind for kind in _subclasses(VLibraryError) if kind.code == code)
    return next(kinds, VLibraryError)(message, code=code, **facts)
