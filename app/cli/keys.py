"""`vlibrary keys`: who may use the api, told to a server, or to the database itself."""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer
from rich.table import Table

from app.cli.console import print_json, print_result, show_table
from app.cli.database import running_database
from app.cli.library.server import Key, Url, connected
from app.cli.options import AsJson, read_settings
from app.core.access import DEFAULT_WORKSPACE, ID_BYTES, SCOPES, AccessKey, Quotas
from app.core.errors import ConfigurationError
from app.core.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    import vlibrary_client

    # The same facts, from the database and from a server.
    KnownKey: TypeAlias = AccessKey | vlibrary_client.AccessKey

Answer = TypeVar("Answer")
OnDatabase = Annotated[
    bool, typer.Option("--database", help="Ask the database itself, whatever server is told of.")
]

keys = typer.Typer(
    name="keys",
    help="Make, list and revoke the keys that open the api. A server is asked where --url, --key, "
    "VLIBRARY_URL, VLIBRARY_API_KEY or ~/.config/vlibrary/config.toml tells of one. Otherwise, and "
    "with --database, it is the database itself (DATABASE_URL, or that of `vlibrary serve`), as "
    "for the first key and for keys to other workspaces.",
    short_help="Make, list and revoke the keys that open the api.",
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
        str | None,
        typer.Option(
            help="What its holder sees and changes; a new name makes a new one. A server makes "
            f"keys to the caller's own alone, the database itself to {DEFAULT_WORKSPACE} otherwise."
        ),
    ] = None,
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
    on_database: OnDatabase = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print it; it cannot be shown again."""
    from app.library.access.access_keys import create_access_key

    quotas = Quotas(requests=max_requests, jobs=max_jobs, bytes=max_bytes, vectors=max_vectors)
    with _server(url, key, on_database=on_database) as client:
        if client is None:
            make = partial(
                create_access_key, name=name, scopes=scope, valid_days=days, quotas=quotas
            )
            record, token = _in_database(make, workspace=workspace or DEFAULT_WORKSPACE)
            facts = {**asdict(record), "key": token.text}
        elif workspace is not None:
            raise typer.BadParameter(
                "a server makes keys to the caller's own workspace: leave --workspace out, or ask "
                "the database itself with --database"
            )
        else:
            import vlibrary_client

            scopes: Any = scope
            limits = vlibrary_client.Quotas(**asdict(quotas))
            facts = asdict(client.keys.create(name, scopes, valid_days=days, quotas=limits))
    if as_json:
        print_json(facts)
    else:
        print(facts["key"])
        # Not on stdout, so that a shell can put the key alone into a variable.
        note = "Keep it: it is not shown again. Clients read it from VLIBRARY_API_KEY."
        print(note, file=sys.stderr)


@keys.command(name="list")
def list_keys(
    *, on_database: OnDatabase = False, url: Url = None, key: Key = None, as_json: AsJson = False
) -> None:
    """List every key that was ever made, newest first; the database itself has all workspaces'."""
    from app.library.access.access_keys import list_access_keys

    found: Sequence[KnownKey]
    with _server(url, key, on_database=on_database) as client:
        found = _in_database(list_access_keys) if client is None else client.keys.list().items
    if as_json:
        print_json({"items": found})
        return
    table = Table(box=None)
    for title in ("name", "id", "workspace", "scopes", "at most", "when (UTC)"):
        # On a narrow screen all but the id, which is to be copied, is broken, and nothing cut.
        table.add_column(title, overflow="fold", min_width=2 * ID_BYTES if title == "id" else None)
    for one in found:
        scopes = "\n".join(one.scopes)
        facts = (one.name, one.id, one.workspace, scopes, _limits(one), _times(one))
        table.add_row(*facts)
    show_table(table)


@keys.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The id that `list` shows.")],
    *,
    on_database: OnDatabase = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key: after three seconds at most it opens nothing any more."""
    from app.library.access.access_keys import revoke_access_key

    # Whoever has only the key at hand may give that.
    public = key_id.split("_")[1] if key_id.startswith("vlib_") else key_id
    revoke = partial(revoke_access_key, key_id=public)
    revoked: KnownKey
    with _server(url, key, on_database=on_database) as client:
        revoked = _in_database(revoke) if client is None else client.keys.revoke(public)
    print_result(revoked, f"Revoked {revoked.id} ({revoked.name})", as_json=as_json)


@contextmanager
def _server(
    url: str | None, key: str | None, *, on_database: bool
) -> "Iterator[vlibrary_client.Client | None]":
    """The server that is to be asked, or None where the database itself is."""
    from vlibrary_client.wire.connection import names_server

    if on_database and (url or key):
        raise typer.BadParameter("--database asks no server: leave --url and --key out")
    if on_database or not names_server(url, key):
        yield None
    else:
        with connected(url, key) as client:
            yield client


def require_a_key(settings: Settings, url: str) -> None:
    """Returns when the api may be started: it needs no key, or somebody has one.

    Raises:
        ConfigurationError: Others could reach the api and nobody has a key.
    """
    from app.library.access.access_keys import has_valid_access_key

    if settings.needs_keys and not _ask(url, has_valid_access_key):
        raise ConfigurationError(
            f"An api at {settings.host} is for callers with keys, and there is none; "
            "make one first: vlibrary keys create admin --scope admin --database"
        )


def _limits(key: "KnownKey") -> str:
    limits = asdict(key.quotas).items()
    return "\n".join(f"{limit:,} {what}" for what, limit in limits if limit is not None)


def _times(key: "KnownKey") -> str:
    times = {
        "made": key.created,
        "ends": key.expires,
        "revoked": key.revoked,
        "used": key.last_used,
    }
    moments = times.items()
    return "\n".join(f"{what} {time:%Y-%m-%d %H:%M}" for what, time in moments if time is not None)


def _in_database(
    question: "Callable[[AsyncSession], Awaitable[Answer]]", *, workspace: str | None = None
) -> Answer:
    """As `_ask`, of the database of this machine's settings."""
    with running_database(read_settings()) as database:
        return _ask(database.url, question, workspace=workspace)


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
