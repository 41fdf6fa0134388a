"""`python -m benchmarks.abstention`: whether the right vectors are found, or none.

The library's own search over stored vectors. Their numbers are of no account here, so nothing is
trained: their keys and thresholds are made of each task's items as a training makes them.
"""

import asyncio
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Final

import numpy as np
import numpy.typing as npt
import typer

from app.core.logs import configure_logs
from app.core.pictures import Picture
from app.core.vector_file import VectorTensors, encode_vector_file
from app.library.database import Sessions, make_engine, session_factory
from app.library.keys import add_keys
from app.library.migrate import upgrade
from app.library.retrieval import Retriever
from app.library.vectors import create_vector, update_vector
from app.method.backbone.loading import Backbone
from app.method.keys.encoder import KeyEncoder
from app.method.keys.task_key import build_task_key
from app.postgres.server import EmbeddedPostgres
from benchmarks.abstention.pictures import SOURCES
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
NOTHING: Final = "-"

Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What was found for one query: a task, or nothing and why."""

    name: str
    reason: str | None


def abstention(
    *,
    backbone: Annotated[str, typer.Option(help="pocket, a folder or a hub id.")] = "pocket",
    queries: Annotated[int, typer.Option(min=1, help="Of each task.")] = QUERIES,
    seed: Annotated[int, typer.Option(min=0, help="Of items and queries.")] = 0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    as_json: AsJson = False,
) -> None:
    """Right finds, false accepts and false refusals over a library of task vectors.

    `top1`: of own queries that were answered, the share that found their task. `false_accept`: the
    share of queries of tasks without vectors that found some; `left_out` in it: the same of every
    stored task once its own vectors are taken out. `false_refusal`: the share of own queries that
    found nothing. Tasks that differ in their answers alone are counted apart, under `ambiguous`:
    the share of their queries that nothing was applied to, and said why.
    """
    # Standard output belongs to the figures.
    configure_logs("warning")
    made = load(backbone, device=device, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder, EmbeddedPostgres(Path(folder)) as server:
        upgrade(server.url)
        bench = _Bench(made, url=server.url, queries=queries, seed=seed)
        figures = asyncio.run(bench.measure())
    conditions = machine_conditions("abstention", queries=queries, seed=seed)
    show({**figures, **model_conditions(made), **conditions}, as_json=as_json)


class _Bench:
    def __init__(self, backbone: Backbone, *, url: str, queries: int, seed: int) -> None:
        self._backbone = backbone
        self._encoder = KeyEncoder(backbone)
        self._url = url
        self._queries = queries
        self._seed = seed
        self._ids: dict[str, uuid.UUID] = {}

    async def measure(self) -> dict[str, Any]:
        """The figures of a fresh library."""
        engine = make_engine(self._url)
        sessions = session_factory(engine)
        retriever = Retriever(sessions)
        try:
            for task in STORED:
                await self._store(sessions, task)
            await retriever.start()
            return await self._figures(sessions, retriever)
        finally:
            await retriever.stop()
            await engine.dispose()

    async def _figures(self, sessions: Sessions, retriever: Retriever) -> dict[str, Any]:
        rows = {task.name: self._rows(task, self._queries, part=1) for task in (*STORED, *FOREIGN)}
        twins = {name for task in STORED if task.same_as for name in (task.name, task.same_as)}
        found = {name: await self._ask(retriever, asked) for name, asked in rows.items()}
        own = {task.name: found[task.name] for task in STORED if task.name not in twins}
        foreign = {task.name: found[task.name] for task in FOREIGN}
        left_out = {}
        for task in STORED:
            same = {
                task.name,
                task.same_as,
                *(one.name for one in STORED if one.same_as == task.name),
            }
            hidden = [self._ids[name] for name in same if name is not None]
            await _set_status(sessions, hidden, "retired")
            left_out[task.name] = await self._ask(retriever, rows[task.name])
            await _set_status(sessions, hidden, "ready")
        await _set_status(sessions, [self._ids[t.name] for t in STORED if t.same_as], "retired")
        alone = {
            f"{kind}_only": await self._alone(retriever, rows, kind=kind)
            for kind in ("text", "image")
        }
        return {
            "top1": _summary(own, _right),
            "false_accept": {
                **_summary(foreign, _accepted),
                "left_out": _summary(left_out, _accepted),
            },
            "false_refusal": _summary(own, _refused),
            "ambiguous": _summary({name: found[name] for name in twins}, _ambiguous),
            **alone,
            "tasks": {"stored": len(STORED), "foreign": len(FOREIGN)},
            "confusion": {name: _counts(answers) for name, answers in found.items()},
        }

    async def _alone(
        self, retriever: Retriever, rows: Mapping[str, Rows], *, kind: str
    ) -> dict[str, Any]:
        """The same where a query has one part, among tasks that this part tells apart."""
        width = self._encoder.image_width
        part = slice(width, None) if kind == "image" else slice(0, width)
        halves = {name: asked.copy() for name, asked in rows.items()}
        for half in halves.values():
            half[:, part] = 0
        stored = [task for task in STORED if task.same_as is None]

        def is_alone(task: Task) -> bool:
            return not any(_share(task, other, part=kind) for other in stored if other != task)

        own = {
            task.name: await self._ask(retriever, halves[task.name])
            for task in stored
            if is_alone(task)
        }
        foreign = {
            task.name: await self._ask(retriever, halves[task.name])
            for task in FOREIGN
            if is_alone(task)
        }
        return {
            "top1": _summary(own, _right),
            "false_accept": _summary(foreign, _accepted),
            "false_refusal": _summary(own, _refused),
        }

    def _rows(self, task: Task, count: int, *, part: int) -> Rows:
        images, questions = task.draw(count, seed=2 * self._seed + part)
        return self._encoder.encode([Picture.of(image) for image in images], questions)

    async def _ask(self, retriever: Retriever, rows: Rows) -> list[Answer]:
        answers = []
        for row in rows:
            result = await retriever.search(
                row,
                space=self._encoder.space,
                backbone_fingerprint=self._backbone.description.fingerprint,
                k=1,
            )
            name = NOTHING if result.abstained else result.matches[0].vector.name
            answers.append(Answer(name=name, reason=result.reason))
        return answers

    async def _store(self, sessions: Sessions, task: Task) -> None:
        width = self._encoder.image_width
        key = build_task_key(self._rows(task, task.items, part=0), image_width=width)
        backbone = self._backbone.description
        async with sessions() as session, session.begin():
            vector = await create_vector(
                session,
                name=task.name,
                blob=_vector_file(self._backbone),
                backbone=backbone,
                shots=0,
                hyper_parameters={},
                seed=0,
                library_versions={},
            )
            await add_keys(
                session,
                vector_id=vector.id,
                space=self._encoder.space,
                exemplars=key.exemplars,
                threshold=key.threshold,
                text_threshold=key.text_threshold,
                image_width=key.image_width,
            )
        self._ids[task.name] = vector.id


def _share(one: Task, other: Task, *, part: str) -> bool:
    """Whether a picture, or a question, of the one may be of the other as well."""
    if part == "text":
        return not set(one.templates).isdisjoint(other.templates)
    return not set(SOURCES.get(one.pool, (one.pool,))).isdisjoint(
        SOURCES.get(other.pool, (other.pool,))
    )


async def _set_status(sessions: Sessions, vector_ids: Sequence[uuid.UUID], status: Any) -> None:  # noqa: ANN401
    async with sessions() as session, session.begin():
        for vector_id in vector_ids:
            await update_vector(session, vector_id, status=status)


def _vector_file(backbone: Backbone) -> bytes:
    layers, hidden = backbone.description.num_layers, backbone.description.hidden_size
    tensors = VectorTensors(
        attention_vectors=np.zeros((layers, hidden), np.float32),
        mlp_vectors=np.zeros((layers, hidden), np.float32),
        attention_weights=np.zeros(layers, np.float32),
        mlp_weights=np.zeros(layers, np.float32),
    )
    return encode_vector_file(
        tensors, metadata={"method": "m2iv", "backbone": backbone.description.fingerprint}
    )


Rate = Callable[[str, Sequence[Answer]], float]


def _right(name: str, answers: Sequence[Answer]) -> float:
    given = [answer.name == name for answer in answers if answer.name != NOTHING]
    return fmean(given) if given else 0.0


def _accepted(_name: str, answers: Sequence[Answer]) -> float:
    return fmean(answer.name != NOTHING for answer in answers)


def _refused(_name: str, answers: Sequence[Answer]) -> float:
    return fmean(answer.name == NOTHING for answer in answers)


def _ambiguous(_name: str, answers: Sequence[Answer]) -> float:
    return fmean(answer.reason == "ambiguous" for answer in answers)


def _summary(found: Mapping[str, Sequence[Answer]], rate: Rate) -> dict[str, Any]:
    rates = {name: rate(name, answers) for name, answers in found.items()}
    ordered = sorted(rates, key=lambda name: rates[name])
    worst = ordered[0] if rate in {_right, _ambiguous} else ordered[-1]
    return {
        "mean": round(fmean(rates.values()), 4),
        "worst": round(rates[worst], 4),
        "worst_task": worst,
        "tasks": len(rates),
    }


def _counts(answers: Sequence[Answer]) -> dict[str, int]:
    return dict(
        Counter(answer.name if answer.reason is None else answer.reason for answer in answers)
    )


if __name__ == "__main__":
    run(abstention)
