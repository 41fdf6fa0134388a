"""What held-out items showed of a vector: four states instead of two, its doses, a job's report."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_CHECK = "ck_vectors_status"


def upgrade() -> None:
    op.drop_constraint(op.f(_CHECK), "vectors", type_="check")
    op.create_check_constraint(
        op.f(_CHECK),
        "vectors",
        "status IN ('ready', 'unproven', 'ineffective', 'collapsed', 'retired')",
    )
    op.add_column("vectors", sa.Column("dose", sa.Double(), nullable=True))
    op.add_column("vectors", sa.Column("max_dose", sa.Double(), nullable=True))
    op.add_column(
        "training_jobs",
        sa.Column("report", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    )


def downgrade() -> None:
    op.drop_column("training_jobs", "report")
    op.drop_column("vectors", "max_dose")
    op.drop_column("vectors", "dose")
    op.drop_constraint(op.f(_CHECK), "vectors", type_="check")
    # The older schema knows no state for vectors that were not proven.
    op.execute(
        "UPDATE vectors SET status = 'collapsed' WHERE status IN ('unproven', 'ineffective')"
    )
    op.create_check_constraint(
        op.f(_CHECK), "vectors", "status IN ('ready', 'collapsed', 'retired')"
    )
