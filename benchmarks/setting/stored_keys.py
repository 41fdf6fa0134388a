"""A library with as many keys as are asked for, and the same keys in a table of pgvector's.

The keys are drawn around a direction of their own for each set of vectors, as those of real tasks
are; equal seeds draw equal keys.
"""

import uuid
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import psycopg
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.backbones import BackboneDescription
from app.core.identifiers import new_id
from app.core.vectors.card import KeyCard, VectorCard
from app.core.vectors.file import encode_vector_file
from app.core.vectors.tensors import VectorTensors
from app.library.task_keys import add_keys, unit_rows
from app.library.vectors import create_vector

SPACE: Final = "benchmark:512"
DIMENSION: Final = 512
KEYS_PER_VECTOR: Final = 10
# One set of vectors in so many belongs to the rare backbone.
RARITY: Final = 20
COMMON: Final = "c0" * 32
RARE: Final = "fa" * 32
SPREAD: Final = 0.5
BATCH_ROWS: Final = 2_000

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StoredKeys:
    """What is stored.

    Attributes:
        embeddings: `[keys, dimension]`, rows of length 1, `KEYS_PER_VECTOR` after one another.
        vector_ids: One for each set of vectors.
        is_rare: `[vectors]`: whether it was made for the rare backbone.
    """

    embeddings: Float32Array
    vector_ids: list[uuid.UUID]
    is_rare: npt.NDArray[np.bool_]

    def best(self, query: Float32Array, *, rare: bool, k: int) -> list[uuid.UUID]:
        """The `k` sets of vectors whose best key is nearest, by numpy."""
        scores = (self.embeddings @ query).reshape(-1, KEYS_PER_VECTOR).max(axis=1)
        fitting = np.flatnonzero(self.is_rare == rare)
        scores = scores[fitting]
        nearest = np.argpartition(-scores, min(k, len(scores) - 1))[:k]
        return [self.vector_ids[fitting[place]] for place in nearest[np.argsort(-scores[nearest])]]

    def queries(self, count: int) -> Float32Array:
        """`[count, dimension]` of length 1, each like a further item of some task."""
        rng = np.random.default_rng(1)
        near = self.embeddings[rng.integers(len(self.embeddings), size=count)]
        return unit_rows(near + SPREAD * unit_rows(rng.standard_normal(near.shape)))


def draw_keys(num_keys: int) -> StoredKeys:
    """Keys that are not stored yet."""
    rng = np.random.default_rng(0)
    num_vectors = num_keys // KEYS_PER_VECTOR
    centres = unit_rows(rng.standard_normal((num_vectors, DIMENSION)))
    embeddings = np.repeat(centres, KEYS_PER_VECTOR, axis=0)
    for start in range(0, len(embeddings), BATCH_ROWS):
        block = embeddings[start : start + BATCH_ROWS]
        block[:] = unit_rows(block + SPREAD * unit_rows(rng.standard_normal(block.shape)))
    return StoredKeys(
        embeddings, [new_id() for _ in range(num_vectors)], np.arange(num_vectors) % RARITY == 0
    )


async def store_keys(
    keys: StoredKeys, *, sessions: async_sessionmaker[AsyncSession], conninfo: str
) -> None:
    """Puts the keys into an empty library: two sets of vectors through it, the rest as copies."""
    async with sessions() as session:
        for place, fingerprint in enumerate((RARE, COMMON)):
            vector = await create_vector(
                session,
                name=f"pattern-{place}",
                blob=_vector_file(fingerprint),
                backbone=_backbone(fingerprint),
                card=VectorCard(status="ready", shots=16),
            )
            key = KeyCard.of(-keys.embeddings[[place]], space=SPACE, threshold=0.5)
            await add_keys(session, key, vector_id=vector.id)
        await session.commit()
    with psycopg.connect(conninfo) as connection:
        _copy_vectors(keys, connection)
        _copy_keys(keys, connection)
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")


def _copy_vectors(keys: StoredKeys, connection: psycopg.Connection) -> None:
    connection.execute("CREATE TEMP TABLE made (place int, id uuid, pattern text)")
    with connection.cursor().copy("COPY made FROM STDIN") as copy:
        for place, vector_id in enumerate(keys.vector_ids):
            copy.write_row((place, vector_id, f"pattern-{0 if keys.is_rare[place] else 1}"))
    changed = "'name', 'task-' || made.place"
    for table, extra in (("vector_names", ""), ("vectors", ", 'id', made.id")):
        connection.execute(
            f"INSERT INTO {table} SELECT (jsonb_populate_record("  # noqa: S608 - our own words
            f"original, jsonb_build_object({changed}{extra}))).* "
            f"FROM made JOIN {table} original ON original.name = made.pattern"
        )


def _copy_keys(keys: StoredKeys, connection: psycopg.Connection) -> None:
    columns = "vector_id, space, embedding, threshold"
    with connection.cursor().copy(f"COPY keys ({columns}) FROM STDIN") as copy:
        for place, row in enumerate(keys.embeddings):
            vector_id = keys.vector_ids[place // KEYS_PER_VECTOR]
            copy.write_row((vector_id, SPACE, row.tobytes(), 0.5))
    connection.execute("UPDATE vectors SET status = 'retired' WHERE name LIKE 'pattern-%'")
    connection.execute("UPDATE index_epochs SET epoch = epoch + 1")


def store_in_pgvector(keys: StoredKeys, connection: psycopg.Connection) -> None:
    """Puts the same keys into a table of pgvector's; pages hold them whole, as its manual advises.

    Raises:
        psycopg.Error: This Postgres does not have pgvector.
    """
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute("DROP TABLE IF EXISTS peer_keys")
    connection.execute(
        f"CREATE TABLE peer_keys (vector_id uuid, backbone text, embedding vector({DIMENSION}))"
    )
    connection.execute("ALTER TABLE peer_keys ALTER COLUMN embedding SET STORAGE PLAIN")
    with connection.cursor().copy("COPY peer_keys FROM STDIN") as copy:
        for place, row in enumerate(keys.embeddings):
            vector = place // KEYS_PER_VECTOR
            backbone = RARE if keys.is_rare[vector] else COMMON
            copy.write_row((keys.vector_ids[vector], backbone, vector_text(row)))
    connection.execute("VACUUM ANALYZE peer_keys")


def vector_text(row: Float32Array) -> str:
    """A row as pgvector writes it."""
    return f"[{','.join(map(str, row.tolist()))}]"


def _backbone(fingerprint: str) -> BackboneDescription:
    return BackboneDescription(
        fingerprint=fingerprint,
        name="benchmark",
        architecture="Benchmark",
        num_layers=2,
        hidden_size=8,
        num_heads=2,
        vocab_size=64,
    )


def _vector_file(fingerprint: str) -> bytes:
    ones = np.ones((2, 8), np.float32)
    tensors = VectorTensors(
        attention_vectors=ones,
        mlp_vectors=ones,
        attention_weights=ones[:, 0],
        mlp_weights=ones[:, 0],
    )
    return encode_vector_file(tensors, metadata={"method": "m2iv", "backbone": fingerprint})
