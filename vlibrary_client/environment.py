"""Where the server is and which key it is asked with, when a program does not say so.

`VLIBRARY_URL` and `VLIBRARY_API_KEY` are read when a client is made; what the program gives wins.
"""

import os

DEFAULT_BASE_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "VLIBRARY_URL"
KEY_VARIABLE = "VLIBRARY_API_KEY"


def server_url(given: str | None) -> str:
    """The server's address: as given, as the environment says, or on this machine."""
    return (given or os.environ.get(URL_VARIABLE) or DEFAULT_BASE_URL).rstrip("/")


def api_key(given: str | None) -> str | None:
    """The key: as given, or as the environment says, or none."""
    return given or os.environ.get(KEY_VARIABLE) or None
