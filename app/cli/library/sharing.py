"""`vlibrary export|import|push|pull`: vectors as folders, files and repositories of the hub."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import harmless, plain_console, print_json, print_result
from app.cli.library.gguf import SUFFIX, WORD, export_gguf, print_loss
from app.cli.library.server import Key, Ref, Refs, Url, connected, print_vector
from app.cli.options import AsJson, refuse_given

if TYPE_CHECKING:
    from vlibrary_client import Client

Token = Annotated[str | None, typer.Option(help="Of the hub; its login or HF_TOKEN otherwise.")]
Endpoint = Annotated[str | None, typer.Option(help="Another hub; HF_ENDPOINT otherwise.")]
Repo = Annotated[str, typer.Argument(help="A repository of the hub, such as me/gears.")]
Name = Annotated[str | None, typer.Option(help="What it is called here; as it was otherwise.")]


def export(
    context: typer.Context,
    refs: Refs,
    *,
    to: Annotated[
        str,
        typer.Option(
            help="A folder, which gets a folder NAME@VERSION for each; gguf, for a control-vector "
            "file of llama.cpp for each in this one; or such a file, ending with .gguf."
        ),
    ],
    measure: Annotated[
        str | None,
        typer.Option(
            metavar="DATASET",
            help="For gguf: easy-vqa, or a folder or file of any known layout, to answer with the "
            "vector and as the file does.",
        ),
    ] = None,
    items: Annotated[int, typer.Option(min=1, help="Of what is measured, at most.")] = 200,
    backbone: Annotated[
        str | None, typer.Option(help="To measure with: pocket, pocket-2, a folder or a hub id.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Write vectors as folders with vector.safetensors, vector_config.json and a card."""
    is_gguf = to == WORD or to.endswith(SUFFIX)
    if measure is None:
        refuse_given(context, {"items", "backbone"}, "is for --measure")
    if measure is not None and not is_gguf:
        raise typer.BadParameter("--measure is for --to gguf: a folder loses nothing")
    if to.endswith(SUFFIX) and len(refs) > 1:
        raise typer.BadParameter(f"{to} is one file: name one vector, or use --to gguf")
    with connected(url, key) as client, plain_console(stderr=True).status("exporting"):
        write = partial(_export, client, to=Path(to))
        if is_gguf:
            write = partial(
                export_gguf, client, to=to, dataset=measure, items=items, backbone=backbone
            )
        found = [_outcome(write, ref) for ref in refs]
    if as_json:
        print_json({"items": found})
    for item in () if as_json else found:
        _show(item)
    if any(item["error"] for item in found):
        raise typer.Exit(1)


def _outcome(write: Callable[[str], dict[str, Any]], ref: str) -> dict[str, Any]:
    from vlibrary_client import VLibraryError

    try:
        return write(ref)
    except VLibraryError as error:
        return {"ref": ref, "file": None, "folder": None, "error": str(error)}


def _show(item: dict[str, Any]) -> None:
    if item["error"] is not None:
        print(f"{item['ref']}: {harmless(item['error'])}")
    elif "folder" in item:
        print(item["folder"])
    else:
        print_loss(item)


def _export(client: "Client", ref: str, to: Path) -> dict[str, Any]:
    from vlibrary_client.calls.arguments import require_name

    # What a name means may change between two requests.
    vector = client.vectors.get(ref)
    require_name(vector.name)
    folder = client.vectors.export(vector, to / vector.ref)
    return {"ref": ref, "folder": str(folder), "error": None}


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
            imported = client.vectors.import_folder(source, name=name)
        else:
            imported = client.vectors.upload(source, name=name or "")
    print_vector(imported, as_json=as_json)


def push(
    ref: Ref,
    repo: Repo,
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
    print_result({"url": address}, address, as_json=as_json)


def pull(
    repo: Repo,
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
        pulled = client.vectors.from_hub(
            repo, name=name, revision=revision, token=token, endpoint=endpoint
        )
    print_vector(pulled, as_json=as_json)
