"""`vlibrary gc`: removes files that nothing needs any more."""

import asyncio
from typing import Annotated

import typer

from app.cli.console import print_result
from app.cli.database import require_library, running_database
from app.cli.options import AsJson, read_settings


def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove files of deleted data sets and checkpoints of jobs that have ended."""
    settings = read_settings()
    require_library(settings)
    with running_database(settings) as database:
        found = asyncio.run(_collect(database.url, settings.objects_url, dry_run=dry_run))
    verb = "Would remove" if dry_run else "Removed"
    text = f"{verb} {found['datasets']} files of data sets and {found['checkpoints']} checkpoints"
    print_result(found, text, as_json=as_json)


async def _collect(url: str, objects_url: str, *, dry_run: bool) -> dict[str, int]:
    from app.library.database import opened
    from app.library.garbage import collect_garbage
    from app.library.storage import ObjectStore

    async with opened(url, pool_size=1) as sessions:
        return await collect_garbage(sessions, ObjectStore(objects_url), dry_run=dry_run)
