"""Where a server is, how it is reached, what goes wrong on the way, and when to try again.

What the program gives wins; then come `VLIBRARY_URL` and `VLIBRARY_API_KEY`, then the file
`vlibrary/config.toml` in the user's folder of configurations, all read when a client is made.
"""

import ipaddress
import os
import random
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from httpx_sse import SSEError

from vlibrary_client.errors import (
    ConfigurationError,
    ConnectionFailedError,
    InProgressError,
    InvalidInputError,
    InvalidResponseError,
    RequestTimeoutError,
    VLibraryError,
)
from vlibrary_client.wire.replies import Call

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "VLIBRARY_URL"
KEY_VARIABLE = "VLIBRARY_API_KEY"
CONNECT_TIMEOUT_SECONDS = 5.0
MAX_TIMEOUT_SECONDS = 366 * 24 * 3600.0
RETRYABLE_STATUSES = frozenset({429, 503})
FIRST_DELAY_SECONDS = 0.25
MAX_DELAY_SECONDS = 30.0
Http = TypeVar("Http", httpx.Client, httpx.AsyncClient)
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


def timeout_of(seconds: float) -> httpx.Timeout:
    """So many seconds of silence, of which connecting may take a few.

    Raises:
        ConfigurationError: It is no time to wait.
    """
    # Programs need not be typed.
    if not isinstance(seconds, int | float) or not seconds > 0:  # type: ignore[redundant-expr]
        raise ConfigurationError(f"wanted a timeout of more than 0 seconds, found {seconds!r}")
    # No system can count for ever.
    seconds = min(seconds, MAX_TIMEOUT_SECONDS)
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT_SECONDS))


def config_path() -> Path | None:
    """The file that says where a user's server is: `url` and `key`; a user may have no home."""
    try:
        folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    except RuntimeError:
        return None
    return Path(folder) / "vlibrary" / "config.toml"


def http_options(
    base_url: str | None, api_key: str | None, *, timeout_seconds: float
) -> dict[str, Any]:
    """What both kinds of httpx clients are made with.

    Where address or key are None, the environment is asked, then the file.

    Raises:
        ConfigurationError: One of them is none that could be sent anything to, or be sent.
    """
    configured = _read_config()
    url = base_url or os.environ.get(URL_VARIABLE) or configured.get("url")
    url = (url or DEFAULT_BASE_URL).rstrip("/")
    key = api_key or os.environ.get(KEY_VARIABLE)
    # The file's key is for the file's server, and told to no other.
    if not key and url == configured.get("url", DEFAULT_BASE_URL).rstrip("/"):
        key = configured.get("key")
    host = _host_of(url)
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigurationError(
            "wanted a key on one line of ASCII, such as vlib_..., found another"
        )
    headers = {"accept": "application/json", "user-agent": "vlibrary-client"}
    return {
        "base_url": url,
        "headers": headers | ({"authorization": f"Bearer {key}"} if key else {}),
        "timeout": timeout_of(timeout_seconds),
        "follow_redirects": False,
        # A proxy cannot reach this machine's own addresses, whatever the environment says.
        "trust_env": not _is_loopback(host),
    }


def make_client(kind: type[Http], options: Mapping[str, Any]) -> Http:
    """An httpx client, which reads the environment's proxies and certificates.

    Raises:
        ConfigurationError: They make no sense.
    """
    try:
        return kind(**options)
    except (ImportError, OSError, ValueError, httpx.InvalidURL) as error:
        raise ConfigurationError(
            "cannot use the proxies or certificates that the environment tells of (HTTP_PROXY, "
            f"HTTPS_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE, SSL_CERT_DIR): {error}"
        ) from error


def _host_of(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"no address of a server: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ConfigurationError(
            f"wanted the address of a server such as {DEFAULT_BASE_URL}, found one without "
            "http:// or https://, or without a host"
        )
    return parsed.host


def names_server(base_url: str | None, api_key: str | None) -> bool:
    """Whether arguments, environment or file tell of a server or of a key to one."""
    sources = (base_url, api_key, os.environ.get(URL_VARIABLE), os.environ.get(KEY_VARIABLE))
    path = config_path()
    return any(sources) or (path is not None and path.is_file())


def _read_config() -> dict[str, str]:
    path = config_path()
    if path is None:
        return {}
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    for name, value in found.items():
        if name not in {"url", "key"} or not isinstance(value, str):
            raise ConfigurationError(f"{path}: wanted the texts url and key, found {name}")
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def retry_delay(
    error: VLibraryError, call: Call[Any], attempt: int, *, max_retries: int
) -> float | None:
    """Seconds to wait before a call is sent again that failed so, or `None` to give up.

    Only requests whose repetition is harmless are sent again after an answer or a lost
    connection; any request is, when the connection could not be opened at all.

    Waits double from the first one, of attempt 0, up to the longest, which holds also when the
    server asks for more, and are spread at random, so that clients refused together do not return
    together.
    """
    if attempt >= max_retries or not _is_worth_it(error, call):
        return None
    if error.retry_after_seconds is not None:
        return min(error.retry_after_seconds, MAX_DELAY_SECONDS)
    # More doublings than that would in the end be more than a float holds.
    longest = min(FIRST_DELAY_SECONDS * 2.0 ** min(attempt, 10), MAX_DELAY_SECONDS)
    return longest * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _is_worth_it(error: VLibraryError, call: Call[Any]) -> bool:
    # Only the loss itself tells whether anything was sent.
    loss = error.__cause__
    if isinstance(loss, _UNSENT):
        return True
    if isinstance(loss, httpx.RequestError):
        # Nobody waits a whole timeout again.
        return call.is_repeatable and not isinstance(loss, httpx.TimeoutException)
    is_passing = error.status in RETRYABLE_STATUSES or isinstance(error, InProgressError)
    return is_passing and call.is_repeatable


@contextmanager
def library_errors() -> Iterator[None]:
    """Errors of this package in place of those of httpx: a lost connection, a late answer."""
    try:
        yield
    except httpx.InvalidURL as error:
        raise InvalidInputError(f"cannot be sent: {error}") from None
    except SSEError as error:
        raise InvalidResponseError(f"wanted a stream of events: {error}") from None
    except httpx.TimeoutException as error:
        raise RequestTimeoutError(
            f"no answer in time from {_server_of(error)} ({type(error).__name__})"
        ) from error
    except httpx.RequestError as error:
        reason = ": ".join(filter(None, (type(error).__name__, _reason_of(error))))
        raise ConnectionFailedError(f"cannot talk to {_server_of(error)} ({reason})") from error


def _reason_of(error: BaseException | None) -> str | None:
    """What the system said; httpx's own words may have an address with an account in it."""
    while error is not None and not (isinstance(error, OSError) and error.strerror):
        error = error.__cause__ or error.__context__
    return None if error is None else error.strerror


def _server_of(error: httpx.RequestError) -> str:
    """The address that was tried; neither its path nor an account in it, which may be secret."""
    try:
        url = error.request.url
    except RuntimeError:
        return "the server"
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}" if url.port is None else f"{url.scheme}://{host}:{url.port}"
