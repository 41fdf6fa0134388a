"""Exit status 0 when the URL answers 200, otherwise 1; needs nothing but Python."""

import sys
import urllib.request
from http import HTTPStatus

TIMEOUT_SECONDS = 4.0


def is_healthy(url: str) -> bool:
    """Whether the URL answers 200 in time."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310 - ours
            return bool(response.status == HTTPStatus.OK)
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(0 if is_healthy(sys.argv[1]) else 1)
