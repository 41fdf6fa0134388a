"""The bytes of vector files, never served without a look at their digest."""

import asyncio
import uuid

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import CorruptDataError, NotFoundError
from app.core.identifiers import sha256_hex
from app.library.tables import VectorRow


async def _verified(blob: bytes | None, sha256: str) -> bytes:
    if blob is None:
        raise NotFoundError(f"No vector file {sha256[:12]}")
    if await asyncio.to_thread(sha256_hex, blob) != sha256:
        raise CorruptDataError(f"The stored file {sha256[:12]} does not match its digest")
    return blob


async def get_blob(session: AsyncSession, vector_id: uuid.UUID) -> bytes:
    """The file of one set of vectors, deleted or not, after its digest was checked.

    Raises:
        NotFoundError: There is none.
        CorruptDataError: The bytes have changed since they were stored.
    """
    query = select(VectorRow.blob, VectorRow.sha256).where(VectorRow.id == vector_id)
    found = (await session.execute(query)).one_or_none()
    if found is None:
        raise NotFoundError(f"No vectors {vector_id}")
    return await _verified(found.blob, found.sha256)


async def get_blob_by_sha256(session: AsyncSession, sha256: str) -> bytes:
    """The file with this digest, deleted or not, after it was checked.

    Raises:
        NotFoundError: There is none.
        CorruptDataError: The bytes have changed since they were stored.
    """
    query = select(VectorRow.blob).where(VectorRow.sha256 == sha256).limit(1)
    return await _verified(await session.scalar(query), sha256)
