"""Errors tell fields by the names that callers of OpenAI's routes have for them."""

from typing import Any

import httpx
import pytest

from app.rpc.messages import ErrorBody
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.anyio

MODEL = "fake-a"
FORM = {"type": "json_object"}
QUESTION = {"messages": [{"role": "user", "content": "What colour?"}]}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("path", "body", "inner", "param"),
    [
        (
            "/v1/chat/completions",
            {**QUESTION, "response_format": FORM},
            "structured_outputs",
            "response_format",
        ),
        (
            "/v1/chat/completions",
            {**QUESTION, "structured_outputs": {"regex": "a"}},
            "structured_outputs",
            "structured_outputs",
        ),
        ("/v1/chat/completions", QUESTION, "messages", "messages"),
        (
            "/v1/responses",
            {"input": "q", "text": {"format": FORM}},
            "structured_outputs",
            "text.format",
        ),
        (
            "/v1/responses",
            {"input": "q", "structured_outputs": {"regex": "a"}},
            "structured_outputs",
            "structured_outputs",
        ),
        ("/v1/responses", {"input": "q"}, "messages", "input"),
        (
            "/v1/completions",
            {"prompt": "q", "structured_outputs": {"regex": "a"}},
            "structured_outputs",
            "structured_outputs",
        ),
    ],
)
async def test_an_error_of_the_worker_names_the_field_that_the_caller_has_for_it(
    http: httpx.AsyncClient,
    worker: FakeWorker,
    *,
    path: str,
    body: dict[str, Any],
    inner: str,
    param: str,
    stream: bool,
) -> None:
    worker.error = ErrorBody(
        code="invalid-input", message=f"{inner}: the reason", details={"param": inner}
    )
    response = await http.post(path, json={"model": MODEL, "stream": stream, **body})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["param"], error["message"]) == (param, f"{param}: the reason")


async def test_a_conversation_of_responses_is_told_as_the_input(http: httpx.AsyncClient) -> None:
    for given in ("", [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]):
        response = await http.post("/v1/responses", json={"model": MODEL, "input": given})
        assert (response.status_code, response.json()["error"]["param"]) == (400, "input")
