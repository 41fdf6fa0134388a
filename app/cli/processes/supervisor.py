"""Child processes that never outlive their parent and are started again when they die."""

import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from app.core.errors import UnavailableError
from app.core.telemetry.logs import get_logger
from app.postgres.pdeathsig import with_pdeathsig

FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 8.0
STABLE_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.1
WORD_SECONDS: Final = 20.0
MAX_KILLED_AT_START: Final = 3

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Program:
    """How to start one child.

    `inherited` are descriptors of ours that it shares, under the same numbers; `is_ready` tells
    whether the running child does its work.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    is_ready: Callable[[], bool]
    inherited: tuple[int, ...] = ()


@dataclass(kw_only=True, eq=False)
class _Child:
    program: Program
    process: "subprocess.Popen[bytes] | None" = None
    started: float = 0.0
    num_killed: int = 0
    backoff_seconds: float
    start_again_at: float = field(default=float("inf"))


class Supervisor:
    """Starts children, keeps them running, stops them all.

    Use it from the main thread only: a child is tied to the life of the thread that started it.

    Children have `stop_timeout_seconds` to end when asked. `first_backoff_seconds` is the least
    time between two starts of a child that dies, doubled each time; one that lived for longer is
    started again at once.
    """

    def __init__(
        self,
        *,
        stop_timeout_seconds: float = 20.0,
        first_backoff_seconds: float = FIRST_BACKOFF_SECONDS,
    ) -> None:
        self._children: list[_Child] = []
        self._first_backoff_seconds = first_backoff_seconds
        self._stop_timeout_seconds = stop_timeout_seconds

    def start(self, program: Program) -> None:
        """Start one more child."""
        child = _Child(program=program, backoff_seconds=self._first_backoff_seconds)
        self._children.append(child)
        self._spawn(child)

    def wait_ready(
        self,
        *,
        timeout_seconds: float,
        interrupted: Callable[[], bool],
        maintenance: Callable[[], None] = lambda: None,
    ) -> None:
        """Return when every child is ready, or when interrupted.

        `maintenance` is done about ten times a second meanwhile.

        Raises:
            UnavailableError: A child ended first by itself, was killed again and again, or the
                time was up.
        """
        deadline = monotonic() + timeout_seconds
        next_word = monotonic() + WORD_SECONDS
        while not interrupted():
            maintenance()
            for child in self._children:
                _require_no_failure(child)
                self._mend(child)
            waiting = [one.program.name for one in self._children if not one.program.is_ready()]
            if not waiting:
                return
            if monotonic() > next_word:
                log.warning("still waiting", action="supervisor.wait", children=waiting)
                next_word = monotonic() + WORD_SECONDS
            if monotonic() > deadline:
                raise UnavailableError(f"not ready after {timeout_seconds:g} s")
            sleep(POLL_SECONDS)

    def watch(
        self, *, interrupted: Callable[[], bool], maintenance: Callable[[], None] = lambda: None
    ) -> None:
        """Start children that die again, those that die at their start slower each time.

        `maintenance` is done about ten times a second meanwhile.
        """
        while not interrupted():
            maintenance()
            for child in self._children:
                self._mend(child)
            sleep(POLL_SECONDS)

    def stop(self, *, hurried: Callable[[], bool]) -> None:
        """Ask every child to end and wait; kill those that are late, or all when hurried."""
        running = [child.process for child in self._children if child.process is not None]
        self._children.clear()
        for process in running:
            process.terminate()
        deadline = monotonic() + self._stop_timeout_seconds
        while any(process.poll() is None for process in running):
            if hurried() or monotonic() > deadline:
                for process in running:
                    process.kill()
            sleep(POLL_SECONDS)

    def _spawn(self, child: _Child) -> None:
        # An own session keeps a Ctrl-C of the terminal from reaching the child before us.
        child.process = subprocess.Popen(  # noqa: S603 - our own command line
            with_pdeathsig(child.program.command, death_signal=signal.SIGKILL),
            env=dict(child.program.environment),
            cwd=child.program.folder,
            pass_fds=child.program.inherited,
            start_new_session=True,
        )
        child.started = monotonic()
        child.start_again_at = float("inf")

    def _mend(self, child: _Child) -> None:
        now = monotonic()
        if child.process is None:
            if now >= child.start_again_at:
                self._spawn(child)
            return
        code = child.process.poll()
        if code is None:
            return
        if now - child.started > STABLE_SECONDS:
            child.backoff_seconds = self._first_backoff_seconds
        child.start_again_at = max(now, child.started + child.backoff_seconds)
        log.error(
            "child ended, will be started again",
            action="supervisor.restart",
            child=child.program.name,
            status=code,
            seconds=round(child.start_again_at - now, 1),
        )
        child.process = None
        child.backoff_seconds = min(child.backoff_seconds * 2, LONGEST_BACKOFF_SECONDS)


def _require_no_failure(child: _Child) -> None:
    code = None if child.process is None else child.process.poll()
    if code is None:
        return
    # What ends by itself would do so again; what was killed may get through another time.
    child.num_killed += code < 0
    if code >= 0 or child.num_killed > MAX_KILLED_AT_START:
        raise UnavailableError(f"the {child.program.name} ended at its start with status {code}")
