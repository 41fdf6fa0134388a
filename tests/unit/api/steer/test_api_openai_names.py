"""Errors tell fields by the names that callers of OpenAI's routes have for them."""

import base64
from typing import Any

import httpx
import pytest

from app.rpc.messages import ErrorBody
from tests.fakes.api_calls import png
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


def _conversation(field: str, kind: str, *pictures: bytes) -> dict[str, Any]:
    """Two turns, the pictures in the second."""
    shown = []
    for data in pictures:
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        shown.append({"type": kind, "image_url": url})
    text = {"type": kind.replace("image_url", "text").replace("image", "text"), "text": "q"}
    first = {"role": "user", "content": "q"}
    return {field: [first, {"role": "user", "content": [text, *shown]}]}


CHAT = ("/v1/chat/completions", "messages", "image_url")
RESPONSES = ("/v1/responses", "input", "input_image")


@pytest.mark.parametrize("source", ["api", "worker"])
@pytest.mark.parametrize(("path", "field", "kind"), [CHAT, RESPONSES])
async def test_a_refused_picture_is_named_by_where_it_stands(
    http: httpx.AsyncClient, worker: FakeWorker, *, path: str, field: str, kind: str, source: str
) -> None:
    if source == "worker":
        worker.error = ErrorBody(
            code="invalid-image", message="images.1: damaged", details={"param": "images.1"}
        )
    body = _conversation(field, kind, png(), png() if source == "worker" else b"GIF89a")
    error = (await http.post(path, json={"model": MODEL, **body})).json()["error"]
    assert error["param"] == f"{field}.1.content.2.image_url"
    assert error["message"].startswith(f"{error['param']}: ")


async def test_the_only_picture_is_named_as_well(http: httpx.AsyncClient) -> None:
    body = _conversation("messages", "image_url", b"GIF89a")
    error = (await http.post(CHAT[0], json={"model": MODEL, **body})).json()["error"]
    assert error["param"] == "messages.1.content.1.image_url"
    problem = (await http.post("/steer/generate", json=body)).json()
    assert problem["details"]["param"] == error["param"]


async def test_the_picture_of_a_query_is_named(http: httpx.AsyncClient) -> None:
    body = {"image": base64.b64encode(b"GIF89a").decode()}
    assert (await http.post("/retrieve", json=body)).json()["details"]["param"] == "image"


async def test_of_embedded_pictures_the_refused_one_is_named(http: httpx.AsyncClient) -> None:
    given = [None, base64.b64encode(png()).decode(), base64.b64encode(b"GIF89a").decode()]
    body = {"model": MODEL, "input": ["a", "", ""], "vlibrary": {"images": given}}
    error = (await http.post("/v1/embeddings", json=body)).json()["error"]
    assert error["param"] == "vlibrary.images.2"
    assert error["message"].startswith("vlibrary.images.2: ")


LONG = "x" * 40_000
FIVE = [{"type": "text", "text": "x" * 30_000}] * 5


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": LONG}]},
            "messages.0.content.0.text",
            "32768",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": FIVE}]},
            "messages",
            "131072",
        ),
        ("completions", {"prompt": ["x", LONG]}, "prompt.1", "32768"),
        ("embeddings", {"input": LONG}, "input.0", "32768"),
        ("responses", {"input": LONG}, "input.0.content.0.text", "32768"),
        ("responses", {"input": "x", "instructions": LONG}, "instructions", "32768"),
    ],
)
async def test_texts_of_too_many_characters_are_told_as_a_prompt_that_is_too_long(
    http: httpx.AsyncClient, *, path: str, body: dict[str, Any], param: str, words: str
) -> None:
    response = await http.post(f"/v1/{path}", json={"model": MODEL, **body})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", param)
    assert words in error["message"]


async def test_another_field_that_is_too_long_is_no_prompt(http: httpx.AsyncClient) -> None:
    for body in ({"stop": LONG}, {"model": LONG}):
        response = await http.post(CHAT[0], json={"model": MODEL, **QUESTION, **body})
        assert response.json()["error"]["code"] == "invalid-input"
