"""`python -m benchmarks.retrieval`: a search in the library beside pgvector and numpy."""

import asyncio
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any, Final

import psycopg
import typer

from app.library.database import conninfo, make_engine, session_factory
from app.library.migrate import upgrade
from app.library.search.retrieval import Retriever
from app.postgres.server import EmbeddedPostgres
from benchmarks.harness import AsJson, bar, interleave, machine_conditions, percentile, run, show
from benchmarks.setting.stored_keys import (
    COMMON,
    DIMENSION,
    KEYS_PER_VECTOR,
    RARE,
    SPACE,
    Float32Array,
    StoredKeys,
    draw_keys,
    store_in_pgvector,
    store_keys,
    vector_text,
)

K: Final = 10
RECALL_QUERIES: Final = 200
EXACT: Final = """
SELECT vector_id, min(embedding <=> %(query)s::vector) AS distance FROM peer_keys
WHERE backbone = %(backbone)s GROUP BY vector_id ORDER BY distance LIMIT %(k)s
"""
# Enough keys for ten sets of vectors even when all of a set's are near.
HNSW: Final = """
SELECT vector_id FROM (
  SELECT vector_id, embedding <=> %(query)s::vector AS distance FROM peer_keys
  WHERE backbone = %(backbone)s ORDER BY distance LIMIT %(keys)s
) AS nearest GROUP BY vector_id ORDER BY min(distance) LIMIT %(k)s
"""
TIMED: Final = (
    "one query at a time; ours: the whole search, with the SQL that describes what it found; "
    "pgvector: one prepared statement that gives ids; numpy: the ten nearest in memory"
)

Search = Callable[[Float32Array, bool], list[uuid.UUID]]


def retrieval(
    *,
    keys: Annotated[list[int] | None, typer.Option(help="How many; may be repeated.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds of one query.")] = 100,
    hnsw: Annotated[bool, typer.Option(help="Build pgvector's HNSW index as well.")] = True,
    as_json: AsJson = False,
) -> None:
    """P12: a search over 10k and 100k keys, and its recall, beside pgvector and numpy.

    `recall` is the share of the ten nearest sets of vectors, as numpy finds them, that are among
    the ten found; `filtered` is the same among the one in twenty that belong to another backbone.
    """
    figures: dict[str, Any] = {}
    for num_keys in keys or [10_000, 100_000]:
        figures |= _figures(draw_keys(num_keys), rounds=rounds, has_hnsw=hnsw)
    conditions = machine_conditions(
        "retrieval",
        rounds=rounds,
        dimension=DIMENSION,
        keys_per_vector=KEYS_PER_VECTOR,
        timed=TIMED,
    )
    show({**figures, **conditions}, as_json=as_json)


def _figures(keys: StoredKeys, *, rounds: int, has_hnsw: bool) -> dict[str, Any]:
    size = _name_of(len(keys.embeddings))
    with _library(keys) as (library, url), closing(_connected(url)) as connection:
        searches: dict[str, Search] = {"ours": library, "numpy": _numpy(keys)}
        facts: dict[str, Any] = {}
        try:
            store_in_pgvector(keys, connection)
        except psycopg.Error as error:
            facts[f"pgvector_{size}"] = f"not there: {type(error).__name__}"
        else:
            searches["pgvector_exact"] = _pgvector(connection, EXACT)
        times = _timed(searches, keys, rounds=rounds)
        recalls = _recalls(searches, keys)
        if has_hnsw and "pgvector_exact" in searches:
            began = perf_counter()
            _build_hnsw(connection)
            facts[f"hnsw_build_seconds_{size}"] = round(perf_counter() - began, 1)
            approximate: dict[str, Search] = {
                "pgvector_hnsw": _pgvector(connection, HNSW),
                "ours": library,
            }
            # Beside ours again, since the index is only there now.
            times["pgvector_hnsw"] = _timed(approximate, keys, rounds=rounds)["pgvector_hnsw"]
            recalls |= _recalls({"pgvector_hnsw": approximate["pgvector_hnsw"]}, keys)
    ours = times.pop("ours")
    return {
        f"p50_ms_{size}": _milliseconds(ours, 0.5),
        f"p95_ms_{size}": _milliseconds(ours, 0.95),
        f"recall_{size}": recalls["ours"],
        f"recall_filtered_{size}": recalls["ours_filtered"],
        **{f"{name}_p50_ms_{size}": _milliseconds(found, 0.5) for name, found in times.items()},
        **{
            f"{name.removesuffix('_filtered')}_recall_filtered_{size}"
            if name.endswith("_filtered")
            else f"{name}_recall_{size}": share
            for name, share in recalls.items()
            if name.startswith("pgvector")
        },
        **facts,
    }


def _name_of(count: int) -> str:
    return f"{count // 1000}k" if count % 1000 == 0 else str(count)


def _milliseconds(seconds: Sequence[float], share: float) -> float:
    return round(percentile(seconds, share) * 1000, 3)


@contextmanager
def _library(keys: StoredKeys) -> Iterator[tuple[Search, str]]:
    """A search in a library with the keys, on a Postgres of its own; and where that is."""
    with tempfile.TemporaryDirectory(prefix="vlibrary-bench-", dir="/tmp") as folder:
        # The account that Postgres runs as has to pass.
        Path(folder).chmod(0o711)
        with EmbeddedPostgres(Path(folder) / "postgres") as server, asyncio.Runner() as runner:
            upgrade(server.url)
            engine = make_engine(server.url)
            sessions = session_factory(engine)
            where = conninfo(server.url)
            runner.run(store_keys(keys, sessions=sessions, conninfo=where))
            retriever = Retriever(sessions)
            runner.run(retriever.start())
            runner.run(retriever.encode())
            # As a server does: `Runner.run` would set signals up for each search.
            wait_for = runner.get_loop().run_until_complete

            def search(query: Float32Array, rare: bool) -> list[uuid.UUID]:  # noqa: FBT001
                result = wait_for(
                    retriever.search(
                        query,
                        space=SPACE,
                        backbone_fingerprint=RARE if rare else COMMON,
                        k=K,
                    )
                )
                return [match.vector.id for match in result.matches]

            yield search, where
            runner.run(retriever.stop())
            runner.run(engine.dispose())


def _numpy(keys: StoredKeys) -> Search:
    return lambda query, rare: keys.best(query, rare=rare, k=K)


def _connected(where: str) -> psycopg.Connection:
    return psycopg.connect(where, autocommit=True, prepare_threshold=1)


def _pgvector(connection: psycopg.Connection, statement: str) -> Search:
    def search(query: Float32Array, rare: bool) -> list[uuid.UUID]:  # noqa: FBT001
        values = {
            "query": vector_text(query),
            "backbone": RARE if rare else COMMON,
            "k": K,
            "keys": K * KEYS_PER_VECTOR,
        }
        return [row[0] for row in connection.execute(statement, values)]

    return search


def _build_hnsw(connection: psycopg.Connection) -> None:
    connection.execute("SET maintenance_work_mem = '1GB'")
    # As many as are asked for, since the default would give 40.
    connection.execute(f"SET hnsw.ef_search = {K * KEYS_PER_VECTOR}")
    connection.execute("SET max_parallel_maintenance_workers = 0")
    connection.execute("CREATE INDEX ON peer_keys USING hnsw (embedding vector_cosine_ops)")


def _timed(
    searches: Mapping[str, Search], keys: StoredKeys, *, rounds: int
) -> dict[str, list[float]]:
    queries = keys.queries(rounds + 1)

    def arm(search: Search) -> Callable[[], float]:
        coming = cycle(queries)

        def measure() -> float:
            query = next(coming)
            began = perf_counter()
            search(query, False)  # noqa: FBT003
            return perf_counter() - began

        return measure

    arms = {name: arm(search) for name, search in searches.items()}
    return interleave(arms, rounds=bar(rounds, "P12"))


def _recalls(searches: Mapping[str, Search], keys: StoredKeys) -> dict[str, float]:
    """The share of what numpy finds, for all vectors and for the rare ones."""
    queries = keys.queries(RECALL_QUERIES)
    found: dict[str, float] = {}
    for rare, suffix in ((False, ""), (True, "_filtered")):
        wanted = [set(_among(keys, query, rare=rare)) for query in queries]
        for name, search in searches.items():
            shares = [
                len(wanted[place] & set(search(query, rare))) / len(wanted[place])
                for place, query in enumerate(queries)
            ]
            found[name + suffix] = round(sum(shares) / len(shares), 4)
    return found


def _among(keys: StoredKeys, query: Float32Array, *, rare: bool) -> list[uuid.UUID]:
    return keys.best(query, rare=rare, k=K)


if __name__ == "__main__":
    run(retrieval)
