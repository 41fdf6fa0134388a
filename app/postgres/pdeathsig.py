"""A script that becomes another program which dies with its parent process.

It replaces itself, so the program keeps this process id and is a direct child of whoever ran the
script. It runs before any privilege is dropped and imports only the standard library, because the
unprivileged account may not be able to read Python's folders.

The kernel forgets the signal when a process changes its user, hence the order: first the account,
then the signal, then a look whether the parent is still the same, which closes the race with a
parent that died in between.

Source: prctl(2), PR_SET_PDEATHSIG.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PR_SET_PDEATHSIG: Final = 1
KEEP_ACCOUNT: Final = -1


def with_pdeathsig(
    command: Sequence[str | Path],
    *,
    uid: int = KEEP_ACCOUNT,
    gid: int = KEEP_ACCOUNT,
    death_signal: signal.Signals = signal.SIGINT,
) -> list[str]:
    """The command line that runs a program that dies with this process.

    Run it from the main thread: the kernel watches the thread that forked, not the process.

    User and group are kept where they are `KEEP_ACCOUNT`. The signal is what the program gets when
    this process is gone.
    """
    numbers = (os.getpid(), int(death_signal), uid, gid)
    script = Path(__file__).resolve()
    return [sys.executable, "-I", "-S", str(script), *map(str, numbers), *map(str, command)]


def _become(uid: int, gid: int) -> None:
    if uid != KEEP_ACCOUNT:
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)


def main(arguments: Sequence[str]) -> None:
    """Becomes the program; returns only when the parent is gone already.

    Args:
        arguments: Parent's process id, signal, user, group, then the program's command line.

    Raises:
        OSError: The kernel refused the account, the signal or the program.
    """
    parent, death_signal, uid, gid = map(int, arguments[:4])
    command = list(arguments[4:])
    _become(uid, gid)
    os.umask(0o077)
    # Linux has it. Elsewhere the program dies only with a parent that ends in good order.
    prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)
    if prctl is not None and prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if os.getppid() == parent:
        os.execv(command[0], command)  # noqa: S606 - becoming the program is the purpose


if __name__ == "__main__":
    main(sys.argv[1:])
