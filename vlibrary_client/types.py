"""What a VLibrary server answers, as frozen dataclasses; nothing here does any I/O.

Fields that a newer server adds are ignored, so an older client keeps working.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from uuid import UUID

from vlibrary_client.notebooks import facts, listing, matches

T = TypeVar("T")

JobState: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
VectorStatus: TypeAlias = Literal["ready", "unproven", "ineffective", "collapsed", "retired"]

FINAL_STATES: frozenset[JobState] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a listing, which iterates over its items.

    `next_cursor` fetches the next page and is `None` on the last.
    """

    items: tuple[T, ...]
    next_cursor: str | None = None

    _repr_html_ = listing

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadRow:
    """A row of a data set that cannot be used."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """What the server found in a data set.

    Attributes:
        layout: What was recognised.
        num_text_only: Items without a picture.
        num_answers: Different answers.
        splits: Items by the split they name; empty when none does.
        num_skipped: Rows that were left out.
        bad_rows: The first rows that cannot be used.
        notes: What else somebody who trains on it may want to know.
    """

    layout: str = ""
    num_text_only: int = 0
    num_answers: int = 0
    splits: dict[str, int] = field(default_factory=dict)
    num_skipped: int = 0
    bad_rows: tuple[BadRow, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A stored data set. The same bytes are the same data set, whatever name they came under."""

    id: UUID
    name: str
    sha256: str
    size_bytes: int
    num_items: int
    num_images: int
    created: datetime
    description: str = ""
    report: DatasetReport = field(default_factory=DatasetReport)

    _repr_html_ = facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """The frozen vision-language model that a vector belongs to."""

    fingerprint: str
    name: str
    architecture: str
    num_layers: int
    hidden_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How well a vector did on held-out items; shares of right answers with a 95 % interval."""

    dataset: str
    split: str
    scorer: str
    items: int
    accuracy: float
    low: float
    high: float
    zero_shot: float | None = None
    icl: float | None = None
    knn_icl: float | None = None
    created: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VectorName:
    """A stored version of a vector, by id and by name, with what held-out items showed of it."""

    id: UUID
    name: str
    version: int
    status: VectorStatus

    _repr_html_ = facts

    @property
    def ref(self) -> str:
        """The reference of exactly this version, such as `colours@3`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector(VectorName):
    """A stored multimodal in-context vector; its numbers never change.

    `sha256` and `size_bytes` describe the stored file. `status` says what held-out items showed of
    it and `advice` what to do; `max_dose` is the largest dose at which held-out answers stayed
    good. `evaluations` and `overlaps` (names whose pictures and questions look the same, between
    which `auto` abstains) are filled by `client.vectors.get` only, `notes` (what the file lacks) by
    `client.vectors.upload` only.
    """

    sha256: str
    size_bytes: int
    backbone: Backbone
    method: str
    created: datetime
    shots: int | None = None
    dataset_sha256: str | None = None
    job_id: UUID | None = None
    parents: tuple[UUID, ...] = ()
    hyper_parameters: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    library_versions: dict[str, str] = field(default_factory=dict)
    norms: dict[str, Any] = field(default_factory=dict)
    advice: str = ""
    dose: float | None = None
    max_dose: float | None = None
    description: str = ""
    tags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    overlaps: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Alias:
    """A movable name of one version, such as `prod`."""

    name: str
    alias: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a training job is; a loss that is not finite is `None`."""

    phase: str
    step: int
    num_steps: int
    losses: dict[str, float | None] = field(default_factory=dict)
    learning_rate: float | None = None
    items_per_second: float | None = None
    eta_seconds: float | None = None
    held_out_accuracy: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailure:
    """Why a job failed, by the same codes as `vlibrary_client.errors`."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A training job as the server sees it; any worker takes one of no backbone.

    `vector` is what it stored; `seconds` is the time spent running so far. `report` tells how the
    vector did beside its opponents, the `conditions`; `vlibrary_client.terminals` prints it.
    `waits_for` is what a queued job needs to begin, while no worker that is up would take it.
    """

    id: UUID
    state: JobState
    name: str
    dataset_id: UUID
    created: datetime
    kind: Literal["train", "combine", "evaluate"] = "train"
    backbone_fingerprint: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    report: dict[str, Any] | None = None
    vector: VectorName | None = None
    error: JobFailure | None = None
    attempts: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    seconds: float | None = None
    waits_for: str | None = None

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to the job any more."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """A `progress` report of a job or its new `state`; `sequence` rises from event to event."""

    sequence: int
    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    progress: Progress | None = None
    state: JobState | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """A vector that resembles the query.

    Attributes:
        vector: Which.
        score: Cosine of the part of the query that fits least.
        threshold: What the score has to reach.
        similarity: What ranks it: the mean cosine of the query's parts.
        is_accepted: Whether the query counts as its task.
    """

    vector: Vector
    score: float
    threshold: float
    similarity: float | None = None
    is_accepted: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieval:
    """Vectors for a query, best first.

    `abstained` is true when none is applied, and `reason` says why.
    """

    matches: tuple[Match, ...]
    abstained: bool
    epoch: int
    space: str
    reason: str | None = None

    _repr_html_ = matches


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One part of the service, and whether it works."""

    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readiness:
    """Whether the service can take requests, part by part."""

    status: Literal["ready", "unready"]
    checks: dict[str, Check]
