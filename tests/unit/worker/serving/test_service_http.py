"""Requests through vector cache, pools, device and engine, and over the worker's HTTP."""

import asyncio
import gc
from collections.abc import AsyncIterator

import httpx
import msgpack
import pytest
from starlette.requests import Request

from app.core.errors import (
    DeadlineExceededError,
    InvalidImageError,
    WorkerUnavailableError,
)
from app.method.backbone.loading import Backbone
from app.rpc.messages import EmbedRequest, GenerateRequest, pack
from tests.fakes.answers import answer_of
from tests.fakes.servers.serving import (
    ENDLESS,
    Parts,
    over_http,
    png,
    request_of,
)
from tests.fakes.waiting import until

pytestmark = pytest.mark.anyio


async def test_the_client_gets_answers_and_errors_over_http(
    backbone: Backbone, parts: Parts
) -> None:
    client, _ = over_http(backbone, parts)
    async with client:
        request = request_of(images=[png()], vectors=[parts.use(0)], baseline=True)
        remote = await answer_of(client, request, fingerprint=backbone.description.fingerprint)
        direct = await answer_of(parts.serving, request)
        assert remote.token_ids == direct.token_ids
        assert remote.receipt == direct.receipt
        found = await client.embed(EmbedRequest(images=(None,), questions=("which?",)))
        assert found.dim == len(found.embeddings[0])
        with pytest.raises(InvalidImageError):
            await answer_of(client, request_of(images=[b"no image"]))
        with pytest.raises(DeadlineExceededError):
            await answer_of(client, request_of(**ENDLESS, deadline_seconds=0.03))
        parts.serving.drain()
        with pytest.raises(WorkerUnavailableError) as caught:
            await answer_of(client, request_of())
        assert caught.value.retry_after_seconds is not None


async def test_a_message_is_not_kept_beside_what_was_read_of_it(
    backbone: Backbone, parts: Parts
) -> None:
    client, _ = over_http(backbone, parts)
    async with client:
        asked = request_of(**ENDLESS, images=[png()])
        answering = asyncio.create_task(answer_of(client, asked))
        await until(lambda: parts.device.num_running == 1)
        requests = [one for one in gc.get_objects() if issubclass(type(one), Request)]
        answering.cancel()
        assert requests
        assert not any(getattr(one, "_body", b"") for one in requests)
        await until(lambda: parts.device.num_running == 0)


async def test_malformed_and_oversized_messages_are_refused_without_an_echo(
    backbone: Backbone, parts: Parts
) -> None:
    client, transport = over_http(backbone, parts)
    await client.aclose()
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        strange = msgpack.packb({"prompt": "a secret", "request_id": 5})
        malformed = await http.post("/generate", content=strange)
        oversized = await http.post("/generate", content=b" " * 200_000)
        nothing = await http.post("/embed", content=b"\xff")
    assert malformed.status_code == 422
    assert malformed.json()["code"] == "invalid-input"
    assert "secret" not in malformed.text
    assert oversized.status_code == 413
    assert malformed.json()["details"] == {"places": ["request_id"]}
    assert (nothing.status_code, nothing.json()["details"]) == (422, {"places": [""]})


async def test_a_client_that_leaves_frees_its_row(backbone: Backbone, parts: Parts) -> None:
    client, _ = over_http(backbone, parts)
    async with client:
        asking = asyncio.create_task(answer_of(client, request_of(**ENDLESS)))
        await until(lambda: parts.device.num_running == 1)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await until(lambda: parts.device.num_running == 0)
        await until(lambda: parts.serving.num_requests == 0)


async def test_an_unexpected_failure_is_an_answer_and_not_a_traceback(
    backbone: Backbone, parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_request: GenerateRequest) -> AsyncIterator[object]:
        raise ZeroDivisionError("a secret")
        yield

    monkeypatch.setattr(parts.serving, "generate", fail)
    client, transport = over_http(backbone, parts)
    await client.aclose()
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        answer = await http.post("/generate", content=b"".join(pack(request_of())))
    assert answer.status_code == 500
    assert answer.json()["code"] == "error"
    assert "secret" not in answer.text
