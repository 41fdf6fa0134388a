"""Names of models in the OpenAI-compatible API: a backbone, and perhaps what steers it.

Knows no shape of a request.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.api.choosing import AUTO
from app.api.dependencies import Services
from app.core.backbones import BackboneDescription
from app.core.errors import InvalidInputError, NotFoundError
from app.core.identifiers import VectorReference
from app.library.database import run_transaction
from app.library.pages import Page
from app.library.records import VectorRecord
from app.library.vectors import get_vector, list_vectors

SEPARATOR: Final = ":"
PAGE: Final = 200
MAX_LISTED_VECTORS: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class NamedModel:
    """What the name of a model says.

    Attributes:
        backbone: Who answers.
        vector: The reference of what steers it, or `auto`, or nothing.
    """

    backbone: BackboneDescription
    vector: str | None


async def named_model(services: Services, name: str) -> NamedModel:
    """The backbone and the vector of a model's name; the vector need not exist.

    Raises:
        NotFoundError: No backbone of that name is served, or what follows is no reference.
        WorkerUnavailableError: No backbone is served at all.
    """
    served = {found.name: found for found in await served_backbones(services)}
    # Backbones may have the separator in their names, so the longest one that fits is meant.
    for known in sorted(served, key=len, reverse=True):
        if name == known:
            return NamedModel(backbone=served[known], vector=None)
        if name.startswith(known + SEPARATOR):
            vector = _checked_reference(name.removeprefix(known + SEPARATOR))
            return NamedModel(backbone=served[known], vector=vector)
    raise _no_model()


def _checked_reference(text: str) -> str:
    try:
        VectorReference.parse(text)
    except InvalidInputError as error:
        raise _no_model() from error
    return text


def _no_model() -> NotFoundError:
    return NotFoundError(
        "There is no such model; a model is <backbone>, <backbone>:<vector> or <backbone>:auto",
        details={"param": "model"},
    )


async def served_backbones(services: Services) -> tuple[BackboneDescription, ...]:
    """The backbones that workers serve now; at least one.

    Raises:
        WorkerUnavailableError: There is none.
    """
    serving = await services.serving.now()
    return tuple({health.backbone.fingerprint: health.backbone for health in serving}.values())


async def existing_vector(services: Services, model: NamedModel) -> VectorRecord | None:
    """The stored vector of a model; None when it names none, or leaves the choice to retrieval.

    Raises:
        NotFoundError: There is none of that name for the model's backbone.
    """
    reference = model.vector
    if reference is None or reference == AUTO:
        return None

    async def work(session: AsyncSession) -> VectorRecord:
        return await get_vector(session, VectorReference.parse(reference))

    try:
        record = await run_transaction(services.sessions, work)
    except NotFoundError as error:
        raise _no_model() from error
    if record.backbone.fingerprint != model.backbone.fingerprint:
        raise _no_model()
    return record


async def ready_vectors(
    services: Services, backbone: BackboneDescription
) -> AsyncIterator[VectorRecord]:
    """The vectors that are ready for the backbone, newest first and at most 10,000."""
    cursor: str | None = None
    for _ in range(MAX_LISTED_VECTORS // PAGE):

        async def work(session: AsyncSession, cursor: str | None = cursor) -> Page[VectorRecord]:
            return await list_vectors(
                session,
                backbone=backbone.fingerprint,
                status="ready",
                limit=PAGE,
                cursor=cursor,
            )

        page = await run_transaction(services.sessions, work)
        for record in page.items:
            yield record
        cursor = page.next_cursor
        if cursor is None:
            return


def model_name(backbone: BackboneDescription, record: VectorRecord | None = None) -> str:
    """How a backbone is called, alone or with exactly one version of a vector."""
    if record is None:
        return backbone.name
    return f"{backbone.name}{SEPARATOR}{record.name}@{record.version}"
