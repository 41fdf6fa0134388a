"""`vlibrary doctor`: what is wrong, found without changing anything."""

import asyncio
from typing import TYPE_CHECKING

import typer

from app.cli.console import print_json
from app.cli.database import database_as_it_is
from app.cli.options import AsJson, Backbone, Revision, read_settings
from app.core.errors import VLibraryError
from app.core.settings import Settings
from app.core.telemetry.logs import configure_logs

if TYPE_CHECKING:
    from app.cli.checks import Finding


def doctor(
    *,
    as_json: AsJson = False,
    backbone: Backbone = None,
    revision: Revision = None,
) -> None:
    """Check the database, the files and the backbone; exit status 1 when something is wrong."""
    settings = read_settings(backbone=backbone, backbone_revision=revision)
    configure_logs("error")
    findings = find(settings)
    is_ok = all(finding.is_ok for finding in findings)
    if as_json:
        print_json({"ok": is_ok, "checks": findings})
    else:
        for finding in findings:
            mark = "ok  " if finding.is_ok else "FAIL"
            print(f"{mark}  {finding.name:<12}  {finding.detail}")
    if not is_ok:
        raise typer.Exit(code=1)


def find(settings: Settings) -> "list[Finding]":
    """Every finding; an embedded database is started for the time, or joined when it runs."""
    from app.cli.checks import Finding, check_backbone, check_object_store, check_torch, examine

    others = {
        "object store": lambda: check_object_store(settings),
        "torch": check_torch,
        "backbone": lambda: check_backbone(settings),
    }
    findings = asyncio.run(examine(others))
    if settings.database_url is None and not settings.postgres_dir.exists():
        detail = "none yet; `vlibrary serve` makes it"
        return [Finding(name="postgres", is_ok=True, detail=detail, seconds=0.0), *findings]
    try:
        with database_as_it_is(settings) as database:
            return [*asyncio.run(_look(settings, database.url)), *findings]
    except VLibraryError as error:
        failed = Finding(name="postgres", is_ok=False, detail=error.message, seconds=0.0)
        return [failed, *findings]


async def _look(settings: Settings, url: str) -> "list[Finding]":
    from app.cli.checks import database_checks, examine
    from app.library.database import opened
    from app.library.workspaces import in_all_workspaces

    async with opened(url, pool_size=2) as sessions:
        return await examine(database_checks(settings, in_all_workspaces(sessions), url=url))
