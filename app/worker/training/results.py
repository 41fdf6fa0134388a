"""Where tensors become records: a training's result with its job's success, or nothing at all."""

import platform
from importlib.metadata import version
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.vector_file import encode_vector_file
from app.core.version import software_version
from app.library.attempts import finish_job
from app.library.evaluations import add_evaluation
from app.library.keys import add_keys
from app.library.records import DatasetRecord, JobRecord, VectorRecord
from app.library.vectors import create_vector
from app.method.backbone.embedding import space_id
from app.method.backbone.loading import Backbone
from app.method.training.configuration import TrainingConfig
from app.method.training.distillation import TrainingResult

METHOD: Final = "m2iv"
SPLIT: Final = "held-out"
SCORER: Final = "exact-answer"
_PACKAGES: Final = ("torch", "transformers", "tokenizers", "numpy")


def encode_result(backbone: Backbone, result: TrainingResult) -> bytes:
    """The vector file of a training."""
    return encode_vector_file(
        result.vectors.to_tensors(),
        metadata={
            "method": METHOD,
            "backbone": backbone.description.fingerprint,
            "created_by": f"vlibrary {software_version()}",
        },
    )


def software() -> dict[str, str]:
    """Versions of what a training depends on."""
    return {
        "python": platform.python_version(),
        "vlibrary": software_version(),
        **{name: version(name) for name in _PACKAGES},
    }


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
    vector = await create_vector(
        session,
        name=job.name,
        blob=encode_result(backbone, result),
        backbone=backbone.description,
        method=METHOD,
        shots=config.shots,
        dataset_sha256=dataset.sha256,
        job_id=job.id,
        hyper_parameters=config.to_dict(),
        seed=config.seed,
        library_versions=software(),
        status="collapsed" if is_collapsed(result) else "ready",
        description=job.description,
        tags=job.tags,
    )
    await _store_measurement(session, vector=vector, dataset=dataset, result=result)
    await add_keys(
        session,
        vector_id=vector.id,
        space=space_id(backbone),
        centroid=result.key.centroid,
        exemplars=result.key.exemplars,
        threshold=result.key.threshold,
    )
    await finish_job(session, job.id, token, vector_id=vector.id)
    return vector


def is_collapsed(result: TrainingResult) -> bool:
    """Whether the vectors answer worse than no vectors on pictures they were not trained on."""
    report = result.held_out
    return report is not None and report.steered.mean < report.zero_shot.mean


async def _store_measurement(
    session: AsyncSession, *, vector: VectorRecord, dataset: DatasetRecord, result: TrainingResult
) -> None:
    report = result.held_out
    if report is None:
        return
    details: dict[str, Any] = {
        "teacher_accuracy": result.teacher_accuracy,
        "train_seconds": round(result.seconds, 3),
        "last_losses": result.losses[-1] if result.losses else {},
    }
    await add_evaluation(
        session,
        vector_id=vector.id,
        dataset=dataset.name,
        split=SPLIT,
        scorer=SCORER,
        items=report.items,
        accuracy=report.steered.mean,
        low=report.steered.low,
        high=report.steered.high,
        zero_shot=report.zero_shot.mean,
        icl=report.icl.mean,
        details=details,
    )
