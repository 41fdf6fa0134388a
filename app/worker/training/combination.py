"""A job that combines stored vectors: what it needs, its steps, and where its result goes."""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.identifiers import VectorReference
from app.core.jobs import Rule
from app.core.vector_card import EvaluationCard, VectorCard
from app.core.vector_file import decode_vector_file, encode_vector_file
from app.library.catalogue.combination import METHOD, settings_of
from app.library.database import Sessions
from app.library.datasets import get_dataset
from app.library.evaluations import add_evaluation
from app.library.records import DatasetRecord, JobRecord, VectorRecord
from app.library.training.attempts import finish_job
from app.library.vector_rows import get_blob
from app.library.vectors import create_vector, get_vector
from app.method.adaptation.adapted import Problem
from app.method.adaptation.combination import CombinationResult, combination_steps
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import InContextVectors
from app.method.training.progress import Reporter, Steps
from app.worker.training.results import SPLIT, judged, measured_of, software
from app.worker.training.unseen import Load, Store, Unseen, leave_out_seen

SETTING: Final = "combine"


@dataclass(frozen=True, kw_only=True, eq=False)
class Combination:
    """What is combined, and with which items."""

    rule: Rule
    seed: int
    dataset: DatasetRecord
    parts: tuple[VectorRecord, ...]
    unseen: Unseen


async def prepare_combination(
    job: JobRecord,
    *,
    backbone: Backbone,
    sessions: Sessions,
    load: Load,
    token_budget: int,
    should_stop: Callable[[], bool],
) -> tuple[Steps[CombinationResult], Store]:
    """The job as steps for the device, and what stores their result in a transaction.

    Raises:
        NotFoundError: A part or the data set was deleted.
        CorruptDataError: A stored file has changed.
    """
    order: Mapping[str, Any] = job.config[SETTING]
    ids = [uuid.UUID(text) for text in order["parts"]]
    async with sessions() as session:
        dataset = await get_dataset(session, job.dataset_id)
        parts = [await get_vector(session, VectorReference(id=one)) for one in ids]
        blobs = [await get_blob(session, one) for one in ids]
    items = await load(dataset, job.config.get("split"))
    unseen = await leave_out_seen(items, ids, sessions=sessions, load=load)
    combination = Combination(
        rule=order["rule"],
        seed=order["seed"],
        dataset=dataset,
        parts=tuple(parts),
        unseen=unseen,
    )

    def combining() -> Steps[CombinationResult]:
        # The cache asks the tokenizer, which belongs to the device thread.
        problem = Problem(
            backbone=backbone,
            items=unseen.items,
            validation=(),
            features=FeatureCache(backbone),
            seed=combination.seed,
            token_budget=token_budget,
        )
        result = yield from combination_steps(
            problem,
            [InContextVectors.from_tensors(decode_vector_file(blob)[0]) for blob in blobs],
            rule=combination.rule,
            reporter=Reporter(should_stop=should_stop),
        )
        return result

    return combining(), partial(store_combination, order=combination)


async def store_combination(
    session: AsyncSession,
    *,
    order: Combination,
    job: JobRecord,
    token: int,
    result: CombinationResult,
) -> VectorRecord:
    """The stored combination with its parents, its measurement and the job's success.

    It gets no keys: `auto` goes on finding the parts.

    Raises:
        ConflictError: The job is no longer this worker's.
    """
    backbone = order.parts[0].backbone
    settings = {
        "rule": order.rule,
        **settings_of(order.parts, result.combined.weights),
    }
    report = _report(order, result)
    measured = EvaluationCard(
        dataset=order.dataset.name[:200],
        split=SPLIT,
        **measured_of(result.conditions, items=result.items),
    )
    card = VectorCard(
        status=result.verdict.status,
        shots=sum(part.shots for part in order.parts),
        seed=order.seed,
        dataset_sha256=order.dataset.sha256,
        hyper_parameters=settings,
        library_versions=software(),
        evaluations=(measured,),
    )
    blob = encode_vector_file(
        result.combined.vectors.to_tensors(),
        metadata={
            "method": METHOD,
            "backbone": backbone.fingerprint,
            **card.to_metadata(),
        },
    )
    vector = await create_vector(
        session,
        name=job.name,
        blob=blob,
        backbone=backbone,
        method=METHOD,
        shots=card.shots,
        dataset_sha256=order.dataset.sha256,
        job_id=job.id,
        parents=[part.id for part in order.parts],
        hyper_parameters=settings,
        seed=order.seed,
        library_versions=software(),
        status=result.verdict.status,
        description=job.description,
        tags=job.tags,
    )
    await add_evaluation(session, vector_id=vector.id, details=report, **measured.model_dump())
    await finish_job(session, job.id, token, vector_id=vector.id, report=report)
    return vector


def _report(combination: Combination, result: CombinationResult) -> dict[str, Any]:
    gain = result.gain
    parts = [
        {"vector": f"{part.name}@{part.version}", "weight": weight, **asdict(one)}
        for part, weight, one in zip(
            combination.parts, result.combined.weights, result.parts, strict=True
        )
    ]
    best = parts[result.combined.best]["vector"]
    beside = (
        f"Its gain over its best part, {best}, is {gain.mean:+.1%}, 95 % interval "
        f"{gain.low:+.1%} to {gain.high:+.1%}."
    )
    return {
        **judged(result.verdict),
        "reason": f"{result.verdict.reason} {beside}",
        "items": result.items,
        "shots": 0,
        "conditions": {name: asdict(one) for name, one in result.conditions.items()},
        "rule": combination.rule,
        "best_part": best,
        "parts": parts,
        "gain_over_best_part": asdict(gain),
        "left_out": combination.unseen.left_out,
        "unchecked": list(combination.unseen.unchecked),
        "seconds": round(result.seconds, 3),
    }
