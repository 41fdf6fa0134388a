"""What a request is and how its answer is read: results, files, errors as exceptions; no I/O."""

import hashlib
import json
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from vlibrary_client.errors import (
    CorruptDataError,
    FieldError,
    InvalidInputError,
    InvalidResponseError,
    VLibraryError,
    error_from_code,
)

T = TypeVar("T")

REQUEST_ID = "x-request-id"
_MESSAGES = ("detail", "title", "message")

_CODE_OF_STATUS = {
    400: "invalid-input",
    404: "not-found",
    409: "conflict",
    413: "too-large",
    422: "invalid-input",
    429: "busy",
    502: "unavailable",
    503: "unavailable",
    504: "deadline-exceeded",
    507: "storage-full",
}


@dataclass(kw_only=True)
class Kept:
    """What came of a file before its connection was lost; the next try asks for the rest."""

    etag: str = ""
    body: bytearray = field(default_factory=bytearray)

    def headers(self) -> dict[str, str]:
        """Ask for what is missing, of the same file only."""
        # Compressed, places in the file would not be places in what is sent.
        found = {"accept-encoding": "identity"}
        if self.etag and self.body:
            found |= {"range": f"bytes={len(self.body)}-", "if-range": self.etag}
        return found

    def begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Whether the answer's body is to be kept: the rest, or the whole from its beginning."""
        if status == httpx.codes.PARTIAL_CONTENT:
            return headers.get("content-range", "").startswith(f"bytes {len(self.body)}-")
        if status == httpx.codes.OK:
            self.etag = headers.get("etag", "")
            self.body.clear()
        return status == httpx.codes.OK

    def reply(self, headers: httpx.Headers) -> httpx.Response:
        """The whole file as one answer."""
        named = {"etag": self.etag, REQUEST_ID: headers.get(REQUEST_ID, "")}
        return httpx.Response(httpx.codes.OK, headers=named, content=bytes(self.body))


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request and the reader of its answer.

    In something that takes several calls, one step is `answer = yield from call`.

    Attributes:
        is_repeatable: Sending it twice has the effect of sending it once.
        content: A body of raw bytes, or the file that holds them.
        on_sent: Told how many bytes of the file are sent, from 0 on with every try.
        timeout_seconds: How long the answer may take; `None` for the client's default.
        answer_statuses: Statuses of 400 and above that carry a result and no error.
        kept: Where the body of a file is kept, so that a lost connection loses none of it.
    """

    path: str
    read: Callable[[httpx.Response], T]
    method: str = "GET"
    is_repeatable: bool = True
    query: Mapping[str, str | int | Sequence[str]] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    content: bytes | Path | None = None
    on_sent: Callable[[int], None] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None
    answer_statuses: frozenset[int] = frozenset()
    kept: Kept | None = None

    def __iter__(self) -> "Steps[T]":
        """Yields itself, and returns the answer that it is sent."""
        answer: T = yield self
        return answer


Steps: TypeAlias = Generator[Call[Any], Any, T]
"""Calls one after the other, each told the answer of the one before, and what comes of them."""


def json_of(body: Mapping[str, Any]) -> bytes:
    """The body of a request; numbers of numpy are numbers.

    Raises:
        InvalidInputError: Something in it has no place in JSON.
    """
    try:
        return json.dumps(
            body, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_plain
        ).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"cannot be sent: {error}") from None


def query_of(query: Mapping[str, Any]) -> httpx.QueryParams:
    """The query of a request.

    Raises:
        InvalidInputError: A text in it is no Unicode.
    """
    params = httpx.QueryParams(dict(query))
    try:
        str(params)
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"cannot be sent: {error}") from None
    return params


def _plain(value: Any) -> Any:  # noqa: ANN401 - what JSON has no word for
    if callable(item := getattr(value, "item", None)) and getattr(value, "shape", None) == ():
        return item()
    raise TypeError(f"wanted a text, number, list or mapping, found {type(value).__name__}")


def once() -> dict[str, str]:
    """A header that makes a repeated send harmless: the server does what it asks for once."""
    return {"idempotency-key": str(uuid.uuid4())}


def fetched(path: str, kind: Any, query: Mapping[str, Any] | None = None) -> Call[Any]:  # noqa: ANN401 - as below
    """Asks for what is there, which is answered as this kind."""
    return Call(path=path, read=json_reader(kind), query=query or {})


def posted(path: str, kind: Any, body: Mapping[str, Any]) -> Call[Any]:  # noqa: ANN401 - as below
    """Asks once, however often it is sent, for what is answered as this kind."""
    return Call(method="POST", path=path, read=json_reader(kind), headers=once(), body=body)


@cache
def json_reader(kind: Any) -> Callable[[httpx.Response], Any]:  # noqa: ANN401 - any annotation
    """A function that reads the JSON of answers of this kind.

    It raises `InvalidResponseError` where a body is not JSON, or not of the kind.
    """
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def read(reply: httpx.Response) -> Any:  # noqa: ANN401 - of the kind
        try:
            return adapter.validate_json(reply.content)
        except ValidationError as error:
            if "json" not in reply.headers.get("content-type", "json"):
                raise _strange("JSON", reply) from None
            first = error.errors(include_input=False, include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "body"
            raise InvalidResponseError(
                f"cannot read the answer at {place}: {first['msg']}",
                status=reply.status_code,
                request_id=_request_id(reply),
            ) from error

    return read


def read_bytes(reply: httpx.Response) -> bytes:
    """The answer's bytes, checked against the SHA-256 in its `ETag`.

    Raises:
        CorruptDataError: The bytes are not those that the server announced.
        InvalidResponseError: No server of ours has announced any.
    """
    announced = reply.headers.get("etag", "").strip('"')
    if not announced:
        raise _strange("a file with its SHA-256", reply)
    found = hashlib.sha256(reply.content).hexdigest()
    if announced != found:
        raise CorruptDataError(
            f"wanted a file with SHA-256 {announced}, found {found}",
            status=reply.status_code,
            request_id=_request_id(reply),
        )
    return reply.content


def read_nothing(reply: httpx.Response) -> None:
    """For answers without a body.

    Raises:
        InvalidResponseError: There is one, so something else has answered.
    """
    if reply.status_code != httpx.codes.NO_CONTENT:
        raise _strange("no content", reply)


def require_answer(reply: httpx.Response, call: Call[Any]) -> None:
    """Returns when the reply is an answer of the call; it must have been read.

    Raises:
        VLibraryError: The server refused, or it was no server of ours that replied.
    """
    if reply.is_error and reply.status_code not in call.answer_statuses:
        raise error_from_problem(
            read_problem(reply.content),
            status=reply.status_code,
            retry_after=reply.headers.get("retry-after"),
            request_id=_request_id(reply),
        )
    if reply.is_redirect:
        raise _strange("an answer", reply)


def _strange(wanted: str, reply: httpx.Response) -> InvalidResponseError:
    """What answers in place of the server: a page to log in at, or another program."""
    place = f" to {target}" if (target := reply.headers.get("location")) else ""
    kind = reply.headers.get("content-type") or "nothing"
    return InvalidResponseError(
        f"wanted {wanted} from a VLibrary server, found status {reply.status_code} with {kind}"
        f"{place}",
        status=reply.status_code,
        request_id=_request_id(reply),
    )


def error_from_problem(
    problem: Mapping[str, Any],
    *,
    status: int,
    retry_after: object = None,
    request_id: str | None = None,
) -> VLibraryError:
    """The exception that a problem of RFC 9457 stands for; of one that says nothing its status."""
    return error_from_code(
        str(problem.get("code") or _CODE_OF_STATUS.get(status, "error")),
        str(next(filter(None, map(problem.get, _MESSAGES)), f"HTTP status {status}")),
        status=status,
        request_id=str(problem.get("request_id") or "") or request_id,
        details=_mapping(problem.get("details")),
        errors=_field_errors(problem.get("errors")),
        retry_after_seconds=_seconds(retry_after),
    )


def _request_id(reply: httpx.Response) -> str | None:
    """The server's name of the request."""
    return reply.headers.get(REQUEST_ID) or None


def _seconds(retry_after: object) -> float | None:
    """How long the server asks to wait; `None` when it does not say, or gives a date."""
    try:
        seconds = float(str(retry_after))
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None


def read_problem(body: str | bytes) -> dict[str, Any]:
    """The problem that a body tells of; nothing where it is no object of JSON.

    Below `/v1` it is told as OpenAI does, and a worker has a `message` as well.
    """
    try:
        found = _mapping(json.loads(body))
    except (ValueError, RecursionError):
        return {}
    return _mapping(found.get("error")) or found


def _mapping(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}


def _field_errors(value: object) -> tuple[FieldError, ...]:
    if not isinstance(value, list):
        return ()
    return tuple(
        FieldError(location=str(item.get("location", "")), message=str(item.get("message", "")))
        for item in value
        if isinstance(item, dict)
    )
