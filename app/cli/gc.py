"""`vlibrary gc`: removes files that nothing needs any more."""

import asyncio
import json
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.keys import library_database
from app.cli.options import read_settings

if TYPE_CHECKING:
    from app.library.garbage import Garbage


def gc(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Remove files of deleted data sets and checkpoints of jobs that have ended."""
    settings = read_settings()
    with library_database(settings) as url:
        found = asyncio.run(_collect(url, settings.objects_url, dry_run=dry_run))
    if as_json:
        print(json.dumps({"datasets": found.datasets, "checkpoints": found.checkpoints}))
        return
    verb = "Would remove" if dry_run else "Removed"
    print(f"{verb} {found.datasets} files of data sets and {found.checkpoints} checkpoints")


async def _collect(url: str, objects_url: str, *, dry_run: bool) -> "Garbage":
    from app.library.database import make_engine, session_factory
    from app.library.garbage import collect_garbage
    from app.library.storage import ObjectStore

    engine = make_engine(url, pool_size=1)
    try:
        sessions = session_factory(engine)
        return await collect_garbage(sessions, ObjectStore(objects_url), dry_run=dry_run)
    finally:
        await engine.dispose()
