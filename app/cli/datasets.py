"""`vlibrary datasets`: check data sets on disk; upload, list and delete those of a server."""

from typing import Annotated

import typer

from app.cli.console import harmless, print_json, print_result
from app.cli.library.server import Key, Limit, Url, connected, print_listed, print_stored
from app.cli.local.datasets import (
    ColumnMap,
    Question,
    SkipBad,
    TextOnly,
    convert_local,
    read_map,
    remarks,
    temporary_folder,
)
from app.cli.options import AsJson

datasets = typer.Typer(
    name="datasets",
    help="Check data sets on disk; upload, list and delete those of a server.",
    no_args_is_help=True,
)


@datasets.command()
def check(
    source: Annotated[str, typer.Argument(help="A folder or a file of any known layout.")],
    *,
    column_map: ColumnMap = None,
    question: Question = None,
    skip_bad: SkipBad = False,
    text_only: TextOnly = False,
    as_json: AsJson = False,
) -> None:
    """Read every row and picture as an upload would, and tell what was found."""
    with temporary_folder() as folder:
        report = convert_local(
            source,
            folder / "dataset.parquet",
            columns=read_map(column_map, question),
            skip_bad=skip_bad,
            text_only=text_only,
        )
    if as_json:
        print_json(report.as_json())
        return
    for name, value in report.as_json().items():
        if name in {"notes", "bad_rows"}:
            continue
        splits = value.items() if isinstance(value, dict) else ()
        counted = ", ".join(f"{split} {count}" for split, count in splits) or "none named"
        shown = counted if isinstance(value, dict) else value
        print(harmless(f"{name.replace('_', ' ')}: {shown}"))
    for remark in remarks(report):
        print(remark)


@datasets.command()
def upload(
    source: Annotated[str, typer.Argument(help="A folder or a file.")],
    *,
    name: Annotated[str, typer.Option(help="What it is called.")],
    description: Annotated[str, typer.Option(help="Text for people.")] = "",
    column_map: ColumnMap = None,
    question: Question = None,
    skip_bad: SkipBad = False,
    text_only: TextOnly = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Store a data set on a server; the same items again are the same data set."""
    with connected(url, key) as client:
        dataset = client.datasets.upload(
            source,
            name=name,
            description=description,
            columns=read_map(column_map, question),
            skip_bad=skip_bad,
            text_only=text_only,
            progress=True,
        )
    size = f"{dataset.num_items} items, {dataset.num_images} images"
    text = f"{dataset.name} ({dataset.id}): {size}"
    print_stored(dataset, text, dataset.report.notes, as_json=as_json)


@datasets.command(name="list")
def list_datasets(
    *,
    limit: Limit = 50,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the data sets of a server, newest first."""
    with connected(url, key) as client:
        print_listed(
            client.datasets.list,
            titles=("name", "id", "items", "images", "bytes", "created (UTC)"),
            line=lambda one: (
                *(one.name, one.id, one.num_items, one.num_images, one.size_bytes),
                f"{one.created:%Y-%m-%d}",
            ),
            limit=limit,
            as_json=as_json,
        )


@datasets.command()
def delete(
    dataset: Annotated[str, typer.Argument(help="A name or an id.")],
    *,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Delete a data set and its file; vectors that were trained on it stay."""
    with connected(url, key) as client:
        client.datasets.delete(dataset)
    print_result({"deleted": dataset}, f"Deleted {dataset}", as_json=as_json)
