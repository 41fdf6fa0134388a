"""`python -m benchmarks.abstention`: whether the right vectors are found, or none.

The library's own search over stored vectors. Their numbers are of no account here, so nothing is
trained: their keys and thresholds are made of each task's items as a training makes them.
"""

import asyncio
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from app.core.telemetry.logs import configure_logs
from app.library.database import make_engine, session_factory
from app.library.migrate import upgrade
from app.library.search.retrieval import Retriever
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.keys.encoder import KeyEncoder
from app.postgres.server import EmbeddedPostgres
from benchmarks.abstention.aside import ASIDE_FOREIGN, ASIDE_STORED
from benchmarks.abstention.choice import choose_on_halves
from benchmarks.abstention.library import TaskLibrary
from benchmarks.abstention.tasks import FOREIGN, STORED, Task
from benchmarks.harness import (
    AsJson,
    Device,
    Dtype,
    machine_conditions,
    model_conditions,
    run,
    show,
)
from benchmarks.setting.backbones import load

QUERIES: Final = 40
SPLITS: Final = 6


def abstention(
    *,
    backbone: Annotated[str, typer.Option(help="pocket, a folder or a hub id.")] = "pocket",
    queries: Annotated[int, typer.Option(min=1, help="Of each task.")] = QUERIES,
    splits: Annotated[int, typer.Option(min=0, help="Halves that choose for the other.")] = SPLITS,
    items: Annotated[
        int | None, typer.Option(min=2, help="Of each stored task at most; its own number else.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of items and queries.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Right finds, false accepts and false refusals over a library of task vectors.

    `top1`: of own queries that were answered, the share that found their task. `false_accept`: the
    share of queries of tasks without vectors that found some; `left_out` in it: the same of every
    stored task once its own vectors are taken out, `pictures_left_out`: once all vectors for such
    pictures are. `false_refusal`: the share of own queries that found nothing. Tasks that differ in
    their answers alone are counted apart, under `ambiguous`: the share of their queries that
    nothing was applied to, and said why. `aside`: the same over tasks that chose nothing.
    `halves`: the settings chosen on one half of the pools of pictures and judged on the other.
    """
    # Standard output belongs to the figures.
    configure_logs("warning")
    made = load(backbone, device=device, dtype=dtype)
    encoder = KeyEncoder(FeatureCache(made))
    stored, aside = (
        [replace(task, items=min(task.items, items or task.items)) for task in tasks]
        for tasks in (STORED, ASIDE_STORED)
    )
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder)) as server:
        upgrade(server.url)
        measured = _measure(
            made,
            encoder,
            stored=stored,
            aside=aside,
            url=server.url,
            queries=queries,
            seed=seed,
        )
        figures = asyncio.run(measured)
    if splits:
        every = (*stored, *FOREIGN, *aside, *ASIDE_FOREIGN)
        figures["halves"] = choose_on_halves(
            encoder, every, splits=splits, queries=queries, seed=seed
        )
    conditions = machine_conditions(
        "abstention", queries=queries, splits=splits, items=items, seed=seed
    )
    show({**figures, **model_conditions(made), **conditions}, as_json=as_json)


async def _measure(
    backbone: Backbone,
    encoder: KeyEncoder,
    *,
    stored: Sequence[Task],
    aside: Sequence[Task],
    url: str,
    queries: int,
    seed: int,
) -> dict[str, Any]:
    engine = make_engine(url)
    sessions = session_factory(engine)
    retriever = Retriever(sessions)
    await retriever.start()
    try:
        library = TaskLibrary(
            backbone, encoder, sessions=sessions, retriever=retriever, queries=queries, seed=seed
        )
        figures = await library.measure(stored, FOREIGN)
        return {**figures, "aside": await library.measure(aside, ASIDE_FOREIGN)}
    finally:
        await retriever.stop()
        await engine.dispose()


if __name__ == "__main__":
    run(abstention)
