"""Names of models in the OpenAI-compatible API: a backbone, and perhaps what steers it."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from app.api.dependencies import Services
from app.api.schemas.openai.answers import ModelBody
from app.core.backbones import BackboneDescription
from app.core.errors import InvalidInputError, NotFoundError
from app.core.identifiers import AUTO, VectorReference
from app.library.records import VectorRecord
from app.library.vectors import get_vector

SEPARATOR: Final = ":"


async def named_model(
    services: Services, name: str
) -> tuple[Sequence[BackboneDescription], str | None]:
    """The backbones, at least one, that a model's name can mean, and the vector in it.

    The vector is a reference to one that need not exist, or `auto`.

    Raises:
        NotFoundError: No backbone of that name is served, or what follows is no reference.
        WorkerUnavailableError: No backbone is served at all.
    """
    served = await served_backbones(services)
    # Backbones may have the separator in their names, so the longest one that fits is meant.
    for known in sorted({backbone.name for backbone in served}, key=len, reverse=True):
        backbones = [backbone for backbone in served if backbone.name == known]
        if name == known:
            return backbones, None
        if name.startswith(known + SEPARATOR):
            reference = name.removeprefix(known + SEPARATOR)
            try:
                VectorReference.parse(reference)
            except InvalidInputError as error:
                raise _no_model(served) from error
            return backbones, reference
    raise _no_model(served)


def _no_model(served: Sequence[BackboneDescription]) -> NotFoundError:
    names = ", ".join(sorted({backbone.name for backbone in served}))
    return NotFoundError(
        "There is no such model; a model is <backbone>, <backbone>:<vector> or <backbone>:auto, "
        f"with a backbone of those served: {names}",
        details={"param": "model"},
    )


async def served_backbones(services: Services) -> tuple[BackboneDescription, ...]:
    """The backbones that workers serve now; at least one.

    Raises:
        WorkerUnavailableError: There is none.
    """
    serving = await services.workers.pool.serving()
    return tuple({health.backbone.fingerprint: health.backbone for health in serving}.values())


async def existing_model(
    services: Services, session: AsyncSession, name: str
) -> tuple[BackboneDescription, VectorRecord | None]:
    """A model's backbone and stored vector: none where the name leaves the choice to retrieval.

    Raises:
        NotFoundError: There is no such model.
        WorkerUnavailableError: No backbone is served at all.
    """
    backbones, reference = await named_model(services, name)
    if reference is None or reference == AUTO:
        return backbones[0], None
    try:
        record = await get_vector(session, reference)
    except NotFoundError as error:
        raise _no_model(backbones) from error
    fitting = (one for one in backbones if one.fingerprint == record.backbone.fingerprint)
    backbone = next(fitting, None)
    if backbone is None:
        raise _no_model(backbones)
    return backbone, record


def model_name(backbone: BackboneDescription, record: VectorRecord | None = None) -> str:
    """How a backbone is called, alone or with exactly one version of a vector."""
    if record is None:
        return backbone.name
    return f"{backbone.name}{SEPARATOR}{record.name}@{record.version}"


def model_body(
    backbone: BackboneDescription, record: VectorRecord | None = None, *, name: str | None = None
) -> ModelBody:
    """A model as clients are told, under its own name or the one that they know it by."""
    own = model_name(backbone, record)
    return ModelBody(
        id=own if name is None else name,
        created=0 if record is None else int(record.created.timestamp()),
        root=backbone.name if record is None else f"{record.name}@{record.version}",
        parent=None if record is None else backbone.name,
        max_model_len=backbone.max_position_embeddings or None,
    )
