"""Uploads that meet a full disk: refused as such, nothing kept, and taken once there is room."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import obstore
import pytest
from obstore.exceptions import GenericError

from app.core.errors import StorageFullError
from app.core.settings import Settings
from app.library.storage import ObjectStore
from tests.fakes.api_calls import parquet, upload

pytestmark = pytest.mark.anyio
ROOM = 64 * 1024


async def test_the_object_store_tells_that_it_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_args: object, **_options: object) -> None:
        raise GenericError("Unable to copy: No space left on device (os error 28)")

    store = ObjectStore(f"file://{tmp_path}")
    with monkeypatch.context() as patched:
        patched.setattr(obstore, "put_async", full)
        with pytest.raises(StorageFullError):
            await store.put_bytes("datasets/a", b"x")
    await store.put_bytes("datasets/a", b"x")
    assert await store.get_bytes("datasets/a") == b"x"


@pytest.fixture(params=["scratch", "objects"])
def small_disk(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Path]:
    """The folder of what is received, or the object store, on a disk without any room."""
    folder = settings.data_dir / str(request.param)
    folder.mkdir(parents=True)
    options = ["-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    subprocess.run(["mount", *options], check=True)  # noqa: S603, S607 - root's own
    try:
        (folder / "filler").write_bytes(b"x" * ROOM)
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607 - as above


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
async def test_an_upload_that_does_not_fit_is_taken_once_there_is_room(
    small_disk: Path, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    content = parquet(tmp_path)
    refused = await upload(http, content, name="parts")
    assert (refused.status_code, refused.json()["code"]) == (507, "storage-full")
    assert (await http.get("/datasets")).json()["items"] == []
    (small_disk / "filler").unlink()
    assert (await upload(http, content, name="parts")).status_code == 201
