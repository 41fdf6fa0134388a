"""The form of an answer, as callers of every route ask for it, reaches the worker as one thing."""

from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from app.api.schemas.openai.formats import TextFormat
from app.rpc.generation import StructuredOutputs
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.anyio

MODEL = "fake-a"
SCHEMA = {"type": "object", "properties": {"colour": {"type": "string"}}}
NAMED = {"name": "found", "schema": SCHEMA, "strict": True}
MESSAGES = [{"role": "user", "content": "What?"}]


def _form(**fields: Any) -> StructuredOutputs:  # noqa: ANN401 - JSON
    return StructuredOutputs.model_validate(fields)


@pytest.mark.parametrize(
    ("path", "body", "wanted"),
    [
        ("/steer/generate", {"structured_outputs": {"json": SCHEMA}}, _form(json=SCHEMA)),
        (
            "/v1/chat/completions",
            {"response_format": {"type": "json_schema", "json_schema": NAMED}},
            _form(json=SCHEMA),
        ),
        (
            "/v1/chat/completions",
            {"response_format": {"type": "json_object"}},
            _form(json_object=True),
        ),
        (
            "/v1/chat/completions",
            {"response_format": {"type": "text"}, "structured_outputs": {"regex": "a+"}},
            _form(regex="a+"),
        ),
        (
            "/v1/completions",
            {"structured_outputs": {"choice": ["a", "b"], "json": None}},
            _form(choice=["a", "b"]),
        ),
        (
            "/v1/responses",
            {"text": {"format": {"type": "json_schema", **NAMED}}},
            _form(json=SCHEMA),
        ),
        ("/v1/responses", {"structured_outputs": {"regex": "a+"}}, _form(regex="a+")),
        ("/v1/responses", {"text": {"format": {"type": "text"}}}, None),
    ],
)
async def test_a_form_reaches_the_worker(
    http: httpx.AsyncClient,
    worker: FakeWorker,
    *,
    path: str,
    body: dict[str, Any],
    wanted: StructuredOutputs | None,
) -> None:
    others: dict[str, Any] = {"/v1/chat/completions": {"messages": MESSAGES}}
    others |= {"/v1/responses": {"input": "What?"}}
    model = {} if path == "/steer/generate" else {"model": MODEL}
    reply = await http.post(path, json={**others.get(path, {"prompt": "What?"}), **model, **body})
    assert reply.status_code == 200, reply.text
    assert worker.generated[-1].structured_outputs == wanted
    if path == "/v1/responses":
        asked = body.get("text", {}).get("format", {"type": "text"})
        assert reply.json()["text"]["format"] == asked


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, "response_format.schema"),
        ({"response_format": {"type": "json_object", "json_schema": NAMED}}, "response_format"),
        ({"response_format": {"type": "text", "json_schema": NAMED}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}, ""),
        ({"structured_outputs": {"grammar": "start: x"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
        ({"structured_outputs": {"regex": "a" * 100_001}}, "structured_outputs.regex"),
        ({"guided_json": SCHEMA}, "guided_json"),
    ],
)
async def test_other_forms_are_refused_with_their_place(
    http: httpx.AsyncClient, worker: FakeWorker, *, body: dict[str, Any], param: str
) -> None:
    asked = {"model": MODEL, "messages": MESSAGES, **body}
    reply = await http.post("/v1/chat/completions", json=asked)
    assert reply.status_code == 400
    assert (reply.json()["error"]["param"] or "").startswith(param)
    assert worker.generated == []


def nested(depth: int) -> dict[str, Any]:
    return {"items": nested(depth - 1)} if depth else {}


@pytest.mark.parametrize("schema", [nested(300), {"title": "\ud800"}])
def test_a_format_that_a_response_cannot_repeat_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="cannot be sent back"):
        TextFormat.model_validate({"type": "json_schema", "schema": schema})
    with pytest.raises(ValidationError, match="cannot be sent back"):
        TextFormat.model_validate({"type": "text", "unknown": schema})
    TextFormat.model_validate({"type": "json_schema", "schema": nested(100)})
