"""What an index finds, which of the vectors that accept a query is meant, or why none is."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from app.library.records import VectorRecord

# Scores as near as this are equal: how well the vectors do decides then.
TIE: Final = 0.02
# So many that do not accept a query are still asked whether they are of the same task.
NEIGHBOURS: Final = 8

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


def choose(
    hits: Sequence[Hit],
    records: Mapping[uuid.UUID, VectorRecord],
    *,
    gains: Mapping[uuid.UUID, float],
    margin: float,
    prefer: str,
    alike: Collection[str],
) -> tuple[list[Hit], AbstainReason | None]:
    """The hits, the one to apply first, and the reason to abstain from applying it if there is one.

    Every hit that accepts the query is a candidate. Versions of one name do not compete: the one
    that is preferred, else does best, else is newest stands for the name. Names that no key can
    tell apart need a preference: exactly one of them with the tag, the alias or the name itself.

    Args:
        hits: Best first, those that accept the query before all others.
        records: Of the hits.
        gains: Accuracy above zero-shot on held-out items, where it was measured.
        margin: Least lead in similarity over hits of any other name, accepted or not.
        prefer: The tag, alias or name.
        alike: Names of `near_hits` that such a query cannot tell from the first one's task.
    """
    accepted = [hit for hit in hits if hit.is_accepted]
    if not accepted:
        return [*hits], "below-threshold" if hits else "no-vectors"

    def quality(hit: Hit) -> tuple[bool, float, int]:
        record = records[hit.vector_id]
        is_preferred = prefer == record.name or prefer in (*record.tags, *record.aliases)
        return is_preferred, gains.get(hit.vector_id, 0.0), hit.vector_id.int

    nearest = nearest_by_name(accepted)
    best = accepted[0]
    near = near_hits([hit for hit in hits if hit.vector_id in records])
    same = {best.name, *({hit.name for hit in near}.intersection(alike))}
    if len(same) > 1:
        pool = [hit for hit in near if hit.name in same and quality(hit)[0]]
        if len({hit.name for hit in pool}) != 1:
            return [*hits], "ambiguous"
    else:
        equal = [name for name, hit in nearest.items() if best.similarity - hit.similarity <= TIE]
        stand_ins = [
            max((hit for hit in accepted if hit.name == name), key=quality) for name in equal
        ]
        top = max(quality(hit)[:2] for hit in stand_ins)
        name = next(hit.name for hit in stand_ins if quality(hit)[:2] == top)
        pool = [hit for hit in accepted if hit.name == name]
    chosen = max(pool, key=quality)
    ordered = [chosen, *(hit for hit in hits if hit.vector_id != chosen.vector_id)]
    rivals = (hit.similarity for hit in hits if hit.name not in {chosen.name, *same})
    lead = max(hit.similarity for hit in near if hit.name == chosen.name) - max(
        rivals, default=-1.0
    )
    return ordered, "margin-too-small" if margin and lead < margin else None


def near_hits(hits: Sequence[Hit]) -> Sequence[Hit]:
    """Those that accept the query, and the next: a task may miss its own threshold by chance."""
    return hits[: sum(hit.is_accepted for hit in hits) + NEIGHBOURS]


def nearest_by_name(hits: Sequence[Hit]) -> dict[str, Hit]:
    """The first hit of each name, in the order of the hits."""
    found: dict[str, Hit] = {}
    for hit in hits:
        found.setdefault(hit.name, hit)
    return found
