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
        _listen_once(host, port)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            f"choose another with {option}",
            details={"host": host, "port": port},
        ) from error


def free_port(host: str, *, wanted: int) -> int:
    """The wanted port when it is free, otherwise any free one."""
    try:
        return _listen_once(host, wanted)
    except OSError:
        return _listen_once(host, 0)


def _listen_once(host: str, port: int) -> int:
    with bound(host, port) as probe:
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
