"""The job queue's own tables and functions.

Procrastinate ships every step of its schema since the first one. Applying the steps up to a fixed
version gives the same result whichever newer version is installed later; a later revision then
applies the steps that follow.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from alembic import op
from procrastinate.schema import SchemaManager

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

LAST_STEP = "03.04.00_50"
# Before Postgres 17 a value that is added to a type cannot be used in the same transaction, so the
# types have from the first what the steps add to them.
VALUES = {
    "procrastinate_job_status": (
        "todo", "doing", "succeeded", "failed", "cancelled", "aborting", "aborted"
    ),
    "procrastinate_job_event_type": (
        "deferred", "started", "deferred_for_retry", "failed", "succeeded", "cancelled",
        "abort_requested", "aborted", "scheduled", "retried",
    ),
}  # fmt: skip
_MAKES = re.compile(r"CREATE TYPE (\w+) AS ENUM \(.*?\n\);", re.DOTALL)
_ADDS = re.compile(r"ALTER TYPE \w+ ADD VALUE [^;]+;")


def _make(found: re.Match[str]) -> str:
    values = ", ".join(f"'{value}'" for value in VALUES[found[1]])
    return f"CREATE TYPE {found[1]} AS ENUM ({values});"


def _steps() -> Iterator[str]:
    for step in sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql")):
        if step.name[: len(LAST_STEP)] <= LAST_STEP:
            yield _ADDS.sub("", _MAKES.sub(_make, step.read_text(encoding="utf-8")))


def upgrade() -> None:
    connection = op.get_bind()
    for step in _steps():
        # Per cent signs in the functions are theirs, not placeholders.
        connection.exec_driver_sql(step, execution_options={"no_parameters": True})


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
