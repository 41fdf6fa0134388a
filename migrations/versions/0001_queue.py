"""The job queue's own tables and functions.

Procrastinate ships every step of its schema since the first one. Applying the steps up to a fixed
version gives the same result whichever newer version is installed later; a later revision then
applies the steps that follow.
"""

from pathlib import Path

from alembic import op
from procrastinate.schema import SchemaManager

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LAST_STEP = "03.04.00_50"


def upgrade() -> None:
    connection = op.get_bind()
    for step in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
        if step.name[: len(LAST_STEP)] <= LAST_STEP:
            connection.exec_driver_sql(
                step.read_text(encoding="utf-8"),
                # Per cent signs in the functions are theirs, not placeholders.
                execution_options={"no_parameters": True},
            )


def downgrade() -> None:
    op.execute(
        """
        DO $$
        DECLARE found record;
        BEGIN
            DROP TABLE procrastinate_events, procrastinate_periodic_defers,
                procrastinate_jobs, procrastinate_workers CASCADE;
            FOR found IN
                SELECT oid::regprocedure AS name FROM pg_proc
                WHERE pronamespace = current_schema()::regnamespace
                    AND proname LIKE 'procrastinate\\_%'
            LOOP
                EXECUTE 'DROP FUNCTION ' || found.name || ' CASCADE';
            END LOOP;
            FOR found IN
                SELECT oid::regtype AS name FROM pg_type
                WHERE typnamespace = current_schema()::regnamespace
                    AND typname LIKE 'procrastinate\\_%' AND typtype IN ('e', 'c')
            LOOP
                EXECUTE 'DROP TYPE ' || found.name || ' CASCADE';
            END LOOP;
        END;
        $$
        """
    )
