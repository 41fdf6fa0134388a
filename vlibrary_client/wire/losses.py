"""Errors of the network as the library's own, which name the server that was tried."""

import httpx
from httpx_sse import SSEError

from vlibrary_client.errors import (
    ConnectionFailedError,
    InvalidResponseError,
    RequestTimeoutError,
    VLibraryError,
)


def loss_of(error: httpx.RequestError) -> VLibraryError:
    """The connection was lost, or the answer late."""
    server = _server_of(error)
    if isinstance(error, httpx.TimeoutException):
        return RequestTimeoutError(f"no answer in time from {server} ({type(error).__name__})")
    return ConnectionFailedError(f"cannot talk to {server} ({type(error).__name__})")


def no_events(error: SSEError) -> InvalidResponseError:
    """The answer is no stream of events."""
    return InvalidResponseError(f"wanted a stream of events: {error}")


def _server_of(error: httpx.RequestError) -> str:
    """The address that was tried; neither its path nor an account in it, which may be secret."""
    try:
        url = error.request.url
    except RuntimeError:
        return "the server"
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}" if url.port is None else f"{url.scheme}://{host}:{url.port}"
