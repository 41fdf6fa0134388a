import inspect
from base64 import b64encode
from collections.abc import Iterator

import anyio
import httpx
import pytest
from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from tests.fakes.api_calls import png

pytestmark = pytest.mark.anyio


async def test_an_answer_waits_for_no_thread_that_others_hold(http: httpx.AsyncClient) -> None:
    limiter = current_default_thread_limiter()
    holders = [object() for _ in range(int(limiter.total_tokens))]
    for holder in holders:
        limiter.acquire_on_behalf_of_nowait(holder)
    body = {"prompt": "what is it?", "images": [b64encode(png()).decode()]}
    try:
        with anyio.fail_after(5):
            response = await http.post("/steer/generate", json=body)
    finally:
        for holder in holders:
            limiter.release_on_behalf_of(holder)
    assert response.status_code == 200, response.text


async def test_no_route_and_none_of_its_dependencies_is_called_in_a_thread(api: FastAPI) -> None:
    called = {
        needed.call
        for context in iter_route_contexts(api.routes)
        if hasattr(context, "dependant")
        for needed in _needed(context.dependant)
    }
    in_threads = [
        call
        for call in called
        if not inspect.iscoroutinefunction(call)
        and not inspect.isasyncgenfunction(call)
        and not inspect.iscoroutinefunction(getattr(type(call), "__call__", None))  # noqa: B004
    ]
    assert called
    assert in_threads == []


def _needed(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for other in dependant.dependencies:
        yield from _needed(other)
