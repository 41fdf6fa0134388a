"""Of each vector and space only the last change of its keys is kept; keys are of one kind."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

CHANGES, KEYS = "index_changes", "keys"
KINDS = "kind IN ('centroid', 'exemplar')"
OPERATIONS = "operation IN ('put', 'remove')"


def upgrade() -> None:
    op.execute(
        f"DELETE FROM {CHANGES} older USING {CHANGES} newer WHERE older.space = newer.space "  # noqa: S608 - our own words
        "AND older.vector_id = newer.vector_id AND older.epoch < newer.epoch"
    )
    _set_primary_key("space", "vector_id")
    op.create_index("ix_index_changes_space_epoch", CHANGES, ["space", "epoch"])
    op.drop_column(CHANGES, "operation")
    op.drop_column(KEYS, "kind")


def downgrade() -> None:
    _add(KEYS, "kind", "exemplar", check=KINDS)
    _add(CHANGES, "operation", "put", check=OPERATIONS)
    op.drop_index("ix_index_changes_space_epoch", table_name=CHANGES)
    _set_primary_key("space", "epoch")


def _set_primary_key(*columns: str) -> None:
    op.drop_constraint(op.f(f"pk_{CHANGES}"), CHANGES, type_="primary")
    op.create_primary_key(op.f(f"pk_{CHANGES}"), CHANGES, columns)


def _add(table: str, column: str, value: str, *, check: str) -> None:
    op.add_column(table, sa.Column(column, sa.Text(), nullable=False, server_default=value))
    op.alter_column(table, column, server_default=None)
    op.create_check_constraint(op.f(f"ck_{table}_{column}"), table, check)
