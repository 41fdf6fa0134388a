"""Keys whose rows have a picture's part and a question's, each with a threshold of its own."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("keys", sa.Column("text_threshold", sa.Double(), nullable=True))
    op.add_column("index_epochs", sa.Column("image_width", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("index_epochs", "image_width")
    op.drop_column("keys", "text_threshold")
