import datetime as dt
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.core.errors import InvalidInputError, NotFoundError, StorageUnavailableError
from app.core.identifiers import digest_of
from app.library.storage import ObjectStore, checkpoint_key, dataset_key
from tests.fakes.servers.bucket import BUCKET, FakeBucket
from tests.fakes.servers.live_server import serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def buckets() -> Iterator[str]:
    """Where a stand-in of S3 listens."""
    with serving(FakeBucket().app()) as url:
        yield url


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables of S3's clients, as a deployment sets them."""
    names = {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "us-east-1"}
    for name, value in (names | {"ALLOW_HTTP": "true"}).items():
        monkeypatch.setenv(f"AWS_{name}", value)
    return monkeypatch


@pytest.fixture(params=["folder with space", "memory", "bucket"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, credentials: pytest.MonkeyPatch
) -> ObjectStore:
    if request.param == "memory":
        return ObjectStore("memory:///")
    if request.param == "bucket":
        credentials.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("buckets"))
        return ObjectStore(f"s3://{BUCKET}/some/prefix")
    return ObjectStore((tmp_path / request.param).as_uri())


async def test_what_is_put_can_be_got(store: ObjectStore, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"0123456789" * 2_000_000)
    await store.put_file("datasets/a.parquet", source)
    assert await store.get_file("datasets/a.parquet", target) == digest_of(source)
    assert target.read_bytes() == source.read_bytes()
    assert await store.get_bytes("datasets/a.parquet") == source.read_bytes()


async def test_a_local_copy_lies_where_it_is_told_for_as_long_as_it_is_used(
    tmp_path: Path,
) -> None:
    scratch = tmp_path / "state" / "scratch"
    store = ObjectStore((tmp_path / "objects").as_uri(), scratch=scratch)
    await store.put_bytes("a", b"1")
    async with store.local_copy("a") as path:
        assert path.is_relative_to(scratch)
        assert path.read_bytes() == b"1"
    assert not list(scratch.iterdir())
    with pytest.raises(NotFoundError):
        async with store.local_copy("b"):
            pass
    assert not list(scratch.iterdir())


async def test_a_folder_that_cannot_be_removed_costs_nobody_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NFS, where a file that is open stays in its folder under another name."""

    def busy(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    store = ObjectStore((tmp_path / "objects").as_uri(), scratch=tmp_path)
    await store.put_bytes("a", b"1")
    with monkeypatch.context() as patched:
        async with store.local_copy("a") as path:
            assert path.read_bytes() == b"1"
            patched.setattr(os, "rmdir", busy)


async def test_a_second_put_replaces_the_first(store: ObjectStore) -> None:
    await store.put_bytes("checkpoints/1", b"old")
    await store.put_bytes("checkpoints/1", b"new")
    assert await store.get_bytes("checkpoints/1") == b"new"


async def test_what_is_deleted_is_gone(store: ObjectStore, tmp_path: Path) -> None:
    await store.put_bytes("a", b"1")
    await store.delete("a")
    await store.delete("a")
    with pytest.raises(NotFoundError):
        await store.get_bytes("a")
    with pytest.raises(NotFoundError):
        await store.get_file("a", tmp_path / "target")
    assert not (tmp_path / "target").exists()


async def test_keys_are_listed_as_they_were_put(store: ObjectStore) -> None:
    for key in ("listed/1", "listed/2/3", "others/1"):
        await store.put_bytes(key, b"1")
    listed = await store.keys("listed/")
    assert sorted(listed) == ["listed/1", "listed/2/3"]
    assert all(
        abs(dt.datetime.now(dt.UTC) - one) < dt.timedelta(hours=1) for one in listed.values()
    )
    assert [await store.exists(key) for key in ("listed/1", "listed/4")] == [True, False]


async def test_a_bucket_that_is_away_is_said_so(
    credentials: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credentials.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    credentials.setattr("app.library.storage.RETRY_SECONDS", 0.0)
    store = ObjectStore(f"s3://{BUCKET}")
    path = tmp_path / "file"
    path.write_bytes(b"1")
    for asked in (
        store.put_file("a", path),
        store.get_file("a", path),
        store.put_bytes("a", b"1"),
        store.get_bytes("a"),
        store.exists("a"),
        store.keys("a"),
        store.delete("a"),
    ):
        with pytest.raises(StorageUnavailableError, match="GenericError"):
            await asked


async def test_a_bucket_that_is_not_there_is_said_so(
    buckets: str, credentials: pytest.MonkeyPatch
) -> None:
    credentials.setenv("AWS_ENDPOINT_URL", buckets)
    with pytest.raises(StorageUnavailableError, match="FileNotFoundError"):
        await ObjectStore("s3://other").put_bytes("a", b"1")


@pytest.mark.parametrize(
    "key",
    ["", "/a", "a/", "../a", "a/../b", ".a", "a//b", "a b", "a\0", "ä", "a/" * 8 + "a", "x" * 201],
)
async def test_a_key_that_could_lead_elsewhere_is_refused(
    store: ObjectStore, tmp_path: Path, key: str
) -> None:
    with pytest.raises(InvalidInputError):
        await store.put_bytes(key, b"1")
    with pytest.raises(InvalidInputError):
        await store.get_bytes(key)
    with pytest.raises(InvalidInputError):
        await store.delete(key)
    with pytest.raises(InvalidInputError):
        await store.get_file(key, tmp_path / "target")
    with pytest.raises(InvalidInputError):
        await store.put_file(key, tmp_path / "target")


async def test_the_keys_in_use_are_good_keys(store: ObjectStore) -> None:
    for key in (dataset_key("ab" * 32), checkpoint_key("01a20630-2422-7ee6-9fda-12192fef72d3")):
        await store.put_bytes(key, b"1")
        assert await store.get_bytes(key) == b"1"


async def test_files_lie_below_the_folder_with_private_rights(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "objects"
    await ObjectStore(folder.as_uri()).put_bytes("a/b", b"1")
    assert (folder / "a" / "b").read_bytes() == b"1"
    assert folder.stat().st_mode & 0o077 == 0
