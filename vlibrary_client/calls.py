"""What a request is: a value with the reader of its answer; no I/O."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from vlibrary_client.replies import Reply

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request and the reader of its answer.

    Attributes:
        is_repeatable: Sending it twice has the effect of sending it once.
        content: A body of raw bytes, or the file that holds them.
        timeout_seconds: How long the answer may take; `None` for the client's default.
        answer_statuses: Statuses of 400 and above that carry a result and no error.
    """

    method: str
    path: str
    read: Callable[[Reply], T]
    is_repeatable: bool
    query: Mapping[str, str | int | Sequence[str]] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    content: bytes | Path | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float | None = None
    answer_statuses: frozenset[int] = frozenset()
