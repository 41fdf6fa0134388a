"""A download goes on where its connection was lost, and is whole or not at all."""

import errno
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from pydantic import TypeAdapter

from tests.fakes.servers.scripted_server import (
    Pieces,
    Scripted,
    ScriptedServer,
    problem,
    vector_json,
)
from vlibrary_client import (
    AsyncClient,
    Client,
    ConnectionFailedError,
    CorruptDataError,
    NotFoundError,
    Vector,
)
from vlibrary_client.calls.requests import replace_file
from vlibrary_client.sharing.folders import write_folder

FILE = bytes(range(256)) * 8
ETAG = f'"{hashlib.sha256(FILE).hexdigest()}"'
BOTH = pytest.mark.parametrize("kind", ["sync", "async"])


def broken(*pieces: bytes, status: int = 200, **headers: str) -> httpx.Response:
    lost = httpx.ReadError("gone")
    return httpx.Response(status, stream=Pieces(*pieces, error=lost), headers=headers)


def part(start: int) -> httpx.Response:
    place = f"bytes {start}-{len(FILE) - 1}/{len(FILE)}"
    headers = {"etag": ETAG, "content-range": place}
    return httpx.Response(206, content=FILE[start:], headers=headers)


async def download(
    kind: str, *answers: Scripted, to: str | Path
) -> tuple[bytes, list[httpx.Request]]:
    server = ScriptedServer([*answers])
    try:
        if kind == "sync":
            with Client(transport=server.transport) as client:
                return client.vectors.download("gears", to=to), server.requests
        async with AsyncClient(transport=server.async_transport) as other:
            return await other.vectors.download("gears", to=to), server.requests
    finally:
        assert not list(Path(to).parent.glob("*.part"))


def test_several_that_write_one_file_at_once_leave_it_whole(tmp_path: Path) -> None:
    # As processes of one training that fetch the same vector.
    path = tmp_path / "gears"
    contents = [bytes([number]) * 200_000 for number in range(8)]

    def write(content: bytes) -> None:
        for _ in range(20):
            replace_file(path, content)
            assert path.read_bytes() in contents

    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(write, contents))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_finds_no_room_is_named_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_path: Path, _content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    vector = TypeAdapter(Vector).validate_python(vector_json())
    write_folder(tmp_path, vector=vector, content=b"before")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left on device: .*/vector\.safetensors'"):
        write_folder(tmp_path, vector=vector, content=b"after")
    assert (tmp_path / "vector.safetensors").read_bytes() == b"before"


@BOTH
@pytest.mark.anyio
async def test_a_lost_download_goes_on_where_it_was(tmp_path: Path, kind: str) -> None:
    to = tmp_path / "gears"
    answers = (
        broken(FILE[:500], FILE[500:700], etag=ETAG),
        broken(FILE[700:900], status=206, etag=ETAG, **{"content-range": "bytes 700-2047/2048"}),
        part(900),
    )
    found, requests = await download(kind, *answers, to=to)
    assert found == to.read_bytes() == FILE
    asked = [(one.headers.get("range"), one.headers.get("if-range")) for one in requests]
    assert asked == [(None, None), ("bytes=700-", ETAG), ("bytes=900-", ETAG)]


@BOTH
@pytest.mark.anyio
async def test_a_file_that_changed_meanwhile_begins_anew(tmp_path: Path, kind: str) -> None:
    answers = (
        broken(b"old" * 9, etag='"older"'),
        httpx.Response(200, content=FILE, headers={"etag": ETAG}),
    )
    found, _ = await download(kind, *answers, to=tmp_path / "gears")
    assert found == FILE


@BOTH
@pytest.mark.anyio
async def test_what_is_not_whole_is_not_written(tmp_path: Path, kind: str) -> None:
    to = tmp_path / "gears"
    to.write_bytes(b"as it was")
    damaged = httpx.Response(200, content=FILE[:-1], headers={"etag": ETAG})
    with pytest.raises(CorruptDataError):
        await download(kind, damaged, to=to)
    with pytest.raises(NotFoundError):
        await download(kind, problem(404, "not-found"), to=to)
    assert to.read_bytes() == b"as it was"


@BOTH
@pytest.mark.anyio
async def test_a_path_may_be_a_text(tmp_path: Path, kind: str) -> None:
    whole = httpx.Response(200, content=FILE, headers={"etag": ETAG})
    await download(kind, whole, to=str(tmp_path / "gears"))
    assert (tmp_path / "gears").read_bytes() == FILE
    server = ScriptedServer([httpx.Response(201, json=vector_json())])
    with Client(transport=server.transport) as client:
        client.vectors.upload(str(tmp_path / "gears"), name="gears")
    assert server.requests[0].content == FILE


def test_a_server_that_is_lost_for_good_is_told(tmp_path: Path) -> None:
    with (
        Client(transport=ScriptedServer([httpx.ReadError("gone")]).transport, max_retries=1) as one,
        pytest.raises(ConnectionFailedError),
    ):
        one.vectors.download("gears", to=tmp_path / "gears")
    assert list(tmp_path.iterdir()) == []
