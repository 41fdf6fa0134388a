"""What a database holds, table by table, told without knowing the tables.

So it works for every revision of them: a backup is made before an upgrade too.
"""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import ConfigurationError, ConflictError
from app.core.jobs import UNFINISHED_STATES
from app.library.backups.manifest import TableContents
from app.library.database import read_one_moment

# What only those put there who use a library. Everything else may stem from a first start.
USED: Final = ("vectors", "datasets", "training_jobs", "access_keys")

# A row's text holds every column and does not depend on where the row lies.
_CONTENTS: Final = """
SELECT count(*) AS rows,
    encode(sha256(coalesce(string_agg(digest, ''::bytea ORDER BY digest), ''::bytea)), 'hex')
        AS sha256
FROM (SELECT sha256(convert_to(item::text, 'UTF8')) AS digest FROM {table} item) digests
"""
_TABLES: Final = (
    "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema() "
    "ORDER BY tablename"
)
_DAMAGED: Final = """
SELECT name || '@' || version FROM vectors
WHERE encode(sha256(blob), 'hex') <> sha256 ORDER BY name, version
"""
_DATASETS: Final = """
SELECT item.storage_key, item.sha256, item.name FROM datasets item
WHERE to_jsonb(item) ->> 'deleted' IS NULL ORDER BY item.id
FOR KEY SHARE
"""
_UNFINISHED: Final = "SELECT id::text FROM training_jobs WHERE state = ANY(:states)"
_OTHERS: Final = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


async def export_snapshot(session: AsyncSession) -> str:
    """The name under which others may see what this session sees, until it ends."""
    await read_one_moment(session)
    name: str = (await session.execute(text("SELECT pg_export_snapshot()"))).scalar_one()
    return name


async def read_contents(session: AsyncSession) -> dict[str, TableContents]:
    """Rows and digest of every table, by name."""
    # These decide how a moment is written.
    await session.execute(text("SET LOCAL timezone = 'UTC'"))
    await session.execute(text("SET LOCAL datestyle = 'ISO, YMD'"))
    contents = {}
    for table in (await session.scalars(text(_TABLES))).all():
        found = (await session.execute(text(_CONTENTS.format(table=table)))).one()
        contents[table] = TableContents(rows=found.rows, sha256=found.sha256)
    return contents


async def schema_of(session: AsyncSession) -> str:
    """Where the library's tables are, or will be made.

    Raises:
        ConfigurationError: The search path names no schema that there is.
    """
    name: str | None = await session.scalar(text("SELECT current_schema()"))
    if name is None:
        raise ConfigurationError("The database has no schema of its search path: create it first")
    return name


async def hold_datasets(session: AsyncSession) -> list[tuple[str, str, str]]:
    """Key, digest and name of every data set, none of which is deleted until the session ends."""
    return [
        (row.storage_key, row.sha256, row.name) for row in await session.execute(text(_DATASETS))
    ]


async def list_unfinished(session: AsyncSession) -> list[str]:
    """Ids of the jobs that have not ended."""
    return list(await session.scalars(text(_UNFINISHED), {"states": list(UNFINISHED_STATES)}))


async def list_damaged(session: AsyncSession) -> list[str]:
    """References of vectors whose file does not match its digest."""
    return list(await session.scalars(text(_DAMAGED)))


async def postgres_version(session: AsyncSession) -> int:
    """The server's major version."""
    number = (await session.execute(text("SHOW server_version_num"))).scalar_one()
    return int(number) // 10000


async def require_unused(session: AsyncSession) -> None:
    """Returns when nothing was ever stored in the database and nobody else is connected to it.

    Raises:
        ConflictError: Something was, or somebody is.
    """
    tables = (await session.scalars(text(_TABLES))).all()
    for table in USED:
        if table not in tables:
            continue
        count = await session.scalar(text(f"SELECT count(*) FROM {table}"))  # noqa: S608 - our names
        if count:
            raise ConflictError(
                f"A backup is restored into an empty library; this one has {count} rows in {table}"
            )
    if await session.scalar(text(_OTHERS)):
        raise ConflictError("Others are connected to this database: stop the api and the workers")
