"""`vlibrary vectors`: find, compare, change and delete what a server's library holds."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.console import harmless, print_json, print_result, print_table
from app.cli.library.listing import list_vectors
from app.cli.library.server import Key, Ref, Refs, Tags, Url, connected, percent, print_vector
from app.cli.options import AsJson, read_number
from app.core.jobs import MAX_WEIGHT
from app.core.states import VectorStatus

if TYPE_CHECKING:
    from vlibrary_client import Batch, Comparison, Evaluation

Share = Annotated[float, typer.Option(min=0, max=1, help="Right answers with the vector.")]
OpponentShare = Annotated[
    float | None, typer.Option(min=0, max=1, help="Right answers that way, without the vector.")
]

vectors = typer.Typer(
    name="vectors",
    help="Find, compare, change and delete the vectors of a server.",
    no_args_is_help=True,
)
vectors.command(name="list")(list_vectors)


@vectors.command()
def show(ref: Ref, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show one version: what was measured of it, and which others look the same to `auto`."""
    with connected(url, key) as client:
        found = client.vectors.get(ref)
    if as_json:
        print_json(found)
        return
    facts = {
        "vector": found.ref,
        "id": found.id,
        "status": f"{found.status}: {found.advice}",
        "backbone": f"{found.backbone.name} ({found.backbone.fingerprint})",
        "file": f"{found.size_bytes} bytes, SHA-256 {found.sha256}",
        "method": f"{found.method}, {found.shots} shots, seed {found.seed}",
        "data set": found.dataset_sha256,
        "job": found.job_id,
        "parents": " ".join(map(str, found.parents)),
        "aliases": " ".join(found.aliases),
        "tags": " ".join(found.tags),
        "looks the same as": " ".join(found.overlaps),
        "description": found.description,
    }
    print_table(("", ""), facts.items())
    if found.evaluations:
        print_table(
            ("data set", "split", "scorer", "items", "accuracy", "zero-shot", "ICL", "kNN-ICL"),
            (
                (
                    item.dataset,
                    item.split,
                    item.scorer,
                    item.items,
                    f"{percent(item.accuracy)} [{percent(item.low)}, {percent(item.high)}]",
                    *map(percent, (item.zero_shot, item.icl, item.knn_icl)),
                )
                for item in found.evaluations
            ),
        )


@vectors.command()
def compare(refs: Refs, *, url: Url = None, key: Key = None, as_json: AsJson = False) -> None:
    """Show two to eight vectors beside each other: what was measured alike, and their cosines."""
    with connected(url, key) as client:
        found = client.vectors.compare(refs)
    if as_json:
        print_json(found)
        return
    names = [vector.ref for vector in found.vectors]
    for item in found.comparisons:
        rows = (
            (name, *(("", "", "", "") if result is None else _figures(result, item)))
            for name, result in zip(names, item.results, strict=True)
        )
        print_table((f"{item.dataset} {item.split}", "accuracy", "zero-shot", "items", ""), rows)
    cosines = (
        (name, *("" if value is None else f"{value:.3f}" for value in row))
        for name, row in zip(names, found.similarity, strict=True)
    )
    print_table(("cosine", *names), cosines)


def _figures(result: "Evaluation", comparison: "Comparison") -> tuple[object, ...]:
    shown = f"{percent(result.accuracy)} [{percent(result.low)}, {percent(result.high)}]"
    best = comparison.results[comparison.best]
    mark = "best" if comparison.is_clear else "highest, not beyond chance"
    is_best = best is not None and result.accuracy == best.accuracy
    return shown, percent(result.zero_shot), result.items, mark if is_best else ""


@vectors.command()
def combine(
    name: Annotated[str, typer.Argument(help="What the sum is called.")],
    parts: Annotated[
        list[str], typer.Argument(help="Vectors, each REF or REF=WEIGHT; equal weights otherwise.")
    ],
    *,
    description: Annotated[str, typer.Option(help="Text for people.")] = "",
    tag: Tags = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Store the weighted sum of vectors as the next version of a name."""
    weights = dict(read_number(text, "WEIGHT", most=MAX_WEIGHT) for text in parts)
    if len(weights) < len(parts):
        raise typer.BadParameter("a vector is given twice; give it one weight")
    has_weight = [weight is not None for weight in weights.values()]
    if any(has_weight) and not all(has_weight):
        raise typer.BadParameter("give a weight with every vector, or with none")
    with connected(url, key) as client:
        # Mappings and sequences of references are no mappings and sequences of texts to mypy.
        chosen: Any = weights if all(has_weight) else list(weights)
        combined = client.vectors.combine(name, chosen, description=description, tags=tag or ())
    print_vector(combined, as_json=as_json)


@vectors.command()
def evaluation(
    ref: Ref,
    *,
    dataset: Annotated[str, typer.Option(help="On which data.")],
    split: Annotated[str, typer.Option(help="On which part of it.")],
    scorer: Annotated[str, typer.Option(help="By which metric.")],
    items: Annotated[int, typer.Option(min=1, help="How many questions.")],
    accuracy: Share,
    low: Annotated[float, typer.Option(min=0, max=1, help="Lower end of the 95 % interval.")],
    high: Annotated[float, typer.Option(min=0, max=1, help="Upper end of the 95 % interval.")],
    zero_shot: OpponentShare = None,
    icl: OpponentShare = None,
    knn_icl: OpponentShare = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Attach what was measured elsewhere; `vlibrary jobs evaluate` measures on the server."""
    with connected(url, key) as client:
        stored = client.vectors.add_evaluation(
            ref,
            dataset=dataset,
            split=split,
            scorer=scorer,
            items=items,
            accuracy=accuracy,
            interval=(low, high),
            zero_shot=zero_shot,
            icl=icl,
            knn_icl=knn_icl,
        )
    text = f"Attached to {ref}: {percent(accuracy)} on {dataset} {split}"
    print_result(stored, text, as_json=as_json)


@vectors.command()
def tag(
    refs: Refs,
    *,
    add: Annotated[list[str] | None, typer.Option(help="A tag to give; may be repeated.")] = None,
    remove: Annotated[
        list[str] | None, typer.Option(help="A tag to take away; may be repeated.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Give vectors tags, or take tags away; all other tags stay."""
    if not add and not remove:
        raise typer.BadParameter("give --add or --remove")
    with connected(url, key) as client:
        done = [client.vectors.tag(refs, add)] if add else []
        done += [client.vectors.tag(refs, remove, action="untag")] if remove else []
    _report(done, "Changed", as_json=as_json)


@vectors.command(name="status")
def set_status(
    status: Annotated[VectorStatus, typer.Argument()],
    refs: Refs,
    *,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Put vectors into a state; retrieval finds those that are ready."""
    with connected(url, key) as client:
        done = client.vectors.set_status(refs, status)
    _report([done], "Changed", as_json=as_json)


@vectors.command()
def delete(
    refs: Refs,
    *,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Delete versions; one that an alias points at stays, and the others go all the same."""
    with connected(url, key) as client:
        done = client.vectors.delete_many(refs)
    _report([done], "Deleted", as_json=as_json)


def _report(done: "list[Batch]", verb: str, *, as_json: bool) -> None:
    items = [item for batch in done for item in batch.items]
    if as_json:
        print_json({"items": items})
    for item in items if not as_json else ():
        text = f"{verb} {item.name}@{item.version}" if item.error is None else item.error.detail
        print(harmless(text) if item.ok else f"{item.ref}: {harmless(text)}")
    if not all(item.ok for item in items):
        raise typer.Exit(1)


@vectors.command()
def prune(
    name: Annotated[str, typer.Argument(help="Whose versions.")],
    *,
    keep_last: Annotated[int, typer.Option(min=1, help="How many of the newest stay.")],
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Delete all but the newest versions of a name; what an alias points at stays as well."""
    with connected(url, key) as client:
        gone = client.vectors.prune(name, keep_last=keep_last).items
    text = f"Deleted {len(gone)} versions" + "".join(f"\n  {vector.ref}" for vector in gone)
    print_result({"items": gone}, text, as_json=as_json)


@vectors.command()
def alias(
    name: Annotated[str, typer.Argument(help="Whose versions.")],
    alias: Annotated[str | None, typer.Argument(help="Such as prod; lists all without.")] = None,
    *,
    version: Annotated[int | None, typer.Option(min=1, help="Where it shall point.")] = None,
    expected: Annotated[
        int | None, typer.Option(min=0, help="Where it must point now; 0 for nowhere.")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Take it away.")] = False,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List the aliases of a name, point one at a version, or take it away."""
    if (alias is None) != (version is None and not delete) or (delete and version is not None):
        raise typer.BadParameter("give an alias with either --version or --delete, or none")
    if expected is not None and alias is None:
        raise typer.BadParameter("give --expected with an alias and --version or --delete")
    with connected(url, key) as client:
        if alias is not None and delete:
            client.vectors.delete_alias(name, alias, expected_version=expected)
        elif alias is not None and version is not None:
            client.vectors.set_alias(name, alias, version, expected_version=expected)
        found = client.vectors.aliases(name).items
    if as_json:
        print_json({"items": found})
    else:
        print_table(("alias", "version"), ((item.alias, item.version) for item in found))
