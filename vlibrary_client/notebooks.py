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
_SHOWN_OF_MANY = ("ref", "name", "state", "status", "num_items", "tags", "created", "description")


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """An HTML table; every text in it is shown as it is."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(_text(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def facts(record: Any) -> str:  # noqa: ANN401 - any of our dataclasses
    """A record as two columns, without what is empty or only of use to programs."""
    found = {field.name: getattr(record, field.name) for field in fields(record)}
    rows = [
        (name, value)
        for name, value in found.items()
        if name not in _HIDDEN and value not in (None, (), "", {})
    ]
    return table(("", type(record).__name__), rows)


def listing(items: Sequence[Any]) -> str:
    """Records as one row each, with what of them is for people."""
    records = [getattr(item, "record", item) for item in items]
    titles = [name for name in _SHOWN_OF_MANY if any(hasattr(one, name) for one in records)]
    if "ref" in titles:
        titles.remove("name")
    return table(titles, ([getattr(one, name, "") for name in titles] for one in records))


def comparison(report: Mapping[str, Any]) -> str:
    """How a job's vector did on held-out items beside its opponents."""
    rows = [
        (name, f"{row['accuracy']:.1%}", f"{row['low']:.1%} - {row['high']:.1%}")
        for name, row in report.get("conditions", {}).items()
    ]
    title = f"{report.get('items', 0)} held-out items"
    return table((title, "accuracy", "95 % interval"), rows) if rows else ""


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, tuple | list) and not any(is_dataclass(item) for item in value):
        return ", ".join(map(str, value))
    text = str(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[: _MOST_CHARACTERS - 1]}…"
