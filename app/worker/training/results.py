"""Where tensors become records: a training's result with its job's success, or nothing at all."""

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.pixels import PIXELS_VERSION
from app.core.states import ADVICE, LOOKS_RANDOM
from app.core.vectors.card import EvaluationCard, KeyCard, VectorCard
from app.core.vectors.file import encode_vector_file
from app.core.version import software_version
from app.library.evaluations import add_evaluation
from app.library.records import DatasetRecord, JobRecord, VectorRecord
from app.library.search.overlaps import find_overlaps
from app.library.training.attempts import finish_job
from app.library.vectors import create_vector
from app.method.backbone.loading import Backbone
from app.method.evaluation.verdict import Verdict
from app.method.keys.encoder import space_id
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import TrainingResult
from app.method.training.selection.comparison import Comparison

METHOD: Final = "m2iv"
SPLIT: Final = "held-out"
SCORER: Final = "exact-answer"
_OPPONENTS: Final = ("zero_shot", "icl", "knn_icl")
_PACKAGES: Final = ("torch", "transformers", "tokenizers", "numpy")


def card_of(
    backbone: Backbone,
    result: TrainingResult,
    *,
    config: TrainingConfig,
    dataset: str,
    dataset_sha256: str | None = None,
) -> VectorCard:
    """What a training says of its vectors: all that another library needs to find them."""
    key = result.key
    return VectorCard(
        status=result.verdict.status,
        shots=result.shots,
        seed=config.seed,
        dose=result.dose,
        max_dose=result.max_dose,
        dataset_sha256=dataset_sha256,
        hyper_parameters=config.model_dump(),
        library_versions=software(),
        key=None
        if key is None
        else KeyCard.of(
            key.exemplars,
            space=space_id(backbone),
            threshold=key.threshold,
            text_threshold=key.text_threshold,
            image_width=key.image_width,
        ),
        evaluations=()
        if result.held_out is None
        else (measured_of(result.held_out, dataset=dataset, split=SPLIT),),
    )


def encode_result(backbone: Backbone, result: TrainingResult, *, card: VectorCard) -> bytes:
    """The vector file of a training."""
    return encode_vector_file(
        result.vectors.to_tensors(),
        metadata={
            "method": METHOD,
            "backbone": backbone.description.fingerprint,
            "created_by": f"vlibrary {software_version()}",
            "dose": f"{result.dose:.6g}",
            "max_dose": f"{result.max_dose:.6g}",
            "labels": str(result.num_labels),
            **card.to_metadata(),
        },
    )


def software() -> dict[str, str]:
    """Versions of what a training depends on."""
    return {
        "python": platform.python_version(),
        "vlibrary": software_version(),
        # How files became pixels: the same file may show another picture to a later version.
        "pixels": str(PIXELS_VERSION),
        **{name: version(name) for name in _PACKAGES},
    }


def measured_of(comparison: Comparison, *, dataset: str, split: str) -> EvaluationCard:
    """A measurement of vectors beside their opponents."""
    conditions = comparison.conditions
    own = conditions["m2iv"]
    return EvaluationCard(
        # A command's is a path.
        dataset=dataset[:200],
        split=split,
        scorer=SCORER,
        items=comparison.items,
        accuracy=own.accuracy,
        low=own.low,
        high=own.high,
        **{name: conditions[name].accuracy for name in _OPPONENTS if name in conditions},
    )


async def store_result(
    session: AsyncSession,
    *,
    job: JobRecord,
    token: int,
    dataset: DatasetRecord,
    backbone: Backbone,
    config: TrainingConfig,
    result: TrainingResult,
) -> VectorRecord:
    """The stored vectors, with their measurement, their keys and the job's success.

    All of it becomes visible with the caller's commit. The job's row is judged by the fencing
    token, so what a worker stores that lost its job is rolled back.

    Raises:
        ConflictError: The job is no longer this worker's.
    """
    card = card_of(
        backbone, result, config=config, dataset=dataset.name, dataset_sha256=dataset.sha256
    )
    overlaps: list[str] = []
    if card.key is not None:
        # Before the name and the space are locked, for which others would wait.
        overlaps = await find_overlaps(
            session,
            card.key,
            name=job.name,
            backbone_fingerprint=backbone.description.fingerprint,
        )
    vector = await create_vector(
        session,
        name=job.name,
        blob=encode_result(backbone, result, card=card),
        backbone=backbone.description,
        card=card,
        method=METHOD,
        job_id=job.id,
        description=job.description,
        tags=job.tags,
    )
    report = {**report_of(result, config), "overlaps": overlaps}
    details = {
        **report,
        "train_seconds": round(result.seconds, 3),
        "last_losses": result.losses[-1] if result.losses else {},
    }
    for measured in card.evaluations:
        await add_evaluation(session, vector_id=vector.id, measured=measured, details=details)
    await finish_job(session, job.id, token, vector_id=vector.id, report=report)
    return vector


def report_of(result: TrainingResult, config: TrainingConfig) -> dict[str, Any]:
    """How a training ended, in JSON values: what a job and the command say of it."""
    held_out = result.held_out
    return {
        **judged(result.verdict),
        "items": 0 if held_out is None else held_out.items,
        "shots": 0 if held_out is None else held_out.shots,
        "conditions": {} if held_out is None else asdict(held_out)["conditions"],
        "teacher_accuracy": result.teacher_accuracy,
        # Before a query of the teacher at most.
        "demonstrations": {"wanted": config.shots, "found": result.shots},
        "recipe": result.recipe,
        # Of vectors for texts alone, which `auto` does not look for.
        "is_found_by_auto": result.key is not None,
        "dose": result.dose,
        "max_dose": result.max_dose,
        "seconds": round(result.seconds, 3),
    }


def judged(verdict: Verdict) -> dict[str, Any]:
    """What held-out items showed, and what to do about it."""
    advice = ADVICE[verdict.status]
    return {
        "status": verdict.status,
        "reason": verdict.reason,
        "advice": f"{LOOKS_RANDOM} {advice}" if verdict.looks_random else advice,
        "looks_random": verdict.looks_random,
    }
