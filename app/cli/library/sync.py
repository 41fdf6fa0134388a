"""`vlibrary sync`: make a server's library hold what a file declares."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.console import harmless, plain_console, print_json
from app.cli.library.server import Key, Url, connected
from app.cli.options import AsJson
from app.core.errors import InvalidInputError

# A client without a key would take the one of the environment, which is this library's.
NO_KEY = "none"


def sync(
    declaration: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="YAML or JSON; see docs/library.md.")
    ],
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be done, and do nothing.")
    ] = False,
    from_key: Annotated[
        str | None, typer.Option(help="A key of the other libraries that vectors come from.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Make the library hold what a file declares; nothing is deleted, and again changes nothing."""
    from vlibrary_client import Client
    from vlibrary_client.sharing.declarations import read_declaration
    from vlibrary_client.sharing.declarations import sync as bring

    value = _parse(declaration)
    with connected(url, key) as client, plain_console(stderr=True).status("syncing"):
        done = bring(
            client,
            read_declaration(value),
            folder=declaration.parent,
            dry_run=dry_run,
            other=lambda address: Client(address, api_key=from_key or NO_KEY),
        )
    if as_json:
        print_json({"items": done})
    for item in () if as_json else done:
        told = item.error or ", ".join(item.changes) or "as declared"
        print(f"{item.name}: {harmless(told)}")
    if any(item.error for item in done):
        raise typer.Exit(1)


def _parse(path: Path) -> Any:  # noqa: ANN401 - what YAML or JSON holds
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
        """Takes no name twice, of which YAML would forget the first."""

        def construct_mapping(self, node: yaml.MappingNode, *, deep: bool = False) -> Any:  # noqa: ANN401
            names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            for name in (name for name, number in names.items() if number > 1):
                raise yaml.constructor.ConstructorError(
                    None, None, f"found {name} twice", node.start_mark
                )
            return super().construct_mapping(node, deep=deep)

    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader)  # noqa: S506 - a safe one
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise InvalidInputError(f"{path} cannot be read: {reason}") from None
