"""What routes are given: the long-lived parts of the process, and the request's transaction."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Annotated, Self, TypeAlias, get_origin

from fastapi import Depends, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from app.api.http.access import key_of
from app.api.http.admission import Admission
from app.api.http.job_events import JobEvents
from app.api.http.metrics import ApiMetrics
from app.core.access import DEFAULT_WORKSPACE
from app.core.settings import Settings
from app.library.access.audit import act_as
from app.library.database import Sessions
from app.library.search.retrieval import Retriever
from app.library.storage import ObjectStore
from app.library.workspaces import in_workspace
from app.rpc.client import WorkerClient


@dataclass(frozen=True, kw_only=True)
class Services:
    """The parts that all requests share.

    `sessions` see nothing but the caller's `workspace`; bound to `reading` they look things up
    without a transaction. `admission`, `uploads` and `streams` are places: of requests that reach a
    worker, of uploads, of event streams.
    """

    settings: Settings
    sessions: Sessions
    reading: AsyncEngine
    retriever: Retriever
    workers: WorkerClient
    job_events: JobEvents
    store: ObjectStore
    admission: Admission
    uploads: Admission
    streams: Admission
    metrics: ApiMetrics
    workspace: str = DEFAULT_WORKSPACE

    def of(self, workspace: str) -> Self:
        """The same parts for who works there."""
        if workspace == self.workspace:
            return self
        sessions = in_workspace(self.sessions, workspace)
        return replace(self, sessions=sessions, workspace=workspace)


async def services_of(request: Request) -> Services:
    """The parts that the composition root put into the app's state, for the caller's workspace."""
    services: Services = request.app.state.services
    key = key_of(request)
    return services if key is None else services.of(key.workspace)


ServicesOf: TypeAlias = Annotated[Services, Depends(services_of)]


async def open_session(request: Request, services: ServicesOf) -> AsyncIterator[AsyncSession]:
    """The one transaction of a request and its caller, committed before its response is sent.

    It takes a connection with its first statement, and gives it back with a `commit()`, after which
    there is no further one: what waits or computes commits before.
    """
    key = key_of(request)
    async with services.sessions.begin() as session:
        act_as(session, None if key is None else key.id)
        yield session


SessionOf: TypeAlias = Annotated[AsyncSession, Depends(open_session, scope="function")]


async def require_known_query(request: Request) -> None:
    """Returns when the route knows every parameter of the request's query, and none is said twice.

    Raises:
        RequestValidationError: That is not so; who sent `dry_run=true`, or two names, would believe
            that it was heeded.
    """
    given = request.query_params.multi_items()
    if not given:
        return
    known: dict[str, object] = {}
    for field in get_flat_params(request.scope["route"].dependant):
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            known |= {name: own.annotation for name, own in kind.model_fields.items()}
        else:
            known[field.alias] = kind
    errors = []
    for name, count in sorted(Counter(name for name, _ in given).items()):
        place = {"loc": ("query", name)}
        if name not in known:
            errors.append(
                {"type": "extra_forbidden", "msg": "Extra inputs are not permitted", **place}
            )
        elif count > 1 and get_origin(known[name]) not in {list, tuple}:
            errors.append(
                {"type": "repeated", "msg": f"wanted it once, found it {count} times", **place}
            )
    if errors:
        raise RequestValidationError(errors)
