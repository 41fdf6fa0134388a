"""Libraries with some of everything in them, to be saved and restored."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession
from typer.testing import CliRunner, Result

from app.cli.app import build
from app.core.access import DEFAULT_WORKSPACE
from app.core.identifiers import sha256_hex
from app.library.access.access_keys import create_access_key
from app.library.aliases import set_alias
from app.library.backups.copies import read_contents
from app.library.backups.manifest import TableContents
from app.library.database import make_engine, session_factory
from app.library.datasets import create_dataset, delete_dataset
from app.library.records import DatasetRecord
from app.library.storage import ObjectStore, checkpoint_key, dataset_key
from app.library.training.jobs import enqueue_training
from app.library.workspaces import in_workspace, workspace_of
from tests.fakes.library import store

DATA = b"a data set's file"
# The same content in another workspace is a file of its own.
TEAM = "team.a"


@asynccontextmanager
async def session_of(
    url: str, *, workspace: str = DEFAULT_WORKSPACE
) -> AsyncIterator[AsyncSession]:
    engine = make_engine(url)
    async with in_workspace(session_factory(engine), workspace)() as session:
        yield session
    await engine.dispose()


async def add_dataset(session: AsyncSession, data: bytes) -> DatasetRecord:
    sha256 = sha256_hex(data)
    return await create_dataset(
        session,
        name="gone" if data == b"gone" else "parts",
        sha256=sha256,
        size_bytes=len(data),
        num_items=1,
        num_images=1,
        storage_key=dataset_key(sha256, workspace=workspace_of(session)),
    )


async def fill(url: str, objects: Path) -> str:
    """Puts some of everything into a library; gives the id of a job that has not ended."""
    files = ObjectStore(objects.as_uri())
    async with session_of(url) as session:
        await store(session, "gears", tags=["checked"])
        await store(session, "gears", seed=1, description="Zähne")
        await set_alias(session, "gears", "prod", version=1)
        await create_access_key(session, name="web", scopes=["read"], valid_days=None)
        parts, gone = [await add_dataset(session, data) for data in (DATA, b"gone")]
        for data in (DATA, b"gone"):
            await files.put_bytes(dataset_key(sha256_hex(data)), data)
        await delete_dataset(session, gone.id)
        job = await enqueue_training(session, name="gears", dataset_id=parts.id, config={})
        await session.commit()
    async with session_of(url, workspace=TEAM) as session:
        await files.put_bytes((await add_dataset(session, DATA)).storage_key, DATA)
        await session.commit()
    await files.put_bytes(checkpoint_key(job.id), b"half of a training")
    await files.put_bytes(checkpoint_key("00000000-0000-0000-0000-000000000000"), b"ended")
    return str(job.id)


async def contents(url: str) -> dict[str, TableContents]:
    async with session_of(url) as session:
        return await read_contents(session)


class Place:
    """A library of its own: a database and a folder."""

    def __init__(self, url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.url = url
        self.objects = folder / "objects"
        self._folder = folder
        self._monkeypatch = monkeypatch

    def run(self, *words: str | Path) -> Result:
        self._monkeypatch.setenv("DATABASE_URL", self.url)
        self._monkeypatch.setenv("VLIBRARY_DATA_DIR", str(self._folder))
        return CliRunner().invoke(build(), [str(word) for word in words])

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.objects)): path.read_bytes()
            for path in self.objects.rglob("*")
            if path.is_file()
        }


def edited(manifest: Path, **changes: object) -> None:
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **changes}))
