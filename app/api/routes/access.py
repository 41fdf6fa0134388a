"""Routes of access keys and of the audit trail: for administrators."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from app.api.creation import CreationOf
from app.api.dependencies import SessionOf
from app.api.http.access import key_of, quotas_of
from app.api.http.problems import problems
from app.api.schemas.access import (
    AuditBody,
    AuditPageBody,
    KeyBody,
    KeyRequest,
    NewKeyBody,
)
from app.api.schemas.bodies import PageBody
from app.api.schemas.fields import Limit, Reference
from app.core.access import Quotas
from app.library.access.access_keys import create_access_key, list_access_keys, revoke_access_key
from app.library.access.audit import list_audit

MAX_AUDIT_ID = 2**63 - 1

router = APIRouter(tags=["access"])


@router.post("/keys", status_code=201, responses=problems(408, 409, 413))
async def create(
    body: KeyRequest, request: Request, *, creation: CreationOf, session: SessionOf
) -> NewKeyBody:
    """Makes a key to the own workspace; its text is in this answer and never shown again."""
    await creation.begin(body.model_dump_json())
    maker = key_of(request)
    key, token = await create_access_key(
        session,
        name=body.name,
        scopes=body.scopes,
        valid_days=body.valid_days,
        # A key that ends cannot make one that goes on.
        not_after=None if maker is None else maker.expires,
        quotas=Quotas(**body.quotas.model_dump()).within(quotas_of(request)),
    )
    new_key = NewKeyBody(**KeyBody.model_validate(key).model_dump(), key=token.text)
    return await creation.answer(new_key, at=None, is_secret=True)


@router.get("/keys", responses=problems())
async def list_all(session: SessionOf) -> PageBody[KeyBody]:
    """Lists every key of the workspace that was ever made, newest first."""
    keys = await list_access_keys(session)
    return PageBody[KeyBody](items=tuple(map(KeyBody.model_validate, keys)))


@router.delete("/keys/{key_id}", responses=problems(404))
async def revoke(
    key_id: Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")], session: SessionOf
) -> KeyBody:
    """Revokes a key: after three seconds at most it opens nothing any more."""
    return KeyBody.model_validate(await revoke_access_key(session, key_id))


@router.get("/audit", responses=problems())
async def list_entries(
    session: SessionOf,
    *,
    subject: Annotated[
        Reference | None,
        Query(
            description="Only what was done to this: its id, `name@alias`, or a name or "
            "`name@version` that it had, also if it is gone."
        ),
    ] = None,
    action: Annotated[Reference | None, Query(description="Such as `vector.create`.")] = None,
    after: Annotated[
        int, Query(ge=0, le=MAX_AUDIT_ID, description="Only what came after this entry.")
    ] = 0,
    limit: Limit = 50,
) -> AuditPageBody:
    """Lists who did what and when, oldest first; it outlives what it tells of."""
    entries = await list_audit(
        session, subject=subject, action=action, after=after, limit=limit + 1
    )
    return AuditPageBody(
        items=tuple(map(AuditBody.model_validate, entries[:limit])),
        next_after=entries[limit - 1].id if len(entries) > limit else None,
    )
