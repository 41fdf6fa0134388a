"""The library: backbones, vectors, data sets, jobs, keys and the audit trail."""

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


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_action"), "audit", ["action"], unique=False)
    op.create_index(op.f("ix_audit_subject"), "audit", ["subject"], unique=False)
    op.create_table(
        "backbones",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("architecture", sa.Text(), nullable=False),
        sa.Column("num_layers", sa.Integer(), nullable=False),
        sa.Column("hidden_size", sa.Integer(), nullable=False),
        sa.Column("num_heads", sa.Integer(), nullable=False),
        sa.Column("vocab_size", sa.Integer(), nullable=False),
        sa.Column("max_position_embeddings", sa.Integer(), nullable=False),
        sa.Column("digests", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_backbones")),
    )
    op.create_table(
        "datasets",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("num_items", sa.Integer(), nullable=False),
        sa.Column("num_images", sa.Integer(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("storage_key", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
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
        sa.Column(
            "updated",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_dataset_names_dataset_id")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_dataset_names")),
    )
    op.create_index(
        op.f("ix_dataset_names_dataset_id"), "dataset_names", ["dataset_id"], unique=False
    )
    op.create_table(
        "vectors",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("blob", sa.LargeBinary(), nullable=False),
        sa.Column("backbone_fingerprint", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("shots", sa.Integer(), nullable=False),
        sa.Column("dataset_sha256", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("parents", sa.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("hyper_parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("library_versions", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("norms", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
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
    op.create_index(
        "ix_vectors_backbone_status", "vectors", ["backbone_fingerprint", "status"], unique=False
    )
    op.create_index("ix_vectors_sha256", "vectors", ["sha256"], unique=False)
    op.create_index("ix_vectors_tags", "vectors", ["tags"], unique=False, postgresql_using="gin")
    op.create_table(
        "aliases",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("alias", sa.Text(), nullable=False),
        sa.Column("vector_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column(
            "updated",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["name"], ["vector_names.name"], name=op.f("fk_aliases_name")),
        sa.ForeignKeyConstraint(["vector_id"], ["vectors.id"], name=op.f("fk_aliases_vector_id")),
        sa.PrimaryKeyConstraint("name", "alias", name=op.f("pk_aliases")),
    )
    op.create_index(op.f("ix_aliases_vector_id"), "aliases", ["vector_id"], unique=False)
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("vector_id", sa.Uuid(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("split", sa.Text(), nullable=False),
        sa.Column("scorer", sa.Text(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=False),
        sa.Column("low", sa.Double(), nullable=False),
        sa.Column("high", sa.Double(), nullable=False),
        sa.Column("zero_shot", sa.Double(), nullable=True),
        sa.Column("icl", sa.Double(), nullable=True),
        sa.Column("knn_icl", sa.Double(), nullable=True),
        sa.Column("details", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.CheckConstraint("items > 0", name=op.f("ck_evaluations_items")),
        sa.CheckConstraint(
            "low <= accuracy AND accuracy <= high", name=op.f("ck_evaluations_interval")
        ),
        sa.ForeignKeyConstraint(
            ["vector_id"], ["vectors.id"], name=op.f("fk_evaluations_vector_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_index(op.f("ix_evaluations_vector_id"), "evaluations", ["vector_id"], unique=False)
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
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
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
    op.create_index("ix_keys_space_vector_id", "keys", ["space", "vector_id"], unique=False)
    op.create_index(op.f("ix_keys_vector_id"), "keys", ["vector_id"], unique=False)
    op.create_table(
        "training_jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Uuid(), nullable=False),
        sa.Column("backbone_fingerprint", sa.Text(), nullable=True),
        sa.Column("config", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("tags", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("vector_id", sa.Uuid(), nullable=True),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column(
            "cancel_requested", sa.Boolean(), server_default=sa.text("false"), nullable=False
        ),
        sa.Column("fencing_token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "heartbeat",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
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
    op.create_index(
        op.f("ix_training_jobs_dataset_id"), "training_jobs", ["dataset_id"], unique=False
    )
    op.create_index(
        "ix_training_jobs_unfinished",
        "training_jobs",
        ["heartbeat"],
        unique=False,
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.create_table(
        "job_events",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
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
    op.drop_table("job_events")
    op.drop_index(
        "ix_training_jobs_unfinished",
        table_name="training_jobs",
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.drop_index(op.f("ix_training_jobs_dataset_id"), table_name="training_jobs")
    op.drop_table("training_jobs")
    op.drop_index(op.f("ix_keys_vector_id"), table_name="keys")
    op.drop_index("ix_keys_space_vector_id", table_name="keys")
    op.drop_table("keys")
    op.drop_table("index_changes")
    op.drop_index(op.f("ix_evaluations_vector_id"), table_name="evaluations")
    op.drop_table("evaluations")
    op.drop_index(op.f("ix_aliases_vector_id"), table_name="aliases")
    op.drop_table("aliases")
    op.drop_index("ix_vectors_tags", table_name="vectors", postgresql_using="gin")
    op.drop_index("ix_vectors_sha256", table_name="vectors")
    op.drop_index("ix_vectors_backbone_status", table_name="vectors")
    op.drop_table("vectors")
    op.drop_index(op.f("ix_dataset_names_dataset_id"), table_name="dataset_names")
    op.drop_table("dataset_names")
    op.drop_table("vector_names")
    op.drop_table("index_epochs")
    op.drop_table("datasets")
    op.drop_table("backbones")
    op.drop_index(op.f("ix_audit_subject"), table_name="audit")
    op.drop_index(op.f("ix_audit_action"), table_name="audit")
    op.drop_table("audit")
    op.execute("DROP FUNCTION refuse_audit_change()")
