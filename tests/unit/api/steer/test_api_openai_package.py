"""The real `openai` package against a running server."""

import base64
import struct
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from app.rpc.generation import TokenLogprob, TokenLogprobs
from tests.fakes.api_calls import png
from tests.fakes.servers.worker import DIMENSION, FakeWorker, embedding_of

MODEL = "fake-a"


QUESTION: list[Any] = [{"role": "user", "content": "What colour?"}]


DATA_URL = "data:image/png;base64," + base64.b64encode(png()).decode()


def check_completion(answer: ChatCompletion) -> None:
    (choice,) = answer.choices
    assert (choice.message.role, choice.message.content) == ("assistant", "plain")
    assert (choice.finish_reason, choice.logprobs) == ("stop", None)
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2)
    assert answer.usage.total_tokens == 9
    assert (answer.object, answer.model) == ("chat.completion", MODEL)
    assert answer.id.startswith("chatcmpl-")
    facts = answer.model_dump()["vlibrary"]
    assert (facts["applied"], facts["backbone"]["name"]) == ([], MODEL)


def test_a_completion(client: openai.OpenAI) -> None:
    check_completion(client.chat.completions.create(model=MODEL, messages=QUESTION))


@pytest.mark.anyio
async def test_a_completion_of_the_async_client(async_client: openai.AsyncOpenAI) -> None:
    check_completion(await async_client.chat.completions.create(model=MODEL, messages=QUESTION))


def test_settings_and_parts_reach_the_worker(client: openai.OpenAI, worker: FakeWorker) -> None:
    parts: list[Any] = [
        {"type": "text", "text": "What colour"},
        {"type": "image_url", "image_url": {"url": DATA_URL, "detail": "low"}},
        {"type": "text", "text": "is it?"},
    ]
    client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "One word."}]},
            {"role": "user", "content": parts, "name": "someone"},
        ],
        max_completion_tokens=9,
        temperature=0.5,
        top_p=0.9,
        presence_penalty=0.25,
        frequency_penalty=-0.25,
        seed=-1,
        stop=["\n", "."],
        n=1,
        user="someone",
        metadata={"a": "b"},
        store=False,
        response_format={"type": "text"},
        extra_body={
            "vlibrary": {"top_k": 5, "repetition_penalty": 1.5, "min_p": 0.1, "baseline": True}
        },
    )
    (asked,) = worker.generated
    assert asked.prompt == "What colour\nis it?"
    assert [turn.parts for turn in asked.turns] == [
        ("Be brief.\nOne word.",),
        ("What colour", None, "is it?"),
    ]
    assert asked.images == (png(),)
    assert (asked.max_tokens, asked.temperature, asked.top_p) == (9, 0.5, 0.9)
    assert (asked.presence_penalty, asked.frequency_penalty) == (0.25, -0.25)
    assert (asked.seed, asked.stop) == (2**63 - 1, ("\n", "."))
    assert (asked.top_k, asked.repetition_penalty, asked.baseline) == (5, 1.5, True)
    assert asked.min_p == 0.1


def test_what_is_not_given_is_as_openai_has_it(client: openai.OpenAI, worker: FakeWorker) -> None:
    for _ in range(2):
        client.chat.completions.create(model=MODEL, messages=QUESTION, stop="x", max_tokens=3)
    first, second = worker.generated
    assert (first.temperature, first.top_p, first.top_k, first.logprobs) == (1.0, 1.0, 0, None)
    assert (first.instruction, first.stop, first.max_tokens) == (None, ("x",), 3)
    assert first.seed != second.seed


def check_chunks(chunks: list[ChatCompletionChunk], *, has_usage: bool) -> None:
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    if has_usage:
        *chunks, last = chunks
        assert last.choices == []
        assert last.usage is not None
        assert last.usage.total_tokens == 9
    assert all(chunk.usage is None for chunk in chunks)
    first, *middle, end = chunks
    assert first.choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == "plain"
    assert all(chunk.choices[0].finish_reason is None for chunk in (first, *middle))
    assert end.choices[0].finish_reason == "stop"
    assert end.model_dump()["vlibrary"]["receipt"]["num_forwards"] == 2


def test_a_stream(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model=MODEL, messages=QUESTION, stream=True))
    check_chunks(chunks, has_usage=False)


@pytest.mark.anyio
async def test_a_stream_of_the_async_client_with_usage(async_client: openai.AsyncOpenAI) -> None:
    stream = await async_client.chat.completions.create(
        model=MODEL, messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    check_chunks([chunk async for chunk in stream], has_usage=True)


def test_a_stream_helper_puts_the_answer_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=QUESTION) as stream:
        answer = stream.get_final_completion()
    assert answer.choices[0].message.content == "plain"


def test_log_probabilities(client: openai.OpenAI) -> None:
    options: Any = {"model": MODEL, "messages": QUESTION, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**options).choices[0].logprobs
    assert whole is not None
    assert whole.content is not None
    (token,) = whole.content
    assert (token.token, token.bytes, token.logprob) == ("a", [97], -1.0)
    assert [other.token for other in token.top_logprobs] == ["a", "b"]
    stream = client.chat.completions.create(**options, stream=True)
    found = [choice.logprobs for chunk in stream for choice in chunk.choices if choice.logprobs]
    assert found[0].content == whole.content


def test_a_part_of_a_character_has_the_bytes_of_what_is_shown(
    client: openai.OpenAI, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = worker._answer
    parts = [TokenLogprob(token_id=9, text=text, logprob=-1.0) for text in ("\ufffd", "é")]
    taken = TokenLogprobs(token_id=9, text="\ufffd", logprob=-1.0, top=tuple(parts))
    monkeypatch.setattr(
        worker, "_answer", lambda asked: honest(asked).model_copy(update={"logprobs": (taken,)})
    )
    answer = client.chat.completions.create(
        model=MODEL, messages=QUESTION, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    (token,) = logprobs.content
    assert (token.token, token.bytes) == ("\ufffd", list("\ufffd".encode()))
    assert [other.bytes for other in token.top_logprobs] == [None, list("é".encode())]


def test_of_tokens_that_read_alike_a_continuation_tells_the_likeliest(
    client: openai.OpenAI, worker: FakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = worker._answer
    said = zip(("red", "red", "a"), (-1.0, -3.0, -4.0), strict=True)
    top = tuple(TokenLogprob(token_id=9, text=text, logprob=value) for text, value in said)
    taken = TokenLogprobs(token_id=9, text="red", logprob=-1.0, top=top)
    monkeypatch.setattr(
        worker, "_answer", lambda asked: honest(asked).model_copy(update={"logprobs": (taken,)})
    )
    answer = client.completions.create(model=MODEL, prompt="What?", logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.top_logprobs is not None
    assert [list(one.items()) for one in logprobs.top_logprobs] == [[("red", -1.0), ("a", -4.0)]]


@pytest.mark.parametrize(
    "head", ["data:image/jpg;base64,", "data:IMAGE/PNG;base64,", "DATA:image/png;base64,"]
)
def test_images_as_clients_write_them(client: openai.OpenAI, worker: FakeWorker, head: str) -> None:
    url = head + base64.encodebytes(png()).decode()
    parts: list[Any] = [
        {"type": "text", "text": "What colour?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert worker.generated[0].images == (png(),)


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_embeddings(client: openai.OpenAI, encoding: Any) -> None:  # noqa: ANN401 - any literal
    options = {} if encoding is None else {"encoding_format": encoding}
    answer = client.embeddings.create(model=MODEL, input=["one", "two"], **options)
    assert [item.index for item in answer.data] == [0, 1]
    for item, text in zip(answer.data, ("one", "two"), strict=True):
        values = item.embedding
        if isinstance(values, str):
            values = list(struct.unpack(f"<{DIMENSION}f", base64.b64decode(values)))
        assert values == pytest.approx(embedding_of(None, text), abs=1e-6)
    assert answer.model == MODEL
    assert answer.usage.total_tokens == answer.usage.prompt_tokens == len("onetwo")
    assert answer.model_dump(warnings=False)["vlibrary"] == {
        "space": "fake-space",
        "dimension": DIMENSION,
        "ignored": [],
    }


def test_as_many_embeddings_as_clients_ask_for_at_once(
    client: openai.OpenAI, worker: FakeWorker
) -> None:
    texts = [f"text {number}" for number in range(2048)]
    answer = client.embeddings.create(model=MODEL, input=texts)
    assert [item.index for item in answer.data] == list(range(2048))
    for number in (0, 255, 256, 2047):
        wanted = pytest.approx(embedding_of(None, texts[number]), abs=1e-6)
        assert answer.data[number].embedding == wanted
    assert answer.usage.total_tokens == len("".join(texts))
    assert {len(request.questions) for request in worker.embedded} == {256}


@pytest.mark.anyio
async def test_embeddings_of_images(async_client: openai.AsyncOpenAI, worker: FakeWorker) -> None:
    images = [None, DATA_URL]
    answer = await async_client.embeddings.create(
        model=MODEL, input=["text", ""], extra_body={"vlibrary": {"images": images}}
    )
    assert answer.data[1].embedding == pytest.approx(embedding_of(png(), None), abs=1e-6)
    assert worker.embedded[0].images == (None, png())
    assert worker.embedded[0].questions == ("text", None)


def test_a_backbone_is_a_model(client: openai.OpenAI) -> None:
    assert client.models.retrieve(MODEL).id == MODEL
    assert client.models.retrieve(f"{MODEL}:auto").owned_by == "vlibrary"
