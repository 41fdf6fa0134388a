"""What a search tells: the vectors that were found, how near they are, or why none is applied."""

from dataclasses import dataclass
from typing import Self

from app.library.records import VectorRecord
from app.library.search.hits import Hit
from app.library.search.verdicts import AbstainReason


@dataclass(frozen=True, kw_only=True)
class Match:
    """Vectors that were found.

    Attributes:
        vector: Which.
        score: Cosine with the nearest key, of the part of the query that fits least.
        threshold: What `score` has to reach.
        similarity: What ranks them: the mean cosine over the query's parts.
        is_accepted: Whether the query counts as their task.
    """

    vector: VectorRecord
    score: float
    threshold: float
    similarity: float
    is_accepted: bool

    @classmethod
    def of(cls, vector: VectorRecord, hit: Hit) -> Self:
        """What the index and the database say of the same vectors."""
        return cls(
            vector=vector,
            score=hit.score,
            threshold=hit.threshold,
            similarity=hit.similarity,
            is_accepted=hit.is_accepted,
        )


@dataclass(frozen=True, kw_only=True)
class RetrievalResult:
    """What was found, best first, and whether the best is good enough to be applied."""

    matches: tuple[Match, ...]
    abstained: bool
    reason: AbstainReason | None
    epoch: int
