"""Answers to requests with keys of their own, in the place of a key in each job."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "answered_requests",
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("location", sa.Text(), nullable=True),
        sa.Column("body", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column(
            "created",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("owner", "text", name=op.f("pk_answered_requests")),
    )
    op.create_index("ix_answered_requests_owner_created", "answered_requests", ["owner", "created"])
    op.drop_constraint(op.f("uq_training_jobs_idempotency_key"), "training_jobs", type_="unique")
    op.drop_column("training_jobs", "idempotency_key")


def downgrade() -> None:
    op.add_column("training_jobs", sa.Column("idempotency_key", sa.Text(), nullable=True))
    op.create_unique_constraint(
        op.f("uq_training_jobs_idempotency_key"), "training_jobs", ["idempotency_key"]
    )
    op.drop_index("ix_answered_requests_owner_created", table_name="answered_requests")
    op.drop_table("answered_requests")
