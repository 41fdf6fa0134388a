"""The library: backbones, vectors, data sets, jobs, keys and the audit trail."""

import datetime as dt

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REFUSE_CHANGES = """
CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append-only';
END;
$$
"""

# In the order in which they are made.
TABLES = (
    "audit",
    "backbones",
    "datasets",
    "index_epochs",
    "vector_names",
    "dataset_names",
    "vectors",
    "aliases",
    "evaluations",
    "index_changes",
    "keys",
    "training_jobs",
    "job_events",
)


def _moment(name: str) -> sa.Column[dt.datetime]:
    now = sa.text("clock_timestamp()")
    return sa.Column(name, sa.DateTime(timezone=True), server_default=now, nullable=False)


def _texts(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _counts(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.Integer(), nullable=False) for name in names]


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        *_texts("action", "subject"),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        _moment("created"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_action"), "audit", ["action"])
    op.create_index(op.f("ix_audit_subject"), "audit", ["subject"])
    op.create_table(
        "backbones",
        *_texts("fingerprint", "name", "architecture"),
        *_counts("num_layers", "hidden_size", "num_heads", "vocab_size", "max_position_embeddings"),
        sa.Column("digests", postgresql.JSONB(), nullable=False),
        _moment("created"),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_backbones")),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.Uuid(), nullable=False),
        *_texts("name", "sha256"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        *_counts("num_items", "num_images"),
        *_texts("format", "storage_key", "description"),
        _moment("created"),
        sa.CheckConstraint("octet_length(sha256) = 64", name=op.f("ck_datasets_sha256_length")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("sha256", name=op.f("uq_datasets_sha256")),
    )
    op.create_table(
        "index_epochs",
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("dimension", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("space", name=op.f("pk_index_epochs")),
    )
    op.create_table(
        "vector_names",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_vector_names")),
    )
    op.create_table(
        "dataset_names",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        _moment("updated"),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_names_dataset_id")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dataset_names")),
    )
    op.create_index(op.f("ix_dataset_names_dataset_id"), "dataset_names", ["dataset_id"])
    op.create_table(
        "vectors",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        *_texts("backbone_fingerprint", "method"),
        sa.Column("shots", sa.Integer(), nullable=False),
        sa.Column("dataset_sha256", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("parents", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("hyper_parameters", postgresql.JSONB(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("library_versions", postgresql.JSONB(), nullable=False),
        sa.Column("norms", postgresql.JSONB(), nullable=False),
        *_texts("status", "description"),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        _moment("created"),
        sa.Column("deleted", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('ready', 'collapsed', 'retired')", name=op.f("ck_vectors_status")
        ),
        sa.CheckConstraint("octet_length(sha256) = 64", name=op.f("ck_vectors_sha256_length")),
        sa.ForeignKeyConstraint(
            ["backbone_fingerprint"],
            ["backbones.fingerprint"],
            name=op.f("fk_vectors_backbone_fingerprint"),
        ),
        sa.ForeignKeyConstraint(["name"], ["vector_names.name"], name=op.f("fk_vectors_name")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vectors")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_vectors_name_version")),
    )
    op.create_index("ix_vectors_backbone_status", "vectors", ["backbone_fingerprint", "status"])
    op.create_index("ix_vectors_sha256", "vectors", ["sha256"])
    op.create_index("ix_vectors_tags", "vectors", ["tags"], postgresql_using="gin")
    op.create_table(
        "aliases",
        *_texts("name", "alias"),
        sa.Column("vector_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        _moment("updated"),
        sa.ForeignKeyConstraint(["name"], ["vector_names.name"], name=op.f("fk_aliases_name")),
        sa.ForeignKeyConstraint(["vector_id"], ["vectors.id"], name=op.f("fk_aliases_vector_id")),
        sa.PrimaryKeyConstraint("name", "alias", name=op.f("pk_aliases")),
    )
    op.create_index(op.f("ix_aliases_vector_id"), "aliases", ["vector_id"])
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("vector_id", sa.Uuid(), nullable=False),
        *_texts("dataset", "split", "scorer"),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("zero_shot", sa.Double(), nullable=True),
        sa.Column("icl", sa.Double(), nullable=True),
        sa.Column("knn_icl", sa.Double(), nullable=True),
        sa.Column("details", postgresql.JSONB(), nullable=False),
        _moment("created"),
        sa.CheckConstraint("items > 0", name=op.f("ck_evaluations_items")),
        sa.CheckConstraint(
            "low <= accuracy AND accuracy <= high", name=op.f("ck_evaluations_interval")
        ),
        sa.ForeignKeyConstraint(
            ["vector_id"], ["vectors.id"], name=op.f("fk_evaluations_vector_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_index(op.f("ix_evaluations_vector_id"), "evaluations", ["vector_id"])
    op.create_table(
        "index_changes",
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("vector_id", sa.Uuid(), nullable=False),
        sa.Column("operation", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "operation IN ('put', 'remove')", name=op.f("ck_index_changes_operation")
        ),
        sa.ForeignKeyConstraint(
            ["space"], ["index_epochs.space"], name=op.f("fk_index_changes_space")
        ),
        sa.ForeignKeyConstraint(
            ["vector_id"], ["vectors.id"], name=op.f("fk_index_changes_vector_id")
        ),
        sa.PrimaryKeyConstraint("space", "epoch", name=op.f("pk_index_changes")),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("vector_id", sa.Uuid(), nullable=False),
        *_texts("space", "kind"),
        sa.Column("embedding", sa.LargeBinary(), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.CheckConstraint("kind IN ('centroid', 'exemplar')", name=op.f("ck_keys_kind")),
        sa.CheckConstraint(
            "mod(octet_length(embedding), 4) = 0", name=op.f("ck_keys_embedding_length")
        ),
        sa.ForeignKeyConstraint(["space"], ["index_epochs.space"], name=op.f("fk_keys_space")),
        sa.ForeignKeyConstraint(["vector_id"], ["vectors.id"], name=op.f("fk_keys_vector_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )
    op.create_index("ix_keys_space_vector_id", "keys", ["space", "vector_id"])
    op.create_index(op.f("ix_keys_vector_id"), "keys", ["vector_id"])
    op.create_table(
        "training_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("backbone_fingerprint", sa.Text(), nullable=True),
        sa.Column("config", postgresql.JSONB(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("progress", postgresql.JSONB(), nullable=False),
        sa.Column("vector_id", sa.Uuid(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column(
            "cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column("fencing_token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        _moment("heartbeat"),
        _moment("created"),
        sa.Column("started", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'succeeded') = (vector_id IS NOT NULL)", name=op.f("ck_training_jobs_result")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_training_jobs_state"),
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_training_jobs_dataset_id")
        ),
        sa.ForeignKeyConstraint(
            ["vector_id"], ["vectors.id"], name=op.f("fk_training_jobs_vector_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_jobs")),
        sa.UniqueConstraint("idempotency_key", name=op.f("uq_training_jobs_idempotency_key")),
    )
    op.create_index(op.f("ix_training_jobs_dataset_id"), "training_jobs", ["dataset_id"])
    op.create_index(
        "ix_training_jobs_unfinished",
        "training_jobs",
        ["heartbeat"],
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(), nullable=False),
        _moment("created"),
        sa.ForeignKeyConstraint(
            ["job_id"], ["training_jobs.id"], name=op.f("fk_job_events_job_id")
        ),
        sa.PrimaryKeyConstraint("job_id", "sequence", name=op.f("pk_job_events")),
    )
    # Float32 numbers do not compress; trying costs time on every write.
    op.execute("ALTER TABLE vectors ALTER COLUMN blob SET STORAGE EXTERNAL")
    op.execute(REFUSE_CHANGES)
    op.execute(
        "CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit "
        "FOR EACH ROW EXECUTE FUNCTION refuse_audit_change()"
    )


def downgrade() -> None:
    for table in reversed(TABLES):
        op.drop_table(table)
    op.execute("DROP FUNCTION refuse_audit_change()")
