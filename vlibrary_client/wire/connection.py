"""Where a server is and how it is reached.

`VLIBRARY_URL` and `VLIBRARY_API_KEY` are read when a client is made; what the program gives wins.
"""

import ipaddress
import os
from dataclasses import dataclass
from typing import Any

import httpx

from vlibrary_client.wire.retrying import RetryPolicy

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "VLIBRARY_URL"
KEY_VARIABLE = "VLIBRARY_API_KEY"
CONNECT_TIMEOUT_SECONDS = 5.0


def timeout_of(seconds: float) -> httpx.Timeout:
    """So many seconds of silence, of which connecting may take a few."""
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT_SECONDS))


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
        url = self.base_url or os.environ.get(URL_VARIABLE) or DEFAULT_BASE_URL
        url = url.rstrip("/")
        return {
            "base_url": url,
            "headers": _headers(self.api_key or os.environ.get(KEY_VARIABLE) or None),
            "timeout": timeout_of(self.timeout_seconds),
            "follow_redirects": False,
            # A proxy cannot reach this machine's own addresses, whatever the environment says.
            "trust_env": not _is_loopback(httpx.URL(url).host),
        }


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"accept": "application/json", "user-agent": "vlibrary-client"}
    return headers if api_key is None else {**headers, "authorization": f"Bearer {api_key}"}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
