"""Everything belongs to a workspace, and names are unique within one."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = (
    "vector_names",
    "vectors",
    "aliases",
    "datasets",
    "dataset_names",
    "training_jobs",
    "audit",
    "access_keys",
)
# Keys and constraints of names: what they were without a workspace.
PRIMARY = {
    "vector_names": ["name"],
    "aliases": ["name", "alias"],
    "dataset_names": ["name"],
}
UNIQUE = {"vectors": ["name", "version"], "datasets": ["sha256"]}
NAMED = ("vectors", "aliases")


def upgrade() -> None:
    for table in TABLES:
        column = sa.Column("workspace", sa.Text(), nullable=False, server_default="default")
        op.add_column(table, column)
        op.alter_column(table, "workspace", server_default=None)
    for table in NAMED:
        op.drop_constraint(op.f(f"fk_{table}_name"), table, type_="foreignkey")
    _rename({name: ["workspace", *columns] for name, columns in PRIMARY.items()}, to_new=True)
    for table in NAMED:
        op.create_foreign_key(
            op.f(f"fk_{table}_workspace_name"),
            table,
            "vector_names",
            ["workspace", "name"],
            ["workspace", "name"],
        )
    op.create_index(op.f("ix_access_keys_workspace"), "access_keys", ["workspace"])
    op.create_index(op.f("ix_training_jobs_workspace"), "training_jobs", ["workspace"])


def downgrade() -> None:
    for table in TABLES:
        op.execute(
            f"""
            DO $$ BEGIN
                IF EXISTS (SELECT FROM {table} WHERE workspace <> 'default') THEN
                    RAISE EXCEPTION 'rows of {table} lie in other workspaces than `default`';
                END IF;
            END $$
            """
        )
    op.drop_index(op.f("ix_training_jobs_workspace"), table_name="training_jobs")
    op.drop_index(op.f("ix_access_keys_workspace"), table_name="access_keys")
    for table in NAMED:
        op.drop_constraint(op.f(f"fk_{table}_workspace_name"), table, type_="foreignkey")
    _rename(PRIMARY, to_new=False)
    for table in NAMED:
        op.create_foreign_key(op.f(f"fk_{table}_name"), table, "vector_names", ["name"], ["name"])
    for table in TABLES:
        op.drop_column(table, "workspace")


def _rename(primary: dict[str, list[str]], *, to_new: bool) -> None:
    for table, columns in primary.items():
        op.drop_constraint(op.f(f"pk_{table}"), table, type_="primary")
        op.create_primary_key(op.f(f"pk_{table}"), table, columns)
    for table, columns in UNIQUE.items():
        wide = ["workspace", *columns]
        old, new = (columns, wide) if to_new else (wide, columns)
        op.drop_constraint(op.f(f"uq_{table}_{'_'.join(old)}"), table, type_="unique")
        op.create_unique_constraint(op.f(f"uq_{table}_{'_'.join(new)}"), table, new)
