"""Debian's Chromium without a window, told what to do over a pipe in its DevTools protocol."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

PROGRAM: Final = shutil.which("chromium")
SECONDS: Final = 120.0
# The protocol's pipe has fixed numbers, which only a shell gives without a fork hook.
LAUNCH: Final = 'exec "$@" 3<&{reads} 4>&{writes}'


class Page:
    """One page of the browser.

    Attributes:
        requested: The URLs that it asked for.
        dialogs: The texts of the dialogs that it opened.
    """

    def __init__(self, commands: int, events: int) -> None:
        self._commands = commands
        self._events = events
        self._read = b""
        self._number = 0
        self._session: str | None = None
        self.requested: list[str] = []
        self.dialogs: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401 - the protocol's
        """The result of a command."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (found := self._next()).get("id") != self._number:
            self._note(found)
        assert "error" not in found, (method, found["error"])
        result: dict[str, Any] = found["result"]
        return result

    def open(self, url: str) -> None:
        """Goes to an address; its scripts may still be at work."""
        self.call("Page.navigate", url=url)
        self.wait_until("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:  # noqa: ANN401 - of any type
        """What an expression is in the page; a promise is waited for."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait_until(self, expression: str) -> None:
        """Returns as soon as the expression is true in the page."""
        deadline = time.monotonic() + SECONDS
        while not self.value(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.1)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._read:
            piece = os.read(self._events, 65_536)
            assert piece, "Chromium has ended"
            self._read += piece
        message, _, self._read = self._read.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        notes: dict[str, Callable[[dict[str, Any]], None]] = {
            "Network.requestWillBeSent": lambda told: self.requested.append(told["request"]["url"]),
            "Page.javascriptDialogOpening": lambda told: self.dialogs.append(told["message"]),
        }
        if note := notes.get(event.get("method", "")):
            note(event["params"])


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """A page of a browser of its own."""
    assert PROGRAM is not None
    reads, commands = os.pipe()
    events, writes = os.pipe()
    options = [
        "--headless",
        # A browser of root has no sandbox; what it is shown is ours.
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--remote-debugging-pipe",
        f"--user-data-dir={profile}",
    ]
    launch = LAUNCH.format(reads=reads, writes=writes)
    with subprocess.Popen(  # noqa: S603 - our own command line
        ["/bin/bash", "-c", launch, "bash", PROGRAM, *options],
        pass_fds=(reads, writes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(reads)
        os.close(writes)
        try:
            page = Page(commands, events)
            yield page
        finally:
            process.terminate()
            os.close(commands)
            os.close(events)
