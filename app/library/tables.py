"""The tables, private to the library. No relationships: every query says what it reads."""

import datetime as dt
import uuid
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core.jobs import JOB_STATES, UNFINISHED_STATES
from app.core.states import VECTOR_STATES
from app.library.workspaces import InWorkspace

NAMING: Final = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

WORKSPACE_NAME: Final = ("workspace", "name")
OF_VECTOR_NAMES: Final = ("vector_names.workspace", "vector_names.name")
NOW: Final = func.clock_timestamp()


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Table(DeclarativeBase):
    """Base of all tables: names every constraint and maps Python types."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as it is
        str: Text,
        uuid.UUID: Uuid,
        dt.datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        dict[str, str]: JSONB,
        list[str]: ARRAY(Text),
        list[uuid.UUID]: ARRAY(Uuid),
        bytes: LargeBinary,
    }


class BackboneRow(Table):
    """A backbone that vectors were made for."""

    __tablename__ = "backbones"

    fingerprint: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    architecture: Mapped[str]
    num_layers: Mapped[int]
    hidden_size: Mapped[int]
    num_heads: Mapped[int]
    vocab_size: Mapped[int]
    max_position_embeddings: Mapped[int]
    digests: Mapped[dict[str, str]]
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)


class VectorNameRow(InWorkspace, Table):
    """A name and its last version; its row lock orders everything done under the name."""

    __tablename__ = "vector_names"

    workspace: Mapped[str] = mapped_column(primary_key=True, sort_order=-1)
    name: Mapped[str] = mapped_column(primary_key=True)
    last_version: Mapped[int]


class VectorRow(InWorkspace, Table):
    """One immutable set of vectors with its file; only status, text and tags may change."""

    __tablename__ = "vectors"
    __table_args__ = (
        UniqueConstraint("workspace", "name", "version"),
        ForeignKeyConstraint(WORKSPACE_NAME, OF_VECTOR_NAMES),
        CheckConstraint("octet_length(sha256) = 64", name="sha256_length"),
        _one_of("status", VECTOR_STATES),
        Index("ix_vectors_sha256", "sha256"),
        Index("ix_vectors_backbone_status", "backbone_fingerprint", "status"),
        Index("ix_vectors_tags", "tags", postgresql_using="gin"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    blob: Mapped[bytes] = mapped_column(deferred=True, deferred_raiseload=True)
    backbone_fingerprint: Mapped[str] = mapped_column(ForeignKey("backbones.fingerprint"))
    method: Mapped[str]
    shots: Mapped[int]
    dataset_sha256: Mapped[str | None]
    job_id: Mapped[uuid.UUID | None]
    parents: Mapped[list[uuid.UUID]]
    hyper_parameters: Mapped[dict[str, Any]]
    seed: Mapped[int] = mapped_column(BigInteger)
    library_versions: Mapped[dict[str, str]]
    norms: Mapped[dict[str, Any]]
    dose: Mapped[float | None]
    max_dose: Mapped[float | None]
    status: Mapped[str]
    description: Mapped[str]
    tags: Mapped[list[str]]
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    deleted: Mapped[dt.datetime | None]


class AliasRow(InWorkspace, Table):
    """A movable pointer below a name, such as `prod`."""

    __tablename__ = "aliases"
    __table_args__ = (ForeignKeyConstraint(WORKSPACE_NAME, OF_VECTOR_NAMES),)

    workspace: Mapped[str] = mapped_column(primary_key=True, sort_order=-1)
    name: Mapped[str] = mapped_column(primary_key=True)
    alias: Mapped[str] = mapped_column(primary_key=True)
    vector_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("vectors.id"), index=True)
    version: Mapped[int]
    updated: Mapped[dt.datetime] = mapped_column(server_default=NOW, onupdate=NOW)


class EvaluationRow(Table):
    """One measurement of a set of vectors beside its opponents."""

    __tablename__ = "evaluations"
    __table_args__ = (
        CheckConstraint("low <= accuracy AND accuracy <= high", name="interval"),
        CheckConstraint("items > 0", name="items"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    vector_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("vectors.id"), index=True)
    dataset: Mapped[str]
    split: Mapped[str]
    scorer: Mapped[str]
    items: Mapped[int]
    accuracy: Mapped[float]
    low: Mapped[float]
    high: Mapped[float]
    zero_shot: Mapped[float | None]
    icl: Mapped[float | None]
    knn_icl: Mapped[float | None]
    details: Mapped[dict[str, Any]]
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)


class DatasetRow(InWorkspace, Table):
    """A data set by its content; the file lies in the object store."""

    __tablename__ = "datasets"
    __table_args__ = (
        UniqueConstraint("workspace", "sha256"),
        CheckConstraint("octet_length(sha256) = 64", name="sha256_length"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    num_items: Mapped[int]
    num_images: Mapped[int]
    format: Mapped[str]
    storage_key: Mapped[str]
    description: Mapped[str]
    report: Mapped[dict[str, Any]] = mapped_column(JSONB)
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    deleted: Mapped[dt.datetime | None]


class DatasetNameRow(InWorkspace, Table):
    """A name that someone gave a data set; giving it again moves it."""

    __tablename__ = "dataset_names"

    workspace: Mapped[str] = mapped_column(primary_key=True, sort_order=-1)
    name: Mapped[str] = mapped_column(primary_key=True)
    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id"), index=True)
    updated: Mapped[dt.datetime] = mapped_column(server_default=NOW, onupdate=NOW)


class JobRow(InWorkspace, Table):
    """A training job: the truth about its state; the queue's row is only its delivery."""

    __tablename__ = "training_jobs"
    __table_args__ = (
        _one_of("state", JOB_STATES),
        CheckConstraint("(state = 'succeeded') = (vector_id IS NOT NULL)", name="result"),
        Index(
            "ix_training_jobs_unfinished",
            "heartbeat",
            postgresql_where=text(f"state IN {UNFINISHED_STATES!r}"),
        ),
        Index("ix_training_jobs_workspace", "workspace"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    dataset_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("datasets.id"), index=True)
    backbone_fingerprint: Mapped[str | None]
    config: Mapped[dict[str, Any]]
    description: Mapped[str]
    tags: Mapped[list[str]]
    state: Mapped[str]
    progress: Mapped[dict[str, Any]]
    report: Mapped[dict[str, Any] | None]
    vector_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("vectors.id"))
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    cancel_requested: Mapped[bool] = mapped_column(server_default=text("false"))
    fencing_token: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    last_sequence: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    heartbeat: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)
    started: Mapped[dt.datetime | None]
    finished: Mapped[dt.datetime | None]


class JobEventRow(Table):
    """One thing that happened to a job, numbered from 1 within it."""

    __tablename__ = "job_events"

    job_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("training_jobs.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    kind: Mapped[str]
    data: Mapped[dict[str, Any]]
    created: Mapped[dt.datetime] = mapped_column(server_default=NOW)


class KeyRow(Table):
    """One task embedding: a unit vector as little-endian float32."""

    __tablename__ = "keys"
    __table_args__ = (
        CheckConstraint("mod(octet_length(embedding), 4) = 0", name="embedding_length"),
        Index("ix_keys_space_vector_id", "space", "vector_id"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    vector_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("vectors.id"), index=True)
    space: Mapped[str] = mapped_column(ForeignKey("index_epochs.space"))
    embedding: Mapped[bytes]
    threshold: Mapped[float]
    text_threshold: Mapped[float | None]


class IndexEpochRow(Table):
    """How often a space's keys have changed; its row lock makes epoch order commit order."""

    __tablename__ = "index_epochs"

    space: Mapped[str] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
    dimension: Mapped[int]
    image_width: Mapped[int | None]


class IndexChangeRow(Table):
    """The epoch that last changed a vector's keys in a space, or what they are narrowed by."""

    __tablename__ = "index_changes"
    __table_args__ = (Index("ix_index_changes_space_epoch", "space", "epoch"),)

    space: Mapped[str] = mapped_column(ForeignKey("index_epochs.space"), primary_key=True)
    vector_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("vectors.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(BigInteger)
