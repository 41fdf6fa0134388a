import asyncio
from pathlib import Path

import httpx
import pytest

from app.api.http import uploads
from tests.fakes.servers.scripted_server import ScriptedServer, dataset_json
from tests.fakes.servers.serving import png
from vlibrary_client import AsyncClient, Client
from vlibrary_client.calls import requests
from vlibrary_client.terminals import sending
from vlibrary_client.wire import transport


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_an_upload_tells_on_demand_what_is_sent_and_that_the_server_checks(
    kind: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CHUNK_BYTES", 100)
    server = ScriptedServer([httpx.Response(201, json=dataset_json()) for _ in range(2)])
    items = [{"image": png(), "question": "q", "answer": "a"}]

    async def upload(*, progress: bool) -> None:
        async with AsyncClient(transport=server.async_transport) as client:
            await client.datasets.upload(items, name="parts", progress=progress)

    def shown(*, progress: bool) -> str:
        if kind == "async":
            asyncio.run(upload(progress=progress))
        else:
            with Client(transport=server.transport) as client:
                client.datasets.upload(items, name="parts", progress=progress)
        return capsys.readouterr().err

    assert shown(progress=False) == ""
    assert "parts · the server checks every row and picture" in shown(progress=True)


def test_an_upload_is_sent_and_then_checked(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(bytes(4))
    stages: list[tuple[str, int, int | None]] = []
    told = sending(tmp_path / "d", lambda *stage: stages.append(stage))
    for num_bytes in (0, 3, 4):
        told(num_bytes)
    assert stages == [
        ("sending", 0, 4),
        ("sending", 3, 4),
        ("the server checks every row and picture", 0, None),
    ]


def test_a_client_waits_for_the_check_longer_than_the_server_takes_for_it() -> None:
    assert requests.UPLOAD_TIMEOUT_SECONDS > uploads.LONGEST_SECONDS
