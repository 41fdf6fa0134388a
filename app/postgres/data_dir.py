"""The folder of an embedded Postgres: who owns it, who works in it, where its socket goes."""

import contextlib
import fcntl
import hashlib
import itertools
import os
import re
import signal
import stat
import tempfile
import time
from pathlib import Path
from pwd import struct_passwd
from typing import Final
from urllib.parse import urlencode

from app.core.errors import ConfigurationError, CorruptDataError, UnavailableError
from app.core.folders import making_folders

USER: Final = "vlibrary"
DATABASE: Final = "vlibrary"
PORT: Final = 5432
MAX_SOCKET_PATH_BYTES: Final = 107
EVICTION_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.05
_ENDING: Final = b"ending"
_FATAL: Final = re.compile(r"(?:FATAL|PANIC): +(.*)")
_FAULT: Final = re.compile(r"LOG: +(.* in file .* line .*|.*parameter.*)")
_DETAIL: Final = re.compile(r"(?:DETAIL|HINT): +(.*)")


def processes_in(folder: Path) -> set[int]:
    """Ids of the processes that work in the folder; every Postgres process works in its data."""
    found = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if (entry / "cwd").readlink() == folder:
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def make_private_folder(folder: Path, *, account: struct_passwd | None) -> None:
    """Makes a folder that belongs to the account alone, and lets it pass through new parents.

    Raises:
        ConfigurationError: Something else is there, it belongs to another user, or cannot be made.
    """
    missing = [parent for parent in folder.parents if not parent.exists()]
    with making_folders():
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
            parent.chmod(0o711 if account else 0o700)
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"Wanted a folder at {folder}")
    owners = {0, account.pw_uid} if account else {os.geteuid()}
    if found.st_uid not in owners:
        raise ConfigurationError(f"{folder} belongs to another user (id {found.st_uid})")
    if account:
        os.chown(folder, account.pw_uid, account.pw_gid)
    folder.chmod(0o700)


def address(data_dir: Path) -> str:
    """SQLAlchemy URL of the database below the folder, valid while its server runs."""
    query = urlencode({"host": socket_folder(data_dir.resolve()), "port": PORT})
    return f"postgresql+psycopg://{USER}@/{DATABASE}?{query}"


def socket_folder(data_dir: Path) -> Path:
    """Where the server's socket goes: below the data, or in the temporary folder.

    A socket's path has at most 107 bytes, and a comma in it would be read as a list of hosts.
    """
    inside = data_dir / "run"
    socket = os.fsencode(inside / f".s.PGSQL.{PORT}")
    if len(socket) <= MAX_SOCKET_PATH_BYTES and b"," not in socket:
        return inside
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"vlibrary-{digest}"


def open_lock(data_dir: Path) -> int:
    """An open descriptor of the folder's lock file; closing it releases the lock."""
    return open_here(data_dir / "owner.lock", os.O_RDWR | os.O_CREAT)


def open_here(path: Path | str, flags: int) -> int:
    """An open descriptor of a private file that is no link.

    The account of the server could have made one that leads root to a file elsewhere.
    """
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def try_lock(descriptor: int) -> bool:
    """Whether this process is now the only owner of the folder."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def note_ending(descriptor: int, *, is_ending: bool) -> None:
    """Says in the lock file, which the caller owns, whether the server is about to end."""
    os.ftruncate(descriptor, 0)
    if is_ending:
        os.pwrite(descriptor, _ENDING, 0)


def is_ending(descriptor: int) -> bool:
    """Whether the owner has said that its server is about to end."""
    return os.pread(descriptor, len(_ENDING), 0) == _ENDING


def version_of_data(pgdata: Path) -> int | None:
    """Which major version of Postgres made the data; None when there is none.

    Raises:
        CorruptDataError: It does not tell.
    """
    file = pgdata / "PG_VERSION"
    if not file.exists():
        return None
    text = file.read_text(errors="replace").strip()
    if not text.isdecimal():
        raise CorruptDataError(f"wanted the version of Postgres in {file}, found {text!r}")
    return int(text)


def last_words(log_file: Path, *, after: int) -> str:
    """Why a server ended, in one line of what it has logged after so many bytes."""
    with log_file.open("rb") as stream:
        stream.seek(after)
        lines = stream.read().decode(errors="replace").splitlines()
    # What follows the first is mostly its consequence, but for its own details.
    for place, line in enumerate(lines):
        if found := _FATAL.search(line):
            more = itertools.takewhile(bool, map(_DETAIL.search, lines[place + 1 :]))
            # What is wrong in a file of settings stands before.
            faults = filter(None, map(_FAULT.search, lines[:place]))
            reasons = (*faults, found, *filter(None, more))
            return "; ".join(match[1] for match in reasons)
    return lines[-1] if lines else "it said nothing"


def evict(pgdata: Path, *, socket_dir: Path) -> None:
    """Ends what an owner that died left behind, then removes its stale lock files.

    They go only when no process works in the folder. Postgres would believe the numbers in them,
    but those may belong to an unrelated process by now, or to a dead one nobody has waited for.

    The caller holds the lock of the data.

    Raises:
        UnavailableError: The processes did not end in time.
    """
    pid_file = pgdata / "postmaster.pid"
    deadline = time.monotonic() + EVICTION_SECONDS
    asked = False
    while others := processes_in(pgdata):
        if time.monotonic() > deadline:
            raise UnavailableError(f"Processes {sorted(others)} still use {pgdata}")
        lines = pid_file.read_text().splitlines() if pid_file.exists() else []
        if not asked and lines and lines[0].isdigit() and int(lines[0]) in others:
            os.kill(int(lines[0]), signal.SIGINT)
            asked = True
        time.sleep(POLL_SECONDS)
    for stale in (pid_file, *socket_dir.glob(".s.PGSQL.*")):
        stale.unlink(missing_ok=True)
