"""A job that measures a stored vector on a stored data set: what it needs, and where it goes."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import InvalidDatasetError
from app.core.vectors.file import decode_vector_file
from app.library.database import Sessions
from app.library.datasets import get_dataset
from app.library.evaluations import add_evaluation
from app.library.records import JobRecord
from app.library.training.attempts import finish_job
from app.library.vector_rows import get_blob
from app.library.vectors import get_vector
from app.method.adaptation.measurement import measurement_steps
from app.method.adaptation.problem import Problem
from app.method.backbone.examples import Example
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.backbone.randomness import generator_for
from app.method.steering.vectors import InContextVectors
from app.method.training.progress import Reporter, Steps
from app.method.training.selection.comparison import Comparison
from app.worker.training.results import judged, measured_of
from app.worker.training.unseen import Load, Store, leave_out_seen

WHOLE: Final = "all"
"""What the part is called of a data set that names none."""


async def prepare_evaluation(
    job: JobRecord,
    *,
    backbone: Backbone,
    sessions: Sessions,
    load: Load,
    token_budget: int,
    should_stop: Callable[[], bool],
) -> tuple[Steps[Comparison], Store]:
    """The job as steps for the device, and what stores their result in a transaction.

    Raises:
        NotFoundError: The vector or the data set was deleted.
        InvalidDatasetError: There is no item that the vector was not trained on.
        CorruptDataError: A stored file has changed.
    """
    spec: Mapping[str, Any] = job.config[job.kind]
    vector_id = uuid.UUID(spec["vector"])
    async with sessions() as session:
        dataset = await get_dataset(session, job.dataset_id)
        vector = await get_vector(session, vector_id)
        blob = await get_blob(session, vector_id)
    split, support_split = job.config.get("split"), spec.get("support_split")
    items = await load(dataset, split)
    unseen, seen = await leave_out_seen(items, [vector_id], sessions=sessions, load=load)
    if not unseen:
        raise InvalidDatasetError(
            f"Nothing to measure {vector.name}@{vector.version} with: wanted items whose pictures "
            f"it was not trained on, found none among {len(items)}",
            details={"items": len(items), "left_out": seen["left_out"]},
        )
    tensors, metadata = decode_vector_file(blob)
    labels = metadata.get("labels", "")
    support = items if support_split == split else await load(dataset, support_split)

    def measuring() -> Steps[Comparison]:
        # The cache asks the tokenizer, which belongs to the device thread.
        problem = Problem(
            items=support,
            validation=(),
            features=FeatureCache(backbone),
            shots=spec["shots"],
            seed=spec["seed"],
            token_budget=token_budget,
        )
        result = yield from measurement_steps(
            problem,
            _drawn(unseen, count=spec["items"], seed=spec["seed"]),
            InContextVectors.from_tensors(tensors),
            methods=spec["methods"],
            reporter=Reporter(should_stop=should_stop),
        )
        return result

    async def store(session: AsyncSession, *, token: int, result: Comparison) -> None:
        # The vector's state stays: one data set says nothing of others.
        part = split or WHOLE
        report = {
            "dataset": dataset.name,
            "split": part,
            **_report(result, labels=int(labels) if labels.isdecimal() else None),
            **seen,
        }
        measured = measured_of(result, dataset=dataset.name, split=part)
        await add_evaluation(session, vector_id=vector.id, measured=measured, details=report)
        await finish_job(session, job.id, token, vector_id=vector.id, report=report)

    return measuring(), store


def _drawn(items: tuple[Example, ...], *, count: int, seed: int) -> tuple[Example, ...]:
    """So many of them at most, in their order."""
    places = generator_for(seed, "evaluation").permutation(len(items))[:count]
    return tuple(items[place] for place in sorted(places.tolist()))


def _report(result: Comparison, *, labels: int | None) -> dict[str, Any]:
    """`labels` counts what the vector was trained with, if its file says so."""
    conditions = {
        name: {**asdict(one), "ms_per_query": round(result.milliseconds[name], 3)}
        for name, one in result.conditions.items()
    }
    conditions["m2iv"]["labels"] = labels
    return {
        **judged(result.verdict),
        "items": result.items,
        "shots": result.shots,
        "conditions": conditions,
        "gains": {name: asdict(gain) for name, gain in result.gains.items()},
        "seconds": round(result.seconds, 3),
    }
