"""Bodies that are files: their type is checked and their bytes are counted.

The size limit itself stands on the router, where FastAPI enforces it while the body is read; slow
and silent senders are cut off by `steady_bodies`.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
from fastapi import Request
from starlette.exceptions import HTTPException

from app.api.http.admission import PLACE_BYTES_PER_SECOND, Admission, caller_of
from app.api.http.steady_bodies import require_rate, wait_for_beginning
from app.core.errors import DeadlineExceededError, InvalidInputError

OCTET_STREAM: Final = "application/octet-stream"
PARQUET: Final = "application/vnd.apache.parquet"
LONGEST_SECONDS: Final = 3600.0
_BLOCK_BYTES: Final = 1 << 20


def file_body(*media_types: str) -> dict[str, Any]:
    """What a route documents about a body that is a file."""
    schema = {"schema": {"type": "string", "format": "binary"}}
    content = dict.fromkeys(media_types, schema)
    return {"requestBody": {"required": True, "content": content}}


def require_media_type(request: Request, *media_types: str) -> None:
    """Returns when the body is declared to be of one of the types.

    None of them can be sent by a plain form of another site, so a browser asks us first.

    Raises:
        HTTPException: 415, it is not.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in media_types:
        wanted, found = " or ".join(media_types), media_type[:100] or "none"
        raise HTTPException(415, f"Wanted a Content-Type of {wanted}, found {found}")


@asynccontextmanager
async def upload_place(request: Request, places: Admission) -> AsyncIterator[None]:
    """A place for the block, once the body's beginning is there: places are for those who send.

    From then on the body may take 20 s and its size divided by `PLACE_BYTES_PER_SECOND`.

    Raises:
        BusyError: All are taken, or the caller has its share.
        HTTPException: 408, the body came too slowly.
    """
    await wait_for_beginning(request)
    with places.place(caller=caller_of(request)):
        require_rate(request, bytes_per_second=PLACE_BYTES_PER_SECOND)
        yield


@asynccontextmanager
async def received_file(request: Request, *, folder: Path) -> AsyncIterator[tuple[Path, str]]:
    """The request's body as a file that exists for the block, and its SHA-256 digest.

    Raises:
        InvalidInputError: The body is empty.
        DeadlineExceededError: It takes too long in all.
    """
    await anyio.Path(folder).mkdir(parents=True, exist_ok=True)
    async with anyio.NamedTemporaryFile(dir=str(folder), suffix=".upload") as file:
        digest = hashlib.sha256()
        async for block in _blocks(request):
            await asyncio.to_thread(digest.update, block)
            await file.write(block)
        if not await file.tell():
            raise InvalidInputError("The body is empty")
        await file.flush()
        yield Path(str(file.name)), digest.hexdigest()


async def read_body(request: Request) -> bytes:
    """The whole body in memory, for files whose limit is small.

    Raises:
        InvalidInputError: The body is empty.
        DeadlineExceededError: It takes too long in all.
    """
    content = b"".join([block async for block in _blocks(request)])
    if not content:
        raise InvalidInputError("The body is empty")
    return content


async def _blocks(request: Request) -> AsyncIterator[bytes]:
    """The body in blocks of about a mebibyte, however small the chunks that arrive."""
    latest = time.monotonic() + LONGEST_SECONDS
    buffer = bytearray()
    async for chunk in request.stream():
        buffer += chunk
        if time.monotonic() > latest:
            raise DeadlineExceededError(f"A body may take at most {LONGEST_SECONDS:g} s")
        if len(buffer) >= _BLOCK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)
