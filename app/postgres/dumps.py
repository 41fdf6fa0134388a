"""Postgres's own programs that write a database into one file and read it back."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from app.core.errors import ConfigurationError, UnavailableError
from app.postgres.binaries import folders_of, version_of

DUMP: Final = "pg_dump"
RESTORE: Final = "pg_restore"


def dump_database(
    conninfo: str,
    target: Path,
    *,
    schema: str,
    snapshot: str | None = None,
    pg_bin: Path | None = None,
) -> None:
    """Writes a schema of the database to a file in the compressed format of `pg_dump`.

    `snapshot` is what `pg_export_snapshot` gave to a transaction that is still open: the file holds
    what that transaction sees.

    Raises:
        ConfigurationError: There is no `pg_dump` that is new enough.
        UnavailableError: It failed; the message ends with its own words.
    """
    options = ["--format=custom", "--no-owner", "--no-privileges", f"--file={target}"]
    options.append(f'--schema="{schema}"')
    if snapshot is not None:
        options.append(f"--snapshot={snapshot}")
    _run(DUMP, options, conninfo=conninfo, pg_bin=pg_bin)


def restore_database(
    conninfo: str, source: Path, *, schema: str, pg_bin: Path | None = None
) -> None:
    """Fills an empty schema, which is there, from a file of `dump_database`, in one transaction.

    Raises:
        ConfigurationError: There is no `pg_restore` that is new enough.
        UnavailableError: It failed, and the database is as it was.
    """
    options = ["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]
    options.append(f"--schema={schema}")
    _run(RESTORE, [*options, str(source)], conninfo=conninfo, pg_bin=pg_bin)


def find_program(name: str, *, server_major: int, pg_bin: Path | None = None) -> Path:
    """A program that fits the server best: as new as it, else the next newer one.

    An older one refuses the server; a much newer one writes words that the server does not know.

    Raises:
        ConfigurationError: There is none that is new enough.
    """
    versions = {folder: version_of(folder / name) for folder in folders_of(name, pg_bin)}
    fitting = {
        folder: version
        for folder, version in versions.items()
        if version is not None and version[0] >= server_major
    }
    if fitting:
        return min(fitting, key=lambda folder: fitting[folder][0]) / name
    found = [
        f"{version[0]}.{version[1]} in {folder}" for folder, version in versions.items() if version
    ]
    raise ConfigurationError(
        f"No {name} for the database: wanted version {server_major} or newer, "
        f"found {', '.join(found) or 'none'}; install postgresql-client-{server_major}, or set "
        "VLIBRARY_PG_BIN to the folder of one"
    )


def _run(name: str, options: Sequence[str], *, conninfo: str, pg_bin: Path | None) -> None:
    program = find_program(name, server_major=_major_of(conninfo), pg_bin=pg_bin)
    parameters = conninfo_to_dict(conninfo)
    # Whoever lists processes must not read it.
    password = parameters.pop("password", None)
    environment = dict(os.environ)  # noqa: TID251 - for the program, not for us
    if password is not None:
        environment["PGPASSWORD"] = str(password)
    database = make_conninfo("", **parameters)
    ran = subprocess.run(  # noqa: S603 - the command is made of our own words
        [str(program), *options, "--no-password", f"--dbname={database}"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode != 0:
        raise UnavailableError(f"{name} failed: {ran.stderr.strip()[-2000:]}")


def _major_of(conninfo: str) -> int:
    try:
        with psycopg.connect(conninfo) as connection:
            return connection.info.server_version // 10_000
    except psycopg.OperationalError as error:
        raise UnavailableError(f"The database cannot be reached: {error}") from error
