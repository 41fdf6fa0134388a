"""Does a queued training job without training: claims it, reports, stores a vector and its key."""

import uuid
from collections.abc import Callable

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.backbones import BackboneDescription
from app.core.errors import JSON
from app.core.vectors.card import EvaluationCard, KeyCard, VectorCard
from app.core.vectors.file import encode_vector_file
from app.core.vectors.tensors import VectorTensors
from app.library.evaluations import add_evaluation
from app.library.records import VectorRecord
from app.library.task_keys import add_keys
from app.library.training.attempts import (
    claim_job,
    fail_job,
    finish_job,
    heartbeat,
    release_job,
)
from app.library.vectors import create_vector
from tests.fakes.servers.worker import SPACE

Sessions = async_sessionmaker[AsyncSession]


def vector_file(
    backbone: BackboneDescription, *, seed: int = 0, num_layers: int | None = None
) -> bytes:
    """A well-formed file for the backbone, different for every seed."""
    layers = backbone.num_layers if num_layers is None else num_layers
    values = np.random.default_rng(seed).standard_normal((2, layers, backbone.hidden_size))
    attention, mlp = values.astype(np.float32)
    weights = np.full(layers, 0.1, dtype=np.float32)
    tensors = VectorTensors(
        attention_vectors=attention,
        mlp_vectors=mlp,
        attention_weights=weights,
        mlp_weights=weights,
    )
    metadata = {"method": "m2iv", "backbone": backbone.fingerprint, "shots": "16"}
    return encode_vector_file(tensors, metadata=metadata)


async def store_vector(
    sessions: Sessions,
    backbone: BackboneDescription,
    *,
    name: str = "colours",
    seed: int = 0,
    key: list[float] | None = None,
    threshold: float = 0.5,
) -> VectorRecord:
    async with sessions() as session, session.begin():
        record = await create_vector(
            session,
            name=name,
            blob=vector_file(backbone, seed=seed),
            backbone=backbone,
            card=VectorCard(
                status="ready",
                shots=16,
                hyper_parameters={"epochs": 1},
                seed=seed,
                library_versions={"torch": "0"},
            ),
            tags=["stored"],
        )
        if key is not None:
            rows = np.array([key], dtype=np.float32)
            card = KeyCard.of(rows, space=SPACE, threshold=threshold)
            await add_keys(session, card, vector_id=record.id)
    return record


def progress(step: int, num_steps: int = 4) -> dict[str, JSON]:
    return {
        "phase": "student",
        "step": step,
        "num_steps": num_steps,
        "losses": {"total": 1.0 / (step + 1), "odd": float("nan")},
        "learning_rate": 0.01,
        "items_per_second": 5.0,
        "eta_seconds": None,
        "held_out_accuracy": 0.5,
    }


async def begin(sessions: Sessions, job_id: uuid.UUID) -> int:
    async with sessions() as session, session.begin():
        _, token = await claim_job(session, job_id)
    return token


async def report(sessions: Sessions, job_id: uuid.UUID, token: int, *, step: int) -> bool:
    async with sessions() as session, session.begin():
        return await heartbeat(session, job_id, token, progress=progress(step))


async def fail(sessions: Sessions, job_id: uuid.UUID, *, code: str, message: str) -> None:
    token = await begin(sessions, job_id)
    async with sessions() as session, session.begin():
        await fail_job(session, job_id, token, code=code, message=message)


async def cancel(sessions: Sessions, job_id: uuid.UUID, token: int) -> None:
    async with sessions() as session, session.begin():
        await release_job(session, job_id, token)


async def do_job(
    sessions: Sessions,
    job_id: uuid.UUID,
    *,
    backbone: BackboneDescription,
    key: list[float],
    steps: int = 3,
    between: Callable[[], None] = lambda: None,
) -> VectorRecord:
    token = await begin(sessions, job_id)
    for step in range(steps):
        await report(sessions, job_id, token, step=step)
        between()
    vector = await store_vector(sessions, backbone, key=key)
    async with sessions() as session, session.begin():
        await add_evaluation(
            session,
            vector_id=vector.id,
            measured=EvaluationCard(
                dataset="colours",
                split="held-out",
                scorer="exact-answer",
                items=10,
                accuracy=0.9,
                low=0.6,
                high=0.98,
                zero_shot=0.5,
            ),
        )
        await finish_job(session, job_id, token, vector_id=vector.id)
    return vector
