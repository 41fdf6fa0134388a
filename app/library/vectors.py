"""Stored vectors: immutable files with versions, and the little about them that may change.

A file and its metadata are one row, so they commit together or not at all. Everything done under a
name is ordered by the lock of the name's row. A delete is a tombstone: the bytes stay for whoever
is still using them.
"""

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.backbones import BackboneDescription, require_same_backbone
from app.core.errors import (
    JSON,
    ConflictError,
    InvalidInputError,
    InvalidVectorFileError,
    NotFoundError,
)
from app.core.identifiers import (
    LATEST,
    VectorReference,
    check_description,
    check_name,
    check_tags,
    check_vector_name,
    new_id,
    sha256_hex,
)
from app.core.states import VECTOR_STATES, VectorStatus
from app.core.vectors.card import KeyCard, VectorCard
from app.core.vectors.file import decode_vector_file
from app.library.access.audit import write_audit
from app.library.aliases import lock_name, point_latest
from app.library.records import VectorRecord
from app.library.tables import AliasRow, VectorNameRow, VectorRow
from app.library.task_keys import add_keys, refresh_keys, remove_keys
from app.library.vector_rows import VECTOR_ROWS, read_vectors, remember_backbone
from app.library.workspaces import workspace_of

_FINGERPRINT_IN_SPACE: Final = 16

# Put together once: every steered answer asks one of them.
_STORED: Final = VECTOR_ROWS.where(VectorRow.deleted.is_(None))
_BY_ID: Final = _STORED.where(VectorRow.id == bindparam("id"))
_BY_VERSION: Final = _STORED.where(
    VectorRow.name == bindparam("name"), VectorRow.version == bindparam("version")
)
_BY_ALIAS: Final = _STORED.join(AliasRow, AliasRow.vector_id == VectorRow.id).where(
    AliasRow.name == bindparam("name"), AliasRow.alias == bindparam("alias")
)


def check_status(status: str) -> str:
    """The status itself when it is one.

    Raises:
        InvalidInputError: It is none.
    """
    if status not in VECTOR_STATES:
        raise InvalidInputError(f"A status is one of {', '.join(VECTOR_STATES)}")
    return status


async def _hold_name(session: AsyncSession, name: str, *, new_versions: int) -> int:
    """The name's last version; the name, known or new, is this transaction's until it commits."""
    statement = (
        insert(VectorNameRow)
        .values(workspace=workspace_of(session), name=name, last_version=new_versions)
        .on_conflict_do_update(
            index_elements=[VectorNameRow.workspace, VectorNameRow.name],
            set_={"last_version": VectorNameRow.last_version + new_versions},
        )
        .returning(VectorNameRow.last_version)
    )
    return (await session.scalars(statement)).one()


async def create_vector(
    session: AsyncSession,
    *,
    name: str,
    blob: bytes,
    backbone: BackboneDescription,
    card: VectorCard,
    method: str = "m2iv",
    job_id: uuid.UUID | None = None,
    parents: Sequence[uuid.UUID] = (),
    description: str = "",
    tags: Iterable[str] = (),
) -> VectorRecord:
    """Stores a vector file as the next version of a name and points `latest` at it.

    Concurrent calls with one name wait for each other, so versions have no gaps and `latest` never
    moves backwards.

    The name stays locked until the session commits. The card's evaluations are not stored here.

    Raises:
        InvalidInputError: A name, tag or text is malformed.
        InvalidVectorFileError: The file is no vector file of the backbone's sizes, or the card's
            key is for another backbone.
        IncompatibleBackboneError: The file says that it belongs to another backbone.
    """
    check_vector_name(name)
    values = {"description": check_description(description), "tags": check_tags(tags)}
    tensors, metadata = await asyncio.to_thread(
        decode_vector_file,
        blob,
        num_layers=backbone.num_layers,
        hidden_size=backbone.hidden_size,
    )
    require_same_backbone(wanted=backbone.fingerprint, found=metadata["backbone"])
    await remember_backbone(session, backbone)
    row = VectorRow(
        id=new_id(),
        workspace=workspace_of(session),
        name=name,
        version=await _hold_name(session, name, new_versions=1),
        sha256=await asyncio.to_thread(sha256_hex, blob),
        size_bytes=len(blob),
        blob=blob,
        backbone_fingerprint=backbone.fingerprint,
        method=method,
        status=card.status,
        shots=card.shots,
        dataset_sha256=card.dataset_sha256,
        job_id=job_id,
        parents=list(parents),
        hyper_parameters=card.hyper_parameters,
        seed=card.seed,
        library_versions=card.library_versions,
        norms=tensors.norms(),
        dose=card.dose,
        max_dose=card.max_dose,
        **values,
    )
    session.add(row)
    await session.flush()
    await point_latest(session, name)
    if card.key is not None:
        _require_space_of(backbone, card.key)
        await add_keys(session, card.key, vector_id=row.id)
    details: dict[str, JSON] = {"name": name, "version": row.version, "sha256": row.sha256}
    await write_audit(session, action="vector.create", subject=str(row.id), details=details)
    return await get_vector(session, row.id)


def _require_space_of(backbone: BackboneDescription, key: KeyCard) -> None:
    wanted = f"backbone-{backbone.fingerprint[:_FINGERPRINT_IN_SPACE]}-"
    if not key.space.startswith(wanted):
        raise InvalidVectorFileError(
            f"Not a vector file: wanted keys of a space {wanted}..., found {key.space}"
        )


async def get_vector(session: AsyncSession, reference: uuid.UUID | str) -> VectorRecord:
    """The vectors with this id, or that a text points at as `VectorReference` reads it.

    Raises:
        InvalidInputError: The text is no reference.
        NotFoundError: There are none, or they were deleted.
    """
    wanted = VectorReference.parse(str(reference))
    if wanted.id is not None:
        query = _BY_ID
    else:
        query = _BY_ALIAS if wanted.version is None else _BY_VERSION
    terms = {**vars(wanted), "alias": wanted.alias or LATEST}
    found = await read_vectors(session, query, **terms)
    if not found:
        raise NotFoundError(f"There is no vector {wanted}")
    return found[0]


async def list_in_use(
    session: AsyncSession, backbone_fingerprint: str, *, limit: int
) -> list[VectorRecord]:
    """The newest vectors of a backbone that were neither deleted nor retired, newest first."""
    query = _STORED.where(
        VectorRow.backbone_fingerprint == backbone_fingerprint, VectorRow.status != "retired"
    )
    return await read_vectors(session, query.order_by(VectorRow.id.desc()).limit(limit))


async def find_same(session: AsyncSession, *, name: str, sha256: str) -> VectorRecord | None:
    """The newest version of the name with this file, or None when it has none or was deleted.

    The name, known or new, belongs to this transaction from here on: two that bring the same file
    at once see each other's version.
    """
    await _hold_name(session, check_name(name), new_versions=0)
    query = _STORED.where(VectorRow.name == name, VectorRow.sha256 == sha256)
    found = await read_vectors(session, query.order_by(VectorRow.version.desc()).limit(1))
    return next(iter(found), None)


async def _locked_row(session: AsyncSession, reference: uuid.UUID | str) -> VectorRow:
    record = await get_vector(session, reference)
    await lock_name(session, record.name)
    query = select(VectorRow).where(VectorRow.id == record.id, VectorRow.deleted.is_(None))
    row = (await session.scalars(query.with_for_update())).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no vector {record.id}")
    return row


async def update_vector(
    session: AsyncSession,
    reference: uuid.UUID | str,
    *,
    description: str | None = None,
    tags: Iterable[str] | None = None,
    status: VectorStatus | None = None,
) -> VectorRecord:
    """Changes what may change; None leaves a field as it is.

    Raises:
        InvalidInputError: A tag, text or status is malformed.
        NotFoundError: There are no such vectors.
    """
    row = await _locked_row(session, reference)
    before = {"description": row.description, "tags": row.tags, "status": row.status}
    if description is not None:
        row.description = check_description(description)
    if tags is not None:
        row.tags = check_tags(tags)
    if status is not None:
        row.status = check_status(status)
        await refresh_keys(session, vector_id=row.id)
    await session.flush()
    changed: dict[str, JSON] = {
        field: {"from": old, "to": getattr(row, field)}
        for field, old in before.items()
        if old != getattr(row, field)
    }
    if changed:
        details = {"name": row.name, "version": row.version, **changed}
        await write_audit(session, action="vector.update", subject=str(row.id), details=details)
    return await get_vector(session, row.id)


async def delete_vector(session: AsyncSession, reference: uuid.UUID | str) -> None:
    """Buries one set of vectors: no longer found, its version number never used again.

    Raises:
        NotFoundError: There are no such vectors.
        ConflictError: An alias other than `latest` points at them.
    """
    row = await _locked_row(session, reference)
    pointing = (await get_vector(session, row.id)).aliases
    if held := [alias for alias in pointing if alias != LATEST]:
        raise ConflictError(
            f"{row.name}@{row.version} is still called {', '.join(held)}",
            details={"aliases": held},
        )
    row.deleted = func.clock_timestamp()
    await session.flush()
    await point_latest(session, row.name)
    await remove_keys(session, vector_id=row.id)
    details: dict[str, JSON] = {"name": row.name, "version": row.version, "sha256": row.sha256}
    await write_audit(session, action="vector.delete", subject=str(row.id), details=details)
