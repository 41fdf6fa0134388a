"""Text completions and responses, asked by the real `openai` package."""

import base64
import json
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.fakes.api_calls import png
from tests.fakes.servers.streams import events_in
from tests.fakes.servers.worker import FakeWorker

MODEL = "fake-a"
DATA_URL = "data:image/png;base64," + base64.b64encode(png()).decode()


def test_a_text_is_continued_as_it_stands(client: openai.OpenAI, worker: FakeWorker) -> None:
    answer = client.completions.create(
        model=MODEL, prompt="Once upon", max_tokens=5, n=2, seed=3, logprobs=2, stop="x"
    )
    assert (answer.object, answer.id[:5]) == ("text_completion", "cmpl-")
    assert [choice.text for choice in answer.choices] == ["plain", "plain"]
    assert answer.choices[0].finish_reason == "stop"
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert (logprobs.tokens, logprobs.token_logprobs, logprobs.text_offset) == (["a"], [-1], [0])
    assert logprobs.top_logprobs == [{"a": -1.0, "b": -2.0}]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4
    asked = worker.generated
    assert all((one.prompt, one.is_raw, one.turns) == ("Once upon", True, ()) for one in asked)
    assert sorted(one.seed for one in asked) == [3, 4]


def test_a_text_is_continued_in_a_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model=MODEL,
            prompt=["Once upon"],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *pieces, end, usage = chunks
    assert "".join(piece.choices[0].text for piece in pieces) == "plain"
    assert end.choices[0].finish_reason == "stop"
    assert usage.usage is not None
    assert usage.usage.total_tokens == 9
    assert all("usage" in one.model_fields_set and one.usage is None for one in (*pieces, end))
    silent = client.completions.create(model=MODEL, prompt="Once upon", stream=True)
    assert not any("usage" in one.model_fields_set for one in silent)


@pytest.mark.parametrize("stream", [False, True])
def test_several_texts_are_continued_in_their_order(
    client: openai.OpenAI,
    worker: FakeWorker,
    *,
    stream: Any,  # noqa: ANN401 - either literal
) -> None:
    answer: Any = client.completions.create(
        model=MODEL,
        prompt=["Once", "Twice", "Never"],
        n=2,
        seed=3,
        stream=stream,
        extra_body={"stream_options": {"include_usage": True}},
    )
    chunks = list(answer) if stream else [answer]
    texts = [""] * 6
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == ["plain"] * 6
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (21, 12, 33)
    asked = sorted((one.prompt, one.seed) for one in worker.generated)
    assert asked == [(text, seed) for text in ("Never", "Once", "Twice") for seed in (3, 4)]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": ["a", [1]]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt.1"),
        ({"prompt": ["a"] * 9}, "prompt"),
        ({"prompt": ["a"] * 3, "n": 3}, "body"),
        ({"prompt": None}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": "a", "vlibrary": {"demonstrations": {"dataset": "d"}}}, "vlibrary.demonstr"),
    ],
)
def test_what_no_completion_can_be_is_refused(
    url: str, worker: FakeWorker, *, body: dict[str, Any], param: str
) -> None:
    reply = httpx.post(f"{url}/completions", json={"model": MODEL, **body})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith(param)
    assert worker.generated == []


def test_a_response_to_a_question(client: openai.OpenAI, worker: FakeWorker) -> None:
    answer = client.responses.create(
        model=MODEL, input="What colour?", instructions="Be brief.", max_output_tokens=9, store=True
    )
    assert (answer.status, answer.output_text) == ("completed", "plain")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.total_tokens) == (7, 9)
    assert answer.model_dump()["vlibrary"]["ignored"] == ["store"]
    (asked,) = worker.generated
    assert [(turn.role, turn.parts) for turn in asked.turns] == [
        ("system", ("Be brief.",)),
        ("user", ("What colour?",)),
    ]
    assert asked.max_tokens == 9


def test_a_response_to_a_conversation_with_pictures(
    client: openai.OpenAI, worker: FakeWorker
) -> None:
    first = client.responses.create(model=MODEL, input="Hello")
    items: list[Any] = [
        {"role": "user", "content": "Hello"},
        *(item.model_dump() for item in first.output),
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is this?"},
                {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
            ],
        },
    ]
    client.responses.create(model=MODEL, input=items)
    asked = worker.generated[-1]
    assert [(turn.role, turn.parts) for turn in asked.turns] == [
        ("user", ("Hello",)),
        ("assistant", ("plain",)),
        ("user", ("What is this?", None)),
    ]
    assert asked.images == (png(),)


def test_empty_instructions_say_nothing(client: openai.OpenAI, worker: FakeWorker) -> None:
    made = client.responses.create(model=MODEL, input="Hello", instructions="")
    assert made.instructions == ""
    assert [turn.role for turn in worker.generated[-1].turns] == ["user"]


@pytest.mark.parametrize(
    ("reasoning", "ignored"),
    [
        (None, []),
        ({}, []),
        ({"effort": None, "summary": None}, []),
        ({"effort": "none"}, []),
        ({"summary": "auto"}, ["reasoning.summary"]),
    ],
)
def test_no_reasoning_can_be_asked_for(
    client: openai.OpenAI,
    reasoning: Any,  # noqa: ANN401 - JSON
    ignored: list[str],
) -> None:
    made = client.responses.create(model=MODEL, input="Hello", reasoning=reasoning)
    assert made.model_dump()["vlibrary"]["ignored"] == ignored


def test_a_response_in_a_stream(client: openai.OpenAI) -> None:
    with client.responses.stream(model=MODEL, input="What colour?") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert kinds[4:9] == ["response.output_text.delta"] * 5
    assert kinds[9:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert final.output_text == "plain"


def test_an_error_in_a_stream_of_a_response_is_raised(
    client: openai.OpenAI, worker: FakeWorker
) -> None:
    worker.breaks_after = 2
    stream = client.responses.create(model=MODEL, input="What colour?", stream=True)
    with pytest.raises(openai.APIError, match="ended the answer before its end"):
        list(stream)


def test_an_error_in_a_stream_of_a_response_is_an_event_as_the_others_are(
    url: str, worker: FakeWorker
) -> None:
    worker.breaks_after = 2
    reply = httpx.post(f"{url}/responses", json={"model": MODEL, "input": "q", "stream": True})
    *_, before, (kind, told) = events_in(reply.content)
    assert (kind, told["type"]) == ("error", "error")
    assert told["sequence_number"] == before[1]["sequence_number"] + 1
    assert "ended the answer before its end" in told["message"]
    assert (told["code"], told["param"]) == ("worker-unavailable", None)


def said(part: dict[str, Any]) -> list[dict[str, Any]]:
    question = {"type": "input_text", "text": "What is this?"}
    return [{"role": "user", "content": [part, question]}]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": "a"}] * 1_000, "instructions": "b"}, "body"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input.0.type"),
        ({"input": said({"type": "input_image"})}, "input.0.content.0"),
        ({"input": said({"type": "input_image", "file_id": "f"})}, "input.0.content.0"),
        (
            {"input": said({"type": "input_image", "image_url": "https://h/a.png"})},
            "input.0.content.0.image_url",
        ),
        (
            {"input": said({"type": "input_text", "text": "a", "image_url": DATA_URL})},
            "input.0.content.0",
        ),
        (
            {"input": said({"type": "input_image", "image_url": DATA_URL, "file_id": "f"})},
            "input.0.content.0.file_id",
        ),
        ({"input": "a", "max_tokens": 3}, "max_tokens"),
        ({"input": "a", "vector": "colours"}, "vector"),
        ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "tools"),
        ({"input": "a", "n": 2}, "n"),
        ({"input": "a", "messages": [{"role": "user", "content": "b"}]}, "messages"),
        ({"input": "a", "background": True}, "background"),
        (
            {"input": "a", "text": {"format": {"type": "json_schema", "name": "x"}}},
            "text.format",
        ),
        ({"input": "a", "text": {"format": {"schema": {"type": "object"}}}}, "text.format"),
        (
            {"input": "a", "text": {"format": {"type": "json_object", "schema": {}}}},
            "text.format",
        ),
        ({"input": "a", "reasoning": {"effort": "low"}}, "reasoning.effort"),
    ],
)
def test_what_no_response_can_be_is_refused(
    url: str, worker: FakeWorker, *, body: dict[str, Any], param: str
) -> None:
    reply = httpx.post(f"{url}/responses", json={"model": MODEL, **body})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"].startswith(param)
    assert worker.generated == []


@pytest.mark.parametrize(
    "item", [{"type": "item_reference", "id": "msg_1"}, {"type": "reasoning", "summary": []}]
)
def test_what_is_not_said_in_full_is_told_why(url: str, item: dict[str, Any]) -> None:
    items = [{"role": "user", "content": "a"}, item, {"role": "user", "content": "b"}]
    reply = httpx.post(f"{url}/responses", json={"model": MODEL, "input": items})
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "input.1.type"
    assert "wanted a message, as nothing is stored" in reply.json()["error"]["message"]


class Found(BaseModel):
    colour: str


def test_the_schema_of_a_class_is_sent(client: openai.OpenAI, worker: FakeWorker) -> None:
    # What the fake says is no JSON, which the package finds out.
    with pytest.raises(ValueError, match="Invalid JSON"):
        client.chat.completions.parse(
            model=MODEL,
            messages=[{"role": "user", "content": "What?"}],
            response_format=Found,
        )
    form = worker.generated[-1].structured_outputs
    assert form is not None
    assert json.loads(form.json_schema or "")["properties"]["colour"]["type"] == "string"
