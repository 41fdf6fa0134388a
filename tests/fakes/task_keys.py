"""Vectors with keys in a space of four numbers."""

import uuid
from collections.abc import Iterable

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.states import TrainedStatus
from app.core.vectors.card import KeyCard
from app.library.task_keys import Float32Array, add_keys
from tests.fakes.library import store
from tests.fakes.vectors import FINGERPRINT, make_description

SPACE = "tower:1"
NOTHING = np.empty((0, 4), np.float32)


def axis(number: int, *, towards: int | None = None, share: float = 0.0) -> Float32Array:
    vector = np.zeros(4, np.float32)
    vector[number] = 1 - share
    if towards is not None:
        vector[towards] = share
    return vector


def card_of(rows: Iterable[Float32Array], *, threshold: float = 0.5) -> KeyCard:
    return KeyCard.of(np.stack(list(rows)), space=SPACE, threshold=threshold)


async def put(
    session: AsyncSession,
    name: str,
    key: Float32Array,
    *,
    exemplars: Float32Array = NOTHING,
    threshold: float = 0.5,
    status: TrainedStatus = "ready",
    fingerprint: str = FINGERPRINT,
) -> uuid.UUID:
    vectors = await store(session, name, backbone=make_description(fingerprint), status=status)
    await add_keys(session, card_of([key, *exemplars], threshold=threshold), vector_id=vectors.id)
    await session.commit()
    return vectors.id
