"""What the library hands out: frozen records, free of any session."""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, TypeAlias, TypeVar

from app.core.backbones import BackboneDescription
from app.core.states import VectorStatus

JobState: TypeAlias = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobEventKind: TypeAlias = Literal["progress", "state"]

Record = TypeVar("Record")

FINAL_STATES: Final[frozenset[JobState]] = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class VectorRecord:
    """Everything about one stored set of vectors but its bytes.

    Attributes:
        id: Its own id.
        name: Shared by all versions.
        version: From 1 without gaps.
        sha256: Digest of the file.
        size_bytes: Length of the file.
        backbone: What it was made for.
        method: Such as `m2iv`.
        shots: Demonstrations per context it was trained on.
        dataset_sha256: Digest of the data set it was trained on.
        job_id: The training job that made it.
        parents: Vectors it was combined from.
        hyper_parameters: The training configuration.
        seed: The training's seed.
        library_versions: Versions of what made it.
        norms: Length of the shift at strength 1 for each branch and layer.
        dose: Strength 1 as a share of the residual stream's length; None where nobody measured it.
        max_dose: The largest dose at which held-out answers stayed good; None as above.
        status: `ready` (held-out items show that it helps), `unproven` (too few of them to tell),
            `ineffective` (they show no gain), `collapsed` (worse than no vectors) or `retired`.
        description: Text for people.
        tags: Sorted.
        aliases: Names that point at this version now, sorted.
        created: When it was stored.
        deleted: When it was deleted, if it was.
    """

    id: uuid.UUID
    name: str
    version: int
    sha256: str
    size_bytes: int
    backbone: BackboneDescription
    method: str
    shots: int
    dataset_sha256: str | None
    job_id: uuid.UUID | None
    parents: tuple[uuid.UUID, ...]
    hyper_parameters: dict[str, Any]
    seed: int
    library_versions: dict[str, str]
    norms: dict[str, Any]
    dose: float | None
    max_dose: float | None
    status: VectorStatus
    description: str
    tags: tuple[str, ...]
    aliases: tuple[str, ...]
    created: dt.datetime
    deleted: dt.datetime | None


@dataclass(frozen=True, kw_only=True)
class AliasRecord:
    """A movable pointer below a name, such as `prod`."""

    name: str
    alias: str
    version: int
    vector_id: uuid.UUID
    updated: dt.datetime


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One measurement of a set of vectors beside its opponents.

    Attributes:
        id: Its own id.
        vector_id: What was measured.
        dataset: On which data.
        split: On which part of it.
        scorer: Which metric, in which variant.
        items: How many questions.
        accuracy: From 0 to 1.
        low: Lower end of the 95 % interval.
        high: Upper end of the 95 % interval.
        zero_shot: Accuracy without vectors and without demonstrations.
        icl: Accuracy with random demonstrations.
        knn_icl: Accuracy with the nearest demonstrations.
        details: Further figures.
        created: When it was stored.
    """

    id: uuid.UUID
    vector_id: uuid.UUID
    dataset: str
    split: str
    scorer: str
    items: int
    accuracy: float
    low: float
    high: float
    zero_shot: float | None
    icl: float | None
    knn_icl: float | None
    details: dict[str, Any]
    created: dt.datetime


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """A data set; the file lies in the object store.

    Attributes:
        id: Its own id; equal for equal content.
        name: The name it was asked for by, else the one it was first stored under.
        sha256: Digest of the file.
        size_bytes: Length of the file.
        num_items: Questions.
        num_images: Different images.
        format: Such as `parquet`.
        storage_key: Where the object store has it.
        description: Text for people.
        report: What was found when it was first stored, in JSON values; empty for older ones.
        created: When it was first stored.
    """

    id: uuid.UUID
    name: str
    sha256: str
    size_bytes: int
    num_items: int
    num_images: int
    format: str
    storage_key: str
    description: str
    report: Mapping[str, Any]
    created: dt.datetime

    @property
    def splits(self) -> dict[str, int]:
        """Items by the split they name; empty where none does."""
        return dict(self.report.get("splits", {}))


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A training job.

    Attributes:
        id: Its own id.
        workspace: Where it was asked for, and where its vectors go.
        name: The name its vectors will get.
        dataset_id: What it trains on.
        backbone_fingerprint: The only backbone it may train, or None for any.
        config: Overrides of the training configuration.
        description: Goes to the vectors.
        tags: Go to the vectors.
        state: One of five; the last three are final.
        progress: The latest that the worker told.
        report: How its vectors did on held-out items beside their opponents, once it succeeded.
        vector_id: What it made, once it succeeded.
        vector_name: Name of what it made.
        vector_version: Version of what it made.
        vector_status: State of what it made.
        error_code: Stable code, once it failed.
        error_message: One sentence, once it failed.
        cancel_requested: Whether someone asked it to stop.
        attempts: How often a worker took it.
        last_sequence: Number of its newest event.
        heartbeat: When a worker last said that it is alive.
        created: When it was queued.
        started: When a worker first took it.
        finished: When it reached a final state.
    """

    id: uuid.UUID
    workspace: str
    name: str
    dataset_id: uuid.UUID
    backbone_fingerprint: str | None
    config: dict[str, Any]
    description: str
    tags: tuple[str, ...]
    state: JobState
    progress: dict[str, Any]
    report: dict[str, Any] | None
    vector_id: uuid.UUID | None
    vector_name: str | None
    vector_version: int | None
    vector_status: VectorStatus | None
    error_code: str | None
    error_message: str | None
    cancel_requested: bool
    attempts: int
    last_sequence: int
    heartbeat: dt.datetime
    created: dt.datetime
    started: dt.datetime | None
    finished: dt.datetime | None

    @property
    def vector(self) -> dict[str, Any] | None:
        """What it made, once it succeeded: `id`, `name`, `version` and `status`."""
        if self.vector_name is None:
            return None
        names = ("id", "name", "version", "status")
        return {name: getattr(self, f"vector_{name}") for name in names}

    @property
    def error(self) -> dict[str, str] | None:
        """Why it failed, if it did: `code` and `message`."""
        if self.error_code is None:
            return None
        return {"code": self.error_code, "message": self.error_message or ""}

    @property
    def is_final(self) -> bool:
        """Whether nothing will happen to it any more."""
        return self.state in FINAL_STATES

    @property
    def seconds(self) -> float | None:
        """From its first start to its end, once both are known."""
        if self.started is None or self.finished is None:
            return None
        return (self.finished - self.started).total_seconds()


@dataclass(frozen=True, kw_only=True)
class JobNews:
    """The next events of a job in order, and whether none can follow them."""

    events: "tuple[JobEvent, ...]"
    is_over: bool


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """One thing that happened to a job, numbered from 1 within it."""

    sequence: int
    kind: JobEventKind
    data: dict[str, Any]
    created: dt.datetime


def record_of(kind: type[Record], row: object, /, **others: Any) -> Record:  # noqa: ANN401
    """The record of a row's columns by their names, with others in their place."""
    own = [one.name for one in fields(kind) if one.name not in others]  # type: ignore[arg-type]
    return kind(**{name: _kept(getattr(row, name)) for name in own}, **others)


def _kept(value: Any) -> Any:  # noqa: ANN401 - of any column
    # Apart from the row, which may change.
    if isinstance(value, list):
        return tuple(value)
    return dict(value) if isinstance(value, dict) else value
