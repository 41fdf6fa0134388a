"""Bodies of access keys and of the audit trail."""

import datetime as dt
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints

from app.api.schemas.bodies import RequestBody, ResponseBody
from app.core.access import MAX_NAME_CHARACTERS, MAX_QUOTA, SCOPES, Scope
from app.rpc.generation import SAFE

KeyName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME_CHARACTERS), SAFE]
Limit = Annotated[int, Field(ge=0, le=MAX_QUOTA, strict=True)]


class QuotasBody(RequestBody):
    """The most that may be asked for with a key; null where it is not limited."""

    model_config = ConfigDict(from_attributes=True)

    requests: Limit | None = Field(
        default=None, description="Requests in flight in one process of the api."
    )
    jobs: Limit | None = Field(
        default=None, description="Training jobs of its workspace that have not ended."
    )
    bytes: Limit | None = Field(
        default=None, description="Bytes of the vectors and data sets of its workspace."
    )
    vectors: Limit | None = Field(
        default=None,
        description="Vectors of its workspace, those of unfinished trainings included.",
    )


class KeyRequest(RequestBody):
    """A key to make."""

    name: KeyName = Field(description="What it is for.")
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES))] = Field(
        description="What it allows; `admin` allows everything."
    )
    valid_days: Annotated[int, Field(ge=1, le=3650, strict=True)] | None = Field(
        default=None,
        description="After how many days it ends; never later than the key that makes it.",
    )
    quotas: QuotasBody = Field(
        default=QuotasBody(), description="Never wider than those of the key that makes it."
    )


class KeyBody(ResponseBody):
    """A key, without its secret."""

    id: str
    name: str
    workspace: str = Field(description="What its holder sees and changes.")
    scopes: tuple[Scope, ...]
    quotas: QuotasBody
    created: dt.datetime
    expires: dt.datetime | None
    revoked: dt.datetime | None
    last_used: dt.datetime | None = Field(description="To the minute.")


class NewKeyBody(KeyBody):
    """A key that was just made, with what its holder sends. It is shown this once."""

    key: str


class AuditBody(ResponseBody):
    """One thing that was done."""

    id: int
    action: str = Field(description="Such as `vector.create`.")
    subject: str = Field(description="What it was done to.")
    actor: str | None = Field(description="The id of the key that did it.")
    details: dict[str, Any]
    created: dt.datetime


class AuditPageBody(ResponseBody):
    """What was done, oldest first; `next_after` continues when there is more."""

    items: tuple[AuditBody, ...]
    next_after: int | None
