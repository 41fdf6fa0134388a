"""Sends `Call`s over HTTP, retries what is harmless to repeat, and raises the library's errors."""

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

from vlibrary_client import environment
from vlibrary_client.calls import Call
from vlibrary_client.errors import (
    ConnectionFailedError,
    RequestTimeoutError,
    VLibraryError,
)
from vlibrary_client.replies import Reply, error_from_reply
from vlibrary_client.retrying import RetryPolicy

T = TypeVar("T")

CHUNK_BYTES = 1 << 20
CONNECT_TIMEOUT_SECONDS = 5.0
STREAM_SILENCE_SECONDS = 60.0
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"accept": "application/json", "user-agent": "vlibrary-client"}
    return headers if api_key is None else {**headers, "authorization": f"Bearer {api_key}"}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT_SECONDS))


def _options(call: Call[Any]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "method": call.method,
        "url": call.path,
        "params": dict(call.query),
        "headers": dict(call.headers),
    }
    if call.body is not None:
        options["json"] = dict(call.body)
    if call.timeout_seconds is not None:
        options["timeout"] = _timeout(call.timeout_seconds)
    return options


def _reply(response: httpx.Response) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(status=response.status_code, headers=headers, body=response.content)


def _result(call: Call[T], reply: Reply) -> T:
    if reply.is_error and reply.status not in call.answer_statuses:
        raise error_from_reply(reply)
    return call.read(reply)


def _loss(error: httpx.RequestError) -> VLibraryError:
    server = _server_of(error)
    if isinstance(error, httpx.TimeoutException):
        return RequestTimeoutError(f"no answer in time from {server} ({type(error).__name__})")
    return ConnectionFailedError(f"cannot talk to {server} ({type(error).__name__})")


def _server_of(error: httpx.RequestError) -> str:
    """The address that was tried; neither its path nor an account in it, which may be secret."""
    try:
        url = error.request.url
    except RuntimeError:
        return "the server"
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}" if url.port is None else f"{url.scheme}://{host}:{url.port}"


def _is_harmless(call: Call[Any], error: httpx.RequestError) -> bool:
    """Whether sending again can neither do anything twice nor wait a whole timeout again."""
    if isinstance(error, _UNSENT):
        return True
    return call.is_repeatable and not isinstance(error, httpx.TimeoutException)


class Tries:
    """The tries of one call, which failed so far.

    Args:
        call: What is tried.
        policy: How often, and after what.
    """

    def __init__(self, call: Call[Any], *, policy: RetryPolicy) -> None:
        self._call = call
        self._policy = policy
        self._attempt = -1

    def delay_after(self, error: VLibraryError) -> float | None:
        """Seconds to wait before the next try after this one failed, or `None` to give up."""
        self._attempt += 1
        # Only the loss itself tells whether anything was sent.
        loss = error.__cause__
        if isinstance(loss, httpx.RequestError):
            return self._policy.delay_after_loss(
                attempt=self._attempt, is_harmless=_is_harmless(self._call, loss)
            )
        return self._policy.delay_after_refusal(
            error, attempt=self._attempt, is_repeatable=self._call.is_repeatable
        )


@contextmanager
def _sync_content(content: bytes | Path | None) -> Iterator[Mapping[str, Any]]:
    if not isinstance(content, Path):
        yield {} if content is None else {"content": content}
        return
    with content.open("rb") as file:
        yield {"content": file}


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    file = await asyncio.to_thread(path.open, "rb")
    try:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
    finally:
        file.close()


def _async_content(call: Call[Any], options: dict[str, Any]) -> None:
    if isinstance(call.content, Path):
        options["content"] = _chunks(call.content)
        options["headers"]["content-length"] = str(call.content.stat().st_size)
    elif call.content is not None:
        options["content"] = call.content


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach a server, for either kind of transport.

    Attributes:
        base_url: Where it is; None asks the environment.
        api_key: What to send as the bearer token; None asks the environment.
        timeout_seconds: How long an answer may take.
        policy: When to try again.
    """

    base_url: str | None
    api_key: str | None
    timeout_seconds: float
    policy: RetryPolicy

    def http_options(self) -> dict[str, Any]:
        """What both kinds of httpx clients are made with."""
        url = environment.server_url(self.base_url)
        return {
            "base_url": url,
            "headers": _headers(environment.api_key(self.api_key)),
            "timeout": _timeout(self.timeout_seconds),
            "follow_redirects": False,
            # A proxy cannot reach this machine's own addresses, whatever the environment says.
            "trust_env": not _is_loopback(httpx.URL(url).host),
        }


class SyncTransport:
    """Sends calls on one pool of connections and waits for the answers; safe to share."""

    def __init__(
        self, connection: Connection, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.policy = connection.policy
        self._http = httpx.Client(transport=transport, **connection.http_options())

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def sleep(self, seconds: float) -> None:
        """Waits; the one place where this transport does."""
        time.sleep(seconds)

    def send(self, call: Call[T]) -> T:
        """The answer of the call.

        Raises:
            VLibraryError: The server refused, or could not be reached.
        """
        tries = Tries(call, policy=self.policy)
        while True:
            try:
                return _result(call, self._send_once(call))
            except VLibraryError as error:
                delay = tries.delay_after(error)
                if delay is None:
                    raise
            self.sleep(delay)

    def _send_once(self, call: Call[Any]) -> Reply:
        try:
            with _sync_content(call.content) as content:
                return _reply(self._http.request(**_options(call), **content))
        except httpx.RequestError as error:
            raise _loss(error) from error

    @contextmanager
    def stream(self, call: Call[Any]) -> Iterator[Iterator[bytes]]:
        """The answer's body as it arrives; lost after the call's timeout without a byte.

        Raises:
            VLibraryError: The server refused, could not be reached, or hung up.
        """
        try:
            with self._http.stream(**_options(call)) as response:
                if not response.is_success:
                    response.read()
                    raise error_from_reply(_reply(response))
                yield response.iter_bytes()
        except httpx.RequestError as error:
            raise _loss(error) from error


class AsyncTransport:
    """Sends calls on one pool of connections of one event loop; safe to share between tasks."""

    def __init__(
        self, connection: Connection, *, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.policy = connection.policy
        self._http = httpx.AsyncClient(transport=transport, **connection.http_options())

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def sleep(self, seconds: float) -> None:
        """Waits; the one place where this transport does."""
        await asyncio.sleep(seconds)

    async def send(self, call: Call[T]) -> T:
        """The answer of the call.

        Raises:
            VLibraryError: The server refused, or could not be reached.
        """
        tries = Tries(call, policy=self.policy)
        while True:
            try:
                return _result(call, await self._send_once(call))
            except VLibraryError as error:
                delay = tries.delay_after(error)
                if delay is None:
                    raise
            await self.sleep(delay)

    async def _send_once(self, call: Call[Any]) -> Reply:
        options = _options(call)
        _async_content(call, options)
        try:
            return _reply(await self._http.request(**options))
        except httpx.RequestError as error:
            raise _loss(error) from error

    @asynccontextmanager
    async def stream(self, call: Call[Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The answer's body as it arrives; lost after the call's timeout without a byte.

        Raises:
            VLibraryError: The server refused, could not be reached, or hung up.
        """
        try:
            async with self._http.stream(**_options(call)) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_from_reply(_reply(response))
                yield response.aiter_bytes()
        except httpx.RequestError as error:
            raise _loss(error) from error
