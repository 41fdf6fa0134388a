"""Routes of training jobs."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy.ext.asyncio import AsyncSession

from app.api.creation import CreationOf
from app.api.dependencies import Services, ServicesOf, SessionOf
from app.api.http.access import may_stay
from app.api.http.admission import caller_of
from app.api.http.problems import problems
from app.api.schemas.bodies import PageBody
from app.api.schemas.fields import Cursor, Limit
from app.api.schemas.training import (
    CombinationRequest,
    EvaluateRequest,
    JobBody,
    TrainRequest,
)
from app.core.errors import JSON
from app.core.jobs import JobState
from app.core.splits import TEST, choose_split
from app.library.catalogue.combination import require_one_backbone
from app.library.catalogue.comparison import check_distinct
from app.library.datasets import get_dataset
from app.library.records import JobRecord
from app.library.training.jobs import enqueue_training, get_job, list_jobs, request_cancel
from app.library.vectors import get_vector
from app.rpc.backbones import backbone_for, serving_as
from app.rpc.decoding import unavailable
from app.rpc.messages import HealthResponse

MAX_SEQUENCE = 2**63 - 1

router = APIRouter(tags=["training"])

LastEventId = Annotated[
    int,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=MAX_SEQUENCE,
        description="The last event that the client has; the stream goes on after it.",
    ),
]


@router.post("/train", status_code=202, responses=problems(404, 408, 409, 413))
async def start(
    body: TrainRequest, creation: CreationOf, *, session: SessionOf, services: ServicesOf
) -> JobBody:
    """Queues the training of the next version of a name."""
    training = await services.workers.pool.training()
    config = {**body.config.model_dump(exclude_unset=True), "shots": body.shots}
    await creation.begin(body.model_dump_json())
    dataset = await get_dataset(session, body.dataset)
    split = choose_split(dataset.splits, body.split)
    record = await enqueue_training(
        session,
        name=body.name,
        dataset_id=dataset.id,
        config=_config(config, split=split),
        backbone_fingerprint=_named(body.backbone, training),
        description=body.description,
        tags=body.tags,
    )
    return await creation.answer(_body(record, training), at=f"/train/{record.id}")


@router.post("/train/combine", status_code=202, responses=problems(404, 408, 409, 413))
async def combine(
    body: CombinationRequest, creation: CreationOf, *, session: SessionOf, services: ServicesOf
) -> JobBody:
    """Queues the combination of vectors by a rule that looks at labelled items.

    The result is the next version of a name, with its parents, and is measured beside its best
    part on items that neither trained nor chose anything. A weighted sum needs no job: see
    `POST /vectors/combine`.
    """
    training = await services.workers.pool.training()
    await creation.begin(body.model_dump_json())
    dataset = await get_dataset(session, body.dataset)
    split = choose_split(dataset.splits, body.split)
    parts = [await get_vector(session, ref) for ref in body.vectors]
    check_distinct(parts)
    spec = {"rule": body.rule, "seed": body.seed, "parts": [str(part.id) for part in parts]}
    record = await enqueue_training(
        session,
        name=body.name,
        dataset_id=dataset.id,
        config=_config({"combine": spec}, split=split),
        backbone_fingerprint=_trained(require_one_backbone(parts), training),
        description=body.description,
        tags=body.tags,
    )
    return await creation.answer(_body(record, training), at=f"/train/{record.id}")


@router.post("/evaluations", status_code=202, responses=problems(404, 408, 409, 413))
async def evaluate(
    body: EvaluateRequest, creation: CreationOf, *, session: SessionOf, services: ServicesOf
) -> JobBody:
    """Queues the measurement of a stored vector on labelled items that it was not trained on.

    It is a job like a training. Its report has every method's accuracy with a 95 % interval, and
    the result is attached to the vector, whose state stays as it is.
    """
    training = await services.workers.pool.training()
    await creation.begin(body.model_dump_json())
    dataset = await get_dataset(session, body.dataset)
    vector = await get_vector(session, body.vector)
    split = choose_split(dataset.splits, body.split, usual=(TEST,))
    spec = {
        "vector": str(vector.id),
        "support_split": choose_split(dataset.splits, body.support_split),
        "methods": list(dict.fromkeys(body.methods)),
        "shots": body.shots,
        "items": body.items,
        "seed": body.seed,
    }
    record = await enqueue_training(
        session,
        name=vector.name,
        dataset_id=dataset.id,
        config=_config({"evaluate": spec}, split=split),
        backbone_fingerprint=_trained(vector.backbone.fingerprint, training),
    )
    return await creation.answer(_body(record, training), at=f"/train/{record.id}")


def _named(backbone: str | None, training: Sequence[HealthResponse]) -> str | None:
    """The fingerprint of the backbone that is asked for; None where one alone may be meant.

    Raises:
        InvalidInputError: None is named, or several are called so.
        IncompatibleBackboneError: No worker trains it.
        WorkerUnavailableError: One is named and no worker is up to know it.
    """
    if backbone is None:
        if training:
            backbone_for([], training)
        return None
    if not training:
        raise unavailable("No worker is ready to train")
    return serving_as(backbone, training).backbone.fingerprint


def _trained(fingerprint: str, training: Sequence[HealthResponse]) -> str:
    """The same, unless workers are up and none of them trains it, so that nobody would come.

    Raises:
        IncompatibleBackboneError: That is so.
    """
    return backbone_for([fingerprint], training).backbone.fingerprint if training else fingerprint


def _config(settings: dict[str, JSON], *, split: str | None) -> dict[str, JSON]:
    return settings if split is None else {**settings, "split": split}


def _body(record: JobRecord, training: Sequence[HealthResponse]) -> JobBody:
    """The job, and what it waits for where none of these workers would take it."""
    body = JobBody.model_validate(record)
    wanted = record.backbone_fingerprint
    trained = {one.backbone.fingerprint for one in training}
    if record.state != "queued" or (trained and wanted in {None, *trained}):
        return body
    which = "trains" if wanted is None else f"trains the backbone {wanted[:12]}"
    return body.model_copy(update={"waits_for": f"a worker that {which}; none is ready"})


async def _bodies(
    records: Sequence[JobRecord], *, services: Services, session: AsyncSession
) -> list[JobBody]:
    # Workers are asked without a connection of the database.
    await session.commit()
    is_waiting = any(record.state == "queued" for record in records)
    training = await services.workers.pool.training() if is_waiting else ()
    return [_body(record, training) for record in records]


@router.get("/train", responses=problems())
async def list_page(
    session: SessionOf,
    services: ServicesOf,
    *,
    state: JobState | None = None,
    limit: Limit = 50,
    cursor: Cursor | None = None,
) -> PageBody[JobBody]:
    """Lists jobs, newest first."""
    page = await list_jobs(session, state=state, limit=limit, cursor=cursor)
    bodies = await _bodies(page.items, services=services, session=session)
    return PageBody[JobBody](items=tuple(bodies), next_cursor=page.next_cursor)


# Only an id, so that any other method of `/train/combine` is not taken for a job of that name.
@router.get("/train/{job_id:uuid}", responses=problems(404))
async def get_one(job_id: UUID, session: SessionOf, services: ServicesOf) -> JobBody:
    """Describes one job."""
    record = await get_job(session, job_id)
    return (await _bodies([record], services=services, session=session))[0]


@router.post("/train/{job_id}/cancel", responses=problems(404, 409))
async def cancel(job_id: UUID, session: SessionOf) -> JobBody:
    """Asks a job to stop; doing so again is harmless, doing so too late is a conflict."""
    return JobBody.model_validate(await request_cancel(session, job_id))


async def require_job(job_id: UUID, session: SessionOf) -> None:
    """Returns when there is such a job.

    Raises:
        NotFoundError: There is none.
    """
    await get_job(session, job_id)


async def stream_place(request: Request, services: ServicesOf) -> AsyncIterator[None]:
    """A place among the event streams, for as long as the stream lasts."""
    with services.streams.place(caller=caller_of(request)):
        yield


@router.get(
    "/train/{job_id}/events",
    response_class=EventSourceResponse,
    # A generator's own errors come after the response has begun, so the job is looked up before.
    dependencies=[Depends(require_job), Depends(stream_place)],
    responses=problems(404),
)
async def listen(
    job_id: UUID, request: Request, services: ServicesOf, *, last_event_id: LastEventId = 0
) -> AsyncIterator[ServerSentEvent]:
    """Streams what happens to a job (`progress` and `state`) until it or the caller's key ends."""
    silence = services.settings.silence_seconds
    stream = services.job_events.stream(job_id, after=last_event_id, silence_seconds=silence)
    async for event in stream:
        if not await may_stay(request):
            return
        yield event
