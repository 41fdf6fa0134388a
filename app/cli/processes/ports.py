"""Addresses of this machine: whether they are free, and sockets at them."""

import socket

from app.core.errors import ConfigurationError


def require_free_port(host: str, port: int, *, option: str = "--port or VLIBRARY_PORT") -> None:
    """Return when the port can be listened on.

    `option` tells how another one is chosen.

    Raises:
        ConfigurationError: Something else listens there, or the address is not ours.
    """
    try:
        bound(host, port).close()
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            f"choose another with {option}",
            details={"host": host, "port": port},
        ) from error


def free_port(host: str) -> int:
    """A port that is free."""
    with bound(host, 0) as probe:
        return int(probe.getsockname()[1])


def bound(host: str, port: int) -> socket.socket:
    """A socket of this address, not listening yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def url_of(host: str, port: int) -> str:
    """Where a program at this address is reached by HTTP."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
