"""Where a server is and how it is reached.

What the program gives wins; then come `VLIBRARY_URL` and `VLIBRARY_API_KEY`, then the file
`vlibrary/config.toml` in the user's folder of configurations, all read when a client is made.
"""

import ipaddress
import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from vlibrary_client.errors import ConfigurationError
from vlibrary_client.wire.retrying import RetryPolicy

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "VLIBRARY_URL"
KEY_VARIABLE = "VLIBRARY_API_KEY"
CONNECT_TIMEOUT_SECONDS = 5.0


def timeout_of(seconds: float) -> httpx.Timeout:
    """So many seconds of silence, of which connecting may take a few."""
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_TIMEOUT_SECONDS))


def config_path() -> Path:
    """The file that says where a user's server is: `url` and `key`."""
    folder = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(folder) / "vlibrary" / "config.toml"


@dataclass(frozen=True, kw_only=True)
class Connection:
    """How to reach a server, for either kind of transport.

    Where address or key are None, the environment is asked, then the file.
    """

    base_url: str | None
    api_key: str | None
    timeout_seconds: float
    policy: RetryPolicy

    def http_options(self) -> dict[str, Any]:
        """What both kinds of httpx clients are made with."""
        configured = _read_config()
        url = self.base_url or os.environ.get(URL_VARIABLE) or configured.get("url")
        url = (url or DEFAULT_BASE_URL).rstrip("/")
        key = self.api_key or os.environ.get(KEY_VARIABLE)
        # The file's key is for the file's server, and told to no other.
        if not key and url == configured.get("url", DEFAULT_BASE_URL).rstrip("/"):
            key = configured.get("key")
        return {
            "base_url": url,
            "headers": _headers(key or None),
            "timeout": timeout_of(self.timeout_seconds),
            "follow_redirects": False,
            # A proxy cannot reach this machine's own addresses, whatever the environment says.
            "trust_env": not _is_loopback(httpx.URL(url).host),
        }


def _read_config() -> dict[str, str]:
    path = config_path()
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {type(error).__name__}") from None
    for name, value in found.items():
        if name not in {"url", "key"} or not isinstance(value, str):
            raise ConfigurationError(f"{path}: wanted the texts url and key, found {name}")
    return found


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"accept": "application/json", "user-agent": "vlibrary-client"}
    return headers if api_key is None else {**headers, "authorization": f"Bearer {api_key}"}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
