"""What the library hands out: frozen records, free of any session."""

import datetime as dt
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias, TypeVar

from app.core.backbones import BackboneDescription
from app.core.errors import JSON
from app.core.jobs import FINAL_STATES, JobKind, JobState
from app.core.states import VectorStatus

JobEventKind: TypeAlias = Literal["progress", "state"]

Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class VectorRecord:
    """Everything about one stored set of vectors but its bytes.

    `shots` are the demonstrations of a context that it was trained on, `norms` the lengths of the
    shift at strength 1 by branch and layer. `dose` is strength 1 as a share of the residual
    stream's length, and `max_dose` the largest dose at which held-out answers stayed good; None
    where nobody measured it. By `status`, held-out items show that it helps (`ready`), no gain
    (`ineffective`), or harm (`collapsed`), or are too few to tell (`unproven`); or it is `retired`.
    Tags and aliases are sorted.
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

    Accuracies are shares from 0 to 1: with the vectors, between the ends of its 95 % interval,
    without anything (`zero_shot`), with random (`icl`) and with the nearest demonstrations
    (`knn_icl`).
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
class DatasetReport:
    """What a data set was found to be.

    Pictures are counted by what they show; `bad_rows` has the places of the first rows that cannot
    be used, with the reasons.
    """

    layout: str
    num_items: int
    num_images: int
    num_text_only: int
    num_answers: int
    splits: Mapping[str, int]
    num_skipped: int = 0
    bad_rows: tuple[Mapping[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, JSON]:
        """The report in JSON values."""
        return {**asdict(self), "bad_rows": [dict(row) for row in self.bad_rows]}


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """A data set; the file lies in the object store.

    It is called by the name that it was asked for, else by one that finds it, or its id if none
    does. `report` tells, in JSON values, what was found when it was first stored; it is empty for
    older ones.
    """

    id: uuid.UUID
    name: str
    sha256: str
    size_bytes: int
    num_items: int
    num_images: int
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

    `config` overrides the configuration, `backbone_fingerprint` is the only backbone that may be
    trained, or None for any, and `report` tells how the vectors did on held-out items beside their
    opponents. `vector` is the vector that the job stored or measured, once it succeeded: its `id`,
    `name`, `version` and `status`. `heartbeat` is when a worker last said that it is alive,
    `attempts` how often one took it.
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
    vector: dict[str, Any] | None
    error_code: str | None
    error_message: str | None
    cancel_requested: bool
    attempts: int
    heartbeat: dt.datetime
    created: dt.datetime
    started: dt.datetime | None
    finished: dt.datetime | None

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
    def kind(self) -> JobKind:
        """What the job does, which its settings say."""
        if "combine" in self.config:
            return "combine"
        return "evaluate" if "evaluate" in self.config else "train"

    @property
    def seconds(self) -> float | None:
        """From its first start to its end, once both are known."""
        if self.started is None or self.finished is None:
            return None
        return (self.finished - self.started).total_seconds()


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
