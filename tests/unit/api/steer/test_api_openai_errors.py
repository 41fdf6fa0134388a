import base64
from typing import Any

import httpx
import pytest

from tests.fakes.api_calls import png
from tests.fakes.servers.streams import events_in
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.anyio


MODEL = "fake-a"


USER = {"role": "user", "content": "What colour?"}


REMOTE = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/x.png"}}
PICTURE = {
    "type": "image_url",
    "image_url": "data:image/png;base64," + base64.b64encode(png()).decode(),
}


async def chat(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    content = {"model": MODEL, "messages": [USER], **body}
    return await http.post("/v1/chat/completions", json=content)


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


async def test_an_error_after_the_beginning_is_the_last_event(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.breaks_after = 1
    events = events_in((await chat(http, stream=True)).content)
    assert events[-1][0] == "message"
    assert events[-1][1]["error"]["type"] == "server_error"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": user("")}, "messages", "no text"),
        ({"messages": user([PICTURE])}, "messages", "no text"),
        ({"messages": user(None)}, "messages", "no text"),
        ({"messages": user([])}, "messages", "no text"),
        ({"messages": user("a\x00b")}, "messages.0.content.0.text", "NUL"),
        ({"messages": user(3)}, "messages.0.content", "valid list"),
        ({"messages": []}, "messages", "List should have at least 1"),
        ({"messages": user([{"type": "text"}])}, "messages.0.content.0", "exactly the field"),
        ({"messages": user([{"type": "input_audio"}])}, "messages.0.content.0.type", "'text'"),
        ({"messages": user([{"type": "input_image"}])}, "messages.0.content.0.type", "'image_url'"),
        ({"messages": user([REMOTE])}, "messages.0.content.0.image_url.url", "nothing is fetched"),
        ({"messages": [USER, {"role": "assistant", "content": "red"}]}, "messages", "assistant"),
        ({"messages": [USER, {"role": "system", "content": "x"}]}, "messages", "role system"),
        ({"messages": [{"role": "system", "content": "x"}]}, "messages", "role system"),
        ({"messages": [{"role": "tool", "content": "x"}, USER]}, "messages", "role tool"),
        ({"messages": [{**USER, "images": ["AA=="]}]}, "messages.0.images", "change the answer"),
        ({"messages": [{**USER, "tool_calls": [{}]}]}, "messages.0.tool_calls", "not supported"),
        (
            {"messages": [USER, {"role": "assistant", "refusal": "I cannot."}, USER]},
            "messages.1.refusal",
            "change the answer",
        ),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role", "'system'"),
        ({"vector": "colours"}, "vector", "below vlibrary"),
        ({"strength": 0.5}, "strength", "below vlibrary"),
        ({"demonstrations": {"dataset": "d"}}, "demonstrations", "below vlibrary"),
        ({"extra_body": {"vlibrary": {"vector": "x"}}}, "extra_body", "change the answer"),
        ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs", "change the answer"),
        ({"enable_thinking": True}, "enable_thinking", "change the answer"),
        ({"web_search_options": {}}, "web_search_options", "change the answer"),
        ({"media_io_kwargs": {"image": {}}}, "media_io_kwargs", "change the answer"),
        ({"repeat_penalty": 1.2}, "repeat_penalty", "change the answer"),
        ({"prompt": "What colour?"}, "prompt", "change the answer"),
        ({"input": "What colour?"}, "input", "change the answer"),
        ({"max_tokens": -2}, "max_tokens", "greater"),
        ({"max_output_tokens": 3}, "max_output_tokens", "change the answer"),
        ({"system": "Be brief."}, "system", "change the answer"),
        ({"max_tokens": 0}, "max_tokens", "greater"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "body", "differ"),
        ({"temperature": 2.1}, "temperature", "less than"),
        ({"top_p": -0.1}, "top_p", "greater"),
        ({"seed": "1"}, "seed", "integer"),
        ({"stop": ["x"] * 17}, "stop", "16"),
        ({"presence_penalty": 3}, "presence_penalty", "less"),
        ({"top_logprobs": 2}, "body", "needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less"),
        ({"n": 9}, "n", "less than or equal to 8"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"tool_choice": "required"}, "tool_choice", "not supported"),
        ({"functions": [{"name": "f"}]}, "functions", "not supported"),
        ({"best_of": 2}, "best_of", "not supported"),
        ({"ignore_eos": True}, "ignore_eos", "not supported"),
        ({"verbosity": "low"}, "verbosity", "not supported"),
        ({"logit_bias": {"1": 5}}, "logit_bias", "not supported"),
        ({"prediction": {"type": "content"}}, "prediction", "not supported"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "not supported"),
        ({"thinking": {"type": "enabled"}}, "thinking", "not supported"),
        ({"do_sample": False}, "do_sample", "not supported"),
        ({"skip_special_tokens": False}, "skip_special_tokens", "not supported"),
        ({"add_generation_prompt": False}, "add_generation_prompt", "not supported"),
        ({"json_schema": {"type": "object"}}, "json_schema", "not supported"),
        ({"system_prompt": "Be brief."}, "system_prompt", "not supported"),
        ({"dry_multiplier": 0.8}, "dry_multiplier", "not supported"),
        ({"modalities": ["text", "audio"]}, "modalities", "not supported"),
        ({f"x{n}": 1 for n in range(65)}, "body", "more than 64"),
        ({"vlibrary": {"strength": 11}}, "vlibrary.strength", "less"),
        ({"vlibrary": {"strength": 5}}, "vlibrary.strength", "no vector"),
        ({"vlibrary": {"nonsense": 1}}, "vlibrary.nonsense", "not permitted"),
        (
            {"model": f"{MODEL}:a", "vlibrary": {"vector": "b"}},
            "vlibrary.vector",
            "use one of them",
        ),
        ({"vlibrary": {"vector": "UPPER"}}, None, "The vector reference must have"),
    ],
)
async def test_what_cannot_be_done_is_a_bad_request_with_its_place(
    http: httpx.AsyncClient, worker: FakeWorker, *, body: dict[str, Any], param: str, words: str
) -> None:
    response = await chat(http, **body)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid-input")
    assert (error["param"] or "").startswith(param or "")
    assert words in error["message"]
    assert worker.generated == []


async def test_more_parts_than_images_are_taken_are_refused(http: httpx.AsyncClient) -> None:
    parts: list[object] = [{"type": "text", "text": "q"}]
    parts += [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}] * 63
    response = await chat(http, messages=user(parts))
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too-large")
    assert (await chat(http, messages=user([*parts, parts[0]]))).status_code == 400


async def test_an_image_that_is_none_is_a_bad_request(http: httpx.AsyncClient) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    response = await chat(http, messages=user([{"type": "text", "text": "q"}, part]))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid-image")


async def test_images_belong_to_the_question(http: httpx.AsyncClient) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "system", "content": [image]}, USER]
    response = await chat(http, messages=messages)
    assert response.status_code == 400
    assert "system message has no images" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "text/json", "application/x-ndjson", None],
)
async def test_a_body_that_does_not_say_that_it_is_json_is_told_so(
    http: httpx.AsyncClient, kind: str | None
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    for path in ("/v1/chat/completions", "/steer/generate"):
        response = await http.post(path, content='{"model": "fake-a"}', headers=headers)
        assert "content-type: application/json" in response.text
    headers = {"content-type": "application/json"}
    response = await http.post("/v1/chat/completions", content="[1]", headers=headers)
    assert response.json()["error"]["message"] == "body: Input should be a valid object"


@pytest.mark.parametrize(
    "content", ["{", "", "null", '{"messages": "\\ud800"}', '{"model": "\\ud800", "messages": []}']
)
async def test_malformed_json_is_a_bad_request(http: httpx.AsyncClient, content: str) -> None:
    response = await http.post(
        "/v1/chat/completions", content=content, headers={"content-type": "application/json"}
    )
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_the_input_is_never_echoed(http: httpx.AsyncClient) -> None:
    secret = "hunter2"  # noqa: S105 - stands for what a caller typed
    for body in (
        {"model": secret},
        {"temperature": secret},
        {"messages": user(secret + "\x00")},
        {"tools": [secret]},
        {"stop": {secret: secret}},
    ):
        response = await chat(http, **body)
        assert response.status_code >= 400
        assert secret not in response.text


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "not-found"),
        ("GET", "/v1", 404, "not-found"),
        ("DELETE", "/v1/models", 405, "method-not-allowed"),
        ("GET", "/v1/models", 503, "unavailable"),
        ("GET", f"/v1/models/{MODEL}:colours", 503, "unavailable"),
    ],
)
async def test_every_error_below_v1_has_openais_shape(
    http: httpx.AsyncClient, *, method: str, path: str, status: int, code: str
) -> None:
    response = await http.request(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert ("retry-after" in response.headers) == (status == 503)


async def test_refusals_of_the_outer_layers_have_openais_shape(http: httpx.AsyncClient) -> None:
    foreign = await http.post("/v1/chat/completions", headers={"sec-fetch-site": "cross-site"})
    assert (foreign.status_code, foreign.json()["error"]["type"]) == (403, "permission_error")
    large = await http.post("/v1/chat/completions", content=b"{" + b" " * 1_000_001)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too-large")
    assert "at most 1000000 bytes" in large.json()["error"]["message"]
    host = await http.get("/v1/models", headers={"host": "evil.example"})
    assert (host.status_code, host.json()["error"]["code"]) == (400, "bad-request")


@pytest.mark.parametrize(
    "path",
    [
        "/chat/completions",
        "/v1/v1/chat/completions",
        "//v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions/chat/completions",
        "/api/v1/chat/completions",
        "/embeddings",
        "/models",
        "/v1",
    ],
)
async def test_a_wrong_base_url_is_told_the_right_one(http: httpx.AsyncClient, path: str) -> None:
    response = await http.post(f"http://127.0.0.1:8000{path}", json={})
    assert response.status_code == 404
    assert "http://127.0.0.1:8000/v1" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/vectors/models"),
        ("PUT", "/vectors/gears/aliases/completions"),
        ("DELETE", "/datasets/responses?dry_run=true"),
    ],
)
async def test_what_is_called_like_a_route_of_openais_has_problems_as_ever(
    http: httpx.AsyncClient, method: str, path: str
) -> None:
    response = await http.request(method, path, json={"wrong": 1})
    assert (response.status_code, response.json()["code"]) == (422, "invalid-input")
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/v11", "/api/chat", "/api/tags", "/tokenize", "/version"])
async def test_other_paths_tell_it_in_a_problem(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(path)
    assert (response.status_code, response.json()["code"]) == (404, "not-found")
    assert response.headers["content-type"] == "application/problem+json"
    for told in ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/docs"):
        assert told in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"input": ""}, "not empty"),
        ({"input": []}, "at least 1"),
        ({"input": [1, 2, 3]}, "found token ids"),
        ({"input": [[1], [2]]}, "found token ids"),
        ({"input": ["x"] * 2049}, "2048"),
        ({"input": "a\x00b"}, "NUL"),
        ({"input": "x", "encoding_format": "hex"}, "'float'"),
        ({"input": "x", "vlibrary": {"images": ["AA==", "AA=="]}}, "as many"),
        ({"input": ["x", ""], "vlibrary": {"images": ["AA==", None]}}, "not empty"),
        ({"input": "x", "vlibrary": {"images": ["AA=="]}}, "damaged"),
        ({"input": "x", "model": f"{MODEL}:colours"}, "no vector steers them"),
    ],
)
async def test_what_cannot_be_embedded_is_a_bad_request(
    http: httpx.AsyncClient, worker: FakeWorker, *, body: dict[str, object], words: str
) -> None:
    response = await http.post("/v1/embeddings", json={"model": MODEL, **body})
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]
    assert worker.embedded == []
