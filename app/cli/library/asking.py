"""`vlibrary steer|retrieve|audit`: ask a server once."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.console import harmless, print_json, print_table
from app.cli.library.server import MAX_PAGE, Key, Url, connected
from app.cli.options import AsJson, read_number
from app.core.settings import MAX_STRENGTH

Images = Annotated[
    list[Path] | None, typer.Option("--image", exists=True, help="A picture; may be repeated.")
]

Prefer = Annotated[
    str | None,
    typer.Option(help="Tag, alias or name of the one that is meant where several fit alike."),
]
OnlyReady = Annotated[
    bool,
    typer.Option(
        "--only-ready/--any-state", help="Find only what is shown to help, or all but retired ones."
    ),
]


def steer(
    prompt: Annotated[str, typer.Argument(help="The question.")],
    *,
    image: Images = None,
    vector: Annotated[
        list[str] | None, typer.Option(help="REF or REF=STRENGTH, or auto; may be repeated.")
    ] = None,
    prefer: Prefer = None,
    only_ready: OnlyReady = True,
    backbone: Annotated[str | None, typer.Option(help="Where several are served.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of the answer.")] = 32,
    temperature: Annotated[float, typer.Option(min=0, max=10, help="0 is the likeliest.")] = 0.0,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Ask the backbone, steered by vectors; what was applied is told on stderr."""
    from vlibrary_client import VectorUse

    given = (read_number(text, "STRENGTH", most=MAX_STRENGTH) for text in vector or ())
    uses: list[Any] = [ref if number is None else VectorUse(ref, number) for ref, number in given]
    chosen = uses[0] if len(uses) == 1 else uses or None
    options: dict[str, Any] = {"backbone": backbone} if backbone else {}
    if prefer is not None:
        options["prefer"] = prefer
    with connected(url, key) as client:
        answer = client.steer.generate(
            prompt,
            images=image or (),
            vector=chosen,
            max_tokens=max_tokens,
            temperature=temperature,
            only_ready=only_ready,
            **options,
        )
    if as_json:
        print_json(answer)
        return
    # A file or a program gets it as it is.
    print(harmless(answer.text) if sys.stdout.isatty() else answer.text)
    applied = ", ".join(f"{use.name}@{use.version} x {use.strength:g}" for use in answer.applied)
    found = answer.retrieval
    abstained = f"nothing: `auto` abstained ({found.reason})" if found and found.abstained else ""
    told = (f"applied: {applied or abstained or 'nothing'}", *answer.notes)
    print(*map(harmless, told), sep="\n", file=sys.stderr)


def retrieve(
    *,
    text: Annotated[str | None, typer.Option(help="A question.")] = None,
    image: Annotated[Path | None, typer.Option(exists=True, help="A picture.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="At most so many.")] = 5,
    prefer: Prefer = None,
    only_ready: OnlyReady = True,
    name: Annotated[str | None, typer.Option(help="Only versions of this name.")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="Only what has this tag; may be repeated.")
    ] = None,
    words: Annotated[
        str | None, typer.Option(help="Only what has these words in name, description or tags.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="Where several are served.")] = None,
    min_epoch: Annotated[
        int | None, typer.Option(min=0, help="Wait until the index has seen this change.")
    ] = None,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Find the vectors that fit a picture, a question or both, or an abstention."""
    if text is None and image is None:
        raise typer.BadParameter("give --text, --image or both")
    with connected(url, key) as client:
        found = client.retrieve(
            image=image,
            text=text,
            k=k,
            prefer=prefer,
            only_ready=only_ready,
            name=name,
            tags=tag or (),
            words=words,
            backbone=backbone,
            min_epoch=min_epoch,
        )
    if as_json:
        print_json(found)
        return
    rows = (
        (
            match.vector.ref,
            f"{match.score:.3f}",
            f"{match.threshold:.3f}",
            "yes" if match.is_accepted else "no",
        )
        for match in found.matches
    )
    print_table(("vector", "score", "threshold", "accepted"), rows)
    if found.abstained:
        print(f"Abstained: {found.reason}", file=sys.stderr)


def audit(
    *,
    subject: Annotated[
        str | None,
        typer.Option(help="What was done to this id, name, name@version or name@alias, also gone."),
    ] = None,
    action: Annotated[str | None, typer.Option(help="Such as vector.create.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only what came after this entry.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=MAX_PAGE, help="At most so many.")] = 50,
    url: Url = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """List who did what and when, oldest first."""
    with connected(url, key) as client:
        found = client.audit(subject=subject, action=action, after=after, limit=limit)
    if as_json:
        print_json(found)
        return
    rows = (
        (
            entry.id,
            f"{entry.created:%Y-%m-%d %H:%M:%S}",
            entry.actor,
            entry.action,
            entry.subject,
            _in_words(entry.details),
        )
        for entry in found.items
    )
    print_table(("id", "when (UTC)", "key", "what", "to", "details"), rows)
    if found.next_after is not None:
        print(f"more: --after {found.next_after}", file=sys.stderr)


def _in_words(details: Mapping[str, Any]) -> str:
    """What an entry tells beside its subject; of a change from what to what."""
    facts = {
        name: f"{_in_one(value['from'])} → {_in_one(value['to'])}"
        if isinstance(value, Mapping) and {"from", "to"} <= set(value)
        else _in_one(value)
        for name, value in details.items()
    }
    return ", ".join(f"{name} {value}" for name, value in facts.items() if value not in (None, {}))


def _in_one(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list) else value
