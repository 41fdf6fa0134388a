import base64
from dataclasses import replace

import httpx
import pytest

from app.api.dependencies import Services
from tests.fakes.api_calls import png
from tests.fakes.servers.streams import events_in
from tests.fakes.servers.worker import FakeWorker

pytestmark = pytest.mark.anyio


MODEL = "fake-a"


USER = {"role": "user", "content": "What colour?"}
TEXT = {"type": "text", "text": "What colour?"}
PICTURE = {
    "type": "image_url",
    "image_url": "data:image/png;base64," + base64.b64encode(png()).decode(),
}


async def respond(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await http.post("/v1/responses", json={"model": MODEL, **body})


async def chat(http: httpx.AsyncClient, **body: object) -> httpx.Response:
    content = {"model": MODEL, "messages": [USER], **body}
    return await http.post("/v1/chat/completions", json=content)


def user(content: object) -> list[dict[str, object]]:
    return [{"role": "user", "content": content}]


async def test_a_stream_is_data_only_and_ends_with_done(http: httpx.AsyncClient) -> None:
    response = await chat(http, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "x-vlibrary-vector" not in response.headers
    *chunks, (kind, done) = events_in(response.content)
    assert (kind, done) == ("message", "[DONE]")
    first, second, *_, last = (data for _, data in chunks)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert second["choices"][0]["delta"] == {"content": "p"}
    assert "vlibrary" not in second
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["vlibrary"]["applied"] == []


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [], "tool_choice": "none", "functions": None, "logit_bias": {}},
        {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"},
        {"parallel_tool_calls": True, "modalities": ["text"], "safety_identifier": "x"},
        {"prompt_cache_key": "x", "prompt_cache_retention": "24h", "n": None, "seed": None},
        {"max_tokens": 4, "max_completion_tokens": 4, "logprobs": False, "stop": None},
        {"vlibrary": None, "vector": None, "repeat_penalty": 1.0, "extra_body": {}},
        {"functions": [], "function_call": "auto", "do_sample": True, "skip_special_tokens": True},
        {"chat_template_kwargs": {"enable_thinking": False}, "enable_thinking": False},
        {"web_search_options": None, "media_io_kwargs": {}, "vllm_xargs": {}},
        {"dry_multiplier": 0, "xtc_probability": 0.0, "no_repeat_ngram_size": 0, "num_beams": 1},
        {"messages": [{"role": "user", "content": [{**PICTURE, "text": ""}, TEXT]}]},
    ],
)
async def test_what_changes_nothing_is_taken(
    http: httpx.AsyncClient, body: dict[str, object]
) -> None:
    assert (await chat(http, **body)).status_code == 200


async def test_what_is_ignored_is_told_by_its_place(http: httpx.AsyncClient) -> None:
    part = {"type": "text", "text": "What colour?", "cache_control": {"type": "ephemeral"}}
    response = await chat(
        http,
        messages=[{"role": "user", "content": [part], "timestamp": 1, "refusal": None}],
        keep_alive="5m",
        user="someone",
        min_p=0,
        guided_json=None,
        response_format={"type": "text"},
        stream_options={"include_usage": True, "extra": 1},
    )
    assert response.status_code == 200
    ignored = response.json()["vlibrary"]["ignored"]
    assert sorted(ignored) == [
        "keep_alive",
        "messages.0.content.0.cache_control",
        "messages.0.timestamp",
        "stream_options.extra",
        "user",
    ]


async def test_unknown_fields_can_be_refused(
    http: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = services.settings.model_copy(update={"openai_unknown": "refuse"})
    monkeypatch.setitem(services.__dict__, "settings", strict)
    assert (await chat(http, user="u", metadata={"a": "b"}, nonsense=None)).status_code == 200
    response = await chat(http, messages=[{**USER, "nonsense": 1}])
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages.0.nonsense"


async def test_what_openai_itself_answers_is_taken_back_where_unknown_fields_are_refused(
    http: httpx.AsyncClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = services.settings.model_copy(update={"openai_unknown": "refuse"})
    monkeypatch.setitem(services.__dict__, "settings", strict)
    output = (await respond(http, input="What colour?")).json()["output"]
    turns = [{"role": "user", "content": "What colour?"}, {**output[0], "phase": "final_answer"}]
    again = await respond(
        http,
        input=[*turns, {"role": "user", "content": "What shape?"}],
        reasoning={"summary": "auto"},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        max_tool_calls=1,
    )
    assert again.status_code == 200, again.text
    assert "input.1.status" in again.json()["vlibrary"]["ignored"]


@pytest.mark.parametrize(
    ("body", "asked", "fits"),
    [
        ({}, 64, True),
        ({"max_tokens": 64}, 64, False),
        ({"max_tokens": 65}, 64, True),
        ({"max_completion_tokens": 384_000}, 64, True),
        ({"max_tokens": -1}, 64, True),
    ],
)
async def test_more_tokens_than_there_can_be_are_made_less(
    http: httpx.AsyncClient,
    worker: FakeWorker,
    *,
    body: dict[str, object],
    asked: int,
    fits: bool,
) -> None:
    response = await chat(http, **body)
    assert response.status_code == 200
    assert response.json()["vlibrary"]["max_tokens"] == asked
    assert [(one.max_tokens, one.fits_context) for one in worker.generated] == [(asked, fits)]


async def test_a_conversation_reaches_the_worker_in_its_order(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    first, second = (
        "data:image/png;base64," + base64.b64encode(png(colour)).decode()
        for colour in ("red", "blue")
    )
    response = await chat(
        http,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "One word."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "This:"},
                    {"type": "image_url", "image_url": first},
                    {"type": "text", "text": "What"},
                    {"type": "text", "text": ""},
                    {"type": "text", "text": "is it?"},
                ],
            },
            {"role": "assistant", "content": "disc", "refusal": None, "tool_calls": []},
            {"role": "system", "content": ""},
            {"role": "user", "content": "Sure?", "name": "ann"},
            {"role": "assistant", "content": None},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": second}},
                    {"type": "text", "text": "And this?"},
                ],
            },
        ],
    )
    assert response.status_code == 200
    (asked,) = worker.generated
    assert [(turn.role, turn.parts) for turn in asked.turns] == [
        ("system", ("Be brief.\nOne word.",)),
        ("user", ("This:", None, "What\nis it?")),
        ("assistant", ("disc",)),
        ("user", ("Sure?",)),
        ("assistant", ("",)),
        ("user", (None, "And this?")),
    ]
    assert (asked.prompt, asked.images) == ("And this?", (png("red"), png("blue")))


async def test_several_answers_have_seeds_of_their_own(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    answer = (await chat(http, n=3, seed=2**63 - 2)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    assert all(choice["vlibrary"]["receipt"] for choice in answer["choices"])
    assert answer["usage"] == {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
    assert sorted(one.seed for one in worker.generated) == [0, 2**63 - 2, 2**63 - 1]

    worker.generated.clear()
    response = await chat(http, n=2, stream=True, stream_options={"include_usage": True})
    *chunks, usage, (_, done) = events_in(response.content)
    assert done == "[DONE]"
    assert usage[1]["usage"]["completion_tokens"] == 4
    assert [chunk["usage"] for _, chunk in chunks] == [None] * len(chunks)
    texts = ["", ""]
    for _, chunk in chunks:
        (choice,) = chunk["choices"]
        texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == ["plain", "plain"]
    assert len({one.seed for one in worker.generated}) == 2


async def test_a_model_tells_its_context_and_what_it_takes(
    http: httpx.AsyncClient, worker: FakeWorker
) -> None:
    worker.description = replace(worker.description, max_position_embeddings=2048)
    model = (await http.get(f"/v1/models/{MODEL}")).json()
    assert (model["root"], model["parent"], model["max_model_len"]) == (MODEL, None, 2048)
    assert model["architecture"]["input_modalities"] == ["text", "image"]
