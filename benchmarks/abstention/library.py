"""A library of task vectors whose numbers are of no account: their keys alone are asked."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.core.pictures import Picture
from app.core.vectors.card import KeyCard, VectorCard
from app.core.vectors.file import encode_vector_file
from app.core.vectors.tensors import VectorTensors
from app.library.database import Sessions
from app.library.search.retrieval import Retriever
from app.library.task_keys import add_keys
from app.library.vectors import create_vector, update_vector
from app.method.backbone.loading import Backbone
from app.method.keys.encoder import KeyEncoder, space_id
from app.method.keys.task_key import build_task_key
from benchmarks.abstention.figures import (
    NOTHING,
    Answer,
    accepted,
    ambiguous,
    confusion,
    summary,
    three_rates,
)
from benchmarks.abstention.tasks import Task, looks_like

Rows = npt.NDArray[np.float32]

ITEMS: Final = 0
QUERIES: Final = 1


def rows_of(encoder: KeyEncoder, task: Task, count: int, *, seed: int) -> Rows:
    """`[count, width]`: a draw of the task's items."""
    images, questions = task.draw(count, seed=seed)
    return encoder.encode([Picture.of(image) for image in images], questions)


def same_tasks(task: Task, stored: Sequence[Task]) -> set[str]:
    """The names of all that nothing but the answers tells from this task, itself included."""
    others = {one.name for one in stored if one.same_as == task.name}
    return {task.name, *others, *([task.same_as] if task.same_as else [])}


class TaskLibrary:
    """Stores tasks and asks for them, through the product's own search.

    Args:
        backbone: What the vectors are made for.
        encoder: Makes the keys.
        sessions: Of an empty database.
        retriever: Over the same database, running.
        queries: Of each task.
        seed: Of items and queries.
    """

    def __init__(
        self,
        backbone: Backbone,
        encoder: KeyEncoder,
        *,
        sessions: Sessions,
        retriever: Retriever,
        queries: int,
        seed: int,
    ) -> None:
        self._backbone = backbone
        self._encoder = encoder
        self._sessions = sessions
        self._retriever = retriever
        self._queries = queries
        self._seed = seed
        self._ids: dict[str, uuid.UUID] = {}

    async def measure(self, stored: Sequence[Task], foreign: Sequence[Task]) -> dict[str, Any]:
        """The figures of a library of these tasks alone."""
        await self._set_status(self._ids, "retired")
        for task in stored:
            await self._store(task)
        rows = {
            task.name: rows_of(self._encoder, task, self._queries, seed=2 * self._seed + QUERIES)
            for task in (*stored, *foreign)
        }
        found = {name: await self._ask(asked) for name, asked in rows.items()}
        twins = {name for task in stored if task.same_as for name in (task.name, task.same_as)}
        own = {task.name: found[task.name] for task in stored if task.name not in twins}
        figures = three_rates(own, {task.name: found[task.name] for task in foreign})
        left_out, unseen = {}, {}
        for task in stored:
            gone = same_tasks(task, stored)
            left_out[task.name] = await self._ask_without(gone, rows[task.name])
            alike = {other.name for other in stored if looks_like(task, other)}
            unseen[task.name] = await self._ask_without(gone | alike, rows[task.name])
        figures["false_accept"]["left_out"] = summary(left_out, accepted)
        figures["false_accept"]["pictures_left_out"] = summary(unseen, accepted)
        figures["ambiguous"] = summary({name: found[name] for name in twins}, ambiguous)
        single = [task for task in stored if task.same_as is None]
        await self._set_status({task.name for task in stored if task.same_as}, "retired")
        for part in ("text", "image"):
            figures[f"{part}_only"] = await self._alone(single, foreign, rows=rows, part=part)
        figures["tasks"] = {"stored": len(stored), "foreign": len(foreign)}
        figures["confusion"] = confusion(found)
        return figures

    async def _alone(
        self,
        stored: Sequence[Task],
        foreign: Sequence[Task],
        *,
        rows: Mapping[str, Rows],
        part: str,
    ) -> dict[str, Any]:
        """The same where a query has one part, among tasks that this part tells apart."""
        width = self._encoder.image_width
        other = slice(width, None) if part == "image" else slice(0, width)

        async def ask(tasks: Sequence[Task]) -> dict[str, list[Answer]]:
            found = {}
            for task in tasks:
                if not any(looks_like(task, one, part=part) for one in stored if one != task):
                    half = rows[task.name].copy()
                    half[:, other] = 0
                    found[task.name] = await self._ask(half)
            return found

        return three_rates(await ask(stored), await ask(foreign))

    async def _ask(self, rows: Rows) -> list[Answer]:
        answers = []
        for row in rows:
            result = await self._retriever.search(
                row,
                space=space_id(self._backbone),
                backbone_fingerprint=self._backbone.description.fingerprint,
                k=1,
            )
            name = NOTHING if result.abstained else result.matches[0].vector.name
            answers.append(Answer(name=name, reason=result.reason))
        return answers

    async def _ask_without(self, names: Collection[str], rows: Rows) -> list[Answer]:
        await self._set_status(names, "retired")
        found = await self._ask(rows)
        await self._set_status(names, "ready")
        return found

    async def _set_status(self, names: Collection[str], status: Any) -> None:  # noqa: ANN401
        async with self._sessions() as session, session.begin():
            for name in names:
                await update_vector(session, self._ids[name], status=status)

    async def _store(self, task: Task) -> None:
        rows = rows_of(self._encoder, task, task.items, seed=2 * self._seed + ITEMS)
        key = build_task_key(rows, image_width=self._encoder.image_width)
        async with self._sessions() as session, session.begin():
            vector = await create_vector(
                session,
                name=task.name,
                blob=_vector_file(self._backbone),
                backbone=self._backbone.description,
                card=VectorCard(status="ready"),
            )
            card = KeyCard.of(
                key.exemplars,
                space=space_id(self._backbone),
                threshold=key.threshold,
                text_threshold=key.text_threshold,
                image_width=key.image_width,
            )
            await add_keys(session, card, vector_id=vector.id)
        self._ids[task.name] = vector.id


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
