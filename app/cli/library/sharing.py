"""`vlibrary export|import|push|pull`: vectors as folders, files and repositories of the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from app.cli.library.server import AsJson, Key, Url, connected, print_json

if TYPE_CHECKING:
    from vlibrary_client import Client, Vector

Token = Annotated[str | None, typer.Option(help="Of the hub; its login or HF_TOKEN otherwise.")]
Endpoint = Annotated[str | None, typer.Option(help="Another hub; HF_ENDPOINT otherwise.")]
Name = Annotated[str | None, typer.Option(help="What it is called here; as it was otherwise.")]


def export(
    refs: Annotated[list[str], typer.Argument(help="Names, name@version, name@alias or ids.")],
    *,
    to: Annotated[Path, typer.Option(help="Gets a folder NAME@VERSION for each.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write vectors as folders with vector.safetensors, vector_config.json and a card."""
    from vlibrary_client import VLibraryError

    items: list[dict[str, object]] = []
    with connected(url, key) as client, Console(stderr=True).status("exporting"):
        for ref in refs:
            try:
                items.append({"ref": ref, "folder": str(_export(client, ref, to)), "error": None})
            except VLibraryError as error:
                items.append({"ref": ref, "folder": None, "error": str(error)})
    if as_json:
        print_json({"items": items})
    for item in () if as_json else items:
        print(item["folder"] or f"{item['ref']}: {item['error']}")
    if any(item["error"] for item in items):
        raise typer.Exit(1)


def _export(client: "Client", ref: str, to: Path) -> Path:
    return client.vectors.export(ref, to / client.vectors.get(ref).ref)


def import_(
    source: Annotated[
        Path, typer.Argument(exists=True, help="A folder of `export`, or a vector file.")
    ],
    *,
    name: Name = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Store a folder or a vector file as the next version of a name; what is there is found."""
    if not source.is_dir() and name is None:
        raise typer.BadParameter("a file alone needs a --name")
    with connected(url, key) as client:
        if source.is_dir():
            made = client.vectors.import_folder(source, name=name)
        else:
            made = client.vectors.upload(source, name=name or "")
    _tell(made, as_json=as_json)


def push(
    ref: Annotated[str, typer.Argument(help="A name, name@version, name@alias or an id.")],
    repo: Annotated[str, typer.Argument(help="A repository of the hub, such as me/gears.")],
    *,
    private: Annotated[
        bool, typer.Option("--private", help="Make a private repository, where it makes one.")
    ] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    token: Token = None,
    endpoint: Endpoint = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Put a vector into a repository of the Hugging Face hub."""
    with connected(url, key) as client:
        address = client.vectors.push_to_hub(
            ref,
            repo,
            private=private or None,
            commit_message=message,
            token=token,
            endpoint=endpoint,
        )
    if as_json:
        print_json({"url": address})
    else:
        print(address)


def pull(
    repo: Annotated[str, typer.Argument(help="A repository of the hub, such as me/gears.")],
    *,
    name: Name = None,
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit.")] = None,
    token: Token = None,
    endpoint: Endpoint = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Store what a repository of the Hugging Face hub holds; what is there already is found."""
    with connected(url, key) as client:
        made = client.vectors.from_hub(
            repo, name=name, revision=revision, token=token, endpoint=endpoint
        )
    _tell(made, as_json=as_json)


def _tell(made: "Vector", *, as_json: bool) -> None:
    if as_json:
        print_json(made)
        return
    print(f"Stored {made.ref}")
    for note in made.notes:
        print(f"note: {note}")
