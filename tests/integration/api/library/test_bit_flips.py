"""A thousand flipped bits of each kind of stored file: all are noticed, none is served."""

import random
from pathlib import Path

import httpx
import pytest
import torch
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.core.errors import CorruptDataError
from app.core.identifiers import sha256_hex
from app.library.storage import ObjectStore, checkpoint_key, dataset_key
from app.library.vector_rows import get_blob, get_blob_by_sha256
from app.method.training.checkpoints import Checkpoint
from app.worker.training.checkpoints import ObjectCheckpoints
from tests.fakes.library import store

pytestmark = pytest.mark.anyio

FLIPS = 1000
ASKED_OVER_HTTP = 25
FLIP = text("UPDATE vectors SET blob = set_bit(blob, :bit, 1 - get_bit(blob, :bit))")


def bits(num_bytes: int) -> list[int]:
    """Places of bits, with the first and the last."""
    dice = random.Random(7)  # noqa: S311 - repeatable, not secret
    return [0, 8 * num_bytes - 1, *(dice.randrange(8 * num_bytes) for _ in range(FLIPS - 2))]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def test_vectors(http: httpx.AsyncClient, sessions: async_sessionmaker[AsyncSession]) -> None:
    async with sessions.begin() as session:
        vector = await store(session)
    url = f"/vectors/{vector.id}/file"
    whole = (await http.get(url)).content
    assert sha256_hex(whole) == vector.sha256
    for place, bit in enumerate(bits(len(whole))):
        async with sessions.begin() as session:
            await session.execute(FLIP, {"bit": bit})
        async with sessions() as session:
            with pytest.raises(CorruptDataError):
                await get_blob(session, vector.id)
            with pytest.raises(CorruptDataError):
                await get_blob_by_sha256(session, vector.sha256)
        if place % ASKED_OVER_HTTP == 0:
            reply = await http.get(url)
            assert (reply.status_code, reply.json()["code"]) == (500, "corrupt-data")
        async with sessions.begin() as session:
            await session.execute(FLIP, {"bit": bit})
    assert (await http.get(url)).content == whole


@pytest.mark.parametrize("workspace", ["default", "team.a"])
async def test_data_sets(tmp_path: Path, workspace: str) -> None:
    objects, data = ObjectStore("memory:///"), random.Random(1).randbytes(5000)  # noqa: S311
    key, target = dataset_key(sha256_hex(data), workspace=workspace), tmp_path / "file"
    for bit in bits(len(data)):
        await objects.put_bytes(key, flipped(data, bit))
        with pytest.raises(CorruptDataError):
            await objects.get_file(key, target)
    await objects.put_bytes(key, data)
    await objects.get_file(key, target)
    assert target.read_bytes() == data


async def test_checkpoints() -> None:
    objects, key = ObjectStore("memory:///"), checkpoint_key("job")
    kept = ObjectCheckpoints(objects, key=key)
    kept.save(Checkpoint(identity="me", step=7, tensors={"a": torch.ones(3)}, notes={}))
    await kept.flush()
    data = await objects.get_bytes(key)
    whole = await kept.load()
    assert whole is not None
    for bit in bits(len(data)):
        await objects.put_bytes(key, flipped(data, bit))
        assert await kept.load() is None
    await objects.put_bytes(key, data)
    assert await kept.load() == whole
    assert (kept.of_run(whole, "me") is not None, kept.of_run(whole, "another")) == (True, None)
