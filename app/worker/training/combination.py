"""A job that combines stored vectors: what it needs, its steps, and where its result goes."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.vectors.card import MAX_SHOTS, VectorCard
from app.core.vectors.file import decode_vector_file, encode_vector_file
from app.library.catalogue.combination import METHOD, settings_of
from app.library.database import Sessions
from app.library.datasets import get_dataset
from app.library.evaluations import add_evaluation
from app.library.records import JobRecord, VectorRecord
from app.library.training.attempts import finish_job
from app.library.vector_rows import get_blob
from app.library.vectors import create_vector, get_vector
from app.method.adaptation.combination import CombinationResult, combination_steps
from app.method.adaptation.problem import Problem
from app.method.backbone.features import FeatureCache
from app.method.backbone.loading import Backbone
from app.method.steering.vectors import InContextVectors
from app.method.training.progress import Reporter, Steps
from app.worker.training.results import SPLIT, judged, measured_of, software
from app.worker.training.unseen import Load, Store, leave_out_seen


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
    spec: Mapping[str, Any] = job.config[job.kind]
    ids = [uuid.UUID(text) for text in spec["parts"]]
    async with sessions() as session:
        dataset = await get_dataset(session, job.dataset_id)
        parts = [await get_vector(session, one) for one in ids]
        blobs = [await get_blob(session, one) for one in ids]
    items = await load(dataset, job.config.get("split"))
    unseen, seen = await leave_out_seen(items, ids, sessions=sessions, load=load)

    def combining() -> Steps[CombinationResult]:
        # The cache asks the tokenizer, which belongs to the device thread.
        problem = Problem(
            items=unseen,
            validation=(),
            features=FeatureCache(backbone),
            seed=spec["seed"],
            token_budget=token_budget,
        )
        result = yield from combination_steps(
            problem,
            [InContextVectors.from_tensors(decode_vector_file(blob)[0]) for blob in blobs],
            rule=spec["rule"],
            reporter=Reporter(should_stop=should_stop),
        )
        return result

    async def store(session: AsyncSession, *, token: int, result: CombinationResult) -> None:
        """Stores the combination with its parents. It gets no keys: `auto` goes on finding them."""
        combined, comparison, _ = result
        settings = {"rule": spec["rule"], **settings_of(parts, combined.weights)}
        report = {"rule": spec["rule"], **_report(result, parts=parts), **seen}
        measured = measured_of(comparison, dataset=dataset.name, split=SPLIT)
        card = VectorCard(
            status=comparison.verdict.status,
            shots=min(MAX_SHOTS, sum(part.shots for part in parts)),
            seed=spec["seed"],
            dataset_sha256=dataset.sha256,
            hyper_parameters=settings,
            library_versions=software(),
            evaluations=(measured,),
        )
        described = parts[0].backbone
        blob = encode_vector_file(
            combined.vectors.to_tensors(),
            metadata={
                "method": METHOD,
                "backbone": described.fingerprint,
                **card.to_metadata(),
            },
        )
        vector = await create_vector(
            session,
            name=job.name,
            blob=blob,
            backbone=described,
            card=card,
            method=METHOD,
            job_id=job.id,
            parents=[part.id for part in parts],
            description=job.description,
            tags=job.tags,
        )
        await add_evaluation(session, vector_id=vector.id, measured=measured, details=report)
        await finish_job(session, job.id, token, vector_id=vector.id, report=report)

    return combining(), store


def _report(result: CombinationResult, *, parts: Sequence[VectorRecord]) -> dict[str, Any]:
    combined, comparison, each = result
    gain = comparison.gains["best_part"]
    each_part = [
        {"vector": f"{part.name}@{part.version}", "weight": weight, **asdict(one)}
        for part, weight, one in zip(parts, combined.weights, each, strict=True)
    ]
    best = each_part[combined.best]["vector"]
    beside = (
        f"Its gain over its best part, {best}, is {gain.mean:+.1%}, 95 % interval "
        f"{gain.low:+.1%} to {gain.high:+.1%}."
    )
    return {
        **judged(comparison.verdict),
        "reason": f"{comparison.verdict.reason} {beside}",
        "items": comparison.items,
        "shots": 0,
        "conditions": {name: asdict(one) for name, one in comparison.conditions.items()},
        "best_part": best,
        "parts": each_part,
        "gain_over_best_part": asdict(gain),
        "seconds": round(comparison.seconds, 3),
    }
