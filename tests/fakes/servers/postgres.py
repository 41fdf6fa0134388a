"""Questions to a server of our own."""

import psycopg

from app.library.database import conninfo
from app.postgres.server import EmbeddedPostgres


def ask(server: EmbeddedPostgres, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(conninfo(server.url), autocommit=True) as connection:
        return connection.execute(query).fetchall()
