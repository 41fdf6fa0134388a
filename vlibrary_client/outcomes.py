"""What the server answers about several vectors at once; nothing here does any I/O."""

from dataclasses import dataclass
from uuid import UUID

from vlibrary_client.types import Evaluation, Vector


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why one of many was left as it is, by the codes of `vlibrary_client.errors`."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one of many; `error` tells why when it is not `ok`."""

    ref: str
    ok: bool
    id: UUID | None = None
    name: str | None = None
    version: int | None = None
    error: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What became of each, in the order of the request."""

    items: tuple[Outcome, ...]
    num_failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What several vectors did on the same data set, split and metric.

    `results` is in the order of the vectors, `None` for those that were not measured; `best` is the
    position of the highest accuracy, and `is_clear` tells whether its 95 % interval lies above
    those of all others.
    """

    dataset: str
    split: str
    scorer: str
    results: tuple[Evaluation | None, ...]
    best: int
    is_clear: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Vectors beside each other.

    `similarity[i][k]` is the cosine between two of them over all layers, `None` between backbones.
    """

    vectors: tuple[Vector, ...]
    comparisons: tuple[Comparison, ...]
    similarity: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedVector(Vector):
    """A sum of vectors; `best_part` is the part that did best where all were measured alike."""

    best_part: UUID | None = None
