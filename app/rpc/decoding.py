"""What a worker's responses mean: answers, or the library errors that it told of."""

from collections.abc import AsyncGenerator, Iterator
from typing import Final, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from app.core.errors import BusyError, UnavailableError, VLibraryError, WorkerUnavailableError
from app.rpc.generation import Message
from app.rpc.messages import ErrorBody, StreamLine

RETRY_AFTER_SECONDS: Final = 2.0
REFUSAL_STATUSES: Final = frozenset({429, 503})
# Not among them is a device out of memory: the request has run, and it may be one that is too
# large wherever it goes. Nor is any other unavailability, which a worker tells of when its device
# was lost under a request that may have been the cause.
REFUSALS: Final = (BusyError, WorkerUnavailableError)
# Above the longest answer: 8192 tokens with 20 others in the place of each.
MAX_LINE_BYTES: Final = 32 * 1024 * 1024

_LINE: Final[TypeAdapter[StreamLine]] = TypeAdapter(StreamLine)
Answer = TypeVar("Answer", bound=Message)


class NotBegunError(Exception):
    """A worker has not begun with a request, for a reason that a caller can be told."""

    def __init__(self, reason: UnavailableError) -> None:
        super().__init__(reason.message)
        self.reason = reason


async def raise_if_refused(response: httpx.Response) -> None:
    """Returns unless the worker says, instead of an answer, that it is full or shuts down.

    Raises:
        NotBegunError: It says so; nothing was begun.
    """
    if response.status_code not in REFUSAL_STATUSES:
        return
    await response.aread()
    try:
        error = error_of(ErrorBody.model_validate_json(response.content))
    except ValidationError:
        # Somebody else's words, who does not know whether the worker has begun.
        return
    if isinstance(error, REFUSALS):
        raise NotBegunError(error)


def unavailable(message: str) -> WorkerUnavailableError:
    """The error of a worker that cannot be reached or understood."""
    return WorkerUnavailableError(message, retry_after_seconds=RETRY_AFTER_SECONDS)


def read_answer(response: httpx.Response, answer: type[Answer]) -> Answer:
    """Return the typed answer, or raise the library error the worker reported."""
    try:
        if response.is_success:
            return answer.model_validate_json(response.content)
        body = ErrorBody.model_validate_json(response.content)
    except ValidationError as error:
        raise unavailable(f"unreadable answer with status {response.status_code}") from error
    raise error_of(body)


async def lines_of(
    response: httpx.Response, *, max_bytes: int = MAX_LINE_BYTES
) -> AsyncGenerator[bytes, None]:
    """The lines of a streamed answer as they come, without their ends.

    They end at line feeds alone: JSON strings may hold what Unicode counts as line ends.

    Raises:
        WorkerUnavailableError: A line is too long to be one of an answer.
    """
    line = bytearray()
    async for chunk in response.aiter_bytes():
        for place, part in enumerate(chunk.split(b"\n")):
            if place:
                yield bytes(line)
                line.clear()
            line += part
            if len(line) > max_bytes:
                raise unavailable(f"a line of a streamed answer has more than {max_bytes} bytes")
    if line:
        yield bytes(line)


def read_line(text: bytes) -> StreamLine:
    """A line of a streamed answer.

    Raises:
        WorkerUnavailableError: It is none.
    """
    try:
        return _LINE.validate_json(text)
    except ValidationError as error:
        raise unavailable("unreadable line of a streamed answer") from error


def error_of(body: ErrorBody) -> VLibraryError:
    """The library error that a worker told of; one of an unknown code keeps it in its details."""
    kind = next((kind for kind in _kinds(VLibraryError) if kind.code == body.code), None)
    if kind is None:
        return VLibraryError(body.message, details={**body.details, "code": body.code})
    error = kind(body.message, details=body.details)
    if isinstance(error, UnavailableError):
        error.retry_after_seconds = body.retry_after_seconds
    return error


def _kinds(base: type[VLibraryError]) -> Iterator[type[VLibraryError]]:
    yield base
    for kind in base.__subclasses__():
        yield from _kinds(kind)
