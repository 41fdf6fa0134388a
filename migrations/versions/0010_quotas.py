"""What a key may fill; nothing where it is not limited."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

COLUMNS = ("max_requests", "max_jobs", "max_bytes", "max_vectors")


def upgrade() -> None:
    for name in COLUMNS:
        op.add_column("access_keys", sa.Column(name, sa.BigInteger(), nullable=True))


def downgrade() -> None:
    for name in COLUMNS:
        op.drop_column("access_keys", name)
