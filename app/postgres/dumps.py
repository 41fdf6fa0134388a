"""Postgres's own programs that write a database into one file and read it back."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.core.errors import ConfigurationError, UnavailableError
from app.postgres.binaries import find_installation

DUMP: Final = "pg_dump"
RESTORE: Final = "pg_restore"


def dump_database(
    conninfo: str, target: Path, *, snapshot: str | None = None, pg_bin: Path | None = None
) -> None:
    """Writes the whole database to a file in the compressed format of `pg_dump`.

    Args:
        conninfo: The database, in libpq's words.
        target: The file.
        snapshot: What `pg_export_snapshot` gave to a transaction that is still open, so that the
            file holds what that transaction sees.
        pg_bin: Folder of the programs, as `find_installation` takes it.

    Raises:
        ConfigurationError: There is no `pg_dump`.
        UnavailableError: It failed; the message ends with its own words.
    """
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--file={target}"]
    if snapshot is not None:
        options.append(f"--snapshot={snapshot}")
    _run(DUMP, options, conninfo=conninfo, pg_bin=pg_bin)


def restore_database(conninfo: str, source: Path, *, pg_bin: Path | None = None) -> None:
    """Fills an empty database from a file of `dump_database`, in one transaction.

    Args:
        conninfo: The database, in libpq's words.
        source: The file.
        pg_bin: Folder of the programs, as `find_installation` takes it.

    Raises:
        ConfigurationError: There is no `pg_restore`.
        UnavailableError: It failed, and the database is as it was.
    """
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    _run(RESTORE, [*options, str(source)], conninfo=conninfo, pg_bin=pg_bin)


def _run(name: str, options: Sequence[str], *, conninfo: str, pg_bin: Path | None) -> None:
    program = find_installation(pg_bin).bin_dir / name
    if not os.access(program, os.X_OK):
        raise ConfigurationError(f"No {name} in {program.parent}; set VLIBRARY_PG_BIN")
    given = conninfo_to_dict(conninfo)
    # Whoever lists processes must not read it.
    password = given.pop("password", None)
    environment = dict(os.environ)  # noqa: TID251 - for the program, not for us
    if password is not None:
        environment["PGPASSWORD"] = str(password)
    database = make_conninfo("", **given)
    ran = subprocess.run(  # noqa: S603 - the command is made of our own words
        [str(program), *options, "--no-password", f"--dbname={database}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise UnavailableError(f"{name} failed: {ran.stderr.strip()[-2000:]}")
