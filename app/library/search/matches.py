"""What an index finds, what a search tells of it, and why none of it may be applied."""

import uuid
from dataclasses import dataclass
from typing import Literal, TypeAlias

from app.library.records import VectorRecord

AbstainReason: TypeAlias = Literal["no-vectors", "below-threshold", "margin-too-small", "ambiguous"]


@dataclass(frozen=True)
class Hit:
    """One set of vectors with its similarity to the query.

    Attributes:
        vector_id: Which.
        name: Shared by all versions.
        score: Cosine with the nearest key; of the part of the query that fits least, where rows
            have a picture's part and a question's.
        threshold: What `score` has to reach.
        similarity: What ranks it: the mean cosine over the query's parts.
        is_accepted: Whether the query counts as its task.
    """

    vector_id: uuid.UUID
    name: str
    score: float
    threshold: float
    similarity: float
    is_accepted: bool


@dataclass(frozen=True)
class Match(Hit):
    """A hit with what the database says of its vectors."""

    vector: VectorRecord


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """What was found, best first, and whether the best is good enough to be applied."""

    matches: tuple[Match, ...]
    abstained: bool
    reason: AbstainReason | None
    epoch: int
