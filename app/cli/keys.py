"""`vlibrary keys`: who may use the api, told to the database itself."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from app.cli.database import running_database
from app.cli.options import AsJson, read_settings
from app.core.access import DEFAULT_WORKSPACE, SCOPES, AccessKey, Quotas
from app.core.errors import ConfigurationError
from app.core.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

Answer = TypeVar("Answer")

keys = typer.Typer(
    name="keys",
    help="Make, list and revoke the keys that open the api.",
    no_args_is_help=True,
)


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    *,
    scope: Annotated[
        list[str],
        typer.Option(help=f"What it allows: {', '.join(SCOPES)}; may be repeated."),
    ],
    workspace: Annotated[
        str, typer.Option(help="What its holder sees and changes; a new name makes a new one.")
    ] = DEFAULT_WORKSPACE,
    days: Annotated[
        int | None, typer.Option(min=1, max=3650, help="After how many days it ends.")
    ] = None,
    max_requests: Annotated[
        int | None, typer.Option(min=0, help="Requests in flight in one process of the api.")
    ] = None,
    max_jobs: Annotated[
        int | None, typer.Option(min=0, help="Training jobs of the workspace that have not ended.")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(min=0, help="Bytes of vectors and data sets of the workspace.")
    ] = None,
    max_vectors: Annotated[
        int | None,
        typer.Option(min=0, help="Vectors of the workspace, those of trainings to come included."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it; it cannot be shown again."""
    from app.library.access.access_keys import create_access_key

    quotas = Quotas(requests=max_requests, jobs=max_jobs, bytes=max_bytes, vectors=max_vectors)
    make = partial(create_access_key, name=name, scopes=scope, valid_days=days, quotas=quotas)
    with running_database(read_settings()) as database:
        key, token = _ask(database.url, make, workspace=workspace)
    if as_json:
        print(json.dumps({**_facts(key), "key": token.text}))
    else:
        print(token.text)
        print("Keep it: it is not shown again. Clients read it from VLIBRARY_API_KEY.")


@keys.command(name="list")
def list_keys(*, as_json: AsJson = False) -> None:
    """List every key of every workspace that was ever made, newest first."""
    from app.library.access.access_keys import list_access_keys

    with running_database(read_settings()) as database:
        found = _ask(database.url, list_access_keys)
    if as_json:
        print(json.dumps({"items": [_facts(key) for key in found]}))
        return
    table = Table("name", box=None)
    for title in ("id", "workspace", "scopes", "at most", "when"):
        # Only the name gives way on a narrow screen.
        table.add_column(title, no_wrap=True)
    for key in found:
        scopes = "\n".join(key.scopes)
        table.add_row(key.name, key.id, key.workspace, scopes, _limits(key), _times(key))
    Console().print(table)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `list` shows.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Revoke a key: within five seconds it opens nothing any more."""
    from app.library.access.access_keys import revoke_access_key

    # Whoever has only the key at hand may give that.
    public = key_id.split("_")[1] if key_id.startswith("vlib_") else key_id
    with running_database(read_settings()) as database:
        key = _ask(database.url, partial(revoke_access_key, key_id=public))
    print(json.dumps(_facts(key)) if as_json else f"Revoked {key.id} ({key.name})")


def require_a_key(settings: Settings, url: str) -> None:
    """Returns when the api may be started: it needs no key, or somebody has one.

    Raises:
        ConfigurationError: Others could reach the api and nobody has a key.
    """
    from app.library.access.access_keys import has_valid_access_key

    if settings.needs_keys and not _ask(url, has_valid_access_key):
        raise ConfigurationError(
            f"An api at {settings.host} is for callers with keys, and there is none; "
            "make one first: vlibrary keys create admin --scope admin"
        )


def _limits(key: AccessKey) -> str:
    limits = asdict(key.quotas).items()
    return "\n".join(f"{limit:,} {what}" for what, limit in limits if limit is not None)


def _times(key: AccessKey) -> str:
    times = {
        "made": key.created,
        "ends": key.expires,
        "revoked": key.revoked,
        "used": key.last_used,
    }
    told = times.items()
    return "\n".join(f"{what} {time:%Y-%m-%d %H:%M}" for what, time in told if time is not None)


def _facts(key: AccessKey) -> dict[str, object]:
    facts = asdict(key)
    for name in ("created", "expires", "revoked", "last_used"):
        facts[name] = None if facts[name] is None else facts[name].isoformat()
    return facts


def _ask(
    url: str,
    question: "Callable[[AsyncSession], Awaitable[Answer]]",
    *,
    workspace: str | None = None,
) -> Answer:
    """What one transaction in a workspace, or in all, answers."""
    from app.library.database import opened
    from app.library.workspaces import in_all_workspaces, in_workspace

    async def ask() -> Answer:
        async with opened(url, pool_size=1) as every:
            sessions = (
                in_all_workspaces(every) if workspace is None else in_workspace(every, workspace)
            )
            async with sessions.begin() as session:
                return await question(session)

    return asyncio.run(ask())
