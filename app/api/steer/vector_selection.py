"""From what a caller asks to be steered by to what is stored: by reference, or retrieved.

The vectors of the server's policy are added to whatever was chosen and never displaced by it; a
chosen vector may still work against them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.dependencies import Services
from app.api.schemas.steering import (
    AutoRetrievalBody,
    DemonstrationsChoice,
    SteerRequest,
    VectorChoice,
)
from app.core.access import DEFAULT_WORKSPACE
from app.core.errors import InvalidInputError, NotFoundError, SteeringError
from app.core.identifiers import AUTO
from app.core.settings import PolicyVector
from app.core.splits import choose_split
from app.library.catalogue.filters import VectorFilters
from app.library.datasets import get_dataset
from app.library.records import VectorRecord
from app.library.search.verdicts import RetrievalResult
from app.library.vectors import get_vector
from app.library.workspaces import seeing
from app.rpc.backbones import backbone_for
from app.rpc.messages import DemonstrationsUse, EmbedRequest, HealthResponse, VectorUse

Source: TypeAlias = Literal["request", "retrieval", "policy"]


@dataclass(frozen=True)
class ChosenVector:
    """A stored vector, how strongly it shall be applied, and who asked for it."""

    record: VectorRecord
    strength: float
    source: Source = "request"

    def to_wire(self) -> VectorUse:
        """As the worker is told."""
        return VectorUse(
            sha256=self.record.sha256,
            name=self.record.name,
            version=self.record.version,
            strength=self.strength,
        )


async def look_up(
    session: AsyncSession, body: SteerRequest, *, policy: Sequence[PolicyVector]
) -> tuple[list[ChosenVector], list[ChosenVector], DemonstrationsUse | None]:
    """The vectors that the request names, those of the policy, and the demonstrations.

    Nothing of it is what retrieval is to find.

    Raises:
        NotFoundError: There is no such vector or data set.
        InvalidInputError: A reference is malformed, or two name the same vector.
        InvalidDatasetError: It is not told which of the data set's splits is meant.
        SteeringError: Of the policy one is missing or named twice, so that no answer may be given.
    """
    found = await _find_policy(session, policy)
    try:
        vectors = await _find_vectors(session, _listed_choices(body), strength=body.strength)
    except NotFoundError as error:
        is_auto = any(choice.ref == AUTO for choice in _listed_choices(body))
        hint = "; to have one found, `auto` stands alone, without a strength" if is_auto else ""
        raise NotFoundError(error.message + hint, details={"param": "vector"}) from None
    return vectors, found, await _find_demonstrations(session, body.demonstrations)


def _listed_choices(body: SteerRequest) -> list[VectorChoice]:
    """The references that a request names; none for `auto` and for nothing."""
    if body.vector is None or body.vector == AUTO:
        return []
    items = body.vector if isinstance(body.vector, list) else [body.vector]
    return [item if isinstance(item, VectorChoice) else VectorChoice(ref=item) for item in items]


async def choose(
    services: Services,
    body: SteerRequest,
    *,
    named: Sequence[ChosenVector],
    policy: Sequence[ChosenVector],
    question: str,
    picture: bytes | None,
    backbone: str | None,
) -> tuple[tuple[ChosenVector, ...], AutoRetrievalBody | None]:
    """Everything that shall steer the answer, and what retrieval found if it was asked.

    `auto` looks for what fits the question and the picture that it is about.

    Raises:
        InvalidInputError: A vector is asked for that is in the policy as well.
    """
    # Catches a mistake and no intent: any other vector may point the other way as well.
    enforced = {use.record.sha256 for use in policy}
    if body.vector != AUTO:
        if any(use.record.sha256 in enforced for use in named):
            raise InvalidInputError(
                "A vector is asked for that the server's policy applies to every answer already"
            )
        return (*named, *policy), None
    wanted = backbone or next((use.record.backbone.fingerprint for use in policy), None)
    serving = await services.workers.pool.serving()
    result, _ = await search(
        services,
        backbone_for([] if wanted is None else [wanted], serving),
        image=picture,
        text=question,
        prefer=body.prefer,
        only_ready=body.only_ready,
    )
    best = next(iter(result.matches), None)
    retrieval = AutoRetrievalBody(
        abstained=result.abstained,
        reason=result.reason,
        score=None if best is None else best.score,
        threshold=None if best is None else best.threshold,
    )
    if best is None or result.abstained or best.vector.sha256 in enforced:
        return tuple(policy), retrieval
    found = ChosenVector(best.vector, strength=body.strength, source="retrieval")
    return (found, *policy), retrieval


async def _find_policy(session: AsyncSession, wanted: Sequence[PolicyVector]) -> list[ChosenVector]:
    try:
        # The policy is the service's own, whoever asks.
        with seeing(session, DEFAULT_WORKSPACE):
            found = await _find_vectors(session, wanted, strength=1.0)
    except NotFoundError as error:
        raise SteeringError(
            f"The server's policy wants {len(wanted)} vectors that are not all there"
        ) from error
    except InvalidInputError as error:
        raise SteeringError(
            "Two references of the server's policy name the same vector; give it one strength"
        ) from error
    return [replace(use, source="policy") for use in found]


async def _find_vectors(
    session: AsyncSession, choices: Sequence[VectorChoice | PolicyVector], *, strength: float
) -> list[ChosenVector]:
    records = [await get_vector(session, choice.ref) for choice in choices]
    if len({record.id for record in records}) < len(records):
        raise InvalidInputError("The same vector is asked for twice; give it one strength")
    return [
        ChosenVector(record, strength if choice.strength is None else choice.strength)
        for record, choice in zip(records, choices, strict=True)
    ]


async def search(
    services: Services,
    worker: HealthResponse,
    *,
    image: bytes | None = None,
    text: str | None = None,
    embedding: Sequence[float] | None = None,
    k: int = 1,
    min_epoch: int | None = None,
    prefer: str | None,
    only_ready: bool,
    filters: VectorFilters | None = None,
) -> tuple[RetrievalResult, str]:
    """What is stored for the worker's backbone and fits a picture and a text, or their embedding.

    Beside it, the space in which it was searched.

    Raises:
        WorkerUnavailableError: No worker answers.
        IncompatibleBackboneError: None serves the backbone any more.
    """
    fingerprint, space = worker.backbone.fingerprint, worker.space
    if embedding is None:
        request = EmbedRequest(images=(image,), questions=(text,))
        answer = await services.workers.embed(request, backbone_fingerprint=fingerprint)
        embedding, space = answer.embeddings[0], answer.space
    result = await services.retriever.search(
        np.asarray(embedding, dtype=np.float32),
        space=space,
        workspace=services.workspace,
        backbone_fingerprint=fingerprint,
        k=k,
        min_epoch=min_epoch,
        prefer=prefer,
        only_ready=only_ready,
        filters=filters,
    )
    services.metrics.note_retrieval(result)
    return result, space


async def _find_demonstrations(
    session: AsyncSession, choice: DemonstrationsChoice | None
) -> DemonstrationsUse | None:
    if choice is None:
        return None
    record = await get_dataset(session, choice.dataset)
    return DemonstrationsUse(
        storage_key=record.storage_key,
        shots=choice.shots,
        selection=choice.selection,
        seed=choice.seed,
        split=choose_split(record.splits, choice.split),
    )
