"""The library's errors: one tree, a stable code for each, no HTTP status.

A message says what was wanted and what was found. It never repeats a prompt, an image or a secret.
"""

import errno
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

if TYPE_CHECKING:
    JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"
else:
    # Run-time type checkers cannot follow an alias that names itself.
    JSON = object

_OUT_OF_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# Libraries that write files themselves tell it in words alone.
_WORDS: Final = ("no space left on device", "disk quota exceeded", "os error 28", "errno 28")


class VLibraryError(Exception):
    """Anything the library refuses to do, with a code that clients may rely on.

    Attributes:
        message: One sentence for a person: what was wanted and what was found.
        details: The same facts for a program, made of JSON values.
    """

    code: ClassVar[str] = "error"

    def __init_subclass__(cls, *, code: str | None = None) -> None:
        cls.code = code or cls.code

    def __init__(self, message: str, *, details: Mapping[str, JSON] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, JSON] = dict(details or {})


class InvalidInputError(VLibraryError, code="invalid-input"):
    """The caller sent something that can never be accepted as it is."""


class ContextOverflowError(InvalidInputError, code="context-overflow"):
    """A prompt and its answer are longer than the backbone's context."""


class InvalidVectorFileError(InvalidInputError, code="invalid-vector-file"):
    """The bytes are no well-formed vector file for the declared backbone."""


class InvalidImageError(InvalidInputError, code="invalid-image"):
    """The bytes are no image of an accepted format, size and shape."""


class InvalidDatasetError(InvalidInputError, code="invalid-dataset"):
    """The file is no data set of the expected columns and limits."""


class NotFoundError(VLibraryError, code="not-found"):
    """Nothing of that name or id exists for this caller."""


class ConflictError(VLibraryError, code="conflict"):
    """The state changed under the caller, or the name is taken."""


class InProgressError(ConflictError, code="in-progress"):
    """The same request is being answered; asked again in a moment, its answer is there."""


class StorageFullError(VLibraryError, code="storage-full"):
    """There is no room to keep what was sent; the same request works once there is."""


class TooLargeError(VLibraryError, code="too-large"):
    """The request or file exceeds a size limit."""


class QuotaExceededError(VLibraryError, code="quota-exceeded"):
    """The caller may not store more."""


class IncompatibleBackboneError(VLibraryError, code="incompatible-backbone"):
    """Vectors were made for another backbone than the one at hand."""


class UnsupportedBackboneError(VLibraryError, code="unsupported-backbone"):
    """The backbone's layout is unknown or cannot be steered exactly."""


class SteeringError(VLibraryError, code="steering-failed"):
    """Vectors that were asked for could not be applied in full."""


class CorruptDataError(VLibraryError, code="corrupt-data"):
    """Stored bytes no longer match their digest."""


class UnavailableError(VLibraryError, code="unavailable"):
    """The request is fine but cannot be served now; trying again later may work."""

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, JSON] | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, details=details)
        self.retry_after_seconds = retry_after_seconds


class BusyError(UnavailableError, code="busy"):
    """Every place is taken."""


class WorkerUnavailableError(UnavailableError, code="worker-unavailable"):
    """No worker that serves this backbone can be reached."""


class StorageUnavailableError(UnavailableError, code="storage-unavailable"):
    """The object store does not answer, or refuses this service."""


class OutOfDeviceMemoryError(UnavailableError, code="out-of-device-memory"):
    """The accelerator had no room for this request."""


class DeadlineExceededError(VLibraryError, code="deadline-exceeded"):
    """The request's time was used up before it was finished."""


class JobCancelledError(VLibraryError, code="cancelled"):
    """Someone asked for the job to stop, and it did."""


class ConfigurationError(VLibraryError, code="configuration"):
    """Settings contradict each other or the machine."""


def is_out_of_space(error: BaseException) -> bool:
    """Whether the error, or one that it came of, tells of a full disk or an exhausted quota."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, OSError) and current.errno in _OUT_OF_SPACE:
            return True
        if any(words in str(current).lower() for words in _WORDS):
            return True
        current = current.__cause__ or current.__context__
    return False
