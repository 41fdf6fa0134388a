"""nginx and Caddy of Debian's packages, which `make proxies` fetches, in front of a service."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.waiting import wait_until

ROOT = Path(__file__).parents[3]
CONFIGS = {
    "nginx": ROOT / "tests/proxies/nginx.conf",
    "caddy": ROOT / "tests/proxies/Caddyfile",
}
PROGRAMS = ROOT / "build" / "proxies"
COMMANDS = {
    "nginx": [str(PROGRAMS / "usr/sbin/nginx"), "-p", "@FOLDER@", "-c", "@CONFIG@"],
    "caddy": [
        *(str(PROGRAMS / "usr/bin/caddy"), "run"),
        *("--adapter", "caddyfile", "--config", "@CONFIG@"),
    ],
}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def proxied(kind: str, upstream: str, folder: Path) -> Iterator[str]:
    """The address of a proxy in front of another."""
    folder.mkdir()
    port = _free_port()
    values = {
        "@FOLDER@": str(folder),
        "@PORT@": str(port),
        "@UPSTREAM@": upstream,
        "@CONFIG@": str(folder / "config"),
    }

    def filled(text: str) -> str:
        for name, value in values.items():
            text = text.replace(name, value)
        return text

    (folder / "config").write_text(filled(CONFIGS[kind].read_text()))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - our own commands
            [filled(part) for part in COMMANDS[kind]], stdout=log, stderr=log, cwd=folder
        )
    try:
        wait_until(lambda: _listens(port), seconds=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
