"""`vlibrary vectors list`: every filter of the api as an option."""

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.library.server import Key, Limit, Url, connected, print_listed
from app.cli.options import AsJson
from app.core.states import VectorStatus

if TYPE_CHECKING:
    from vlibrary_client import Vector

_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"]
_Share = Annotated[float | None, typer.Option(min=0, max=1, help="Of the newest measurement.")]


def list_vectors(
    *,
    name: Annotated[str | None, typer.Option(help="Versions of this name.")] = None,
    text: Annotated[
        str | None, typer.Option(help="Words of the name, the description or the tags.")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Has this tag; may be repeated.")] = None,
    alias: Annotated[str | None, typer.Option(help="This alias points at it.")] = None,
    status: Annotated[VectorStatus | None, typer.Option(help="In this state.")] = None,
    backbone: Annotated[str | None, typer.Option(help="Fingerprint of the backbone.")] = None,
    method: Annotated[str | None, typer.Option(help="Such as m2iv or m2iv-sum.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Trained on what has this SHA-256.")] = None,
    job: Annotated[uuid.UUID | None, typer.Option(help="Made by this job.")] = None,
    parent: Annotated[uuid.UUID | None, typer.Option(help="Combined from this id.")] = None,
    after: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="Stored then or later; UTC.")
    ] = None,
    before: Annotated[
        datetime | None, typer.Option(formats=_FORMATS, help="Stored earlier; UTC.")
    ] = None,
    min_accuracy: _Share = None,
    min_gain: Annotated[
        float | None, typer.Option(min=-1, max=1, help="The same above zero-shot.")
    ] = None,
    limit: Limit = 50,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List vectors that match every filter, newest first."""
    filters: Any = {
        "name": name,
        "text": text,
        "tag": tag,
        "alias": alias,
        "status": status,
        "backbone": backbone,
        "method": method,
        "dataset": dataset,
        "job_id": job,
        "parent": parent,
        "created_after": _moment(after),
        "created_before": _moment(before),
        "min_accuracy": min_accuracy,
        "min_gain": min_gain,
    }
    titles = ("vector", "status", "backbone", "aliases", "tags", "created (UTC)", "description")
    with connected(url, key) as client:
        print_listed(
            client.vectors.list, titles=titles, line=_line, limit=limit, as_json=as_json, **filters
        )


def _moment(moment: datetime | None) -> datetime | None:
    if moment is None or moment.tzinfo is not None:
        return moment
    return moment.replace(tzinfo=UTC)


def _line(vector: "Vector") -> tuple[str, ...]:
    return (
        vector.ref,
        vector.status,
        vector.backbone.name,
        " ".join(vector.aliases),
        " ".join(vector.tags),
        f"{vector.created:%Y-%m-%d %H:%M}",
        vector.description,
    )
