"""Results as notebooks show them: small tables of escaped HTML."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from html import escape
from typing import Any

_MOST_CHARACTERS = 200
# Long, and of use to programs only.
_HIDDEN = frozenset(
    {"hyper_parameters", "library_versions", "norms", "backbone", "config", "report", "details"}
)
_SHOWN_OF_MANY = (
    *("ref", "id", "name", "alias", "version", "state", "status", "num_items", "tags"),
    *("scopes", "created", "expires", "revoked", "actor", "action", "subject", "details"),
    *("dataset", "split", "scorer", "items", "accuracy", "low", "high", "zero_shot"),
    "description",
)
_SAID_BY_REF = {"id", "name", "version"}


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table; every text in it is shown as it is."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_text(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def facts(record: Any) -> str:  # noqa: ANN401 - any of our dataclasses
    """A record as two columns, without what is empty or only of use to programs.

    What it has of other records follows, in tables of their own.
    """
    found = {field.name: getattr(record, field.name) for field in fields(record)}
    shown = {
        name: value
        for name, value in found.items()
        if name not in _HIDDEN and value not in (None, (), "", {})
    }
    others = [
        shown.pop(name)
        for name, value in found.items()
        if name in shown and isinstance(value, tuple) and is_dataclass(value[0])
    ]
    own = table(("", type(record).__name__), shown.items())
    return "".join([own, *map(listing, others)])


def listing(items: Iterable[Any]) -> str:
    """Records, or a page of them, as one row each, with what of them is for people."""
    titles = [name for name in _SHOWN_OF_MANY if any(hasattr(one, name) for one in items)]
    if "ref" in titles:
        titles = [name for name in titles if name not in _SAID_BY_REF]
    return table(titles, ([getattr(one, name, "") for name in titles] for one in items))


def comparison(report: Mapping[str, Any]) -> str:
    """How a job's vector did on held-out items beside its opponents."""
    rows = [
        (name, f"{row['accuracy']:.1%}", f"{row['low']:.1%} - {row['high']:.1%}")
        for name, row in report.get("conditions", {}).items()
    ]
    title = f"{report.get('items', 0)} held-out items"
    return table((title, "accuracy", "95 % interval"), rows) if rows else ""


def matches(found: Any) -> str:  # noqa: ANN401 - a Retrieval
    """What a query found, and why nothing of it is meant where it abstained."""
    rows = [
        (one.vector.ref, f"{one.score:.3f}", f"{one.threshold:.3f}", bool(one.is_accepted))
        for one in found.matches
    ]
    reason = f"abstained: {found.reason}" if found.abstained else "vector"
    return table((reason, "score", "threshold", "accepted"), rows)


def _text(value: object) -> str:
    if value is None:
        return ""
    if is_dataclass(value):
        return _in_one(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    text = str(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"


def _in_one(record: Any) -> str:  # noqa: ANN401 - any of our dataclasses
    """A record within another in a few words: a vector by its reference, or what it has."""
    if hasattr(record, "ref"):
        return str(record.ref)
    found = {field.name: getattr(record, field.name) for field in fields(record)}
    facts = (
        f"{name} {_text(value)}"
        for name, value in found.items()
        if isinstance(value, str | int | float)
    )
    return ", ".join(facts)
